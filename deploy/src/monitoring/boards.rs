//! The boards: the fabric as a whole, one peer, policy, and the agents themselves.

use api::metric::{self as m, Metric};

use super::dashboard::{Board, Panel, Shape};
use super::series;

/// All boards.
pub(super) fn all() -> Vec<Board> {
    vec![fabric(), peer(), policy(), agents()]
}

/// The chosen nodes' series of a metric, with more matchers.
fn of(metric: Metric, matchers: &str) -> String {
    let separator = if matchers.is_empty() { "" } else { "," };
    format!("{}{{node=~\"$node\"{separator}{matchers}}}", series(metric))
}

fn total(metric: Metric, matchers: &str) -> String {
    format!("sum({})", of(metric, matchers))
}

fn by_node(metric: Metric) -> String {
    format!("sum by (node) ({})", of(metric, ""))
}

fn rate(metric: Metric, matchers: &str) -> String {
    format!("rate({}[$__rate_interval])", of(metric, matchers))
}

fn quantile(quantile: &str, metric: Metric) -> String {
    format!("histogram_quantile({quantile}, sum by (le) ({}))", rate(metric, ""))
}

fn values(metric: Metric, label: &str) -> String {
    format!("label_values({}, {label})", series(metric))
}

fn lines(
    title: &'static str,
    description: &'static str,
    unit: &'static str,
    queries: Vec<(String, &'static str)>,
) -> Panel {
    Panel { title, description, shape: Shape::Lines, unit, queries }
}

fn number(
    title: &'static str,
    description: &'static str,
    unit: &'static str,
    query: String,
) -> Panel {
    Panel { title, description, shape: Shape::Number, unit, queries: vec![(query, "")] }
}

fn fabric() -> Board {
    Board {
        name: "fabric",
        path: "monitoring/dashboards/fabric.json",
        chart_path: "chart/rampart/files/dashboards/fabric.json",
        title: "Rampart / Fabric",
        node: values(m::READY, "node"),
        peer: None,
        rows: vec![
            vec![
                number(
                    "Nodes",
                    "Agents that answer",
                    "none",
                    format!("count({})", of(m::READY, "")),
                ),
                number(
                    "Not ready",
                    "Agents that are not ready",
                    "none",
                    format!("count({} == 0) or vector(0)", of(m::READY, "")),
                ),
                number(
                    "Uplinks down",
                    "Sessions with switches and other configured peers",
                    "none",
                    format!(
                        "count({} == 0) or vector(0)",
                        of(m::BGP_PEER_UP, "kind=~\"tor|peer\"")
                    ),
                ),
                number(
                    "Mesh sessions missing",
                    "Configured and not established, both ends counted",
                    "none",
                    format!(
                        "{} - {}",
                        total(m::BGP_MESH_PEERS, ""),
                        total(m::BGP_MESH_PEERS_ESTABLISHED, "")
                    ),
                ),
                number("Routes refused", "By the kernel", "none", total(m::ROUTES_FAILED, "")),
            ],
            vec![Panel {
                title: "Sessions with switches, reflectors and configured peers",
                description: "Established or not, by node and peer",
                shape: Shape::States,
                unit: "none",
                queries: vec![(of(m::BGP_PEER_UP, ""), "{{node}} {{peer}}")],
            }],
            vec![
                lines(
                    "Prefixes with a best path",
                    "By node: they should all know the same",
                    "none",
                    vec![(by_node(m::BGP_PREFIXES), "{{node}}")],
                ),
                lines(
                    "Routes in the kernel",
                    "Wanted and acknowledged",
                    "none",
                    vec![
                        (by_node(m::ROUTES_DESIRED), "{{node}} wanted"),
                        (by_node(m::ROUTES_INSTALLED), "{{node}} installed"),
                    ],
                ),
                lines(
                    "Convergence",
                    "From an UPDATE or a lost session until the kernel has all routes that follow",
                    "s",
                    vec![
                        (quantile("0.5", m::CONVERGENCE), "median"),
                        (quantile("0.99", m::CONVERGENCE), "99 %"),
                    ],
                ),
            ],
            vec![
                lines(
                    "Mesh sessions",
                    "Established, by node",
                    "none",
                    vec![(by_node(m::BGP_MESH_PEERS_ESTABLISHED), "{{node}}")],
                ),
                lines(
                    "Routes repaired",
                    "After somebody else changed them",
                    "none",
                    vec![(
                        format!("increase({}[$__rate_interval])", of(m::ROUTES_REPAIRED, "")),
                        "{{node}}",
                    )],
                ),
            ],
            vec![
                lines(
                    "BGP traffic",
                    "Octets a second, all sessions",
                    "Bps",
                    vec![
                        (format!("sum({})", rate(m::BGP_OCTETS_RECEIVED, "")), "received"),
                        (format!("sum({})", rate(m::BGP_OCTETS_SENT, "")), "sent"),
                    ],
                ),
                lines(
                    "Connections refused",
                    "To the BGP port, from who is no peer",
                    "cps",
                    vec![(rate(m::BGP_CONNECTIONS_REFUSED, ""), "{{node}}")],
                ),
            ],
        ],
    }
}

fn peer() -> Board {
    const PEER: &str = "peer=~\"$peer\"";
    Board {
        name: "peer",
        path: "monitoring/dashboards/peer.json",
        chart_path: "chart/rampart/files/dashboards/peer.json",
        title: "Rampart / Peer",
        node: values(m::READY, "node"),
        peer: Some(values(m::BGP_PEER_UP, "peer")),
        rows: vec![
            vec![Panel {
                title: "Session",
                description: "Established or not",
                shape: Shape::States,
                unit: "none",
                queries: vec![(of(m::BGP_PEER_UP, PEER), "{{node}} {{peer}}")],
            }],
            vec![
                lines(
                    "Prefixes",
                    "What the peer holds out, what of it we accept, what we announce",
                    "none",
                    vec![
                        (of(m::BGP_PEER_RECEIVED, PEER), "{{node}} {{peer}} received"),
                        (of(m::BGP_PEER_ACCEPTED, PEER), "{{node}} {{peer}} accepted"),
                        (of(m::BGP_PEER_SENT, PEER), "{{node}} {{peer}} sent"),
                    ],
                ),
                lines(
                    "Stale paths",
                    "Kept for a peer that restarts, and not yet sent again",
                    "none",
                    vec![(of(m::BGP_PEER_STALE, PEER), "{{node}} {{peer}}")],
                ),
                lines(
                    "Part of maxPrefixes",
                    "At 100 % the session is closed",
                    "percentunit",
                    vec![(of(m::BGP_PEER_PREFIX_LIMIT, PEER), "{{node}} {{peer}}")],
                ),
            ],
            vec![
                lines(
                    "Ups and downs",
                    "Changes of the session",
                    "none",
                    vec![(
                        format!(
                            "increase({}[$__rate_interval])",
                            of(m::BGP_PEER_TRANSITIONS, PEER)
                        ),
                        "{{node}} {{peer}}",
                    )],
                ),
                lines(
                    "Age of the session",
                    "Since it came up",
                    "s",
                    vec![(
                        format!("time() - {}", of(m::BGP_PEER_ESTABLISHED_TIMESTAMP, PEER)),
                        "{{node}} {{peer}}",
                    )],
                ),
            ],
            vec![
                lines(
                    "Messages",
                    "A second, by type",
                    "mps",
                    vec![(
                        rate(m::BGP_PEER_MESSAGES, PEER),
                        "{{node}} {{peer}} {{direction}} {{type}}",
                    )],
                ),
                lines(
                    "Notifications",
                    "What ended sessions (RFC 4271 section 4.5)",
                    "none",
                    vec![(
                        format!(
                            "increase({}[$__rate_interval])",
                            of(m::BGP_PEER_NOTIFICATIONS, PEER)
                        ),
                        "{{node}} {{peer}} {{direction}} {{code}}",
                    )],
                ),
            ],
        ],
    }
}

fn policy() -> Board {
    Board {
        name: "policy",
        path: "monitoring/dashboards/policy.json",
        chart_path: "chart/rampart/files/dashboards/policy.json",
        title: "Rampart / Policy",
        node: values(m::READY, "node"),
        peer: None,
        rows: vec![
            vec![
                number(
                    "Policies",
                    "NetworkPolicy objects in force",
                    "none",
                    format!("max({})", of(m::POLICIES, "")),
                ),
                number("Pods", "Known to the tables", "none", total(m::ENDPOINTS, "")),
                number(
                    "Isolated",
                    "In at least one direction",
                    "none",
                    total(m::ENDPOINTS_ISOLATED, ""),
                ),
                number(
                    "Nodes behind",
                    "Input that the kernel has not acknowledged yet",
                    "none",
                    format!(
                        "count({} > {}) or vector(0)",
                        of(m::GENERATION_DESIRED, ""),
                        of(m::GENERATION_PROGRAMMED, "")
                    ),
                ),
            ],
            vec![
                lines(
                    "Change to in force",
                    "From the change of an object until the kernel has it",
                    "s",
                    vec![
                        (quantile("0.5", m::POLICY_APPLY), "median"),
                        (quantile("0.99", m::POLICY_APPLY), "99 %"),
                    ],
                ),
                lines(
                    "New pods",
                    "From the plugin's request until the pod's policy is in the kernel",
                    "s",
                    vec![
                        (quantile("0.5", m::POD_GATE), "median"),
                        (quantile("0.99", m::POD_GATE), "99 %"),
                    ],
                ),
            ],
            vec![
                lines(
                    "Pods held back",
                    "Requests refused since the policy was not there in time",
                    "none",
                    vec![(
                        format!("increase({}[$__rate_interval])", of(m::POD_GATE_TIMEOUTS, "")),
                        "{{node}}",
                    )],
                ),
                lines(
                    "Transactions",
                    "Of the kernel table, a second",
                    "ops",
                    vec![
                        (rate(m::NFT_TRANSACTIONS, ""), "{{node}} taken"),
                        (rate(m::NFT_REFUSED, ""), "{{node}} refused"),
                    ],
                ),
            ],
            vec![
                lines(
                    "Set elements",
                    "In the kernel table",
                    "none",
                    vec![(by_node(m::NFT_SET_ELEMENTS), "{{node}}")],
                ),
                lines(
                    "Table repaired",
                    "After somebody else changed it",
                    "none",
                    vec![(
                        format!("increase({}[$__rate_interval])", of(m::NFT_REPAIRED, "")),
                        "{{node}}",
                    )],
                ),
            ],
        ],
    }
}

fn agents() -> Board {
    Board {
        name: "agents",
        path: "monitoring/dashboards/agents.json",
        chart_path: "chart/rampart/files/dashboards/agents.json",
        title: "Rampart / Agents",
        node: values(m::READY, "node"),
        peer: None,
        rows: vec![
            vec![
                number(
                    "Versions",
                    "One, unless an upgrade is under way",
                    "none",
                    format!("count(count by (version) ({}))", of(m::BUILD_INFO, "")),
                ),
                number("Complaints", "That stand now", "none", total(m::PROBLEMS, "")),
                number(
                    "Stale",
                    "Nodes where an object is not in force as it is written",
                    "none",
                    total(m::CONFIG_STALE, ""),
                ),
                number(
                    "Who sums up",
                    "Agents that write the conditions of all",
                    "none",
                    total(m::STATUS_LEADER, ""),
                ),
            ],
            vec![
                Panel {
                    title: "Ready",
                    description: "/readyz",
                    shape: Shape::States,
                    unit: "none",
                    queries: vec![(of(m::READY, ""), "{{node}}")],
                },
                lines(
                    "Complaints by code",
                    "rctl explain CODE",
                    "none",
                    vec![(format!("sum by (code) ({})", of(m::PROBLEMS, "")), "{{code}}")],
                ),
            ],
            vec![
                lines(
                    "Silence of the API server",
                    "Since the last event, bookmark or list, by kind",
                    "s",
                    vec![(format!("max by (kind) ({})", of(m::KUBE_WATCH_LAG, "")), "{{kind}}")],
                ),
                lines(
                    "Failed attempts",
                    "By stage, a second",
                    "ops",
                    vec![(
                        format!("sum by (stage) ({})", rate(m::RECONCILE_ERRORS, "")),
                        "{{stage}}",
                    )],
                ),
            ],
            vec![
                lines(
                    "Writes to the API server",
                    "A second",
                    "wps",
                    vec![(
                        format!("sum by (object, result) ({})", rate(m::KUBE_WRITES, "")),
                        "{{object}} {{result}}",
                    )],
                ),
                lines(
                    "Events not written",
                    "Too many were due",
                    "none",
                    vec![(
                        format!("increase({}[$__rate_interval])", of(m::KUBE_EVENTS_DROPPED, "")),
                        "{{node}}",
                    )],
                ),
            ],
            vec![
                lines("Processor", "Cores", "none", vec![(rate(m::PROCESS_CPU, ""), "{{node}}")]),
                lines("Memory", "Resident", "bytes", vec![(of(m::PROCESS_MEMORY, ""), "{{node}}")]),
                lines(
                    "Open files",
                    "Descriptors",
                    "none",
                    vec![(of(m::PROCESS_OPEN_FILES, ""), "{{node}}")],
                ),
                lines(
                    "Age",
                    "Since the agent started",
                    "s",
                    vec![(format!("time() - {}", of(m::PROCESS_START, "")), "{{node}}")],
                ),
            ],
        ],
    }
}

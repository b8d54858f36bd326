//! What can be listed and described: how it is asked for, merged, named and laid out.

use std::collections::BTreeMap;

use api::control::{EndpointView, NodeView, PeerView, PolicyView, RouteView};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::{Serialize, de::DeserializeOwned};

use crate::output::Column;
use crate::output::duration::short;

/// The kinds that `get` and `describe` know, singular and plural and short, as kubectl accepts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nodes of the cluster.
    Nodes,
    /// BGP neighbours.
    Peers,
    /// Prefixes in the Loc-RIB and what the kernel does with them.
    Routes,
    /// NetworkPolicies.
    NetworkPolicies,
    /// Pods of the nodes that answer.
    Endpoints,
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Nodes, Self::Peers, Self::Routes, Self::NetworkPolicies, Self::Endpoints]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Nodes => PossibleValue::new("nodes").aliases(["node", "no"]),
            Self::Peers => PossibleValue::new("peers").aliases(["peer", "bgppeer", "bgppeers"]),
            Self::Routes => PossibleValue::new("routes").aliases(["route", "rt"]),
            Self::NetworkPolicies => PossibleValue::new("networkpolicy").aliases([
                "networkpolicies",
                "netpol",
                "netpols",
                "np",
            ]),
            Self::Endpoints => {
                PossibleValue::new("endpoints").aliases(["endpoint", "ep", "pods", "pod"])
            }
        })
    }
}

impl Kind {
    /// The node whose agent alone has to be asked for what belongs to `node`. Every agent knows
    /// every Node, also one whose own agent is silent.
    #[must_use]
    pub const fn asker<'a>(&self, node: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::Nodes => None,
            Self::Peers | Self::Routes | Self::NetworkPolicies | Self::Endpoints => node,
        }
    }
}

/// One listable kind.
pub trait Resource: Clone + Serialize + DeserializeOwned + Send + 'static {
    /// Type name in JSON and in `-o name`.
    const KIND: &'static str;
    /// Plural for messages.
    const PLURAL: &'static str;
    /// Path on the control socket.
    const PATH: &'static str;
    /// Layout; a namespaced kind has its NAMESPACE column first.
    const COLUMNS: &'static [Column<Self>];

    /// Makes one list of the lists of several agents, sorted.
    fn merge(answers: Vec<Vec<Self>>) -> Vec<Self>;
    /// Namespace; `None` for a cluster-scoped kind.
    fn namespace(&self) -> Option<&str>;
    /// What NAME on the command line is compared with.
    fn name(&self) -> String;
    /// Node that it belongs to.
    fn node(&self) -> Option<&str>;
    /// Labels for `-l`.
    fn labels(&self) -> Option<&BTreeMap<String, String>> {
        None
    }
    /// Does NAME, as typed, mean this one? By default its name.
    fn is_called(&self, name: &str) -> bool {
        self.name() == name
    }
    /// Keeps those that NAME means.
    fn retain_called(items: &mut Vec<Self>, name: &str) {
        items.retain(|item| item.is_called(name));
    }
    /// Everything about it, for `describe`.
    fn describe(&self) -> String;
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn option<T: ToString>(item: Option<&T>) -> String {
    item.map(ToString::to_string).unwrap_or_default()
}

/// `2/2`, or `1/2!` when something is missing: trouble must show without colour.
fn part(some: u64, all: u64) -> String {
    format!("{some}/{all}{}", if some < all { "!" } else { "" })
}

/// `in,eg`, `in`, `eg` or nothing.
fn directions(ingress: bool, egress: bool) -> String {
    match (ingress, egress) {
        (true, true) => "in,eg",
        (true, false) => "in",
        (false, true) => "eg",
        (false, false) => "",
    }
    .to_owned()
}

impl Resource for NodeView {
    const KIND: &'static str = "Node";
    const PLURAL: &'static str = "nodes";
    const PATH: &'static str = "/v1/nodes";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NODE", |n| n.name.clone()),
        Column::new("RACK", |n| option(n.rack.as_ref())),
        Column::new("AGENT", |n| n.agent.as_ref().map(|a| a.version.clone()).unwrap_or_default()),
        Column::new("READY", |n| {
            n.agent
                .as_ref()
                .map(|a| if a.ready { "yes" } else { "no!" }.to_owned())
                .unwrap_or_default()
        }),
        Column::new("PEERS", |n| {
            n.agent
                .as_ref()
                .map(|a| part(a.peers_established.into(), a.peers.into()))
                .unwrap_or_default()
        }),
        Column::new("ROUTES", |n| {
            n.agent.as_ref().map(|a| a.routes.to_string()).unwrap_or_default()
        }),
        Column::new("DRIFT", |n| n.agent.as_ref().map(|a| a.drift.to_string()).unwrap_or_default()),
        Column::new("POLICY-GEN", |n| n.agent.as_ref().map(generations).unwrap_or_default()),
        Column::new("PODS", |n| {
            n.agent.as_ref().map(|a| a.endpoints.to_string()).unwrap_or_default()
        }),
        Column::volatile("AGE", |n| {
            n.agent.as_ref().map(|a| short(a.uptime_seconds)).unwrap_or_default()
        }),
        Column::wide("ADDRESSES", |n| list(&n.addresses)),
        Column::wide("POD-CIDRS", |n| list(&n.pod_cidrs)),
    ];

    fn merge(answers: Vec<Vec<Self>>) -> Vec<Self> {
        let mut nodes = BTreeMap::<String, Self>::new();
        for node in answers.into_iter().flatten() {
            // Every agent knows every node; only a node's own agent knows its own state.
            let known = nodes.entry(node.name.clone()).or_insert_with(|| node.clone());
            if node.agent.is_some() {
                *known = node;
            }
        }
        nodes.into_values().collect()
    }

    fn namespace(&self) -> Option<&str> {
        None
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn node(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn labels(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.labels)
    }

    fn describe(&self) -> String {
        super::describe::node(self)
    }
}

/// `812=812`, or `811<812!` while the kernel lags behind the input.
fn generations(agent: &api::control::AgentView) -> String {
    if agent.programmed_generation == agent.desired_generation {
        format!("{}={}", agent.programmed_generation, agent.desired_generation)
    } else {
        format!("{}<{}!", agent.programmed_generation, agent.desired_generation)
    }
}

impl Resource for PeerView {
    const KIND: &'static str = "Peer";
    const PLURAL: &'static str = "peers";
    const PATH: &'static str = "/v1/peers";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NODE", |p| p.node.clone()),
        Column::new("PEER", |p| p.name.clone()),
        Column::new("KIND", |p| p.kind.clone()),
        Column::new("REMOTE-AS", |p| p.remote_asn.to_string()),
        Column::new("STATE", |p| format!("{}{}", p.state, if is_up(p) { "" } else { "!" })),
        Column::volatile(
            "UPTIME",
            |p| if is_up(p) { short(p.since_seconds) } else { String::new() },
        ),
        Column::new("RCVD", |p| while_up(p, p.received)),
        Column::new("ACC", |p| while_up(p, p.accepted)),
        Column::new("SENT", |p| while_up(p, p.sent)),
        Column::wide("ADDRESS", |p| p.address.to_string()),
        Column::wide("ROUTER-ID", |p| option(p.router_id.as_ref())),
        Column::wide("FAMILIES", |p| p.families.join(",")),
        Column::wide("HOLD", |p| {
            if is_up(p) {
                format!("{}/{}", p.hold_time_seconds, p.keepalive_seconds)
            } else {
                String::new()
            }
        }),
        Column::wide("GR", graceful_restart),
        Column::wide("STALE", |p| p.graceful_restart.stale.values().sum::<u64>().to_string()),
        // What went wrong before it came up is history: `describe` tells it.
        Column::new("LAST-ERROR", |p| match &p.last_error {
            Some(error) if !is_up(p) => format!("{} ({})", error.message, error.code),
            Some(_) | None => String::new(),
        }),
    ];

    fn merge(answers: Vec<Vec<Self>>) -> Vec<Self> {
        let mut peers: Vec<_> = answers.into_iter().flatten().collect();
        peers.sort_by(|a, b| (&a.node, &a.name, a.address).cmp(&(&b.node, &b.name, b.address)));
        peers
    }

    fn namespace(&self) -> Option<&str> {
        None
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn node(&self) -> Option<&str> {
        Some(&self.node)
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || name.parse() == Ok(self.address)
    }

    fn describe(&self) -> String {
        super::describe::peer(self)
    }
}

fn is_up(peer: &PeerView) -> bool {
    peer.state == "Established"
}

/// What goes on, or whether a restart would be graceful.
fn graceful_restart(peer: &PeerView) -> String {
    let restart = &peer.graceful_restart;
    match restart.phase.as_str() {
        "" | "none" if restart.negotiated && restart.families.is_empty() => "ours".to_owned(),
        "" | "none" if restart.negotiated => "yes".to_owned(),
        "" | "none" if is_up(peer) => "no".to_owned(),
        "" | "none" => String::new(),
        phase => phase.to_owned(),
    }
}

fn while_up(peer: &PeerView, count: u64) -> String {
    if is_up(peer) { count.to_string() } else { String::new() }
}

impl Resource for RouteView {
    const KIND: &'static str = "Route";
    const PLURAL: &'static str = "routes";
    const PATH: &'static str = "/v1/routes";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NODE", |r| r.node.clone()),
        Column::new("PREFIX", |r| r.prefix.clone()),
        Column::new("ORIGIN", |r| r.origin.clone()),
        Column::new("NEXT-HOP", next_hops),
        Column::new("FROM", |r| used(r).map(|p| p.from.clone()).collect::<Vec<_>>().join(",")),
        Column::new("AS-PATH", |r| r.paths.first().map(|p| p.as_path.clone()).unwrap_or_default()),
        Column::new("LP", |r| {
            r.paths.first().map(|p| p.local_pref.to_string()).unwrap_or_default()
        }),
        Column::wide("PATHS", |r| r.paths.len().to_string()),
        Column::volatile("AGE", |r| {
            r.paths.first().map(|p| short(p.age_seconds)).unwrap_or_default()
        }),
        Column::new("FIB", |r| {
            if r.fib_next_hops.len() > 1 {
                format!("{} (ecmp {})", r.fib, r.fib_next_hops.len())
            } else {
                r.fib.clone()
            }
        }),
    ];

    fn merge(answers: Vec<Vec<Self>>) -> Vec<Self> {
        let mut routes: Vec<_> = answers.into_iter().flatten().collect();
        // By prefix as numbers, not as text; every agent's list comes sorted that way.
        routes.sort_by_cached_key(|r| {
            (r.node.clone(), r.prefix.parse::<ipnet::IpNet>().ok(), r.prefix.clone())
        });
        routes
    }

    fn namespace(&self) -> Option<&str> {
        None
    }

    fn name(&self) -> String {
        self.prefix.clone()
    }

    fn node(&self) -> Option<&str> {
        Some(&self.node)
    }

    fn is_called(&self, name: &str) -> bool {
        self.prefix == name
            || match (name.parse::<ipnet::IpNet>(), self.prefix.parse::<ipnet::IpNet>()) {
                (Ok(asked), Ok(own)) => asked.trunc() == own,
                (Err(_), _) | (_, Err(_)) => false,
            }
    }

    /// An address means the route that packets to it take on each node: the longest prefix.
    fn retain_called(items: &mut Vec<Self>, name: &str) {
        let Ok(address) = name.parse::<std::net::IpAddr>() else {
            return items.retain(|item| item.is_called(name));
        };
        let length = |route: &Self| {
            let prefix = route.prefix.parse::<ipnet::IpNet>().ok()?;
            prefix.contains(&address).then(|| prefix.prefix_len())
        };
        let mut longest = BTreeMap::<String, u8>::new();
        for route in items.iter() {
            if let Some(length) = length(route) {
                let known = longest.entry(route.node.clone()).or_insert(length);
                *known = length.max(*known);
            }
        }
        items.retain(|route| {
            length(route).is_some_and(|own| longest.get(&route.node) == Some(&own))
        });
    }

    fn describe(&self) -> String {
        super::describe::route(self)
    }
}

fn used(route: &RouteView) -> impl Iterator<Item = &api::control::PathView> {
    route.paths.iter().filter(|p| p.best || p.multipath)
}

fn next_hops(route: &RouteView) -> String {
    let hops: Vec<_> = used(route).filter_map(|p| p.next_hop).collect();
    list(&hops)
}

impl Resource for PolicyView {
    const KIND: &'static str = "NetworkPolicy";
    const PLURAL: &'static str = "network policies";
    const PATH: &'static str = "/v1/networkpolicies";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NAMESPACE", |p| p.namespace.clone()),
        Column::new("NAME", |p| p.name.clone()),
        Column::new("KIND", |p| p.kind.clone()),
        Column::new("SELECTS", |p| p.selects.to_string()),
        Column::new("RULES", |p| {
            format!(
                "{}/{}{}",
                p.ingress_rules,
                p.egress_rules,
                if p.faults.is_empty() { "" } else { "!" }
            )
        }),
        Column::new("ISOLATES", |p| directions(p.isolates_ingress, p.isolates_egress)),
        Column::new("MODE", |p| p.mode.clone()),
        Column::new("PROGRAMMED", |p| part(p.programmed, p.selects_local)),
        Column::wide("POD-SELECTOR", |p| p.pod_selector.clone()),
        Column::wide("NODES", |p| p.node.clone()),
    ];

    /// One row a policy: what it selects on each node is added up, and `node` names those nodes.
    fn merge(answers: Vec<Vec<Self>>) -> Vec<Self> {
        let mut policies = BTreeMap::<(String, String), (Self, Vec<String>)>::new();
        for policy in answers.into_iter().flatten() {
            let key = (policy.namespace.clone(), policy.name.clone());
            let node = (policy.selects_local > 0).then(|| policy.node.clone());
            match policies.entry(key) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert((policy, node.into_iter().collect()));
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    let (merged, nodes) = entry.get_mut();
                    merged.selects_local += policy.selects_local;
                    merged.programmed += policy.programmed;
                    for fault in policy.faults {
                        if !merged.faults.contains(&fault) {
                            merged.faults.push(fault);
                        }
                    }
                    nodes.extend(node);
                }
            }
        }
        policies
            .into_values()
            .map(|(mut policy, mut nodes)| {
                nodes.sort();
                policy.node = nodes.join(",");
                policy
            })
            .collect()
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn node(&self) -> Option<&str> {
        None
    }

    fn describe(&self) -> String {
        super::describe::policy(self)
    }
}

impl Resource for EndpointView {
    const KIND: &'static str = "Endpoint";
    const PLURAL: &'static str = "endpoints";
    const PATH: &'static str = "/v1/endpoints";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NAMESPACE", |e| e.namespace.clone()),
        Column::new("POD", |e| e.name.clone()),
        Column::new("IP", |e| list(&e.addresses)),
        Column::new("NODE", |e| e.node.clone()),
        Column::new("IFACE", |e| option(e.interface.as_ref())),
        Column::new("ISOLATED", |e| directions(e.isolated_ingress, e.isolated_egress)),
        Column::new("POLICIES", |e| e.policies.len().to_string()),
        Column::new("PROGRAMMED", |e| if e.programmed { "yes" } else { "no!" }.to_owned()),
        Column::wide("CHAINS", |e| e.chains.join(",")),
    ];

    fn merge(answers: Vec<Vec<Self>>) -> Vec<Self> {
        let mut endpoints: Vec<_> = answers.into_iter().flatten().collect();
        endpoints.sort_by(|a, b| {
            (&a.namespace, &a.name, &a.node).cmp(&(&b.namespace, &b.name, &b.node))
        });
        endpoints
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.namespace)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn node(&self) -> Option<&str> {
        Some(&self.node)
    }

    fn labels(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.labels)
    }

    fn describe(&self) -> String {
        super::describe::endpoint(self)
    }
}

//! The alerts. Each has a runbook in `deploy/runbooks`, of the same name.

use api::metric as m;
use serde_json::{Value, json};

use super::series;

/// One alert.
#[derive(Debug)]
struct Alert {
    name: &'static str,
    expression: String,
    /// How long it must hold.
    during: &'static str,
    severity: Severity,
    summary: &'static str,
    description: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Severity {
    /// Traffic is lost or will be: somebody should get up.
    Critical,
    /// Redundancy or freshness is lost: look at it today.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    fn label(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// The rule groups.
pub(super) fn groups() -> Value {
    let rules = |alerts: Vec<Alert>| alerts.iter().map(rule).collect::<Vec<_>>();
    json!({
        "groups": [
            { "name": "rampart-bgp", "rules": rules(bgp()) },
            { "name": "rampart-routes", "rules": rules(routes()) },
            { "name": "rampart-policy", "rules": rules(policy()) },
            { "name": "rampart-agent", "rules": rules(agent()) },
        ],
    })
}

fn rule(alert: &Alert) -> Value {
    json!({
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.during,
        "labels": { "severity": alert.severity.label() },
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": format!("{}/runbooks/{}", env!("CARGO_PKG_REPOSITORY"), alert.name),
        },
    })
}

/// Peers that somebody configured: switches, and peers in our AS.
const UPLINK: &str = "{kind=~\"tor|peer\"}";

fn bgp() -> Vec<Alert> {
    let up = series(m::BGP_PEER_UP);
    let received = series(m::BGP_PEER_RECEIVED);
    let (mesh, mesh_up) = (series(m::BGP_MESH_PEERS), series(m::BGP_MESH_PEERS_ESTABLISHED));
    let (mesh_down, stale) = (series(m::BGP_MESH_PEER_DOWN), series(m::BGP_PEER_STALE));
    vec![
        Alert {
            name: "RampartUplinkDown",
            expression: format!("{up}{UPLINK} == 0"),
            during: "2m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: the session with {{ $labels.peer }} is down",
            description: "The node has one way out less. rctl describe peer {{ $labels.peer }} --node {{ $labels.node }} says why.",
        },
        Alert {
            name: "RampartAllUplinksDown",
            expression: format!("sum by (node) ({up}{UPLINK}) == 0"),
            during: "30s",
            severity: Severity::Critical,
            summary: "{{ $labels.node }} has no session with any top-of-rack switch",
            description: "Pods of the node are cut off from other racks, unless the switches still keep its routes (graceful restart).",
        },
        Alert {
            name: "RampartReflectorRedundancyLost",
            expression: format!(
                "sum by (node) ({up}{{kind=\"reflector\"}}) < 2 and count by (node) ({up}{{kind=\"reflector\"}}) >= 2"
            ),
            during: "5m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }} has {{ $value }} of its route reflectors",
            description: "With the next reflector the node loses the routes to other nodes.",
        },
        // Once for the node that is down, and not once on each node that misses it. Who has lost most
        // of the mesh is himself the reason, and does not blame the others.
        Alert {
            name: "RampartMeshIncomplete",
            expression: format!(
                "count by (peer) ({mesh_down} == 1 and on (node) {mesh_up} * 2 >= {mesh} - 1)"
            ),
            during: "10m",
            severity: Severity::Warning,
            summary: "{{ $labels.peer }}: {{ $value }} nodes have no session with it",
            description: "Its pods and those of these nodes cannot reach each other directly. If it is only one node, the trouble is between the two.",
        },
        Alert {
            name: "RampartMeshLost",
            expression: format!("count({mesh_up} * 2 < {mesh} - 1) > 1"),
            during: "5m",
            severity: Severity::Critical,
            summary: "{{ $value }} nodes have lost most of their sessions with other nodes",
            description: "It is not one node that is down: look for what they have in common. rctl get peers shows who reaches whom.",
        },
        Alert {
            name: "RampartStalePathsKept",
            expression: format!("max by (node, peer, kind) ({stale}{{kind!=\"mesh\"}}) > 0"),
            during: "4m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: {{ $labels.peer }} restarts since long, {{ $value }} paths are kept",
            description: "Traffic goes where the peer led before its restart, whether it still leads there or not (graceful restart). The paths go at the stale time.",
        },
        Alert {
            name: "RampartPeerFlapping",
            expression: format!("increase({}[15m]) > 6", series(m::BGP_PEER_TRANSITIONS)),
            during: "0m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: the session with {{ $labels.peer }} comes and goes",
            description: "More than three times in a quarter of an hour. Every time routes change on both sides.",
        },
        Alert {
            name: "RampartNoRoutesFromPeer",
            expression: format!(
                "{up}{UPLINK} == 1 and on (node, peer, kind) {received}{UPLINK} == 0"
            ),
            during: "10m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: {{ $labels.peer }} is up and announces nothing",
            description: "Usually the switch has no outbound policy (RFC 8212), or address families differ.",
        },
        Alert {
            name: "RampartPrefixLimitNear",
            expression: format!("{} > 0.8", series(m::BGP_PEER_PREFIX_LIMIT)),
            during: "5m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: {{ $labels.peer }} is at {{ $value | humanizePercentage }} of maxPrefixes",
            description: "At 100 % the session is closed.",
        },
    ]
}

fn routes() -> Vec<Alert> {
    vec![
        Alert {
            name: "RampartRoutesNotProgrammed",
            expression: format!("{} > 0", series(m::ROUTES_FAILED)),
            during: "2m",
            severity: Severity::Critical,
            summary: "{{ $labels.node }}: the kernel refuses {{ $value }} routes",
            description: "They are tried again. Until then traffic for these destinations takes another way or none.",
        },
        Alert {
            name: "RampartConvergenceSlow",
            expression: format!(
                "histogram_quantile(0.99, sum by (node, le) (rate({}[10m]))) > 5",
                series(m::CONVERGENCE)
            ),
            during: "10m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: routes are in the kernel {{ $value | humanizeDuration }} after the news",
            description: "99th percentile of 10 minutes, from an UPDATE or a lost session until the kernel has acknowledged all that follows.",
        },
        Alert {
            name: "RampartRoutesChangedByOthers",
            expression: format!("increase({}[1h]) > 5", series(m::ROUTES_REPAIRED)),
            during: "0m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: something else changes our routes",
            description: "They are repaired at once, and it goes on. Known for it: systemd-networkd without ManageForeignRoutes=no.",
        },
    ]
}

fn policy() -> Vec<Alert> {
    let (desired, programmed) = (series(m::GENERATION_DESIRED), series(m::GENERATION_PROGRAMMED));
    let apply = series(m::POLICY_APPLY);
    vec![
        Alert {
            name: "RampartPolicyNotProgrammed",
            expression: format!("{desired} > {programmed} and changes({programmed}[2m]) == 0"),
            during: "2m",
            severity: Severity::Critical,
            summary: "{{ $labels.node }}: the kernel has not taken the latest policy",
            description: "What was in force before is still in force; new pods are held back.",
        },
        Alert {
            name: "RampartPolicyProgrammingSlow",
            expression: format!(
                "histogram_quantile(0.99, sum by (node, le) (rate({apply}[10m]))) > 5"
            ),
            during: "10m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: a change of policy takes {{ $value | humanizeDuration }} to be in force",
            description: "99th percentile of 10 minutes.",
        },
        Alert {
            name: "RampartPodsHeldBack",
            expression: format!("increase({}[10m]) > 0", series(m::POD_GATE_TIMEOUTS)),
            during: "0m",
            severity: Severity::Critical,
            summary: "{{ $labels.node }}: pods do not start since their policy is not in the kernel",
            description: "They are tried again by kubelet. A pod never runs without its policy.",
        },
        Alert {
            name: "RampartTableRefused",
            expression: format!("increase({}[10m]) > 0", series(m::NFT_REFUSED)),
            during: "0m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: the kernel refused a change of the table",
            description: "It is tried again, then the whole table is made anew in one transaction. Until it works the old table is in force.",
        },
        Alert {
            name: "RampartTableChangedByOthers",
            expression: format!("increase({}[1h]) > 0", series(m::NFT_REPAIRED)),
            during: "0m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: something else changed table inet rampart",
            description: "It was repaired. Between change and repair policy may not have been in force.",
        },
    ]
}

fn agent() -> Vec<Alert> {
    let ready = series(m::READY);
    vec![
        Alert {
            name: "RampartAgentNotReady",
            expression: format!("{ready} == 0"),
            during: "5m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: the agent is not ready",
            description: "Routes and policy of before stay. rctl status --node {{ $labels.node }} says what is missing.",
        },
        Alert {
            name: "RampartAgentsGone",
            expression: format!("absent({ready})"),
            during: "10m",
            severity: Severity::Critical,
            summary: "No agent answers Prometheus",
            description: "Either none runs, or none can be scraped: then this alert is the only one that works.",
        },
        Alert {
            name: "RampartConfigStale",
            expression: format!("{} == 1", series(m::CONFIG_STALE)),
            during: "15m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: an object is not in force as it is written",
            description: "Its last good version is. rctl status --node {{ $labels.node }} names object and field.",
        },
        Alert {
            name: "RampartWatchLag",
            expression: format!("max by (node) ({}) > 180", series(m::KUBE_WATCH_LAG)),
            during: "5m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }} has heard nothing from the API server for {{ $value | humanizeDuration }}",
            description: "Routes and policy stay as they are; changes do not arrive.",
        },
        Alert {
            name: "RampartReconcileErrors",
            expression: format!(
                "sum by (node, stage) (increase({}[15m])) > 10",
                series(m::RECONCILE_ERRORS)
            ),
            during: "15m",
            severity: Severity::Warning,
            summary: "{{ $labels.node }}: {{ $labels.stage }} fails again and again",
            description: "source: reading the API server, table: nf_tables, routes: rtnetlink, report: writing status and events.",
        },
        Alert {
            name: "RampartVersionSkew",
            expression: format!("count(count by (version) ({})) > 1", series(m::BUILD_INFO)),
            during: "2h",
            severity: Severity::Info,
            summary: "Agents of {{ $value }} versions run",
            description: "An upgrade has not come to its end.",
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_alert_has_a_runbook_with_its_four_parts_and_no_runbook_is_left_over() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
        let alerts: Vec<Alert> =
            [bgp(), routes(), policy(), agent()].into_iter().flatten().collect();
        for alert in &alerts {
            let path = directory.join(format!("{}.md", alert.name));
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for part in ["# Rampart", "## Meaning\n", "## Impact\n", "## Check\n", "## Fix\n"] {
                assert!(text.contains(part), "{}: {part}", path.display());
            }
        }
        let names: BTreeSet<String> =
            alerts.iter().map(|alert| format!("{}.md", alert.name)).collect();
        let files = std::fs::read_dir(directory).unwrap();
        let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        assert_eq!(files.collect::<BTreeSet<_>>(), names);
    }
}

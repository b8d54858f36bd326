//! Pod CIDRs, peers, and the agent itself.

use api::control::{PeerView, Status};
use api::doctor::{Finding, Level};
use api::error_code;

use crate::config::NodeFacts;

pub(super) fn pod_cidrs(own: &str, nodes: &[NodeFacts]) -> Vec<Finding> {
    let Some(node) = nodes.iter().find(|node| node.name == own) else {
        let message = format!("no Node object named {own} was read");
        return vec![Finding::trouble(Level::Fail, "podCIDRs", error_code::INVALID_NODE, message)];
    };
    if node.pod_cidrs.is_empty() {
        let message = format!("Node {own} has no spec.podCIDRs: its pods get no addresses");
        return vec![Finding::trouble(
            Level::Fail,
            "podCIDRs",
            error_code::CNI_NO_POD_CIDR,
            message,
        )];
    }
    let mut findings = Vec::new();
    for other in nodes.iter().filter(|other| other.name != own) {
        for (mine, theirs) in node
            .pod_cidrs
            .iter()
            .flat_map(|mine| other.pod_cidrs.iter().map(move |theirs| (mine, theirs)))
            .filter(|(mine, theirs)| mine.contains(*theirs) || theirs.contains(*mine))
        {
            let message = format!("{mine} overlaps with {theirs} of node {}", other.name);
            let code = error_code::DUPLICATE_ADDRESS;
            findings.push(Finding::trouble(Level::Fail, "podCIDRs", code, message));
        }
    }
    if findings.is_empty() {
        let list: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
        findings.push(Finding::ok("podCIDRs", list.join(", ")));
    }
    findings
}

/// A node of the mesh may just be down: that is no fault of this one.
pub(super) fn peers(peers: &[PeerView]) -> Vec<Finding> {
    let down: Vec<Finding> = peers
        .iter()
        .filter(|peer| peer.state != "Established")
        .map(|peer| {
            let kind = if peer.kind == "tor" { "uplink" } else { &peer.kind };
            let level = if peer.kind == "tor" { Level::Fail } else { Level::Warn };
            let code = peer.last_error.as_ref().map_or(error_code::PEER_UNREACHABLE, |e| e.code);
            let why = peer.last_error.as_ref().map(|e| format!(": {}", e.message));
            let message =
                format!("{kind} {} is {}{}", peer.name, peer.state, why.unwrap_or_default());
            let mut finding = Finding::trouble(level, "peers", code, message);
            finding.next = format!("rctl describe peer {}", peer.name);
            finding
        })
        .collect();
    if down.is_empty() {
        return vec![Finding::ok("peers", format!("{} established", peers.len()))];
    }
    down
}

pub(super) fn agent(status: &Status) -> Vec<Finding> {
    let mut findings: Vec<Finding> = status
        .not_ready
        .iter()
        .map(|why| Finding::trouble(Level::Fail, "agent", error_code::TIMED_OUT, why.clone()))
        .collect();
    let routes = &status.routes;
    if routes.failed > 0 {
        let message =
            format!("{} of {} routes are refused by the kernel", routes.failed, routes.desired);
        let code = error_code::ROUTE_REFUSED;
        findings.push(Finding::trouble(Level::Fail, "agent", code, message));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("agent", "ready"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidrs: &[&str]) -> NodeFacts {
        NodeFacts {
            name: name.to_owned(),
            labels: Default::default(),
            addresses: Vec::new(),
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_node_without_pod_cidrs_fails_loudly() {
        let findings = pod_cidrs("n1", &[node("n1", &[])]);
        assert_eq!(
            (findings[0].level, findings[0].code),
            (Level::Fail, Some(error_code::CNI_NO_POD_CIDR))
        );
        assert_eq!(pod_cidrs("n9", &[node("n1", &[])])[0].level, Level::Fail);
    }

    #[test]
    fn overlapping_pod_cidrs_are_named_in_both_families() {
        let nodes = [
            node("n1", &["10.0.1.0/24", "fd00:1::/64"]),
            node("n2", &["10.0.0.0/16", "fd00:1::/64"]),
        ];
        let findings = pod_cidrs("n1", &nodes);
        assert_eq!(findings.len(), 2);
        assert_eq!(findings[0].message, "10.0.1.0/24 overlaps with 10.0.0.0/16 of node n2");
        assert_eq!(pod_cidrs("n1", &nodes[..1])[0].level, Level::Ok);
    }
}

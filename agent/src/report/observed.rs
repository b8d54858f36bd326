//! What the agent reports of itself: numbers and words of its owners -> [`NodeNetworkStatusStatus`].

use api::control::PeerView;
use api::crd::{Condition, NodeNetworkStatusStatus, PeerStatus};
use api::error_code::{self, Code};
use jiff::Timestamp;

use super::condition::{condition, same, shorten, timed};
use crate::observe::Area;
use crate::observe::problems::Standing;

/// Complaints that are reported.
const PROBLEMS: usize = 20;
const MESH: &str = "mesh";
const ESTABLISHED: &str = "Established";

/// What the report is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) node: String,
    pub(crate) not_ready: Vec<String>,
    /// The table was written, and the kernel takes what is written now.
    pub(crate) policy_programmed: bool,
    /// Why the kernel refuses the table.
    pub(crate) policy_alarm: Option<String>,
    pub(crate) routes: usize,
    pub(crate) routes_failed: usize,
    /// Of `routes`, those that the kernel does not use.
    pub(crate) routes_overridden: usize,
    /// Nodes of the cluster beside ours.
    pub(crate) other_nodes: usize,
    pub(crate) peers: Vec<PeerView>,
    pub(crate) endpoints: u64,
    pub(crate) policies: u64,
    pub(crate) pod_cidrs: Vec<String>,
    pub(crate) problems: Vec<Standing>,
    /// Why what is read is not what the API server has now.
    pub(crate) source_trouble: Option<String>,
}

/// The report; conditions keep the time that they have in `old` while they stay as they are.
pub(super) fn report(
    observed: &Observed,
    old: Option<&NodeNetworkStatusStatus>,
    now: Timestamp,
) -> NodeNetworkStatusStatus {
    let (mesh, explicit): (Vec<&PeerView>, Vec<&PeerView>) =
        observed.peers.iter().partition(|peer| peer.kind == MESH);
    let mesh_established = mesh.iter().filter(|peer| is_up(peer)).count();
    let conditions = vec![
        ready(observed),
        policy_programmed(observed),
        routes_programmed(observed),
        peers_established(&explicit, mesh_established, mesh.len(), observed.other_nodes),
        source_connected(observed),
    ];
    NodeNetworkStatusStatus {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        conditions: timed(conditions, old.map_or(&[], |old| &old.conditions), now),
        peers: explicit.into_iter().map(peer).collect(),
        mesh_established: number(mesh_established),
        mesh_configured: number(mesh.len()),
        routes: number(observed.routes),
        endpoints: u32::try_from(observed.endpoints).unwrap_or(u32::MAX),
        policies: u32::try_from(observed.policies).unwrap_or(u32::MAX),
        pod_cidrs: observed.pod_cidrs.clone(),
        problems: problems(observed),
    }
}

/// How much two reports differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Difference {
    /// In nothing.
    None,
    /// In numbers that change on all nodes when one node or policy comes or goes.
    Numbers,
    /// In something that somebody waits for.
    News,
}

/// How much two reports differ; times of conditions do not count.
pub(super) fn difference(
    new: &NodeNetworkStatusStatus,
    old: Option<&NodeNetworkStatusStatus>,
) -> Difference {
    let Some(old) = old else { return Difference::News };
    let numbers = |s: &NodeNetworkStatusStatus| {
        (s.mesh_established, s.mesh_configured, s.routes, s.endpoints, s.policies)
    };
    let words = |s: &NodeNetworkStatusStatus| NodeNetworkStatusStatus {
        conditions: Vec::new(),
        mesh_established: 0,
        mesh_configured: 0,
        routes: 0,
        endpoints: 0,
        policies: 0,
        ..s.clone()
    };
    if words(new) != words(old) || !same(&new.conditions, &old.conditions) {
        Difference::News
    } else if numbers(new) != numbers(old) {
        Difference::Numbers
    } else {
        Difference::None
    }
}

fn ready(observed: &Observed) -> Condition {
    let why = &observed.not_ready;
    if why.is_empty() {
        condition("Ready", Some(true), "Ready", "")
    } else {
        condition("Ready", Some(false), "NotReady", why.join("; "))
    }
}

fn policy_programmed(observed: &Observed) -> Condition {
    let (status, reason, message) = match &observed.policy_alarm {
        Some(why) => (false, "KernelRefuses", why.as_str()),
        None if observed.policy_programmed => (true, "Programmed", ""),
        None => (false, "NotProgrammed", "the policy table was not written yet"),
    };
    condition("PolicyProgrammed", Some(status), reason, message)
}

fn routes_programmed(observed: &Observed) -> Condition {
    match (observed.routes_failed, observed.routes_overridden) {
        (0, 0) => condition("RoutesProgrammed", Some(true), "Programmed", ""),
        // They are there, and would be used if somebody else had not decided otherwise.
        (0, overridden) => {
            let message = format!(
                "the kernel prefers somebody else's to {overridden} routes; see rctl get routes"
            );
            condition("RoutesProgrammed", Some(true), "Overridden", message)
        }
        (failed, _) => {
            let message = format!("the kernel refuses {failed} routes; see rctl get routes");
            condition("RoutesProgrammed", Some(false), "KernelRefuses", message)
        }
    }
}

/// All peers that somebody configured, and half of the mesh: that some node is down at any time is
/// no news about this one. Only a node that is alone needs no peers.
fn peers_established(
    explicit: &[&PeerView],
    mesh_up: usize,
    mesh: usize,
    other_nodes: usize,
) -> Condition {
    if explicit.is_empty() && mesh == 0 && other_nodes > 0 {
        let message = "no BGP session is configured; rctl status says why";
        return condition("PeersEstablished", Some(false), "NoPeers", message);
    }
    let down: Vec<&str> =
        explicit.iter().filter(|peer| !is_up(peer)).map(|peer| peer.name.as_str()).collect();
    let up = explicit.len().saturating_sub(down.len());
    let mesh_is_fine = mesh_up.saturating_mul(2) >= mesh;
    let reason = match explicit.len() {
        0 if mesh == 0 => "NoPeers".to_owned(),
        0 if mesh_is_fine => "MeshEstablished".to_owned(),
        _ if !mesh_is_fine => "MeshDown".to_owned(),
        all => format!("{up}of{all}"),
    };
    let message = match (down.is_empty(), mesh_is_fine) {
        (true, true) => String::new(),
        (false, true) => format!("not established: {}", down.join(", ")),
        (_, false) => "less than half of the sessions with other nodes are established".to_owned(),
    };
    condition("PeersEstablished", Some(down.is_empty() && mesh_is_fine), reason, message)
}

fn source_connected(observed: &Observed) -> Condition {
    match &observed.source_trouble {
        None => condition("SourceConnected", Some(true), "Connected", ""),
        Some(trouble) => condition("SourceConnected", Some(false), "NotConnected", trouble),
    }
}

/// Codes that are about reading the input, not about what it says.
fn is_of_source(code: Code) -> bool {
    (1012..1020).contains(&code.0)
}

/// Complaints about this node. What all nodes see alike stands in the conditions of its object: if it
/// stood here, one wrong object would be a write of every node.
fn problems(observed: &Observed) -> Vec<String> {
    let own = format!("Node {}", observed.node);
    let is_own = |problem: &&Standing| {
        let complaint = &problem.complaint;
        match problem.area {
            _ if problem.passing => false,
            Area::Policy => false,
            Area::Source => is_of_source(complaint.code),
            Area::Config => {
                matches!(complaint.code, error_code::OWN_ADDRESS)
                    || complaint.subject == own
                    || complaint.subject == "own Node"
            }
            Area::Peer => {
                let name = complaint.subject.strip_prefix("peer ").unwrap_or_default();
                observed.peers.iter().any(|peer| peer.name == name && peer.kind != MESH)
            }
            _ => true,
        }
    };
    let words = observed.problems.iter().filter(is_own).map(|problem| {
        let complaint = &problem.complaint;
        shorten(format!("{} {}: {}", complaint.code, complaint.subject, complaint.message))
    });
    words.take(PROBLEMS).collect()
}

fn peer(peer: &PeerView) -> PeerStatus {
    let error = peer.last_error.as_ref().filter(|_| !is_up(peer));
    PeerStatus {
        name: peer.name.clone(),
        address: std::net::SocketAddr::new(peer.address, peer.port).to_string(),
        // Between attempts the state changes all the time: that is no news.
        state: if is_up(peer) || peer.state == "Idle" {
            peer.state.clone()
        } else {
            "Active".into()
        },
        last_error: error
            .map_or_else(String::new, |e| shorten(format!("{}: {}", e.code, e.message))),
    }
}

fn is_up(peer: &PeerView) -> bool {
    peer.state == ESTABLISHED
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::problems::{Complaint, Problems};

    fn view(name: &str, kind: &str, state: &str) -> PeerView {
        serde_json::from_value(serde_json::json!({
            "node": "n1", "name": name, "peerKind": kind, "address": "2001:db8::9", "port": 179,
            "remoteAsn": 65001, "localAsn": 64512, "state": state, "sinceSeconds": 1.0,
            "routerId": null, "localAddress": null, "families": [], "received": 1, "accepted": 1,
            "sent": 1, "holdTimeSeconds": 90, "keepaliveSeconds": 30, "capabilities": [],
            "establishedCount": 0, "messagesReceived": {}, "messagesSent": {}, "malformed": {},
            "lastError": {"code": 2107, "message": "sent AS 1, expected 2", "agoSeconds": 1.0},
            "import": "", "export": ""
        }))
        .unwrap()
    }

    fn observed(peers: Vec<PeerView>) -> Observed {
        Observed { node: "n1".into(), policy_programmed: true, peers, ..Observed::default() }
    }

    fn of<'a>(status: &'a NodeNetworkStatusStatus, kind: &str) -> &'a Condition {
        status.conditions.iter().find(|condition| condition.type_ == kind).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(0).unwrap()
    }

    #[test]
    fn explicit_peers_are_listed_and_the_mesh_is_counted() {
        let peers = vec![
            view("tor-a", "tor", "Established"),
            view("tor-b", "tor", "Connect"),
            view("n2", "mesh", "Established"),
            view("n3", "mesh", "Active"),
        ];
        let status = report(&observed(peers), None, now());
        let names: Vec<(&str, &str)> =
            status.peers.iter().map(|p| (p.name.as_str(), p.state.as_str())).collect();
        assert_eq!(names, [("tor-a", "Established"), ("tor-b", "Active")]);
        assert_eq!(status.peers[0].address, "[2001:db8::9]:179");
        assert_eq!(status.peers[1].last_error, "RC2107: sent AS 1, expected 2");
        assert_eq!((status.mesh_established, status.mesh_configured), (1, 2));
        let condition = of(&status, "PeersEstablished");
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "1of2"));
    }

    #[test]
    fn routes_that_the_kernel_does_not_use_are_no_silent_success() {
        let with = |routes_failed, routes_overridden| {
            let observed = Observed { routes_failed, routes_overridden, ..observed(vec![]) };
            let status = report(&observed, None, now());
            let condition = of(&status, "RoutesProgrammed");
            format!("{} {} {}", condition.status, condition.reason, condition.message)
        };
        assert_eq!(with(0, 0), "True Programmed ");
        assert!(with(0, 2).starts_with("True Overridden the kernel prefers somebody else's to 2"));
        assert!(with(1, 2).starts_with("False KernelRefuses "));
    }

    #[test]
    fn no_peers_are_fine_only_for_a_node_that_is_alone() {
        let with = |other_nodes| {
            let observed = Observed { other_nodes, ..observed(vec![]) };
            let status = report(&observed, None, now());
            let condition = of(&status, "PeersEstablished");
            format!("{} {}", condition.status, condition.reason)
        };
        assert_eq!((with(0).as_str(), with(1).as_str()), ("True NoPeers", "False NoPeers"));
    }

    #[test]
    fn one_node_that_dies_is_news_for_no_other() {
        let mesh = |down: usize| {
            let state = |n| if n < down { "Active" } else { "Established" };
            observed((0..10).map(|n| view(&format!("n{n}"), "mesh", state(n))).collect())
        };
        let all = report(&mesh(0), None, now());
        let one_down = report(&mesh(1), Some(&all), now());
        assert_eq!(difference(&one_down, Some(&all)), Difference::Numbers);
        let most_down = report(&mesh(6), Some(&all), now());
        assert_eq!(difference(&most_down, Some(&all)), Difference::News);
        assert_eq!(of(&most_down, "PeersEstablished").reason, "MeshDown");
        assert_eq!(difference(&all, None), Difference::News);
        let later = report(&mesh(0), None, Timestamp::from_second(99).unwrap());
        assert_eq!(difference(&later, Some(&all)), Difference::None);
    }

    #[test]
    fn an_object_that_is_wrong_for_all_nodes_is_not_reported_by_each() {
        let problems = Problems::default();
        let complaint = |code, subject: &str| Complaint::new(code, subject, "why");
        for (area, id, code, subject) in [
            (Area::Policy, "a", error_code::INVALID_CIDR, "NetworkPolicy shop/web"),
            (Area::Source, "b", error_code::INVALID_OBJECT, "BGPPeer x"),
            (Area::Config, "c", error_code::INVALID_BGP_CONFIG, "BGPPeer x"),
            (Area::Config, "d", error_code::OWN_ADDRESS, "BGPPeer y"),
            (Area::Peer, "e", error_code::PEER_UNREACHABLE, "peer n2"),
            (Area::Peer, "f", error_code::PEER_UNREACHABLE, "peer tor-a"),
            (Area::Host, "g", error_code::FORWARDING_DISABLED, "host"),
        ] {
            problems.raise(area, id, complaint(code, subject));
        }
        problems.note(Area::Route, "drift", complaint(error_code::ROUTE_DRIFT, "route x"));
        let peers = vec![view("tor-a", "tor", "Active"), view("n2", "mesh", "Established")];
        let observed = Observed { problems: problems.standing(), ..observed(peers) };
        let status = report(&observed, None, now());
        assert_eq!(
            status.problems,
            ["RC2113 BGPPeer y: why", "RC2031 peer tor-a: why", "RC3003 host: why",]
        );
    }
}

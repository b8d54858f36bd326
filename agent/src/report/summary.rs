//! Conditions of our kinds, from what the agents report. Pure.

use std::collections::BTreeMap;

use api::constant::PASSWORD_SECRET;
use api::crd::{BGPPeerSpec, Condition, NodeNetworkStatusStatus};
use api::error_code;

use super::condition::condition;
use crate::config::{NodeFacts, selects};
use crate::observe::Area;
use crate::observe::problems::Standing;

/// Nodes that a message names.
const NAMED: usize = 3;

/// What an agent reports, as far as conditions need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    /// Table and routes are in the kernel.
    programmed: bool,
    /// Peers by name: established, and why not.
    peers: Vec<(String, bool, String)>,
    /// Complaints.
    problems: Vec<String>,
}

impl Digest {
    pub(super) fn of(status: &NodeNetworkStatusStatus) -> Self {
        let holds =
            |kind: &str| status.conditions.iter().any(|c| c.type_ == kind && c.status == "True");
        let peers = status
            .peers
            .iter()
            .map(|peer| (peer.name.clone(), peer.state == "Established", peer.last_error.clone()));
        Self {
            programmed: holds("PolicyProgrammed") && holds("RoutesProgrammed"),
            peers: peers.collect(),
            problems: status.problems.clone(),
        }
    }

    fn peer(&self, name: &str) -> Option<&(String, bool, String)> {
        self.peers.iter().find(|(peer, ..)| peer == name)
    }
}

/// What conditions are made of.
#[derive(Debug)]
pub(super) struct World<'a> {
    /// All Nodes.
    pub(super) nodes: &'a [NodeFacts],
    /// Reports by node.
    pub(super) reports: &'a BTreeMap<String, Digest>,
    /// What this agent complains about.
    pub(super) problems: &'a [Standing],
}

impl World<'_> {
    /// Of a BGPPeer.
    pub(super) fn peer(
        &self,
        name: &str,
        generation: Option<i64>,
        spec: &BGPPeerSpec,
    ) -> Vec<Condition> {
        let accepted = self.accepted(&format!("BGPPeer {name}"));
        let mut conditions = match selects(spec) {
            Some(selects) if accepted.status == "True" || accepted.reason == ON_SOME_NODES => {
                let selected: Vec<&str> = self
                    .nodes
                    .iter()
                    .filter(|node| selects(&node.labels))
                    .map(|node| node.name.as_str())
                    .collect();
                let mut conditions =
                    vec![accepted, nodes_selected(&selected), self.established(name, &selected)];
                conditions.extend(self.secret_resolved(name, spec, &selected));
                conditions
            }
            _ => {
                let why = "the object was not accepted: see Accepted";
                let unknown = |kind| condition(kind, None, "NotAccepted", why);
                vec![accepted, unknown("NodesSelected"), unknown("Established")]
            }
        };
        observed(&mut conditions, generation);
        conditions
    }

    /// Of the BGPConfiguration.
    pub(super) fn configuration(&self, name: &str, generation: Option<i64>) -> Vec<Condition> {
        let mut conditions = vec![self.accepted(&format!("BGPConfiguration {name}"))];
        observed(&mut conditions, generation);
        conditions
    }

    /// Of the NetworkConfiguration.
    pub(super) fn network(&self, name: &str, generation: Option<i64>) -> Vec<Condition> {
        let accepted = self.accepted(&format!("NetworkConfiguration {name}"));
        let missing: Vec<&str> = self
            .nodes
            .iter()
            .map(|node| node.name.as_str())
            .filter(|name| !self.reports.get(*name).is_some_and(|report| report.programmed))
            .collect();
        let (all, done) = (self.nodes.len(), self.nodes.len().saturating_sub(missing.len()));
        let message =
            if missing.is_empty() { String::new() } else { format!("not on {}", some(&missing)) };
        let programmed = missing.is_empty() && accepted.status == "True";
        let reason = format!("{done}of{all}");
        let mut conditions =
            vec![accepted, condition("Programmed", Some(programmed), reason, message)];
        observed(&mut conditions, generation);
        conditions
    }

    /// Peers that announce another AS than the object says, with what a node says about it.
    pub(super) fn wrong_as(&self, name: &str) -> Option<String> {
        let code = error_code::BAD_PEER_AS.to_string();
        let mut wrong = self.reports.iter().filter_map(|(node, report)| {
            let (_, up, error) = report.peer(name)?;
            (!up && error.starts_with(&code)).then(|| format!("{error} (node {node})"))
        });
        let first = wrong.next()?;
        Some(match wrong.count() {
            0 => first,
            others => format!("{first}, and on {others} other nodes"),
        })
    }

    /// Nobody complains about the object.
    fn accepted(&self, subject: &str) -> Condition {
        let own = self.problems.iter().find(|problem| {
            matches!(problem.area, Area::Source | Area::Config)
                && problem.complaint.subject == subject
                // Of this node alone: its report has it, too.
                && problem.complaint.code != error_code::OWN_ADDRESS
                // Told by a condition of its own.
                && problem.complaint.code != error_code::PASSWORD_MISSING
        });
        if let Some(Standing { complaint, .. }) = own {
            let message = format!("{}: {}. {}", complaint.code, complaint.message, complaint.next);
            let no_peers = complaint.code == error_code::NO_PEERS;
            let reason = if no_peers { "NoPeers" } else { "Invalid" };
            return condition("Accepted", Some(false), reason, message);
        }
        let complaints = self.reports.iter().filter_map(|(node, report)| {
            let password = error_code::PASSWORD_MISSING.to_string();
            let about = |problem: &&String| {
                problem.split_once(' ').is_some_and(|(code, rest)| {
                    let about = rest.strip_prefix(subject).is_some_and(|r| r.starts_with(": "));
                    about && code != password
                })
            };
            Some((node.as_str(), report.problems.iter().find(about)?))
        });
        let complaints: Vec<(&str, &String)> = complaints.collect();
        match complaints.first() {
            None => condition("Accepted", Some(true), "Valid", ""),
            Some((_, message)) => {
                let nodes: Vec<&str> = complaints.iter().map(|(node, _)| *node).collect();
                let message = format!("{message} (on {})", some(&nodes));
                condition("Accepted", Some(false), ON_SOME_NODES, message)
            }
        }
    }

    /// The nodes have the password of a peer that has one.
    fn secret_resolved(
        &self,
        name: &str,
        spec: &BGPPeerSpec,
        selected: &[&str],
    ) -> Option<Condition> {
        let reference = spec.password_secret_ref.as_ref()?;
        let code = error_code::PASSWORD_MISSING.to_string();
        let (mut without, mut reported, mut why) = (Vec::new(), 0_usize, None);
        for node in selected {
            let Some((_, up, error)) = self.reports.get(*node).and_then(|r| r.peer(name)) else {
                continue;
            };
            reported = reported.saturating_add(1);
            if !up && error.starts_with(&code) {
                without.push(*node);
                why.get_or_insert(error);
            }
        }
        let Some(why) = why else {
            let (status, reason) =
                if reported > 0 { (Some(true), "Resolved") } else { (None, "NotReported") };
            return Some(condition("SecretResolved", status, reason, ""));
        };
        // The elected agent reads the same Secret, if it has the same peer.
        let secret = reference.name.as_deref().unwrap_or(PASSWORD_SECRET);
        let own = self.problems.iter().map(|problem| &problem.complaint).find(|complaint| {
            let subject = &complaint.subject;
            match complaint.code {
                error_code::PASSWORD_MISSING => *subject == format!("BGPPeer {name}"),
                error_code::SECRET_FORBIDDEN => subject.ends_with(&format!("/{secret}")),
                _ => false,
            }
        });
        let message = own.map_or_else(
            || why.clone(),
            |own| format!("{}: {}. {}", own.code, own.message, own.next),
        );
        let message = format!("not on {}: {message}", some(&without));
        Some(condition("SecretResolved", Some(false), "PasswordMissing", message))
    }

    fn established(&self, name: &str, selected: &[&str]) -> Condition {
        let mut down = Vec::new();
        let mut why = String::new();
        for node in selected {
            match self.reports.get(*node).map(|report| report.peer(name)) {
                Some(Some((_, true, _))) => {}
                Some(Some((_, false, error))) => {
                    down.push(*node);
                    if why.is_empty() {
                        why.clone_from(error);
                    }
                }
                Some(None) | None => down.push(*node),
            }
        }
        let reason = format!("{}of{}", selected.len().saturating_sub(down.len()), selected.len());
        let message = match (down.is_empty(), why.is_empty()) {
            (true, _) => String::new(),
            (false, true) => format!("not on {}", some(&down)),
            (false, false) => format!("not on {}: {why}", some(&down)),
        };
        let status = if selected.is_empty() { None } else { Some(down.is_empty()) };
        condition("Established", status, reason, message)
    }
}

/// Reason of a fault that not every node has.
const ON_SOME_NODES: &str = "InvalidOnSomeNodes";

fn nodes_selected(selected: &[&str]) -> Condition {
    match selected.len() {
        0 => condition("NodesSelected", Some(false), "NoNodeSelected", "no Node has these labels"),
        1 => condition("NodesSelected", Some(true), "NodesSelected", "1 node"),
        all => condition("NodesSelected", Some(true), "NodesSelected", format!("{all} nodes")),
    }
}

fn observed(conditions: &mut [Condition], generation: Option<i64>) {
    for condition in conditions {
        condition.observed_generation = generation;
    }
}

/// The first few by name, and how many more there are.
fn some(names: &[&str]) -> String {
    let first: Vec<&str> = names.iter().take(NAMED).copied().collect();
    match names.len().saturating_sub(first.len()) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::crd::{NodeSelector, PeerStatus, SecretKeyRef};

    use crate::observe::problems::{Complaint, Problems};

    fn nodes() -> Vec<NodeFacts> {
        (0..5)
            .map(|number| NodeFacts {
                name: format!("n{number}"),
                labels: BTreeMap::from([("rack".to_owned(), format!("r{}", number / 4))]),
                addresses: vec![],
                pod_cidrs: vec![],
            })
            .collect()
    }

    fn spec(rack: &str) -> BGPPeerSpec {
        let selector = NodeSelector {
            match_labels: BTreeMap::from([("rack".to_owned(), rack.to_owned())]),
            match_expressions: vec![],
        };
        let mut spec: BGPPeerSpec = serde_json::from_value(serde_json::json!({
            "peerAddress": "192.0.2.1", "peerASN": 65001
        }))
        .unwrap();
        spec.node_selector = Some(selector);
        spec
    }

    fn report(up: bool, error: &str, problems: &[&str]) -> Digest {
        Digest::of(&NodeNetworkStatusStatus {
            peers: vec![PeerStatus {
                name: "tor".into(),
                address: "192.0.2.1:179".into(),
                state: if up { "Established" } else { "Active" }.into(),
                last_error: error.into(),
            }],
            problems: problems.iter().map(ToString::to_string).collect(),
            ..NodeNetworkStatusStatus::default()
        })
    }

    fn short(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
        conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str()))
            .collect()
    }

    #[test]
    fn sessions_are_counted_over_the_nodes_that_are_selected() {
        let mut reports = BTreeMap::from([
            ("n0".to_owned(), report(true, "", &[])),
            ("n1".to_owned(), report(true, "", &[])),
            ("n2".to_owned(), report(false, "RC2107: sent AS 1, expected 2", &[])),
            ("n4".to_owned(), report(true, "", &[])),
        ]);
        let nodes = nodes();
        let world = World { nodes: &nodes, reports: &reports, problems: &[] };
        let conditions = world.peer("tor", Some(7), &spec("r0"));
        assert_eq!(
            short(&conditions),
            [
                ("Accepted", "True", "Valid"),
                ("NodesSelected", "True", "NodesSelected"),
                ("Established", "False", "2of4")
            ]
        );
        assert_eq!(conditions[2].message, "not on n2, n3: RC2107: sent AS 1, expected 2");
        assert_eq!(conditions[2].observed_generation, Some(7));
        assert_eq!(world.wrong_as("tor").unwrap(), "RC2107: sent AS 1, expected 2 (node n2)");
        assert_eq!(
            short(&world.peer("tor", None, &spec("r1")))[2],
            ("Established", "True", "1of1")
        );
        let none = world.peer("tor", None, &spec("r9"));
        assert_eq!(short(&none)[1], ("NodesSelected", "False", "NoNodeSelected"));
        assert_eq!(short(&none)[2], ("Established", "Unknown", "0of0"));
        reports.clear();
        let world = World { nodes: &nodes, reports: &reports, problems: &[] };
        let silent = world.peer("tor", None, &spec("r0"));
        assert_eq!(silent[2].message, "not on n0, n1, n2 and 1 more");
        assert_eq!(world.wrong_as("tor"), None);
    }

    #[test]
    fn an_object_that_an_agent_complains_about_is_not_accepted() {
        let problems = Problems::default();
        let complaint =
            Complaint::new(error_code::INVALID_BGP_CONFIG, "BGPPeer tor", "spec.peerASN: no");
        problems.raise(Area::Config, "x", complaint);
        let problems = problems.standing();
        let (nodes, reports) = (nodes(), BTreeMap::new());
        let world = World { nodes: &nodes, reports: &reports, problems: &problems };
        let conditions = world.peer("tor", None, &spec("r0"));
        assert_eq!(short(&conditions)[0], ("Accepted", "False", "Invalid"));
        assert!(conditions[0].message.starts_with("RC1011: spec.peerASN: no. "), "{conditions:?}");
        assert_eq!(conditions[2].status, "Unknown");
        assert_eq!(short(&world.peer("tor-b", None, &spec("r0")))[0].1, "True");
        assert_eq!(short(&world.configuration("default", None)), [("Accepted", "True", "Valid")]);
    }

    #[test]
    fn a_password_that_is_not_there_has_a_condition_of_its_own() {
        let unknown = "RC2118: its password is not known, so there is no session";
        let missing = "RC2118 BGPPeer tor: spec.passwordSecretRef: Secret s/x: it does not exist";
        let mut reports = BTreeMap::from([("n4".to_owned(), report(false, unknown, &[missing]))]);
        let nodes = nodes();
        let mut spec = spec("r1");
        let last = |conditions: Vec<Condition>| conditions.last().cloned().unwrap();
        let world = World { nodes: &nodes, reports: &reports, problems: &[] };
        assert_eq!(last(world.peer("tor", None, &spec)).type_, "Established", "it has none");
        let key = "tor".to_owned();
        spec.password_secret_ref = Some(SecretKeyRef { name: Some("x".to_owned()), key });
        let conditions = world.peer("tor", None, &spec);
        let expected = [
            ("Accepted", "True", "Valid"),
            ("NodesSelected", "True", "NodesSelected"),
            ("Established", "False", "0of1"),
            ("SecretResolved", "False", "PasswordMissing"),
        ];
        assert_eq!(short(&conditions), expected);
        assert_eq!(conditions[3].message, format!("not on n4: {unknown}"));

        // The elected agent may know more.
        for (code, subject, message) in [
            (error_code::PASSWORD_MISSING, "BGPPeer tor", "it does not exist"),
            (error_code::SECRET_FORBIDDEN, "Secret s/x", "may not list it"),
        ] {
            let problems = Problems::default();
            problems.raise(Area::Config, "x", Complaint::new(code, subject, message));
            let problems = problems.standing();
            let world = World { nodes: &nodes, reports: &reports, problems: &problems };
            let conditions = world.peer("tor", None, &spec);
            assert_eq!(short(&conditions), expected);
            let start = format!("not on n4: {code}: {message}. ");
            assert!(conditions[3].message.starts_with(&start), "{conditions:?}");
        }

        reports.insert("n4".to_owned(), report(false, "RC2119: connection failed", &[]));
        let world = World { nodes: &nodes, reports: &reports, problems: &[] };
        let resolved = last(world.peer("tor", None, &spec));
        assert_eq!(short(&[resolved]), [("SecretResolved", "True", "Resolved")]);
        reports.clear();
        let world = World { nodes: &nodes, reports: &reports, problems: &[] };
        let silent = last(world.peer("tor", None, &spec));
        assert_eq!(short(&[silent]), [("SecretResolved", "Unknown", "NotReported")]);
    }

    #[test]
    fn a_complaint_of_one_node_names_the_node() {
        let own = "RC2113 BGPPeer tor: spec.peerAddress: own";
        let reports = BTreeMap::from([("n0".to_owned(), report(false, "", &[own]))]);
        let nodes = nodes();
        // The elected agent may be that of the node itself.
        let problems = Problems::default();
        let complaint = Complaint::new(error_code::OWN_ADDRESS, "BGPPeer tor", "own");
        problems.raise(Area::Config, "x", complaint);
        let problems = problems.standing();
        let world = World { nodes: &nodes, reports: &reports, problems: &problems };
        let conditions = world.peer("tor", None, &spec("r0"));
        assert_eq!(short(&conditions)[0], ("Accepted", "False", "InvalidOnSomeNodes"));
        assert_eq!(conditions[0].message, format!("{own} (on n0)"));
        assert_eq!(short(&world.peer("to", None, &spec("r0")))[0].1, "True", "another object");
        let network = world.network("default", None);
        assert_eq!(short(&network)[1], ("Programmed", "False", "0of5"));
    }
}

//! What a policy grants, in the form in which policies are added up: worked out when the policy
//! comes, not whenever it is added up for a pod.

use std::sync::Arc;

use super::{PeerSpec, PortSet};
use crate::index::{NamespaceQuery, PodQuery};
use crate::input::{Direction, Namespaces, Peer, Pod, Policy, PortMatch, Protocol, Rule};

/// The rules of a policy; a direction that it does not isolate has none.
#[derive(Debug)]
pub(crate) struct Grants {
    ingress: Option<Vec<Grant>>,
    egress: Option<Vec<Grant>>,
}

/// One rule.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(super) peers: Vec<PeerSpec>,
    /// Whatever the pod that the policy selects.
    ports: Arc<PortSet>,
    /// Ports that the pod itself gives a number (ingress).
    names: Vec<(Protocol, String)>,
}

impl Grants {
    /// Those of a policy of this namespace.
    pub(crate) fn new(namespace: &str, policy: &Policy) -> Self {
        let grants = |direction| {
            let rules = policy.rules(direction)?;
            let rules = rules.iter().flatten();
            Some(rules.map(|rule| Grant::new(namespace, direction, rule)).collect())
        };
        Self { ingress: grants(Direction::Ingress), egress: grants(Direction::Egress) }
    }

    pub(super) fn of(&self, direction: Direction) -> Option<&[Grant]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

impl Grant {
    fn new(namespace: &str, direction: Direction, rule: &Rule) -> Self {
        let (mut ports, mut names) = (PortSet::default(), Vec::new());
        for port in &rule.ports {
            match (port, direction) {
                (PortMatch::Numeric { protocol, first, last }, _) => {
                    ports.add_range(*protocol, *first, *last);
                }
                (PortMatch::Named { protocol, name }, Direction::Ingress) => {
                    names.push((*protocol, name.clone()));
                }
                (PortMatch::Named { protocol, name }, Direction::Egress) => {
                    ports.add_name(*protocol, name);
                }
            }
        }
        if rule.ports.is_empty() {
            ports = PortSet::everything();
        }
        ports.normalize();
        let peers = match rule.peers.as_slice() {
            [] => vec![PeerSpec::Anybody],
            peers => peers.iter().map(|peer| peer_spec(namespace, peer)).collect(),
        };
        Self { peers, ports: Arc::new(ports), names }
    }

    /// The ports that it means at this pod.
    pub(super) fn ports(&self, pod: &Pod) -> Arc<PortSet> {
        if self.names.is_empty() {
            return Arc::clone(&self.ports);
        }
        let mut ports = PortSet::clone(&self.ports);
        for (protocol, name) in &self.names {
            if let Some(number) = pod.port(*protocol, name) {
                ports.add_range(*protocol, number, number);
            }
        }
        ports.normalize();
        Arc::new(ports)
    }
}

fn peer_spec(namespace: &str, peer: &Peer) -> PeerSpec {
    match peer {
        Peer::Block(block) => PeerSpec::Block(Arc::new(block.clone())),
        Peer::Pods { namespaces: Namespaces::Own, pods } => {
            PeerSpec::Pods(PodQuery::pods_of(namespace, pods.clone()))
        }
        Peer::Pods { namespaces: Namespaces::Selected(namespaces), pods } => {
            let namespaces = NamespaceQuery::Selected(namespaces.clone());
            PeerSpec::Pods(PodQuery::new(namespaces, pods.clone()))
        }
    }
}

//! The effective policy of a pod in one direction: all its policies added up, in canonical form.
//!
//! Two pods whose policies come to the same thing have equal effective policies, hence share their
//! sets. Named ports of ingress are numbers by now (they belong to the pod itself); those of
//! egress stay names, which each peer pod resolves for itself.

mod ports;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

pub(crate) use ports::PortSet;

use crate::index::{NamespaceQuery, PodQuery};
use crate::input::{Block, Direction, Namespaces, Peer, Pod, Policy, PortMatch, Rule};

/// Who may talk on which ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Effective {
    pub(crate) direction: Direction,
    /// Peers of one rule share its ports: there may be many of both.
    pub(crate) grants: BTreeMap<PeerSpec, Arc<PortSet>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PeerSpec {
    Anybody,
    Pods(PodQuery),
    Block(Block),
}

impl Effective {
    /// Adds up what `policies` (namespace, policy) say about `pod`; `None` if none isolates it.
    pub(crate) fn of<'a>(
        direction: Direction,
        pod: &Pod,
        policies: impl Iterator<Item = (&'a str, &'a Policy)>,
    ) -> Option<Self> {
        let mut isolated = false;
        let mut effective = Self { direction, grants: BTreeMap::new() };
        for (namespace, policy) in policies {
            let Some(rules) = policy.rules(direction) else { continue };
            isolated = true;
            for rule in rules.iter().flatten() {
                effective.add(namespace, rule, pod);
            }
        }
        if !isolated {
            return None;
        }
        effective.canonicalize();
        Some(effective)
    }

    /// All traffic is admitted.
    pub(crate) fn admits_all(&self) -> bool {
        self.grants.get(&PeerSpec::Anybody).is_some_and(|ports| ports.is_everything())
    }

    fn add(&mut self, namespace: &str, rule: &Rule, pod: &Pod) {
        let mut ports = PortSet::default();
        for port in &rule.ports {
            match (port, self.direction) {
                (PortMatch::Numeric { protocol, first, last }, _) => {
                    ports.add_range(*protocol, *first, *last);
                }
                (PortMatch::Named { protocol, name }, Direction::Ingress) => {
                    if let Some(number) = pod.port(*protocol, name) {
                        ports.add_range(*protocol, number, number);
                    }
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
        if ports.is_empty() {
            return;
        }
        let ports = Arc::new(ports);
        if rule.peers.is_empty() {
            self.grant(PeerSpec::Anybody, &ports);
        }
        for peer in &rule.peers {
            self.grant(peer_spec(namespace, peer), &ports);
        }
    }

    fn grant(&mut self, peer: PeerSpec, ports: &Arc<PortSet>) {
        match self.grants.entry(peer) {
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(ports));
            }
            Entry::Occupied(mut granted) => {
                if granted.get() != ports {
                    Arc::make_mut(granted.get_mut()).merge(ports);
                }
            }
        }
    }

    /// What everybody may do need not be granted again.
    fn canonicalize(&mut self) {
        if self.admits_all() {
            self.grants.retain(|peer, _| *peer == PeerSpec::Anybody);
        }
    }
}

fn peer_spec(namespace: &str, peer: &Peer) -> PeerSpec {
    match peer {
        Peer::Block(block) => PeerSpec::Block(block.clone()),
        Peer::Pods { namespaces: Namespaces::Own, pods } => {
            PeerSpec::Pods(PodQuery::pods_of(namespace, pods.clone()))
        }
        Peer::Pods { namespaces: Namespaces::Selected(namespaces), pods } => {
            let namespaces = NamespaceQuery::Selected(namespaces.clone());
            PeerSpec::Pods(PodQuery { namespaces, pods: pods.clone() })
        }
    }
}

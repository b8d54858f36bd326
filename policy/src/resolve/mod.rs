//! The effective policy of a pod in one direction: all its policies added up, in canonical form.
//!
//! Two pods whose policies come to the same thing have equal effective policies, hence share their
//! sets. Named ports of ingress are numbers by now (they belong to the pod itself); those of
//! egress stay names, which each peer pod resolves for itself.

mod grant;
mod ports;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

pub(crate) use grant::Grants;
pub(crate) use ports::PortSet;

use crate::index::PodQuery;
use crate::input::{Block, Direction, Pod};

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
    Block(Arc<Block>),
}

impl Effective {
    /// Adds up what `policies` say about `pod`; `None` if none isolates it.
    pub(crate) fn of<'a>(
        direction: Direction,
        pod: &Pod,
        policies: impl Iterator<Item = &'a Grants>,
    ) -> Option<Self> {
        let mut isolated = false;
        let mut effective = Self { direction, grants: BTreeMap::new() };
        for grants in policies.filter_map(|policy| policy.of(direction)) {
            isolated = true;
            for grant in grants {
                let ports = grant.ports(pod);
                if !ports.is_empty() {
                    grant.peers.iter().for_each(|peer| effective.grant(peer, &ports));
                }
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

    fn grant(&mut self, peer: &PeerSpec, ports: &Arc<PortSet>) {
        match self.grants.entry(peer.clone()) {
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

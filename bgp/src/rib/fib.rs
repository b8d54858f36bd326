//! Choosing among the paths of a prefix, and what follows for forwarding.

use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::Rib;
use super::attributes::{AttributeId, Source};
use super::decision::{Candidate, decide};
use super::export::DEFAULT_LOCAL_PREF;
use super::next_hops::NextHopsId;
use super::path::{Path, PeerIndex};

/// A change of what is to be forwarded where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibChange {
    /// Prefix.
    pub prefix: IpNet,
    /// Sorted, without duplicates. Empty: nothing is reachable, or the prefix is our own.
    pub next_hops: Vec<IpAddr>,
    /// The prefix is our own.
    pub own: bool,
}

/// The best path and those that share traffic with it.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) best: Path,
    sharing: SmallVec<[AttributeId; 4]>,
}

impl Rib {
    /// The decision process over the eligible ones of `paths`.
    pub(super) fn choose(&self, paths: &[Path]) -> Option<Chosen> {
        if let [path] = paths {
            let eligible = path.ineligible.is_none();
            return eligible.then(|| Chosen { best: *path, sharing: SmallVec::new() });
        }
        let eligible: SmallVec<[&Path; 8]> =
            paths.iter().filter(|path| path.ineligible.is_none()).collect();
        let candidates: SmallVec<[Candidate; 4]> =
            eligible.iter().map(|path| self.candidate(path)).collect();
        let decision = decide(&candidates)?;
        let best = **eligible.get(decision.best)?;
        let mut sharing = SmallVec::new();
        for (index, path) in eligible.iter().enumerate() {
            if matches!(decision.verdict(index), super::Verdict::Multipath(_)) {
                sharing.push(path.attributes);
            }
        }
        Some(Chosen { best, sharing })
    }

    /// A path as the decision process sees it.
    pub(super) fn candidate(&self, path: &Path) -> Candidate {
        let peer = self.peer(path.peer);
        let unspecified = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let mut candidate = Candidate {
            own: path.peer == PeerIndex::LOCAL,
            local_pref: DEFAULT_LOCAL_PREF,
            hops: 0,
            origin: crate::wire::attribute::Origin::Igp,
            neighbour: None,
            med: 0,
            external: false,
            // All next hops are reachable, and equally near: we run no interior protocol.
            igp_cost: 0,
            router_id: peer.map_or(self.identity.router_id, super::Peer::router_id),
            cluster_list_len: 0,
            address: peer.map_or(unspecified, |peer| peer.session.address),
        };
        if let Some(entry) = self.store.get(path.attributes) {
            let attributes = &entry.attributes;
            candidate.local_pref = attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
            candidate.hops = entry.hops;
            candidate.origin = attributes.origin;
            candidate.neighbour = attributes.as_path.first();
            candidate.med = attributes.med.unwrap_or(0);
            candidate.external = entry.source == Source::External;
            candidate.router_id = attributes.originator_id.unwrap_or(candidate.router_id);
            candidate.cluster_list_len = attributes.cluster_list.len();
        }
        candidate
    }

    /// The set of next hops, with a reference for the caller.
    pub(super) fn next_hops_of(&mut self, chosen: &Chosen) -> NextHopsId {
        if chosen.best.peer == PeerIndex::LOCAL {
            return NextHopsId::OWN;
        }
        let ids = std::iter::once(&chosen.best.attributes).chain(&chosen.sharing);
        let mut next_hops: SmallVec<[IpAddr; 4]> =
            ids.filter_map(|id| Some(self.store.get(*id)?.attributes.next_hop)).collect();
        next_hops.sort_unstable();
        next_hops.dedup();
        self.next_hops.intern(&next_hops)
    }

    /// The next forwarding change.
    pub fn poll_fib(&mut self) -> Option<FibChange> {
        let (prefix, id) = self.fib.pop_front()?;
        let next_hops = self.next_hops.get(id).to_vec();
        self.next_hops.release(id);
        Some(FibChange { prefix, next_hops, own: id == NextHopsId::OWN })
    }
}

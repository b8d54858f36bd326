//! The decision process (RFC 4271 §9.1.2, RFC 4456 §9): a function that returns the winner and, for
//! every other path, the step at which it lost. Never an order on paths: MED makes it none.
//!
//! Each step removes the paths that are worse than the best of those left, as RFC 4271 §9.1.2.2
//! words it; so the outcome does not depend on the order in which paths arrived.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;
use smallvec::SmallVec;

use crate::types::Asn;
use crate::wire::attribute::Origin;

/// What the decision process says about one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The best path.
    Best,
    /// Not the best, but equal enough to share traffic with it.
    Multipath(LostBy),
    /// Eligible, lost against the best path.
    Lost(LostBy),
    /// Takes no part in the decision.
    Ineligible(Ineligible),
}

/// The step of the decision process at which a path lost, in the order of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LostBy {
    /// The winner is an own prefix.
    LocalOrigin,
    /// Lower LOCAL_PREF.
    LocalPref,
    /// Longer AS_PATH.
    AsPathLength,
    /// Worse ORIGIN.
    Origin,
    /// Higher MULTI_EXIT_DISC than another path of the same neighbouring AS.
    Med,
    /// Internal, the winner is external.
    External,
    /// Higher interior cost to the next hop.
    IgpCost,
    /// Higher BGP Identifier (or ORIGINATOR_ID).
    RouterId,
    /// Longer CLUSTER_LIST.
    ClusterListLength,
    /// Higher peer address.
    PeerAddress,
}

impl LostBy {
    /// Number of the step, the first is 0.
    pub(crate) const fn step(self) -> u8 {
        self as u8
    }
}

/// Why a path takes no part in the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Ineligible {
    /// Our AS is in its AS_PATH (RFC 4271 §9.1.2).
    AsLoop,
    /// Its ORIGINATOR_ID is our BGP Identifier (RFC 4456 §8).
    OriginatorIsUs,
    /// Its CLUSTER_LIST contains our CLUSTER_ID (RFC 4456 §8).
    ClusterLoop,
    /// Its next hop is an address of ours.
    NextHopIsUs,
    /// Its next hop is unspecified, loopback, multicast, or broadcast.
    NextHopInvalid,
}

/// An eligible path, as the decision process sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// We originate it.
    pub own: bool,
    /// LOCAL_PREF, higher is better; 100 where the path has none.
    pub local_pref: u32,
    /// AS_PATH length.
    pub hops: u32,
    /// ORIGIN.
    pub origin: Origin,
    /// First AS of the AS_PATH; `None` for a path of our own AS.
    pub neighbour: Option<Asn>,
    /// MULTI_EXIT_DISC; 0 where the path has none (RFC 4271 §9.1.2.2 c).
    pub med: u32,
    /// Learnt from another AS.
    pub external: bool,
    /// Interior cost to the next hop.
    pub igp_cost: u32,
    /// ORIGINATOR_ID, else the peer's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Length of CLUSTER_LIST.
    pub cluster_list_len: usize,
    /// Address of the peer; its `Ord` decides at last.
    pub address: IpAddr,
}

/// What [`decide`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Index of the best candidate.
    pub best: usize,
    /// The step at which each candidate lost; `None` only for the best.
    pub lost: SmallVec<[Option<LostBy>; 4]>,
}

impl Decision {
    /// The verdict on candidate `index`.
    ///
    /// Paths that are equal up to and including the interior cost share traffic. External ones need
    /// not have the same AS_PATH, only the same length: two switches of different AS are two ways
    /// out.
    #[must_use]
    pub fn verdict(&self, index: usize) -> Verdict {
        match self.lost.get(index).copied().flatten() {
            None => Verdict::Best,
            Some(by) if by > LostBy::IgpCost => Verdict::Multipath(by),
            Some(by) => Verdict::Lost(by),
        }
    }
}

/// Chooses among eligible paths; `None` only if there are none.
#[must_use]
pub fn decide(candidates: &[Candidate]) -> Option<Decision> {
    let mut round = Round {
        candidates,
        alive: (0..candidates.len()).collect(),
        lost: SmallVec::from_elem(None, candidates.len()),
    };
    round.keep_least(LostBy::LocalOrigin, |c| !c.own);
    round.keep_least(LostBy::LocalPref, |c| u32::MAX - c.local_pref);
    round.keep_least(LostBy::AsPathLength, |c| c.hops);
    round.keep_least(LostBy::Origin, |c| c.origin);
    round.keep_least_med();
    round.keep_least(LostBy::External, |c| !c.external);
    round.keep_least(LostBy::IgpCost, |c| c.igp_cost);
    round.keep_least(LostBy::RouterId, |c| c.router_id);
    round.keep_least(LostBy::ClusterListLength, |c| c.cluster_list_len);
    round.keep_least(LostBy::PeerAddress, |c| c.address);
    let best = round.alive.first().copied()?;
    // Two paths of one address cannot be; if they were, one of them still has to be the best.
    for other in round.alive.iter().skip(1) {
        if let Some(lost) = round.lost.get_mut(*other) {
            *lost = Some(LostBy::PeerAddress);
        }
    }
    Some(Decision { best, lost: round.lost })
}

/// The paths still under consideration.
struct Round<'a> {
    candidates: &'a [Candidate],
    alive: SmallVec<[usize; 8]>,
    lost: SmallVec<[Option<LostBy>; 4]>,
}

impl Round<'_> {
    fn keep_least<T: Ord>(&mut self, by: LostBy, key: impl Fn(&Candidate) -> T) {
        if self.alive.len() < 2 {
            return;
        }
        let key = |index: usize| self.candidates.get(index).map(&key);
        let least = self.alive.iter().map(|index| key(*index)).min().flatten();
        let lost = &mut self.lost;
        self.alive.retain(|index| {
            let keep = key(*index) == least;
            if !keep && let Some(lost) = lost.get_mut(*index) {
                *lost = Some(by);
            }
            keep
        });
    }

    /// MED is compared only among paths of one neighbouring AS (RFC 4271 §9.1.2.2 c).
    fn keep_least_med(&mut self) {
        if self.alive.len() < 2 {
            return;
        }
        let key = |index: usize| self.candidates.get(index).map(|c| (c.neighbour, c.med));
        let mut least: SmallVec<[(Option<Asn>, u32); 8]> =
            self.alive.iter().filter_map(|index| key(*index)).collect();
        least.sort_unstable();
        least.dedup_by_key(|(neighbour, _)| *neighbour);
        let lost = &mut self.lost;
        self.alive.retain(|index| {
            let keep = key(*index).is_some_and(|med| least.binary_search(&med).is_ok());
            if !keep && let Some(lost) = lost.get_mut(*index) {
                *lost = Some(LostBy::Med);
            }
            keep
        });
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Best => f.write_str("best"),
            Self::Multipath(by) => write!(f, "multipath, {by}"),
            Self::Lost(by) => by.fmt(f),
            Self::Ineligible(why) => why.fmt(f),
        }
    }
}

impl fmt::Display for LostBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalOrigin => "not our own prefix",
            Self::LocalPref => "lower local preference",
            Self::AsPathLength => "longer AS path",
            Self::Origin => "worse origin",
            Self::Med => "higher MED",
            Self::External => "internal, best is external",
            Self::IgpCost => "higher cost to next hop",
            Self::RouterId => "higher router id",
            Self::ClusterListLength => "longer cluster list",
            Self::PeerAddress => "higher peer address",
        })
    }
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsLoop => "our AS is in its AS path",
            Self::OriginatorIsUs => "we originated it",
            Self::ClusterLoop => "our cluster id is in its cluster list",
            Self::NextHopIsUs => "next hop is ourselves",
            Self::NextHopInvalid => "next hop is not usable",
        })
    }
}

#[cfg(test)]
mod tests;

//! Why a path was chosen or not (RFC 4271 §9.1.2, RFC 4456 §9).

use std::fmt;

use serde::Serialize;

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

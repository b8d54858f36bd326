//! Path attributes (RFC 4271 §4.3, §5), decoded.

pub(crate) mod as_path;
pub(crate) mod decode;
pub mod table;

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::types::Asn;

/// ORIGIN (RFC 4271 §5.1.1); smaller is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Learnt inside the originating AS.
    Igp,
    /// Learnt by EGP.
    Egp,
    /// Anything else.
    Incomplete,
}

/// Kind of an AS_PATH segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SegmentKind {
    /// AS_SET (1); RFC 9774 has us refuse routes with it.
    Set,
    /// AS_SEQUENCE (2).
    Sequence,
    /// AS_CONFED_SEQUENCE (3).
    ConfedSequence,
    /// AS_CONFED_SET (4).
    ConfedSet,
}

/// One AS_PATH segment; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Segment {
    /// Kind.
    pub kind: SegmentKind,
    /// The ASNs, nearest first.
    pub asns: SmallVec<[Asn; 6]>,
}

/// AS_PATH (RFC 4271 §5.1.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AsPath {
    /// Segments in wire order.
    pub segments: SmallVec<[Segment; 1]>,
}

impl AsPath {
    /// Length for the decision process: an AS_SET counts one, confederation segments nothing
    /// (RFC 4271 §9.1.2.2 a, RFC 5065 §5.3).
    #[must_use]
    pub fn hops(&self) -> usize {
        self.segments
            .iter()
            .map(|s| match s.kind {
                SegmentKind::Sequence => s.asns.len(),
                SegmentKind::Set => 1,
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
            })
            .sum()
    }

    /// All ASNs in wire order, whatever the segment.
    pub fn asns(&self) -> impl Iterator<Item = Asn> {
        self.segments.iter().flat_map(|s| s.asns.iter().copied())
    }

    /// The neighbouring AS: first ASN of a leading AS_SEQUENCE.
    #[must_use]
    pub fn first(&self) -> Option<Asn> {
        self.segments.first().filter(|s| s.kind == SegmentKind::Sequence)?.asns.first().copied()
    }
}

/// AGGREGATOR (RFC 4271 §5.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Aggregator {
    /// AS of the aggregating speaker.
    pub asn: Asn,
    /// Its identifier.
    pub id: Ipv4Addr,
}

/// An attribute that we do not interpret: kept byte for byte if optional transitive (with Partial
/// set when forwarded, RFC 4271 §5), dropped otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RawAttribute {
    /// Attribute flags as received, without Extended Length.
    pub flags: u8,
    /// Attribute type code.
    pub code: u8,
    /// The value.
    pub value: Box<[u8]>,
}

/// Rarely present attributes, boxed together so that the common case stays small.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extra {
    /// COMMUNITIES (RFC 1997), in wire order.
    pub communities: Vec<u32>,
    /// EXTENDED COMMUNITIES (RFC 4360), eight octets each.
    pub extended_communities: Vec<[u8; 8]>,
    /// LARGE_COMMUNITY (RFC 8092), three words each.
    pub large_communities: Vec<[u32; 3]>,
    /// AGGREGATOR, merged with AS4_AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// ATOMIC_AGGREGATE is present.
    pub atomic_aggregate: bool,
    /// Only to Customer (RFC 9234).
    pub only_to_customer: Option<Asn>,
    /// Unknown optional transitive attributes, by code.
    pub unknown: Vec<RawAttribute>,
}

/// LOCAL_PREF of a route from an internal peer that did not send one (RFC 4271 leaves the value
/// open; every implementation uses this one).
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// The attributes of a path, without MP_REACH_NLRI / MP_UNREACH_NLRI; AS4_PATH is already merged.
///
/// Interned by the RIB: equal values are stored once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH.
    pub as_path: AsPath,
    /// NEXT_HOP, or the global next hop of MP_REACH_NLRI (RFC 4760 §3).
    pub next_hop: IpAddr,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; `None` from an external peer. An internal peer that leaves it out means
    /// [`DEFAULT_LOCAL_PREF`], and the decoder says so.
    pub local_pref: Option<u32>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), in wire order.
    pub cluster_list: SmallVec<[Ipv4Addr; 2]>,
    /// Everything rarer; `None` when all of it is empty.
    pub extra: Option<Box<Extra>>,
}

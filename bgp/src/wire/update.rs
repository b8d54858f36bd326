//! UPDATE (RFC 4271 §4.3, RFC 4760, RFC 7606): zero-copy prefixes, owned attributes.

use std::net::IpAddr;

use crate::types::Family;
use crate::wire::attribute::Attributes;

/// Validated NLRI of one family: iteration cannot fail. (Accessors live with the decoder.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nlri<'a> {
    /// Family of every prefix in `bytes`.
    pub family: Family,
    /// Each prefix is preceded by a 4-octet path identifier (RFC 7911).
    pub add_path: bool,
    /// Already validated: lengths within bounds, nothing left over.
    pub(crate) bytes: &'a [u8],
}

/// A decoded UPDATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// Withdrawn prefixes: the WITHDRAWN field (IPv4) and MP_UNREACH_NLRI.
    pub withdrawn: [Option<Nlri<'a>>; 2],
    /// Announced prefixes: the NLRI field (IPv4) and MP_REACH_NLRI, each with its next hop.
    /// Announced wins over withdrawn in one message (RFC 4271 §4.3).
    pub announced: [Option<(Nlri<'a>, IpAddr)>; 2],
    /// Attributes; `None` if there were none. `next_hop` inside is that of the NLRI field when
    /// there is one, else that of MP_REACH_NLRI; use the next hop beside the NLRI.
    pub attributes: Option<Attributes>,
    /// RFC 7606: every prefix announced here must be handled as withdrawn, for this reason.
    pub treat_as_withdraw: Option<AttributeFault>,
    /// RFC 7606: attributes dropped, the routes kept.
    pub discarded: Vec<AttributeFault>,
    /// End-of-RIB of this family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// (AFI, SAFI) of MP attributes for families that were not negotiated: ignored and counted.
    pub ignored_family: Option<(u16, u8)>,
}

/// A malformed attribute that does not end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct AttributeFault {
    /// Attribute type code; 0 where it is the attribute list itself that is broken.
    pub code: u8,
    /// What was wrong.
    pub reason: &'static str,
}

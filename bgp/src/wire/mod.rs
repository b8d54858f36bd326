//! The BGP-4 codec. Parsing never panics, whatever the bytes (fuzzed), and never guesses: what
//! was negotiated comes in as [`Context`].
//!
//! Each malformed message has one disposition (RFC 7606), carried by [`error::DecodeError`] (the
//! session ends) or by [`update::Update::treat_as_withdraw`] / [`update::Update::discarded`] (it
//! lives on).

pub mod attribute;
pub mod error;
pub mod open;
pub mod update;

use crate::types::Families;

/// Length of the fixed header (RFC 4271 §4.1): marker, length, type.
pub const HEADER_LEN: usize = 19;
/// Largest message without the extended message capability.
pub const MAX_LEN: usize = 4096;
/// Largest message with it (RFC 8654).
pub const MAX_EXTENDED_LEN: usize = 65535;

/// What decides how bytes are read and written on one session, in one direction.
///
/// A pure function of the two OPENs ([`crate::session::negotiate`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// ASNs in AS_PATH and AGGREGATOR have four octets (RFC 6793).
    pub four_octet_as: bool,
    /// UPDATE, NOTIFICATION and ROUTE-REFRESH may have up to 65535 octets (RFC 8654).
    pub extended_message: bool,
    /// Families negotiated by MP-BGP; IPv4 also if neither side sent the capability.
    pub families: Families,
    /// Families whose NLRI carry a path identifier in this direction (RFC 7911).
    pub add_path: Families,
    /// Enhanced route refresh negotiated (RFC 7313).
    pub enhanced_refresh: bool,
    /// The session is external: LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST received are discarded,
    /// and the first AS of AS_PATH must be the peer's.
    pub external: bool,
    /// The peer's AS, for the first-AS check of an external session.
    pub peer_asn: crate::types::Asn,
}

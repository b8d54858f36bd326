//! Judges a peer's OPEN by what is configured (RFC 4271 §6.2).
//!
//! What needs no configuration (version, AS 0, hold time of 1 or 2 s, identifier 0.0.0.0,
//! contradictory roles) the decoder has refused already.

use crate::session::negotiate::families_of;
use crate::types::{Asn, Families, RouterId};
use crate::wire::error::Notification;
use crate::wire::notification::{error_code, open};
use crate::wire::open::Open;

/// What a peer's OPEN must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The AS configured for the peer.
    pub asn: Asn,
    /// Our own AS.
    pub local_asn: Asn,
    /// Our own BGP Identifier.
    pub local_router_id: RouterId,
    /// Families that we offer; one of them at least must be common.
    pub families: Families,
}

/// Why an OPEN is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OpenRefusal {
    /// 2/2: the peer is in another AS than configured.
    #[error("peer is in AS {got}, configured is AS {expected}")]
    BadPeerAs {
        /// Configured.
        expected: Asn,
        /// In its OPEN.
        got: Asn,
    },
    /// 2/3: an internal peer calls itself by our own BGP Identifier (RFC 6286 §2.2).
    #[error("internal peer has our own router id {0}")]
    OurRouterId(RouterId),
    /// 2/7: no address family in common.
    #[error("no address family in common with the peer")]
    NoCommonFamily {
        /// What we offered.
        offered: Families,
    },
}

impl OpenRefusal {
    /// The NOTIFICATION to send.
    #[must_use]
    pub fn notification(&self) -> Notification {
        let subcode = match self {
            Self::BadPeerAs { .. } => open::BAD_PEER_AS,
            Self::OurRouterId(_) => open::BAD_IDENTIFIER,
            Self::NoCommonFamily { .. } => open::UNSUPPORTED_CAPABILITY,
        };
        let data = match self {
            Self::BadPeerAs { .. } | Self::OurRouterId(_) => Vec::new(),
            // RFC 5492 §3: the data lists the capabilities that we insist on.
            Self::NoCommonFamily { offered } => offered
                .iter()
                .flat_map(|family| {
                    let [high, low] = family.afi().to_be_bytes();
                    [MULTIPROTOCOL, 4, high, low, 0, 1]
                })
                .collect(),
        };
        Notification { code: error_code::OPEN, subcode, data }
    }
}

/// Capability code of multiprotocol extensions (RFC 4760 §8).
const MULTIPROTOCOL: u8 = 1;

/// Is the peer's OPEN acceptable?
///
/// # Errors
/// It is not; close with [`OpenRefusal::notification`].
pub fn check(remote: &Open, expected: &Expected) -> Result<(), OpenRefusal> {
    let got = remote.asn();
    if got != expected.asn {
        return Err(OpenRefusal::BadPeerAs { expected: expected.asn, got });
    }
    // Between ASes equal identifiers are fine (RFC 6286 §2.1).
    if got == expected.local_asn && remote.router_id == expected.local_router_id.0 {
        return Err(OpenRefusal::OurRouterId(expected.local_router_id));
    }
    let theirs = families_of(remote);
    if !expected.families.iter().any(|family| theirs.contains(family)) {
        return Err(OpenRefusal::NoCommonFamily { offered: expected.families });
    }
    Ok(())
}

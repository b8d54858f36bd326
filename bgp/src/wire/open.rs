//! OPEN (RFC 4271 §4.2), capabilities (RFC 5492), extended optional parameters (RFC 9072).
//!
//! ```text
//! | version: 1 | my AS: 2 | hold time: 2 | BGP identifier: 4 | length: 1 | parameters |
//! parameters: (type: 1, length: 1, value)*; after 255, 255, length: 2 all lengths have 2 octets
//! ```

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::capability;
use super::error::DecodeError;
use super::notification::{error_code, open};
use super::reader::Reader;
use crate::types::Asn;

/// The only protocol version there is.
pub const VERSION: u8 = 4;
/// Optional parameter type: capabilities (RFC 5492 §4).
pub(crate) const PARAMETER_CAPABILITIES: u8 = 2;
/// Optional parameter type: extended length follows (RFC 9072 §2).
pub(crate) const PARAMETER_EXTENDED: u8 = 255;

/// An OPEN message. [`Open::asn`] is the real AS: the 4-octet capability's when present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Protocol version, 4.
    pub version: u8,
    /// The 2-octet field as on the wire (AS_TRANS for large ASNs).
    pub my_as: u16,
    /// Proposed hold time in seconds.
    pub hold_time_seconds: u16,
    /// BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Capabilities in wire order, duplicates included.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// The sender's AS: capability 65 if there, else the 2-octet field.
    #[must_use]
    pub fn asn(&self) -> Asn {
        self.capabilities
            .iter()
            .find_map(|c| match c {
                Capability::FourOctetAs(asn) => Some(*asn),
                _ => None,
            })
            .unwrap_or_else(|| Asn(self.my_as.into()))
    }

    /// What the 2-octet field must say for `asn`: the AS itself, or AS_TRANS (RFC 6793 §9).
    #[must_use]
    pub fn my_as_of(asn: Asn) -> u16 {
        // 23456 is AS_TRANS.
        u16::try_from(asn.0).unwrap_or(23456)
    }
}

/// One capability; codes that we do not use keep their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Capability {
    /// 1: multiprotocol, (AFI, SAFI) (RFC 4760).
    Multiprotocol(u16, u8),
    /// 2: route refresh (RFC 2918).
    RouteRefresh,
    /// 5: extended next hop encoding, (AFI, SAFI, next hop AFI) (RFC 8950).
    ExtendedNextHop(Vec<(u16, u16, u16)>),
    /// 6: extended message (RFC 8654).
    ExtendedMessage,
    /// 9: BGP role (RFC 9234): 0 provider, 1 RS, 2 RS-client, 3 customer, 4 peer.
    Role(u8),
    /// 64: graceful restart (RFC 4724).
    GracefulRestart {
        /// R bit: the sender has restarted.
        restarted: bool,
        /// N bit: NOTIFICATION support (RFC 8538).
        notification: bool,
        /// Restart time in seconds, 12 bits.
        restart_time_seconds: u16,
        /// (AFI, SAFI, forwarding state preserved).
        families: Vec<(u16, u8, bool)>,
    },
    /// 65: 4-octet AS (RFC 6793).
    FourOctetAs(Asn),
    /// 69: add-path, (AFI, SAFI, 1 receive | 2 send | 3 both) (RFC 7911). Entries with any other
    /// value were dropped on receipt, as §4 there asks.
    AddPath(Vec<(u16, u8, u8)>),
    /// 70: enhanced route refresh (RFC 7313).
    EnhancedRouteRefresh,
    /// 73: FQDN: hostname and domain name, as sent.
    Fqdn(Vec<u8>, Vec<u8>),
    /// Anything else: code and value.
    Unknown(u8, Vec<u8>),
}

/// Decodes and checks what needs no configuration (RFC 4271 §6.2).
pub(crate) fn decode(message: &[u8]) -> Result<Open, DecodeError> {
    let mut body = Reader::body(message);
    let truncated = || error(message.len(), "OPEN is cut short", open::UNSPECIFIC, &[]);
    let version = body.u8().ok_or_else(truncated)?;
    if version != VERSION {
        // The data is the largest version that we speak, in two octets.
        let supported = [0, VERSION];
        return Err(error(19, "BGP version is not 4", open::UNSUPPORTED_VERSION, &supported));
    }
    let my_as = body.u16().ok_or_else(truncated)?;
    let hold_time_seconds = body.u16().ok_or_else(truncated)?;
    let router_id = Ipv4Addr::from(body.array::<4>().ok_or_else(truncated)?);
    let parameters_len = body.u8().ok_or_else(truncated)?;
    let capabilities = parameters(body, parameters_len)?;
    let decoded = Open { version, my_as, hold_time_seconds, router_id, capabilities };
    check(&decoded)?;
    Ok(decoded)
}

fn check(decoded: &Open) -> Result<(), DecodeError> {
    // RFC 7607: AS 0 is never valid, in the field or in the capability.
    if decoded.my_as == 0 || decoded.capabilities.contains(&Capability::FourOctetAs(Asn(0))) {
        return Err(error(20, "AS 0", open::BAD_PEER_AS, &[]));
    }
    if matches!(decoded.hold_time_seconds, 1 | 2) {
        let reason = "hold time of one or two seconds";
        return Err(error(22, reason, open::UNACCEPTABLE_HOLD_TIME, &[]));
    }
    if decoded.router_id.is_unspecified() {
        return Err(error(24, "BGP identifier 0.0.0.0", open::BAD_IDENTIFIER, &[]));
    }
    // RFC 9234 §4.2: several roles must agree, and each must be a known one.
    let mut roles = decoded.capabilities.iter().filter_map(|c| match c {
        Capability::Role(role) => Some(*role),
        _ => None,
    });
    if let Some(first) = roles.next()
        && (first > 4 || roles.any(|role| role != first))
    {
        return Err(error(28, "unknown or contradictory BGP role", open::ROLE_MISMATCH, &[]));
    }
    Ok(())
}

/// The optional parameters; only capabilities are known.
fn parameters(mut body: Reader<'_>, len: u8) -> Result<Vec<Capability>, DecodeError> {
    let extended = len != 0 && body.rest().first() == Some(&PARAMETER_EXTENDED);
    let total = if extended {
        body.u8();
        body.u16().map(usize::from)
    } else {
        Some(usize::from(len))
    };
    // Neither a missing nor a surplus octet: both mean that the lengths cannot be trusted.
    if total != Some(body.rest().len()) {
        let reason = "length of the optional parameters does not match the message";
        return Err(error(body.offset(), reason, open::UNSPECIFIC, &[]));
    }
    let mut capabilities = Vec::new();
    while !body.is_empty() {
        let offset = body.offset();
        let kind = body.u8();
        let len = if extended { body.u16().map(usize::from) } else { body.u8().map(usize::from) };
        let value = len.and_then(|len| body.sub(len));
        match (kind, value) {
            (Some(PARAMETER_CAPABILITIES), Some(value)) => {
                capability::decode_all(value, &mut capabilities)?;
            }
            (_, None) => {
                let reason = "optional parameter is cut short";
                return Err(error(offset, reason, open::UNSPECIFIC, &[]));
            }
            (_, Some(_)) => {
                let reason = "unsupported optional parameter";
                return Err(error(offset, reason, open::UNSUPPORTED_PARAMETER, &[]));
            }
        }
    }
    Ok(capabilities)
}

pub(crate) fn error(offset: usize, reason: &'static str, subcode: u8, data: &[u8]) -> DecodeError {
    DecodeError::new(offset, reason, error_code::OPEN, subcode, data)
}

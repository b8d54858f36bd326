//! OPEN (RFC 4271 §4.2) and capabilities (RFC 5492).

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::types::Asn;

/// An OPEN message. `asn` is the real one: the 4-octet capability's when present.
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
    /// 69: add-path, (AFI, SAFI, 1 receive | 2 send | 3 both) (RFC 7911).
    AddPath(Vec<(u16, u8, u8)>),
    /// 70: enhanced route refresh (RFC 7313).
    EnhancedRouteRefresh,
    /// 73: FQDN: hostname and domain name, as sent.
    Fqdn(Vec<u8>, Vec<u8>),
    /// Anything else: code and value.
    Unknown(u8, Vec<u8>),
}

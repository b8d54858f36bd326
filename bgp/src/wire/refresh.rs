//! ROUTE-REFRESH (RFC 2918) with begin and end markers (RFC 7313).

use serde::{Deserialize, Serialize};

use super::Context;
use super::error::DecodeError;
use super::header::bad_length;
use super::notification::{REFRESH_BAD_LENGTH, error_code};
use super::reader::Reader;
use crate::types::Family;

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteRefresh {
    /// Address family number.
    pub afi: u16,
    /// Subsequent address family number.
    pub safi: u8,
    /// What is meant.
    pub kind: RefreshKind,
}

impl RouteRefresh {
    /// A message about `family`.
    #[must_use]
    pub const fn new(family: Family, kind: RefreshKind) -> Self {
        Self { afi: family.afi(), safi: 1, kind }
    }

    /// The family meant, if it is one that we route; anything else is ignored (RFC 2918 §4).
    #[must_use]
    pub const fn family(&self) -> Option<Family> {
        Family::from_afi_safi(self.afi, self.safi)
    }
}

/// Message subtype (RFC 7313 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefreshKind {
    /// 0: send your routes again.
    Request,
    /// 1: BoRR, the routes follow.
    Begin,
    /// 2: EoRR, all routes were sent.
    End,
    /// Any other subtype: to be ignored (RFC 7313 §5).
    Unknown(u8),
}

impl RefreshKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Begin => 1,
            Self::End => 2,
            Self::Unknown(code) => code,
        }
    }
}

pub(crate) fn decode(message: &[u8], context: &Context) -> Result<RouteRefresh, DecodeError> {
    match Reader::body(message).rest() {
        &[afi0, afi1, subtype, safi] => {
            let kind = match subtype {
                0 => RefreshKind::Request,
                // Without RFC 7313 the octet is reserved and ignored (RFC 2918 §3).
                _ if !context.enhanced_refresh => RefreshKind::Request,
                1 => RefreshKind::Begin,
                2 => RefreshKind::End,
                other => RefreshKind::Unknown(other),
            };
            Ok(RouteRefresh { afi: u16::from_be_bytes([afi0, afi1]), safi, kind })
        }
        [_, _, 1 | 2, ..] if context.enhanced_refresh => Err(DecodeError::new(
            16,
            "bad length of an enhanced ROUTE-REFRESH",
            error_code::ROUTE_REFRESH,
            REFRESH_BAD_LENGTH,
            message,
        )),
        _ => Err(bad_length(message)),
    }
}

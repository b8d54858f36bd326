//! Capabilities (RFC 5492 §4) on the wire: (code: 1, length: 1, value)*.

use super::error::DecodeError;
use super::notification::open;
use super::open::{Capability, error};
use super::reader::Reader;
use crate::types::Asn;

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const ROLE: u8 = 9;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_ROUTE_REFRESH: u8 = 70;
const FQDN: u8 = 73;

/// Longest value: its length is one octet.
const MAX_VALUE_LEN: usize = 255;
/// Graceful restart: the sender has restarted.
const RESTARTED: u16 = 0x8000;
/// Graceful restart: NOTIFICATION does not end it (RFC 8538).
const NOTIFICATION: u16 = 0x4000;
/// Graceful restart: forwarding state of the family was preserved.
const FORWARDING: u8 = 0x80;

/// Appends the capabilities of one parameter to `out`.
pub(crate) fn decode_all(
    mut parameter: Reader<'_>,
    out: &mut Vec<Capability>,
) -> Result<(), DecodeError> {
    while !parameter.is_empty() {
        let offset = parameter.offset();
        let code = parameter.u8();
        let value = parameter.u8().and_then(|len| parameter.take(len.into()));
        let (Some(code), Some(value)) = (code, value) else {
            return Err(error(offset, "capability is cut short", open::UNSPECIFIC, &[]));
        };
        let Some(capability) = decode(code, value) else {
            return Err(error(offset, "bad length of a capability", open::UNSPECIFIC, &[]));
        };
        out.push(capability);
    }
    Ok(())
}

/// `None`: the length of a capability that we would act upon is wrong.
fn decode(code: u8, value: &[u8]) -> Option<Capability> {
    let mut value = Reader::new(value, 0);
    let capability = match code {
        MULTIPROTOCOL => {
            let afi = value.u16()?;
            value.u8()?; // reserved
            Capability::Multiprotocol(afi, value.u8()?)
        }
        ROUTE_REFRESH => Capability::RouteRefresh,
        EXTENDED_NEXT_HOP => Capability::ExtendedNextHop(entries(&mut value, |entry| {
            Some((entry.u16()?, entry.u16()?, entry.u16()?))
        })?),
        EXTENDED_MESSAGE => Capability::ExtendedMessage,
        ROLE => Capability::Role(value.u8()?),
        GRACEFUL_RESTART => {
            let head = value.u16()?;
            Capability::GracefulRestart {
                restarted: head & RESTARTED != 0,
                notification: head & NOTIFICATION != 0,
                restart_time_seconds: head & 0x0fff,
                families: entries(&mut value, |entry| {
                    Some((entry.u16()?, entry.u8()?, entry.u8()? & FORWARDING != 0))
                })?,
            }
        }
        FOUR_OCTET_AS => Capability::FourOctetAs(Asn(value.u32()?)),
        ADD_PATH => {
            let mut all =
                entries(&mut value, |entry| Some((entry.u16()?, entry.u8()?, entry.u8()?)))?;
            all.retain(|(_, _, direction)| matches!(direction, 1..=3));
            Capability::AddPath(all)
        }
        ENHANCED_ROUTE_REFRESH => Capability::EnhancedRouteRefresh,
        // Only names for humans: not worth a session.
        FQDN => {
            return Some(
                fqdn(value).unwrap_or_else(|| Capability::Unknown(code, value.rest().to_vec())),
            );
        }
        _ => return Some(Capability::Unknown(code, value.rest().to_vec())),
    };
    value.is_empty().then_some(capability)
}

fn entries<'a, T>(
    value: &mut Reader<'a>,
    mut entry: impl FnMut(&mut Reader<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut all = Vec::new();
    while !value.is_empty() {
        all.push(entry(value)?);
    }
    Some(all)
}

fn fqdn(mut value: Reader<'_>) -> Option<Capability> {
    let mut name = || {
        let len = value.u8()?;
        value.take(len.into()).map(<[u8]>::to_vec)
    };
    let (host, domain) = (name()?, name()?);
    value.is_empty().then_some(Capability::Fqdn(host, domain))
}

/// Appends one capability. One whose value does not fit its length octet is left out: a
/// capability may always be missing, half of one may not be sent.
pub(crate) fn write(out: &mut Vec<u8>, capability: &Capability) {
    let start = out.len();
    out.extend_from_slice(&[code(capability), 0]);
    let fits = write_value(out, capability);
    match u8::try_from(out.len() - start - 2) {
        Ok(len) if fits => {
            if let Some(field) = out.get_mut(start + 1) {
                *field = len;
            }
        }
        _ => out.truncate(start),
    }
}

const fn code(capability: &Capability) -> u8 {
    match capability {
        Capability::Multiprotocol(..) => MULTIPROTOCOL,
        Capability::RouteRefresh => ROUTE_REFRESH,
        Capability::ExtendedNextHop(_) => EXTENDED_NEXT_HOP,
        Capability::ExtendedMessage => EXTENDED_MESSAGE,
        Capability::Role(_) => ROLE,
        Capability::GracefulRestart { .. } => GRACEFUL_RESTART,
        Capability::FourOctetAs(_) => FOUR_OCTET_AS,
        Capability::AddPath(_) => ADD_PATH,
        Capability::EnhancedRouteRefresh => ENHANCED_ROUTE_REFRESH,
        Capability::Fqdn(..) => FQDN,
        Capability::Unknown(code, _) => *code,
    }
}

/// False if some part has no encoding.
fn write_value(out: &mut Vec<u8>, capability: &Capability) -> bool {
    match capability {
        Capability::Multiprotocol(afi, safi) => {
            out.extend_from_slice(&afi.to_be_bytes());
            out.extend_from_slice(&[0, *safi]);
        }
        Capability::RouteRefresh
        | Capability::ExtendedMessage
        | Capability::EnhancedRouteRefresh => {}
        Capability::ExtendedNextHop(entries) => {
            for number in entries.iter().flat_map(|(afi, safi, next_hop)| [afi, safi, next_hop]) {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        Capability::Role(role) => out.push(*role),
        Capability::GracefulRestart { restarted, notification, restart_time_seconds, families } => {
            let head = (restart_time_seconds & 0x0fff)
                | if *restarted { RESTARTED } else { 0 }
                | if *notification { NOTIFICATION } else { 0 };
            out.extend_from_slice(&head.to_be_bytes());
            for (afi, safi, preserved) in families {
                out.extend_from_slice(&afi.to_be_bytes());
                out.extend_from_slice(&[*safi, if *preserved { FORWARDING } else { 0 }]);
            }
        }
        Capability::FourOctetAs(asn) => out.extend_from_slice(&asn.0.to_be_bytes()),
        Capability::AddPath(entries) => {
            for (afi, safi, direction) in entries {
                out.extend_from_slice(&afi.to_be_bytes());
                out.extend_from_slice(&[*safi, *direction]);
            }
        }
        Capability::Fqdn(host, domain) => {
            for name in [host, domain] {
                let Ok(len) = u8::try_from(name.len()) else { return false };
                out.push(len);
                out.extend_from_slice(name);
            }
        }
        Capability::Unknown(_, value) => {
            if value.len() > MAX_VALUE_LEN {
                return false;
            }
            out.extend_from_slice(value);
        }
    }
    true
}

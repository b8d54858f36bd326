//! Values to bytes. Everything appends to a buffer of the caller.

mod update;

use super::error::Notification;
use super::header::MessageType;
use super::open::{Open, PARAMETER_CAPABILITIES, PARAMETER_EXTENDED};
use super::refresh::RouteRefresh;
use super::{HEADER_LEN, MAX_LEN, capability};
use crate::types::Family;

pub(crate) use self::update::attribute;
pub use self::update::{EncodeError, UpdateWriter};

/// Appends an OPEN.
///
/// Capabilities go into one parameter, in the form of RFC 9072 when they need it. One that
/// cannot be encoded (a value above 255 octets), or that would take the message beyond 4096
/// octets, is left out.
pub fn open(open: &Open, out: &mut Vec<u8>) {
    let start = begin(out, MessageType::Open);
    out.push(open.version);
    out.extend_from_slice(&open.my_as.to_be_bytes());
    out.extend_from_slice(&open.hold_time_seconds.to_be_bytes());
    out.extend_from_slice(&open.router_id.octets());

    // Room for the longer form of the lengths: 255, 255, length, type, length.
    let room = MAX_LEN - HEADER_LEN - 10 - 6;
    let mut capabilities = Vec::new();
    for capability in &open.capabilities {
        let before = capabilities.len();
        capability::write(&mut capabilities, capability);
        if capabilities.len() > room {
            capabilities.truncate(before);
        }
    }
    match u8::try_from(capabilities.len()) {
        Ok(0) => out.push(0),
        // Two more octets for the parameter's own type and length.
        Ok(len) if len <= 253 => {
            out.extend_from_slice(&[len + 2, PARAMETER_CAPABILITIES, len]);
        }
        _ => {
            let len = u16::try_from(capabilities.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&[255, PARAMETER_EXTENDED]);
            out.extend_from_slice(&(len + 3).to_be_bytes());
            out.push(PARAMETER_CAPABILITIES);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    out.extend_from_slice(&capabilities);
    end(out, start);
}

/// Appends a KEEPALIVE.
pub fn keepalive(out: &mut Vec<u8>) {
    let start = begin(out, MessageType::Keepalive);
    end(out, start);
}

/// Appends a NOTIFICATION; data is cut so that the message has at most 4096 octets.
pub fn notification(notification: &Notification, out: &mut Vec<u8>) {
    let start = begin(out, MessageType::Notification);
    out.extend_from_slice(&[notification.code, notification.subcode]);
    let room = MAX_LEN - HEADER_LEN - 2;
    out.extend(notification.data.iter().take(room));
    end(out, start);
}

/// Appends a ROUTE-REFRESH.
pub fn route_refresh(refresh: &RouteRefresh, out: &mut Vec<u8>) {
    let start = begin(out, MessageType::RouteRefresh);
    out.extend_from_slice(&refresh.afi.to_be_bytes());
    out.extend_from_slice(&[refresh.kind.code(), refresh.safi]);
    end(out, start);
}

/// Appends the End-of-RIB marker of `family` (RFC 4724 §2).
pub fn end_of_rib(family: Family, out: &mut Vec<u8>) {
    let start = begin(out, MessageType::Update);
    match family {
        Family::Ipv4 => out.extend_from_slice(&[0, 0, 0, 0]),
        // No withdrawn field; six octets of attributes: a lone MP_UNREACH_NLRI (2/1).
        Family::Ipv6 => out.extend_from_slice(&[0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]),
    }
    end(out, start);
}

/// Appends a header whose length [`end`] fills in; returns where the message starts.
fn begin(out: &mut Vec<u8>, kind: MessageType) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind.code()]);
    start
}

fn end(out: &mut [u8], start: usize) {
    let len = out.len() - start;
    patch(out, start + 16, len);
}

/// Writes a 2-octet length at `at`; the callers bound `len` by the message size.
fn patch(out: &mut [u8], at: usize, len: usize) {
    debug_assert!(len <= super::MAX_EXTENDED_LEN);
    let bytes = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&bytes);
    }
}

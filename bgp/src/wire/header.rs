//! The fixed header and message boundaries (RFC 4271 §4.1, §6.1; RFC 8654).
//!
//! ```text
//!  0                   1                   2                   3
//! |                     Marker: 16 octets of all ones             |
//! |          Length               |      Type     |
//! ```

use super::error::DecodeError;
use super::notification::{error_code, header};
use super::reader::Reader;
use super::{HEADER_LEN, MAX_LEN};

/// Message type (RFC 4271 §4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageType {
    /// 1
    Open,
    /// 2
    Update,
    /// 3
    Notification,
    /// 4
    Keepalive,
    /// 5
    RouteRefresh,
}

impl MessageType {
    /// The type code on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Open,
            2 => Self::Update,
            3 => Self::Notification,
            4 => Self::Keepalive,
            5 => Self::RouteRefresh,
            _ => return None,
        })
    }

    /// Allowed total lengths. A short NOTIFICATION passes because it must never be answered, a
    /// ROUTE-REFRESH because RFC 7313 §5 answers with the whole message: their decoders judge.
    const fn lengths(self, max_len: usize) -> (usize, usize) {
        match self {
            Self::Open => (HEADER_LEN + 10, MAX_LEN),
            Self::Update => (HEADER_LEN + 4, max_len),
            Self::Notification | Self::RouteRefresh => (HEADER_LEN, max_len),
            Self::Keepalive => (HEADER_LEN, HEADER_LEN),
        }
    }
}

/// Finds the first message in `buf`: its type and total length in octets.
///
/// `None`: more bytes are needed. `max_len` is [`super::Context::max_len`] of the receive side.
///
/// # Errors
/// A header error (RFC 4271 §6.1), as soon as the 19 octets of the header are there; the body is
/// not waited for.
pub fn frame(buf: &[u8], max_len: usize) -> Result<Option<(MessageType, usize)>, DecodeError> {
    let mut reader = Reader::new(buf, 0);
    let (Some(marker), Some(length), Some(code)) =
        (reader.array::<16>(), reader.u16(), reader.u8())
    else {
        return Ok(None);
    };
    if marker != [0xff; 16] {
        return Err(error(0, "marker is not all ones", header::NOT_SYNCHRONIZED, &[]));
    }
    let len = usize::from(length);
    if len < HEADER_LEN || len > max_len {
        return Err(bad_length(buf));
    }
    let Some(kind) = MessageType::from_code(code) else {
        return Err(error(18, "unknown message type", header::BAD_TYPE, &[code]));
    };
    let (shortest, longest) = kind.lengths(max_len);
    if len < shortest || len > longest {
        return Err(bad_length(buf));
    }
    Ok((buf.len() >= len).then_some((kind, len)))
}

/// Bad Message Length (1/2); the data is the length field.
pub(crate) fn bad_length(message: &[u8]) -> DecodeError {
    error(16, "bad message length", header::BAD_LENGTH, message.get(16..18).unwrap_or_default())
}

fn error(offset: usize, reason: &'static str, subcode: u8, data: &[u8]) -> DecodeError {
    DecodeError::new(offset, reason, error_code::HEADER, subcode, data)
}

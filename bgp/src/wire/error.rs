//! What can be wrong with bytes, and what to answer.

use serde::{Deserialize, Serialize};

/// A NOTIFICATION to send, or one received (RFC 4271 §4.5).
///
/// `Display` gives it in words; names of codes are in [`super::notification`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode, 0 = unspecific.
    pub subcode: u8,
    /// Diagnostic data as on the wire.
    pub data: Vec<u8>,
}

/// A message that ends the session (RFC 7606 "session reset"), with the NOTIFICATION to send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at octet {offset}")]
pub struct DecodeError {
    /// Octet offset within the message where it went wrong.
    pub offset: usize,
    /// What was wrong, for humans.
    pub reason: &'static str,
    /// What to tell the peer.
    pub notification: Notification,
}

impl DecodeError {
    pub(crate) fn new(
        offset: usize,
        reason: &'static str,
        code: u8,
        subcode: u8,
        data: &[u8],
    ) -> Self {
        Self { offset, reason, notification: Notification { code, subcode, data: data.to_vec() } }
    }
}

/// What a malformed attribute costs (RFC 7606 §2), mildest first.
///
/// "AFI/SAFI disable" is not used: where RFC 7606 allows it, it allows the reset too, and a peer
/// that garbles NLRI can not be trusted with the other family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Disposition {
    /// The attribute is dropped, the routes are kept.
    AttributeDiscard,
    /// All prefixes announced in the message are handled as withdrawn.
    TreatAsWithdraw,
    /// The session ends with a NOTIFICATION.
    SessionReset,
}

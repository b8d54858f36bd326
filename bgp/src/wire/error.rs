//! What can be wrong with bytes, and what to answer.

use std::fmt;

/// A NOTIFICATION to send, or one received (RFC 4271 §4.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode, 0 = unspecific.
    pub subcode: u8,
    /// Diagnostic data as on the wire.
    pub data: Vec<u8>,
}

/// A message that ends the session (RFC 7606 "session reset"), with the NOTIFICATION to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Octet offset within the message where it went wrong.
    pub offset: usize,
    /// What was wrong, for humans.
    pub reason: &'static str,
    /// What to tell the peer.
    pub notification: Notification,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at octet {}", self.reason, self.offset)
    }
}

impl std::error::Error for DecodeError {}

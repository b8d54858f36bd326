//! NOTIFICATION (RFC 4271 §4.5): code points, their names, and the text inside some of them.

use std::fmt::{self, Write as _};

use super::error::Notification;
use super::reader::Reader;

/// Error codes (IANA "BGP Error (Notification) Codes").
pub mod error_code {
    /// Message Header Error.
    pub const HEADER: u8 = 1;
    /// OPEN Message Error.
    pub const OPEN: u8 = 2;
    /// UPDATE Message Error.
    pub const UPDATE: u8 = 3;
    /// Hold Timer Expired.
    pub const HOLD_TIMER: u8 = 4;
    /// Finite State Machine Error (subcodes: RFC 6608).
    pub const FSM: u8 = 5;
    /// Cease (subcodes: RFC 4486).
    pub const CEASE: u8 = 6;
    /// ROUTE-REFRESH Message Error (RFC 7313).
    pub const ROUTE_REFRESH: u8 = 7;
    /// Send Hold Timer Expired (RFC 9687).
    pub const SEND_HOLD_TIMER: u8 = 8;
}

/// Subcodes of [`error_code::HEADER`].
pub mod header {
    /// Connection Not Synchronized.
    pub const NOT_SYNCHRONIZED: u8 = 1;
    /// Bad Message Length.
    pub const BAD_LENGTH: u8 = 2;
    /// Bad Message Type.
    pub const BAD_TYPE: u8 = 3;
}

/// Subcodes of [`error_code::OPEN`].
pub mod open {
    /// Not one of the others.
    pub const UNSPECIFIC: u8 = 0;
    /// Unsupported Version Number.
    pub const UNSUPPORTED_VERSION: u8 = 1;
    /// Bad Peer AS.
    pub const BAD_PEER_AS: u8 = 2;
    /// Bad BGP Identifier.
    pub const BAD_IDENTIFIER: u8 = 3;
    /// Unsupported Optional Parameter.
    pub const UNSUPPORTED_PARAMETER: u8 = 4;
    /// Unacceptable Hold Time.
    pub const UNACCEPTABLE_HOLD_TIME: u8 = 6;
    /// Unsupported Capability (RFC 5492).
    pub const UNSUPPORTED_CAPABILITY: u8 = 7;
    /// Role Mismatch (RFC 9234).
    pub const ROLE_MISMATCH: u8 = 11;
}

/// Subcodes of [`error_code::UPDATE`] that are still sent after RFC 7606.
pub mod update {
    /// Malformed Attribute List.
    pub const MALFORMED_ATTRIBUTE_LIST: u8 = 1;
    /// Optional Attribute Error.
    pub const OPTIONAL_ATTRIBUTE: u8 = 9;
    /// Invalid Network Field.
    pub const INVALID_NETWORK: u8 = 10;
}

/// Subcodes of [`error_code::FSM`] (RFC 6608).
pub mod fsm {
    /// Unexpected message in OpenSent.
    pub const OPEN_SENT: u8 = 1;
    /// Unexpected message in OpenConfirm.
    pub const OPEN_CONFIRM: u8 = 2;
    /// Unexpected message in Established.
    pub const ESTABLISHED: u8 = 3;
}

/// Subcodes of [`error_code::CEASE`] (RFC 4486, RFC 8538, RFC 9384).
pub mod cease {
    /// Maximum Number of Prefixes Reached.
    pub const MAX_PREFIXES: u8 = 1;
    /// Administrative Shutdown; may carry text (RFC 9003).
    pub const ADMIN_SHUTDOWN: u8 = 2;
    /// Peer De-configured.
    pub const PEER_DECONFIGURED: u8 = 3;
    /// Administrative Reset; may carry text (RFC 9003).
    pub const ADMIN_RESET: u8 = 4;
    /// Connection Rejected.
    pub const CONNECTION_REJECTED: u8 = 5;
    /// Other Configuration Change.
    pub const CONFIGURATION_CHANGE: u8 = 6;
    /// Connection Collision Resolution.
    pub const COLLISION: u8 = 7;
    /// Out of Resources.
    pub const OUT_OF_RESOURCES: u8 = 8;
    /// Hard Reset (RFC 8538).
    pub const HARD_RESET: u8 = 9;
    /// BFD Down (RFC 9384).
    pub const BFD_DOWN: u8 = 10;
}

/// Subcode of [`error_code::ROUTE_REFRESH`]: Invalid Message Length.
pub const REFRESH_BAD_LENGTH: u8 = 1;

/// Longest shutdown communication in octets (RFC 9003 §2).
pub const MAX_COMMUNICATION_LEN: usize = 255;

/// How many octets of data a human is shown.
const SHOWN_DATA_LEN: usize = 64;

/// The name of an error code.
#[must_use]
pub const fn code_name(code: u8) -> Option<&'static str> {
    Some(match code {
        error_code::HEADER => "Message Header Error",
        error_code::OPEN => "OPEN Message Error",
        error_code::UPDATE => "UPDATE Message Error",
        error_code::HOLD_TIMER => "Hold Timer Expired",
        error_code::FSM => "Finite State Machine Error",
        error_code::CEASE => "Cease",
        error_code::ROUTE_REFRESH => "ROUTE-REFRESH Message Error",
        error_code::SEND_HOLD_TIMER => "Send Hold Timer Expired",
        _ => return None,
    })
}

/// The name of a subcode; none for subcode 0 ("unspecific").
#[must_use]
pub const fn subcode_name(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (1, 1) => "Connection Not Synchronized",
        (1, 2) => "Bad Message Length",
        (1, 3) => "Bad Message Type",
        (2, 1) => "Unsupported Version Number",
        (2, 2) => "Bad Peer AS",
        (2, 3) => "Bad BGP Identifier",
        (2, 4) => "Unsupported Optional Parameter",
        (2, 5) => "Authentication Failure",
        (2, 6) => "Unacceptable Hold Time",
        (2, 7) => "Unsupported Capability",
        (2, 11) => "Role Mismatch",
        (3, 1) => "Malformed Attribute List",
        (3, 2) => "Unrecognized Well-known Attribute",
        (3, 3) => "Missing Well-known Attribute",
        (3, 4) => "Attribute Flags Error",
        (3, 5) => "Attribute Length Error",
        (3, 6) => "Invalid ORIGIN Attribute",
        (3, 7) => "AS Routing Loop",
        (3, 8) => "Invalid NEXT_HOP Attribute",
        (3, 9) => "Optional Attribute Error",
        (3, 10) => "Invalid Network Field",
        (3, 11) => "Malformed AS_PATH",
        (5, 1) => "Unexpected Message in OpenSent State",
        (5, 2) => "Unexpected Message in OpenConfirm State",
        (5, 3) => "Unexpected Message in Established State",
        (6, 1) => "Maximum Number of Prefixes Reached",
        (6, 2) => "Administrative Shutdown",
        (6, 3) => "Peer De-configured",
        (6, 4) => "Administrative Reset",
        (6, 5) => "Connection Rejected",
        (6, 6) => "Other Configuration Change",
        (6, 7) => "Connection Collision Resolution",
        (6, 8) => "Out of Resources",
        (6, 9) => "Hard Reset",
        (6, 10) => "BFD Down",
        (7, 1) => "Invalid Message Length",
        _ => return None,
    })
}

impl Notification {
    /// A NOTIFICATION without data.
    #[must_use]
    pub const fn new(code: u8, subcode: u8) -> Self {
        Self { code, subcode, data: Vec::new() }
    }

    /// A Cease that tells the operator on the other side why (RFC 9003), for
    /// [`cease::ADMIN_SHUTDOWN`] and [`cease::ADMIN_RESET`]. Text beyond
    /// [`MAX_COMMUNICATION_LEN`] octets is cut at a character boundary; no text, no data.
    #[must_use]
    pub fn cease_with_text(subcode: u8, text: &str) -> Self {
        let end = text.floor_char_boundary(MAX_COMMUNICATION_LEN);
        let text = text.get(..end).unwrap_or_default();
        let mut data = Vec::new();
        if let (Ok(len), false) = (u8::try_from(text.len()), text.is_empty()) {
            data.push(len);
            data.extend_from_slice(text.as_bytes());
        }
        Self { code: error_code::CEASE, subcode, data }
    }

    /// The same as a Hard Reset (RFC 8538 §3.1): the receiver keeps no routes for it.
    #[must_use]
    pub fn hard_reset(self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend(self.data);
        Self { code: error_code::CEASE, subcode: cease::HARD_RESET, data }
    }

    /// What a Hard Reset carries.
    fn carried(&self) -> Option<Self> {
        match (self.code, self.subcode, self.data.as_slice()) {
            (error_code::CEASE, cease::HARD_RESET, [code, subcode, data @ ..])
                if (*code, *subcode) != (error_code::CEASE, cease::HARD_RESET) =>
            {
                Some(Self { code: *code, subcode: *subcode, data: data.to_vec() })
            }
            _ => None,
        }
    }

    /// The shutdown communication (RFC 9003) of a 6/2 or 6/4, also inside a Hard Reset
    /// (RFC 8538 §3.1), made safe to print: control characters and invalid UTF-8 are escaped.
    /// When the length octet promises more than came, what came.
    #[must_use]
    pub fn communication(&self) -> Option<String> {
        let (subcode, data) = match (self.code, self.subcode, self.data.as_slice()) {
            (error_code::CEASE, cease::HARD_RESET, [error_code::CEASE, subcode, data @ ..]) => {
                (*subcode, data)
            }
            (error_code::CEASE, subcode, data) => (subcode, data),
            _ => return None,
        };
        if subcode != cease::ADMIN_SHUTDOWN && subcode != cease::ADMIN_RESET {
            return None;
        }
        let (len, text) = data.split_first()?;
        let text = text.get(..usize::from(*len)).unwrap_or(text);
        (!text.is_empty()).then(|| escape(text))
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match code_name(self.code) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "Error {}", self.code)?,
        }
        match subcode_name(self.code, self.subcode) {
            Some(name) => write!(f, ": {name}")?,
            None if self.subcode != 0 => write!(f, ": subcode {}", self.subcode)?,
            None => {}
        }
        write!(f, " ({}/{})", self.code, self.subcode)?;
        if let Some(carried) = self.carried() {
            return write!(f, ": {carried}");
        }
        if let Some(text) = self.communication() {
            return write!(f, ": \"{text}\"");
        }
        if !self.data.is_empty() {
            f.write_str(", data ")?;
            for byte in self.data.iter().take(SHOWN_DATA_LEN) {
                write!(f, "{byte:02x}")?;
            }
            if self.data.len() > SHOWN_DATA_LEN {
                write!(f, "... ({} octets)", self.data.len())?;
            }
        }
        Ok(())
    }
}

/// Text from the wire as something that can go into a log, a terminal and a metric label.
#[must_use]
pub fn escape(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            // Beyond control characters: bidirectional overrides and the like can fake a log line.
            if c.is_control() || c == '\\' || c == '"' || is_invisible(c) {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail; the result says nothing.
            if write!(out, "\\x{byte:02x}").is_err() {
                return out;
            }
        }
    }
    out
}

/// Format characters: zero width, direction marks and overrides, line and paragraph separators.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The body of a NOTIFICATION. One without codes becomes 0/0: it is never answered, so it has no
/// error.
pub(crate) fn decode(message: &[u8]) -> Notification {
    let mut body = Reader::body(message);
    let code = body.u8().unwrap_or_default();
    let subcode = body.u8().unwrap_or_default();
    Notification { code, subcode, data: body.rest().to_vec() }
}

//! The BGP-4 codec. Parsing never panics, whatever the bytes (fuzzed), and never guesses: what
//! was negotiated comes in as [`Context`].
//!
//! Each malformed message has one disposition (RFC 7606), carried by [`error::DecodeError`] (the
//! session ends) or by [`update::Update::treat_as_withdraw`] / [`update::Update::discarded`] (it
//! lives on). Faults that only configuration can tell (wrong AS, our own router id) are the
//! session's business; routes that are well-formed but unusable are the RIB's.
//!
//! ```text
//! TCP bytes -> frame() -> one message -> decode() -> Message::{Open, Update, ...}
//! encode::{open, keepalive, ...}, encode::UpdateWriter -> bytes
//! ```

pub mod attribute;
mod capability;
pub mod encode;
pub mod error;
mod header;
mod nlri;
pub mod notification;
pub mod open;
mod reader;
pub mod refresh;
pub mod update;

use crate::types::{Asn, Families};

pub use self::error::{DecodeError, Notification};
pub use self::header::{MessageType, frame};
pub use self::open::Open;
pub use self::refresh::RouteRefresh;
pub use self::update::Update;

/// Length of the fixed header (RFC 4271 §4.1): marker, length, type.
pub const HEADER_LEN: usize = 19;
/// Largest message without the extended message capability.
pub const MAX_LEN: usize = 4096;
/// Largest message with it (RFC 8654).
pub const MAX_EXTENDED_LEN: usize = 65535;

/// What decides how bytes are read and written on one session, in one direction.
///
/// A pure function of the two OPENs ([`crate::session::negotiate()`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// ASNs in AS_PATH and AGGREGATOR have four octets (RFC 6793).
    pub four_octet_as: bool,
    /// UPDATE, NOTIFICATION and ROUTE-REFRESH may have up to 65535 octets (RFC 8654).
    pub extended_message: bool,
    /// Families negotiated by MP-BGP; IPv4 also if neither side sent the capability.
    pub families: Families,
    /// Families whose NLRI carry a path identifier in this direction (RFC 7911).
    pub add_path: Families,
    /// Enhanced route refresh negotiated (RFC 7313).
    pub enhanced_refresh: bool,
    /// The session is external: LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST received are discarded
    /// (and never sent), and the first AS of AS_PATH must be the peer's.
    pub external: bool,
    /// The peer's AS, for the first-AS check of an external session.
    pub peer_asn: Asn,
}

impl Context {
    /// What holds before the OPENs are exchanged: nothing was negotiated.
    pub const OPENING: Self = Self {
        four_octet_as: false,
        extended_message: false,
        families: Families::NONE,
        add_path: Families::NONE,
        enhanced_refresh: false,
        external: false,
        peer_asn: Asn(0),
    };

    /// The largest UPDATE, NOTIFICATION or ROUTE-REFRESH in octets; what [`frame`] wants to know.
    #[must_use]
    pub const fn max_len(&self) -> usize {
        if self.extended_message { MAX_EXTENDED_LEN } else { MAX_LEN }
    }
}

/// A decoded message.
#[expect(
    clippy::large_enum_variant,
    reason = "UPDATE is nearly every message; boxing it would allocate for each"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// RFC 4271 §4.2.
    Open(Open),
    /// RFC 4271 §4.3.
    Update(Update<'a>),
    /// RFC 4271 §4.5. A NOTIFICATION too short to hold its codes arrives as 0/0: it ends the
    /// session like any other and is never answered.
    Notification(Notification),
    /// RFC 4271 §4.4.
    Keepalive,
    /// RFC 2918 and RFC 7313.
    RouteRefresh(RouteRefresh),
}

/// Decodes exactly one message, as delimited by [`frame`].
///
/// # Errors
/// When the session must end; the error holds the NOTIFICATION to send. Malformed attributes that
/// do not end the session are part of [`Update`].
pub fn decode<'a>(message: &'a [u8], context: &Context) -> Result<Message<'a>, DecodeError> {
    match frame(message, context.max_len())? {
        Some((kind, len)) if len == message.len() => match kind {
            MessageType::Open => open::decode(message).map(Message::Open),
            MessageType::Update => update::decode(message, context).map(Message::Update),
            MessageType::Notification => Ok(Message::Notification(notification::decode(message))),
            MessageType::Keepalive => Ok(Message::Keepalive),
            MessageType::RouteRefresh => {
                refresh::decode(message, context).map(Message::RouteRefresh)
            }
        },
        Some(_) | None => Err(header::bad_length(message)),
    }
}

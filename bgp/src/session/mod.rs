//! Sessions with peers (RFC 4271 §8): who is connected, what was negotiated, when it ends.
//!
//! A [`Peer`] holds a configured neighbour and up to two TCP connections: one that we open, one
//! that the peer opens. Each has an FSM of its own; a collision leaves one ([`collision`]). It
//! never opens a socket, reads a clock or logs. The order of calls:
//!
//! ```text
//! Peer::new, start                  then poll_output until None, after every call below
//! Output::Connect  -> connected | connect_failed
//! accept           -> a ConnectionId, or a Refusal: close at once
//! receive(bytes)   -> SessionEvents into a sink, in the order of the stream
//! Output::Transmit -> transmit: own messages; the speaker adds its UPDATEs, and tells by streamed
//! Output::Close    -> transmit once more, write all, close
//! poll_timeout     -> the one next deadline; handle_timeout then
//! ```
//!
//! A driver asks `transmit` again until it gives nothing: that is how the send hold timer
//! (RFC 9687) learns that the peer takes bytes.
//!
//! # Starting, failing, pausing
//! A peer that is not passive dials at once. After a failed attempt, or a session that was lost, it
//! waits in Active: the first time [`connect_retry`](crate::config::PeerConfig::connect_retry),
//! twice as long for each further failure, at most 60 s, with jitter; a connection that the peer
//! opens is welcome meanwhile. After an *error* of the peer (wrong OPEN, malformed or unexpected
//! message, a NOTIFICATION that blames us, no reading) the peer is held down: Idle, 1 s to 300 s
//! by factor 3, neither dialled nor accepted. So is a peer whose sessions end again and again
//! shortly after they came up.
//!
//! # The table
//! One row for each event of RFC 4271 §8.1 (29: RFC 9687), one column for each state: next state
//! and reaction. `-`: nothing happens. What each reaction does is [`table::Reaction::actions`]; n/x
//! is the NOTIFICATION that is sent. A test compares this text with [`table::cell`].
//!
//! | # | event | Idle | Connect | Active | OpenSent | OpenConfirm | Established |
//! |---|---|---|---|---|---|---|---|
//! | 1 | ManualStart | Connect: dial | - | - | - | - | - |
//! | 2 | ManualStop | - | Idle: stop | Idle: stop | Idle: stop 6/x | Idle: stop 6/x | Idle: stop 6/x |
//! | 3 | AutomaticStart | Connect: retry | - | - | - | - | - |
//! | 4 | ManualStartPassive | Active: listen | - | - | - | - | - |
//! | 5 | AutomaticStartPassive | Active: pause | - | - | - | - | - |
//! | 6 | AutomaticStartDamped | Idle: damp | - | - | - | - | - |
//! | 7 | AutomaticStartDampedPassive | Idle: damp | - | - | - | - | - |
//! | 8 | AutomaticStop | - | Idle: quit | Idle: quit | Idle: cease 6/x | Idle: cease 6/x | Idle: cease 6/x |
//! | 9 | ConnectRetryTimerExpires | - | Connect: redial | Connect: retry | Idle: fsm 5/x | Idle: fsm 5/x | Idle: fsm 5/x |
//! | 10 | HoldTimerExpires | - | Idle: quit | Idle: quit | Idle: hold 4/0 | Idle: hold 4/0 | Idle: hold 4/0 |
//! | 11 | KeepaliveTimerExpires | - | Idle: quit | Idle: quit | Idle: fsm 5/x | OpenConfirm: keepalive | Established: keepalive |
//! | 12 | DelayOpenTimerExpires | - | OpenSent: open | OpenSent: open | Idle: fsm 5/x | Idle: fsm 5/x | Idle: fsm 5/x |
//! | 13 | IdleHoldTimerExpires | Idle: start | Idle: quit | Idle: quit | Idle: fsm 5/x | Idle: fsm 5/x | Idle: fsm 5/x |
//! | 14 | TcpConnectionValid | Idle: refuse | - | - | - | - | - |
//! | 15 | TcpConnectionInvalid | Idle: refuse | - | - | - | - | - |
//! | 16 | TcpConnectionAcked | Idle: refuse | OpenSent: open | OpenSent: open | - | - | - |
//! | 17 | TcpConnectionConfirmed | Idle: refuse | OpenSent: open | OpenSent: open | - | - | - |
//! | 18 | TcpConnectionFails | - | Idle: quit | Idle: quit | Active: wait | Idle: quit | Idle: quit |
//! | 19 | BgpOpen | - | Idle: quit | Idle: quit | OpenConfirm: confirm | Idle: fsm 5/x | Idle: fsm 5/x |
//! | 20 | BgpOpenDelayed | - | OpenConfirm: open+confirm | OpenConfirm: open+confirm | Idle: fsm 5/x | Idle: fsm 5/x | Idle: fsm 5/x |
//! | 21 | BgpHeaderErr | - | Idle: quit | Idle: quit | Idle: found n/x | Idle: found n/x | Idle: found n/x |
//! | 22 | BgpOpenMsgErr | - | Idle: quit | Idle: quit | Idle: found n/x | Idle: found n/x | Idle: fsm 5/x |
//! | 23 | OpenCollisionDump | - | Idle: quit | Idle: quit | Idle: cease 6/x | Idle: cease 6/x | Idle: cease 6/x |
//! | 24 | NotifMsgVerErr | - | Idle: quit | Idle: quit | Idle: quit | Idle: quit | Idle: quit |
//! | 25 | NotifMsg | - | Idle: quit | Idle: quit | Idle: quit | Idle: quit | Idle: quit |
//! | 26 | KeepAliveMsg | - | Idle: quit | Idle: quit | Idle: fsm 5/x | Established: establish | Established: refresh |
//! | 27 | UpdateMsg | - | Idle: quit | Idle: quit | Idle: fsm 5/x | Idle: fsm 5/x | Established: update |
//! | 28 | UpdateMsgErr | - | Idle: quit | Idle: quit | Idle: fsm 5/x | Idle: fsm 5/x | Idle: found n/x |
//! | 29 | SendHoldTimerExpires | - | Idle: quit | Idle: quit | Idle: fsm 5/x | Idle: fsm 5/x | Idle: sendhold 8/0 |
//!
//! After every transition a connection's FSM that is not Idle owns a connection or an armed timer,
//! and a started peer has an FSM that is not Idle or a pause that ends: nothing can get stuck.

pub mod collision;
pub mod fault;
mod link;
pub mod negotiate;
pub mod open_check;
mod output;
mod peer;
mod receive;
pub mod state;
pub mod table;
pub mod timer;
mod transition;

#[cfg(test)]
mod tests;

use crate::types::{Asn, RouterId};

pub use self::fault::Fault;
pub use self::link::ConnectionId;
pub use self::negotiate::{Negotiated, negotiate};
pub use self::output::{Output, PeerEvent, Refusal, SessionEvent, Stats};
pub use self::peer::Peer;
pub use self::state::State;

/// What we are towards every peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP Identifier.
    pub router_id: RouterId,
    /// Hostname for the FQDN capability; empty = not sent.
    pub hostname: String,
}

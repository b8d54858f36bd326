//! The six states and the twenty-nine events of the BGP finite state machine.

use std::fmt;

use serde::{Deserialize, Serialize};

/// State of one connection's FSM (RFC 4271 §8.2.2). Ordered as the RFC lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Refuses everything; owns no connection.
    Idle,
    /// Waits for its own TCP connection attempt.
    Connect,
    /// Waits: for the peer to connect, or for the next attempt.
    Active,
    /// Sent OPEN, waits for the peer's.
    OpenSent,
    /// Both OPENs are fine, waits for KEEPALIVE.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl State {
    /// All states, in table order.
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Connect,
        Self::Active,
        Self::OpenSent,
        Self::OpenConfirm,
        Self::Established,
    ];

    /// A TCP connection is up in this state.
    #[must_use]
    pub const fn is_connected(self) -> bool {
        matches!(self, Self::OpenSent | Self::OpenConfirm | Self::Established)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        })
    }
}

/// An event of the FSM, with the number and the name that RFC 4271 §8.1 gives it
/// (29: RFC 9687 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// 1: the operator starts the peer.
    ManualStart,
    /// 2: the operator stops the peer.
    ManualStop,
    /// 3: the speaker starts the peer.
    AutomaticStart,
    /// 4: the operator starts the peer, which shall only listen.
    ManualStartPassive,
    /// 5: the speaker starts the peer, which shall listen (and dial later unless passive).
    AutomaticStartPassive,
    /// 6: the speaker starts the peer after a damping pause.
    AutomaticStartDamped,
    /// 7: the same, listening.
    AutomaticStartDampedPassive,
    /// 8: the speaker stops the peer.
    AutomaticStop,
    /// 9: time to dial, or time that a dial may take, is over.
    ConnectRetryTimerExpires,
    /// 10: nothing heard for the hold time.
    HoldTimerExpires,
    /// 11: time to send a KEEPALIVE.
    KeepaliveTimerExpires,
    /// 12: DelayOpen is over. DelayOpen is never set here, so it does not occur.
    DelayOpenTimerExpires,
    /// 13: the damping pause is over.
    IdleHoldTimerExpires,
    /// 14: an acceptable SYN was seen. The kernel completes handshakes, so it does not occur.
    TcpConnectionValid,
    /// 15: an inadmissible connection request.
    TcpConnectionInvalid,
    /// 16: the TCP connection that we opened is up.
    TcpConnectionAcked,
    /// 17: a TCP connection that the peer opened is up.
    TcpConnectionConfirmed,
    /// 18: TCP failed: refused, reset, closed.
    TcpConnectionFails,
    /// 19: a valid OPEN.
    BgpOpen,
    /// 20: a valid OPEN during DelayOpen; does not occur (see 12).
    BgpOpenDelayed,
    /// 21: a message header is wrong.
    BgpHeaderErr,
    /// 22: an OPEN is wrong or not acceptable.
    BgpOpenMsgErr,
    /// 23: this connection lost a collision.
    OpenCollisionDump,
    /// 24: NOTIFICATION "unsupported version number".
    NotifMsgVerErr,
    /// 25: any other NOTIFICATION.
    NotifMsg,
    /// 26: KEEPALIVE.
    KeepAliveMsg,
    /// 27: UPDATE.
    UpdateMsg,
    /// 28: an UPDATE so broken that the session must end.
    UpdateMsgErr,
    /// 29: the peer takes no bytes (RFC 9687).
    SendHoldTimerExpires,
}

impl Event {
    /// All events; event number n is at index n - 1.
    pub const ALL: [Self; 29] = [
        Self::ManualStart,
        Self::ManualStop,
        Self::AutomaticStart,
        Self::ManualStartPassive,
        Self::AutomaticStartPassive,
        Self::AutomaticStartDamped,
        Self::AutomaticStartDampedPassive,
        Self::AutomaticStop,
        Self::ConnectRetryTimerExpires,
        Self::HoldTimerExpires,
        Self::KeepaliveTimerExpires,
        Self::DelayOpenTimerExpires,
        Self::IdleHoldTimerExpires,
        Self::TcpConnectionValid,
        Self::TcpConnectionInvalid,
        Self::TcpConnectionAcked,
        Self::TcpConnectionConfirmed,
        Self::TcpConnectionFails,
        Self::BgpOpen,
        Self::BgpOpenDelayed,
        Self::BgpHeaderErr,
        Self::BgpOpenMsgErr,
        Self::OpenCollisionDump,
        Self::NotifMsgVerErr,
        Self::NotifMsg,
        Self::KeepAliveMsg,
        Self::UpdateMsg,
        Self::UpdateMsgErr,
        Self::SendHoldTimerExpires,
    ];

    /// The RFC's number, 1 to 29.
    #[must_use]
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|e| *e == self).map_or(0, |index| index + 1)
    }
}

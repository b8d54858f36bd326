//! Why a connection ended, and what that costs.

use crate::session::open_check::OpenRefusal;
use crate::session::state::State;
use crate::wire::MessageType;
use crate::wire::error::{DecodeError, Notification};
use crate::wire::notification::{cease, error_code, fsm};

/// Why a connection, or the attempt at one, ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The TCP connection could not be opened.
    #[error("connecting failed: {0}")]
    ConnectFailed(String),
    /// The TCP connection ended without a NOTIFICATION.
    #[error("connection lost: {0}")]
    ConnectionLost(String),
    /// The link to a directly connected peer is down.
    #[error("the link is down")]
    LinkDown,
    /// Nothing was heard for the hold time (4/0 sent).
    #[error("hold timer expired in {0}")]
    HoldTimerExpired(State),
    /// The peer took no bytes for the send hold time (8/0 sent; RFC 9687).
    #[error("send hold timer expired: the peer does not read")]
    SendHoldTimerExpired,
    /// The peer's OPEN does not fit the configuration (2/x sent).
    #[error("OPEN refused: {0}")]
    OpenRefused(OpenRefusal),
    /// The peer sent something that is not BGP (1/x, 2/x, 3/x or 7/1 sent).
    #[error("malformed message: {0}")]
    Malformed(DecodeError),
    /// The peer sent a message that this state does not allow (5/x sent; RFC 6608).
    #[error("unexpected {message:?} in {state}")]
    Unexpected {
        /// State of the connection.
        state: State,
        /// The message.
        message: MessageType,
    },
    /// The peer sent a NOTIFICATION.
    #[error("peer sent {0}")]
    NotificationReceived(Notification),
    /// The other connection to the same peer is kept (6/7 sent or received).
    #[error("connection collision")]
    Collision,
    /// We ended it: shutdown, reset, new configuration, prefix limit (6/x sent).
    #[error("stopped: {0}")]
    Stopped(Notification),
}

/// What a fault costs the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Penalty {
    /// Nothing: it is our own doing.
    None,
    /// Back-off before we dial again; the peer may connect at once.
    Retry,
    /// A pause in which we neither dial nor accept.
    HoldDown,
}

impl Fault {
    /// The NOTIFICATION that goes with it, if one is sent.
    #[must_use]
    pub fn notification(&self) -> Option<Notification> {
        Some(match self {
            Self::ConnectFailed(_)
            | Self::ConnectionLost(_)
            | Self::LinkDown
            | Self::NotificationReceived(_) => return None,
            Self::HoldTimerExpired(_) => Notification::new(error_code::HOLD_TIMER, 0),
            Self::SendHoldTimerExpired => Notification::new(error_code::SEND_HOLD_TIMER, 0),
            Self::OpenRefused(refusal) => refusal.notification(),
            Self::Malformed(error) => error.notification.clone(),
            Self::Unexpected { state, message } => fsm_error(*state, Some(*message)),
            Self::Collision => Notification::new(error_code::CEASE, cease::COLLISION),
            Self::Stopped(notification) => notification.clone(),
        })
    }

    /// What it costs.
    #[must_use]
    pub fn penalty(&self) -> Penalty {
        match self {
            Self::Collision | Self::Stopped(_) => Penalty::None,
            // The network or the other end's restart; nothing says that the next try is worse.
            Self::ConnectFailed(_)
            | Self::ConnectionLost(_)
            | Self::LinkDown
            | Self::HoldTimerExpired(_) => Penalty::Retry,
            Self::NotificationReceived(notification) => match notification.code {
                error_code::CEASE | error_code::HOLD_TIMER | error_code::SEND_HOLD_TIMER => {
                    Penalty::Retry
                }
                _ => Penalty::HoldDown,
            },
            Self::SendHoldTimerExpired
            | Self::OpenRefused(_)
            | Self::Malformed(_)
            | Self::Unexpected { .. } => Penalty::HoldDown,
        }
    }
}

/// 5/x for `state`; the data is the type of the unexpected message (RFC 6608 §3).
pub(crate) fn fsm_error(state: State, message: Option<MessageType>) -> Notification {
    let subcode = match state {
        State::OpenSent => fsm::OPEN_SENT,
        State::OpenConfirm => fsm::OPEN_CONFIRM,
        State::Established => fsm::ESTABLISHED,
        State::Idle | State::Connect | State::Active => 0,
    };
    let data = message.map(MessageType::code).into_iter().collect();
    Notification { code: error_code::FSM, subcode, data }
}

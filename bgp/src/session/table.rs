//! The FSM as data: for each state and event, the next state and what is done on the way.
//!
//! Where RFC 4271 leaves room, or contradicts its own §6, the choice is told beside the cell.

use crate::session::state::{Event, State};
use crate::session::timer::Timer;

/// One cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The state after the event.
    pub next: State,
    /// What is done.
    pub reaction: Reaction,
}

/// What a transition does, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// ConnectRetryCounter = 0.
    ForgetRetries,
    /// ConnectRetryCounter + 1; the ConnectRetryTimer backs off by it.
    CountRetry,
    /// (Re)starts a timer with its configured or negotiated time; zero stops it.
    Arm(Timer),
    /// Starts the hold timer with the large value for OpenSent (RFC 4271 §8.2.2: 4 minutes).
    ArmOpenHold,
    /// Stops a timer.
    Disarm(Timer),
    /// Opens a TCP connection to the peer.
    Dial,
    /// Raises the start event that the configuration asks for.
    Start,
    /// Queues an OPEN.
    SendOpen,
    /// Queues a KEEPALIVE.
    SendKeepalive,
    /// Queues a NOTIFICATION.
    Notify(Notice),
    /// The session is up: tell the speaker.
    Establish,
    /// Hand the UPDATE to the speaker.
    Deliver,
    /// Stops all timers and forgets what was negotiated; if Established, the speaker deletes the
    /// peer's routes.
    Release,
    /// Closes the TCP connection, after what is queued has been written.
    Drop,
}

/// Where the content of a NOTIFICATION comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// 4/0, hold timer expired.
    HoldTimer,
    /// 5/1, 5/2 or 5/3 by state, data = type of the unexpected message (RFC 6608).
    Fsm,
    /// 6/x: who stops the session says why (6/7 for a collision).
    Cease,
    /// 8/0, send hold timer expired (RFC 9687).
    SendHoldTimer,
    /// 1/x, 2/x or 3/x: what the decoder or the OPEN check found.
    Found,
}

/// A named list of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing.
    Ignore,
    /// Start by dialling.
    Dial,
    /// Start by listening; the timer says when to dial.
    Listen,
    /// Pause before the next start.
    Damp,
    /// The pause is over.
    Start,
    /// Give the attempt up and dial again.
    Redial,
    /// Dial; an automatic start keeps the counter that the back-off is computed from.
    Retry,
    /// Listen until the timer says to dial; keeps the counter.
    Pause,
    /// TCP is up: OPEN.
    Open,
    /// Their OPEN is fine: KEEPALIVE.
    Confirm,
    /// Both at once, after DelayOpen.
    OpenConfirm,
    /// TCP is gone, wait for the next one.
    Wait,
    /// KEEPALIVE is due.
    Keepalive,
    /// The session is up.
    Establish,
    /// Still alive.
    Refresh,
    /// Routes arrive.
    Update,
    /// Drop a connection that must not be there.
    Refuse,
    /// Stop at the operator's word, before an OPEN was sent.
    Stop,
    /// Stop at the operator's word.
    StopCease,
    /// End without a word.
    Quit,
    /// End with Cease.
    Cease,
    /// End, hold timer expired.
    HoldExpired,
    /// End, FSM error.
    FsmError,
    /// End, with what was found.
    Found,
    /// End, the peer does not read.
    SendHold,
}

impl Reaction {
    /// The actions, in order.
    #[must_use]
    pub const fn actions(self) -> &'static [Action] {
        use Action::{
            Arm, ArmOpenHold, CountRetry, Deliver, Dial, Disarm, Drop, Establish, ForgetRetries,
            Notify, Release, SendKeepalive, SendOpen, Start,
        };
        use Timer::{ConnectRetry, Hold, IdleHold, Keepalive, SendHold};
        match self {
            Self::Ignore => &[],
            Self::Dial => &[ForgetRetries, Arm(ConnectRetry), Dial],
            Self::Listen => &[ForgetRetries, Arm(ConnectRetry)],
            Self::Damp => &[Arm(IdleHold)],
            Self::Start => &[Start],
            Self::Redial => &[CountRetry, Drop, Arm(ConnectRetry), Dial],
            Self::Retry => &[Arm(ConnectRetry), Dial],
            Self::Open => &[Disarm(ConnectRetry), SendOpen, ArmOpenHold],
            Self::Confirm => &[SendKeepalive, Arm(Keepalive), Arm(Hold)],
            Self::OpenConfirm => {
                &[Disarm(ConnectRetry), SendOpen, SendKeepalive, Arm(Keepalive), Arm(Hold)]
            }
            Self::Pause => &[Arm(ConnectRetry)],
            Self::Wait => &[Release, Drop, CountRetry, Arm(ConnectRetry)],
            Self::Keepalive => &[SendKeepalive, Arm(Keepalive)],
            Self::Establish => &[ForgetRetries, Arm(Hold), Arm(SendHold), Establish],
            Self::Refresh => &[Arm(Hold)],
            Self::Update => &[Arm(Hold), Deliver],
            Self::Refuse => &[Drop],
            Self::Stop => &[Release, Drop, ForgetRetries],
            Self::StopCease => &[Notify(Notice::Cease), Release, Drop, ForgetRetries],
            Self::Quit => &[Release, Drop, CountRetry],
            Self::Cease => &[Notify(Notice::Cease), Release, Drop, CountRetry],
            Self::HoldExpired => &[Notify(Notice::HoldTimer), Release, Drop, CountRetry],
            Self::FsmError => &[Notify(Notice::Fsm), Release, Drop, CountRetry],
            Self::Found => &[Notify(Notice::Found), Release, Drop, CountRetry],
            Self::SendHold => &[Notify(Notice::SendHoldTimer), Release, Drop, CountRetry],
        }
    }

    /// Name in the table of the module documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ignore => "-",
            Self::Dial => "dial",
            Self::Listen => "listen",
            Self::Damp => "damp",
            Self::Start => "start",
            Self::Redial => "redial",
            Self::Retry => "retry",
            Self::Pause => "pause",
            Self::Open => "open",
            Self::Confirm => "confirm",
            Self::OpenConfirm => "open+confirm",
            Self::Wait => "wait",
            Self::Keepalive => "keepalive",
            Self::Establish => "establish",
            Self::Refresh => "refresh",
            Self::Update => "update",
            Self::Refuse => "refuse",
            Self::Stop => "stop",
            Self::StopCease => "stop 6/x",
            Self::Quit => "quit",
            Self::Cease => "cease 6/x",
            Self::HoldExpired => "hold 4/0",
            Self::FsmError => "fsm 5/x",
            Self::Found => "found n/x",
            Self::SendHold => "sendhold 8/0",
        }
    }
}

/// The cell for `event` in `state`.
#[must_use]
pub const fn cell(state: State, event: Event) -> Cell {
    let [idle, connect, active, open_sent, open_confirm, established] = row(event);
    match state {
        State::Idle => idle,
        State::Connect => connect,
        State::Active => active,
        State::OpenSent => open_sent,
        State::OpenConfirm => open_confirm,
        State::Established => established,
    }
}

/// `go!(Next, Reaction)`: one cell.
macro_rules! go {
    ($next:ident, $reaction:ident) => {
        Cell { next: State::$next, reaction: Reaction::$reaction }
    };
}

/// The cells of `event`, in the order of [`State::ALL`].
#[rustfmt::skip] // It is a table.
const fn row(event: Event) -> [Cell; 6] {
    match event {
        //  Idle   Connect   Active   OpenSent   OpenConfirm   Established
        Event::ManualStart => [ // 1
            go!(Connect, Dial), go!(Connect, Ignore), go!(Active, Ignore),
            go!(OpenSent, Ignore), go!(OpenConfirm, Ignore), go!(Established, Ignore),
        ],
        Event::ManualStop => [ // 2
            go!(Idle, Ignore), go!(Idle, Stop), go!(Idle, Stop),
            go!(Idle, StopCease), go!(Idle, StopCease), go!(Idle, StopCease),
        ],
        // 3, 5: RFC 4271 zeroes ConnectRetryCounter; here it goes on counting until Established or a
        // manual start or stop, because the back-off is computed from it.
        Event::AutomaticStart => [ // 3
            go!(Connect, Retry), go!(Connect, Ignore), go!(Active, Ignore),
            go!(OpenSent, Ignore), go!(OpenConfirm, Ignore), go!(Established, Ignore),
        ],
        Event::ManualStartPassive => [ // 4
            go!(Active, Listen), go!(Connect, Ignore), go!(Active, Ignore),
            go!(OpenSent, Ignore), go!(OpenConfirm, Ignore), go!(Established, Ignore),
        ],
        Event::AutomaticStartPassive => [ // 5
            go!(Active, Pause), go!(Connect, Ignore), go!(Active, Ignore),
            go!(OpenSent, Ignore), go!(OpenConfirm, Ignore), go!(Established, Ignore),
        ],
        Event::AutomaticStartDamped => [ // 6
            go!(Idle, Damp), go!(Connect, Ignore), go!(Active, Ignore),
            go!(OpenSent, Ignore), go!(OpenConfirm, Ignore), go!(Established, Ignore),
        ],
        // 6, 7: the pause comes first; its end (13) starts the peer.
        Event::AutomaticStartDampedPassive => [ // 7
            go!(Idle, Damp), go!(Connect, Ignore), go!(Active, Ignore),
            go!(OpenSent, Ignore), go!(OpenConfirm, Ignore), go!(Established, Ignore),
        ],
        Event::AutomaticStop => [ // 8
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, Cease), go!(Idle, Cease), go!(Idle, Cease),
        ],
        // In Connect the timer limits the attempt, in Active it is the pause between attempts.
        Event::ConnectRetryTimerExpires => [ // 9
            go!(Idle, Ignore), go!(Connect, Redial), go!(Connect, Retry),
            go!(Idle, FsmError), go!(Idle, FsmError), go!(Idle, FsmError),
        ],
        Event::HoldTimerExpires => [ // 10
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, HoldExpired), go!(Idle, HoldExpired), go!(Idle, HoldExpired),
        ],
        Event::KeepaliveTimerExpires => [ // 11
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, FsmError), go!(OpenConfirm, Keepalive), go!(Established, Keepalive),
        ],
        Event::DelayOpenTimerExpires => [ // 12
            go!(Idle, Ignore), go!(OpenSent, Open), go!(OpenSent, Open),
            go!(Idle, FsmError), go!(Idle, FsmError), go!(Idle, FsmError),
        ],
        Event::IdleHoldTimerExpires => [ // 13
            go!(Idle, Start), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, FsmError), go!(Idle, FsmError), go!(Idle, FsmError),
        ],
        // "Refuses all incoming BGP connections": one that is there anyway is closed. Elsewhere a second
        // connection has an FSM of its own, and the collision is settled at its OPEN.
        Event::TcpConnectionValid => [ // 14
            go!(Idle, Refuse), go!(Connect, Ignore), go!(Active, Ignore),
            go!(OpenSent, Ignore), go!(OpenConfirm, Ignore), go!(Established, Ignore),
        ],
        Event::TcpConnectionInvalid => [ // 15
            go!(Idle, Refuse), go!(Connect, Ignore), go!(Active, Ignore),
            go!(OpenSent, Ignore), go!(OpenConfirm, Ignore), go!(Established, Ignore),
        ],
        Event::TcpConnectionAcked => [ // 16
            go!(Idle, Refuse), go!(OpenSent, Open), go!(OpenSent, Open),
            go!(OpenSent, Ignore), go!(OpenConfirm, Ignore), go!(Established, Ignore),
        ],
        Event::TcpConnectionConfirmed => [ // 17
            go!(Idle, Refuse), go!(OpenSent, Open), go!(OpenSent, Open),
            go!(OpenSent, Ignore), go!(OpenConfirm, Ignore), go!(Established, Ignore),
        ],
        // Active, 18: RFC 4271 restarts the ConnectRetryTimer and goes to Idle, which ignores its expiry;
        // here Idle owns no timer but IdleHold.
        Event::TcpConnectionFails => [ // 18
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Active, Wait), go!(Idle, Quit), go!(Idle, Quit),
        ],
        // A second OPEN on one connection is an error; a collision is an event of the other connection.
        Event::BgpOpen => [ // 19
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(OpenConfirm, Confirm), go!(Idle, FsmError), go!(Idle, FsmError),
        ],
        Event::BgpOpenDelayed => [ // 20
            go!(Idle, Ignore), go!(OpenConfirm, OpenConfirm), go!(OpenConfirm, OpenConfirm),
            go!(Idle, FsmError), go!(Idle, FsmError), go!(Idle, FsmError),
        ],
        // Before our OPEN no NOTIFICATION goes out (SendNOTIFICATIONwithoutOPEN unset). Established, 21:
        // RFC 4271 §8.2.2 calls it an FSM error, §6.1 asks for 1/x, which tells the peer more.
        Event::BgpHeaderErr => [ // 21
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, Found), go!(Idle, Found), go!(Idle, Found),
        ],
        Event::BgpOpenMsgErr => [ // 22
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, Found), go!(Idle, Found), go!(Idle, FsmError),
        ],
        Event::OpenCollisionDump => [ // 23
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, Cease), go!(Idle, Cease), go!(Idle, Cease),
        ],
        // OpenSent, 25: RFC 4271 §8.2.2 answers 5/x, §6.4 forbids to answer a NOTIFICATION.
        Event::NotifMsgVerErr => [ // 24
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, Quit), go!(Idle, Quit), go!(Idle, Quit),
        ],
        Event::NotifMsg => [ // 25
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, Quit), go!(Idle, Quit), go!(Idle, Quit),
        ],
        Event::KeepAliveMsg => [ // 26
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, FsmError), go!(Established, Establish), go!(Established, Refresh),
        ],
        Event::UpdateMsg => [ // 27
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, FsmError), go!(Idle, FsmError), go!(Established, Update),
        ],
        Event::UpdateMsgErr => [ // 28
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, FsmError), go!(Idle, FsmError), go!(Idle, Found),
        ],
        // The timer runs in Established only (RFC 9687 §3.2).
        Event::SendHoldTimerExpires => [ // 29
            go!(Idle, Ignore), go!(Idle, Quit), go!(Idle, Quit),
            go!(Idle, FsmError), go!(Idle, FsmError), go!(Idle, SendHold),
        ],
    }
}

//! Runs the table: events in, actions on a [`Peer`]'s connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Dial;
use crate::session::collision::Side;
use crate::session::fault::{Fault, Penalty, fsm_error};
use crate::session::link::{ConnectionId, Link};
use crate::session::negotiate::local_open;
use crate::session::output::{Output, PeerEvent};
use crate::session::peer::Peer;
use crate::session::state::{Event, State};
use crate::session::table::{self, Action, Notice};
use crate::session::timer::{
    COLLISION_WAIT, MAX_CONNECT_RETRY, MAX_IDLE_HOLD, MIN_CONNECT_TIME, MIN_SEND_HOLD_TIME,
    OPEN_HOLD_TIME, Timer, backoff,
};
use crate::wire::error::Notification;
use crate::wire::notification::error_code;
use crate::wire::open::Open;
use crate::wire::{MessageType, encode};

/// A session that lived this long clears the record of errors.
const STABLE: Duration = Duration::from_secs(300);
/// First pause after an error of the peer; three times more for each further one. With the cap of
/// five minutes that is at most 20 sessions an hour.
const FIRST_IDLE_HOLD: Duration = Duration::from_secs(1);
const IDLE_HOLD_FACTOR: u32 = 3;
/// Short sessions in a row that are taken for the peer's restarts, not for flapping.
const FORGIVEN_FLAPS: u32 = 3;

impl Peer {
    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for side in Side::BOTH {
            while let Some(timer) = self.machine(side).timers.expire(now) {
                self.expired(now, side, timer);
            }
        }
        self.settle(now);
    }

    fn expired(&mut self, now: Instant, side: Side, timer: Timer) {
        let state = self.machine_ref(side).state;
        match timer {
            // A peer that must not be dialled has the timer only so that Active is never without.
            Timer::ConnectRetry if side == Side::Incoming => {
                self.machine(side).timers.arm(Timer::ConnectRetry, now, MAX_CONNECT_RETRY);
            }
            Timer::ConnectRetry => {
                let fault =
                    (state == State::Connect).then(|| Fault::ConnectFailed("timed out".to_owned()));
                self.fire(now, side, Event::ConnectRetryTimerExpires, fault);
            }
            Timer::Hold => {
                let fault = Fault::HoldTimerExpired(state);
                self.fire(now, side, Event::HoldTimerExpires, Some(fault));
            }
            Timer::Keepalive => self.fire(now, side, Event::KeepaliveTimerExpires, None),
            Timer::SendHold if self.is_blocked(side) => {
                let fault = Fault::SendHoldTimerExpired;
                self.fire(now, side, Event::SendHoldTimerExpires, Some(fault));
            }
            // Nothing to send (only possible without keepalives): nobody is blocked.
            Timer::SendHold => self.restart_send_hold(now, side),
            Timer::IdleHold => self.fire(now, side, Event::IdleHoldTimerExpires, None),
            // The other connection should have won; it is not going anywhere.
            Timer::Collision => {
                self.fire(now, side.other(), Event::OpenCollisionDump, Some(Fault::Collision));
            }
        }
    }

    /// One transition of the FSM of `side`. `fault` tells why, for events that end a connection.
    pub(super) fn fire(&mut self, now: Instant, side: Side, event: Event, fault: Option<Fault>) {
        let conn = self.machine_ref(side).link.as_ref().map(|link| link.id);
        self.fire_on(now, side, event, fault, conn);
    }

    /// [`Peer::fire`] for a connection that may have been taken away already.
    pub(super) fn fire_on(
        &mut self,
        now: Instant,
        side: Side,
        event: Event,
        fault: Option<Fault>,
        conn: Option<ConnectionId>,
    ) {
        let before = self.machine_ref(side).state;
        let cell = table::cell(before, event);
        // The state first: an action may look at it.
        self.machine(side).state = cell.next;
        for action in cell.reaction.actions() {
            self.act(now, side, before, *action, fault.as_ref());
        }
        let left = before == State::Established && cell.next != State::Established;
        if let (Some(fault), true) = (fault, before != State::Idle)
            && (left || !self.is_harmless(side, &fault))
        {
            self.blame(now, &fault, left);
            self.events.push_back(PeerEvent::Down { conn, fault, established: left });
        }
        if left {
            self.stats.since = now;
        }
        debug_assert!(self.machine_ref(side).is_alive(), "{before} {event:?} got stuck");
    }

    /// The end of one of two connections, as collisions have it; no news and nobody's fault.
    fn is_harmless(&self, side: Side, fault: &Fault) -> bool {
        match fault {
            Fault::Collision => true,
            // Given up by the peer in favour of the other one, perhaps before its OPEN.
            Fault::ConnectFailed(_) | Fault::ConnectionLost(_) => {
                self.machine_ref(side.other()).state >= State::OpenConfirm
            }
            Fault::LinkDown
            | Fault::HoldTimerExpired(_)
            | Fault::SendHoldTimerExpired
            | Fault::OpenRefused(_)
            | Fault::Malformed(_)
            | Fault::Unexpected { .. }
            | Fault::NotificationReceived(_)
            | Fault::Stopped(_) => false,
        }
    }

    fn act(
        &mut self,
        now: Instant,
        side: Side,
        before: State,
        action: Action,
        fault: Option<&Fault>,
    ) {
        match action {
            Action::ForgetRetries => self.stats.connect_retries = 0,
            // Our own attempts only: the peer's do not make us slower.
            Action::CountRetry if side == Side::Incoming => {}
            Action::CountRetry => {
                self.stats.connect_retries = self.stats.connect_retries.saturating_add(1);
            }
            Action::Arm(Timer::SendHold) => self.restart_send_hold(now, side),
            Action::Arm(timer) => {
                let state = self.machine_ref(side).state;
                let period = self.period(timer, side, state);
                self.machine(side).timers.arm(timer, now, period);
            }
            Action::ArmOpenHold => {
                self.machine(side).timers.arm(Timer::Hold, now, OPEN_HOLD_TIME);
            }
            Action::Disarm(timer) => self.machine(side).timers.disarm(timer),
            Action::Dial => self.dial(now, side),
            Action::Start => self.start_automatically(now),
            Action::SendOpen => {
                let mut bytes = Vec::new();
                encode::open(&self.own_open(now), &mut bytes);
                self.queue(side, MessageType::Open, bytes);
            }
            Action::SendKeepalive => self.send_keepalive(side),
            Action::Notify(notice) => self.notify(side, before, notice, fault),
            Action::Establish => self.establish(now, side),
            // Peer::receive hands the UPDATE out when the transition is done.
            Action::Deliver => {}
            Action::Release => {
                let machine = self.machine(side);
                machine.timers.clear();
                if let Some(link) = machine.link.as_mut() {
                    link.negotiated = None;
                    link.hold = None;
                }
            }
            Action::Drop => self.close(side),
        }
    }

    pub(super) fn own_open(&self, now: Instant) -> Open {
        let restarted = self.restarted_until.is_some_and(|until| now < until);
        local_open(&self.local, &self.config, restarted)
    }

    fn dial(&mut self, now: Instant, side: Side) {
        let dial = Dial {
            remote: (self.config.address, self.config.port).into(),
            local: self.config.local_address,
            ttl: self.config.ttl(self.local.asn),
            min_ttl: self.config.min_ttl(),
            md5: self.config.md5.key().cloned(),
        };
        let conn = self.name_connection();
        self.machine(side).link = Some(Link::new(conn, now, None));
        self.outputs.push_back(Output::Connect { conn, dial });
    }

    pub(super) fn start_automatically(&mut self, now: Instant) {
        if self.config.passive {
            self.fire(now, Side::Incoming, Event::AutomaticStartPassive, None);
        } else {
            self.fire(now, Side::Outgoing, Event::AutomaticStart, None);
        }
    }

    fn send_keepalive(&mut self, side: Side) {
        let Some(link) = self.machine(side).link.as_ref() else { return };
        // Held by a collision: must not let the peer establish. Queued already: says it all.
        if link.hold.is_none() && !link.keepalive_queued {
            let mut bytes = Vec::new();
            encode::keepalive(&mut bytes);
            self.queue(side, MessageType::Keepalive, bytes);
        }
    }

    fn notify(&mut self, side: Side, before: State, notice: Notice, fault: Option<&Fault>) {
        let told = fault.and_then(Fault::notification);
        let notification = match (notice, told) {
            (_, Some(notification)) => notification,
            (Notice::HoldTimer, None) => Notification::new(error_code::HOLD_TIMER, 0),
            (Notice::SendHoldTimer, None) => Notification::new(error_code::SEND_HOLD_TIMER, 0),
            (Notice::Fsm, None) => fsm_error(before, None),
            (Notice::Cease | Notice::Found, None) => Notification::new(error_code::CEASE, 0),
        };
        let mut bytes = Vec::new();
        encode::notification(&notification, &mut bytes);
        self.queue(side, MessageType::Notification, bytes);
    }

    fn establish(&mut self, now: Instant, side: Side) {
        self.hold_down = None;
        // The peer knows; what ends this session will not be that restart.
        self.restarted_until = None;
        self.stats.established_count += 1;
        self.stats.since = now;
        let Some(link) = self.machine_ref(side).link.as_ref() else { return };
        if let Some(negotiated) = &link.negotiated {
            let negotiated = Arc::clone(negotiated);
            let (conn, local) = (link.id, link.local);
            self.events.push_back(PeerEvent::Up { conn, local, negotiated });
        }
    }

    /// How long `timer` runs, for a machine that is in `state`.
    pub(super) fn period(&mut self, timer: Timer, side: Side, state: State) -> Duration {
        let negotiated = self.machine_ref(side).link.as_ref().and_then(|l| l.negotiated.as_ref());
        let (hold, keepalive) =
            negotiated.map_or((Duration::ZERO, Duration::ZERO), |n| (n.hold_time, n.keepalive));
        match timer {
            Timer::ConnectRetry => self.connect_retry(state),
            Timer::Hold => hold,
            Timer::Keepalive => self.jitter.apply(keepalive),
            Timer::SendHold => MIN_SEND_HOLD_TIME.max(hold * 2),
            Timer::IdleHold => self.hold_down.take().unwrap_or(FIRST_IDLE_HOLD),
            Timer::Collision => COLLISION_WAIT,
        }
    }

    /// In Connect the time that the attempt gets, in Active the pause before the next one.
    fn connect_retry(&mut self, state: State) -> Duration {
        let failures = self.stats.connect_retries.max(1);
        let pause = backoff(self.config.connect_retry, 2, MAX_CONNECT_RETRY, failures);
        if state == State::Connect {
            return pause.max(MIN_CONNECT_TIME);
        }
        // Zero would leave Active without a timer.
        self.jitter.apply(pause).max(Duration::from_millis(1))
    }

    /// (Re)starts the send hold timer of an Established connection: the peer takes bytes.
    pub(super) fn restart_send_hold(&mut self, now: Instant, side: Side) {
        if self.machine_ref(side).state == State::Established {
            let period = self.period(Timer::SendHold, side, State::Established);
            self.machine(side).timers.arm(Timer::SendHold, now, period);
        }
    }

    /// There are bytes that the peer has not taken.
    fn is_blocked(&self, side: Side) -> bool {
        self.machine_ref(side)
            .link
            .as_ref()
            .is_some_and(|link| link.in_flight || !link.queue.is_empty())
    }

    /// Notes a fault, and decides on a pause.
    fn blame(&mut self, now: Instant, fault: &Fault, established: bool) {
        self.stats.last_fault = Some((now, fault.clone()));
        // What happens on a second connection must not be held against a running session.
        if self.established().is_some() {
            return;
        }
        let lived = now.saturating_duration_since(self.stats.since);
        if established && lived >= STABLE {
            self.errors = 0;
            self.flaps = 0;
        }
        let pause = match fault.penalty() {
            Penalty::None => return,
            Penalty::Retry if !established => return,
            Penalty::Retry => {
                self.flaps = self.flaps.saturating_add(1);
                let beyond = self.flaps.saturating_sub(FORGIVEN_FLAPS);
                backoff(FIRST_IDLE_HOLD, IDLE_HOLD_FACTOR, MAX_CONNECT_RETRY, beyond)
            }
            Penalty::HoldDown => {
                self.errors = self.errors.saturating_add(1);
                backoff(FIRST_IDLE_HOLD, IDLE_HOLD_FACTOR, MAX_IDLE_HOLD, self.errors)
            }
        };
        if !pause.is_zero() {
            let pause = self.jitter.apply(pause);
            self.hold_down = Some(self.hold_down.map_or(pause, |earned| earned.max(pause)));
        }
    }

    /// Brings the two machines in line with each other after something happened.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.enabled {
            self.release_held(now);
            self.restart(now);
            debug_assert!(
                self.state() != State::Idle || self.held_down_until().is_some(),
                "a started peer does nothing"
            );
        }
    }

    /// Starts what should be running, and holds down a peer that has earned it.
    fn restart(&mut self, now: Instant) {
        let connected = Side::BOTH.into_iter().any(|s| self.machine_ref(s).state.is_connected());
        if self.hold_down.is_some() && !connected {
            for side in Side::BOTH {
                self.fire(now, side, Event::AutomaticStop, None);
            }
            self.fire(now, Side::Outgoing, Event::AutomaticStartDamped, None);
        }
        if self.hold_down.is_some() || self.held_down_until().is_some() {
            return;
        }
        if self.config.passive {
            if self.incoming.state == State::Idle && !self.outgoing.state.is_connected() {
                self.fire(now, Side::Incoming, Event::AutomaticStartPassive, None);
            }
            return;
        }
        // Nobody waits on the incoming side: an inbound connection starts that FSM.
        if self.incoming.state == State::Active {
            self.fire(now, Side::Incoming, Event::AutomaticStop, None);
        }
        // Dial only while the peer's own connection is not well on its way.
        if self.outgoing.state == State::Idle && self.incoming.state < State::OpenConfirm {
            self.fire(now, Side::Outgoing, Event::AutomaticStartPassive, None);
        }
    }

    /// A connection that lost a collision goes on when the winner is gone.
    fn release_held(&mut self, now: Instant) {
        for side in Side::BOTH {
            if self.machine_ref(side.other()).state == State::OpenSent {
                continue;
            }
            let machine = self.machine(side);
            let Some(held) = machine.link.as_mut().and_then(|link| link.hold.take()) else {
                continue;
            };
            machine.timers.disarm(Timer::Collision);
            self.send_keepalive(side);
            if held.keepalive_seen {
                self.fire(now, side, Event::KeepAliveMsg, None);
            }
        }
    }
}

//! A configured peer: up to two connections, one session.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config::PeerConfig;
use crate::session::Local;
use crate::session::collision::Side;
use crate::session::fault::Fault;
use crate::session::link::{ConnectionId, Link, Machine, count, fold};
use crate::session::negotiate::Negotiated;
use crate::session::output::{Output, PeerEvent, Refusal, Stats};
use crate::session::state::{Event, State};
use crate::session::timer::{Jitter, Timer};
use crate::types::Asn;
use crate::view::MessageCounts;
use crate::wire::error::Notification;
use crate::wire::notification::{cease, error_code};
use crate::wire::{MessageType, RouteRefresh, encode};

/// How old a silent inbound connection must be before a new one from the same peer replaces it: a
/// peer that crashed in between has forgotten the old one.
const REPLACE_AFTER: Duration = Duration::from_secs(10);
/// A session younger than this is not replaced by another one of its peer: two connections that
/// cross at the start are a collision, not a restart.
const REPLACEABLE_AFTER: Duration = Duration::from_secs(1);
/// Closed connections whose last bytes the driver has not asked for. More than the driver can be
/// behind; the oldest is forgotten beyond.
const MAX_FAREWELLS: usize = 8;

/// A configured peer and its connections. See the module documentation for the order of calls.
#[derive(Debug)]
pub struct Peer {
    number: u32,
    serial: u32,
    pub(super) local: Local,
    pub(super) config: PeerConfig,
    pub(super) outgoing: Machine,
    pub(super) incoming: Machine,
    /// Started, and not stopped since.
    pub(super) enabled: bool,
    pub(super) jitter: Jitter,
    /// Until then, and until the first session, OPENs say that we have restarted.
    pub(super) restarted_until: Option<Instant>,
    /// Errors of the peer, or short sessions, in a row.
    pub(super) errors: u32,
    pub(super) flaps: u32,
    /// A pause that was earned, to begin once no connection is left.
    pub(super) hold_down: Option<Duration>,
    pub(super) events: VecDeque<PeerEvent>,
    pub(super) outputs: VecDeque<Output>,
    farewells: VecDeque<(ConnectionId, Vec<Bytes>)>,
    pub(super) stats: Stats,
}

impl Peer {
    /// A peer that does nothing until [`Peer::start`].
    ///
    /// `number` is the upper half of its [`ConnectionId`]s and must not be used again for another
    /// peer; `seed` decides the jitter of its timers.
    #[must_use]
    pub fn new(now: Instant, number: u32, local: Local, config: PeerConfig, seed: u64) -> Self {
        Self {
            number,
            serial: 0,
            local,
            config,
            outgoing: Machine::idle(),
            incoming: Machine::idle(),
            enabled: false,
            restarted_until: None,
            jitter: Jitter::new(seed),
            errors: 0,
            flaps: 0,
            hold_down: None,
            events: VecDeque::new(),
            outputs: VecDeque::new(),
            farewells: VecDeque::new(),
            stats: Stats {
                received: MessageCounts::default(),
                sent: MessageCounts::default(),
                established_count: 0,
                since: now,
                last_fault: None,
                connect_retries: 0,
            },
        }
    }

    /// Until then, the OPENs before the first session say that we have restarted (R bit, RFC 4724
    /// §3).
    #[must_use]
    pub const fn restarted_until(mut self, until: Instant) -> Self {
        self.restarted_until = Some(until);
        self
    }

    /// Starts the peer: dials, or listens if it is passive.
    pub fn start(&mut self, now: Instant) {
        self.enabled = true;
        self.forgive();
        if self.config.passive {
            self.fire(now, Side::Incoming, Event::ManualStartPassive, None);
        } else {
            self.fire(now, Side::Outgoing, Event::ManualStart, None);
        }
        self.settle(now);
    }

    /// Ends the session with `notification` (a Cease) and stays down until [`Peer::start`].
    pub fn stop(&mut self, now: Instant, notification: &Notification) {
        self.enabled = false;
        self.forgive();
        for side in Side::BOTH {
            let fault = Fault::Stopped(notification.clone());
            self.fire(now, side, Event::ManualStop, Some(fault));
        }
    }

    /// Ends the session with `notification` (a Cease), and starts again: at once, or after
    /// `pause`, in which the peer is refused as well.
    pub fn reset(&mut self, now: Instant, notification: &Notification, pause: Option<Duration>) {
        if !self.enabled {
            return;
        }
        self.forgive();
        for side in Side::BOTH {
            let fault = Fault::Stopped(notification.clone());
            self.fire(now, side, Event::AutomaticStop, Some(fault));
        }
        self.hold_down = pause;
        if pause.is_none() {
            self.stats.connect_retries = 0;
            self.start_automatically(now);
        }
        self.settle(now);
    }

    /// Applies new settings. The session is reset (Cease 6/6) only if it depends on what changed;
    /// a pause after errors ends, because the change may be the cure.
    ///
    /// Import and export policy, next hops and the like are not the session's: the speaker handles
    /// them. Returns whether the session was reset.
    pub fn reconfigure(&mut self, now: Instant, local: Local, config: PeerConfig) -> bool {
        let reset = self.local != local || depends_on(&self.config) != depends_on(&config);
        let redial =
            self.config.passive != config.passive || self.config.port != config.port || reset;
        let down = self.state() != State::Established;
        self.local = local;
        self.config = config;
        if reset || (redial && down) {
            let cease = Notification::new(error_code::CEASE, cease::CONFIGURATION_CHANGE);
            self.reset(now, &cease, None);
        }
        reset
    }

    /// The link to the peer is down: connections over it are given up without waiting for timers.
    pub fn link_down(&mut self, now: Instant) {
        for side in Side::BOTH {
            if self.machine_ref(side).state.is_connected() {
                self.fire(now, side, Event::TcpConnectionFails, Some(Fault::LinkDown));
            }
        }
        self.settle(now);
    }

    /// The link to the peer is up again: no reason to wait for the next attempt.
    pub fn link_up(&mut self, now: Instant) {
        self.stats.connect_retries = 0;
        if self.outgoing.state == State::Active && self.incoming.state < State::OpenConfirm {
            self.fire(now, Side::Outgoing, Event::ConnectRetryTimerExpires, None);
            self.settle(now);
        }
    }

    /// The peer has opened a TCP connection to us; `local` is our end of it.
    ///
    /// # Errors
    /// It is not wanted now.
    pub fn accept(&mut self, now: Instant, local: SocketAddr) -> Result<ConnectionId, Refusal> {
        if !self.enabled || self.held_down_until().is_some() || self.hold_down.is_some() {
            return Err(Refusal::HeldDown);
        }
        match self.incoming.state {
            State::Idle | State::Active => {}
            State::OpenSent if self.is_stale(now) => {
                self.fire(now, Side::Incoming, Event::OpenCollisionDump, Some(Fault::Collision));
            }
            // A peer that restarted has forgotten its session; its OPEN will tell (RFC 4724 §5).
            State::Established
                if self.outgoing.state == State::Idle && self.is_replaceable(now) =>
            {
                std::mem::swap(&mut self.outgoing, &mut self.incoming);
            }
            State::Connect | State::OpenSent | State::OpenConfirm | State::Established => {
                return Err(Refusal::Busy);
            }
        }
        if self.incoming.state == State::Idle {
            self.fire(now, Side::Incoming, Event::AutomaticStartPassive, None);
        }
        let id = self.name_connection();
        self.incoming.link = Some(Link::new(id, now, Some(local)));
        self.fire(now, Side::Incoming, Event::TcpConnectionConfirmed, None);
        self.settle(now);
        Ok(id)
    }

    /// May the established session be given up for another one that the peer opens?
    pub(super) fn is_replaceable(&self, now: Instant) -> bool {
        let agreed = self.established_side().is_some_and(|side| {
            let link = self.machine_ref(side).link.as_ref();
            let negotiated = link.and_then(|link| link.negotiated.as_ref());
            negotiated.is_some_and(|negotiated| negotiated.graceful_restart.is_some())
        });
        agreed && now.saturating_duration_since(self.stats.since) >= REPLACEABLE_AFTER
    }

    fn is_stale(&self, now: Instant) -> bool {
        self.incoming
            .link
            .as_ref()
            .is_some_and(|link| now.saturating_duration_since(link.since) >= REPLACE_AFTER)
    }

    /// [`Output::Connect`] has succeeded; `local` is our end of the connection.
    pub fn connected(&mut self, now: Instant, conn: ConnectionId, local: SocketAddr) {
        if let Some(link) = self.outgoing.link.as_mut().filter(|link| link.id == conn)
            && self.outgoing.state == State::Connect
        {
            link.local = Some(local);
            link.since = now;
            self.fire(now, Side::Outgoing, Event::TcpConnectionAcked, None);
            self.settle(now);
        }
    }

    /// [`Output::Connect`] has failed.
    pub fn connect_failed(&mut self, now: Instant, conn: ConnectionId, reason: String) {
        self.tcp_failed(now, conn, Fault::ConnectFailed(reason));
    }

    /// The TCP connection is gone. Not to be called for an answer to [`Output::Close`], but
    /// harmless there.
    pub fn closed(&mut self, now: Instant, conn: ConnectionId, reason: String) {
        self.tcp_failed(now, conn, Fault::ConnectionLost(reason));
    }

    fn tcp_failed(&mut self, now: Instant, conn: ConnectionId, fault: Fault) {
        self.farewells.retain(|(id, _)| *id != conn);
        let Some(side) = self.side_of(conn) else { return };
        // The driver has closed it already: no Output::Close.
        self.unlink(side);
        self.fire_on(now, side, Event::TcpConnectionFails, Some(fault), Some(conn));
        self.settle(now);
    }

    /// Moves the session's own messages for `conn` to `out`; returns how many octets.
    ///
    /// Call it before every write: that the driver asks means that it has written what it got
    /// before, which is what keeps the send hold timer from expiring.
    pub fn transmit(&mut self, now: Instant, conn: ConnectionId, out: &mut Vec<Bytes>) -> usize {
        if let Some(index) = self.farewells.iter().position(|(id, _)| *id == conn) {
            let bytes = self.farewells.remove(index).map(|(_, bytes)| bytes).unwrap_or_default();
            let len = bytes.iter().map(Bytes::len).sum();
            out.extend(bytes);
            return len;
        }
        let Some(side) = self.side_of(conn) else { return 0 };
        let machine = self.machine(side);
        let Some(link) = machine.link.as_mut() else { return 0 };
        let len = link.queue.iter().map(Bytes::len).sum();
        out.append(&mut link.queue);
        link.keepalive_queued = false;
        link.in_flight = len > 0;
        self.restart_send_hold(now, side);
        len
    }

    /// The speaker has handed out `bytes` octets, `updates` UPDATE messages, for `conn` besides
    /// what [`Peer::transmit`] gave.
    pub fn streamed(&mut self, now: Instant, conn: ConnectionId, bytes: usize, updates: u64) {
        if bytes == 0 {
            return;
        }
        let Some(side) = self.side_of(conn) else { return };
        // An UPDATE keeps the peer's hold timer from expiring like a KEEPALIVE does.
        let keepalive = self.period(Timer::Keepalive, side, State::Established);
        let machine = self.machine(side);
        if let Some(link) = machine.link.as_mut() {
            link.in_flight = true;
            link.sent.update += updates;
        }
        if machine.state == State::Established {
            machine.timers.arm(Timer::Keepalive, now, keepalive);
        }
    }

    /// Queues a ROUTE-REFRESH on the session, if there is one.
    pub fn send_route_refresh(&mut self, refresh: RouteRefresh) {
        let Some(side) = self.established_side() else { return };
        let mut bytes = Vec::new();
        encode::route_refresh(&refresh, &mut bytes);
        self.queue(side, MessageType::RouteRefresh, bytes);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        // Events first: the speaker must forget a session before its connection is closed.
        self.events.pop_front().map(Output::Event).or_else(|| self.outputs.pop_front())
    }

    /// When to call [`Peer::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.outgoing.timers.next(), self.incoming.timers.next()].into_iter().flatten().min()
    }

    /// The peer's settings.
    #[must_use]
    pub const fn config(&self) -> &PeerConfig {
        &self.config
    }

    /// The state of the connection that is furthest; what a human calls the state of the peer.
    #[must_use]
    pub fn state(&self) -> State {
        let (ours, theirs) = (self.outgoing.state, self.incoming.state);
        if theirs.is_connected() || ours == State::Idle { ours.max(theirs) } else { ours }
    }

    /// What was negotiated on the connection that is furthest.
    #[must_use]
    pub fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        self.foremost().and_then(|link| link.negotiated.as_ref())
    }

    /// Our end of the connection that is furthest.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.foremost().and_then(|link| link.local)
    }

    /// The connection that carries the session.
    #[must_use]
    pub fn established(&self) -> Option<ConnectionId> {
        let side = self.established_side()?;
        self.machine_ref(side).link.as_ref().map(|link| link.id)
    }

    /// Until when the peer pauses after errors.
    #[must_use]
    pub const fn held_down_until(&self) -> Option<Instant> {
        self.outgoing.timers.get(Timer::IdleHold)
    }

    /// Messages in and out of one connection that is there.
    #[must_use]
    pub fn connection_counts(&self, conn: ConnectionId) -> Option<(MessageCounts, MessageCounts)> {
        let link = self.machine_ref(self.side_of(conn)?).link.as_ref()?;
        Some((link.received, link.sent))
    }

    /// The counters, connections that are there included.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats.clone();
        for link in [&self.outgoing.link, &self.incoming.link].into_iter().flatten() {
            fold(&mut stats.received, &link.received);
            fold(&mut stats.sent, &link.sent);
        }
        stats
    }

    fn foremost(&self) -> Option<&Link> {
        let (ours, theirs) = (&self.outgoing, &self.incoming);
        let machine =
            if theirs.state.is_connected() && theirs.state >= ours.state { theirs } else { ours };
        machine.link.as_ref()
    }

    fn established_side(&self) -> Option<Side> {
        Side::BOTH.into_iter().find(|side| self.machine_ref(*side).state == State::Established)
    }

    pub(super) fn machine(&mut self, side: Side) -> &mut Machine {
        match side {
            Side::Outgoing => &mut self.outgoing,
            Side::Incoming => &mut self.incoming,
        }
    }

    pub(super) const fn machine_ref(&self, side: Side) -> &Machine {
        match side {
            Side::Outgoing => &self.outgoing,
            Side::Incoming => &self.incoming,
        }
    }

    pub(super) fn side_of(&self, conn: ConnectionId) -> Option<Side> {
        Side::BOTH
            .into_iter()
            .find(|side| self.machine_ref(*side).link.as_ref().is_some_and(|link| link.id == conn))
    }

    pub(super) fn name_connection(&mut self) -> ConnectionId {
        self.serial = self.serial.wrapping_add(1);
        ConnectionId::new(self.number, self.serial)
    }

    /// Queues an own message; tells the driver if it is the first one.
    pub(super) fn queue(&mut self, side: Side, kind: MessageType, bytes: Vec<u8>) {
        let Some(link) = self.machine(side).link.as_mut() else { return };
        count(&mut link.sent, kind);
        link.keepalive_queued = kind == MessageType::Keepalive;
        let first = link.queue.is_empty();
        link.queue.push(bytes.into());
        let conn = link.id;
        if first {
            self.outputs.push_back(Output::Transmit { conn });
        }
    }

    /// Takes the connection away from `side` and keeps its counters.
    pub(super) fn unlink(&mut self, side: Side) -> Option<Link> {
        let link = self.machine(side).link.take()?;
        fold(&mut self.stats.received, &link.received);
        fold(&mut self.stats.sent, &link.sent);
        Some(link)
    }

    /// Closes the connection of `side` after its last bytes.
    pub(super) fn close(&mut self, side: Side) {
        let Some(link) = self.unlink(side) else { return };
        if !link.queue.is_empty() {
            if self.farewells.len() == MAX_FAREWELLS {
                self.farewells.pop_front();
            }
            self.farewells.push_back((link.id, link.queue));
        }
        self.outputs.push_back(Output::Close { conn: link.id });
    }

    /// Forgets errors of the past and ends a pause.
    fn forgive(&mut self) {
        self.errors = 0;
        self.flaps = 0;
        self.hold_down = None;
        self.outgoing.timers.disarm(Timer::IdleHold);
    }
}

/// The settings that a session is built on.
fn depends_on(config: &PeerConfig) -> impl PartialEq + use<> {
    let PeerConfig {
        address,
        local_address,
        asn,
        hold_time,
        ebgp_multihop,
        ttl_security,
        md5,
        route_reflector_client,
        families,
        graceful_restart,
        ..
    } = config;
    let Asn(asn) = *asn;
    (
        *address,
        *local_address,
        asn,
        *hold_time,
        (*ebgp_multihop, *ttl_security, md5.clone()),
        *route_reflector_client,
        (families.ipv4, families.ipv6),
        // What the OPEN says of it; the rest is ours alone.
        graceful_restart.map(|settings| (settings.restart_time, settings.notification)),
    )
}

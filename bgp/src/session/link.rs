//! One TCP connection, or one attempt at it, and the FSM that owns it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::Serialize;

use crate::session::negotiate::Negotiated;
use crate::session::state::State;
use crate::session::timer::Deadlines;
use crate::view::MessageCounts;
use crate::wire::{Context, MAX_LEN, MessageType};

/// Names one TCP connection or one attempt at it; never used twice.
///
/// The upper half is the number that the speaker gave the peer, so that it finds the peer without
/// a search; the lower half counts the connections of that peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    pub(crate) fn new(peer: u32, serial: u32) -> Self {
        Self(u64::from(peer) << 32 | u64::from(serial))
    }

    /// The number of the peer it belongs to.
    #[must_use]
    pub const fn peer(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The FSM of one side: connections that we open, or connections that the peer opens.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) state: State,
    pub(super) timers: Deadlines,
    pub(super) link: Option<Link>,
}

impl Machine {
    pub(super) fn idle() -> Self {
        Self { state: State::Idle, timers: Deadlines::default(), link: None }
    }

    /// Something will happen: it is Idle, or has a connection, or a timer runs.
    pub(super) fn is_alive(&self) -> bool {
        self.state == State::Idle || self.link.is_some() || self.timers.next().is_some()
    }
}

/// A TCP connection or an attempt at one.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    /// Our end; unknown until the connection is up.
    pub(super) local: Option<SocketAddr>,
    /// Since when there is a TCP connection (or an attempt at one).
    pub(super) since: Instant,
    /// The beginning of a message whose end has not arrived.
    pub(super) partial: Vec<u8>,
    /// Own messages that the driver has not taken.
    pub(super) queue: Vec<Bytes>,
    /// The last of `queue` is a KEEPALIVE; a second one would say nothing new.
    pub(super) keepalive_queued: bool,
    /// The driver has bytes that it has not finished to write.
    pub(super) in_flight: bool,
    /// Set by the exchange of OPENs.
    pub(super) negotiated: Option<Arc<Negotiated>>,
    /// Lost a collision whose winner is not up yet ([`super::collision`]).
    pub(super) hold: Option<Held>,
    pub(super) received: MessageCounts,
    pub(super) sent: MessageCounts,
}

/// What happened while a connection was held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// The peer's KEEPALIVE has arrived.
    pub(super) keepalive_seen: bool,
}

impl Link {
    pub(super) fn new(id: ConnectionId, now: Instant, local: Option<SocketAddr>) -> Self {
        Self {
            id,
            local,
            since: now,
            partial: Vec::new(),
            queue: Vec::new(),
            keepalive_queued: false,
            in_flight: false,
            negotiated: None,
            hold: None,
            received: MessageCounts::default(),
            sent: MessageCounts::default(),
        }
    }

    /// How to read what the peer sends now.
    pub(super) fn receive_context(&self) -> &Context {
        self.negotiated.as_ref().map_or(&Context::OPENING, |n| &n.receive)
    }

    /// Longest message that the peer may send now.
    pub(super) fn max_len(&self) -> usize {
        self.negotiated.as_ref().map_or(MAX_LEN, |n| n.receive.max_len())
    }
}

/// Counts one message.
pub(super) fn count(counts: &mut MessageCounts, kind: MessageType) {
    let counter = match kind {
        MessageType::Open => &mut counts.open,
        MessageType::Update => &mut counts.update,
        MessageType::Notification => &mut counts.notification,
        MessageType::Keepalive => &mut counts.keepalive,
        MessageType::RouteRefresh => &mut counts.route_refresh,
    };
    *counter += 1;
}

/// Adds the counts of a connection to those of its peer.
pub(super) fn fold(total: &mut MessageCounts, part: &MessageCounts) {
    let MessageCounts { open, update, notification, keepalive, route_refresh } = part;
    total.open += open;
    total.update += update;
    total.notification += notification;
    total.keepalive += keepalive;
    total.route_refresh += route_refresh;
}

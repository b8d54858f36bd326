//! Sessions and RIB together: the only thing a driver talks to.
//!
//! Bytes and time go in, [`Output`]s come out; nothing here blocks or does I/O. A driver's turn:
//!
//! ```text
//! accept, connected, receive, closed, handle_timeout ...   what happened
//! flush                                                    what follows from it
//! poll_output until None                                   what is to be done
//! transmit until it gives nothing, per writable connection
//! ```

mod configure;
mod neighbour;
mod network;
mod output;
mod parity;
mod receive;
mod restart;
mod views;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;

use self::neighbour::Neighbours;
use crate::config::Config;
use crate::rib::{Identity, Rib};
use crate::session;
use crate::wire::error::Notification;
use crate::wire::notification::{cease, error_code};

pub use crate::session::ConnectionId;
pub use output::{Disposition, DownReason, FibOrigin, OpenRefusal, Output, Refusal, SpeakerEvent};
pub use restart::DEFERRAL;

/// How long a peer that held too many prefixes is neither dialled nor accepted.
pub const PREFIX_LIMIT_PAUSE: Duration = Duration::from_secs(300);
/// How long a peer that let withdrawals pile up is neither dialled nor accepted.
pub const OUT_OF_RESOURCES_PAUSE: Duration = Duration::from_secs(60);

/// A BGP speaker.
#[derive(Debug)]
pub struct Speaker {
    config: Config,
    rib: Rib,
    /// By the number in the upper half of their connection ids. Peers that were removed stay until
    /// their last words are sent.
    neighbours: Neighbours,
    by_endpoint: BTreeMap<SocketAddr, u32>,
    /// By index in the RIB.
    by_index: Vec<u32>,
    outputs: VecDeque<Output>,
    /// Nobody needs to be called before.
    deadline: Option<Instant>,
    /// Networks that we are connected to; `None`: nobody said.
    connected: Option<Vec<IpNet>>,
    /// Somebody may be told more or less than before.
    exports_changed: bool,
    /// Until then at most, End-of-RIB is held back.
    deferred_until: Option<Instant>,
    start: Instant,
}

impl Speaker {
    /// A speaker with this configuration; it starts to connect at once.
    #[must_use]
    pub fn new(now: Instant, config: Config) -> Self {
        let nobody = Config { peers: Vec::new(), ..config.clone() };
        let mut speaker = Self {
            rib: Rib::new(identity(&nobody)),
            config: nobody,
            neighbours: Neighbours::default(),
            by_endpoint: BTreeMap::new(),
            by_index: Vec::new(),
            outputs: VecDeque::new(),
            deadline: None,
            connected: None,
            exports_changed: false,
            deferred_until: Some(now + DEFERRAL),
            start: now,
        };
        speaker.rib.hold_end_of_rib();
        speaker.configure(now, config);
        speaker
    }

    /// Makes no [`Output::FibChange`], and keeps no state for it: a route reflector that does not
    /// forward.
    #[must_use]
    pub fn without_fib(mut self) -> Self {
        self.rib.disable_fib();
        self
    }

    /// Bounds the octets of encoded UPDATEs that are kept for slow readers, per update group.
    pub fn limit_log(&mut self, bytes: usize) {
        self.rib.limit_log(bytes);
    }

    /// Replaces the whole set of own prefixes.
    pub fn originate(&mut self, now: Instant, prefixes: &[IpNet]) {
        self.set_clock(now);
        self.rib.originate(prefixes);
    }

    /// Somebody connected to us.
    ///
    /// # Errors
    /// The connection is not wanted; close it.
    pub fn accept(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: SocketAddr,
    ) -> Result<ConnectionId, Refusal> {
        let number = self.awaited(remote.ip().to_canonical());
        let entry = number.and_then(|number| Some((number, self.neighbours.get_mut(number)?)));
        let Some((number, neighbour)) = entry else {
            self.outputs.push_back(Output::Event(SpeakerEvent::UnknownNeighbour { remote }));
            return Err(Refusal::UnknownPeer);
        };
        let accepted = neighbour.session.accept(now, local);
        self.attend(now, number);
        accepted.map_err(|refusal| match refusal {
            session::Refusal::Busy => Refusal::Busy,
            session::Refusal::HeldDown => Refusal::HeldDown,
        })
    }

    /// The peer that a connection from this address is from.
    fn awaited(&self, address: IpAddr) -> Option<u32> {
        let endpoints = SocketAddr::new(address, 0)..=SocketAddr::new(address, u16::MAX);
        let mut numbers = self.by_endpoint.range(endpoints).map(|(_, number)| *number);
        numbers.find(|number| {
            self.neighbours.get(*number).is_some_and(|peer| !peer.record.config.dial_only)
        })
    }

    /// [`Output::Connect`] succeeded.
    pub fn connected(&mut self, now: Instant, conn: ConnectionId, local: SocketAddr) {
        if let Some(neighbour) = self.neighbours.get_mut(conn.peer()) {
            neighbour.session.connected(now, conn, local);
            self.attend(now, conn.peer());
        }
    }

    /// [`Output::Connect`] failed.
    pub fn connect_failed(&mut self, now: Instant, conn: ConnectionId, reason: String) {
        if let Some(neighbour) = self.neighbours.get_mut(conn.peer()) {
            neighbour.session.connect_failed(now, conn, reason);
            self.attend(now, conn.peer());
            self.bury(conn.peer());
        }
    }

    /// The TCP connection is gone.
    pub fn closed(&mut self, now: Instant, conn: ConnectionId, reason: String) {
        if let Some(neighbour) = self.neighbours.get_mut(conn.peer()) {
            neighbour.session.closed(now, conn, reason);
            self.attend(now, conn.peer());
            self.bury(conn.peer());
        }
    }

    /// Appends to `out` up to about `max_bytes` of what is to be sent (at least one chunk if there
    /// is any). What was handed out counts as sent: write all of it before asking again.
    pub fn transmit(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        out: &mut Vec<Bytes>,
        max_bytes: usize,
    ) {
        let Some(neighbour) = self.neighbours.get_mut(conn.peer()) else { return };
        let mut handed = neighbour.session.transmit(now, conn, out);
        match neighbour.record.up.as_ref().filter(|up| up.conn == conn) {
            Some(up) if handed < max_bytes => {
                let stream = self.rib.transmit(up.index, out, max_bytes - handed);
                neighbour.record.refreshes_sent += stream.route_refreshes;
                neighbour.session.streamed(now, conn, stream.bytes, stream.updates);
                handed += stream.bytes;
            }
            Some(_) => {}
            None if handed == 0 => self.bury(conn.peer()),
            None => {}
        }
        // Only what was handed out starts a timer.
        if handed > 0 {
            self.watch(conn.peer());
        }
    }

    /// The next thing for the driver to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        while let Some(index) = self.rib.poll_ready() {
            let number = self.by_index.get(index.position()).copied();
            let up = number.and_then(|number| self.neighbours.get(number)?.record.up.as_ref());
            if let Some(up) = up.filter(|up| up.index == index) {
                return Some(Output::Transmit { conn: up.conn });
            }
        }
        let change = self.rib.poll_fib()?;
        let origin = if change.own { FibOrigin::Own } else { FibOrigin::Learned };
        Some(Output::FibChange { prefix: change.prefix, next_hops: change.next_hops, origin })
    }

    /// End of a driver turn: everything that changed is packed into UPDATEs and forwarding changes.
    pub fn flush(&mut self, now: Instant) {
        let changed = self.rib.is_dirty() || std::mem::take(&mut self.exports_changed);
        self.rib.flush();
        if changed {
            self.tell_withheld();
        }
        while let Some(index) = self.rib.hopeless() {
            let Some(number) = self.by_index.get(index.position()).copied() else { return };
            let Some(neighbour) = self.neighbours.get_mut(number) else { return };
            let notification = Notification::new(error_code::CEASE, cease::OUT_OF_RESOURCES);
            neighbour.session.reset(now, &notification, Some(OUT_OF_RESOURCES_PAUSE));
            self.attend(now, number);
            self.rib.flush();
            if self.rib.hopeless() == Some(index) {
                return;
            }
        }
    }

    /// Clears the hold-down of a peer, closes its session (Cease 6/4) and starts again.
    pub fn reset(&mut self, now: Instant, peer: SocketAddr) {
        let Some(number) = self.by_endpoint.get(&peer).copied() else { return };
        let Some(neighbour) = self.neighbours.get_mut(number) else { return };
        let notification = Notification::new(error_code::CEASE, cease::ADMIN_RESET);
        neighbour.session.reset(now, &notification, None);
        self.attend(now, number);
    }

    /// Forgets a removed peer whose last words are sent.
    fn bury(&mut self, number: u32) {
        if self.neighbours.get(number).is_some_and(|neighbour| neighbour.record.leaving) {
            self.neighbours.remove(number);
        }
    }

    fn set_clock(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.start).as_secs();
        self.rib.set_clock(u32::try_from(seconds).unwrap_or(u32::MAX));
    }
}

fn identity(config: &Config) -> Identity {
    Identity { asn: config.asn, router_id: config.router_id.0, cluster_id: config.cluster_id }
}

//! Sessions and RIB together: the only thing a driver talks to.
//!
//! Bytes and time go in, [`Output`]s come out; nothing here blocks or does I/O.

mod output;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use ipnet::IpNet;

use crate::config::Config;
use crate::view::{PeerView, RouteView, Summary};

pub use output::{
    ConnectionId, Disposition, DownReason, FibOrigin, OpenRefusal, Output, Refusal, SpeakerEvent,
};

/// A BGP speaker.
#[derive(Debug)]
pub struct Speaker {
    config: Config,
}

impl Speaker {
    /// A speaker with this configuration; it starts to connect at once.
    #[must_use]
    pub fn new(_now: Instant, config: Config) -> Self {
        Self { config }
    }

    /// Replaces the whole configuration. A peer whose settings did not change keeps its session.
    pub fn configure(&mut self, _now: Instant, config: Config) {
        self.config = config;
    }

    /// Replaces the whole set of own prefixes.
    pub fn originate(&mut self, _now: Instant, _prefixes: &[IpNet]) {}

    /// Somebody connected to us.
    ///
    /// # Errors
    /// The connection is not wanted; close it.
    pub fn accept(
        &mut self,
        _now: Instant,
        _remote: SocketAddr,
        _local: SocketAddr,
    ) -> Result<ConnectionId, Refusal> {
        Err(Refusal::UnknownPeer)
    }

    /// [`Output::Connect`] succeeded.
    pub fn connected(&mut self, _now: Instant, _conn: ConnectionId, _local: SocketAddr) {}

    /// [`Output::Connect`] failed.
    pub fn connect_failed(&mut self, _now: Instant, _conn: ConnectionId, _reason: String) {}

    /// Bytes as read from TCP, in any chunks.
    pub fn receive(&mut self, _now: Instant, _conn: ConnectionId, _bytes: &[u8]) {}

    /// The TCP connection is gone.
    pub fn closed(&mut self, _now: Instant, _conn: ConnectionId, _reason: String) {}

    /// Appends to `out` up to about `max_bytes` of what is to be sent (at least one chunk if there
    /// is any). What was handed out counts as sent: write all of it before asking again.
    pub fn transmit(
        &mut self,
        _now: Instant,
        _conn: ConnectionId,
        _out: &mut Vec<Bytes>,
        _max_bytes: usize,
    ) {
    }

    /// The next thing for the driver to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When to call `handle_timeout` at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// End of a driver turn: everything that changed is packed into UPDATEs and forwarding changes.
    pub fn flush(&mut self, _now: Instant) {}

    /// All configured peers, by address.
    #[must_use]
    pub fn peers(&self, _now: Instant) -> Vec<PeerView> {
        Vec::new()
    }

    /// All prefixes with their paths, sorted.
    #[must_use]
    pub fn routes(&self, _now: Instant) -> Vec<RouteView> {
        Vec::new()
    }

    /// The numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            asn: self.config.asn,
            router_id: self.config.router_id.0,
            peers_established: 0,
            peers: self.config.peers.len(),
            prefixes: 0,
            paths: 0,
            attribute_sets: 0,
            update_groups: 0,
        }
    }

    /// Clears the counters and hold-downs of a peer and closes its session (Cease 6/4).
    pub fn reset(&mut self, _now: Instant, _peer: IpAddr) {}
}

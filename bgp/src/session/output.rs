//! What a peer wants done, and what it has to say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::Dial;
use crate::session::fault::Fault;
use crate::session::link::ConnectionId;
use crate::session::negotiate::Negotiated;
use crate::view::MessageCounts;
use crate::wire::RouteRefresh;
use crate::wire::update::Update;

/// A thing for the driver to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a TCP connection; answer with [`super::Peer::connected`] or [`super::Peer::connect_failed`].
    Connect {
        /// Its name from now on.
        conn: ConnectionId,
        /// How.
        dial: Dial,
    },
    /// [`super::Peer::transmit`] has bytes for this connection.
    Transmit {
        /// Which.
        conn: ConnectionId,
    },
    /// Write what [`super::Peer::transmit`] still has (a NOTIFICATION), then close. Bound the time for
    /// that: after a send hold timeout the peer takes no bytes at all.
    Close {
        /// Which.
        conn: ConnectionId,
    },
    /// Something that the speaker must know.
    Event(PeerEvent),
}

/// What happened to a peer's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// Established.
    Up {
        /// The connection that carries the session.
        conn: ConnectionId,
        /// Our end of it.
        local: Option<SocketAddr>,
        /// What was negotiated.
        negotiated: Arc<Negotiated>,
    },
    /// A session ended, or an attempt at one failed.
    Down {
        /// The connection that carried it.
        conn: Option<ConnectionId>,
        /// Why.
        fault: Fault,
        /// It had been Established: delete the peer's routes.
        established: bool,
    },
}

/// What [`super::Peer::receive`] hands out, in the order of the stream.
#[expect(
    clippy::large_enum_variant,
    reason = "UPDATE is nearly every event; boxing it would allocate for each"
)]
#[derive(Debug)]
pub enum SessionEvent<'a> {
    /// Routes, in Established.
    Update(Update<'a>),
    /// ROUTE-REFRESH, BoRR or EoRR (RFC 2918, RFC 7313), in Established.
    RouteRefresh(RouteRefresh),
    /// The session came up or went down.
    Peer(PeerEvent),
}

/// Why an inbound connection is not taken. Close it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// There is an inbound connection from this peer already.
    #[error("the peer already has a connection")]
    Busy,
    /// The peer is stopped, or pauses after errors.
    #[error("the peer is held down")]
    HeldDown,
}

/// Counters of a peer over all its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Messages in.
    pub received: MessageCounts,
    /// Messages out (handed to the driver, or queued for it).
    pub sent: MessageCounts,
    /// How often the session came up.
    pub established_count: u64,
    /// Last change into or out of Established.
    pub since: Instant,
    /// Last thing that went wrong, and when.
    pub last_fault: Option<(Instant, Fault)>,
    /// RFC 4271 ConnectRetryCounter: failures since Established or a manual start.
    pub connect_retries: u32,
}

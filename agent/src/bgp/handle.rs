//! How the rest of the agent talks to the speaker thread.

use std::net::SocketAddr;
use std::sync::Arc;

use ::bgp::config::Config;
use ::bgp::view::{Parity, PeerView, RouteView, Summary};
use ipnet::IpNet;
use mio::Waker;
use tokio::sync::{mpsc, oneshot, watch};

/// The speaker thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the speaker thread has ended")]
pub struct Stopped;

/// Numbers of the driver itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Port we listen on; 0 while that fails.
    pub listen_port: u16,
    /// Inbound connections refused: unknown, held down, or one too many.
    pub refused: u64,
    /// TCP connections open now, in any state.
    pub connections: usize,
    /// Octets read.
    pub octets_in: u64,
    /// Octets written.
    pub octets_out: u64,
}

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    Configure(Box<Config>, u16),
    Originate(Vec<IpNet>),
    Reset(SocketAddr),
    Peers(oneshot::Sender<Vec<PeerView>>),
    Routes(oneshot::Sender<Vec<RouteView>>),
    Summary(oneshot::Sender<Summary>),
    Parity { from: Vec<SocketAddr>, against: Vec<SocketAddr>, reply: oneshot::Sender<Parity> },
    Holders { peers: Vec<SocketAddr>, reply: oneshot::Sender<Vec<(IpNet, usize)>> },
    Connected(Vec<IpNet>),
    Shutdown { cease: bool },
}

/// Handle of the speaker thread.
#[derive(Clone, Debug)]
pub struct SpeakerHandle {
    sender: mpsc::Sender<Command>,
    waker: Arc<Waker>,
    traffic: watch::Receiver<Traffic>,
}

impl SpeakerHandle {
    pub(super) fn new(
        sender: mpsc::Sender<Command>,
        waker: Arc<Waker>,
        traffic: watch::Receiver<Traffic>,
    ) -> Self {
        Self { sender, waker, traffic }
    }

    /// Replaces the whole configuration, and the port to listen on (0 = do not listen).
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn configure(&self, config: Config, listen_port: u16) -> Result<(), Stopped> {
        self.send(Command::Configure(Box::new(config), listen_port)).await
    }

    /// Tells the networks that we are connected to by links that are up. The session of a directly
    /// connected external peer ends at once when its network is not among them any more.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn connected(&self, networks: Vec<IpNet>) -> Result<(), Stopped> {
        self.send(Command::Connected(networks)).await
    }

    /// Replaces the whole set of own prefixes.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn originate(&self, prefixes: Vec<IpNet>) -> Result<(), Stopped> {
        self.send(Command::Originate(prefixes)).await
    }

    /// Resets the session with a peer (Cease 6/4).
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn reset(&self, peer: SocketAddr) -> Result<(), Stopped> {
        self.send(Command::Reset(peer)).await
    }

    /// All configured peers.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn peers(&self) -> Result<Vec<PeerView>, Stopped> {
        self.ask(Command::Peers).await
    }

    /// All prefixes with their paths.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn routes(&self) -> Result<Vec<RouteView>, Stopped> {
        self.ask(Command::Routes).await
    }

    /// The speaker's numbers.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn summary(&self) -> Result<Summary, Stopped> {
        self.ask(Command::Summary).await
    }

    /// Is every prefix and next hop learnt from the peers `from` also learnt from `against`?
    ///
    /// To give up the sessions with `from` loses nothing if [`Parity::holds`]: forwarding changes
    /// for none of their prefixes then. Add `against` first and leave `from` as they are; peers
    /// are added to a running speaker and removed from it by [`SpeakerHandle::configure`], which
    /// leaves all other sessions alone.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn parity(
        &self,
        from: Vec<SocketAddr>,
        against: Vec<SocketAddr>,
    ) -> Result<Parity, Stopped> {
        self.ask(|reply| Command::Parity { from, against, reply }).await
    }

    /// For each prefix with a learnt path in use: how many of `peers` hold out all its next hops.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn holders(&self, peers: Vec<SocketAddr>) -> Result<Vec<(IpNet, usize)>, Stopped> {
        self.ask(|reply| Command::Holders { peers, reply }).await
    }

    /// The driver's numbers.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        *self.traffic.borrow()
    }

    /// Ends the thread. With `cease` each peer is told (Cease 6/2) and drops our routes; without,
    /// connections just end, as in a crash, and graceful restart applies where negotiated.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn shutdown(&self, cease: bool) -> Result<(), Stopped> {
        self.send(Command::Shutdown { cease }).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (sender, receiver) = oneshot::channel();
        self.send(command(sender)).await?;
        receiver.await.map_err(|_| Stopped)
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.sender.send(command).await.map_err(|_| Stopped)?;
        if let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "cannot wake the speaker thread");
        }
        Ok(())
    }
}

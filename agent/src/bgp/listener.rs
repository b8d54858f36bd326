//! Listening sockets: one for each family, opened again with back-off when that fails.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ::bgp::md5::Md5Key;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::socket_option::set_md5;

/// Every node of a big cluster may connect in the same moment.
const BACKLOG: i32 = 4096;
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LIMIT: Duration = Duration::from_secs(30);
/// Out of file descriptors, say: waiting connections stay in the backlog.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What trying to listen came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listening {
    /// On this port, at least one family.
    On(u16),
    /// Not; tried again.
    Failed(u16, String),
}

/// The listeners of one port.
#[derive(Debug)]
pub(super) struct Listeners {
    port: u16,
    tokens: [Token; 2],
    sockets: [Option<TcpListener>; 2],
    /// What connections from these addresses are signed with.
    keys: BTreeMap<IpAddr, Md5Key>,
    retry: Option<(Instant, Duration)>,
    /// Accepting stopped for want of something; there may be more.
    accept_again: Option<Instant>,
}

impl Listeners {
    /// Not listening yet.
    pub(super) fn new(tokens: [Token; 2]) -> Self {
        let keys = BTreeMap::new();
        Self { port: 0, tokens, sockets: [None, None], keys, retry: None, accept_again: None }
    }

    /// Listens on this port (0 = on none) instead of the one before.
    pub(super) fn set_port(&mut self, now: Instant, port: u16) {
        if port == self.port {
            return;
        }
        self.port = port;
        self.sockets = [None, None];
        self.retry = (port != 0).then_some((now, RETRY_FIRST));
    }

    /// Connections from these addresses have to be signed with these keys from now on.
    pub(super) fn set_keys(&mut self, keys: BTreeMap<IpAddr, Md5Key>) {
        let old = std::mem::replace(&mut self.keys, keys);
        for (remote, _) in old.iter().filter(|(remote, _)| !self.keys.contains_key(*remote)) {
            self.set_key(*remote, None);
        }
        for (remote, key) in self.keys.iter().filter(|(remote, key)| old.get(*remote) != Some(*key))
        {
            self.set_key(*remote, Some(key));
        }
    }

    /// A key that the kernel does not take (there is room for some hundreds) leaves the listener
    /// open: [`super::connection::set_options`] closes the door behind it.
    fn set_key(&self, remote: IpAddr, key: Option<&Md5Key>) {
        let [v4, v6] = &self.sockets;
        let socket = if remote.is_ipv4() { v4 } else { v6 };
        if let Some(socket) = socket
            && let Err(error) = set_md5(socket, remote, key)
        {
            tracing::warn!(%remote, %error, "the TCP MD5 key of a peer cannot be set for its connections to us");
        }
    }

    /// Opens what is not open yet, if it is time to.
    pub(super) fn poll(&mut self, now: Instant, registry: &Registry) -> Option<Listening> {
        let (at, pause) = self.retry?;
        if now < at {
            return None;
        }
        let mut failure = None;
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        for ((socket, token), address) in self.sockets.iter_mut().zip(self.tokens).zip(any) {
            if socket.is_some() {
                continue;
            }
            match listen(SocketAddr::new(address, self.port), &self.keys, registry, token) {
                Ok(listener) => *socket = Some(listener),
                // IPv6 is switched off on this machine: nothing to wait for.
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                Err(error) => failure = Some(error.to_string()),
            }
        }
        self.retry = failure.is_some().then_some((now + pause, (pause * 2).min(RETRY_LIMIT)));
        Some(match failure {
            None => Listening::On(self.port),
            Some(reason) => Listening::Failed(self.port, reason),
        })
    }

    /// When [`Listeners::poll`] or [`Listeners::accept`] has something to do without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.retry.map(|(at, _)| at), self.accept_again].into_iter().flatten().min()
    }

    /// Is accepting to be tried without an event?
    pub(super) fn accept_due(&self, now: Instant) -> bool {
        self.accept_again.is_some_and(|at| at <= now)
    }

    /// Takes every waiting connection.
    pub(super) fn accept(&mut self, now: Instant, mut take: impl FnMut(TcpStream, SocketAddr)) {
        self.accept_again = None;
        for listener in self.sockets.iter().flatten() {
            loop {
                match listener.accept() {
                    Ok((stream, remote)) => take(stream, remote),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                        ) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a BGP connection");
                        self.accept_again = Some(now + ACCEPT_PAUSE);
                        break;
                    }
                }
            }
        }
    }
}

fn listen(
    address: SocketAddr,
    keys: &BTreeMap<IpAddr, Md5Key>,
    registry: &Registry,
    token: Token,
) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    for (remote, key) in keys.iter().filter(|(remote, _)| remote.is_ipv4() == address.is_ipv4()) {
        if let Err(error) = set_md5(&socket, *remote, Some(key)) {
            tracing::warn!(%remote, %error, "the TCP MD5 key of a peer cannot be set for its connections to us");
        }
    }
    socket.listen(BACKLOG)?;
    let mut listener = TcpListener::from_std(socket.into());
    registry.register(&mut listener, token, Interest::READABLE)?;
    Ok(listener)
}

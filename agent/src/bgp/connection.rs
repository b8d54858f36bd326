//! One TCP connection: options, what is still to be written, and how it ends.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use ::bgp::config::Dial;
use ::bgp::md5::Md5Key;
use bytes::{Buf, Bytes};
use mio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::socket_option::{set_md5, set_min_ttl};

/// Chunks in one `writev`.
const CHUNKS: usize = 64;
/// How long a closed connection may take to take our last bytes and to end on its own.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The SYN is out.
    Connecting,
    /// Bytes flow.
    Open,
    /// The speaker wants it closed once its last bytes are written; until then at the latest.
    Closing(Instant),
    /// We have sent a FIN; what still comes is thrown away. Closing at once would answer it with a
    /// RST, which can destroy the NOTIFICATION before the peer reads it.
    Lingering(Instant),
}

/// A connection of the driver.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Remote address, for the log.
    pub(super) remote: SocketAddr,
    pub(super) phase: Phase,
    /// The socket takes bytes, as far as we know.
    pub(super) writable: bool,
    /// The connection is in the list of those to read from.
    pub(super) reading: bool,
    /// Taken from the speaker and not written yet.
    pending: VecDeque<Bytes>,
}

/// What became of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Everything.
    All,
    /// The socket is full.
    Blocked,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, remote: SocketAddr, phase: Phase) -> Self {
        Self {
            stream,
            remote,
            phase,
            writable: phase == Phase::Open,
            reading: false,
            pending: VecDeque::new(),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Something taken from the speaker has not been written yet.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn enqueue(&mut self, chunks: &mut Vec<Bytes>) {
        self.pending.extend(chunks.drain(..).filter(|chunk| !chunk.is_empty()));
    }

    /// Writes what is pending until the socket is full; adds to `written`.
    pub(super) fn write(&mut self, written: &mut u64) -> io::Result<Written> {
        while !self.pending.is_empty() {
            let empty: &[u8] = &[];
            let mut slices = [IoSlice::new(empty); CHUNKS];
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.pending) {
                *slice = IoSlice::new(chunk);
                used += 1;
            }
            match self.stream.write_vectored(slices.get(..used).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    *written += u64::try_from(count).unwrap_or_default();
                    self.drop_written(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(Written::Blocked);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Written::All)
    }

    fn drop_written(&mut self, mut count: usize) {
        while let Some(chunk) = self.pending.front_mut() {
            if count < chunk.len() {
                chunk.advance(count);
                return;
            }
            count -= chunk.len();
            self.pending.pop_front();
        }
    }

    /// Sends a FIN after everything written.
    pub(super) fn finish(&mut self, now: Instant) {
        self.phase = Phase::Lingering(now + LINGER);
        if let Err(error) = self.stream.shutdown(Shutdown::Write) {
            tracing::debug!(remote = %self.remote, %error, "shutdown of a BGP connection");
        }
    }

    /// When the connection is dropped, if it is on its way out.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Closing(at) | Phase::Lingering(at) => Some(at),
            Phase::Connecting | Phase::Open => None,
        }
    }
}

/// What a connection from a peer is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inbound {
    /// TTL or hop limit of what we send.
    pub(super) ttl: u8,
    /// The least of what we take.
    pub(super) min_ttl: Option<u8>,
    /// What signs it.
    pub(super) md5: Option<Md5Key>,
}

/// Options of every BGP connection.
pub(super) fn set_options(stream: &TcpStream, remote: IpAddr, options: &Inbound) -> io::Result<()> {
    // It has that of its listener, unless it came in before the listener had it, or had another one:
    // from here on it says nothing that is not signed.
    if options.md5.is_some() {
        set_md5(stream, remote, options.md5.as_ref())?;
    }
    stream.set_nodelay(true)?;
    if let Some(min_ttl) = options.min_ttl {
        set_min_ttl(stream, remote, min_ttl)?;
    }
    set_ttl(&SockRef::from(stream), remote, options.ttl)
}

fn set_ttl(socket: &Socket, remote: IpAddr, ttl: u8) -> io::Result<()> {
    match remote {
        IpAddr::V4(_) => socket.set_ttl_v4(u32::from(ttl)),
        IpAddr::V6(_) => socket.set_unicast_hops_v6(u32::from(ttl)),
    }
}

/// Starts to connect; the socket is writable when that has ended.
pub(super) fn dial(dial: &Dial) -> io::Result<TcpStream> {
    let domain = Domain::for_address(dial.remote);
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    set_ttl(&socket, dial.remote.ip(), dial.ttl)?;
    if let Some(min_ttl) = dial.min_ttl {
        set_min_ttl(&socket, dial.remote.ip(), min_ttl)?;
    }
    if dial.md5.is_some() {
        set_md5(&socket, dial.remote.ip(), dial.md5.as_ref())?;
    }
    if let Some(local) = dial.local {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    match socket.connect(&dial.remote.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(libc::EINPROGRESS)
                || error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

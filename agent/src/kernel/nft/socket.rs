//! One nf_tables netlink socket: send a batch and learn its fate, ask for dumps.

use std::io;
use std::time::Duration;

use netlink_sys::{Socket as Netlink, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::libc::{MSG_DONTWAIT, MSG_TRUNC};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::encode::Batch;
use super::message::{Attributes, Buffer, Message, Messages, ne_u32};
use super::uapi::{self, message, netlink};

/// Kernel's share for acknowledgements and dumps on their way to us.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// One datagram: the kernel never builds larger ones for dumps.
const DATAGRAM_BYTES: usize = 256 << 10;
/// The kernel answers a dump at once; beyond this it does not answer at all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Sequence numbers of queries start here, out of the way of those of batches.
const FIRST_QUERY: u32 = 1 << 31;

/// Why a batch or query failed.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel refused; nothing was changed.
    #[error("kernel answered {errno}{}", text.as_deref().map(|t| format!(": {t}")).unwrap_or_default())]
    Refused {
        /// errno.
        errno: Errno,
        /// Sequence number of the message it refused.
        sequence: u32,
        /// Its own words, if it said any (extended acknowledgement).
        text: Option<String>,
    },
    /// The socket failed. A batch may or may not have been applied.
    #[error("netlink socket failed to {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The kernel took the batch and never said what became of it.
    #[error("kernel did not acknowledge")]
    NoAnswer,
    /// The ruleset changed while it was dumped; try again.
    #[error("ruleset changed while it was read")]
    Interrupted,
}

impl SocketError {
    /// errno for callers that know nothing else.
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::Refused { errno, .. } => *errno,
            Self::Io { source, .. } => {
                Errno::from_raw(source.raw_os_error().unwrap_or(Errno::EIO as i32))
            }
            Self::NoAnswer => Errno::ETIMEDOUT,
            Self::Interrupted => Errno::EINTR,
        }
    }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> SocketError {
    move |source| SocketError::Io { operation, source }
}

/// The socket. It belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Socket {
    netlink: Netlink,
    port: u32,
    /// What SO_SNDBUF was last raised to.
    send_buffer: usize,
    next_query: u32,
    datagram: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the network namespace of this thread.
    pub(super) fn open() -> Result<Self, SocketError> {
        let mut netlink = Netlink::new(NETLINK_NETFILTER).map_err(failed("open"))?;
        let address = netlink.bind_auto().map_err(failed("bind"))?;
        // Errors explain themselves, and do not carry megabytes of the batch back.
        netlink.set_ext_ack(true).map_err(failed("enable extended acknowledgements"))?;
        netlink.set_cap_ack(true).map_err(failed("cap acknowledgements"))?;
        setsockopt(&netlink, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)
            .map_err(|e| failed("set receive buffer")(e.into()))?;
        let timeout = TimeVal::seconds(i64::try_from(ANSWER_TIMEOUT.as_secs()).unwrap_or(i64::MAX));
        setsockopt(&netlink, sockopt::ReceiveTimeout, &timeout)
            .map_err(|e| failed("set receive timeout")(e.into()))?;
        Ok(Self {
            netlink,
            port: address.port_number(),
            send_buffer: 0,
            next_query: FIRST_QUERY,
            datagram: Vec::with_capacity(DATAGRAM_BYTES),
        })
    }

    /// Netlink port id: how notifications name the author of a change.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Sends a batch in one piece and waits for its fate.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(), SocketError> {
        self.drain()?;
        self.send(batch.bytes())?;
        // The kernel commits, and queues every answer, before the send returns.
        let mut acknowledged = false;
        let mut refusal: Option<SocketError> = None;
        while self.receive(MSG_DONTWAIT)? {
            for message in Messages(&self.datagram).filter(|m| m.kind == netlink::ERROR) {
                match read_error(&message) {
                    // It may follow an error that was found only at the end of the batch.
                    None => acknowledged |= message.sequence == batch.last_sequence(),
                    Some(error) => {
                        refusal.get_or_insert(error);
                    }
                }
            }
        }
        match refusal {
            Some(error) => Err(error),
            None if acknowledged => Ok(()),
            None => Err(SocketError::NoAnswer),
        }
    }

    /// Asks one question; `each` sees every message of the answer.
    pub(super) fn query(
        &mut self,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Buffer),
        mut each: impl FnMut(Attributes<'_>),
    ) -> Result<(), SocketError> {
        self.ask(uapi::FAMILY_INET, kind, flags, fill, |_, attributes| each(attributes))
    }

    /// Lists the objects of this kind of all families; `each` is told the family, too.
    pub(super) fn list(
        &mut self,
        kind: u16,
        each: impl FnMut(u8, Attributes<'_>),
    ) -> Result<(), SocketError> {
        self.ask(uapi::FAMILY_ANY, kind, netlink::DUMP, |_| (), each)
    }

    fn ask(
        &mut self,
        family: u8,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Buffer),
        mut each: impl FnMut(u8, Attributes<'_>),
    ) -> Result<(), SocketError> {
        self.drain()?;
        let sequence = self.next_query;
        self.next_query = sequence.checked_add(1).unwrap_or(FIRST_QUERY);
        let mut request = Buffer::default();
        // A dump ends by itself, a single answer is ended by the acknowledgement.
        let flags =
            if flags & netlink::DUMP == netlink::DUMP { flags } else { flags | netlink::ACK };
        request.raw((uapi::SUBSYSTEM << 8) | kind, flags, sequence, family, 0);
        fill(&mut request);
        self.send(&request.into_bytes())?;
        let mut interrupted = false;
        loop {
            if !self.receive(0)? {
                return Err(SocketError::NoAnswer);
            }
            for message in Messages(&self.datagram).filter(|m| m.sequence == sequence) {
                interrupted |= message.flags & netlink::DUMP_INTERRUPTED != 0;
                match message.kind {
                    netlink::ERROR => {
                        return match read_error(&message) {
                            Some(error) => Err(error),
                            None => Ok(()),
                        };
                    }
                    netlink::DONE if interrupted => return Err(SocketError::Interrupted),
                    netlink::DONE => return Ok(()),
                    _ => {
                        let family = message.payload.first().copied().unwrap_or(family);
                        each(family, message.attributes());
                    }
                }
            }
        }
    }

    /// Number of the ruleset's present generation, over all tables of the namespace.
    pub(super) fn generation(&mut self) -> Result<u32, SocketError> {
        let mut generation = None;
        self.query(
            message::GET_GENERATION,
            0,
            |_| (),
            |a| {
                generation = a.u32(uapi::GENERATION_ID).or(generation);
            },
        )?;
        generation.ok_or(SocketError::NoAnswer)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), SocketError> {
        // A batch is one datagram, and the default buffer takes about 10 000 elements.
        let needed = bytes.len() + (64 << 10);
        if self.send_buffer < needed {
            let size = needed.next_power_of_two();
            setsockopt(&self.netlink, sockopt::SndBufForce, &size)
                .map_err(|e| failed("set send buffer")(e.into()))?;
            self.send_buffer = size;
        }
        let kernel = SocketAddr::new(0, 0);
        loop {
            match self.netlink.send_to(bytes, &kernel, 0) {
                Ok(_) => return Ok(()),
                // Interrupted before anything was processed: netlink never stops half-way.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed("send")(e)),
            }
        }
    }

    /// Receives one datagram; false if there is none (by now, or within the time-out).
    fn receive(&mut self, flags: i32) -> Result<bool, SocketError> {
        loop {
            self.datagram.clear();
            match self.netlink.recv(&mut self.datagram, flags | MSG_TRUNC) {
                Ok(length) if length > self.datagram.len() => {
                    self.datagram.reserve(length);
                    return Err(SocketError::NoAnswer);
                }
                Ok(_) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(failed("receive")(e)),
            }
        }
    }

    /// Throws away what is left of earlier questions.
    fn drain(&mut self) -> Result<(), SocketError> {
        loop {
            match self.receive(MSG_DONTWAIT) {
                Ok(false) => return Ok(()),
                Ok(true) | Err(SocketError::NoAnswer) => {}
                // Only says that answers were lost that nobody waits for any more.
                Err(SocketError::Io { source, .. })
                    if source.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// An NLMSG_ERROR: `None` is an acknowledgement.
fn read_error(message: &Message<'_>) -> Option<SocketError> {
    let code = ne_u32(message.payload, 0)?.cast_signed();
    if code == 0 {
        return None;
    }
    // The header of the offending message follows the code, its body only if not capped.
    let original = message.payload.get(4..).unwrap_or_default();
    let length = if message.flags & netlink::CAPPED != 0 {
        Some(netlink::HEADER)
    } else {
        ne_u32(original, 0).and_then(|n| usize::try_from(n).ok())
    };
    let text = if message.flags & netlink::ACK_ATTRIBUTES != 0 {
        length
            .and_then(|n| original.get(n.next_multiple_of(4)..))
            .and_then(|rest| Attributes(rest).string(netlink::ERROR_TEXT))
            .map(str::to_owned)
    } else {
        None
    };
    Some(SocketError::Refused {
        errno: Errno::from_raw(code.wrapping_neg()),
        sequence: message.sequence,
        text,
    })
}

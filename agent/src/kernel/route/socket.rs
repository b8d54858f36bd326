//! The two netlink sockets: one asks and writes, one listens.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use socket2::{SockFilter, SockRef};

use super::message::Batch;

/// Room for one datagram; the kernel fills at most 32 KiB of a dump at a time.
const DATAGRAM: usize = 64 * 1024;
/// Receive buffer of the monitor: a burst of some 10 000 route changes.
const MONITOR_BUFFER: usize = 8 * 1024 * 1024;
/// The kernel answers within the system call; this only bounds a kernel that does not.
const ANSWER_SECONDS: i64 = 10;
/// A table that changes under a dump makes the kernel mark it as interrupted.
const DUMP_ATTEMPTS: u32 = 8;

/// Why talking to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket, or one of its options was refused.
    #[error("cannot open a route netlink socket")]
    Open(#[source] io::Error),
    /// Sending a request failed.
    #[error("cannot send to the kernel over netlink")]
    Send(#[source] io::Error),
    /// Receiving failed.
    #[error("cannot receive from the kernel over netlink")]
    Receive(#[source] io::Error),
    /// The kernel had more to say than the socket could hold: what was lost is unknown.
    #[error("netlink messages from the kernel were lost")]
    Overrun,
    /// A dump was interrupted by changes again and again.
    #[error("the routing table changed during each attempt to read it")]
    Interrupted,
    /// The kernel refused a request.
    #[error("the kernel refused a request: {0}")]
    Refused(#[source] io::Error),
}

/// One answer of the kernel to one request.
type Answer = (u32, Option<i32>);

/// Blocking request socket.
#[derive(Debug)]
pub(crate) struct Requests {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let open = || -> io::Result<Self> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            let port = socket.bind_auto()?.port_number();
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_cap_ack(true)?;
            socket.set_netlink_get_strict_chk(true)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS, 0))?;
            grow_receive_buffer(&socket, 1024 * 1024)?;
            Ok(Self { socket, port, sequence: 0, buffer: Vec::with_capacity(DATAGRAM) })
        };
        open().map_err(NetlinkError::Open)
    }

    /// The netlink port that notifications about our own writes carry.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// A fresh sequence number.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a batch in one system call; reports each refused request by sequence number and errno.
    /// Requests that are not reported were done.
    pub(crate) fn write(
        &mut self,
        batch: &mut Batch,
        mut refused: impl FnMut(u32, i32),
    ) -> Result<(), NetlinkError> {
        let last = self.sequence;
        self.send(batch.finish())?;
        let mut done = false;
        while !done {
            self.receive()?;
            for_each_message(&self.buffer, |message| {
                if let Some((sequence, errno)) = answer(message) {
                    if let Some(errno) = errno {
                        refused(sequence, errno);
                    }
                    done |= sequence == last;
                }
            });
        }
        Ok(())
    }

    /// Asks one thing that has one answer. `Ok(Err(errno))` when the kernel says no.
    pub(crate) fn ask(
        &mut self,
        request: RouteNetlinkMessage,
    ) -> Result<Result<RouteNetlinkMessage, i32>, NetlinkError> {
        let sequence = self.next_sequence();
        let mut batch = Batch::default();
        batch.push(sequence, 0, request);
        self.send(batch.without_ack())?;
        loop {
            self.receive()?;
            let mut result = None;
            for_each_message(&self.buffer, |message| {
                if message.header.sequence_number != sequence {
                    return;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => result = Some(Ok(inner)),
                    NetlinkPayload::Error(error) => {
                        result = Some(Err(error.code.map_or(0, |code| -code.get())));
                    }
                    _ => {}
                }
            });
            if let Some(result) = result {
                return Ok(result);
            }
        }
    }

    /// Reads a whole table; starts again when it changed meanwhile.
    pub(crate) fn dump(
        &mut self,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(table) = self.try_dump(request.clone())? {
                return Ok(table);
            }
        }
        Err(NetlinkError::Interrupted)
    }

    fn try_dump(
        &mut self,
        request: RouteNetlinkMessage,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, NetlinkError> {
        let sequence = self.next_sequence();
        let mut batch = Batch::default();
        batch.push(sequence, NLM_F_DUMP, request);
        self.send(batch.without_ack())?;
        let (mut table, mut interrupted, mut done, mut refusal) = (Vec::new(), false, false, None);
        while !done {
            self.receive()?;
            for_each_message(&self.buffer, |message| {
                if message.header.sequence_number != sequence {
                    return;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => table.push(inner),
                    NetlinkPayload::Done(_) => done = true,
                    NetlinkPayload::Error(error) => {
                        refusal = error.code.map(|code| -code.get());
                        done = true;
                    }
                    _ => {}
                }
            });
        }
        match refusal {
            // The table does not exist yet: no route was ever added to it.
            Some(libc::ENOENT) | None => Ok((!interrupted).then_some(table)),
            Some(errno) => Err(NetlinkError::Refused(io::Error::from_raw_os_error(errno))),
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        self.socket.send(bytes, 0).map(drop).map_err(NetlinkError::Send)
    }

    fn receive(&mut self) -> Result<(), NetlinkError> {
        receive_into(&self.socket, &mut self.buffer, 0)
    }
}

/// Non-blocking listener to links, addresses and routes.
#[derive(Debug)]
pub(super) struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Opens it. Notifications that `own_port` caused are dropped in the kernel: 100 000 routes
    /// written would otherwise come back as 100 000 messages that say what we know.
    pub(super) fn open(own_port: u32) -> Result<Self, NetlinkError> {
        let open = || -> io::Result<Self> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            grow_receive_buffer(&socket, MONITOR_BUFFER)?;
            SockRef::from(&socket).attach_filter(&not_from(own_port))?;
            let groups = libc::RTMGRP_LINK
                | libc::RTMGRP_IPV4_IFADDR
                | libc::RTMGRP_IPV6_IFADDR
                | libc::RTMGRP_IPV4_ROUTE
                | libc::RTMGRP_IPV6_ROUTE;
            socket.bind(&SocketAddr::new(0, u32::try_from(groups).unwrap_or_default()))?;
            socket.set_non_blocking(true)?;
            Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM) })
        };
        open().map_err(NetlinkError::Open)
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Hands over the messages of one datagram; `false` when there is none. A message that cannot
    /// be read counts as lost, like an overrun.
    pub(super) fn next(
        &mut self,
        mut handle: impl FnMut(u16, RouteNetlinkMessage),
    ) -> Result<bool, NetlinkError> {
        match receive_into(&self.socket, &mut self.buffer, libc::MSG_DONTWAIT) {
            Ok(()) => {}
            Err(NetlinkError::Receive(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let unreadable = for_each_message(&self.buffer, |message| {
            if let NetlinkPayload::InnerMessage(inner) = message.payload {
                handle(message.header.flags, inner);
            }
        });
        if unreadable > 0 { Err(NetlinkError::Overrun) } else { Ok(true) }
    }
}

/// Classic BPF: drop what carries `port` in `nlmsghdr.nlmsg_pid` (host order at offset 12; `BPF_ABS`
/// loads it as big endian).
fn not_from(port: u32) -> [SockFilter; 4] {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let as_loaded = u32::from_be_bytes(port.to_ne_bytes());
    [
        SockFilter::new(LOAD_WORD, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 0, 1, as_loaded),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

fn grow_receive_buffer(socket: &Socket, size: usize) -> io::Result<()> {
    // Beyond rmem_max it takes CAP_NET_ADMIN in the initial user namespace: else the most we may.
    if setsockopt(socket, sockopt::RcvBufForce, &size).is_err() {
        SockRef::from(socket).set_recv_buffer_size(size)?;
    }
    Ok(())
}

fn receive_into(socket: &Socket, buffer: &mut Vec<u8>, flags: i32) -> Result<(), NetlinkError> {
    loop {
        buffer.clear();
        buffer.reserve(DATAGRAM);
        match socket.recv(buffer, flags) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                return Err(NetlinkError::Overrun);
            }
            Err(error) => return Err(NetlinkError::Receive(error)),
        }
    }
}

/// Walks the messages of a datagram; returns how many could not be read.
fn for_each_message(
    datagram: &[u8],
    mut handle: impl FnMut(NetlinkMessage<RouteNetlinkMessage>),
) -> usize {
    let (mut rest, mut unreadable) = (datagram, 0);
    while let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes)) {
        let Ok(length) = usize::try_from(length) else { break };
        let (Some(one), true) = (rest.get(..length), length >= 16) else {
            unreadable += 1;
            break;
        };
        match NetlinkMessage::deserialize(one) {
            Ok(message) => handle(message),
            Err(_) => unreadable += 1,
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    unreadable
}

fn answer(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Answer> {
    match message.payload {
        NetlinkPayload::Error(error) => {
            Some((message.header.sequence_number, error.code.map(|code| -code.get())))
        }
        _ => None,
    }
}

//! Notices when someone else changes our table.
//!
//! The kernel tells every listener of every committed change, and who made it: what our own
//! writer did, and what others do to their tables, wakes nobody.

use std::io;
use std::time::{Duration, Instant};

use netlink_sys::{Socket as Netlink, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::libc::MSG_TRUNC;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use policy::nft::ir::TABLE;

use super::message::{Message, Messages};
use super::uapi::{self, message};

/// Multicast group of nf_tables changes.
const NFNLGRP_NFTABLES: u32 = 7;
/// Our own writer may change 100 000 elements at once, and each comes by here.
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;
const DATAGRAM_BYTES: usize = 64 << 10;
/// The shortest wait that SO_RCVTIMEO does not take for "for ever".
const SHORTEST_WAIT: Duration = Duration::from_micros(1);

/// Our table may no longer be what we made it: read it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// Someone committed a change of our table.
    Changed {
        /// Name of the process, as far as the kernel knows.
        process: Option<String>,
        /// Its process id.
        pid: Option<u32>,
    },
    /// More changes than the socket holds: some went unseen.
    Overrun,
}

/// Subscription to ruleset changes, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Monitor {
    netlink: Netlink,
    /// Port id of our own writer.
    own_port: u32,
    /// The transaction that is being told changes our table, and is not ours.
    foreign: bool,
    /// Last generation that was told completely.
    generation: Option<u32>,
    datagram: Vec<u8>,
}

impl Monitor {
    /// Subscribes. `own_port` is [`super::NftWriter::port`].
    ///
    /// # Errors
    /// The socket cannot be opened, or CAP_NET_ADMIN is missing.
    pub fn open(own_port: u32) -> io::Result<Self> {
        Self::with_buffer(own_port, RECEIVE_BUFFER_BYTES)
    }

    /// Subscribes with a queue of this many octets in the kernel.
    pub(super) fn with_buffer(own_port: u32, octets: usize) -> io::Result<Self> {
        let mut netlink = Netlink::new(NETLINK_NETFILTER)?;
        netlink.bind(&SocketAddr::new(0, 0))?;
        setsockopt(&netlink, sockopt::RcvBufForce, &octets)?;
        netlink.add_membership(NFNLGRP_NFTABLES)?;
        Ok(Self {
            netlink,
            own_port,
            foreign: false,
            generation: None,
            datagram: Vec::with_capacity(DATAGRAM_BYTES),
        })
    }

    /// Waits until someone else changed our table; `None` when nobody did within the time-out.
    ///
    /// # Errors
    /// The socket failed for good.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Option<Drift>> {
        let deadline = Instant::now() + timeout;
        self.wait_until(deadline, |_| false)
    }

    /// Waits until the change that made `generation` was told, or one of our table.
    pub(super) fn wait_for_generation(
        &mut self,
        generation: u32,
        timeout: Duration,
    ) -> io::Result<Option<Drift>> {
        let deadline = Instant::now() + timeout;
        let told = |m: &Self| m.generation == Some(generation);
        match self.wait_until(deadline, told)? {
            Some(drift) => Ok(Some(drift)),
            None if told(self) => Ok(None),
            None => Ok(Some(Drift::Overrun)),
        }
    }

    fn wait_until(
        &mut self,
        deadline: Instant,
        enough: impl Fn(&Self) -> bool,
    ) -> io::Result<Option<Drift>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(SHORTEST_WAIT);
            let timeout = TimeVal::new(
                left.as_secs().try_into().unwrap_or(i64::MAX),
                left.subsec_micros().max(1).into(),
            );
            setsockopt(&self.netlink, sockopt::ReceiveTimeout, &timeout)?;
            self.datagram.clear();
            match self.netlink.recv(&mut self.datagram, MSG_TRUNC) {
                Ok(length) if length > self.datagram.len() => {
                    self.datagram.reserve(length);
                    return Ok(Some(Drift::Overrun));
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    self.foreign = false;
                    return Ok(Some(Drift::Overrun));
                }
                Err(e) => return Err(e),
            }
            let datagram = std::mem::take(&mut self.datagram);
            let mut drift = None;
            for message in Messages(&datagram) {
                drift = self.see(&message).or(drift);
            }
            self.datagram = datagram;
            if drift.is_some() || enough(self) {
                return Ok(drift);
            }
        }
    }

    /// Takes in one message; the last of a transaction tells its generation and author.
    fn see(&mut self, message: &Message<'_>) -> Option<Drift> {
        let attributes = message.attributes();
        if message.nftables_kind()? != message::NEW_GENERATION {
            self.foreign |=
                message.port != self.own_port && attributes.string(uapi::TABLE_NAME) == Some(TABLE);
            return None;
        }
        self.generation = attributes.u32(uapi::GENERATION_ID);
        std::mem::take(&mut self.foreign).then(|| Drift::Changed {
            process: attributes.string(uapi::GENERATION_PROCESS).map(str::to_owned),
            pid: attributes.u32(uapi::GENERATION_PID),
        })
    }
}

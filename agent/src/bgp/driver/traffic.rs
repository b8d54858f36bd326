//! Bytes in and out of the connections.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use ::bgp::speaker::ConnectionId;

use super::{Driver, cease};
use crate::bgp::connection::{Connection, LINGER, Phase, Written};
use crate::bgp::outlet::DriverEvent;

/// Reads from one connection before the others get their turn.
const READS_A_TURN: usize = 4;
/// Octets taken from the speaker at a time.
const WRITE: usize = 512 * 1024;
/// Octets written to one connection before the others get their turn.
const WRITE_A_TURN: u64 = 4 * 1024 * 1024;

impl Driver {
    /// Reads a fair share from each connection that has something.
    pub(super) fn read(&mut self, now: Instant, buffer: &mut [u8]) {
        for _ in 0..self.readable.len() {
            let Some(id) = self.readable.pop_front() else { return };
            if self.read_one(now, id, buffer)
                && let Some(connection) = self.connections.get_mut(&id)
            {
                connection.reading = true;
                self.readable.push_back(id);
            }
        }
    }

    /// `true` when there may be more.
    fn read_one(&mut self, now: Instant, id: u64, buffer: &mut [u8]) -> bool {
        for _ in 0..READS_A_TURN {
            let Some(connection) = self.connections.get_mut(&id) else { return false };
            connection.reading = false;
            let discard = connection.phase != Phase::Open;
            match connection.read(buffer) {
                Ok(0) => {
                    self.lost(now, id, "the peer closed the connection");
                    return false;
                }
                Ok(_) if discard => {}
                Ok(count) => {
                    self.traffic.octets_in += u64::try_from(count).unwrap_or_default();
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if !self.receive(now, id, bytes) {
                        return false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    self.lost(now, id, &error.to_string());
                    return false;
                }
            }
        }
        true
    }

    /// Hands bytes to the speaker; a panic in there costs this session only.
    fn receive(&mut self, now: Instant, id: u64, bytes: &[u8]) -> bool {
        let speaker = &mut self.speaker;
        let receive = AssertUnwindSafe(|| speaker.receive(now, ConnectionId(id), bytes));
        if catch_unwind(receive).is_ok() {
            return true;
        }
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let peer = connection.remote.ip();
        tracing::error!(%peer, "a defect in decoding BGP messages; the session is closed");
        // Cease, Out of Resources (RFC 4486): whatever it was, it is our trouble.
        self.chunks.clear();
        self.chunks.push(cease(8));
        if !connection.has_pending() {
            connection.enqueue(&mut self.chunks);
        }
        connection.phase = Phase::Closing(now + LINGER);
        self.ending.push(id);
        self.to_write.push_back(id);
        self.events.push(now, DriverEvent::Defect { peer });
        let closed = AssertUnwindSafe(|| {
            speaker.closed(now, ConnectionId(id), "internal error".to_owned());
        });
        if catch_unwind(closed).is_err() {
            tracing::error!(%peer, "the speaker could not close the session in order");
        }
        false
    }

    pub(super) fn lost(&mut self, now: Instant, id: u64, reason: &str) {
        let phase = self.connections.get(&id).map(|connection| connection.phase);
        self.forget(id);
        if !matches!(phase, None | Some(Phase::Lingering(_))) {
            self.speaker.closed(now, ConnectionId(id), reason.to_owned());
        }
    }

    pub(super) fn forget(&mut self, id: u64) {
        if let Some(mut connection) = self.connections.remove(&id)
            && let Err(error) = self.poll.registry().deregister(&mut connection.stream)
        {
            tracing::debug!(remote = %connection.remote, %error, "epoll forgot a connection first");
        }
    }

    pub(super) fn write(&mut self, now: Instant) {
        for _ in 0..self.to_write.len() {
            let Some(id) = self.to_write.pop_front() else { return };
            match self.write_one(now, id) {
                Ok(true) => self.to_write.push_back(id),
                Ok(false) => {}
                Err(error) => self.lost(now, id, &error.to_string()),
            }
        }
    }

    /// `true` when the socket takes more and there may be more.
    fn write_one(&mut self, now: Instant, id: u64) -> io::Result<bool> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(false) };
        if !connection.writable
            || matches!(connection.phase, Phase::Connecting | Phase::Lingering(_))
        {
            return Ok(false);
        }
        let before = self.traffic.octets_out;
        loop {
            if connection.write(&mut self.traffic.octets_out)? == Written::Blocked {
                return Ok(false);
            }
            if self.traffic.octets_out - before >= WRITE_A_TURN {
                return Ok(true);
            }
            self.chunks.clear();
            self.speaker.transmit(now, ConnectionId(id), &mut self.chunks, WRITE);
            if self.chunks.is_empty() {
                break;
            }
            connection.enqueue(&mut self.chunks);
        }
        if matches!(connection.phase, Phase::Closing(_)) {
            connection.finish(now);
            // So that a FIN that is already here is seen.
            if !connection.reading {
                connection.reading = true;
                self.readable.push_back(id);
            }
        }
        Ok(false)
    }

    pub(super) fn drop_overdue(&mut self, now: Instant) {
        let mut overdue = Vec::new();
        let connections = &self.connections;
        self.ending.retain(|id| match connections.get(id).and_then(Connection::deadline) {
            Some(at) if at <= now => {
                overdue.push(*id);
                false
            }
            Some(_) => true,
            None => false,
        });
        for id in overdue {
            self.lost(now, id, "closed");
        }
    }
}

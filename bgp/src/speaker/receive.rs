//! Bytes in, timers, and what sessions want done.

use std::time::Instant;

use super::neighbour::Stage;
use super::output::{Output, SpeakerEvent};
use super::{ConnectionId, PREFIX_LIMIT_PAUSE, Speaker};
use crate::session;
use crate::wire::error::Notification;
use crate::wire::notification::{cease, error_code};

impl Speaker {
    /// Bytes as read from TCP, in any chunks.
    pub fn receive(&mut self, now: Instant, conn: ConnectionId, bytes: &[u8]) {
        self.set_clock(now);
        let number = conn.peer();
        let Self { rib, by_index, outputs, neighbours, .. } = self;
        let Some(neighbour) = neighbours.get_mut(number) else { return };
        let mut stage = Stage { now, number, rib, by_index, outputs };
        let record = &mut neighbour.record;
        neighbour.session.receive(now, conn, bytes, &mut |event| record.take(&mut stage, event));
        if let Some(exceeded) = neighbour.record.exceeded.take() {
            let peer = neighbour.record.config.address;
            let event = SpeakerEvent::PrefixLimit { peer, limit: exceeded.limit };
            neighbour.record.tell(&mut stage, event);
            let notification = Notification::new(error_code::CEASE, cease::MAX_PREFIXES);
            let notification = neighbour.record.final_word(notification);
            neighbour.session.reset(now, &notification, Some(PREFIX_LIMIT_PAUSE));
        }
        self.attend(now, number);
    }

    /// Does what the session of a peer wants done, after every call to it.
    pub(super) fn attend(&mut self, now: Instant, number: u32) {
        let Self { rib, by_index, outputs, neighbours, .. } = self;
        let Some(neighbour) = neighbours.get_mut(number) else { return };
        let mut stage = Stage { now, number, rib, by_index, outputs };
        while let Some(output) = neighbour.session.poll_output() {
            match output {
                session::Output::Connect { conn, dial } => {
                    let peer = neighbour.record.config.address;
                    stage.outputs.push_back(Output::Connect { conn, peer, dial });
                }
                session::Output::Transmit { conn } => {
                    stage.outputs.push_back(Output::Transmit { conn });
                }
                session::Output::Close { conn } => {
                    stage.outputs.push_back(Output::Close { conn });
                }
                session::Output::Event(event) => neighbour.record.changed(&mut stage, event),
            }
        }
        self.review_deferral(now);
        self.watch(number);
    }

    /// The deadline is not later than that of this peer.
    pub(super) fn watch(&mut self, number: u32) {
        let Some(neighbour) = self.neighbours.get(number) else { return };
        let theirs = [neighbour.session.poll_timeout(), neighbour.record.stale_until(&self.rib)];
        let ours = [self.deadline, self.deferred_until];
        self.deadline = ours.into_iter().chain(theirs).flatten().min();
    }

    /// When to call `handle_timeout` at the latest. May be earlier than needed.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.deadline = None;
        self.review_deferral(now);
        let numbers: Vec<u32> = self.neighbours.iter().map(|(number, _)| number).collect();
        for number in numbers {
            let Self { rib, by_index, outputs, neighbours, .. } = self;
            let Some(neighbour) = neighbours.get_mut(number) else { continue };
            if neighbour.record.stale_until(rib).is_some_and(|at| at <= now) {
                let mut stage = Stage { now, number, rib, by_index, outputs };
                neighbour.record.expire_stale(&mut stage);
            }
            if neighbour.session.poll_timeout().is_some_and(|at| at <= now) {
                neighbour.session.handle_timeout(now);
                self.attend(now, number);
            }
            self.watch(number);
        }
    }
}

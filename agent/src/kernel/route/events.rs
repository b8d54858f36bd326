//! What goes out: bounded, and what does not fit is merged, never piled up.

use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::mpsc;

use super::pods::Pods;
use super::tracker::refusal;
use super::types::{Overridden, RouteEvent};

/// Events that wait for room.
#[derive(Debug)]
pub(super) struct Outbox {
    sender: mpsc::Sender<RouteEvent>,
    drift: Option<(IpNet, u64)>,
    refused: Option<(IpNet, i32, u64)>,
    trouble: Option<String>,
    settled: Option<Duration>,
    overridden: Option<Option<Overridden>>,
}

impl Outbox {
    pub(super) fn new(sender: mpsc::Sender<RouteEvent>) -> Self {
        Self { sender, drift: None, refused: None, trouble: None, settled: None, overridden: None }
    }

    pub(super) fn drift(&mut self, prefix: IpNet, count: u64) {
        self.drift.get_or_insert((prefix, 0)).1 += count;
    }

    pub(super) fn refused(&mut self, prefix: IpNet, errno: i32) {
        self.refused.get_or_insert((prefix, errno, 0)).2 += 1;
    }

    /// What was not handed over is out of date.
    pub(super) fn overridden(&mut self, now: Option<Overridden>) {
        self.overridden = Some(now);
    }

    pub(super) fn trouble(&mut self, what: String) {
        self.trouble = Some(what);
    }

    /// Of several that wait the longest is told.
    pub(super) fn settled(&mut self, took: Duration) {
        self.settled = self.settled.max(Some(took));
    }

    /// Hands over what fits; `false` when something has to wait.
    pub(super) fn flush(&mut self, pods: &mut Pods) -> bool {
        while let Some((address, interface)) = pods.next_untold() {
            if !self.offer(RouteEvent::Interface { address, interface }) {
                return false;
            }
            pods.told(address);
        }
        if let Some((prefix, count)) = self.drift {
            if !self.offer(RouteEvent::Drift { prefix, count }) {
                return false;
            }
            self.drift = None;
        }
        if let Some((prefix, errno, count)) = self.refused {
            if !self.offer(RouteEvent::Refused { prefix, reason: refusal(errno), count }) {
                return false;
            }
            self.refused = None;
        }
        if let Some(took) = self.settled {
            if !self.offer(RouteEvent::Settled(took)) {
                return false;
            }
            self.settled = None;
        }
        if let Some(now) = self.overridden.take()
            && !self.offer(RouteEvent::Overridden(now.clone()))
        {
            self.overridden = Some(now);
            return false;
        }
        if let Some(what) = self.trouble.take()
            && !self.offer(RouteEvent::Trouble(what.clone()))
        {
            self.trouble = Some(what);
            return false;
        }
        true
    }

    /// A closed channel takes everything: nobody listens.
    fn offer(&self, event: RouteEvent) -> bool {
        !matches!(self.sender.try_send(event), Err(mpsc::error::TrySendError::Full(_)))
    }
}

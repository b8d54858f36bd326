//! What leaves the driver: bounded, merged when the receiver is behind, never waited for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ::bgp::speaker::{FibOrigin, SpeakerEvent};
use ::bgp::types::Family;
use ipnet::IpNet;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use crate::kernel::route::{RouteChange, Routes, Target};

/// An unknown neighbour is told once in this time.
const STRANGER_PAUSE: Duration = Duration::from_secs(60);
/// So many strangers are remembered; beyond, everybody is forgotten.
const STRANGERS: usize = 1024;

/// A change of forwarding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibChange {
    /// Prefix.
    pub prefix: IpNet,
    /// Sorted; empty = remove, or blackhole for an own prefix.
    pub next_hops: Vec<IpAddr>,
    /// Learnt or own.
    pub origin: FibOrigin,
}

/// The same for the kernel.
fn route_change(change: FibChange) -> RouteChange {
    let FibChange { prefix, next_hops, origin } = change;
    let target = match origin {
        FibOrigin::Own => Some(Target::Blackhole),
        FibOrigin::Learned if next_hops.is_empty() => None,
        FibOrigin::Learned => Some(Target::NextHops(next_hops)),
    };
    RouteChange { prefix, target }
}

/// Takes a batch of forwarding changes, and when that happened which they follow from; or gives it
/// back when it has no room. Must not block.
pub type FibSink = Box<dyn FnMut(Vec<FibChange>, Instant) -> Result<(), Vec<FibChange>> + Send>;

/// A sink that hands everything to the kernel.
#[must_use]
pub fn kernel_sink(routes: Routes) -> FibSink {
    Box::new(move |batch, since| {
        let mut batch = Some(batch);
        routes.try_apply(since, || batch.take().into_iter().flatten().map(route_change).collect());
        batch.map_or(Ok(()), Err)
    })
}

/// What the outside hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverEvent {
    /// The speaker's own.
    Speaker(SpeakerEvent),
    /// Listening on this port.
    Listening(u16),
    /// Not listening; tried again with back-off.
    ListenFailed {
        /// Port.
        port: u16,
        /// Why.
        reason: String,
    },
    /// Decoding what this peer sent met a bug of ours; its session was closed.
    Defect {
        /// Peer.
        peer: IpAddr,
    },
}

/// Events on their way out.
#[derive(Debug)]
pub(super) struct EventOutlet {
    sender: mpsc::Sender<DriverEvent>,
    /// Latest of each kind and peer: bounded by the peers and the strangers remembered.
    waiting: BTreeMap<(IpAddr, u8), DriverEvent>,
    strangers: FxHashMap<IpAddr, Instant>,
}

impl EventOutlet {
    pub(super) fn new(sender: mpsc::Sender<DriverEvent>) -> Self {
        Self { sender, waiting: BTreeMap::new(), strangers: FxHashMap::default() }
    }

    pub(super) fn push(&mut self, now: Instant, event: DriverEvent) {
        if let DriverEvent::Speaker(SpeakerEvent::UnknownNeighbour { remote }) = &event
            && !self.is_news(now, remote.ip())
        {
            return;
        }
        if self.waiting.is_empty() {
            match self.sender.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.waiting.insert(key(&event), event);
                }
            }
        } else {
            self.waiting.insert(key(&event), event);
        }
    }

    /// Hands over what fits; `false` when something has to wait.
    pub(super) fn flush(&mut self) -> bool {
        while let Some((key, event)) = self.waiting.pop_first() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.sender.try_send(event) {
                self.waiting.insert(key, event);
                return false;
            }
        }
        true
    }

    fn is_news(&mut self, now: Instant, stranger: IpAddr) -> bool {
        if self.strangers.len() >= STRANGERS {
            self.strangers.clear();
        }
        match self.strangers.get(&stranger) {
            Some(last) if now.saturating_duration_since(*last) < STRANGER_PAUSE => false,
            _ => {
                self.strangers.insert(stranger, now);
                true
            }
        }
    }
}

fn key(event: &DriverEvent) -> (IpAddr, u8) {
    const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    match event {
        DriverEvent::Listening(_) | DriverEvent::ListenFailed { .. } => (NOBODY, 0),
        DriverEvent::Defect { peer } => (*peer, 1),
        DriverEvent::Speaker(event) => match event {
            SpeakerEvent::SessionUp { peer, .. } | SpeakerEvent::SessionDown { peer, .. } => {
                (*peer, 2)
            }
            SpeakerEvent::OpenRefused { peer, .. } => (*peer, 3),
            SpeakerEvent::MalformedMessage { peer, .. } => (*peer, 4),
            SpeakerEvent::MalformedAttribute { peer, .. } => (*peer, 5),
            SpeakerEvent::UnknownNeighbour { remote } => (remote.ip(), 6),
            SpeakerEvent::PrefixLimit { peer, .. } => (*peer, 7),
            SpeakerEvent::EndOfRib { peer, family: Family::Ipv4 } => (*peer, 8),
            SpeakerEvent::EndOfRib { peer, family: Family::Ipv6 } => (*peer, 9),
            SpeakerEvent::PathsKept { peer, .. } => (*peer, 10),
            SpeakerEvent::StaleRemoved { peer, .. } => (*peer, 11),
            SpeakerEvent::Withheld { peer, .. } => (*peer, 12),
        },
    }
}

/// Forwarding changes on their way out.
pub(super) struct FibOutlet {
    sink: Option<FibSink>,
    turn: Vec<FibChange>,
    /// Latest of each prefix, while the sink has no room.
    waiting: FxHashMap<IpNet, FibChange>,
    /// When the first of those that wait came.
    since: Option<Instant>,
}

impl std::fmt::Debug for FibOutlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FibOutlet").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl FibOutlet {
    pub(super) fn new(sink: Option<FibSink>) -> Self {
        Self { sink, turn: Vec::new(), waiting: FxHashMap::default(), since: None }
    }

    pub(super) fn push(&mut self, change: FibChange) {
        if self.sink.is_some() {
            self.turn.push(change);
        }
    }

    /// Hands over what fits, at the end of a turn that began at `now`; `false` when something has to
    /// wait.
    pub(super) fn flush(&mut self, now: Instant) -> bool {
        let Some(sink) = &mut self.sink else { return true };
        let mut batch = std::mem::take(&mut self.turn);
        if !self.waiting.is_empty() {
            self.waiting.extend(batch.into_iter().map(|change| (change.prefix, change)));
            batch = self.waiting.drain().map(|(_, change)| change).collect();
        }
        if batch.is_empty() {
            return true;
        }
        let since = *self.since.get_or_insert(now);
        match sink(batch, since) {
            Ok(()) => {
                self.since = None;
                true
            }
            Err(refused) => {
                self.waiting.extend(refused.into_iter().map(|change| (change.prefix, change)));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(prefix: &str, hop: &str) -> FibChange {
        FibChange {
            prefix: prefix.parse().unwrap(),
            next_hops: vec![hop.parse().unwrap()],
            origin: FibOrigin::Learned,
        }
    }

    #[test]
    fn a_full_sink_leaves_the_latest_change_of_each_prefix() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut room = false;
        let mut outlet =
            FibOutlet::new(Some(Box::new(move |batch: Vec<FibChange>, since: Instant| {
                if room {
                    sender.send((batch, since)).unwrap();
                    return Ok(());
                }
                room = batch.len() == 2;
                Err(batch)
            })));
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        outlet.push(change("10.0.0.0/24", "192.0.2.1"));
        assert!(!outlet.flush(start));
        outlet.push(change("10.0.0.0/24", "192.0.2.2"));
        outlet.push(change("fd00::/64", "fd00::1"));
        assert!(!outlet.flush(later));
        assert!(outlet.flush(later));
        let (mut batch, since) = receiver.recv().unwrap();
        assert_eq!(since, start, "when the first of them came");
        batch.sort_by_key(|change| change.prefix);
        assert_eq!(batch, [change("10.0.0.0/24", "192.0.2.2"), change("fd00::/64", "fd00::1")]);
    }

    #[test]
    fn a_stranger_is_told_once_a_minute_and_a_full_channel_keeps_the_latest_of_each_peer() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut outlet = EventOutlet::new(sender);
        let start = Instant::now();
        let stranger = || {
            let remote = "[fd00::9]:4711".parse().unwrap();
            DriverEvent::Speaker(SpeakerEvent::UnknownNeighbour { remote })
        };
        outlet.push(start, stranger());
        outlet.push(start + Duration::from_secs(59), stranger());
        assert_eq!(receiver.try_recv().unwrap(), stranger());
        outlet.push(start + Duration::from_secs(61), stranger());
        outlet.push(start, DriverEvent::ListenFailed { port: 179, reason: "taken".to_owned() });
        outlet.push(start, DriverEvent::Listening(179));
        assert!(!outlet.flush());
        assert_eq!(receiver.try_recv().unwrap(), stranger());
        assert!(outlet.flush());
        assert_eq!(receiver.try_recv().unwrap(), DriverEvent::Listening(179));
        assert!(receiver.try_recv().is_err());
    }
}

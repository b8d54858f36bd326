//! Paths that outlive the session of a peer that restarts (RFC 4724 §4.2).
//!
//! They stay in the table like any other and take part in every decision: whoever forwards and
//! whoever is told sees no difference. Only here is it known that they wait to be sent again.
//!
//! Each end of a session makes one generation of stale paths, with a time of its own. RFC 4724
//! deletes what was stale already when the session ends once more; here it keeps the time it has
//! left instead: a peer that is killed twice within seconds, before it could say anything, loses
//! nothing by the second time, and no path outlives the limit of the first.

use std::time::Instant;

use super::key::Key;
use super::membership::NO_GROUP;
use super::path::PeerIndex;
use super::resync::{Resync, Stream};
use super::slots::{Slot, SlotSet};
use super::table::Table;
use super::{GroupKey, Rib, Session};
use crate::types::{Families, Family};

/// Paths that one end of a session made stale, less those that were sent again.
#[derive(Clone, Debug)]
pub(crate) struct Generation {
    since: Instant,
    slots: SlotSet,
}

/// The stale paths of a peer in one family, oldest generation first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stale(Vec<Generation>);

impl Stale {
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|generation| generation.slots.len()).sum()
    }

    /// The peer has spoken about the prefix at `slot`.
    pub(crate) fn confirm(&mut self, slot: Slot) {
        // In one of them at most.
        let Some(at) = self.0.iter_mut().position(|generation| generation.slots.remove(slot))
        else {
            return;
        };
        if self.0.get(at).is_some_and(|generation| generation.slots.len() == 0) {
            self.0.remove(at);
        }
    }

    /// All of `held` is stale; what was not before is so since now.
    fn mark(&mut self, held: &SlotSet, now: Instant) {
        let mut slots = held.clone();
        for slot in self.0.iter().flat_map(|generation| generation.slots.iter()) {
            slots.remove(slot);
        }
        if slots.len() > 0 {
            self.0.push(Generation { since: now, slots });
        }
    }

    /// Takes the generations that began at `limit` or before; all without a limit.
    fn take(&mut self, limit: Option<Instant>) -> Vec<Slot> {
        let old = self.0.partition_point(|g| limit.is_none_or(|limit| g.since <= limit));
        self.0.drain(..old).flat_map(|g| g.slots.iter().collect::<Vec<_>>()).collect()
    }

    fn oldest(&self) -> Option<Instant> {
        self.0.first().map(|generation| generation.since)
    }
}

impl Rib {
    /// The session is gone, but the peer is expected back: its paths of `families` stay, stale from
    /// now on. Returns how many; with none, the peer is forgotten as by [`Rib::peer_down`].
    pub fn peer_away(&mut self, peer: PeerIndex, families: Families, now: Instant) -> usize {
        let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) else {
            return 0;
        };
        let group = std::mem::replace(&mut entry.group, NO_GROUP);
        let stream = Stream::Resync(Resync::behind(0));
        let stream = std::mem::replace(&mut entry.stream, stream);
        entry.end_session();
        self.leave_group(peer, group, &stream);
        for family in Family::ALL.into_iter().filter(|family| !families.contains(*family)) {
            self.withdraw_family(peer, family);
        }
        let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) else {
            return 0;
        };
        for family in families.iter() {
            let held = entry.held(family).clone();
            entry.stale_mut(family).mark(&held, now);
        }
        let kept = entry.stale();
        if kept == 0 {
            self.peer_down(peer);
        }
        kept
    }

    /// The peer is back with a new session. Of its stale paths those of `families` wait to be sent
    /// again; the others are gone.
    pub fn peer_back(
        &mut self,
        peer: PeerIndex,
        session: Session,
        key: GroupKey,
        families: Families,
    ) {
        if self.peer(peer).is_none() {
            return;
        }
        for family in Family::ALL.into_iter().filter(|family| !families.contains(*family)) {
            self.withdraw_family(peer, family);
        }
        let (stream, owed) = self.first_stream(session.families);
        let group = self.join_group(peer, key);
        let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) else { return };
        entry.session = session;
        entry.serial = self.next_serial;
        entry.group = group;
        entry.stream = stream;
        entry.owed = owed;
        self.next_serial += 1;
        self.announce_ready(peer);
    }

    /// The peer has sent everything of a family again: stale paths of it are gone. Returns how many
    /// there were.
    pub fn sweep(&mut self, peer: PeerIndex, family: Family) -> usize {
        let entry = self.peers.get_mut(peer.index()).and_then(Option::as_mut);
        let gone = entry.map(|entry| entry.stale_mut(family).take(None)).unwrap_or_default();
        self.withdraw_slots(peer, family, &gone);
        gone.len()
    }

    /// Paths that are stale since `limit` or longer are gone. Returns how many there were.
    pub fn sweep_until(&mut self, peer: PeerIndex, limit: Instant) -> usize {
        let mut count = 0;
        for family in Family::ALL {
            let entry = self.peers.get_mut(peer.index()).and_then(Option::as_mut);
            let stale = entry.map(|entry| entry.stale_mut(family).take(Some(limit)));
            let gone = stale.unwrap_or_default();
            self.withdraw_slots(peer, family, &gone);
            count += gone.len();
        }
        count
    }

    /// Stale paths of a peer in one family.
    #[must_use]
    pub fn stale(&self, peer: PeerIndex, family: Family) -> usize {
        self.peer(peer).map_or(0, |entry| entry.stale_of(family).len())
    }

    /// Since when the oldest stale path of a peer is that; `None` without any.
    #[must_use]
    pub fn stale_since(&self, peer: PeerIndex) -> Option<Instant> {
        let entry = self.peer(peer)?;
        Family::ALL.into_iter().filter_map(|family| entry.stale_of(family).oldest()).min()
    }

    fn withdraw_family(&mut self, peer: PeerIndex, family: Family) {
        let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) else { return };
        entry.stale_mut(family).take(None);
        let held: Vec<Slot> = entry.held(family).iter().collect();
        self.withdraw_slots(peer, family, &held);
    }

    pub(super) fn withdraw_slots(&mut self, peer: PeerIndex, family: Family, slots: &[Slot]) {
        fn prefix<K: Key>(table: &Table<K>, slot: Slot) -> Option<ipnet::IpNet> {
            table.net(slot).map(|net| net.key.prefix())
        }
        for slot in slots {
            let prefix = match family {
                Family::Ipv4 => prefix(&self.v4, *slot),
                Family::Ipv6 => prefix(&self.v6, *slot),
            };
            if let Some(prefix) = prefix {
                self.withdraw(peer, prefix);
            }
        }
    }
}

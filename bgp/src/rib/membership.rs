//! Sessions come, go, and change the group of peers that they are served with.

use super::group::{Decided, Group};
use super::key::{Key, V4, V6};
use super::peer::Peer;
use super::resync::{Resync, Stream};
use super::slots::Slot;
use super::table::Table;
use super::{BATCH, GroupKey, PeerIndex, Rib, Session};
use crate::types::{Families, Family};

/// Stands for the update group of a peer without a session.
pub(super) const NO_GROUP: usize = usize::MAX;

impl Rib {
    /// A session is established; its paths will come, and it is to be sent ours.
    ///
    /// `None` if there are 65534 already.
    pub fn peer_up(&mut self, session: Session, key: GroupKey) -> Option<PeerIndex> {
        let vacant = self.peers.iter().skip(1).position(Option::is_none).map(|i| i + 1);
        let index = vacant.unwrap_or(self.peers.len());
        let peer = PeerIndex(u16::try_from(index).ok()?);
        let (stream, owed) = self.first_stream(session.families);
        let group = self.join_group(peer, key);
        let mut entry = Peer::new(session, self.next_serial, group, stream);
        entry.owed = owed;
        let entry = Some(entry);
        self.next_serial += 1;
        match self.peers.get_mut(index) {
            Some(place) => *place = entry,
            None => self.peers.push(entry),
        }
        self.announce_ready(peer);
        Some(peer)
    }

    /// The session is gone, and with it all that the peer told us. Returns how many paths it had.
    pub fn peer_down(&mut self, peer: PeerIndex) -> usize {
        let Some(gone) = self.peers.get_mut(peer.index()).and_then(Option::take) else { return 0 };
        self.leave_group(peer, gone.group, &gone.stream);
        for slot in gone.held(Family::Ipv4).iter() {
            if let Some(path) = self.v4.withdraw_at(slot, peer) {
                self.store.release(path.attributes);
            }
        }
        for slot in gone.held(Family::Ipv6).iter() {
            if let Some(path) = self.v6.withdraw_at(slot, peer) {
                self.store.release(path.attributes);
            }
        }
        gone.held(Family::Ipv4).len() + gone.held(Family::Ipv6).len()
    }

    /// Holds back every End-of-RIB from now on, because there is more to come: after a restart a
    /// reflector hears again from its clients what it is to tell the others (RFC 4724 §4.1). What
    /// is known is sent at once all the same.
    pub fn hold_end_of_rib(&mut self) {
        self.end_of_rib_held = true;
    }

    /// Everything there is has been heard: each End-of-RIB held back follows what is to be sent now.
    pub fn release_end_of_rib(&mut self) {
        self.end_of_rib_held = false;
        for index in (1..self.peers.len()).filter_map(|index| u16::try_from(index).ok()) {
            let peer = PeerIndex(index);
            let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) else {
                continue;
            };
            let owed = std::mem::take(&mut entry.owed);
            if owed == Families::NONE {
                continue;
            }
            if let Stream::Log(position) = entry.stream
                && let Some(group) = self.groups.get_mut(entry.group).and_then(Option::as_mut)
            {
                entry.stream = Stream::Resync(Resync::behind(group.log.known(position)));
                group.log.leave(position);
            }
            if let Stream::Resync(resync) = &mut entry.stream {
                resync.owe(owed);
            }
            self.announce_ready(peer);
        }
    }

    /// Is an End-of-RIB held back from this peer?
    #[must_use]
    pub fn owes_end_of_rib(&self, peer: PeerIndex) -> bool {
        self.peer(peer).is_some_and(|entry| entry.owed != Families::NONE)
    }

    /// The stream of a session that begins, and the families whose End-of-RIB has to wait.
    pub(super) const fn first_stream(&self, families: Families) -> (Stream, Families) {
        if self.end_of_rib_held {
            let nothing = Resync::joining(Families::NONE);
            (Stream::Resync(nothing), families)
        } else {
            (Stream::Resync(Resync::joining(families)), Families::NONE)
        }
    }

    /// The export settings of a live session changed: it gets what the new ones say, and
    /// withdrawals of what they do not say any more.
    pub fn regroup(&mut self, peer: PeerIndex, key: GroupKey) {
        let Some(old) = self.peer(peer).map(|p| p.group) else { return };
        if self.groups.get(old).and_then(Option::as_ref).is_some_and(|g| g.key == key) {
            return;
        }
        let new = self.join_group(peer, key);
        let mut moved = Vec::new();
        for family in Family::ALL {
            let Some(group) = self.groups.get(old).and_then(Option::as_ref) else { continue };
            let changed = group.adj_out(family).iter_from(Slot(0)).filter(|cell| cell.2 > 0);
            moved.extend(changed.map(|(slot, ..)| (family, slot)));
        }
        if let Some(group) = self.groups.get_mut(new).and_then(Option::as_mut) {
            group.mark(&moved);
        }
        let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) else { return };
        let end_of_rib = match &entry.stream {
            Stream::Log(_) => Families::NONE,
            Stream::Resync(resync) => resync.end_of_rib(),
        };
        entry.group = new;
        let stream = Stream::Resync(Resync::moving(0, end_of_rib));
        let old_stream = std::mem::replace(&mut entry.stream, stream);
        self.leave_group(peer, old, &old_stream);
        self.announce_ready(peer);
    }

    pub(super) fn join_group(&mut self, peer: PeerIndex, key: GroupKey) -> usize {
        let same = |group: &Option<Group>| group.as_ref().is_some_and(|group| group.key == key);
        let index = match self.groups.iter().position(same) {
            Some(index) => index,
            None => self.create_group(key),
        };
        if let Some(group) = self.groups.get_mut(index).and_then(Option::as_mut) {
            group.members.push(peer);
        }
        index
    }

    /// A new group, with the Adj-RIB-Out that follows from the last flush.
    fn create_group(&mut self, key: GroupKey) -> usize {
        if key.default_originate {
            // The default routes need slots even if nobody else has them.
            self.v4.pin(V4::DEFAULT);
            self.v6.pin(V6::DEFAULT);
        }
        let mut group = Group::new(key);
        self.fill(&mut group, &self.v4);
        self.fill(&mut group, &self.v6);
        let vacant = self.groups.iter().position(Option::is_none);
        let index = vacant.unwrap_or(self.groups.len());
        match self.groups.get_mut(index) {
            Some(place) => *place = Some(group),
            None => self.groups.push(Some(group)),
        }
        index
    }

    fn fill<K: Key>(&self, group: &mut Group, table: &Table<K>) {
        let mut nets = table.iter().peekable();
        while nets.peek().is_some() {
            let batch = nets.by_ref().take(BATCH);
            let decided: Vec<Decided> = batch
                .map(|(slot, net)| {
                    let best = self.choose(net.paths.as_slice()).map(|chosen| chosen.best);
                    let session = |peer| self.peer(peer).map_or(0, |peer| peer.serial);
                    Decided { slot, best: best.map(|path| (path.attributes, session(path.peer))) }
                })
                .collect();
            group.apply(&self.identity, &self.store, table, &decided);
        }
    }

    pub(super) fn leave_group(&mut self, peer: PeerIndex, index: usize, stream: &Stream) {
        let Some(place) = self.groups.get_mut(index) else { return };
        let Some(group) = place else { return };
        if let Stream::Log(position) = stream {
            group.log.leave(*position);
        }
        group.members.retain(|member| *member != peer);
        group.idle.retain(|member| *member != peer);
        if group.members.is_empty() {
            *place = None;
        }
    }
}

//! Peers that do not keep up: what they may hold back, and when they are given up.

use super::group::Group;
use super::key::Key;
use super::resync::{Resync, Stream};
use super::table::Table;
use super::{PeerIndex, Rib};

/// Withdrawn prefixes that may wait for peers that do not read, beside as many as there are live
/// ones.
const MAX_LINGERING: usize = 64 * 1024;

impl Rib {
    /// Readers that hold up too much of the log have to leave it.
    pub(super) fn shed(&mut self, index: usize) {
        let slots = self.v4.slots() + self.v6.slots();
        let Some(group) = self.groups.get_mut(index).and_then(Option::as_mut) else { return };
        while let Some(oldest) = group.overdue(self.log_limit, slots) {
            let known = group.log.known(oldest);
            for member in &group.members {
                if let Some(peer) = self.peers.get_mut(member.index()).and_then(Option::as_mut)
                    && matches!(peer.stream, Stream::Log(position) if position == oldest)
                {
                    peer.stream = Stream::Resync(Resync::behind(known));
                    group.log.leave(oldest);
                }
            }
        }
    }

    /// Gives slots of withdrawn prefixes back when every peer has been told.
    pub(super) fn free_slots(&mut self) {
        if self.v4.lingering().is_none() && self.v6.lingering().is_none() {
            return;
        }
        let known: Vec<u32> =
            (0..self.groups.len()).map(|index| self.known_to_members(index)).collect();
        free(&mut self.v4, &mut self.groups, &known);
        free(&mut self.v6, &mut self.groups, &known);
    }

    /// Every member knows all changes of this generation and before.
    fn known_to_members(&self, index: usize) -> u32 {
        let Some(group) = self.groups.get(index).and_then(Option::as_ref) else { return u32::MAX };
        let resyncs = group.members.iter().filter_map(|member| match &self.peer(*member)?.stream {
            Stream::Resync(resync) => Some(resync.known()),
            Stream::Log(_) => None,
        });
        resyncs.min().unwrap_or(u32::MAX).min(group.log.known_to_all())
    }

    /// The peer to give up on, if withdrawn prefixes pile up because it does not read.
    #[must_use]
    pub fn hopeless(&self) -> Option<PeerIndex> {
        let lingering = self.v4.waiting() + self.v6.waiting();
        if lingering <= MAX_LINGERING + self.v4.reachable + self.v6.reachable {
            return None;
        }
        let off_the_log = self.established().filter_map(|(index, peer)| match &peer.stream {
            Stream::Resync(resync) => Some((resync.known(), index)),
            Stream::Log(_) => None,
        });
        off_the_log.min().map(|(_, index)| index)
    }
}

/// Frees lingering slots from the oldest on, as far as all members of all groups know.
fn free<K: Key>(table: &mut Table<K>, groups: &mut [Option<Group>], known: &[u32]) {
    while let Some(slot) = table.lingering() {
        let told = groups.iter().zip(known).all(|(group, known)| {
            let changed = group.as_ref().map_or(0, |g| g.adj_out(K::FAMILY).changed(slot));
            changed <= *known
        });
        if table.is_empty_at(slot) && !told {
            return;
        }
        if table.free_lingering() {
            for group in groups.iter_mut().flatten() {
                group.adj_out_mut(K::FAMILY).forget(slot);
            }
        }
    }
}

//! All prefixes of one family with their paths: Adj-RIB-In of every peer and Loc-RIB in one.
//!
//! A hash index finds the slot of a prefix in a slab. One prefix with one path costs 32 octets in
//! the slab (IPv4) and 5 in the index at full load. A slot keeps its prefix until
//! [`Table::free`]: a peer that lags may still have to be told of the withdrawal.

use std::collections::VecDeque;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::attributes::random_seed;
use super::key::Key;
use super::next_hops::NextHopsId;
use super::path::{Path, Paths, PeerIndex};
use super::slots::Slot;

/// A prefix.
#[derive(Debug)]
pub(crate) struct Net<K> {
    pub(crate) key: K,
    pub(crate) paths: Paths,
    /// What the kernel was last told.
    pub(crate) fib: NextHopsId,
    flags: Flags,
}

bitflags::bitflags! {
    /// One octet instead of five: it makes the difference between 32 and 40 octets a prefix.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Flags: u8 {
        /// In use; else the slot waits for another prefix.
        const LIVE = 1;
        /// The last flush found a best path.
        const REACHABLE = 2;
        /// In the list of changes for the next flush.
        const DIRTY = 4;
        /// Exists even without a path: some group of peers gets it without one.
        const PINNED = 8;
        /// In the list of those to be freed.
        const LINGERING = 16;
    }
}

impl<K> Net<K> {
    fn is(&self, flag: Flags) -> bool {
        self.flags.contains(flag)
    }
}

/// Prefixes by slot and by key.
#[derive(Debug)]
pub(crate) struct Table<K> {
    index: HashTable<Slot>,
    nets: Vec<Net<K>>,
    vacant: Vec<Slot>,
    dirty: Vec<Slot>,
    /// Slots without a path whose withdrawal may not have reached every peer, oldest first.
    lingering: VecDeque<Slot>,
    /// Prefixes with a best path.
    pub(crate) reachable: usize,
    /// Paths of all peers.
    pub(crate) paths: usize,
    seed: u64,
}

/// What [`Table::announce`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// The peer had no path here.
    New(Slot),
    /// The peer had this path here before.
    Replaced(Slot, Path),
    /// The same again.
    Unchanged(Slot),
}

impl<K: Key> Table<K> {
    pub(crate) fn new() -> Self {
        Self { seed: random_seed(), ..Self::hollow() }
    }

    /// Stands in for a table that is elsewhere.
    pub(crate) const fn hollow() -> Self {
        Self {
            index: HashTable::new(),
            nets: Vec::new(),
            vacant: Vec::new(),
            dirty: Vec::new(),
            lingering: VecDeque::new(),
            reachable: 0,
            paths: 0,
            seed: 0,
        }
    }

    /// Number of slots ever used: one above the highest.
    pub(crate) fn slots(&self) -> usize {
        self.nets.len()
    }

    pub(crate) fn net(&self, slot: Slot) -> Option<&Net<K>> {
        self.nets.get(slot.index()).filter(|net| net.is(Flags::LIVE))
    }

    /// Prefixes in use, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Net<K>)> {
        (0..).map(Slot).zip(&self.nets).filter(|(_, net)| net.is(Flags::LIVE))
    }

    /// Has anything changed since the last flush?
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Sets the path of `path.peer`.
    pub(crate) fn announce(&mut self, key: K, path: Path) -> Announced {
        let slot = self.slot_of(key);
        let Some(net) = self.nets.get_mut(slot.index()) else {
            return Announced::Unchanged(slot);
        };
        let announced = match net.paths.of_mut(path.peer) {
            Some(old) if old.attributes == path.attributes && old.ineligible == path.ineligible => {
                return Announced::Unchanged(slot);
            }
            Some(old) => Announced::Replaced(slot, std::mem::replace(old, path)),
            None => {
                net.paths.add(path);
                self.paths += 1;
                Announced::New(slot)
            }
        };
        self.touch(slot);
        announced
    }

    /// Removes the path of `peer`.
    pub(crate) fn withdraw(&mut self, key: K, peer: PeerIndex) -> Option<(Slot, Path)> {
        let slot = self.find(key)?;
        Some((slot, self.withdraw_at(slot, peer)?))
    }

    /// Removes the path of `peer` from the prefix at `slot`.
    pub(crate) fn withdraw_at(&mut self, slot: Slot, peer: PeerIndex) -> Option<Path> {
        let path = self.nets.get_mut(slot.index())?.paths.remove(peer)?;
        self.paths -= 1;
        self.touch(slot);
        Some(path)
    }

    /// Makes sure that `key` has a slot for ever.
    pub(crate) fn pin(&mut self, key: K) {
        let slot = self.slot_of(key);
        if let Some(net) = self.nets.get_mut(slot.index()) {
            net.flags.insert(Flags::PINNED);
        }
        self.touch(slot);
    }

    /// Notes the outcome of a decision: what the kernel is told, and whether there is a best path.
    pub(crate) fn settle(&mut self, slot: Slot, fib: NextHopsId, reachable: bool) {
        let Some(net) = self.nets.get_mut(slot.index()) else { return };
        net.fib = fib;
        self.reachable -= usize::from(net.is(Flags::REACHABLE));
        self.reachable += usize::from(reachable);
        net.flags.set(Flags::REACHABLE, reachable);
    }

    /// The changed slots since the last call, each once.
    pub(crate) fn take_dirty(&mut self) -> Vec<Slot> {
        let dirty = std::mem::take(&mut self.dirty);
        for slot in &dirty {
            if let Some(net) = self.nets.get_mut(slot.index()) {
                net.flags.remove(Flags::DIRTY);
            }
        }
        dirty
    }

    /// Gives an emptied list back, so that its memory serves again.
    pub(crate) fn reuse_dirty(&mut self, mut list: Vec<Slot>) {
        // What a dead peer with a full table needed once need not stay for ever.
        const KEEP: usize = 16 * 1024;
        if self.dirty.is_empty() && list.capacity() <= KEEP {
            list.clear();
            self.dirty = list;
        }
    }

    /// If the prefix at `slot` has no path left: it is to be freed when every peer knows.
    pub(crate) fn linger(&mut self, slot: Slot) {
        if self.is_empty_at(slot)
            && let Some(net) = self.nets.get_mut(slot.index())
            && !net.is(Flags::LINGERING)
        {
            net.flags.insert(Flags::LINGERING);
            self.lingering.push_back(slot);
        }
    }

    /// The slot that has been waiting longest to be freed.
    pub(crate) fn lingering(&self) -> Option<Slot> {
        self.lingering.front().copied()
    }

    /// Slots waiting to be freed.
    pub(crate) fn waiting(&self) -> usize {
        self.lingering.len()
    }

    /// Frees the slot that has been waiting longest; false if the prefix is in use again.
    pub(crate) fn free_lingering(&mut self) -> bool {
        let Some(slot) = self.lingering.pop_front() else { return false };
        let Some(net) = self.nets.get_mut(slot.index()) else { return false };
        net.flags.remove(Flags::LINGERING);
        if !net.is(Flags::LIVE)
            || net.is(Flags::DIRTY)
            || net.is(Flags::PINNED)
            || !net.paths.as_slice().is_empty()
        {
            return false;
        }
        net.flags.remove(Flags::LIVE);
        let hash = net.key.hash(self.seed);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        self.vacant.push(slot);
        true
    }

    /// Does nothing keep the prefix at `slot` but what peers may still have to be told?
    pub(crate) fn is_empty_at(&self, slot: Slot) -> bool {
        self.net(slot).is_some_and(|net| net.paths.as_slice().is_empty() && !net.is(Flags::PINNED))
    }

    pub(crate) fn find(&self, key: K) -> Option<Slot> {
        let same = |slot: &Slot| self.nets.get(slot.index()).is_some_and(|net| net.key == key);
        self.index.find(key.hash(self.seed), same).copied()
    }

    fn slot_of(&mut self, key: K) -> Slot {
        if self.index.len() == self.index.capacity() {
            self.grow();
        }
        let Self { index, nets, vacant, seed, .. } = self;
        let same = |slot: &Slot| nets.get(slot.index()).is_some_and(|net| net.key == key);
        let rehash = |slot: &Slot| nets.get(slot.index()).map_or(0, |net| net.key.hash(*seed));
        let place = match index.entry(key.hash(*seed), same, rehash) {
            Entry::Occupied(found) => return *found.get(),
            Entry::Vacant(place) => place,
        };
        let net = Net { key, paths: Paths::None, fib: NextHopsId::NONE, flags: Flags::LIVE };
        let slot = match vacant.pop() {
            Some(slot) => slot,
            None => Slot(u32::try_from(nets.len()).unwrap_or(u32::MAX)),
        };
        place.insert(slot);
        match nets.get_mut(slot.index()) {
            Some(place) => *place = net,
            None => nets.push(net),
        }
        slot
    }

    /// Doubles the index. In the order of the slab: left to itself, the hash table would fetch the
    /// keys in the order of their hashes, a cache miss each.
    fn grow(&mut self) {
        let mut index = HashTable::with_capacity((self.index.capacity() * 2).max(16));
        let (nets, seed) = (&self.nets, self.seed);
        let rehash = |slot: &Slot| nets.get(slot.index()).map_or(0, |net| net.key.hash(seed));
        for (slot, net) in self.iter() {
            index.insert_unique(net.key.hash(seed), slot, rehash);
        }
        self.index = index;
    }

    fn touch(&mut self, slot: Slot) {
        if let Some(net) = self.nets.get_mut(slot.index())
            && !net.is(Flags::DIRTY)
        {
            net.flags.insert(Flags::DIRTY);
            self.dirty.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::attributes::AttributeId;
    use super::super::key::{V4, V6};
    use super::*;

    #[test]
    fn a_prefix_with_one_path_stays_compact() {
        assert_eq!(size_of::<Net<V4>>(), 32);
        assert!(size_of::<Net<V6>>() <= 48);
    }

    #[test]
    fn a_slot_is_used_again_only_after_it_was_freed() {
        let path =
            Path { attributes: AttributeId::OWN, since: 0, peer: PeerIndex(1), ineligible: None };
        let key = |text: &str| V4::new(&text.parse().unwrap()).unwrap();
        let mut table = Table::new();
        assert_eq!(table.announce(key("10.0.0.0/8"), path), Announced::New(Slot(0)));
        assert_eq!(table.announce(key("10.0.0.0/8"), path), Announced::Unchanged(Slot(0)));
        table.linger(Slot(0));
        assert_eq!(table.lingering(), None, "it has a path");
        assert_eq!(table.withdraw(key("10.0.0.0/8"), PeerIndex(1)), Some((Slot(0), path)));
        assert_eq!(table.take_dirty(), [Slot(0)]);
        table.linger(Slot(0));
        table.linger(Slot(0));
        assert_eq!((table.lingering(), table.waiting()), (Some(Slot(0)), 1));
        assert_eq!(table.announce(key("11.0.0.0/8"), path), Announced::New(Slot(1)));
        assert!(table.free_lingering());
        assert!(!table.free_lingering());
        assert_eq!(table.find(key("10.0.0.0/8")), None);
        assert_eq!(table.announce(key("12.0.0.0/8"), path), Announced::New(Slot(0)));
        assert_eq!(table.find(key("10.0.0.0/8")), None);
    }
}

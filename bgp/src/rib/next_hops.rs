//! Interned sets of next hops: what the kernel was told about a prefix, in four octets.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use hashbrown::HashTable;
use rustc_hash::FxHasher;
use smallvec::SmallVec;

use super::attributes::hasher_seed;

/// Names a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextHopsId(u32);

impl NextHopsId {
    /// No route.
    pub(crate) const NONE: Self = Self(0);
    /// The prefix is our own.
    pub(crate) const OWN: Self = Self(1);

    fn index(self) -> Option<usize> {
        self.0.checked_sub(2).map(|index| index as usize)
    }
}

#[derive(Debug)]
struct Set {
    addresses: SmallVec<[IpAddr; 1]>,
    references: u32,
}

/// The sets in use.
#[derive(Debug)]
pub(crate) struct NextHops {
    sets: Vec<Set>,
    free: Vec<NextHopsId>,
    index: HashTable<NextHopsId>,
    /// Peers choose next hops; without knowing this they cannot choose collisions.
    seed: usize,
}

impl NextHops {
    pub(crate) fn new() -> Self {
        Self { sets: Vec::new(), free: Vec::new(), index: HashTable::new(), seed: hasher_seed() }
    }

    /// The number of this set (sorted, not empty), with one reference for the caller.
    pub(crate) fn intern(&mut self, addresses: &[IpAddr]) -> NextHopsId {
        let same = |id: &NextHopsId| self.get(*id) == addresses;
        if let Some(id) = self.index.find(hash(self.seed, addresses), same).copied() {
            self.hold(id);
            return id;
        }
        let set = Set { addresses: SmallVec::from_slice(addresses), references: 1 };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = id.index().and_then(|index| self.sets.get_mut(index)) {
                    *place = set;
                }
                id
            }
            None => {
                let id = NextHopsId(u32::try_from(self.sets.len() + 2).unwrap_or(u32::MAX));
                self.sets.push(set);
                id
            }
        };
        let (sets, seed) = (&self.sets, self.seed);
        let rehash = |id: &NextHopsId| {
            id.index().and_then(|index| sets.get(index)).map_or(0, |set| hash(seed, &set.addresses))
        };
        self.index.insert_unique(hash(seed, addresses), id, rehash);
        id
    }

    /// The addresses; empty for [`NextHopsId::NONE`] and [`NextHopsId::OWN`].
    pub(crate) fn get(&self, id: NextHopsId) -> &[IpAddr] {
        id.index().and_then(|index| self.sets.get(index)).map_or(&[], |set| &set.addresses)
    }

    pub(crate) fn hold(&mut self, id: NextHopsId) {
        if let Some(set) = id.index().and_then(|index| self.sets.get_mut(index)) {
            set.references += 1;
        }
    }

    pub(crate) fn release(&mut self, id: NextHopsId) {
        let Some(set) = id.index().and_then(|index| self.sets.get_mut(index)) else { return };
        set.references = set.references.saturating_sub(1);
        if set.references > 0 {
            return;
        }
        if let Ok(found) =
            self.index.find_entry(hash(self.seed, &set.addresses), |other| *other == id)
        {
            found.remove();
            self.free.push(id);
        }
    }
}

fn hash(seed: usize, addresses: &[IpAddr]) -> u64 {
    let mut hasher = FxHasher::with_seed(seed);
    addresses.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_lives_as_long_as_its_references() {
        let a: IpAddr = "192.0.2.1".parse().unwrap();
        let b: IpAddr = "2001:db8::1".parse().unwrap();
        let mut sets = NextHops::new();
        let one = sets.intern(&[a]);
        let two = sets.intern(&[a, b]);
        assert_ne!(one, two);
        assert_eq!(sets.intern(&[a]), one);
        sets.release(one);
        assert_eq!(sets.get(one), [a]);
        sets.release(one);
        assert_eq!(sets.intern(&[b]), one);
        assert_eq!((sets.get(one), sets.get(two)), ([b].as_slice(), [a, b].as_slice()));
        assert!(sets.get(NextHopsId::OWN).is_empty());
    }
}

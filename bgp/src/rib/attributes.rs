//! Interned path attributes: each distinct set is stored once and named by a number.
//!
//! A number is never given to another set before the end of a flush (see
//! [`AttributeStore::collect`]): Adj-RIB-Out compares numbers, not contents.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};

use hashbrown::HashTable;
use rustc_hash::FxHasher;
use smallvec::SmallVec;

use crate::wire::attribute::{AsPath, Attributes, Origin};

/// Names an attribute set in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttributeId(pub(crate) u32);

impl AttributeId {
    /// What we put into routes of our own: ORIGIN IGP, empty AS_PATH. Always there.
    pub(crate) const OWN: Self = Self(1);

    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// From whom a path was learnt, as far as that decides how it is sent on. Part of what is
/// interned, so that what is sent is a function of the number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// Nobody: our own.
    Local,
    /// A peer of another AS.
    External,
    /// A peer of our AS.
    Internal {
        /// It is a route-reflector client.
        client: bool,
        /// Its BGP Identifier, the ORIGINATOR_ID if the path has none yet (RFC 4456 §8).
        router_id: Ipv4Addr,
    },
}

/// COMMUNITIES that RFC 1997 defines.
mod community {
    pub(super) const NO_EXPORT: u32 = 0xffff_ff01;
    pub(super) const NO_ADVERTISE: u32 = 0xffff_ff02;
    pub(super) const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
}

/// One attribute set.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) attributes: Attributes,
    pub(crate) source: Source,
    /// AS_PATH length of the decision process.
    pub(crate) hops: u32,
    /// NO_EXPORT or NO_EXPORT_SUBCONFED (we are in no confederation).
    pub(crate) no_export: bool,
    /// NO_ADVERTISE.
    pub(crate) no_advertise: bool,
    /// Waits in `released`.
    queued: bool,
    /// Paths and other holders.
    references: u32,
}

/// All attribute sets in use.
#[derive(Debug)]
pub(crate) struct AttributeStore {
    entries: Vec<Entry>,
    free: Vec<AttributeId>,
    index: HashTable<AttributeId>,
    /// Sets whose last reference was given up since the last [`AttributeStore::collect`].
    released: Vec<AttributeId>,
    /// Peers choose attributes; without knowing this they cannot choose collisions.
    seed: usize,
}

impl AttributeStore {
    pub(crate) fn new() -> Self {
        let mut store = Self {
            entries: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            released: Vec::new(),
            seed: hasher_seed(),
        };
        // Number 0 is taken, so that the Adj-RIB-Out may use it for "nothing".
        let none = Attributes { origin: Origin::Incomplete, ..own() };
        store.intern(none, Source::Local);
        store.intern(own(), Source::Local);
        store
    }

    /// The number of this set, with one reference for the caller.
    pub(crate) fn intern(&mut self, attributes: Attributes, source: Source) -> AttributeId {
        let hash = hash_of(self.seed, &attributes, source);
        let same = |id: &AttributeId| {
            self.entries
                .get(id.index())
                .is_some_and(|e| e.source == source && e.attributes == attributes)
        };
        if let Some(id) = self.index.find(hash, same).copied() {
            self.hold(id);
            return id;
        }
        let entry = Entry::new(attributes, source);
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.entries.get_mut(id.index()) {
                    *place = entry;
                }
                id
            }
            None => {
                let id = AttributeId(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
                self.entries.push(entry);
                id
            }
        };
        let (entries, seed) = (&self.entries, self.seed);
        self.index.insert_unique(hash, id, |id| {
            entries.get(id.index()).map_or(0, |e| hash_of(seed, &e.attributes, e.source))
        });
        id
    }

    /// One more reference.
    pub(crate) fn hold(&mut self, id: AttributeId) {
        if let Some(entry) = self.entries.get_mut(id.index()) {
            entry.references += 1;
        }
    }

    /// One reference less. The number stays valid until [`AttributeStore::collect`].
    pub(crate) fn release(&mut self, id: AttributeId) {
        let Some(entry) = self.entries.get_mut(id.index()) else { return };
        entry.references = entry.references.saturating_sub(1);
        if entry.references == 0 && !entry.queued {
            entry.queued = true;
            self.released.push(id);
        }
    }

    /// Forgets sets without references. Only when no Adj-RIB-Out still names them: after a flush.
    pub(crate) fn collect(&mut self) {
        for id in self.released.drain(..) {
            let Some(entry) = self.entries.get_mut(id.index()) else { continue };
            entry.queued = false;
            if entry.references > 0 {
                continue;
            }
            let hash = hash_of(self.seed, &entry.attributes, entry.source);
            // What it owns on the heap goes now, not when the place is used again.
            entry.attributes.extra = None;
            entry.attributes.as_path.segments.clear();
            if let Ok(found) = self.index.find_entry(hash, |other| *other == id) {
                found.remove();
                self.free.push(id);
            }
        }
    }

    pub(crate) fn get(&self, id: AttributeId) -> Option<&Entry> {
        self.entries.get(id.index())
    }

    /// Sets learnt from peers.
    pub(crate) fn len(&self) -> usize {
        self.index.len().saturating_sub(2)
    }
}

impl Entry {
    fn new(attributes: Attributes, source: Source) -> Self {
        let has = |wanted| {
            attributes.extra.as_ref().is_some_and(|extra| extra.communities.contains(&wanted))
        };
        Self {
            source,
            hops: u32::try_from(attributes.as_path.hops()).unwrap_or(u32::MAX),
            no_export: has(community::NO_EXPORT) || has(community::NO_EXPORT_SUBCONFED),
            no_advertise: has(community::NO_ADVERTISE),
            queued: false,
            references: 1,
            attributes,
        }
    }
}

/// The attributes of an own prefix; the next hop is filled in for each group of peers.
fn own() -> Attributes {
    Attributes {
        origin: Origin::Igp,
        as_path: AsPath::default(),
        next_hop: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        med: None,
        local_pref: None,
        originator_id: None,
        cluster_list: SmallVec::new(),
        extra: None,
    }
}

fn hash_of(seed: usize, attributes: &Attributes, source: Source) -> u64 {
    let mut hasher = FxHasher::with_seed(seed);
    attributes.hash(&mut hasher);
    source.hash(&mut hasher);
    hasher.finish()
}

/// [`random_seed`] for a [`FxHasher`].
pub(crate) fn hasher_seed() -> usize {
    usize::try_from(random_seed() >> 32).unwrap_or(usize::MAX)
}

/// Random, but without influence on anything that can be seen: tables are never walked in the
/// order of their hashes.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().hash_one(0u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_med(med: u32) -> Attributes {
        Attributes { med: Some(med), ..own() }
    }

    #[test]
    fn equal_sets_share_a_number_and_a_different_source_does_not() {
        let mut store = AttributeStore::new();
        let a = store.intern(with_med(1), Source::External);
        assert_eq!(store.intern(with_med(1), Source::External), a);
        assert_ne!(store.intern(with_med(2), Source::External), a);
        assert_ne!(store.intern(with_med(1), Source::Local), a);
        assert_eq!(store.len(), 3);
    }

    #[test]
    fn a_number_is_given_to_another_set_only_after_collect() {
        let mut store = AttributeStore::new();
        let a = store.intern(with_med(1), Source::External);
        store.release(a);
        let b = store.intern(with_med(2), Source::External);
        assert_ne!(a, b);
        store.collect();
        assert_eq!(store.intern(with_med(3), Source::External), a);
        assert_eq!(store.get(b).unwrap().attributes.med, Some(2));
        assert_eq!(store.len(), 2);
    }

    #[test]
    fn a_released_set_that_comes_back_survives_collect() {
        let mut store = AttributeStore::new();
        let a = store.intern(with_med(1), Source::External);
        store.release(a);
        assert_eq!(store.intern(with_med(1), Source::External), a);
        store.release(a);
        assert_eq!(store.intern(with_med(1), Source::External), a);
        store.collect();
        assert_eq!(store.get(a).unwrap().attributes.med, Some(1));
        store.release(a);
        store.collect();
        assert_eq!(store.len(), 0);
    }

    #[test]
    fn own_attributes_have_the_reserved_number() {
        let store = AttributeStore::new();
        let entry = store.get(AttributeId::OWN).unwrap();
        assert_eq!((entry.attributes.origin, entry.source), (Origin::Igp, Source::Local));
    }
}

//! What is known of one kind, and what of it was told: lists, watch events and the snapshot go in,
//! the difference comes out as [`Event`]s.
//!
//! Pure. The rules:
//! - State moves forward only, unless told otherwise ([`Known::rewind`]): a list older than what is known is refused, an older version of an
//!   object is skipped, a watch event at or before the version watched from is a replay.
//! - The first listing is told as `RelistBegin`, objects, `RelistEnd`. From then on only differences
//!   are told, those of later lists, too; deletions at the end of a complete list.
//! - An object that cannot be read keeps its last good version.
//! - The snapshot is told only when asked for ([`Known::release`]): the API server comes first.

use std::collections::BTreeMap;

use api::error_code;
use rustc_hash::FxHashMap;

use super::decode::{self, Decoded, Item};
use super::record::{self, Line};
use super::request::Failure;
use crate::source::manifest::Fault;
use crate::source::{Event, Key, Kind, Object, Rejection, RejectionId};

/// One object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Its resourceVersion; 0 if it had none that is a number.
    version: u64,
    /// `None`: it cannot be read, and no version before could be.
    record: Option<Line>,
    /// Downstream has this record.
    told: bool,
    /// A remainder of an unreadable object, not a last good version.
    salvaged: bool,
    /// Number of the list that it was seen in last.
    seen: u32,
}

/// Everything known of one kind.
#[derive(Debug)]
pub(super) struct Known {
    kind: Kind,
    entries: FxHashMap<Box<str>, Entry>,
    /// The state is that of this version or newer; 0 before anything was read.
    version: u64,
    begun: bool,
    listed: bool,
    /// From a snapshot, and no list was complete since.
    restored: bool,
    /// Number of the list under way, or of the last.
    list: u32,
    /// Version of that list: if it broke, single objects are ahead of the state.
    begun_list: u64,
    /// An item of the list under way does not say which object it is.
    nameless: bool,
    rejections: BTreeMap<Box<str>, Vec<RejectionId>>,
    /// Name of our own node.
    node: String,
    dirty: Dirty,
    /// A list was complete.
    clean: bool,
    ignored: u64,
}

/// What changed that a snapshot should have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    /// Anything.
    pub(super) any: bool,
    /// A pod of our own node.
    pub(super) own: bool,
}

/// One object of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    /// `metadata.resourceVersion`.
    pub(super) version: u64,
    /// The record.
    pub(super) record: Line,
}

impl Known {
    /// Nothing is known. `node` is our own.
    pub(super) fn new(kind: Kind, node: &str) -> Self {
        Self {
            kind,
            entries: FxHashMap::default(),
            version: 0,
            begun: false,
            listed: false,
            restored: false,
            list: 0,
            begun_list: 0,
            nameless: false,
            rejections: BTreeMap::new(),
            node: node.to_owned(),
            dirty: Dirty::default(),
            clean: false,
            ignored: 0,
        }
    }

    /// Version of the state.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// `RelistEnd` was told.
    pub(super) const fn is_listed(&self) -> bool {
        self.listed
    }

    /// What is known comes from a snapshot.
    pub(super) const fn is_restored(&self) -> bool {
        self.restored
    }

    /// Objects known.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How often something older than what was known came in.
    pub(super) const fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Objects that cannot be read now.
    pub(super) fn rejected(&self) -> usize {
        self.rejections.len()
    }

    /// What changed since the last call.
    pub(super) fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    /// All objects for a snapshot. What was salvaged is no last good version, and left out.
    pub(super) fn save(&self) -> Vec<Saved> {
        let good = self.entries.values().filter(|entry| !entry.salvaged);
        good.filter_map(|e| Some(Saved { version: e.version, record: e.record.clone()? })).collect()
    }

    /// Takes a snapshot; before anything else. Tells nothing.
    ///
    /// # Errors
    /// A record cannot be read: then nothing of it is taken.
    pub(super) fn restore(
        &mut self,
        version: u64,
        saved: Vec<Saved>,
    ) -> Result<(), serde_json::Error> {
        let mut entries: FxHashMap<Box<str>, Entry> = FxHashMap::default();
        for Saved { version, record } in saved {
            let key = record::decode(self.kind, &record, version)?.key();
            let key = record::key(&key).into_boxed_str();
            // Of two parts of the snapshot the newer one counts.
            if entries.get(&key).is_none_or(|other| other.version < version) {
                entries.insert(key, Entry { version, record: Some(record), ..Entry::default() });
            }
        }
        self.entries = entries;
        self.version = version;
        self.restored = true;
        Ok(())
    }

    /// Tells what the snapshot had, as a complete listing, `most` objects at a time: to be called
    /// until it tells nothing. That is at once if there was none, or if the API server was faster.
    pub(super) fn release(&mut self, most: usize) -> Vec<Event> {
        if self.listed || !self.restored {
            return Vec::new();
        }
        let mut events = self.begin();
        self.tell_untold(most, &mut events);
        if events.len() < most {
            self.end(&mut events);
        }
        events
    }

    /// There is no such kind: that is an empty listing, unless something is known of it.
    pub(super) fn absent(&mut self) -> Vec<Event> {
        if self.listed || !self.entries.is_empty() {
            return Vec::new();
        }
        let mut events = self.begin();
        self.end(&mut events);
        self.restored = false;
        self.dirty = ALL;
        events
    }

    /// The API server's state has gone back for good: its next list is taken, whatever its version,
    /// and every object in it. Until then all stays.
    pub(super) fn rewind(&mut self) {
        self.version = 0;
        self.begun_list = 0;
        self.clean = false;
        for entry in self.entries.values_mut() {
            entry.version = 0;
        }
    }

    /// A list of this version begins.
    ///
    /// # Errors
    /// It is older than what is known.
    pub(super) fn begin_list(&mut self, version: u64) -> Result<Vec<Event>, Failure> {
        let known = self.version.max(self.begun_list);
        if version < known {
            self.ignored = self.ignored.saturating_add(1);
            return Err(Failure::Stale { listed: version, known });
        }
        self.begun_list = version;
        self.list = self.list.wrapping_add(1);
        self.nameless = false;
        Ok(self.begin())
    }

    /// One object of the list under way.
    pub(super) fn listed(&mut self, raw: &str, events: &mut Vec<Event>) {
        match decode::item(self.kind, raw) {
            Some(item) => self.take(item, events),
            None => {
                self.nameless = true;
                self.reject(None, &[decode::nameless()], NAMELESS, events);
            }
        }
    }

    /// The list is complete: what was not in it is gone.
    pub(super) fn end_list(&mut self, version: u64) -> Vec<Event> {
        let mut events = Vec::new();
        // One of the missing objects may be the one that could not be read.
        if !self.nameless {
            self.resolve("", &mut events);
            let gone = self.entries.iter().filter(|(_, entry)| entry.seen != self.list);
            let mut gone: Vec<Box<str>> = gone.map(|(key, _)| key.clone()).collect();
            gone.sort_unstable();
            for key in gone {
                self.remove(&key, &mut events);
            }
        }
        if !self.listed {
            self.tell_untold(usize::MAX, &mut events);
            self.end(&mut events);
        }
        self.version = self.version.max(version);
        if !std::mem::replace(&mut self.clean, true) {
            self.dirty = ALL;
        }
        self.restored = false;
        events
    }

    /// A watch says that an object was added or changed.
    pub(super) fn changed(&mut self, raw: &str, events: &mut Vec<Event>) {
        match decode::item(self.kind, raw) {
            None => self.reject(None, &[decode::nameless()], NAMELESS, events),
            Some(item) => {
                if self.forward(item.version) {
                    self.take(item, events);
                }
            }
        }
    }

    /// A watch says that an object was deleted.
    pub(super) fn deleted(&mut self, raw: &str, events: &mut Vec<Event>) {
        let Some((key, version)) = decode::identity(self.kind, raw) else {
            return self.reject(None, &[decode::nameless()], NAMELESS, events);
        };
        let name = record::key(&key);
        // It may have been made anew, and seen by a list, before the watch came to its end.
        let known = self.entries.get(name.as_str()).map_or(0, |entry| entry.version);
        if self.forward(version) && version.is_none_or(|version| version > known) {
            self.remove(&name, events);
        }
    }

    /// A watch says that it is as far as this version.
    pub(super) fn bookmark(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    /// Whether a watch event of this version is new; then the state is of it.
    fn forward(&mut self, version: Option<u64>) -> bool {
        match version {
            Some(version) if version <= self.version => {
                self.ignored = self.ignored.saturating_add(1);
                false
            }
            Some(version) => {
                self.version = version;
                true
            }
            None => true,
        }
    }

    fn begin(&mut self) -> Vec<Event> {
        if std::mem::replace(&mut self.begun, true) {
            return Vec::new();
        }
        vec![Event::RelistBegin(self.kind)]
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        self.listed = true;
        events.push(Event::RelistEnd(self.kind));
    }

    /// Tells objects until there are `most` events.
    fn tell_untold(&mut self, most: usize, events: &mut Vec<Event>) {
        for entry in self.entries.values_mut().filter(|entry| !entry.told) {
            if events.len() >= most {
                return;
            }
            entry.tell(self.kind, events);
        }
    }

    fn take(&mut self, item: Item, events: &mut Vec<Event>) {
        let Item { key, version, content } = item;
        let name = record::key(&key);
        let entry = self.entries.entry(name.clone().into_boxed_str()).or_default();
        entry.seen = self.list;
        match version {
            Some(version) if version < entry.version => {
                self.ignored = self.ignored.saturating_add(1);
                return;
            }
            Some(version) => entry.version = version,
            None => {}
        }
        match content {
            Decoded::Good(mut object) => match record::encode(&mut object) {
                Ok(record) => {
                    if entry.record.as_ref() != Some(&record) || entry.salvaged {
                        self.dirty.touch(
                            self.kind,
                            &self.node,
                            [entry.record.as_ref(), Some(&record)],
                        );
                        entry.record = Some(record);
                        entry.salvaged = false;
                        entry.told = false;
                    }
                    if !std::mem::replace(&mut entry.told, true) {
                        events.push(Event::Apply(object, None));
                    }
                    self.resolve(&name, events);
                }
                Err(error) => {
                    let fault = decode::fault(error.to_string());
                    self.keep(&key, None, &[fault], events);
                }
            },
            Decoded::Bad { salvaged, faults } => self.keep(&key, salvaged, &faults, events),
        }
    }

    /// An object cannot be read: what stays in force of it.
    fn keep(
        &mut self,
        key: &Key,
        salvaged: Option<Object>,
        faults: &[Fault],
        events: &mut Vec<Event>,
    ) {
        let name = record::key(key);
        let Some(entry) = self.entries.get_mut(name.as_str()) else { return };
        let remainder = salvaged.and_then(|mut object| {
            let record = record::encode(&mut object).ok()?;
            Some((object, record))
        });
        let last_good = entry.record.is_some() && !entry.salvaged;
        let consequence = match remainder {
            _ if last_good => {
                // From a snapshot that was not told: tell it now, or with the rest of it.
                entry.tell(self.kind, events);
                LAST_GOOD
            }
            Some((object, record)) => {
                entry.record = Some(record);
                entry.salvaged = true;
                entry.told = true;
                events.push(Event::Apply(object, None));
                SALVAGED
            }
            None => {
                if std::mem::replace(&mut entry.told, false) {
                    events.push(Event::Delete(key.clone()));
                }
                entry.record = None;
                entry.salvaged = false;
                NOTHING
            }
        };
        self.reject(Some(key), faults, consequence, events);
    }

    fn remove(&mut self, name: &str, events: &mut Vec<Event>) {
        if let Some(entry) = self.entries.remove(name) {
            self.dirty.touch(self.kind, &self.node, [entry.record.as_ref()]);
            if entry.told {
                events.push(Event::Delete(key_of(self.kind, name)));
            }
        }
        self.resolve(name, events);
    }

    fn reject(
        &mut self,
        key: Option<&Key>,
        faults: &[Fault],
        consequence: &str,
        events: &mut Vec<Event>,
    ) {
        let subject = key.map_or_else(|| format!("a {}", self.kind.name()), ToString::to_string);
        let rejections = faults.iter().map(|fault| {
            let advice = match fault.code {
                error_code::UNKNOWN_FIELD => {
                    "Remove the field, or upgrade Rampart to a version that knows it."
                }
                _ => "Correct the field shown.",
            };
            Rejection {
                id: RejectionId(format!("kube|{subject}|{}|{}", fault.field, fault.code)),
                code: fault.code,
                subject: subject.clone(),
                message: fault.to_string(),
                location: None,
                next: format!("{advice} {consequence}"),
            }
        });
        let rejections: Vec<Rejection> = rejections.collect();
        let name = key.map(record::key).unwrap_or_default().into_boxed_str();
        let ids = rejections.iter().map(|rejection| rejection.id.clone()).collect();
        let before = self.rejections.insert(name, ids).unwrap_or_default();
        let stands = |id: &RejectionId| rejections.iter().any(|rejection| rejection.id == *id);
        events.extend(before.into_iter().filter(|id| !stands(id)).map(Event::Resolved));
        events.extend(rejections.into_iter().map(Event::Rejected));
    }

    fn resolve(&mut self, name: &str, events: &mut Vec<Event>) {
        let ids = self.rejections.remove(name).unwrap_or_default();
        events.extend(ids.into_iter().map(Event::Resolved));
    }
}

impl Dirty {
    /// An object changed; `records` are what was and is known of it.
    fn touch<const N: usize>(&mut self, kind: Kind, node: &str, records: [Option<&Line>; N]) {
        self.any = true;
        if kind == Kind::Pod {
            self.own |= records.into_iter().flatten().any(|line| record::pod_is_on(line, node));
        }
    }
}

impl Entry {
    /// Tells the record, unless downstream has it.
    fn tell(&mut self, kind: Kind, events: &mut Vec<Event>) {
        if self.told {
            return;
        }
        let Some(record) = &self.record else { return };
        // A record that came from a snapshot was decoded before; see `restore`.
        if let Ok(object) = record::decode(kind, record, self.version) {
            self.told = true;
            events.push(Event::Apply(object, None));
        }
    }
}

const ALL: Dirty = Dirty { any: true, own: true };
const LAST_GOOD: &str = "The last good version stays in force.";
const SALVAGED: &str = "Until then it isolates the pods that it selects, and admits only through \
                        its readable rules.";
const NOTHING: &str = "Until then the object does not exist for this node.";
const NAMELESS: &str = "All objects of the kind stay in force meanwhile.";

fn key_of(kind: Kind, name: &str) -> Key {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    Key { kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests;

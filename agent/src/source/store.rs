//! Files -> the set of objects in force, as a difference to what was told before.
//!
//! Pure: it is handed the content of files and answers with events. What is in force depends on
//! the files and on the last good version of what they cannot tell, never on the order of reads.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use api::error_code::{self, Code};

use super::manifest::{self, Fault, Manifest};
use super::{Event, Key, Kind, Object, Origin, Rejection, RejectionId};

/// What became of a file.
#[derive(Debug)]
pub(super) enum Content {
    Text(String),
    Missing,
    /// It is there, but cannot be read; the reason.
    Unreadable(String),
}

/// Why a directory tells nothing.
#[derive(Debug)]
pub(super) enum Outage {
    /// The reason.
    Unreadable(String),
    /// There is no manifest in it.
    Empty,
}

impl From<io::Error> for Outage {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Held {
    object: Object,
    origin: Origin,
    /// Not a last good version.
    salvaged: bool,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<Key, Arc<Held>>,
    rejections: Vec<Rejection>,
}

/// All files, and what was told about them.
#[derive(Debug, Default)]
pub(super) struct Store {
    files: BTreeMap<Arc<Path>, BTreeMap<Key, Arc<Held>>>,
    rejections: BTreeMap<Arc<Path>, Vec<Rejection>>,
    /// Files that hold an object, in order of their names: the first one is in force.
    owners: BTreeMap<Key, BTreeSet<Arc<Path>>>,
    published: BTreeMap<Key, Arc<Held>>,
    dirty: BTreeSet<Key>,
    duplicates: BTreeMap<Key, Vec<Rejection>>,
    /// Complaints about the directory itself.
    outages: BTreeMap<RejectionId, Rejection>,
    reported: BTreeMap<RejectionId, Rejection>,
}

impl Store {
    /// Names of the files that hold something.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.files.keys().chain(self.rejections.keys())
    }

    /// What is in force of a file, unless it was salvaged.
    pub(super) fn in_force(&self, file: &Path) -> impl Iterator<Item = &Object> {
        let held = self.files.get(file).into_iter().flat_map(BTreeMap::values);
        held.filter(|held| !held.salvaged).map(|held| &held.object)
    }

    /// Nothing was read from the file yet.
    pub(super) fn is_new(&self, file: &Path) -> bool {
        !self.files.contains_key(file) && !self.rejections.contains_key(file)
    }

    /// Takes the new content of one file.
    pub(super) fn read(&mut self, file: &Arc<Path>, content: Content) {
        let old = self.files.remove(file).unwrap_or_default();
        self.rejections.remove(file);
        let before: BTreeSet<Key> = old.keys().cloned().collect();
        let File { objects, rejections } = match content {
            Content::Missing => File::default(),
            Content::Unreadable(reason) => {
                let consequence = if old.is_empty() {
                    "nothing of it is in force"
                } else {
                    "what was read from it before stays in force"
                };
                let message = format!("cannot be read: {reason}");
                let next = format!("Restore it; until then {consequence}.");
                File { objects: old, rejections: vec![unreadable(file, message, next)] }
            }
            Content::Text(text) => self.parse(file, &text, old),
        };
        for key in before.iter().filter(|key| !objects.contains_key(*key)) {
            if let Some(owners) = self.owners.get_mut(key) {
                owners.remove(file);
            }
        }
        for key in objects.keys() {
            self.owners.entry(key.clone()).or_default().insert(Arc::clone(file));
        }
        self.dirty.extend(before);
        self.dirty.extend(objects.keys().cloned());
        if !objects.is_empty() {
            self.files.insert(Arc::clone(file), objects);
        }
        if !rejections.is_empty() {
            self.rejections.insert(Arc::clone(file), rejections);
        }
    }

    /// Something is wrong with the directory (or a part of it): what was read from it stays.
    pub(super) fn outage(&mut self, directory: &Path, outage: Option<&Outage>) {
        let (message, next) = match outage {
            None => (String::new(), String::new()),
            Some(Outage::Unreadable(reason)) => (
                format!("cannot be read: {reason}"),
                "Restore it; until then all that was read from it stays in force.".to_owned(),
            ),
            Some(Outage::Empty) => (
                "the directory has no manifests".to_owned(),
                "Restore the files; until then all that was read from them stays in force. To \
                 remove everything, leave a file without objects, such as an empty `none.yaml`."
                    .to_owned(),
            ),
        };
        let rejection = unreadable(directory, message, next);
        match outage {
            Some(_) => drop(self.outages.insert(rejection.id.clone(), rejection)),
            None => drop(self.outages.remove(&rejection.id)),
        }
    }

    /// Everything that changed since the last call.
    pub(super) fn changes(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            let owners = self.owners.get(&key).cloned().unwrap_or_default();
            if owners.is_empty() {
                self.owners.remove(&key);
            }
            self.note_duplicates(&key, &owners);
            let held = owners.first().and_then(|f| self.files.get(f)?.get(&key)).cloned();
            match held {
                None => {
                    if self.published.remove(&key).is_some() {
                        events.push(Event::Delete(key));
                    }
                }
                Some(held) => {
                    if self.published.get(&key).is_none_or(|old| !same(old, &held)) {
                        events.push(Event::Apply(held.object.clone(), Some(held.origin.clone())));
                    }
                    self.published.insert(key, held);
                }
            }
        }
        self.report(&mut events);
        events
    }

    fn report(&mut self, events: &mut Vec<Event>) {
        let current: BTreeMap<RejectionId, Rejection> = self
            .rejections
            .values()
            .flatten()
            .chain(self.duplicates.values().flatten())
            .chain(self.outages.values())
            .map(|rejection| (rejection.id.clone(), rejection.clone()))
            .collect();
        for id in self.reported.keys().filter(|id| !current.contains_key(*id)) {
            events.push(Event::Resolved(id.clone()));
        }
        for (id, rejection) in &current {
            if self.reported.get(id) != Some(rejection) {
                events.push(Event::Rejected(rejection.clone()));
            }
        }
        self.reported = current;
    }

    fn note_duplicates(&mut self, key: &Key, owners: &BTreeSet<Arc<Path>>) {
        let mut owners = owners.iter();
        let first = owners.next();
        let rejections: Vec<Rejection> = owners
            .filter_map(|file| self.files.get(file)?.get(key))
            .map(|held| duplicate(key, &held.origin, first.map_or(Path::new(""), |file| file)))
            .collect();
        if rejections.is_empty() {
            self.duplicates.remove(key);
        } else {
            self.duplicates.insert(key.clone(), rejections);
        }
    }

    fn parse(&self, file: &Arc<Path>, text: &str, old: BTreeMap<Key, Arc<Held>>) -> File {
        let mut new = File::default();
        let mut nameless = false;
        for manifest in manifest::read(file, text) {
            match manifest {
                Manifest::Good { object, origin } => match new.objects.entry(object.key()) {
                    Entry::Occupied(first) => {
                        new.rejections.push(duplicate(first.key(), &origin, file));
                    }
                    Entry::Vacant(free) => {
                        free.insert(Arc::new(Held { object, origin, salvaged: false }));
                    }
                },
                Manifest::Bad { key: None, origin, faults, .. } => {
                    nameless = true;
                    let consequence = if old.is_empty() {
                        "Until then what it describes does not exist: nothing was read from this file before."
                    } else {
                        "Objects that were read from this file before stay in force."
                    };
                    let subject = format!("file {}", file_name(file));
                    new.rejections.extend(reject(&subject, &origin, &faults, consequence));
                }
                Manifest::Bad { key: Some(key), salvaged, origin, faults } => {
                    let last = old.get(&key).or_else(|| self.published.get(&key));
                    let (held, consequence) = match (last.filter(|h| !h.salvaged), salvaged) {
                        (Some(last), _) => {
                            (Some(Arc::clone(last)), "The last good version stays in force.")
                        }
                        (None, Some(object)) => (
                            Some(Arc::new(Held { object, origin: origin.clone(), salvaged: true })),
                            "Until then it isolates the pods that it selects, and admits only through its readable rules.",
                        ),
                        (None, None) => (None, "Until then the object does not exist."),
                    };
                    new.rejections.extend(reject(&key.to_string(), &origin, &faults, consequence));
                    if let Some(held) = held {
                        new.objects.entry(key).or_insert(held);
                    }
                }
            }
        }
        if nameless {
            // One of these may be what the nameless document used to be.
            for (key, held) in old {
                new.objects.entry(key).or_insert(held);
            }
        }
        new
    }
}

/// Nothing to tell: the same object, and no line number that anybody asks for has moved.
fn same(old: &Arc<Held>, new: &Arc<Held>) -> bool {
    let located = match new.object.kind() {
        Kind::Namespace | Kind::Pod | Kind::Secret => false,
        Kind::Node
        | Kind::NetworkPolicy
        | Kind::BgpConfiguration
        | Kind::BgpPeer
        | Kind::NetworkConfiguration => true,
    };
    Arc::ptr_eq(old, new) || (old.object == new.object && (!located || old.origin == new.origin))
}

fn reject(subject: &str, origin: &Origin, faults: &[Fault], consequence: &str) -> Vec<Rejection> {
    let build = |fault: &Fault| {
        let advice = match fault.code {
            error_code::UNKNOWN_FIELD => "Fix the spelling, or remove the field.",
            error_code::UNKNOWN_KIND => {
                "Remove the object from the store, or fix its apiVersion and kind."
            }
            error_code::MANIFEST_SYNTAX => "Fix the value at the line shown.",
            _ => "Fix the field shown.",
        };
        Rejection {
            id: match fault.field.as_str() {
                "" => id(subject, &origin.file, &fault.line.to_string(), fault.code),
                field => id(subject, &origin.file, field, fault.code),
            },
            code: fault.code,
            subject: subject.to_owned(),
            message: fault.to_string(),
            location: Some(format!("{}:{}", origin.file.display(), fault.line)),
            next: format!("{advice} {consequence}"),
        }
    };
    faults.iter().map(build).collect()
}

fn duplicate(key: &Key, origin: &Origin, first: &Path) -> Rejection {
    let code = error_code::DUPLICATE_OBJECT;
    Rejection {
        id: id(&key.to_string(), &origin.file, "", code),
        code,
        subject: key.to_string(),
        message: format!("defined twice; the one in {} is in force", first.display()),
        location: Some(origin.to_string()),
        next: "Remove one of the two.".to_owned(),
    }
}

fn unreadable(path: &Path, message: String, next: String) -> Rejection {
    let code = error_code::STORE_UNREADABLE;
    let subject = format!("store {}", path.display());
    Rejection { id: id(&subject, path, "", code), code, subject, message, location: None, next }
}

fn id(subject: &str, file: &Path, field: &str, code: Code) -> RejectionId {
    RejectionId(format!("{}|{subject}|{field}|{code}", file.display()))
}

fn file_name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;

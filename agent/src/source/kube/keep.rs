//! Keeps the snapshot of one kind: read at start, written after changes, at a bounded rate.
//!
//! Pods are kept in two parts. Those of our own node are few, and a restart without an API server
//! must know them all: written within a second. All pods of the cluster are many and change all the
//! time: how often they are written depends on their size, so that a disk is not worn out for them.

use std::io;
use std::time::Duration;

use api::error_code::{self, CATALOGUE, Code};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tracing::{debug, info};

use super::known::Known;
use super::record;
use super::request::Subject;
use super::snapshot::{Directory, Refused, Snapshot};
use crate::source::{Event, Kind, Rejection, RejectionId};

/// Between two writes of a part, at least.
const BETWEEN: Duration = Duration::from_millis(500);
/// Octets a second that are written on average, at most.
const RATE: u64 = 64 << 10;
/// After a write that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// One file.
#[derive(Debug)]
struct Part {
    name: String,
    /// Only pods of our own node.
    own: bool,
    /// It differs from what is on disk.
    stale: bool,
    not_before: Instant,
}

/// What became of a write.
#[derive(Debug)]
pub(super) struct Written {
    part: usize,
    result: Result<io::Result<u64>, JoinError>,
}

/// The snapshot of one kind.
#[derive(Debug)]
pub(super) struct Keeper {
    /// What it is of, in messages.
    label: String,
    directory: Directory,
    node: String,
    parts: Vec<Part>,
    writing: Option<(usize, JoinHandle<io::Result<u64>>)>,
    complaint: Option<RejectionId>,
}

impl Keeper {
    /// For a kind, or a Secret, on the node of this name.
    pub(super) fn new(subject: &Subject, directory: Directory, node: &str) -> Self {
        let part = |name: &str, own| {
            let (stale, not_before) = (false, Instant::now());
            Part { name: name.to_owned(), own, stale, not_before }
        };
        let label = subject.label();
        let mut parts = vec![part(&label, false)];
        if *subject == Subject::Kind(Kind::Pod) {
            parts.insert(0, part("Pod.own", true));
        }
        Self { label, directory, node: node.to_owned(), parts, writing: None, complaint: None }
    }

    /// Hands over what was written last. What cannot be used is complained about, and nothing of it
    /// is used.
    pub(super) fn restore(&mut self, known: &mut Known) -> Vec<Event> {
        let mut version = 0;
        let mut objects = Vec::new();
        let mut found = 0_usize;
        for part in &self.parts {
            match self.directory.read(&part.name) {
                Ok(None) => {}
                Ok(Some(snapshot)) => {
                    found = found.saturating_add(1);
                    version = version.max(snapshot.version);
                    objects.extend(snapshot.objects);
                }
                Err(refused) => return self.refuse(&part.name.clone(), &refused),
            }
        }
        // One part without the other is not the state.
        if found < self.parts.len() {
            return Vec::new();
        }
        match known.restore(version, objects) {
            Ok(()) => {
                let objects = known.len();
                info!(what = self.label, objects, version, "snapshot read");
                Vec::new()
            }
            Err(_) => {
                self.refuse(&self.label.clone(), &Refused::Damaged("an object is not readable"))
            }
        }
    }

    fn refuse(&mut self, part: &str, refused: &Refused) -> Vec<Event> {
        let file = self.directory.file(part);
        let message = format!("{} {refused}", file.display());
        vec![self.complain(error_code::SNAPSHOT_REFUSED, message)]
    }

    fn complain(&mut self, code: Code, message: String) -> Event {
        let entry = CATALOGUE.iter().find(|entry| entry.code == code);
        let subject = format!("snapshot of {}", self.label);
        let id = RejectionId(format!("kube|{subject}"));
        self.complaint = Some(id.clone());
        Event::Rejected(Rejection {
            id,
            code,
            subject,
            message,
            location: None,
            next: entry.map_or("", |entry| entry.next).to_owned(),
        })
    }

    /// Looks whether there is something to write.
    pub(super) fn note(&mut self, known: &mut Known) {
        let dirty = known.take_dirty();
        for part in &mut self.parts {
            part.stale |= if part.own { dirty.own } else { dirty.any };
        }
    }

    /// When the next write is due, unless one is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.writing.is_some() {
            return None;
        }
        self.parts.iter().filter(|part| part.stale).map(|part| part.not_before).min()
    }

    /// Starts the write that is due.
    pub(super) fn write(&mut self, known: &Known) {
        let now = Instant::now();
        let due = |part: &Part| part.stale && part.not_before <= now;
        let Some(index) = self.parts.iter().position(due) else { return };
        // What is not complete is not the state.
        if !known.is_listed() || known.is_restored() {
            self.parts.iter_mut().for_each(|part| part.stale = false);
            return;
        }
        let Some(part) = self.parts.get_mut(index) else { return };
        part.stale = false;
        let mut snapshot = Snapshot { version: known.version(), objects: known.save() };
        let (directory, name) = (self.directory.clone(), part.name.clone());
        let only = part.own.then(|| self.node.clone());
        let write = tokio::task::spawn_blocking(move || {
            if let Some(node) = only {
                snapshot.objects.retain(|saved| record::pod_is_on(&saved.record, &node));
            }
            directory.write(&name, &snapshot)
        });
        self.writing = Some((index, write));
    }

    /// Waits for the end of the write under way; for ever if there is none. Cancel-safe.
    pub(super) async fn written(&mut self) -> Written {
        let Some((part, handle)) = &mut self.writing else { return std::future::pending().await };
        let part = *part;
        let result = handle.await;
        self.writing = None;
        Written { part, result }
    }

    /// Takes the end of a write.
    pub(super) fn take(&mut self, written: Written) -> Vec<Event> {
        let Some(part) = self.parts.get_mut(written.part) else { return Vec::new() };
        let name = part.name.clone();
        let error = match written.result {
            Ok(Ok(size)) => {
                debug!(part = name, size, "snapshot written");
                let pause = Duration::from_millis(size.saturating_mul(1000) / RATE).max(BETWEEN);
                part.not_before = Instant::now() + pause;
                return self.complaint.take().map(Event::Resolved).into_iter().collect();
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        part.stale = true;
        part.not_before = Instant::now() + AFTER_FAILURE;
        let file = self.directory.file(&name);
        let message = format!("{} cannot be written: {error}", file.display());
        vec![self.complain(error_code::SNAPSHOT_UNWRITABLE, message)]
    }
}

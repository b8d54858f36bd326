//! Secrets by name: each that is wanted has a follower of its own, and a request of its own, because
//! agents may read single Secrets and never list them all.
//!
//! What was read is kept in the run directory and not in the state directory: a file system in
//! memory, so that a restart of the agent without an API server brings sessions with passwords back,
//! and no password ever gets onto a disk. Directory and files are for root only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tracing::warn;

use super::follow::{Follower, Parts, Report};
use super::keep::Keeper;
use super::request::Subject;
use super::snapshot::Directory;
use super::state::Reporter;
use super::{Source, Timing};
use crate::source::{Event, Key, Kind};

/// How much less the API server has at a start before what was kept is told: the names come from
/// other objects, which waited for it already.
const HEAD_START_PART: u32 = 5;

/// Which Secrets to follow.
#[derive(Debug)]
pub struct Secrets {
    namespace: String,
    wanted: watch::Receiver<BTreeSet<String>>,
    directory: PathBuf,
}

impl Secrets {
    /// Those of the wanted names in `namespace`; what was read is kept below `run_dir`.
    #[must_use]
    pub fn new(namespace: &str, wanted: watch::Receiver<BTreeSet<String>>, run_dir: &Path) -> Self {
        Self { namespace: namespace.to_owned(), wanted, directory: run_dir.join("secrets") }
    }
}

/// Follows what is wanted; ends by a panic of a follower, or when nobody collects.
pub(super) async fn follow(source: &Source, secrets: Secrets, reports: mpsc::Sender<Report>) {
    let Secrets { namespace, mut wanted, directory } = secrets;
    let directory = Directory::new(directory, source.connection.cluster());
    let mut following = Following {
        source,
        namespace,
        directory,
        reports,
        tasks: JoinSet::new(),
        running: BTreeMap::new(),
    };
    loop {
        let names = wanted.borrow_and_update().clone();
        if following.adjust(&names).await.is_err() {
            return;
        }
        tokio::select! {
            Ok(()) = wanted.changed() => {}
            () = following.reports.closed() => return,
            Some(ended) = following.tasks.join_next() => {
                if !ended.is_err_and(|error: JoinError| error.is_cancelled()) {
                    return;
                }
            }
        }
    }
}

/// Whoever collects has gone.
struct Ended;

struct Following<'a> {
    source: &'a Source,
    namespace: String,
    directory: Directory,
    reports: mpsc::Sender<Report>,
    tasks: JoinSet<()>,
    running: BTreeMap<String, AbortHandle>,
}

impl Following<'_> {
    async fn adjust(&mut self, names: &BTreeSet<String>) -> Result<(), Ended> {
        let unwanted = |name: &&String| !names.contains(*name);
        let gone: Vec<String> = self.running.keys().filter(unwanted).cloned().collect();
        for name in gone {
            if let Some(follower) = self.running.remove(&name) {
                follower.abort();
            }
            self.forget(name).await?;
        }
        for name in names {
            if !self.running.contains_key(name) {
                let follower = self.follower(name.clone());
                self.running.insert(name.clone(), self.tasks.spawn(follower.run()));
            }
        }
        Ok(())
    }

    fn subject(&self, name: String) -> Subject {
        Subject::Secret { namespace: self.namespace.clone(), name }
    }

    /// Nobody wants it any more: neither it, nor the file, nor a complaint about it.
    async fn forget(&self, name: String) -> Result<(), Ended> {
        let subject = self.subject(name.clone());
        if let Err(error) = self.directory.remove(&subject.label()) {
            warn!(%error, name, "what was kept of a Secret cannot be removed");
        }
        let key = Key { kind: Kind::Secret, namespace: self.namespace.clone(), name };
        let told = self.reports.send(Report::Events(vec![Event::Delete(key)])).await;
        told.map_err(|_| Ended)?;
        self.reports.send(Report::Trouble(subject, None)).await.map_err(|_| Ended)
    }

    fn follower(&self, name: String) -> Follower {
        let subject = self.subject(name);
        let Source { connection, node, recorder, timing, heard, .. } = self.source;
        let head_start = timing.head_start / HEAD_START_PART;
        Follower::new(Parts {
            node: node.clone(),
            connection: connection.clone(),
            keeper: Keeper::new(&subject, self.directory.clone(), node),
            reports: self.reports.clone(),
            reporter: Reporter { kind: Kind::Secret, state: None, recorder: recorder.clone() },
            timing: Timing { head_start, ..*timing },
            heard: heard.clone(),
            subject,
        })
    }
}

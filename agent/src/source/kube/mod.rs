//! The Kubernetes API server as a source.
//!
//! ```text
//! Follower of each kind: list, watch --Report--> Collector --Batch--> runtime (fan-out)
//!        |  ^                                         ^ Flush
//!  snapshot files
//! ```
//! Each kind of [`crate::source::Kind`] has a task of its own, which keeps what it knows in a small
//! form, tells only differences, and keeps a snapshot of it on disk. The collector puts together
//! what is there, without waiting for more, and numbers it.
//!
//! Without an API server what was read stays in force. At a start without one the snapshot is told
//! after [`Timing::head_start`], as a complete listing.

mod backoff;
pub mod client;
mod decode;
mod follow;
mod keep;
mod known;
mod record;
mod request;
mod rewind;
mod secrets;
mod snapshot;
pub mod state;
mod trouble;

use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::debug;

use super::dir::{Batch, Flush};
use super::{Event, Kind};
use crate::observe::Recorder;
use client::Connection;
use follow::{Follower, Parts, Report};
use keep::Keeper;
use request::Subject;
use rewind::Heard;
pub use secrets::Secrets;
use snapshot::Directory;
use state::{Reporter, SourceState};
use trouble::Troubles;

/// How patient the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long the API server has at a start before the snapshot is told.
    pub head_start: Duration,
    /// A watch is opened for so long, and up to a quarter longer: watches do not end together.
    pub watch: Duration,
    /// A watch that did not end so long after it should have is dead.
    pub grace: Duration,
    /// How long an answer may take, after no, one, and more time-outs in a row.
    pub patience: [Duration; 3],
    /// How long lists that are older than what is known are refused, at least: longer than any
    /// replica hangs behind.
    pub rewind: Duration,
}

impl Default for Timing {
    /// For a real cluster.
    fn default() -> Self {
        Self {
            head_start: Duration::from_secs(1),
            watch: Duration::from_secs(40),
            grace: Duration::from_secs(10),
            patience: [30, 100, 200].map(Duration::from_secs),
            rewind: Duration::from_secs(300),
        }
    }
}

/// A batch is not added to beyond so many events. A pod under way takes 4 KB, one that is kept a
/// tenth of that: what waits in channels while a large cluster is listed is most of our memory.
const MOST: usize = 500;
/// Reports that may wait.
const REPORTS: usize = 4;

/// The source.
#[derive(Debug)]
pub struct Source {
    connection: Connection,
    node: String,
    directory: Directory,
    state: watch::Sender<SourceState>,
    recorder: Recorder,
    timing: Timing,
    kinds: &'static [Kind],
    secrets: Option<Secrets>,
    heard: Heard,
}

impl Source {
    /// For the node of this name, with snapshots below `state_dir`. Nothing is sent yet.
    #[must_use]
    pub fn new(
        connection: Connection,
        node: &str,
        state_dir: &Path,
    ) -> (Self, watch::Receiver<SourceState>) {
        let directory = Directory::new(state_dir.join("snapshot"), connection.cluster());
        let kinds = Kind::WATCHED.into_iter().map(|kind| (kind, state::KindState::default()));
        let state = SourceState { server: connection.server(), kinds: kinds.collect() };
        let (state, receiver) = watch::channel(state);
        let (recorder, timing) = (Recorder::default(), Timing::default());
        let node = node.to_owned();
        let kinds = Kind::WATCHED.as_slice();
        let secrets = None;
        let heard = Heard::default();
        let source =
            Self { connection, node, directory, state, recorder, timing, kinds, secrets, heard };
        (source, receiver)
    }

    /// Follows these kinds only: a route reflector may not read more.
    #[must_use]
    pub fn limited_to(self, kinds: &'static [Kind]) -> Self {
        self.state.send_modify(|state| state.kinds.retain(|kind, _| kinds.contains(kind)));
        Self { kinds, ..self }
    }

    /// Follows Secrets as well.
    #[must_use]
    pub fn with_secrets(self, secrets: Secrets) -> Self {
        Self { secrets: Some(secrets), ..self }
    }

    /// Counts there what happens.
    #[must_use]
    pub fn with_recorder(self, recorder: Recorder) -> Self {
        Self { recorder, ..self }
    }

    /// With another patience, for tests that cannot wait.
    #[must_use]
    pub fn with_timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    /// Follows all kinds until the receiver of batches is gone. A full channel of batches makes the
    /// source wait, and then the API server.
    pub async fn run(mut self, batches: mpsc::Sender<Batch>, flushes: mpsc::Receiver<Flush>) {
        let (reports, inbox) = mpsc::channel(REPORTS);
        let mut followers = JoinSet::new();
        for kind in self.kinds.iter().copied() {
            let follower = Follower::new(Parts {
                subject: Subject::Kind(kind),
                node: self.node.clone(),
                connection: self.connection.clone(),
                keeper: Keeper::new(&Subject::Kind(kind), self.directory.clone(), &self.node),
                reports: reports.clone(),
                reporter: Reporter {
                    kind,
                    state: Some(self.state.clone()),
                    recorder: self.recorder.clone(),
                },
                timing: self.timing,
                heard: self.heard.clone(),
            });
            followers.spawn(follower.run());
        }
        let (secrets, own_reports) = (self.secrets.take(), reports.clone());
        drop(reports);
        let troubles = Troubles::new(self.connection.server());
        let collector = Collector { inbox, batches, troubles, generation: 0 };
        tokio::select! {
            () = collector.run(flushes) => {}
            // A follower ends only by a panic before that: the watchdog ends the agent then.
            _ = followers.join_next() => {}
            () = follow_secrets(&self, secrets, own_reports) => {}
        }
    }
}

async fn follow_secrets(source: &Source, which: Option<Secrets>, reports: mpsc::Sender<Report>) {
    match which {
        Some(which) => secrets::follow(source, which, reports).await,
        None => std::future::pending().await,
    }
}

/// Puts together what the followers report.
struct Collector {
    inbox: mpsc::Receiver<Report>,
    batches: mpsc::Sender<Batch>,
    troubles: Troubles,
    generation: u64,
}

impl Collector {
    async fn run(mut self, mut flushes: mpsc::Receiver<Flush>) {
        loop {
            let mut events = Vec::new();
            let mut waiting: Option<Flush> = None;
            tokio::select! {
                report = self.inbox.recv() => match report {
                    Some(report) => self.add(report, &mut events),
                    None => return,
                },
                flush = flushes.recv() => match flush {
                    Some(flush) => waiting = Some(flush),
                    None => return,
                },
            }
            while events.len() < MOST {
                let Ok(report) = self.inbox.try_recv() else { break };
                self.add(report, &mut events);
            }
            if !events.is_empty() {
                self.generation = self.generation.saturating_add(1);
                let batch = Batch { generation: self.generation, events };
                if self.batches.send(batch).await.is_err() {
                    return;
                }
            }
            if let Some(flush) = waiting
                && flush.send(self.generation).is_err()
            {
                debug!("nobody waits for the flush any more");
            }
        }
    }

    fn add(&mut self, report: Report, events: &mut Vec<Event>) {
        match report {
            Report::Events(more) => events.extend(more),
            Report::Trouble(subject, trouble) => events.extend(self.troubles.set(subject, trouble)),
        }
    }
}

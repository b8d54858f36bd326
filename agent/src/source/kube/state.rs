//! How the source is doing, for status, readiness and metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use api::control::{SourceKind, SourceStatus};
use tokio::sync::watch;

use crate::observe::Recorder;
use crate::observe::recorder::Stage;
use crate::source::Kind;

/// How the source is doing.
#[derive(Clone, Debug, Default)]
pub struct SourceState {
    /// URL of the API server.
    pub server: String,
    /// Each kind that is followed.
    pub kinds: BTreeMap<Kind, KindState>,
}

impl SourceState {
    /// As the control socket tells it.
    #[must_use]
    pub fn status(&self) -> SourceStatus {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let kinds = self.kinds.iter().map(|(kind, state)| SourceKind {
            kind: kind.name().to_owned(),
            connected: state.connected,
            objects: number(state.objects),
            version: state.version,
            lists: state.lists,
            watches: state.watches,
            errors: state.errors,
            stale: state.ignored,
            rejected: number(state.rejected),
            heard_seconds: state.heard.map(|heard| heard.elapsed().as_secs_f64()),
            trouble: state.trouble.clone(),
        });
        SourceStatus {
            server: self.server.clone(),
            connected: self.connected(),
            from_snapshot: self.kinds.values().any(|kind| kind.from_snapshot),
            kinds: kinds.collect(),
        }
    }

    /// Every kind is followed, or does not exist and is looked for.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.kinds.values().all(|kind| kind.connected)
    }
}

/// How one kind is doing. Numbers count from the start of the agent.
#[derive(Clone, Debug, Default)]
pub struct KindState {
    /// Its objects are known, from the API server or from the snapshot.
    pub listed: bool,
    /// What is in force comes from the snapshot.
    pub from_snapshot: bool,
    /// A watch is open, or the API server said that there is no such kind.
    pub connected: bool,
    /// Objects known.
    pub objects: usize,
    /// resourceVersion of the state.
    pub version: u64,
    /// Lists asked for.
    pub lists: u64,
    /// Watches opened.
    pub watches: u64,
    /// Requests that failed, and watches that were cut.
    pub errors: u64,
    /// Lists and versions of objects that were refused because they were older than what was known.
    pub ignored: u64,
    /// Objects that cannot be read now.
    pub rejected: usize,
    /// When the API server said something about the kind last.
    pub heard: Option<Instant>,
    /// What is wrong, if something is.
    pub trouble: Option<String>,
}

/// Writes the state of one kind. Of a Secret nobody keeps one: whether the source is well does not
/// depend on it, and what is wrong with it stands as a complaint.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    pub(super) kind: Kind,
    pub(super) state: Option<watch::Sender<SourceState>>,
    pub(super) recorder: Recorder,
}

impl Reporter {
    pub(super) fn update(&self, change: impl FnOnce(&mut KindState)) {
        let kind = self.kind;
        if let Some(state) = &self.state {
            state.send_modify(|state| change(state.kinds.entry(kind).or_default()));
        }
    }

    /// The API server said something about the kind.
    pub(super) fn heard(&self) {
        if self.state.is_some() {
            self.recorder.heard(self.kind);
        }
        self.update(|state| state.heard = Some(Instant::now()));
    }

    /// A request failed, or a watch was cut.
    pub(super) fn failed(&self) {
        self.recorder.failed(Stage::Source);
        self.update(|state| state.errors = state.errors.saturating_add(1));
    }
}

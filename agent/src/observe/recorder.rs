//! What is counted where it happens, for `/metrics`. Everything else that `/metrics` shows is asked
//! from its owner at the time of the scrape.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::histogram::Histogram;

use crate::source::Kind;

/// Upper bounds of the buckets of histograms, in milliseconds: finest around the times that are
/// aimed at (10, 50 and 100 ms).
const BUCKETS_MS: [f64; 28] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 75.0, 100.0,
    150.0, 200.0, 300.0, 400.0, 500.0, 750.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 30_000.0,
    60_000.0,
];

/// Where bringing about what is wanted can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Reading the API server.
    Source,
    /// nf_tables.
    Table,
    /// rtnetlink.
    Routes,
    /// Writing to the API server.
    Report,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Source, Self::Table, Self::Routes, Self::Report];

    /// Value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Table => "table",
            Self::Routes => "routes",
            Self::Report => "report",
        }
    }
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the peer.
    Received,
    /// To the peer.
    Sent,
}

impl Direction {
    /// Value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Sent => "sent",
        }
    }
}

/// What is written to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Write {
    /// The own NodeNetworkStatus.
    Status,
    /// Conditions of a configuration object.
    Conditions,
    /// The Lease that elects who writes conditions.
    Lease,
    /// The condition NetworkUnavailable of the own Node.
    Node,
    /// An Event.
    Event,
}

impl Write {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Status, Self::Conditions, Self::Lease, Self::Node, Self::Event];

    /// Value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Conditions => "conditions",
            Self::Lease => "lease",
            Self::Node => "node",
            Self::Event => "event",
        }
    }
}

/// A peer by name, a direction, and the error code of a NOTIFICATION.
pub type NotificationKey = (String, Direction, u8);

#[derive(Debug)]
struct Inner {
    started: f64,
    policy_apply: Histogram,
    pod_gate: Histogram,
    convergence: Histogram,
    pod_gate_timeouts: AtomicU64,
    events_dropped: AtomicU64,
    leader: AtomicBool,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    errors: BTreeMap<Stage, u64>,
    writes: BTreeMap<(Write, bool), u64>,
    notifications: BTreeMap<NotificationKey, u64>,
    /// When the session with a peer came up last, in seconds since 1970.
    sessions: BTreeMap<String, f64>,
    heard: BTreeMap<Kind, Instant>,
}

/// Counts. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Inner>);

impl Default for Recorder {
    fn default() -> Self {
        let histogram = || Histogram::new(BUCKETS_MS.map(|bound| bound / 1000.0));
        Self(Arc::new(Inner {
            started: now(),
            policy_apply: histogram(),
            pod_gate: histogram(),
            convergence: histogram(),
            pod_gate_timeouts: AtomicU64::new(0),
            events_dropped: AtomicU64::new(0),
            leader: AtomicBool::new(false),
            counts: Mutex::default(),
        }))
    }
}

impl Recorder {
    /// A change of the input took so long until the kernel had acknowledged what follows from it.
    pub fn policy_applied(&self, took: Duration) {
        self.0.policy_apply.observe(took.as_secs_f64());
    }

    /// The kernel has all routes, so long after what they follow from.
    pub fn converged(&self, took: Duration) {
        self.0.convergence.observe(took.as_secs_f64());
    }

    /// The plugin waited so long for a pod's policy.
    pub fn pod_gated(&self, took: Duration) {
        self.0.pod_gate.observe(took.as_secs_f64());
    }

    /// The plugin waited in vain.
    pub fn pod_gate_timed_out(&self) {
        self.0.pod_gate_timeouts.fetch_add(1, Ordering::Relaxed);
    }

    /// Something failed that will be tried again.
    pub fn failed(&self, stage: Stage) {
        increment(self.counts().errors.entry(stage).or_default());
    }

    /// Something was written to the API server, or was not.
    pub fn wrote(&self, what: Write, ok: bool) {
        increment(self.counts().writes.entry((what, ok)).or_default());
        if !ok {
            self.failed(Stage::Report);
        }
    }

    /// An Event was given up because too many were due.
    pub fn event_dropped(&self) {
        self.0.events_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this agent writes conditions for all.
    pub fn set_leader(&self, leader: bool) {
        self.0.leader.store(leader, Ordering::Relaxed);
    }

    /// A session with the peer of this name was ended by a NOTIFICATION.
    pub fn notification(&self, peer: String, direction: Direction, code: u8) {
        increment(self.counts().notifications.entry((peer, direction, code)).or_default());
    }

    /// The session with the peer of this name came up.
    pub fn session_up(&self, peer: String) {
        self.counts().sessions.insert(peer, now());
    }

    /// Forgets peers that are no longer configured.
    pub fn retain_peers(&self, keep: impl Fn(&str) -> bool) {
        let mut counts = self.counts();
        counts.notifications.retain(|(peer, ..), _| keep(peer));
        counts.sessions.retain(|peer, _| keep(peer));
    }

    /// The API server has sent something for the kind.
    pub fn heard(&self, kind: Kind) {
        self.counts().heard.insert(kind, Instant::now());
    }

    pub(super) fn policy_apply(&self) -> &Histogram {
        &self.0.policy_apply
    }

    pub(super) fn convergence(&self) -> &Histogram {
        &self.0.convergence
    }

    pub(super) fn pod_gate(&self) -> &Histogram {
        &self.0.pod_gate
    }

    pub(super) fn gate_timeouts(&self) -> u64 {
        self.0.pod_gate_timeouts.load(Ordering::Relaxed)
    }

    pub(super) fn events_dropped(&self) -> u64 {
        self.0.events_dropped.load(Ordering::Relaxed)
    }

    pub(super) fn leader(&self) -> bool {
        self.0.leader.load(Ordering::Relaxed)
    }

    pub(super) fn errors(&self, stage: Stage) -> u64 {
        self.counts().errors.get(&stage).copied().unwrap_or_default()
    }

    pub(super) fn writes(&self, what: Write, ok: bool) -> u64 {
        self.counts().writes.get(&(what, ok)).copied().unwrap_or_default()
    }

    pub(super) fn notifications(&self) -> BTreeMap<NotificationKey, u64> {
        self.counts().notifications.clone()
    }

    pub(super) fn sessions(&self) -> BTreeMap<String, f64> {
        self.counts().sessions.clone()
    }

    pub(super) fn started(&self) -> f64 {
        self.0.started
    }

    pub(super) fn silence(&self) -> Vec<(Kind, Duration)> {
        self.counts().heard.iter().map(|(kind, at)| (*kind, at.elapsed())).collect()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing in here can be left half done.
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn increment(count: &mut u64) {
    *count = count.saturating_add(1);
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

//! Writes the node's NodeNetworkStatus: when it has changed, with jitter, and never often.
//!
//! | changed | written |
//! |---|---|
//! | a condition, a peer, a complaint | within [`NEWS_PER_SECOND`] of all nodes, not more often than [`BETWEEN`] |
//! | only numbers (routes, pods, policies, mesh) | within [`NUMBERS_PER_SECOND`] of all nodes, seldom |
//! | the object was deleted, or changed by someone else | as the first |

use std::time::Duration;

use api::crd::{NodeNetworkStatus, NodeNetworkStatusStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use kube::runtime::watcher::Event;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Clients;
use super::follow::{Follow, after, until};
use super::observed::{Difference, difference, report};
use super::pace::{Backoff, answered, jitter, spread};
use super::trouble::Trouble;
use crate::control::Core;
use crate::observe::recorder::Write;

/// Field manager of everything that an agent applies.
pub(super) const MANAGER: &str = "rampart-agent";
/// Between two writes, at least.
const BETWEEN: Duration = Duration::from_secs(5);
/// Between two writes of numbers alone, at least.
const NUMBERS: Duration = Duration::from_secs(10);
/// All nodes together write news so often.
const NEWS_PER_SECOND: u32 = 100;
/// All nodes together write numbers so often.
const NUMBERS_PER_SECOND: u32 = 20;
/// What changes shortly after something else is written together with it.
const SETTLE: Duration = Duration::from_secs(1);
/// Numbers are looked at so often while nothing says that they have changed.
const LOOK: Duration = Duration::from_secs(15);

/// The task.
pub(super) struct StatusWriter {
    node: String,
    clients: Clients,
    trouble: Trouble,
    core: Core,
    uid: watch::Receiver<Option<String>>,
    /// What the API server has, as far as we know.
    known: Option<NodeNetworkStatusStatus>,
    /// The object exists with the owner that it should have.
    exists: bool,
    /// It was in the last listing, or came since.
    listed: bool,
    /// resourceVersion of our last write: what the watch tells of before is old.
    version: u64,
    written: Option<Instant>,
    due: Option<(Instant, Difference)>,
    backoff: Backoff,
    failed_until: Option<Instant>,
}

impl StatusWriter {
    pub(super) fn new(
        parts: &super::Parts,
        trouble: Trouble,
        uid: watch::Receiver<Option<String>>,
    ) -> Self {
        Self {
            node: parts.node.clone(),
            clients: parts.clients.clone(),
            trouble,
            core: parts.core.clone(),
            uid,
            known: None,
            exists: false,
            listed: false,
            version: 0,
            written: None,
            due: None,
            backoff: Backoff::default(),
            failed_until: None,
        }
    }

    pub(super) async fn run(mut self) {
        let name = self.node.clone();
        let (clients, trouble) = (self.clients.clone(), self.trouble.clone());
        let mut follow: Follow<NodeNetworkStatus> =
            Follow::new("own NodeNetworkStatus", clients, trouble, Some(&name), Api::all);
        let mut changes = self.core.changes();
        let mut ready = false;
        let mut look = after(Duration::ZERO);
        loop {
            let due = self.due.map(|(at, _)| at);
            tokio::select! {
                event = follow.next() => {
                    ready |= matches!(event, Event::InitDone);
                    self.take(event);
                }
                changed = changes.changed() => if changed.is_err() { return },
                result = self.uid.changed() => {
                    if result.is_err() { return }
                    self.forget();
                }
                () = until(Some(look)) => {}
                () = until(due), if ready => {
                    if !self.write().await { return }
                }
            }
            // Before it is known what is there, a restart would be a write of every node.
            if !ready {
                continue;
            }
            sleep(SETTLE).await;
            look = after(LOOK);
            if !self.plan().await {
                return;
            }
        }
    }

    fn take(&mut self, event: Event<NodeNetworkStatus>) {
        match event {
            Event::Apply(object) | Event::InitApply(object) => {
                self.listed = true;
                let version = object.metadata.resource_version.as_deref().unwrap_or_default();
                // Versions can be compared as numbers (KEP-5504).
                let version: u64 = version.parse().unwrap_or(u64::MAX);
                if version < self.version {
                    return;
                }
                let owners = object.metadata.owner_references.unwrap_or_default();
                let uid = self.uid.borrow().clone();
                self.exists = uid.is_some_and(|uid| owners.iter().any(|o| o.uid == uid));
                // What came back of our own write may lack what an older CRD does not know: to write
                // that again would change nothing, for ever.
                if !self.exists {
                    self.known = None;
                } else if version != self.version {
                    self.known = object.status;
                }
            }
            Event::Init => self.listed = false,
            Event::Delete(_) => self.forget(),
            Event::InitDone if !self.listed => self.forget(),
            Event::InitDone => {}
        }
    }

    fn forget(&mut self) {
        self.exists = false;
        self.known = None;
    }

    /// What would be written now; `None` when the agent ends.
    async fn current(&self) -> Option<NodeNetworkStatusStatus> {
        let observed = self.core.observed().await.ok()?;
        Some(report(&observed, self.known.as_ref(), Timestamp::now()))
    }

    /// Decides when to write; false when the agent ends.
    async fn plan(&mut self) -> bool {
        let Some(current) = self.current().await else { return false };
        let difference = difference(&current, self.known.as_ref());
        if self.uid.borrow().is_none() || difference == Difference::None {
            self.due = None;
            return true;
        }
        if self.due.is_some_and(|(_, planned)| planned >= difference) {
            return true;
        }
        let nodes = self.core.view().nodes.len();
        let (between, window) = match difference {
            Difference::News => (BETWEEN, spread(nodes, NEWS_PER_SECOND)),
            Difference::Numbers | Difference::None => {
                let window = spread(nodes, NUMBERS_PER_SECOND);
                (NUMBERS.max(window), window)
            }
        };
        let now = Instant::now();
        let earliest = self.written.map_or(now, |at| at + between).max(now);
        let earliest = self.failed_until.map_or(earliest, |until| until.max(earliest));
        self.due = Some((earliest + jitter(window), difference));
        true
    }

    /// Writes what is true now; false when the agent ends.
    async fn write(&mut self) -> bool {
        self.due = None;
        let Some(uid) = self.uid.borrow().clone() else { return true };
        let Some(status) = self.current().await else { return false };
        let result = answered(self.apply(&uid, &status)).await;
        match self.trouble.wrote(Write::Status, result) {
            Ok(written) => {
                self.backoff.reset();
                self.failed_until = None;
                self.exists = true;
                let version = written.metadata.resource_version.and_then(|v| v.parse().ok());
                self.version = version.unwrap_or(self.version);
                // Not what came back: a server may drop what its CRD does not know, for ever.
                self.known = Some(status);
                self.written = Some(Instant::now());
            }
            Err(error) => {
                tracing::debug!(%error, "node status not written");
                self.exists = false;
                self.failed_until = Some(after(self.backoff.next()));
            }
        }
        true
    }

    async fn apply(
        &self,
        uid: &str,
        status: &NodeNetworkStatusStatus,
    ) -> Result<NodeNetworkStatus, kube::Error> {
        let objects: Api<NodeNetworkStatus> = Api::all((self.clients)());
        let params = PatchParams::apply(MANAGER).force();
        if !self.exists {
            let mut object = NodeNetworkStatus::new(&self.node, Default::default());
            object.metadata = ObjectMeta {
                name: Some(self.node.clone()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    name: self.node.clone(),
                    uid: uid.to_owned(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            };
            objects.patch(&self.node, &params, &Patch::Apply(&object)).await?;
        }
        let mut object = NodeNetworkStatus::new(&self.node, Default::default());
        object.status = Some(status.clone());
        objects.patch_status(&self.node, &params, &Patch::Apply(&object)).await
    }
}

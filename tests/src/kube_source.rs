//! The agent's Kubernetes source alone, on a real API server: what it tells is kept as somebody
//! downstream would, and its promises are checked while it does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use agent::source::dir::Batch;
use agent::source::kube::client::Connection;
use agent::source::kube::state::SourceState;
use agent::source::kube::{Secrets, Source, Timing};
use agent::source::{Event, Key, Kind, Object, Rejection, RejectionId};
use ctl::lab::namespace;
use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::control_plane::Part;
use crate::cluster::{Cluster, Options};
use crate::wait::eventually;

/// Name of the node that the source is for.
pub const NODE: &str = "here";
/// Namespace that Secrets are read in.
pub const NAMESPACE: &str = "kube-system";
/// How long anything may take that is not a time-out under test.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A thirtieth of the real patience: half an hour passes in a minute.
#[must_use]
pub fn hurried() -> Timing {
    let Timing { head_start, watch, grace, patience, rewind } = Timing::default();
    Timing {
        head_start,
        watch: watch / 30,
        grace: grace / 30,
        patience: patience.map(|patience| patience / 30),
        rewind: rewind / 30,
    }
}

/// A control plane without nodes, with Rampart's kinds if asked for. Nobody but the test changes
/// anything: controllers and scheduler have done what pods need, and are stopped.
///
/// # Panics
/// When it does not come up.
pub fn control_plane(with_kinds: bool) -> Cluster {
    let cluster = Cluster::up(Options { nodes: 0, ..Options::of_a_test() }).expect("a cluster");
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    eventually(LIMIT, "pods have an account", || cluster.api().get(account).is_ok());
    for part in [Part::ControllerManager, Part::Scheduler] {
        cluster.stop(part).expect("it runs");
    }
    if with_kinds {
        install_kinds(&cluster);
    }
    cluster
}

/// Installs Rampart's kinds as users do.
///
/// # Panics
/// When the API server refuses them.
pub fn install_kinds(cluster: &Cluster) {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests/crds.yaml");
    let text = std::fs::read_to_string(manifests).expect("the committed manifests");
    cluster.apply(&text).expect("the API server takes our kinds");
}

/// What somebody downstream knows.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Objects.
    pub objects: BTreeMap<Key, Object>,
    /// Kinds of which a listing was complete.
    pub in_sync: BTreeSet<Kind>,
    /// What stands of what was refused.
    pub complaints: BTreeMap<RejectionId, Rejection>,
    /// Number of the last batch.
    pub generation: u64,
    /// Names of Secrets of which it was told that they are not there.
    pub absent: BTreeSet<String>,
    /// Objects that were deleted, so far.
    pub deleted: usize,
    listing: BTreeMap<Kind, BTreeSet<Key>>,
    /// A promise that was broken.
    broken: Option<String>,
}

impl View {
    fn take(&mut self, batch: Batch) {
        if batch.generation != self.generation + 1 || batch.events.is_empty() {
            self.broken = Some(format!("batch {} after {}", batch.generation, self.generation));
        }
        self.generation = batch.generation;
        for event in batch.events {
            let text = format!("{event:?}");
            if !self.apply(event) {
                self.broken = Some(text);
            }
        }
    }

    /// Whether the event is one that may come now.
    fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::RelistBegin(kind) => {
                let first = !self.in_sync.contains(&kind);
                first && self.listing.insert(kind, BTreeSet::new()).is_none()
            }
            Event::Apply(object, _) => {
                let key = object.key();
                if let Some(listing) = self.listing.get_mut(&key.kind) {
                    listing.insert(key.clone());
                }
                self.objects.insert(key, object.clone()).as_ref() != Some(&object)
            }
            // Of a single Secret this is how its absence is told as well.
            Event::Delete(key) if key.kind == Kind::Secret => {
                self.objects.remove(&key);
                self.absent.insert(key.name);
                true
            }
            Event::Delete(key) => {
                self.deleted += 1;
                self.objects.remove(&key).is_some()
            }
            Event::RelistEnd(kind) => {
                let Some(listing) = self.listing.remove(&kind) else { return false };
                self.objects.retain(|key, _| key.kind != kind || listing.contains(key));
                self.in_sync.insert(kind)
            }
            Event::Rejected(rejection) => {
                self.complaints.insert(rejection.id.clone(), rejection);
                true
            }
            Event::Resolved(id) => self.complaints.remove(&id).is_some(),
        }
    }

    /// Names of the objects of a kind, `namespace/name` where there is one.
    #[must_use]
    pub fn names(&self, kind: Kind) -> BTreeSet<String> {
        let keys = self.objects.keys().filter(|key| key.kind == kind);
        keys.map(|key| match key.namespace.as_str() {
            "" => key.name.clone(),
            namespace => format!("{namespace}/{}", key.name),
        })
        .collect()
    }

    /// Codes of what stands.
    #[must_use]
    pub fn codes(&self) -> BTreeSet<String> {
        self.complaints.values().map(|rejection| rejection.code.to_string()).collect()
    }

    /// Every kind is in sync.
    #[must_use]
    pub fn complete(&self) -> bool {
        Kind::WATCHED.iter().all(|kind| self.in_sync.contains(kind))
    }
}

/// A source that runs.
#[derive(Debug)]
pub struct Reader {
    view: Arc<Mutex<View>>,
    state: watch::Receiver<SourceState>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts a source in the network namespace of the control plane.
    ///
    /// # Panics
    /// When the kubeconfig is of no use.
    pub fn start(cluster: &Cluster, kubeconfig: &Path, state_dir: &Path, timing: Timing) -> Self {
        Self::start_with(
            cluster,
            kubeconfig,
            state_dir,
            timing,
            watch::Sender::default().subscribe(),
        )
    }

    /// The same, with the Secrets of these names in [`NAMESPACE`]; `state_dir` is its run directory,
    /// too.
    ///
    /// # Panics
    /// When the kubeconfig is of no use.
    pub fn start_with(
        cluster: &Cluster,
        kubeconfig: &Path,
        state_dir: &Path,
        timing: Timing,
        secrets: watch::Receiver<BTreeSet<String>>,
    ) -> Self {
        let view = Arc::new(Mutex::new(View::default()));
        let (stop, stopped) = oneshot::channel();
        let (sender, receiver) = std::sync::mpsc::channel();
        let namespace = cluster.name().namespace("cp");
        let (kubeconfig, state_dir) = (kubeconfig.to_owned(), state_dir.to_owned());
        let shared = Arc::clone(&view);
        let thread = std::thread::spawn(move || {
            namespace::enter(&namespace).expect("the namespace of the control plane");
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let connection = Connection::open(Some(&kubeconfig)).await.expect("a kubeconfig");
                let (source, state) = Source::new(connection, NODE, &state_dir);
                let source = source.with_secrets(Secrets::new(NAMESPACE, secrets, &state_dir));
                sender.send(state).expect("somebody waits for it");
                let (batches, inbox) = mpsc::channel(16);
                let (_flush, flushes) = mpsc::channel(1);
                tokio::select! {
                    () = source.with_timing(timing).run(batches, flushes) => {}
                    () = keep(inbox, &shared) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        let state = receiver.recv().expect("the source starts");
        Self { view, state, stop: Some(stop), thread: Some(thread) }
    }

    /// What was told by now.
    ///
    /// # Panics
    /// When the source broke a promise.
    pub fn view(&self) -> View {
        let view = lock(&self.view).clone();
        assert_eq!(view.broken, None);
        view
    }

    /// How the source is doing.
    #[must_use]
    pub fn state(&self) -> SourceState {
        self.state.borrow().clone()
    }

    /// Waits until what was told is so; returns how long that took.
    ///
    /// # Panics
    /// When it is not within [`LIMIT`].
    pub fn until(&self, what: &str, condition: impl Fn(&View) -> bool) -> Duration {
        let mut last = View::default();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(LIMIT, what, || {
                last = self.view();
                condition(&last)
            })
        }));
        outcome.unwrap_or_else(|_| {
            let names: Vec<String> = last.objects.keys().map(ToString::to_string).collect();
            let state = self.state();
            panic!("{what}: {names:#?} {:#?} {:#?} {state:#?}", last.in_sync, last.complaints)
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed, and the test has seen that nothing came.
            thread.join().ok();
        }
    }
}

async fn keep(mut inbox: mpsc::Receiver<Batch>, view: &Mutex<View>) {
    while let Some(batch) = inbox.recv().await {
        lock(view).take(batch);
    }
}

fn lock(view: &Mutex<View>) -> MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A kubeconfig with a bearer token in a file, as a pod has it.
///
/// # Panics
/// When it cannot be written.
pub fn with_token(cluster: &Cluster, directory: &Path, server: &str, token: &str) -> PathBuf {
    let token_file = directory.join("token");
    std::fs::write(&token_file, token).expect("a token file");
    let authority = cluster.pki().certificate("ca");
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {
            "server": server, "certificate-authority": authority,
        }}],
        "users": [{"name": "u", "user": {"tokenFile": token_file}}],
    });
    let path = directory.join("token.conf");
    std::fs::write(&path, config.to_string()).expect("a kubeconfig");
    path
}

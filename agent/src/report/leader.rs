//! The elected agent's work: conditions of BGPPeer, BGPConfiguration and NetworkConfiguration from the
//! reports of all nodes, which only this agent watches.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use api::crd::{
    BGPConfiguration, BGPPeer, BGPPeerSpec, Condition, ConfigurationStatus, NetworkConfiguration,
    NodeNetworkStatus,
};
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use super::condition::{same, timed};
use super::event::{Events, Happening, Severity, Subject, Subjects};
use super::follow::{Follow, after, until};
use super::pace::{Backoff, answered};
use super::summary::{Digest, World};
use super::trouble::Trouble;
use super::{Clients, Parts};
use crate::control::Core;
use crate::observe::recorder::Write;

/// Field manager of conditions.
const MANAGER: &str = "rampart-status";
/// What changes shortly after something else is written together with it.
const SETTLE: Duration = Duration::from_secs(1);
/// The same object is written at most so often.
const BETWEEN: Duration = Duration::from_secs(5);

/// Objects of one kind, trimmed.
struct Objects<T> {
    known: BTreeMap<String, T>,
    listed: BTreeMap<String, T>,
    complete: bool,
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), listed: BTreeMap::new(), complete: false }
    }
}

impl<T> Objects<T> {
    fn take<K: Resource>(&mut self, event: Event<K>, trim: impl Fn(K) -> T) {
        match event {
            Event::Init => self.listed = BTreeMap::new(),
            Event::InitApply(object) => drop(self.listed.insert(object.name_any(), trim(object))),
            Event::InitDone => {
                self.known = std::mem::take(&mut self.listed);
                self.complete = true;
            }
            Event::Apply(object) => drop(self.known.insert(object.name_any(), trim(object))),
            Event::Delete(object) => drop(self.known.remove(&object.name_any())),
        }
    }
}

/// A configuration object as conditions need it.
#[derive(Debug)]
struct Configured<S> {
    generation: Option<i64>,
    spec: S,
    conditions: Vec<Condition>,
}

/// The task.
pub(super) struct Leader {
    clients: Clients,
    trouble: Trouble,
    core: Core,
    events: Events,
    elected: watch::Receiver<bool>,
}

/// What is known while elected.
#[derive(Default)]
struct State {
    reports: Objects<Digest>,
    peers: Objects<Configured<BGPPeerSpec>>,
    configurations: Objects<Configured<()>>,
    networks: Objects<Configured<()>>,
    /// When an object was written last.
    written: BTreeMap<String, Instant>,
    /// What was told of peers with a wrong AS.
    wrong: BTreeMap<String, String>,
}

impl State {
    fn complete(&self) -> bool {
        self.reports.complete
            && self.peers.complete
            && self.configurations.complete
            && self.networks.complete
    }
}

impl Leader {
    pub(super) fn new(parts: &Parts, trouble: Trouble, elected: watch::Receiver<bool>) -> Self {
        Self {
            clients: parts.clients.clone(),
            trouble,
            core: parts.core.clone(),
            events: parts.core.events().clone(),
            elected,
        }
    }

    /// Runs until the agent ends.
    pub(super) async fn run(mut self) {
        loop {
            if self.elected.wait_for(|elected| *elected).await.is_err() {
                return;
            }
            let mut elected = self.elected.clone();
            tokio::select! {
                () = self.lead() => return,
                result = elected.wait_for(|elected| !elected) => if result.is_err() { return },
            }
        }
    }

    fn follow<K>(&self, what: &'static str) -> Follow<K>
    where
        K: Resource<Scope = kube::core::ClusterResourceScope>,
        K: Clone + DeserializeOwned + Debug + Send + 'static,
        K::DynamicType: Default,
    {
        Follow::new(what, self.clients.clone(), self.trouble.clone(), None, Api::all)
    }

    /// Returns only when the agent ends.
    async fn lead(&self) {
        let mut reports = self.follow::<NodeNetworkStatus>("NodeNetworkStatus");
        let mut peers = self.follow::<BGPPeer>("BGPPeer");
        let mut configurations = self.follow::<BGPConfiguration>("BGPConfiguration");
        let mut networks = self.follow::<NetworkConfiguration>("NetworkConfiguration");
        let mut state = State::default();
        let mut changes = self.core.changes();
        let mut backoff = Backoff::default();
        let mut due = Some(after(SETTLE));
        loop {
            let settled = tokio::select! {
                event = reports.next() => {
                    let digest = |o: NodeNetworkStatus| Digest::of(&o.status.unwrap_or_default());
                    state.reports.take(event, digest);
                    false
                }
                event = peers.next() => {
                    state.peers.take(event, |o| configured(o.metadata.generation, o.spec, o.status));
                    false
                }
                event = configurations.next() => {
                    let trim = |o: BGPConfiguration| configured(o.metadata.generation, (), o.status);
                    state.configurations.take(event, trim);
                    false
                }
                event = networks.next() => {
                    let trim =
                        |o: NetworkConfiguration| configured(o.metadata.generation, (), o.status);
                    state.networks.take(event, trim);
                    false
                }
                changed = changes.changed() => {
                    if changed.is_err() { return }
                    false
                }
                () = until(due) => true,
            };
            if !settled {
                due = Some(due.unwrap_or_else(|| after(SETTLE)));
                continue;
            }
            due = None;
            if state.complete() {
                match self.write_all(&mut state).await {
                    Ok(again) => {
                        backoff.reset();
                        due = again;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "conditions not written");
                        due = Some(after(backoff.next()));
                    }
                }
            }
        }
    }

    /// Writes what differs; returns when something is to be written that was written just before.
    async fn write_all(&self, state: &mut State) -> Result<Option<Instant>, kube::Error> {
        let view = self.core.view();
        let problems = self.core.problems().standing();
        let world =
            World { nodes: &view.nodes, reports: &state.reports.known, problems: &problems };
        let mut again = None;
        let written = &mut state.written;
        for (name, object) in &mut state.peers.known {
            let new = world.peer(name, object.generation, &object.spec);
            let at = self.write::<BGPPeer, _>(name, object, new, written).await?;
            again = earlier(again, at);
            let told = state.wrong.get(name);
            match world.wrong_as(name) {
                Some(message) if told.is_some_and(|told| *told == message) => {}
                Some(message) => {
                    self.events.tell(wrong_as(name, message.clone()));
                    state.wrong.insert(name.clone(), message);
                }
                None => drop(state.wrong.remove(name)),
            }
        }
        for (name, object) in &mut state.configurations.known {
            let new = world.configuration(name, object.generation);
            let at = self.write::<BGPConfiguration, _>(name, object, new, written).await?;
            again = earlier(again, at);
        }
        for (name, object) in &mut state.networks.known {
            let new = world.network(name, object.generation);
            let at = self.write::<NetworkConfiguration, _>(name, object, new, written).await?;
            again = earlier(again, at);
        }
        let recent = |at: &Instant| at.elapsed() < BETWEEN;
        written.retain(|_, at| recent(at));
        Ok(again)
    }

    /// Writes conditions if they differ; returns when they may be written if that is later.
    async fn write<K, S>(
        &self,
        name: &str,
        object: &mut Configured<S>,
        new: Vec<Condition>,
        written: &mut BTreeMap<String, Instant>,
    ) -> Result<Option<Instant>, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>,
        K: Clone + DeserializeOwned + Debug,
    {
        if same(&new, &object.conditions) {
            return Ok(None);
        }
        let key = format!("{} {name}", K::kind(&()));
        if let Some(at) = written.get(&key)
            && at.elapsed() < BETWEEN
        {
            return Ok(Some(*at + BETWEEN));
        }
        let conditions = timed(new, &object.conditions, Timestamp::now());
        let patch = serde_json::json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": { "name": name },
            "status": ConfigurationStatus { conditions: conditions.clone() },
        });
        let objects: Api<K> = Api::all((self.clients)());
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(patch);
        let result = answered(objects.patch_status(name, &params, &patch)).await;
        match self.trouble.wrote(Write::Conditions, gone_is_fine(result)) {
            Ok(()) => {
                object.conditions = conditions;
                written.insert(key, Instant::now());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn configured<S>(
    generation: Option<i64>,
    spec: S,
    status: Option<ConfigurationStatus>,
) -> Configured<S> {
    let conditions = status.map(|status| status.conditions).unwrap_or_default();
    Configured { generation, spec, conditions }
}

/// An object that was deleted meanwhile needs no conditions.
fn gone_is_fine<K>(result: Result<K, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

fn wrong_as(name: &str, message: String) -> Happening {
    Happening {
        subject: Subject {
            kind: Subjects::BgpPeer,
            namespace: String::new(),
            name: name.to_owned(),
        },
        severity: Severity::Warning,
        reason: "ASNMismatch",
        detail: String::new(),
        message,
    }
}

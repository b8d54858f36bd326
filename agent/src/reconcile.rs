//! The fan-out task: takes what the source reads, keeps the objects of routing, and tells the
//! policy task, the speaker and the route thread what to be.
//!
//! Nothing is configured before Nodes, BGPConfiguration and BGPPeers have all been listed. When our
//! own Node goes away the last configuration stays in force: a node that runs is not taken off the
//! network because its object is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::error_code;
use policy::event::Masquerade;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::bgp::{self, DriverEvent, SpeakerHandle};
use crate::config::{self, Desired, Fault, NodeFacts, Reconciler};
use crate::handover::{self, Handover, Mesh, Sight};
use crate::kernel::route::Routes;
use crate::observe::problems::Complaint;
use crate::observe::{Area, Problems};
use crate::reconcile_policy::Message;
use crate::source::dir::Batch;
use crate::source::{Event, Kind, Object, Origin};
use crate::watchdog::Watchdog;

/// Pods tell where reflectors are. They may be many, or we may not be allowed to list them: BGP waits
/// for them no longer than this, once the rest is there.
const PODS_WAIT: Duration = Duration::from_secs(5);

/// What others may look at.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Generation of the source that BGP and routes have been told of.
    pub generation: u64,
    /// Nodes in their last good version.
    pub nodes: Arc<Vec<NodeFacts>>,
    /// What the speaker is configured to be.
    pub desired: Option<Arc<Desired>>,
    /// Speaker, once there is a configuration.
    pub speaker: Option<SpeakerHandle>,
    /// Kinds of routing that were not listed yet.
    pub unlisted: usize,
    /// How far the mesh gave way to reflectors.
    pub mesh: Mesh,
    /// Reflectors with a session that is up, and all of them.
    pub reflectors: (usize, usize),
}

/// The task.
#[derive(Debug)]
pub struct FanOut {
    reconciler: Reconciler,
    unlisted: BTreeSet<Kind>,
    routes: Routes,
    policy: mpsc::Sender<Message>,
    problems: Problems,
    view: watch::Sender<View>,
    bgp_events: mpsc::Sender<DriverEvent>,
    watchdog: Watchdog,
    node_name: String,
    /// Of the batch that was taken last.
    generation: u64,
    handover: Handover,
    /// What the policy task was told of address translation.
    masquerade: Option<Option<Masquerade>>,
    /// When BGP starts without a listing of Pods.
    pods_until: Option<Instant>,
    /// Names of Secrets that are needed.
    secrets: watch::Sender<BTreeSet<String>>,
}

impl FanOut {
    /// For the node of this name, in a cluster where Rampart runs in `namespace`.
    #[must_use]
    pub fn new(
        node_name: &str,
        namespace: &str,
        routes: Routes,
        policy: mpsc::Sender<Message>,
        problems: Problems,
        bgp_events: mpsc::Sender<DriverEvent>,
        watchdog: Watchdog,
    ) -> (Self, watch::Receiver<View>) {
        let unlisted = BTreeSet::from([
            Kind::Node,
            Kind::BgpConfiguration,
            Kind::BgpPeer,
            Kind::NetworkConfiguration,
            Kind::Pod,
        ]);
        let (view, receiver) = watch::channel(View { unlisted: unlisted.len(), ..View::default() });
        let task = Self {
            reconciler: Reconciler::new(node_name, namespace),
            unlisted,
            routes,
            policy,
            problems,
            view,
            bgp_events,
            watchdog,
            node_name: node_name.to_owned(),
            generation: 0,
            handover: Handover::default(),
            masquerade: None,
            pods_until: None,
            secrets: watch::Sender::default(),
        };
        (task, receiver)
    }

    /// Names of the Secrets that a source has to ask for.
    #[must_use]
    pub fn secrets(&self) -> watch::Receiver<BTreeSet<String>> {
        self.secrets.subscribe()
    }

    /// Runs until the source ends. `links` tells that interface addresses have changed.
    pub async fn run(mut self, mut batches: mpsc::Receiver<Batch>, mut links: mpsc::Receiver<()>) {
        let mut period = tokio::time::interval(handover::PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                batch = batches.recv() => {
                    let Some(batch) = batch else { return };
                    self.take(batch).await;
                }
                Some(()) = links.recv() => {
                    self.tell_connected().await;
                    self.configure().await;
                }
                _ = period.tick(), if self.handover.is_active() => self.hand_over().await,
                () = pods_late(self.pods_until) => {
                    self.pods_until = None;
                    if self.unlisted.remove(&Kind::Pod) {
                        warn!("Pods were not listed yet; going on without knowing of reflectors");
                        let unlisted = self.unlisted.len();
                        self.view.send_modify(|view| view.unlisted = unlisted);
                    }
                    self.configure().await;
                }
            }
        }
    }

    async fn take(&mut self, batch: Batch) {
        let Batch { generation, events } = batch;
        self.generation = generation;
        let mut changed = false;
        let mut forward = Vec::new();
        for event in events {
            changed |= self.reconciler.handle(&event);
            match &event {
                Event::Rejected(rejection) => {
                    let mut complaint =
                        Complaint::new(rejection.code, &rejection.subject, &rejection.message);
                    complaint.location.clone_from(&rejection.location);
                    complaint.next.clone_from(&rejection.next);
                    self.problems.raise(Area::Source, &rejection.id.0, complaint);
                }
                Event::Resolved(id) => self.problems.resolve(Area::Source, &id.0),
                Event::RelistEnd(kind) => changed |= self.unlisted.remove(kind),
                Event::Apply(..) | Event::Delete(_) | Event::RelistBegin(_) => {}
            }
            // The policy engine has the last good version of such a Node, too.
            if let Event::Apply(object @ Object::Node(_), _) = &event
                && self.reconciler.keeps_last_good_node(&object.key().name)
            {
                continue;
            }
            forward.extend(for_policy(event));
        }
        debug!(generation, events = forward.len(), "input read");
        // Full means the policy task is behind: the source waits with us.
        if self.policy.send(Message::Input { generation, events: forward }).await.is_err() {
            warn!("the policy task has ended");
        }
        if changed {
            self.configure().await;
        }
        let unlisted = self.unlisted.len();
        self.view.send_modify(|view| {
            view.generation = generation;
            view.unlisted = unlisted;
        });
    }

    async fn configure(&mut self) {
        if !self.unlisted.is_empty() {
            if self.pods_until.is_none() && self.unlisted.iter().eq([&Kind::Pod]) {
                self.pods_until = Some(Instant::now() + PODS_WAIT);
            }
            return;
        }
        self.pods_until = None;
        let links = crate::kernel::address::list();
        let (desired, faults) = self.reconciler.desired(&links);
        let secrets = self.reconciler.secrets();
        self.secrets.send_if_modified(|old| std::mem::replace(old, secrets.clone()) != secrets);
        let mut complaints: Vec<(String, Complaint)> = faults.into_iter().map(complain).collect();
        if desired.is_none() {
            let message = format!("no Node object named {} was read", self.node_name);
            let mut complaint = Complaint::new(error_code::INVALID_NODE, "own Node", message);
            complaint.next = "Create it, or correct --node-name; until then nothing is announced, \
                              or what was announced before."
                .to_owned();
            complaints.push(("own node".to_owned(), complaint));
        }
        self.problems.replace(Area::Config, complaints);
        let nodes: Vec<NodeFacts> = self.reconciler.nodes().cloned().collect();
        self.view.send_modify(|view| view.nodes = Arc::new(nodes));
        let Some(desired) = desired else { return };
        self.handover.update(Instant::now(), &desired);
        let nodes = Arc::clone(&self.view.borrow().nodes);
        let masquerade = config::masquerade(&desired, &nodes);
        self.apply(desired).await;
        // After the overlay: with this the policy task knows all of how pods are networked.
        if self.masquerade.as_ref() != Some(&masquerade) {
            self.masquerade = Some(masquerade.clone());
            self.tell_policy(policy::event::Event::Masquerade(masquerade)).await;
        }
    }

    async fn tell_policy(&self, event: policy::event::Event) {
        let message = Message::Input { generation: self.generation, events: vec![(event, None)] };
        if self.policy.send(message).await.is_err() {
            warn!("the policy task has ended");
        }
    }

    /// Tells everybody, if it is news; mesh and reflectors as they should be now.
    async fn apply(&mut self, mut desired: Desired) {
        desired.config = self.handover.shape(desired.config);
        let mesh = self.handover.mesh();
        let reflectors = self.handover.reflectors().len();
        self.view.send_if_modified(|view| {
            let new = (mesh, (view.reflectors.0.min(reflectors), reflectors));
            let changed = (view.mesh, view.reflectors) != new;
            (view.mesh, view.reflectors) = new;
            changed
        });
        let current = self.view.borrow().desired.clone();
        if current.as_deref() == Some(&desired) {
            return;
        }
        let guard = |desired: &Desired| desired.overlay.as_ref().map(overlay_guard);
        if current.as_deref().and_then(guard) != guard(&desired) {
            self.tell_policy(policy::event::Event::Overlay(guard(&desired))).await;
        }
        let speaker = self.view.borrow().speaker.clone();
        let speaker = match speaker {
            Some(speaker) => {
                let told = speaker.configure(desired.config.clone(), desired.listen_port).await;
                if told.is_err() {
                    warn!("the speaker thread has ended");
                }
                Some(speaker)
            }
            None => self.start(&desired),
        };
        let Some(speaker) = speaker else { return };
        info!(peers = desired.config.peers.len(), asn = %desired.config.asn, "bgp configured");
        if speaker.originate(desired.prefixes.clone()).await.is_err()
            || self.routes.in_sync().await.is_err()
        {
            warn!("the speaker or the route thread has ended");
        }
        self.view.send_modify(|view| {
            view.desired = Some(Arc::new(desired));
            view.speaker = Some(speaker);
        });
        self.tell_connected().await;
    }

    /// The speaker ends sessions over links that are down.
    async fn tell_connected(&self) {
        let speaker = self.view.borrow().speaker.clone();
        if let Some(speaker) = speaker
            && let Some(networks) = crate::kernel::address::connected()
            && speaker.connected(networks).await.is_err()
        {
            warn!("the speaker thread has ended");
        }
    }

    /// Looks at the sessions with mesh and reflectors.
    async fn hand_over(&mut self) {
        let view = self.view.borrow().clone();
        let (Some(speaker), Some(desired)) = (view.speaker, view.desired) else { return };
        let Ok(sight) = self.look(&speaker, &desired).await else {
            warn!("the speaker thread has ended");
            return;
        };
        let is_up = |reflector: &&_| sight.established.contains(reflector);
        let up = self.handover.reflectors().iter().filter(is_up).count();
        self.view.send_if_modified(|view| std::mem::replace(&mut view.reflectors.0, up) != up);
        let before = self.handover.mesh();
        let step = self.handover.step(Instant::now(), &sight);
        if step.changed {
            let (wanted, _) = self.reconciler.desired(&crate::kernel::address::list());
            if let Some(desired) = wanted {
                self.apply(desired).await;
            }
        }
        let now = self.handover.mesh();
        if now != before {
            info!(mesh = %now, reflectors = up, "sessions with other nodes");
        }
        for peer in step.close {
            debug!(%peer, "its prefixes come from the reflectors, the mesh session is closed");
            if speaker.reset(peer).await.is_err() {
                return;
            }
        }
    }

    async fn look(
        &self,
        speaker: &SpeakerHandle,
        desired: &Desired,
    ) -> Result<Sight, bgp::Stopped> {
        let up =
            |peer: &::bgp::view::PeerView| peer.state == ::bgp::view::SessionState::Established;
        let peers = speaker.peers().await?;
        let established = peers.iter().filter(|peer| up(peer));
        let reflectors = self.handover.reflectors().to_vec();
        let mut sight = Sight {
            established: established.map(|peer| (peer.address, peer.port).into()).collect(),
            by_reflectors: speaker.holders(reflectors).await?.into_iter().collect(),
            by_staying: BTreeMap::new(),
        };
        if self.handover.has_leaving() {
            let all = desired.config.peers.iter().map(::bgp::config::PeerConfig::endpoint);
            let staying = all.filter(|peer| !self.handover.is_leaving(peer)).collect();
            sight.by_staying = speaker.holders(staying).await?.into_iter().collect();
        }
        Ok(sight)
    }

    fn start(&self, desired: &Desired) -> Option<SpeakerHandle> {
        let sink = bgp::kernel_sink(self.routes.clone());
        let options = bgp::Options::default();
        match bgp::spawn(desired.config.clone(), desired.listen_port, Some(sink), options) {
            Ok((speaker, mut events, _thread)) => {
                let sender = self.bgp_events.clone();
                // Ends with the speaker thread.
                self.watchdog.task("the speaker thread", async move {
                    while let Some(event) = events.recv().await {
                        if sender.send(event).await.is_err() {
                            return;
                        }
                    }
                });
                Some(speaker)
            }
            Err(error) => {
                let complaint = Complaint::new(
                    error_code::LISTEN_FAILED,
                    "speaker",
                    format!("the speaker thread cannot start: {error}"),
                );
                self.problems.raise(Area::Listen, "thread", complaint);
                None
            }
        }
    }
}

fn overlay_guard(plan: &crate::overlay::Plan) -> policy::event::Overlay {
    policy::event::Overlay { port: plan.port, senders: plan.senders.clone() }
}

/// Ends at that time; never without one.
async fn pods_late(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

fn complain(fault: Fault) -> (String, Complaint) {
    let id = fault.to_string();
    let message = format!("{}: {}", fault.field, fault.message);
    let mut complaint = Complaint::new(fault.code, fault.key.to_string(), message);
    complaint.location = fault.location;
    complaint.next = fault.next;
    (id, complaint)
}

/// What of the input the policy engine reads.
fn for_policy(event: Event) -> Option<(policy::event::Event, Option<Origin>)> {
    use policy::event as p;
    let kind = |kind: Kind| match kind {
        Kind::Node => Some(p::Kind::Node),
        Kind::Namespace => Some(p::Kind::Namespace),
        Kind::Pod => Some(p::Kind::Pod),
        Kind::NetworkPolicy => Some(p::Kind::NetworkPolicy),
        Kind::BgpConfiguration | Kind::BgpPeer | Kind::NetworkConfiguration | Kind::Secret => None,
    };
    let event = match event {
        Event::Apply(object, origin) => {
            let object = match object {
                Object::Node(o) => p::Object::Node(o),
                Object::Namespace(o) => p::Object::Namespace(o),
                Object::Pod(o) => p::Object::Pod(o),
                Object::NetworkPolicy(o) => p::Object::NetworkPolicy(o),
                Object::BgpConfiguration(_)
                | Object::BgpPeer(_)
                | Object::NetworkConfiguration(_)
                | Object::Secret(_) => return None,
            };
            return Some((p::Event::Apply(object), origin));
        }
        Event::Delete(key) => p::Event::Delete(p::Key {
            kind: kind(key.kind)?,
            namespace: key.namespace,
            name: key.name,
        }),
        Event::RelistBegin(k) => p::Event::RelistBegin(kind(k)?),
        Event::RelistEnd(k) => p::Event::RelistEnd(kind(k)?),
        Event::Rejected(_) | Event::Resolved(_) => return None,
    };
    Some((event, None))
}

//! The policy task: owns the engine, and keeps the kernel's table what the engine wants.
//!
//! | when | then |
//! |---|---|
//! | all kinds have been listed | read the table back, adopt it, write the difference |
//! | an event comes in | drain the queue, then write one transaction for all of it |
//! | events come in faster than that pays | gather them for some milliseconds (`pace`) |
//! | the kernel refuses | wait (doubling), read back, adopt, try the difference |
//! | it refuses twice in a row | replace the whole table in one batch |
//! | it refuses five times in a row | not ready; the last table stays, tries go on |
//! | someone else changed the table | read back, adopt, write the difference |
//!
//! At most one request to the writer is under way. Nothing is written before all kinds are listed.

mod kernel;
mod pace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use api::error_code;
use k8s_openapi::api::core::v1::Pod;
use policy::engine::{EndpointSummary, Engine, PolicySummary, Totals};
use policy::event::{Event, Key, Kind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::cni::waiters::Waiters;
use crate::kernel::nft::{Drift, WriterHandle};
use crate::kernel::route::Routes;
use crate::observe::problems::Complaint;
use crate::observe::{Area, Problems, Recorder};
use crate::source::Origin;
use kernel::{Reply, pause, poll_reply};
use pace::Pace;

/// How long the first transaction waits for the interfaces of pods.
const PATIENCE: Duration = Duration::from_secs(1);
/// Messages taken before the kernel gets its turn.
const DRAIN: usize = 4096;

/// What the task is told.
#[derive(Debug)]
pub enum Message {
    /// One batch of the source.
    Input {
        /// Its generation.
        generation: u64,
        /// What of it concerns policy.
        events: Vec<(Event, Option<Origin>)>,
    },
    /// The kernel routes a pod to this interface.
    Interface {
        /// Pod address.
        address: IpAddr,
        /// Interface name.
        interface: Option<String>,
    },
    /// Someone else changed our table.
    Drift(Drift),
    /// The CNI plugin has attached a pod.
    Attach {
        /// An [`Event::Attachment`].
        event: Event,
        /// Told the generation when the pod is known and the kernel has acknowledged its policy.
        programmed: oneshot::Sender<u64>,
    },
    /// The CNI plugin has detached a pod.
    Detach {
        /// Identity of the attachment.
        id: String,
    },
    /// For the control socket: is the pod of this attachment known?
    KnowsPodOf {
        /// Identity of the attachment.
        id: String,
        /// The answer.
        reply: oneshot::Sender<bool>,
    },
    /// Numbers alone: cheap.
    Count(oneshot::Sender<Totals>),
    /// For the control socket.
    Ask(oneshot::Sender<Snapshot>),
}

/// Answer to [`Message::Ask`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Numbers.
    pub totals: Totals,
    /// Policies in force.
    pub policies: Vec<PolicySummary>,
    /// Local pods.
    pub endpoints: Vec<EndpointSummary>,
    /// Times the table was repaired.
    pub repaired: u64,
}

/// How far the task is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Source generation that the kernel has acknowledged.
    pub generation: u64,
    /// All kinds were listed, and the first difference was written.
    pub programmed: bool,
    /// The kernel refuses, for so long that someone should know.
    pub alarm: Option<String>,
}

/// The task.
pub struct PolicyTask {
    engine: Engine,
    writer: WriterHandle,
    routes: Routes,
    problems: Problems,
    recorder: Recorder,
    /// When the oldest input came that the kernel has not acknowledged, with its generation.
    waiting: VecDeque<(u64, Instant)>,
    progress: watch::Sender<Progress>,
    origins: BTreeMap<Key, Origin>,
    /// Ascending.
    watched: Vec<IpAddr>,
    input_changed: bool,
    pods_changed: bool,
    /// Before the first transaction: pods whose interface the route thread has not told yet. A
    /// table adopted after a restart knows them, and would lose and regain them otherwise.
    awaited: BTreeSet<IpAddr>,
    /// Before the first transaction: the fan-out task has not told yet what is translated. An adopted
    /// chain would be taken away, and be missed by connections until it is back.
    network_unknown: bool,
    /// When the first transaction is written without them.
    patience: Option<Instant>,
    /// Generation of the input handled last.
    handled: u64,
    under_way: Option<Reply>,
    /// What the kernel holds must be read before the next transaction.
    unknown: bool,
    /// The next transaction replaces the table.
    rebuild: bool,
    refusals: u32,
    pace: Pace,
    not_before: Option<Instant>,
    /// A read-back because of this drift is due or under way.
    drift: Option<Drift>,
    repaired: u64,
    /// ADDs that wait for the kernel.
    waiters: Waiters,
}

impl std::fmt::Debug for PolicyTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyTask").field("handled", &self.handled).finish_non_exhaustive()
    }
}

impl PolicyTask {
    /// For the node of this name.
    #[must_use]
    pub fn new(
        node_name: &str,
        writer: WriterHandle,
        routes: Routes,
        problems: Problems,
    ) -> (Self, watch::Receiver<Progress>) {
        let (progress, receiver) = watch::channel(Progress::default());
        let task = Self {
            engine: Engine::new(node_name),
            writer,
            routes,
            problems,
            recorder: Recorder::default(),
            waiting: VecDeque::new(),
            progress,
            origins: BTreeMap::new(),
            watched: Vec::new(),
            input_changed: false,
            pods_changed: false,
            awaited: BTreeSet::new(),
            network_unknown: true,
            patience: None,
            handled: 0,
            under_way: None,
            unknown: true,
            rebuild: false,
            refusals: 0,
            pace: Pace::default(),
            not_before: None,
            drift: None,
            repaired: 0,
            waiters: Waiters::default(),
        };
        (task, receiver)
    }

    /// Counts for this recorder.
    #[must_use]
    pub fn with_recorder(self, recorder: Recorder) -> Self {
        Self { recorder, ..self }
    }

    /// Tells the engine of pods that were attached before the agent started. Before [`PolicyTask::run`]:
    /// the first transaction must know them.
    pub fn attach(&mut self, attachments: Vec<Event>) {
        for event in attachments {
            self.input_changed = true;
            self.pods_changed = true;
            self.engine.handle(event);
        }
    }

    /// Runs until all senders are gone. The table stays.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        loop {
            self.start_next();
            if !self.unknown {
                self.waiters.release(&self.engine);
            }
            let paused = self.not_before.or_else(|| self.gathers_until());
            tokio::select! {
                message = inbox.recv() => {
                    let Some(message) = message else { return };
                    self.handle(message);
                    for _ in 0..DRAIN {
                        match inbox.try_recv() {
                            Ok(message) => self.handle(message),
                            Err(_) => break,
                        }
                    }
                    // Once the first difference is written nothing of what follows here concerns
                    // the table, so the kernel can already have its turn.
                    if self.progress.borrow().programmed {
                        self.start_next();
                    }
                    self.after_input().await;
                }
                answer = poll_reply(&mut self.under_way) => {
                    self.under_way = None;
                    self.answered(answer);
                }
                () = pause(paused), if paused.is_some() && self.under_way.is_none() => {
                    self.not_before = None;
                }
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Input { generation, events } => {
                if !events.is_empty() {
                    self.note_waiting(generation);
                }
                for (event, origin) in events {
                    if matches!(event, Event::Masquerade(_)) && self.network_unknown {
                        self.network_unknown = false;
                        self.not_before = None;
                    }
                    self.input_changed = true;
                    self.pods_changed |= self.concerns_local_pods(&event);
                    self.note_origin(&event, origin);
                    self.engine.handle(event);
                }
                self.handled = generation;
            }
            Message::Interface { address, interface } => {
                debug!(%address, interface, "pod interface");
                if self.awaited.remove(&address) && self.awaited.is_empty() {
                    self.not_before = None;
                }
                self.engine.handle(Event::Interface { address, interface });
            }
            Message::Drift(drift) => {
                self.unknown = true;
                self.drift = Some(drift);
            }
            Message::Attach { event, programmed } => {
                if let Event::Attachment { id, .. } = &event {
                    self.waiters.push(id.clone(), programmed);
                }
                self.attach(vec![event]);
            }
            Message::Detach { id } => {
                self.waiters.forget(&id);
                self.attach(vec![Event::Detachment { id }]);
            }
            Message::KnowsPodOf { id, reply } => {
                // Nobody waits any more: then nobody needs to know.
                reply.send(self.engine.knows_pod_of(&id)).ok();
            }
            Message::Count(reply) => {
                if reply.send(self.engine.totals()).is_err() {
                    debug!("nobody waits for the policy totals any more");
                }
            }
            Message::Ask(reply) => {
                self.engine.settle();
                let snapshot = Snapshot {
                    totals: self.engine.totals(),
                    policies: self.engine.policies(),
                    endpoints: self.engine.endpoints(),
                    repaired: self.repaired,
                };
                if reply.send(snapshot).is_err() {
                    debug!("nobody waits for the policy snapshot any more");
                }
            }
        }
    }

    /// Whether the event can change which pods are ours.
    fn concerns_local_pods(&self, event: &Event) -> bool {
        match event {
            Event::Apply(policy::event::Object::Pod(pod)) => {
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                // One of ours that is now said to be elsewhere counts, too.
                node == Some(self.engine.node_name()) || node.is_none() || self.is_watched(pod)
            }
            Event::Apply(_)
            | Event::Interface { .. }
            | Event::Masquerade(_)
            | Event::Overlay(_) => false,
            Event::Attachment { .. } | Event::Detachment { .. } => true,
            Event::Delete(key) => key.kind == Kind::Pod,
            Event::RelistBegin(kind) | Event::RelistEnd(kind) => *kind == Kind::Pod,
        }
    }

    fn is_watched(&self, pod: &Pod) -> bool {
        let status = pod.status.as_ref();
        let first = status.and_then(|status| status.pod_ip.as_deref());
        let others = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
        first
            .into_iter()
            .chain(others.iter().map(|other| other.ip.as_str()))
            .filter_map(|text| text.parse().ok())
            .any(|address: IpAddr| self.watched.binary_search(&address).is_ok())
    }

    fn note_origin(&mut self, event: &Event, origin: Option<Origin>) {
        match (event, origin) {
            (Event::Apply(policy::event::Object::NetworkPolicy(object)), Some(origin)) => {
                let key = Key {
                    kind: Kind::NetworkPolicy,
                    namespace: object.metadata.namespace.clone().unwrap_or_default(),
                    name: object.metadata.name.clone().unwrap_or_default(),
                };
                self.origins.insert(key, origin);
            }
            (Event::Delete(key), _) => drop(self.origins.remove(key)),
            _ => {}
        }
    }

    /// What follows from new input beside the table: complaints, and whose interface we need.
    async fn after_input(&mut self) {
        if !std::mem::take(&mut self.input_changed) {
            return;
        }
        let complaints = self.engine.faults().into_iter().filter_map(|fault| self.complain(fault));
        let complaints = complaints.collect();
        self.problems.replace(Area::Policy, complaints);
        if !std::mem::take(&mut self.pods_changed) {
            return;
        }
        let watched: Vec<IpAddr> = self.engine.local_addresses().collect();
        if watched != self.watched {
            if !self.progress.borrow().programmed {
                let new = watched.iter().filter(|address| !self.watched.contains(address));
                self.awaited.extend(new);
                self.patience.get_or_insert_with(|| Instant::now() + PATIENCE);
            }
            if self.routes.watch_pods(watched.clone()).await.is_err() {
                warn!("the route thread has ended");
            }
            self.watched = watched;
        }
    }

    fn complain(&self, fault: policy::fault::Fault) -> Option<(String, Complaint)> {
        use policy::fault::Reason;
        let code = match fault.reason {
            // Of a Node, routing says the same with more words.
            _ if fault.key.kind == Kind::Node => return None,
            Reason::MissingName | Reason::InvalidAddress => error_code::INVALID_OBJECT,
            Reason::AddressConflict => error_code::DUPLICATE_ADDRESS,
            Reason::InvalidCidr | Reason::ExceptOutsideCidr => error_code::INVALID_CIDR,
            Reason::InvalidPort
            | Reason::InvalidPortName
            | Reason::InvalidPortRange
            | Reason::InvalidProtocol => error_code::INVALID_PORT,
            Reason::InvalidOperator
            | Reason::InvalidSelectorValues
            | Reason::InvalidLabelKey
            | Reason::InvalidLabelValue => error_code::INVALID_SELECTOR,
            Reason::InvalidPolicyType | Reason::EmptyPeer | Reason::MixedPeer => {
                error_code::POLICY_RULE_UNREADABLE
            }
        };
        let message = format!("{}: {}", fault.field, fault.message);
        let mut complaint = Complaint::new(code, fault.key.to_string(), message);
        if self.engine.keeps_last_good(&fault.key) {
            complaint.next =
                format!("Correct {}; the last good version stays in force.", fault.field);
        }
        complaint.location = self.origins.get(&fault.key).map(|origin| origin.locate(&fault.field));
        Some((format!("{}|{}", fault.key, fault.field), complaint))
    }
}

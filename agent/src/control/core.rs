//! What answers are made of.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::agent_args::AgentArgs;
use api::control::{
    AgentView, BgpStatus, EndpointView, NodeView, PeerView, PolicyStatus, PolicyView, RouteStatus,
    RouteView, Status, Synced, Uninstalled, Version,
};
use api::error_code::{self, Code};
use ipnet::IpNet;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::views;
use crate::bgp::Traffic;
use crate::cni::gate::Gate;
use crate::cni::install::NodeNetwork;
use crate::kernel::route::{RouteReport, RouteState, Routes};
use crate::observe::{Problems, Recorder};
use crate::reconcile::View;
use crate::reconcile_policy::{Message, Progress, Snapshot};
use crate::report::{Events, Observed};
use crate::source::dir::Flush;
use crate::source::kube::state::SourceState;

/// How often what cannot be waited for is looked at again while somebody waits for `synced`.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Why the Kubernetes source may not have been read.
const API_TROUBLES: [Code; 4] = [
    error_code::SOURCE_UNREACHABLE,
    error_code::SOURCE_UNAUTHORIZED,
    error_code::SOURCE_FORBIDDEN,
    error_code::SOURCE_STALE,
];

/// Handles of everything that answers questions.
#[derive(Debug)]
pub struct Parts {
    /// Node name.
    pub node: String,
    /// Store, as given.
    pub store: String,
    /// Start of the agent.
    pub started: Instant,
    /// What is wrong.
    pub problems: Problems,
    /// What was counted.
    pub recorder: Recorder,
    /// Routing's configuration.
    pub view: watch::Receiver<View>,
    /// How far the policy task is.
    pub progress: watch::Receiver<Progress>,
    /// Route thread.
    pub routes: Routes,
    /// Policy task.
    pub policy: mpsc::Sender<Message>,
    /// Where what happened is told.
    pub events: Events,
    /// Peers of BGPPeer objects had their chance to come up.
    pub peers_asked: watch::Receiver<bool>,
    /// Source.
    pub flush: mpsc::Sender<Flush>,
    /// How the Kubernetes source is doing, where that is the store.
    pub source: Option<watch::Receiver<SourceState>>,
    /// Attachments.
    pub gate: Gate,
    /// Can the node have pods?
    pub network: watch::Receiver<NodeNetwork>,
}

/// Answers questions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Core(Arc<Parts>, Arc<Side>);

/// What only some requests need.
#[derive(Debug, Default)]
struct Side {
    /// Told when the agent is asked to leave the node.
    leave: Notify,
    /// Where the agent keeps the CNI plugin and its list.
    cni: Option<CniPlaces>,
}

/// Directories of CNI as the agent sees them.
#[derive(Clone, Debug)]
pub(super) struct CniPlaces {
    pub(super) bin: PathBuf,
    pub(super) conf: PathBuf,
}

/// An owner of state has ended; the agent is about to end, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent is ending")]
pub(crate) struct Ending;

/// Waits for changes of what is reported.
#[derive(Debug)]
pub(crate) struct Changes {
    problems: watch::Receiver<u64>,
    view: watch::Receiver<View>,
    progress: watch::Receiver<Progress>,
    peers_asked: watch::Receiver<bool>,
    network: watch::Receiver<NodeNetwork>,
}

impl Changes {
    /// Something has changed. Cancel-safe.
    pub(crate) async fn changed(&mut self) -> Result<(), Ending> {
        tokio::select! {
            result = self.problems.changed() => result.map_err(|_| Ending),
            result = self.view.changed() => result.map_err(|_| Ending),
            result = self.progress.changed() => result.map_err(|_| Ending),
            result = self.network.changed() => result.map_err(|_| Ending),
            // Said once, and then nobody is there any more to say it.
            Ok(()) = self.peers_asked.changed() => Ok(()),
        }
    }
}

/// Everything that a scrape or `rctl status` needs.
pub(super) struct Overview {
    pub(super) status: Status,
    pub(super) traffic: Traffic,
    pub(super) peers: Vec<PeerView>,
    /// `maxPrefixes` of the peers that have one.
    pub(super) limits: Vec<(String, u32)>,
}

impl Core {
    /// From the handles.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts), Arc::new(Side::default()))
    }

    /// Lets it look where the flags say that CNI is.
    #[must_use]
    pub fn with_cni_of(self, args: &AgentArgs) -> Self {
        let cni = args.cni_bin_dir.clone().zip(args.cni_conf_dir.clone());
        let cni = cni.map(|(bin, conf)| CniPlaces { bin, conf });
        Self(self.0, Arc::new(Side { cni, ..Side::default() }))
    }

    pub(super) fn cni(&self) -> Option<CniPlaces> {
        self.1.cni.clone()
    }

    pub(super) fn node(&self) -> &str {
        &self.0.node
    }

    /// Waits until somebody has asked the agent to leave the node.
    pub async fn left(&self) {
        self.1.leave.notified().await;
    }

    /// Asks the agent to leave the node. It ends a moment after the answer.
    pub(super) fn leave(&self) -> Uninstalled {
        self.1.leave.notify_one();
        Uninstalled::default()
    }

    /// Routing's configuration now.
    #[must_use]
    pub fn view(&self) -> View {
        self.0.view.borrow().clone()
    }

    /// What is wrong.
    #[must_use]
    pub fn problems(&self) -> &Problems {
        &self.0.problems
    }

    /// How the Kubernetes source is doing, where that is the store.
    pub(crate) fn source(&self) -> Option<SourceState> {
        self.0.source.as_ref().map(|source| source.borrow().clone())
    }

    /// Routing's configuration, now and later.
    pub(crate) fn views(&self) -> watch::Receiver<View> {
        self.0.view.clone()
    }

    /// Tells that something has changed that [`Self::observed`] shows.
    pub(crate) fn changes(&self) -> Changes {
        Changes {
            problems: self.0.problems.subscribe(),
            view: self.0.view.clone(),
            progress: self.0.progress.clone(),
            peers_asked: self.0.peers_asked.clone(),
            network: self.0.network.clone(),
        }
    }

    /// What is reported of the node.
    pub(crate) async fn observed(&self) -> Result<Observed, Ending> {
        let (sender, totals) = oneshot::channel();
        self.0.policy.send(Message::Count(sender)).await.map_err(|_| Ending)?;
        let totals = totals.await.map_err(|_| Ending)?;
        let peers = self.peers().await?;
        let summary = self.0.routes.summary();
        let progress = self.0.progress.borrow().clone();
        let view = self.view();
        let prefixes = view.desired.iter().flat_map(|desired| &desired.prefixes);
        Ok(Observed {
            node: self.0.node.clone(),
            not_ready: self.unready(),
            policy_programmed: progress.programmed,
            policy_alarm: progress.alarm,
            routes: summary.installed,
            routes_failed: summary.failed,
            routes_overridden: summary.overridden,
            other_nodes: view.nodes.len().saturating_sub(1),
            peers,
            endpoints: totals.endpoints,
            policies: totals.policies,
            pod_cidrs: prefixes.map(ToString::to_string).collect(),
            problems: self.0.problems.standing(),
            source_trouble: self.source_trouble(),
        })
    }

    /// Why what is read is not what the API server has now.
    fn source_trouble(&self) -> Option<String> {
        let source = self.source()?;
        if source.connected() {
            return None;
        }
        let trouble = source.kinds.into_values().find_map(|kind| kind.trouble);
        Some(trouble.unwrap_or_else(|| format!("{} was not read yet", source.server)))
    }

    /// What was counted.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    /// Where what happened is told.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.0.events
    }

    /// Whether the node can have pods; changes whenever that does.
    #[must_use]
    pub fn network(&self) -> watch::Receiver<NodeNetwork> {
        self.0.network.clone()
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0
    }

    pub(super) fn version(&self) -> Version {
        Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("RAMPART_COMMIT").unwrap_or("unknown").to_owned(),
            node: self.0.node.clone(),
        }
    }

    /// Why what was read is not in force.
    pub(crate) fn not_ready(&self) -> Vec<String> {
        let progress = self.0.progress.borrow().clone();
        let view = self.view();
        let mut reasons = Vec::new();
        if view.unlisted > 0 {
            let subject = format!("store {}", self.0.store.trim_start_matches("dir:"));
            let problems = self.0.problems.list();
            let outage = problems.iter().find(|p| match p.code {
                error_code::STORE_UNREADABLE => p.subject == subject,
                code => API_TROUBLES.contains(&code),
            });
            let why = outage.map(|p| format!(": {}", p.message)).unwrap_or_default();
            reasons.push(format!("the store {} was not read yet{why}", self.0.store));
        }
        if view.desired.is_none() {
            reasons.push(format!("no Node object named {} was read", self.0.node));
        }
        if !progress.programmed {
            reasons.push("the policy table was not written yet".to_owned());
        }
        if let Some(alarm) = progress.alarm {
            reasons.push(format!("the kernel refuses the policy table: {alarm}"));
        }
        reasons
    }

    /// Waits until all that was read by now is in the kernel.
    pub(super) async fn synced(&self, timeout: Duration) -> Result<Synced, Ending> {
        let deadline = tokio::time::Instant::now() + timeout;
        let (sender, answer) = oneshot::channel();
        let flushed = async {
            self.0.flush.send(sender).await.map_err(|_| Ending)?;
            answer.await.map_err(|_| Ending)
        };
        let Ok(flushed) = tokio::time::timeout_at(deadline, flushed).await else {
            let pending = vec!["the store is being read".to_owned()];
            let generation = self.view().generation;
            return Ok(Synced { synced: false, generation, pending });
        };
        let generation = flushed?;
        let mut progress = self.0.progress.clone();
        let mut view = self.0.view.clone();
        loop {
            let pending = self.pending(generation).await?;
            let synced = pending.is_empty();
            if synced || tokio::time::Instant::now() >= deadline {
                return Ok(Synced { synced, generation, pending });
            }
            tokio::select! {
                changed = progress.changed() => changed.map_err(|_| Ending)?,
                changed = view.changed() => changed.map_err(|_| Ending)?,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    async fn pending(&self, generation: u64) -> Result<Vec<String>, Ending> {
        let mut pending = self.not_ready();
        let progress = self.0.progress.borrow().clone();
        let view = self.view();
        if progress.generation < generation {
            pending.push(format!("policy: generation {} of {generation}", progress.generation));
        }
        if view.generation < generation {
            pending.push(format!("bgp: generation {} of {generation}", view.generation));
        }
        let summary = self.0.routes.summary();
        if summary.held > 0 {
            pending.push(format!("routes: {} wait for the peers to come back", summary.held));
        }
        if summary.queued > 0 || summary.failed > 0 {
            pending.push(format!(
                "routes: {} of {} installed, {} refused",
                summary.installed, summary.desired, summary.failed
            ));
        }
        if pending.is_empty()
            && let Some(desired) = view.desired
        {
            let reports = self.routes().await?;
            let missing = desired.prefixes.iter().filter(|prefix| !is_written(&reports, prefix));
            pending.extend(missing.map(|prefix| format!("routes: own prefix {prefix}")));
        }
        Ok(pending)
    }

    async fn routes(&self) -> Result<Vec<RouteReport>, Ending> {
        self.0.routes.report().await.map_err(|_| Ending)
    }

    async fn policy(&self) -> Result<Snapshot, Ending> {
        let (sender, answer) = oneshot::channel();
        self.0.policy.send(Message::Ask(sender)).await.map_err(|_| Ending)?;
        answer.await.map_err(|_| Ending)
    }

    pub(super) async fn overview(&self) -> Result<Overview, Ending> {
        let policy = self.policy().await?;
        let view = self.view();
        let summary = self.0.routes.summary();
        let mut bgp = None;
        let mut traffic = Traffic::default();
        let mut peers = Vec::new();
        if let Some(speaker) = &view.speaker {
            let numbers = speaker.summary().await.map_err(|_| Ending)?;
            traffic = speaker.traffic();
            peers = self.peers().await?;
            bgp = Some(BgpStatus {
                asn: numbers.asn.0,
                router_id: numbers.router_id.to_string(),
                listen_port: traffic.listen_port,
                peers_established: number(numbers.peers_established),
                peers: number(numbers.peers),
                prefixes: views::count(numbers.prefixes),
                mesh: view.mesh.to_string(),
                reflectors: number(view.reflectors.1),
                reflectors_established: number(view.reflectors.0),
            });
        }
        let not_ready = self.unready();
        let progress = self.0.progress.borrow().clone();
        let status = Status {
            node: self.0.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.0.started.elapsed().as_secs_f64(),
            ready: not_ready.is_empty(),
            not_ready,
            store: self.0.store.clone(),
            desired_generation: view.generation.max(progress.generation),
            programmed_generation: progress.generation.min(view.generation),
            source: self.0.source.as_ref().map(|state| state.borrow().status()),
            bgp,
            routes: RouteStatus {
                desired: views::count(summary.desired),
                installed: views::count(summary.installed),
                failed: views::count(summary.failed),
                overridden: views::count(summary.overridden),
                repaired: summary.repaired,
            },
            policy: PolicyStatus {
                policies: policy.totals.policies,
                endpoints: policy.totals.endpoints,
                isolated: policy.totals.isolated,
                set_elements: policy.totals.set_elements,
                transactions: policy.totals.committed,
                refused: policy.totals.refused,
                repaired: policy.repaired,
            },
            problems: self.0.problems.list(),
        };
        let peers_configured = view.desired.iter().flat_map(|desired| &desired.config.peers);
        let limits = peers_configured
            .filter_map(|peer| Some((peer.name.clone(), peer.max_prefixes?)))
            .collect();
        Ok(Overview { status, traffic, peers, limits })
    }

    pub(super) async fn nodes(&self) -> Result<Vec<NodeView>, Ending> {
        let status = self.overview().await?.status;
        let view = self.view();
        let nodes = view.nodes.iter().map(|node| {
            let own = node.name == self.0.node;
            views::node(node, own.then(|| agent(&status)))
        });
        Ok(nodes.collect())
    }

    pub(super) async fn peers(&self) -> Result<Vec<PeerView>, Ending> {
        let Some(speaker) = self.view().speaker else { return Ok(Vec::new()) };
        let mut peers = speaker.peers().await.map_err(|_| Ending)?;
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(peers.into_iter().map(|peer| views::peer(&self.0.node, peer)).collect())
    }

    pub(super) async fn route_views(&self) -> Result<Vec<RouteView>, Ending> {
        let view = self.view();
        let Some(speaker) = &view.speaker else { return Ok(Vec::new()) };
        let routes = speaker.routes().await.map_err(|_| Ending)?;
        let reports = self.routes().await?;
        let answer = routes.into_iter().map(|route| {
            let found = reports.binary_search_by_key(&route.prefix, |report| report.prefix);
            let report = found.ok().and_then(|index| reports.get(index));
            views::route(&self.0.node, &view.nodes, route, report)
        });
        Ok(answer.collect())
    }

    pub(super) async fn policies(&self) -> Result<Vec<PolicyView>, Ending> {
        let policies = self.policy().await?.policies;
        Ok(policies.into_iter().map(|policy| views::policy(&self.0.node, policy)).collect())
    }

    pub(super) async fn endpoints(&self) -> Result<Vec<EndpointView>, Ending> {
        let endpoints = self.policy().await?.endpoints;
        Ok(endpoints.into_iter().map(|endpoint| views::endpoint(&self.0.node, endpoint)).collect())
    }
}

fn is_written(reports: &[RouteReport], prefix: &IpNet) -> bool {
    let found = reports.binary_search_by_key(prefix, |report| report.prefix);
    found.ok().and_then(|index| reports.get(index)).is_some_and(|report| {
        let there = |state: &RouteState| match state {
            RouteState::Installed | RouteState::Blackhole | RouteState::Overridden(_) => true,
            RouteState::Waiting | RouteState::Pending(_) | RouteState::Failed(_) => false,
        };
        there(&report.state)
    })
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn agent(status: &Status) -> AgentView {
    AgentView {
        version: status.version.clone(),
        ready: status.ready,
        peers_established: status.bgp.as_ref().map_or(0, |bgp| bgp.peers_established),
        peers: status.bgp.as_ref().map_or(0, |bgp| bgp.peers),
        routes: status.routes.installed,
        drift: status.routes.repaired.saturating_add(status.policy.repaired),
        desired_generation: status.desired_generation,
        programmed_generation: status.programmed_generation,
        endpoints: status.policy.endpoints,
        uptime_seconds: status.uptime_seconds,
    }
}

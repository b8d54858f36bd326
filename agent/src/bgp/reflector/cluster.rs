//! `rampart route-reflector --store STORE`: a reflector whose clients are the nodes of the cluster.
//!
//! It reads Nodes and BGPConfiguration, and needs nothing of the machine but a port: no privilege, no
//! file, no table. What it is to be, [`crate::config`] says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use api::agent_args::{LogFormat, Store};
use api::constant::{NAMESPACE, REFLECTOR_METRICS_ADDRESS, REFLECTOR_PORT};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::health::{self, State};
use super::{ReflectorError, log};
use crate::bgp::{DriverEvent, Options, SpeakerHandle};
use crate::config::Reconciler;
use crate::source::dir::{Batch, Watcher};
use crate::source::kube::Source;
use crate::source::kube::client::Connection;
use crate::source::{Event, Kind};
use crate::watchdog::Watchdog;

/// Arguments of a reflector of the cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterArgs {
    /// Name of the Node that the reflector runs on
    #[arg(long, value_name = "NAME", env = "RAMPART_NODE_NAME", default_value = "")]
    pub node_name: String,
    /// Namespace that Rampart runs in
    #[arg(long, value_name = "NAME", env = "RAMPART_NAMESPACE", default_value = NAMESPACE)]
    pub namespace: String,
    /// Directory of the snapshot of what was read, for a start without an API server. One that cannot
    /// be written to costs only that
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rampart-route-reflector")]
    pub state_dir: PathBuf,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS", default_value = REFLECTOR_METRICS_ADDRESS)]
    pub metrics_address: SocketAddr,
    /// Form of log lines
    #[arg(long, value_name = "FORMAT", env = "RAMPART_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Log from this level on, or directives such as `info,bgp=debug`
    #[arg(long, value_name = "LEVEL", env = "RAMPART_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Runs until a signal ends it.
pub(super) fn run(args: &ClusterArgs, store: &Store) -> Result<(), ReflectorError> {
    if args.node_name.is_empty() {
        return Err(ReflectorError::NodeName);
    }
    // Sources block in place while they read.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(ReflectorError::Start)?;
    let result = runtime.block_on(serve(args, store));
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    result
}

async fn serve(args: &ClusterArgs, store: &Store) -> Result<(), ReflectorError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ReflectorError::Start)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ReflectorError::Start)?;
    let (watchdog, mut ended) = Watchdog::new();
    let (batch_sender, mut batches) = mpsc::channel(16);
    // Nobody flushes; the source ends with the receiver of batches.
    let (_flush, flushes) = mpsc::channel(1);
    match store {
        Store::Directory(directory) => {
            let watcher = Watcher::new(directory.clone());
            watchdog.task("the store watcher", watcher.run(batch_sender, flushes));
        }
        Store::Kubernetes(kubeconfig) => {
            let opened = Connection::open(kubeconfig.as_deref()).await;
            let connection =
                opened.map_err(|error| ReflectorError::Store(store.to_string(), error))?;
            let (source, _) = Source::new(connection, &args.node_name, &args.state_dir);
            let source = source.limited_to(&[Kind::Node, Kind::BgpConfiguration]);
            watchdog.task("the store watcher", source.run(batch_sender, flushes));
        }
    }
    let (state_sender, state) = watch::channel(State::default());
    let listener = TcpListener::bind(args.metrics_address)
        .await
        .map_err(|error| ReflectorError::Health(args.metrics_address, error))?;
    watchdog.task("the health server", health::serve(listener, state));
    let (event_sender, mut events) = mpsc::channel(256);
    let mut reflector = Reflector {
        reconciler: Reconciler::new(&args.node_name, &args.namespace),
        unlisted: BTreeSet::from([Kind::Node, Kind::BgpConfiguration]),
        speaker: None,
        complaints: BTreeSet::new(),
        state: state_sender,
        events: event_sender,
        watchdog,
    };
    info!(node = %args.node_name, %store, pid = std::process::id(), "route reflector started");
    loop {
        tokio::select! {
            batch = batches.recv() => match batch {
                Some(batch) => reflector.take(batch).await?,
                None => return Err(ReflectorError::Ended),
            },
            Some(event) = events.recv() => log(&event),
            Some(name) = ended.recv() => return Err(ReflectorError::Task(name)),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    // Clients keep what they heard from us until there is a reflector again (RFC 4724).
    info!("route reflector ends");
    if let Some(speaker) = reflector.speaker {
        speaker.shutdown(false).await.map_err(|_| ReflectorError::Ended)?;
    }
    Ok(())
}

struct Reflector {
    reconciler: Reconciler,
    unlisted: BTreeSet<Kind>,
    speaker: Option<SpeakerHandle>,
    /// What was complained about last.
    complaints: BTreeSet<String>,
    state: watch::Sender<State>,
    events: mpsc::Sender<DriverEvent>,
    watchdog: Watchdog,
}

impl Reflector {
    async fn take(&mut self, batch: Batch) -> Result<(), ReflectorError> {
        let mut changed = false;
        for event in batch.events {
            changed |= self.reconciler.handle(&event);
            match &event {
                Event::Rejected(rejection) => warn!(
                    code = %rejection.code,
                    subject = %rejection.subject,
                    next = %rejection.next,
                    "{}",
                    rejection.message
                ),
                Event::RelistEnd(kind) => changed |= self.unlisted.remove(kind),
                Event::Apply(..)
                | Event::Delete(_)
                | Event::RelistBegin(_)
                | Event::Resolved(_) => {}
            }
        }
        if changed && self.unlisted.is_empty() {
            self.configure().await?;
        }
        Ok(())
    }

    async fn configure(&mut self) -> Result<(), ReflectorError> {
        let (plan, faults) = self.reconciler.reflector();
        let complaints: BTreeSet<String> = faults.iter().map(ToString::to_string).collect();
        for fault in &faults {
            if !self.complaints.contains(&fault.to_string()) {
                warn!(code = %fault.code, next = %fault.next, "{fault}");
            }
        }
        self.complaints = complaints;
        self.state.send_modify(|state| {
            state.listed = true;
            state.node_known |= plan.is_some();
        });
        // A Node that is gone does not take the reflector away from the others.
        let Some(plan) = plan else { return Ok(()) };
        let clients = plan.config.peers.len();
        match &self.speaker {
            Some(speaker) => speaker
                .configure(plan.config, REFLECTOR_PORT)
                .await
                .map_err(|_| ReflectorError::Ended)?,
            None => {
                let (speaker, mut events, _thread) =
                    crate::bgp::spawn(plan.config, REFLECTOR_PORT, None, Options::default())
                        .map_err(ReflectorError::Start)?;
                let sender = self.events.clone();
                // Ends with the speaker thread.
                self.watchdog.task("the speaker thread", async move {
                    while let Some(event) = events.recv().await {
                        if sender.send(event).await.is_err() {
                            return;
                        }
                    }
                });
                self.state.send_modify(|state| state.speaker = Some(speaker.clone()));
                self.speaker = Some(speaker);
            }
        }
        info!(clients, "clients configured");
        Ok(())
    }
}

//! Starts everything, and ends it.
//!
//! ```text
//! source       --Batch--> FanOut --Message--> PolicyTask <--> nft writer thread
//!      ^                  |    |                  ^   ^
//!      | flush            |    +--configure--> speaker thread --FibChange--> route thread
//!      |                  v                       |   |                         |
//! control server <--- watch::View            Interface Drift                RouteEvent
//!      |                                          |   |                         |
//!      +-- asks speaker, routes, policy           |   nft monitor thread        |
//!                                                 +------- Herald <-------------+
//! ```
//! The Herald turns what speaker and routes have to say into log lines and problems, and passes pod
//! interfaces on. Every channel is bounded; a full one makes the sender wait (inwards), or merge
//! (outwards: driver and route thread). One owner a state; what others may look at is a `watch`.
//!
//! On SIGTERM and SIGINT sockets are closed and the process ends with 0: routes and table stay.

mod lock;

use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::agent_args::{AgentArgs, Store};
use api::error_code;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::cni::gate::{Gate, GateTask};
use crate::cni::install::Installer;
use crate::cni::store::Store as Attachments;
use crate::control::{self, Core};
use crate::herald::Herald;
use crate::kernel::nft::{Monitor, NftWriter, SocketError};
use crate::kernel::{address, route, sysctl, vxlan};
use crate::observe::problems::Complaint;
use crate::observe::{Area, Problems, Recorder};
use crate::overlay;
use crate::reconcile::{FanOut, View};
use crate::reconcile_policy::{Message, PolicyTask};
use crate::report;
use crate::source::dir::Watcher;
use crate::source::kube::client::{ClientError, Connection};
use crate::source::kube::{Secrets, Source};
use crate::watchdog::Watchdog;
pub(crate) use lock::lock_namespace;

/// After a restart, routes found in the kernel are left alone until all peers are back, but no
/// longer than this: as long as a reflector that has restarted as well waits for its clients.
const HOLD_ADOPTED: Duration = bgp::speaker::DEFERRAL;
/// A peer without graceful restart never says that it has told everything; then all peers are back
/// when they are Established and nothing came in for so long. Also how often we look.
const QUIET: Duration = Duration::from_millis(200);
/// How long the monitor thread sleeps before it looks whether it is still wanted.
const MONITOR_WAIT: Duration = Duration::from_secs(1);

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The run directory is not usable.
    #[error("cannot use run directory {0}")]
    RunDirectory(PathBuf, #[source] io::Error),
    /// The state directory is not usable.
    #[error("cannot use state directory {0}")]
    StateDirectory(PathBuf, #[source] io::Error),
    /// Another agent holds the lock.
    #[error("another agent (pid {pid}) uses run directory {}", directory.display())]
    Running {
        /// Its process id as it wrote it.
        pid: String,
        /// The directory.
        directory: PathBuf,
    },
    /// The control socket cannot be opened.
    #[error("cannot open control socket {0}")]
    ControlSocket(PathBuf, #[source] io::Error),
    /// nf_tables is not there, or not for us.
    #[error("cannot open nf_tables (CAP_NET_ADMIN is needed)")]
    Tables(#[source] SocketError),
    /// rtnetlink is not there, or not for us.
    #[error("cannot open rtnetlink (CAP_NET_ADMIN is needed)")]
    Routes(#[source] route::NetlinkError),
    /// Another agent runs in this network namespace, whatever its run directory.
    #[error("another agent runs in this network namespace; two would undo each other's work")]
    NamespaceTaken(#[source] io::Error),
    /// The API server cannot be asked.
    #[error("cannot use store {0}")]
    Store(String, #[source] ClientError),
    /// A thread or the runtime cannot be started.
    #[error("cannot start {0}")]
    Thread(&'static str, #[source] io::Error),
    /// Something that must not end has ended.
    #[error("{0} ended unexpectedly; routes and table stay, start the agent again")]
    Ended(&'static str),
}

/// Why the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A signal: all that it wrote stays.
    Signal,
    /// It was asked to leave the node: the caller cleans up.
    Uninstall,
}

/// Starts a task whose end nobody waits for; it ends with the channel it reads from.
pub fn spawn(
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        task.await;
        tracing::debug!(task = name, "task ended");
    })
}

/// Runs the agent until a signal ends it, or a request to leave the node.
///
/// # Errors
/// It could not start.
pub fn run(args: &AgentArgs) -> Result<End, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| StartError::Thread("the runtime", error))?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::new().map_err(|error| StartError::Thread("signal handling", error))?
    };
    let taken = runtime.block_on(async {
        tokio::select! {
            locks = lock::take(&args.run_dir, lock::PATIENCE) => locks.map(Some),
            signal = signals.next() => {
                info!(signal, "agent ends before it has started");
                Ok(None)
            }
        }
    });
    // Held until all threads have ended with the process.
    let Some(_locks) = taken? else { return Ok(End::Signal) };
    let result = runtime.block_on(serve(args, signals));
    // Threads and tasks end with the process; nothing they hold is lost on the kernel's side.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// What ends the agent in order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    /// Name of the next one. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn serve(args: &AgentArgs, mut signals: Signals) -> Result<End, StartError> {
    let socket = args.run_dir.join(api::constant::SOCKET_NAME);
    let listener =
        control::bind(&socket).map_err(|error| StartError::ControlSocket(socket.clone(), error))?;
    let (watchdog, mut ended) = Watchdog::new();
    let connection = match &args.store {
        Store::Directory(_) => None,
        Store::Kubernetes(kubeconfig) => {
            let opened = Connection::open(kubeconfig.as_deref()).await;
            Some(opened.map_err(|error| StartError::Store(args.store.to_string(), error))?)
        }
    };
    let core = start(args, connection.as_ref(), &watchdog)?.with_cni_of(args);
    serve_control(args, &core, listener).await;
    if let Some(connection) = connection {
        report(args, connection, &core, &watchdog);
    }
    info!(node = %args.node_name, store = %args.store, pid = std::process::id(), "agent started");
    let mut end = End::Signal;
    tokio::select! {
        signal = signals.next() => info!(signal, "agent ends; routes and table stay"),
        () = core.left() => {
            info!("agent leaves the node; all that it wrote is removed");
            end = End::Uninstall;
        }
        Some(name) = ended.recv() => {
            remove_socket(&socket);
            return Err(StartError::Ended(name));
        }
    }
    let speaker = core.view().speaker;
    // Peers of a node that is left must not wait for it to come back.
    if let Some(speaker) = speaker {
        if speaker.shutdown(end == End::Uninstall).await.is_err() {
            warn!("the speaker thread had ended before");
        } else if end == End::Uninstall {
            // There is no answer any more: it waits until the thread has told the peers.
            let told = tokio::time::timeout(Duration::from_secs(1), speaker.peers()).await;
            info!(in_time = told.is_ok(), "peers were told");
        }
    }
    remove_socket(&socket);
    Ok(end)
}

fn remove_socket(socket: &Path) {
    if let Err(error) = fs::remove_file(socket) {
        warn!(%error, "control socket cannot be removed");
    }
}

/// Starts all threads and tasks but those that serve requests. `connection` leads to the API server
/// where that is the store.
fn start(
    args: &AgentArgs,
    connection: Option<&Connection>,
    watchdog: &Watchdog,
) -> Result<Core, StartError> {
    let problems = Problems::default();
    let recorder = Recorder::default();
    sysctl::enable_forwarding(&problems);
    watchdog.task("the watch of forwarding", sysctl::keep_forwarding(problems.clone()));
    let options = route::Options { hold_adopted: true, ..route::Options::default() };
    let unwatched = |error| StartError::Thread("a watchdog", error);
    let (routes, route_events, thread) = route::spawn(options).map_err(StartError::Routes)?;
    watchdog.thread("the route thread", thread).map_err(unwatched)?;
    let writer = NftWriter::open().map_err(StartError::Tables)?;
    let port = writer.port();
    let (writer, thread) = writer.spawn().map_err(|e| StartError::Thread("the nft writer", e))?;
    watchdog.thread("the nft writer", thread).map_err(unwatched)?;

    let (policy_sender, policy_inbox) = mpsc::channel(16);
    let (mut policy_task, progress) =
        PolicyTask::new(&args.node_name, writer, routes.clone(), problems.clone());
    let (gate_task, gate) = attachments(args, &policy_sender, &problems)?;
    policy_task.attach(gate_task.events());
    watch_table(port, policy_sender.clone())?;
    let (bgp_sender, bgp_events) = mpsc::channel(256);
    let (fan_out, view) = FanOut::new(
        &args.node_name,
        &args.namespace,
        routes.clone(),
        policy_sender.clone(),
        problems.clone(),
        bgp_sender,
        watchdog.clone(),
    );
    let secrets = fan_out.secrets();
    let (links, _) =
        address::watch().map_err(|error| StartError::Thread("the address watch", error))?;
    let (batch_sender, batches) = mpsc::channel(4);
    let (flush_sender, flushes) = mpsc::channel(16);
    let (installer, network) =
        Installer::new(args, view.clone(), progress.clone(), problems.clone());
    watchdog.task("the installer", installer.run());
    watchdog.task("the task of attachments", gate_task.run());
    watchdog.task("the policy task", policy_task.with_recorder(recorder.clone()).run(policy_inbox));
    watchdog.task("the fan-out task", fan_out.run(batches, links));
    let source = match (&args.store, connection) {
        (Store::Directory(directory), _) => {
            let memory = args.run_dir.join("last-good");
            let watcher = Watcher::new(directory.clone()).with_memory(memory);
            watchdog.task("the store watcher", watcher.run(batch_sender, flushes));
            None
        }
        (Store::Kubernetes(_), Some(connection)) => {
            let (source, state) = Source::new(connection.clone(), &args.node_name, &args.state_dir);
            let secrets = Secrets::new(&args.namespace, secrets, &args.run_dir);
            let source = source.with_secrets(secrets).with_recorder(recorder.clone());
            watchdog.task("the Kubernetes source", source.run(batch_sender, flushes));
            Some(state)
        }
        // `serve` opens one for every such store.
        (Store::Kubernetes(_), None) => None,
    };
    let herald = Herald::new(
        problems.clone(),
        recorder.clone(),
        view.clone(),
        policy_sender.clone(),
        routes.clone(),
        gate.clone(),
    );
    watchdog.task("the herald", herald.run(bgp_events, route_events));
    let (overlay_changes, _) =
        vxlan::watch().map_err(|error| StartError::Thread("the overlay watch", error))?;
    let keeper = overlay::Keeper::new(view.clone(), routes.clone(), problems.clone());
    watchdog.task("the overlay task", keeper.run(overlay_changes));
    spawn("release", release_routes(routes.clone(), view.clone()));
    let (asked, peers_asked) = watch::channel(false);
    spawn("readiness", control::readiness::peers_had_their_chance(view.clone(), asked));
    Ok(Core::new(control::Parts {
        node: args.node_name.clone(),
        store: args.store.to_string(),
        started: Instant::now(),
        problems,
        events: report::Events::new(recorder.clone()),
        recorder,
        view,
        progress,
        routes,
        peers_asked,
        policy: policy_sender,
        flush: flush_sender,
        source,
        gate,
        network,
    }))
}

/// Attachments that an earlier agent has left, and the task that owns them from now on.
fn attachments(
    args: &AgentArgs,
    policy: &mpsc::Sender<Message>,
    problems: &Problems,
) -> Result<(GateTask, Gate), StartError> {
    let failed = |error| StartError::StateDirectory(args.state_dir.clone(), error);
    let store = Attachments::open(&args.state_dir).map_err(failed)?;
    GateTask::new(store, policy.clone(), problems).map_err(failed)
}

/// Tells the API server how the node is and what happens on it.
fn report(args: &AgentArgs, connection: Connection, core: &Core, watchdog: &Watchdog) {
    let parts = report::Parts {
        node: args.node_name.clone(),
        namespace: args.namespace.clone(),
        clients: Arc::new(move || connection.client()),
        core: core.clone(),
        node_status: args.node_status,
    };
    report::start(&parts, watchdog);
}

/// Opens both doors: the control socket, and the address of metrics.
async fn serve_control(args: &AgentArgs, core: &Core, listener: UnixListener) {
    let path = args.run_dir.join(api::constant::SOCKET_NAME);
    spawn("control", control::serve_socket(listener, path, core.clone()));
    match TcpListener::bind(args.metrics_address).await {
        Ok(listener) => {
            spawn("metrics", control::serve_metrics(listener, core.clone()));
        }
        Err(error) => {
            let message = format!("cannot listen on {}: {error}", args.metrics_address);
            let complaint = Complaint::new(error_code::METRICS_LISTEN_FAILED, "metrics", message);
            core.problems().raise(Area::Host, "metrics", complaint);
        }
    }
}

/// Listens for changes of our table by others.
fn watch_table(own_port: u32, policy: mpsc::Sender<Message>) -> Result<(), StartError> {
    let failed = |error| StartError::Thread("the nft monitor", error);
    let mut monitor = Monitor::open(own_port).map_err(failed)?;
    let watch = move || {
        while !policy.is_closed() {
            match monitor.wait(MONITOR_WAIT) {
                Ok(None) => {}
                Ok(Some(drift)) => {
                    if policy.blocking_send(Message::Drift(drift)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    warn!(%error, "changes of the table by others are not noticed any more");
                    return;
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("nft-monitor".to_owned());
    thread.spawn(watch).map(drop).map_err(failed)
}

/// Lets the route thread change what it found at start, as soon as the peers have told us again
/// what they know.
async fn release_routes(routes: route::Routes, mut view: watch::Receiver<View>) {
    let configured = view.wait_for(|view| view.speaker.is_some()).await;
    let Some(speaker) = configured.ok().and_then(|view| view.speaker.clone()) else { return };
    // Before that it is not known whether there are any.
    if routes.wait_for(|summary| summary.in_sync).await.is_err() {
        return;
    }
    let deadline = tokio::time::Instant::now() + HOLD_ADOPTED;
    let mut quiet_octets = None;
    while routes.summary().held > 0 && tokio::time::Instant::now() < deadline {
        let Ok(peers) = speaker.peers().await else { return };
        let octets = speaker.traffic().octets_in;
        let told = peers.iter().all(has_told_all);
        let certain = peers.iter().all(|peer| peer.restart.negotiated);
        if told && (certain || quiet_octets == Some(octets)) {
            break;
        }
        quiet_octets = told.then_some(octets);
        tokio::time::sleep(QUIET).await;
    }
    info!(held = routes.summary().held, "routes found at start may be changed now");
    if routes.release().await.is_err() {
        warn!("the route thread has ended");
    }
}

/// A session that is up is not enough: a busy router sends its first route some time later. With
/// graceful restart it says when it has sent all of a family (End-of-RIB, RFC 4724); without, each
/// family takes at least one UPDATE, with routes or to say that there are none. A peer that sends
/// neither costs no more than the whole of [`HOLD_ADOPTED`].
fn has_told_all(peer: &bgp::view::PeerView) -> bool {
    let families = u64::try_from(peer.families.len()).unwrap_or(u64::MAX);
    let told = if peer.restart.negotiated {
        peer.families.iter().all(|family| peer.end_of_rib.contains(family))
    } else {
        peer.messages_received.update >= families
    };
    peer.state == bgp::view::SessionState::Established && told
}

//! `rampart cleanup`: takes everything off the node that Rampart has put there, and nothing else.
//!
//! | what | how it is known to be ours |
//! |---|---|
//! | network list | its file name, and the network name inside |
//! | plugin | its file name |
//! | overlay interface | its name and type |
//! | routes | protocol number [`api::constant::ROUTE_PROTOCOL`] |
//! | policy | the name of the table |
//! | attachments, snapshot | they are in the state directory, which is the agent's alone |
//! | addresses of pods | host-local's directory of our network's name; only when no pod of ours is left |
//!
//! Pods stay: their interfaces, addresses and host routes (protocol [`POD_ROUTE_PROTOCOL`]) are not
//! touched, so what runs on the node can still talk to each other; the kernel takes the routes away
//! with the pod. It cannot be reached from other nodes any more, no policy is in force, and pods are
//! neither started nor deleted until another network plugin is there.
//!
//! A running agent is asked for it (`POST /v1/uninstall`). It then replaces itself by this command:
//! so that nothing of it can write again, without knowing what there is that writes. The command
//! holds the pod alive and answers, until the pod is deleted. Where there is no agent any more,
//! `rctl uninstall` runs it in pods of its own.

mod hold;

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use api::agent_args::AgentArgs;
#[cfg(doc)]
use api::constant::POD_ROUTE_PROTOCOL;
use api::constant::{
    CNI_CONFLIST, CNI_NETWORK, CNI_PLUGIN, HOST_MOUNT, METRICS_ADDRESS, OVERLAY_INTERFACE,
    ROUTE_PROTOCOL, RUN_DIR, STATE_DIR,
};
use api::control::Uninstalled;
use clap::Args as Arguments;
use tracing::{error, info, warn};

use crate::kernel::{nft, route};

/// Examples of the command.
pub const HELP: &str = "\
Examples:
  rampart cleanup
  rampart cleanup --cni-bin-dir /opt/cni/bin --cni-conf-dir /etc/cni/net.d --ipam-dir /var/lib/cni/networks/rampart

Exit code: 0 nothing of ours is left, 1 something could not be removed.";

/// Arguments of `rampart cleanup`.
#[derive(Clone, Debug, Arguments)]
pub struct Args {
    /// Run directory of the agent
    #[arg(long, value_name = "DIR", env = "RAMPART_RUN_DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// State directory of the agent: all in it is removed
    #[arg(long, value_name = "DIR", env = "RAMPART_STATE_DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
    /// Directory that the CNI plugin is removed from
    #[arg(long, value_name = "DIR", env = "RAMPART_CNI_BIN_DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Directory that the CNI network list is removed from
    #[arg(long, value_name = "DIR", env = "RAMPART_CNI_CONF_DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Directory of the addresses that host-local gave to our pods: removed if no pod is left
    #[arg(long, value_name = "DIR", env = "RAMPART_IPAM_DIR")]
    pub ipam_dir: Option<PathBuf>,
    /// Stay after that, in the place of the agent: answer on a socket in DIR, and to its probes
    #[arg(long, value_name = "DIR", hide = true)]
    pub hold: Option<PathBuf>,
    /// Address of /healthz with --hold
    #[arg(long, hide = true, default_value = METRICS_ADDRESS)]
    pub metrics_address: std::net::SocketAddr,
}

/// Why it cannot begin, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// An agent runs.
    #[error(
        "an agent runs in this network namespace and would put everything back: ask it with \
         `rampart control POST /v1/uninstall`, or end it first"
    )]
    AgentRuns(#[source] io::Error),
    /// The agent cannot be replaced.
    #[error("cannot start {}", .0.display())]
    Replace(PathBuf, #[source] io::Error),
    /// The place of the agent cannot be taken.
    #[error("cannot {0}")]
    Hold(&'static str, #[source] io::Error),
}

/// Cleans the node. With `--hold` it ends with SIGTERM only.
///
/// # Errors
/// See [`CleanupError`]. That something could not be removed is an exit code.
pub fn run(args: &Args) -> Result<ExitCode, CleanupError> {
    let _namespace = crate::runtime::lock_namespace()
        .map_err(|error| CleanupError::AgentRuns(io::Error::other(error)))?;
    let mut result = clean(args);
    // What answers there meanwhile cannot be removed yet.
    if args.hold.as_ref() != Some(&args.run_dir) {
        let mut log = Log(result);
        empty_directory(&args.run_dir, &mut log);
        result = log.0;
    }
    if let Some(directory) = &args.hold {
        hold::run(directory, args.metrics_address, &result)?;
        empty_directory(directory, &mut Log::default());
    }
    Ok(if result.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Replaces this process, an agent, by `rampart cleanup --hold`: all its threads end at once.
///
/// # Errors
/// It cannot be replaced; returns only then.
pub fn replace_agent(args: &AgentArgs) -> Result<std::convert::Infallible, CleanupError> {
    let own = PathBuf::from("/proc/self/exe");
    let mut command = Command::new(&own);
    command.arg0("rampart").arg("cleanup").arg("--hold").arg(&args.run_dir);
    command.arg("--run-dir").arg(&args.run_dir).arg("--state-dir").arg(&args.state_dir);
    command.arg("--metrics-address").arg(args.metrics_address.to_string());
    if let Some(directory) = &args.cni_bin_dir {
        command.arg("--cni-bin-dir").arg(directory);
    }
    if let Some(directory) = &args.cni_conf_dir {
        command.arg("--cni-conf-dir").arg(directory);
    }
    Err(CleanupError::Replace(own, command.exec()))
}

/// Removes everything, in the order in which it does least harm: first what makes the kubelet start
/// pods here, then the ways, then the policy.
fn clean(args: &Args) -> Uninstalled {
    let mut log = Log::default();
    if let Some(directory) = &args.cni_conf_dir {
        log.note(remove_conflist(&directory.join(CNI_CONFLIST)));
        log.note(remove_file(&directory.join(format!(".{CNI_CONFLIST}.new"))));
    }
    if let Some(directory) = &args.cni_bin_dir {
        log.note(remove_file(&directory.join(CNI_PLUGIN)));
        log.note(remove_file(&directory.join(format!(".{CNI_PLUGIN}.new"))));
    }
    let link = format!("interface {OVERLAY_INTERFACE}");
    log.note(one(&link, route::sweep_link(OVERLAY_INTERFACE)));
    match route::sweep_routes() {
        Ok(prefixes) => {
            for prefix in prefixes {
                log.note(Step::Removed(format!("route {prefix} (protocol {ROUTE_PROTOCOL})")));
            }
        }
        Err(error) => log.note(failed("routes", &error)),
    }
    log.note(one("table inet rampart", nft::inventory::delete_own_table()));
    empty_directory(&args.state_dir, &mut log);
    pods_that_remain(args.ipam_dir.as_deref(), &mut log);
    let mut result = log.0;
    result.done = true;
    info!(removed = result.removed.len(), failed = result.failed.len(), "node cleaned");
    result
}

/// A pod that runs keeps its routes, which are of no use to anybody else and go with its interface.
/// Its addresses stay taken: whoever installs Rampart again must not give them to another pod.
fn pods_that_remain(addresses: Option<&Path>, log: &mut Log) {
    let remains = match route::pod_remains() {
        Ok(remains) => remains,
        Err(error) => return log.note(failed("routes of pods", &error)),
    };
    log.0.pod_routes = remains.routes.iter().map(ToString::to_string).collect();
    let Some(directory) = addresses else { return };
    let pods = remains.interfaces;
    if pods == 0 && remains.routes.is_empty() {
        empty_directory(directory, log);
    } else if directory.exists() {
        log.note(Step::Kept(format!(
            "{}: addresses of {pods} pods that still run; clean again when they have ended",
            shown(directory)
        )));
    }
}

/// A path as it is on the node, not as a pod has it mounted.
fn shown(path: &Path) -> String {
    match path.strip_prefix(HOST_MOUNT) {
        Ok(rest) => format!("/{}", rest.display()),
        Err(_) => path.display().to_string(),
    }
}

/// What became of one thing.
#[derive(Debug)]
enum Step {
    Absent,
    Removed(String),
    Kept(String),
    Failed(String),
}

#[derive(Debug, Default)]
struct Log(Uninstalled);

impl Log {
    fn note(&mut self, step: Step) {
        match step {
            Step::Absent => {}
            Step::Removed(what) => {
                info!(what, "removed");
                self.0.removed.push(what);
            }
            Step::Kept(what) => {
                warn!(what, "left alone");
                self.0.kept.push(what);
            }
            Step::Failed(what) => {
                error!(what, "cannot be removed");
                self.0.failed.push(what);
            }
        }
    }
}

fn failed(what: &str, error: &dyn std::error::Error) -> Step {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    Step::Failed(text)
}

fn one<E: std::error::Error>(what: &str, result: Result<bool, E>) -> Step {
    match result {
        Ok(true) => Step::Removed(what.to_owned()),
        Ok(false) => Step::Absent,
        Err(error) => failed(what, &error),
    }
}

fn remove_file(path: &Path) -> Step {
    match fs::remove_file(path) {
        Ok(()) => Step::Removed(shown(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Step::Absent,
        Err(error) => failed(&shown(path), &error),
    }
}

/// A list of that name whose network is another one was put there by somebody else.
fn remove_conflist(path: &Path) -> Step {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Step::Absent,
        Err(error) => return failed(&shown(path), &error),
    };
    let network = serde_json::from_slice::<serde_json::Value>(&text)
        .ok()
        .and_then(|list| list.get("name").and_then(|name| name.as_str().map(str::to_owned)));
    match network {
        Some(name) if name != CNI_NETWORK => {
            Step::Kept(format!("{}: its network is {name}, not {CNI_NETWORK}", shown(path)))
        }
        // A damaged one under our name is ours.
        _ => remove_file(path),
    }
}

/// The directory is a mount of the pod: what is in it goes, and it itself if it can.
fn empty_directory(directory: &Path, log: &mut Log) {
    if directory.components().count() < 3 {
        log.note(Step::Kept(format!("{}: no directory of an agent", shown(directory))));
        return;
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return log.note(failed(&shown(directory), &error)),
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let result = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        log.note(match result {
            Ok(()) => Step::Removed(shown(&path)),
            Err(error) => failed(&shown(&path), &error),
        });
    }
    // A mount point cannot be removed: the empty directory is the kubelet's.
    if fs::remove_dir(directory).is_ok() {
        log.note(Step::Removed(shown(directory)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn only_our_own_network_list_is_removed() {
        let directory = directory("rampart-cleanup-list");
        let path = directory.join(CNI_CONFLIST);
        assert!(matches!(remove_conflist(&path), Step::Absent));
        fs::write(&path, r#"{"name": "somebody-else"}"#).unwrap();
        let Step::Kept(why) = remove_conflist(&path) else { panic!() };
        assert!(why.contains("somebody-else") && path.exists(), "{why}");
        for content in [format!(r#"{{"name": "{CNI_NETWORK}"}}"#), "half a fi".to_owned()] {
            fs::write(&path, content).unwrap();
            assert!(matches!(remove_conflist(&path), Step::Removed(_)));
            assert!(!path.exists());
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_state_directory_is_emptied_and_the_second_time_there_is_nothing_to_do() {
        let state = directory("rampart-cleanup-state").join("rampart");
        fs::create_dir_all(state.join("attachments")).unwrap();
        fs::write(state.join("attachments/a.json"), "{}").unwrap();
        fs::write(state.join("snapshot"), "").unwrap();
        let mut log = Log::default();
        empty_directory(&state, &mut log);
        assert_eq!(log.0.removed.len(), 3, "{:?}", log.0);
        assert!(!state.exists());
        let mut again = Log::default();
        empty_directory(&state, &mut again);
        assert_eq!(again.0, Uninstalled::default());
        fs::remove_dir_all(state.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_root_directory_is_not_emptied() {
        for path in ["/", "/var"] {
            let mut log = Log::default();
            empty_directory(Path::new(path), &mut log);
            assert_eq!((log.0.removed.len(), log.0.kept.len()), (0, 1), "{path}");
        }
    }
}

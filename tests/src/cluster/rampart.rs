//! Rampart on a cluster, as its users install it: the image in every node, `kubectl apply`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use api::constant::{NAMESPACE, RUN_DIR, SOCKET_NAME};
use ctl::client::Client;
use serde::de::DeserializeOwned;

use super::Cluster;
use super::node::Node;

/// The DaemonSet.
pub const AGENT: &str = "daemonset/rampart-agent";
/// How long an agent may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a rollout may take.
const ROLLOUT: Duration = Duration::from_secs(120);

/// The repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The image under test: `RAMPART_IMAGE`, or made once by `deploy/image --debug`.
///
/// # Errors
/// When it cannot be made.
pub fn image() -> anyhow::Result<PathBuf> {
    static MADE: Mutex<Option<PathBuf>> = Mutex::new(None);
    if let Some(path) = std::env::var_os("RAMPART_IMAGE") {
        return Ok(PathBuf::from(path));
    }
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = &*made {
        return Ok(path.clone());
    }
    let archive = repository().join("target/rampart-debug-image.tar");
    let script = repository().join("deploy/image");
    let mut command = Command::new(&script);
    command.arg("--debug").arg(&archive).stdout(Stdio::null());
    let status = command.status().with_context(|| script.display().to_string())?;
    ensure!(status.success(), "the image does not build");
    Ok(made.insert(archive).clone())
}

/// `deploy/install.yaml`.
///
/// # Errors
/// When it cannot be read.
pub fn manifests() -> anyhow::Result<String> {
    deploy("install.yaml")
}

/// `deploy/route-reflector.yaml`.
///
/// # Errors
/// When it cannot be read.
pub fn reflector_manifests() -> anyhow::Result<String> {
    deploy("route-reflector.yaml")
}

fn deploy(file: &str) -> anyhow::Result<String> {
    let path = repository().join("deploy").join(file);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

impl Cluster {
    /// Loads the image and applies `deploy/install.yaml`: what a user does.
    ///
    /// # Errors
    /// When the API server refuses something.
    pub fn install_rampart(&self) -> anyhow::Result<()> {
        self.load_image(&image()?)?;
        self.apply(&manifests()?)
    }

    /// Loads the image into one node, as a node that joins later has it.
    ///
    /// # Errors
    /// When it cannot be made or is not taken.
    pub fn load_rampart(&self, node: &Node<'_>) -> anyhow::Result<()> {
        node.load_image(&image()?)
    }

    /// Waits until the DaemonSet is rolled out: every agent is ready.
    ///
    /// # Errors
    /// When it is not in time; the error has what the pods are doing.
    pub fn wait_agents(&self) -> anyhow::Result<()> {
        self.wait_rollout(AGENT)
    }

    /// Waits until a workload of Rampart's is rolled out.
    ///
    /// # Errors
    /// When it is not in time; the error has what the pods are doing.
    pub fn wait_rollout(&self, workload: &str) -> anyhow::Result<()> {
        let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
        let rollout = self.kubectl(&["rollout", "status", "-n", NAMESPACE, workload, &timeout]);
        if let Err(error) = rollout {
            let pods = self.kubectl(&["describe", "pods", "-n", NAMESPACE]).unwrap_or_default();
            let logs = ["logs", "-n", NAMESPACE, workload, "--all-pods", "--tail=30"];
            let logs = self.kubectl(&logs).unwrap_or_default();
            return Err(error.context(format!("{pods}\n{logs}")));
        }
        Ok(())
    }

    /// Logs of all agents since they started.
    ///
    /// # Errors
    /// When a kubelet does not give them.
    pub fn agent_logs(&self) -> anyhow::Result<String> {
        self.kubectl(&["logs", "-n", NAMESPACE, AGENT, "--all-pods", "--prefix"])
    }
}

impl Node<'_> {
    /// Asks the node's agent over its control socket.
    ///
    /// # Errors
    /// When it does not answer, or with an error.
    pub fn agent<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        // The node's own /run, seen through its first process.
        let run = format!("/proc/{}/root{RUN_DIR}", self.init_pid()?);
        let client = Client::new(&Path::new(&run).join(SOCKET_NAME), LIMIT);
        Ok(client.get_blocking(path)?)
    }

    /// Pid, as the node counts, of the agent's process.
    ///
    /// # Errors
    /// When there is none.
    pub fn agent_pid(&self) -> anyhow::Result<u32> {
        // What the agent itself says counts as its container does.
        let processes = self.exec(&["pgrep", "-f", "^[^ ]*/rampart agent"])?;
        let mut pids = processes.lines().filter_map(|line| line.trim().parse().ok());
        pids.next().context("no agent process")
    }

    /// The node's ruleset and routes, as text that is the same as long as nothing changes:
    /// without counters, timers and the order in which the kernel happens to dump.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn dataplane(&self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for command in [
            &["nft", "-s", "list", "table", "inet", "rampart"][..],
            &["ip", "route", "show", "proto", "82"],
            &["ip", "-6", "route", "show", "proto", "82"],
        ] {
            let text = self.exec(command)?;
            lines.extend(text.lines().map(|line| line.trim().to_owned()));
        }
        lines.sort();
        Ok(lines)
    }
}

//! Rampart on a cluster, as its users install it: the image in every node, `kubectl apply`.

use std::path::{Path, PathBuf};
use std::process::Command;
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

/// The image under test: `RAMPART_IMAGE`, or made now by `deploy/image`.
///
/// # Errors
/// When it cannot be made.
pub fn image() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("RAMPART_IMAGE") {
        return Ok(PathBuf::from(path));
    }
    let script = repository().join("deploy/image");
    let status = Command::new(&script).status().with_context(|| script.display().to_string())?;
    ensure!(status.success(), "the image does not build");
    Ok(repository().join("target/rampart-image.tar"))
}

/// `deploy/install.yaml`.
///
/// # Errors
/// When it cannot be read.
pub fn manifests() -> anyhow::Result<String> {
    let path = repository().join("deploy/install.yaml");
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The manifests of an installation, with the address of the API server that agents use before
/// there is a service network, as `rctl install` and the chart set it.
///
/// # Errors
/// When they cannot be read.
pub fn manifests_for(host: &str, port: u16) -> anyhow::Result<String> {
    let text = manifests()?;
    let mut lines = Vec::new();
    for line in text.lines() {
        lines.push(line.to_owned());
        // The first variable of each container's environment.
        if line.trim() == "env:" {
            let indent = line.len() - line.trim_start().len();
            for (name, value) in [
                ("KUBERNETES_SERVICE_HOST", host.to_owned()),
                ("KUBERNETES_SERVICE_PORT", port.to_string()),
            ] {
                lines.push(format!(
                    "{:indent$}- name: {name}\n{:indent$}  value: \"{value}\"",
                    "", ""
                ));
            }
        }
    }
    Ok(lines.join("\n") + "\n")
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
        let status: api::control::Status = self.agent("/v1/status")?;
        let processes = self.exec(&["pgrep", "-x", "rampart"])?;
        // A pid that a container tells is its own; with hostNetwork alone that is not the node's.
        let mut pids = processes.lines().filter_map(|line| line.trim().parse().ok());
        pids.next().with_context(|| format!("no agent process (it says {})", status.pid))
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

//! A real Kubernetes cluster on this machine, in namespaces: etcd, API server, controllers,
//! scheduler, and a kubelet with containerd and runc for every node, on a fabric of its own.
//!
//! Several clusters can be up at once. Nothing of one touches the network of the machine; a
//! command reaches it from inside its namespaces. A cluster of a test goes with the test, however
//! that ends: another process ([`life::guard`]) sees it end and cleans up.

pub mod api;
#[expect(clippy::indexing_slicing, reason = "JSON values answer null")]
pub mod bench;
pub mod cgroup;
pub mod control_plane;
pub mod fabric;
pub mod fault_proxy;
pub mod image;
pub mod life;
pub mod name;
pub mod node;
pub mod outage;
pub mod pki;
pub mod pod;
pub mod probe;
pub mod process;
pub mod programs;
pub mod rampart;
pub mod reference;
#[expect(clippy::indexing_slicing, reason = "JSON values answer null")]
pub mod scale;
pub mod scenario;
#[expect(clippy::indexing_slicing, reason = "JSON values answer null")]
pub mod service_scenario;
pub mod upstream;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use ctl::lab::namespace;
use serde::{Deserialize, Serialize};

use self::fabric::Fabric;
use self::name::Name;
use self::node::{Node, Record};
use self::pki::Pki;
use self::programs::Programs;

/// How services reach their backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Proxy {
    /// kube-proxy in its iptables mode.
    #[default]
    Iptables,
    /// kube-proxy in its nftables mode.
    Nftables,
    /// No kube-proxy.
    None,
}

/// The network that the nodes begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Cni {
    /// None: Rampart brings its own.
    #[default]
    None,
    /// The plugins `ptp`, `host-local` and `portmap` with static routes: pods reach each other, no
    /// policy. It proves the harness, and is what Rampart's gate is chained after.
    Reference,
}

/// What kind of cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Its name.
    pub name: Name,
    /// Nodes at the beginning.
    pub nodes: u8,
    /// What they are plugged into.
    pub fabric: Fabric,
    /// How services reach their backends.
    pub proxy: Proxy,
    /// The network that the nodes begin with.
    pub cni: Cni,
    /// Goes with this process. Otherwise it stays until somebody takes it down.
    pub goes_with_us: bool,
}

impl Options {
    /// Two nodes on one subnet, kube-proxy in iptables mode, no network; goes with the process.
    #[must_use]
    pub fn of_a_test() -> Self {
        Self {
            name: Name::unique(),
            nodes: 2,
            fabric: Fabric::Flat,
            proxy: Proxy::Iptables,
            cni: Cni::None,
            goes_with_us: true,
        }
    }
}

/// What another process needs to know of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    options: Options,
    nodes: Vec<Record>,
    /// Pid and start time of who it goes with.
    owner: Option<(i32, u64)>,
}

/// A cluster that is up.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    owner: Option<(i32, u64)>,
    /// Nodes come and go while others are used.
    nodes: Mutex<Vec<Record>>,
    programs: Programs,
    /// Ends when we do; then it cleans up.
    guard: Option<Child>,
}

impl Cluster {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.options.name
    }

    /// What kind of cluster.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Directory of its certificates, logs and data.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.name().directory()
    }

    /// Its authority.
    #[must_use]
    pub fn pki(&self) -> Pki {
        Pki::at(self.directory().join("pki"))
    }

    /// What it runs.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Its nodes, those that were added too.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node<'_>> {
        self.records().iter().map(|record| Node::new(self, record.clone())).collect()
    }

    /// A node by its name (`n1`).
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> anyhow::Result<Node<'_>> {
        let record = self.records().iter().find(|record| record.name == name).cloned();
        let record = record.with_context(|| format!("no node {name} in {}", self.name()))?;
        Ok(Node::new(self, record))
    }

    /// A command that runs in the network namespace of a member (`cp`, `world`, `tor1`, `n1`)
    /// but in no other namespace of it, with the administrator's `KUBECONFIG`.
    ///
    /// # Errors
    /// When there is no such member, or the command does not start.
    pub fn spawn_in(&self, member: &str, command: &mut Command) -> anyhow::Result<Child> {
        command.env("KUBECONFIG", self.directory().join("admin.conf"));
        command.env("PATH", self.programs.search_path());
        let child = namespace::within(&self.name().namespace(member), || command.spawn())?;
        child.with_context(|| command.get_program().display().to_string())
    }

    /// Runs kubectl as the administrator and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the error has what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with(arguments, "")
    }

    /// Runs kubectl with this on its standard input.
    ///
    /// # Errors
    /// When it fails; the error has what it said.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = Command::new(self.programs.path("kubectl")?);
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn_in("cp", &mut command)?;
        if let Some(mut stdin) = child.stdin.take() {
            // Who does not read it says so by its exit code.
            stdin.write_all(input.as_bytes()).ok();
        }
        let output = child.wait_with_output()?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "kubectl {}: {words}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        self.kubectl_with(&["apply", "-f", "-"], manifests)?;
        Ok(())
    }

    /// Deletes what the manifests name, and waits for its end.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn delete(&self, manifests: &str) -> anyhow::Result<()> {
        self.kubectl_with(&["delete", "--ignore-not-found", "-f", "-"], manifests)?;
        Ok(())
    }

    /// `kubectl wait`: `what` as its arguments before the time-out.
    ///
    /// # Errors
    /// When it does not happen within `limit`.
    pub fn wait(&self, what: &[&str], limit: Duration) -> anyhow::Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs().max(1));
        self.kubectl(&[&["wait", &timeout], what].concat())?;
        Ok(())
    }

    /// Waits until all nodes are Ready.
    ///
    /// # Errors
    /// When they are not within `limit`.
    pub fn wait_nodes_ready(&self, limit: Duration) -> anyhow::Result<()> {
        self.wait(&["--for=condition=Ready", "node", "--all"], limit)
    }

    /// Waits until the cluster's DNS is available.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub fn wait_dns(&self, limit: Duration) -> anyhow::Result<()> {
        let dns = ["--for=condition=Available", "-n", "kube-system", "deployment/coredns"];
        self.wait(&dns, limit)
    }

    /// Loads a docker archive into every node.
    ///
    /// # Errors
    /// When a containerd does not take it.
    pub fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        self.each_node(|node| node.load_image(archive))
    }

    /// Does something for all nodes at once; the first error wins.
    pub(self) fn each_node(
        &self,
        work: impl Fn(&Node<'_>) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<()> {
        let nodes = self.nodes();
        std::thread::scope(|scope| {
            let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(|| work(node))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    /// Waits until `condition` holds.
    ///
    /// # Errors
    /// When it does not within `limit`, or fails.
    pub fn eventually(
        &self,
        limit: Duration,
        what: &str,
        mut condition: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        while !condition()? {
            if began.elapsed() > limit {
                bail!("not within {limit:?}: {what} (cluster {})", self.name());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self) -> anyhow::Result<()> {
        let path = self.directory().join("state.json");
        let partial = path.with_extension("partial");
        let state = State {
            options: self.options.clone(),
            nodes: self.records().clone(),
            owner: self.owner,
        };
        fs::write(&partial, serde_json::to_vec_pretty(&state)?)?;
        fs::rename(partial, path)?;
        Ok(())
    }
}

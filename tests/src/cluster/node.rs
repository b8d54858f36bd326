//! Nodes: namespaces with containerd, kubelet and kube-proxy, and what runs in them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use super::fabric::{self, CLUSTER_CIDRS};
use super::image::PAUSE;
use super::{Cluster, Proxy, cgroup, process};

/// Debian's directory of the CNI plugins that a node has without Rampart.
const PLUGINS: &str = "/usr/lib/cni";
/// Those that kubelet's machine brings: what a chain delegates to.
const PLUGIN_NAMES: [&str; 4] = ["loopback", "host-local", "portmap", "bandwidth"];
/// How long a node's first process may take to have its namespaces.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a node is, as the record of the cluster keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `n` and its number.
    pub name: String,
    /// From 1.
    pub number: u8,
    /// Its rack.
    pub rack: u8,
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its address.
    pub v6: Ipv6Addr,
}

/// A node of a cluster.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    cluster: &'a Cluster,
    record: Record,
}

impl<'a> Node<'a> {
    pub(super) fn new(cluster: &'a Cluster, record: Record) -> Self {
        Self { cluster, record }
    }

    /// What it is.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its directory: logs, `/etc`, `/opt/cni/bin` (`cni-bin`), `/var/lib` (`lib`).
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.cluster.directory().join("nodes").join(&self.record.name)
    }

    fn role(&self) -> String {
        format!("node-{}", self.record.name)
    }

    /// Pid, as this machine counts, of the first process inside.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn init_pid(&self) -> anyhow::Result<i32> {
        let outer = process::pid(self.cluster.name(), &self.role());
        let outer = outer.with_context(|| format!("node {} does not run", self.record.name))?;
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
        let first = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        first.with_context(|| format!("node {} has no process yet", self.record.name))
    }

    /// A command that runs inside all of the node's namespaces, with the cluster's programs on
    /// its search path.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(self.init_pid()?.to_string());
        command.args(["-m", "-n", "-p", "-u", "-i", "--"]).args(arguments);
        command.env("PATH", self.cluster.programs().search_path());
        Ok(command)
    }

    /// Runs a command inside and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the error has what it said.
    pub fn exec(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.output(arguments)?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{}: {arguments:?}: {words}", self.record.name);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command inside to its end, whatever that is.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn output(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(self.command(arguments)?.output()?)
    }

    /// Loads a docker archive.
    ///
    /// # Errors
    /// When containerd does not take it.
    pub fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        let archive = archive.canonicalize().with_context(|| archive.display().to_string())?;
        let archive = archive.to_str().context("a path in UTF-8")?;
        self.exec(&["ctr", "-n", "k8s.io", "images", "import", archive])?;
        Ok(())
    }

    /// Plugs the node in and starts it; it turns Ready when a network says so.
    pub(super) fn up(&self, images: &[PathBuf]) -> anyhow::Result<()> {
        let Record { name, rack, v4, v6, .. } = &self.record;
        let cluster = self.cluster;
        fabric::plug(cluster.name(), name, true, &format!("tor{rack}"), (*v4, *v6))?;
        let (via_v4, via_v6) = fabric::tor_addresses(*rack);
        let routes =
            [format!("route add default via {via_v4}"), format!("route add default via {via_v6}")];
        fabric::ip(cluster.name(), name, &routes)?;
        let cgroup = cgroup::make(&cluster.name().namespace(name))?;
        let directory = self.directory();
        fs::create_dir_all(directory.join("cni-bin"))?;
        for plugin in PLUGIN_NAMES {
            let from = Path::new(PLUGINS).join(plugin);
            fs::copy(&from, directory.join("cni-bin").join(plugin)).with_context(|| {
                format!("{}: install containernetworking-plugins", from.display())
            })?;
        }
        let names = [format!("DNS:{name}"), format!("IP:{v4}"), format!("IP:{v6}")];
        let pki = cluster.pki();
        pki.issue(name, &format!("system:node:{name}"), "system:nodes", &names)?;
        let server =
            format!("https://{}:{}", fabric::CONTROL_PLANE.0, super::control_plane::API_PORT);
        pki.kubeconfig(&cluster.directory().join(format!("{name}.conf")), name, &server)?;
        fs::write(directory.join("containerd.toml"), containerd())?;
        fs::write(directory.join("kubelet.yaml"), self.kubelet(&cgroup))?;
        self.start(images)
    }

    fn start(&self, images: &[PathBuf]) -> anyhow::Result<()> {
        let Record { name, v4, v6, .. } = &self.record;
        let cluster = self.cluster;
        let images: Vec<String> = images.iter().map(|path| path.display().to_string()).collect();
        let proxy = match cluster.options().proxy {
            Proxy::Iptables => "iptables",
            Proxy::Nftables => "nftables",
            Proxy::None => "none",
        };
        let mut command = Command::new("nsenter");
        // Not `ip netns exec`: that hides /sys/fs/cgroup.
        command.arg(format!("--net=/run/netns/{}", cluster.name().namespace(name)));
        command.args(["unshare", "-m", "-u", "-i", "-p", "--fork", "--kill-child", "bash"]);
        command.arg(super::programs::assets().join("node-init.sh"));
        command.env("PATH", cluster.programs().search_path());
        command.env("NODE_NAME", name).env("NODE_DIR", self.directory());
        command.env("NODE_ADDRESSES", format!("{v4},{v6}")).env("NODE_IMAGES", images.join(" "));
        command.env("NODE_PROXY", proxy).env("CLUSTER_DIR", cluster.directory());
        command.env("CLUSTER_CIDRS", CLUSTER_CIDRS.join(","));
        process::start(cluster.name(), "cp", &self.role(), &mut command)?;
        cluster.eventually(PATIENCE, "the node has a process", || Ok(self.init_pid().is_ok()))
    }

    /// Kills the node as a power cut does, and takes it off the network. Its Node object stays.
    pub(super) fn down(&self) -> anyhow::Result<()> {
        process::stop(self.cluster.name(), &self.role())?;
        let namespace = self.cluster.name().namespace(&self.record.name);
        process::end(&process::inside(std::slice::from_ref(&namespace))?)?;
        ctl::lab::namespace::ip_batch(None, None, &[format!("netns del {namespace}")])?;
        cgroup::remove(&namespace);
        remove_directory(&self.directory())
    }

    /// Paths by which this machine reaches the network namespaces of the containers on the node,
    /// by container id.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn container_network(&self, container: &str) -> anyhow::Result<PathBuf> {
        let tasks = self.exec(&["ctr", "-n", "k8s.io", "task", "ls"])?;
        let pid = tasks.lines().find_map(|line| {
            let mut fields = line.split_whitespace();
            (fields.next() == Some(container)).then(|| fields.next()).flatten()
        });
        let Some(pid) = pid else { bail!("{}: no container {container}", self.record.name) };
        // Through the node's own /proc, which counts as the node does.
        Ok(PathBuf::from(format!("/proc/{}/root/proc/{pid}/ns/net", self.init_pid()?)))
    }

    fn kubelet(&self, cgroup: &str) -> String {
        let (pki, name) = (self.cluster.pki(), &self.record.name);
        format!(
            r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
enforceNodeAllocatable: []
failSwapOn: false
maxPods: 250
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: /var/lib/kubelet/volume-plugins
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {ca}}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {certificate}
tlsPrivateKeyFile: {key}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: {resolv}
evictionHard: {{nodefs.available: "1%", imagefs.available: "1%", memory.available: 100Mi}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 4s
registryPullQPS: 0
kubeAPIQPS: 200
kubeAPIBurst: 400
serializeImagePulls: false
"#,
            ca = pki.certificate("ca").display(),
            certificate = pki.certificate(name).display(),
            key = pki.key(name).display(),
            resolv = self.cluster.directory().join("resolv.conf").display(),
        )
    }
}

/// Removes what a node wrote. Nothing is mounted there any more: its mounts went with it.
pub(super) fn remove_directory(directory: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| directory.display().to_string()),
    }
}

fn containerd() -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"
"#
    )
}

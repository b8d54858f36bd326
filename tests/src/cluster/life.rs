//! A cluster comes up and goes down, and what of it a killed test left is swept away.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use ctl::lab::namespace;

use super::control_plane::Part;
use super::name::Name;
use super::node::{Node, Record, remove_directory};
use super::pki::Pki;
use super::programs::{Programs, assets};
use super::{Cluster, Cni, Options, State, cgroup, fabric, image, process, reference};

/// Programs from the distribution's packages that a cluster cannot do without.
const REQUIRED: [&str; 8] =
    ["ip", "runc", "conntrack", "iptables", "nft", "openssl", "nsenter", "bash-static"];
/// How long a kubelet may take to register its node.
const REGISTRATION: Duration = Duration::from_secs(120);

impl Cluster {
    /// Brings a cluster up: the API is ready and every node is registered. Nodes turn Ready when
    /// they have a network.
    ///
    /// # Errors
    /// When something is missing on this machine, or does not start. What was made is removed.
    pub fn up(options: Options) -> anyhow::Result<Self> {
        preflight()?;
        sweep();
        let programs = Programs::of_a_cluster()?;
        let images = image::base(&programs)?;
        let directory = options.name.directory();
        fs::create_dir_all(directory.parent().context("a directory of clusters")?)?;
        if fs::create_dir(&directory).is_err() {
            bail!("cluster {} is up, or not taken down: cluster down", options.name);
        }
        let us = i32::try_from(std::process::id())?;
        let owner = options.goes_with_us.then(|| Some((us, process::start_time(us)?))).flatten();
        let nodes = Mutex::new(Vec::new());
        let mut cluster = Self { options, owner, nodes, programs, guard: None };
        cluster.save()?;
        if owner.is_some() {
            cluster.guard = Some(start_guard(cluster.name())?);
        }
        match cluster.bring_up(&images) {
            Ok(()) => Ok(cluster),
            Err(error) => {
                // The logs say more than the error; they are kept beside what is removed.
                let logs = keep_logs(cluster.name());
                down(cluster.name()).context("after a failed start")?;
                Err(error.context(format!("logs: {}", logs.display())))
            }
        }
    }

    /// A cluster that another process brought up.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn attach(name: &Name) -> anyhow::Result<Self> {
        let state = load(name).with_context(|| format!("no cluster {name} is up"))?;
        Ok(Self {
            options: state.options,
            owner: state.owner,
            nodes: Mutex::new(state.nodes),
            programs: Programs::of_a_cluster()?,
            guard: None,
        })
    }

    fn bring_up(&self, images: &[PathBuf]) -> anyhow::Result<()> {
        let directory = self.directory();
        for place in ["log", "pid", "nodes", "etcd"] {
            fs::create_dir_all(directory.join(place))?;
        }
        fs::write(directory.join("resolv.conf"), "")?;
        Pki::make(directory.join("pki"))?;
        self.make_credentials()?;
        fabric::up(self.name(), self.options().fabric)?;
        for part in Part::ALL {
            self.start(part)?;
        }
        self.start_api_socket()?;
        for number in 1..=self.options().nodes {
            self.register(number)?;
        }
        self.each_node(|node| node.up(images))?;
        self.each_node(|node| self.wait_registered(node))?;
        if self.options().cni == Cni::Reference {
            reference::install(self)?;
        }
        self.apply(&fs::read_to_string(assets().join("coredns.yaml"))?)
    }

    /// Adds a node and waits until it is registered.
    ///
    /// # Errors
    /// When it does not start.
    pub fn add_node(&self) -> anyhow::Result<Record> {
        let last = self.records().iter().map(|record| record.number).max().unwrap_or(0);
        let number = last.checked_add(1).context("too many nodes")?;
        self.register(number)?;
        let name = format!("n{number}");
        let images = image::base(&self.programs)?;
        let node = self.node(&name)?;
        node.up(&images)?;
        self.wait_registered(&node)?;
        Ok(node.record().clone())
    }

    /// Takes a node away as a power cut does, and deletes its Node object.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn remove_node(&self, name: &str) -> anyhow::Result<()> {
        self.node(name)?.down()?;
        self.records().retain(|record| record.name != name);
        self.save()?;
        self.kubectl(&["delete", "node", name])?;
        Ok(())
    }

    fn register(&self, number: u8) -> anyhow::Result<()> {
        let rack = self.options().fabric.rack_of(number);
        let (v4, v6) = fabric::node_addresses(rack, number);
        self.records().push(Record { name: format!("n{number}"), number, rack, v4, v6 });
        self.save()
    }

    fn wait_registered(&self, node: &Node<'_>) -> anyhow::Result<()> {
        let name = &node.record().name;
        let cidrs = "jsonpath={.spec.podCIDRs[1]}";
        self.eventually(REGISTRATION, "kubelet registers its node", || {
            let cidrs = self.kubectl(&["get", "node", name, "-o", cidrs]);
            Ok(cidrs.is_ok_and(|cidrs| !cidrs.is_empty()))
        })
        .with_context(|| format!("see {}", node.directory().join("kubelet.log").display()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(mut guard) = self.guard.take() else { return };
        if std::thread::panicking() {
            keep_logs(self.name());
        }
        // The guard does it, also when this one cannot; waiting makes the end of a test the end
        // of its cluster.
        drop(guard.stdin.take());
        guard.wait().ok();
    }
}

fn preflight() -> anyhow::Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "a cluster is made of namespaces: run as root");
    for program in REQUIRED {
        let found = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|directory| PathBuf::from(directory).join(program).exists());
        ensure!(found, "{program} is missing: deploy/setup.sh installs it (./tests/run does)");
    }
    Ok(())
}

fn load(name: &Name) -> Option<State> {
    serde_json::from_slice(&fs::read(name.directory().join("state.json")).ok()?).ok()
}

/// Copies the logs of a cluster to where `down` leaves them.
fn keep_logs(name: &Name) -> PathBuf {
    let kept = std::env::temp_dir().join(format!("rampart-cluster-{name}-logs"));
    copy_logs(name, &kept);
    kept
}

fn copy_logs(name: &Name, to: &Path) {
    let mut copy = Command::new("sh");
    copy.arg("-c").arg(
        "mkdir -p \"$1\" && cp -r \"$0\"/log \"$1\"/ && for n in \"$0\"/nodes/*; do mkdir -p \"$1/${n##*/}\" && cp -rL \"$n\"/*.log \"$n\"/log/pods \"$1/${n##*/}/\"; done",
    );
    // Without them there is only less to read.
    copy.arg(name.directory()).arg(to).stderr(Stdio::null()).status().ok();
}

/// Removes everything of a cluster, whatever state it is in. With `RAMPART_CLUSTER_LOGS` in the
/// environment, its logs go into that directory first.
///
/// # Errors
/// When something cannot be removed.
pub fn down(name: &Name) -> anyhow::Result<()> {
    if let Some(directory) = std::env::var_os("RAMPART_CLUSTER_LOGS") {
        copy_logs(name, &Path::new(&directory).join(name.as_str()));
    }
    let namespaces = namespace::list(&name.prefix())?;
    loop {
        // A process can be in the middle of starting another.
        let pids = process::inside(&namespaces)?;
        if pids.is_empty() {
            break;
        }
        process::end(&pids)?;
    }
    let lines: Vec<String> = namespaces.iter().map(|name| format!("netns del {name}")).collect();
    namespace::ip_batch(None, None, &lines)?;
    cgroup::remove_all(&name.prefix());
    remove_directory(&name.directory())
}

/// Takes down every cluster that went with a process which is gone. Its guard, or another sweep, may
/// be at the same: what cannot be removed is said, and is no reason not to go on. Names of clusters
/// are of one process only.
#[expect(clippy::print_stderr, reason = "tells whoever runs the tests what is left")]
pub fn sweep() {
    for name in Name::all() {
        let Some(state) = load(&name) else { continue };
        let Some((pid, start)) = state.owner else { continue };
        if process::start_time(pid) != Some(start)
            && let Err(error) = down(&name)
        {
            eprintln!("cluster {name}, which nobody owns any more: {error:#}");
        }
    }
}

/// Starts the process that outlives us.
fn start_guard(name: &Name) -> anyhow::Result<std::process::Child> {
    let us = std::env::current_exe()?;
    let program = if us.file_name().is_some_and(|file| file == "cluster") {
        us
    } else {
        // target/PROFILE/deps/TEST or target/PROFILE/PROGRAM
        let depth = if us.parent().is_some_and(|it| it.ends_with("deps")) { 2 } else { 1 };
        us.ancestors().nth(depth).context("target directory")?.join("cluster")
    };
    Command::new(&program)
        .args(["guard", name.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .current_dir("/")
        .spawn()
        .with_context(|| format!("{}: cargo build -p tests --bins", program.display()))
}

/// Waits until the other end of the standard input is gone, and takes the cluster down then.
///
/// # Errors
/// When something cannot be removed.
pub fn guard(name: &Name) -> anyhow::Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
    down(name)
}

//! `rctl lab up`: builds the fabric, or puts right what is broken of one that is up.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::args::UpArgs;
use super::converge;
use super::down;
use super::error::LabError;
use super::manifest;
use super::name::Name;
use super::namespace;
use super::preflight;
use super::process::{self, GRACE, Process, Start};
use super::progress::{Interrupt, Progress, say};
use super::serve::READY;
use super::state::{Lock, State};
use super::topology::{Node, Options, Pod, Topology, TorChoice};
use super::tor;
use super::wiring;

/// What every pod of the demo application listens on, so that a connection that fails was denied.
pub const POD_PORTS: [&str; 3] = ["tcp/8080", "tcp/5432", "udp/53"];

/// Directory of the manifests that all agents read.
#[must_use]
pub fn store(lab: &Name) -> PathBuf {
    lab.directory().join("store")
}

/// Builds or repairs; on failure everything that was made goes again.
///
/// # Errors
/// See [`LabError`].
pub fn up(lab: &Name, args: &UpArgs) -> Result<(), LabError> {
    preflight::privilege()?;
    preflight::machine()?;
    let rampart = preflight::rampart(args.rampart.as_deref())?;
    // FRR drops root and must still read what we write, whatever the caller's umask.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let interrupt = Interrupt::catch()?;
    let lock = Lock::acquire(lab)?;
    // What cannot be read is what a crash left behind.
    let earlier = State::load(lab).unwrap_or(None);
    let options = match options(args, earlier.as_ref()) {
        Ok(options) => options,
        Err(error) => {
            if earlier.is_none() {
                down::remove(lab, &lock)?;
            }
            return Err(error);
        }
    };
    let topology = Topology::new(&options)?;
    let policies = !args.no_policies;
    let state = still_good(lab, earlier, &options, &topology)?;
    let fresh = state.is_none();
    let mut builder = Builder {
        lab,
        topology: &topology,
        state: state.unwrap_or_else(|| State {
            options,
            policies,
            rampart: rampart.clone(),
            complete: false,
            processes: Vec::new(),
        }),
        interrupt: &interrupt,
        progress: Progress::start(),
        limit: Duration::from_secs(args.timeout.into()),
    };
    builder.state.policies = policies;
    builder.state.rampart = rampart;
    let result = if fresh {
        remove_remains(lab, &lock).and_then(|()| builder.build())
    } else {
        builder.repair()
    };
    match result {
        Ok(()) => {
            builder.greet();
            Ok(())
        }
        Err(error) if args.keep_on_failure || !fresh => Err(error),
        Err(error) => {
            say("  rolling back");
            down::remove(lab, &lock)?;
            Err(error)
        }
    }
}

/// The lab that is up, if all of its wiring is there; its processes may be dead.
fn still_good(
    lab: &Name,
    earlier: Option<State>,
    options: &Options,
    topology: &Topology,
) -> Result<Option<State>, LabError> {
    match earlier.filter(|state| state.complete) {
        Some(state) if state.options != *options => Err(LabError::OtherOptions {
            name: lab.to_string(),
            options: state.options.to_string(),
        }),
        Some(state) if intact(lab, topology) => Ok(Some(state)),
        Some(_) | None => Ok(None),
    }
}

/// The options asked for; `auto` means what is there when a lab is up.
fn options(args: &UpArgs, earlier: Option<&State>) -> Result<Options, LabError> {
    let same = earlier
        .filter(|_| args.tor == TorChoice::Auto)
        .map(|state| state.options.tors.clone())
        .filter(|tors| tors.len() == usize::from(args.tors));
    Ok(Options {
        racks: args.racks,
        tors: match same {
            Some(tors) => tors,
            None => preflight::tor_kinds(args.tor, args.tors)?,
        },
        nodes_per_rack: args.nodes_per_rack,
        pods_per_node: args.pods_per_node,
    })
}

/// Every namespace and link of the fabric is there.
fn intact(lab: &Name, topology: &Topology) -> bool {
    let has = |member: &str, interfaces: Vec<&str>| {
        namespace::within(&lab.namespace(member), || {
            interfaces.into_iter().all(|interface| nix::net::if_::if_nametoindex(interface).is_ok())
        })
        .unwrap_or(false)
    };
    let nodes: Vec<&str> = topology.nodes.iter().map(|n| n.name.as_str()).collect();
    topology.tors.iter().all(|tor| has(&tor.name, nodes.clone()))
        && topology.pods.iter().all(|pod| has(&pod.name, vec!["eth0"]))
        && topology.nodes.iter().all(|node| {
            let pods = topology.pods.iter().filter(|pod| pod.node == node.name);
            let uplinks = node.uplinks.iter().map(|link| link.tor.as_str());
            has(&node.name, uplinks.chain(pods.map(|pod| pod.host_interface.as_str())).collect())
        })
}

fn remove_remains(lab: &Name, lock: &Lock) -> Result<(), LabError> {
    let removed = down::remove(lab, lock)?;
    if removed.namespaces > 0 || removed.processes > 0 {
        say(&format!(
            "  removed the remains of an earlier lab: {} namespaces, {} processes",
            removed.namespaces, removed.processes
        ));
    }
    let directory = lab.directory();
    fs::create_dir_all(&directory).map_err(LabError::file("make", &directory))
}

struct Builder<'a> {
    lab: &'a Name,
    topology: &'a Topology,
    state: State,
    interrupt: &'a Interrupt,
    progress: Progress,
    limit: Duration,
}

impl Builder<'_> {
    fn build(&mut self) -> Result<(), LabError> {
        say(&format!("lab {}: {}", self.lab, self.state.options));
        self.state.save(self.lab)?;
        wiring::namespaces(self.lab, self.topology)?;
        let members = self.topology.members().count();
        self.progress.step("namespaces", &format!("{members} named {}-*", self.lab));
        self.interrupt.check()?;
        wiring::links(self.lab, self.topology)?;
        self.progress.step("links", &self.link_summary());
        self.interrupt.check()?;
        self.write_store()?;
        self.start_all()?;
        self.converge()
    }

    fn repair(&mut self) -> Result<(), LabError> {
        say(&format!("lab {} is up: looking for damage", self.lab));
        self.write_store()?;
        for tor in &self.topology.tors {
            wiring::forwarding(self.lab, &tor.name, true)?;
        }
        for node in &self.topology.nodes {
            wiring::forwarding(self.lab, &node.name, true)?;
        }
        // A scenario that was cut short may have left somebody frozen.
        for process in &self.state.processes {
            process.signal(Signal::SIGCONT);
        }
        self.start_all()?;
        self.converge()
    }

    fn write_store(&mut self) -> Result<(), LabError> {
        let mut manifests = manifest::cluster(self.topology)?;
        if self.state.policies {
            manifests.extend(manifest::policies());
        }
        manifest::write_store(&store(self.lab), &manifests)?;
        self.progress.step(
            "manifests",
            &format!("{} files in {}", manifests.len(), store(self.lab).display()),
        );
        Ok(())
    }

    fn start_all(&mut self) -> Result<(), LabError> {
        for pod in &self.topology.pods {
            self.ensure_server(pod)?;
        }
        for pod in &self.topology.pods {
            let log = pod_log(self.lab, pod);
            let listens = || fs::read_to_string(&log).is_ok_and(|log| log.contains(READY));
            self.await_sign(&format!("server {}", pod.name), listens)?;
        }
        self.progress.step(
            "pods",
            &format!(
                "{} of the demo application listen on {}",
                self.topology.pods.len(),
                POD_PORTS.join(" ")
            ),
        );
        for tor in &self.topology.tors {
            for start in tor::prepare(self.lab, self.topology, tor, &self.state.rampart)? {
                self.ensure(start)?;
            }
        }
        let tors: Vec<String> = self
            .topology
            .tors
            .iter()
            .map(|tor| format!("{} {} AS {}", tor.name, tor.kind.as_str(), tor.asn))
            .collect();
        self.progress.step("ToRs", &tors.join(", "));
        for node in &self.topology.nodes {
            let start = agent(self.lab, node, &self.state)?;
            self.ensure(start)?;
        }
        let agents = format!("{} of {}", self.topology.nodes.len(), self.state.rampart.display());
        self.progress.step("agents", &agents);
        Ok(())
    }

    /// Starts it unless it runs; one that runs an old build is replaced.
    fn ensure(&mut self, start: Start) -> Result<(), LabError> {
        self.interrupt.check()?;
        if let Some(running) = self.state.process(&start.role).filter(|running| running.alive()) {
            if !running.outdated() {
                return Ok(());
            }
            process::end(std::slice::from_ref(running), GRACE)?;
        }
        let ready = start.ready.clone();
        if let Some(ready) = ready.as_deref().filter(|ready| ready.exists()) {
            // Of an earlier life.
            fs::remove_file(ready).map_err(LabError::file("remove", ready))?;
        }
        let process = Process::start(self.lab, start)?;
        let role = process.role.clone();
        self.state.remember(process);
        self.state.save(self.lab)?;
        match ready {
            Some(ready) => self.await_sign(&role, || ready.exists()),
            None => Ok(()),
        }
    }

    /// Starts the server of a pod unless it runs.
    fn ensure_server(&mut self, pod: &Pod) -> Result<(), LabError> {
        let start = server(self.lab, pod)?;
        if !self.state.process(&start.role).is_some_and(|p| p.alive() && !p.outdated()) {
            // It says in its log when it listens, so the log must be of this life.
            fs::write(&start.log, "").map_err(LabError::file("empty", &start.log))?;
        }
        self.ensure(start)
    }

    /// Waits until the process with this role gives the sign that it is ready.
    fn await_sign(&self, role: &str, sign: impl Fn() -> bool) -> Result<(), LabError> {
        const LIMIT: Duration = Duration::from_secs(10);
        let Some(process) = self.state.process(role) else {
            return Ok(());
        };
        let ready = converge::until(LIMIT, self.interrupt, || {
            if sign() {
                return Ok(true);
            }
            if process.alive() {
                return Ok(false);
            }
            Err(LabError::Ended { role: role.to_owned(), last_words: process.last_words() })
        })?;
        if ready {
            return Ok(());
        }
        Err(LabError::TimedOut {
            seconds: LIMIT.as_secs(),
            pending: format!("{role} is not ready"),
        })
    }

    fn converge(&mut self) -> Result<(), LabError> {
        converge::wait(self.lab, self.topology, &self.state, self.limit, self.interrupt)?;
        self.state.complete = true;
        self.state.save(self.lab)?;
        self.progress.step("converged", "default routes over every ToR, pod routes on every ToR");
        Ok(())
    }

    fn link_summary(&self) -> String {
        format!(
            "{} between nodes and ToRs, {} to pods, IPv4 and IPv6",
            self.topology.nodes.len() * self.topology.tors.len(),
            self.topology.pods.len()
        )
    }

    fn greet(&self) {
        let rctl = super::invocation(self.lab);
        let first = self.topology.pods.first().map_or("n11", |pod| &pod.name);
        say(&format!("up in {:.1} s; next:", self.progress.seconds()));
        for line in [
            "get peers".to_owned(),
            "lab matrix".to_owned(),
            "lab scenario list".to_owned(),
            format!("lab exec {first} -- ip -6 route"),
            "lab down".to_owned(),
        ] {
            say(&format!("  {rctl} {line}"));
        }
    }
}

/// How to start the agent of a node.
///
/// # Errors
/// [`LabError::File`].
pub fn agent(lab: &Name, node: &Node, state: &State) -> Result<Start, LabError> {
    let run = lab.directory().join(&node.name);
    fs::create_dir_all(&run).map_err(LabError::file("make", &run))?;
    Ok(Start {
        role: format!("agent {}", node.name),
        namespace: lab.namespace(&node.name),
        command: tor::agent_command(&state.rampart, &node.name, &store(lab), &run),
        log: run.join("agent.log"),
        ready: None,
    })
}

fn server(lab: &Name, pod: &Pod) -> Result<Start, LabError> {
    let directory = lab.directory().join("pods");
    fs::create_dir_all(&directory).map_err(LabError::file("make", &directory))?;
    let us = PathBuf::from("/proc/self/exe");
    let program = fs::read_link(&us).map_err(LabError::file("find", &us))?;
    Ok(Start {
        role: format!("server {}", pod.name),
        namespace: lab.namespace(&pod.name),
        command: vec![
            program.display().to_string(),
            "lab".to_owned(),
            "serve".to_owned(),
            "--identity".to_owned(),
            pod.full_name(),
            "--ports".to_owned(),
            POD_PORTS.join(","),
        ],
        log: pod_log(lab, pod),
        ready: None,
    })
}

fn pod_log(lab: &Name, pod: &Pod) -> PathBuf {
    lab.directory().join("pods").join(format!("{}.log", pod.name))
}

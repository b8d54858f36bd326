//! An agent is killed and started again.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{CALM, Stage, Verdict, finish, total};
use crate::lab::error::LabError;
use crate::lab::process::Process;
use crate::lab::progress::say;
use crate::lab::topology::{Node, TorKind};
use crate::lab::up;

pub(super) fn run(mut stage: Stage) -> Result<Verdict, LabError> {
    let served = stage.topology.pods.iter().find(|pod| pod.app == "dns");
    let node = stage
        .topology
        .nodes
        .iter()
        .find(|node| served.is_some_and(|pod| pod.node == node.name))
        .cloned()
        .ok_or_else(|| {
            LabError::Options("the scenario needs a lab of at least 8 pods".to_owned())
        })?;
    stage.introduce(
        &format!(
            "the agent of {} is killed (SIGKILL) and started again 2 s later. \
             Routes and rules stay in the kernel; {}",
            node.name,
            promise(&stage)
        ),
        &format!(
            "ip -n {0} monitor route; rctl lab exec {1} -- nft monitor",
            stage.lab.namespace(&node.name),
            node.name
        ),
    );
    let result = kill_and_watch(&mut stage, &node);
    let restored = ensure_agent(&mut stage, &node).and_then(|()| stage.settle());
    let verdict = result?;
    restored?;
    say(&format!("undo    nothing to do, the agent of {} runs", node.name));
    Ok(verdict)
}

fn promise(stage: &Stage) -> &'static str {
    if stage.topology.tors.iter().any(|tor| tor.kind == TorKind::Rampart) {
        "but a Rampart ToR does not keep routes for a neighbour that restarts (RFC 4724), \
         so the node's pods are cut off from the others meanwhile."
    } else {
        "the ToRs keep its routes meanwhile (graceful restart, RFC 4724)."
    }
}

fn kill_and_watch(stage: &mut Stage, node: &Node) -> Result<Verdict, LabError> {
    let routes = Monitor::start(stage, node, "ip", &["-o", "monitor", "route"])?;
    // Without nft the rules are not watched; the agent does not need it either.
    let rules = Monitor::start(stage, node, "nft", &["monitor"]).ok();
    let flows = stage.flows()?;
    stage.pass(CALM)?;
    let role = format!("agent {}", node.name);
    if let Some(process) = stage.state.process(&role) {
        process.signal(Signal::SIGKILL);
        let process = process.clone();
        stage.until(Duration::from_secs(5), || Ok(!process.alive()))?;
    }
    stage.pass(Duration::from_secs(2))?;
    ensure_agent(stage, node)?;
    let began = Instant::now();
    stage.settle()?;
    say(&format!("seen    in sync again {:.2} s after the start", began.elapsed().as_secs_f64()));
    stage.pass(CALM)?;
    let (lost, gap) = total(&finish(flows)?);
    let mut changes = routes.finish()?;
    say(&format!("seen    {} route changes", changes.len()));
    if let Some(rules) = rules {
        let seen = rules.finish()?;
        say(&format!("seen    {} rule changes", seen.len()));
        changes.extend(seen);
    }
    for change in &changes {
        say(&format!("seen    {change}"));
    }
    let text = format!(
        "{lost} datagrams lost (longest gap {gap:.2} s), {} changes of routes and rules",
        changes.len()
    );
    Ok(if lost == 0 && changes.is_empty() { Verdict::Kept(text) } else { Verdict::Broken(text) })
}

fn ensure_agent(stage: &mut Stage, node: &Node) -> Result<(), LabError> {
    let start = up::agent(&stage.lab, node, &stage.state)?;
    if stage.state.process(&start.role).is_some_and(Process::alive) {
        return Ok(());
    }
    let process = Process::start(&stage.lab, start)?;
    stage.state.remember(process);
    stage.state.save(&stage.lab)
}

/// A program that prints changes as they happen.
struct Monitor {
    child: Child,
    output: File,
    path: std::path::PathBuf,
}

impl Monitor {
    fn start(
        stage: &Stage,
        node: &Node,
        program: &str,
        arguments: &[&str],
    ) -> Result<Self, LabError> {
        let path = stage.lab.directory().join(&node.name).join(format!("monitor-{program}.log"));
        let output = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(LabError::file("open", &path))?;
        let stdout = output.try_clone().map_err(LabError::file("duplicate", &path))?;
        let child = crate::lab::namespace::within(&stage.lab.namespace(&node.name), || {
            Command::new(program)
                .args(arguments)
                .env(crate::lab::process::MARK, stage.lab.as_str())
                .stdin(Stdio::null())
                .stdout(stdout)
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
        })?
        .map_err(|source| LabError::Start { role: program.to_owned(), source })?;
        Ok(Self { child, output, path })
    }

    /// Ends it and returns the lines it printed.
    fn finish(mut self) -> Result<Vec<String>, LabError> {
        self.stop();
        let read = |source| LabError::file("read", &self.path)(source);
        let mut file = &self.output;
        std::io::Seek::rewind(&mut file).map_err(read)?;
        BufReader::new(file)
            .lines()
            .filter(|line| !line.as_ref().is_ok_and(|line| line.trim().is_empty()))
            .collect::<std::io::Result<Vec<String>>>()
            .map_err(LabError::file("read", &self.path))
    }

    fn stop(&mut self) {
        // Our own child that nobody else waits for: it is there until we do.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop();
    }
}

//! `rctl lab status`: what of the lab is alive.

use std::fmt::Write as _;

use serde::Serialize;

use super::converge;
use super::error::LabError;
use super::name::Name;
use super::process::Process;
use super::state::State;
use super::topology::{Topology, Tor, TorKind};
use super::tor;

/// The lab as scripts see it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Name of the lab.
    pub name: String,
    /// Directory of its files.
    pub directory: String,
    /// Nothing is missing.
    pub healthy: bool,
    /// What is missing, in words.
    pub pending: Vec<String>,
    /// Switches.
    pub tors: Vec<TorStatus>,
    /// Nodes.
    pub nodes: Vec<NodeStatus>,
    /// Pods.
    pub pods: Vec<PodStatus>,
}

/// Part of [`Status`].
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TorStatus {
    /// Name.
    pub name: String,
    /// What runs on it.
    pub kind: TorKind,
    /// Its AS.
    pub asn: u32,
    /// Its daemons.
    pub processes: Vec<ProcessStatus>,
    /// Command that shows its own view.
    pub console: String,
}

/// Part of [`Status`].
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Name.
    pub name: String,
    /// Rack.
    pub rack: String,
    /// Its agent.
    pub process: Option<ProcessStatus>,
    /// The agent answers and is ready.
    pub ready: bool,
    /// Established BGP sessions.
    pub peers_established: u32,
    /// Configured BGP sessions.
    pub peers: u32,
    /// Complaints of the agent.
    pub problems: Vec<String>,
    /// Pod CIDRs.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
}

/// Part of [`Status`].
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Node.
    pub node: String,
    /// Addresses.
    pub addresses: Vec<String>,
    /// Its server.
    pub process: Option<ProcessStatus>,
}

/// Part of [`Status`].
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessStatus {
    /// Role in the lab.
    pub role: String,
    /// Process id.
    pub pid: i32,
    /// It runs.
    pub alive: bool,
    /// Its log.
    pub log: String,
}

impl From<&Process> for ProcessStatus {
    fn from(process: &Process) -> Self {
        Self {
            role: process.role.clone(),
            pid: process.pid,
            alive: process.alive(),
            log: process.log.display().to_string(),
        }
    }
}

/// Looks at everything.
///
/// # Errors
/// [`LabError::NotUp`], [`LabError::File`], [`LabError::State`].
pub fn status(lab: &Name) -> Result<Status, LabError> {
    let state = State::of_running(lab)?;
    let topology = Topology::new(&state.options)?;
    let mut pending: Vec<String> = state
        .processes
        .iter()
        .filter(|process| !process.alive())
        .map(|process| format!("{} is dead: {}", process.role, process.last_words()))
        .collect();
    match converge::pending(lab, &topology) {
        Ok(more) => pending.extend(more),
        Err(error) => pending.push(error.to_string()),
    }
    let process = |role: String| state.process(&role).map(ProcessStatus::from);
    Ok(Status {
        name: lab.to_string(),
        directory: lab.directory().display().to_string(),
        healthy: pending.is_empty(),
        pending,
        tors: topology.tors.iter().map(|tor| tor_status(lab, tor, &state)).collect(),
        nodes: topology
            .nodes
            .iter()
            .map(|node| {
                let agent: Option<api::control::Status> =
                    converge::agent(lab, &node.name).get_blocking("/v1/status").ok();
                let bgp = agent.as_ref().and_then(|status| status.bgp.as_ref());
                NodeStatus {
                    name: node.name.clone(),
                    rack: node.rack.clone(),
                    process: process(format!("agent {}", node.name)),
                    ready: agent.as_ref().is_some_and(|status| status.ready),
                    peers_established: bgp.map_or(0, |bgp| bgp.peers_established),
                    peers: bgp.map_or(0, |bgp| bgp.peers),
                    problems: agent
                        .iter()
                        .flat_map(|status| &status.problems)
                        .map(|problem| {
                            format!("{} {}: {}", problem.code, problem.subject, problem.message)
                        })
                        .collect(),
                    pod_cidrs: node.pod_cidrs.iter().map(ToString::to_string).collect(),
                }
            })
            .collect(),
        pods: topology
            .pods
            .iter()
            .map(|pod| PodStatus {
                name: pod.name.clone(),
                namespace: pod.namespace.clone(),
                node: pod.node.clone(),
                addresses: pod.addresses().map(|address| address.to_string()).to_vec(),
                process: process(format!("server {}", pod.name)),
            })
            .collect(),
    })
}

fn tor_status(lab: &Name, tor: &Tor, state: &State) -> TorStatus {
    let suffix = format!(" {}", tor.name);
    TorStatus {
        name: tor.name.clone(),
        kind: tor.kind,
        asn: tor.asn,
        processes: state
            .processes
            .iter()
            .filter(|process| process.role.ends_with(&suffix))
            .map(ProcessStatus::from)
            .collect(),
        console: tor::console(lab, tor),
    }
}

/// Tables for humans.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    writeln!(text, "{:<6} {:<8} {:<6} {:<6} CONSOLE", "TOR", "KIND", "AS", "STATE").ok();
    for tor in &status.tors {
        let alive = !tor.processes.is_empty() && tor.processes.iter().all(|p| p.alive);
        writeln!(
            text,
            "{:<6} {:<8} {:<6} {:<6} {}",
            tor.name,
            tor.kind.as_str(),
            tor.asn,
            mark(alive),
            tor.console
        )
        .ok();
    }
    writeln!(
        text,
        "\n{:<6} {:<6} {:<6} {:<6} {:<8} POD-CIDRS",
        "NODE", "RACK", "AGENT", "READY", "PEERS"
    )
    .ok();
    for node in &status.nodes {
        let flag = if node.peers_established < node.peers { "!" } else { "" };
        writeln!(
            text,
            "{:<6} {:<6} {:<6} {:<6} {:<8} {}",
            node.name,
            node.rack,
            mark(node.process.as_ref().is_some_and(|p| p.alive)),
            if node.ready { "yes" } else { "no!" },
            format!("{}/{}{flag}", node.peers_established, node.peers),
            node.pod_cidrs.join(" ")
        )
        .ok();
    }
    writeln!(text, "\n{:<12} {:<6} {:<6} ADDRESSES", "POD", "NODE", "STATE").ok();
    for pod in &status.pods {
        writeln!(
            text,
            "{:<12} {:<6} {:<6} {}",
            format!("{}/{}", pod.namespace, pod.name),
            pod.node,
            mark(pod.process.as_ref().is_some_and(|p| p.alive)),
            pod.addresses.join(" ")
        )
        .ok();
    }
    for node in &status.nodes {
        for problem in &node.problems {
            writeln!(text, "\n{}: {problem}", node.name).ok();
        }
    }
    for line in &status.pending {
        writeln!(text, "\nmissing: {line}").ok();
    }
    text
}

fn mark(alive: bool) -> &'static str {
    if alive { "up" } else { "down!" }
}

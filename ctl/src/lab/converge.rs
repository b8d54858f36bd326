//! Whether the fabric has converged: what the kernels of its namespaces say, and the agents.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::error::LabError;
use super::name::Name;
use super::progress::Interrupt;
use super::state::State;
use super::topology::Topology;
use crate::client::Client;

/// How often the fabric is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// A kernel route as `ip -j route` prints it.
#[derive(Clone, Debug, Deserialize)]
pub struct KernelRoute {
    /// Destination; `default` for the default route.
    pub dst: String,
    /// `unicast` when absent.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Gateway of a route with one next hop.
    pub gateway: Option<String>,
    /// Who installed it, by name or number.
    pub protocol: Option<String>,
    /// Next hops of a multipath route.
    #[serde(default)]
    pub nexthops: Vec<KernelNextHop>,
}

/// Part of [`KernelRoute`].
#[derive(Clone, Debug, Deserialize)]
pub struct KernelNextHop {
    /// Gateway.
    pub gateway: Option<String>,
}

impl KernelRoute {
    /// Gateways, one or more.
    #[must_use]
    pub fn gateways(&self) -> BTreeSet<String> {
        let multipath = self.nexthops.iter().filter_map(|hop| hop.gateway.clone());
        self.gateway.iter().cloned().chain(multipath).collect()
    }
}

/// The main routing table of a namespace.
///
/// # Errors
/// [`LabError::Ip`].
pub fn kernel_routes(namespace: &str, family: &str) -> Result<Vec<KernelRoute>, LabError> {
    let output = Command::new("ip")
        .args(["-n", namespace, "-j", family, "route", "show"])
        .output()
        .map_err(|source| LabError::Start { role: "ip".to_owned(), source })?;
    if !output.status.success() {
        return Err(LabError::Ip {
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // Some versions print nothing at all instead of an empty list.
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text)
        .map_err(|error| LabError::Ip { message: format!("output not understood: {error}") })
}

/// What is still missing until every pod reaches every pod under the policies in the store.
///
/// # Errors
/// [`LabError::Ip`].
pub fn pending(lab: &Name, topology: &Topology) -> Result<Vec<String>, LabError> {
    let mut pending = Vec::new();
    for node in &topology.nodes {
        if let Some(problem) = agent_pending(lab, &node.name) {
            pending.push(problem);
        }
        for family in ["-4", "-6"] {
            let routes = kernel_routes(&lab.namespace(&node.name), family)?;
            let ways = routes
                .iter()
                .filter(|route| route.dst == "default")
                .map(|route| route.gateways().len())
                .max()
                .unwrap_or(0);
            if ways < topology.tors.len() {
                pending.push(format!(
                    "{}: {ways} of {} default gateways (IPv{})",
                    node.name,
                    topology.tors.len(),
                    family.trim_start_matches('-')
                ));
            }
        }
    }
    for tor in &topology.tors {
        for (family, which) in [("-4", 0), ("-6", 1)] {
            let routes = kernel_routes(&lab.namespace(&tor.name), family)?;
            for node in &topology.nodes {
                let Some(cidr) = node.pod_cidrs.get(which) else {
                    continue;
                };
                let cidr = cidr.to_string();
                if !routes.iter().any(|route| route.dst == cidr) {
                    pending.push(format!("{}: no route to {cidr}", tor.name));
                }
            }
        }
    }
    Ok(pending)
}

fn agent_pending(lab: &Name, node: &str) -> Option<String> {
    match agent(lab, node).get_blocking::<api::control::Synced>("/v1/synced?timeout_ms=1000") {
        Ok(answer) if answer.synced => None,
        Ok(answer) => Some(format!("{node}: {}", answer.pending.join(", "))),
        Err(error) => Some(format!("{node}: {error}")),
    }
}

/// A client of the agent on a node.
#[must_use]
pub fn agent(lab: &Name, node: &str) -> Client {
    let socket = lab.directory().join(node).join(api::constant::SOCKET_NAME);
    Client::new(&socket, Duration::from_secs(3))
}

/// Waits until nothing is pending.
///
/// # Errors
/// [`LabError::TimedOut`] with what is missing, [`LabError::Ended`] when a process of the lab
/// died, [`LabError::Interrupted`], [`LabError::Ip`].
pub fn wait(
    lab: &Name,
    topology: &Topology,
    state: &State,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<(), LabError> {
    let deadline = Instant::now() + limit;
    loop {
        interrupt.check()?;
        if let Some(dead) = state.processes.iter().find(|process| !process.alive()) {
            return Err(LabError::Ended { role: dead.role.clone(), last_words: dead.last_words() });
        }
        let pending = pending(lab, topology)?;
        if pending.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(LabError::TimedOut {
                seconds: limit.as_secs(),
                pending: pending.join("; "),
            });
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Waits until `condition` holds; says whether it did.
///
/// # Errors
/// [`LabError::Interrupted`], and those of `condition`.
pub fn until(
    limit: Duration,
    interrupt: &Interrupt,
    mut condition: impl FnMut() -> Result<bool, LabError>,
) -> Result<bool, LabError> {
    let deadline = Instant::now() + limit;
    loop {
        interrupt.check()?;
        if condition()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_of_single_and_multipath_routes_are_read() {
        let text = r#"[{"dst":"default","gateway":"10.2.1.0","dev":"tor1","protocol":"82","flags":[]},
            {"dst":"default","protocol":"82","nexthops":[
                {"gateway":"10.2.1.0","dev":"tor1","weight":1},{"gateway":"10.2.2.0","dev":"tor2","weight":1}]},
            {"type":"blackhole","dst":"10.244.1.0/24","flags":[]}]"#;
        let routes: Vec<KernelRoute> = serde_json::from_str(text).unwrap();
        let counts: Vec<_> = routes.iter().map(|r| r.gateways().len()).collect();
        assert_eq!(counts, [1, 2, 0]);
    }
}

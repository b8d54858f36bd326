//! Memory and processor time of the agent, and what it says about its gate.

use std::time::Duration;

use anyhow::Context as _;

use super::Scene;
use crate::cluster::Cluster;
use crate::cluster::node::Node;

/// Time over which the processor time at rest is taken.
const REST: Duration = Duration::from_secs(20);
/// Name of the histogram of the gate.
const GATE: &str = "rampart_pod_gate_seconds_bucket";

/// Processor time of the agent of a node, in seconds, user and system.
///
/// # Errors
/// When there is none.
pub fn cpu_seconds(node: &Node<'_>) -> anyhow::Result<f64> {
    let stat = format!("/proc/{}/stat", node.agent_pid()?);
    let ticks = node.exec(&["awk", "{print $14 + $15}", &stat])?;
    Ok(ticks.trim().parse::<f64>()? / 100.0)
}

/// When the agent of a node began, in seconds since 1970, as it says itself.
///
/// # Errors
/// When it does not.
pub fn began(node: &Node<'_>) -> anyhow::Result<f64> {
    let metrics = metrics(node)?;
    let name = api::metric::PROCESS_START.name;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.rsplit(' ').next());
    Ok(value.context("when it began")?.parse()?)
}

fn metrics(node: &Node<'_>) -> anyhow::Result<String> {
    let address = format!("http://{}/metrics", api::constant::METRICS_ADDRESS);
    node.exec(&["curl", "-sf", &address])
}

/// Resident memory of the agent of a node, in bytes.
///
/// # Errors
/// When there is none.
pub fn resident(node: &Node<'_>) -> anyhow::Result<u64> {
    let status = node.exec(&["cat", &format!("/proc/{}/status", node.agent_pid()?)])?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.context("VmRSS")?.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Memory of the server's agent, and how much of a core it uses when nothing happens.
///
/// # Errors
/// When there is none.
pub fn at_rest(scene: &Scene<'_>) -> anyhow::Result<String> {
    let node = scene.cluster.node("n1")?;
    let before = cpu_seconds(&node)?;
    std::thread::sleep(REST);
    let share = (cpu_seconds(&node)? - before) / REST.as_secs_f64() * 100.0;
    let rss = resident(&node)?;
    Ok(format!("{:.1} MB RSS, {share:.2} % of a core", super::mib(rss) * 1.048_576))
}

/// How many pods the gates of all nodes have let through so far, by the time that took.
#[derive(Clone, Debug)]
pub struct Gates(Vec<(f64, f64)>);

/// Reads the histograms of the gates.
///
/// # Errors
/// When an agent does not tell its metrics.
pub fn gates(cluster: &Cluster) -> anyhow::Result<Gates> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for node in cluster.nodes() {
        for line in metrics(&node)?.lines() {
            let Some(rest) = line.strip_prefix(GATE) else { continue };
            let bound = rest.split("le=\"").nth(1).and_then(|it| it.split('"').next());
            let bound = match bound.context("a bucket has a bound")? {
                "+Inf" => f64::INFINITY,
                text => text.parse()?,
            };
            let count: f64 = rest.rsplit(' ').next().context("a bucket has a count")?.parse()?;
            match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
    }
    Ok(Gates(buckets))
}

impl Gates {
    /// What came after `before`, each figure as the bucket of the histogram that it falls into. Pods
    /// that waited for the agent itself, when the node was made, are before.
    #[must_use]
    pub fn since(&self, before: &Self) -> String {
        let earlier = |bound: f64| {
            let found = before.0.iter().find(|(known, _)| known.total_cmp(&bound).is_eq());
            found.map_or(0.0, |(_, count)| *count)
        };
        let buckets: Vec<(f64, f64)> =
            self.0.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect();
        let total = buckets.iter().map(|(_, count)| *count).fold(0.0, f64::max);
        let bound = |share: f64| {
            let found = buckets.iter().find(|(_, count)| *count >= total * share);
            found.map_or(f64::NAN, |(bound, _)| bound * 1000.0)
        };
        let [median, p99, max] = [0.5, 0.99, 1.0].map(bound);
        format!("median <= {median:.1} ms, p99 <= {p99:.1} ms, max <= {max:.1} ms of {total}")
    }
}

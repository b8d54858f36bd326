//! The scenario of an API server that is away: as long as one likes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use api::constant::NAMESPACE;
use api::control::{PeerView, Status};

use super::Cluster;
use super::control_plane::Part;
use super::scenario::{HTTP, Space, becomes, is};

/// How soon after its start an agent without an API server must have its sessions again.
const RESUMED: Duration = Duration::from_secs(3);
/// How long kubelet may take to start a container again.
const RESTARTED: Duration = Duration::from_secs(60);

/// Rules and routes of every node.
///
/// # Errors
/// When a node does not run.
pub fn dataplanes(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let nodes = cluster.nodes();
    nodes.iter().map(|node| Ok((node.record().name.clone(), node.dataplane()?))).collect()
}

/// Asserts that rules and routes stay as they are.
///
/// # Errors
/// When they change, with what changed.
pub fn unchanged_for(
    cluster: &Cluster,
    before: &BTreeMap<String, Vec<String>>,
    time: Duration,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        for (node, now) in dataplanes(cluster)? {
            let then = before.get(&node).context("a node that was not there")?;
            if *then != now {
                let gone: Vec<_> = then.iter().filter(|line| !now.contains(line)).collect();
                let new: Vec<_> = now.iter().filter(|line| !then.contains(line)).collect();
                anyhow::bail!("after {:?} on {node}: gone {gone:?}, new {new:?}", began.elapsed());
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// How often the agents' containers were restarted.
///
/// # Errors
/// When the API server does not answer.
pub fn restarts(cluster: &Cluster) -> anyhow::Result<Vec<u64>> {
    let component = "app.kubernetes.io/component=agent";
    let columns = "jsonpath={.items[*].status.containerStatuses[0].restartCount}";
    let text =
        cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", component, "-o", columns])?;
    Ok(text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

/// Stops the API server for `time`. Nothing changes meanwhile, no agent restarts by itself, and
/// one that is killed keeps policy and has its sessions again soon.
///
/// # Errors
/// When that is not so.
pub fn run(cluster: &Cluster, time: Duration) -> anyhow::Result<()> {
    let space = Space::new(cluster, "outage")?;
    let pods = space.serve(&[("server", "n1"), ("client", "n2"), ("friend", "n2")])?;
    let [server, client, friend] = &pods[..] else { anyhow::bail!("three pods") };
    space.apply_policy(
        "server",
        &serde_json::json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]},
        ]}),
    )?;
    becomes(cluster, client, server, HTTP, false)?;
    becomes(cluster, friend, server, HTTP, true)?;
    let sessions = established(cluster)?;
    ensure!(sessions > 0, "the agent of n1 has sessions");
    let (before, restarted) = (dataplanes(cluster)?, restarts(cluster)?);
    cluster.stop(Part::ApiServer)?;
    let outcome = unchanged_for(cluster, &before, time).and_then(|()| {
        let node = cluster.node("n1")?;
        let old: Status = node.agent("/v1/status")?;
        ensure!(old.uptime_seconds >= time.as_secs_f64(), "the agent restarted by itself");
        node.exec(&["kill", "-9", &node.agent_pid()?.to_string()])?;
        cluster.eventually(RESTARTED, "kubelet starts the agent again", || {
            Ok(node.agent::<Status>("/v1/status").is_ok())
        })?;
        cluster.eventually(RESTARTED, "its sessions are up", || {
            Ok(established(cluster).is_ok_and(|now| now >= sessions))
        })?;
        let status: Status = node.agent("/v1/status")?;
        ensure!(
            status.uptime_seconds <= RESUMED.as_secs_f64(),
            "sessions were up only {} s after its start",
            status.uptime_seconds
        );
        is(cluster, client, server, HTTP, false)?;
        is(cluster, friend, server, HTTP, true)?;
        unchanged_for(cluster, &before, Duration::from_secs(2))
    });
    cluster.start(Part::ApiServer)?;
    outcome?;
    space.delete_policy("server")?;
    becomes(cluster, client, server, HTTP, true)?;
    // The one that was killed is counted, once.
    let now = restarts(cluster)?;
    let (before, now): (u64, u64) = (restarted.iter().sum(), now.iter().sum());
    ensure!(now <= before + 1, "agents restarted: {before} times before, {now} now");
    Ok(())
}

fn established(cluster: &Cluster) -> anyhow::Result<usize> {
    let peers: Vec<PeerView> = cluster.node("n1")?.agent("/v1/peers")?;
    Ok(peers.iter().filter(|peer| peer.state == "Established").count())
}

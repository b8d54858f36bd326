//! What flows while Rampart itself is changed, killed and scaled.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use api::constant::NAMESPACE;
use api::control::Status;
use serde_json::json;
use tests::cluster::pod::Pod;
use tests::cluster::probe::{Flow, Knocker};
use tests::cluster::rampart::AGENT;
use tests::cluster::scenario::{HTTP, SOON, Space, becomes};
use tests::cluster::{Cluster, scale};

use crate::cluster;

/// One datagram each: 1000 a second over both families.
const PACE: Duration = Duration::from_millis(2);
/// How long a rollout of Rampart may take.
pub(crate) const ROLLOUT: Duration = Duration::from_secs(90);

/// Datagrams in both families from one pod to another, and a stranger who knocks.
pub(crate) struct Traffic {
    flows: Vec<Flow>,
    knockers: Vec<Knocker>,
}

impl Traffic {
    pub(crate) fn start(
        cluster: &Cluster,
        [server, friend, stranger]: [&Pod; 3],
    ) -> anyhow::Result<Self> {
        let (to, from) = (cluster.pod_network(server)?, cluster.pod_network(friend)?);
        let flows = server.addresses().map(|address| Flow::start(&from, &to, address, 9000, PACE));
        let flows: Vec<Flow> = flows.into_iter().collect::<anyhow::Result<_>>()?;
        let knock: PathBuf = cluster.pod_network(stranger)?;
        let patience = Duration::from_millis(50);
        let knockers = server.addresses().map(|address| {
            Knocker::start(knock.clone(), SocketAddr::from((address, HTTP)), patience)
        });
        Ok(Self { flows, knockers: knockers.into() })
    }

    pub(crate) fn nothing_was_lost_or_leaked(self) -> anyhow::Result<()> {
        for flow in self.flows {
            let report = flow.finish()?;
            ensure!(report.sent > 100, "hardly anything was sent: {report:?}");
            ensure!(report.lost() == 0, "{} lost: {report:?}", report.lost());
        }
        for knocker in self.knockers {
            let (attempts, connected) = knocker.finish()?;
            ensure!(attempts > 10, "hardly anybody knocked: {attempts}");
            ensure!(connected == 0, "{connected} of {attempts} forbidden connections were made");
        }
        Ok(())
    }
}

/// A server on n1 that a friend on n2 may send to and a stranger on n3 may not.
pub(crate) fn scene<'a>(cluster: &'a Cluster, name: &str) -> anyhow::Result<(Space<'a>, [Pod; 3])> {
    let space = Space::new(cluster, name)?;
    let pods = space.serve(&[("server", "n1"), ("friend", "n2"), ("stranger", "n3")])?;
    let pods: [Pod; 3] = pods.try_into().ok().context("three pods")?;
    space.apply_policy(
        "server",
        &json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]},
        ]}),
    )?;
    becomes(cluster, &pods[2], &pods[0], HTTP, false)?;
    becomes(cluster, &pods[1], &pods[0], HTTP, true)?;
    Ok((space, pods))
}

#[test]
fn a_rolling_upgrade_loses_and_leaks_nothing() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let (_space, pods) = scene(&cluster, "upgrade")?;
    let traffic = Traffic::start(&cluster, pods.each_ref())?;
    cluster.kubectl(&["rollout", "restart", "-n", NAMESPACE, AGENT])?;
    cluster.wait_agents()?;
    traffic.nothing_was_lost_or_leaked()
}

#[test]
fn every_agent_killed_at_once_loses_and_leaks_nothing() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let (_space, pods) = scene(&cluster, "killed")?;
    let traffic = Traffic::start(&cluster, pods.each_ref())?;
    for node in cluster.nodes() {
        node.exec(&["kill", "-9", &node.agent_pid()?.to_string()])?;
    }
    for node in cluster.nodes() {
        cluster.eventually(ROLLOUT, "the agent is back and ready", || {
            Ok(node.agent::<Status>("/v1/status").is_ok_and(|status| status.ready))
        })?;
    }
    cluster.wait_agents()?;
    traffic.nothing_was_lost_or_leaked()
}

#[test]
fn a_scaled_deployment_whose_pods_connect_at_once_leaks_and_loses_nothing() -> anyhow::Result<()> {
    let cluster = cluster()?;
    scale::run(&cluster, 16)
}

#[test]
fn policy_is_in_force_again_soon_after_an_agent_is_killed() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let (space, pods) = scene(&cluster, "restart")?;
    let node = cluster.node("n1")?;
    node.exec(&["kill", "-9", &node.agent_pid()?.to_string()])?;
    // Changed while nobody is there to hear it.
    space.delete_policy("server")?;
    cluster.eventually(ROLLOUT, "the agent is back", || {
        Ok(node.agent::<Status>("/v1/status").is_ok())
    })?;
    let took = becomes(&cluster, &pods[2], &pods[0], HTTP, true)?;
    ensure!(took < SOON, "{took:?}");
    Ok(())
}

//! Figures on the real cluster: `./tests/run bench-cluster`.
//!
//! All of one run on one machine, so that ratios mean something. Traffic is our own, in threads
//! inside the pods' network namespaces; changes go over the real API server, and the time of the
//! API call counts.

pub mod large;
pub mod latency;
pub mod resources;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::pod::{self, Pod};
use super::scenario::{HTTP, Space, becomes, up_with_rampart};
use super::{Cluster, Options, probe, rampart};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// What came out.
    pub figure: String,
    /// What DESIGN wants.
    pub goal: &'static str,
}

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Pods of the large scene.
    pub pods: usize,
    /// Changes that are timed in each scene.
    pub rounds: usize,
    /// Policies of the largest stage.
    pub policies: usize,
    /// Also load 5,000 nodes and 100,000 pods into the API server.
    pub large: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { pods: 200, rounds: 80, policies: 1000, large: false }
    }
}

/// A server on n1 with a neighbour on its node and a client on another one.
#[derive(Debug)]
pub struct Scene<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) space: Space<'a>,
    pub(super) server: Pod,
    pub(super) client: Pod,
    pub(super) server_network: PathBuf,
    pub(super) client_network: PathBuf,
    pub(super) neighbour_network: PathBuf,
}

impl<'a> Scene<'a> {
    fn new(cluster: &'a Cluster) -> anyhow::Result<Self> {
        let space = Space::new(cluster, "bench")?;
        let pods = space.serve(&[("server", "n1"), ("neighbour", "n1"), ("client", "n2")])?;
        let [server, neighbour, client]: [Pod; 3] = pods.try_into().ok().context("three pods")?;
        becomes(cluster, &client, &server, HTTP, true)?;
        Ok(Self {
            cluster,
            server_network: cluster.pod_network(&server)?,
            client_network: cluster.pod_network(&client)?,
            neighbour_network: cluster.pod_network(&neighbour)?,
            space,
            server,
            client,
        })
    }

    /// Path of the policies of the scene.
    #[must_use]
    pub(super) fn policies(&self) -> String {
        format!("/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies", self.space.name())
    }

    /// Makes pods that do nothing, on both nodes, 20 a second.
    fn idle_pods(&self, count: usize) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods", self.space.name());
        for number in 0..count {
            let node = if number % 2 == 0 { "n1" } else { "n2" };
            let mut pod =
                pod::manifest(self.space.name(), &format!("idle-{number}"), Some(node), &["pause"]);
            if let Some(spec) = pod.pointer_mut("/spec").and_then(Value::as_object_mut) {
                spec.insert("nodeName".to_owned(), json!(node));
                spec.insert("automountServiceAccountToken".to_owned(), json!(false));
            }
            self.cluster.api().create(&path, &pod)?;
            std::thread::sleep(Duration::from_millis(50));
        }
        let ready = ["--for=condition=Ready", "pod", "--all", "-n", self.space.name()];
        self.cluster.wait(&ready, Duration::from_secs(600))
    }
}

/// Measures everything; `tell` gets each line as soon as it is known.
///
/// # Errors
/// When the cluster does not do what is measured.
pub fn run(plan: Plan, mut tell: impl FnMut(&Row)) -> anyhow::Result<()> {
    let mut row = |what: &str, figure: String, goal: &'static str| {
        tell(&Row { what: what.to_owned(), figure, goal });
    };
    let cluster = up_with_rampart(Options::of_a_test())?;
    let size = std::fs::metadata(rampart::image()?)?.len();
    row("image (archive)", format!("{:.1} MiB", mib(size)), "<= 20 MiB");
    {
        let scene = Scene::new(&cluster)?;
        row("agent at rest", resources::at_rest(&scene)?, "<= 20 MB");
        let few = latency::of_changes(&scene, plan.rounds, 0)?;
        row("policy change -> first packet, 10 pods", few.to_string(), "<= 8 (30) ms");
        for policies in [0, 10, 100, plan.policies] {
            let what = format!("TCP connect, {policies} policies / no agent");
            let (ratio, more) = latency::of_connects(&scene, policies)?;
            row(&what, ratio, "<= 1.03");
            if policies == plan.policies {
                row(&format!("CPU to load {policies} policies"), more, "<= 0.1 s");
                row(
                    &format!("agent with {policies} policies"),
                    resources::at_rest(&scene)?,
                    "<= 30 MB",
                );
            }
            latency::remove_policies(&scene)?;
        }
        let before = resources::gates(&cluster)?;
        scene.idle_pods(plan.pods)?;
        row(
            &format!("policy in the kernel after the plugin asked, {} pods at 20/s", plan.pods),
            resources::gates(&cluster)?.since(&before),
            "p99 <= 100 ms",
        );
        row(&format!("agent with {} pods", plan.pods), resources::at_rest(&scene)?, "<= 25 MB");
        let many = latency::of_changes(&scene, plan.rounds, 0)?;
        let what = format!("policy change -> first packet, {} pods", plan.pods);
        row(&what, many.to_string(), "<= 10 (50) ms");
        let busy = latency::of_changes(&scene, plan.rounds, 50)?;
        row("the same at 50 changes/s", busy.to_string(), "p99 <= 50 ms");
        let restart = latency::of_restarts(&scene, 3)?;
        row("agent started -> change made meanwhile in force", restart.to_string(), "<= 150 ms");
    }
    if plan.large {
        row("agent with 5,000 nodes, 100,000 pods", large::run(&cluster)?, "<= 300 MiB");
    }
    Ok(())
}

/// Whether a connection can be made now.
pub(super) fn connects(network: &std::path::Path, to: &Pod) -> anyhow::Result<bool> {
    probe::connects(network, SocketAddr::from((to.v4, HTTP)), Duration::from_millis(500))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

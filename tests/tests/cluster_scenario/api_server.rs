//! The API server is away, slow, stale, or lies; etcd is away; the agent may not do what it did.

use std::time::{Duration, Instant};

use anyhow::ensure;
use api::constant::NAMESPACE;
use api::control::Status;
use serde_json::json;
use tests::cluster::control_plane::Part;
use tests::cluster::fabric::CONTROL_PLANE;
use tests::cluster::fault_proxy::{self, Fault, FaultProxy};
use tests::cluster::outage;
use tests::cluster::rampart::AGENT;
use tests::cluster::scenario::{HTTP, Space, becomes, is};

use crate::cluster;

/// How long the agents may take to do again what they are there for when a fault is over.
const HEALED: Duration = Duration::from_secs(15);
/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(8);

#[test]
fn an_outage_of_the_api_server_changes_nothing_and_ends() -> anyhow::Result<()> {
    let cluster = cluster()?;
    outage::run(&cluster, Duration::from_secs(15))
}

#[test]
fn an_outage_of_etcd_changes_nothing_and_ends() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = Space::new(&cluster, "etcd")?;
    let pods = space.serve(&[("server", "n1"), ("client", "n2")])?;
    let [server, client] = &pods[..] else { anyhow::bail!("two pods") };
    space.default_deny()?;
    becomes(&cluster, client, server, HTTP, false)?;
    let before = outage::dataplanes(&cluster)?;
    cluster.stop(Part::Etcd)?;
    let result = outage::unchanged_for(&cluster, &before, FAULT);
    cluster.start(Part::Etcd)?;
    result?;
    space.delete_policy("default-deny")?;
    becomes(&cluster, client, server, HTTP, true)?;
    Ok(())
}

/// Agents talk to the API server over the proxy as long as this lives.
struct OverProxy<'a> {
    cluster: &'a tests::cluster::Cluster,
    proxy: FaultProxy,
}

impl<'a> OverProxy<'a> {
    fn start(cluster: &'a tests::cluster::Cluster) -> anyhow::Result<Self> {
        let proxy = FaultProxy::start(cluster)?;
        let over = Self { cluster, proxy };
        over.endpoint(&[
            &format!("KUBERNETES_SERVICE_HOST={}", CONTROL_PLANE.0),
            &format!("KUBERNETES_SERVICE_PORT={}", fault_proxy::PORT),
        ])?;
        Ok(over)
    }

    fn endpoint(&self, variables: &[&str]) -> anyhow::Result<()> {
        self.cluster.kubectl(&[&["set", "env", "-n", NAMESPACE, AGENT], variables].concat())?;
        self.cluster.wait_agents()
    }
}

impl Drop for OverProxy<'_> {
    fn drop(&mut self) {
        self.proxy.set(Fault::None);
        // A test that failed has said so; the next one finds the agents as they were.
        self.endpoint(&["KUBERNETES_SERVICE_HOST-", "KUBERNETES_SERVICE_PORT-"]).ok();
    }
}

#[test]
fn no_fault_of_the_api_server_opens_or_closes_anything_and_each_heals() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = Space::new(&cluster, "faults")?;
    let pods = space.serve(&[("server", "n1"), ("client", "n2")])?;
    let [server, client] = &pods[..] else { anyhow::bail!("two pods") };
    let over = OverProxy::start(&cluster)?;
    let faults = [
        Fault::Gone,
        Fault::Slow(Duration::from_secs(2)),
        Fault::Silent,
        Fault::Stale,
        Fault::ShortWatches(Duration::from_millis(200)),
        Fault::Unauthorized,
    ];
    for (round, fault) in faults.into_iter().enumerate() {
        // A policy that the fault hides: it is made while it lasts and must be in force after it.
        let deny = round % 2 == 0;
        is(&cluster, client, server, HTTP, deny)?;
        let before = outage::dataplanes(&cluster)?;
        over.proxy.remember();
        drop(over.proxy.asked());
        over.proxy.set(fault);
        if matches!(fault, Fault::Gone | Fault::Silent | Fault::Stale | Fault::Unauthorized) {
            outage::unchanged_for(&cluster, &before, FAULT)?;
        } else {
            std::thread::sleep(Duration::from_secs(1));
        }
        if deny {
            space.default_deny()?;
        } else {
            space.delete_policy("default-deny")?;
        }
        let asked = over.proxy.asked();
        over.proxy.set(Fault::None);
        let healed = Instant::now();
        becomes(&cluster, client, server, HTTP, !deny)?;
        ensure!(healed.elapsed() < HEALED, "{fault:?} took {:?} to heal", healed.elapsed());
        for (path, asked) in asked {
            ensure!(asked.lists_at_once <= 1, "{fault:?}: {asked:?} of {path}");
            // Three agents that back off to 5 s at most: no storm.
            ensure!(asked.lists <= 120, "{fault:?}: {asked:?} of {path}");
        }
    }
    let restarts = outage::restarts(&cluster)?;
    drop(over);
    ensure!(restarts.iter().all(|count| *count == 0), "agents restarted: {restarts:?}");
    Ok(())
}

#[test]
fn a_verb_taken_out_of_the_role_is_told_and_enforcement_goes_on() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = Space::new(&cluster, "verbs")?;
    let pods = space.serve(&[("server", "n1"), ("client", "n2")])?;
    let [server, client] = &pods[..] else { anyhow::bail!("two pods") };
    space.default_deny()?;
    becomes(&cluster, client, server, HTTP, false)?;
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/rampart-agent";
    let role = cluster.api().get(path)?;
    let mut poorer = role["rules"].clone();
    for rule in poorer.as_array_mut().into_iter().flatten() {
        if rule["resources"].as_array().is_some_and(|all| all.contains(&json!("networkpolicies"))) {
            rule["resources"] = json!(["nothing"]);
        }
    }
    let before = outage::restarts(&cluster)?;
    cluster.api().patch(path, &json!({"rules": poorer}))?;
    let told =
        cluster.eventually(Duration::from_secs(90), "the agent tells that it may not", || {
            let status: Status = cluster.node("n1")?.agent("/v1/status")?;
            Ok(status.problems.iter().any(|it| {
                let text = format!("{} {}", it.message, it.subject).to_lowercase();
                text.contains("networkpolicies") || text.contains("networkpolicy")
            }))
        });
    let denied = is(&cluster, client, server, HTTP, false);
    cluster.api().patch(path, &json!({"rules": role["rules"]}))?;
    told?;
    denied?;
    space.delete_policy("default-deny")?;
    cluster.eventually(HEALED, "the change arrives when it may again", || {
        Ok(becomes(&cluster, client, server, HTTP, true).is_ok())
    })?;
    ensure!(outage::restarts(&cluster)? == before, "an agent restarted");
    Ok(())
}

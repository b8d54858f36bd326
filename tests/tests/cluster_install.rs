//! Rampart is installed on a cluster that has no network, and taken away again.
//!
//! Needs root.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use api::constant::{CNI_CONFLIST, CNI_NETWORK, CNI_PLUGIN, IPAM_DIR, NAMESPACE};
use tests::cluster::pod::Pod;
use tests::cluster::scenario::{HTTP, INSTALLED, Space, becomes};
use tests::cluster::{Cluster, Options, rampart};
use tests::program;

/// How long pods may take to end.
const LEFT: Duration = Duration::from_secs(120);

/// What `ip` and `nft` show on a node, without what the pods' own links and neighbours do.
fn inventory(cluster: &Cluster, node: &str) -> anyhow::Result<Vec<String>> {
    let node = cluster.node(node)?;
    let mut lines = Vec::new();
    for command in [
        &["ip", "-br", "link"][..],
        &["ip", "rule"],
        &["ip", "-6", "rule"],
        &["nft", "list", "tables"],
        &["ls", "/opt/cni/bin", "/etc/cni/net.d"],
    ] {
        lines.extend(node.exec(command)?.lines().map(str::to_owned));
    }
    Ok(lines)
}

/// `rctl uninstall --yes`, and what it says.
fn uninstall(cluster: &Cluster) -> anyhow::Result<String> {
    let mut uninstall = Command::new(program::rctl());
    uninstall.args(["uninstall", "--yes"]).env("RCTL_LAB", "none").stdin(Stdio::null());
    let output = cluster
        .spawn_in("cp", uninstall.stdout(Stdio::piped()).stderr(Stdio::piped()))?
        .wait_with_output()?;
    ensure!(output.status.success(), "rctl uninstall: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Nothing of ours is in the cluster, and on the nodes nothing that was not there `before` but what
/// pods that run need.
fn assert_nothing_is_left(cluster: &Cluster, before: &[Vec<String>]) -> anyhow::Result<()> {
    ensure!(cluster.kubectl(&["get", "namespace", NAMESPACE]).is_err(), "the namespace stays");
    let kinds = cluster.kubectl(&["get", "crds", "-o", "name"])?;
    ensure!(!kinds.contains("rampart"), "kinds stay: {kinds}");
    let roles = cluster.kubectl(&["get", "clusterroles,clusterrolebindings", "-o", "name"])?;
    ensure!(!roles.contains("rampart"), "roles stay: {roles}");
    for (node, before) in cluster.nodes().iter().zip(before) {
        let name = &node.record().name;
        let now = inventory(cluster, name)?;
        // Links and addresses of pods that run stay theirs; nothing else of ours does.
        let new = now.iter().filter(|line| !before.contains(line));
        let new: Vec<_> =
            new.filter(|line| !line.starts_with("rv") && !line.contains("table ip")).collect();
        ensure!(new.is_empty(), "{name} still has {new:?}");
        for family in ["-4", "-6"] {
            let routes = node.exec(&["ip", family, "route", "show", "proto", "82"])?;
            ensure!(routes.is_empty(), "{name} still has routes: {routes}");
        }
        for place in ["/var/lib/rampart", "/run/rampart"] {
            let gone = node.exec(&["test", "!", "-e", place]);
            ensure!(gone.is_ok(), "{name} still has {place}");
        }
        let reason = "jsonpath={.status.conditions[?(@.type==\"NetworkUnavailable\")].reason}";
        let reason = cluster.kubectl(&["get", "node", name, "-o", reason])?;
        ensure!(!reason.contains("Rampart"), "{name} still has a condition of ours: {reason}");
    }
    Ok(())
}

#[test]
fn an_installation_works_within_30_s_and_an_uninstallation_leaves_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::up(Options::of_a_test())?;
    // As a machine that has the image already: what is measured is Rampart, not a registry.
    cluster.load_image(&rampart::image()?)?;
    let before = [inventory(&cluster, "n1")?, inventory(&cluster, "n2")?];
    let (space, pods) = installs(&cluster)?;

    let said = uninstall(&cluster)?;
    assert_nothing_is_left(&cluster, &before)?;
    for node in ["n1", "n2"] {
        let (_, part) = said.split_once(&format!("node {node}:\n")).context("a part a node")?;
        let part = part.split("\nnode ").next().unwrap_or_default();
        for removed in ["table inet rampart", "10-rampart.conflist", "/opt/cni/bin/rampart-cni"] {
            ensure!(part.contains(removed), "{removed} is not told of {node}: {said}");
        }
    }
    for pod in &pods {
        ensure!(said.contains(&format!("{}/32", pod.v4)), "the pod's route is not told: {said}");
        ensure!(said.contains(&format!("{}/128", pod.v6)), "the pod's route is not told: {said}");
    }
    ensure!(said.contains("condition NetworkUnavailable removed"), "{said}");
    // Pods that remain keep running, on their node at least, and nothing isolates them any more.
    let phases = ["-n", "installed", "-o", "jsonpath={.items[*].status.phase}"];
    let phases = cluster.kubectl(&[&["get", "pods"][..], &phases].concat())?;
    ensure!(phases == "Running Running", "{phases}");
    let node = cluster.node("n1")?;
    let url = format!("http://{}:{HTTP}/hostname", pods[0].v4);
    let answer = node.exec(&["curl", "-sf", "-m", "2", &url])?;
    ensure!(answer == "a", "{answer}");
    drop(space);
    a_deleted_manifest_is_cleaned_up_after(&cluster, &before)
}

fn installs(cluster: &Cluster) -> anyhow::Result<(Space<'_>, [Pod; 2])> {
    let applied = Instant::now();
    cluster.apply(&rampart::manifests()?)?;
    cluster.wait_nodes_ready(INSTALLED)?;
    cluster.wait_dns(INSTALLED)?;
    let space = Space::new(cluster, "installed")?;
    let pods = space.serve(&[("a", "n1"), ("b", "n2")])?;
    let [a, b] = <[Pod; 2]>::try_from(pods).map_err(|pods| anyhow!("two pods: {pods:?}"))?;
    becomes(cluster, &a, &b, HTTP, true)?;
    becomes(cluster, &b, &a, HTTP, true)?;
    let took = applied.elapsed();
    ensure!(took < INSTALLED, "from apply to pods that talk: {took:?}");
    for node in cluster.nodes() {
        let unavailable = "jsonpath={.status.conditions[?(@.type==\"NetworkUnavailable\")].status}";
        let status = cluster.kubectl(&["get", "node", &node.record().name, "-o", unavailable])?;
        ensure!(status == "False" || status.is_empty(), "NetworkUnavailable is {status}");
        node.exec(&["test", "-s", &format!("/etc/cni/net.d/{CNI_CONFLIST}")])?;
        node.exec(&["test", "-x", &format!("/opt/cni/bin/{CNI_PLUGIN}")])?;
    }
    space.default_deny()?;
    becomes(cluster, &a, &b, HTTP, false)?;
    Ok((space, [a, b]))
}

/// `kubectl delete -f` takes the agents away before anybody could tell them to clean their nodes.
fn a_deleted_manifest_is_cleaned_up_after(
    cluster: &Cluster,
    before: &[Vec<String>],
) -> anyhow::Result<()> {
    cluster.apply(&rampart::manifests()?)?;
    cluster.wait_nodes_ready(INSTALLED)?;
    // Without pods of ours their addresses are nobody's any more, either.
    cluster.kubectl(&[
        "delete",
        "namespace",
        "installed",
        "--ignore-not-found",
        "--timeout=120s",
    ])?;
    cluster.kubectl(&["scale", "-n", "kube-system", "deployment", "--all", "--replicas=0"])?;
    cluster.eventually(LEFT, "the pods have ended", || {
        let links = cluster.nodes().into_iter().map(|node| node.exec(&["ip", "-br", "link"]));
        let links: Vec<String> = links.collect::<anyhow::Result<_>>()?;
        Ok(!links.concat().lines().any(|line| line.starts_with("rv")))
    })?;
    let manifests = rampart::manifests()?;
    cluster.kubectl_with(&["delete", "-f", "-", "--timeout=120s"], &manifests)?;
    let node = cluster.node("n1")?;
    ensure!(node.exec(&["nft", "list", "tables"])?.contains("inet rampart"), "nothing to clean");
    let said = uninstall(cluster)?;
    assert_nothing_is_left(cluster, before)?;
    ensure!(said.contains("removed  table inet rampart"), "{said}");
    for node in cluster.nodes() {
        let addresses = format!("{IPAM_DIR}/{CNI_NETWORK}");
        node.exec(&["test", "!", "-e", &addresses])?;
    }
    let again = uninstall(cluster)?;
    ensure!(again.contains("node n1: nothing of ours was left"), "{again}");
    Ok(())
}

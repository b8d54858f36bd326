//! Rampart is installed on a cluster that has no network, and taken away again.
//!
//! Needs root.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::ensure;
use api::constant::{CNI_CONFLIST, CNI_PLUGIN, NAMESPACE};
use tests::cluster::scenario::{HTTP, INSTALLED, Space, becomes};
use tests::cluster::{Cluster, Options, rampart};
use tests::program;

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

#[test]
fn an_installation_works_within_30_s_and_an_uninstallation_leaves_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::up(Options::of_a_test())?;
    // As a machine that has the image already: what is measured is Rampart, not a registry.
    cluster.load_image(&rampart::image()?)?;
    let before = [inventory(&cluster, "n1")?, inventory(&cluster, "n2")?];

    let applied = Instant::now();
    cluster.apply(&rampart::manifests()?)?;
    cluster.wait_nodes_ready(INSTALLED)?;
    cluster.wait_dns(INSTALLED)?;
    let space = Space::new(&cluster, "installed")?;
    let pods = space.serve(&[("a", "n1"), ("b", "n2")])?;
    becomes(&cluster, &pods[0], &pods[1], HTTP, true)?;
    becomes(&cluster, &pods[1], &pods[0], HTTP, true)?;
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
    becomes(&cluster, &pods[0], &pods[1], HTTP, false)?;

    let mut uninstall = Command::new(program::rctl());
    uninstall.args(["uninstall", "--yes"]).stdin(Stdio::null());
    let output = cluster
        .spawn_in("cp", uninstall.stdout(Stdio::piped()).stderr(Stdio::piped()))?
        .wait_with_output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "rctl uninstall: {words}");
    ensure!(cluster.kubectl(&["get", "namespace", NAMESPACE]).is_err(), "the namespace stays");
    let kinds = cluster.kubectl(&["get", "crds", "-o", "name"])?;
    ensure!(!kinds.contains("rampart"), "kinds stay: {kinds}");
    let roles = cluster.kubectl(&["get", "clusterroles,clusterrolebindings", "-o", "name"])?;
    ensure!(!roles.contains("rampart"), "roles stay: {roles}");
    for (node, before) in cluster.nodes().iter().zip(before) {
        let name = &node.record().name;
        let now = inventory(&cluster, name)?;
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
            let files = node.exec(&["sh", "-c", &format!("ls -A {place} 2>/dev/null || true")])?;
            ensure!(files.is_empty(), "{name} still has in {place}: {files}");
        }
    }
    // Pods that remain keep running, on their node at least, and nothing isolates them any more.
    let phases = cluster.kubectl(&[
        "get",
        "pods",
        "-n",
        "installed",
        "-o",
        "jsonpath={.items[*].status.phase}",
    ])?;
    ensure!(phases == "Running Running", "{phases}");
    let node = cluster.node("n1")?;
    let mut get = vec!["curl", "-sf", "-m", "2"];
    let url = format!("http://{}:{HTTP}/hostname", pods[0].v4);
    get.push(&url);
    let answer = node.exec(&get)?;
    ensure!(answer == "a", "{answer}");
    Ok(())
}

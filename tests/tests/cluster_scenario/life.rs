//! Nodes come and go.

use std::time::Duration;

use tests::cluster::Cluster;
use tests::cluster::scenario::{HTTP, Space, becomes};

use crate::cluster;

/// How long a node may take from its first process to Ready.
const JOIN: Duration = Duration::from_secs(180);

fn pod_cidrs(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    cluster.kubectl(&["get", "node", node, "-o", "jsonpath={.spec.podCIDRs}"])
}

#[test]
fn a_node_joins_and_leaves_and_its_pods_are_reached_while_it_is_there() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = Space::new(&cluster, "join")?;
    let stay = space.serve(&[("stay", "n1")])?.remove(0);
    let joined = cluster.add_node()?.name;
    cluster.load_rampart(&cluster.node(&joined)?)?;
    cluster.wait(&["--for=condition=Ready", &format!("node/{joined}")], JOIN)?;
    let guest = space.serve(&[("guest", &joined)])?.remove(0);
    becomes(&cluster, &stay, &guest, HTTP, true)?;
    becomes(&cluster, &guest, &stay, HTTP, true)?;
    let prefix = format!("{} ", network_of(&cluster, &joined)?);
    let routes = |node: &str| cluster.node(node)?.exec(&["ip", "route"]);
    anyhow::ensure!(routes("n1")?.contains(&prefix), "no route to {prefix}on n1");
    cluster.remove_node(&joined)?;
    cluster.eventually(JOIN, "the others have no route to it", || {
        Ok(!routes("n1")?.contains(&prefix) && !routes("n2")?.contains(&prefix))
    })
}

fn network_of(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    cluster.kubectl(&["get", "node", node, "-o", "jsonpath={.spec.podCIDRs[0]}"])
}

#[test]
fn a_node_that_is_deleted_comes_back_with_another_pod_cidr() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = Space::new(&cluster, "comes-back")?;
    let stay = space.serve(&[("stay", "n1")])?.remove(0);
    let before = pod_cidrs(&cluster, "n3")?;
    cluster.kubectl(&["delete", "node", "n3"])?;
    // kubelet registers a node when it starts; the node's init starts it again.
    let node = cluster.node("n3")?;
    node.exec(&["pkill", "-x", "kubelet"])?;
    cluster.eventually(JOIN, "the node is back with another pod CIDR", || {
        Ok(pod_cidrs(&cluster, "n3").is_ok_and(|now| !now.is_empty() && now != before))
    })?;
    cluster.wait(&["--for=condition=Ready", "node/n3"], JOIN)?;
    cluster.wait_agents()?;
    let guest = space.serve(&[("guest", "n3")])?.remove(0);
    becomes(&cluster, &stay, &guest, HTTP, true)?;
    becomes(&cluster, &guest, &stay, HTTP, true)?;
    Ok(())
}

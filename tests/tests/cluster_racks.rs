//! Two racks behind ToRs of other makers, kube-proxy in nftables mode: the fabric learns pods over
//! BGP, or an overlay carries them over a fabric that does not.
//!
//! Needs root.

use std::net::SocketAddr;
use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use api::constant::{OVERLAY_INTERFACE, RACK_LABEL};
use ctl::lab::namespace;
use serde_json::json;
use tests::cluster::fabric::{CLUSTER_CIDRS, Fabric, WORLD, tor_addresses, tor_asn};
use tests::cluster::pod::Pod;
use tests::cluster::scenario::{self, HTTP, Space, becomes, is};
use tests::cluster::{Cluster, Options, Proxy, probe, service_scenario};

const SOON: Duration = Duration::from_secs(30);

/// n1 and n3 in the rack of `tor1` (BIRD), n2 in the rack of `tor2` (FRR).
fn cluster() -> anyhow::Result<MutexGuard<'static, Cluster>> {
    scenario::shared(|| Options {
        nodes: 3,
        fabric: Fabric::Racks,
        proxy: Proxy::Nftables,
        ..Options::of_a_test()
    })
}

/// Objects of a test, gone when it ends.
struct Applied<'a>(&'a Cluster, String);

impl<'a> Applied<'a> {
    fn new(cluster: &'a Cluster, objects: &[serde_json::Value]) -> anyhow::Result<Self> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        cluster.apply(&list)?;
        Ok(Self(cluster, list))
    }
}

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        // A test that failed has said so.
        self.0.delete(&self.1).ok();
    }
}

fn tor_peers(cluster: &Cluster) -> anyhow::Result<Applied<'_>> {
    let mut peers = Vec::new();
    for node in cluster.nodes() {
        let label = format!("{RACK_LABEL}=rack{}", node.record().rack);
        cluster.kubectl(&["label", "--overwrite", "node", &node.record().name, &label])?;
    }
    for rack in [1, 2] {
        let (v4, v6) = tor_addresses(rack);
        // BIRD takes both families over one session, FRR has one for each.
        let addresses =
            if rack == 1 { vec![v4.to_string()] } else { vec![v4.to_string(), v6.to_string()] };
        for (number, address) in addresses.iter().enumerate() {
            peers.push(json!({
                "apiVersion": "rampart.network/v1alpha1", "kind": "BGPPeer",
                "metadata": {"name": format!("tor{rack}-{number}")},
                "spec": {
                    "nodeSelector": {"matchLabels": {RACK_LABEL: format!("rack{rack}")}},
                    "peerAddress": address, "peerASN": tor_asn(rack), "holdTimeSeconds": 9,
                },
            }));
        }
    }
    Applied::new(cluster, &peers)
}

fn pods(space: &Space<'_>) -> anyhow::Result<[Pod; 3]> {
    let pods = space.serve(&[("a", "n1"), ("b", "n2"), ("c", "n3")])?;
    pods.try_into().ok().context("three pods")
}

fn all_reach_all(cluster: &Cluster, pods: &[Pod; 3]) -> anyhow::Result<()> {
    for from in pods {
        for to in pods.iter().filter(|to| to.name != from.name) {
            becomes(cluster, from, to, HTTP, true)?;
        }
    }
    Ok(())
}

#[test]
fn tors_of_both_racks_learn_pods_and_the_world_reaches_them_without_nat() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let _peers = tor_peers(&cluster)?;
    for tor in ["tor1", "tor2"] {
        cluster.eventually(SOON, "every ToR has every node's pods in its kernel", || {
            Ok(kernel_routes(&cluster, tor, "-4")? == 3 && kernel_routes(&cluster, tor, "-6")? == 3)
        })?;
    }
    let space = Space::new(&cluster, "tors")?;
    let pods = pods(&space)?;
    all_reach_all(&cluster, &pods)?;
    // What a policy judges is the pod's own address, over two routers.
    space.apply_policy(
        "b",
        &json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]},
        ]}),
    )?;
    becomes(&cluster, &pods[2], &pods[1], HTTP, false)?;
    is(&cluster, &pods[0], &pods[1], HTTP, true)?;
    // The other side of the core reaches pods by their addresses and sees theirs.
    let world = namespace::path(&cluster.name().namespace("world"));
    for address in pods[0].addresses() {
        let to = SocketAddr::from((address, HTTP));
        ensure!(probe::connects(&world, to, Duration::from_secs(2))?, "world -> {to}");
    }
    Ok(())
}

fn kernel_routes(cluster: &Cluster, member: &str, family: &str) -> anyhow::Result<usize> {
    let [v4, v6] = CLUSTER_CIDRS;
    let within = if family == "-4" { v4 } else { v6 };
    let mut command = std::process::Command::new("ip");
    command.args([family, "route", "show", "root", within]).stdout(std::process::Stdio::piped());
    let output = cluster.spawn_in(member, &mut command)?.wait_with_output()?;
    // A route with several next hops has lines of its own for them, indented.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter(|line| !line.starts_with([' ', '\t'])).count())
}

#[test]
fn an_overlay_carries_pods_over_a_fabric_that_does_not_know_them() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = Space::new(&cluster, "overlay")?;
    let pods = pods(&space)?;
    // Rack-mates are on one link: no overlay, no ToR.
    becomes(&cluster, &pods[0], &pods[2], HTTP, true)?;
    is(&cluster, &pods[0], &pods[1], HTTP, false)?;
    let overlay = Applied::new(
        &cluster,
        &[json!({
            "apiVersion": "rampart.network/v1alpha1", "kind": "NetworkConfiguration",
            "metadata": {"name": "default"}, "spec": {"overlay": {"mode": "VXLANCrossSubnet"}},
        })],
    )?;
    all_reach_all(&cluster, &pods)?;
    // The largest packet that pods of an overlay agree on goes through; new pods have its MTU.
    let late = space.serve(&[("late", "n2")])?.remove(0);
    let mtu = cluster.pod_exec(
        "overlay",
        "late",
        &["sh", "-c", "read mtu < /sys/class/net/eth0/mtu; echo $mtu"],
    )?;
    ensure!(mtu.trim() == "1450", "{mtu}");
    becomes(&cluster, &late, &pods[0], HTTP, true)?;
    space.apply_policy("late", &json!({"podSelector": {"matchLabels": {"app": "late"}}}))?;
    becomes(&cluster, &pods[0], &late, HTTP, false)?;
    drop(overlay);
    for node in cluster.nodes() {
        cluster.eventually(SOON, "the overlay is gone", || {
            Ok(!node.exec(&["ip", "-br", "link"])?.contains(OVERLAY_INTERFACE))
        })?;
    }
    Ok(())
}

#[test]
fn pods_reach_the_world_as_their_node_unless_the_fabric_routes_them() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = Space::new(&cluster, "world")?;
    let pod = space.serve(&[("a", "n1")])?.remove(0);
    let node = cluster.node("n1")?.record().clone();
    let world = namespace::path(&cluster.name().namespace("world"));
    let seen = |family: std::net::IpAddr| -> anyhow::Result<Option<std::net::IpAddr>> {
        let listener = probe::inside(&world, || {
            std::net::TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, 9200))
        })??;
        listener.set_nonblocking(true)?;
        let from = cluster.pod_network(&pod)?;
        let to = SocketAddr::from((family, 9200));
        if !probe::connects(&from, to, Duration::from_millis(500))? {
            return Ok(None);
        }
        Ok(Some(listener.accept()?.1.ip().to_canonical()))
    };
    let (v4, v6) = (WORLD.0.into(), WORLD.1.into());
    cluster.eventually(SOON, "the world sees the node", || {
        Ok(seen(v4)? == Some(node.v4.into()) && seen(v6)? == Some(node.v6.into()))
    })?;
    let _peers = tor_peers(&cluster)?;
    cluster.eventually(SOON, "the world sees the pod", || {
        Ok(seen(v4)? == Some(pod.v4) && seen(v6)? == Some(pod.v6))
    })
}

#[test]
fn services_are_judged_on_client_and_backend_with_kube_proxy_in_nftables_mode() -> anyhow::Result<()>
{
    let cluster = cluster()?;
    let _peers = tor_peers(&cluster)?;
    service_scenario::run(&cluster)
}

//! The scenario of service traffic, run in each mode of kube-proxy.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ctl::lab::namespace;
use serde_json::{Value, json};

use super::fabric::WORLD;
use super::pod::Pod;
use super::scenario::{HTTP, OTHER, SOON, Space};
use super::{Cluster, probe};

/// How long a connection may take that is allowed.
const PATIENCE: Duration = Duration::from_secs(1);
/// Port on the nodes for the pod with a hostPort.
const HOST_PORT: u16 = 18080;

/// Waits until a connection from inside `from` is made, or is not made any more.
fn becomes(
    cluster: &Cluster,
    from: &Path,
    to: SocketAddr,
    what: &str,
    expected: bool,
) -> anyhow::Result<()> {
    let what = format!("{what} ({to}) is {}", if expected { "allowed" } else { "denied" });
    cluster.eventually(SOON, &what, || Ok(probe::connects(from, to, PATIENCE)? == expected))
}

fn ports(service: &Value) -> anyhow::Result<(Vec<IpAddr>, u16)> {
    let addresses = service["spec"]["clusterIPs"].as_array().context("clusterIPs")?;
    let addresses = addresses.iter().filter_map(Value::as_str).map(str::parse);
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap_or(0);
    Ok((addresses.collect::<Result<_, _>>()?, port.try_into()?))
}

/// Services of all kinds in front of one isolated backend.
struct Scene<'a> {
    cluster: &'a Cluster,
    space: Space<'a>,
    server: Pod,
    friend: PathBuf,
    stranger: PathBuf,
    world: PathBuf,
}

impl Scene<'_> {
    fn service(&self, name: &str, spec: &Value) -> anyhow::Result<(Vec<IpAddr>, u16)> {
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": self.space.name()},
            "spec": {
                "selector": {"app": "server"},
                "ipFamilyPolicy": "RequireDualStack",
                "ports": [{"port": 80, "targetPort": HTTP}],
            },
        });
        if let (Some(into), Some(more)) = (service["spec"].as_object_mut(), spec.as_object()) {
            into.extend(more.clone());
        }
        let path = format!("/api/v1/namespaces/{}/services", self.space.name());
        ports(&self.cluster.api().create(&path, &service)?)
    }

    fn check(&self, from: &Path, to: SocketAddr, what: &str, expected: bool) -> anyhow::Result<()> {
        becomes(self.cluster, from, to, what, expected)
    }
}

/// Runs it: ClusterIP, hairpin, NodePort with `externalTrafficPolicy: Local`, hostPort.
///
/// # Errors
/// When a packet does not go where it must.
pub fn run(cluster: &Cluster) -> anyhow::Result<()> {
    let space = Space::new(cluster, "services")?;
    let mut server = space.server("server", "n1");
    server["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": OTHER, "hostPort": HOST_PORT}]);
    let servers = cluster.run_pods(&[
        server,
        space.server("friend", "n2"),
        space.server("stranger", "n2"),
    ])?;
    let [server, friend, stranger] = &servers[..] else { anyhow::bail!("three pods") };
    let scene = Scene {
        cluster,
        friend: cluster.pod_network(friend)?,
        stranger: cluster.pod_network(stranger)?,
        world: namespace::path(&cluster.name().namespace("world")),
        server: server.clone(),
        space,
    };
    scene.space.apply_policy(
        "server",
        &json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]},
        ]}),
    )?;
    cluster_ips(&scene)?;
    node_ports(&scene)?;
    host_port(&scene)
}

fn cluster_ips(scene: &Scene<'_>) -> anyhow::Result<()> {
    let (addresses, _) = scene.service("cluster", &json!({}))?;
    ensure!(addresses.len() == 2, "a ClusterIP of each family: {addresses:?}");
    let own = scene.cluster.pod_network(&scene.server)?;
    for address in addresses {
        let to = SocketAddr::from((address, 80));
        scene.check(&scene.friend, to, "friend -> ClusterIP", true)?;
        scene.check(&scene.stranger, to, "stranger -> ClusterIP", false)?;
        // A pod may always talk to itself, round the service too.
        scene.check(&own, to, "server -> its own ClusterIP", true)?;
    }
    Ok(())
}

fn node_ports(scene: &Scene<'_>) -> anyhow::Result<()> {
    let local = json!({"type": "NodePort", "externalTrafficPolicy": "Local"});
    let (_, port) = scene.service("local", &local)?;
    let node = scene.cluster.node(&scene.server.node)?;
    let targets = [IpAddr::V4(node.record().v4), IpAddr::V6(node.record().v6)];
    for address in targets {
        scene.check(&scene.world, (address, port).into(), "world -> NodePort", false)?;
    }
    // The client's own address counts, since Local keeps it.
    let world = [format!("{}/32", WORLD.0), format!("{}/128", WORLD.1)];
    let blocks = world.map(|cidr| json!({"ipBlock": {"cidr": cidr}}));
    let spec =
        json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": blocks}]});
    scene.space.apply_policy("world", &spec)?;
    for address in targets {
        scene.check(&scene.world, (address, port).into(), "world -> NodePort", true)?;
    }
    scene.space.delete_policy("world")?;
    for address in targets {
        scene.check(&scene.world, (address, port).into(), "world -> NodePort again", false)?;
    }
    Ok(())
}

fn host_port(scene: &Scene<'_>) -> anyhow::Result<()> {
    let node = scene.cluster.node(&scene.server.node)?;
    let targets = [IpAddr::V4(node.record().v4), IpAddr::V6(node.record().v6)];
    for address in targets {
        scene.check(&scene.world, (address, HOST_PORT).into(), "world -> hostPort", false)?;
    }
    let everybody = json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [
        {"ports": [{"port": OTHER}]},
    ]});
    scene.space.apply_policy("everybody", &everybody)?;
    for address in targets {
        scene.check(&scene.world, (address, HOST_PORT).into(), "world -> hostPort", true)?;
    }
    Ok(())
}

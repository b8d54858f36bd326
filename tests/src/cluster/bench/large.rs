//! A load as of a large cluster: objects without machines, in the real API server.

use std::time::Duration;

use serde_json::json;

use super::resources::resident;
use crate::cluster::Cluster;
use crate::cluster::control_plane::Part;

/// Nodes without machines.
const NODES: usize = 5_000;
/// Pods on them.
const PODS: usize = 100_000;
/// Namespaces of the pods.
const NAMESPACES: usize = 100;
/// Requests at one time.
const WORKERS: usize = 16;
/// How long the agents may take to have read it all.
const READ: Duration = Duration::from_secs(120);

/// Loads the objects and returns what the agent of n1 needs for them.
///
/// # Errors
/// When the API server refuses one.
pub fn run(cluster: &Cluster) -> anyhow::Result<String> {
    // They would take away what has no machine.
    cluster.stop(Part::ControllerManager)?;
    cluster.stop(Part::Scheduler)?;
    let api = cluster.api();
    for number in 0..NAMESPACES {
        let name = format!("large-{number}");
        let account = json!({"metadata": {"name": "default"}});
        api.create("/api/v1/namespaces", &json!({"metadata": {"name": name}}))?;
        api.create(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account)?;
    }
    in_parallel(NODES, |number| make_node(cluster, number))?;
    in_parallel(PODS, |number| make_pod(cluster, number))?;
    let node = cluster.node("n1")?;
    let total = NODES + cluster.nodes().len();
    cluster.eventually(READ, "the agent has read them", || {
        let nodes: Vec<serde_json::Value> = node.agent("/v1/nodes")?;
        Ok(nodes.len() >= total)
    })?;
    std::thread::sleep(Duration::from_secs(10));
    let rss = resident(&node)?;
    Ok(format!("{:.0} MiB RSS (generated objects, real API server)", super::mib(rss)))
}

fn in_parallel(
    count: usize,
    work: impl Fn(usize) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..WORKERS)
            .map(|first| scope.spawn(move || (first..count).step_by(WORKERS).try_for_each(work)))
            .collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn make_node(cluster: &Cluster, number: usize) -> anyhow::Result<()> {
    let (high, low) = (number / 250, number % 250 + 2);
    let cidrs =
        [format!("100.{}.{low}.0/24", 64 + high), format!("fd00:1000:{high:x}:{low:x}::/64")];
    let name = format!("large-{number}");
    let node = json!({
        "metadata": {"name": name},
        // Not Ready is no matter here; that nobody is scheduled is.
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs, "unschedulable": true},
    });
    let api = cluster.api();
    api.create("/api/v1/nodes", &node)?;
    let addresses = [format!("172.31.{high}.{low}"), format!("fd00:31::{high:x}:{low:x}")];
    let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
    api.patch(
        &format!("/api/v1/nodes/{name}/status"),
        &json!({"status": {"addresses": addresses}}),
    )?;
    Ok(())
}

fn make_pod(cluster: &Cluster, number: usize) -> anyhow::Result<()> {
    let node = number % NODES;
    let (high, low, host) = (node / 250, node % 250 + 2, number / NODES + 2);
    let ips = [
        format!("100.{}.{low}.{host}", 64 + high),
        format!("fd00:1000:{high:x}:{low:x}::{host:x}"),
    ];
    let (namespace, name) = (format!("large-{}", number % NAMESPACES), format!("pod-{number}"));
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let pod = json!({
        "metadata": {"name": name, "labels": {
            "app": format!("app-{}", number % 500), "tier": format!("tier-{}", number % 3),
            "pod-template-hash": format!("{:x}", number % 500),
        }},
        "spec": {"nodeName": format!("large-{node}"), "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "none", "ports": [{"name": "http", "containerPort": 8080}]}]},
    });
    let api = cluster.api();
    api.create(&path, &pod)?;
    let addresses = ips.clone().map(|ip| json!({"ip": ip}));
    let status = json!({"status": {"phase": "Running", "podIP": ips[0], "podIPs": addresses}});
    api.patch(&format!("{path}/{name}/status"), &status)?;
    Ok(())
}

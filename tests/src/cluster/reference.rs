//! A plain network without policy: the CNI project's plugins and static routes.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::Cluster;
use super::fabric;
use super::node::Record;

/// Both pod CIDRs of a node.
const CIDRS: &str = "jsonpath={.spec.podCIDRs[0]} {.spec.podCIDRs[1]}";

/// Gives every node that is there now its conflist, and everybody the routes.
///
/// # Errors
/// When a node has no pod CIDRs or something cannot be written.
pub fn install(cluster: &Cluster) -> anyhow::Result<()> {
    for node in cluster.nodes() {
        let record = node.record();
        let cidrs = cluster.kubectl(&["get", "node", &record.name, "-o", CIDRS])?;
        let (v4, v6) = cidrs.split_once(' ').context("two pod CIDRs")?;
        let via = [
            format!("route replace {v4} via {}", record.v4),
            format!("route replace {v6} via {}", record.v6),
        ];
        // Its rack-mates and its ToR reach it directly, everybody else over that ToR.
        for other in cluster.nodes() {
            if other.record().rack == record.rack && other.record().name != record.name {
                fabric::ip(cluster.name(), &other.record().name, &via)?;
            }
        }
        route_on_tors(cluster, record, [v4, v6])?;
        // An address without a pod must not travel round.
        let sinks = [
            format!("route replace blackhole {v4}"),
            format!("route replace blackhole {v6} metric 4096"),
        ];
        fabric::ip(cluster.name(), &record.name, &sinks)?;
        fs::copy(Path::new("/usr/lib/cni/ptp"), node.directory().join("cni-bin/ptp"))?;
        let conflist = json!({"cniVersion": "1.0.0", "name": "reference", "plugins": [
            {"type": "ptp", "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": v4}], [{"subnet": v6}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]});
        let directory = node.directory().join("etc/upper/cni/net.d");
        // Through the node's own /etc: the upper half of an overlay is not ours to write.
        let script = format!("cat > /etc/cni/net.d/10-reference.conflist <<'E'\n{conflist}\nE");
        node.exec(&["bash", "-c", &script]).with_context(|| directory.display().to_string())?;
    }
    Ok(())
}

/// Tells every ToR the way to the pods of a node.
fn route_on_tors(cluster: &Cluster, node: &Record, [v4, v6]: [&str; 2]) -> anyhow::Result<()> {
    for rack in cluster.options().fabric.racks() {
        let (via_v4, via_v6) =
            if *rack == node.rack { (node.v4, node.v6) } else { fabric::core_addresses(node.rack) };
        let routes = [
            format!("route replace {v4} via {via_v4}"),
            format!("route replace {v6} via {via_v6}"),
        ];
        fabric::ip(cluster.name(), &format!("tor{rack}"), &routes)?;
    }
    Ok(())
}

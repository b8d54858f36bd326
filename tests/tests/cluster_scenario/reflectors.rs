//! From the mesh to route reflectors and back.

use api::control::PeerView;
use tests::cluster::Cluster;
use tests::cluster::rampart::reflector_manifests;

use crate::cluster;
use crate::traffic::{ROLLOUT, Traffic, scene};

/// Kinds of the peers with whom a node has a session.
fn sessions(cluster: &Cluster, node: &str) -> anyhow::Result<Vec<String>> {
    let peers: Vec<PeerView> = cluster.node(node)?.agent("/v1/peers")?;
    let up = peers.into_iter().filter(|peer| peer.state == "Established");
    Ok(up.map(|peer| peer.kind).collect())
}

#[test]
fn from_mesh_to_reflectors_and_back_loses_nothing() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let (_space, pods) = scene(&cluster, "reflectors")?;
    let traffic = Traffic::start(&cluster, pods.each_ref())?;
    let reflectors = reflector_manifests()?;
    cluster.apply(&reflectors)?;
    cluster.wait_rollout("deployment/rampart-route-reflector")?;
    let all = |kind: &str, wanted: bool| {
        let nodes = cluster.nodes();
        nodes.iter().try_fold(true, |all, node| {
            let sessions = sessions(&cluster, &node.record().name)?;
            Ok::<_, anyhow::Error>(all && sessions.iter().any(|it| it == kind) == wanted)
        })
    };
    cluster
        .eventually(ROLLOUT, "every node is a client of a reflector", || all("reflector", true))?;
    cluster.eventually(ROLLOUT, "no node has a session of the mesh", || all("mesh", false))?;
    cluster.delete(&reflectors)?;
    cluster.eventually(ROLLOUT, "every node is in the mesh again", || all("mesh", true))?;
    cluster.eventually(ROLLOUT, "no node has a reflector", || all("reflector", false))?;
    traffic.nothing_was_lost_or_leaked()
}

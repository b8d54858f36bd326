//! What a route reflector of the cluster is: a speaker whose peers are all nodes, and that forwards
//! nothing itself.
//!
//! - Every Node is a client at its address, of the first family that it has in common with the
//!   reflector's own Node; it connects to us ([`REFLECTOR_PORT`]), we never to it. Nobody else may.
//! - A client may announce the pod CIDRs of its Node and nothing else, as in the mesh.
//! - Reflectors do not peer with each other. Each agent peers with each reflector, so each hears
//!   everything first hand. What such a session would help with, one node that reaches only this and
//!   another that reaches only that reflector, the mesh does: see [`crate::handover`].
//! - The BGP Identifier is a hash of the node's name, and not its address: that is the agent's.

use std::collections::BTreeSet;
use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr};

use api::constant::REFLECTOR_PORT;
use bgp::config::{Config, PeerConfig, PeerKind, Policy};
use bgp::types::RouterId;
use rustc_hash::FxHasher;

use super::assemble::{REFLECTOR_HOLD_TIME, announced, without_duplicates};
use super::settings::Settings;
use super::{Fault, Reconciler, consistency};

/// What a route reflector on our node should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReflectorPlan {
    /// Identity and clients.
    pub config: Config,
}

/// `None` while our own Node is not there.
pub(super) fn assemble(reconciler: &mut Reconciler) -> (Option<ReflectorPlan>, Vec<Fault>) {
    let mut found = Vec::new();
    let nodes = without_duplicates(reconciler, &mut found);
    let mut settings = match &mut reconciler.settings {
        Some(tracked) => {
            tracked.in_force.clone_from(&tracked.good);
            tracked.good.clone().unwrap_or_default()
        }
        None => Settings::default(),
    };
    found.extend(consistency::cluster_cidrs(&mut settings, &nodes));
    let Some(own) = nodes.get(&reconciler.node_name) else {
        return (None, reconciler.faults(found));
    };
    let taken: BTreeSet<&IpAddr> = nodes.values().flat_map(|node| node.addresses.iter()).collect();
    let mut ids = (0..).map(|salt| router_id(&own.name, salt));
    let router_id = ids.find(|id| !taken.contains(&IpAddr::V4(*id))).unwrap_or(Ipv4Addr::LOCALHOST);
    let mut peers = Vec::new();
    for node in nodes.values() {
        let Some((address, local)) = own.way_to(&node.addresses) else { continue };
        peers.push(PeerConfig {
            port: REFLECTOR_PORT,
            local_address: Some(local),
            hold_time: REFLECTOR_HOLD_TIME,
            passive: true,
            route_reflector_client: true,
            import: Policy::Accept(announced(node, &settings)),
            export: Policy::All,
            graceful_restart: settings.restart.of(PeerKind::Reflector),
            ..PeerConfig::new(node.name.clone(), PeerKind::Reflector, address, settings.asn)
        });
    }
    peers.sort_by_key(PeerConfig::endpoint);
    peers.dedup_by_key(|peer| peer.endpoint());
    let config = Config {
        asn: settings.asn,
        router_id: RouterId(router_id),
        cluster_id: router_id,
        hostname: format!("route-reflector-{}", own.name),
        peers,
    };
    (Some(ReflectorPlan { config }), reconciler.faults(found))
}

/// Never zero.
fn router_id(node: &str, salt: u32) -> Ipv4Addr {
    let mut hasher = FxHasher::default();
    hasher.write(b"route-reflector/");
    hasher.write(node.as_bytes());
    hasher.write_u32(salt);
    let hash = hasher.finish();
    let folded = (hash >> 32) ^ (hash & u64::from(u32::MAX));
    Ipv4Addr::from(u32::try_from(folded).unwrap_or(1).max(1))
}

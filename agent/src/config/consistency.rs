//! Objects that are valid each, and cannot be meant as they are among the others.

use std::collections::BTreeMap;

use api::error_code::{NO_PEERS, RANGE_MISMATCH};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::network::overlap;
use super::node::NodeFacts;
use super::reach::named;
use super::settings::Settings;
use super::{FieldFault, Key, Kind, Network};

fn default(kind: Kind) -> Key {
    Key { kind, namespace: String::new(), name: "default".to_owned() }
}

/// Pod CIDRs that `clusterCIDRs` keeps out. Where it keeps out all of a family it is not applied to
/// that family: what admits nothing was not meant, and a node may announce nothing but what its own
/// Node says anyway.
pub(super) fn cluster_cidrs(
    settings: &mut Settings,
    nodes: &BTreeMap<String, NodeFacts>,
) -> Option<(Key, FieldFault)> {
    if settings.cluster_cidrs.is_empty() {
        return None;
    }
    let mut messages = Vec::new();
    for v4 in [true, false] {
        let of_family = |net: &&IpNet| net.addr().is_ipv4() == v4;
        let inside = |pods: &IpNet| settings.cluster_cidrs.iter().any(|cidr| cidr.contains(pods));
        let mut outside: Vec<&str> = Vec::new();
        let mut some_inside = false;
        for node in nodes.values() {
            let mut pods = node.pod_cidrs.iter().filter(of_family).peekable();
            some_inside |= pods.clone().any(inside);
            if pods.any(|pods| !inside(pods)) {
                outside.push(&node.name);
            }
        }
        if outside.is_empty() {
            continue;
        }
        let family = if v4 { "IPv4" } else { "IPv6" };
        let listed = settings.cluster_cidrs.iter().any(|cidr| of_family(&cidr));
        if !listed {
            messages.push(format!(
                "there is no {family} CIDR in it: the {family} pod CIDRs of Node {} are not accepted",
                named(&outside)
            ));
        } else if some_inside {
            messages.push(format!(
                "the {family} pod CIDRs of Node {} are outside, and not accepted from them",
                named(&outside)
            ));
        } else {
            messages.push(format!(
                "no {family} pod CIDR of any Node is inside; not applied to {family}"
            ));
            let everything: IpNet =
                if v4 { Ipv4Net::default().into() } else { Ipv6Net::default().into() };
            settings.cluster_cidrs.push(everything);
        }
    }
    (!messages.is_empty()).then(|| {
        let fault = FieldFault::new(RANGE_MISMATCH, "spec.clusterCIDRs", messages.join("; "));
        (default(Kind::BgpConfiguration), fault)
    })
}

/// Pools that no pod CIDR is in, and those that cut one in two.
pub(super) fn pools(
    network: &Network,
    nodes: &BTreeMap<String, NodeFacts>,
) -> Vec<(Key, FieldFault)> {
    let pods = || nodes.values().flat_map(|node| node.pod_cidrs.iter().map(move |net| (node, net)));
    if pods().next().is_none() {
        return Vec::new();
    }
    let wrong = |(index, (pool, _)): (usize, &(IpNet, _))| {
        let mut cut = pods().filter(|(_, net)| overlap(pool, net)).peekable();
        let message = if cut.peek().is_none() {
            format!("no pod CIDR of any Node is inside {pool}")
        } else {
            let (node, net) = cut.find(|(_, net)| !pool.contains(*net))?;
            format!(
                "{pool} has only a part of the pod CIDR {net} of Node {}; addresses are \
                 translated there only if all pools of its parts say so",
                node.name
            )
        };
        let field = format!("spec.pools[{index}].cidr");
        Some((default(Kind::NetworkConfiguration), FieldFault::new(RANGE_MISMATCH, field, message)))
    };
    network.pools.iter().enumerate().filter_map(wrong).collect()
}

/// There are other nodes, and nobody that tells of their pods. Without a single BGPPeer
/// (`none_at_all`) it is the cluster's configuration, otherwise it is about this node.
pub(super) fn no_peers(
    own: &NodeFacts,
    nodes: &BTreeMap<String, NodeFacts>,
    none_at_all: bool,
) -> Option<(Key, FieldFault)> {
    let others = nodes.len().saturating_sub(1);
    if others == 0 {
        return None;
    }
    let why = if none_at_all { "there is no BGPPeer" } else { "no BGPPeer selects this node" };
    let message = format!(
        "the mesh is off, {why} and there is no route reflector: nothing is learnt from the \
         {others} other nodes"
    );
    let key = if none_at_all {
        default(Kind::BgpConfiguration)
    } else {
        Key { kind: Kind::Node, namespace: String::new(), name: own.name.clone() }
    };
    Some((key, FieldFault::new(NO_PEERS, "spec.nodeMesh", message)))
}

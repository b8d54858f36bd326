//! Who is on a link of ours, and what follows from it: the overlay, and what cannot work without.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::constant::OVERLAY_INTERFACE;
use api::error_code::{self, CATALOGUE, Code};
use ipnet::IpNet;

use super::node::NodeFacts;
use super::{FieldFault, Key, Kind, LinkAddress, OverlaySettings};
use crate::overlay::{self, Plan, Remote};

/// So many nodes are named in a message.
const NAMED: usize = 3;

/// The catalogue's advice for faults that are not about a wrong field.
pub(super) fn advice(code: Code) -> Option<&'static str> {
    use error_code::{
        BEHIND_ROUTER, CNI_NO_POD_CIDR, NO_PEERS, NODE_ADDRESS, OVERLAY_FAILED, PASSWORD_MISSING,
        RANGE_MISMATCH,
    };
    let own_advice = [
        BEHIND_ROUTER,
        CNI_NO_POD_CIDR,
        OVERLAY_FAILED,
        PASSWORD_MISSING,
        NODE_ADDRESS,
        NO_PEERS,
        RANGE_MISMATCH,
    ];
    own_advice.contains(&code).then_some(())?;
    CATALOGUE.iter().find(|entry| entry.code == code).map(|entry| entry.next)
}

fn key(node: &NodeFacts) -> Key {
    Key { kind: Kind::Node, namespace: String::new(), name: node.name.clone() }
}

fn on_link(links: &[LinkAddress], address: IpAddr) -> bool {
    links.iter().any(|link| {
        link.interface != OVERLAY_INTERFACE
            && link.net.prefix_len() < link.net.max_prefix_len()
            && link.net.contains(&address)
    })
}

/// The overlay of our node: who is behind it, and who may send through it.
pub(super) fn overlay(
    settings: OverlaySettings,
    own: &NodeFacts,
    nodes: &BTreeMap<String, NodeFacts>,
    links: &[LinkAddress],
    found: &mut Vec<(Key, FieldFault)>,
) -> Option<Plan> {
    let fault =
        |message: String| FieldFault::new(error_code::OVERLAY_FAILED, "status.addresses", message);
    // One underlay for all: IPv4, unless our node has none.
    let Some(local) = own.address(true).or_else(|| own.address(false)) else {
        found.push((key(own), fault("no InternalIP to send encapsulated packets from".to_owned())));
        return None;
    };
    let mut plan = Plan {
        vni: settings.vni,
        port: settings.port,
        local,
        mac: overlay::mac_of(&own.name),
        addresses: overlay::addresses_of(&own.pod_cidrs),
        remotes: BTreeMap::new(),
        senders: BTreeSet::new(),
    };
    for node in nodes.values().filter(|node| node.name != own.name) {
        let same_family = |address: &&IpAddr| address.is_ipv4() == local.is_ipv4();
        plan.senders.extend(node.addresses.iter().filter(same_family));
        let Some(vtep) = node.address(local.is_ipv4()) else {
            let family = if local.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!("no {family} InternalIP, which the overlay's underlay uses");
            found.push((key(node), fault(message)));
            continue;
        };
        if settings.always || !on_link(links, vtep) {
            let mac = overlay::mac_of(&node.name);
            let next_hops = node.addresses.clone();
            plan.remotes.insert(node.name.clone(), Remote { vtep, mac, next_hops });
        }
    }
    Some(plan)
}

/// Nodes whose pods only routers can reach, of which nobody has told us that they know them.
pub(super) fn behind_routers(
    own: &NodeFacts,
    nodes: &BTreeMap<String, NodeFacts>,
    links: &[LinkAddress],
) -> Option<(Key, FieldFault)> {
    // Not before our own address is on an interface: nothing is known about links otherwise.
    if !own.addresses.iter().any(|address| links.iter().any(|link| link.net.addr() == *address)) {
        return None;
    }
    let far: Vec<&str> = nodes
        .values()
        .filter(|node| node.name != own.name && !node.pod_cidrs.is_empty())
        .filter(|node| !node.addresses.iter().any(|address| on_link(links, *address)))
        .filter(|node| !node.addresses.is_empty())
        .map(|node| node.name.as_str())
        .collect();
    if far.is_empty() {
        return None;
    }
    let message = format!(
        "Node {} not on a link of {}: what routers lie between must know their pod CIDRs",
        named(&far),
        own.name
    );
    Some((key(own), FieldFault::new(error_code::BEHIND_ROUTER, "status.addresses", message)))
}

/// The first few, and how many more there are.
pub(super) fn named(all: &[&str]) -> String {
    let names: Vec<&str> = all.iter().take(NAMED).copied().collect();
    match all.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// A node without pod CIDRs announces nothing.
pub(super) fn no_pod_cidr(claimed: &[IpNet], own: &NodeFacts) -> Option<(Key, FieldFault)> {
    // With overlapping ones that has been told already.
    claimed.is_empty().then(|| {
        let message = "there are none: nothing is announced for this node".to_owned();
        (key(own), FieldFault::new(error_code::CNI_NO_POD_CIDR, "spec.podCIDRs", message))
    })
}

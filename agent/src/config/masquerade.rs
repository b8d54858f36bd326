//! Which packets of our pods leave with the node's address.

use ipnet::IpNet;
use policy::event::Masquerade;

use api::crd::NatOutgoing;

use super::{Desired, NodeFacts};

/// What the pools say of our pod CIDRs; `None` if nothing is translated. A pod CIDR that no pool
/// covers is treated by the defaults; one that several pools cut is translated only where each says
/// so.
#[must_use]
pub fn masquerade(desired: &Desired, nodes: &[NodeFacts]) -> Option<Masquerade> {
    let pools = &desired.network.pools;
    let translated = |nat: NatOutgoing| match nat {
        NatOutgoing::Auto => !desired.fabric_routes,
        NatOutgoing::Enabled => true,
        NatOutgoing::Disabled => false,
    };
    let overlaps = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let wanted = |cidr: &&IpNet| {
        let mut own = pools.iter().filter(|(pool, _)| overlaps(pool, cidr)).peekable();
        match own.peek() {
            None => translated(NatOutgoing::Auto),
            Some(_) => own.all(|(_, nat)| translated(*nat)),
        }
    };
    let found = Masquerade {
        sources: desired.prefixes.iter().filter(wanted).copied().collect(),
        inside: pools
            .iter()
            .map(|(pool, _)| *pool)
            .chain(nodes.iter().flat_map(|node| node.pod_cidrs.iter().copied()))
            .collect(),
        nodes: nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect(),
    };
    (!found.sources.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use api::crd::NatOutgoing::{Auto, Disabled, Enabled};

    use super::*;
    use crate::config::{LinkAddress, Reconciler, network::Network};
    use crate::source::{Event, Object};

    fn node(name: &str, block: u8) -> Event {
        let yaml = format!(
            "metadata: {{name: {name}}}\nspec: {{podCIDRs: [10.244.{block}.0/24, 'fd00:244:0:{block}::/64']}}\n\
             status: {{addresses: [{{type: InternalIP, address: 192.0.2.{block}}}, \
             {{type: InternalIP, address: '2001:db8::{block}'}}]}}"
        );
        Event::Apply(Object::Node(serde_saphyr::from_str(&yaml).unwrap()), None)
    }

    fn two_nodes() -> (Desired, Vec<NodeFacts>) {
        let mut reconciler = Reconciler::new("n1", "rampart-system");
        reconciler.handle(&node("n1", 1));
        reconciler.handle(&node("n2", 2));
        let (desired, faults) = reconciler.desired(&[] as &[LinkAddress]);
        assert_eq!(faults, []);
        (desired.unwrap(), reconciler.nodes().cloned().collect())
    }

    fn sources(found: Option<Masquerade>) -> Vec<String> {
        let sources = found.map(|found| found.sources).unwrap_or_default();
        sources.iter().map(ToString::to_string).collect()
    }

    const BOTH: [&str; 2] = ["10.244.1.0/24", "fd00:244:0:1::/64"];

    #[test]
    fn without_any_configuration_both_families_are_translated_beyond_pods_and_nodes() {
        let (desired, nodes) = two_nodes();
        let found = masquerade(&desired, &nodes).unwrap();
        assert_eq!(sources(Some(found.clone())), BOTH);
        assert!(found.inside.contains(&"fd00:244:0:2::/64".parse::<IpNet>().unwrap()));
        assert!(found.nodes.contains(&"192.0.2.2".parse::<IpAddr>().unwrap()));
        assert_eq!((found.inside.len(), found.nodes.len()), (4, 4));
    }

    #[test]
    fn a_fabric_that_routes_pod_addresses_is_sent_them_unless_a_pool_says_otherwise() {
        let (mut desired, nodes) = two_nodes();
        desired.fabric_routes = true;
        assert_eq!(masquerade(&desired, &nodes), None);
        let pool = |text: &str, nat| (text.parse::<IpNet>().unwrap(), nat);
        let pools = vec![pool("10.244.0.0/16", Enabled), pool("fd00:244::/48", Auto)];
        desired.network = Network { pools, ..Network::default() };
        assert_eq!(sources(masquerade(&desired, &nodes)), ["10.244.1.0/24"]);
    }

    #[test]
    fn a_pool_switches_its_own_range_only_and_half_a_pod_cidr_is_not_translated() {
        let (mut desired, nodes) = two_nodes();
        let pool = |text: &str, nat| (text.parse::<IpNet>().unwrap(), nat);
        let pools = vec![pool("10.244.1.0/25", Disabled), pool("10.244.1.128/25", Enabled)];
        desired.network = Network { pools, ..Network::default() };
        assert_eq!(sources(masquerade(&desired, &nodes)), ["fd00:244:0:1::/64"]);
    }
}

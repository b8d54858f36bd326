//! Outgoing address translation: what pods send out of the cluster leaves with the node's address,
//! where nobody outside has a route to pods.
//!
//! A chain of its own, of type nat: it sees the first packet of a connection only. kube-proxy's
//! chains come first, so that what it has translated already is left as it is.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::ir::{
    BaseHook, Chain, Element, Field, Hook, IpFamily, Match, Rule, Set, SetSpec, Side, Type, Value,
    Verdict,
};
use crate::event::Masquerade;

/// Name of the chain; `masquerade` would be a keyword of nft.
pub(crate) const CHAIN: &str = "nat-outgoing";
const INSIDE: [&str; 2] = ["nat_inside4", "nat_inside6"];
const NODES: [&str; 2] = ["nat_nodes4", "nat_nodes6"];
/// Names of its sets.
pub(crate) const SETS: [&str; 4] = [INSIDE[0], INSIDE[1], NODES[0], NODES[1]];
/// Right after `srcnat` (100), where kube-proxy and portmap are.
const PRIORITY: i32 = 101;

fn of([v4, v6]: [&'static str; 2], is_v4: bool) -> &'static str {
    if is_v4 { v4 } else { v6 }
}

/// Every element, with its set. Prefixes side by side are one range, so that the pod CIDRs of many
/// nodes are few elements.
pub(crate) fn elements(masquerade: &Masquerade) -> BTreeSet<(&'static str, Element)> {
    let inside: Vec<IpNet> = masquerade.inside.iter().copied().collect();
    let inside = ranges(&inside).into_iter().map(|(is_v4, range)| (of(INSIDE, is_v4), range));
    let nodes = masquerade
        .nodes
        .iter()
        .map(|address| (of(NODES, address.is_ipv4()), Element::Key(vec![Value::from(*address)])));
    inside.chain(nodes).collect()
}

/// Disjoint ranges that do not touch.
fn ranges(nets: &Vec<IpNet>) -> Vec<(bool, Element)> {
    let mut found: Vec<(std::net::IpAddr, std::net::IpAddr)> = Vec::new();
    // Sorted, and IPv4 first.
    for net in IpNet::aggregate(nets) {
        match found.last_mut() {
            Some((_, last)) if successor(*last) == Some(net.network()) => *last = net.broadcast(),
            _ => found.push((net.network(), net.broadcast())),
        }
    }
    let element = |(first, last)| Element::Range(Value::from(first), Value::from(last));
    found.into_iter().map(|(first, last)| (first.is_ipv4(), element((first, last)))).collect()
}

fn successor(address: std::net::IpAddr) -> Option<std::net::IpAddr> {
    use std::net::IpAddr::{V4, V6};
    match address {
        V4(a) => a.to_bits().checked_add(1).map(|bits| V4(bits.into())),
        V6(a) => a.to_bits().checked_add(1).map(|bits| V6(bits.into())),
    }
}

/// Its sets with their content.
pub(crate) fn sets(masquerade: &Masquerade) -> BTreeMap<String, Set> {
    let empty = |key, interval| Set {
        spec: SetSpec { key: vec![key], interval, verdict_map: false },
        elements: BTreeMap::new(),
    };
    let mut sets = BTreeMap::new();
    for (is_v4, key) in [(true, Type::Ipv4), (false, Type::Ipv6)] {
        sets.insert(of(INSIDE, is_v4).to_owned(), empty(key, true));
        sets.insert(of(NODES, is_v4).to_owned(), empty(key, false));
    }
    for (name, element) in elements(masquerade) {
        if let Some(set) = sets.get_mut(name) {
            set.elements.insert(element, None);
        }
    }
    sets
}

/// The chain, with a rule for each source.
pub(crate) fn chain(masquerade: &Masquerade) -> Chain {
    let rule = |net: &IpNet| {
        let is_v4 = net.addr().is_ipv4();
        let family = if is_v4 { IpFamily::V4 } else { IpFamily::V6 };
        let beyond = |sets| Match::Lookup {
            key: vec![Field::Address(family, Side::Destination)],
            set: of(sets, is_v4).to_owned(),
            negate: true,
        };
        let from = Match::Address { side: Side::Source, net: *net, negate: false };
        Rule {
            matches: vec![from, beyond(INSIDE), beyond(NODES)],
            counter: true,
            verdict: Verdict::Masquerade,
            comment: None,
        }
    };
    Chain {
        hook: Some(BaseHook { hook: Hook::Postrouting, priority: PRIORITY }),
        rules: masquerade.sources.iter().map(rule).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn pod_cidrs_side_by_side_are_one_range_and_what_lies_within_another_none() {
        let inside = nets(&[
            "10.244.0.0/24",
            "10.244.1.0/24",
            "10.244.2.0/24",
            "10.244.9.0/24",
            "10.244.9.128/25",
            "fd00:244::/64",
            "fd00:244:0:1::/64",
            "255.255.255.0/24",
        ]);
        let masquerade = Masquerade { inside, ..Masquerade::default() };
        let range = |set, first: &str, last: &str| {
            let [first, last] =
                [first, last].map(|text| Value::from(text.parse::<std::net::IpAddr>().unwrap()));
            (set, Element::Range(first, last))
        };
        let expected = BTreeSet::from([
            range("nat_inside4", "10.244.0.0", "10.244.2.255"),
            range("nat_inside4", "10.244.9.0", "10.244.9.255"),
            range("nat_inside4", "255.255.255.0", "255.255.255.255"),
            range("nat_inside6", "fd00:244::", "fd00:244:0:1:ffff:ffff:ffff:ffff"),
        ]);
        assert_eq!(elements(&masquerade), expected);
    }
}

//! What is there without any policy: base chains, dispatch maps, and the drop of local pod
//! addresses that nobody has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use super::ir::{
    BaseHook, Chain, CtState, Element, Field, Hook, IpFamily, Match, Rule, Set, SetSpec, Side,
    Type, Value, Verdict,
};

/// Addresses of local pods, v4 and v6.
pub(crate) const PODS: [&str; 2] = ["pods4", "pods6"];
/// Local pod address -> its egress chain, if isolated.
pub(crate) const FROM: [&str; 2] = ["from4", "from6"];
/// Local pod address -> its ingress chain, if isolated.
pub(crate) const TO: [&str; 2] = ["to4", "to6"];
/// Host side interface and the pod address behind it.
pub(crate) const POD_SOURCES: [&str; 2] = ["pod_src4", "pod_src6"];
/// Host side interfaces of local pods.
pub(crate) const POD_INTERFACES: &str = "pod_ifaces";
/// Interfaces of the host itself: loopback.
const HOST_INTERFACES: &str = "host_ifaces";

/// Neighbour and multicast listener discovery: router solicitation, neighbour solicitation and
/// advertisement (RFC 4861 §4), listener query, report, done (RFC 2710 §3), report v2 (RFC 3810
/// §5.2). Not router advertisement or redirect: no pod has a reason to send these.
const DISCOVERY: [u8; 7] = [130, 131, 132, 133, 135, 136, 143];

/// Before conntrack (priority raw).
const PREROUTING_PRIORITY: i32 = -300;
const FILTER_PRIORITY: i32 = 0;

/// Sets that are always there, with what is always in them.
pub(crate) fn sets() -> BTreeMap<String, Set> {
    let mut sets = BTreeMap::new();
    let mut add = |name: &str, key: &[Type], verdict_map, elements| {
        let spec = SetSpec { key: key.to_vec(), interval: false, verdict_map };
        sets.insert(name.to_owned(), Set { spec, elements });
    };
    for (i, address) in [Type::Ipv4, Type::Ipv6].into_iter().enumerate() {
        for (names, key, map) in [
            (PODS, [address].as_slice(), false),
            (FROM, &[address], true),
            (TO, &[address], true),
            (POD_SOURCES, &[Type::IfName, address], false),
        ] {
            if let Some(name) = names.get(i) {
                add(name, key, map, BTreeMap::new());
            }
        }
    }
    add(POD_INTERFACES, &[Type::IfName], false, BTreeMap::new());
    let loopback = Element::Key(vec![Value::IfName("lo".to_owned())]);
    add(HOST_INTERFACES, &[Type::IfName], false, BTreeMap::from([(loopback, None)]));
    sets
}

/// The base chains of a node with these pod CIDRs.
pub(crate) fn chains(pod_cidrs: &[IpNet]) -> BTreeMap<String, Chain> {
    let base = |name: &str, hook, priority, rules| {
        (name.to_owned(), Chain { hook: Some(BaseHook { hook, priority }), rules })
    };
    BTreeMap::from([
        base("prerouting", Hook::Prerouting, PREROUTING_PRIORITY, prerouting()),
        base("forward", Hook::Forward, FILTER_PRIORITY, forward(pod_cidrs)),
        base("input", Hook::Input, FILTER_PRIORITY, input(pod_cidrs)),
    ])
}

/// Anti-spoofing: a pod sends from its own addresses only.
fn prerouting() -> Vec<Rule> {
    let interface = |negate| Match::Lookup {
        key: vec![Field::InputInterface],
        set: POD_INTERFACES.to_owned(),
        negate,
    };
    let mut rules = vec![rule(vec![interface(true)], Verdict::Accept)];
    for (family, set) in families(POD_SOURCES) {
        let key = vec![Field::InputInterface, Field::Address(family, Side::Source)];
        rules.push(rule(
            vec![Match::Lookup { key, set: set.to_owned(), negate: false }],
            Verdict::Accept,
        ));
    }
    // Address resolution starts before an address may be used: link-local or unspecified source.
    for (address, length) in
        [(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), (Ipv6Addr::UNSPECIFIED, 128)]
    {
        if let Ok(net) = Ipv6Net::new(address, length) {
            let from = Match::Address { side: Side::Source, net: net.into(), negate: false };
            rules.push(rule(vec![from, discovery()], Verdict::Accept));
        }
    }
    rules.push(Rule { counter: true, ..rule(Vec::new(), Verdict::Drop) });
    rules
}

fn forward(pod_cidrs: &[IpNet]) -> Vec<Rule> {
    let mut rules = vec![established()];
    rules.extend(unknown(pod_cidrs, Side::Destination));
    rules.extend(unknown(pod_cidrs, Side::Source));
    rules.extend(dispatch(FROM, Side::Source));
    rules.extend(dispatch(TO, Side::Destination));
    rules
}

/// Pod to its own node. What comes in by loopback is the node talking to itself, perhaps from an
/// address that it has within its own pod CIDR.
fn input(pod_cidrs: &[IpNet]) -> Vec<Rule> {
    let loopback = Match::Lookup {
        key: vec![Field::InputInterface],
        set: HOST_INTERFACES.to_owned(),
        negate: false,
    };
    let mut rules = vec![
        established(),
        rule(vec![loopback], Verdict::Accept),
        // Without these an isolated pod could not even find its router.
        rule(vec![discovery()], Verdict::Accept),
    ];
    rules.extend(unknown(pod_cidrs, Side::Source));
    rules.extend(dispatch(FROM, Side::Source));
    rules
}

fn established() -> Rule {
    let states = BTreeSet::from([CtState::Established, CtState::Related]);
    rule(vec![Match::CtState(states)], Verdict::Accept)
}

fn discovery() -> Match {
    Match::Icmpv6Type(BTreeSet::from(DISCOVERY))
}

/// An address of ours that no pod has (yet): its policy is not known, so nothing passes.
fn unknown(pod_cidrs: &[IpNet], side: Side) -> Vec<Rule> {
    let drop = |net: &IpNet| {
        let [v4, v6] = PODS;
        let (family, set) = match net {
            IpNet::V4(_) => (IpFamily::V4, v4),
            IpNet::V6(_) => (IpFamily::V6, v6),
        };
        let local = Match::Address { side, net: *net, negate: false };
        let key = vec![Field::Address(family, side)];
        let unknown = Match::Lookup { key, set: set.to_owned(), negate: true };
        Rule { counter: true, ..rule(vec![local, unknown], Verdict::Drop) }
    };
    pod_cidrs.iter().map(drop).collect()
}

fn dispatch(maps: [&str; 2], side: Side) -> Vec<Rule> {
    let jump = |(family, map): (IpFamily, &str)| {
        let key = vec![Field::Address(family, side)];
        rule(Vec::new(), Verdict::Map { key, map: map.to_owned() })
    };
    families(maps).into_iter().map(jump).collect()
}

fn families<T>([v4, v6]: [T; 2]) -> [(IpFamily, T); 2] {
    [(IpFamily::V4, v4), (IpFamily::V6, v6)]
}

fn rule(matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule { matches, counter: false, verdict, comment: None }
}

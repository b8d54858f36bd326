//! The guard of an overlay: encapsulated packets come from nodes, and pods send none to nodes.
//!
//! A VXLAN interface takes whatever comes to its port with its VNI, from anybody, and what is inside
//! looks to the node as if it came from a trusted place. These chains are beside the others, and there
//! only while there is an overlay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::ir::{
    BaseHook, Chain, Element, Field, Hook, IpFamily, Match, Rule, Set, SetSpec, Side, Type, Value,
    Verdict,
};
use crate::event::Overlay;

/// The port of the overlay.
const PORT: &str = "overlay_port";
/// Who may send.
const SENDERS: [&str; 2] = ["overlay_src4", "overlay_src6"];
const INPUT: &str = "overlay-input";
const FORWARD: &str = "overlay-forward";
/// Before our own chains: what is dropped here is not judged there.
const PRIORITY: i32 = -1;
const UDP: u8 = 17;

/// Names of its chains and sets.
pub(crate) const CHAINS: [&str; 2] = [INPUT, FORWARD];
pub(crate) const SETS: [&str; 3] = [PORT, SENDERS[0], SENDERS[1]];

/// Set and element of a sender.
pub(crate) fn sender(address: IpAddr) -> (&'static str, Element) {
    let [v4, v6] = SENDERS;
    (if address.is_ipv4() { v4 } else { v6 }, Element::Key(vec![address.into()]))
}

/// All sets of an overlay.
pub(crate) fn sets(overlay: &Overlay) -> BTreeMap<String, Set> {
    let set = |key: Type, elements: BTreeSet<Element>| Set {
        spec: SetSpec { key: vec![key], interval: false, verdict_map: false },
        elements: elements.into_iter().map(|element| (element, None)).collect(),
    };
    let port = BTreeSet::from([Element::Key(vec![Value::Port(overlay.port)])]);
    let mut sets = BTreeMap::from([(PORT.to_owned(), set(Type::Port, port))]);
    for (name, key) in SENDERS.into_iter().zip([Type::Ipv4, Type::Ipv6]) {
        let elements = overlay.senders.iter().map(|address| sender(*address));
        let own = elements.filter(|(set, _)| *set == name).map(|(_, element)| element);
        sets.insert(name.to_owned(), set(key, own.collect()));
    }
    sets
}

/// Both chains.
pub(crate) fn chains() -> BTreeMap<String, Chain> {
    let base = |hook, rules| Chain { hook: Some(BaseHook { hook, priority: PRIORITY }), rules };
    let [v4, v6] = SENDERS;
    let families = [(IpFamily::V4, v4), (IpFamily::V6, v6)];
    let input = families.iter().map(|(family, set)| {
        drop(vec![stranger(*family, set)], "encapsulated, but not from a node")
    });
    let forward = families.iter().map(|(family, set)| {
        let to_node = address(*family, Side::Destination, set, false);
        drop(vec![to_node, stranger(*family, set)], "encapsulated by somebody who is no node")
    });
    BTreeMap::from([
        (INPUT.to_owned(), base(Hook::Input, input.collect())),
        (FORWARD.to_owned(), base(Hook::Forward, forward.collect())),
    ])
}

fn drop(matches: Vec<Match>, comment: &str) -> Rule {
    let port =
        Match::Lookup { key: vec![Field::DestinationPort], set: PORT.to_owned(), negate: false };
    let matches = [Match::L4Proto(UDP), port].into_iter().chain(matches).collect();
    Rule { matches, counter: true, verdict: Verdict::Drop, comment: Some(comment.to_owned()) }
}

fn stranger(family: IpFamily, senders: &str) -> Match {
    address(family, Side::Source, senders, true)
}

fn address(family: IpFamily, side: Side, set: &str, negate: bool) -> Match {
    Match::Lookup { key: vec![Field::Address(family, side)], set: set.to_owned(), negate }
}

//! Ports that the same peers may use are a class: one chain, found by port.

use std::collections::{BTreeMap, BTreeSet};

use super::{Builder, PeerSet, tail, verdict};
use crate::input::Protocol;
use crate::nft::ir::{Chain, Element, Field, Match, Rule, SetSpec, Side, Type, Value, Verdict};
use crate::nft::name;
use crate::resolve::{PeerSpec, PortSet};

/// Up to this many ports are looked up as `proto . port` in one hash map; more as ranges, in one
/// interval map for each protocol.
const MAX_HASHED: usize = 64;

/// Grants by port range.
#[derive(Default)]
pub(super) struct Classes<'a> {
    grants: BTreeMap<Protocol, Vec<(u16, u16, &'a PeerSpec)>>,
}

/// A port range and who may use it.
struct Class<'a> {
    first: u16,
    last: u16,
    peers: BTreeSet<&'a PeerSpec>,
}

impl<'a> Classes<'a> {
    pub(super) fn add(&mut self, peer: &'a PeerSpec, ports: &PortSet) {
        for (protocol, first, last) in ports.ranges() {
            self.grants.entry(protocol).or_default().push((first, last, peer));
        }
    }

    /// Disjoint ranges in order; neighbours differ in their peers.
    fn partition(grants: &[(u16, u16, &'a PeerSpec)]) -> Vec<Class<'a>> {
        // At each port where something begins or ends: what begins, what has ended.
        let mut edges: BTreeMap<u32, (Vec<&PeerSpec>, Vec<&PeerSpec>)> = BTreeMap::new();
        for (first, last, peer) in grants {
            edges.entry(u32::from(*first)).or_default().0.push(peer);
            edges.entry(u32::from(*last) + 1).or_default().1.push(peer);
        }
        let ends: Vec<u32> = edges.keys().skip(1).copied().collect();
        let mut classes: Vec<Class<'a>> = Vec::new();
        // A peer's own ranges are disjoint, so a plain set will do.
        let mut peers: BTreeSet<&'a PeerSpec> = BTreeSet::new();
        for ((begin, (begun, ended)), end) in edges.into_iter().zip(ends) {
            for peer in ended {
                peers.remove(peer);
            }
            peers.extend(begun);
            let (Ok(first), Ok(last)) = (u16::try_from(begin), u16::try_from(end - 1)) else {
                continue;
            };
            match classes.last_mut() {
                Some(open) if open.peers == peers => open.last = last,
                Some(_) | None => classes.push(Class { first, last, peers: peers.clone() }),
            }
        }
        classes.retain(|class| !class.peers.is_empty());
        classes
    }
}

impl Builder {
    /// The rules that send a packet to the class of its port.
    pub(super) fn classes(&mut self, classes: &Classes<'_>) -> Vec<Rule> {
        let mut ranges = BTreeMap::new();
        for (protocol, grants) in &classes.grants {
            let mut targets = Vec::new();
            for class in Classes::partition(grants) {
                if let Some(target) = self.class(&class.peers) {
                    targets.push((class.first, class.last, target));
                }
            }
            if !targets.is_empty() {
                ranges.insert(*protocol, targets);
            }
        }
        let width = |(first, last, _): &(u16, u16, Verdict)| usize::from(last - first) + 1;
        let hashed = ranges.values().flatten().map(width).sum::<usize>() <= MAX_HASHED;
        match (ranges.is_empty(), hashed) {
            (true, _) => Vec::new(),
            (false, true) => vec![self.hashed_classes(&ranges)],
            (false, false) => {
                ranges.into_iter().map(|(p, targets)| self.ranged_classes(p, targets)).collect()
            }
        }
    }

    /// `goto` the class chain; `None` if none of the peers can be anybody (all of a CIDR excepted).
    fn class(&mut self, peers: &BTreeSet<&PeerSpec>) -> Option<Verdict> {
        if peers.contains(&PeerSpec::Anybody) {
            return Some(Verdict::Return);
        }
        let queries = peers.iter().filter_map(|peer| match peer {
            PeerSpec::Pods(query) => Some(query),
            PeerSpec::Block(_) | PeerSpec::Anybody => None,
        });
        let blocks = peers.iter().filter_map(|peer| match peer {
            PeerSpec::Block(block) => Some(block),
            PeerSpec::Pods(_) | PeerSpec::Anybody => None,
        });
        let mut rules = Vec::new();
        if queries.clone().next().is_some() {
            rules.extend(self.peers(PeerSet::any_port(queries)));
        }
        rules.extend(self.blocks(blocks));
        if rules.is_empty() {
            return None;
        }
        let sets: Vec<&str> = rules.iter().flat_map(|rule| &rule.matches).map(set_name).collect();
        let side = match self.side {
            Side::Source => "from",
            Side::Destination => "to",
        };
        let name = format!("class/{side}/{}", name::digest(&sets.join("\n")));
        rules.push(tail());
        self.plan.chains.insert(name.clone(), Chain { hook: None, rules });
        Some(Verdict::Goto(name))
    }

    fn hashed_classes(&mut self, ranges: &BTreeMap<Protocol, Vec<(u16, u16, Verdict)>>) -> Rule {
        let key = vec![Type::Proto, Type::Port];
        let spec = SetSpec { key, interval: false, verdict_map: true };
        let mut elements = BTreeMap::new();
        for (protocol, targets) in ranges {
            for (first, last, target) in targets {
                for port in *first..=*last {
                    let key = vec![Value::Proto(protocol.number()), Value::Port(port)];
                    elements.insert(Element::Key(key), Some(target.clone()));
                }
            }
        }
        let map = self.fixed_set("classes", spec, elements);
        verdict(Verdict::Map { key: vec![Field::L4Proto, Field::DestinationPort], map })
    }

    fn ranged_classes(&mut self, protocol: Protocol, targets: Vec<(u16, u16, Verdict)>) -> Rule {
        let spec = SetSpec { key: vec![Type::Port], interval: true, verdict_map: true };
        let element = |(first, last, target)| {
            (Element::Range(Value::Port(first), Value::Port(last)), Some(target))
        };
        let elements = targets.into_iter().map(element).collect();
        let map = self.fixed_set(&format!("{protocol}-classes"), spec, elements);
        let key = vec![Field::DestinationPort];
        Rule {
            matches: vec![Match::L4Proto(protocol.number())],
            ..verdict(Verdict::Map { key, map })
        }
    }
}

fn set_name(matched: &Match) -> &str {
    match matched {
        Match::Lookup { set, .. } => set,
        Match::CtState(_)
        | Match::TcpNotSyn
        | Match::Address { .. }
        | Match::L4Proto(_)
        | Match::Icmpv6Type(_)
        | Match::Family(_) => "",
    }
}

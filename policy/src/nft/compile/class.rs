//! Ports that the same peers may use are a class: one chain, found by port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Builder, PeerSet, tail, verdict};
use crate::input::Protocol;
use crate::nft::ir::{Chain, Element, Field, Match, Rule, SetSpec, Side, Type, Value, Verdict};
use crate::nft::name;
use crate::resolve::{PeerSpec, PortSet};

/// Up to this many ports are looked up as `proto . port` in one hash map; more as ranges, in one
/// interval map for each protocol.
const MAX_HASHED: usize = 64;

/// Peers by the ports they may use. One rule may have thousands of both; its peers are one group.
#[derive(Default)]
pub(super) struct Classes<'a> {
    groups: Vec<Group<'a>>,
    ids: BTreeMap<Arc<PortSet>, GroupId>,
}

type GroupId = usize;

struct Group<'a> {
    ports: Arc<PortSet>,
    peers: Vec<&'a PeerSpec>,
}

/// A port range and who may use it.
struct Class {
    first: u16,
    last: u16,
    groups: BTreeSet<GroupId>,
}

impl<'a> Classes<'a> {
    pub(super) fn add(&mut self, peer: &'a PeerSpec, ports: &Arc<PortSet>) {
        // Peers of one rule often come in a row: no need to compare their ports.
        if let Some(last) = self.groups.last_mut()
            && Arc::ptr_eq(&last.ports, ports)
        {
            last.peers.push(peer);
            return;
        }
        let id = *self.ids.entry(Arc::clone(ports)).or_insert(self.groups.len());
        match self.groups.get_mut(id) {
            Some(group) => group.peers.push(peer),
            None => self.groups.push(Group { ports: Arc::clone(ports), peers: vec![peer] }),
        }
    }

    /// By protocol, disjoint ranges in order; neighbours differ in their groups.
    fn partition(&self) -> BTreeMap<Protocol, Vec<Class>> {
        type Edges = BTreeMap<u32, (Vec<GroupId>, Vec<GroupId>)>;
        // At each port where something begins or ends: what begins, what has ended.
        let mut edges: BTreeMap<Protocol, Edges> = BTreeMap::new();
        for (id, group) in self.groups.iter().enumerate() {
            for (protocol, first, last) in group.ports.ranges() {
                let edges = edges.entry(protocol).or_default();
                edges.entry(u32::from(first)).or_default().0.push(id);
                edges.entry(u32::from(last) + 1).or_default().1.push(id);
            }
        }
        let of_protocol = |edges: Edges| {
            let ends: Vec<u32> = edges.keys().skip(1).copied().collect();
            let mut classes: Vec<Class> = Vec::new();
            // The ranges of one group are disjoint, so a plain set will do.
            let mut groups = BTreeSet::new();
            for ((begin, (begun, ended)), end) in edges.into_iter().zip(ends) {
                for id in ended {
                    groups.remove(&id);
                }
                groups.extend(begun);
                let (Ok(first), Ok(last)) = (u16::try_from(begin), u16::try_from(end - 1)) else {
                    continue;
                };
                match classes.last_mut() {
                    Some(open) if open.groups == groups => open.last = last,
                    Some(_) | None => classes.push(Class { first, last, groups: groups.clone() }),
                }
            }
            classes.retain(|class| !class.groups.is_empty());
            classes
        };
        edges.into_iter().map(|(protocol, edges)| (protocol, of_protocol(edges))).collect()
    }

    fn peers(&self, groups: &BTreeSet<GroupId>) -> BTreeSet<&'a PeerSpec> {
        let groups = groups.iter().filter_map(|id| self.groups.get(*id));
        groups.flat_map(|group| group.peers.iter().copied()).collect()
    }
}

impl Builder {
    /// The rules that send a packet to the class of its port.
    pub(super) fn classes(&mut self, classes: &Classes<'_>) -> Vec<Rule> {
        let mut known: BTreeMap<BTreeSet<GroupId>, Option<Verdict>> = BTreeMap::new();
        let mut ranges = BTreeMap::new();
        for (protocol, list) in classes.partition() {
            let mut targets = Vec::new();
            for Class { first, last, groups } in list {
                let target = known
                    .entry(groups)
                    .or_insert_with_key(|groups| self.class(&classes.peers(groups)));
                targets.extend(target.clone().map(|target| (first, last, target)));
            }
            if !targets.is_empty() {
                ranges.insert(protocol, targets);
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
            PeerSpec::Block(block) => Some(&**block),
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

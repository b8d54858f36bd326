//! Effective policy -> rules of the pod's chain, and the sets and class chains that they use.
//!
//! Admitted is `return`: back to the base chain, so that ingress is judged after egress. A chain
//! is a few stages, each there only if the policy's text can give it content; so pods that come
//! and go change set elements only:
//!
//! 1. `peer . proto . port` in a hash set (selectors with few ports, named ports);
//! 2. peer in a hash set (selectors with any port);
//! 3. `proto . port` in a hash set (few ports for everybody);
//! 4. peer in an interval set (CIDRs with any port);
//! 5. port in a verdict map to a *class chain* (CIDRs with ports, wide port ranges): ports that
//!    the same peers may use are one class. The map says `goto`, so `return` in the class chain
//!    leaves the pod's chain as well, and the class chain has the drop at its end;
//! 6. drop.

mod class;
mod peers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ir::{
    Chain, Element, Field, IpFamily, Match, Rule, Set, SetSpec, Side, Type, Value, Verdict,
};
use super::{name, range, text};
use crate::index::PodQuery;
use crate::input::{Block, Direction};
use crate::resolve::{Effective, PeerSpec, PortSet};
use class::Classes;
pub(crate) use peers::{PeerSet, Source};

/// A selector with more ports than this goes by class: its members are not multiplied with them.
const MAX_PORTS_OF_PEER: usize = 16;
/// More ports than this for everybody go by class.
const MAX_PORTS_OF_ALL: usize = 64;

pub(crate) const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

/// What an effective policy comes to.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The stages, in order.
    pub(crate) rules: Vec<Rule>,
    /// Sets of pod addresses that the rules name, there for both families.
    pub(crate) peer_sets: BTreeSet<Arc<PeerSet>>,
    /// Sets whose content is in the policy's text.
    pub(crate) fixed_sets: BTreeMap<String, Set>,
    /// Class chains.
    pub(crate) chains: BTreeMap<String, Chain>,
}

/// See the module.
pub(crate) fn compile(effective: &Effective) -> Plan {
    let mut builder = Builder {
        side: match effective.direction {
            Direction::Ingress => Side::Source,
            Direction::Egress => Side::Destination,
        },
        plan: Plan {
            rules: Vec::new(),
            peer_sets: BTreeSet::new(),
            fixed_sets: BTreeMap::new(),
            chains: BTreeMap::new(),
        },
    };
    if effective.admits_all() {
        builder.plan.rules.push(verdict(Verdict::Return));
    } else {
        let stages = Stages::of(effective);
        builder.build(&stages);
    }
    builder.plan
}

/// The grants of an effective policy, sorted by the stage that takes them.
#[derive(Default)]
struct Stages<'a> {
    peer_ports: Vec<Source>,
    peers: Vec<&'a PodQuery>,
    ports: PortSet,
    blocks: Vec<&'a Block>,
    classes: Classes<'a>,
}

impl<'a> Stages<'a> {
    fn of(effective: &'a Effective) -> Self {
        let mut stages = Self::default();
        for (peer, ports) in &effective.grants {
            match peer {
                PeerSpec::Pods(query) if ports.is_everything() => stages.peers.push(query),
                PeerSpec::Pods(query) => stages.add_pods(peer, query, ports),
                PeerSpec::Block(block) if ports.is_everything() => stages.blocks.push(block),
                PeerSpec::Block(block) => {
                    stages.classes.add(peer, ports);
                    stages.add_names(Some(block), ports);
                }
                PeerSpec::Anybody => {
                    stages.add_names(None, ports);
                    let (narrow, wide) = ports.split(MAX_PORTS_OF_ALL);
                    stages.ports = narrow;
                    stages.classes.add(peer, &Arc::new(wide));
                }
            }
        }
        stages
    }

    fn add_pods(&mut self, peer: &'a PeerSpec, query: &PodQuery, ports: &Arc<PortSet>) {
        if ports.is_narrow(MAX_PORTS_OF_PEER) {
            let ports = Arc::clone(ports);
            self.peer_ports.push(Source { query: query.clone(), within: None, ports });
            return;
        }
        let (narrow, wide) = ports.split(MAX_PORTS_OF_PEER);
        self.classes.add(peer, &Arc::new(wide));
        let ports = narrow.with_names(ports);
        if !ports.is_empty() {
            let ports = Arc::new(ports);
            self.peer_ports.push(Source { query: query.clone(), within: None, ports });
        }
    }

    /// A named port is a port of a pod: beside a CIDR or nothing it means the pods there.
    fn add_names(&mut self, within: Option<&Arc<Block>>, ports: &PortSet) {
        let ports = ports.named();
        if !ports.is_empty() {
            let (query, ports) = (PodQuery::everybody(), Arc::new(ports));
            self.peer_ports.push(Source { query, within: within.cloned(), ports });
        }
    }
}

struct Builder {
    /// Where the peer's address is.
    side: Side,
    plan: Plan,
}

impl Builder {
    fn build(&mut self, stages: &Stages<'_>) {
        let mut rules = Vec::new();
        if !stages.peer_ports.is_empty() {
            rules.extend(self.peers(PeerSet::with_ports(stages.peer_ports.clone())));
        }
        if !stages.peers.is_empty() {
            rules.extend(self.peers(PeerSet::any_port(stages.peers.iter().copied())));
        }
        if !stages.ports.is_empty() {
            rules.push(self.ports(&stages.ports));
        }
        rules.extend(self.blocks(stages.blocks.iter().copied()));
        rules.extend(self.classes(&stages.classes));
        rules.push(tail());
        self.plan.rules = rules;
    }

    fn peers(&mut self, set: PeerSet) -> [Rule; 2] {
        let mut names = set.names().into_iter();
        let with_ports = set.has_ports();
        self.plan.peer_sets.insert(Arc::new(set));
        FAMILIES.map(|family| {
            let mut key = vec![Field::Address(family, self.side)];
            if with_ports {
                key.extend([Field::L4Proto, Field::DestinationPort]);
            }
            admit_if_in(key, names.next().unwrap_or_default())
        })
    }

    fn ports(&mut self, ports: &PortSet) -> Rule {
        let key = vec![Type::Proto, Type::Port];
        let spec = SetSpec { key, interval: false, verdict_map: false };
        let elements = ports.each().map(|(protocol, port)| {
            (Element::Key(vec![Value::Proto(protocol.number()), Value::Port(port)]), None)
        });
        let name = self.fixed_set("ports", spec, elements.collect());
        admit_if_in(vec![Field::L4Proto, Field::DestinationPort], name)
    }

    fn blocks<'a>(&mut self, blocks: impl Iterator<Item = &'a Block> + Clone) -> Vec<Rule> {
        let mut rules = Vec::new();
        for family in FAMILIES {
            let elements = range::elements(blocks.clone(), family);
            if elements.is_empty() {
                continue;
            }
            let key = vec![address_type(family)];
            let spec = SetSpec { key, interval: true, verdict_map: false };
            let kind = match family {
                IpFamily::V4 => "cidrs4",
                IpFamily::V6 => "cidrs6",
            };
            let name = self.fixed_set(kind, spec, elements);
            rules.push(admit_if_in(vec![Field::Address(family, self.side)], name));
        }
        rules
    }

    /// A set named after its content.
    fn fixed_set(
        &mut self,
        kind: &str,
        spec: SetSpec,
        elements: BTreeMap<Element, Option<Verdict>>,
    ) -> String {
        let set = Set { spec, elements };
        let name = format!("{kind}/{}", name::digest(&text::elements(&set)));
        self.plan.fixed_sets.insert(name.clone(), set);
        name
    }
}

/// What comes before the stages in the chain of a pod with these addresses.
pub(crate) fn preamble(direction: Direction, addresses: &[std::net::IpAddr]) -> Vec<Rule> {
    use super::ir::CtState;
    let side = match direction {
        Direction::Ingress => Side::Source,
        Direction::Egress => Side::Destination,
    };
    let invalid = Match::CtState(BTreeSet::from([CtState::Invalid]));
    let new = Match::CtState(BTreeSet::from([CtState::New]));
    let mut rules = vec![
        Rule { matches: vec![invalid], ..verdict(Verdict::Drop) },
        // Else a denied connection that conntrack has forgotten comes back with roles swapped.
        Rule { matches: vec![new, Match::TcpNotSyn], ..verdict(Verdict::Drop) },
    ];
    // A pod always reaches itself.
    rules.extend(addresses.iter().map(|address| {
        let own = Match::Address { side, net: (*address).into(), negate: false };
        Rule { matches: vec![own], ..verdict(Verdict::Return) }
    }));
    rules
}

fn verdict(verdict: Verdict) -> Rule {
    Rule { matches: Vec::new(), counter: false, verdict, comment: None }
}

fn tail() -> Rule {
    Rule { counter: true, ..verdict(Verdict::Drop) }
}

fn admit_if_in(key: Vec<Field>, set: String) -> Rule {
    Rule { matches: vec![Match::Lookup { key, set, negate: false }], ..verdict(Verdict::Return) }
}

pub(crate) fn address_type(family: IpFamily) -> Type {
    match family {
        IpFamily::V4 => Type::Ipv4,
        IpFamily::V6 => Type::Ipv6,
    }
}

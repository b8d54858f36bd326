//! A packet's way through a table.

use std::net::IpAddr;

use policy::nft::ir::{
    Chain, CtState, Element, Field, Hook, IpFamily, Match, Set, Side, Table, Value, Verdict,
};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// The first packet of a flow, unless told otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) interface: String,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) state: CtState,
    pub(crate) syn: bool,
    pub(crate) icmp_type: u8,
}

impl Packet {
    pub(crate) fn new(source: IpAddr, destination: IpAddr, protocol: u8, port: u16) -> Self {
        Self {
            interface: "eth0".to_owned(),
            source,
            destination,
            protocol,
            port,
            state: CtState::New,
            syn: true,
            icmp_type: 128,
        }
    }
}

/// May the packet pass this hook?
pub(crate) fn passes(table: &Table, hook: Hook, packet: &Packet) -> bool {
    let mut chains: Vec<&Chain> =
        table.chains.values().filter(|c| c.hook.is_some_and(|h| h.hook == hook)).collect();
    chains.sort_by_key(|chain| chain.hook.map(|hook| hook.priority));
    chains.into_iter().all(|chain| !matches!(walk(table, chain, packet), Outcome::Drop))
}

/// May it pass a node with these addresses of its own?
pub(crate) fn admitted(table: &Table, node: &[IpAddr], packet: &Packet) -> bool {
    if node.contains(&packet.source) {
        return passes(table, Hook::Output, packet);
    }
    let last = if node.contains(&packet.destination) { Hook::Input } else { Hook::Forward };
    passes(table, Hook::Prerouting, packet) && passes(table, last, packet)
}

enum Outcome {
    Accept,
    Drop,
    /// The chain has ended, by itself or by `return`.
    Ended,
}

fn walk(table: &Table, chain: &Chain, packet: &Packet) -> Outcome {
    for rule in &chain.rules {
        if !rule.matches.iter().all(|matched| holds(table, matched, packet)) {
            continue;
        }
        let verdict = match &rule.verdict {
            Verdict::Map { key, map } => {
                let map = table.sets.get(map).expect("map of a rule");
                match look_up(map, key, packet) {
                    Some(Some(verdict)) => verdict,
                    Some(None) => panic!("map element without verdict"),
                    None => continue,
                }
            }
            verdict => verdict,
        };
        match verdict {
            Verdict::Accept => return Outcome::Accept,
            Verdict::Drop => return Outcome::Drop,
            Verdict::Return => return Outcome::Ended,
            Verdict::Continue => {}
            Verdict::Jump(name) => match walk(table, &table.chains[name], packet) {
                Outcome::Ended => {}
                end => return end,
            },
            Verdict::Goto(name) => return walk(table, &table.chains[name], packet),
            Verdict::Map { .. } | Verdict::Masquerade => panic!("{verdict:?} on the way of a pod"),
        }
    }
    Outcome::Ended
}

fn holds(table: &Table, matched: &Match, packet: &Packet) -> bool {
    match matched {
        Match::CtState(states) => states.contains(&packet.state),
        Match::TcpNotSyn => packet.protocol == TCP && !packet.syn,
        Match::Address { side, net, negate } => {
            let address = address(*side, packet);
            let same_family = address.is_ipv4() == net.addr().is_ipv4();
            same_family && net.contains(&address) != *negate
        }
        Match::L4Proto(number) => packet.protocol == *number,
        Match::Icmpv6Type(types) => packet.protocol == ICMPV6 && types.contains(&packet.icmp_type),
        Match::Family(IpFamily::V4) => packet.source.is_ipv4(),
        Match::Family(IpFamily::V6) => packet.source.is_ipv6(),
        Match::Lookup { key, set, negate } => {
            // A field of the other family ends the rule, negated or not.
            if !fields(key, packet) {
                return false;
            }
            let set = table.sets.get(set).expect("set of a rule");
            look_up(set, key, packet).is_some() != *negate
        }
    }
}

fn address(side: Side, packet: &Packet) -> IpAddr {
    match side {
        Side::Source => packet.source,
        Side::Destination => packet.destination,
    }
}

/// The packet has all the fields.
fn fields(key: &[Field], packet: &Packet) -> bool {
    key.iter().all(|field| match field {
        Field::Address(IpFamily::V4, _) => packet.source.is_ipv4(),
        Field::Address(IpFamily::V6, _) => packet.source.is_ipv6(),
        Field::L4Proto | Field::DestinationPort | Field::InputInterface => true,
    })
}

fn look_up<'a>(set: &'a Set, key: &[Field], packet: &Packet) -> Option<&'a Option<Verdict>> {
    if !fields(key, packet) {
        return None;
    }
    let value = |field: &Field| match field {
        Field::Address(_, side) => Value::from(address(*side, packet)),
        Field::L4Proto => Value::Proto(packet.protocol),
        Field::DestinationPort => Value::Port(packet.port),
        Field::InputInterface => Value::IfName(packet.interface.clone()),
    };
    let values: Vec<Value> = key.iter().map(value).collect();
    if !set.spec.interval {
        return set.elements.get(&Element::Key(values));
    }
    let [value] = values.as_slice() else { panic!("interval of several fields") };
    set.elements.iter().find_map(|(element, verdict)| match element {
        Element::Range(first, last) if first <= value && value <= last => Some(verdict),
        Element::Range(..) | Element::Key(_) => None,
    })
}

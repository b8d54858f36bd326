//! Rules: each match and verdict as nf_tables expressions, in the order and with the implied
//! conditions that `nft` itself would write, so that `nft list` prints them as one expects.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use policy::nft::ir::{CtState, Field, IpFamily, Match, Rule, Side, Verdict};

use super::element::{userdata, write_verdict};
use super::encode::EncodeError;
use super::message::Buffer;
use super::uapi::{LIST_ITEM, data, expression as x, rule};

const TCP: u8 = 6;
const ICMPV6: u8 = 58;
/// Register 1 as nf_tables numbers 16-octet registers; all loads of one key start here.
const FIRST_REGISTER: u32 = 1;
/// Number of the first 4-octet register, which is the first quarter of register 1.
const FIRST_WORD: u32 = 8;
const TCP_FLAGS_OFFSET: u32 = 13;
const TCP_SYN: u8 = 0x02;
const TCP_FIN_SYN_RST_ACK: u8 = 0x17;
const DESTINATION_PORT_OFFSET: u32 = 2;
/// Longest comment that `nft` itself writes.
const COMMENT_LENGTH: usize = 128;

/// Name that makes the kernel choose one for an anonymous set.
pub(super) const ANONYMOUS_NAME: &str = "__set%d";

/// A set that belongs to one rule: the ICMPv6 types of a [`Match::Icmpv6Type`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnonymousSet {
    /// Transaction-wide set id by which the rule refers to it.
    pub(super) id: u32,
    /// Elements, one octet each.
    pub(super) types: BTreeSet<u8>,
}

/// Sets that must exist before the rule, numbered from `next_id` on.
pub(super) fn anonymous_sets(rule: &Rule, next_id: u32) -> Vec<AnonymousSet> {
    let types = rule.matches.iter().filter_map(|m| match m {
        Match::Icmpv6Type(types) if types.len() > 1 => Some(types.clone()),
        _ => None,
    });
    types.zip(next_id..).map(|(types, id)| AnonymousSet { id, types }).collect()
}

/// Writes expressions and comment of a rule. `sets` comes from [`anonymous_sets`].
pub(super) fn write_rule(
    buffer: &mut Buffer,
    rule: &Rule,
    sets: &[AnonymousSet],
) -> Result<(), EncodeError> {
    let at = buffer.open_nest(rule::EXPRESSIONS);
    let mut expressions =
        Expressions { buffer: &mut *buffer, family: None, protocol: None, sets: sets.iter() };
    for condition in &rule.matches {
        expressions.condition(condition)?;
    }
    if rule.counter {
        expressions.expression("counter", |_| ());
    }
    expressions.verdict(&rule.verdict)?;
    buffer.close_nest(at);
    if let Some(comment) = &rule.comment {
        if comment.len() > COMMENT_LENGTH {
            return Err(EncodeError::CommentTooLong);
        }
        let mut text = comment.as_bytes().to_vec();
        text.push(0);
        buffer.attribute(rule::USERDATA, &userdata(rule::USERDATA_COMMENT, &text));
    }
    Ok(())
}

/// Where a key field is read from.
enum Source {
    Payload { base: u32, offset: u32 },
    Meta(u32),
}

fn source(field: Field) -> (Source, u32) {
    match field {
        Field::Address(family, side) => {
            let (offset, length) = address_position(family, side);
            (Source::Payload { base: x::NETWORK_HEADER, offset }, length)
        }
        Field::L4Proto => (Source::Meta(x::META_L4PROTO), 1),
        Field::DestinationPort => {
            (Source::Payload { base: x::TRANSPORT_HEADER, offset: DESTINATION_PORT_OFFSET }, 2)
        }
        Field::InputInterface => (Source::Meta(x::META_IIFNAME), 16),
    }
}

/// Offset in the network header, and length.
fn address_position(family: IpFamily, side: Side) -> (u32, u32) {
    match (family, side) {
        (IpFamily::V4, Side::Source) => (12, 4),
        (IpFamily::V4, Side::Destination) => (16, 4),
        (IpFamily::V6, Side::Source) => (8, 16),
        (IpFamily::V6, Side::Destination) => (24, 16),
    }
}

/// NFPROTO number.
fn family_number(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 2,
        IpFamily::V6 => 10,
    }
}

fn ct_state_bit(state: CtState) -> u32 {
    match state {
        CtState::Invalid => 1,
        CtState::Established => 2,
        CtState::Related => 4,
        CtState::New => 8,
        CtState::Untracked => 64,
    }
}

/// Number of the register that starts `words` 4-octet words into register 1, as the kernel
/// itself names it in dumps: by 16-octet register where aligned.
fn register(words: u32) -> u32 {
    if words.is_multiple_of(4) { FIRST_REGISTER + words / 4 } else { FIRST_WORD + words }
}

fn comparison(negate: bool) -> u32 {
    if negate { x::CMP_NOT_EQUAL } else { x::CMP_EQUAL }
}

/// Expression list of one rule; remembers which implied conditions are already there.
struct Expressions<'a> {
    buffer: &'a mut Buffer,
    family: Option<IpFamily>,
    protocol: Option<u8>,
    sets: std::slice::Iter<'a, AnonymousSet>,
}

impl Expressions<'_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Buffer)) {
        self.buffer.nest(LIST_ITEM, |b| {
            b.string(x::NAME, name);
            b.nest(x::DATA, fill);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, to: u32) {
        self.expression("payload", |b| {
            b.u32(x::PAYLOAD_DREG, to);
            b.u32(x::PAYLOAD_BASE, base);
            b.u32(x::PAYLOAD_OFFSET, offset);
            b.u32(x::PAYLOAD_LENGTH, length);
        });
    }

    fn meta(&mut self, key: u32, to: u32) {
        self.expression("meta", |b| {
            b.u32(x::META_DREG, to);
            b.u32(x::META_KEY, key);
        });
    }

    fn compare(&mut self, negate: bool, value: &[u8]) {
        self.expression("cmp", |b| {
            b.u32(x::CMP_SREG, FIRST_REGISTER);
            b.u32(x::CMP_OP, comparison(negate));
            b.nest(x::CMP_DATA, |b| b.attribute(data::VALUE, value));
        });
    }

    /// Register 1 becomes register 1 `&` mask.
    fn mask(&mut self, mask: &[u8]) {
        let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
        self.expression("bitwise", |b| {
            b.u32(x::BITWISE_SREG, FIRST_REGISTER);
            b.u32(x::BITWISE_DREG, FIRST_REGISTER);
            b.u32(x::BITWISE_LENGTH, length);
            b.nest(x::BITWISE_MASK, |b| b.attribute(data::VALUE, mask));
            b.nest(x::BITWISE_XOR, |b| b.attribute(data::VALUE, &vec![0; mask.len()]));
        });
    }

    fn lookup(&mut self, set: &str, id: Option<u32>, negate: bool, to: Option<u32>) {
        self.expression("lookup", |b| {
            b.string(x::LOOKUP_SET, set);
            b.u32(x::LOOKUP_SREG, FIRST_REGISTER);
            if let Some(to) = to {
                b.u32(x::LOOKUP_DREG, to);
            }
            b.u32(x::LOOKUP_FLAGS, if negate { x::LOOKUP_INVERT } else { 0 });
            if let Some(id) = id {
                b.u32(x::LOOKUP_SET_ID, id);
            }
        });
    }

    fn require_family(&mut self, family: IpFamily) {
        if self.family.replace(family) != Some(family) {
            self.meta(x::META_NFPROTO, FIRST_REGISTER);
            self.compare(false, &[family_number(family)]);
        }
    }

    fn require_protocol(&mut self, protocol: u8) {
        if self.protocol.replace(protocol) != Some(protocol) {
            self.meta(x::META_L4PROTO, FIRST_REGISTER);
            self.compare(false, &[protocol]);
        }
    }

    fn condition(&mut self, condition: &Match) -> Result<(), EncodeError> {
        match condition {
            Match::CtState(states) => self.ct_state(states),
            Match::TcpNotSyn => {
                self.require_protocol(TCP);
                self.payload(x::TRANSPORT_HEADER, TCP_FLAGS_OFFSET, 1, FIRST_REGISTER);
                self.mask(&[TCP_FIN_SYN_RST_ACK]);
                self.compare(true, &[TCP_SYN]);
            }
            Match::Address { side, net, negate } => self.address(*side, *net, *negate),
            Match::L4Proto(protocol) => self.require_protocol(*protocol),
            Match::Icmpv6Type(types) => self.icmpv6_type(types)?,
            Match::Family(family) => self.require_family(*family),
            Match::Lookup { key, set, negate } => {
                self.load(key);
                self.lookup(set, None, *negate, None);
            }
        }
        Ok(())
    }

    fn ct_state(&mut self, states: &BTreeSet<CtState>) {
        let mask = states.iter().fold(0, |mask, s| mask | ct_state_bit(*s));
        self.expression("ct", |b| {
            b.u32(x::CT_DREG, FIRST_REGISTER);
            b.u32(x::CT_KEY, x::CT_STATE);
        });
        self.mask(&mask.to_ne_bytes());
        self.compare(true, &0u32.to_ne_bytes());
    }

    fn address(&mut self, side: Side, net: IpNet, negate: bool) {
        let (family, address, mask) = match (net.network(), net.netmask()) {
            (IpAddr::V4(a), IpAddr::V4(m)) => {
                (IpFamily::V4, a.octets().to_vec(), m.octets().to_vec())
            }
            (a, m) => (IpFamily::V6, octets16(a), octets16(m)),
        };
        self.require_family(family);
        let (offset, length) = address_position(family, side);
        let prefix = net.prefix_len();
        if prefix > 0 && prefix.is_multiple_of(8) {
            // Whole octets need no mask: load and compare just those.
            let octets = prefix / 8;
            self.payload(x::NETWORK_HEADER, offset, u32::from(octets), FIRST_REGISTER);
            self.compare(negate, address.get(..usize::from(octets)).unwrap_or(&address));
        } else {
            self.payload(x::NETWORK_HEADER, offset, length, FIRST_REGISTER);
            self.mask(&mask);
            self.compare(negate, &address);
        }
    }

    fn icmpv6_type(&mut self, types: &BTreeSet<u8>) -> Result<(), EncodeError> {
        let Some(first) = types.first() else { return Err(EncodeError::EmptyMatch) };
        self.require_family(IpFamily::V6);
        self.require_protocol(ICMPV6);
        self.payload(x::TRANSPORT_HEADER, 0, 1, FIRST_REGISTER);
        if types.len() == 1 {
            self.compare(false, &[*first]);
        } else {
            let set = self.sets.next().ok_or(EncodeError::EmptyMatch)?;
            self.lookup(ANONYMOUS_NAME, Some(set.id), false, None);
        }
        Ok(())
    }

    /// Loads a key into registers from register 1 on, each field in whole words.
    fn load(&mut self, key: &[Field]) {
        for field in key {
            if let Field::Address(family, _) = field {
                self.require_family(*family);
            }
        }
        let mut words = 0;
        for field in key {
            let (source, length) = source(*field);
            match source {
                Source::Payload { base, offset } => {
                    self.payload(base, offset, length, register(words));
                }
                Source::Meta(key) => self.meta(key, register(words)),
            }
            words += length.div_ceil(4);
        }
    }

    fn verdict(&mut self, target: &Verdict) -> Result<(), EncodeError> {
        if let Verdict::Map { key, map } = target {
            self.load(key);
            self.lookup(map, None, false, Some(x::VERDICT_REGISTER));
            return Ok(());
        }
        if *target == Verdict::Masquerade {
            self.expression("masq", |_| ());
            return Ok(());
        }
        let mut result = Ok(());
        self.expression("immediate", |b| {
            b.u32(x::IMMEDIATE_DREG, x::VERDICT_REGISTER);
            b.nest(x::IMMEDIATE_DATA, |b| result = write_verdict(b, target));
        });
        result
    }
}

fn octets16(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

//! Intermediate representation of our one table: what is compared, printed, and encoded to netlink.
//!
//! It has just the expressions that the layout needs (DESIGN §7), so that each has one exact
//! meaning, one text form and one netlink form.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Name of our table, family inet.
pub const TABLE: &str = "rampart";

/// The whole of `table inet rampart`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Sets and verdict maps by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// A set or verdict map with its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Declaration.
    pub spec: SetSpec,
    /// Content. In an interval set the elements are disjoint.
    pub elements: BTreeMap<Element, Option<Verdict>>,
}

/// Declaration of a set: whatever cannot change without making a new one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SetSpec {
    /// Key fields, concatenated if more than one.
    pub key: Vec<Type>,
    /// Elements are ranges (single field only: concatenated intervals are never used).
    pub interval: bool,
    /// Elements map to verdicts.
    pub verdict_map: bool,
}

/// Type of a key field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Type {
    /// `ipv4_addr`, 4 octets.
    Ipv4,
    /// `ipv6_addr`, 16 octets.
    Ipv6,
    /// `inet_proto`, 1 octet.
    Proto,
    /// `inet_service`, 2 octets.
    Port,
    /// `ifname`, 16 octets.
    IfName,
}

/// One element: its key fields, or a range of a single field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Element {
    /// One value a field.
    Key(Vec<Value>),
    /// First and last value, both included.
    Range(Value, Value),
}

/// A value of one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Value {
    /// Of type [`Type::Ipv4`].
    Ipv4(Ipv4Addr),
    /// Of type [`Type::Ipv6`].
    Ipv6(Ipv6Addr),
    /// Of type [`Type::Proto`]: IANA protocol number.
    Proto(u8),
    /// Of type [`Type::Port`].
    Port(u16),
    /// Of type [`Type::IfName`].
    IfName(String),
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self::Ipv4(a),
            IpAddr::V6(a) => Self::Ipv6(a),
        }
    }
}

/// A chain and its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Set for base chains.
    pub hook: Option<BaseHook>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where a base chain sits: `type nat` at postrouting, `type filter` elsewhere; policy accept always
/// (drop is only for isolated pods).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BaseHook {
    /// Netfilter hook.
    pub hook: Hook,
    /// Priority.
    pub priority: i32,
}

/// Netfilter hooks of the inet family that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Hook {
    /// NF_INET_PRE_ROUTING.
    Prerouting,
    /// NF_INET_LOCAL_IN.
    Input,
    /// NF_INET_FORWARD.
    Forward,
    /// NF_INET_LOCAL_OUT.
    Output,
    /// NF_INET_POST_ROUTING.
    Postrouting,
}

/// A rule: all matches must hold, then count, then the verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// Matches, evaluated in order.
    pub matches: Vec<Match>,
    /// Count packets and octets that got this far.
    pub counter: bool,
    /// What happens.
    pub verdict: Verdict,
    /// For humans (`comment` in nft); at most 128 octets.
    pub comment: Option<String>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Match {
    /// `ct state <any of these>`.
    CtState(BTreeSet<CtState>),
    /// `tcp flags & (fin | syn | rst | ack) != syn` (implies TCP).
    TcpNotSyn,
    /// `ip|ip6 saddr|daddr [!=] net` (implies the address family).
    Address {
        /// Which address.
        side: Side,
        /// Network.
        net: IpNet,
        /// `!=`.
        negate: bool,
    },
    /// `meta l4proto N`.
    L4Proto(u8),
    /// `icmpv6 type { ... }` (implies ICMPv6).
    Icmpv6Type(BTreeSet<u8>),
    /// `meta nfproto ipv4|ipv6`.
    Family(IpFamily),
    /// `<fields> [!=] @set`.
    Lookup {
        /// What is looked up; address fields imply their family.
        key: Vec<Field>,
        /// Set name.
        set: String,
        /// `!=`.
        negate: bool,
    },
}

/// Conntrack states, bits of NF_CT_STATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CtState {
    /// invalid.
    Invalid,
    /// established.
    Established,
    /// related.
    Related,
    /// new.
    New,
    /// untracked.
    Untracked,
}

/// Source or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// saddr.
    Source,
    /// daddr.
    Destination,
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A packet field that can be (part of) a lookup key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Field {
    /// `ip saddr|daddr` or `ip6 saddr|daddr`.
    Address(IpFamily, Side),
    /// `meta l4proto`.
    L4Proto,
    /// `th dport`.
    DestinationPort,
    /// `iifname`.
    InputInterface,
}

/// What a rule or map element does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// `accept`: ends the evaluation of this hook in our table.
    Accept,
    /// `drop`.
    Drop,
    /// `return`: back to the calling chain.
    Return,
    /// `continue`: to the next rule (a counting or comment rule).
    Continue,
    /// `jump chain`.
    Jump(String),
    /// `goto chain`.
    Goto(String),
    /// `masquerade`: the source becomes the address of the outgoing interface. At postrouting only,
    /// and not allowed inside a map.
    Masquerade,
    /// `<fields> vmap @map`; no match in the map = next rule. Not allowed inside a map.
    Map {
        /// What is looked up.
        key: Vec<Field>,
        /// Verdict map name.
        map: String,
    },
}

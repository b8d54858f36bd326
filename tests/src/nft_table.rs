//! One table with every construct of the intermediate representation, and small ways to write
//! sets and rules.

use std::collections::{BTreeMap, BTreeSet};

use policy::nft::ir::{
    BaseHook, Chain, CtState, Element, Field, Hook, IpFamily, Match, Rule, Set, SetSpec, Side,
    Table, Type, Value, Verdict,
};

/// A rule without counter and comment.
#[must_use]
pub fn rule(matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule { matches, counter: false, verdict, comment: None }
}

/// A set.
#[must_use]
pub fn set(key: &[Type], interval: bool, elements: Vec<Element>) -> Set {
    let spec = SetSpec { key: key.to_vec(), interval, verdict_map: false };
    Set { spec, elements: elements.into_iter().map(|e| (e, None)).collect() }
}

/// A verdict map.
#[must_use]
pub fn map(key: &[Type], interval: bool, elements: Vec<(Element, Verdict)>) -> Set {
    let spec = SetSpec { key: key.to_vec(), interval, verdict_map: true };
    Set { spec, elements: elements.into_iter().map(|(e, v)| (e, Some(v))).collect() }
}

/// IPv4 value.
#[must_use]
pub fn v4(octets: [u8; 4]) -> Value {
    Value::Ipv4(octets.into())
}

/// IPv6 value.
#[must_use]
pub fn v6(segments: [u16; 8]) -> Value {
    Value::Ipv6(segments.into())
}

/// One table with every construct of the intermediate representation, in both families.
#[must_use]
pub fn every_construct() -> Table {
    let sets = hash_sets().into_iter().chain(interval_sets()).chain(verdict_maps());
    let sets = sets.map(|(name, set)| (name.to_owned(), set)).collect();
    Table { sets, chains: every_chain() }
}

/// The same table in the language of `nft`, written by hand.
pub const EVERY_CONSTRUCT: &str = include_str!("../data/nft/every_construct.nft");

const V6: [u16; 8] = [0xfd00, 0, 0, 0, 0, 0, 0, 1];

fn hash_sets() -> Vec<(&'static str, Set)> {
    use Element::Key;
    let name = |n: &str| Value::IfName(n.to_owned());
    vec![
        (
            "peers4",
            set(
                &[Type::Ipv4, Type::Proto, Type::Port],
                false,
                vec![
                    Key(vec![v4([10, 0, 0, 1]), Value::Proto(6), Value::Port(80)]),
                    Key(vec![v4([10, 0, 0, 2]), Value::Proto(132), Value::Port(65535)]),
                ],
            ),
        ),
        (
            "peers6",
            set(
                &[Type::Ipv6, Type::Proto, Type::Port],
                false,
                vec![Key(vec![v6(V6), Value::Proto(17), Value::Port(53)])],
            ),
        ),
        ("plain4", set(&[Type::Ipv4], false, vec![Key(vec![v4([10, 0, 0, 9])])])),
        ("interfaces", set(&[Type::IfName], false, vec![Key(vec![name("veth0")])])),
        (
            "source4",
            set(
                &[Type::IfName, Type::Ipv4],
                false,
                vec![Key(vec![name("veth0"), v4([10, 0, 0, 1])])],
            ),
        ),
        (
            "source6",
            set(
                &[Type::IfName, Type::Ipv6],
                false,
                vec![Key(vec![name("a-name-of-15-oc"), v6(V6)])],
            ),
        ),
        ("empty", set(&[Type::Proto, Type::Port], false, vec![])),
    ]
}

fn interval_sets() -> Vec<(&'static str, Set)> {
    use Element::Range;
    vec![
        (
            "nets4",
            set(
                &[Type::Ipv4],
                true,
                vec![
                    Range(v4([0, 0, 0, 0]), v4([0, 255, 255, 255])),
                    Range(v4([10, 0, 0, 0]), v4([10, 255, 255, 255])),
                    Range(v4([11, 0, 0, 0]), v4([11, 255, 255, 255])),
                    Range(v4([192, 0, 2, 7]), v4([192, 0, 2, 7])),
                    Range(v4([255, 0, 0, 0]), v4([255, 255, 255, 255])),
                ],
            ),
        ),
        (
            "nets6",
            set(
                &[Type::Ipv6],
                true,
                vec![Range(
                    v6([0xfd00, 0, 0, 0, 0, 0, 0, 0]),
                    v6([0xfd00, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff]),
                )],
            ),
        ),
        ("everything6", set(&[Type::Ipv6], true, vec![Range(v6([0; 8]), v6([0xffff; 8]))])),
    ]
}

fn verdict_maps() -> Vec<(&'static str, Set)> {
    use Element::{Key, Range};
    let jump = || Verdict::Jump("in/shop/web-1/0".to_owned());
    vec![
        ("to4", map(&[Type::Ipv4], false, vec![(Key(vec![v4([10, 0, 0, 1])]), jump())])),
        ("to6", map(&[Type::Ipv6], false, vec![(Key(vec![v6(V6)]), jump())])),
        (
            "ports",
            map(
                &[Type::Proto, Type::Port],
                false,
                vec![
                    (Key(vec![Value::Proto(6), Value::Port(443)]), Verdict::Return),
                    (
                        Key(vec![Value::Proto(17), Value::Port(53)]),
                        Verdict::Goto("class".to_owned()),
                    ),
                ],
            ),
        ),
        (
            "tcp_ranges",
            map(
                &[Type::Port],
                true,
                vec![
                    (Range(Value::Port(1), Value::Port(1023)), Verdict::Drop),
                    (Range(Value::Port(1024), Value::Port(65535)), Verdict::Accept),
                ],
            ),
        ),
    ]
}

fn every_chain() -> BTreeMap<String, Chain> {
    let base = |hook, priority, rules| Chain { hook: Some(BaseHook { hook, priority }), rules };
    let regular = |rules| Chain { hook: None, rules };
    let lookup = |key: &[Field], set: &str| Match::Lookup {
        key: key.to_vec(),
        set: set.to_owned(),
        negate: false,
    };
    let dispatch = |family, map: &str| Verdict::Map {
        key: vec![Field::Address(family, Side::Destination)],
        map: map.to_owned(),
    };
    let chains = [
        ("prerouting", base(Hook::Prerouting, -300, anti_spoof())),
        (
            "forward",
            base(
                Hook::Forward,
                0,
                vec![
                    rule(
                        vec![Match::CtState(BTreeSet::from([
                            CtState::Established,
                            CtState::Related,
                        ]))],
                        Verdict::Accept,
                    ),
                    rule(vec![], dispatch(IpFamily::V4, "to4")),
                    rule(vec![], dispatch(IpFamily::V6, "to6")),
                ],
            ),
        ),
        ("input", base(Hook::Input, 10, vec![rule(vec![], Verdict::Continue)])),
        ("output", base(Hook::Output, -1, vec![])),
        (
            "postrouting",
            base(
                Hook::Postrouting,
                101,
                vec![Rule {
                    matches: vec![
                        Match::Address {
                            side: Side::Source,
                            net: "10.244.0.0/24".parse().unwrap_or_default(),
                            negate: false,
                        },
                        Match::Lookup {
                            key: vec![Field::Address(IpFamily::V4, Side::Destination)],
                            set: "nets4".to_owned(),
                            negate: true,
                        },
                    ],
                    counter: true,
                    verdict: Verdict::Masquerade,
                    comment: None,
                }],
            ),
        ),
        (
            "class",
            regular(vec![rule(
                vec![lookup(&[Field::Address(IpFamily::V4, Side::Source)], "plain4")],
                Verdict::Return,
            )]),
        ),
        ("in/shop/web-1/0", regular(pod_rules())),
    ];
    chains.into_iter().map(|(name, chain)| (name.to_owned(), chain)).collect()
}

fn anti_spoof() -> Vec<Rule> {
    let source = |set: &str, family| Match::Lookup {
        key: vec![Field::InputInterface, Field::Address(family, Side::Source)],
        set: set.to_owned(),
        negate: false,
    };
    let address = |side, net: &str, negate| Match::Address {
        side,
        net: net.parse().unwrap_or_default(),
        negate,
    };
    vec![
        rule(
            vec![Match::Lookup {
                key: vec![Field::InputInterface],
                set: "interfaces".to_owned(),
                negate: true,
            }],
            Verdict::Accept,
        ),
        rule(vec![source("source4", IpFamily::V4)], Verdict::Accept),
        rule(vec![source("source6", IpFamily::V6)], Verdict::Accept),
        rule(
            vec![
                address(Side::Source, "fe80::/10", false),
                Match::Icmpv6Type(BTreeSet::from([133, 135, 136])),
            ],
            Verdict::Accept,
        ),
        rule(
            vec![address(Side::Source, "::/128", false), Match::Icmpv6Type(BTreeSet::from([143]))],
            Verdict::Accept,
        ),
        rule(
            vec![
                address(Side::Destination, "10.0.0.0/8", false),
                address(Side::Source, "10.1.0.0/20", true),
            ],
            Verdict::Drop,
        ),
        rule(vec![address(Side::Source, "10.1.2.3/32", true)], Verdict::Continue),
        rule(vec![address(Side::Destination, "2001:db8::/32", true)], Verdict::Drop),
        Rule {
            matches: vec![],
            counter: true,
            verdict: Verdict::Drop,
            comment: Some("spoofed".to_owned()),
        },
    ]
}

fn pod_rules() -> Vec<Rule> {
    let lookup = |key: &[Field], set: &str, negate| Match::Lookup {
        key: key.to_vec(),
        set: set.to_owned(),
        negate,
    };
    let from4 = Field::Address(IpFamily::V4, Side::Source);
    let from6 = Field::Address(IpFamily::V6, Side::Source);
    let service = [Field::L4Proto, Field::DestinationPort];
    vec![
        rule(vec![Match::CtState(BTreeSet::from([CtState::Invalid]))], Verdict::Drop),
        rule(vec![Match::CtState(BTreeSet::from([CtState::New])), Match::TcpNotSyn], Verdict::Drop),
        rule(vec![Match::CtState(BTreeSet::from([CtState::Untracked]))], Verdict::Return),
        rule(vec![lookup(&[from4, service[0], service[1]], "peers4", false)], Verdict::Return),
        rule(vec![lookup(&[from6, service[0], service[1]], "peers6", false)], Verdict::Return),
        rule(vec![lookup(&[from4], "nets4", false)], Verdict::Return),
        rule(vec![lookup(&[from6], "nets6", true)], Verdict::Drop),
        rule(vec![lookup(&[from6], "everything6", false)], Verdict::Return),
        rule(vec![lookup(&service, "empty", false)], Verdict::Jump("class".to_owned())),
        rule(vec![], Verdict::Map { key: service.to_vec(), map: "ports".to_owned() }),
        rule(
            vec![Match::L4Proto(6)],
            Verdict::Map { key: vec![Field::DestinationPort], map: "tcp_ranges".to_owned() },
        ),
        rule(
            vec![Match::Family(IpFamily::V4), Match::L4Proto(132)],
            Verdict::Goto("class".to_owned()),
        ),
        Rule { matches: vec![], counter: true, verdict: Verdict::Drop, comment: None },
    ]
}

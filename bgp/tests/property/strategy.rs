//! Random values as a peer could legally send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::types::{Asn, Families, Family};
use bgp::wire::Context;
use bgp::wire::attribute::{
    Aggregator, AsPath, Attributes, Extra, Origin, RawAttribute, Segment, SegmentKind,
};
use bgp::wire::open::{Capability, Open};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// One attribute set, the prefixes that share it, and the session they travel on.
#[derive(Clone, Debug)]
pub struct Announcement {
    pub context: Context,
    pub family: Family,
    pub attributes: Attributes,
    pub prefixes: Vec<(u32, IpNet)>,
}

pub fn announcement() -> impl Strategy<Value = Announcement> {
    (context(), any::<bool>()).prop_flat_map(|(context, v6)| {
        let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
        let prefixes = vec((any::<u32>(), prefix(family)), 1..40);
        (Just(context), Just(family), attributes(family), prefixes).prop_map(
            |(context, family, attributes, prefixes)| Announcement {
                attributes: legal(attributes, &context),
                context,
                family,
                prefixes,
            },
        )
    })
}

/// An internal or external session; the peer of an external one is the first AS of the path.
pub fn context() -> impl Strategy<Value = Context> {
    any::<[bool; 4]>().prop_map(|[four_octet_as, extended_message, add_path, external]| Context {
        four_octet_as,
        extended_message,
        families: Families::ALL,
        add_path: if add_path { Families::ALL } else { Families::NONE },
        external,
        peer_asn: PEER,
        ..Context::OPENING
    })
}

const PEER: Asn = Asn(65010);

/// What is left of `attributes` on this kind of session.
fn legal(mut attributes: Attributes, context: &Context) -> Attributes {
    if context.external {
        attributes.local_pref = None;
        attributes.originator_id = None;
        attributes.cluster_list.clear();
        for community in attributes.extra.iter_mut().flat_map(|e| &mut e.extended_communities) {
            community[0] &= !0x40; // transitive: the others stay inside the AS
        }
        let asns = [PEER].into_iter().collect();
        let first = Segment { kind: SegmentKind::Sequence, asns };
        attributes.as_path.segments.insert(0, first);
    } else {
        attributes.local_pref.get_or_insert(100);
    }
    attributes
}

pub fn prefix(family: Family) -> BoxedStrategy<IpNet> {
    match family {
        Family::Ipv4 => (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, len)| {
                IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(bits), len).unwrap().trunc())
            })
            .boxed(),
        Family::Ipv6 => (any::<u128>(), 0..=128_u8)
            .prop_map(|(bits, len)| {
                IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(bits), len).unwrap().trunc())
            })
            .boxed(),
    }
}

fn attributes(family: Family) -> impl Strategy<Value = Attributes> {
    let next_hop = match family {
        Family::Ipv4 => any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))).boxed(),
        Family::Ipv6 => {
            any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))).boxed()
        }
    };
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let ids = vec(any::<u32>().prop_map(Ipv4Addr::from_bits), 0..4);
    (
        (origin, as_path(), next_hop),
        (option::of(any::<u32>()), option::of(any::<u32>())),
        (option::of(any::<u32>().prop_map(Ipv4Addr::from_bits)), ids),
        option::of(extra()),
    )
        .prop_map(
            |(
                (origin, as_path, next_hop),
                (med, local_pref),
                (originator_id, cluster_list),
                extra,
            )| {
                let cluster_list = cluster_list.into_iter().collect();
                let extra = extra.filter(|e| *e != Extra::default()).map(Box::new);
                Attributes {
                    origin,
                    as_path,
                    next_hop,
                    med,
                    local_pref,
                    originator_id,
                    cluster_list,
                    extra,
                }
            },
        )
}

/// Not 0 (RFC 7607), and large or small half of the time.
fn asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..=65535_u32, 65536..=u32::MAX].prop_map(Asn)
}

fn as_path() -> impl Strategy<Value = AsPath> {
    let segment = vec(asn(), 1..8)
        .prop_map(|asns| Segment { kind: SegmentKind::Sequence, asns: asns.into_iter().collect() });
    vec(segment, 0..3).prop_map(|segments| AsPath { segments: segments.into_iter().collect() })
}

fn extra() -> impl Strategy<Value = Extra> {
    let aggregator =
        (asn(), any::<u32>()).prop_map(|(asn, id)| Aggregator { asn, id: Ipv4Addr::from_bits(id) });
    (
        vec(any::<u32>(), 0..5),
        vec(any::<[u8; 8]>(), 0..3),
        vec(any::<[u32; 3]>(), 0..3),
        (option::of(aggregator), any::<bool>(), option::of(any::<u32>())),
        proptest::collection::btree_map(
            200..=254_u8,
            (any::<bool>(), vec(any::<u8>(), 0..300)),
            0..3,
        ),
    )
        .prop_map(|(communities, extended_communities, large_communities, rest, unknown)| {
            let (aggregator, atomic_aggregate, only_to_customer) = rest;
            let unknown = unknown.into_iter().map(|(code, (_, value))| RawAttribute {
                flags: 0xe0, // Partial is what it becomes on the way
                code,
                value: value.into(),
            });
            Extra {
                communities,
                extended_communities,
                large_communities,
                aggregator,
                atomic_aggregate,
                only_to_customer: only_to_customer.map(Asn),
                unknown: unknown.collect(),
            }
        })
}

pub fn open() -> impl Strategy<Value = Open> {
    let head = (1..=u16::MAX, prop_oneof![Just(0), 3..=u16::MAX], 1..=u32::MAX);
    (head, vec(capability(), 0..12)).prop_map(|((my_as, hold_time_seconds, id), capabilities)| {
        let router_id = Ipv4Addr::from_bits(id);
        Open { version: 4, my_as, hold_time_seconds, router_id, capabilities }
    })
}

fn capability() -> impl Strategy<Value = Capability> {
    let name = || vec(any::<u8>(), 0..60);
    prop_oneof![
        any::<(u16, u8)>().prop_map(|(afi, safi)| Capability::Multiprotocol(afi, safi)),
        Just(Capability::RouteRefresh),
        vec(any::<(u16, u16, u16)>(), 0..5).prop_map(Capability::ExtendedNextHop),
        Just(Capability::ExtendedMessage),
        Just(Capability::Role(3)),
        (any::<bool>(), any::<bool>(), 0..4096_u16, vec(any::<(u16, u8, bool)>(), 0..4)).prop_map(
            |(restarted, notification, restart_time_seconds, families)| {
                Capability::GracefulRestart {
                    restarted,
                    notification,
                    restart_time_seconds,
                    families,
                }
            }
        ),
        asn().prop_map(Capability::FourOctetAs),
        vec((any::<u16>(), any::<u8>(), 1..=3_u8), 0..4).prop_map(Capability::AddPath),
        Just(Capability::EnhancedRouteRefresh),
        (name(), name()).prop_map(|(host, domain)| Capability::Fqdn(host, domain)),
        (128..=255_u8, vec(any::<u8>(), 0..200)).prop_map(|(c, v)| Capability::Unknown(c, v)),
    ]
}

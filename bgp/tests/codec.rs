//! The codec on whole messages: good ones, and what writers pack.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails the test"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::types::{Asn, Families, Family};
use bgp::wire::attribute::{AsPath, Attributes, Extra, Origin, Segment, SegmentKind};
use bgp::wire::encode::{self, EncodeError, UpdateWriter};
use bgp::wire::notification::cease;
use bgp::wire::open::{Capability, Open};
use bgp::wire::refresh::RefreshKind;
use bgp::wire::{Context, Message, MessageType, Notification, RouteRefresh, Update};
use bgp::wire::{decode, frame};
use ipnet::IpNet;

fn external() -> Context {
    Context {
        four_octet_as: true,
        families: Families::ALL,
        external: true,
        peer_asn: Asn(65010),
        ..Context::OPENING
    }
}

fn internal() -> Context {
    Context { external: false, peer_asn: Asn(65001), ..external() }
}

fn attributes() -> Attributes {
    Attributes {
        origin: Origin::Igp,
        as_path: AsPath {
            segments: [Segment {
                kind: SegmentKind::Sequence,
                asns: [Asn(65010), Asn(4_200_000_000)].into_iter().collect(),
            }]
            .into_iter()
            .collect(),
        },
        next_hop: Ipv4Addr::new(192, 0, 2, 1).into(),
        med: Some(7),
        local_pref: Some(200),
        originator_id: Some(Ipv4Addr::new(10, 0, 0, 9)),
        cluster_list: [Ipv4Addr::new(10, 0, 0, 1)].into_iter().collect(),
        extra: Some(Box::new(Extra { communities: vec![0xffff_ff01], ..Extra::default() })),
    }
}

/// The messages in `bytes`, each decoded.
fn messages<'a>(mut bytes: &'a [u8], context: &Context) -> Vec<Message<'a>> {
    let mut out = Vec::new();
    while let Some((_, len)) = frame(bytes, context.max_len()).unwrap() {
        out.push(decode(&bytes[..len], context).unwrap());
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty(), "{} octets left over", bytes.len());
    out
}

fn updates<'a>(bytes: &'a [u8], context: &Context) -> Vec<Update<'a>> {
    let update = |message| match message {
        Message::Update(update) => update,
        other => panic!("not an UPDATE: {other:?}"),
    };
    messages(bytes, context).into_iter().map(update).collect()
}

fn announced(update: &Update<'_>) -> Vec<(Option<u32>, IpNet)> {
    update.announced.iter().flatten().flat_map(|(nlri, _)| nlri.iter()).collect()
}

fn withdrawn(update: &Update<'_>) -> Vec<(Option<u32>, IpNet)> {
    update.withdrawn.iter().flatten().flat_map(|nlri| nlri.iter()).collect()
}

fn prefixes(family: Family, count: u32) -> Vec<IpNet> {
    (0..count)
        .map(|i| match family {
            Family::Ipv4 => {
                IpNet::new(Ipv4Addr::from_bits((10 << 24) | (i << 8)).into(), 24).unwrap()
            }
            Family::Ipv6 => {
                let bits = (0xfd00_u128 << 112) | (u128::from(i) << 64);
                IpNet::new(Ipv6Addr::from_bits(bits).into(), 64).unwrap()
            }
        })
        .collect()
}

fn next_hop(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(192, 0, 2, 1).into(),
        Family::Ipv6 => "2001:db8::1".parse().unwrap(),
    }
}

#[test]
fn good_update_decodes_to_its_prefix_and_attributes() {
    let bytes =
        hex("ffffffffffffffffffffffffffffffff 002F 02 0000 0014 40010100 4002060201 0000FDF2 \
         400304C0000202 18C63364");
    let decoded = updates(&bytes, &external()).remove(0);
    assert_eq!(announced(&decoded), [(None, "198.51.100.0/24".parse().unwrap())]);
    let attributes = decoded.attributes.unwrap();
    assert_eq!(attributes.next_hop, IpAddr::from([192, 0, 2, 2]));
    assert_eq!(attributes.as_path.first(), Some(Asn(65010)));
    assert_eq!(attributes.local_pref, None);
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn many_prefixes_fill_messages_to_the_limit_and_none_is_lost() {
    for extended_message in [false, true] {
        for add_path in [Families::NONE, Families::ALL] {
            for family in Family::ALL {
                let context = Context { extended_message, add_path, ..internal() };
                let sent = prefixes(family, 20_000);
                let mut bytes = Vec::new();
                let mut writer = UpdateWriter::announce(
                    &mut bytes,
                    &context,
                    family,
                    next_hop(family),
                    &attributes(),
                )
                .unwrap();
                for (id, prefix) in (7..).zip(&sent) {
                    assert!(writer.push(Some(id), *prefix));
                }
                writer.finish();

                let decoded = updates(&bytes, &context);
                let id = |i| add_path.contains(family).then_some(i);
                let expected: Vec<_> = (7..).zip(&sent).map(|(i, p)| (id(i), *p)).collect();
                let got: Vec<_> = decoded.iter().flat_map(announced).collect();
                assert_eq!(got, expected);
                for update in &decoded {
                    let got = update.attributes.clone().unwrap();
                    let next_hop = next_hop(family);
                    assert_eq!(got, Attributes { next_hop, ..attributes() });
                }
                // No message but the last could have taken one more prefix.
                let longest = context.max_len();
                assert!(bytes.len() > (decoded.len() - 1) * (longest - 21));
            }
        }
    }
}

#[test]
fn withdrawals_round_trip_in_both_families() {
    for family in Family::ALL {
        let context = internal();
        let sent = prefixes(family, 5_000);
        let mut bytes = Vec::new();
        let mut writer = UpdateWriter::withdraw(&mut bytes, &context, family);
        for prefix in &sent {
            assert!(writer.push(None, *prefix));
        }
        writer.finish();
        let decoded = updates(&bytes, &context);
        let got: Vec<_> = decoded.iter().flat_map(withdrawn).map(|(_, p)| p).collect();
        assert_eq!(got, sent);
        assert!(decoded.iter().all(|u| u.end_of_rib.is_none() && u.attributes.is_none()));
    }
}

#[test]
fn prefix_of_the_other_family_is_refused() {
    let mut bytes = Vec::new();
    let context = internal();
    let mut writer = UpdateWriter::withdraw(&mut bytes, &context, Family::Ipv6);
    assert!(!writer.push(None, "10.0.0.0/8".parse().unwrap()));
    writer.finish();
    assert!(bytes.is_empty());
}

#[test]
fn unfinished_message_is_taken_back() {
    let mut bytes = vec![1, 2, 3];
    let context = internal();
    let mut writer = UpdateWriter::withdraw(&mut bytes, &context, Family::Ipv4);
    assert!(writer.push(None, "10.0.0.0/8".parse().unwrap()));
    drop(writer);
    assert_eq!(bytes, [1, 2, 3]);
}

#[test]
fn attributes_too_large_for_the_session_are_refused_not_cut() {
    let context = internal();
    let communities = (0..1100).collect();
    let huge = Attributes {
        extra: Some(Box::new(Extra { communities, ..Extra::default() })),
        ..attributes()
    };
    let mut bytes = Vec::new();
    for family in Family::ALL {
        let refused = UpdateWriter::announce(&mut bytes, &context, family, next_hop(family), &huge);
        assert!(matches!(refused, Err(EncodeError::TooLarge { max_len: 4096, .. })));
    }
    let refused = UpdateWriter::announce(
        &mut bytes,
        &context,
        Family::Ipv4,
        next_hop(Family::Ipv6),
        &attributes(),
    );
    assert!(matches!(refused, Err(EncodeError::NextHopFamily)));
    drop(refused);
    assert!(bytes.is_empty());
}

#[test]
fn two_octet_session_carries_large_asns_beside() {
    let context = Context { four_octet_as: false, ..internal() };
    let mut bytes = Vec::new();
    let family = Family::Ipv4;
    let mut writer =
        UpdateWriter::announce(&mut bytes, &context, family, next_hop(family), &attributes())
            .unwrap();
    writer.push(None, "10.0.0.0/8".parse().unwrap());
    writer.finish();
    assert_eq!(updates(&bytes, &context).remove(0).attributes, Some(attributes()));
}

#[test]
fn end_of_rib_is_recognised_per_family() {
    for family in Family::ALL {
        let mut bytes = Vec::new();
        encode::end_of_rib(family, &mut bytes);
        let decoded = updates(&bytes, &internal()).remove(0);
        assert_eq!(decoded, Update { end_of_rib: Some(family), ..Update::default() });
    }
}

#[test]
fn open_with_every_capability_round_trips() {
    let open = Open {
        version: 4,
        my_as: 23456,
        hold_time_seconds: 90,
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        capabilities: vec![
            Capability::Multiprotocol(1, 1),
            Capability::Multiprotocol(2, 1),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![(1, 1, 2)]),
            Capability::ExtendedMessage,
            Capability::Role(4),
            Capability::GracefulRestart {
                restarted: true,
                notification: true,
                restart_time_seconds: 120,
                families: vec![(1, 1, true), (2, 1, false)],
            },
            Capability::FourOctetAs(Asn(4_200_000_000)),
            Capability::AddPath(vec![(1, 1, 1), (2, 1, 3)]),
            Capability::EnhancedRouteRefresh,
            Capability::Fqdn(b"node-1".to_vec(), b"example.org".to_vec()),
            Capability::Unknown(200, vec![1, 2, 3]),
        ],
    };
    assert_eq!(open.asn(), Asn(4_200_000_000));
    let mut bytes = Vec::new();
    encode::open(&open, &mut bytes);
    assert_eq!(messages(&bytes, &Context::OPENING), [Message::Open(open)]);
}

#[test]
fn open_beyond_255_octets_uses_extended_parameters() {
    let open = Open {
        version: 4,
        my_as: 65001,
        hold_time_seconds: 0,
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        capabilities: (128..=239).map(|code| Capability::Unknown(code, vec![code; 20])).collect(),
    };
    let mut bytes = Vec::new();
    encode::open(&open, &mut bytes);
    assert_eq!(bytes[28..30], [255, 255]);
    assert_eq!(messages(&bytes, &Context::OPENING), [Message::Open(open)]);
}

#[test]
fn short_messages_round_trip() {
    let context = Context { enhanced_refresh: true, ..internal() };
    let notification = Notification { code: 3, subcode: 1, data: vec![1, 2] };
    let refresh = RouteRefresh::new(Family::Ipv6, RefreshKind::End);
    let mut bytes = Vec::new();
    encode::keepalive(&mut bytes);
    encode::notification(&notification, &mut bytes);
    encode::route_refresh(&refresh, &mut bytes);
    assert_eq!(frame(&bytes, 4096).unwrap(), Some((MessageType::Keepalive, 19)));
    assert_eq!(
        messages(&bytes, &context),
        [Message::Keepalive, Message::Notification(notification), Message::RouteRefresh(refresh)]
    );
}

#[test]
fn notification_reads_as_words_with_the_operators_text() {
    let shutdown = Notification::cease_with_text(cease::ADMIN_SHUTDOWN, "upgrade of tor-1");
    assert_eq!(shutdown.to_string(), "Cease: Administrative Shutdown (6/2): \"upgrade of tor-1\"");
    let long = Notification::cease_with_text(cease::ADMIN_RESET, &"ü".repeat(200));
    assert_eq!(long.data.len(), 255, "cut before the character that would end beyond 255");
    assert_eq!(long.communication().unwrap().chars().count(), 127);
    assert_eq!(Notification::new(4, 0).to_string(), "Hold Timer Expired (4/0)");
    assert_eq!(
        Notification { code: 3, subcode: 9, data: vec![0x80, 14] }.to_string(),
        "UPDATE Message Error: Optional Attribute Error (3/9), data 800e"
    );
}

#[test]
fn hostile_notification_text_is_escaped_and_bounded() {
    let hostile =
        Notification { code: 6, subcode: 2, data: b"\x0aa\xc3\x28\0\x1b[2J\n\"x".to_vec() };
    assert_eq!(hostile.communication().unwrap(), "a\\xc3(\\u{0}\\u{1b}[2J\\n\\\"");
    let cut =
        Notification { code: 6, subcode: 4, data: [&[0xc8][..], b"twenty octets of tex"].concat() };
    assert_eq!(cut.communication().unwrap(), "twenty octets of tex");
    let empty = Notification { code: 6, subcode: 2, data: vec![0] };
    assert_eq!(empty.communication(), None);
    let huge = Notification { code: 99, subcode: 200, data: vec![0xab; 4077] };
    assert!(huge.to_string().len() < 200, "{huge}");
}

#[test]
fn unknown_transitive_attribute_is_forwarded_unchanged_but_partial() {
    let value = [0xab; 255];
    let mut bytes = hex("ffffffffffffffffffffffffffffffff 0131 02 0000 0116 40010100 4002060201 \
                         0000FDF2 400304C0000202 C0C8FF");
    bytes.extend_from_slice(&value);
    bytes.extend_from_slice(&[0x18, 0xc6, 0x33, 0x64]);
    let context = external();
    let received = updates(&bytes, &context).remove(0).attributes.unwrap();

    let mut forwarded = Vec::new();
    let hop = next_hop(Family::Ipv4);
    let mut writer =
        UpdateWriter::announce(&mut forwarded, &context, Family::Ipv4, hop, &received).unwrap();
    writer.push(None, "198.51.100.0/24".parse().unwrap());
    writer.finish();
    let attribute = [&[0xe0, 200, 255][..], &value].concat();
    assert!(forwarded.windows(attribute.len()).any(|window| window == attribute));
}

#[test]
fn external_session_is_not_told_internal_attributes() {
    let context = external();
    let mut bytes = Vec::new();
    for family in Family::ALL {
        let hop = next_hop(family);
        let mut writer =
            UpdateWriter::announce(&mut bytes, &context, family, hop, &attributes()).unwrap();
        writer.push(None, prefixes(family, 1)[0]);
        writer.finish();
    }
    for update in updates(&bytes, &context) {
        assert_eq!(update.discarded, []);
        let got = update.attributes.unwrap();
        assert_eq!((got.local_pref, got.originator_id), (None, None));
        assert!(got.cluster_list.is_empty());
        assert_eq!(got.med, Some(7));
    }
}

#[test]
fn non_transitive_extended_community_stays_inside_the_as() {
    let (inside, outside) = ([0x40, 4, 0, 0, 0, 0, 0, 1], [0, 2, 0, 0, 0, 0, 0, 1]);
    let family = Family::Ipv4;
    for (context, expected) in [(internal(), vec![inside, outside]), (external(), vec![outside])] {
        let extended_communities = vec![inside, outside];
        let extra = Extra { extended_communities, ..Extra::default() };
        let attributes = Attributes { extra: Some(Box::new(extra)), ..attributes() };
        let mut bytes = Vec::new();
        let hop = next_hop(family);
        let mut writer =
            UpdateWriter::announce(&mut bytes, &context, family, hop, &attributes).unwrap();
        writer.push(None, prefixes(family, 1)[0]);
        writer.finish();
        let got = updates(&bytes, &context).remove(0).attributes.unwrap();
        assert_eq!(got.extra.unwrap().extended_communities, expected);
    }
}

#[test]
fn as_path_segment_beyond_255_asns_is_split_on_the_wire() {
    let asns: Vec<_> = (1..=600).map(Asn).collect();
    let segment = Segment { kind: SegmentKind::Sequence, asns: asns.iter().copied().collect() };
    let path = AsPath { segments: [segment].into_iter().collect() };
    let long = Attributes { as_path: path, ..attributes() };
    let context = internal();
    let mut bytes = Vec::new();
    let family = Family::Ipv6;
    let mut writer =
        UpdateWriter::announce(&mut bytes, &context, family, next_hop(family), &long).unwrap();
    writer.push(None, "2001:db8::/32".parse().unwrap());
    writer.finish();
    let got = updates(&bytes, &context).remove(0).attributes.unwrap();
    assert_eq!(got.as_path.asns().collect::<Vec<_>>(), asns);
    assert_eq!(got.as_path.segments.len(), 3);
}

#[test]
fn attributes_stay_small() {
    // Interned by the million: a wider field must be worth it.
    assert!(size_of::<Attributes>() <= 128, "{}", size_of::<Attributes>());
}

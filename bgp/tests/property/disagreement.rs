//! Agreement with other people's decoders, and the table of where they differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bgp::types::Families;
use bgp::wire::{Context, Message, decode, encode};
use proptest::prelude::*;

use super::reading::{Reading, ours};
use super::round_trip::{encoded, split};
use super::strategy::{Announcement, announcement, open};
use super::text::{context, message_bytes, rows};
use super::{bgp_rs_reader, bgpkit_reader, netgauze_reader};

const MESSAGES: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/bgp/malformed.txt"));
const TABLE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/bgp/disagreements.txt"));

const CASES: u32 = 600;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn strict_reader_agrees_on_valid_announcements(announcement in announcement()) {
        let announcement = unicast_only(announcement);
        agree(&announcement, netgauze_reader::read)?;
    }

    #[test]
    fn tolerant_reader_agrees_on_valid_announcements(announcement in announcement()) {
        let announcement = without_default_routes(announcement);
        agree(&announcement, bgpkit_reader::read)?;
    }

    #[test]
    fn guessing_reader_agrees_where_there_is_nothing_to_guess(announcement in announcement()) {
        let announcement = unambiguous(announcement);
        agree(&announcement, bgp_rs_reader::read)?;
    }

    #[test]
    fn messages_that_others_write_read_back_the_same(announcement in announcement()) {
        let announcement = unicast_only(without_default_routes(announcement));
        let bytes = encoded(&announcement);
        for message in split(&bytes, &announcement.context) {
            let expected = ours(message, &announcement.context);
            for write in [netgauze_reader::rewrite, bgpkit_reader::rewrite] {
                let theirs = write(message, &announcement.context);
                prop_assert!(theirs.is_ok(), "{:?}", theirs);
                let read = theirs.and_then(|bytes| ours(&bytes, &announcement.context));
                prop_assert_eq!(&expected, &read);
            }
        }
    }

    #[test]
    fn all_readers_agree_on_the_fixed_part_of_an_open(open in open()) {
        let mut bytes = Vec::new();
        encode::open(&open, &mut bytes);
        let context = Context { four_octet_as: true, ..Context::OPENING };
        let Ok(Message::Open(decoded)) = decode(&bytes, &Context::OPENING) else {
            panic!("our own OPEN was refused");
        };
        let ours = (decoded.my_as, decoded.hold_time_seconds, decoded.router_id);
        if let Ok(bgpkit_parser::models::BgpMessage::Open(theirs)) =
            bgpkit_reader::message(&bytes, &context)
        {
            let asn = u16::try_from(u32::from(theirs.asn)).unwrap();
            prop_assert_eq!(ours, (asn, theirs.hold_time, theirs.bgp_identifier));
        }
        if let Ok(netgauze_bgp_pkt::BgpMessage::Open(theirs)) =
            netgauze_reader::message(&bytes, &context)
        {
            prop_assert_eq!(ours, (theirs.my_as(), theirs.hold_time(), theirs.bgp_id()));
        }
        if let Ok(bgp_rs::Message::Open(theirs)) = bgp_rs_reader::message(&bytes, &context) {
            let theirs = (theirs.peer_asn, theirs.hold_timer, theirs.identifier.into());
            prop_assert_eq!(ours, theirs);
        }
    }
}

fn agree(announcement: &Announcement, theirs: Read) -> Result<(), TestCaseError> {
    let bytes = encoded(announcement);
    for message in split(&bytes, &announcement.context) {
        let ours = ours(message, &announcement.context);
        prop_assert!(ours.is_ok(), "{:?}", ours);
        let theirs = theirs(message, &announcement.context);
        prop_assert_eq!(ours, theirs);
    }
    Ok(())
}

/// Every UPDATE of `malformed.txt` goes to every reader: where one differs from us, the table says
/// how and why, and it says nothing else.
#[test]
fn every_disagreement_is_in_the_table_and_no_other() {
    let (pieces, messages) = rows::<4>(MESSAGES);
    let (_, known) = rows::<4>(TABLE);
    let mut known: BTreeMap<_, _> =
        known.into_iter().map(|[case, reader, theirs, _why]| ((case, reader), theirs)).collect();
    let mut differences = String::new();
    for [case, session, message, _] in messages.iter().filter(|m| m[2].starts_with("update")) {
        let context = context(session);
        let bytes = message_bytes(message, &pieces);
        let ours = summary(ours(&bytes, &context));
        for (name, read) in READERS {
            let theirs = summary(read(&bytes, &context));
            let row = known.remove(&(*case, name));
            let expected = row.unwrap_or(&ours);
            if theirs != expected || (row.is_some() && theirs == ours) {
                writeln!(differences, "{case} | {name} | {theirs} | (not {expected})").unwrap();
            }
        }
    }
    assert!(differences.is_empty(), "{differences}");
    assert!(known.is_empty(), "no such case: {known:?}");
}

type Read = fn(&[u8], &Context) -> Result<Reading, String>;

const READERS: [(&str, Read); 3] = [
    ("netgauze", netgauze_reader::read),
    ("bgpkit", bgpkit_reader::read),
    ("bgp-rs", bgp_rs_reader::read),
];

fn summary(reading: Result<Reading, String>) -> String {
    match reading {
        Err(error) if error == "panic" => error,
        Err(_) => "refused".into(),
        Ok(reading) => {
            let list = |prefixes: &[(Option<u32>, ipnet::IpNet)]| {
                let prefixes: Vec<_> = prefixes
                    .iter()
                    .map(|(id, p)| id.map_or(p.to_string(), |id| format!("{p}#{id}")))
                    .collect();
                prefixes.join(",")
            };
            let path: Vec<_> = reading.path.iter().flat_map(|(_, asns)| asns).collect();
            format!("announced={} path={path:?}", list(&reading.announced))
        }
    }
}

/// Without prefixes that netgauze refuses by address (L04 in the table).
fn unicast_only(mut announcement: Announcement) -> Announcement {
    announcement.prefixes.retain(|(_, prefix)| is_unicast(prefix));
    announcement
}

fn is_unicast(prefix: &ipnet::IpNet) -> bool {
    match prefix {
        ipnet::IpNet::V4(p) => {
            let first = p.addr().octets()[0];
            (1..224).contains(&first) && first != 127
        }
        ipnet::IpNet::V6(p) => p.addr().octets()[0] != 0xff,
    }
}

/// Without 0.0.0.0/0 and ::/0, which make bgpkit-parser guess add-path (L02 in the table).
fn without_default_routes(mut announcement: Announcement) -> Announcement {
    announcement.prefixes.retain(|(_, prefix)| prefix.prefix_len() != 0);
    announcement
}

/// What bgp-rs reads without guessing (L02, U05 and A01 in the table): one prefix, no add-path, no
/// default route, and ASNs whose halves do not look like the head of a segment.
fn unambiguous(announcement: Announcement) -> Announcement {
    let mut announcement = without_default_routes(announcement);
    announcement.prefixes.truncate(1);
    announcement.context.add_path = Families::NONE;
    let peer = announcement.context.peer_asn;
    let asns = announcement.attributes.as_path.segments.iter_mut().flat_map(|s| &mut s.asns);
    for asn in asns.filter(|asn| **asn != peer) {
        asn.0 |= if asn.0 > 0xffff { 0x8000_8000 } else { 0x8000 };
    }
    announcement
}

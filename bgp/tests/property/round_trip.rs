//! decode(encode(x)) = x, and any bytes at all are survived.

use bgp::types::Family;
use bgp::wire::encode::{self, UpdateWriter};
use bgp::wire::{Context, Message, MessageType, Update, decode, frame};
use proptest::collection::vec;
use proptest::prelude::*;

use super::strategy::{Announcement, announcement, context, open, prefix};

/// The UPDATEs that announce it, one after the other.
pub fn encoded(announcement: &Announcement) -> Vec<u8> {
    let Announcement { context, family, attributes, prefixes } = announcement;
    let mut bytes = Vec::new();
    let mut writer =
        UpdateWriter::announce(&mut bytes, context, *family, attributes.next_hop, attributes)
            .expect("small attributes fit");
    for (id, prefix) in prefixes {
        assert!(writer.push(Some(*id), *prefix));
    }
    writer.finish();
    bytes
}

/// Splits bytes into whole messages.
pub fn split<'a>(mut bytes: &'a [u8], context: &Context) -> Vec<&'a [u8]> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let (_, len) = frame(bytes, context.max_len()).unwrap().expect("a whole message");
        let (message, rest) = bytes.split_at(len);
        messages.push(message);
        bytes = rest;
    }
    messages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn announcement_reads_back_as_written(announcement in announcement()) {
        let bytes = encoded(&announcement);
        let mut got = Vec::new();
        for message in split(&bytes, &announcement.context) {
            let Ok(Message::Update(update)) = decode(message, &announcement.context) else {
                panic!("not an UPDATE");
            };
            prop_assert_eq!(update.treat_as_withdraw, None);
            prop_assert_eq!(&update.discarded, &[]);
            prop_assert_eq!(update.attributes.as_ref(), Some(&announcement.attributes));
            for (nlri, next_hop) in update.announced.iter().flatten() {
                prop_assert_eq!(*next_hop, announcement.attributes.next_hop);
                got.extend(nlri.iter());
            }
        }
        let add_path = announcement.context.add_path.contains(announcement.family);
        let id = |id| add_path.then_some(id);
        let expected: Vec<_> = announcement.prefixes.iter().map(|(i, p)| (id(*i), *p)).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn withdrawal_reads_back_as_written(
        (context, family, prefixes) in (context(), any::<bool>()).prop_flat_map(|(context, v6)| {
            let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
            (Just(context), Just(family), vec(prefix(family), 1..40))
        })
    ) {
        let mut bytes = Vec::new();
        let mut writer = UpdateWriter::withdraw(&mut bytes, &context, family);
        for prefix in &prefixes {
            prop_assert!(writer.push(None, *prefix));
        }
        writer.finish();
        let id = context.add_path.contains(family).then_some(0);
        let mut got = Vec::new();
        for message in split(&bytes, &context) {
            let Ok(Message::Update(update)) = decode(message, &context) else {
                panic!("not an UPDATE");
            };
            got.extend(update.withdrawn.iter().flatten().flat_map(|nlri| nlri.iter()));
            prop_assert_eq!(Update { withdrawn: [None, None], ..update }, Update::default());
        }
        prop_assert_eq!(got, prefixes.into_iter().map(|p| (id, p)).collect::<Vec<_>>());
    }

    #[test]
    fn open_reads_back_as_written(open in open()) {
        let mut bytes = Vec::new();
        encode::open(&open, &mut bytes);
        prop_assert_eq!(decode(&bytes, &Context::OPENING), Ok(Message::Open(open)));
    }

    #[test]
    fn any_bytes_behind_a_header_are_survived(
        kind in 0..=6_u8,
        body in vec(any::<u8>(), 0..200),
        context in context(),
    ) {
        let len = u16::try_from(body.len() + 19).unwrap().to_be_bytes();
        let message = [&[0xff; 16][..], &len, &[kind], &body].concat();
        survive(&message, &context);
    }

    #[test]
    fn any_attribute_list_is_survived(
        attributes in vec((any::<u8>(), 0..40_u8, vec(any::<u8>(), 0..40)), 0..12),
        nlri in vec(any::<u8>(), 0..30),
        context in context(),
    ) {
        let mut list = Vec::new();
        for (flags, code, value) in attributes {
            let len = u16::try_from(value.len()).unwrap().to_be_bytes();
            let len = if flags & 0x10 != 0 { &len[..] } else { &len[1..] };
            list.extend([&[flags, code], len, &value].concat());
        }
        let attributes_len = u16::try_from(list.len()).unwrap().to_be_bytes();
        let body = [&[0, 0][..], &attributes_len, &list, &nlri].concat();
        let len = u16::try_from(body.len() + 19).unwrap().to_be_bytes();
        let message = [&[0xff; 16][..], &len, &[MessageType::Update.code()], &body].concat();
        survive(&message, &context);
    }

    #[test]
    fn truncation_anywhere_is_survived(announcement in announcement(), cut in any::<u16>()) {
        let bytes = encoded(&announcement);
        for message in split(&bytes, &announcement.context) {
            let mut message = message.to_vec();
            let shorter = 19 + usize::from(cut) % (message.len() - 19);
            message.truncate(shorter);
            survive(&message, &announcement.context);
            // The same with a header that tells the truth.
            message[16..18].copy_from_slice(&u16::try_from(shorter).unwrap().to_be_bytes());
            survive(&message, &announcement.context);
        }
    }
}

/// Decodes and visits everything; a panic is the failure.
fn survive(message: &[u8], context: &Context) {
    match decode(message, context) {
        Ok(Message::Update(update)) => {
            let announced = update.announced.iter().flatten().flat_map(|(nlri, _)| nlri.iter());
            let withdrawn = update.withdrawn.iter().flatten().flat_map(|nlri| nlri.iter());
            for (_, prefix) in announced.chain(withdrawn) {
                assert_eq!(prefix, prefix.trunc(), "host bits are cleared");
            }
            assert!(update.attributes.is_none() || update.treat_as_withdraw.is_none());
        }
        Ok(other) => assert!(!format!("{other:?}").is_empty()),
        Err(error) => assert!(error.offset <= message.len(), "{error:?}"),
    }
}

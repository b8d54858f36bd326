//! The BGP codec under hostile bytes: nothing panics, and what is accepted can be sent again.
//!
//! An input is one octet of session settings and then a byte stream as read from TCP.

use std::net::IpAddr;

use bgp::types::{Asn, Families};
use bgp::wire::attribute::{Attributes, Extra};
use bgp::wire::encode::{self, UpdateWriter};
use bgp::wire::update::Nlri;
use bgp::wire::{Context, DecodeError, Message, Update, decode, frame};

/// What became of an input, for counting: a fuzzer whose inputs all die at the header finds
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Messages that were decoded.
    pub accepted: u32,
    /// UPDATEs with attributes among them.
    pub routes: u32,
    /// UPDATEs handled as withdrawn.
    pub withdrawn: u32,
    /// UPDATEs that lost attributes.
    pub discarded: u32,
    /// The stream ended with a NOTIFICATION: code and subcode.
    pub reset: Option<(u8, u8)>,
}

/// The session that the first octet stands for.
#[must_use]
pub fn context(settings: u8) -> Context {
    let bit = |n: u32| settings & (1 << n) != 0;
    Context {
        four_octet_as: bit(0),
        extended_message: bit(1),
        families: Families { ipv4: true, ipv6: bit(2) },
        add_path: Families { ipv4: bit(3), ipv6: bit(4) },
        enhanced_refresh: bit(5),
        external: bit(6),
        peer_asn: Asn(65010),
    }
}

/// Feeds one input through framing, decoding, every accessor, and encoding again.
///
/// # Panics
/// When the codec panics or breaks a promise; that is what the fuzzer looks for.
#[must_use]
pub fn run(input: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    let Some((settings, mut stream)) = input.split_first() else { return outcome };
    let context = context(*settings);
    loop {
        let len = match frame(stream, context.max_len()) {
            Ok(Some((_, len))) => len,
            Ok(None) => return outcome,
            Err(error) => {
                outcome.reset = Some(refused(&error, stream));
                return outcome;
            }
        };
        let (message, rest) = stream.split_at(len);
        match decode(message, &context) {
            Ok(message) => accepted(&message, &context, &mut outcome),
            Err(error) => {
                outcome.reset = Some(refused(&error, message));
                return outcome;
            }
        }
        stream = rest;
    }
}

fn refused(error: &DecodeError, message: &[u8]) -> (u8, u8) {
    assert!(error.offset <= message.len(), "the offset is inside the message");
    assert!(
        error.notification.data.len() <= message.len().max(4),
        "never more octets than were received"
    );
    assert!(!error.to_string().is_empty() && !error.notification.to_string().is_empty());
    let mut answer = Vec::new();
    encode::notification(&error.notification, &mut answer);
    assert!(matches!(decode(&answer, &Context::OPENING), Ok(Message::Notification(_))));
    (error.notification.code, error.notification.subcode)
}

fn accepted(message: &Message<'_>, context: &Context, outcome: &mut Outcome) {
    outcome.accepted += 1;
    match message {
        Message::Open(open) => {
            let mut bytes = Vec::new();
            encode::open(open, &mut bytes);
            // Values of more than 255 octets cannot arrive, so nothing is left out but what
            // exceeds 4096 octets in our more regular form.
            if let Ok(Message::Open(again)) = decode(&bytes, &Context::OPENING) {
                assert!(again.capabilities.len() <= open.capabilities.len());
                assert_eq!(again.router_id, open.router_id);
            } else {
                assert_eq!(bytes.len(), 0, "our own OPEN is readable");
            }
        }
        Message::Update(update) => accepted_update(update, context, outcome),
        Message::Notification(notification) => {
            let text = notification.to_string();
            assert!(!text.chars().any(char::is_control), "safe to print: {text:?}");
            assert!(text.len() < 4096, "bounded");
        }
        Message::Keepalive => {}
        Message::RouteRefresh(refresh) => {
            let mut bytes = Vec::new();
            encode::route_refresh(refresh, &mut bytes);
            assert_eq!(decode(&bytes, context), Ok(Message::RouteRefresh(*refresh)));
        }
    }
}

fn accepted_update(update: &Update<'_>, context: &Context, outcome: &mut Outcome) {
    outcome.withdrawn += u32::from(update.treat_as_withdraw.is_some());
    outcome.discarded += u32::from(!update.discarded.is_empty());
    for nlri in update.withdrawn.iter().flatten() {
        assert!(!nlri.is_empty() && context.families.contains(nlri.family));
        withdraw_again(*nlri, context);
    }
    for (nlri, next_hop) in update.announced.iter().flatten() {
        assert!(!nlri.is_empty() && context.families.contains(nlri.family));
        match &update.attributes {
            Some(attributes) => {
                assert!(update.treat_as_withdraw.is_none());
                outcome.routes += 1;
                announce_again(*nlri, *next_hop, attributes, context);
            }
            None => assert!(update.treat_as_withdraw.is_some(), "routes need attributes"),
        }
    }
}

fn announce_again(nlri: Nlri<'_>, next_hop: IpAddr, attributes: &Attributes, context: &Context) {
    assert!(attributes.extra.as_deref() != Some(&Extra::default()), "one form for 'nothing'");
    let mut expected = Attributes { next_hop, ..attributes.clone() };
    if let Some(extra) = &mut expected.extra {
        for unknown in &mut extra.unknown {
            unknown.flags |= 0x20; // Partial, because we pass it on
        }
        if context.external {
            // Non-transitive ones stay inside the AS.
            extra.extended_communities.retain(|[kind, ..]| kind & 0x40 == 0);
        }
    }
    expected.extra.take_if(|extra| **extra == Extra::default());
    let mut bytes = Vec::new();
    let Ok(mut writer) =
        UpdateWriter::announce(&mut bytes, context, nlri.family, next_hop, attributes)
    else {
        // Merging AS4_PATH, or our longer headers, can make it too large by a few octets.
        return;
    };
    for (id, prefix) in nlri {
        assert!(writer.push(id, prefix));
    }
    writer.finish();
    let mut prefixes = nlri.iter();
    for message in messages(&bytes, context) {
        assert_eq!(message.attributes.as_ref(), Some(&expected));
        for again in message.announced.iter().flatten().flat_map(|(nlri, _)| nlri.iter()) {
            assert_eq!(Some(again), prefixes.next());
        }
    }
    assert_eq!(prefixes.next(), None, "no prefix is lost");
}

fn withdraw_again(nlri: Nlri<'_>, context: &Context) {
    let mut bytes = Vec::new();
    let mut writer = UpdateWriter::withdraw(&mut bytes, context, nlri.family);
    for (id, prefix) in nlri {
        assert!(writer.push(id, prefix));
    }
    writer.finish();
    let mut prefixes = nlri.iter();
    for message in messages(&bytes, context) {
        for again in message.withdrawn.iter().flatten().flat_map(|nlri| nlri.iter()) {
            assert_eq!(Some(again), prefixes.next());
        }
    }
    assert_eq!(prefixes.next(), None, "no prefix is lost");
}

/// Our own messages must be flawless.
#[expect(clippy::panic, reason = "a panic is how a fuzzer is told")]
fn messages<'a>(mut bytes: &'a [u8], context: &Context) -> Vec<Update<'a>> {
    let mut out = Vec::new();
    while let Ok(Some((_, len))) = frame(bytes, context.max_len()) {
        let (message, rest) = bytes.split_at(len);
        let decoded = decode(message, context);
        let Ok(Message::Update(update)) = decoded else {
            panic!("we wrote {decoded:?}");
        };
        assert!(update.treat_as_withdraw.is_none() && update.discarded.is_empty());
        out.push(update);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "whole messages only");
    out
}

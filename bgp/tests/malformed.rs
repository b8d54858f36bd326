//! Replays `tests/data/bgp/malformed.txt`: hostile bytes in, exactly one reaction out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails the test"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bgp::types::{Asn, Families, Family};
use bgp::wire::update::Nlri;
use bgp::wire::{Context, DecodeError, Message, Update, decode, frame};

const TABLE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/bgp/malformed.txt"));

/// What came out, in the words of the table.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Ok,
    Incomplete,
    Reset(String),
    Withdraw(u8),
    Discard(Vec<u8>),
}

#[test]
fn every_row_of_the_table_gets_its_reaction() {
    let mut pieces = BTreeMap::new();
    let mut rows = 0;
    let mut failures = String::new();
    for line in TABLE.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(piece) = line.strip_prefix("= ") {
            let (name, hex) = piece.split_once(char::is_whitespace).unwrap();
            pieces.insert(name, bytes(hex, &pieces));
            continue;
        }
        let [case, session, message, expected] =
            line.split(" | ").map(str::trim).collect::<Vec<_>>()[..]
        else {
            panic!("not a row: {line}");
        };
        rows += 1;
        let input = message_bytes(message, &pieces);
        let context = context(session);
        if let Err(difference) = check(&input, &context, expected, &pieces) {
            writeln!(failures, "{case}: expected {expected}: {difference}").unwrap();
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(rows > 150, "only {rows} rows were found");
}

fn check(
    input: &[u8],
    context: &Context,
    expected: &str,
    pieces: &BTreeMap<&str, Vec<u8>>,
) -> Result<(), String> {
    let (reaction, message, error) = react(input, context);
    let mut words = expected.split_whitespace().peekable();
    let wanted = match words.next() {
        Some("ok") => Reaction::Ok,
        Some("incomplete") => Reaction::Incomplete,
        Some("reset") => Reaction::Reset(words.next().unwrap().into()),
        Some("withdraw") => Reaction::Withdraw(words.next().unwrap().parse().unwrap()),
        Some("discard") => {
            let mut codes = Vec::new();
            while let Some(code) = words.peek().and_then(|w| w.parse().ok()) {
                codes.push(code);
                words.next();
            }
            Reaction::Discard(codes)
        }
        other => panic!("unknown reaction {other:?}"),
    };
    if reaction != wanted {
        return Err(format!("got {reaction:?} from {message:?} {error:?}"));
    }
    if let Some(error) = &error {
        assert!(error.offset <= input.len(), "offset beyond the message");
        let longest = input.len().max(4); // 2/1 tells our version in two octets
        assert!(error.notification.data.len() <= longest, "data that was never received");
    }
    // `text=` and `data=` may contain blanks.
    let rest: Vec<&str> = words.collect();
    let rest = rest.join(" ");
    if let Some(text) = rest.strip_prefix("text=") {
        let Some(Message::Notification(notification)) = &message else { panic!("{message:?}") };
        return same(text, &notification.to_string());
    }
    if let Some(data) = rest.strip_prefix("data=") {
        return same(&bytes(data, pieces), &error.unwrap().notification.data);
    }
    for (key, value) in rest.split_whitespace().map(|w| w.split_once('=').unwrap()) {
        match message.as_ref() {
            Some(Message::Open(open)) if key == "capabilities" => {
                same(&value.parse::<usize>().unwrap(), &open.capabilities.len())?;
            }
            Some(Message::Update(update)) => check_update(update, key, value, pieces)?,
            other => panic!("{key} of {other:?}"),
        }
    }
    Ok(())
}

fn check_update(
    update: &Update<'_>,
    key: &str,
    value: &str,
    pieces: &BTreeMap<&str, Vec<u8>>,
) -> Result<(), String> {
    let got = match key {
        "announced" => list(update.announced.iter().flatten().map(|(nlri, _)| *nlri)),
        "withdrawn" => list(update.withdrawn.iter().flatten().copied()),
        "eor" => update.end_of_rib.map(|f| f.to_string()).unwrap_or_default(),
        "ignored" => {
            let (afi, safi) = update.ignored_family.ok_or("nothing ignored")?;
            format!("{afi}/{safi}")
        }
        _ => {
            let attributes = update.attributes.as_ref().ok_or("no attributes")?;
            match key {
                "path" => {
                    let asns: Vec<_> = attributes.as_path.asns().map(|a| a.to_string()).collect();
                    asns.join(",")
                }
                "next_hop" => attributes.next_hop.to_string(),
                "local_pref" => attributes.local_pref.map(|v| v.to_string()).unwrap_or_default(),
                "unknown" => {
                    let unknown = attributes.extra.iter().flat_map(|e| &e.unknown);
                    let got: Vec<_> = unknown
                        .map(|a| format!("{}:{:02X}:{}", a.code, a.flags, hex(&a.value)))
                        .collect();
                    let Some((head, data)) = value.rsplit_once(':') else {
                        return same("", &got.join(","));
                    };
                    return same(&format!("{head}:{}", hex(&bytes(data, pieces))), &got.join(","));
                }
                _ => panic!("unknown key {key}"),
            }
        }
    };
    same(value, &got)
}

fn list<'a>(fields: impl Iterator<Item = Nlri<'a>>) -> String {
    let prefixes: Vec<_> = fields
        .flatten()
        .map(|(id, prefix)| match id {
            Some(id) => format!("{prefix}#{id}"),
            None => prefix.to_string(),
        })
        .collect();
    prefixes.join(",")
}

fn same<T: PartialEq<U> + std::fmt::Debug + ?Sized, U: std::fmt::Debug + ?Sized>(
    wanted: &T,
    got: &U,
) -> Result<(), String> {
    if wanted == got { Ok(()) } else { Err(format!("wanted {wanted:?}, got {got:?}")) }
}

fn react<'a>(
    input: &'a [u8],
    context: &Context,
) -> (Reaction, Option<Message<'a>>, Option<DecodeError>) {
    let reset = |e: DecodeError| {
        let codes = format!("{}/{}", e.notification.code, e.notification.subcode);
        (Reaction::Reset(codes), None, Some(e))
    };
    match frame(input, context.max_len()) {
        Ok(None) => return (Reaction::Incomplete, None, None),
        Ok(Some((_, len))) => assert_eq!(len, input.len(), "a row is one message"),
        Err(error) => return reset(error),
    }
    match decode(input, context) {
        Err(error) => reset(error),
        Ok(message) => {
            let reaction = match &message {
                Message::Update(Update { treat_as_withdraw: Some(fault), .. }) => {
                    Reaction::Withdraw(fault.code)
                }
                Message::Update(Update { discarded, .. }) if !discarded.is_empty() => {
                    Reaction::Discard(discarded.iter().map(|fault| fault.code).collect())
                }
                _ => Reaction::Ok,
            };
            (reaction, Some(message), None)
        }
    }
}

fn context(session: &str) -> Context {
    let mut words = session.split('+');
    let mut context = Context {
        four_octet_as: true,
        families: Families::ALL,
        external: words.next() == Some("ebgp"),
        peer_asn: Asn(65010),
        ..Context::OPENING
    };
    for word in words {
        match word {
            "as2" => context.four_octet_as = false,
            "ext" => context.extended_message = true,
            "addpath" => context.add_path = Families::ALL,
            "err" => context.enhanced_refresh = true,
            "v4" => context.families = only(Family::Ipv4),
            "v6" => context.families = only(Family::Ipv6),
            other => panic!("unknown session word {other}"),
        }
    }
    context
}

fn only(family: Family) -> Families {
    let mut families = Families::NONE;
    families.insert(family);
    families
}

fn message_bytes(message: &str, pieces: &BTreeMap<&str, Vec<u8>>) -> Vec<u8> {
    let (kind, rest) = message.split_once(' ').unwrap();
    let (code, body) = match kind {
        "raw" => return bytes(rest, pieces),
        "open" => (1, bytes(rest, pieces)),
        "notification" => (3, bytes(rest, pieces)),
        "keepalive" => (4, bytes(rest, pieces)),
        "refresh" => (5, bytes(rest, pieces)),
        "update" => {
            let fields: Vec<_> = rest.split(';').map(|field| bytes(field, pieces)).collect();
            let [withdrawn, attributes, nlri] = &fields[..] else { panic!("{message}") };
            let len = |field: &Vec<u8>| u16::try_from(field.len()).unwrap().to_be_bytes();
            let parts = [&len(withdrawn)[..], withdrawn, &len(attributes)[..], attributes, nlri];
            (2, parts.concat())
        }
        other => panic!("unknown message type {other}"),
    };
    let len = u16::try_from(body.len() + 19).unwrap().to_be_bytes();
    [&[0xff; 16][..], &len, &[code], &body].concat()
}

/// Hex with blanks, `{NAME}` and `{HEX*N}`.
fn bytes(text: &str, pieces: &BTreeMap<&str, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, part) in text.split(['{', '}']).enumerate() {
        if i % 2 == 0 {
            out.extend(plain_hex(part));
        } else if let Some((unit, count)) = part.split_once('*') {
            out.extend(plain_hex(unit).repeat(count.parse().unwrap()));
        } else {
            out.extend(pieces.get(part).unwrap_or_else(|| panic!("no piece {part}")));
        }
    }
    out
}

fn plain_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "odd number of digits: {text}");
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

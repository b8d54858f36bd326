//! Replays `tests/data/bgp/malformed.txt`: hostile bytes in, exactly one reaction out.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails the test"
)]

use std::fmt::Write as _;

use bgp::wire::update::Nlri;
use bgp::wire::{Context, DecodeError, Message, Update, decode, frame};

use self::text::{Pieces, bytes, context, message_bytes, rows};

mod text;

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
    let (pieces, rows) = rows::<4>(TABLE);
    assert!(rows.len() > 150, "only {} rows were found", rows.len());
    let mut failures = String::new();
    for [case, session, message, expected] in rows {
        let input = message_bytes(message, &pieces);
        let context = context(session);
        if let Err(difference) = check(&input, &context, expected, &pieces) {
            writeln!(failures, "{case}: expected {expected}: {difference}").unwrap();
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

fn check(
    input: &[u8],
    context: &Context,
    expected: &str,
    pieces: &Pieces<'_>,
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
    pieces: &Pieces<'_>,
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

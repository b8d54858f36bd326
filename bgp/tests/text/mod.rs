//! The little language of the tables in `tests/data/bgp`; `malformed.txt` describes it.

use std::collections::BTreeMap;

use bgp::types::{Asn, Families, Family};
use bgp::wire::Context;

/// Named pieces of hex.
pub type Pieces<'a> = BTreeMap<&'a str, Vec<u8>>;

/// The pieces (`= NAME HEX`) and the rows of a table, split at ` | ` into `N` columns.
pub fn rows<const N: usize>(table: &str) -> (Pieces<'_>, Vec<[&str; N]>) {
    let mut pieces = Pieces::new();
    let mut rows = Vec::new();
    for line in table.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(piece) = line.strip_prefix("= ") {
            let (name, hex) = piece.split_once(char::is_whitespace).unwrap();
            pieces.insert(name, bytes(hex, &pieces));
            continue;
        }
        let columns: Vec<_> = line.split(" | ").map(str::trim).collect();
        rows.push(columns.try_into().unwrap_or_else(|_| panic!("not {N} columns: {line}")));
    }
    (pieces, rows)
}

/// The receive side of a session.
pub fn context(session: &str) -> Context {
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

/// A whole message.
pub fn message_bytes(message: &str, pieces: &Pieces<'_>) -> Vec<u8> {
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
pub fn bytes(text: &str, pieces: &Pieces<'_>) -> Vec<u8> {
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

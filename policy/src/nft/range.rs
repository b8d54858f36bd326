//! Networks with exceptions as disjoint address ranges.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::ir::{Element, IpFamily, Value, Verdict};
use crate::input::Block;

/// First and last address as numbers.
type Range = (u128, u128);

/// Elements of an interval set that holds what is in any of the blocks: sorted, disjoint, merged.
pub(crate) fn elements<'a>(
    blocks: impl Iterator<Item = &'a Block>,
    family: IpFamily,
) -> BTreeMap<Element, Option<Verdict>> {
    let of_family = blocks.filter(|block| family_of(&block.net) == family);
    let ranges = merge(of_family.flat_map(remaining).collect());
    ranges.into_iter().filter_map(|range| Some((element(range, family)?, None))).collect()
}

fn family_of(net: &IpNet) -> IpFamily {
    match net {
        IpNet::V4(_) => IpFamily::V4,
        IpNet::V6(_) => IpFamily::V6,
    }
}

fn bounds(net: &IpNet) -> Range {
    match net {
        IpNet::V4(net) => (u32::from(net.network()).into(), u32::from(net.broadcast()).into()),
        IpNet::V6(net) => (net.network().into(), net.broadcast().into()),
    }
}

/// The block without its exceptions.
fn remaining(block: &Block) -> Vec<Range> {
    let (first, last) = bounds(&block.net);
    let mut remaining = Vec::new();
    let mut from = Some(first);
    for (hole_first, hole_last) in merge(block.except.iter().map(bounds).collect()) {
        let Some(start) = from else { break };
        if let Some(before) = hole_first.checked_sub(1).filter(|before| *before >= start) {
            remaining.push((start, before.min(last)));
        }
        from = hole_last.checked_add(1).map(|next| next.max(start)).filter(|next| *next <= last);
    }
    remaining.extend(from.map(|start| (start, last)));
    remaining
}

/// Sorted, with overlapping and adjacent ranges made one.
fn merge(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(open) if first <= open.1.saturating_add(1) => open.1 = open.1.max(last),
            Some(_) | None => merged.push((first, last)),
        }
    }
    merged
}

fn element((first, last): Range, family: IpFamily) -> Option<Element> {
    let value = |number: u128| match family {
        IpFamily::V4 => Some(Value::Ipv4(Ipv4Addr::from(u32::try_from(number).ok()?))),
        IpFamily::V6 => Some(Value::Ipv6(Ipv6Addr::from(number))),
    };
    Some(Element::Range(value(first)?, value(last)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(net: &str, except: &[&str]) -> Block {
        let parse = |text: &str| text.parse::<IpNet>().unwrap();
        let mut except: Vec<IpNet> = except.iter().map(|text| parse(text)).collect();
        except.sort_unstable();
        Block { net: parse(net), except }
    }

    fn ranges(blocks: &[Block], family: IpFamily) -> Vec<String> {
        let text = |value: Value| match value {
            Value::Ipv4(a) => a.to_string(),
            Value::Ipv6(a) => a.to_string(),
            other => panic!("{other:?}"),
        };
        let pair = |element| match element {
            Element::Range(a, b) => format!("{}-{}", text(a), text(b)),
            other @ Element::Key(_) => panic!("{other:?}"),
        };
        elements(blocks.iter(), family).into_keys().map(pair).collect()
    }

    #[test]
    fn exceptions_are_cut_out_wherever_they_lie() {
        let blocks = [block("10.0.0.0/24", &["10.0.0.0/26", "10.0.0.128/32", "10.0.0.255/32"])];
        assert_eq!(
            ranges(&blocks, IpFamily::V4),
            ["10.0.0.64-10.0.0.127", "10.0.0.129-10.0.0.254"]
        );
        let blocks = [block("fd00::/64", &["fd00::/65"])];
        assert_eq!(ranges(&blocks, IpFamily::V6), ["fd00::8000:0:0:0-fd00::ffff:ffff:ffff:ffff"]);
    }

    #[test]
    fn whole_address_space_and_nothing() {
        assert_eq!(ranges(&[block("0.0.0.0/0", &[])], IpFamily::V4), ["0.0.0.0-255.255.255.255"]);
        let all = ranges(&[block("::/0", &[])], IpFamily::V6);
        assert_eq!(all, ["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
        assert!(ranges(&[block("::/0", &["::/1", "8000::/1"])], IpFamily::V6).is_empty());
        assert!(ranges(&[block("0.0.0.0/0", &["0.0.0.0/0"])], IpFamily::V4).is_empty());
    }

    #[test]
    fn overlapping_and_adjacent_blocks_become_one_range() {
        let blocks = [
            block("10.0.0.0/25", &[]),
            block("10.0.0.128/25", &[]),
            block("10.0.0.0/30", &["10.0.0.1/32"]),
        ];
        assert_eq!(ranges(&blocks, IpFamily::V4), ["10.0.0.0-10.0.0.255"]);
    }

    #[test]
    fn exception_of_one_block_does_not_narrow_another() {
        let blocks = [block("10.0.0.0/8", &["10.1.0.0/16"]), block("10.1.2.0/24", &[])];
        assert_eq!(
            ranges(&blocks, IpFamily::V4),
            ["10.0.0.0-10.0.255.255", "10.1.2.0-10.1.2.255", "10.2.0.0-10.255.255.255"]
        );
    }
}

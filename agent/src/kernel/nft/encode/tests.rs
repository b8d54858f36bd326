use std::collections::BTreeMap;

use policy::nft::ir::{Match, Type, Value};

use super::*;
use crate::kernel::nft::element::Dumped;
use crate::kernel::nft::message::{Attributes, Messages};

fn transaction(steps: Vec<Step>) -> Transaction {
    Transaction { id: 1, steps }
}

fn add(spec: &SetSpec, elements: Vec<(Element, Option<Verdict>)>) -> Step {
    Step::AddElements { set: "s".to_owned(), spec: spec.clone(), elements }
}

fn hash(key: &[Type]) -> SetSpec {
    SetSpec { key: key.to_vec(), interval: false, verdict_map: false }
}

fn ports(numbers: impl Iterator<Item = u16>) -> Vec<(Element, Option<Verdict>)> {
    numbers.map(|n| (Element::Key(vec![Value::Port(n)]), None)).collect()
}

/// Items of all element lists of a batch.
fn items(bytes: &[u8]) -> Vec<&[u8]> {
    Messages(bytes)
        .filter(|m| m.nftables_kind() == Some(message::NEW_ELEMENTS))
        .flat_map(|m| m.attributes().nest(element::LIST))
        .map(|item| item.data)
        .collect()
}

#[test]
fn every_message_belongs_to_its_step() {
    let spec = hash(&[Type::Port]);
    let types = Match::Icmpv6Type([135, 136].into());
    let rule = Rule { matches: vec![types], counter: false, verdict: Verdict::Drop, comment: None };
    let steps = vec![
        Step::DeleteTable,
        Step::AddTable,
        Step::AddSet("s".to_owned(), spec.clone()),
        add(&spec, ports(0..=u16::MAX)),
        Step::AddChain("c".to_owned(), None),
        Step::AddRule("c".to_owned(), rule),
        Step::FlushChain("c".to_owned()),
    ];
    let batch = encode(&transaction(steps), Some(7)).unwrap();
    let found: Vec<Option<usize>> =
        Messages(batch.bytes()).map(|m| batch.step_of(m.sequence)).collect();
    let mut runs: Vec<(Option<usize>, usize)> = Vec::new();
    for step in found {
        match runs.last_mut() {
            Some((last, count)) if *last == step => *count += 1,
            _ => runs.push((step, 1)),
        }
    }
    let elements = runs[4].1;
    assert!(elements > 10, "{elements} messages for 65536 elements");
    let expected = [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), None];
    assert_eq!(runs.iter().map(|r| r.0).collect::<Vec<_>>(), expected);
    // A rule with its anonymous set and the elements of that.
    assert_eq!((runs[1].1, runs[6].1, runs[7].1), (2, 3, 1));
}

#[test]
fn only_the_last_message_asks_for_an_acknowledgement() {
    let steps = vec![Step::AddTable, Step::AddChain("c".to_owned(), None)];
    let batch = encode(&transaction(steps), None).unwrap();
    let acknowledged: Vec<u32> = Messages(batch.bytes())
        .filter(|m| m.flags & netlink::ACK != 0)
        .map(|m| m.sequence)
        .collect();
    assert_eq!(acknowledged, [batch.last_sequence()]);
    assert_eq!(batch.step_of(batch.last_sequence()), Some(1));
}

#[test]
fn elements_are_split_before_their_list_overflows() {
    let spec = SetSpec { key: vec![Type::Port], interval: false, verdict_map: true };
    let chain = "x".repeat(NAME_LENGTH);
    let elements: Vec<_> = ports(0..=u16::MAX)
        .into_iter()
        .map(|(e, _)| (e, Some(Verdict::Jump(chain.clone()))))
        .collect();
    let batch = encode(&transaction(vec![add(&spec, elements)]), None).unwrap();
    assert!(Messages(batch.bytes()).all(|m| m.payload.len() <= usize::from(u16::MAX)));
    assert_eq!(items(batch.bytes()).len(), 65536);
}

#[test]
fn what_cannot_be_encoded_names_its_step() {
    let spec = hash(&[Type::Port]);
    let range = |a, b| (Element::Range(Value::Port(a), Value::Port(b)), None);
    let interval = SetSpec { interval: true, ..spec.clone() };
    let map = SetSpec { verdict_map: true, ..spec.clone() };
    let nested = Verdict::Map { key: Vec::new(), map: "m".to_owned() };
    let key = |value| Element::Key(vec![value]);
    let rule = |comment: usize| Rule {
        matches: Vec::new(),
        counter: false,
        verdict: Verdict::Drop,
        comment: Some("c".repeat(comment)),
    };
    assert!(encode(&transaction(vec![Step::AddRule("c".to_owned(), rule(128))]), None).is_ok());
    let cases = [
        (add(&spec, vec![(key(Value::Proto(6)), None)]), EncodeError::KeyMismatch),
        (add(&spec, vec![(Element::Key(Vec::new()), None)]), EncodeError::KeyMismatch),
        (add(&spec, vec![range(1, 2)]), EncodeError::KeyMismatch),
        (add(&interval, vec![range(2, 1)]), EncodeError::EmptyRange),
        (add(&map, vec![(key(Value::Port(1)), Some(nested))]), EncodeError::NestedMap),
        (Step::AddChain("n".repeat(256), None), EncodeError::BadName),
        (Step::AddChain(String::new(), None), EncodeError::BadName),
        (Step::AddRule("c".to_owned(), rule(129)), EncodeError::CommentTooLong),
    ];
    for (step, error) in cases {
        let steps = vec![Step::AddTable, step, Step::AddTable];
        assert_eq!(encode(&transaction(steps), None).unwrap_err(), (1, error));
    }
}

/// A linear congruential generator: the same sequence in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u16) -> u16 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u16::try_from((self.0 >> 33) % u64::from(below)).unwrap()
    }
}

#[test]
fn ranges_read_back_as_they_were_written_whatever_their_neighbours() {
    let spec = SetSpec { key: vec![Type::Port], interval: true, verdict_map: true };
    let mut numbers = Numbers(1);
    for _ in 0..500 {
        // Cut everything there is at random places and keep some of the pieces: often adjacent.
        let mut cuts: Vec<u16> = (0..numbers.next(20)).map(|_| numbers.next(u16::MAX)).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let starts = std::iter::once(0).chain(cuts.iter().map(|c| c + 1));
        let ends = cuts.iter().copied().chain([u16::MAX]);
        let elements: BTreeMap<Element, Option<Verdict>> = starts
            .zip(ends)
            .filter(|_| numbers.next(3) > 0)
            .map(|(a, b)| (Element::Range(Value::Port(a), Value::Port(b)), Some(Verdict::Drop)))
            .collect();
        let step = add(&spec, elements.clone().into_iter().collect());
        let batch = encode(&transaction(vec![step]), None).unwrap();
        let mut dumped = Dumped::default();
        // The kernel dumps in an order of its own, and now and then an item twice.
        for item in items(batch.bytes()).iter().rev().chain(items(batch.bytes()).first()) {
            dumped.add(Attributes(item), true);
        }
        assert_eq!(dumped.decode(&spec), Some(elements));
    }
}

#[test]
fn cut_off_messages_are_read_without_a_panic() {
    fn walk(attributes: Attributes<'_>, depth: u32) -> usize {
        let inner = attributes
            .into_iter()
            .map(|a| if depth == 0 { 1 } else { 1 + walk(Attributes(a.data), depth - 1) });
        inner.sum()
    }
    let spec = hash(&[Type::Port]);
    let batch = encode(&transaction(vec![add(&spec, ports(0..9))]), Some(1)).unwrap();
    let counts: Vec<usize> = (0..=batch.bytes().len())
        .map(|n| Messages(&batch.bytes()[..n]).map(|m| walk(m.attributes(), 6)).sum())
        .collect();
    assert!(counts.is_sorted(), "more bytes, fewer attributes");
    assert!(counts.last() > Some(&20));
}

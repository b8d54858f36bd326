//! The real kernel takes what we send, by way of `nft` in a network namespace.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use policy::event::{Event, Object};
use policy::nft::text;
use policy::nft::transaction::Transaction;
use proptest::prelude::*;
use support::cluster::{Node1, objects};
use support::random;

const SHOP: &str = include_str!("../../tests/data/policy/shop.yaml");

/// Feeds each script to `nft -f` in one new namespace; returns its final ruleset: each set and
/// chain as one text, elements sorted (the kernel lists them in any order).
fn ruleset_after(scripts: &[String]) -> BTreeSet<String> {
    let mut shell = "set -e\n".to_owned();
    for script in scripts {
        writeln!(shell, "nft -f - <<'END_OF_SCRIPT'\n{script}\nEND_OF_SCRIPT").expect("string");
    }
    shell.push_str("nft -s list ruleset\n");
    let mut child = Command::new("unshare")
        .args(["-rn", "sh", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare and nft are installed");
    child.stdin.take().expect("piped").write_all(shell.as_bytes()).expect("write");
    let output = child.wait_with_output().expect("wait");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{shell}", text(&output.stderr));
    text(&output.stdout).split("\n\n").map(normal).collect()
}

fn normal(block: &str) -> String {
    let words: Vec<&str> = block
        .trim()
        .trim_start_matches("table inet rampart {")
        .split_whitespace()
        .filter(|word| *word != "}")
        .collect();
    let text = words.join(" ");
    match text.split_once("elements = { ") {
        None => text,
        Some((head, elements)) => {
            let mut elements: Vec<&str> = elements.split(", ").collect();
            elements.sort_unstable();
            format!("{head}{}", elements.join(", "))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn transactions_of_random_histories_are_taken_and_end_in_the_table(
        objects in prop::collection::vec(random::object(), 10..60),
    ) {
        let (node, transactions) = history(objects.into_iter().map(Event::Apply).collect());
        let scripts: Vec<String> = transactions.iter().map(text::commands).collect();
        prop_assert_eq!(ruleset_after(&scripts), ruleset_after(&[node.script()]));
    }
}

/// The transactions of a history, one after each event.
fn history(events: Vec<Event>) -> (Node1, Vec<Transaction>) {
    let mut node = Node1::new("n1");
    let mut transactions = Vec::new();
    for event in events {
        node.engine.handle(event);
        while let Some(transaction) = node.engine.poll_transaction() {
            assert_eq!(node.kernel.apply(&transaction), Ok(()));
            node.engine.acknowledge(transaction.id, Ok(()));
            transactions.push(transaction);
        }
    }
    (node, transactions)
}

fn deletions(objects: &[Object]) -> Vec<Event> {
    let key = |object: &Object| Event::Delete(support::cluster::key(object));
    objects.iter().map(key).collect()
}

#[test]
fn every_transaction_of_a_life_is_taken_and_ends_in_the_table() {
    let all = objects(SHOP);
    let mut events: Vec<Event> = all.iter().cloned().map(Event::Apply).collect();
    for (address, interface) in [("10.244.1.5", "rv1"), ("fd00:1::5", "rv1")] {
        let address = address.parse().expect("address");
        events.push(Event::Interface { address, interface: Some(interface.to_owned()) });
    }
    // The policy changes, goes, and comes back; a peer goes and comes back.
    let changed = SHOP.replace("30000, endPort: 32767", "30100, endPort: 30200");
    let (web, peer) = (all.len() - 1, 4);
    events.push(Event::Apply(objects(&changed)[web].clone()));
    events.push(Event::Delete(support::cluster::key(&all[web])));
    events.push(Event::Delete(support::cluster::key(&all[peer])));
    events.push(Event::Apply(all[web].clone()));
    events.push(Event::Apply(all[peer].clone()));

    let (node, transactions) = history(events.clone());
    let scripts: Vec<String> = transactions.iter().map(text::commands).collect();
    assert!(scripts.len() > 8, "{} transactions", scripts.len());
    assert_eq!(ruleset_after(&scripts), ruleset_after(&[node.script()]));

    // And all the way back.
    events.extend(deletions(&all));
    let (node, transactions) = history(events);
    let scripts: Vec<String> = transactions.iter().map(text::commands).collect();
    let bare = ruleset_after(&scripts);
    assert_eq!(bare, ruleset_after(&[node.script()]));
    assert!(!bare.iter().any(|block| block.contains("shop")), "{bare:#?}");
}

#[test]
fn a_table_that_cannot_be_changed_in_place_is_rebuilt_in_one_transaction() {
    let mut node = Node1::with("n1", SHOP);
    let mut damaged = node.table().clone();
    let pods = damaged.sets.get_mut("pods4").expect("set");
    pods.spec.interval = true;
    pods.elements.clear();
    node.kernel.table = Some(damaged.clone());
    node.engine.adopt(Some(damaged.clone()));
    let transaction = node.engine.poll_transaction().expect("difference");
    node.engine.acknowledge(transaction.id, Ok(()));
    let repaired = ruleset_after(&[text::script(&damaged), text::commands(&transaction)]);
    assert_eq!(repaired, ruleset_after(&[text::script(node.engine.desired())]));
}

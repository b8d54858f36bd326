//! The guard of an overlay: who may send encapsulated packets, as the kernel is told.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::net::IpAddr;

use policy::event::{Event, Overlay};
use policy::nft::ir::{Hook, Table, Verdict};
use policy::nft::text;
use support::cluster::Node1;

const CHAINS: [&str; 2] = ["overlay-input", "overlay-forward"];
const SETS: [&str; 3] = ["overlay_port", "overlay_src4", "overlay_src6"];

fn overlay(port: u16, senders: &[&str]) -> Option<Overlay> {
    let senders: std::collections::BTreeSet<IpAddr> =
        senders.iter().map(|text| text.parse().expect("address")).collect();
    Some(Overlay { port, senders })
}

/// The table after these, one transaction after the other; each must be taken and end in what is
/// desired. Also the commands that the last state took.
fn after(states: &[Option<Overlay>]) -> (Node1, String) {
    let mut node = Node1::new("n1");
    node.program();
    let mut last = String::new();
    for state in states {
        node.engine.handle(Event::Overlay(state.clone()));
        last.clear();
        while let Some(transaction) = node.engine.poll_transaction() {
            last += &text::commands(&transaction);
            let result = node.kernel.apply(&transaction);
            assert_eq!(result, Ok(()), "{transaction:#?}");
            node.engine.acknowledge(transaction.id, result);
        }
        assert_eq!(node.table(), node.engine.desired());
    }
    (node, last)
}

fn has_guard(table: &Table) -> bool {
    let chains = CHAINS.iter().filter(|name| table.chains.contains_key(**name)).count();
    let sets = SETS.iter().filter(|name| table.sets.contains_key(**name)).count();
    assert!(matches!((chains, sets), (0, 0) | (2, 3)), "half a guard: {chains} {sets}");
    chains > 0
}

#[test]
fn without_an_overlay_there_is_no_guard_and_with_one_only_nodes_may_send_in_both_families() {
    assert!(!has_guard(after(&[None]).0.table()));
    let (node, _) = after(&[overlay(4789, &["192.0.2.2", "2001:db8::2"])]);
    let table = node.table();
    assert!(has_guard(table));
    for (name, hook) in CHAINS.into_iter().zip([Hook::Input, Hook::Forward]) {
        let chain = table.chains.get(name).expect("chain");
        let base = chain.hook.as_ref().expect("a base chain");
        assert_eq!((base.hook, base.priority), (hook, -1), "{name} comes before our own");
        assert_eq!(chain.rules.len(), 2, "{name}: one for each family");
        assert!(chain.rules.iter().all(|rule| rule.verdict == Verdict::Drop && rule.counter));
    }
    let rules = |name: &str| -> Vec<String> {
        table.chains.get(name).expect("chain").rules.iter().map(text::rule_text).collect()
    };
    let [input, forward] = CHAINS.map(rules);
    for (index, family) in ["ip", "ip6"].into_iter().enumerate() {
        let set = ["overlay_src4", "overlay_src6"].into_iter().nth(index).expect("two");
        let stranger = format!("{family} saddr != @{set}");
        let to_node = format!("{family} daddr @{set}");
        let (input, forward) = (input.get(index), forward.get(index));
        let input = input.expect("a rule of the family");
        let forward = forward.expect("a rule of the family");
        for rule in [input, forward] {
            assert!(rule.contains("udp") || rule.contains("17"), "{rule}");
            assert!(rule.contains("@overlay_port") && rule.contains(&stranger), "{rule}");
        }
        assert!(!input.contains("daddr"), "whoever it is sent to: {input}");
        assert!(forward.contains(&to_node), "of what passes only what goes to a node: {forward}");
    }
}

#[test]
fn nodes_that_join_and_leave_are_single_elements_and_end_in_the_same_table_as_a_fresh_one() {
    let first = overlay(4789, &["192.0.2.2", "192.0.2.3", "2001:db8::2"]);
    let second = overlay(4789, &["192.0.2.3", "192.0.2.4", "2001:db8::2", "2001:db8::4"]);
    let (changed, last) = after(&[first, second.clone()]);
    assert_eq!(changed.table(), after(&[second]).0.table());
    for part in ["192.0.2.2", "192.0.2.4", "2001:db8::4"] {
        assert!(last.contains(part), "{part}: {last}");
    }
    for part in ["192.0.2.3", "2001:db8::2", "chain", "overlay_port"] {
        assert!(!last.contains(part), "{part} did not change: {last}");
    }
}

#[test]
fn another_port_replaces_the_guard_and_the_end_of_the_overlay_leaves_nothing_of_it() {
    let senders = ["192.0.2.2", "2001:db8::2"];
    let states = [overlay(4789, &senders), overlay(8472, &senders)];
    let (moved, _) = after(&states);
    assert_eq!(moved.table(), after(&states[1..]).0.table());
    let (gone, _) = after(&[overlay(4789, &senders), None]);
    assert!(!has_guard(gone.table()));
    assert_eq!(gone.table(), after(&[]).0.table());
    let (again, last) = after(&[overlay(4789, &senders), overlay(4789, &senders)]);
    assert!(has_guard(again.table()));
    assert_eq!(last, "", "nothing new is nothing to write");
}

//! The nft writer against a real kernel, with the `nft` binary as the second opinion.
//!
//! Each test runs in a network namespace of its own (root needed).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

use std::time::{Duration, Instant};

use agent::kernel::nft::{Drift, Monitor, NftWriter};
use policy::nft::ir::{Chain, Element, Set, SetSpec, Table, Type, Value, Verdict};
use policy::nft::transaction::{Step, Transaction};
use serde_json::Value as Json;
use tests::nft::{create, enter_namespace, listing, nft, nft_script, replace};
use tests::nft_table::{EVERY_CONSTRUCT, every_construct, rule, v4};

const SOON: Duration = Duration::from_secs(5);
/// errno values that tests name.
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const EMLINK: i32 = 31;
const ERESTART: i32 = 85;

fn transaction(steps: Vec<Step>) -> Transaction {
    Transaction { id: 1, steps }
}

fn writer_with(table: &Table) -> NftWriter {
    let mut writer = NftWriter::open().unwrap();
    writer.apply(&transaction(create(table))).unwrap();
    writer
}

#[test]
fn nft_reads_what_it_would_have_written_itself() {
    enter_namespace().unwrap();
    let mut writer = writer_with(&every_construct());
    let ours = listing().unwrap();
    writer.apply(&transaction(vec![Step::DeleteTable])).unwrap();
    nft_script(EVERY_CONSTRUCT).unwrap();
    let theirs = listing().unwrap();
    assert_same_listing(&ours, &theirs);
}

#[test]
fn the_text_form_says_what_the_netlink_form_says() {
    enter_namespace().unwrap();
    let mut table = every_construct();
    // The text leaves out a `continue` that changes nothing.
    for chain in table.chains.values_mut() {
        chain.rules.retain(|r| r.verdict != Verdict::Continue);
    }
    let mut writer = writer_with(&table);
    let netlink = listing().unwrap();
    writer.apply(&transaction(vec![Step::DeleteTable])).unwrap();
    nft_script(&policy::nft::text::script(&table)).unwrap();
    assert_same_listing(&listing().unwrap(), &netlink);
}

fn assert_same_listing(left: &[Json], right: &[Json]) {
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left, right);
    }
    assert_eq!(left.len(), right.len());
}

#[test]
fn a_table_written_by_nft_itself_is_recognised() {
    enter_namespace().unwrap();
    nft_script(EVERY_CONSTRUCT).unwrap();
    let mut writer = NftWriter::open().unwrap();
    let desired = every_construct();
    let observed = writer.readback(&desired).unwrap().unwrap();
    assert_same(&observed, &desired);
}

#[test]
fn readback_gives_what_was_applied() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = writer_with(&desired);
    let observed = writer.readback(&desired).unwrap().unwrap();
    assert_same(&observed, &desired);
}

fn assert_same(observed: &Table, desired: &Table) {
    for (name, set) in &desired.sets {
        assert_eq!(observed.sets.get(name), Some(set), "set {name}");
    }
    for (name, chain) in &desired.chains {
        assert_eq!(observed.chains.get(name), Some(chain), "chain {name}");
    }
    assert_eq!(observed, desired);
}

#[test]
fn no_table_reads_back_as_none() {
    enter_namespace().unwrap();
    nft_script("table inet other { chain rampart { }; }").unwrap();
    let mut writer = NftWriter::open().unwrap();
    assert_eq!(writer.readback(&every_construct()).unwrap(), None);
}

#[test]
fn every_single_removal_of_a_rule_or_element_is_seen() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = NftWriter::open().unwrap();
    for (name, chain) in &desired.chains {
        for index in 0..chain.rules.len() {
            let mut damaged = desired.clone();
            damaged.chains.get_mut(name).unwrap().rules.remove(index);
            writer.apply(&replace(&damaged)).unwrap();
            let observed = writer.readback(&desired).unwrap().unwrap();
            assert_ne!(observed.chains.get(name), Some(chain), "rule {index} of {name}");
            assert_eq!(observed.sets, desired.sets);
        }
    }
    for (name, set) in &desired.sets {
        for element in set.elements.keys() {
            let mut damaged = desired.clone();
            damaged.sets.get_mut(name).unwrap().elements.remove(element);
            writer.apply(&replace(&damaged)).unwrap();
            let observed = writer.readback(&desired).unwrap().unwrap();
            assert_same(&observed, &damaged);
        }
    }
}

#[test]
fn elements_come_and_go_one_by_one() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = writer_with(&desired);
    for (name, set) in &desired.sets {
        for (element, verdict) in &set.elements {
            let elements = vec![(element.clone(), verdict.clone())];
            let (set, spec) = (name.clone(), set.spec.clone());
            writer
                .apply(&transaction(vec![Step::DeleteElements {
                    set: set.clone(),
                    spec: spec.clone(),
                    elements: elements.clone(),
                }]))
                .unwrap();
            let observed = writer.readback(&desired).unwrap().unwrap();
            assert!(!observed.sets[name].elements.contains_key(element), "{name} {element:?}");
            writer.apply(&transaction(vec![Step::AddElements { set, spec, elements }])).unwrap();
        }
    }
    assert_same(&writer.readback(&desired).unwrap().unwrap(), &desired);
}

/// Everything that a careless or hostile administrator does to our table.
const DAMAGE: [&str; 16] = [
    "flush chain inet rampart in/shop/web-1/0",
    "flush table inet rampart",
    "delete table inet rampart",
    "flush set inet rampart peers4",
    "delete element inet rampart peers6 { fd00::1 . udp . 53 }",
    "delete element inet rampart nets4 { 11.0.0.0/8 }",
    "delete element inet rampart to4 { 10.0.0.1 }",
    "add element inet rampart plain4 { 203.0.113.1 }",
    "add element inet rampart nets4 { 203.0.113.0/24 }",
    "add rule inet rampart in/shop/web-1/0 accept",
    "insert rule inet rampart forward accept",
    "insert rule inet rampart prerouting ip6 saddr ::/128 icmpv6 type { 133, 134 } accept",
    "add chain inet rampart foreign { type filter hook forward priority -5; policy drop; }",
    "add set inet rampart theirs { type mark; }",
    "add map inet rampart plain6 { type ipv6_addr : mark; }",
    "add set inet rampart timed { type ipv4_addr; timeout 1h; }",
];

#[test]
fn damage_from_outside_wakes_the_monitor_and_shows_in_the_readback() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = NftWriter::open().unwrap();
    let mut monitor = Monitor::open(writer.port()).unwrap();
    nft_script(
        "table ip theirs { set s { type ipv4_addr; }; chain c { ip saddr 1.2.3.4 drop; }; }",
    )
    .unwrap();
    let theirs = nft(&["list", "table", "ip", "theirs"]).unwrap();
    for damage in DAMAGE {
        writer.apply(&replace(&desired)).unwrap();
        assert_eq!(writer.readback(&desired).unwrap().as_ref(), Some(&desired), "before {damage}");
        nft_script(damage).unwrap();
        let drift = monitor.wait(SOON).unwrap().unwrap_or_else(|| panic!("asleep at {damage}"));
        let Drift::Changed { process, .. } = drift else { panic!("{drift:?} at {damage}") };
        assert_eq!(process.as_deref(), Some("nft"));
        let observed = writer.readback(&desired).unwrap();
        assert_ne!(observed.as_ref(), Some(&desired), "{damage}");
    }
    assert_eq!(nft(&["list", "table", "ip", "theirs"]).unwrap(), theirs);
}

#[test]
fn foreign_sets_and_chains_can_be_removed_by_name() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = writer_with(&desired);
    nft_script(
        "table inet rampart { set theirs { type mark; elements = { 1, 2 }; }
         chain theirs { meta mark @theirs drop; }; }",
    )
    .unwrap();
    let observed = writer.readback(&desired).unwrap().unwrap();
    assert!(observed.sets.contains_key("theirs") && !observed.chains["theirs"].rules.is_empty());
    let removal = vec![
        Step::FlushChain("theirs".to_owned()),
        Step::DeleteChain("theirs".to_owned()),
        Step::DeleteSet("theirs".to_owned()),
    ];
    writer.apply(&transaction(removal)).unwrap();
    assert_same(&writer.readback(&desired).unwrap().unwrap(), &desired);
}

#[test]
fn a_table_put_to_sleep_and_a_changed_chain_policy_are_repaired_by_the_readback() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = writer_with(&desired);
    // Not the JSON form: nft 1.0.6 prints nothing of a dormant table there.
    let list = || nft(&["list", "table", "inet", "rampart"]).unwrap();
    let healthy = list();
    let sleep = "add table inet rampart { flags dormant; }";
    let drop_forwarded = "add chain inet rampart forward { policy drop; }";
    let drop_input = "add chain inet rampart input { policy drop; }";
    for damage in [vec![sleep], vec![drop_forwarded], vec![drop_input, drop_forwarded, sleep]] {
        damage.iter().for_each(|script| nft_script(script).unwrap());
        assert_ne!(list(), healthy, "{damage:?} did nothing");
        assert_same(&writer.readback(&desired).unwrap().unwrap(), &desired);
        assert_eq!(list(), healthy, "after {damage:?}");
    }
}

#[test]
fn our_own_changes_and_those_of_other_tables_wake_nobody() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = NftWriter::open().unwrap();
    let mut monitor = Monitor::open(writer.port()).unwrap();
    writer.apply(&transaction(create(&desired))).unwrap();
    nft_script("table ip theirs { chain c { drop; }; }").unwrap();
    writer.readback(&desired).unwrap();
    writer.apply(&replace(&desired)).unwrap();
    // The kernel tells changes in order: what wakes the monitor is the last one.
    nft_script("add chain inet rampart theirs").unwrap();
    let drift = monitor.wait(SOON).unwrap();
    assert!(matches!(drift, Some(Drift::Changed { .. })), "{drift:?}");
    assert_eq!(monitor.wait(Duration::ZERO).unwrap(), None);
}

#[test]
fn a_refused_batch_changes_nothing_and_names_its_step() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = writer_with(&desired);
    let before = nft(&["-a", "list", "table", "inet", "rampart"]).unwrap();
    let missing = |chain: &str| Step::AddRule(chain.to_owned(), rule(vec![], Verdict::Drop));
    let new_chain = || Step::AddChain("new".to_owned(), None);
    let interface = |name: &str| Step::AddElements {
        set: "interfaces".to_owned(),
        spec: SetSpec { key: vec![Type::IfName], interval: false, verdict_map: false },
        elements: vec![(Element::Key(vec![Value::IfName(name.to_owned())]), None)],
    };
    let cases = [
        (vec![new_chain(), missing("new"), missing("nowhere"), missing("new")], ENOENT, Some(2)),
        (vec![new_chain(), Step::DeleteSet("nothing".to_owned())], ENOENT, Some(1)),
        (vec![interface("eth0"), interface("longer-than-linux-allows")], EINVAL, Some(1)),
    ];
    for (steps, errno, step) in cases {
        let error = writer.apply(&transaction(steps.clone())).unwrap_err();
        assert_eq!((error.errno, error.step), (errno, step), "{error} for {steps:?}");
        assert_eq!(nft(&["-a", "list", "table", "inet", "rampart"]).unwrap(), before);
    }
    let error = writer.apply(&transaction(vec![missing("nowhere")])).unwrap_err();
    assert!(error.reason.contains("add rule to nowhere"), "{}", error.reason);
    assert!(error.reason.contains("No such file or directory"), "{}", error.reason);
}

#[test]
fn more_jumps_than_the_kernel_follows_are_refused_as_a_whole() {
    enter_namespace().unwrap();
    let mut writer = writer_with(&every_construct());
    let before = nft(&["-a", "list", "table", "inet", "rampart"]).unwrap();
    let error = writer.apply(&transaction(endless_jumps())).unwrap_err();
    assert_eq!(error.errno, EMLINK, "{error}");
    assert_eq!(nft(&["-a", "list", "table", "inet", "rampart"]).unwrap(), before);
}

/// More jumps in a row than the kernel follows.
fn endless_jumps() -> Vec<Step> {
    let names: Vec<String> = (0..20).map(|n| format!("depth-{n}")).collect();
    let mut steps: Vec<Step> = names.iter().map(|n| Step::AddChain(n.clone(), None)).collect();
    let jump = |to: &String| rule(vec![], Verdict::Jump(to.clone()));
    steps.push(Step::AddRule("forward".to_owned(), jump(&names[0])));
    for pair in names.windows(2) {
        steps.push(Step::AddRule(pair[0].clone(), jump(&pair[1])));
    }
    steps
}

#[test]
fn a_thousand_chains_and_a_hundred_thousand_elements_are_replaced_at_once() {
    enter_namespace().unwrap();
    let mut writer = NftWriter::open().unwrap();
    for generation in [1, 2] {
        let desired = big_table(generation);
        writer.apply(&replace(&desired)).unwrap();
        let observed = writer.readback(&desired).unwrap().unwrap();
        assert_eq!(observed.chains, desired.chains);
        // Not assert_eq on the sets: nobody wants to read a hundred thousand elements.
        assert!(observed.sets == desired.sets);
    }
}

fn big_table(generation: u16) -> Table {
    let mut table = Table::default();
    for set in 0..10u8 {
        let elements = (0..10_000u16)
            .map(|n| {
                let [high, low] = n.to_be_bytes();
                let address = v4([10, set, high, low]);
                (Element::Key(vec![address, Value::Proto(6), Value::Port(generation)]), None)
            })
            .collect();
        let spec = SetSpec {
            key: vec![Type::Ipv4, Type::Proto, Type::Port],
            interval: false,
            verdict_map: false,
        };
        table.sets.insert(format!("set-{set}"), Set { spec, elements });
    }
    for chain in 0..1000 {
        let rules = (0..6).map(|_| rule(vec![], Verdict::Drop)).collect();
        table.chains.insert(format!("chain-{chain}-{generation}"), Chain { hook: None, rules });
    }
    table
}

#[test]
fn what_follows_a_readback_is_refused_if_our_table_changed_since() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = writer_with(&desired);
    let add = || transaction(vec![Step::AddChain("late".to_owned(), None)]);
    let remove = || transaction(vec![Step::DeleteChain("late".to_owned())]);

    writer.readback(&desired).unwrap();
    nft_script("add chain inet rampart theirs").unwrap();
    let error = writer.apply(&add()).unwrap_err();
    assert_eq!(error.errno, ERESTART, "{error}");
    let error = writer.apply(&add()).unwrap_err();
    assert_eq!(error.errno, ERESTART, "until it is read again: {error}");

    writer.readback(&desired).unwrap();
    writer.apply(&add()).unwrap();
    nft_script("add chain inet rampart more").unwrap();
    writer.apply(&remove()).unwrap();
}

#[test]
fn what_follows_a_readback_is_applied_though_other_tables_changed_since() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = writer_with(&desired);
    writer.readback(&desired).unwrap();
    nft_script("table ip theirs { chain c { drop; }; }").unwrap();
    nft_script("add chain ip theirs d").unwrap();
    writer.apply(&transaction(vec![Step::AddChain("late".to_owned(), None)])).unwrap();
}

#[test]
fn a_readback_is_stale_once_more_happened_than_could_be_listened_to() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = writer_with(&desired);
    writer.readback(&desired).unwrap();
    // More than a listener's queue holds.
    let addresses: Vec<String> =
        (0..100_000u32).map(|n| std::net::Ipv4Addr::from(n + 1).to_string()).collect();
    let elements = addresses.join(", ");
    nft_script(&format!(
        "table ip theirs {{ set s {{ type ipv4_addr; elements = {{ {elements} }}; }}; }}"
    ))
    .unwrap();
    let late = || transaction(vec![Step::AddChain("late".to_owned(), None)]);
    // One of the changes that went unheard might have been of our table.
    let error = writer.apply(&late()).unwrap_err();
    assert_eq!(error.errno, ERESTART, "{error}");
    writer.readback(&desired).unwrap();
    writer.apply(&late()).unwrap();
    assert!(writer.readback(&desired).unwrap().unwrap().chains.contains_key("late"));
}

#[test]
fn readback_copes_with_a_ruleset_that_others_keep_changing() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let mut writer = writer_with(&desired);
    nft_script("table ip theirs { chain c { }; }").unwrap();
    // A thread inherits the namespace of the one that starts it.
    let others = std::thread::spawn(|| {
        for _ in 0..40 {
            nft_script("add rule ip theirs c drop; flush chain ip theirs c").unwrap();
        }
    });
    while !others.is_finished() {
        assert_same(&writer.readback(&desired).unwrap().unwrap(), &desired);
    }
    others.join().unwrap();
}

#[test]
fn the_thread_answers_in_order_and_ends_with_its_last_handle() {
    enter_namespace().unwrap();
    let desired = every_construct();
    let (handle, thread) = NftWriter::open().unwrap().spawn().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let started = Instant::now();
    let observed = runtime.block_on(async {
        handle.apply(transaction(create(&desired)).into()).await.unwrap();
        handle.readback(desired.clone().into()).await.unwrap()
    });
    assert_eq!(observed.as_ref(), Some(&desired));
    drop(handle);
    thread.join().unwrap();
    assert!(started.elapsed() < SOON);
}

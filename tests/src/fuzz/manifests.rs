//! Feeds a file of manifests to everything that reads one: source, routing's configuration, policy
//! engine.
//!
//! An input is a file as it may lie in the store. What must hold for every input is asserted here;
//! a panic is a finding.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use agent::config::Reconciler;
use agent::source::manifest::{self, Manifest};
use agent::source::{Event, Key, Object};
use policy::engine::Engine;
use policy::event as p;

use super::mutate::Random;

/// What an input led to, for tests that want to know that they reach something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Objects in good form.
    pub good: usize,
    /// Documents refused.
    pub bad: usize,
    /// Of those, NetworkPolicies of which something closed was left.
    pub salvaged: usize,
    /// Peers that came out.
    pub peers: usize,
    /// Policies in force.
    pub policies: usize,
    /// Codes of all complaints.
    pub codes: BTreeSet<u16>,
}

/// Reads `input`.
///
/// # Panics
/// When something does not hold that must.
pub fn run(input: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(input);
    let file: Arc<Path> = Arc::from(Path::new("/store/fuzz.yaml"));
    let manifests = manifest::read(&file, &text);
    assert!(manifests == manifest::read(&file, &text), "the same file reads differently");
    let mut outcome = Outcome::default();
    let mut objects: Vec<Event> = Vec::new();
    let lines = text.lines().count() + 1;
    for manifest in manifests {
        match manifest {
            Manifest::Good { object, origin } => {
                outcome.good += 1;
                objects.push(Event::Apply(object, Some(origin)));
            }
            Manifest::Bad { salvaged, faults, .. } => {
                outcome.bad += 1;
                assert!(!faults.is_empty(), "refused without a reason");
                for fault in &faults {
                    let line = usize::try_from(fault.line).unwrap_or(usize::MAX);
                    assert!((1..=lines).contains(&line), "{fault:?} of {lines} lines");
                    assert!(!fault.message.is_empty());
                    outcome.codes.insert(fault.code.0);
                }
                if let Some(object) = salvaged {
                    outcome.salvaged += 1;
                    assert_closed(&object);
                    objects.push(Event::Apply(object, None));
                }
            }
        }
    }
    configure(&objects, &mut outcome);
    enforce(&objects, &mut outcome);
    outcome
}

/// What is left of an unreadable policy isolates for certain.
fn assert_closed(object: &Object) {
    let Object::NetworkPolicy(policy) = object else { panic!("salvaged {object:?}") };
    let spec = policy.spec.as_ref();
    let types = spec.and_then(|spec| spec.policy_types.as_ref());
    assert!(types.is_some(), "it is left to a default whether {policy:?} isolates");
}

fn configure(events: &[Event], outcome: &mut Outcome) {
    let mut reconciler = Reconciler::new("n1", "rampart-system");
    for event in events {
        reconciler.handle(event);
    }
    let (desired, faults) = reconciler.desired(&[]);
    outcome.codes.extend(faults.iter().map(|fault| fault.code.0));
    let (again, same_faults) = reconciler.desired(&[]);
    assert!(desired == again && faults == same_faults, "asking changes the answer");
    let Some(desired) = desired else { return };
    let addresses: Vec<IpAddr> = desired.config.peers.iter().map(|peer| peer.address).collect();
    assert!(addresses.is_sorted_by(|a, b| a < b), "peers are not sorted or not unique");
    let own = reconciler.nodes().find(|node| node.name == "n1").map(|node| node.addresses.clone());
    for peer in &desired.config.peers {
        assert!(!own.iter().flatten().any(|address| *address == peer.address), "{peer:?} is us");
        let seconds = peer.hold_time.as_secs();
        assert!(seconds == 0 || seconds >= 3, "{peer:?}");
    }
    outcome.peers = desired.config.peers.len();
}

fn enforce(events: &[Event], outcome: &mut Outcome) {
    let engine = |events: &mut dyn Iterator<Item = &Event>| {
        let mut engine = Engine::new("n1");
        for kind in [p::Kind::Node, p::Kind::Namespace, p::Kind::Pod, p::Kind::NetworkPolicy] {
            engine.handle(p::Event::RelistBegin(kind));
            engine.handle(p::Event::RelistEnd(kind));
        }
        for object in events.filter_map(for_policy) {
            engine.handle(p::Event::Apply(object));
        }
        let transaction = engine.poll_transaction();
        if let Some(transaction) = transaction {
            engine.acknowledge(transaction.id, Ok(()));
        }
        assert!(engine.poll_transaction().is_none(), "one transaction was not enough");
        engine
    };
    let forward = engine(&mut events.iter());
    outcome.policies = forward.policies().len();
    let mut count: BTreeMap<Key, usize> = BTreeMap::new();
    for event in events {
        if let Event::Apply(object, _) = event {
            *count.entry(object.key()).or_default() += 1;
        }
    }
    // Of two versions of one object the later one counts; otherwise order must not.
    if count.values().all(|count| *count == 1) {
        let backward = engine(&mut events.iter().rev());
        assert!(forward.desired() == backward.desired(), "the order of objects changes the table");
    }
}

fn for_policy(event: &Event) -> Option<p::Object> {
    let Event::Apply(object, _) = event else { return None };
    match object.clone() {
        Object::Node(o) => Some(p::Object::Node(o)),
        Object::Namespace(o) => Some(p::Object::Namespace(o)),
        Object::Pod(o) => Some(p::Object::Pod(o)),
        Object::NetworkPolicy(o) => Some(p::Object::NetworkPolicy(o)),
        Object::BgpConfiguration(_)
        | Object::BgpPeer(_)
        | Object::NetworkConfiguration(_)
        | Object::Secret(_) => None,
    }
}

/// Values at which readers of manifests tend to stumble.
const VALUES: [&str; 24] = [
    "null",
    "~",
    "[]",
    "{}",
    "''",
    "0",
    "-1",
    "65536",
    "4294967296",
    "1e9",
    "true",
    "10.0.0.0/8",
    "10.0.0.1/33",
    "::/0",
    "fe80::1",
    "*x",
    "&x",
    "!!binary x",
    "|",
    "TCP",
    "In",
    "---",
    "\t",
    "\u{feff}",
];

/// Changes one to four places of `input`, which need not be a manifest.
#[must_use]
pub fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let text = String::from_utf8_lossy(input);
    let other = String::from_utf8_lossy(other);
    let donors: Vec<&str> = other.split_inclusive('\n').collect();
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    for _ in 0..=random.below(4) {
        let at = random.below(lines.len());
        let donor = donors.get(random.below(donors.len())).copied().unwrap_or_default();
        match random.below(7) {
            0 if !lines.is_empty() => drop(lines.remove(at)),
            1 => lines.insert(at, donor.to_owned()),
            2 => {
                let value = VALUES.get(random.below(VALUES.len())).copied().unwrap_or_default();
                if let Some(line) = lines.get_mut(at) {
                    let key = line.split(':').next().unwrap_or_default().to_owned();
                    *line = format!("{key}: {value}\n");
                }
            }
            3 => {
                if let Some(line) = lines.get_mut(at) {
                    line.insert(0, ' ');
                }
            }
            4 => {
                let value = VALUES.get(random.below(VALUES.len())).copied().unwrap_or_default();
                lines.insert(at, format!("{value}\n"));
            }
            5 => {
                if let Some(line) = lines.get_mut(at) {
                    let middle = random.below(line.len());
                    if line.is_char_boundary(middle) {
                        line.remove(middle);
                    }
                }
            }
            _ => {
                if let Some(line) = lines.get_mut(at) {
                    let middle = random.below(line.len());
                    let letter = char::from(random.octet());
                    if line.is_char_boundary(middle) {
                        line.insert(middle, letter);
                    }
                }
            }
        }
    }
    lines.concat().into_bytes()
}

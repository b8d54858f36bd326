//! Random clusters and random histories: the table says what the API text says, whatever led to it.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use policy::Engine;
use policy::event::{Event, Key, Kind, Object};
use policy::fault::Reason;
use policy::nft::ir::Table;
use policy::nft::transaction::{ApplyError, Transaction};
use policy::verdict::{self, At, Cluster};
use proptest::prelude::*;
use support::cluster::{KINDS, key};
use support::kernel::Kernel;
use support::random::{self, Action};
use support::walker::{self, Packet};

const NODE: &str = "n1";

/// What there is, however it came about: for each object the version in force.
#[derive(Clone, Debug, Default)]
struct Truth {
    objects: BTreeMap<Key, (Object, bool)>,
    interfaces: BTreeMap<IpAddr, &'static str>,
}

impl Truth {
    /// The last good version of a policy stays in force.
    fn apply(&mut self, object: &Object, clean: bool) {
        let key = key(object);
        let keep = key.kind == Kind::NetworkPolicy
            && !clean
            && self.objects.get(&key).is_some_and(|(_, clean)| *clean);
        if !keep {
            self.objects.insert(key, (object.clone(), clean));
        }
    }

    fn nth(&self, index: &prop::sample::Index) -> Option<Key> {
        (!self.objects.is_empty())
            .then(|| index.get(&self.objects.keys().cloned().collect::<Vec<_>>()).clone())
    }

    fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values().map(|(object, _)| object)
    }
}

/// An engine in the middle of its life.
struct Run {
    engine: Engine,
    kernel: Kernel,
    truth: Truth,
    /// Sent, not yet answered.
    sent: Option<Transaction>,
    /// Tables that the kernel has had.
    past: Vec<Option<Table>>,
}

impl Run {
    fn new() -> Self {
        let mut engine = Engine::new(NODE);
        for kind in KINDS {
            engine.handle(Event::RelistBegin(kind));
            engine.handle(Event::RelistEnd(kind));
        }
        Self {
            engine,
            kernel: Kernel::default(),
            truth: Truth::default(),
            sent: None,
            past: vec![None],
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Apply(object) => self.apply(object),
            Action::Change(index, change) => {
                if let Some(key) = self.truth.nth(index) {
                    let changed = change.of(&self.truth.objects[&key].0);
                    self.apply(&changed);
                }
            }
            Action::Delete(index) => {
                if let Some(key) = self.truth.nth(index) {
                    self.truth.objects.remove(&key);
                    self.engine.handle(Event::Delete(key));
                }
            }
            Action::Relist(kind, index) => self.relist(KINDS[*kind], index),
            Action::Interface(index, interface) => {
                let address = *index.get(&random::addresses());
                let _former = match interface {
                    Some(name) => self.truth.interfaces.insert(address, name),
                    None => self.truth.interfaces.remove(&address),
                };
                let interface = interface.map(str::to_owned);
                self.engine.handle(Event::Interface { address, interface });
            }
            Action::Send => self.send(),
            Action::Answer(taken) => self.answer(*taken),
            Action::Adopt(taken) => {
                self.finish(*taken);
                self.engine.adopt(self.kernel.table.clone());
            }
            Action::Restart(taken) => {
                self.finish(*taken);
                self.restart();
            }
            Action::Damage(index) => {
                self.sent = None;
                self.kernel.table = index.and_then(|index| index.get(&self.past).clone());
                self.engine.adopt(self.kernel.table.clone());
            }
        }
    }

    /// What was sent is taken or not, but nobody hears of it.
    fn finish(&mut self, taken: bool) {
        if let (Some(transaction), true) = (self.sent.take(), taken) {
            assert_eq!(self.kernel.apply(&transaction), Ok(()), "{transaction:#?}");
        }
    }

    fn restart(&mut self) {
        self.engine = Engine::new(NODE);
        self.engine.adopt(self.kernel.table.clone());
        for (address, interface) in &self.truth.interfaces {
            let interface = Some((*interface).to_owned());
            self.engine.handle(Event::Interface { address: *address, interface });
        }
        for kind in KINDS {
            self.engine.handle(Event::RelistBegin(kind));
            for object in self.truth.objects().filter(|object| key(object).kind == kind) {
                self.engine.handle(Event::Apply(object.clone()));
            }
            assert_eq!(self.engine.poll_transaction(), None, "not in sync");
            self.engine.handle(Event::RelistEnd(kind));
        }
    }

    fn apply(&mut self, object: &Object) {
        let faults = self.engine.handle(Event::Apply(object.clone()));
        let clean = faults.iter().all(|fault| fault.reason == Reason::AddressConflict);
        self.truth.apply(object, clean);
    }

    fn send(&mut self) {
        let transaction = self.engine.poll_transaction();
        if self.sent.is_some() {
            assert_eq!(transaction, None, "one at a time");
        } else {
            self.sent = transaction;
        }
    }

    fn answer(&mut self, taken: bool) {
        let Some(transaction) = self.sent.take() else { return };
        let result = if taken {
            let result = self.kernel.apply(&transaction);
            assert_eq!(result, Ok(()), "{transaction:#?}");
            self.past.push(self.kernel.table.clone());
            result
        } else {
            Err(ApplyError { errno: 12, step: None, reason: "no memory".to_owned() })
        };
        self.engine.acknowledge(transaction.id, result);
    }

    fn relist(&mut self, kind: Kind, lost: &prop::sample::Index) {
        let lost = self.truth.nth(lost);
        self.engine.handle(Event::RelistBegin(kind));
        let listed: Vec<Key> =
            self.truth.objects.keys().filter(|k| k.kind == kind).cloned().collect();
        for key in listed {
            if Some(&key) == lost.as_ref() {
                self.truth.objects.remove(&key);
            } else {
                let (object, _) = &self.truth.objects[&key];
                self.engine.handle(Event::Apply(object.clone()));
            }
        }
        self.engine.handle(Event::RelistEnd(kind));
    }

    /// Whatever is on its way is taken, and the rest as well.
    fn program(&mut self) {
        self.answer(true);
        self.send();
        self.answer(true);
        assert_eq!(self.engine.poll_transaction(), None);
        assert_eq!(self.kernel.table.as_ref(), Some(self.engine.desired()));
    }

    /// What an engine makes of the same objects that has never known anything else.
    fn fresh(&self, order: &[Object]) -> Table {
        let mut engine = Engine::new(NODE);
        for kind in KINDS {
            engine.handle(Event::RelistBegin(kind));
        }
        for (address, interface) in &self.truth.interfaces {
            let interface = Some((*interface).to_owned());
            engine.handle(Event::Interface { address: *address, interface });
        }
        for object in order {
            engine.handle(Event::Apply(object.clone()));
            assert_eq!(engine.poll_transaction(), None, "not in sync");
        }
        for kind in KINDS {
            engine.handle(Event::RelistEnd(kind));
        }
        let mut kernel = Kernel::default();
        let transaction = engine.poll_transaction().expect("at least the base chains");
        assert_eq!(kernel.apply(&transaction), Ok(()));
        kernel.table.expect("table")
    }
}

/// For every pair of addresses and every port the table and the API text must agree.
fn compare(table: &Table, truth: &Truth) -> Result<(), TestCaseError> {
    let cluster: Cluster = truth.objects().cloned().collect();
    let node: Vec<IpAddr> =
        if truth.objects().any(|o| key(o).kind == Kind::Node && key(o).name == NODE) {
            random::NODE_ADDRESSES.iter().map(|text| text.parse().expect("address")).collect()
        } else {
            Vec::new()
        };
    let addresses = random::addresses();
    for source in &addresses {
        for destination in &addresses {
            if source.is_ipv4() != destination.is_ipv4() {
                continue;
            }
            for (protocol, port) in random::PORTS {
                let question =
                    verdict::Packet { source: *source, destination: *destination, protocol, port };
                let judgement = cluster.judge(&question, At::Node(NODE));
                let mut packet = Packet::new(*source, *destination, protocol, port);
                if let (Some(name), Some(_)) = (truth.interfaces.get(source), &judgement.egress) {
                    packet.interface = (*name).to_owned();
                }
                let passes = walker::admitted(table, &node, &packet);
                prop_assert_eq!(
                    passes,
                    judgement.allowed(),
                    "{:?}\n{:#?}\n{}",
                    question,
                    judgement,
                    policy::nft::text::script(table)
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_history_ends_in_the_table_of_its_objects(
        actions in prop::collection::vec(random::action(), 1..60),
        shuffle in any::<prop::sample::Index>(),
    ) {
        let mut run = Run::new();
        for action in &actions {
            run.act(action);
        }
        run.program();
        let table = run.kernel.table.clone().expect("table");

        // Another order, with some objects twice.
        let mut order: Vec<Object> = run.truth.objects().cloned().collect();
        let rotation = if order.is_empty() { 0 } else { shuffle.index(order.len()) };
        order.rotate_left(rotation);
        order.reverse();
        let twice: Vec<Object> = order.iter().step_by(3).cloned().collect();
        order.extend(twice);
        prop_assert_eq!(&table, &run.fresh(&order));
        compare(&table, &run.truth)?;

        let local: BTreeSet<IpAddr> = run.engine.local_addresses().collect();
        let listed = run.engine.endpoints().into_iter().flat_map(|endpoint| endpoint.addresses);
        prop_assert_eq!(&local, &listed.collect::<BTreeSet<_>>());

        // Nothing is left of what is gone.
        let keys: BTreeSet<Key> = run.truth.objects.keys().cloned().collect();
        for key in keys {
            run.engine.handle(Event::Delete(key));
        }
        run.program();
        prop_assert_eq!(run.engine.faults(), []);
        prop_assert_eq!(run.engine.local_addresses().count(), 0);
        let nothing = Run { truth: Truth::default(), ..run };
        prop_assert_eq!(nothing.kernel.table.as_ref(), Some(&nothing.fresh(&[])));
    }
}

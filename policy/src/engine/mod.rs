//! The engine: events in, transactions out.
//!
//! ```text
//! handle(Event)* -> poll_transaction() -> kernel -> acknowledge(id, result) -> ...
//! ```
//! `handle` takes a change in and updates set content at once (a pod that joins a selector costs
//! its own elements); what needs the policy of a pod to be worked out again is only noted, and
//! done in `poll_transaction`, so a burst of events is worked out once.
//!
//! Nothing comes out before every kind has been listed once. One transaction is out at a time.

mod attachment;
mod claim;
mod endpoint;
mod masquerade;
mod object;
mod overlay;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

pub use view::{EndpointSummary, PolicySummary, Totals};

use crate::event::{Event, Key, Kind, Masquerade, Object, Overlay};
use crate::fault::Fault;
use crate::index::{Index, PodId, SelectorId};
use crate::input::ObjectName;
use crate::nft::content::{Content, PlanId};
use crate::nft::delta::Delta;
use crate::nft::ir::{Chain, Table};
use crate::nft::transaction::{ApplyError, Transaction};
use crate::nft::{baseline, text};
use crate::resolve::Grants;
use attachment::{Attached, Attachments};
use endpoint::{AddressState, Endpoint, Question};
use object::StoredPolicy;

const KINDS: [Kind; 4] = [Kind::Node, Kind::Namespace, Kind::Pod, Kind::NetworkPolicy];

/// The policy of one node. See the module.
#[derive(Debug)]
pub struct Engine {
    node: String,
    index: Index,
    policies: BTreeMap<ObjectName, StoredPolicy>,
    /// What policies grant, by the selector of their subject.
    subjects: BTreeMap<SelectorId, BTreeMap<ObjectName, Grants>>,
    pod_cidrs: Vec<IpNet>,
    /// Addresses of pods, and the pods that claim them: hardly ever more than one.
    claimants: FxHashMap<IpAddr, SmallVec<[PodId; 2]>>,
    /// Addresses that several pods claim.
    shared: BTreeSet<IpAddr>,
    /// Addresses of local pods, and how many claim each.
    local: BTreeMap<IpAddr, u32>,
    interfaces: BTreeMap<IpAddr, String>,
    attachments: Attachments,
    masquerade: Option<Masquerade>,
    overlay: Option<Overlay>,
    endpoints: BTreeMap<ObjectName, Endpoint>,
    /// Plans by what they follow from (`None`: not isolated); valid until a policy changes.
    plans: FxHashMap<Question, Option<PlanId>>,
    addresses: BTreeMap<IpAddr, AddressState>,
    /// Users of each interface in the table.
    interface_uses: BTreeMap<String, u32>,
    stale_endpoints: BTreeSet<ObjectName>,
    stale_addresses: BTreeSet<IpAddr>,
    content: Content,
    delta: Delta,
    faults: BTreeMap<Key, Vec<Fault>>,
    /// Kinds being listed, and what the listing has named so far.
    listings: BTreeMap<Kind, BTreeSet<Key>>,
    listed: BTreeSet<Kind>,
    generation: u64,
    in_flight_generation: u64,
    programmed_generation: u64,
    next_transaction: u64,
    committed: u64,
    refused: u64,
}

impl Engine {
    /// The engine of the node with this name.
    #[must_use]
    pub fn new(node_name: impl Into<String>) -> Self {
        let mut engine = Self {
            node: node_name.into(),
            index: Index::default(),
            policies: BTreeMap::new(),
            subjects: BTreeMap::new(),
            pod_cidrs: Vec::new(),
            claimants: FxHashMap::default(),
            shared: BTreeSet::new(),
            local: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            attachments: Attachments::default(),
            masquerade: None,
            overlay: None,
            endpoints: BTreeMap::new(),
            plans: FxHashMap::default(),
            addresses: BTreeMap::new(),
            interface_uses: BTreeMap::new(),
            stale_endpoints: BTreeSet::new(),
            stale_addresses: BTreeSet::new(),
            content: Content::default(),
            delta: Delta::default(),
            faults: BTreeMap::new(),
            listings: BTreeMap::new(),
            listed: BTreeSet::new(),
            generation: 0,
            in_flight_generation: 0,
            programmed_generation: 0,
            next_transaction: 1,
            committed: 0,
            refused: 0,
        };
        for (name, set) in baseline::sets() {
            engine.delta.add_set(&name, set);
        }
        engine.put_base_chains();
        engine
    }

    /// Takes one change in. Returns what is wrong with it; the same faults stay in
    /// [`Engine::faults`] until the object is applied without them or deleted.
    pub fn handle(&mut self, event: Event) -> Vec<Fault> {
        self.generation += 1;
        match event {
            Event::Apply(object) => self.apply(&object),
            Event::Delete(key) => {
                if let Some(seen) = self.listings.get_mut(&key.kind) {
                    seen.remove(&key);
                }
                self.delete(&key);
                Vec::new()
            }
            Event::RelistBegin(kind) => {
                self.listings.insert(kind, BTreeSet::new());
                Vec::new()
            }
            Event::RelistEnd(kind) => {
                self.end_listing(kind);
                Vec::new()
            }
            Event::Interface { address, interface } => {
                self.set_interface(address, interface);
                Vec::new()
            }
            Event::Masquerade(masquerade) => {
                self.set_masquerade(masquerade);
                Vec::new()
            }
            Event::Overlay(overlay) => {
                self.set_overlay(overlay);
                Vec::new()
            }
            Event::Attachment { id, namespace, name, uid, addresses, interface } => {
                let pod = ObjectName::new(&namespace, &name);
                self.attach(id, Attached { pod, uid, addresses, interface });
                Vec::new()
            }
            Event::Detachment { id } => {
                self.detach(&id);
                Vec::new()
            }
        }
    }

    /// Every kind has been listed once.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.listed.len() == KINDS.len()
    }

    /// The next change for the kernel. `None` while not in sync, while one is unacknowledged, and
    /// when the kernel holds what is desired.
    ///
    /// After a refusal the next call gives a new transaction at once: when to try again, and
    /// whether to read the table back and [`Engine::adopt`] it first, is up to the caller.
    pub fn poll_transaction(&mut self) -> Option<Transaction> {
        if !self.in_sync() || self.delta.awaits_acknowledgement() {
            return None;
        }
        self.settle();
        let transaction = self.delta.transaction(self.next_transaction);
        if transaction.is_some() {
            self.next_transaction += 1;
            self.in_flight_generation = self.generation;
        } else {
            self.programmed_generation = self.generation;
        }
        transaction
    }

    /// What became of a transaction. An answer to any but the one in flight is ignored.
    pub fn acknowledge(&mut self, id: u64, result: Result<(), ApplyError>) {
        let taken = result.is_ok();
        if !self.delta.acknowledge(id, taken) {
            return;
        }
        if taken {
            self.committed += 1;
            self.programmed_generation = self.in_flight_generation;
        } else {
            self.refused += 1;
        }
    }

    /// Takes `observed` for what the kernel holds, whatever we believed; `None` = no table of
    /// ours. The next transaction is the difference. For a restart, and when somebody else has
    /// changed the table.
    pub fn adopt(&mut self, observed: Option<Table>) {
        self.settle();
        self.delta.adopt(observed);
    }

    /// Works out what events have left to be worked out. [`Engine::poll_transaction`] does it too.
    pub fn settle(&mut self) {
        while let Some(name) = self.stale_endpoints.pop_first() {
            self.refresh_endpoint(&name);
        }
        while let Some(address) = self.stale_addresses.pop_first() {
            self.refresh_address(address);
        }
    }

    /// The table we want, as of the last [`Engine::settle`].
    #[must_use]
    pub fn desired(&self) -> &Table {
        self.delta.desired()
    }

    /// [`Engine::desired`] as an nft script.
    #[must_use]
    pub fn script(&self) -> String {
        text::script(self.delta.desired())
    }

    /// Number of events handled.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All events up to this one are in the kernel.
    #[must_use]
    pub fn programmed_generation(&self) -> u64 {
        self.programmed_generation
    }

    /// Name of our node.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.node
    }

    /// Pod CIDRs of our node.
    #[must_use]
    pub fn pod_cidrs(&self) -> &[IpNet] {
        &self.pod_cidrs
    }

    /// Addresses of pods on our node: those for which [`Event::Interface`] is wanted.
    pub fn local_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.local.keys().copied()
    }

    /// All that is wrong with the current objects, by object.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let conflicts = self.shared.iter().flat_map(|address| self.conflicts(*address));
        let mut faults: Vec<Fault> =
            self.faults.values().flatten().cloned().chain(conflicts).collect();
        faults.sort_unstable();
        faults
    }

    fn apply(&mut self, object: &Object) -> Vec<Fault> {
        let Some(key) = self.key_of(object) else {
            return self.nameless(object);
        };
        if let Some(seen) = self.listings.get_mut(&key.kind) {
            seen.insert(key.clone());
        }
        match object {
            Object::Node(node) => self.apply_node(&key, node),
            Object::Namespace(namespace) => self.apply_namespace(&key, namespace),
            Object::Pod(pod) => self.apply_pod(&key, pod),
            Object::NetworkPolicy(policy) => self.apply_policy(&key, policy),
        }
    }

    fn delete(&mut self, key: &Key) {
        self.faults.remove(key);
        let name = ObjectName::new(&key.namespace, &key.name);
        match key.kind {
            Kind::Node => {
                if key.name == self.node {
                    self.set_pod_cidrs(Vec::new());
                }
            }
            Kind::Namespace => self.set_namespace(&key.name, None),
            Kind::Pod => self.remove_pod(&name),
            Kind::NetworkPolicy => self.remove_policy(&name),
        }
    }

    /// A listing without a beginning says nothing about what is gone, so it does not count.
    fn end_listing(&mut self, kind: Kind) {
        let Some(seen) = self.listings.remove(&kind) else { return };
        for key in self.keys_of(kind) {
            if !seen.contains(&key) {
                self.delete(&key);
            }
        }
        self.listed.insert(kind);
    }

    fn set_pod_cidrs(&mut self, cidrs: Vec<IpNet>) {
        if self.pod_cidrs != cidrs {
            self.pod_cidrs = cidrs;
            self.put_base_chains();
        }
    }

    fn put_base_chains(&mut self) {
        for (name, chain) in baseline::chains(&self.pod_cidrs) {
            let chain: Chain = chain;
            self.delta.put_chain(&name, chain);
        }
    }

    /// Replaces the faults of an object.
    fn note(&mut self, key: &Key, faults: Vec<Fault>) -> Vec<Fault> {
        if faults.is_empty() {
            self.faults.remove(key);
        } else {
            self.faults.insert(key.clone(), faults.clone());
        }
        faults
    }
}

//! Plans in use, and the content of their sets: which pod contributes which elements.
//!
//! A pod that joins or leaves a selector costs its own elements in the sets that use the selector,
//! whatever the number of pods, policies and peers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::compile::{FAMILIES, PeerSet, Plan, Source, compile};
use super::delta::Delta;
use super::ir::{Element, IpFamily, Set, Value};
use crate::index::{Index, SelectorId};
use crate::input::Pod;
use crate::resolve::Effective;

pub(crate) type PlanId = u64;
type PeerSetId = u64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Content {
    plans: FxHashMap<PlanId, PlanEntry>,
    plan_ids: FxHashMap<Arc<Effective>, PlanId>,
    peer_sets: FxHashMap<PeerSetId, PeerSetEntry>,
    peer_set_ids: FxHashMap<Arc<PeerSet>, PeerSetId>,
    /// What a selector feeds.
    feeds: FxHashMap<SelectorId, Vec<Feed>>,
    /// Uses by plans.
    fixed_sets: BTreeMap<String, u32>,
    chains: BTreeMap<String, u32>,
    next_id: u64,
}

#[derive(Debug)]
struct PlanEntry {
    effective: Arc<Effective>,
    plan: Arc<Plan>,
    peer_sets: Vec<PeerSetId>,
    uses: u32,
}

#[derive(Debug)]
struct PeerSetEntry {
    set: Arc<PeerSet>,
    names: [String; 2],
    selectors: Vec<SelectorId>,
    /// Contributions beyond the first, where there are any.
    more: FxHashMap<Peer, u32>,
    uses: u32,
}

#[derive(Clone, Copy, Debug)]
struct Feed {
    set: PeerSetId,
    /// Which of the set's sources.
    source: usize,
}

/// Address, and protocol and port unless any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Peer {
    address: IpAddr,
    port: Option<(u8, u16)>,
}

impl Content {
    pub(crate) fn plan(&self, id: PlanId) -> Option<&Arc<Plan>> {
        self.plans.get(&id).map(|entry| &entry.plan)
    }

    /// One more use of the plan of an effective policy.
    pub(crate) fn acquire(
        &mut self,
        effective: Effective,
        index: &mut Index,
        delta: &mut Delta,
    ) -> PlanId {
        if let Some(id) = self.plan_ids.get(&effective)
            && let Some(entry) = self.plans.get_mut(id)
        {
            entry.uses += 1;
            return *id;
        }
        let plan = compile(&effective);
        for (name, set) in &plan.fixed_sets {
            let uses = self.fixed_sets.entry(name.clone()).or_default();
            *uses += 1;
            if *uses == 1 {
                delta.add_set(name, set.clone());
            }
        }
        let sets = plan.peer_sets.iter();
        let peer_sets = sets.map(|set| self.acquire_peers(set, index, delta)).collect();
        for (name, chain) in &plan.chains {
            let uses = self.chains.entry(name.clone()).or_default();
            *uses += 1;
            if *uses == 1 {
                delta.put_chain(name, chain.clone());
            }
        }
        let id = self.next_id();
        let effective = Arc::new(effective);
        self.plan_ids.insert(Arc::clone(&effective), id);
        self.plans.insert(id, PlanEntry { effective, plan: Arc::new(plan), peer_sets, uses: 1 });
        id
    }

    /// One use less; the last one removes what nobody else uses.
    pub(crate) fn release(&mut self, id: PlanId, index: &mut Index, delta: &mut Delta) {
        let Some(entry) = self.plans.get_mut(&id) else { return };
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let Some(entry) = self.plans.remove(&id) else { return };
        self.plan_ids.remove(&entry.effective);
        for name in entry.plan.chains.keys() {
            if last_use(&mut self.chains, name) {
                delta.remove_chain(name);
            }
        }
        for name in entry.plan.fixed_sets.keys() {
            if last_use(&mut self.fixed_sets, name) {
                delta.remove_set(name);
            }
        }
        for set in entry.peer_sets {
            self.release_peers(set, index, delta);
        }
    }

    /// One more use of a plan, if it is still in use.
    pub(crate) fn acquire_again(&mut self, id: PlanId) -> bool {
        let entry = self.plans.get_mut(&id);
        entry.map(|entry| entry.uses += 1).is_some()
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn acquire_peers(
        &mut self,
        set: &Arc<PeerSet>,
        index: &mut Index,
        delta: &mut Delta,
    ) -> PeerSetId {
        if let Some(id) = self.peer_set_ids.get(set)
            && let Some(entry) = self.peer_sets.get_mut(id)
        {
            entry.uses += 1;
            return *id;
        }
        let id = self.next_id();
        let mut peers = Vec::new();
        let mut selectors = Vec::with_capacity(set.sources().len());
        for (number, source) in set.sources().iter().enumerate() {
            let selector = index.acquire(&source.query);
            selectors.push(selector);
            let feed = Feed { set: id, source: number };
            self.feeds.entry(selector).or_default().push(feed);
            for (_, member) in index.members(selector) {
                peers.extend(contributions(source, &member.pod));
            }
        }
        let mut entry = PeerSetEntry {
            set: Arc::clone(set),
            names: set.names(),
            selectors,
            more: FxHashMap::default(),
            uses: 1,
        };
        entry.fill(peers, delta);
        self.peer_set_ids.insert(Arc::clone(&entry.set), id);
        self.peer_sets.insert(id, entry);
        id
    }

    fn release_peers(&mut self, id: PeerSetId, index: &mut Index, delta: &mut Delta) {
        let Some(entry) = self.peer_sets.get_mut(&id) else { return };
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let Some(entry) = self.peer_sets.remove(&id) else { return };
        self.peer_set_ids.remove(&entry.set);
        for name in &entry.names {
            delta.remove_set(name);
        }
        for selector in entry.selectors {
            if let Some(feeds) = self.feeds.get_mut(&selector) {
                feeds.retain(|feed| feed.set != id);
                if feeds.is_empty() {
                    self.feeds.remove(&selector);
                }
            }
            index.release(selector);
        }
    }

    /// A pod now matches the selector.
    pub(crate) fn join(&mut self, selector: SelectorId, pod: &Pod, delta: &mut Delta) {
        for feed in self.feeds.get(&selector).into_iter().flatten() {
            if let Some(entry) = self.peer_sets.get_mut(&feed.set) {
                entry.contribute(feed.source, pod, delta);
            }
        }
    }

    /// A pod, as it was when it joined, matches the selector no more.
    pub(crate) fn leave(&mut self, selector: SelectorId, pod: &Pod, delta: &mut Delta) {
        for feed in self.feeds.get(&selector).into_iter().flatten() {
            if let Some(entry) = self.peer_sets.get_mut(&feed.set) {
                entry.withdraw(feed.source, pod, delta);
            }
        }
    }
}

impl PeerSetEntry {
    /// Makes the sets with their first content, all at once.
    fn fill(&mut self, mut peers: Vec<Peer>, delta: &mut Delta) {
        peers.sort_unstable();
        for same in peers.chunk_by(|a, b| a == b) {
            if let (Some(peer), Ok(more @ 1..)) = (same.first(), u32::try_from(same.len() - 1)) {
                self.more.insert(*peer, more);
            }
        }
        peers.dedup();
        for (name, kind) in self.names.iter().zip(FAMILIES) {
            let ours = peers.iter().filter(|peer| family(peer.address) == kind);
            let elements = ours.map(|peer| (element(*peer), None)).collect();
            delta.add_set(name, Set { spec: self.set.spec(kind), elements });
        }
    }

    fn contribute(&mut self, source: usize, pod: &Pod, delta: &mut Delta) {
        for peer in self.contributions(source, pod) {
            let (name, element) = self.locate(peer);
            let set = delta.desired().sets.get(name);
            if set.is_some_and(|set| set.elements.contains_key(&element)) {
                *self.more.entry(peer).or_default() += 1;
            } else {
                delta.set_element(name, element, Some(None));
            }
        }
    }

    fn contributions(&self, source: usize, pod: &Pod) -> Vec<Peer> {
        let source = self.set.sources().get(source);
        source.map(|source| contributions(source, pod)).unwrap_or_default()
    }

    fn withdraw(&mut self, source: usize, pod: &Pod, delta: &mut Delta) {
        for peer in self.contributions(source, pod) {
            match self.more.get_mut(&peer) {
                None => {
                    let (name, element) = self.locate(peer);
                    delta.set_element(name, element, None);
                }
                Some(1) => {
                    self.more.remove(&peer);
                }
                Some(more) => *more -= 1,
            }
        }
    }

    fn locate(&self, peer: Peer) -> (&str, Element) {
        let [v4, v6] = &self.names;
        let name = match family(peer.address) {
            IpFamily::V4 => v4,
            IpFamily::V6 => v6,
        };
        (name, element(peer))
    }
}

fn element(peer: Peer) -> Element {
    let mut key = Vec::with_capacity(if peer.port.is_some() { 3 } else { 1 });
    key.push(Value::from(peer.address));
    if let Some((protocol, port)) = peer.port {
        key.extend([Value::Proto(protocol), Value::Port(port)]);
    }
    Element::Key(key)
}

fn last_use(uses: &mut BTreeMap<String, u32>, name: &str) -> bool {
    let Some(count) = uses.get_mut(name) else { return false };
    *count -= 1;
    let last = *count == 0;
    if last {
        uses.remove(name);
    }
    last
}

pub(crate) fn family(address: IpAddr) -> IpFamily {
    if address.is_ipv4() { IpFamily::V4 } else { IpFamily::V6 }
}

/// What a pod adds to a set through one source.
fn contributions(source: &Source, pod: &Pod) -> Vec<Peer> {
    let mut ports = Vec::new();
    if source.ports.is_everything() {
        ports.push(None);
    }
    ports.extend(source.ports.each().map(|(protocol, port)| Some((protocol.number(), port))));
    for (protocol, name) in source.ports.names() {
        let number = pod.port(protocol, name);
        ports.extend(number.map(|number| Some((protocol.number(), number))));
    }
    // A name may stand for a number that is listed as well: one contribution all the same.
    ports.sort_unstable();
    ports.dedup();
    let within = |address: &&IpAddr| {
        source.within.as_ref().is_none_or(|block| {
            block.net.contains(*address) && !block.except.iter().any(|hole| hole.contains(*address))
        })
    };
    let addresses = pod.addresses.iter().filter(within);
    addresses
        .flat_map(|address| ports.iter().map(|port| Peer { address: *address, port: *port }))
        .collect()
}

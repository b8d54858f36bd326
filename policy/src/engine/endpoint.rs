//! Pods of our node: their chains, and the elements that dispatch to them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Engine;
use crate::index::SelectorId;
use crate::input::{Direction, NamedPort, ObjectName};
use crate::nft::baseline::{FROM, POD_INTERFACES, POD_SOURCES, PODS, TO};
use crate::nft::compile::preamble;
use crate::nft::content::{PlanId, family};
use crate::nft::ir::{Chain, Element, IpFamily, Value, Verdict};
use crate::nft::pod_chain;
use crate::resolve::Effective;

pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// Answers to keep; any pod of a node has two.
const MAX_REMEMBERED: usize = 4096;

/// What the plan of a pod follows from, as long as no policy changes.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    direction: Direction,
    /// Selectors of policy subjects that the pod matches.
    subjects: Vec<SelectorId>,
    /// Its named ports (ingress).
    ports: Box<[NamedPort]>,
}

/// A local pod in the table.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    pub(super) ingress: Option<Isolation>,
    pub(super) egress: Option<Isolation>,
}

/// A direction in which some policy isolates a pod.
#[derive(Debug)]
pub(super) struct Isolation {
    pub(super) chain: String,
    pub(super) plan: PlanId,
}

impl Endpoint {
    pub(super) fn isolation(&self, direction: Direction) -> Option<&Isolation> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    fn slot(&mut self, direction: Direction) -> &mut Option<Isolation> {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }
}

/// What is in the table for an address.
#[derive(Debug, Default)]
pub(super) struct AddressState {
    pub(super) interface: Option<String>,
}

impl Engine {
    /// Works out the policies of a pod that may or may not be there, and ours.
    pub(super) fn refresh_endpoint(&mut self, name: &ObjectName) {
        let mut endpoint = self.endpoints.remove(name).unwrap_or_default();
        let addresses = match self.index.find(name) {
            Some((_, entry)) if entry.pod.local => entry.pod.addresses.to_vec(),
            Some(_) | None => Vec::new(),
        };
        for direction in DIRECTIONS {
            let plan = if addresses.is_empty() { None } else { self.plan(name, direction) };
            self.isolate(name, endpoint.slot(direction), direction, plan, &addresses);
        }
        if !addresses.is_empty() {
            self.endpoints.insert(name.clone(), endpoint);
        }
        self.stale_addresses.extend(addresses);
    }

    /// The plan of the policies that isolate a pod in a direction; one more use of it.
    fn plan(&mut self, name: &ObjectName, direction: Direction) -> Option<PlanId> {
        let (_, entry) = self.index.find(name)?;
        let subjects = entry.selectors.iter().copied();
        let subjects: Vec<SelectorId> =
            subjects.filter(|selector| self.subjects.contains_key(selector)).collect();
        if subjects.is_empty() {
            return None;
        }
        let ports = match direction {
            Direction::Ingress => entry.pod.ports.clone(),
            Direction::Egress => Box::default(),
        };
        let question = Question { direction, subjects, ports };
        match self.plans.get(&question) {
            Some(None) => return None,
            Some(Some(plan)) if self.content.acquire_again(*plan) => return Some(*plan),
            Some(Some(_)) | None => {}
        }
        let policies = question.subjects.iter().filter_map(|subject| self.subjects.get(subject));
        let policies = policies.flat_map(BTreeMap::values);
        let effective = Effective::of(direction, &entry.pod, policies);
        let plan = effective
            .map(|effective| self.content.acquire(effective, &mut self.index, &mut self.delta));
        if self.plans.len() >= MAX_REMEMBERED {
            self.plans.clear();
        }
        self.plans.insert(question, plan);
        plan
    }

    /// Names of the policies among whose subjects are the members of any of these selectors.
    pub(super) fn policies_of<'a>(
        &'a self,
        selectors: &'a [u64],
    ) -> impl Iterator<Item = &'a ObjectName> {
        let subjects = selectors.iter().filter_map(|selector| self.subjects.get(selector));
        subjects.flat_map(BTreeMap::keys)
    }

    fn isolate(
        &mut self,
        name: &ObjectName,
        slot: &mut Option<Isolation>,
        direction: Direction,
        plan: Option<PlanId>,
        addresses: &[IpAddr],
    ) {
        let former = slot.take();
        if let Some(plan) = plan {
            let mut rules = preamble(direction, addresses);
            if let Some(plan) = self.content.plan(plan) {
                rules.extend(plan.rules.iter().cloned());
            }
            let chain = pod_chain(direction, name);
            self.delta.put_chain(&chain, Chain { hook: None, rules });
            *slot = Some(Isolation { chain, plan });
        }
        // Only now, so that what both use stays.
        if let Some(former) = former {
            if slot.is_none() {
                self.delta.remove_chain(&former.chain);
            }
            self.content.release(former.plan, &mut self.index, &mut self.delta);
        }
    }

    fn holder(&self, address: IpAddr) -> Option<&ObjectName> {
        self.owner(address).filter(|entry| entry.pod.local).map(|entry| &*entry.name)
    }

    /// Brings the elements of an address in line with the pod that has it.
    pub(super) fn refresh_address(&mut self, address: IpAddr) {
        let holder = self.holder(address);
        let endpoint = holder.and_then(|name| self.endpoints.get(name));
        let jump = |direction| {
            let isolation = endpoint.and_then(|endpoint| endpoint.isolation(direction));
            isolation.map(|isolation| Some(Verdict::Jump(isolation.chain.clone())))
        };
        let held = holder.is_some();
        let (from, to) = (jump(Direction::Egress), jump(Direction::Ingress));
        let element = Element::Key(vec![address.into()]);
        self.delta.set_element(of(PODS, address), element.clone(), held.then_some(None));
        self.delta.set_element(of(FROM, address), element.clone(), from);
        self.delta.set_element(of(TO, address), element, to);
        self.refresh_interface(address, held);
        if !held {
            self.addresses.remove(&address);
        }
    }

    /// The interface from which the address may come.
    fn refresh_interface(&mut self, address: IpAddr, held: bool) {
        let wanted = self.interfaces.get(&address).filter(|_| held).cloned();
        let state = self.addresses.entry(address).or_default();
        if state.interface == wanted {
            return;
        }
        let former = std::mem::replace(&mut state.interface, wanted.clone());
        let source = |interface: &str| {
            Element::Key(vec![Value::IfName(interface.to_owned()), address.into()])
        };
        let only = |interface: &str| Element::Key(vec![Value::IfName(interface.to_owned())]);
        if let Some(name) = wanted {
            *self.interface_uses.entry(name.clone()).or_default() += 1;
            self.delta.set_element(of(POD_SOURCES, address), source(&name), Some(None));
            self.delta.set_element(POD_INTERFACES, only(&name), Some(None));
        }
        if let Some(name) = former {
            self.delta.set_element(of(POD_SOURCES, address), source(&name), None);
            if let Some(uses) = self.interface_uses.get_mut(&name) {
                *uses -= 1;
                if *uses == 0 {
                    self.interface_uses.remove(&name);
                    self.delta.set_element(POD_INTERFACES, only(&name), None);
                }
            }
        }
    }

    /// The kernel knows interfaces by names of 1 to 15 octets; anything else is no interface.
    pub(super) fn set_interface(&mut self, address: IpAddr, interface: Option<String>) {
        match interface.filter(|name| (1..=15).contains(&name.len())) {
            Some(name) => self.interfaces.insert(address, name),
            None => self.interfaces.remove(&address),
        };
        self.stale_addresses.insert(address);
    }
}

/// That of the two sets which takes the address.
pub(super) fn of([v4, v6]: [&str; 2], address: IpAddr) -> &str {
    match family(address) {
        IpFamily::V4 => v4,
        IpFamily::V6 => v6,
    }
}

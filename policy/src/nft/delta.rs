//! Desired table, and how it differs from what the kernel has acknowledged.
//!
//! There is no second copy of the table: for each thing that differs we remember what the kernel
//! holds instead, like an undo log. A change that is taken back before it was sent leaves nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::ir::{Chain, Element, Set, SetSpec, Table, Verdict};
use super::transaction::{Step, Transaction};

/// What the kernel holds where it differs from what is desired.
#[derive(Debug, Default)]
struct Differences {
    sets: BTreeMap<String, KernelSet>,
    /// `None`: no such chain.
    chains: BTreeMap<String, Option<Chain>>,
}

#[derive(Debug)]
enum KernelSet {
    /// The same set but for these elements: `None` = not there, else there with this verdict.
    Elements(BTreeMap<Element, Option<Option<Verdict>>>),
    /// `None`: no such set.
    Whole(Option<Set>),
}

/// What an unacknowledged transaction will undo if it fails.
#[derive(Debug)]
struct InFlight {
    id: u64,
    differences: Differences,
    table_exists: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    desired: Table,
    differences: Differences,
    /// Our table is in the kernel.
    table_exists: bool,
    in_flight: Option<InFlight>,
    /// Number of elements in all desired sets.
    elements: usize,
}

impl Delta {
    pub(crate) fn desired(&self) -> &Table {
        &self.desired
    }

    pub(crate) fn element_count(&self) -> usize {
        self.elements
    }

    /// The kernel holds what is desired.
    pub(crate) fn is_settled(&self) -> bool {
        self.in_flight.is_none()
            && self.table_exists
            && self.differences.sets.is_empty()
            && self.differences.chains.is_empty()
    }

    pub(crate) fn awaits_acknowledgement(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The kernel holds the chain as desired.
    pub(crate) fn has_chain(&self, name: &str) -> bool {
        self.desired.chains.contains_key(name)
            && self.all_differences().all(|differences| !differences.chains.contains_key(name))
    }

    /// The kernel holds the set as desired.
    pub(crate) fn has_set(&self, name: &str) -> bool {
        self.desired.sets.contains_key(name)
            && self.all_differences().all(|differences| !differences.sets.contains_key(name))
    }

    /// The kernel holds this element as desired.
    pub(crate) fn has_element(&self, set: &str, element: &Element) -> bool {
        self.desired.sets.get(set).is_some_and(|set| set.elements.contains_key(element))
            && self.all_differences().all(|differences| match differences.sets.get(set) {
                None => true,
                Some(KernelSet::Elements(elements)) => !elements.contains_key(element),
                Some(KernelSet::Whole(_)) => false,
            })
    }

    fn all_differences(&self) -> impl Iterator<Item = &Differences> {
        [&self.differences].into_iter().chain(self.in_flight.as_ref().map(|f| &f.differences))
    }

    pub(crate) fn add_set(&mut self, name: &str, set: Set) {
        self.elements += set.elements.len();
        if let Some(former) = self.desired.sets.insert(name.to_owned(), set) {
            self.elements -= former.elements.len();
            self.forget_set(name, former);
        }
        let kernel = &mut self.differences.sets;
        kernel.entry(name.to_owned()).or_insert(KernelSet::Whole(None));
    }

    pub(crate) fn remove_set(&mut self, name: &str) {
        if let Some(former) = self.desired.sets.remove(name) {
            self.elements -= former.elements.len();
            self.forget_set(name, former);
        }
    }

    /// A set is no longer desired as it was: what the kernel has of it must be known as a whole.
    fn forget_set(&mut self, name: &str, mut former: Set) {
        let kernel = match self.differences.sets.remove(name) {
            None => Some(former),
            Some(KernelSet::Elements(elements)) => {
                undo(&mut former, elements);
                Some(former)
            }
            Some(KernelSet::Whole(kernel)) => kernel,
        };
        if kernel.is_some() {
            self.differences.sets.insert(name.to_owned(), KernelSet::Whole(kernel));
        }
    }

    /// Makes an element be there (with its verdict in a map) or not be there.
    pub(crate) fn set_element(
        &mut self,
        name: &str,
        element: Element,
        wanted: Option<Option<Verdict>>,
    ) {
        let Some(set) = self.desired.sets.get_mut(name) else { return };
        let former = match &wanted {
            Some(verdict) => set.elements.insert(element.clone(), verdict.clone()),
            None => set.elements.remove(&element),
        };
        if former == wanted {
            return;
        }
        match (former.is_some(), wanted.is_some()) {
            (false, true) => self.elements += 1,
            (true, false) => self.elements -= 1,
            (true, true) | (false, false) => {}
        }
        let Some(kernel) = self.differences.sets.get_mut(name) else {
            let elements = BTreeMap::from([(element, former)]);
            self.differences.sets.insert(name.to_owned(), KernelSet::Elements(elements));
            return;
        };
        if let KernelSet::Elements(elements) = kernel {
            let held = elements.entry(element.clone()).or_insert(former);
            if *held == wanted {
                elements.remove(&element);
            }
            if elements.is_empty() {
                self.differences.sets.remove(name);
            }
        }
    }

    pub(crate) fn put_chain(&mut self, name: &str, chain: Chain) {
        if self.desired.chains.get(name) != Some(&chain) {
            let former = self.desired.chains.insert(name.to_owned(), chain);
            self.chain_changed(name, former);
        }
    }

    pub(crate) fn remove_chain(&mut self, name: &str) {
        if let Some(former) = self.desired.chains.remove(name) {
            self.chain_changed(name, Some(former));
        }
    }

    fn chain_changed(&mut self, name: &str, former: Option<Chain>) {
        let kernel = self.differences.chains.entry(name.to_owned()).or_insert(former);
        if kernel.as_ref() == self.desired.chains.get(name) {
            self.differences.chains.remove(name);
        }
    }

    /// Takes `observed` for what the kernel holds (`None`: no table), whatever we believed.
    pub(crate) fn adopt(&mut self, observed: Option<Table>) {
        self.in_flight = None;
        self.differences = Differences::default();
        self.table_exists = observed.is_some();
        let mut observed = observed.unwrap_or_default();
        for (name, wanted) in &self.desired.sets {
            let kernel = match observed.sets.remove(name) {
                Some(held) if held.spec == wanted.spec => {
                    let elements = element_differences(wanted, held);
                    if elements.is_empty() {
                        continue;
                    }
                    KernelSet::Elements(elements)
                }
                other => KernelSet::Whole(other),
            };
            self.differences.sets.insert(name.clone(), kernel);
        }
        for (name, set) in observed.sets {
            self.differences.sets.insert(name, KernelSet::Whole(Some(set)));
        }
        for (name, wanted) in &self.desired.chains {
            let held = observed.chains.remove(name);
            if held.as_ref() != Some(wanted) {
                self.differences.chains.insert(name.clone(), held);
            }
        }
        for (name, chain) in observed.chains {
            self.differences.chains.insert(name, Some(chain));
        }
    }

    /// A set's declaration and a base chain's hook cannot be changed in place: start over, in one
    /// step.
    fn needs_rebuild(&self) -> bool {
        let sets = self.differences.sets.iter().any(|(name, kernel)| match kernel {
            KernelSet::Whole(Some(held)) => {
                self.desired.sets.get(name).is_some_and(|wanted| wanted.spec != held.spec)
            }
            KernelSet::Whole(None) | KernelSet::Elements(_) => false,
        });
        let chains = self.differences.chains.iter().any(|(name, held)| {
            let wanted = self.desired.chains.get(name);
            matches!((held, wanted), (Some(held), Some(wanted)) if held.hook != wanted.hook)
        });
        sets || chains
    }

    /// The differences as a transaction, which is then in flight.
    pub(crate) fn transaction(&mut self, id: u64) -> Option<Transaction> {
        if self.in_flight.is_some() || self.is_settled() {
            return None;
        }
        let table_exists = std::mem::replace(&mut self.table_exists, true);
        let rebuild = self.needs_rebuild();
        let differences = std::mem::take(&mut self.differences);
        let steps = if rebuild {
            let mut plan = Plan::default();
            plan.create_all(&self.desired);
            let start = if table_exists { vec![Step::DeleteTable] } else { Vec::new() };
            plan.steps(start, true)
        } else {
            let mut plan = Plan::default();
            for (name, kernel) in &differences.sets {
                plan.set(name, kernel, self.desired.sets.get(name));
            }
            for (name, kernel) in &differences.chains {
                plan.chain(name, kernel.as_ref(), self.desired.chains.get(name));
            }
            plan.steps(Vec::new(), !table_exists)
        };
        if steps.is_empty() {
            return None;
        }
        self.in_flight = Some(InFlight { id, differences, table_exists });
        Some(Transaction { id, steps })
    }

    /// The kernel took the transaction, or refused it whole. `false`: it was not the one in flight.
    pub(crate) fn acknowledge(&mut self, id: u64, taken: bool) -> bool {
        if self.in_flight.as_ref().is_none_or(|in_flight| in_flight.id != id) {
            return false;
        }
        if let (Some(in_flight), false) = (self.in_flight.take(), taken) {
            self.take_back(in_flight);
        }
        true
    }

    /// The kernel still holds what it held before: that is older than what we noted since.
    fn take_back(&mut self, in_flight: InFlight) {
        self.table_exists = in_flight.table_exists;
        for (name, held) in in_flight.differences.sets {
            let now = self.differences.sets.remove(&name);
            let held = match (held, now) {
                (KernelSet::Elements(older), Some(KernelSet::Elements(mut newer))) => {
                    newer.extend(older);
                    KernelSet::Elements(newer)
                }
                (KernelSet::Elements(older), Some(KernelSet::Whole(Some(mut set)))) => {
                    undo(&mut set, older);
                    KernelSet::Whole(Some(set))
                }
                (older, _) => older,
            };
            self.differences.sets.insert(name, held);
        }
        self.differences.chains.extend(in_flight.differences.chains);
    }
}

/// Makes a set what the kernel holds.
fn undo(set: &mut Set, elements: BTreeMap<Element, Option<Option<Verdict>>>) {
    for (element, held) in elements {
        match held {
            Some(verdict) => set.elements.insert(element, verdict),
            None => set.elements.remove(&element),
        };
    }
}

/// What the kernel holds of the elements in which `held` differs from `wanted`.
fn element_differences(wanted: &Set, held: Set) -> BTreeMap<Element, Option<Option<Verdict>>> {
    let mut held = held.elements;
    let mut differences = BTreeMap::new();
    for (element, verdict) in &wanted.elements {
        let kernel = held.remove(element);
        if kernel.as_ref() != Some(verdict) {
            differences.insert(element.clone(), kernel);
        }
    }
    differences.extend(held.into_iter().map(|(element, verdict)| (element, Some(verdict))));
    differences
}

type Elements = (SetSpec, Vec<(Element, Option<Verdict>)>);

/// Steps by the order in which the kernel must see them.
#[derive(Debug, Default)]
struct Plan {
    new_sets: Vec<(String, SetSpec)>,
    new_chains: Vec<Step>,
    removed_elements: BTreeMap<String, Elements>,
    added_elements: BTreeMap<String, Elements>,
    rules: Vec<Step>,
    flushed_chains: Vec<String>,
    removed_sets: Vec<String>,
    removed_chains: BTreeSet<String>,
}

impl Plan {
    fn create_all(&mut self, table: &Table) {
        for (name, set) in &table.sets {
            self.set(name, &KernelSet::Whole(None), Some(set));
        }
        for (name, chain) in &table.chains {
            self.chain(name, None, Some(chain));
        }
    }

    fn set(&mut self, name: &str, kernel: &KernelSet, wanted: Option<&Set>) {
        match (kernel, wanted) {
            (KernelSet::Whole(None), None) | (KernelSet::Elements(_), None) => {}
            (KernelSet::Whole(None), Some(wanted)) => {
                self.new_sets.push((name.to_owned(), wanted.spec.clone()));
                if !wanted.elements.is_empty() {
                    let elements = wanted.elements.iter().map(|(k, v)| (k.clone(), v.clone()));
                    let elements = (wanted.spec.clone(), elements.collect());
                    self.added_elements.insert(name.to_owned(), elements);
                }
            }
            (KernelSet::Whole(Some(held)), None) => {
                // Elements of a map hold on to the chains that they name; a plain set's go with it.
                if held.spec.verdict_map {
                    for (element, verdict) in &held.elements {
                        self.element(name, held, element, Some(verdict.clone()), None);
                    }
                }
                self.removed_sets.push(name.to_owned());
            }
            (KernelSet::Whole(Some(held)), Some(wanted)) => {
                for (element, held) in element_differences(wanted, held.clone()) {
                    let verdict = wanted.elements.get(&element).cloned();
                    self.element(name, wanted, &element, held, verdict);
                }
            }
            (KernelSet::Elements(elements), Some(wanted)) => {
                for (element, held) in elements {
                    let verdict = wanted.elements.get(element).cloned();
                    self.element(name, wanted, element, held.clone(), verdict);
                }
            }
        }
    }

    fn element(
        &mut self,
        name: &str,
        set: &Set,
        element: &Element,
        held: Option<Option<Verdict>>,
        wanted: Option<Option<Verdict>>,
    ) {
        if held == wanted {
            return;
        }
        for (list, verdict) in
            [(&mut self.removed_elements, held), (&mut self.added_elements, wanted)]
        {
            let Some(verdict) = verdict else { continue };
            if let Some((_, elements)) = list.get_mut(name) {
                elements.push((element.clone(), verdict));
            } else {
                let elements = vec![(element.clone(), verdict)];
                list.insert(name.to_owned(), (set.spec.clone(), elements));
            }
        }
    }

    fn chain(&mut self, name: &str, held: Option<&Chain>, wanted: Option<&Chain>) {
        match (held, wanted) {
            (None, None) => {}
            (None, Some(wanted)) => {
                self.new_chains.push(Step::AddChain(name.to_owned(), wanted.hook));
                self.rules(name, wanted);
            }
            (Some(held), Some(wanted)) => {
                if held.rules != wanted.rules {
                    if !held.rules.is_empty() {
                        self.rules.push(Step::FlushChain(name.to_owned()));
                    }
                    self.rules(name, wanted);
                }
            }
            (Some(held), None) => {
                if !held.rules.is_empty() {
                    self.flushed_chains.push(name.to_owned());
                }
                self.removed_chains.insert(name.to_owned());
            }
        }
    }

    fn rules(&mut self, name: &str, chain: &Chain) {
        let rules = chain.rules.iter().cloned();
        self.rules.extend(rules.map(|rule| Step::AddRule(name.to_owned(), rule)));
    }

    /// Chains (empty yet), then sets, then what names them; elements leave before others come (ranges may
    /// overlap); what is no longer named goes last.
    fn steps(self, mut steps: Vec<Step>, new_table: bool) -> Vec<Step> {
        if new_table {
            steps.push(Step::AddTable);
        }
        steps.extend(self.new_chains);
        steps.extend(self.new_sets.into_iter().map(|(name, spec)| Step::AddSet(name, spec)));
        let removed = self.removed_elements.into_iter();
        steps.extend(removed.map(|(set, (spec, elements))| Step::DeleteElements {
            set,
            spec,
            elements,
        }));
        let added = self.added_elements.into_iter();
        steps.extend(added.map(|(set, (spec, elements))| Step::AddElements {
            set,
            spec,
            elements,
        }));
        steps.extend(self.rules);
        steps.extend(self.flushed_chains.into_iter().map(Step::FlushChain));
        steps.extend(self.removed_sets.into_iter().map(Step::DeleteSet));
        steps.extend(self.removed_chains.into_iter().map(Step::DeleteChain));
        steps
    }
}

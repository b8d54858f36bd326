//! A simulated kernel: executes transactions and refuses what nf_tables would refuse.

use std::collections::BTreeSet;

use policy::nft::ir::{
    Chain, Element, Field, IpFamily, Match, Rule, Set, SetSpec, Table, Type, Value, Verdict,
};
use policy::nft::transaction::{ApplyError, Step, Transaction};

const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ELOOP: i32 = 40;

/// The part of the kernel that is ours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) table: Option<Table>,
}

type Refusal = (i32, String);

impl Kernel {
    /// All or nothing.
    pub(crate) fn apply(&mut self, transaction: &Transaction) -> Result<(), ApplyError> {
        let mut next = self.table.clone();
        for (i, step) in transaction.steps.iter().enumerate() {
            execute(&mut next, step).map_err(|(errno, reason)| ApplyError {
                errno,
                step: Some(i),
                reason: format!("{reason} in {step:?}"),
            })?;
        }
        if let Some(table) = &next {
            check_jumps(table).map_err(|(errno, reason)| ApplyError {
                errno,
                step: None,
                reason,
            })?;
        }
        self.table = next;
        Ok(())
    }
}

fn refuse<T>(errno: i32, reason: impl Into<String>) -> Result<T, Refusal> {
    Err((errno, reason.into()))
}

fn execute(slot: &mut Option<Table>, step: &Step) -> Result<(), Refusal> {
    match step {
        Step::AddTable => {
            slot.get_or_insert_default();
            return Ok(());
        }
        Step::DeleteTable => {
            *slot = None;
            return Ok(());
        }
        _ => {}
    }
    let Some(table) = slot else { return refuse(ENOENT, "no table") };
    match step {
        Step::AddTable | Step::DeleteTable => Ok(()),
        Step::AddSet(name, spec) => add_set(table, name, spec),
        Step::DeleteSet(name) => {
            if !table.sets.contains_key(name) {
                return refuse(ENOENT, "no such set");
            }
            if table.chains.values().flat_map(|c| &c.rules).any(|rule| names_set(rule, name)) {
                return refuse(EBUSY, "a rule uses the set");
            }
            table.sets.remove(name);
            Ok(())
        }
        Step::AddElements { set, spec, elements } => add_elements(table, set, spec, elements),
        Step::DeleteElements { set, spec, elements } => {
            let held = set_of(table, set, spec)?;
            if elements.is_empty() {
                return refuse(EINVAL, "no elements");
            }
            for (element, _) in elements {
                if held.elements.remove(element).is_none() {
                    return refuse(ENOENT, format!("no such element {element:?}"));
                }
            }
            Ok(())
        }
        Step::AddChain(name, hook) => {
            check_name(name)?;
            if table.chains.contains_key(name) {
                return refuse(EEXIST, "chain exists");
            }
            table.chains.insert(name.clone(), Chain { hook: *hook, rules: Vec::new() });
            Ok(())
        }
        Step::FlushChain(name) => match table.chains.get_mut(name) {
            Some(chain) => {
                chain.rules.clear();
                Ok(())
            }
            None => refuse(ENOENT, "no such chain"),
        },
        Step::AddRule(name, rule) => {
            check_rule(table, rule)?;
            match table.chains.get_mut(name) {
                Some(chain) => {
                    chain.rules.push(rule.clone());
                    Ok(())
                }
                None => refuse(ENOENT, "no such chain"),
            }
        }
        Step::DeleteChain(name) => delete_chain(table, name),
    }
}

fn add_set(table: &mut Table, name: &str, spec: &SetSpec) -> Result<(), Refusal> {
    check_name(name)?;
    if table.sets.contains_key(name) {
        return refuse(EEXIST, "set exists");
    }
    if spec.key.is_empty() || (spec.interval && spec.key.len() > 1) {
        return refuse(EINVAL, "we have no such sets");
    }
    table.sets.insert(name.to_owned(), Set { spec: spec.clone(), elements: Default::default() });
    Ok(())
}

fn delete_chain(table: &mut Table, name: &str) -> Result<(), Refusal> {
    let Some(chain) = table.chains.get(name) else { return refuse(ENOENT, "no such chain") };
    if !chain.rules.is_empty() {
        return refuse(EBUSY, "the chain has rules");
    }
    if all_targets(table).any(|target| target == name) {
        return refuse(EBUSY, "something jumps to the chain");
    }
    table.chains.remove(name);
    Ok(())
}

fn add_elements(
    table: &mut Table,
    name: &str,
    spec: &SetSpec,
    elements: &[(Element, Option<Verdict>)],
) -> Result<(), Refusal> {
    for (_, verdict) in elements {
        if let Some(target) = verdict.as_ref().and_then(target) {
            check_target(table, target)?;
        }
        if matches!(verdict, Some(Verdict::Map { .. })) {
            return refuse(EINVAL, "map in a map");
        }
    }
    let set = set_of(table, name, spec)?;
    if elements.is_empty() {
        return refuse(EINVAL, "no elements");
    }
    for (element, verdict) in elements {
        if verdict.is_some() != spec.verdict_map {
            return refuse(EINVAL, "verdict without a map, or the reverse");
        }
        check_element(spec, element)?;
        if set.elements.contains_key(element) {
            return refuse(EEXIST, format!("element exists: {element:?}"));
        }
        if let Element::Range(first, last) = element {
            let overlaps = set.elements.keys().any(|other| match other {
                Element::Range(from, to) => first <= to && from <= last,
                Element::Key(_) => true,
            });
            if overlaps {
                return refuse(EEXIST, format!("range overlaps: {element:?}"));
            }
        }
        set.elements.insert(element.clone(), verdict.clone());
    }
    Ok(())
}

fn check_element(spec: &SetSpec, element: &Element) -> Result<(), Refusal> {
    let fits = match element {
        Element::Key(values) => {
            !spec.interval
                && values.len() == spec.key.len()
                && values.iter().zip(&spec.key).all(|(value, key)| type_of(value) == *key)
        }
        Element::Range(first, last) => {
            spec.interval
                && first <= last
                && [first, last].into_iter().all(|value| Some(&type_of(value)) == spec.key.first())
        }
    };
    if fits { Ok(()) } else { refuse(EINVAL, format!("element of another type: {element:?}")) }
}

fn set_of<'a>(table: &'a mut Table, name: &str, spec: &SetSpec) -> Result<&'a mut Set, Refusal> {
    match table.sets.get_mut(name) {
        None => refuse(ENOENT, format!("no set {name}")),
        Some(set) if set.spec != *spec => refuse(EINVAL, "another declaration"),
        Some(set) => Ok(set),
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let identifier = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if !identifier || name.is_empty() || name.len() > 255 {
        return refuse(EINVAL, format!("bad name {name:?}"));
    }
    Ok(())
}

fn check_target(table: &Table, name: &str) -> Result<(), Refusal> {
    match table.chains.get(name) {
        None => refuse(ENOENT, format!("no chain {name}")),
        Some(chain) if chain.hook.is_some() => refuse(EINVAL, "jump to a base chain"),
        Some(_) => Ok(()),
    }
}

fn check_rule(table: &Table, rule: &Rule) -> Result<(), Refusal> {
    let lookup = |key: &[Field], name: &str, map: bool| {
        let Some(set) = table.sets.get(name) else {
            return refuse(ENOENT, format!("no set {name}"));
        };
        let types: Vec<Type> = key.iter().map(|field| field_type(*field)).collect();
        if set.spec.verdict_map != map || set.spec.key != types {
            return refuse(EINVAL, format!("{name} does not take this key"));
        }
        Ok(())
    };
    for matched in &rule.matches {
        if let Match::Lookup { key, set, .. } = matched {
            lookup(key, set, false)?;
        }
    }
    if let Verdict::Map { key, map } = &rule.verdict {
        lookup(key, map, true)?;
    }
    match target(&rule.verdict) {
        Some(name) => check_target(table, name),
        None => Ok(()),
    }
}

fn names_set(rule: &Rule, name: &str) -> bool {
    let matched =
        rule.matches.iter().any(|m| matches!(m, Match::Lookup { set, .. } if set == name));
    matched || matches!(&rule.verdict, Verdict::Map { map, .. } if map == name)
}

fn target(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Jump(name) | Verdict::Goto(name) => Some(name),
        _ => None,
    }
}

fn all_targets(table: &Table) -> impl Iterator<Item = &str> {
    let rules = table.chains.values().flat_map(|c| &c.rules).map(|rule| &rule.verdict);
    let elements = table.sets.values().flat_map(|set| set.elements.values()).flatten();
    rules.chain(elements).filter_map(target)
}

/// No loops, and no jump deeper than 4 (DESIGN §7).
fn check_jumps(table: &Table) -> Result<(), Refusal> {
    fn visit(table: &Table, name: &str, depth: usize) -> Result<(), Refusal> {
        if depth > 4 {
            return refuse(ELOOP, format!("jumps too deep at {name}"));
        }
        let Some(chain) = table.chains.get(name) else { return refuse(ENOENT, "no chain") };
        let mut next: BTreeSet<&str> = BTreeSet::new();
        for rule in &chain.rules {
            next.extend(target(&rule.verdict));
            if let Verdict::Map { map, .. } = &rule.verdict {
                let elements = table.sets.get(map).into_iter().flat_map(|m| m.elements.values());
                next.extend(elements.flatten().filter_map(target));
            }
        }
        next.into_iter().try_for_each(|next| visit(table, next, depth + 1))
    }
    let mut bases = table.chains.iter().filter(|(_, chain)| chain.hook.is_some());
    bases.try_for_each(|(name, _)| visit(table, name, 0))
}

fn type_of(value: &Value) -> Type {
    match value {
        Value::Ipv4(_) => Type::Ipv4,
        Value::Ipv6(_) => Type::Ipv6,
        Value::Proto(_) => Type::Proto,
        Value::Port(_) => Type::Port,
        Value::IfName(_) => Type::IfName,
    }
}

fn field_type(field: Field) -> Type {
    match field {
        Field::Address(IpFamily::V4, _) => Type::Ipv4,
        Field::Address(IpFamily::V6, _) => Type::Ipv6,
        Field::L4Proto => Type::Proto,
        Field::DestinationPort => Type::Port,
        Field::InputInterface => Type::IfName,
    }
}

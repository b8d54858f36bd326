//! What the kernel holds of our table, told in terms of what we want there.
//!
//! Sets come back exactly. A chain comes back as desired if its rules are what our encoder makes
//! of the desired ones, and else with one rule that no compiler writes, so that the difference
//! rewrites the chain. Whatever someone else put into our table comes back as well, so that the
//! difference removes it. Of other tables nothing but names is looked at.

use std::collections::BTreeMap;

use nix::errno::Errno;
use policy::nft::ir::{BaseHook, Chain, Hook, Rule, Set, SetSpec, TABLE, Table, Verdict};

use super::compare::{AnonymousSets, DumpedRule};
use super::element::{Dumped, read_declaration};
use super::encode::{chain_type, hook_number};
use super::message::{Attributes, Buffer};
use super::socket::{Socket, SocketError};
use super::uapi::{self, LIST_ITEM, chain, element, message, netlink, rule, set};

/// Somebody changes the ruleset again and again: give up after so many tries.
const ATTEMPTS: usize = 50;

/// Stands for the rules of a chain that are not the desired ones.
const FOREIGN_RULE: &str = "not written by this agent";

/// Our table at one generation.
#[derive(Debug)]
pub(super) struct Observed {
    /// `None` if there is no table.
    pub(super) table: Option<Table>,
    /// Generation of the whole ruleset at which this was read.
    pub(super) generation: u32,
    /// What steps cannot repair: the writer does so by itself.
    pub(super) faults: Faults,
}

/// Properties of our table that someone else changed and that [`Table`] has no word for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// The table is switched off.
    pub(super) dormant: bool,
    /// Base chains whose policy is no longer accept.
    pub(super) policies: Vec<String>,
}

/// Reads the table, again until nothing changed meanwhile.
pub(super) fn read(socket: &mut Socket, desired: &Table) -> Result<Observed, SocketError> {
    for _ in 0..ATTEMPTS {
        let generation = socket.generation()?;
        match read_once(socket, desired) {
            Ok((table, faults)) if socket.generation()? == generation => {
                return Ok(Observed { table, generation, faults });
            }
            // A set may vanish between the listing and its dump.
            Ok(_)
            | Err(SocketError::Interrupted | SocketError::Refused { errno: Errno::ENOENT, .. }) => {
            }
            Err(e) => return Err(e),
        }
    }
    Err(SocketError::Interrupted)
}

fn read_once(socket: &mut Socket, desired: &Table) -> Result<(Option<Table>, Faults), SocketError> {
    let mut faults = Faults::default();
    match table_flags(socket) {
        Ok(flags) => faults.dormant = flags & uapi::TABLE_DORMANT != 0,
        Err(SocketError::Refused { errno: Errno::ENOENT, .. }) => return Ok((None, faults)),
        Err(e) => return Err(e),
    }
    let (sets, anonymous) = read_sets(socket, desired)?;
    let mut chains = BTreeMap::new();
    for head in read_chains(socket)? {
        if head.wrong_policy {
            faults.policies.push(head.name.clone());
        }
        chains.insert(head.name, (head.hook, Vec::new()));
    }
    for (name, rule) in read_rules(socket)? {
        if let Some((_, rules)) = chains.get_mut(&name) {
            rules.push(rule);
        }
    }
    let chains = chains.into_iter().map(|(name, (hook, rules))| {
        let want = desired.chains.get(&name).map(|c| c.rules.as_slice()).unwrap_or_default();
        let rules = recognise(&rules, want, &anonymous);
        (name, Chain { hook, rules })
    });
    Ok((Some(Table { sets, chains: chains.collect() }), faults))
}

fn our_table(buffer: &mut Buffer) {
    buffer.string(uapi::TABLE_NAME, TABLE);
}

fn table_flags(socket: &mut Socket) -> Result<u32, SocketError> {
    let mut flags = 0;
    socket.query(message::GET_TABLE, 0, our_table, |a| {
        flags = a.u32(uapi::TABLE_FLAGS).unwrap_or(flags);
    })?;
    Ok(flags)
}

fn is_ours(attributes: Attributes<'_>) -> bool {
    attributes.string(uapi::TABLE_NAME) == Some(TABLE)
}

/// A set's declaration as dumped; `None` for what we would never make.
struct SetHead {
    name: String,
    spec: Option<SetSpec>,
    anonymous: bool,
}

fn read_sets(
    socket: &mut Socket,
    desired: &Table,
) -> Result<(BTreeMap<String, Set>, AnonymousSets), SocketError> {
    let mut heads = Vec::new();
    socket.query(message::GET_SET, netlink::DUMP, our_table, |a| {
        if let (true, Some(name)) = (is_ours(a), a.string(set::NAME)) {
            heads.push(SetHead {
                name: name.to_owned(),
                spec: read_declaration(a),
                anonymous: a.u32(set::FLAGS).unwrap_or(0) & set::ANONYMOUS != 0,
            });
        }
    })?;
    let mut sets = BTreeMap::new();
    let mut anonymous = AnonymousSets::new();
    for SetHead { name, spec, anonymous: is_anonymous } in heads {
        if is_anonymous {
            let content = dump_elements(socket, &name, false)?;
            anonymous.insert(name, content);
            continue;
        }
        let observed = match &spec {
            Some(spec) => read_elements(socket, &name, spec, desired.sets.get(&name))?,
            None => None,
        };
        sets.insert(name, observed.unwrap_or_else(foreign_set));
    }
    Ok((sets, anonymous))
}

/// Content of a set; `None` if there is anything in it that we could not have written.
fn read_elements(
    socket: &mut Socket,
    name: &str,
    spec: &SetSpec,
    desired: Option<&Set>,
) -> Result<Option<Set>, SocketError> {
    let mut last: Option<Set> = None;
    // A hash table that is still growing may show an element twice or, when it moves between two
    // parts of a dump, not at all: so a difference is believed only if it is seen twice.
    for _ in 0..ATTEMPTS {
        let Some(elements) = dump_elements(socket, name, spec.verdict_map)?.decode(spec) else {
            return Ok(None);
        };
        let elements = match desired {
            Some(desired) => elements.into_iter().map(|e| desired.spelling(e)).collect(),
            None => elements,
        };
        let now = Some(Set { spec: spec.clone(), elements });
        if now.as_ref() == desired || now == last {
            return Ok(now);
        }
        last = now;
    }
    Err(SocketError::Interrupted)
}

/// The compiler may write a range of one value as a plain key.
trait Spelling {
    fn spelling(&self, entry: Entry) -> Entry;
}

type Entry = (policy::nft::ir::Element, Option<Verdict>);

impl Spelling for Set {
    fn spelling(&self, (found, verdict): Entry) -> Entry {
        use policy::nft::ir::Element;
        if let Element::Range(first, last) = &found
            && first == last
        {
            let key = Element::Key(vec![first.clone()]);
            if self.elements.contains_key(&key) {
                return (key, verdict);
            }
        }
        (found, verdict)
    }
}

fn dump_elements(
    socket: &mut Socket,
    name: &str,
    verdict_map: bool,
) -> Result<Dumped, SocketError> {
    let mut dumped = Dumped::default();
    let fill = |b: &mut Buffer| {
        our_table(b);
        b.string(element::SET, name);
    };
    socket.query(message::GET_ELEMENTS, netlink::DUMP, fill, |a| {
        for item in a.nest(element::LIST) {
            if item.kind == LIST_ITEM {
                dumped.add(Attributes(item.data), verdict_map);
            }
        }
    })?;
    Ok(dumped)
}

/// Differs from every set that a compiler declares, so it is deleted.
fn foreign_set() -> Set {
    let spec = SetSpec { key: Vec::new(), interval: false, verdict_map: false };
    Set { spec, elements: BTreeMap::new() }
}

struct ChainHead {
    name: String,
    hook: Option<BaseHook>,
    wrong_policy: bool,
}

fn read_chains(socket: &mut Socket) -> Result<Vec<ChainHead>, SocketError> {
    let mut heads = Vec::new();
    socket.query(message::GET_CHAIN, netlink::DUMP, our_table, |a| {
        let (true, Some(name)) = (is_ours(a), a.string(chain::NAME)) else { return };
        let hook = a.nest(chain::HOOK);
        let policy = a.u32(chain::POLICY).unwrap_or(chain::POLICY_ACCEPT);
        heads.push(ChainHead {
            name: name.to_owned(),
            // A chain of another type is not ours whatever its hook, and has to be made anew.
            hook: base_hook(hook).filter(|h| a.string(chain::TYPE) == Some(chain_type(h.hook))),
            wrong_policy: hook.u32(chain::HOOK_NUMBER).is_some() && policy != chain::POLICY_ACCEPT,
        });
    })?;
    Ok(heads)
}

fn base_hook(attributes: Attributes<'_>) -> Option<BaseHook> {
    let number = attributes.u32(chain::HOOK_NUMBER)?;
    let priority = attributes.find(chain::HOOK_PRIORITY)?.try_into().ok()?;
    [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting]
        .into_iter()
        .find(|h| hook_number(*h) == number)
        .map(|hook| BaseHook { hook, priority: i32::from_be_bytes(priority) })
}

fn read_rules(socket: &mut Socket) -> Result<Vec<(String, DumpedRule)>, SocketError> {
    let mut rules = Vec::new();
    socket.query(message::GET_RULE, netlink::DUMP, our_table, |a| {
        if let (true, Some(name)) = (is_ours(a), a.string(rule::CHAIN)) {
            rules.push((name.to_owned(), DumpedRule::new(a)));
        }
    })?;
    Ok(rules)
}

/// The desired rules if these are them, else something that differs from them.
fn recognise(found: &[DumpedRule], desired: &[Rule], sets: &AnonymousSets) -> Vec<Rule> {
    let same = found.len() == desired.len()
        && found.iter().zip(desired).all(|(found, desired)| found.is(desired, sets));
    if same {
        return desired.to_vec();
    }
    found
        .first()
        .map(|_| Rule {
            matches: Vec::new(),
            counter: false,
            verdict: Verdict::Continue,
            comment: Some(FOREIGN_RULE.to_owned()),
        })
        .into_iter()
        .collect()
}

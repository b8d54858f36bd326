//! The table as an nft script: for humans, goldens and `nft -c -f`. Never how we program.

use super::ir::{
    BaseHook, Chain, CtState, Element, Field, Hook, IpFamily, Match, Rule, Set, SetSpec, Side,
    TABLE, Table, Type, Value, Verdict,
};
use super::transaction::{Step, Transaction};

/// A script that makes exactly this table.
#[must_use]
pub fn script(table: &Table) -> String {
    let mut out = format!("table inet {TABLE} {{\n");
    // Chains are named before the maps that jump to them.
    for (name, chain) in &table.chains {
        if chain.hook.is_none() {
            line(&mut out, 1, &format!("chain {name} {{"));
            line(&mut out, 1, "}");
        }
    }
    for (name, set) in &table.sets {
        write_set(&mut out, name, set);
    }
    for (name, chain) in &table.chains {
        write_chain(&mut out, name, chain);
    }
    out.push_str("}\n");
    out
}

fn line(out: &mut String, depth: usize, text: &str) {
    for _ in 0..depth {
        out.push('\t');
    }
    out.push_str(text);
    out.push('\n');
}

/// The commands that do the same as a transaction, for `nft -f`.
#[must_use]
pub fn commands(transaction: &Transaction) -> String {
    transaction.steps.iter().map(|step| command(step) + "\n").collect()
}

fn command(step: &Step) -> String {
    let in_table =
        |verb: &str, kind: &str, rest: &str| format!("{verb} {kind} inet {TABLE} {rest}");
    let elements_of = |elements: &[(Element, Option<Verdict>)]| {
        let elements: Vec<String> = elements.iter().map(|(k, v)| element_text(k, v)).collect();
        format!("{{ {} }}", elements.join(", "))
    };
    match step {
        Step::AddTable => format!("add table inet {TABLE}"),
        // nft has no "delete if there" before 1.0.7; adding first comes to the same.
        Step::DeleteTable => format!("add table inet {TABLE}\ndelete table inet {TABLE}"),
        Step::AddSet(name, spec) => {
            let declaration = declaration(spec).join("; ");
            in_table("add", set_keyword(spec), &format!("{name} {{ {declaration}; }}"))
        }
        Step::DeleteSet(name) => in_table("delete", "set", name),
        Step::AddElements { set, elements, .. } => {
            in_table("add", "element", &format!("{set} {}", elements_of(elements)))
        }
        Step::DeleteElements { set, elements, .. } => {
            in_table("delete", "element", &format!("{set} {}", elements_of(elements)))
        }
        Step::AddChain(name, None) => in_table("add", "chain", name),
        Step::AddChain(name, Some(hook)) => {
            in_table("add", "chain", &format!("{name} {{ {} }}", hook_text(*hook)))
        }
        Step::FlushChain(name) => in_table("flush", "chain", name),
        Step::AddRule(name, rule) => {
            in_table("add", "rule", &format!("{name} {}", rule_text(rule)))
        }
        Step::DeleteChain(name) => in_table("delete", "chain", name),
    }
}

fn set_keyword(spec: &SetSpec) -> &'static str {
    if spec.verdict_map { "map" } else { "set" }
}

fn declaration(spec: &SetSpec) -> Vec<String> {
    let fields: Vec<&str> = spec.key.iter().map(|field| type_name(*field)).collect();
    let target = if spec.verdict_map { " : verdict" } else { "" };
    let mut lines = vec![format!("type {}{target}", fields.join(" . "))];
    if spec.interval {
        lines.push("flags interval".to_owned());
    }
    lines
}

fn write_set(out: &mut String, name: &str, set: &Set) {
    line(out, 1, &format!("{} {name} {{", set_keyword(&set.spec)));
    for text in declaration(&set.spec) {
        line(out, 2, &text);
    }
    if !set.elements.is_empty() {
        line(out, 2, "elements = {");
        for element in elements(set).lines() {
            line(out, 3, &format!("{element},"));
        }
        line(out, 2, "}");
    }
    line(out, 1, "}");
}

/// The elements of a set, one on a line.
pub(crate) fn elements(set: &Set) -> String {
    set.elements.iter().map(|(key, verdict)| element_text(key, verdict) + "\n").collect()
}

fn element_text(key: &Element, target: &Option<Verdict>) -> String {
    match target {
        None => element(key),
        Some(target) => format!("{} : {}", element(key), verdict(target)),
    }
}

fn element(element: &Element) -> String {
    match element {
        Element::Key(fields) => fields.iter().map(value).collect::<Vec<_>>().join(" . "),
        Element::Range(first, last) if first == last => value(first),
        Element::Range(first, last) => format!("{}-{}", value(first), value(last)),
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Ipv4(address) => address.to_string(),
        Value::Ipv6(address) => address.to_string(),
        Value::Proto(number) => number.to_string(),
        Value::Port(number) => number.to_string(),
        Value::IfName(name) => quoted(name),
    }
}

fn write_chain(out: &mut String, name: &str, chain: &Chain) {
    line(out, 1, &format!("chain {name} {{"));
    if let Some(hook) = chain.hook {
        line(out, 2, &hook_text(hook));
    }
    for rule in &chain.rules {
        line(out, 2, &rule_text(rule));
    }
    line(out, 1, "}");
}

fn hook_text(BaseHook { hook, priority }: BaseHook) -> String {
    let kind = if hook == Hook::Postrouting { "nat" } else { "filter" };
    format!("type {kind} hook {} priority {priority}; policy accept;", hook_name(hook))
}

/// One rule as nft prints it.
#[must_use]
pub fn rule_text(rule: &Rule) -> String {
    let mut parts: Vec<String> = rule.matches.iter().map(match_text).collect();
    if rule.counter {
        parts.push("counter".to_owned());
    }
    // A rule that only matches and counts goes on by itself.
    if rule.verdict != Verdict::Continue || parts.is_empty() {
        parts.push(verdict(&rule.verdict));
    }
    if let Some(comment) = &rule.comment {
        parts.push(format!("comment {}", quoted(comment)));
    }
    parts.join(" ")
}

fn match_text(matched: &Match) -> String {
    match matched {
        Match::CtState(states) => {
            let states: Vec<&str> = states.iter().map(|state| state_name(*state)).collect();
            format!("ct state {}", states.join(","))
        }
        Match::TcpNotSyn => "tcp flags & (fin | syn | rst | ack) != syn".to_owned(),
        Match::Address { side, net, negate } => {
            let family = if net.addr().is_ipv4() { IpFamily::V4 } else { IpFamily::V6 };
            let field = field_name(Field::Address(family, *side));
            let not = if *negate { "!= " } else { "" };
            if net.prefix_len() == net.max_prefix_len() {
                format!("{field} {not}{}", net.addr())
            } else {
                format!("{field} {not}{net}")
            }
        }
        Match::L4Proto(number) => format!("meta l4proto {number}"),
        Match::Icmpv6Type(types) => {
            let types: Vec<String> = types.iter().map(u8::to_string).collect();
            format!("icmpv6 type {{ {} }}", types.join(", "))
        }
        Match::Family(IpFamily::V4) => "meta nfproto ipv4".to_owned(),
        Match::Family(IpFamily::V6) => "meta nfproto ipv6".to_owned(),
        Match::Lookup { key, set, negate } => {
            let not = if *negate { "!= " } else { "" };
            format!("{} {not}@{set}", key_text(key))
        }
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
        Verdict::Masquerade => "masquerade".to_owned(),
        Verdict::Map { key, map } => format!("{} vmap @{map}", key_text(key)),
    }
}

fn key_text(key: &[Field]) -> String {
    key.iter().map(|field| field_name(*field)).collect::<Vec<_>>().join(" . ")
}

fn field_name(field: Field) -> &'static str {
    match field {
        Field::Address(IpFamily::V4, Side::Source) => "ip saddr",
        Field::Address(IpFamily::V4, Side::Destination) => "ip daddr",
        Field::Address(IpFamily::V6, Side::Source) => "ip6 saddr",
        Field::Address(IpFamily::V6, Side::Destination) => "ip6 daddr",
        Field::L4Proto => "meta l4proto",
        Field::DestinationPort => "th dport",
        Field::InputInterface => "iifname",
    }
}

fn type_name(field: Type) -> &'static str {
    match field {
        Type::Ipv4 => "ipv4_addr",
        Type::Ipv6 => "ipv6_addr",
        Type::Proto => "inet_proto",
        Type::Port => "inet_service",
        Type::IfName => "ifname",
    }
}

fn state_name(state: CtState) -> &'static str {
    match state {
        CtState::Invalid => "invalid",
        CtState::Established => "established",
        CtState::Related => "related",
        CtState::New => "new",
        CtState::Untracked => "untracked",
    }
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

/// nft knows no escapes in strings: what would end one is left out.
fn quoted(text: &str) -> String {
    let safe: String = text.chars().filter(|c| *c != '"' && !c.is_control()).collect();
    format!("\"{safe}\"")
}

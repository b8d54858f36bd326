//! Does a rule in the kernel do what a desired rule says? Both are compared as netlink attributes,
//! which needs no decoder of expressions: whatever the kernel adds (counter values, defaults) is
//! no difference, whatever it lacks or says otherwise is one.

use std::collections::BTreeMap;

use policy::nft::ir::Rule;

use super::element::Dumped;
use super::expression::{ANONYMOUS_NAME, AnonymousSet, anonymous_sets, write_rule};
use super::message::{Attributes, Buffer};
use super::uapi::{expression as x, rule};

/// Anonymous sets of the kernel by the name it gave them.
pub(super) type AnonymousSets = BTreeMap<String, Dumped>;

/// A rule as dumped.
#[derive(Clone, Debug)]
pub(super) struct DumpedRule {
    expressions: Vec<u8>,
    userdata: Option<Vec<u8>>,
}

impl DumpedRule {
    pub(super) fn new(attributes: Attributes<'_>) -> Self {
        Self {
            expressions: attributes.find(rule::EXPRESSIONS).unwrap_or_default().to_vec(),
            userdata: attributes.find(rule::USERDATA).map(<[u8]>::to_vec),
        }
    }

    /// Whether it is what our encoder makes of `desired`.
    pub(super) fn is(&self, desired: &Rule, kernel_sets: &AnonymousSets) -> bool {
        let sets = anonymous_sets(desired, 0);
        let mut buffer = Buffer::default();
        if write_rule(&mut buffer, desired, &sets).is_err() {
            return false;
        }
        let bytes = buffer.into_bytes();
        let encoded = Attributes(&bytes);
        if encoded.find(rule::USERDATA) != self.userdata.as_deref() {
            return false;
        }
        let mut sets = sets.iter();
        let mut dumped = Attributes(&self.expressions).into_iter();
        for desired in encoded.nest(rule::EXPRESSIONS) {
            let Some(dumped) = dumped.next() else { return false };
            let (desired, dumped) = (Attributes(desired.data), Attributes(dumped.data));
            let same = if names_anonymous_set(desired) {
                sets.next()
                    .is_some_and(|set| same_anonymous_lookup(desired, dumped, set, kernel_sets))
            } else {
                covers(desired, dumped)
            };
            if !same {
                return false;
            }
        }
        dumped.next().is_none()
    }
}

fn names_anonymous_set(expression: Attributes<'_>) -> bool {
    expression.string(x::NAME) == Some("lookup")
        && expression.nest(x::DATA).string(x::LOOKUP_SET) == Some(ANONYMOUS_NAME)
}

fn same_anonymous_lookup(
    desired: Attributes<'_>,
    dumped: Attributes<'_>,
    set: &AnonymousSet,
    kernel_sets: &AnonymousSets,
) -> bool {
    if dumped.string(x::NAME) != desired.string(x::NAME) {
        return false;
    }
    let (desired, dumped) = (desired.nest(x::DATA), dumped.nest(x::DATA));
    let Some(content) = dumped.string(x::LOOKUP_SET).and_then(|name| kernel_sets.get(name)) else {
        return false;
    };
    dumped.find(x::LOOKUP_SREG) == desired.find(x::LOOKUP_SREG)
        && dumped.find(x::LOOKUP_FLAGS) == desired.find(x::LOOKUP_FLAGS)
        && content.keys().eq(set.types.iter().map(std::slice::from_ref))
}

/// Every attribute of `desired` is in `dumped` with the same value; nests likewise.
fn covers(desired: Attributes<'_>, dumped: Attributes<'_>) -> bool {
    desired.into_iter().all(|want| {
        dumped.into_iter().find(|have| have.kind == want.kind).is_some_and(|have| {
            if want.nested {
                covers(Attributes(want.data), Attributes(have.data))
            } else {
                want.data == have.data
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::nft::ir::Verdict;

    fn rule(counter: bool, verdict: Verdict, comment: Option<&str>) -> Rule {
        Rule { matches: Vec::new(), counter, verdict, comment: comment.map(str::to_owned) }
    }

    /// What the kernel would dump for a rule, with a counter that has counted.
    fn dump(rule: &Rule) -> DumpedRule {
        let mut buffer = Buffer::default();
        write_rule(&mut buffer, rule, &[]).unwrap();
        DumpedRule::new(Attributes(&buffer.into_bytes()))
    }

    #[test]
    fn a_rule_is_itself_and_no_other() {
        let none = AnonymousSets::new();
        let all = [
            rule(false, Verdict::Drop, None),
            rule(true, Verdict::Drop, None),
            rule(false, Verdict::Accept, None),
            rule(false, Verdict::Drop, Some("why")),
            rule(false, Verdict::Jump("a".to_owned()), None),
            rule(false, Verdict::Jump("b".to_owned()), None),
            rule(false, Verdict::Goto("b".to_owned()), None),
        ];
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert_eq!(dump(a).is(b, &none), i == j, "{a:?} against {b:?}");
            }
        }
    }

    #[test]
    fn values_that_the_kernel_adds_are_no_difference() {
        let mut buffer = Buffer::default();
        buffer.nest(rule::EXPRESSIONS, |b| {
            b.nest(1, |b| {
                b.string(x::NAME, "counter");
                b.nest(x::DATA, |b| {
                    b.attribute(1, &7u64.to_be_bytes());
                    b.attribute(2, &9u64.to_be_bytes());
                });
            });
            b.nest(1, |b| {
                b.string(x::NAME, "immediate");
                b.nest(x::DATA, |b| {
                    b.u32(x::IMMEDIATE_DREG, 0);
                    b.nest(x::IMMEDIATE_DATA, |b| b.nest(2, |b| b.u32(1, 0)));
                });
            });
        });
        let bytes = buffer.into_bytes();
        let dumped = DumpedRule::new(Attributes(&bytes));
        assert!(dumped.is(&rule(true, Verdict::Drop, None), &AnonymousSets::new()));
    }
}

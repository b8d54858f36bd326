//! Labels and label selectors.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use crate::fault::{FieldFault, Path, Reason};

/// Labels of an object, sorted by key; the pods of one Deployment share them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    pub(crate) fn new(labels: Option<&BTreeMap<String, String>>) -> Self {
        let pairs = labels.into_iter().flatten();
        Self(pairs.map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect())
    }

    /// Labels of a namespace. The API server sets `kubernetes.io/metadata.name` on each; other
    /// sources need not.
    pub(crate) fn of_namespace(name: &str, labels: Option<&BTreeMap<String, String>>) -> Self {
        let mut all = labels.cloned().unwrap_or_default();
        all.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        Self::new(Some(&all))
    }

    /// Somebody else has the same.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }
}

/// A label selector in canonical form: all requirements must hold; none = everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LabelSelector {
    /// Sorted, without duplicates.
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Requirement {
    key: String,
    test: Test,
}

/// What is asked of the value of a key. Values are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// What can be read of a selector; the rest is in `faults`.
    pub(crate) fn parse(
        raw: &meta::LabelSelector,
        path: &Path<'_>,
        faults: &mut Vec<FieldFault>,
    ) -> Self {
        let mut requirements = Vec::new();
        let labels = path.field("matchLabels");
        for (key, value) in raw.match_labels.iter().flatten() {
            let at = labels.key(key);
            if check_key(key, &at, faults) && check_value(value, &at, faults) {
                let test = Test::In(vec![value.clone()]);
                requirements.push(Requirement { key: key.clone(), test });
            }
        }
        let expressions = path.field("matchExpressions");
        for (i, expression) in raw.match_expressions.iter().flatten().enumerate() {
            requirements.extend(Requirement::parse(expression, &expressions.index(i), faults));
        }
        requirements.sort_unstable();
        requirements.dedup();
        Self { requirements }
    }

    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// A key and the values of which a matching object must have one, if the selector has such a
    /// requirement: what an index can go by.
    pub(crate) fn anchor(&self) -> Option<(&str, &[String])> {
        self.requirements.iter().find_map(|requirement| match &requirement.test {
            Test::In(values) => Some((requirement.key.as_str(), values.as_slice())),
            Test::NotIn(_) | Test::Exists | Test::DoesNotExist => None,
        })
    }
}

impl Requirement {
    fn parse(
        raw: &meta::LabelSelectorRequirement,
        path: &Path<'_>,
        faults: &mut Vec<FieldFault>,
    ) -> Option<Self> {
        if !check_key(&raw.key, &path.field("key"), faults) {
            return None;
        }
        let given = raw.values.as_deref().unwrap_or_default();
        let at = path.field("values");
        let mut wrong = |message: &str| {
            let message = format!("operator {} {message}", raw.operator);
            faults.push(FieldFault::new(&at, Reason::InvalidSelectorValues, message));
            None
        };
        let test = match raw.operator.as_str() {
            "In" | "NotIn" if given.is_empty() => return wrong("needs at least one value"),
            "Exists" | "DoesNotExist" if !given.is_empty() => return wrong("takes no values"),
            "In" => Test::In(values(given, &at, faults)?),
            "NotIn" => Test::NotIn(values(given, &at, faults)?),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            other => {
                let message = format!("{other:?} is not one of In, NotIn, Exists, DoesNotExist");
                let fault =
                    FieldFault::new(&path.field("operator"), Reason::InvalidOperator, message);
                faults.push(fault);
                return None;
            }
        };
        Some(Self { key: raw.key.clone(), test })
    }

    /// NotIn and DoesNotExist hold for an absent key, as Kubernetes defines.
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let among = |values: &[String], value: &str| {
            values.binary_search_by(|candidate| candidate.as_str().cmp(value)).is_ok()
        };
        match &self.test {
            Test::In(values) => value.is_some_and(|value| among(values, value)),
            Test::NotIn(values) => !value.is_some_and(|value| among(values, value)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        }
    }
}

/// All values, sorted, or nothing if one of them is no label value.
fn values(given: &[String], path: &Path<'_>, faults: &mut Vec<FieldFault>) -> Option<Vec<String>> {
    let mut good = true;
    for (i, value) in given.iter().enumerate() {
        good &= check_value(value, &path.index(i), faults);
    }
    let mut values = given.to_vec();
    values.sort_unstable();
    values.dedup();
    good.then_some(values)
}

fn check_key(key: &str, path: &Path<'_>, faults: &mut Vec<FieldFault>) -> bool {
    let good = match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_label_name(name),
        None => is_label_name(key),
    };
    if !good {
        let message = format!("{key:?} is not a label key");
        faults.push(FieldFault::new(path, Reason::InvalidLabelKey, message));
    }
    good
}

fn check_value(value: &str, path: &Path<'_>, faults: &mut Vec<FieldFault>) -> bool {
    let good = value.is_empty() || is_label_name(value);
    if !good {
        let message = format!("{value:?} is not a label value");
        faults.push(FieldFault::new(path, Reason::InvalidLabelValue, message));
    }
    good
}

/// At most 63 of `[A-Za-z0-9._-]`, alphanumeric at both ends.
fn is_label_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// DNS subdomain, RFC 1123.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            !bytes.is_empty()
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// The syntax of `kubectl -l`: text that names a selector, equal for equal selectors only (keys
/// and values are checked, so none of them holds a delimiter).
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Requirement { key, test }) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match test {
                Test::In(values) => match values.as_slice() {
                    [value] => write!(f, "{key}={value}")?,
                    values => write!(f, "{key} in ({})", values.join(","))?,
                },
                Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Test::Exists => f.write_str(key)?,
                Test::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

//! What differs between an object as it is and as it would be: field by field, for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kube::api::DynamicObject;
use serde_json::Value;

/// What others write into annotations by themselves whenever an object is applied.
const NOISE: [&str; 3] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.daemonset.template.generation",
    "deployment.kubernetes.io/revision",
];
/// Of a longer value only so many characters are shown.
const SHOWN: usize = 72;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where: `spec.template.spec.containers[agent].image`.
    pub path: String,
    /// What is there now and would not be; of a list only those items. `None` if nothing.
    pub from: Option<String>,
    /// What would be there instead.
    pub to: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{path}: {from} -> {to}"),
            (None, Some(to)) => write!(f, "{path}: + {to}"),
            (Some(from), None) => write!(f, "{path}: - {from}"),
            (None, None) => write!(f, "{path}: another order"),
        }
    }
}

/// Every field that differs, by path.
pub(super) fn changes(old: &DynamicObject, new: &DynamicObject) -> Vec<Change> {
    let mut found = Vec::new();
    walk("", &comparable(old), &comparable(new), &mut found);
    found
}

/// Without what the API server writes by itself.
fn comparable(object: &DynamicObject) -> Value {
    let mut metadata = object.metadata.clone();
    metadata.managed_fields = None;
    metadata.resource_version = None;
    metadata.generation = None;
    metadata.uid = None;
    metadata.creation_timestamp = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| !NOISE.contains(&key.as_str()));
    }
    metadata.annotations = metadata.annotations.filter(|annotations| !annotations.is_empty());
    let mut value = object.data.clone();
    if let Value::Object(fields) = &mut value {
        fields.remove("status");
        fields.insert("metadata".to_owned(), serde_json::to_value(&metadata).unwrap_or_default());
    }
    value
}

fn walk(path: &str, old: &Value, new: &Value, found: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let null = Value::Null;
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for key in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, old.get(key).unwrap_or(&null), new.get(key).unwrap_or(&null), found);
            }
        }
        (Value::Array(old), Value::Array(new)) => match (by_name(old), by_name(new)) {
            (Some(old), Some(new)) if old.keys().ne(new.keys()) || old != new => {
                for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
                    let item = |items: &BTreeMap<&str, &Value>| {
                        items.get(name).map_or(Value::Null, |item| (*item).clone())
                    };
                    walk(&format!("{path}[{name}]"), &item(&old), &item(&new), found);
                }
            }
            _ => found.push(Change {
                path: path.to_owned(),
                from: without(old, new),
                to: without(new, old),
            }),
        },
        _ => found.push(Change { path: path.to_owned(), from: shown(old), to: shown(new) }),
    }
}

/// Items of a list that Kubernetes merges by `name`: containers, volumes, variables.
fn by_name(items: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let mut named = BTreeMap::new();
    for item in items {
        let name = item.get("name").and_then(Value::as_str)?;
        if named.insert(name, item).is_some() {
            return None;
        }
    }
    Some(named)
}

/// Those of `items` that are not among `others`.
fn without(items: &[Value], others: &[Value]) -> Option<String> {
    let mut others: Vec<&Value> = others.iter().collect();
    let mut left = Vec::new();
    for item in items {
        match others.iter().position(|other| *other == item) {
            Some(position) => drop(others.remove(position)),
            None => left.extend(shown(item)),
        }
    }
    (!left.is_empty()).then(|| left.join(" "))
}

fn shown(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() > SHOWN {
        return Some(text.chars().take(SHOWN).chain("...".chars()).collect());
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn told(old: &Value, new: &Value) -> Vec<String> {
        let mut found = Vec::new();
        walk("", old, new, &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_api_server_writes_is_no_difference() {
        let old = object(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": "x", "uid": "1", "resourceVersion": "5", "managedFields": [],
                "annotations": {"deprecated.daemonset.template.generation": "3"},
            },
            "status": {"phase": "Active"},
        }));
        let new =
            object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}));
        assert_eq!(changes(&old, &new), Vec::new());
    }

    #[test]
    fn a_difference_is_told_by_its_path_and_both_values() {
        let old = json!({"spec": {"a": 1, "gone": true, "same": 1}});
        let new = json!({"spec": {"a": "two", "new": {"b": 1}, "same": 1}});
        let expected = ["spec.a: 1 -> two", "spec.gone: - true", "spec.new: + {\"b\":1}"];
        assert_eq!(told(&old, &new), expected);
    }

    #[test]
    fn of_arguments_only_those_that_change_are_told() {
        let pod = |image: &str, level: &str| {
            let args = ["agent", "--log-format=text", level];
            json!({"containers": [{"name": "agent", "image": image, "args": args}]})
        };
        assert_eq!(
            told(&pod("r:1", "--log-level=info"), &pod("r:2", "--log-level=debug")),
            [
                "containers[agent].args: --log-level=info -> --log-level=debug",
                "containers[agent].image: r:1 -> r:2",
            ]
        );
        let more = json!({"containers": [{"name": "x"}, {"name": "agent"}]});
        let less = json!({"containers": [{"name": "agent"}]});
        assert_eq!(told(&more, &less), ["containers[x]: - {\"name\":\"x\"}"]);
    }

    #[test]
    fn another_order_and_long_values_are_told_briefly() {
        let order = told(&json!({"a": [1, 2]}), &json!({"a": [2, 1]}));
        assert_eq!(order, ["a: another order"]);
        let [long] = &told(&json!({}), &json!({"a": "x".repeat(500)}))[..] else { panic!() };
        assert!(long.len() < 100 && long.ends_with("..."), "{long}");
    }
}

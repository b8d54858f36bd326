//! What is left of a NetworkPolicy that does not parse and has no last good version: never more
//! open than what its author can have meant.
//!
//! | part | if it cannot be read |
//! |---|---|
//! | `podSelector` | its readable `matchLabels` alone (they select at least as much); without any, no policy |
//! | `policyTypes` | both directions are isolated |
//! | one rule | it admits nothing; the other rules stand |
//! | a field of `spec` that is not known | both directions are isolated, unless `policyTypes` says otherwise |

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;

use super::Key;
use super::deserialize::from_node;
use super::yaml::{Node, Value};

/// Builds the closed remainder; `None` if it is not known which pods it is about.
pub(super) fn network_policy(node: &Node, key: &Key) -> Option<NetworkPolicy> {
    let spec = node.get("spec")?;
    let Value::Mapping(entries) = &spec.value else { return None };
    let known = ["podSelector", "policyTypes", "ingress", "egress"];
    let stray = entries.iter().any(|entry| !known.contains(&entry.key.as_str()));
    let both = || vec!["Ingress".to_owned(), "Egress".to_owned()];
    let policy_types = match spec.get("policyTypes") {
        Some(types) => Some(strict(types).unwrap_or_else(both)),
        None if stray => Some(both()),
        // What Kubernetes defaults to depends on a list that may lose rules below.
        None => {
            let egress = spec
                .get("egress")
                .is_some_and(|egress| egress.as_sequence().is_none_or(|rules| !rules.is_empty()));
            Some(if egress { both() } else { vec!["Ingress".to_owned()] })
        }
    };
    let spec = NetworkPolicySpec {
        pod_selector: Some(pod_selector(spec)?),
        policy_types,
        ingress: spec.get("ingress").map(readable),
        egress: spec.get("egress").map(readable),
    };
    let metadata = ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        ..ObjectMeta::default()
    };
    Some(NetworkPolicy { metadata, spec: Some(spec) })
}

fn pod_selector(spec: &Node) -> Option<LabelSelector> {
    let Some(selector) = spec.get("podSelector") else { return Some(LabelSelector::default()) };
    if let Some(selector) = strict(selector) {
        return Some(selector);
    }
    let labels: BTreeMap<String, String> = strict(selector.get("matchLabels")?)?;
    let selector = LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() };
    (!labels.is_empty()).then_some(selector)
}

/// The elements that can be read without any complaint.
fn readable<T: DeserializeOwned>(rules: &Node) -> Vec<T> {
    rules.as_sequence().unwrap_or_default().iter().filter_map(strict).collect()
}

fn strict<T: DeserializeOwned>(node: &Node) -> Option<T> {
    from_node(node, "").ok().and_then(|(value, unknown)| unknown.is_empty().then_some(value))
}

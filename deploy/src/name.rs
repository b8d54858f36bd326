//! Names, labels and paths that the objects share.

use std::collections::BTreeMap;

use api::constant::{COMPONENT_LABEL, NAMESPACE};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// DaemonSet, ServiceAccount, roles and bindings of the agent.
pub(crate) const AGENT: &str = "rampart-agent";
/// Deployment, ServiceAccount, roles and bindings of the route reflectors.
pub(crate) const REFLECTOR: &str = "rampart-route-reflector";
/// Reads our kinds.
pub(crate) const VIEWER: &str = "rampart-viewer";
/// Reads and writes our kinds.
pub(crate) const OPERATOR: &str = "rampart-operator";
/// Lets `rctl` ask the agents.
pub(crate) const REMOTE: &str = "rampart-remote";
/// Value of `app.kubernetes.io/name`.
const PRODUCT: &str = "rampart";
const NAME_LABEL: &str = "app.kubernetes.io/name";

/// Labels that select the pods of a component; they never change.
pub(crate) fn selector(component: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(pod_labels(component)), match_expressions: None }
}

/// Labels of the pods of a component.
pub(crate) fn pod_labels(component: &str) -> BTreeMap<String, String> {
    labels([(NAME_LABEL, PRODUCT), (COMPONENT_LABEL, component)])
}

/// A map of owned strings.
pub(crate) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Metadata of an object of the whole cluster.
pub(crate) fn cluster(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels([(NAME_LABEL, PRODUCT)])),
        ..ObjectMeta::default()
    }
}

/// Metadata of an object in our namespace.
pub(crate) fn own(name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(NAMESPACE.to_owned()), ..cluster(name) }
}

/// The image with its tag.
pub(crate) fn image() -> String {
    format!("{}:{}", api::constant::IMAGE, env!("CARGO_PKG_VERSION"))
}

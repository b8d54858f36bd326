//! One object as the API server sends it -> the trimmed object.
//!
//! Read one by one: what one object holds costs that object at most, never a list. Fields that
//! nobody here reads are skipped and may hold anything.

use std::collections::BTreeMap;

use api::constant::COMPONENT_LABEL;
use api::error_code;
use k8s_openapi::api::core::v1::{
    Namespace, Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::record::{NamedPort, PodRecord, metadata};
use crate::source::manifest::{self, Fault};
use crate::source::yaml;
use crate::source::{Key, Kind, Object, salvage};

/// The node condition that one of us writes.
const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// What an object turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decoded {
    /// In good form.
    Good(Object),
    /// Not to be taken as it is; never without a fault.
    Bad {
        /// The closed remainder of a NetworkPolicy.
        salvaged: Option<Object>,
        /// What is wrong.
        faults: Vec<Fault>,
    },
}

/// An object that at least says which one it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// Which.
    pub(super) key: Key,
    /// `metadata.resourceVersion`, if it is a number.
    pub(super) version: Option<u64>,
    /// Its content.
    pub(super) content: Decoded,
}

/// Reads an object of a kind; `None` if it does not say which one it is.
pub(super) fn item(kind: Kind, raw: &str) -> Option<Item> {
    let quick = match kind {
        Kind::Pod => pod(raw),
        Kind::Node => node(raw),
        Kind::Namespace => namespace(raw),
        Kind::NetworkPolicy
        | Kind::BgpConfiguration
        | Kind::BgpPeer
        | Kind::NetworkConfiguration
        | Kind::Secret => None,
    };
    match quick {
        Some(mut object) => {
            let key = object.key();
            let version = number(metadata(&mut object).resource_version.as_deref());
            (is_whole(&key)).then_some(Item { key, version, content: Decoded::Good(object) })
        }
        None => thorough(kind, raw),
    }
}

fn is_whole(key: &Key) -> bool {
    !key.name.is_empty() && key.kind.namespaced() != key.namespace.is_empty()
}

fn number(version: Option<&str>) -> Option<u64> {
    version.and_then(|version| version.parse().ok())
}

/// Which object this is, and of which version.
pub(super) fn identity(kind: Kind, raw: &str) -> Option<(Key, Option<u64>)> {
    #[derive(Deserialize)]
    struct Form {
        metadata: Names,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Names {
        name: String,
        namespace: Option<String>,
        resource_version: Option<String>,
    }
    let Form { metadata } = serde_json::from_str(raw).ok()?;
    let namespace = metadata.namespace.filter(|_| kind.namespaced()).unwrap_or_default();
    let key = Key { kind, namespace, name: metadata.name };
    is_whole(&key).then(|| (key, number(metadata.resource_version.as_deref())))
}

/// With paths of faults, and without taking a field that the kind does not have: an unknown
/// field of a policy may be what closes it.
fn thorough(kind: Kind, raw: &str) -> Option<Item> {
    let mut value: Value = serde_json::from_str(raw).ok()?;
    let text = |field: &str| value.pointer(field)?.as_str().map(str::to_owned);
    let namespace = text("/metadata/namespace").filter(|_| kind.namespaced()).unwrap_or_default();
    let key = Key { kind, namespace, name: text("/metadata/name")? };
    let version = number(text("/metadata/resourceVersion").as_deref());
    if !is_whole(&key) {
        return None;
    }
    prune(kind, &mut value);
    let tree = yaml::Node::from(value);
    let content = match manifest::object(&tree, &key) {
        Ok(mut object) => {
            trim(&mut object);
            Decoded::Good(object)
        }
        Err(faults) => {
            let policy = (kind == Kind::NetworkPolicy)
                .then(|| salvage::network_policy(&tree, &key))
                .flatten();
            let salvaged = policy.map(|policy| Object::NetworkPolicy(Box::new(policy)));
            Decoded::Bad { salvaged, faults }
        }
    };
    Some(Item { key, version, content })
}

/// Leaves of the root what is read: of the metadata only what [`Metadata`] has, and no status where
/// it is ours (or nobody's).
fn prune(kind: Kind, value: &mut Value) {
    const METADATA: [&str; 6] =
        ["name", "namespace", "uid", "labels", "generation", "resourceVersion"];
    let Value::Object(root) = value else { return };
    let status = matches!(kind, Kind::Node | Kind::Pod);
    root.retain(|field, _| match kind {
        Kind::Secret => field == "metadata" || field == "data",
        _ => field != "status" || status,
    });
    if let Some(Value::Object(metadata)) = root.get_mut("metadata") {
        metadata.retain(|field, value| METADATA.contains(&field.as_str()) && !value.is_null());
    }
}

/// What is left of Nodes and Pods that took the thorough way.
fn trim(object: &mut Object) {
    match object {
        Object::Node(node) => {
            let spec = node.spec.take().unwrap_or_default();
            node.spec = Some(NodeSpec {
                pod_cidr: spec.pod_cidr,
                pod_cidrs: spec.pod_cidrs,
                ..NodeSpec::default()
            });
            let status = node.status.take().unwrap_or_default();
            node.status = Some(NodeStatus { addresses: status.addresses, ..NodeStatus::default() });
        }
        Object::Pod(pod) => {
            let encoded = PodRecord::from_pod(pod);
            let version = pod.metadata.resource_version.take();
            **pod = encoded.into_pod();
            pod.metadata.resource_version = version;
        }
        Object::Namespace(_)
        | Object::NetworkPolicy(_)
        | Object::BgpConfiguration(_)
        | Object::BgpPeer(_)
        | Object::NetworkConfiguration(_)
        | Object::Secret(_) => {}
    }
}

/// A fault without a field.
pub(super) const fn fault(message: String) -> Fault {
    Fault { code: error_code::INVALID_OBJECT, field: String::new(), line: 0, message }
}

/// A fault of an object that does not even say what it is.
pub(super) fn nameless() -> Fault {
    Fault {
        code: error_code::INVALID_OBJECT,
        field: "metadata.name".to_owned(),
        line: 0,
        message: "missing".to_owned(),
    }
}

/// As `T`, where JSON's null is the default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        Self {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            labels: (!metadata.labels.is_empty()).then_some(metadata.labels),
            ..Self::default()
        }
    }
}

fn namespace(raw: &str) -> Option<Object> {
    #[derive(Deserialize)]
    struct Form {
        metadata: Metadata,
    }
    let Form { metadata } = serde_json::from_str(raw).ok()?;
    let mut namespace = Namespace { metadata: metadata.into(), ..Namespace::default() };
    namespace.metadata.namespace = None;
    // The API server sets it; one that does not would leave the namespace out of selectors.
    if let Some(name) = namespace.metadata.name.clone() {
        let labels = namespace.metadata.labels.get_or_insert_default();
        labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert(name);
    }
    Some(Object::Namespace(Box::new(namespace)))
}

fn node(raw: &str) -> Option<Object> {
    #[derive(Deserialize)]
    struct Form {
        metadata: Metadata,
        #[serde(default, deserialize_with = "or_default")]
        spec: Spec,
        #[serde(default, deserialize_with = "or_default")]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        #[serde(rename = "podCIDR")]
        pod_cidr: Option<String>,
        #[serde(rename = "podCIDRs")]
        pod_cidrs: Option<Vec<String>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        #[serde(deserialize_with = "or_default")]
        addresses: Vec<Address>,
        #[serde(deserialize_with = "or_default")]
        conditions: Vec<Condition>,
    }
    #[derive(Deserialize)]
    struct Address {
        #[serde(rename = "type")]
        type_: String,
        address: String,
    }
    #[derive(Deserialize)]
    struct Condition {
        #[serde(rename = "type")]
        type_: String,
        status: String,
        reason: Option<String>,
    }
    let Form { metadata, spec, status } = serde_json::from_str(raw).ok()?;
    let addresses = status.addresses.into_iter();
    let addresses = addresses.map(|a| NodeAddress { type_: a.type_, address: a.address }).collect();
    let conditions = status.conditions.into_iter().filter(|c| c.type_ == NETWORK_UNAVAILABLE);
    let conditions: Vec<NodeCondition> = conditions
        .map(|c| NodeCondition {
            type_: c.type_,
            status: c.status,
            reason: c.reason,
            ..NodeCondition::default()
        })
        .collect();
    let mut node = Node {
        metadata: metadata.into(),
        spec: Some(NodeSpec {
            pod_cidr: spec.pod_cidr,
            pod_cidrs: spec.pod_cidrs,
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            addresses: Some(addresses),
            conditions: (!conditions.is_empty()).then_some(conditions),
            ..NodeStatus::default()
        }),
    };
    node.metadata.namespace = None;
    Some(Object::Node(Box::new(node)))
}

fn pod(raw: &str) -> Option<Object> {
    let form: PodForm = serde_json::from_str(raw).ok()?;
    let PodForm { metadata, spec, status } = form;
    let sidecars = spec
        .init_containers
        .into_iter()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.into_iter().chain(sidecars).flat_map(|container| container.ports);
    let ports = ports
        .filter_map(|port| Some(NamedPort(port.name?, port.container_port, port.protocol)))
        .collect();
    let addresses: Vec<String> = if status.pod_ips.is_empty() {
        status.pod_ip.into_iter().filter(|ip| !ip.is_empty()).collect()
    } else {
        status.pod_ips.into_iter().map(|address| address.ip).collect()
    };
    let ours = metadata.labels.contains_key(COMPONENT_LABEL);
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready").filter(|_| ours);
    let record = PodRecord {
        namespace: metadata.namespace,
        name: metadata.name?,
        uid: metadata.uid,
        labels: metadata.labels,
        node: spec.node_name,
        host_network: spec.host_network.unwrap_or(false),
        ports,
        phase: status.phase,
        addresses,
        ready: ready.map(|condition| condition.status == "True"),
    };
    let mut pod = record.into_pod();
    pod.metadata.resource_version = metadata.resource_version;
    Some(Object::Pod(Box::new(pod)))
}

#[derive(Deserialize)]
struct PodForm {
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    spec: PodSpecForm,
    #[serde(default, deserialize_with = "or_default")]
    status: PodStatusForm,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpecForm {
    node_name: Option<String>,
    host_network: Option<bool>,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<ContainerForm>,
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<ContainerForm>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerForm {
    restart_policy: Option<String>,
    #[serde(deserialize_with = "or_default")]
    ports: Vec<PortForm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortForm {
    name: Option<String>,
    container_port: i32,
    protocol: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatusForm {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs", deserialize_with = "or_default")]
    pod_ips: Vec<PodAddressForm>,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<ConditionForm>,
}

#[derive(Deserialize)]
struct PodAddressForm {
    ip: String,
}

#[derive(Deserialize)]
struct ConditionForm {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

#[cfg(test)]
mod tests;

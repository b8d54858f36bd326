//! What is kept of an object: the fields that somebody here reads, as one line of JSON.
//!
//! Pods are most of what a large cluster has, and have a small form of their own; the other kinds
//! are kept as Kubernetes writes them. Two versions of an object with the same record are the same
//! to us: heartbeats of nodes and statuses that nobody here reads end at this comparison. The record
//! has no resourceVersion for that reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::source::{Key, Kind, Object};

/// A record, shared between what is known and a snapshot that is being written.
pub(super) type Line = Arc<[u8]>;

/// Name of an object within its kind: `namespace/name`, or `name`.
pub(super) fn key(key: &Key) -> String {
    if key.namespace.is_empty() {
        key.name.clone()
    } else {
        format!("{}/{}", key.namespace, key.name)
    }
}

/// Writes the record of a trimmed object.
pub(super) fn encode(object: &mut Object) -> Result<Line, serde_json::Error> {
    let version = metadata(object).resource_version.take();
    let line = match object {
        Object::Node(o) => serde_json::to_vec(o),
        Object::Namespace(o) => serde_json::to_vec(o),
        Object::Pod(o) => serde_json::to_vec(&PodRecord::from_pod(o)),
        Object::NetworkPolicy(o) => serde_json::to_vec(o),
        Object::BgpConfiguration(o) => serde_json::to_vec(o),
        Object::BgpPeer(o) => serde_json::to_vec(o),
        Object::NetworkConfiguration(o) => serde_json::to_vec(o),
        Object::Secret(o) => serde_json::to_vec(o),
    };
    metadata(object).resource_version = version;
    line.map(Line::from)
}

/// Reads a record back; `version` becomes the resourceVersion.
pub(super) fn decode(kind: Kind, line: &[u8], version: u64) -> Result<Object, serde_json::Error> {
    let mut object = match kind {
        Kind::Node => Object::Node(serde_json::from_slice(line)?),
        Kind::Namespace => Object::Namespace(serde_json::from_slice(line)?),
        Kind::Pod => Object::Pod(Box::new(serde_json::from_slice::<PodRecord>(line)?.into_pod())),
        Kind::NetworkPolicy => Object::NetworkPolicy(serde_json::from_slice(line)?),
        Kind::BgpConfiguration => Object::BgpConfiguration(serde_json::from_slice(line)?),
        Kind::BgpPeer => Object::BgpPeer(serde_json::from_slice(line)?),
        Kind::NetworkConfiguration => Object::NetworkConfiguration(serde_json::from_slice(line)?),
        Kind::Secret => Object::Secret(serde_json::from_slice(line)?),
    };
    metadata(&mut object).resource_version = Some(version.to_string());
    Ok(object)
}

/// The metadata of any object.
pub(super) fn metadata(object: &mut Object) -> &mut ObjectMeta {
    match object {
        Object::Node(o) => &mut o.metadata,
        Object::Namespace(o) => &mut o.metadata,
        Object::Pod(o) => &mut o.metadata,
        Object::NetworkPolicy(o) => &mut o.metadata,
        Object::BgpConfiguration(o) => &mut o.metadata,
        Object::BgpPeer(o) => &mut o.metadata,
        Object::NetworkConfiguration(o) => &mut o.metadata,
        Object::Secret(o) => &mut o.metadata,
    }
}

/// Whether the pod of this record is on `node`.
pub(super) fn pod_is_on(line: &[u8], node: &str) -> bool {
    #[derive(Deserialize)]
    struct OnNode<'a> {
        #[serde(borrow)]
        o: Option<std::borrow::Cow<'a, str>>,
    }
    serde_json::from_slice::<OnNode<'_>>(line).is_ok_and(|record| record.o.as_deref() == Some(node))
}

/// A pod, in short names: there may be 100,000 of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PodRecord {
    /// Namespace.
    #[serde(rename = "n")]
    pub(super) namespace: Option<String>,
    /// Name.
    #[serde(rename = "m")]
    pub(super) name: String,
    /// `metadata.uid`.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<String>,
    /// Labels.
    #[serde(rename = "l", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    /// `spec.nodeName`.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    /// `spec.hostNetwork`.
    #[serde(rename = "h", default, skip_serializing_if = "is_false")]
    pub(super) host_network: bool,
    /// Named ports of containers, then of sidecars.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ports: Vec<NamedPort>,
    /// `status.phase`.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(super) phase: Option<String>,
    /// `status.podIPs`, or else `status.podIP`.
    #[serde(rename = "i", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) addresses: Vec<String>,
    /// Condition Ready; only of our own pods.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub(super) ready: Option<bool>,
}

/// Name, number, protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedPort(pub(super) String, pub(super) i32, pub(super) Option<String>);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl PodRecord {
    /// What is kept of a trimmed pod.
    pub(super) fn from_pod(pod: &Pod) -> Self {
        let (metadata, spec, status) = (&pod.metadata, pod.spec.as_ref(), pod.status.as_ref());
        let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let ports = containers.iter().flat_map(|c| c.ports.iter().flatten());
        let ports = ports.filter_map(|port| {
            Some(NamedPort(port.name.clone()?, port.container_port, port.protocol.clone()))
        });
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        let addresses = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
        Self {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone(),
            labels: metadata.labels.clone().unwrap_or_default(),
            node: spec.and_then(|spec| spec.node_name.clone()),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            ports: ports.collect(),
            phase: status.and_then(|status| status.phase.clone()),
            addresses: addresses.iter().map(|address| address.ip.clone()).collect(),
            ready: ready.map(|condition| condition.status == "True"),
        }
    }

    /// The pod as policy and routing read it: all named ports are in one container.
    pub(super) fn into_pod(self) -> Pod {
        let ports: Vec<ContainerPort> = self
            .ports
            .into_iter()
            .map(|NamedPort(name, container_port, protocol)| ContainerPort {
                name: Some(name),
                container_port,
                protocol,
                ..ContainerPort::default()
            })
            .collect();
        let container =
            (!ports.is_empty()).then(|| Container { ports: Some(ports), ..Container::default() });
        let ready = self.ready.map(|ready| PodCondition {
            type_: "Ready".to_owned(),
            status: if ready { "True" } else { "False" }.to_owned(),
            ..PodCondition::default()
        });
        let addresses = self.addresses.into_iter().map(|ip| PodIP { ip });
        Pod {
            metadata: ObjectMeta {
                namespace: self.namespace,
                name: Some(self.name),
                uid: self.uid,
                labels: (!self.labels.is_empty()).then_some(self.labels),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                containers: container.into_iter().collect(),
                node_name: self.node,
                host_network: self.host_network.then_some(true),
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                phase: self.phase,
                pod_ips: Some(addresses.collect()),
                conditions: ready.map(|ready| vec![ready]),
                ..PodStatus::default()
            }),
        }
    }
}

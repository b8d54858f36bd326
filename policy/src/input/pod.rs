//! Pods, as far as policy is concerned.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use smallvec::SmallVec;

use super::{Labels, Protocol, port};
use crate::fault::{FieldFault, Path, Reason};

/// What policy needs to know of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) labels: Labels,
    /// Addresses that it is said to have; sorted, without duplicates.
    pub(crate) claims: SmallVec<[IpAddr; 2]>,
    /// Those of the claims that are its own: of several pods with one address one has it. Sorted.
    pub(crate) addresses: SmallVec<[IpAddr; 2]>,
    /// `metadata.creationTimestamp`, in seconds since 1970.
    pub(crate) created: i64,
    /// It has a `metadata.deletionTimestamp`.
    pub(crate) terminating: bool,
    /// Named container ports, in the order of the containers.
    pub(crate) ports: Box<[NamedPort]>,
    /// `metadata.uid`; only of pods of our node.
    pub(crate) uid: Box<str>,
    /// It runs on our node.
    pub(crate) local: bool,
    /// It has the node's network, or has terminated: neither subject nor peer.
    pub(crate) aloof: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NamedPort {
    pub(crate) name: Box<str>,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

/// Annotation of a static pod's mirror, with the uid by which kubelet and runtime know the pod: the
/// object in the API server has another one. Only kubelets may make pods with it.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

impl Pod {
    pub(crate) fn parse(raw: &core::Pod, node: &str, faults: &mut Vec<FieldFault>) -> Self {
        let spec = raw.spec.as_ref();
        let phase = raw.status.as_ref().and_then(|status| status.phase.as_deref());
        let terminated = matches!(phase, Some("Succeeded" | "Failed"));
        let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
        let aloof = terminated || host_network;
        let local = spec.and_then(|spec| spec.node_name.as_deref()) == Some(node);
        let annotations = raw.metadata.annotations.as_ref();
        let mirrored = annotations.and_then(|all| all.get(MIRROR_ANNOTATION)).map(String::as_str);
        let uid = mirrored.or(raw.metadata.uid.as_deref());
        let uid = uid.filter(|_| local).unwrap_or_default();
        let claims = if aloof { SmallVec::new() } else { addresses(raw, faults) };
        let created = raw.metadata.creation_timestamp.as_ref();
        Self {
            uid: uid.into(),
            created: created.map_or(0, |time| time.0.as_second()),
            terminating: raw.metadata.deletion_timestamp.is_some(),
            labels: Labels::new(raw.metadata.labels.as_ref()),
            addresses: claims.clone(),
            claims,
            ports: spec.map(|spec| ports(spec, faults)).unwrap_or_default(),
            local,
            aloof,
        }
    }

    /// Number of the named port; the first one if several containers use the name.
    pub(crate) fn port(&self, protocol: Protocol, name: &str) -> Option<u16> {
        let mut ports = self.ports.iter();
        ports.find(|port| port.protocol == protocol && *port.name == *name).map(|port| port.number)
    }
}

fn addresses(raw: &core::Pod, faults: &mut Vec<FieldFault>) -> SmallVec<[IpAddr; 2]> {
    let mut addresses = SmallVec::new();
    let Some(status) = &raw.status else { return addresses };
    let root = Path::root("status");
    let mut read = |text: &str, path: &Path<'_>| match text.parse::<IpAddr>() {
        Ok(address) if is_pod_address(address) => addresses.push(address),
        Ok(_) | Err(_) => {
            let message = format!("{text:?} is not an address that a pod can have");
            faults.push(FieldFault::new(path, Reason::InvalidAddress, message));
        }
    };
    let many = root.field("podIPs");
    let listed = status.pod_ips.as_deref().unwrap_or_default();
    for (i, entry) in listed.iter().enumerate() {
        read(&entry.ip, &many.index(i).field("ip"));
    }
    // The singular field repeats the first of the list; it counts only where there is no list.
    if let (true, Some(text)) = (listed.is_empty(), status.pod_ip.as_deref())
        && !text.is_empty()
    {
        read(text, &root.field("podIP"));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn is_pod_address(address: IpAddr) -> bool {
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || mapped)
}

/// Named ports of containers, then of sidecars (init containers that keep running).
fn ports(spec: &core::PodSpec, faults: &mut Vec<FieldFault>) -> Box<[NamedPort]> {
    let root = Path::root("spec");
    let containers = spec.containers.iter().enumerate().map(|c| ("containers", c));
    let sidecars = spec.init_containers.iter().flatten().enumerate();
    let sidecars = sidecars
        .filter(|(_, container)| container.restart_policy.as_deref() == Some("Always"))
        .map(|c| ("initContainers", c));
    let mut named = Vec::new();
    for (field, (i, container)) in containers.chain(sidecars) {
        let list = root.field(field);
        let at = list.index(i);
        let list = at.field("ports");
        for (i, raw) in container.ports.iter().flatten().enumerate() {
            let Some(name) = &raw.name else { continue };
            let at = list.index(i);
            let protocol = Protocol::parse(raw.protocol.as_deref(), &at.field("protocol"), faults);
            let number = port::number(raw.container_port, &at.field("containerPort"), faults);
            if let (Some(protocol), Some(number)) = (protocol, number) {
                named.push(NamedPort { name: name.as_str().into(), protocol, number });
            }
        }
    }
    named.into_boxed_slice()
}

//! Pods that are route reflectors.

use std::net::IpAddr;

use api::constant::{COMPONENT_LABEL, COMPONENT_REFLECTOR};
use k8s_openapi::api::core::v1::Pod;

use super::is_host;

/// A pod of the reflector Deployment. It has the addresses of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReflectorFacts {
    /// Name of the pod.
    pub name: String,
    /// `status.podIPs` that a session can be held with.
    pub addresses: Vec<IpAddr>,
}

/// A reflector of ours, ready or not: a pod of our namespace with the label of the component, on the
/// network of its node, that has not ended. Anything else is none, and no fault of anybody.
pub(super) fn read(pod: &Pod, namespace: &str) -> Option<ReflectorFacts> {
    let metadata = &pod.metadata;
    let component = metadata.labels.as_ref().and_then(|labels| labels.get(COMPONENT_LABEL));
    if metadata.namespace.as_deref() != Some(namespace)
        || component.map(String::as_str) != Some(COMPONENT_REFLECTOR)
        || pod.spec.as_ref()?.host_network != Some(true)
    {
        return None;
    }
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let many = status.pod_ips.as_deref().unwrap_or_default().iter().map(|entry| &entry.ip);
    let mut addresses: Vec<IpAddr> = many
        .chain(&status.pod_ip)
        .filter_map(|text| text.parse().ok())
        .filter(|ip| is_host(*ip))
        .collect();
    let mut seen = Vec::new();
    addresses.retain(|address| {
        !seen.contains(address) && {
            seen.push(*address);
            true
        }
    });
    let name = metadata.name.clone().unwrap_or_default();
    (!addresses.is_empty()).then_some(ReflectorFacts { name, addresses })
}

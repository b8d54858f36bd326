//! What a pod is to policy.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::Name;

pub(super) fn name(pod: &Pod) -> Name {
    Name {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    }
}

pub(super) fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Addresses by which policy knows the pod: none if it has terminated or has the node's network.
pub(super) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let phase = status.phase.as_deref().unwrap_or_default();
    if host_network || phase == "Succeeded" || phase == "Failed" {
        return Vec::new();
    }
    let mut texts: Vec<&str> = Vec::new();
    for entry in status.pod_ips.iter().flatten() {
        texts.push(&entry.ip);
    }
    if texts.is_empty() {
        texts.extend(status.pod_ip.as_deref());
    }
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_loopback() && !v4.is_multicast(),
        IpAddr::V6(v6) => {
            let mapped = v6.to_ipv4_mapped().is_some();
            !mapped && !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast()
        }
    };
    texts.into_iter().filter_map(|text| text.parse().ok()).filter(usable).collect()
}

/// The number behind a port name: of the first container that uses it, sidecars last.
pub(super) fn named_port(pod: &Pod, protocol: &str, name: &str) -> Option<u16> {
    let spec = pod.spec.as_ref()?;
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    for container in spec.containers.iter().chain(sidecars) {
        for port in container.ports.iter().flatten() {
            let its_protocol = port.protocol.as_deref().unwrap_or("TCP");
            if port.name.as_deref() == Some(name)
                && its_protocol == protocol
                && (1..=65535).contains(&port.container_port)
            {
                return u16::try_from(port.container_port).ok();
            }
        }
    }
    None
}

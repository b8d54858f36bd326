//! A Node in the words of routing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::error_code;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use super::{FieldFault, is_host, network};

/// What routing needs to know of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Addresses of type InternalIP, in their order.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, or else `spec.podCIDR`.
    pub pod_cidrs: Vec<IpNet>,
}

impl NodeFacts {
    /// The first of these addresses to hold a session with, and our end of it: IPv4 if both have it,
    /// else IPv6.
    pub(super) fn way_to(&self, addresses: &[IpAddr]) -> Option<(IpAddr, IpAddr)> {
        [true, false].into_iter().find_map(|v4| {
            let remote = addresses.iter().copied().find(|address| address.is_ipv4() == v4)?;
            Some((remote, self.address(v4)?))
        })
    }

    /// First address of the family.
    pub(super) fn address(&self, v4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == v4)
    }
}

pub(super) fn parse(node: &Node) -> Result<NodeFacts, Vec<FieldFault>> {
    let mut faults = Vec::new();
    let mut fault = |field: String, message: String| {
        faults.push(FieldFault::new(error_code::INVALID_NODE, field, message));
    };
    let listed = node.status.as_ref().and_then(|status| status.addresses.as_deref());
    let mut addresses = Vec::new();
    for (index, entry) in listed.unwrap_or_default().iter().enumerate() {
        if entry.type_ != "InternalIP" {
            continue;
        }
        match entry.address.parse() {
            Ok(address) if is_host(address) => addresses.push(address),
            _ => fault(
                format!("status.addresses[{index}].address"),
                format!("`{}` is not an address of a host", entry.address),
            ),
        }
    }
    let spec = node.spec.as_ref();
    let several = spec.and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default();
    let single = spec.and_then(|spec| spec.pod_cidr.as_ref());
    let texts = several.iter().enumerate().map(|(i, text)| (format!("spec.podCIDRs[{i}]"), text));
    let alone = single.filter(|_| several.is_empty());
    let mut pod_cidrs = Vec::new();
    for (field, text) in texts.chain(alone.map(|text| ("spec.podCIDR".to_owned(), text))) {
        match network(text) {
            Ok(net) => pod_cidrs.push(net),
            Err(message) => fault(field, message),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(NodeFacts {
        name: node.metadata.name.clone().unwrap_or_default(),
        labels: node.metadata.labels.clone().unwrap_or_default(),
        addresses,
        pod_cidrs,
    })
}

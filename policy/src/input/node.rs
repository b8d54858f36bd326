//! Pod CIDRs of a node.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use crate::fault::{FieldFault, Path, Reason};

/// The pod CIDRs that can be read, sorted, host bits cleared.
pub(crate) fn pod_cidrs(node: &Node, faults: &mut Vec<FieldFault>) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let root = Path::root("spec");
    let mut cidrs = Vec::new();
    let mut read = |text: &str, path: &Path<'_>| match text.parse::<IpNet>() {
        Ok(cidr) => cidrs.push(cidr.trunc()),
        Err(_) => {
            let message = format!("{text:?} is not a CIDR");
            faults.push(FieldFault::new(path, Reason::InvalidCidr, message));
        }
    };
    let many = root.field("podCIDRs");
    let listed = spec.pod_cidrs.as_deref().unwrap_or_default();
    for (i, text) in listed.iter().enumerate() {
        read(text, &many.index(i));
    }
    // The singular field repeats the first of the list; it counts only where there is no list.
    if let (true, Some(text)) = (listed.is_empty(), &spec.pod_cidr) {
        read(text, &root.field("podCIDR"));
    }
    cidrs.sort_unstable();
    cidrs.dedup();
    cidrs
}

//! NetworkConfiguration.

use api::constant::{VXLAN_PORT, VXLAN_VNI};
use api::crd::{NatOutgoing, NetworkConfigurationSpec, OverlayMode};
use api::error_code;
use ipnet::IpNet;

use super::{FieldFault, network};

/// IPv6 needs links of at least this MTU (RFC 8200 §5).
const LEAST_MTU: u16 = 1280;
/// VNIs have 24 bits (RFC 7348 §5).
const GREATEST_VNI: u32 = (1 << 24) - 1;

/// How pods are networked, valid. The default is that of a cluster without the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Ranges of pod addresses and how to treat them; not overlapping.
    pub pools: Vec<(IpNet, NatOutgoing)>,
    /// What is encapsulated; `None`: nothing.
    pub overlay: Option<OverlaySettings>,
    /// MTU of pod interfaces, if somebody chose.
    pub mtu: Option<u16>,
}

/// How to encapsulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlaySettings {
    /// All other nodes, not only those that are not on a link of ours.
    pub always: bool,
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
}

pub(super) fn parse(spec: &NetworkConfigurationSpec) -> Result<Network, Vec<FieldFault>> {
    let mut faults = Vec::new();
    let mut found = Network::default();
    let invalid = |field: String, message: String| {
        FieldFault::new(error_code::INVALID_NETWORK, field, message)
    };
    for (index, pool) in spec.pools.iter().enumerate() {
        let field = format!("spec.pools[{index}].cidr");
        match network(&pool.cidr) {
            Err(message) => {
                faults.push(FieldFault::new(error_code::INVALID_CIDR, field, message));
            }
            Ok(net) => match found.pools.iter().find(|(other, _)| overlap(other, &net)) {
                Some((other, _)) => {
                    faults.push(invalid(field, format!("{net} overlaps {other} of another pool")));
                }
                None => found.pools.push((net, pool.nat_outgoing.unwrap_or_default())),
            },
        }
    }
    if let Some(overlay) = &spec.overlay {
        let vni = overlay.vni.unwrap_or(VXLAN_VNI);
        if !(1..=GREATEST_VNI).contains(&vni) {
            let message = format!("{vni} is not within 1 to {GREATEST_VNI}");
            faults.push(invalid("spec.overlay.vni".to_owned(), message));
        }
        let port = overlay.port.unwrap_or(VXLAN_PORT);
        if port == 0 {
            faults.push(invalid("spec.overlay.port".to_owned(), "0 is not a port".to_owned()));
        }
        let always = match overlay.mode {
            OverlayMode::None => None,
            OverlayMode::VXLANCrossSubnet => Some(false),
            OverlayMode::VXLANAlways => Some(true),
        };
        found.overlay = always.map(|always| OverlaySettings { always, vni, port });
    }
    match spec.mtu {
        Some(mtu) if mtu < LEAST_MTU => {
            let message = format!("{mtu} is less than {LEAST_MTU}, the least of IPv6");
            faults.push(invalid("spec.mtu".to_owned(), message));
        }
        mtu => found.mtu = mtu,
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

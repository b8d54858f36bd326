//! BGPConfiguration.

use std::net::Ipv4Addr;

use api::constant::{BGP_PORT, DEFAULT_ASN};
use api::crd::BGPConfigurationSpec;
use api::error_code;
use bgp::types::Asn;
use ipnet::IpNet;

use super::restart::RestartSettings;
use super::{FieldFault, network};

/// Cluster-wide settings, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) asn: Asn,
    pub(super) listen_port: u16,
    pub(super) node_mesh: bool,
    /// Empty = anywhere.
    pub(super) cluster_cidrs: Vec<IpNet>,
    pub(super) restart: RestartSettings,
    pub(super) router_id: Option<Ipv4Addr>,
    pub(super) cluster_id: Option<Ipv4Addr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            asn: Asn(DEFAULT_ASN),
            listen_port: BGP_PORT,
            node_mesh: true,
            cluster_cidrs: Vec::new(),
            restart: RestartSettings::default(),
            router_id: None,
            cluster_id: None,
        }
    }
}

pub(super) fn parse(spec: &BGPConfigurationSpec) -> Result<Settings, Vec<FieldFault>> {
    let mut faults = Vec::new();
    let mut settings = Settings::default();
    let invalid = |field: String, message: String| {
        FieldFault::new(error_code::INVALID_BGP_CONFIG, field, message)
    };
    if let Some(number) = spec.asn {
        match asn(number) {
            Ok(asn) => settings.asn = asn,
            Err(message) => faults.push(invalid("spec.asn".to_owned(), message)),
        }
    }
    match spec.listen_port {
        Some(0) => faults.push(invalid("spec.listenPort".to_owned(), "0 is not a port".to_owned())),
        Some(port) => settings.listen_port = port,
        None => {}
    }
    match RestartSettings::parse(spec.graceful_restart.as_ref()) {
        Ok(restart) => settings.restart = restart,
        Err(more) => faults.extend(more),
    }
    settings.node_mesh = spec.node_mesh.unwrap_or(true);
    for (index, text) in spec.cluster_cidrs.iter().enumerate() {
        match network(text) {
            Ok(net) => settings.cluster_cidrs.push(net),
            Err(message) => {
                let field = format!("spec.clusterCIDRs[{index}]");
                faults.push(FieldFault::new(error_code::INVALID_CIDR, field, message));
            }
        }
    }
    for (field, text, target) in [
        ("spec.routerID", &spec.router_id, &mut settings.router_id),
        ("spec.clusterID", &spec.cluster_id, &mut settings.cluster_id),
    ] {
        match text.as_ref().map(|text| (text, text.parse::<Ipv4Addr>())) {
            None => {}
            Some((_, Ok(id))) if !id.is_unspecified() => *target = Some(id),
            Some((text, _)) => {
                let message = format!("`{text}` is not four octets, or zero");
                faults.push(invalid(field.to_owned(), message));
            }
        }
    }
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

/// An AS number that a speaker may have (RFC 4893 §9, RFC 7300, RFC 7607).
pub(super) fn asn(number: u32) -> Result<Asn, String> {
    match number {
        0 | 23456 | 65535 | u32::MAX => Err(format!("AS {number} is reserved")),
        number => Ok(Asn(number)),
    }
}

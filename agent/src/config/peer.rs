//! BGPPeer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use api::constant::BGP_PORT;
use api::crd::{BGPPeerSpec, NodeSelector, PrefixRule, SelectorRequirement};
use api::error_code::{self, Code};
use bgp::config::{PeerConfig, PrefixMatch};
use bgp::types::Asn;

use super::password::PasswordRef;
use super::restart::RestartSettings;
use super::{FieldFault, is_host, network, settings};

/// A peer, valid by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerSettings {
    /// `metadata.creationTimestamp`, in seconds since 1970; 0 without one, as in a directory.
    pub(super) created: i64,
    pub(super) selector: Option<NodeSelector>,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) asn: Asn,
    pub(super) hold_time: Duration,
    pub(super) passive: bool,
    pub(super) ebgp_multihop: Option<u8>,
    pub(super) ttl_security: bool,
    pub(super) password: Option<PasswordRef>,
    pub(super) restart: RestartSettings,
    pub(super) route_reflector_client: bool,
    pub(super) import: Option<Vec<PrefixMatch>>,
    pub(super) export: Option<Vec<PrefixMatch>>,
    pub(super) default_originate: bool,
    pub(super) max_prefixes: Option<u32>,
}

impl PeerSettings {
    /// The peer is meant for a node with these labels.
    pub(super) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_none_or(|selector| {
            selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
                && selector.match_expressions.iter().all(|e| holds(e, labels))
        })
    }
}

fn holds(requirement: &SelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let listed = value.is_some_and(|value| requirement.values.contains(value));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // Refused by `parse`.
        _ => false,
    }
}

pub(super) fn parse(spec: &BGPPeerSpec) -> Result<PeerSettings, Vec<FieldFault>> {
    let mut checks = Checks(Vec::new());
    let selector = spec.node_selector.clone();
    for (index, requirement) in
        selector.iter().flat_map(|selector| &selector.match_expressions).enumerate()
    {
        let field = format!("spec.nodeSelector.matchExpressions[{index}]");
        checks.take(error_code::INVALID_SELECTOR, &field, requirement_is_valid(requirement));
    }
    let invalid = error_code::INVALID_BGP_CONFIG;
    let endpoint = checks.take(invalid, "spec.peerAddress", endpoint(&spec.peer_address));
    let asn = checks.take(invalid, "spec.peerASN", settings::asn(spec.peer_asn));
    if let Some(seconds @ (1 | 2)) = spec.hold_time_seconds {
        let message = format!("{seconds} is neither 0 nor at least 3 (RFC 4271 §4.2)");
        checks.take::<()>(invalid, "spec.holdTimeSeconds", Err(message));
    }
    if spec.ebgp_multihop == Some(0) {
        let message = "0 is not a TTL, use 1 to 255".to_owned();
        checks.take::<()>(invalid, "spec.ebgpMultihop", Err(message));
    }
    if spec.ttl_security == Some(true) && spec.ebgp_multihop.is_some() {
        let message = "is for a directly connected peer; ebgpMultihop says that it is not";
        checks.take::<()>(invalid, "spec.ttlSecurity", Err(message.to_owned()));
    }
    if spec.max_prefixes == Some(0) {
        let message = "0 would refuse every session; leave it out for no limit".to_owned();
        checks.take::<()>(invalid, "spec.maxPrefixes", Err(message));
    }
    let password = spec.password_secret_ref.as_ref().map(PasswordRef::parse);
    let password = password.and_then(|parsed| checks.all(parsed));
    let restart = checks.all(RestartSettings::parse(spec.graceful_restart.as_ref()));
    let import = spec.import.as_ref().map(|rules| checks.rules("spec.import", rules));
    let export = spec.export.as_ref().map(|rules| checks.rules("spec.export", rules));
    match (endpoint, asn) {
        (Some((address, port)), Some(asn)) if checks.0.is_empty() => Ok(PeerSettings {
            created: 0,
            selector,
            address,
            port,
            asn,
            hold_time: spec
                .hold_time_seconds
                .map_or(PeerConfig::HOLD_TIME, |seconds| Duration::from_secs(seconds.into())),
            passive: spec.passive.unwrap_or(false),
            ebgp_multihop: spec.ebgp_multihop,
            ttl_security: spec.ttl_security.unwrap_or(false),
            password,
            restart: restart.unwrap_or_default(),
            route_reflector_client: spec.route_reflector_client.unwrap_or(false),
            import,
            export,
            default_originate: spec.default_originate.unwrap_or(false),
            max_prefixes: spec.max_prefixes,
        }),
        _ => Err(checks.0),
    }
}

struct Checks(Vec<FieldFault>);

impl Checks {
    fn take<T>(&mut self, code: Code, field: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.0.push(FieldFault::new(code, field, message))).ok()
    }

    fn all<T>(&mut self, result: Result<T, Vec<FieldFault>>) -> Option<T> {
        result.map_err(|faults| self.0.extend(faults)).ok()
    }

    fn rules(&mut self, field: &str, rules: &[PrefixRule]) -> Vec<PrefixMatch> {
        let mut matches = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let at = |part: &str| format!("{field}[{index}].{part}");
            let prefix = network(&rule.prefix);
            let Some(prefix) = self.take(error_code::INVALID_CIDR, &at("prefix"), prefix) else {
                continue;
            };
            let longest = prefix.max_prefix_len();
            let min_length = rule.min_length.unwrap_or(prefix.prefix_len());
            let max_length = rule.max_length.unwrap_or(min_length);
            let invalid = error_code::INVALID_BGP_CONFIG;
            if min_length < prefix.prefix_len() || min_length > longest {
                let message =
                    format!("{min_length} is not within {} to {longest}", prefix.prefix_len());
                self.take::<()>(invalid, &at("minLength"), Err(message));
            }
            if max_length < min_length || max_length > longest {
                let message = format!("{max_length} is not within {min_length} to {longest}");
                self.take::<()>(invalid, &at("maxLength"), Err(message));
            }
            matches.push(PrefixMatch { prefix, min_length, max_length });
        }
        matches
    }
}

/// `IP`, `IP:port` or `[v6]:port`.
fn endpoint(text: &str) -> Result<(IpAddr, u16), String> {
    let unbracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (address, port) = match unbracketed.unwrap_or(text).parse::<IpAddr>() {
        Ok(address) => (address, BGP_PORT),
        Err(_) => match text.parse::<SocketAddr>() {
            Ok(endpoint) => (endpoint.ip(), endpoint.port()),
            Err(_) => return Err(format!("`{text}` is not IP, IP:port or [IPv6]:port")),
        },
    };
    if port == 0 {
        return Err(format!("`{text}` has port 0"));
    }
    if !is_host(address) {
        return Err(format!("{address} is not an address of a host"));
    }
    Ok((address, port))
}

fn requirement_is_valid(requirement: &SelectorRequirement) -> Result<(), String> {
    let SelectorRequirement { key, operator, values } = requirement;
    match (operator.as_str(), values.is_empty()) {
        _ if key.is_empty() => Err("key is empty".to_owned()),
        ("In" | "NotIn", true) => Err(format!("{operator} needs values")),
        ("Exists" | "DoesNotExist", false) => Err(format!("{operator} takes no values")),
        ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => Ok(()),
        _ => Err(format!("operator `{operator}` is not In, NotIn, Exists or DoesNotExist")),
    }
}

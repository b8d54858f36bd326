//! One policy, one rule, one packet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Cluster, Name, Packet, pod, selector};
use crate::Direction;

pub(super) fn policy_name(policy: &NetworkPolicy) -> Name {
    Name {
        namespace: policy.metadata.namespace.clone().unwrap_or_default(),
        name: policy.metadata.name.clone().unwrap_or_default(),
    }
}

/// policyTypes, or what its absence means. A type that cannot be understood isolates both ways.
pub(super) fn isolates(policy: &NetworkPolicy, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return direction == Direction::Ingress };
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let word = match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    };
    if types.is_empty() {
        return match direction {
            Direction::Ingress => true,
            Direction::Egress => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        };
    }
    types.iter().any(|text| text == word || (text != "Ingress" && text != "Egress"))
}

/// The pod is a subject of the policy.
pub(super) fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    pod.metadata.namespace == policy.metadata.namespace
        && pod_selector(policy).is_none_or(|selector| selector::might_match(selector, &labels))
}

fn pod_selector(policy: &NetworkPolicy) -> Option<&LabelSelector> {
    policy.spec.as_ref()?.pod_selector.as_ref()
}

pub(super) fn count(policy: &NetworkPolicy, direction: Direction) -> usize {
    policy.spec.as_ref().map_or(0, |spec| match direction {
        Direction::Ingress => spec.ingress.as_ref().map_or(0, Vec::len),
        Direction::Egress => spec.egress.as_ref().map_or(0, Vec::len),
    })
}

type RuleText<'a> = (&'a [NetworkPolicyPeer], &'a [NetworkPolicyPort]);

fn text(spec: &NetworkPolicySpec, direction: Direction, rule: usize) -> Option<RuleText<'_>> {
    let (peers, ports) = match direction {
        Direction::Ingress => {
            let rule = spec.ingress.as_ref()?.get(rule)?;
            (&rule.from, &rule.ports)
        }
        Direction::Egress => {
            let rule = spec.egress.as_ref()?.get(rule)?;
            (&rule.to, &rule.ports)
        }
    };
    Some((peers.as_deref().unwrap_or_default(), ports.as_deref().unwrap_or_default()))
}

/// Does a rule of this policy admit this packet to or from this pod?
pub(super) struct Question<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) policy: &'a NetworkPolicy,
    pub(super) direction: Direction,
    pub(super) packet: &'a Packet,
    pub(super) subject: &'a Pod,
}

impl Question<'_> {
    /// `None` = the rule cannot be understood.
    pub(super) fn admits(&self, rule: usize) -> Option<bool> {
        if !pod_selector(self.policy).is_none_or(selector::is_readable) {
            return None;
        }
        let (peers, ports) = text(self.policy.spec.as_ref()?, self.direction, rule)?;
        if !peers.iter().all(is_readable_peer) || !ports.iter().all(is_readable_port) {
            return None;
        }
        // Some peer, on some port; a list that is empty admits all.
        let anybody = [None];
        let any_port = [None];
        let peers: Vec<Option<&NetworkPolicyPeer>> = peers.iter().map(Some).collect();
        let ports: Vec<Option<&NetworkPolicyPort>> = ports.iter().map(Some).collect();
        let peers = if peers.is_empty() { &anybody[..] } else { &peers };
        let ports = if ports.is_empty() { &any_port[..] } else { &ports };
        Some(peers.iter().any(|peer| ports.iter().any(|port| self.fits(*peer, *port))))
    }

    fn fits(&self, peer: Option<&NetworkPolicyPeer>, port: Option<&NetworkPolicyPort>) -> bool {
        let address = match self.direction {
            Direction::Ingress => self.packet.source,
            Direction::Egress => self.packet.destination,
        };
        let owners: Vec<&Pod> = self.cluster.owner(address).into_iter().collect();
        let selected: Vec<&Pod> = match peer {
            None => self.in_known_namespaces(&owners),
            Some(NetworkPolicyPeer { ip_block: Some(block), .. }) => {
                if !within(block, address) {
                    return false;
                }
                self.in_known_namespaces(&owners)
            }
            Some(peer) => {
                let selected: Vec<&Pod> =
                    owners.into_iter().filter(|pod| self.is_selected(peer, pod)).collect();
                if selected.is_empty() {
                    return false;
                }
                selected
            }
        };
        port.is_none_or(|port| self.port_fits(port, &selected))
    }

    fn in_known_namespaces<'a>(&self, pods: &[&'a Pod]) -> Vec<&'a Pod> {
        let known = |pod: &&Pod| self.cluster.namespace(&pod::name(pod).namespace).is_some();
        pods.iter().copied().filter(known).collect()
    }

    fn is_selected(&self, peer: &NetworkPolicyPeer, pod: &Pod) -> bool {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let in_namespace = match &peer.namespace_selector {
            None => pod.metadata.namespace == self.policy.metadata.namespace,
            Some(wanted) => self.cluster.namespace(&namespace).is_some_and(|object| {
                let mut labels = object.metadata.labels.clone().unwrap_or_default();
                labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.clone());
                selector::matches(wanted, &labels) == Some(true)
            }),
        };
        let labels: BTreeMap<String, String> = pod.metadata.labels.clone().unwrap_or_default();
        let pods = peer.pod_selector.as_ref();
        in_namespace && pods.is_none_or(|wanted| selector::matches(wanted, &labels) == Some(true))
    }

    fn port_fits(&self, port: &NetworkPolicyPort, peers: &[&Pod]) -> bool {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if number(protocol) != Some(self.packet.protocol) {
            return false;
        }
        let wanted = i32::from(self.packet.port);
        match &port.port {
            None => true,
            Some(IntOrString::Int(first)) => {
                (*first..=port.end_port.unwrap_or(*first)).contains(&wanted)
            }
            Some(IntOrString::String(name)) => {
                // The port of whoever is connected to.
                let targets = match self.direction {
                    Direction::Ingress => &[self.subject][..],
                    Direction::Egress => peers,
                };
                let mut numbers = targets.iter().map(|pod| pod::named_port(pod, protocol, name));
                numbers.any(|number| number == Some(self.packet.port))
            }
        }
    }
}

fn number(protocol: &str) -> Option<u8> {
    match protocol {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

fn within(block: &IPBlock, address: IpAddr) -> bool {
    let inside = |text: &str| text.parse::<IpNet>().is_ok_and(|net| net.contains(&address));
    inside(&block.cidr) && !block.except.iter().flatten().any(|hole| inside(hole))
}

fn is_readable_peer(peer: &NetworkPolicyPeer) -> bool {
    let selectors = [&peer.namespace_selector, &peer.pod_selector];
    let present = selectors.iter().filter(|selector| selector.is_some()).count();
    match &peer.ip_block {
        Some(block) => present == 0 && is_readable_block(block),
        None => present > 0 && selectors.into_iter().flatten().all(selector::is_readable),
    }
}

fn is_readable_block(block: &IPBlock) -> bool {
    let Ok(net) = block.cidr.parse::<IpNet>() else { return false };
    let is_part = |hole: &String| {
        hole.parse::<IpNet>().is_ok_and(|hole| {
            hole.prefix_len() >= net.prefix_len() && net.contains(&hole.network())
        })
    };
    block.except.iter().flatten().all(is_part)
}

fn is_readable_port(port: &NetworkPolicyPort) -> bool {
    let protocol = port.protocol.as_deref().is_none_or(|protocol| number(protocol).is_some());
    let ports = 1..=65535;
    protocol
        && match (&port.port, port.end_port) {
            (None, end) => end.is_none(),
            (Some(IntOrString::Int(first)), None) => ports.contains(first),
            (Some(IntOrString::Int(first)), Some(last)) => {
                ports.contains(first) && ports.contains(&last) && first <= &last
            }
            (Some(IntOrString::String(name)), end) => end.is_none() && is_port_name(name),
        }
}

fn is_port_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 15
        && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
        && name.chars().any(|c| c.is_ascii_lowercase())
        && !(name.starts_with('-') || name.ends_with('-') || name.contains("--"))
}

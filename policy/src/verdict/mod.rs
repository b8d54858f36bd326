//! What the API text says about a packet, worked out the slow and obvious way.
//!
//! This is the oracle against which the compiled table is tested, and what `trace` explains. It
//! shares no code with `resolve` and `nft`, only the Kubernetes types, and keeps no state: each
//! question reads all objects again.

mod pod;
mod rule;
mod selector;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::Direction;
use crate::event::Object;

/// All objects that matter. With a policy that has faults, pass the version that is in force.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Nodes: addresses and pod CIDRs.
    pub nodes: Vec<Node>,
    /// Namespaces: labels.
    pub namespaces: Vec<Namespace>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Policies.
    pub policies: Vec<NetworkPolicy>,
}

impl FromIterator<Object> for Cluster {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut cluster = Self::default();
        for object in objects {
            match object {
                Object::Node(node) => cluster.nodes.push(*node),
                Object::Namespace(namespace) => cluster.namespaces.push(*namespace),
                Object::Pod(pod) => cluster.pods.push(*pod),
                Object::NetworkPolicy(policy) => cluster.policies.push(*policy),
            }
        }
        cluster
    }
}

/// The first packet of a flow, as a pod or an outside host sends it (Service addresses already
/// translated).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination port; 0 for a protocol without ports.
    pub port: u16,
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// May the packet pass, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The deciding reason.
    pub reason: Reason,
    /// At the pod that sends it, if one does.
    pub egress: Option<Side>,
    /// At the pod that gets it, if one does.
    pub ingress: Option<Side>,
}

impl Judgement {
    /// The packet may pass.
    #[must_use]
    pub fn allowed(&self) -> bool {
        match self.reason {
            Reason::Admitted | Reason::FromNode => true,
            Reason::UnknownAddress(_) | Reason::Denied(_) => false,
        }
    }
}

/// Why a packet may pass or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Neither side isolates its pod, or a rule admits the packet at each side that does.
    Admitted,
    /// From a node to a pod of its own: never blocked (kubelet probes).
    FromNode,
    /// An address within the pod CIDRs of a node that no pod of the node has.
    UnknownAddress(IpAddr),
    /// The pod is isolated in this direction and no rule admits the packet.
    Denied(Direction),
}

/// What policies say about a packet at one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The pod.
    pub pod: Name,
    /// The policies that isolate it in this direction, by name.
    pub isolated_by: Vec<Name>,
    /// The first rule that admits the packet.
    pub allowed_by: Option<RuleRef>,
    /// The pod talks to itself, by whichever of its addresses: always admitted.
    pub itself: bool,
    /// Rules that could not be understood, hence admit nothing.
    pub unreadable: Vec<RuleRef>,
}

impl Side {
    /// This side lets the packet pass.
    #[must_use]
    pub fn admits(&self) -> bool {
        self.isolated_by.is_empty() || self.itself || self.allowed_by.is_some()
    }
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The policy.
    pub policy: Name,
    /// Position in `ingress` or `egress`, from 0.
    pub rule: usize,
}

/// Where the question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At<'a> {
    /// On the whole way: egress where the source is, ingress where the destination is.
    EveryNode,
    /// On this node only: what its own kernel decides.
    Node(&'a str),
}

impl Cluster {
    /// May the packet pass?
    #[must_use]
    pub fn judge(&self, packet: &Packet, at: At<'_>) -> Judgement {
        let verdict = |reason| Judgement { reason, egress: None, ingress: None };
        if self.is_from_node(packet, at) {
            return verdict(Reason::FromNode);
        }
        let to_node = self.nodes_at(at).any(|node| addresses(node).contains(&packet.destination));
        for address in [packet.source, packet.destination] {
            if address == packet.destination && to_node {
                continue;
            }
            if self.is_unknown(address, at) {
                return verdict(Reason::UnknownAddress(address));
            }
        }
        let egress = self.side(Direction::Egress, packet, at);
        let ingress = if to_node { None } else { self.side(Direction::Ingress, packet, at) };
        let denies = |side: &Option<Side>| side.as_ref().is_some_and(|side| !side.admits());
        let reason = if denies(&egress) {
            Reason::Denied(Direction::Egress)
        } else if denies(&ingress) {
            Reason::Denied(Direction::Ingress)
        } else {
            Reason::Admitted
        };
        Judgement { reason, egress, ingress }
    }

    fn nodes_at<'a>(&'a self, at: At<'a>) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(move |node| match at {
            At::EveryNode => true,
            At::Node(name) => node.metadata.name.as_deref() == Some(name),
        })
    }

    /// From a node that asks its own kernel nothing: to one of its own pods, or, where only that
    /// node is asked, to anybody.
    fn is_from_node(&self, packet: &Packet, at: At<'_>) -> bool {
        self.nodes_at(at).any(|node| {
            let own_pod = || {
                let held = self.holder(packet.destination, at);
                held.is_some_and(|pod| pod::node(pod) == node.metadata.name.as_deref())
            };
            addresses(node).contains(&packet.source) && (at != At::EveryNode || own_pod())
        })
    }

    fn is_unknown(&self, address: IpAddr, at: At<'_>) -> bool {
        self.nodes_at(at).any(|node| {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            pod_cidrs(node).iter().any(|cidr| cidr.contains(&address))
                && self.holder(address, At::Node(name)).is_none()
        })
    }

    /// The pod that has the address, if it is here.
    fn holder(&self, address: IpAddr, at: At<'_>) -> Option<&Pod> {
        let here = |pod: &&Pod| match at {
            At::EveryNode => true,
            At::Node(name) => pod::node(pod) == Some(name),
        };
        self.owner(address).filter(here)
    }

    /// The pod that has the address. Of several that claim it those that stay go before those that
    /// are being deleted, then the newest, then the first by name.
    fn owner(&self, address: IpAddr) -> Option<&Pod> {
        let claims = |pod: &&Pod| pod::addresses(pod).contains(&address);
        self.pods.iter().filter(claims).min_by_key(|pod| {
            let metadata = &pod.metadata;
            let created = metadata.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second());
            (metadata.deletion_timestamp.is_some(), Reverse(created), pod::name(pod))
        })
    }

    fn side(&self, direction: Direction, packet: &Packet, at: At<'_>) -> Option<Side> {
        let (own, peer) = match direction {
            Direction::Ingress => (packet.destination, packet.source),
            Direction::Egress => (packet.source, packet.destination),
        };
        let pod = self.holder(own, at)?;
        let mut side = Side {
            pod: pod::name(pod),
            isolated_by: Vec::new(),
            allowed_by: None,
            itself: self.owner(peer).is_some_and(|owner| std::ptr::eq(owner, pod)),
            unreadable: Vec::new(),
        };
        let mut policies: Vec<&NetworkPolicy> = self.policies.iter().collect();
        policies.sort_by_key(|policy| rule::policy_name(policy));
        for policy in policies {
            if rule::isolates(policy, direction) && rule::selects(policy, pod) {
                side.isolated_by.push(rule::policy_name(policy));
                self.add_rules(&mut side, policy, direction, packet, pod);
            }
        }
        Some(side)
    }

    fn add_rules(
        &self,
        side: &mut Side,
        policy: &NetworkPolicy,
        direction: Direction,
        packet: &Packet,
        pod: &Pod,
    ) {
        let question = rule::Question { cluster: self, policy, direction, packet, subject: pod };
        for rule in 0..rule::count(policy, direction) {
            let at = || RuleRef { policy: rule::policy_name(policy), rule };
            match question.admits(rule) {
                None => side.unreadable.push(at()),
                Some(true) if side.allowed_by.is_none() => side.allowed_by = Some(at()),
                Some(_) => {}
            }
        }
    }

    fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.metadata.name.as_deref() == Some(name))
    }
}

fn addresses(node: &Node) -> BTreeSet<IpAddr> {
    let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    listed.filter_map(|entry| entry.address.parse().ok()).collect()
}

fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let many = spec.pod_cidrs.iter().flatten();
    let one = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.iter().flatten().next().is_none());
    many.chain(one).filter_map(|text| text.parse().ok()).collect()
}

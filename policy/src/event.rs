//! What the engine is fed: Kubernetes objects, whatever their source.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::{Deserialize, Serialize};

/// Kinds the policy engine reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// core/v1 Node: our own podCIDRs and addresses.
    Node,
    /// core/v1 Namespace: labels.
    Namespace,
    /// core/v1 Pod: labels, addresses, node, container ports.
    Pod,
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy,
}

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Kind.
    pub kind: Kind,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{:?} {}", self.kind, self.name)
        } else {
            write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// An object as read from its source.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A node.
    Node(Box<Node>),
    /// A namespace.
    Namespace(Box<Namespace>),
    /// A pod.
    Pod(Box<Pod>),
    /// A policy.
    NetworkPolicy(Box<NetworkPolicy>),
}

/// One change of the input.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object exists with this content (created, changed, or listed again).
    Apply(Object),
    /// The object is gone.
    Delete(Key),
    /// A full listing of this kind begins: what is not applied before the matching `RelistEnd`
    /// no longer exists.
    RelistBegin(Kind),
    /// The listing is complete; the first one of each kind makes that kind in sync.
    RelistEnd(Kind),
    /// A pod of ours has these addresses: its CNI plugin says so, before the API server does. They
    /// replace what the Pod's status says, and count as soon as the Pod object is known.
    Attachment {
        /// Identity of the attachment: the same pod may have an old and a new one for a moment.
        id: String,
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        name: String,
        /// `metadata.uid` of the pod; empty = unknown. Another pod of the same name does not get
        /// these addresses.
        uid: String,
        /// Addresses.
        addresses: Vec<IpAddr>,
        /// Host side interface; empty = unknown.
        interface: String,
    },
    /// The attachment is gone.
    Detachment {
        /// Identity of the attachment.
        id: String,
    },
    /// Which packets of our pods leave with the node's address; `None`: none.
    Masquerade(Option<Masquerade>),
    /// There is an overlay between the nodes, or no longer.
    Overlay(Option<Overlay>),
    /// The kernel routes this local pod address to this interface (anti-spoofing); `None` = to none.
    Interface {
        /// Pod address.
        address: IpAddr,
        /// Host side interface name.
        interface: Option<String>,
    },
}

/// Outgoing address translation: packets from `sources` to anything that is neither `inside` nor of
/// `nodes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masquerade {
    /// Pod CIDRs of our node whose pods are translated.
    pub sources: BTreeSet<IpNet>,
    /// Where pods are known by their own addresses: pools, and the pod CIDRs of all nodes.
    pub inside: BTreeSet<IpNet>,
    /// Addresses of nodes.
    pub nodes: BTreeSet<IpAddr>,
}

/// A VXLAN overlay, as far as it must be guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// UDP port that encapsulated packets come to.
    pub port: u16,
    /// Nodes that may send them: their addresses.
    pub senders: BTreeSet<IpAddr>,
}

//! Kubernetes objects (loose) -> model (cannot be invalid). Every fault names its field.
//!
//! What cannot be understood admits nothing and still isolates: a rule with a fault is kept as
//! unreadable; a podSelector with a fault selects by what is left of it and then admits nothing; a
//! policyTypes entry with a fault isolates both directions.

mod label;
mod node;
mod pod;
mod policy;
mod port;

pub(crate) use label::{LabelSelector, Labels};
pub(crate) use node::pod_cidrs;
pub use pod::MIRROR_ANNOTATION;
pub(crate) use pod::{NamedPort, Pod};
pub(crate) use policy::{Block, Namespaces, Peer, Policy, Rule};
pub(crate) use port::{PortMatch, Protocol};

/// Direction of traffic, seen from the pod that a policy selects.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
}

impl ObjectName {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

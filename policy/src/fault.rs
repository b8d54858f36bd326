//! What is wrong with an input object, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::Key;

/// One thing wrong with one object. It stays listed until the object is applied again without it,
/// or deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// The object.
    pub key: Key,
    /// Field path, e.g. `spec.ingress[0].from[1].ipBlock.cidr`.
    pub field: String,
    /// What kind of fault.
    pub reason: Reason,
    /// For humans: the offending value and what was expected.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.key, self.field, self.message)
    }
}

/// Kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// `metadata.name` (or `metadata.namespace`) is missing.
    MissingName,
    /// Not an address, or one that no pod can have (unspecified, loopback, multicast).
    InvalidAddress,
    /// Two pods have the same address.
    AddressConflict,
    /// Not a CIDR.
    InvalidCidr,
    /// An exception of an ipBlock that is not a part of its CIDR.
    ExceptOutsideCidr,
    /// Not a port number (1-65535).
    InvalidPort,
    /// Not a port name (RFC 6335 §5.1).
    InvalidPortName,
    /// `endPort` without a numeric `port`, or before it.
    InvalidPortRange,
    /// Not TCP, UDP or SCTP.
    InvalidProtocol,
    /// Not Ingress or Egress.
    InvalidPolicyType,
    /// Not In, NotIn, Exists or DoesNotExist.
    InvalidOperator,
    /// In and NotIn need values; Exists and DoesNotExist must have none.
    InvalidSelectorValues,
    /// Not a label key.
    InvalidLabelKey,
    /// Not a label value.
    InvalidLabelValue,
    /// A peer without any field.
    EmptyPeer,
    /// A peer with an ipBlock beside a selector.
    MixedPeer,
}

/// A fault that does not know its object yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldFault {
    pub(crate) field: String,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl FieldFault {
    pub(crate) fn new(path: &Path<'_>, reason: Reason, message: String) -> Self {
        Self { field: path.to_string(), reason, message }
    }

    pub(crate) fn of(self, key: &Key) -> Fault {
        Fault { key: key.clone(), field: self.field, reason: self.reason, message: self.message }
    }
}

/// Where we are in an object. Costs nothing until a fault prints it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Segment<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    pub(crate) fn root(field: &'a str) -> Self {
        Self { parent: None, segment: Segment::Field(field) }
    }

    pub(crate) fn field(&'a self, field: &'a str) -> Self {
        Self { parent: Some(self), segment: Segment::Field(field) }
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), segment: Segment::Index(index) }
    }

    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), segment: Segment::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.segment {
            Segment::Field(field) if self.parent.is_none() => f.write_str(field),
            Segment::Field(field) => write!(f, ".{field}"),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_prints_like_a_field_path() {
        let spec = Path::root("spec");
        let ingress = spec.field("ingress");
        let rule = ingress.index(0);
        let labels = rule.field("matchLabels");
        assert_eq!(labels.key("a/b").to_string(), r#"spec.ingress[0].matchLabels["a/b"]"#);
    }
}

//! Where objects come from: one event type for a directory of manifests and for Kubernetes watches.
//!
//! ```text
//! dir::Watcher (inotify)   --+
//!                            +--batches of Event-->  runtime (fan-out)
//! kube::Source (API server) --+
//! ```
//! A source reads, checks the form, and remembers the last good version of each object. It never
//! interprets what an object means; that is the business of [`crate::config`] and of the policy
//! engine.

mod deserialize;
pub mod dir;
pub mod kube;
pub mod manifest;
mod memory;
mod salvage;
mod secret;
mod store;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher as _;
use std::path::Path;
use std::sync::Arc;

use api::crd::{BGPConfiguration, BGPPeer, NetworkConfiguration};
use api::error_code::Code;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use rustc_hash::FxHasher;

pub use manifest::read as read_manifests;
pub use secret::Secret;

/// Kinds that the agent reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// core/v1 Node.
    Node,
    /// core/v1 Namespace.
    Namespace,
    /// core/v1 Pod.
    Pod,
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy,
    /// rampart.network/v1alpha1 BGPConfiguration.
    BgpConfiguration,
    /// rampart.network/v1alpha1 BGPPeer.
    BgpPeer,
    /// rampart.network/v1alpha1 NetworkConfiguration.
    NetworkConfiguration,
    /// core/v1 Secret: the few that hold passwords of peers.
    Secret,
}

impl Kind {
    /// All, in the order they are listed.
    pub const ALL: [Self; 8] = [
        Self::Node,
        Self::Namespace,
        Self::Pod,
        Self::NetworkPolicy,
        Self::BgpConfiguration,
        Self::BgpPeer,
        Self::NetworkConfiguration,
        Self::Secret,
    ];
    /// Those that are followed as a whole, in all namespaces; Secrets are asked for by name.
    pub const WATCHED: [Self; 7] = [
        Self::Node,
        Self::Namespace,
        Self::Pod,
        Self::NetworkPolicy,
        Self::BgpConfiguration,
        Self::BgpPeer,
        Self::NetworkConfiguration,
    ];

    /// The name in a manifest.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::BgpConfiguration => "BGPConfiguration",
            Self::BgpPeer => "BGPPeer",
            Self::NetworkConfiguration => "NetworkConfiguration",
            Self::Secret => "Secret",
        }
    }

    /// Objects of this kind live in a namespace.
    #[must_use]
    pub const fn namespaced(self) -> bool {
        match self {
            Self::Pod | Self::NetworkPolicy | Self::Secret => true,
            Self::Node
            | Self::Namespace
            | Self::BgpConfiguration
            | Self::BgpPeer
            | Self::NetworkConfiguration => false,
        }
    }
}

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
            write!(f, "{} {}", self.kind.name(), self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
        }
    }
}

/// An object of one of the kinds we read. Its name, and its namespace where there is one, are set.
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
    /// Cluster-wide BGP settings.
    BgpConfiguration(Box<BGPConfiguration>),
    /// A BGP neighbour.
    BgpPeer(Box<BGPPeer>),
    /// How pods are networked.
    NetworkConfiguration(Box<NetworkConfiguration>),
    /// Values that nobody is shown.
    Secret(Box<Secret>),
}

impl Object {
    /// Kind of the object.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Namespace(_) => Kind::Namespace,
            Self::Pod(_) => Kind::Pod,
            Self::NetworkPolicy(_) => Kind::NetworkPolicy,
            Self::BgpConfiguration(_) => Kind::BgpConfiguration,
            Self::BgpPeer(_) => Kind::BgpPeer,
            Self::NetworkConfiguration(_) => Kind::NetworkConfiguration,
            Self::Secret(_) => Kind::Secret,
        }
    }

    /// Name of the object.
    #[must_use]
    pub fn key(&self) -> Key {
        let metadata = match self {
            Self::Node(o) => &o.metadata,
            Self::Namespace(o) => &o.metadata,
            Self::Pod(o) => &o.metadata,
            Self::NetworkPolicy(o) => &o.metadata,
            Self::BgpConfiguration(o) => &o.metadata,
            Self::BgpPeer(o) => &o.metadata,
            Self::NetworkConfiguration(o) => &o.metadata,
            Self::Secret(o) => &o.metadata,
        };
        Key {
            kind: self.kind(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// Where an object was read from. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// File.
    pub file: Arc<Path>,
    /// First line of the object, from 1.
    pub line: u32,
    fields: Arc<FieldLines>,
}

impl Origin {
    /// An origin that knows the lines of these fields.
    #[must_use]
    pub fn new(file: Arc<Path>, line: u32, fields: FieldLines) -> Self {
        Self { file, line, fields: Arc::new(fields) }
    }

    /// `file:line` of the field, or of its nearest parent that is written down.
    #[must_use]
    pub fn locate(&self, field: &str) -> String {
        let mut path = field;
        let line = loop {
            if let Some(line) = self.fields.line(path) {
                break line;
            }
            match path.rfind(['.', '[']).and_then(|end| path.get(..end)) {
                Some(parent) => path = parent,
                None => break self.line,
            }
        };
        format!("{}:{line}", self.file.display())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Lines of the fields of one object, 16 octets a field.
///
/// Paths are kept as hashes: they are only looked up to tell a human a line, so a collision costs
/// a wrong line number at worst.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldLines(Box<[(u64, u32)]>);

impl FieldLines {
    fn hash(path: &str) -> u64 {
        let mut hasher = FxHasher::default();
        hasher.write(path.as_bytes());
        hasher.finish()
    }

    fn line(&self, path: &str) -> Option<u32> {
        let hash = Self::hash(path);
        let index = self.0.binary_search_by_key(&hash, |(h, _)| *h).ok()?;
        self.0.get(index).map(|(_, line)| *line)
    }
}

impl FromIterator<(String, u32)> for FieldLines {
    fn from_iter<I: IntoIterator<Item = (String, u32)>>(iter: I) -> Self {
        let lines: BTreeMap<u64, u32> =
            iter.into_iter().map(|(path, line)| (Self::hash(&path), line)).collect();
        Self(lines.into_iter().collect())
    }
}

/// Input that was refused, in words for a human. Stands until it is [`Event::Resolved`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejection {
    /// Identifies the complaint: the same trouble in the same place has the same id.
    pub id: RejectionId,
    /// Catalogue code.
    pub code: Code,
    /// What it is about: `NetworkPolicy shop/web`, or the file.
    pub subject: String,
    /// What, in one line, with the field path.
    pub message: String,
    /// `file:line`.
    pub location: Option<String>,
    /// What to do.
    pub next: String,
}

/// Identity of a [`Rejection`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RejectionId(pub String);

/// One change of the input.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object exists with this content.
    Apply(Object, Option<Origin>),
    /// The object is gone.
    Delete(Key),
    /// A full listing of this kind begins: what is not applied before its end no longer exists.
    RelistBegin(Kind),
    /// The listing is complete; the first of each kind makes that kind in sync.
    RelistEnd(Kind),
    /// Something was refused.
    Rejected(Rejection),
    /// An earlier refusal no longer stands.
    Resolved(RejectionId),
}

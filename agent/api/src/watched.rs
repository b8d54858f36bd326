//! What the agent asks of the API server: the kinds it watches, and the verbs it uses beside.
//!
//! The Kubernetes source watches exactly [`WATCHED`], and RBAC is computed from [`WATCHED`] and
//! [`WRITTEN`], so that neither can know more than the other.

/// A kind that is listed and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// API group; empty for core.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural name in paths and in RBAC.
    pub plural: &'static str,
    /// The kind is ours: it exists only where our CRDs are installed.
    pub ours: bool,
}

/// Kinds that every agent lists and watches in all namespaces.
pub const WATCHED: &[Watched] = &[
    core("Node", "nodes"),
    core("Namespace", "namespaces"),
    core("Pod", "pods"),
    Watched {
        group: "networking.k8s.io",
        version: "v1",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        ours: false,
    },
    ours("BGPConfiguration", "bgpconfigurations"),
    ours("BGPPeer", "bgppeers"),
    ours("NetworkConfiguration", "networkconfigurations"),
];

/// Plural names of the kinds, out of [`WATCHED`], that a route reflector follows: who may be a
/// client, and in which AS. It is granted these and writes nothing.
pub const REFLECTOR_WATCHED: &[&str] = &["nodes", "bgpconfigurations"];

/// An object that is listed and watched by its name, in the agent's own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Plural name of the core kind.
    pub plural: &'static str,
    /// Name of the object.
    pub name: &'static str,
    /// What for: becomes a comment in the manifest.
    pub why: &'static str,
}

/// Single objects that agents read. Any other Secret that a BGPPeer names is asked for in the same
/// way, and has to be granted by whoever names it.
pub const NAMED: &[Named] = &[Named {
    plural: "secrets",
    name: crate::constant::PASSWORD_SECRET,
    why: "passwords of BGP peers; no other Secret, and no list of them",
}];

/// Where a rule of RBAC holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the whole cluster.
    Cluster,
    /// In the agent's own namespace.
    OwnNamespace,
}

/// What the agent writes, or reads by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// API group; empty for core.
    pub group: &'static str,
    /// Plural name, with the subresource.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Where.
    pub scope: Scope,
    /// What for: becomes a comment in the manifest.
    pub why: &'static str,
}

/// All that the agent may do beside watching.
pub const WRITTEN: &[Written] = &[
    Written {
        group: crate::constant::GROUP,
        resource: "nodenetworkstatuses",
        verbs: &["create", "get", "list", "patch", "watch"],
        scope: Scope::Cluster,
        why: "the node's own status object; read by the one agent that writes summary conditions",
    },
    Written {
        group: crate::constant::GROUP,
        resource: "nodenetworkstatuses/status",
        verbs: &["patch"],
        scope: Scope::Cluster,
        why: "the node's own status",
    },
    Written {
        group: crate::constant::GROUP,
        resource: "bgppeers/status",
        verbs: &["patch"],
        scope: Scope::Cluster,
        why: "conditions",
    },
    Written {
        group: crate::constant::GROUP,
        resource: "bgpconfigurations/status",
        verbs: &["patch"],
        scope: Scope::Cluster,
        why: "conditions",
    },
    Written {
        group: crate::constant::GROUP,
        resource: "networkconfigurations/status",
        verbs: &["patch"],
        scope: Scope::Cluster,
        why: "conditions",
    },
    Written {
        group: "",
        resource: "nodes/status",
        verbs: &["patch"],
        scope: Scope::Cluster,
        why: "condition NetworkUnavailable of the own Node (an admission policy refuses others)",
    },
    Written {
        group: "",
        resource: "events",
        verbs: &["create", "patch"],
        scope: Scope::Cluster,
        why: "events about nodes, pods, policies and peers",
    },
    Written {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["create", "get", "update"],
        scope: Scope::OwnNamespace,
        why: "which agent writes summary conditions",
    },
];

const fn core(kind: &'static str, plural: &'static str) -> Watched {
    Watched { group: "", version: "v1", kind, plural, ours: false }
}

const fn ours(kind: &'static str, plural: &'static str) -> Watched {
    Watched {
        group: crate::constant::GROUP,
        version: crate::constant::VERSION,
        kind,
        plural,
        ours: true,
    }
}

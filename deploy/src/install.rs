//! Everything that makes Rampart the network of a cluster.

use api::constant::NAMESPACE;
use k8s_openapi::api::core::v1::Namespace;

use crate::document::Document;
use crate::{admission, agent, crds, name, rbac};

/// The namespace.
pub(crate) fn namespace() -> anyhow::Result<Vec<Document>> {
    let mut metadata = name::cluster(NAMESPACE);
    // The agent is part of the host's network: host network, host paths, NET_ADMIN.
    metadata.labels.get_or_insert_default().extend(name::labels([
        ("pod-security.kubernetes.io/audit", "privileged"),
        ("pod-security.kubernetes.io/enforce", "privileged"),
        ("pod-security.kubernetes.io/warn", "privileged"),
    ]));
    let namespace = Namespace { metadata, ..Namespace::default() };
    Ok(vec![Document::new(&namespace)?])
}

/// Roles and bindings.
pub(crate) fn rbac() -> anyhow::Result<Vec<Document>> {
    Ok([rbac::agent()?, rbac::people()?].into_iter().flatten().collect())
}

/// All objects, in the order in which they must be made.
pub(crate) fn documents() -> anyhow::Result<Vec<Document>> {
    let parts =
        [namespace()?, crds::documents()?, rbac()?, admission::documents()?, agent::documents()?];
    Ok(parts.into_iter().flatten().collect())
}

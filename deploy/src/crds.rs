//! CustomResourceDefinitions of our kinds.

use anyhow::Context as _;
use api::crd::{BGPConfiguration, BGPPeer, NetworkConfiguration, NodeNetworkStatus};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

fn all() -> [CustomResourceDefinition; 4] {
    [BGPConfiguration::crd(), BGPPeer::crd(), NetworkConfiguration::crd(), NodeNetworkStatus::crd()]
}

/// All of them, one document each.
pub(crate) fn yaml() -> anyhow::Result<String> {
    let mut text = "# Printed by `cargo run -p deploy -- generate`. Do not edit.\n".to_owned();
    for crd in all() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd).context("print a CRD")?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crds_are_cluster_scoped_and_read_back_as_they_were() {
        let text = yaml().unwrap();
        let crds: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(crds, all());
        for crd in &crds {
            assert_eq!(crd.spec.group, api::constant::GROUP);
            assert_eq!(crd.spec.scope, "Cluster");
            assert_eq!(crd.spec.versions[0].name, api::constant::VERSION);
        }
    }

    #[test]
    fn the_committed_manifests_are_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/crds.yaml");
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(committed == yaml().unwrap(), "run `cargo run -p deploy -- generate`");
    }
}

//! CustomResourceDefinitions of our kinds.

use api::crd::{BGPConfiguration, BGPPeer, NetworkConfiguration, NodeNetworkStatus};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

use serde_json::Value;

use crate::document::Document;
use crate::name;

/// All of them, as the types say.
fn all() -> [CustomResourceDefinition; 4] {
    [BGPConfiguration::crd(), BGPPeer::crd(), NetworkConfiguration::crd(), NodeNetworkStatus::crd()]
}

/// All of them, as the API server wants them.
pub(crate) fn documents() -> anyhow::Result<Vec<Document>> {
    all()
        .into_iter()
        .map(|mut crd| {
            crd.metadata.labels = name::cluster("").labels;
            let mut document = Document::new(&crd)?;
            integers(&mut document.object);
            Ok(document)
        })
        .collect()
}

/// Rust's integers in the words of OpenAPI: it has no unsigned formats, but bounds.
fn integers(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let largest = match fields.get("format").and_then(Value::as_str) {
                Some("uint8") => Some(u64::from(u8::MAX)),
                Some("uint16") => Some(u64::from(u16::MAX)),
                Some("uint32") => Some(u64::from(u32::MAX)),
                _ => None,
            };
            if let Some(largest) = largest {
                fields.remove("format");
                fields.entry("maximum").or_insert_with(|| largest.into());
            }
            for bound in ["maximum", "minimum"] {
                // The types have them as floats.
                if let Some(value) = fields.get_mut(bound)
                    && let Some(whole) =
                        value.as_f64().and_then(|float| float.to_string().parse::<i64>().ok())
                {
                    *value = whole.into();
                }
            }
            fields.values_mut().for_each(integers);
        }
        Value::Array(items) => items.iter_mut().for_each(integers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crds_are_cluster_scoped_and_read_back() {
        let text = crate::document::yaml(&documents().unwrap()).unwrap();
        let crds: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(crds.len(), all().len());
        for crd in &crds {
            assert_eq!(crd.spec.group, api::constant::GROUP);
            assert_eq!(crd.spec.scope, "Cluster");
            assert_eq!(crd.spec.versions[0].name, api::constant::VERSION);
        }
    }
}

//! core/v1 Secret, as far as it is read: its values, which are never shown.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// A Secret. Its `Debug` shows the names of its keys only.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Metadata.
    pub metadata: ObjectMeta,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<BTreeMap<String, ByteString>>,
    /// Values in clear text, which manifests may have; they win over `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    string_data: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "type", skip_serializing)]
    _type: Option<String>,
    #[serde(default, rename = "immutable", skip_serializing)]
    _immutable: Option<bool>,
}

impl Secret {
    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        let text = self.string_data.as_ref().and_then(|data| data.get(key)).map(String::as_bytes);
        text.or_else(|| self.data.as_ref()?.get(key).map(|value| value.0.as_slice()))
    }

    fn keys(&self) -> impl Iterator<Item = &String> {
        let data = self.data.iter().flat_map(BTreeMap::keys);
        data.chain(self.string_data.iter().flat_map(BTreeMap::keys))
    }

    /// Forgets what nobody reads.
    pub(super) fn trim(&mut self) {
        (self._type, self._immutable) = (None, None);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectMeta { namespace, name, .. } = &self.metadata;
        let keys: Vec<&String> = self.keys().collect();
        f.debug_struct("Secret")
            .field("namespace", namespace)
            .field("name", name)
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_never_shown() {
        let text = r#"{"metadata": {"name": "s"}, "data": {"a": "aHVudGVyMg=="}, "stringData": {"b": "swordfish"}}"#;
        let secret: Secret = serde_json::from_str(text).unwrap();
        assert_eq!(secret.value("a"), Some(&b"hunter2"[..]));
        assert_eq!(secret.value("b"), Some(&b"swordfish"[..]));
        assert_eq!(secret.value("c"), None);
        let shown = format!("{secret:?}");
        assert!(shown.contains(r#"["a", "b"]"#), "{shown}");
        for hidden in ["hunter2", "swordfish", "aHVudGVyMg", "104, 117"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}

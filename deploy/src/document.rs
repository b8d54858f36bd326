//! YAML documents with comments.

use anyhow::Context as _;
use k8s_openapi::Resource;
use serde::Serialize;
use serde_json::Value;

/// First line of every generated YAML file.
const HEADER: &str = "# Printed by `cargo run -p deploy -- generate`. Do not edit.\n";

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    /// Lines above the object, without `# `.
    pub(crate) comment: Vec<String>,
    pub(crate) object: Value,
}

impl Document {
    /// A Kubernetes object.
    pub(crate) fn new<T: Resource + Serialize>(object: &T) -> anyhow::Result<Self> {
        let value = serde_json::to_value(object).with_context(|| format!("print a {}", T::KIND))?;
        Ok(Self { comment: Vec::new(), object: value })
    }

    /// What the types of the API do not have.
    pub(crate) fn plain(object: Value) -> Self {
        Self { comment: Vec::new(), object }
    }

    /// With text above it, one line for each line of the text.
    pub(crate) fn comment(mut self, text: impl AsRef<str>) -> Self {
        self.comment.extend(text.as_ref().lines().map(str::to_owned));
        self
    }
}

/// One file of all documents.
pub(crate) fn yaml(documents: &[Document]) -> anyhow::Result<String> {
    let mut text = HEADER.to_owned();
    for document in documents {
        text.push_str("---\n");
        for line in &document.comment {
            text.push_str(format!("# {line}").trim_end());
            text.push('\n');
        }
        text.push_str(&serde_saphyr::to_string(&document.object).context("print YAML")?);
    }
    Ok(text)
}

//! `-o`: for people (table, wide, name) and for programs (json, yaml).

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};

/// Value of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns
    #[default]
    Table,
    /// More columns
    Wide,
    /// JSON, stable, with apiVersion and kind
    Json,
    /// The same as YAML
    Yaml,
    /// KIND/NAME, a line each
    Name,
}

/// The body of `-o json` for a list.
///
/// # Errors
/// An item that cannot be serialised, which no view is.
pub fn list<T: Serialize>(kind: &str, items: &[T]) -> Result<Value, Failure> {
    let items = items.iter().map(|item| object(kind, item)).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({
        "apiVersion": format!("{}/{}", api::constant::GROUP, api::constant::VERSION),
        "kind": format!("{kind}List"),
        "items": items,
    }))
}

/// The body of `-o json` for one object.
///
/// # Errors
/// See [`list`].
pub fn object<T: Serialize>(kind: &str, item: &T) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(item).map_err(|error| unprintable(&error))?;
    if let Value::Object(fields) = &mut value {
        fields.insert(
            "apiVersion".to_owned(),
            format!("{}/{}", api::constant::GROUP, api::constant::VERSION).into(),
        );
        fields.insert("kind".to_owned(), kind.into());
    }
    Ok(value)
}

/// `value` as text, ended by a line feed.
///
/// # Errors
/// See [`list`].
pub fn text(value: &Value, format: Format) -> Result<String, Failure> {
    if format == Format::Yaml {
        return serde_saphyr::to_string(value).map_err(|error| unprintable(&error));
    }
    let mut text = serde_json::to_string_pretty(value).map_err(|error| unprintable(&error))?;
    text.push('\n');
    Ok(text)
}

fn unprintable(error: &dyn std::fmt::Display) -> Failure {
    Failure::plain(Exit::Negative, "cannot print the answer", "report this as a bug of rctl")
        .because(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_its_version_and_kind() {
        let value = list("Peer", &[json!({"name": "tor-a", "peerKind": "tor"})]).unwrap();
        assert_eq!(value["kind"], "PeerList");
        assert_eq!(value["apiVersion"], "rampart.network/v1alpha1");
        assert_eq!(value["items"][0]["kind"], "Peer");
        assert_eq!(value["items"][0]["peerKind"], "tor");
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let value = json!({"a": [1, "two"]});
        let back: Value = serde_saphyr::from_str(&text(&value, Format::Yaml).unwrap()).unwrap();
        assert_eq!(back, value);
        assert_eq!(
            serde_json::from_str::<Value>(&text(&value, Format::Json).unwrap()).unwrap(),
            value
        );
    }
}

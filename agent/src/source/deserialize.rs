//! serde over the positioned tree: every error has a field path and a line, and fields that the
//! type does not know are collected instead of dropped.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use super::yaml::{Entry, Node, Value};

/// A field that cannot be read, with its path from the root that was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldError {
    /// `spec.ingress[0].from`; empty for the root.
    pub(super) path: String,
    /// From 1; 0 while unknown.
    pub(super) line: u32,
    pub(super) message: String,
    /// The type has no such field.
    pub(super) unknown: bool,
    located: bool,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl std::error::Error for FieldError {}

impl de::Error for FieldError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: String::new(),
            line: 0,
            message: message.to_string(),
            unknown: false,
            located: false,
        }
    }
}

impl FieldError {
    /// A field that must be there is not.
    pub(super) fn is_missing(&self) -> bool {
        self.message.starts_with("missing field")
    }

    fn at(mut self, path: Path<'_>, line: u32) -> Self {
        if !self.located {
            self.path = path.to_string();
            self.line = line;
            self.located = true;
        }
        self
    }
}

/// Reads `T` from `node`, whose own path is `prefix`.
///
/// The list holds the unknown fields; the value is right except for them. Without a value the list
/// ends with the reason.
pub(super) fn from_node<T: DeserializeOwned>(
    node: &Node,
    prefix: &str,
) -> Result<(T, Vec<FieldError>), Vec<FieldError>> {
    let unknown = RefCell::new(Vec::new());
    let result = T::deserialize(Reader { node, path: Path::Root(prefix), unknown: &unknown });
    let mut unknown = unknown.into_inner();
    match result {
        Ok(value) => Ok((value, unknown)),
        Err(error) => {
            unknown.push(error);
            Err(unknown)
        }
    }
}

/// Where we are, as a chain on the stack: rendered only for a complaint.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root(&'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(prefix) => f.write_str(prefix),
            Self::Key(Self::Root(""), key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    path: Path<'a>,
    unknown: &'a RefCell<Vec<FieldError>>,
}

impl<'a> Reader<'a> {
    fn visit<'de, V: Visitor<'de>>(
        self,
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let result = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) => visitor.visit_str(text),
            Value::Sequence(nodes) => {
                visitor.visit_seq(Items { reader: self, nodes: nodes.iter(), next: 0 })
            }
            Value::Mapping(entries) => visitor.visit_map(Fields {
                reader: self,
                entries: entries.iter(),
                known: fields,
                current: None,
            }),
        };
        result.map_err(|error| error.at(self.path, self.node.line))
    }
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.visit(None, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        // Kubernetes takes `cpu: 1` for `cpu: "1"`.
        let text = match &self.node.value {
            Value::Integer(value) if name == "Quantity" => value.to_string(),
            Value::Float(value) if name == "Quantity" => value.to_string(),
            _ => return visitor.visit_newtype_struct(self),
        };
        let node = Node { line: self.node.line, value: Value::String(text) };
        visitor.visit_newtype_struct(Reader { node: &node, ..self })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        self.visit(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let result = match &self.node.value {
            Value::String(text) => {
                visitor.visit_enum(IntoDeserializer::<FieldError>::into_deserializer(text.as_str()))
            }
            _ => Err(de::Error::custom("expected a word")),
        };
        result.map_err(|error| error.at(self.path, self.node.line))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'a> {
    reader: Reader<'a>,
    nodes: std::slice::Iter<'a, Node>,
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = FieldError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, FieldError> {
        let Some(node) = self.nodes.next() else { return Ok(None) };
        let parent = self.reader.path;
        let path = Path::Index(&parent, self.next);
        self.next = self.next.saturating_add(1);
        seed.deserialize(Reader { node, path, unknown: self.reader.unknown }).map(Some)
    }
}

struct Fields<'a> {
    reader: Reader<'a>,
    entries: std::slice::Iter<'a, Entry>,
    known: Option<&'static [&'static str]>,
    current: Option<&'a Entry>,
}

impl<'de> de::MapAccess<'de> for Fields<'_> {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FieldError> {
        for entry in self.entries.by_ref() {
            let path = Path::Key(&self.reader.path, &entry.key);
            if let Some(known) = self.known
                && !known.contains(&entry.key.as_str())
            {
                let message = match nearest(&entry.key, known) {
                    Some(name) => format!("unknown field `{}`, is it `{name}`?", entry.key),
                    None => format!("unknown field `{}`", entry.key),
                };
                let error = FieldError { unknown: true, ..de::Error::custom(message) };
                self.reader.unknown.borrow_mut().push(error.at(path, entry.line));
                continue;
            }
            self.current = Some(entry);
            let key: StrDeserializer<'_, FieldError> = entry.key.as_str().into_deserializer();
            return seed.deserialize(key).map(Some).map_err(|e| e.at(path, entry.line));
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<T::Value, FieldError> {
        let Some(entry) = self.current.take() else {
            return Err(de::Error::custom("value without a key"));
        };
        let parent = self.reader.path;
        let path = Path::Key(&parent, &entry.key);
        seed.deserialize(Reader { node: &entry.value, path, unknown: self.reader.unknown })
    }
}

/// The known name that is at most half of the letters away.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = (name.len() / 2).max(1);
    known
        .iter()
        .map(|candidate| (distance(&name.to_lowercase(), &candidate.to_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance (insert, delete, replace, swap of neighbours counts two).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i.saturating_add(1);
        let mut next = vec![left];
        for (y, above) in b.iter().zip(row.iter().skip(1)) {
            let replace = diagonal.saturating_add(usize::from(x != *y));
            left = replace.min(left.saturating_add(1)).min(above.saturating_add(1));
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::yaml;
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::api::networking::v1::NetworkPolicy;

    fn read<T: DeserializeOwned>(text: &str) -> Result<(T, Vec<FieldError>), FieldError> {
        from_node(yaml::parse(text)[0].as_ref().unwrap(), "").map_err(|mut errors| errors.remove(0))
    }

    #[test]
    fn a_wrong_type_has_path_and_line() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: c\n    ports:\n    - containerPort: http\n";
        let error = read::<Pod>(text).unwrap_err();
        assert_eq!(
            (error.path.as_str(), error.line),
            ("spec.containers[0].ports[0].containerPort", 9)
        );
        assert!(error.message.contains("http"), "{error}");
        assert!(!error.unknown);
    }

    #[test]
    fn unknown_fields_are_collected_with_a_suggestion() {
        let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec:\n  podSelector: {}\n  ingress:\n  - form: []\n  ingres: []\n";
        let (policy, unknown) = read::<NetworkPolicy>(text).unwrap();
        assert_eq!(policy.spec.unwrap().ingress.unwrap().len(), 1);
        let found: Vec<_> = unknown.iter().map(|e| (e.path.as_str(), e.line)).collect();
        assert_eq!(found, [("spec.ingress[0].form", 7), ("spec.ingres", 8)]);
        assert!(unknown[0].message.contains("is it `from`?"), "{}", unknown[0]);
        assert!(unknown[1].message.contains("is it `ingress`?"), "{}", unknown[1]);
    }

    #[test]
    fn a_missing_field_is_reported_at_its_parent() {
        let error = read::<BTreeMap<String, api::crd::BGPPeerSpec>>("a:\n  peerASN: 1\n");
        let error = error.unwrap_err();
        assert_eq!((error.path.as_str(), error.line), ("a", 2));
        assert_eq!(error.message, "missing field `peerAddress`");
        assert!(error.is_missing());
    }

    #[test]
    fn labels_that_are_numbers_are_refused_like_kubernetes_does() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    v: 1\n";
        let error = read::<Pod>(text).unwrap_err();
        assert_eq!((error.path.as_str(), error.line), ("metadata.labels.v", 6));
    }
}

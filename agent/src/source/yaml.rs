//! YAML text -> a tree of values that knows the line of each of them.
//!
//! JSON is read by the same code (it is YAML). Each document is parsed on its own, so that a broken
//! one does not hide its neighbours in the file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError};

/// Nodes that one document may have once its aliases are expanded (a "billion laughs" guard).
const NODE_LIMIT: usize = 1_000_000;

/// A value and where it starts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: u32,
    pub(super) value: Value,
}

/// A YAML 1.2 core schema value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    String(String),
    Sequence(Vec<Node>),
    /// In the order of the text.
    Mapping(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Line of the key.
    pub(super) line: u32,
    pub(super) value: Node,
}

impl Node {
    /// The value of `key`, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of `key`, if this is a mapping that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The elements, if this is a sequence.
    pub(super) fn as_sequence(&self) -> Option<&[Self]> {
        match &self.value {
            Value::Sequence(nodes) => Some(nodes),
            _ => None,
        }
    }
}

impl From<serde_json::Value> for Node {
    /// A tree without lines.
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Value::Integer(value),
                (None, Some(value)) => Value::Unsigned(value),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::String(text),
            Json::Array(values) => Value::Sequence(values.into_iter().map(Self::from).collect()),
            Json::Object(fields) => Value::Mapping(
                fields
                    .into_iter()
                    .map(|(key, value)| Entry { key, line: 0, value: Self::from(value) })
                    .collect(),
            ),
        };
        Self { line: 0, value }
    }
}

/// Why a document is no YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct SyntaxError {
    /// From 1, in the file.
    pub(super) line: u32,
    pub(super) message: String,
}

/// Reads all documents of a file; empty ones are left out.
pub(super) fn parse(text: &str) -> Vec<Result<Node, SyntaxError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    documents(text)
        .filter_map(|(skipped, part)| parse_document(skipped, &part).transpose())
        .collect()
}

/// Cuts at the `---` and `...` lines. YAML forbids either at the start of a line inside of any
/// value, so this needs no parser. The number is how many lines come before the part.
fn documents(text: &str) -> impl Iterator<Item = (u32, String)> {
    let mut parts = vec![(0_u32, String::new())];
    for (number, line) in (0_u32..).zip(text.split_inclusive('\n')) {
        let marker = line.get(..3);
        let rest = line.get(3..).unwrap_or_default();
        let ends = rest.is_empty() || rest.starts_with(char::is_whitespace);
        if ends && matches!(marker, Some("---" | "...")) {
            // What stands behind the marker belongs to the document; the marker becomes blanks so
            // that columns stay right.
            let content = if marker == Some("---") { format!("   {rest}") } else { String::new() };
            parts.push((number, if marker == Some("...") { "\n".to_owned() } else { content }));
        } else if let Some((_, part)) = parts.last_mut() {
            part.push_str(line);
        }
    }
    parts.into_iter()
}

fn parse_document(skipped: u32, text: &str) -> Result<Option<Node>, SyntaxError> {
    let mut builder = Builder::new(skipped);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| builder.scan_error(&error))?;
        let line = builder.line(span.start.line());
        builder.handle(event, line)?;
    }
    Ok(builder.root.filter(|node| node.value != Value::Null))
}

/// A collection that is being read.
enum Open {
    Sequence { line: u32, anchor: usize, nodes: Vec<Node> },
    Mapping { line: u32, anchor: usize, entries: Vec<Entry>, key: Option<(String, u32)> },
}

struct Builder {
    skipped: u32,
    stack: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

impl Builder {
    const fn new(skipped: u32) -> Self {
        Self { skipped, stack: Vec::new(), anchors: BTreeMap::new(), nodes: 0, root: None }
    }

    fn line(&self, line: usize) -> u32 {
        u32::try_from(line).unwrap_or(u32::MAX).saturating_add(self.skipped)
    }

    fn scan_error(&self, error: &ScanError) -> SyntaxError {
        SyntaxError {
            line: self.line(error.marker().line()),
            message: error.info().replace('\n', " "),
        }
    }

    fn handle(&mut self, event: Event<'_>, line: u32) -> Result<(), SyntaxError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_string = style != ScalarStyle::Plain
                    || tag.is_some_and(|tag| tag.core_suffix() == Some("str"));
                let value =
                    if is_string { Value::String(text.into_owned()) } else { resolve(text) };
                self.add(Node { line, value }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.stack.push(Open::Sequence { line, anchor, nodes: Vec::new() });
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.stack.push(Open::Mapping { line, anchor, entries: Vec::new(), key: None });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, size)) => self.add(node, 0, size),
                None => Err(SyntaxError { line, message: "alias to an unknown anchor".to_owned() }),
            },
            Event::UnresolvedAlias(name) => {
                Err(SyntaxError { line, message: format!("alias to unknown anchor `{name}`") })
            }
            // Comments, and marks of the stream: no data.
            _ => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), SyntaxError> {
        match self.stack.pop() {
            Some(Open::Sequence { line, anchor, nodes }) => {
                self.add(Node { line, value: Value::Sequence(nodes) }, anchor, 1)
            }
            Some(Open::Mapping { line, anchor, entries, .. }) => {
                self.add(Node { line, value: Value::Mapping(entries) }, anchor, 1)
            }
            None => Ok(()),
        }
    }

    /// Puts a finished node where it belongs. `size` counts the nodes that it adds.
    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(size);
        if self.nodes > NODE_LIMIT {
            let message = format!("more than {NODE_LIMIT} values in one document");
            return Err(SyntaxError { line: node.line, message });
        }
        if anchor != 0 {
            let size = count(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::Sequence { nodes, .. }) => nodes.push(node),
            Some(Open::Mapping { entries, key: pending, .. }) => match pending.take() {
                None => *pending = Some((key_text(&node)?, node.line)),
                Some((key, line)) => {
                    if entries.iter().any(|entry| entry.key == key) {
                        return Err(SyntaxError { line, message: format!("key `{key}` twice") });
                    }
                    entries.push(Entry { key, line, value: node });
                }
            },
        }
        Ok(())
    }
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::Sequence(nodes) => nodes.iter().map(count).sum::<usize>().saturating_add(1),
        Value::Mapping(entries) => {
            entries.iter().map(|entry| count(&entry.value)).sum::<usize>().saturating_add(1)
        }
        _ => 1,
    }
}

fn key_text(node: &Node) -> Result<String, SyntaxError> {
    match &node.value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Integer(value) => Ok(value.to_string()),
        Value::Unsigned(value) => Ok(value.to_string()),
        Value::Null | Value::Float(_) | Value::Sequence(_) | Value::Mapping(_) => {
            Err(SyntaxError { line: node.line, message: "a key must be a string".to_owned() })
        }
    }
}

/// A plain scalar by the YAML 1.2 core schema.
fn resolve(text: Cow<'_, str>) -> Value {
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Some(value) = resolve_integer(&text) {
        return value;
    }
    // `inf`, `nan` and the like are words unless they start with a dot; Kubernetes has no use for
    // either, so only decimal forms are numbers.
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
        && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E'));
    match text.parse() {
        Ok(value) if numeric => Value::Float(value),
        _ => Value::String(text.into_owned()),
    }
}

fn resolve_integer(text: &str) -> Option<Value> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return u64::from_str_radix(digits, radix).ok().map(unsigned);
        }
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().map(Value::Integer).or_else(|_| text.parse().map(unsigned)).ok()
}

fn unsigned(value: u64) -> Value {
    i64::try_from(value).map_or(Value::Unsigned(value), Value::Integer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        parse(text).remove(0).unwrap()
    }

    #[test]
    fn values_know_their_lines_across_documents() {
        let nodes = parse("# c\na: 1\n---\nb:\n  - x\n  - y: \"2\"\n...\n---\n");
        assert_eq!(nodes.len(), 2);
        let second = nodes[1].as_ref().unwrap();
        let items = second.get("b").unwrap().as_sequence().unwrap();
        assert_eq!((items[0].line, items[1].line), (5, 6));
        assert_eq!(items[1].get("y").unwrap().as_str(), Some("2"));
        assert_eq!(second.entry("b").unwrap().line, 4);
    }

    #[test]
    fn a_broken_document_does_not_hide_its_neighbours() {
        let nodes = parse("a: 1\n---\nb: [1, 2\nc: }\n---\nd: 4\n");
        assert_eq!(nodes.len(), 3);
        assert!(nodes[0].is_ok() && nodes[2].is_ok());
        let error = nodes[1].as_ref().unwrap_err();
        assert!((3..=5).contains(&error.line), "{error:?}");
        assert_eq!(nodes[2].as_ref().unwrap().entry("d").unwrap().line, 6);
    }

    #[test]
    fn content_behind_the_marker_belongs_to_the_document() {
        assert_eq!(one("--- {a: b}\n").get("a").unwrap().as_str(), Some("b"));
        assert_eq!(one("---\tx\n").as_str(), Some("x"));
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let cases = [
            ("8080", Value::Integer(8080)),
            ("-1", Value::Integer(-1)),
            ("0x10", Value::Integer(16)),
            ("18446744073709551615", Value::Unsigned(u64::MAX)),
            ("1.5", Value::Float(1.5)),
            ("yes", Value::String("yes".into())),
            ("10.0.0.0/8", Value::String("10.0.0.0/8".into())),
            ("1e3m", Value::String("1e3m".into())),
            ("'1'", Value::String("1".into())),
            ("!!str 1", Value::String("1".into())),
            ("true", Value::Bool(true)),
        ];
        for (text, value) in cases {
            assert_eq!(one(text).value, value, "{text}");
        }
    }

    #[test]
    fn anchors_expand_but_not_without_bound() {
        let node = one("a: &x {k: v}\nb: *x\n");
        assert_eq!(node.get("b").unwrap().get("k").unwrap().as_str(), Some("v"));

        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..9 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        let error = parse(&bomb).remove(0).unwrap_err();
        assert!(error.message.contains("more than"), "{error}");
    }

    #[test]
    fn a_key_twice_is_an_error_at_the_second() {
        let error = parse("a: 1\nb: 2\na: 3\n").remove(0).unwrap_err();
        assert_eq!(error, SyntaxError { line: 3, message: "key `a` twice".into() });
    }

    #[test]
    fn json_is_read_too() {
        let node = one("{\n \"a\": {\"b\": [1, null]}\n}\n");
        assert_eq!(node.get("a").unwrap().get("b").unwrap().as_sequence().unwrap().len(), 2);
    }
}

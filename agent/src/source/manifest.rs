//! One file of manifests -> objects, and what is wrong with the rest.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use api::constant::{GROUP, VERSION};
use api::error_code::{self, Code};
use serde::de::DeserializeOwned;

use super::deserialize::{FieldError, from_node};
use super::yaml::{self, Node, Value};
use super::{FieldLines, Key, Kind, Object, Origin, salvage};

/// What one document (or item of a `List`) turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Manifest {
    /// An object in good form.
    Good {
        /// The object.
        object: Object,
        /// Where it stands.
        origin: Origin,
    },
    /// Something that cannot be taken as it is.
    Bad {
        /// Which object it is meant to be; `None` if not even that can be read.
        key: Option<Key>,
        /// The closed remainder of a NetworkPolicy: isolates, and admits only through the rules
        /// that can be read.
        salvaged: Option<Object>,
        /// Where it stands.
        origin: Origin,
        /// What is wrong with it; never empty.
        faults: Vec<Fault>,
    },
}

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Catalogue code.
    pub code: Code,
    /// Field path, `spec.ingress[0].from`; empty for the document.
    pub field: String,
    /// Line in the file, from 1.
    pub line: u32,
    /// What, without the field.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

impl From<FieldError> for Fault {
    fn from(error: FieldError) -> Self {
        let code = if error.unknown {
            error_code::UNKNOWN_FIELD
        } else if error.is_missing() {
            error_code::INVALID_OBJECT
        } else {
            error_code::MANIFEST_SYNTAX
        };
        Self { code, field: error.path, line: error.line, message: error.message }
    }
}

impl Fault {
    fn invalid(node: &Node, field: &str, message: String) -> Self {
        Self { code: error_code::INVALID_OBJECT, field: field.to_owned(), line: node.line, message }
    }
}

/// Reads all documents of a file, YAML or JSON. Never fails as a whole.
#[must_use]
pub fn read(file: &Arc<Path>, text: &str) -> Vec<Manifest> {
    let mut manifests = Vec::new();
    for document in yaml::parse(text) {
        match document {
            Ok(node) => read_node(file, &node, &mut manifests),
            Err(error) => manifests.push(Manifest::Bad {
                key: None,
                salvaged: None,
                origin: Origin::new(Arc::clone(file), error.line, FieldLines::default()),
                faults: vec![Fault {
                    code: error_code::MANIFEST_SYNTAX,
                    field: String::new(),
                    line: error.line,
                    message: error.message,
                }],
            }),
        }
    }
    manifests
}

fn read_node(file: &Arc<Path>, node: &Node, manifests: &mut Vec<Manifest>) {
    let bad = |key, salvaged, faults| Manifest::Bad {
        key,
        salvaged,
        origin: Origin::new(Arc::clone(file), node.line, FieldLines::default()),
        faults,
    };
    let kind = match classify(node) {
        Ok(Class::Ours(kind)) => kind,
        Ok(Class::Ignored) => return,
        Ok(Class::List) => {
            for item in node.get("items").and_then(Node::as_sequence).unwrap_or_default() {
                read_node(file, item, manifests);
            }
            return;
        }
        Err(fault) => return manifests.push(bad(None, None, vec![fault])),
    };
    let key = match identify(node, kind) {
        Ok(key) => key,
        Err(fault) => return manifests.push(bad(None, None, vec![fault])),
    };
    manifests.push(match object(node, &key) {
        Ok(object) => {
            let origin = Origin::new(Arc::clone(file), node.line, field_lines(node, kind));
            Manifest::Good { object, origin }
        }
        Err(faults) => {
            let salvaged = (kind == Kind::NetworkPolicy)
                .then(|| salvage::network_policy(node, &key))
                .flatten()
                .map(|policy| Object::NetworkPolicy(Box::new(policy)));
            bad(Some(key), salvaged, faults)
        }
    });
}

enum Class {
    Ours(Kind),
    List,
    /// Known to Kubernetes, of no use to us.
    Ignored,
}

fn classify(node: &Node) -> Result<Class, Fault> {
    if !matches!(node.value, Value::Mapping(_)) {
        let message = "a manifest is a mapping with apiVersion, kind and metadata".to_owned();
        let fault = Fault::invalid(node, "", message);
        return Err(Fault { code: error_code::MANIFEST_SYNTAX, ..fault });
    }
    let text = |field: &str| match node.get(field).map(|value| (value, value.as_str())) {
        Some((_, Some(text))) => Ok(text),
        Some((value, None)) => Err(Fault::invalid(value, field, "not a string".to_owned())),
        None => Err(Fault::invalid(node, field, "missing".to_owned())),
    };
    let (version, name) = (text("apiVersion")?, text("kind")?);
    let ours = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    match ours {
        Some(kind) if version == api_version(kind) => return Ok(Class::Ours(kind)),
        _ => {}
    }
    if name.ends_with("List") && node.get("items").is_some() {
        return Ok(Class::List);
    }
    if ours.is_none() && well_known(version, name) {
        return Ok(Class::Ignored);
    }
    let message = match ours {
        Some(kind) => format!("{name} of {version} is not read, only of {}", api_version(kind)),
        None => format!("kind {name} of {version} is unknown"),
    };
    let line = node.get("kind").map_or(node.line, |kind| kind.line);
    Err(Fault { code: error_code::UNKNOWN_KIND, field: "kind".to_owned(), line, message })
}

/// The apiVersion of the kinds that we read.
fn api_version(kind: Kind) -> String {
    match kind {
        Kind::Node | Kind::Namespace | Kind::Pod | Kind::Secret => "v1".to_owned(),
        Kind::NetworkPolicy => "networking.k8s.io/v1".to_owned(),
        Kind::BgpConfiguration | Kind::BgpPeer | Kind::NetworkConfiguration => {
            format!("{GROUP}/{VERSION}")
        }
    }
}

/// Kinds that stand beside ours in any directory of manifests. Only in the two groups that our own
/// kinds come from are they told apart by name, so that a misspelt NetworkPolicy is noticed.
fn well_known(version: &str, kind: &str) -> bool {
    const CORE: [&str; 16] = [
        "Binding",
        "ComponentStatus",
        "ConfigMap",
        "Endpoints",
        "Event",
        "LimitRange",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "PodTemplate",
        "ReplicationController",
        "ResourceQuota",
        "Service",
        "ServiceAccount",
        "Status",
        "Kustomization",
        "Eviction",
    ];
    const NETWORKING: [&str; 4] = ["Ingress", "IngressClass", "IPAddress", "ServiceCIDR"];
    match version.split_once('/') {
        None => version == "v1" && CORE.contains(&kind),
        Some(("networking.k8s.io", _)) => NETWORKING.contains(&kind),
        Some((group, _)) => {
            matches!(group, "apps" | "autoscaling" | "batch" | "policy")
                || group.ends_with(".k8s.io")
                || group.ends_with(".kubernetes.io")
        }
    }
}

/// The name that a manifest claims.
fn identify(node: &Node, kind: Kind) -> Result<Key, Fault> {
    let metadata = node
        .get("metadata")
        .ok_or_else(|| Fault::invalid(node, "metadata.name", "missing".to_owned()))?;
    let name = metadata
        .get("name")
        .ok_or_else(|| Fault::invalid(metadata, "metadata.name", "missing".to_owned()))?;
    let text = name
        .as_str()
        .filter(|text| is_name(text, 253, true))
        .ok_or_else(|| Fault::invalid(name, "metadata.name", BAD_NAME.to_owned()))?;
    let namespace = match metadata.get("namespace") {
        _ if !kind.namespaced() => String::new(),
        None => "default".to_owned(),
        Some(namespace) => namespace
            .as_str()
            .filter(|text| is_name(text, 63, false))
            .ok_or_else(|| Fault::invalid(namespace, "metadata.namespace", BAD_NAME.to_owned()))?
            .to_owned(),
    };
    Ok(Key { kind, namespace, name: text.to_owned() })
}

const BAD_NAME: &str = "must be lower-case letters, digits, `-` (and `.` in a name), starting and \
                        ending with a letter or digit";

/// RFC 1123 subdomain or label, as the API server asks for.
pub(crate) fn is_name(text: &str, longest: usize, dots: bool) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |part: &str| {
        part.bytes().all(|b| alphanumeric(b) || b == b'-')
            && part.bytes().next().is_some_and(alphanumeric)
            && part.bytes().next_back().is_some_and(alphanumeric)
    };
    text.len() <= longest && if dots { text.split('.').all(label) } else { label(text) }
}

/// The object that a tree describes, trimmed; `key` is what it says it is.
pub(super) fn object(node: &Node, key: &Key) -> Result<Object, Vec<Fault>> {
    let mut object = match key.kind {
        Kind::Node => Object::Node(decode(node)?),
        Kind::Namespace => Object::Namespace(decode(node)?),
        Kind::Pod => Object::Pod(decode(node)?),
        Kind::NetworkPolicy => Object::NetworkPolicy(decode(node)?),
        Kind::BgpConfiguration => Object::BgpConfiguration(decode(node)?),
        Kind::BgpPeer => Object::BgpPeer(decode(node)?),
        Kind::NetworkConfiguration => Object::NetworkConfiguration(decode(node)?),
        Kind::Secret => Object::Secret(decode(node).map_err(without_content)?),
    };
    if key.kind == Kind::BgpConfiguration && key.name != "default" {
        let message = "only the BGPConfiguration named `default` is read".to_owned();
        return Err(vec![Fault::invalid(node, "metadata.name", message)]);
    }
    normalise(&mut object, key);
    Ok(object)
}

fn decode<T: DeserializeOwned>(node: &Node) -> Result<Box<T>, Vec<Fault>> {
    let (value, mut errors) = match from_node(node, "") {
        Ok((value, unknown)) => (Some(value), unknown),
        Err(errors) => (None, errors),
    };
    errors.retain(|error| {
        // Nobody writes a status by hand: what we do not know there comes from a newer API server.
        let newer = error.unknown && error.path.starts_with("status.");
        // Looked at already; the derived types of our own kinds do not list them as fields.
        let seen = error.unknown && matches!(error.path.as_str(), "apiVersion" | "kind");
        !(newer || seen)
    });
    // A misspelt field is missing under its right name: one message is enough.
    if errors.len() > 1 && errors.last().is_some_and(FieldError::is_missing) {
        errors.pop();
    }
    match value {
        Some(value) if errors.is_empty() => Ok(Box::new(value)),
        _ => Err(errors.into_iter().map(Fault::from).collect()),
    }
}

/// A message may quote what cannot be read: not of a Secret.
fn without_content(mut faults: Vec<Fault>) -> Vec<Fault> {
    for fault in faults.iter_mut().filter(|fault| fault.code == error_code::MANIFEST_SYNTAX) {
        "is not what a Secret has there (what it has is not shown)".clone_into(&mut fault.message);
    }
    faults
}

/// Fills in what an API server would, and drops what nobody here looks at (memory).
fn normalise(object: &mut Object, key: &Key) {
    let metadata = match object {
        Object::Node(o) => {
            if let Some(status) = &mut o.status {
                status.images = None;
            }
            &mut o.metadata
        }
        Object::Namespace(o) => {
            let labels = o.metadata.labels.get_or_insert_default();
            labels.insert("kubernetes.io/metadata.name".to_owned(), key.name.clone());
            &mut o.metadata
        }
        Object::Pod(o) => {
            trim_pod(o);
            &mut o.metadata
        }
        Object::NetworkPolicy(o) => &mut o.metadata,
        Object::BgpConfiguration(o) => &mut o.metadata,
        Object::BgpPeer(o) => &mut o.metadata,
        Object::NetworkConfiguration(o) => &mut o.metadata,
        Object::Secret(o) => {
            o.trim();
            &mut o.metadata
        }
    };
    metadata.managed_fields = None;
    // What runtimes call the uid of a static pod; see the policy engine's reading of it.
    metadata.annotations = metadata.annotations.take().and_then(|mut annotations| {
        annotations.retain(|key, _| key == policy::MIRROR_ANNOTATION);
        (!annotations.is_empty()).then_some(annotations)
    });
    metadata.namespace = (!key.namespace.is_empty()).then(|| key.namespace.clone());
}

/// Leaves what policy and routing need: node, addresses, phase, ports.
fn trim_pod(pod: &mut k8s_openapi::api::core::v1::Pod) {
    use k8s_openapi::api::core::v1::{Container, PodSpec, PodStatus};
    let ports = |container: Container| Container {
        name: container.name,
        ports: container.ports,
        restart_policy: container.restart_policy,
        ..Container::default()
    };
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        containers: spec.containers.into_iter().map(ports).collect(),
        init_containers: spec
            .init_containers
            .map(|containers| containers.into_iter().map(ports).collect()),
        host_network: spec.host_network,
        node_name: spec.node_name,
        ..PodSpec::default()
    });
    pod.status = pod.status.take().map(|status| PodStatus {
        phase: status.phase,
        pod_ip: status.pod_ip,
        pod_ips: status.pod_ips,
        host_ip: status.host_ip,
        host_ips: status.host_ips,
        ..PodStatus::default()
    });
}

/// Lines of all fields, for kinds whose content can be wrong in meaning, too.
fn field_lines(node: &Node, kind: Kind) -> FieldLines {
    match kind {
        Kind::Namespace | Kind::Pod | Kind::Secret => FieldLines::default(),
        Kind::Node
        | Kind::NetworkPolicy
        | Kind::BgpConfiguration
        | Kind::BgpPeer
        | Kind::NetworkConfiguration => {
            let mut lines = Vec::new();
            collect_lines(node, "", &mut lines);
            lines.into_iter().collect()
        }
    }
}

fn collect_lines(node: &Node, path: &str, lines: &mut Vec<(String, u32)>) {
    match &node.value {
        Value::Mapping(entries) => {
            for entry in entries {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{}", entry.key);
                collect_lines(&entry.value, &path, lines);
                lines.push((path, entry.line));
            }
        }
        Value::Sequence(nodes) => {
            for (index, node) in nodes.iter().enumerate() {
                let path = format!("{path}[{index}]");
                collect_lines(node, &path, lines);
                lines.push((path, node.line));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;

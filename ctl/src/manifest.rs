//! The manifests of this version, as they are in `deploy/`, and what `--set` changes in them.

pub mod cleanup;
pub mod kept;

use kube::api::DynamicObject;
use serde_json::{Map, Value};

use crate::failure::{Exit, Failure};

const INSTALL: &str = include_str!("../../deploy/install.yaml");
const REFLECTOR: &str = include_str!("../../deploy/route-reflector.yaml");

pub use kept::SETTINGS_NOTE;

/// Key of the image's tag.
const IMAGE_TAG: &str = "image.tag";

/// A key of `--set`, with what it does.
struct Setting {
    /// As in the values of the Helm chart.
    key: &'static str,
    /// For the list of keys.
    help: &'static str,
    apply: fn(&mut [DynamicObject], &str) -> Result<(), String>,
}

const SETTINGS: [Setting; 11] = [
    Setting { key: "image.repository", help: "image without tag", apply: |o, v| image(o, v, "") },
    Setting { key: IMAGE_TAG, help: "tag of the image", apply: |o, v| image(o, "", v) },
    Setting {
        key: "image.pullPolicy",
        help: "Always, IfNotPresent, Never",
        apply: |objects, value| each_container(objects, |c| put(c, "imagePullPolicy", value)),
    },
    Setting {
        key: "kubernetesServiceEndpoint.host",
        help: "API server's address without kube-proxy",
        apply: |o, v| environment(o, "KUBERNETES_SERVICE_HOST", v),
    },
    Setting {
        key: "kubernetesServiceEndpoint.port",
        help: "its port",
        apply: |o, v| environment(o, "KUBERNETES_SERVICE_PORT", v),
    },
    Setting {
        key: "logging.level",
        help: "info, debug, ...",
        apply: |o, v| flag(o, "--log-level", v),
    },
    Setting {
        key: "logging.format",
        help: "text or json",
        apply: |o, v| flag(o, "--log-format", v),
    },
    Setting { key: "cni.install", help: "false: policy and routes only", apply: cni_install },
    Setting {
        key: "cni.binDir",
        help: "CNI plugins on the node",
        apply: |o, v| host_path(o, "cni-bin", v),
    },
    Setting {
        key: "cni.confDir",
        help: "CNI lists on the node",
        apply: |o, v| host_path(o, "cni-conf", v),
    },
    Setting {
        key: "routeReflector.replicas",
        help: "with routeReflector.enabled=true",
        apply: replicas,
    },
];

/// Adds the reflectors; it is no change of an object, so it stands alone.
const REFLECTOR_ENABLED: &str = "routeReflector.enabled";

/// The keys of `--set`, for help.
#[must_use]
pub fn settings_help() -> String {
    let mut text = String::from("Keys of --set (as in the values of the Helm chart):\n");
    let enabled = (REFLECTOR_ENABLED, "true: route reflectors instead of a mesh");
    for (key, help) in SETTINGS.iter().map(|s| (s.key, s.help)).chain([enabled]) {
        text.push_str(&format!("  {key:<32} {help}\n"));
    }
    text
}

/// Every object to apply, in an order in which each finds what it needs: definitions, namespace,
/// permissions, the rest.
///
/// # Errors
/// A key of `--set` that is not known, or a value that does not fit.
pub fn objects(settings: &[(String, String)]) -> Result<Vec<DynamicObject>, Failure> {
    let mut objects = parse(INSTALL)?;
    let enabled = settings.iter().rfind(|(key, _)| key == REFLECTOR_ENABLED);
    match enabled.map(|(_, value)| value.as_str()) {
        Some("true") => objects.extend(parse(REFLECTOR)?),
        Some("false") | None => {}
        Some(other) => return Err(unfit(REFLECTOR_ENABLED, other, "true or false")),
    }
    for (key, value) in settings.iter().filter(|(key, _)| key != REFLECTOR_ENABLED) {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
            let known: Vec<&str> =
                SETTINGS.iter().map(|s| s.key).chain([REFLECTOR_ENABLED]).collect();
            return Err(Failure::plain(
                Exit::Usage,
                format!("--set does not know the key {key}"),
                format!("known keys: {}", known.join(", ")),
            ));
        };
        (setting.apply)(&mut objects, value).map_err(|why| unfit(key, value, &why))?;
    }
    objects.sort_by_key(rank);
    Ok(objects)
}

/// The reflectors' objects, whether they are wanted or not: for uninstalling.
///
/// # Errors
/// None: what is embedded is well formed.
pub fn reflector() -> Result<Vec<DynamicObject>, Failure> {
    parse(REFLECTOR)
}

fn unfit(key: &str, value: &str, why: &str) -> Failure {
    Failure::plain(Exit::Usage, format!("--set {key}={value}: expected {why}"), "")
}

/// `key=value` of the command line.
///
/// # Errors
/// No `=`, or no key.
pub fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

fn parse(text: &str) -> Result<Vec<DynamicObject>, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::plain(Exit::Negative, "the embedded manifests are damaged", "report this as a bug")
            .because(error.to_string())
    };
    let values: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| broken(&error))?;
    values
        .into_iter()
        .filter(|value| !value.is_null())
        .map(|value| serde_json::from_value(value).map_err(|error| broken(&error)))
        .collect()
}

fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| &types.kind)
}

/// Is it a CustomResourceDefinition?
#[must_use]
pub fn is_definition(object: &DynamicObject) -> bool {
    kind(object) == "CustomResourceDefinition"
}

/// Is it something that runs pods?
#[must_use]
pub fn is_workload(object: &DynamicObject) -> bool {
    matches!(kind(object), "DaemonSet" | "Deployment")
}

/// Is it the DaemonSet of the agents?
#[must_use]
pub fn is_agent(object: &DynamicObject) -> bool {
    kind(object) == "DaemonSet"
}

/// Is it our Namespace?
#[must_use]
pub fn is_namespace(object: &DynamicObject) -> bool {
    kind(object) == "Namespace"
}

fn rank(object: &DynamicObject) -> u8 {
    match kind(object) {
        "CustomResourceDefinition" => 0,
        "Namespace" => 1,
        "ServiceAccount" => 2,
        "ClusterRole" | "Role" => 3,
        "ClusterRoleBinding" | "RoleBinding" => 4,
        "DaemonSet" | "Deployment" => 6,
        _ => 5,
    }
}

/// The pod specs of all workloads.
fn pod_specs(objects: &mut [DynamicObject]) -> impl Iterator<Item = &mut Value> {
    objects
        .iter_mut()
        .filter(|object| is_workload(object))
        .filter_map(|object| object.data.pointer_mut("/spec/template/spec"))
}

fn each_container(
    objects: &mut [DynamicObject],
    mut change: impl FnMut(&mut Map<String, Value>),
) -> Result<(), String> {
    for spec in pod_specs(objects) {
        let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
        containers.into_iter().flatten().filter_map(Value::as_object_mut).for_each(&mut change);
    }
    Ok(())
}

fn put(fields: &mut Map<String, Value>, key: &str, value: &str) {
    fields.insert(key.to_owned(), value.into());
}

/// An empty part keeps what is there.
fn image(objects: &mut [DynamicObject], repository: &str, tag: &str) -> Result<(), String> {
    if repository.is_empty() && tag.is_empty() {
        return Err("a name".to_owned());
    }
    each_container(objects, |container| {
        let old = container.get("image").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (old_repository, old_tag) = old.rsplit_once(':').unwrap_or((&old, ""));
        let repository = if repository.is_empty() { old_repository } else { repository };
        let tag = if tag.is_empty() { old_tag } else { tag };
        put(container, "image", &format!("{repository}:{tag}"));
    })
}

fn environment(objects: &mut [DynamicObject], name: &str, value: &str) -> Result<(), String> {
    each_container(objects, |container| {
        let list = container.entry("env").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = list.as_array_mut() {
            list.retain(|entry| entry.get("name").and_then(Value::as_str) != Some(name));
            list.push(serde_json::json!({"name": name, "value": value}));
        }
    })
}

/// Replaces the value of `--flag=value`.
fn flag(objects: &mut [DynamicObject], flag: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("a value".to_owned());
    }
    let start = format!("{flag}=");
    each_container(objects, |container| {
        let arguments = container.get_mut("args").and_then(Value::as_array_mut);
        for argument in arguments.into_iter().flatten() {
            if argument.as_str().is_some_and(|text| text.starts_with(&start)) {
                *argument = format!("{start}{value}").into();
            }
        }
    })
}

/// Without CNI the agent needs neither its flags nor the host's directories.
fn cni_install(objects: &mut [DynamicObject], value: &str) -> Result<(), String> {
    match value {
        "true" => return Ok(()),
        "false" => {}
        _ => return Err("true or false".to_owned()),
    }
    let is_cni = |entry: &Value| {
        entry.get("name").and_then(Value::as_str).is_some_and(|name| name.starts_with("cni-"))
    };
    for spec in pod_specs(objects) {
        if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
            volumes.retain(|volume| !is_cni(volume));
        }
    }
    each_container(objects, |container| {
        if let Some(arguments) = container.get_mut("args").and_then(Value::as_array_mut) {
            arguments.retain(|text| !text.as_str().is_some_and(|text| text.starts_with("--cni-")));
        }
        if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
            mounts.retain(|mount| !is_cni(mount));
        }
    })
}

fn host_path(objects: &mut [DynamicObject], volume: &str, value: &str) -> Result<(), String> {
    if !value.starts_with('/') {
        return Err("an absolute path".to_owned());
    }
    for spec in pod_specs(objects) {
        let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut);
        for entry in volumes.into_iter().flatten() {
            if entry.get("name").and_then(Value::as_str) == Some(volume)
                && let Some(path) = entry.pointer_mut("/hostPath/path")
            {
                *path = value.into();
            }
        }
    }
    Ok(())
}

fn replicas(objects: &mut [DynamicObject], value: &str) -> Result<(), String> {
    let count: u32 = value.parse().map_err(|_| "a number".to_owned())?;
    for object in objects.iter_mut().filter(|object| kind(object) == "Deployment") {
        if let Some(replicas) = object.data.pointer_mut("/spec/replicas") {
            *replicas = count.into();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Result<Vec<DynamicObject>, Failure> {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        objects(&pairs)
    }

    fn daemon_set(objects: &[DynamicObject]) -> String {
        let set = objects.iter().find(|object| kind(object) == "DaemonSet").unwrap();
        serde_json::to_string(set).unwrap()
    }

    #[test]
    fn definitions_come_first_and_what_runs_comes_last() {
        let objects = set(&[]).unwrap();
        let kinds: Vec<&str> = objects.iter().map(kind).collect();
        assert_eq!(kinds.first(), Some(&"CustomResourceDefinition"));
        assert_eq!(kinds.last(), Some(&"DaemonSet"));
        let at = |wanted: &str| kinds.iter().position(|kind| *kind == wanted).unwrap();
        assert!(
            at("Namespace") < at("ServiceAccount") && at("ClusterRole") < at("ClusterRoleBinding")
        );
        assert!(!kinds.contains(&"Deployment"));
    }

    #[test]
    fn every_setting_changes_what_it_names() {
        for (key, value, expected) in [
            ("image.repository", "registry.example/r", "\"registry.example/r:"),
            ("image.tag", "v9", ":v9\""),
            ("image.pullPolicy", "Never", "\"imagePullPolicy\":\"Never\""),
            (
                "kubernetesServiceEndpoint.host",
                "192.0.2.7",
                "\"KUBERNETES_SERVICE_HOST\",\"value\":\"192.0.2.7\"",
            ),
            ("kubernetesServiceEndpoint.port", "7445", "\"7445\""),
            ("logging.level", "debug", "\"--log-level=debug\""),
            ("logging.format", "json", "\"--log-format=json\""),
            ("cni.binDir", "/x/bin", "\"path\":\"/x/bin\""),
            ("cni.confDir", "/x/conf", "\"path\":\"/x/conf\""),
        ] {
            let text = daemon_set(&set(&[(key, value)]).unwrap());
            assert!(text.contains(expected), "{key}: {text}");
        }
        let without = daemon_set(&set(&[("cni.install", "false")]).unwrap());
        assert!(!without.contains("cni-"), "{without}");
    }

    #[test]
    fn reflectors_come_when_they_are_enabled() {
        let objects =
            set(&[("routeReflector.enabled", "true"), ("routeReflector.replicas", "3")]).unwrap();
        let deployment = objects.iter().find(|object| kind(object) == "Deployment").unwrap();
        assert_eq!(deployment.data.pointer("/spec/replicas"), Some(&Value::from(3)));
    }

    #[test]
    fn an_unknown_key_or_an_unfit_value_is_an_error_that_says_what_is_expected() {
        let failure = set(&[("image.tagg", "x")]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.next.contains("image.tag,"), "{failure:?}");
        for (key, value) in [
            ("cni.install", "no"),
            ("cni.binDir", "bin"),
            ("routeReflector.enabled", "1"),
            ("routeReflector.replicas", "two"),
            ("logging.level", ""),
        ] {
            assert_eq!(set(&[(key, value)]).unwrap_err().exit, Exit::Usage, "{key}={value}");
        }
    }

    #[test]
    fn every_key_is_a_value_of_the_chart() {
        let values = include_str!("../../deploy/chart/rampart/values.yaml");
        let values: Value = serde_saphyr::from_str(values).unwrap();
        for key in SETTINGS.iter().map(|setting| setting.key).chain([REFLECTOR_ENABLED]) {
            let path = format!("/{}", key.replace('.', "/"));
            assert!(values.pointer(&path).is_some(), "{key} is no value of the chart");
        }
    }

    #[test]
    fn every_key_is_in_the_help() {
        let help = settings_help();
        assert!(SETTINGS.iter().all(|setting| help.contains(setting.key)));
        assert!(parse_setting("a=b=c") == Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_setting("ab").is_err() && parse_setting("=x").is_err());
    }
}

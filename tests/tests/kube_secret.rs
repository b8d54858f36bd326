//! Secrets on a real API server: read one by one, by name, with the right to those names only.
#![expect(clippy::unwrap_used, reason = "tests fail this way")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use agent::source::{Kind, Object};
use api::constant::PASSWORD_SECRET;
use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::cluster::control_plane::Part;
use tests::kube_source::{NAMESPACE, Reader, View, control_plane, hurried, with_token};
use tests::netns::Directory;
use tests::wait::{eventually, throughout};
use tokio::sync::watch;

const ACCOUNT: &str = "reader-of-secrets";
const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

/// The rights of an agent, for an account in the namespace of the Secrets; and its token.
fn token(cluster: &Cluster) -> String {
    let watched = api::watched::WATCHED.iter().map(|watched| {
        json!({"apiGroups": [watched.group], "resources": [watched.plural],
               "verbs": ["list", "watch"]})
    });
    let named = api::watched::NAMED.iter().map(|named| {
        json!({"apiGroups": [""], "resources": [named.plural], "resourceNames": [named.name],
               "verbs": ["list", "watch"]})
    });
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                         "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}});
    cluster.apply(&account.to_string()).unwrap();
    grant(cluster, "ClusterRole", ACCOUNT, watched.collect());
    grant(cluster, "Role", ACCOUNT, named.collect());
    cluster.kubectl(&["create", "token", "-n", NAMESPACE, ACCOUNT]).unwrap().trim().to_owned()
}

fn grant(cluster: &Cluster, kind: &str, name: &str, rules: Vec<Value>) {
    let metadata = json!({"name": name, "namespace": NAMESPACE});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
                      "metadata": metadata, "rules": rules});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
    });
    for object in [role, binding] {
        cluster.apply(&object.to_string()).unwrap();
    }
}

fn write(cluster: &Cluster, name: &str, values: &Value) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret",
                        "metadata": {"name": name, "namespace": NAMESPACE}, "stringData": values});
    cluster.apply(&secret.to_string()).unwrap();
}

fn value<'a>(view: &'a View, name: &str, key: &str) -> Option<&'a [u8]> {
    view.objects.values().find_map(|object| match object {
        Object::Secret(secret) if secret.metadata.name.as_deref() == Some(name) => {
            secret.value(key)
        }
        _ => None,
    })
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Files that hold the text.
fn holding(directory: &Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut files = files(directory);
    files.retain(|file| {
        std::fs::read(file).is_ok_and(|content| {
            content.windows(text.len()).any(|window| window == text.as_bytes())
        })
    });
    files
}

#[test]
fn a_secret_by_name_is_followed_and_kept_for_root_only_and_another_needs_a_grant() {
    let cluster = control_plane(true);
    let directory = Directory::new("secrets");
    let server = format!("https://{}:6443", tests::cluster::fabric::CONTROL_PLANE.0);
    let kubeconfig = with_token(&cluster, directory.path(), &server, &token(&cluster));
    let (names, wanted) = watch::channel(BTreeSet::new());
    let set = |wanted: &[&str]| {
        names.send_replace(wanted.iter().map(|name| (*name).to_owned()).collect());
    };
    let start =
        || Reader::start_with(&cluster, &kubeconfig, directory.path(), hurried(), wanted.clone());
    let reader = start();
    write(&cluster, "private", &json!({"tor": "not-for-agents"}));
    reader.until("all other kinds", View::complete);
    set(&[PASSWORD_SECRET]);
    reader.until("its absence", |view| view.absent.contains(PASSWORD_SECRET));
    write(&cluster, PASSWORD_SECRET, &json!({"tor": "first"}));
    reader.until("it was made", |view| value(view, PASSWORD_SECRET, "tor") == Some(b"first"));
    write(&cluster, PASSWORD_SECRET, &json!({"tor": "second-value"}));
    reader.until("it changed", |view| value(view, PASSWORD_SECRET, "tor") == Some(b"second-value"));

    // Another one, without the right to it: one complaint, and nothing else is disturbed.
    set(&[PASSWORD_SECRET, "private"]);
    reader
        .until("it may not be read", |view| view.codes() == BTreeSet::from(["RC1021".to_owned()]));
    throughout(2 * SECOND, "one complaint, and no value", || {
        let view = reader.view();
        view.complaints.len() == 1 && value(&view, "private", "tor").is_none()
    });
    assert!(reader.state().connected(), "a Secret of no use does not make the node unready");
    let advice = reader.view().complaints.into_values().next().unwrap().next;
    assert!(advice.contains("--resource-name=private"), "{advice}");
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["private"],
                      "verbs": ["list", "watch"]});
    grant(&cluster, "Role", "private", vec![rule]);
    reader.until("it was granted", |view| {
        value(view, "private", "tor") == Some(b"not-for-agents") && view.codes().is_empty()
    });

    // What is kept, where, and for whom. (As the API server writes it: base64.)
    let kept = "c2Vjb25kLXZhbHVl";
    let in_files = || holding(directory.path(), kept);
    eventually(tests::kube_source::LIMIT, "it was written down", || in_files().len() == 1);
    for file in in_files() {
        assert!(file.starts_with(directory.join("secrets")), "{file:?}");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let mode = std::fs::metadata(directory.join("secrets")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    // Without an API server a restart knows it.
    drop(reader);
    cluster.stop(Part::ApiServer).unwrap();
    let reader = start();
    let took = reader.until("what was kept", |view| {
        value(view, PASSWORD_SECRET, "tor") == Some(b"second-value")
    });
    assert!(took < 3 * SECOND, "{took:?}");
    cluster.start(Part::ApiServer).unwrap();
    reader.until("no complaint is left", |view| view.complete() && view.codes().is_empty());

    // Not wanted any more, and deleted.
    set(&[PASSWORD_SECRET]);
    reader.until("it is forgotten", |view| value(view, "private", "tor").is_none());
    assert!(holding(directory.path(), "bm90LWZvci1hZ2VudHM").is_empty(), "a file is left");
    cluster.kubectl(&["delete", "secret", "-n", NAMESPACE, PASSWORD_SECRET]).unwrap();
    reader.until("it is gone", |view| view.names(Kind::Secret).is_empty());
    eventually(tests::kube_source::LIMIT, "on disk as well", || in_files().is_empty());
}

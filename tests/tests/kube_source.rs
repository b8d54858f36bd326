//! The Kubernetes source on a real API server and etcd: what is told, what survives.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests fail this way")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent::source::kube::Timing;
use agent::source::{Kind, Object};
use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::cluster::control_plane::Part;
use tests::cluster::fault_proxy::{Fault, FaultProxy, PORT};
use tests::kube_source::{
    LIMIT, NODE, Reader, View, control_plane, hurried, install_kinds, with_token,
};
use tests::netns::Directory;
use tests::wait::{eventually, throughout};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn admin(cluster: &Cluster) -> PathBuf {
    cluster.directory().join("admin.conf")
}

/// A pod on our node with these addresses, as far as the API server goes.
fn make_pod(cluster: &Cluster, name: &str, addresses: &[&str]) {
    let api = cluster.api();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": NODE, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "i",
                            "ports": [{"name": "http", "containerPort": 8080}]}],
        },
    });
    api.create(PODS, &pod).unwrap();
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let status = json!({"phase": "Running", "podIP": addresses[0], "podIPs": ips});
    api.patch(&format!("{PODS}/{name}/status"), &json!({ "status": status })).unwrap();
}

fn delete_pod(cluster: &Cluster, name: &str) {
    cluster.api().delete(&format!("{PODS}/{name}?gracePeriodSeconds=0")).unwrap();
}

fn pods(view: &View) -> BTreeSet<String> {
    let all = view.names(Kind::Pod).into_iter();
    all.filter_map(|name| name.strip_prefix("default/").map(str::to_owned)).collect()
}

fn has(names: &[&str]) -> impl Fn(&View) -> bool {
    let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    move |view| pods(view) == names
}

fn addresses(view: &View, name: &str) -> Vec<String> {
    let pod = view.objects.values().find_map(|object| match object {
        Object::Pod(pod) if pod.metadata.name.as_deref() == Some(name) => Some(pod),
        _ => None,
    });
    let status = pod.and_then(|pod| pod.status.as_ref());
    let ips = status.and_then(|status| status.pod_ips.as_ref());
    ips.into_iter().flatten().map(|ip| ip.ip.clone()).collect()
}

/// What a restart in the same directory knows without asking anybody.
fn snapshot_has(directory: &Directory, text: &str) -> bool {
    let file = directory.join("snapshot/Pod.own.snapshot");
    std::fs::read_to_string(file).is_ok_and(|content| content.contains(text))
}

#[test]
fn what_is_told_is_what_the_api_server_has_and_missing_kinds_are_picked_up() {
    let cluster = control_plane(false);
    let directory = Directory::new("source");
    let reader = Reader::start(&cluster, &admin(&cluster), directory.path(), Timing::default());
    // Without our kinds: said once, and everything else goes on.
    reader.until("all kinds in sync without ours", |view| {
        view.complete() && view.codes() == BTreeSet::from(["RC1016".to_owned()])
    });
    make_pod(&cluster, "a", &["10.1.0.1", "fd00:1::1"]);
    reader.until("a pod with both addresses", |view| {
        addresses(view, "a") == ["10.1.0.1", "fd00:1::1"]
    });
    install_kinds(&cluster);
    let peer = json!({
        "apiVersion": "rampart.network/v1alpha1", "kind": "BGPPeer", "metadata": {"name": "tor"},
        "spec": {"peerAddress": "2001:db8::9", "peerASN": 65001},
    });
    cluster.apply(&peer.to_string()).unwrap();
    let took = reader.until("the peer", |view| view.names(Kind::BgpPeer).contains("tor"));
    assert!(took < Duration::from_secs(10), "{took:?}");
    reader.until("no complaint is left", |view| view.codes().is_empty());

    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                  metadata: {name: p, namespace: default}\nspec: {podSelector: {}}\n";
    cluster.apply(policy).unwrap();
    reader.until("the policy", |v| v.names(Kind::NetworkPolicy).contains("default/p"));
    let label = json!({"metadata": {"labels": {"team": "blue"}}});
    cluster.api().patch("/api/v1/namespaces/default", &label).unwrap();
    reader.until("the label of the namespace", |view| {
        view.objects.values().any(|object| match object {
            Object::Namespace(o) => o.metadata.labels.iter().flatten().any(|(k, _)| k == "team"),
            _ => false,
        })
    });
    // A change that nobody reads is not told.
    let before = reader.view().generation;
    let note = json!({"metadata": {"annotations": {"note": "x"}}});
    cluster.api().patch(&format!("{PODS}/a"), &note).unwrap();
    make_pod(&cluster, "b", &["10.1.0.2", "fd00:1::2"]);
    reader.until("the second pod", |view| addresses(view, "b").len() == 2);
    assert!(reader.view().generation <= before + 2, "one for the pod, one for its status");
    delete_pod(&cluster, "a");
    reader.until("the pod is gone", has(&["b"]));

    let lists: Vec<u64> = reader.state().kinds.values().map(|kind| kind.lists).collect();
    assert!(lists[..4].iter().all(|lists| *lists == 1), "one list of each core kind: {lists:?}");
}

#[test]
fn nothing_that_was_read_is_lost_in_an_outage_or_a_restart_during_it() {
    let cluster = control_plane(true);
    let directory = Directory::new("source");
    let start = || Reader::start(&cluster, &admin(&cluster), directory.path(), Timing::default());
    let reader = start();
    make_pod(&cluster, "a", &["10.1.0.1", "fd00:1::1"]);
    make_pod(&cluster, "b", &["10.1.0.2", "fd00:1::2"]);
    reader.until("two pods", |view| addresses(view, "b").len() == 2 && view.complete());
    let before = reader.view().objects;

    cluster.stop(Part::Etcd).unwrap();
    cluster.stop(Part::ApiServer).unwrap();
    reader.until("the outage is told", |view| view.codes().contains("RC1013"));
    throughout(Duration::from_secs(3), "everything stays in force", || {
        reader.view().objects == before && reader.view().complete()
    });
    assert_eq!(reader.view().codes().len(), 1, "one complaint, not one of each kind");
    drop(reader);

    // A restart meanwhile.
    let began = Instant::now();
    let reader = start();
    reader.until("the snapshot is told", View::complete);
    let took = began.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
    assert_eq!(reader.view().objects, before);
    assert!(reader.state().status().from_snapshot);

    // What happened while nobody looked is told as a difference.
    cluster.start(Part::Etcd).unwrap();
    cluster.start(Part::ApiServer).unwrap();
    delete_pod(&cluster, "a");
    make_pod(&cluster, "c", &["10.1.0.3", "fd00:1::3"]);
    reader.until("the present state", has(&["b", "c"]));
    reader.until("no complaint is left", |view| view.codes().is_empty());
    assert!(!reader.state().status().from_snapshot);
    eventually(LIMIT, "the snapshot has it", || snapshot_has(&directory, "10.1.0.3"));
    drop(reader);

    // One damaged file: refused with its code, and nothing is told of that kind. The others are.
    cluster.stop(Part::ApiServer).unwrap();
    let file = directory.join("snapshot/NetworkPolicy.snapshot");
    let mut octets = std::fs::read(&file).unwrap();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    std::fs::write(&file, octets).unwrap();
    let reader = start();
    reader.until("the other kinds", |view| view.in_sync.len() == Kind::WATCHED.len() - 1);
    throughout(Duration::from_secs(2), "policies are not known", || {
        !reader.view().in_sync.contains(&Kind::NetworkPolicy)
    });
    assert!(reader.view().codes().contains("RC1018"), "{:?}", reader.view().complaints);
    cluster.start(Part::ApiServer).unwrap();
    reader.until("all kinds", View::complete);
    reader.until("written anew", |view| view.codes().is_empty());
}

#[test]
fn an_api_server_at_its_worst_costs_freshness_only() {
    let cluster = control_plane(true);
    let proxy = FaultProxy::start(&cluster).unwrap();
    let directory = Directory::new("source");
    let kubeconfig = directory.join("proxy.conf");
    let server = format!("https://127.0.0.1:{PORT}");
    let server = server.replace("127.0.0.1", &tests::cluster::fabric::CONTROL_PLANE.0.to_string());
    let token = cluster_token(&cluster);
    let kubeconfig_with_token = with_token(&cluster, directory.path(), &server, &token);
    std::fs::copy(&kubeconfig_with_token, &kubeconfig).unwrap();
    let reader = Reader::start(&cluster, &kubeconfig, directory.path(), hurried());
    make_pod(&cluster, "a", &["10.1.0.1", "fd00:1::1"]);
    reader.until("one pod", |view| addresses(view, "a").len() == 2 && view.complete());
    proxy.remember();

    storm_of_410(&cluster, &proxy, &reader);
    replica_behind(&cluster, &proxy, &reader);
    answers_in_90_seconds(&cluster, &proxy, &reader);
    silence(&cluster, &proxy, &reader);
    short_watches(&cluster, &proxy, &reader);
}

fn storm_of_410(cluster: &Cluster, proxy: &FaultProxy, reader: &Reader) {
    drop(proxy.asked());
    proxy.set(Fault::Gone);
    make_pod(cluster, "b", &["10.1.0.2", "fd00:1::2"]);
    throughout(Duration::from_secs(6), "nothing is deleted in a storm of 410", || {
        pods(&reader.view()).contains("a") && reader.view().deleted == 0
    });
    let storm = proxy.asked();
    let pods = storm.iter().find(|(path, _)| path.ends_with("/pods")).unwrap().1;
    assert!(pods.lists <= 12, "pauses grow: {pods:?}");
    assert!(storm.values().all(|asked| asked.lists_at_once <= 1), "{storm:?}");
    proxy.set(Fault::None);
    let took = reader.until("the first good answer ends it", has(&["a", "b"]));
    assert!(took < Duration::from_secs(6), "{took:?}");
    reader.until("and its complaint", |view| view.codes().is_empty());
}

fn replica_behind(cluster: &Cluster, proxy: &FaultProxy, reader: &Reader) {
    // The replica knows the time before this.
    delete_pod(cluster, "a");
    reader.until("the deletion", has(&["b"]));
    proxy.set(Fault::Gone);
    reader.until("what was watched is gone", |view| view.codes().contains("RC1013"));
    proxy.set(Fault::Stale);
    reader.until("the replica is told", |view| view.codes().contains("RC1017"));
    throughout(Duration::from_secs(3), "no way back", || has(&["b"])(&reader.view()));
    proxy.set(Fault::None);
    make_pod(cluster, "c", &["10.1.0.3", "fd00:1::3"]);
    reader.until("a newer state", has(&["b", "c"]));
    reader.until("no complaint is left", |view| view.codes().is_empty());
}

/// 90 s and 30 min, a thirtieth of each.
fn answers_in_90_seconds(cluster: &Cluster, proxy: &FaultProxy, reader: &Reader) {
    proxy.set(Fault::Gone);
    reader.until("lists are needed", |view| view.codes().contains("RC1013"));
    drop(proxy.asked());
    proxy.set(Fault::Slow(Duration::from_secs(90) / 30));
    make_pod(cluster, "d", &["10.1.0.4", "fd00:1::4"]);
    reader.until("it comes, late", has(&["b", "c", "d"]));
    throughout(Duration::from_secs(40), "nothing is lost", || {
        has(&["b", "c", "d"])(&reader.view())
    });
    // Half an hour may cost ten. The proxy goes on with what we gave up, so it may see two at once.
    for (path, asked) in proxy.asked() {
        assert!(asked.lists <= 3, "{path}: {asked:?}");
    }
    proxy.set(Fault::None);
}

fn silence(cluster: &Cluster, proxy: &FaultProxy, reader: &Reader) {
    proxy.set(Fault::Silent);
    make_pod(cluster, "e", &["10.1.0.5", "fd00:1::5"]);
    reader.until("silence is noticed", |view| view.codes().contains("RC1013"));
    assert!(has(&["b", "c", "d"])(&reader.view()));
    proxy.set(Fault::None);
    reader.until("the present state", has(&["b", "c", "d", "e"]));
}

fn short_watches(cluster: &Cluster, proxy: &FaultProxy, reader: &Reader) {
    proxy.set(Fault::ShortWatches(Duration::from_millis(20)));
    drop(proxy.asked());
    for name in ["b", "c", "d"] {
        delete_pod(cluster, name);
    }
    reader.until("all deletions, without a list", has(&["e"]));
    throughout(Duration::from_secs(5), "nothing else", || has(&["e"])(&reader.view()));
    let asked = proxy.asked();
    assert!(asked.values().all(|asked| asked.lists == 0), "{asked:?}");
    let pods = asked.iter().find(|(path, _)| path.ends_with("/pods")).unwrap().1;
    assert!(pods.watches < 40, "watches that end at once are not asked for in a loop: {pods:?}");
    proxy.set(Fault::None);
}

/// Copies what etcd has on disk while it is stopped.
fn copy_state(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "etcd's state is not copied");
}

#[test]
fn an_etcd_that_was_restored_from_a_backup_is_refused_at_first_and_believed_in_the_end() {
    let cluster = control_plane(true);
    let directory = Directory::new("source");
    // Bookmarks come two seconds before a watch ends.
    let timing = Timing { watch: Duration::from_secs(4), ..hurried() };
    let reader = Reader::start(&cluster, &admin(&cluster), directory.path(), timing);
    make_pod(&cluster, "a", &["10.1.0.1", "fd00:1::1"]);
    reader.until("the pod of the backup", |view| addresses(view, "a").len() == 2);
    let (state, backup) = (cluster.directory().join("etcd"), cluster.directory().join("backup"));
    let swap = |change: &dyn Fn()| {
        cluster.stop(Part::ApiServer).unwrap();
        cluster.stop(Part::Etcd).unwrap();
        change();
        cluster.start(Part::Etcd).unwrap();
        cluster.start(Part::ApiServer).unwrap();
    };
    swap(&|| copy_state(&state, &backup));
    delete_pod(&cluster, "a");
    make_pod(&cluster, "b", &["10.1.0.2", "fd00:1::2"]);
    // So much happens that the restored state does not overtake it while we look.
    for number in 0..2000 {
        let note = json!({"metadata": {"annotations": {"note": number.to_string()}}});
        cluster.api().patch(&format!("{PODS}/b"), &note).unwrap();
    }
    reader.until("the state that will be lost", has(&["b"]));
    let known = |reader: &Reader| reader.state().kinds[&Kind::Pod].version;
    let lost = known(&reader);

    swap(&|| {
        std::fs::remove_dir_all(&state).unwrap();
        copy_state(&backup, &state);
    });
    let long = 3 * LIMIT;
    eventually(long, "it is told", || reader.view().codes().contains("RC1017"));
    assert!(has(&["b"])(&reader.view()), "an older state is not taken at once");
    // A living cluster goes forward.
    let alive = |number: u32| {
        let note = json!({"metadata": {"annotations": {"note": number.to_string()}}});
        cluster.api().patch(&format!("{PODS}/a"), &note).unwrap();
    };
    let mut beats = 0..;
    eventually(long, "the restored state is in force", || {
        alive(beats.next().unwrap());
        has(&["a"])(&reader.view())
    });
    assert!(known(&reader) < lost, "it is older: {} and {lost}", known(&reader));
    eventually(long, "no complaint is left", || reader.view().codes().is_empty());
    make_pod(&cluster, "c", &["10.1.0.3", "fd00:1::3"]);
    reader.until("what happens from now on", has(&["a", "c"]));
    eventually(LIMIT, "the snapshot has it", || snapshot_has(&directory, "10.1.0.3"));
    drop(reader);
    let reader = Reader::start(&cluster, &admin(&cluster), directory.path(), timing);
    reader.until("a restart finds nothing strange", |view| {
        view.complete() && view.codes().is_empty() && has(&["a", "c"])(view)
    });
}

const ROLE: &str = "source-under-test";

/// A service account that may do what the agent may, and its token.
fn cluster_token(cluster: &Cluster) -> String {
    let rules: Vec<Value> = api::watched::WATCHED
        .iter()
        .map(|watched| {
            json!({"apiGroups": [watched.group], "resources": [watched.plural],
                   "verbs": ["list", "watch"]})
        })
        .collect();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": ROLE}, "rules": rules,
    });
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": ROLE, "namespace": "kube-system"},
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": ROLE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": ROLE, "namespace": "kube-system"}],
    });
    for object in [role, account, binding] {
        cluster.apply(&object.to_string()).unwrap();
    }
    token(cluster)
}

fn token(cluster: &Cluster) -> String {
    cluster.kubectl(&["create", "token", "-n", "kube-system", ROLE]).unwrap().trim().to_owned()
}

#[test]
fn credentials_and_permissions_that_go_away_leave_what_was_read_and_come_back() {
    let cluster = control_plane(true);
    let directory = Directory::new("source");
    let server = format!("https://{}:6443", tests::cluster::fabric::CONTROL_PLANE.0);
    let first = cluster_token(&cluster);
    let kubeconfig = with_token(&cluster, directory.path(), &server, &first);
    let reader = Reader::start(&cluster, &kubeconfig, directory.path(), hurried());
    make_pod(&cluster, "a", &["10.1.0.1", "fd00:1::1"]);
    reader.until("one pod", |view| addresses(view, "a").len() == 2 && view.complete());

    // A verb is taken out of the role.
    let role = format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{ROLE}");
    let whole = cluster.api().get(&role).unwrap()["rules"].clone();
    let mut fewer = whole.clone();
    let pods = fewer.as_array_mut().unwrap().iter_mut();
    pods.filter(|rule| rule["resources"] == json!(["pods"]))
        .for_each(|rule| rule["verbs"] = json!(["list"]));
    cluster.api().patch(&role, &json!({ "rules": fewer })).unwrap();
    reader.until("the verb is missed", |view| view.codes().contains("RC1015"));
    let complaint = reader.view().complaints.into_values().next().unwrap();
    assert!(complaint.message.starts_with("may not watch pods: "), "{complaint:?}");
    assert!(!complaint.message.contains(&first), "a token in a message");
    assert!(has(&["a"])(&reader.view()));
    // Other kinds are read as before.
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                  metadata: {name: p, namespace: default}\nspec: {podSelector: {}}\n";
    cluster.apply(policy).unwrap();
    reader.until("the policy", |v| v.names(Kind::NetworkPolicy).contains("default/p"));
    make_pod(&cluster, "b", &["10.1.0.2", "fd00:1::2"]);
    cluster.api().patch(&role, &json!({ "rules": whole })).unwrap();
    reader.until("the second pod", |view| addresses(view, "b").len() == 2);
    reader.until("no complaint is left", |view| view.codes().is_empty());

    // The token is no good any more: its account was made anew.
    cluster.kubectl(&["delete", "serviceaccount", "-n", "kube-system", ROLE]).unwrap();
    reader.until("the token is refused", |view| view.codes().contains("RC1014"));
    throughout(Duration::from_secs(1), "what was read stays", || has(&["a", "b"])(&reader.view()));
    let second = cluster_token(&cluster);
    std::fs::write(directory.join("token"), second).unwrap();
    delete_pod(&cluster, "a");
    reader.until("the new token is read", has(&["b"]));
    reader.until("no complaint is left", |view| view.codes().is_empty());
}

/// A pod of the account that tokens can be bound to.
fn bind(cluster: &Cluster, pod: &str) -> String {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": "kube-system"},
        "spec": {"nodeName": "nowhere", "serviceAccountName": ROLE,
                 "containers": [{"name": "c", "image": "i"}]},
    });
    cluster.api().create("/api/v1/namespaces/kube-system/pods", &object).unwrap();
    let bound = ["--bound-object-kind=Pod", "--bound-object-name", pod];
    let create = ["create", "token", "-n", "kube-system", ROLE];
    cluster.kubectl(&[&create[..], &bound].concat()).unwrap().trim().to_owned()
}

/// The same token as the API server would have made it some time ago: it has expired in `left`.
/// API servers make none for less than ten minutes, and let every token live a minute longer.
fn expiring(cluster: &Cluster, token: &str, left: Duration) -> String {
    const LEEWAY: u64 = 60;
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims: Value = serde_json::from_slice(&from_base64(parts[1])).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (claim, time) in
        [("exp", now - LEEWAY + left.as_secs()), ("iat", now - 600), ("nbf", now - 600)]
    {
        claims[claim] = json!(time);
    }
    let signed = format!("{}.{}", parts[0], to_base64(claims.to_string().as_bytes()));
    let directory = Directory::new("token");
    let file = directory.write("signed", &signed);
    let signature = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(cluster.pki().key("sa"))
        .arg(file)
        .output()
        .unwrap();
    assert!(signature.status.success(), "{signature:?}");
    format!("{signed}.{}", to_base64(&signature.stdout))
}

/// As in a JWT (RFC 7515 §2).
fn to_base64(octets: &[u8]) -> String {
    let text = serde_json::to_value(k8s_openapi::ByteString(octets.to_vec())).unwrap();
    text.as_str().unwrap().trim_end_matches('=').replace('+', "-").replace('/', "_")
}

fn from_base64(text: &str) -> Vec<u8> {
    let mut text = text.replace('-', "+").replace('_', "/");
    text.push_str(&"=".repeat((4 - text.len() % 4) % 4));
    serde_json::from_value::<k8s_openapi::ByteString>(json!(text)).unwrap().0
}

#[test]
fn a_bound_token_that_expires_or_whose_pod_is_gone_is_told_and_replaced_without_a_loss() {
    let cluster = control_plane(true);
    let directory = Directory::new("source");
    let server = format!("https://{}:6443", tests::cluster::fabric::CONTROL_PLANE.0);
    cluster_token(&cluster);
    let whole = bind(&cluster, "first");
    let short = expiring(&cluster, &whole, Duration::from_secs(15));
    let kubeconfig = with_token(&cluster, directory.path(), &server, &short);
    let reader = Reader::start(&cluster, &kubeconfig, directory.path(), hurried());
    make_pod(&cluster, "a", &["10.1.0.1", "fd00:1::1"]);
    let in_default = |view: &View| pods(view).contains("a");
    reader.until("the pod, with a token that is still good", |view| {
        in_default(view) && view.complete() && view.codes().is_empty()
    });

    // An API server remembers for ten seconds whom it let in, and a watch lives two.
    eventually(3 * LIMIT, "the token has expired", || reader.view().codes().contains("RC1014"));
    let refused = |view: &View| view.codes() == BTreeSet::from(["RC1014".to_owned()]);
    throughout(Duration::from_secs(2), "one complaint, and all stays", || {
        refused(&reader.view()) && in_default(&reader.view())
    });
    let complaint = reader.view().complaints.into_values().next().unwrap();
    assert!(complaint.message.contains("expired token"), "{complaint:?}");
    assert!(!format!("{complaint:?}").contains(&short), "a token in a message");
    make_pod(&cluster, "b", &["10.1.0.2", "fd00:1::2"]);
    std::fs::write(directory.join("token"), bind(&cluster, "second")).unwrap();
    reader.until("what happened meanwhile", |view| addresses(view, "b").len() == 2);
    reader.until("no complaint is left", |view| view.codes().is_empty());

    let second = "/api/v1/namespaces/kube-system/pods/second?gracePeriodSeconds=0";
    cluster.api().delete(second).unwrap();
    eventually(3 * LIMIT, "the pod's token is refused", || refused(&reader.view()));
    delete_pod(&cluster, "a");
    std::fs::write(directory.join("token"), bind(&cluster, "third")).unwrap();
    reader.until("what happened meanwhile", |view| !pods(view).contains("a"));
    reader.until("no complaint is left", |view| view.codes().is_empty());
    let lists: Vec<u64> = reader.state().kinds.values().map(|kind| kind.lists).collect();
    assert!(lists.iter().all(|lists| *lists == 1), "nothing is listed again for that: {lists:?}");
}

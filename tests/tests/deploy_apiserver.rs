//! The generated manifests before a real API server: it takes them without a warning, its rules for
//! our kinds are those of the agent's parsers, and who may do what is what was meant.
//!
//! Needs root (the control plane is in a network namespace). No node takes part.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Options, Proxy};
use tests::fuzz::manifests;

/// How long controllers may take to follow.
const SOON: Duration = Duration::from_secs(30);

const AGENT: &str = "system:serviceaccount:rampart-system:rampart-agent";
const REFLECTOR: &str = "system:serviceaccount:rampart-system:rampart-route-reflector";

/// A control plane with Rampart's objects; no node, so nothing of it runs.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let options = Options { nodes: 0, proxy: Proxy::None, ..Options::of_a_test() };
    let cluster = Cluster::up(options).unwrap();
    // A dry run makes no namespace for what comes after it.
    cluster.apply(&read("manifests/namespace.yaml")).unwrap();
    for file in ["install.yaml", "route-reflector.yaml"] {
        dry_run(&cluster, &read(file)).with_context(|| file.to_owned()).unwrap();
        cluster.apply(&read(file)).unwrap();
    }
    let crd = "customresourcedefinition";
    cluster.wait(&["--for=condition=Established", crd, "--all"], SOON).unwrap();
    cluster
});

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).with_context(|| path.to_owned()).unwrap()
}

/// Every object on the server, strictly, and without a warning.
fn dry_run(cluster: &Cluster, manifests: &str) -> anyhow::Result<()> {
    let strict = ["--validate=strict", "--warnings-as-errors"];
    let server = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    cluster.kubectl_with(&[&server[..], &strict].concat(), manifests)?;
    Ok(())
}

#[test]
fn the_api_server_takes_every_generated_manifest_without_a_warning() -> anyhow::Result<()> {
    let cluster = &*CLUSTER;
    let output = |program: &str, arguments: &[&str]| -> anyhow::Result<String> {
        let programs = tests::cluster::programs::Programs::find(&[program])?;
        let output = Command::new(programs.path(program)?).args(arguments).output()?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{program} {arguments:?}: {complaint}");
        Ok(String::from_utf8(output.stdout)?)
    };
    for overlay in ["manifests", "overlays/kubeadm", "overlays/k3s", "overlays/talos"] {
        let directory = deploy(overlay).display().to_string();
        dry_run(cluster, &output("kubectl", &["kustomize", &directory])?)?;
    }
    let chart = deploy("chart/rampart").display().to_string();
    let rendered = output(
        "helm",
        &[
            "template",
            "rampart",
            &chart,
            "--namespace=rampart-system",
            "--kube-version=1.36.0",
            "--set=routeReflector.enabled=true,dashboards.enabled=true,commonLabels.team=network",
            "--set=kubernetesServiceEndpoint.host=192.0.2.1,metrics.host=$(HOST_IP)",
            "--set=bgp.asn=64999,network.mtu=9000,network.overlay.mode=VXLANAlways",
            "--set=bgp.peers[0].name=tor,bgp.peers[0].spec.peerAddress=192.0.2.1,bgp.peers[0].spec.peerASN=65001",
        ],
    )?;
    dry_run(cluster, &rendered)?;
    let crds = deploy("chart/rampart-crds").display().to_string();
    let rendered = output("helm", &["template", "crds", &crds, "--kube-version=1.36.0"])?;
    dry_run(cluster, &rendered)?;
    dry_run(cluster, &read("components/monitoring/dashboards.yaml"))
}

/// An object of ours, and what is wrong with it: part of the API server's answer, or nothing.
struct Case {
    kind: &'static str,
    name: &'static str,
    spec: Value,
    wrong: Option<&'static str>,
}

fn peer(more: Value, wrong: Option<&'static str>) -> Case {
    let mut spec = json!({ "peerAddress": "192.0.2.1", "peerASN": 65001 });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Case { kind: "BGPPeer", name: "x", spec, wrong }
}

fn restart(settings: Value, wrong: Option<&'static str>) -> Case {
    peer(json!({ "gracefulRestart": settings }), wrong)
}

fn password(reference: Value, wrong: Option<&'static str>) -> Case {
    peer(json!({ "passwordSecretRef": reference }), wrong)
}

fn settings(spec: Value, wrong: Option<&'static str>) -> Case {
    Case { kind: "BGPConfiguration", name: "default", spec, wrong }
}

fn network(spec: Value, wrong: Option<&'static str>) -> Case {
    Case { kind: "NetworkConfiguration", name: "default", spec, wrong }
}

fn cases() -> Vec<Case> {
    let mut cases = peer_addresses();
    cases.extend(peer_rules());
    let reserved = Some("reserved");
    let bits = Some("host bits");
    let octets = Some("four octets");
    cases.extend([
        settings(json!({}), None),
        settings(json!({ "asn": 4_200_000_000_u32, "listenPort": 65535, "nodeMesh": false }), None),
        settings(json!({ "asn": 0 }), Some("asn")),
        settings(json!({ "asn": 23456 }), reserved),
        settings(json!({ "asn": 65535 }), reserved),
        settings(json!({ "asn": 4_294_967_295_u32 }), reserved),
        settings(json!({ "listenPort": 0 }), Some("listenPort")),
        settings(json!({ "clusterCIDRs": ["10.244.0.0/16", "fd00:244::/56"] }), None),
        settings(json!({ "clusterCIDRs": ["0.0.0.0/0", "::/0"] }), None),
        settings(json!({ "clusterCIDRs": ["10.244.0.0/16", "10.244.0.1/16"] }), bits),
        settings(json!({ "clusterCIDRs": ["fd00:244::1/56"] }), bits),
        settings(json!({ "clusterCIDRs": ["10.244.0.0"] }), bits),
        settings(json!({ "clusterCIDRs": ["10.244.0.0/33"] }), bits),
        settings(json!({ "clusterCIDRs": [""] }), bits),
        settings(json!({ "gracefulRestart": { "restartTimeSeconds": 30 } }), None),
        settings(json!({ "gracefulRestart": { "restartTimeSeconds": 5000 } }), Some("restartTime")),
        settings(json!({ "routerID": "192.0.2.1", "clusterID": "0.0.0.1" }), None),
        settings(json!({ "routerID": "0.0.0.0" }), octets),
        settings(json!({ "routerID": "::1" }), octets),
        settings(json!({ "clusterID": "7" }), octets),
        network(json!({}), None),
        network(json!({ "mtu": 1280, "overlay": { "mode": "VXLANCrossSubnet" } }), None),
        network(json!({ "mtu": 1279 }), Some("mtu")),
        network(json!({ "overlay": { "vni": 16_777_215, "port": 4789 } }), None),
        network(json!({ "overlay": { "vni": 0 } }), Some("vni")),
        network(json!({ "overlay": { "vni": 16_777_216 } }), Some("vni")),
        network(json!({ "overlay": { "port": 0 } }), Some("port")),
        network(pools(&["10.244.0.0/16", "10.245.0.0/16", "fd00:244::/56"]), None),
        network(pools(&["10.244.0.7/16"]), bits),
        network(pools(&["fd00::/129"]), bits),
        network(pools(&["10.244.0.0/16", "10.244.8.0/24"]), Some("overlap")),
        network(pools(&["fd00:244::/64", "fd00:244::/56"]), Some("overlap")),
        network(pools(&["10.244.0.0/16", "10.244.0.0/16"]), Some("Duplicate")),
    ]);
    cases
}

fn pools(cidrs: &[&str]) -> Value {
    let pools: Vec<Value> = cidrs.iter().map(|cidr| json!({ "cidr": cidr })).collect();
    json!({ "pools": pools })
}

fn peer_addresses() -> Vec<Case> {
    let good = ["192.0.2.1", "192.0.2.1:1790", "2001:db8::1", "[2001:db8::1]:179", "[2001:db8::1]"];
    let good = good.into_iter().chain(["fd00::1", "169.254.7.1", "[::2]:65535", "10.0.0.1:1"]);
    let wrong = [
        ("", "peerAddress"),
        ("tor.example", "must be IP"),
        ("192.0.2.256", "must be IP"),
        ("192.0.2.1:", "must be IP"),
        ("192.0.2.1:x", "must be IP"),
        ("192.0.2.1:179:179", "must be IP"),
        ("[2001:db8::1]179", "must be IP"),
        ("[2001:db8::1", "must be IP"),
        ("2001:db8::g", "must be IP"),
        ("fe80::1%eth0", "must be IP"),
        ("192.0.2.0/24", "must be IP"),
        ("192.0.2.1:0", "port"),
        ("192.0.2.1:65536", "port"),
        ("[2001:db8::1]:0", "port"),
        ("[2001:db8::1]:99999", "port"),
        ("0.0.0.0", "another host"),
        ("[::]:179", "another host"),
        ("224.0.0.1", "another host"),
        ("ff02::1", "another host"),
        ("255.255.255.255", "another host"),
        ("fe80::1", "another host"),
        ("[fe80::1]:179", "another host"),
    ];
    let good = good.map(|address| (address, None));
    let all = good.chain(wrong.into_iter().map(|(address, why)| (address, Some(why))));
    all.map(|(address, wrong)| peer(json!({ "peerAddress": address }), wrong)).collect()
}

fn peer_rules() -> Vec<Case> {
    let rule = |rule: Value, wrong| {
        let mut both = Vec::new();
        for list in ["import", "export"] {
            both.push(peer(json!({ list: [rule] }), wrong));
        }
        both
    };
    let expression = |expression: Value, wrong| {
        peer(json!({ "nodeSelector": { "matchExpressions": [expression] } }), wrong)
    };
    let (values, bits) = (Some("need values"), Some("host bits"));
    let (least, most) = (Some("minLength must"), Some("maxLength must"));
    let mut cases = vec![
        peer(json!({ "peerASN": 0 }), Some("peerASN")),
        peer(json!({ "peerASN": 23456 }), Some("reserved")),
        peer(json!({ "holdTimeSeconds": 0 }), None),
        peer(json!({ "holdTimeSeconds": 3 }), None),
        peer(json!({ "holdTimeSeconds": 1 }), Some("RFC 4271")),
        peer(json!({ "holdTimeSeconds": 2 }), Some("RFC 4271")),
        peer(json!({ "ebgpMultihop": 255, "maxPrefixes": 1, "passive": true }), None),
        peer(json!({ "ebgpMultihop": 0 }), Some("ebgpMultihop")),
        peer(json!({ "maxPrefixes": 0 }), Some("maxPrefixes")),
        peer(json!({ "import": [], "export": [] }), None),
        restart(json!({}), None),
        restart(json!({ "enabled": false }), None),
        restart(json!({ "restartTimeSeconds": 4095, "staleTimeSeconds": 4095 }), None),
        restart(json!({ "restartTimeSeconds": 0 }), Some("restartTimeSeconds")),
        restart(json!({ "restartTimeSeconds": 4096 }), Some("restartTimeSeconds")),
        restart(json!({ "staleTimeSeconds": 0 }), Some("staleTimeSeconds")),
        restart(json!({ "restartTimeSeconds": 60, "staleTimeSeconds": 59 }), Some("less than")),
        password(json!({ "key": "tor-1_A.b" }), None),
        password(json!({ "name": "tor.keys-1", "key": "k" }), None),
        password(json!({ "name": "Keys", "key": "k" }), Some("name of a Secret")),
        password(json!({ "name": "", "key": "k" }), Some("name of a Secret")),
        password(json!({ "name": "a..b", "key": "k" }), Some("name of a Secret")),
        password(json!({ "key": "" }), Some("letters, digits")),
        password(json!({ "key": "a/b" }), Some("letters, digits")),
        password(json!({ "name": "keys" }), Some("key")),
        peer(json!({ "nodeSelector": { "matchLabels": { "rack": "a" } } }), None),
        expression(json!({ "key": "rack", "operator": "In", "values": ["a", "b"] }), None),
        expression(json!({ "key": "rack", "operator": "DoesNotExist" }), None),
        expression(json!({ "key": "rack", "operator": "In" }), values),
        expression(json!({ "key": "rack", "operator": "NotIn", "values": [] }), values),
        expression(json!({ "key": "rack", "operator": "Exists", "values": ["a"] }), values),
        expression(json!({ "key": "rack", "operator": "Equals" }), Some("operator")),
        expression(json!({ "key": "", "operator": "Exists" }), Some("key")),
    ];
    cases.extend(rule(json!({ "prefix": "0.0.0.0/0" }), None));
    cases.extend(rule(json!({ "prefix": "10.0.0.0/8", "minLength": 8, "maxLength": 32 }), None));
    cases.extend(rule(json!({ "prefix": "fd00::/8", "minLength": 64 }), None));
    cases.extend(rule(json!({ "prefix": "fd00::/8", "maxLength": 128 }), None));
    cases.extend(rule(json!({ "prefix": "10.0.0.0/8", "minLength": null }), None));
    cases.extend(rule(json!({ "prefix": "10.0.0.1/8" }), bits));
    cases.extend(rule(json!({ "prefix": "10.0.0.0" }), bits));
    cases.extend(rule(json!({ "prefix": "10.0.0.0/8", "minLength": 7 }), least));
    cases.extend(rule(json!({ "prefix": "10.0.0.0/8", "minLength": 33 }), least));
    cases.extend(rule(json!({ "prefix": "fd00::/8", "minLength": 129 }), least));
    cases.extend(rule(json!({ "prefix": "10.0.0.0/8", "maxLength": 7 }), most));
    cases.extend(rule(json!({ "prefix": "10.0.0.0/8", "minLength": 24, "maxLength": 16 }), most));
    cases.extend(rule(json!({ "prefix": "10.0.0.0/8", "maxLength": 33 }), most));
    cases
}

/// The agent has something to say about it, when it reads it as a manifest.
fn agent_complains(object: &Value) -> bool {
    let outcome = manifests::run(object.to_string().as_bytes());
    outcome.bad > 0 || !outcome.codes.is_empty()
}

#[test]
fn the_rules_of_our_kinds_are_those_of_the_agents_parsers() {
    let api = CLUSTER.api();
    let mut report = Vec::new();
    for case in cases() {
        let object = json!({
            "apiVersion": "rampart.network/v1alpha1",
            "kind": case.kind,
            "metadata": { "name": case.name },
            "spec": case.spec,
        });
        let plural = format!("{}s", case.kind.to_lowercase());
        let path = format!("/apis/rampart.network/v1alpha1/{plural}?dryRun=All");
        let answer = api.request("POST", &path, Some(("application/json", &object))).unwrap();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let said = body["message"].as_str().unwrap_or_default();
        let as_expected = match case.wrong {
            None => answer.status == 201,
            Some(why) => answer.status == 422 && said.contains(why),
        };
        if !as_expected {
            report.push(format!("{}: API server: {} {said}", case.spec, answer.status));
        }
        if agent_complains(&object) != case.wrong.is_some() {
            report.push(format!("{}: the agent disagrees", case.spec));
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
}

#[test]
fn there_is_one_object_of_each_kind_of_settings() -> anyhow::Result<()> {
    for kind in ["BGPConfiguration", "NetworkConfiguration"] {
        let object = json!({
            "apiVersion": "rampart.network/v1alpha1",
            "kind": kind,
            "metadata": { "name": "other" },
            "spec": {},
        });
        let error = dry_run(&CLUSTER, &object.to_string()).expect_err(kind).to_string();
        assert!(error.contains("the agents read the one named `default`"), "{error}");
    }
    Ok(())
}

#[test]
fn kubectl_get_shows_what_matters_of_each_kind() -> anyhow::Result<()> {
    let cluster = &*CLUSTER;
    let object = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": "rampart.network/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let condition = |kind: &str, reason: &str| json!({ "type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let address = json!({ "peerAddress": "2001:db8::9", "peerASN": 65009 });
    cluster.apply(&object("BGPPeer", "columns", address).to_string())?;
    cluster.apply(&object("NodeNetworkStatus", "columns", json!({})).to_string())?;
    let api = cluster.api();
    let conditions = [condition("Accepted", "Valid"), condition("Established", "15of16")];
    let path = "/apis/rampart.network/v1alpha1";
    api.patch(
        &format!("{path}/bgppeers/columns/status"),
        &json!({ "status": { "conditions": conditions } }),
    )?;
    let status = json!({
        "conditions": [condition("Ready", "AllWell"), condition("PeersEstablished", "2of2")],
        "meshEstablished": 7, "routes": 30, "endpoints": 12, "policies": 4,
    });
    api.patch(&format!("{path}/nodenetworkstatuses/columns/status"), &json!({ "status": status }))?;
    let row = |kind: &str| -> anyhow::Result<Vec<String>> {
        let text = cluster.kubectl(&["get", kind, "columns", "--no-headers"])?;
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        words.pop(); // the age
        Ok(words)
    };
    assert_eq!(row("bgppeer")?, ["columns", "2001:db8::9", "65009", "True", "15of16"]);
    let expected = ["columns", "True", "AllWell", "7", "2of2", "30", "12", "4"];
    assert_eq!(row("nns")?, expected);
    cluster.kubectl(&["delete", "bgppeer/columns", "nodenetworkstatus/columns"])?;
    Ok(())
}

/// A node, and a pod of the DaemonSet's account that is bound to it; returns the pod's token.
fn bound_token(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    cluster.apply(
        &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } }).to_string(),
    )?;
    let pod = format!("agent-of-{node}");
    let container = json!({ "name": "agent", "image": "none" });
    cluster.apply(
        &json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": pod, "namespace": "rampart-system" },
            "spec": { "nodeName": node, "serviceAccountName": "rampart-agent", "containers": [container],
                      "tolerations": [{ "operator": "Exists" }] },
        })
        .to_string(),
    )?;
    let create = ["create", "token", "rampart-agent", "-n", "rampart-system"];
    let bound = ["--bound-object-kind=Pod", "--bound-object-name", &pod];
    Ok(cluster.kubectl(&[&create[..], &bound].concat())?.trim().to_owned())
}

/// A request as the agent sends it, with a token; what the API server has against it, if anything.
fn denial(token: &str, verb: &str, path: &str, kind: &str, body: &Value) -> Option<String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--request", verb, "--data", &body.to_string()]);
    command.args(["--header", &format!("content-type: application/{kind}")]);
    command.args(["--header", &format!("authorization: Bearer {token}")]);
    command.arg("--cacert").arg(CLUSTER.pki().certificate("ca"));
    command.arg(format!("https://127.0.0.1:6443{path}")).stdout(Stdio::piped());
    let child = CLUSTER.spawn_in("cp", &mut command).unwrap();
    let answer: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    (answer["kind"] == "Status").then(|| answer["message"].as_str().unwrap().to_owned())
}

const STATUSES: &str = "/apis/rampart.network/v1alpha1/nodenetworkstatuses";
const MERGE: &str = "merge-patch+json";
const STRATEGIC: &str = "strategic-merge-patch+json";

fn node_status(name: &str) -> Value {
    let metadata = json!({ "name": name });
    json!({ "apiVersion": "rampart.network/v1alpha1", "kind": "NodeNetworkStatus", "metadata": metadata, "spec": {} })
}

#[test]
fn an_agent_writes_about_its_own_node_only() -> anyhow::Result<()> {
    let (own, other) = (bound_token(&CLUSTER, "own")?, bound_token(&CLUSTER, "other")?);
    // The API server takes a moment to know a policy.
    let refused =
        || denial(&own, "POST", &format!("{STATUSES}?dryRun=All"), "json", &node_status("other"));
    CLUSTER.eventually(SOON, "the admission policy is in force", || Ok(refused().is_some()))?;
    assert!(refused().unwrap().contains("may write only about that node, not about \"other\""));
    assert_eq!(denial(&own, "POST", STATUSES, "json", &node_status("own")), None);
    assert_eq!(denial(&other, "POST", STATUSES, "json", &node_status("other")), None);

    let status = json!({ "status": { "agentVersion": "1" } });
    let path = |node: &str| format!("{STATUSES}/{node}/status");
    assert_eq!(denial(&own, "PATCH", &path("own"), MERGE, &status), None);
    assert!(denial(&own, "PATCH", &path("other"), MERGE, &status).is_some());
    let labels = json!({ "metadata": { "labels": { "a": "b" } } });
    assert!(denial(&own, "PATCH", &format!("{STATUSES}/other"), MERGE, &labels).is_some());

    // A token of the same account that is bound to no node.
    let unbound = ["create", "token", "rampart-agent", "-n", "rampart-system"];
    let unbound = CLUSTER.kubectl(&unbound)?.trim().to_owned();
    assert!(denial(&unbound, "PATCH", &path("own"), MERGE, &status).is_some());
    Ok(())
}

#[test]
fn of_its_node_an_agent_writes_one_condition_only() -> anyhow::Result<()> {
    let own = bound_token(&CLUSTER, "conditions")?;
    bound_token(&CLUSTER, "conditions-of-another")?;
    let path = |node: &str| format!("/api/v1/nodes/{node}/status");
    let condition = |kind: &str| {
        let condition =
            json!({ "type": kind, "status": "False", "reason": "RampartIsReady", "message": "" });
        json!({ "status": { "conditions": [condition] } })
    };
    let foreign = [
        condition("Ready"),
        json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.66" }] } }),
        json!({ "status": { "capacity": { "cpu": "64" }, "allocatable": { "cpu": "64" } } }),
        json!({ "metadata": { "labels": { "node-role.kubernetes.io/control-plane": "" } } }),
        json!({ "metadata": { "annotations": { "a": "b" } } }),
        json!({ "metadata": { "finalizers": ["rampart.network/x"] } }),
    ];
    let refused = || denial(&own, "PATCH", &path("conditions"), STRATEGIC, &foreign[0]);
    CLUSTER.eventually(SOON, "the admission policy is in force", || Ok(refused().is_some()))?;
    for patch in &foreign {
        let said = denial(&own, "PATCH", &path("conditions"), STRATEGIC, patch);
        let said = said.with_context(|| format!("{patch} was taken"))?;
        assert!(said.contains("condition NetworkUnavailable only"), "{said}");
    }
    let network = condition("NetworkUnavailable");
    assert_eq!(denial(&own, "PATCH", &path("conditions"), STRATEGIC, &network), None);
    let another = path("conditions-of-another");
    let said = denial(&own, "PATCH", &another, STRATEGIC, &network).context("it was taken")?;
    assert!(said.contains("may write only about that node"), "{said}");
    Ok(())
}

/// What an account may do in a namespace, as `kubectl auth can-i --list` says.
fn rights(account: &str, namespace: &str) -> anyhow::Result<String> {
    let groups =
        ["system:serviceaccounts", "system:serviceaccounts:rampart-system", "system:authenticated"];
    let mut arguments = vec!["auth", "can-i", "--list", "-n", namespace, "--as", account];
    for group in groups {
        arguments.extend(["--as-group", group]);
    }
    let text = CLUSTER.kubectl(&arguments)?;
    Ok(text.lines().map(|line| format!("{}\n", line.trim_end())).collect())
}

/// `RAMPART_GOLDEN=write` writes the files anew.
#[test]
fn our_accounts_may_do_exactly_what_the_golden_files_say() -> anyhow::Result<()> {
    for (account, name) in [(AGENT, "agent"), (REFLECTOR, "route-reflector")] {
        for namespace in ["default", "rampart-system"] {
            let path = deploy(&format!("golden/can-i-{name}-in-{namespace}.txt"));
            let found = rights(account, namespace)?;
            for never in ["pods/", "serviceaccounts/token"] {
                assert!(!found.contains(never), "{account} has rights on {never}");
            }
            let mut secrets = found.lines().filter(|line| line.contains("secrets"));
            let named = |line: &str| line.contains("[rampart-bgp-passwords]");
            assert!(secrets.all(named), "{account} has rights on other secrets");
            if std::env::var_os("RAMPART_GOLDEN").is_some() {
                std::fs::create_dir_all(deploy("golden"))?;
                std::fs::write(&path, &found)?;
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(found, golden, "{}: RAMPART_GOLDEN=write writes it", path.display());
        }
    }
    Ok(())
}

/// What an account may do with Secrets: one of them by its name, as the source asks for it.
#[test]
fn an_agent_reads_the_secret_of_passwords_by_name_and_no_other() -> anyhow::Result<()> {
    let own = bound_token(&CLUSTER, "secrets")?;
    let secrets = "/api/v1/namespaces/rampart-system/secrets";
    let named = |name: &str| format!("{secrets}?fieldSelector=metadata.name%3D{name}");
    let denied = |path: &str| denial(&own, "GET", path, "json", &json!({}));
    assert_eq!(denied(&named("rampart-bgp-passwords")), None);
    let watch = format!("{}&watch=true&timeoutSeconds=1", named("rampart-bgp-passwords"));
    // A watch that is let through says nothing, as there is no such Secret.
    let status = http_status(&own, &watch);
    assert_eq!(status, "200");
    for path in [
        secrets.to_owned(),
        named("other"),
        format!("{secrets}/rampart-bgp-passwords"),
        "/api/v1/secrets".to_owned(),
        "/api/v1/namespaces/kube-system/secrets?fieldSelector=metadata.name%3Drampart-bgp-passwords".to_owned(),
    ] {
        let said = denied(&path).with_context(|| format!("{path} was answered"))?;
        assert!(said.contains("forbidden"), "{said}");
    }
    Ok(())
}

fn http_status(token: &str, path: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--output", "/dev/null"]);
    command.args(["--write-out", "%{http_code}"]);
    command.args(["--header", &format!("authorization: Bearer {token}")]);
    command.arg("--cacert").arg(CLUSTER.pki().certificate("ca"));
    command.arg(format!("https://127.0.0.1:6443{path}")).stdout(Stdio::piped());
    let child = CLUSTER.spawn_in("cp", &mut command).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn people_get_our_kinds_with_view_and_edit_and_agents_by_hand_only() -> anyhow::Result<()> {
    let cluster = &*CLUSTER;
    for (user, role) in [("viewer", "view"), ("editor", "edit")] {
        let flags = [format!("--clusterrole={role}"), format!("--user={user}")];
        cluster.kubectl(&["create", "clusterrolebinding", user, &flags[0], &flags[1]])?;
    }
    let role = ["--role=rampart-remote", "--user=remote", "-n", "rampart-system"];
    cluster.kubectl(&[&["create", "rolebinding", "remote"][..], &role].concat())?;
    let may = |user: &str, verb: &str, resource: &str| {
        let (resource, of) = resource.split_once('/').unwrap_or((resource, ""));
        let of = format!("--subresource={of}");
        let who = ["--as", user, "-n", "rampart-system", &of];
        let arguments = [&["auth", "can-i", verb, resource][..], &who].concat();
        Ok::<_, anyhow::Error>(cluster.kubectl(&arguments).is_ok())
    };
    // Roles are put together by a controller.
    cluster.eventually(SOON, "view has our kinds", || may("viewer", "list", "bgppeers"))?;
    cluster.eventually(SOON, "edit has our kinds", || may("editor", "patch", "bgppeers"))?;
    for kind in ["bgppeers", "bgpconfigurations", "networkconfigurations", "nodenetworkstatuses"] {
        assert!(may("viewer", "watch", kind)?, "{kind}");
        assert!(!may("viewer", "patch", kind)?, "{kind}");
        assert!(!may("remote", "list", kind)?, "{kind}");
    }
    assert!(!may("editor", "patch", "nodenetworkstatuses")?);
    assert!(!may("editor", "patch", "bgppeers/status")?);
    assert!(!may("viewer", "create", "pods/exec")?);
    assert!(may("remote", "create", "pods/exec")? && may("remote", "list", "pods")?);
    assert!(!may("remote", "delete", "pods")?);
    Ok(())
}

//! What agents tell a real API server: status objects, conditions, Events, the Node's condition; with the
//! roles and the admission policy that are installed, and with those taken away.
//!
//! Needs root.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use api::constant::{GROUP, NAMESPACE, VERSION};
use api::control::Status;
use serde_json::{Value, json};
use tests::cluster::fabric::CONTROL_PLANE;
use tests::cluster::node::Node;
use tests::cluster::{Cluster, Options, Proxy, rampart};

const SOON: Duration = Duration::from_secs(40);
/// A Lease that is not renewed is taken over after 40 s.
const TAKEOVER: Duration = Duration::from_secs(90);

/// A cluster with everything that is installed but the DaemonSet: agents are started by hand, so that
/// these tests need no image.
fn cluster() -> anyhow::Result<Cluster> {
    let cluster = Cluster::up(Options { proxy: Proxy::None, ..Options::of_a_test() })?;
    cluster.apply(&manifests(|_| true)?)?;
    Ok(cluster)
}

/// The documents of `deploy/install.yaml` of such kinds, without the DaemonSet.
fn manifests(wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    let all = rampart::manifests()?;
    let documents = all.split("\n---\n").filter(|document| {
        let kind = document.lines().find_map(|line| line.strip_prefix("kind: "));
        kind.is_some_and(|kind| kind != "DaemonSet" && wanted(kind))
    });
    Ok(documents.collect::<Vec<_>>().join("\n---\n"))
}

/// Starts an agent as its pod would be: with a token of its service account, bound to its Node.
fn start(cluster: &Cluster, node: &Node<'_>) -> anyhow::Result<()> {
    let name = &node.record().name;
    let bound = format!("--bound-object-name={name}");
    let account = ["create", "token", "rampart-agent", "-n", NAMESPACE];
    let token = cluster.kubectl(&[&account[..], &["--bound-object-kind=Node", &bound]].concat())?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://{}:6443", CONTROL_PLANE.0),
            "certificate-authority": cluster.pki().certificate("ca"),
        }}],
        "users": [{"name": "u", "user": {"token": token.trim()}}],
    });
    let path = node.directory().join("agent.conf");
    fs::write(&path, serde_json::to_vec(&config)?)?;
    let store = format!("kube:{}", path.display());
    let program = tests::program::rampart();
    let program = program.to_str().context("a path in UTF-8")?;
    let arguments = [program, "agent", "--node-name", name, "--store", &store];
    let log = File::options().create(true).append(true).open(node.directory().join("agent.log"))?;
    let mut command = node.command(&arguments)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    cluster.eventually(SOON, "the agent answers", || Ok(node.agent::<Status>("/v1/status").is_ok()))
}

fn kill(node: &Node<'_>) -> anyhow::Result<()> {
    let pid = node.agent_pid()?.to_string();
    node.exec(&["kill", "-9", &pid])?;
    Ok(())
}

fn ours(plural: &str, name: &str) -> String {
    format!("/apis/{GROUP}/{VERSION}/{plural}/{name}")
}

/// `STATUS REASON` of a condition, and its message.
fn condition(object: &Value, kind: &str) -> Option<(String, String)> {
    let all = object["status"]["conditions"].as_array()?;
    let found = all.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((format!("{} {}", text("status"), text("reason")), text("message")))
}

/// Waits for a condition of an object and returns its message.
fn wait_condition(
    cluster: &Cluster,
    limit: Duration,
    path: &str,
    kind: &str,
    wanted: &str,
) -> anyhow::Result<String> {
    let mut last = None;
    let waited = cluster.eventually(limit, &format!("{path}: {kind} is {wanted}"), || {
        last = cluster.api().get(path).ok().and_then(|object| condition(&object, kind));
        Ok(last.as_ref().is_some_and(|(found, _)| found == wanted))
    });
    waited.with_context(|| format!("{last:?}"))?;
    Ok(last.unwrap().1)
}

/// Waits for an Event about an object and returns it.
fn wait_event(cluster: &Cluster, about: &str, reason: &str) -> anyhow::Result<Value> {
    let mut found = None;
    let mut seen = Vec::new();
    let waited = cluster.eventually(SOON, &format!("event {reason} about {about}"), || {
        let events = cluster.api().get("/api/v1/events")?;
        let events = events["items"].as_array().unwrap().clone();
        let of = |event: &Value| {
            let object = &event["involvedObject"];
            format!("{} {}", object["kind"].as_str().unwrap(), object["name"].as_str().unwrap())
        };
        let ours = events.iter().filter(|e| e["reportingComponent"] == "rampart-agent");
        seen =
            ours.clone().map(|e| format!("{} {} {}", of(e), e["reason"], e["message"])).collect();
        let is = |event: &&Value| of(event) == about && event["reason"] == reason;
        found = ours.clone().find(is).cloned();
        Ok(found.is_some())
    });
    waited.with_context(|| seen.join("\n"))?;
    Ok(found.unwrap())
}

fn peer(name: &str, address: &str, asn: u32, node: Option<&str>) -> String {
    let selector = node.map_or_else(String::new, |node| {
        format!("\n  nodeSelector: {{matchLabels: {{kubernetes.io/hostname: {node}}}}}")
    });
    format!(
        "---\napiVersion: {GROUP}/{VERSION}\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec:\n  peerAddress: '{address}'\n  peerASN: {asn}{selector}\n"
    )
}

#[test]
fn nodes_report_themselves_and_one_agent_sums_up() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let nodes = cluster.nodes();
    for node in &nodes {
        start(&cluster, node)?;
    }
    for node in &nodes {
        let name = &node.record().name;
        let path = ours("nodenetworkstatuses", name);
        wait_condition(&cluster, SOON, &path, "Ready", "True Ready")?;
        wait_condition(&cluster, SOON, &path, "PeersEstablished", "True MeshEstablished")?;
        let status = cluster.api().get(&path)?;
        let own = cluster.api().get(&format!("/api/v1/nodes/{name}"))?;
        assert_eq!(status["metadata"]["ownerReferences"][0]["uid"], own["metadata"]["uid"]);
        assert_eq!(status["status"]["podCIDRs"], own["spec"]["podCIDRs"], "both families");
        assert_eq!(status["status"]["podCIDRs"].as_array().unwrap().len(), 2);
        assert_eq!(status["status"]["problems"], Value::Null, "{status}");
    }

    // The mesh is counted, at the latest with the next report.
    let own = ours("nodenetworkstatuses", "n1");
    cluster.eventually(SOON, "the mesh is counted", || {
        Ok(cluster.api().get(&own)?["status"]["meshEstablished"] == 1)
    })?;
    // Nothing changes, so nothing is written.
    let version = |path: &str| -> anyhow::Result<Value> {
        Ok(cluster.api().get(path)?["metadata"]["resourceVersion"].clone())
    };
    let before = version(&own)?;
    tests::wait::throughout(Duration::from_secs(20), "no write at rest", || {
        version(&own).unwrap() == before
    });
    cluster.api().delete(&own)?;
    wait_condition(&cluster, SOON, &own, "Ready", "True Ready")?;

    sums_up(&cluster)?;
    one_leader(&cluster)?;
    Ok(())
}

/// Conditions of our kinds.
fn sums_up(cluster: &Cluster) -> anyhow::Result<()> {
    let default = |kind: &str| {
        format!(
            "---\napiVersion: {GROUP}/{VERSION}\nkind: {kind}\nmetadata: {{name: default}}\nspec: {{}}\n"
        )
    };
    let silent = peer("silent", "172.30.0.99", 65001, None);
    let silent6 = peer("silent6", "fd00:30::99", 65001, Some("n2"));
    let nobody = peer("nobody", "172.30.0.98", 65001, Some("n9"));
    let own = peer("own", "172.30.1.11", 65001, None);
    let configurations = default("BGPConfiguration") + &default("NetworkConfiguration");
    cluster.apply(&[silent, silent6, nobody, own, configurations].concat())?;
    let wait = |plural: &str, name: &str, kind: &str, wanted: &str| {
        wait_condition(cluster, SOON, &ours(plural, name), kind, wanted)
    };
    wait("bgppeers", "silent", "Accepted", "True Valid")?;
    wait("bgppeers", "silent", "NodesSelected", "True NodesSelected")?;
    let message = wait("bgppeers", "silent", "Established", "False 0of2")?;
    assert!(message.starts_with("not on n1, n2"), "{message}");
    wait("bgppeers", "silent6", "Established", "False 0of1")?;
    wait("bgppeers", "nobody", "NodesSelected", "False NoNodeSelected")?;
    wait("bgppeers", "nobody", "Established", "Unknown 0of0")?;
    wait("bgpconfigurations", "default", "Accepted", "True Valid")?;
    wait("networkconfigurations", "default", "Accepted", "True Valid")?;
    wait("networkconfigurations", "default", "Programmed", "True 2of2")?;
    cluster.eventually(SOON, "the peer is listed", || {
        let status = cluster.api().get(&ours("nodenetworkstatuses", "n1"))?;
        let listed = status["status"]["peers"].as_array().cloned().unwrap_or_default();
        Ok(listed.iter().any(|peer| peer["name"] == "silent" && peer["state"] == "Active"))
    })?;
    // Another speaker on n1 is wrong for n1 alone; the agent of n1 is a peer of the mesh already.
    let node = cluster.node("n1")?;
    let (address, v6) = (node.record().v4.to_string(), node.record().v6.to_string());
    cluster.apply(&peer("own", &format!("{address}:1799"), 65001, None))?;
    let message = wait("bgppeers", "own", "Accepted", "False InvalidOnSomeNodes")?;
    assert!(message.starts_with("RC2113 ") && message.ends_with("(on n1)"), "{message}");
    cluster.apply(&peer("own", &v6, 65001, Some("n1")))?;
    cluster.eventually(SOON, "the complaint is about the new address", || {
        let object = cluster.api().get(&ours("bgppeers", "own"))?;
        let (accepted, message) = condition(&object, "Accepted").unwrap_or_default();
        Ok(accepted == "False Invalid" && message.contains("RC2120") && message.contains(&v6))
    })?;
    // As where the CRD is an older one, which does not know all that the agents refuse.
    let rules = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/clusterID/\
                 x-kubernetes-validations";
    let remove = json!([{"op": "remove", "path": rules}]).to_string();
    let crd = format!("bgpconfigurations.{GROUP}");
    cluster.kubectl(&["patch", "crd", &crd, "--type=json", "-p", &remove])?;
    let configuration = ours("bgpconfigurations", "default");
    let zero = json!({"spec": {"clusterID": "0.0.0.0"}});
    cluster.eventually(SOON, "the API server lets it through", || {
        Ok(cluster.api().patch(&configuration, &zero).is_ok())
    })?;
    let message = wait("bgpconfigurations", "default", "Accepted", "False Invalid")?;
    assert!(message.contains("RC1011: spec.clusterID"), "{message}");
    cluster.api().patch(&configuration, &json!({"spec": {"clusterID": null}}))?;
    wait("bgpconfigurations", "default", "Accepted", "True Valid")?;
    Ok(())
}

/// One agent writes conditions; when it dies another goes on.
fn one_leader(cluster: &Cluster) -> anyhow::Result<()> {
    let lease =
        format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/rampart-status");
    let holder = || -> anyhow::Result<String> {
        let lease = cluster.api().get(&lease)?;
        Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    };
    let first = holder()?;
    kill(&cluster.node(&first)?)?;
    cluster.eventually(TAKEOVER, "another takes over", || Ok(holder()? != first))?;
    cluster.apply(&peer("later", "172.30.0.97", 65001, None))?;
    wait_condition(cluster, SOON, &ours("bgppeers", "later"), "Accepted", "True Valid")?;
    start(cluster, &cluster.node(&first)?)
}

#[test]
fn the_node_condition_is_set_when_ready_and_set_again_when_taken_away() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let path = "/api/v1/nodes/n1";
    let kind = "NetworkUnavailable";
    let unavailable = json!({"status": {"conditions": [{
        "type": kind, "status": "True", "reason": "NoRouteCreated", "message": "somebody else",
    }]}});
    let patch = unavailable.to_string();
    let take_away = || {
        let patch = ["patch", "node", "n1", "--subresource=status", "-p", &patch];
        cluster.kubectl(&patch)
    };
    take_away()?;
    let tainted = || -> anyhow::Result<bool> {
        let node = cluster.api().get(path)?;
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        Ok(taints.iter().any(|t| t["key"] == "node.kubernetes.io/network-unavailable"))
    };
    cluster.eventually(SOON, "the controller sees it", &tainted)?;
    start(&cluster, &cluster.node("n1")?)?;
    wait_condition(&cluster, SOON, path, kind, "False RampartIsUp")?;
    cluster.eventually(SOON, "the taint goes", || Ok(!tainted()?))?;
    take_away()?;
    wait_condition(&cluster, SOON, path, kind, "False RampartIsUp")?;
    // Nothing but this condition: everything else is as the kubelet says.
    let fields = cluster.kubectl(&["get", "node", "n1", "--show-managed-fields", "-o", "json"])?;
    let node: Value = serde_json::from_str(&fields)?;
    let managers = node["metadata"]["managedFields"].as_array().unwrap();
    let own = managers.iter().filter(|m| m["manager"] == "rampart");
    for fields in own.map(|manager| &manager["fieldsV1"]["f:status"]) {
        let conditions = fields["f:conditions"].as_object().unwrap();
        assert_eq!(fields.as_object().unwrap().len(), 1, "{fields}");
        let others = conditions.keys().filter(|key| !key.contains(kind));
        assert_eq!(others.count(), 0, "{fields}");
    }
    Ok(())
}

#[test]
fn events_tell_what_happened_once_a_minute_at_most() -> anyhow::Result<()> {
    let cluster = cluster()?;
    for node in &cluster.nodes() {
        start(&cluster, node)?;
    }
    let node = cluster.node("n1")?;
    let ready = ours("nodenetworkstatuses", "n1");
    wait_condition(&cluster, SOON, &ready, "PeersEstablished", "True MeshEstablished")?;

    // Both ends know each other by a BGPPeer each, and one has the AS of the other wrong.
    let address = |node: &str| Ok::<_, anyhow::Error>(cluster.node(node)?.record().v4.to_string());
    cluster.apply(&format!(
        "---\napiVersion: {GROUP}/{VERSION}\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{nodeMesh: false}}\n"
    ))?;
    cluster.apply(&peer("right", &address("n1")?, 64512, Some("n2")))?;
    cluster.apply(&peer("wrong", &address("n2")?, 65001, Some("n1")))?;
    let event = wait_event(&cluster, "Node n1", "BGPPeerDown")?;
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("peer wrong"), "{message}");
    let event = wait_event(&cluster, "BGPPeer wrong", "ASNMismatch")?;
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("sent AS 64512, expected 65001"), "{message}");
    let object = cluster.api().get(&ours("bgppeers", "wrong"))?;
    assert_eq!(event["involvedObject"]["uid"], object["metadata"]["uid"]);
    let described = cluster.kubectl(&["describe", "bgppeer", "wrong"])?;
    assert!(described.contains("ASNMismatch"), "{described}");
    cluster.kubectl(&["delete", "bgppeer", "wrong"])?;
    wait_event(&cluster, "Node n1", "BGPPeerUp")?;
    cluster.kubectl(&["delete", "bgppeer", "right"])?;
    cluster.kubectl(&["delete", "bgpconfiguration", "default"])?;

    // Drift: repaired many times, told once.
    for _ in 0..5 {
        node.exec(&["nft", "delete", "table", "inet", "rampart"])?;
        cluster.eventually(SOON, "the table is repaired", || {
            Ok(node.output(&["nft", "list", "table", "inet", "rampart"])?.status.success())
        })?;
    }
    let event = wait_event(&cluster, "Node n1", "NftDrift")?;
    assert_eq!(event["source"]["host"], "n1");
    for family in ["-4", "-6"] {
        let routes = node.exec(&["ip", family, "route", "show", "proto", "82"])?;
        let via = routes.lines().find(|line| line.contains(" via ")).context("a route")?;
        let prefix = via.split(' ').next().unwrap().to_owned();
        node.exec(&["ip", family, "route", "del", &prefix, "proto", "82"])?;
        wait_event(&cluster, "Node n1", "FIBDrift")?;
    }
    let events = cluster.api().get("/api/v1/namespaces/default/events")?;
    let told = events["items"].as_array().unwrap().iter();
    let told = told.filter(|e| e["reason"] == "NftDrift" && e["involvedObject"]["name"] == "n1");
    let messages: Vec<&Value> = told.clone().map(|event| &event["message"]).collect();
    let mut unique = messages.clone();
    unique.sort_by_key(ToString::to_string);
    unique.dedup();
    assert_eq!(messages.len(), unique.len(), "one Event for one message: {messages:?}");
    Ok(())
}

#[test]
fn what_is_refused_is_one_problem_and_disturbs_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::up(Options { proxy: Proxy::None, nodes: 1, ..Options::of_a_test() })?;
    // Without our kinds.
    cluster.apply(&manifests(|kind| kind != "CustomResourceDefinition")?)?;
    let node = cluster.node("n1")?;
    start(&cluster, &node)?;
    let refusals = |node: &Node<'_>| -> anyhow::Result<Vec<String>> {
        let status: Status = node.agent("/v1/status")?;
        let all = status.problems.into_iter().filter(|p| p.code.0 == 5101);
        Ok(all.map(|problem| problem.message).collect())
    };
    cluster.eventually(SOON, "it says so, once", || Ok(refusals(&node)?.len() == 1))?;
    wait_condition(&cluster, SOON, "/api/v1/nodes/n1", "NetworkUnavailable", "False RampartIsUp")?;
    assert!(node.agent::<Status>("/v1/status")?.ready, "policy and routes do not need it");
    cluster.apply(&manifests(|kind| kind == "CustomResourceDefinition")?)?;
    let path = ours("nodenetworkstatuses", "n1");
    wait_condition(&cluster, SOON, &path, "Ready", "True Ready")?;
    cluster.eventually(SOON, "no problem any more", || Ok(refusals(&node)?.is_empty()))?;

    // Without a verb.
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/rampart-agent";
    let rules = cluster.api().get(role)?["rules"].clone();
    let reads: Vec<Value> = rules
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| !rule["resources"].to_string().contains("nodenetworkstatuses"))
        .cloned()
        .collect();
    cluster.api().patch(role, &json!({"rules": reads}))?;
    cluster.api().delete(&path)?;
    let mut said = Vec::new();
    cluster.eventually(TAKEOVER, "it says so, once", || {
        said = refusals(&node)?;
        Ok(said.len() == 1)
    })?;
    assert!(said[0].contains("nodenetworkstatuses"), "{said:?}");
    assert!(node.agent::<Status>("/v1/status")?.ready);
    cluster.api().patch(role, &json!({"rules": rules}))?;
    wait_condition(&cluster, TAKEOVER, &path, "Ready", "True Ready")?;
    cluster.eventually(SOON, "no problem any more", || Ok(refusals(&node)?.is_empty()))
}

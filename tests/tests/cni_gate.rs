//! ADD returns when the pod's policy is in the kernel, and says what is missing when it does not; an
//! agent that starts again knows the pods that are there.
#![expect(clippy::indexing_slicing, reason = "a helper that fails fails its test")]

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::agent::{LIMIT, policy};
use tests::cni::{CniNode, Sandbox, addresses, connects, pending_pod, serve};
use tests::netns::Namespace;
use tests::wait::{eventually, throughout};

const SOON: Duration = Duration::from_millis(1500);
const NEVER: Duration = Duration::from_millis(200);

fn impatient(node: &CniNode) -> Value {
    let mut config = node.network();
    config["timeoutSeconds"] = json!(1);
    config
}

#[test]
fn an_add_for_a_pod_that_nobody_knows_fails_with_11_and_leaves_nothing() {
    let mut node = CniNode::new("gate-unknown", "");
    node.start();
    let pod = Namespace::new("gate-a");
    let sandbox = Sandbox::of("a", &pod);
    let answer = node.call_with("ADD", &sandbox, &impatient(&node));
    assert_eq!(answer.code(), 11, "{}", answer.value);
    assert!(
        answer.message().contains("has not seen the Pod object shop/a (uid uid-a)"),
        "{}",
        answer.value
    );
    assert!(answer.message().contains("RC4021"), "{}", answer.value);
    assert_eq!(node.remains(), Vec::<String>::new());
    assert!(!pod.output("ip", &["-br", "link"]).contains("eth0"));
}

#[test]
fn an_add_waits_for_the_pod_object_and_its_policy() {
    let mut node = CniNode::new("gate-late", &policy("shop", "shut", "podSelector: {}"));
    node.start();
    let pod = Namespace::new("gate-a");
    serve(&pod);
    let sandbox = Sandbox::of("a", &pod);
    let config = node.network().to_string();
    let child = node.spawn("rampart-cni", "ADD", &sandbox, config.as_bytes());
    let attached = || node.remains().iter().any(|name| name.ends_with(".json"));
    eventually(LIMIT, "the agent has the attachment", attached);
    node.directory.write("store/late.yaml", &pending_pod("a", "n1"));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let table = node.namespace.output("nft", &["list", "table", "inet", "rampart"]);
    for address in addresses(&result) {
        assert!(table.contains(&address.to_string()), "{address} is in the table:\n{table}");
    }
}

#[test]
fn without_an_agent_add_fails_status_says_50_and_del_works() {
    let mut node = CniNode::new("gate-dead", &pending_pod("a", "n1"));
    node.start();
    let (first, second) = (Namespace::new("gate-a"), Namespace::new("gate-b"));
    let sandbox = Sandbox::of("a", &first);
    let mut config = impatient(&node);
    config["cniVersion"] = json!("1.1.0");
    node.call_with("STATUS", &sandbox, &config).good();
    node.call_with("ADD", &sandbox, &config).good();
    node.kill_agent();
    assert_eq!(node.call_with("STATUS", &sandbox, &config).code(), 50);
    let answer = node.call_with("ADD", &Sandbox::of("b", &second), &config);
    assert_eq!(answer.code(), 11);
    assert!(answer.message().contains("the agent does not answer"), "{}", answer.value);
    node.call_with("DEL", &sandbox, &config).good();
    assert_eq!(node.remains(), Vec::<String>::new());
    node.start_agent();
    node.agent().synced();
    eventually(LIMIT, "the agent serves again", || node.call_with("STATUS", &sandbox, &config).ok);
    let table = node.namespace.output("nft", &["list", "set", "inet", "rampart", "pods4"]);
    assert!(!table.contains("10.1.0."), "the pod has ended while the agent was away:\n{table}");
}

#[test]
fn status_names_the_missing_host_local() {
    let mut node = CniNode::new("gate-ipam", "");
    node.start();
    let mut config = node.network();
    config["cniVersion"] = json!("1.1.0");
    std::fs::remove_file(node.directory.join("bin/host-local")).unwrap();
    let pod = Namespace::new("gate-a");
    let answer = node.call_with("STATUS", &Sandbox::of("a", &pod), &config);
    assert_eq!(answer.code(), 50);
    assert!(answer.message().contains("host-local"), "{}", answer.value);
    eventually(LIMIT, "the agent complains", || {
        node.agent().problems().iter().any(|p| p.code.0 == 3022 && p.message.contains("host-local"))
    });
}

#[test]
fn routes_and_link_of_a_pod_that_somebody_takes_away_are_put_back() {
    let objects = pending_pod("a", "n1") + &pending_pod("b", "n1");
    let mut node = CniNode::new("gate-repair", &objects);
    node.start();
    let (first, second) = (Namespace::new("gate-a"), Namespace::new("gate-b"));
    serve(&first);
    let all = addresses(&node.call("ADD", &Sandbox::of("a", &first)).good());
    node.call("ADD", &Sandbox::of("b", &second)).good();
    let reached = |node: &CniNode, what: &str| {
        eventually(LIMIT, what, || all.iter().all(|address| connects(&second, *address, SOON)));
        let told = node.agent().problems();
        assert!(told.iter().any(|p| p.code.0 == 3002 && p.subject == "Pod shop/a"), "{told:?}");
    };
    for family in ["-4", "-6"] {
        node.namespace.output("ip", &[family, "route", "flush", "proto", "83"]);
    }
    reached(&node, "routes are back");
    let endpoints = node.agent().endpoints();
    let a = endpoints.iter().find(|endpoint| endpoint.name == "a").unwrap();
    let interface = a.interface.clone().unwrap();
    node.namespace.output("ip", &["link", "set", &interface, "down"]);
    reached(&node, "the link is up again");
    // What was lost while nobody looked.
    node.kill_agent();
    for family in ["-4", "-6"] {
        node.namespace.output("ip", &[family, "route", "flush", "proto", "83"]);
    }
    node.start_agent();
    reached(&node, "routes are back after a restart");
}

#[test]
fn a_control_socket_that_somebody_removes_is_made_anew() {
    let mut node = CniNode::new("gate-socket", &pending_pod("a", "n1"));
    node.start();
    let pod = Namespace::new("gate-a");
    std::fs::remove_file(node.directory.join("run/agent.sock")).unwrap();
    let mut config = impatient(&node);
    config["cniVersion"] = json!("1.1.0");
    let sandbox = Sandbox::of("a", &pod);
    eventually(LIMIT, "STATUS is good again", || node.call_with("STATUS", &sandbox, &config).ok);
    node.call_with("ADD", &sandbox, &config).good();
}

#[test]
fn an_agent_that_is_killed_and_starts_again_keeps_its_pods() {
    let objects = pending_pod("a", "n1") + &pending_pod("b", "n1");
    let mut node = CniNode::new("gate-restart", &objects);
    node.start();
    let (first, second) = (Namespace::new("gate-a"), Namespace::new("gate-b"));
    serve(&first);
    let all = addresses(&node.call("ADD", &Sandbox::of("a", &first)).good());
    node.call("ADD", &Sandbox::of("b", &second)).good();
    node.kill_agent();
    node.start_agent();
    // No status names the addresses: only the plugin has ever said them.
    throughout(Duration::from_millis(800), "pods reach each other", || {
        all.iter().all(|address| connects(&second, *address, SOON))
    });
    node.agent().synced();
    for address in &all {
        assert!(connects(&second, *address, SOON), "{address}");
    }
    let endpoints = node.agent().endpoints();
    let a = endpoints.iter().find(|endpoint| endpoint.name == "a").unwrap();
    assert_eq!(a.addresses.len(), 2, "{a:?}");
}

#[test]
fn a_gate_behind_the_bridge_plugin_passes_its_result_on_and_isolates() {
    let rules = "podSelector: {matchLabels: {app: shut}}, policyTypes: [Egress, Ingress]";
    let objects =
        pending_pod("shut", "n1") + &pending_pod("open", "n1") + &policy("shop", "p", rules);
    let mut node = CniNode::new("gate-chain", &objects);
    node.start();
    std::fs::copy("/usr/lib/cni/bridge", node.directory.join("bin/bridge")).unwrap();
    let main = node.network();
    let bridge = json!({
        "cniVersion": "1.0.0", "name": "other", "type": "bridge", "bridge": "cni0", "isGateway": true,
        "ipam": {
            "type": "host-local", "dataDir": main["ipam"]["dataDir"], "ranges": main["ipam"]["ranges"],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    });
    serve(&node.namespace);
    let (shut, open) = (Namespace::new("gate-a"), Namespace::new("gate-b"));
    for (name, pod) in [("shut", &shut), ("open", &open)] {
        serve(pod);
        let sandbox = Sandbox::of(name, pod);
        let result = node.call_plugin("bridge", "ADD", &sandbox, &bridge).good();
        let gate = json!({
            "cniVersion": "1.0.0", "name": "other", "type": "rampart-cni", "prevResult": result,
            "socket": main["socket"], "stateDir": main["stateDir"], "timeoutSeconds": 5,
        });
        let passed = node.call_with("ADD", &sandbox, &gate).good();
        assert_eq!(passed, result);
        for address in addresses(&result) {
            eventually(LIMIT, "the node reaches its pod", || {
                connects(&node.namespace, address, SOON)
            });
        }
        // The bridge plugin leaves duplicate address detection to the kernel: IPv6 takes a while.
        for address in ["192.0.2.10", "2001:db8::10"] {
            let address = address.parse().unwrap();
            if name == "shut" {
                assert!(!connects(pod, address, NEVER), "{address}");
            } else {
                eventually(LIMIT, "an open pod reaches the node", || connects(pod, address, SOON));
            }
        }
        let mut check = gate.clone();
        check["prevResult"] = passed;
        node.call_with("CHECK", &sandbox, &check).good();
    }
    let table = node.namespace.output("nft", &["list", "table", "inet", "rampart"]);
    assert!(table.contains("\"cni0\" . 10.1.0."), "the way packets come in:\n{table}");
    for (name, pod) in [("shut", &shut), ("open", &open)] {
        let gate = json!({
            "cniVersion": "1.0.0", "name": "other", "type": "rampart-cni",
            "socket": main["socket"], "stateDir": main["stateDir"],
        });
        node.call_with("DEL", &Sandbox::of(name, pod), &gate).good();
        node.call_plugin("bridge", "DEL", &Sandbox::of(name, pod), &bridge).good();
    }
    assert!(!node.remains().iter().any(|name| name.ends_with(".json")), "{:?}", node.remains());
    let without = json!({"cniVersion": "1.0.0", "name": "other", "type": "rampart-cni"});
    assert_eq!(node.call_with("ADD", &Sandbox::of("shut", &shut), &without).code(), 7);
}

#[test]
fn twenty_pods_a_second_are_attached_without_a_queue() {
    const PODS: usize = 20;
    let objects: String = (0..PODS).map(|n| pending_pod(&format!("p{n}"), "n1")).collect();
    let mut node = CniNode::new("gate-rate", &objects);
    node.start();
    let pods: Vec<Namespace> = (0..PODS).map(|_| Namespace::new("gate-p")).collect();
    let config = node.network().to_string();
    let began = std::time::Instant::now();
    let mut running = Vec::new();
    for (number, pod) in pods.iter().enumerate() {
        let due = Duration::from_millis(50) * u32::try_from(number).unwrap();
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let sandbox = Sandbox::of(&format!("p{number}"), pod);
        running.push(node.spawn("rampart-cni", "ADD", &sandbox, config.as_bytes()));
    }
    let outputs: Vec<_> =
        running.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let mut seen = std::collections::BTreeSet::new();
    for output in outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(
            addresses(&result).into_iter().all(|address| seen.insert(address)),
            "twice: {result}"
        );
    }
    assert_eq!(seen.len(), 2 * PODS);
    let metrics = node.namespace.within(|| {
        Command::new("curl").args(["-s", "http://127.0.0.1:9472/metrics"]).output().unwrap()
    });
    let metrics = String::from_utf8_lossy(&metrics.stdout).into_owned();
    let count = format!("rampart_pod_gate_seconds_count {PODS}");
    assert!(metrics.contains(&count), "{metrics}");
}

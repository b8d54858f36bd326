//! The plugin `rampart-cni`, run as a container runtime runs it, beside a real agent and a real
//! host-local.

use std::fs;
use std::time::Duration;

use api::constant::CNI_PLUGIN;
use serde_json::{Value, json};
use tests::agent::policy;
use tests::cni::{CniNode, Sandbox, addresses, connects, pending_pod, serve};
use tests::fuzz::mutate::Random;
use tests::netns::Namespace;
use tests::wait::eventually;

const SOON: Duration = Duration::from_millis(1500);
const NEVER: Duration = Duration::from_millis(150);

fn started(purpose: &str, objects: &str) -> CniNode {
    let mut node = CniNode::new(purpose, objects);
    node.start();
    node
}

fn pods(names: &[&str]) -> String {
    names.iter().map(|name| pending_pod(name, "n1")).collect()
}

#[test]
fn a_pod_is_reached_and_reaches_others_by_both_families_as_soon_as_add_returns() {
    let node = started("cni-add", &pods(&["a", "b"]));
    let (first, second) = (Namespace::new("cni-a"), Namespace::new("cni-b"));
    serve(&first);
    serve(&node.namespace);
    let a = addresses(&node.call("ADD", &Sandbox::of("a", &first)).good());
    assert_eq!(a.len(), 2, "one address of each family: {a:?}");
    for address in &a {
        assert!(connects(&node.namespace, *address, SOON), "the node reaches {address}");
    }
    let result = node.call("ADD", &Sandbox::of("b", &second)).good();
    for address in &a {
        assert!(connects(&second, *address, SOON), "the other pod reaches {address}");
    }
    for address in ["192.0.2.10", "2001:db8::10"] {
        assert!(connects(&second, address.parse().unwrap(), SOON), "a pod reaches {address}");
    }
    let link = second.output("ip", &["-j", "link", "show", "eth0"]);
    let link: Value = serde_json::from_str(&link).unwrap();
    assert_eq!(link[0]["mtu"], 1400, "the uplink's");
    assert_eq!(link[0]["address"], result["interfaces"][1]["mac"]);
    assert_eq!(result["interfaces"][1]["sandbox"], Sandbox::of("b", &second).netns);

    assert_eq!(node.call("DEL", &Sandbox::of("a", &first)).good(), Value::Null);
    let gone = Sandbox { netns: "/run/netns/gone".to_owned(), ..Sandbox::of("b", &second) };
    node.call("DEL", &gone).good();
    node.call("DEL", &gone).good();
    assert_eq!(node.remains(), Vec::<String>::new());
}

#[test]
fn a_second_add_of_the_same_sandbox_takes_the_place_of_the_first() {
    let node = started("cni-twice", &pods(&["a"]));
    let pod = Namespace::new("cni-a");
    let sandbox = Sandbox::of("a", &pod);
    node.call("ADD", &sandbox).good();
    let result = node.call("ADD", &sandbox).good();
    serve(&pod);
    for address in addresses(&result) {
        assert!(connects(&node.namespace, address, SOON), "{address}");
    }
    // Two leases, one interface, one attachment.
    assert_eq!(node.remains().len(), 4, "{:?}", node.remains());
    node.call("DEL", &sandbox).good();
    assert_eq!(node.remains(), Vec::<String>::new());
}

#[test]
fn no_first_packet_of_an_isolated_pod_gets_through_and_none_of_an_allowed_one_is_lost() {
    let rules = "podSelector: {matchLabels: {app: shut}}, policyTypes: [Egress, Ingress]";
    let mut objects = policy("shop", "shut", rules);
    let pod = |name: &str, app: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, uid: uid-{name}, labels: {{app: {app}}}}}\nspec: {{nodeName: n1, containers: [{{name: c}}]}}\n"
        )
    };
    for number in 0..12 {
        objects += &pod(&format!("p{number}"), if number % 2 == 0 { "shut" } else { "open" });
    }
    let node = started("cni-race", &objects);
    let outside = Namespace::new("cni-out");
    tests::netns::connect(&node.namespace, "out0", &outside, "out1");
    node.namespace
        .ip(&["addr add 198.51.100.1/24 dev out0", "addr add 2001:db8:1::1/64 dev out0 nodad"]);
    outside.ip(&[
        "addr add 198.51.100.2/24 dev out1",
        "addr add 2001:db8:1::2/64 dev out1 nodad",
        "route add default via 198.51.100.1",
        "route add default via 2001:db8:1::1",
    ]);
    serve(&outside);
    for number in 0..12 {
        let pod = Namespace::new("cni-p");
        let sandbox = Sandbox::of(&format!("p{number}"), &pod);
        serve(&pod);
        let own = addresses(&node.call("ADD", &sandbox).good());
        let isolated = number % 2 == 0;
        let limit = if isolated { NEVER } else { SOON };
        for address in ["198.51.100.2", "2001:db8:1::2"] {
            let passed = connects(&pod, address.parse().unwrap(), limit);
            assert_eq!(passed, !isolated, "p{number} to {address}");
        }
        for address in own {
            assert_eq!(connects(&outside, address, limit), !isolated, "to p{number} at {address}");
        }
        node.call("DEL", &sandbox).good();
    }
    assert_eq!(node.remains(), Vec::<String>::new());
}

#[test]
fn an_add_that_is_killed_at_any_moment_leaves_nothing_that_del_or_gc_does_not_remove() {
    let node = started("cni-kill", &pods(&["a"]));
    let mut config = node.network();
    config["cniVersion"] = json!("1.1.0");
    let mut killed = 0;
    for step in 0..24_u64 {
        let pod = Namespace::new("cni-a");
        let sandbox = Sandbox::of("a", &pod);
        let mut child = node.spawn(CNI_PLUGIN, "ADD", &sandbox, config.to_string().as_bytes());
        std::thread::sleep(Duration::from_micros(step * 1500));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        if step % 2 == 0 {
            node.call("DEL", &sandbox).good();
        } else {
            // The child's delegate may outlive it: the runtime's GC comes later than that.
            let mut gc = config.clone();
            gc["cni.dev/valid-attachments"] = json!([]);
            eventually(Duration::from_secs(5), "GC finds everything", || {
                node.call_with("GC", &sandbox, &gc).good();
                node.remains().is_empty()
            });
        }
        eventually(Duration::from_secs(5), "nothing is left", || {
            node.call("DEL", &sandbox).good();
            node.remains().is_empty()
        });
    }
    assert!(killed > 0, "no ADD was killed in time");
}

#[test]
fn gc_keeps_what_is_valid() {
    let node = started("cni-gc", &pods(&["a", "b"]));
    let (first, second) = (Namespace::new("cni-a"), Namespace::new("cni-b"));
    let (a, b) = (Sandbox::of("a", &first), Sandbox::of("b", &second));
    let kept = addresses(&node.call("ADD", &a).good());
    node.call("ADD", &b).good();
    // A lease that a crash has leaked.
    let leases = node.directory.join("leases/rampart");
    fs::write(leases.join("10.1.0.77"), "lost\r\neth0").unwrap();
    let mut gc = node.network();
    gc["cniVersion"] = json!("1.1.0");
    gc["cni.dev/valid-attachments"] = json!([{"containerID": a.container, "ifname": "eth0"}]);
    node.call_with("GC", &a, &gc).good();
    assert_eq!(node.remains().len(), 4, "{:?}", node.remains());
    serve(&first);
    for address in kept {
        assert!(connects(&node.namespace, address, SOON), "{address}");
    }
    let without = node.network();
    let mut without = without.as_object().unwrap().clone();
    without.insert("cniVersion".to_owned(), json!("1.1.0"));
    assert_eq!(node.call_with("GC", &a, &Value::Object(without)).code(), 7, "no list, no GC");
    assert_eq!(node.remains().len(), 4);
}

#[test]
fn check_finds_what_is_missing() {
    let mut node = started("cni-check", &pods(&["a"]));
    let pod = Namespace::new("cni-a");
    let sandbox = Sandbox::of("a", &pod);
    let result = node.call("ADD", &sandbox).good();
    let mut config = node.network();
    config["prevResult"] = result.clone();
    node.call_with("CHECK", &sandbox, &config).good();
    let broken = |node: &CniNode, what: &str| {
        let answer = node.call_with("CHECK", &sandbox, &config);
        assert!(!answer.ok && answer.message().contains(what), "{what}: {}", answer.value);
    };
    for gateway in ["169.254.1.1", "fe80::1"] {
        pod.ip(&[&format!("route del default via {gateway} dev eth0")]);
        broken(&node, "default route");
        pod.ip(&[&format!("route add default via {gateway} dev eth0")]);
    }
    node.call_with("CHECK", &sandbox, &config).good();
    // An agent that runs puts it back at once.
    node.kill_agent();
    for address in addresses(&result) {
        node.namespace.ip(&[&format!("route del {address}")]);
        broken(&node, "is not routed");
        let host = result["interfaces"][0]["name"].as_str().unwrap();
        node.namespace.ip(&[&format!("route add {address} dev {host}")]);
    }
    node.start_agent();
    pod.ip(&["link set eth0 down"]);
    broken(&node, "down");
    let mut other = config.clone();
    other["prevResult"] = json!(null);
    assert_eq!(node.call_with("CHECK", &sandbox, &other).code(), 7);
}

#[test]
fn every_version_of_the_spec_gets_its_own_form() {
    let node = started("cni-version", &pods(&["a"]));
    let pod = Namespace::new("cni-a");
    let sandbox = Sandbox::of("a", &pod);
    let versions = node.call_with("VERSION", &sandbox, &json!({"cniVersion": "1.0.0"})).good();
    assert_eq!(versions["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut config = node.network();
        config["cniVersion"] = json!(version);
        let result = node.call_with("ADD", &sandbox, &config).good();
        assert_eq!(result["cniVersion"], version);
        let tag = &result["ips"][0]["version"];
        assert_eq!(tag == "4", version < "1.0.0", "{version}: {tag}");
        config["prevResult"] = result;
        let check = node.call_with("CHECK", &sandbox, &config);
        assert_eq!(check.code(), u64::from(version < "0.4.0"), "{version}: {}", check.value);
        let status = node.call_with("STATUS", &sandbox, &config);
        assert_eq!(status.code(), u64::from(version < "1.1.0"), "{version}: {}", status.value);
        node.call_with("DEL", &sandbox, &config).good();
    }
    assert_eq!(node.remains(), Vec::<String>::new());
}

#[test]
fn bad_input_has_a_code_and_changes_nothing() {
    let node = started("cni-bad", &pods(&["a"]));
    let pod = Namespace::new("cni-a");
    let good = Sandbox::of("a", &pod);
    let add = |change: &dyn Fn(&mut Sandbox)| {
        let mut sandbox = good.clone();
        change(&mut sandbox);
        node.call("ADD", &sandbox).code()
    };
    assert_eq!(add(&|s| s.container.clear()), 4);
    assert_eq!(add(&|s| s.container = "../x".to_owned()), 4);
    assert_eq!(add(&|s| s.netns.clear()), 4);
    assert_eq!(add(&|s| s.netns = "/run/netns/none".to_owned()), 4);
    assert_eq!(add(&|s| s.netns = "/proc/self/ns/net".to_owned()), 4);
    assert_eq!(add(&|s| s.args.clear()), 4);
    assert_eq!(node.call("NONSENSE", &good).code(), 4);
    let text = node.network().to_string();
    let mut random = Random::new(7);
    for _ in 0..60 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
                1 => drop(bytes.drain(at..(at + random.below(20)).min(bytes.len()))),
                _ => bytes.insert(at, b"{}[]\",:0"[random.below(8)]),
            }
        }
        // Not ADD: a change may well leave the configuration valid.
        let output = node.run(CNI_PLUGIN, "STATUS", &good, &bytes);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let code = answer["code"].as_u64().unwrap_or(0);
        let input = String::from_utf8_lossy(&bytes);
        assert!(
            output.status.code() == Some(i32::from(code != 0)) && code != 999,
            "{answer}: {input}"
        );
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{input}");
    }
    assert_eq!(node.remains(), Vec::<String>::new());
}

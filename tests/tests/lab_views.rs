//! What `rctl get` says against what BIRD, FRR, the kernel's routes and `nft` say.
#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use ctl::lab::converge::kernel_routes;
use serde_json::Value;
use tests::lab::{Lab, PATIENCE};
use tests::wait::eventually;

/// `rctl get KIND -o json`, its items.
fn get(lab: &Lab, kind: &str) -> Vec<Value> {
    let text = lab.rctl_ok(&["get", kind, "-A", "-o", "json"]);
    let list: Value = serde_json::from_str(&text).expect("JSON");
    list.get("items").and_then(Value::as_array).expect("items").clone()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).expect(field)
}

fn number(object: &Value, field: &str) -> u64 {
    object.get(field).and_then(Value::as_u64).expect(field)
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a switch says about a session: established, prefixes it got, prefixes it sent.
type Session = (bool, u64, u64);

fn bird_session(lab: &Lab, node: &str) -> Session {
    let socket = lab.directory().join("tors/tor1/bird.ctl").display().to_string();
    let text = output("birdc", &["-s", &socket, "show", "protocols", "all", node]);
    let (mut received, mut sent) = (0, 0);
    // `Routes:         1 imported, 1 exported, 1 preferred`, once for each family.
    for line in text.lines().filter(|line| line.trim_start().starts_with("Routes:")) {
        let counts: Vec<u64> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        received += counts.first().expect("imported");
        sent += counts.get(1).expect("exported");
    }
    (text.contains("Established"), received, sent)
}

fn frr_sessions(lab: &Lab) -> BTreeMap<String, Session> {
    let directory = lab.directory().join("tors/tor2").display().to_string();
    let printed = output("vtysh", &["--vty_socket", &directory, "-c", "show bgp summary json"]);
    let summary: Value = serde_json::from_str(&printed).expect("JSON");
    let families = summary.as_object().expect("families").values();
    let mut sessions = BTreeMap::new();
    for family in families {
        for (address, peer) in family.get("peers").and_then(Value::as_object).expect("peers") {
            let session = (
                text(peer, "state") == "Established",
                number(peer, "pfxRcd"),
                number(peer, "pfxSnt"),
            );
            sessions.insert(address.clone(), session);
        }
    }
    sessions
}

/// Kernel routes of both families as `prefix -> gateways`, those of the agent only.
fn agents_routes(namespace: &str) -> BTreeMap<String, BTreeSet<String>> {
    let ours = api::constant::ROUTE_PROTOCOL.to_string();
    let mut routes = BTreeMap::new();
    for (family, default) in [("-4", "0.0.0.0/0"), ("-6", "::/0")] {
        for route in kernel_routes(namespace, family).expect("routes") {
            if route.protocol.as_deref() == Some(&ours) {
                let prefix = if route.dst == "default" { default } else { &route.dst };
                routes.insert(prefix.to_owned(), route.gateways());
            }
        }
    }
    routes
}

fn nft_chains(namespace: &str) -> BTreeSet<String> {
    let arguments = ["netns", "exec", namespace, "nft", "-j", "list", "chains"];
    let listing: Value = serde_json::from_str(&output("ip", &arguments)).expect("JSON");
    let objects = listing.get("nftables").and_then(Value::as_array).expect("objects");
    objects
        .iter()
        .filter_map(|object| object.get("chain"))
        .map(|chain| text(chain, "name").to_owned())
        .collect()
}

/// The first session about which `rctl` and the switch say different things.
fn sessions_differ(lab: &Lab) -> Option<String> {
    let frr = frr_sessions(lab);
    let peers = get(lab, "peers");
    // One session with BIRD and two with FRR, from each of four nodes.
    assert_eq!(peers.len(), 4 * 3);
    peers.iter().find_map(|peer| {
        let ours =
            (text(peer, "state") == "Established", number(peer, "sent"), number(peer, "received"));
        let theirs = if number(peer, "remoteAsn") == 65001 {
            bird_session(lab, text(peer, "node"))
        } else {
            *frr.get(text(peer, "localAddress")).expect("FRR knows the session")
        };
        (ours != theirs)
            .then(|| format!("{}: rctl {ours:?}, switch {theirs:?}", text(peer, "name")))
    })
}

#[test]
fn rctl_agrees_with_the_switches_the_kernel_and_nft() {
    let lab = Lab::up(&["--tor", "mixed"]);

    // Counters on both sides settle a moment after the routes are in the kernels.
    eventually(PATIENCE, "rctl and the switches say the same about every session", || {
        sessions_differ(&lab).inspect(|difference| eprintln!("{difference}")).is_none()
    });

    let routes = get(&lab, "routes");
    let nodes = get(&lab, "nodes");
    assert_eq!(nodes.len(), 4);
    for node in &nodes {
        let name = text(node, "name");
        let said: BTreeMap<String, BTreeSet<String>> = routes
            .iter()
            .filter(|route| text(route, "node") == name)
            .map(|route| {
                let hops = route.get("fibNextHops").and_then(Value::as_array).expect("hops");
                let hops = hops.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                (text(route, "prefix").to_owned(), hops)
            })
            .collect();
        assert_eq!(said, agents_routes(&lab.name().namespace(name)), "{name}");
    }

    let endpoints = get(&lab, "endpoints");
    assert_eq!(endpoints.len(), 8);
    for endpoint in &endpoints {
        let chains = nft_chains(&lab.name().namespace(text(endpoint, "node")));
        let said = endpoint.get("chains").and_then(Value::as_array).expect("chains");
        assert_eq!(said.len(), 2, "isolated in both directions");
        for chain in said.iter().filter_map(Value::as_str) {
            assert!(chains.contains(chain), "{chain} is not among {chains:?}");
        }
    }
}

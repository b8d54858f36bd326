//! Real connections against the verdict oracle: engine and writer program a node in a network
//! namespace, and every place talks to every other over TCP and UDP, IPv4 and IPv6 (root needed).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use agent::kernel::nft::Monitor;
use policy::event::{Key, Kind};
use policy::verdict::{At, Packet};
use tests::nft::{Watcher, listing, nft, nft_script};
use tests::nft_node::{PolicyNode, objects};
use tests::nft_pods::{Fabric, Place, Probe, TCP, TCP_PORTS, UDP, UDP_PORTS};

const CLUSTER: &str = include_str!("../data/packets/cluster.yaml");
const CASES: &str = include_str!("../data/packets/cases.yaml");

const NODE: usize = 0;
const WEB: usize = 1;
const API: usize = 2;
const WORLD: usize = 7;
/// Local pods of the cluster are places 1 to 4.
const LOCAL: std::ops::RangeInclusive<usize> = WEB..=4;
/// Has an address of the node's pod CIDR and no pod.
const GHOST: usize = 9;

const fn place(interface: &'static str, v4: [u8; 4], v6: [u16; 8]) -> Place {
    let [a, b, c, d] = v4;
    let [e, f, g, h, i, j, k, l] = v6;
    Place { interface, v4: Ipv4Addr::new(a, b, c, d), v6: Ipv6Addr::new(e, f, g, h, i, j, k, l) }
}

const PLACES: [Place; 10] = [
    place("lo", [192, 168, 77, 1], [0xfd77, 0, 0, 0, 0, 0, 0, 1]),
    place("web", [10, 1, 0, 2], [0xfd01, 0, 0, 0, 0, 0, 0, 2]),
    place("api", [10, 1, 0, 3], [0xfd01, 0, 0, 0, 0, 0, 0, 3]),
    place("db", [10, 1, 0, 4], [0xfd01, 0, 0, 0, 0, 0, 0, 4]),
    place("client", [10, 1, 0, 5], [0xfd01, 0, 0, 0, 0, 0, 0, 5]),
    place("cache", [10, 2, 0, 2], [0xfd02, 0, 0, 0, 0, 0, 0, 2]),
    place("probe", [10, 2, 0, 3], [0xfd02, 0, 0, 0, 0, 0, 0, 3]),
    place("world", [192, 0, 2, 10], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 10]),
    place("other", [192, 0, 2, 200], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 200]),
    place("ghost", [10, 1, 0, 77], [0xfd01, 0, 0, 0, 0, 0, 0, 0x77]),
];

fn start() -> (Fabric, PolicyNode) {
    let fabric = Fabric::build(&PLACES).unwrap();
    let of = |p: Place| p.addresses().map(|address| (address, p.interface.to_owned()));
    let interfaces = PLACES[LOCAL].iter().flat_map(|p| of(*p)).collect();
    let node = PolicyNode::start("n1", objects(CLUSTER).unwrap(), interfaces).unwrap();
    (fabric, node)
}

/// Everything that crosses the node and starts or ends at one of its pods, as the oracle sees it.
fn questions(node: &PolicyNode) -> Vec<Probe> {
    let cluster = node.cluster();
    let services = TCP_PORTS.map(|p| (TCP, p)).into_iter().chain(UDP_PORTS.map(|p| (UDP, p)));
    let services: Vec<(u8, u16)> = services.collect();
    let mut probes = Vec::new();
    for (from, source) in PLACES.iter().enumerate() {
        for (to, place) in PLACES.iter().enumerate() {
            let ours = |index: usize| LOCAL.contains(&index) || index == GHOST;
            if from == to || !(ours(from) || ours(to)) {
                continue;
            }
            for destination in place.addresses() {
                let source = source.like(destination);
                for &(protocol, port) in &services {
                    let packet = Packet { source, destination, protocol, port };
                    let expected = cluster.judge(&packet, At::Node("n1")).allowed();
                    probes.push(Probe { from, source, destination, protocol, port, expected });
                }
            }
        }
    }
    probes
}

fn check(fabric: &Fabric, node: &mut PolicyNode, what: &str) -> Vec<Probe> {
    let probes = questions(node);
    let surprises = fabric.surprises(&probes).unwrap();
    if !surprises.is_empty() {
        let script = node.engine.script();
        panic!("{what}: {} of {}: {surprises:#?}\n{script}", surprises.len(), probes.len());
    }
    assert_eq!(node.reconcile().unwrap(), 0, "{what}: the kernel holds something else");
    probes
}

fn allowed(probes: &[Probe]) -> usize {
    probes.iter().filter(|p| p.expected).count()
}

/// One case: a name, and what happens one after the other.
struct Case {
    name: &'static str,
    steps: Vec<Step>,
}

enum Step {
    Apply(&'static str),
    Delete(Key),
}

/// `# case NAME` starts a case, `# then` another step of it; `# delete NAMESPACE/POLICY` is one.
fn cases() -> Vec<Case> {
    CASES
        .split("# case ")
        .skip(1)
        .map(|text| {
            let (name, body) = text.split_once('\n').unwrap();
            Case { name, steps: body.split("# then\n").map(step).collect() }
        })
        .collect()
}

fn step(text: &'static str) -> Step {
    match text.trim().strip_prefix("# delete ") {
        None => Step::Apply(text),
        Some(key) => {
            let (namespace, name) = key.trim().split_once('/').unwrap();
            Step::Delete(Key {
                kind: Kind::NetworkPolicy,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        }
    }
}

#[test]
fn real_connections_agree_with_the_oracle() {
    let (fabric, mut node) = start();
    let open = allowed(&check(&fabric, &mut node, "no policy"));
    let cases = cases();
    assert!(cases.len() >= 30, "only {} cases", cases.len());
    for Case { name, steps } in cases {
        let mut narrowed = false;
        for (index, step) in steps.into_iter().enumerate() {
            match step {
                Step::Apply(yaml) => node.apply(objects(yaml).unwrap()).unwrap(),
                Step::Delete(key) => node.delete(&key).unwrap(),
            }
            let probes = check(&fabric, &mut node, &format!("{name}, step {index}"));
            narrowed |= allowed(&probes) < open;
        }
        assert!(narrowed, "{name} denies nothing, so it shows nothing");
        for key in node.policies() {
            node.delete(&key).unwrap();
        }
        node.apply(objects(CLUSTER).unwrap()).unwrap();
    }
    assert_eq!(allowed(&check(&fabric, &mut node, "no policy any more")), open);
}

#[test]
fn a_pod_cannot_send_from_another_address() {
    let (fabric, mut node) = start();
    // Not a pod of the cluster, and a neighbour: neither may be taken on by the pod `web`.
    let api = PLACES[API];
    for stolen in api.addresses() {
        let world = PLACES[WORLD].like(stolen);
        let probe = |from, source, expected| Probe {
            from,
            source,
            destination: world,
            protocol: UDP,
            port: UDP_PORTS[0],
            expected,
        };
        let own = PLACES[WEB].like(stolen);
        assert_eq!(fabric.surprises(&[probe(WEB, own, true)]).unwrap(), []);
        assert!(fabric.has_heard(WORLD, own));
        fabric.add_address(WEB, stolen).unwrap();
        assert_eq!(fabric.surprises(&[probe(WEB, stolen, false)]).unwrap(), []);
        assert!(!fabric.has_heard(WORLD, stolen), "{stolen} got out");
        // Once `web` may have it, it gets out: it was our table that stopped it.
        let interface = PLACES[WEB].interface;
        node.interface(stolen, interface).unwrap();
        fabric.surprises(&[probe(WEB, stolen, false)]).unwrap();
        assert!(fabric.has_heard(WORLD, stolen), "{stolen} cannot get out at all");
    }
}

#[test]
fn probes_notice_a_hole_in_the_ruleset_and_a_rule_too_many() {
    let (fabric, mut node) = start();
    node.apply(objects(DENY_ALL).unwrap()).unwrap();
    let probes = questions(&node);
    let denied = probes.len() - allowed(&probes);
    nft_script("insert rule inet rampart forward meta l4proto udp accept").unwrap();
    let surprises = fabric.surprises(&probes).unwrap();
    assert!(surprises.iter().all(|p| p.protocol == UDP && !p.expected));
    assert!(surprises.len() > denied / 4, "{} of {denied}", surprises.len());
    node.reconcile().unwrap();
    nft_script(
        "table inet theirs { chain c { type filter hook output priority 0; tcp dport 443 drop; }; }",
    )
    .unwrap();
    let to_pods: Vec<Probe> =
        probes.into_iter().filter(|p| p.port == 443 && p.from == NODE && p.expected).collect();
    let short = [*to_pods.first().unwrap()];
    assert_eq!(fabric.surprises(&short).unwrap(), short);
}

#[test]
fn the_node_reaches_its_pods_whatever_their_policy() {
    let (fabric, mut node) = start();
    node.apply(objects(DENY_ALL).unwrap()).unwrap();
    let probes: Vec<Probe> =
        questions(&node).into_iter().filter(|p| p.from == NODE && !is_ghost(p)).collect();
    assert!(!probes.is_empty() && probes.iter().all(|p| p.expected));
    assert_eq!(fabric.surprises(&probes).unwrap(), []);
}

fn is_ghost(probe: &Probe) -> bool {
    PLACES[GHOST].addresses().contains(&probe.destination)
}

const DENY_ALL: &str = "
kind: NetworkPolicy
metadata: { name: deny, namespace: shop }
spec: { podSelector: {}, policyTypes: [Ingress, Egress] }
---
kind: NetworkPolicy
metadata: { name: deny, namespace: lab }
spec: { podSelector: {}, policyTypes: [Ingress, Egress] }
";

#[test]
fn damage_to_the_table_is_repaired_and_policy_holds_again() {
    let (fabric, mut node) = start();
    node.apply(objects(DENY_ALL).unwrap()).unwrap();
    let mut monitor = Monitor::open(node.writer.port()).unwrap();
    for damage in [
        "delete table inet rampart",
        "flush table inet rampart",
        "insert rule inet rampart forward accept",
        "flush set inet rampart pods4",
        "add table inet rampart { flags dormant; }",
        "add chain inet rampart theirs { type filter hook forward priority -10; policy drop; }",
    ] {
        nft_script(damage).unwrap();
        let drift = monitor.wait(Duration::from_secs(5)).unwrap();
        assert!(drift.is_some(), "{damage}");
        node.reconcile().unwrap();
        assert_eq!(node.reconcile().unwrap(), 0, "after {damage}");
    }
    check(&fabric, &mut node, "after the damage");
}

#[test]
fn the_compiled_text_and_the_kernel_agree_under_every_policy_at_once() {
    let (_fabric, mut node) = start();
    let renamed = |yaml: &str, n: usize| yaml.replace("name: p,", &format!("name: p{n},"));
    for (n, step) in cases().into_iter().flat_map(|case| case.steps).enumerate() {
        if let Step::Apply(yaml) = step {
            node.apply(objects(&renamed(yaml, n)).unwrap()).unwrap();
        }
    }
    let kernel = listing().unwrap();
    nft_script(&format!("delete table inet rampart\n{}", node.engine.script())).unwrap();
    assert_eq!(listing().unwrap(), kernel);
    assert_eq!(node.reconcile().unwrap(), 0, "what nft wrote is not recognised");
}

#[test]
fn a_restarted_agent_adopts_its_table_without_a_change() {
    let (_fabric, mut node) = start();
    for step in cases().into_iter().flat_map(|case| case.steps) {
        if let Step::Apply(yaml) = step {
            node.apply(objects(yaml).unwrap()).unwrap();
        }
    }
    assert!(node.engine.desired().chains.len() > 4, "only base chains: no test");
    let before = nft(&["-a", "list", "table", "inet", "rampart"]).unwrap();
    let watcher = Watcher::start().unwrap();
    let mut node = node.restart().unwrap();
    assert_eq!(watcher.finish().unwrap(), Vec::<String>::new());
    assert_eq!(nft(&["-a", "list", "table", "inet", "rampart"]).unwrap(), before);
    assert_eq!(node.reconcile().unwrap(), 0);
}

#[test]
fn places_have_distinct_addresses() {
    let mut all: Vec<IpAddr> = PLACES.iter().flat_map(Place::addresses).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 2 * PLACES.len());
}

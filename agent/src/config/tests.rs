use std::path::Path;
use std::sync::Arc;

use bgp::config::{PeerKind, Policy, PrefixMatch};
use bgp::types::Asn;

use super::*;
use crate::source::manifest::{self, Manifest};

mod consistency;

/// Feeds manifests; what is applied again replaces what was there.
fn feed(reconciler: &mut Reconciler, text: &str) {
    for manifest in manifest::read(&Arc::from(Path::new("/s/f.yaml")), text) {
        match manifest {
            Manifest::Good { object, origin } => {
                reconciler.handle(&Event::Apply(object, Some(origin)));
            }
            Manifest::Bad { faults, .. } => panic!("{faults:?}"),
        }
    }
}

fn node(name: &str, addresses: &[&str], cidrs: &[&str]) -> String {
    let addresses: Vec<String> =
        addresses.iter().map(|a| format!("{{type: InternalIP, address: '{a}'}}")).collect();
    let cidrs: Vec<String> = cidrs.iter().map(|c| format!("'{c}'")).collect();
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{rack: r-{name}}}}}\nspec: {{podCIDRs: [{}]}}\nstatus: {{addresses: [{}]}}\n",
        cidrs.join(", "),
        addresses.join(", ")
    )
}

fn peer(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: rampart.network/v1alpha1\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn configuration(spec: &str) -> String {
    format!(
        "---\napiVersion: rampart.network/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n"
    )
}

fn n1() -> String {
    node("n1", &["192.0.2.1", "2001:db8::1"], &["10.1.0.0/24", "fd00:1::/64"])
}

fn reconciler(text: &str) -> Reconciler {
    let mut reconciler = Reconciler::new("n1", "rampart-system");
    feed(&mut reconciler, &n1());
    feed(&mut reconciler, text);
    reconciler
}

fn clean(text: &str) -> Desired {
    let (desired, faults) = reconciler(text).desired(&[]);
    assert!(faults.is_empty(), "{faults:?}");
    desired.unwrap()
}

fn codes(faults: &[Fault]) -> Vec<(u16, String, &str)> {
    faults.iter().map(|f| (f.code.0, f.key.to_string(), f.field.as_str())).collect()
}

fn link(interface: &str, net: &str) -> LinkAddress {
    LinkAddress { interface: interface.to_owned(), net: net.parse().unwrap() }
}

#[test]
fn defaults_come_from_the_node() {
    let desired = clean("");
    assert_eq!(desired.config.asn, Asn(64512));
    assert_eq!(desired.listen_port, 179);
    assert_eq!(desired.config.router_id.to_string(), "192.0.2.1");
    assert_eq!(desired.config.cluster_id.to_string(), "192.0.2.1");
    assert_eq!(desired.config.hostname, "n1");
    let prefixes: Vec<String> = desired.prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.1.0.0/24", "fd00:1::/64"]);
    assert!(desired.config.peers.is_empty());
}

#[test]
fn without_our_node_there_is_no_configuration() {
    let mut reconciler = Reconciler::new("n9", "rampart-system");
    feed(&mut reconciler, &n1());
    assert_eq!(reconciler.desired(&[]), (None, vec![]));
}

#[test]
fn a_node_without_ipv4_gets_a_router_id_from_its_name() {
    let id = |name: &str| {
        let mut reconciler = Reconciler::new(name, "rampart-system");
        feed(&mut reconciler, &node(name, &["2001:db8::1"], &[]));
        reconciler.desired(&[]).0.unwrap().config.router_id
    };
    assert_eq!(id("a"), id("a"));
    assert_ne!(id("a"), id("b"));
    assert!(!id("a").0.is_unspecified());
}

#[test]
fn mesh_peers_may_announce_only_what_their_node_owns() {
    let other =
        node("n2", &["192.0.2.2", "2001:db8::2"], &["10.2.0.0/24", "10.99.0.0/24", "fd00:2::/64"]);
    let settings =
        configuration("clusterCIDRs: [10.0.0.0/10, 'fd00::/16'], listenPort: 1790, asn: 64513");
    let (desired, faults) = reconciler(&format!("{other}{settings}")).desired(&[]);
    let what = "BGPConfiguration default".to_owned();
    assert_eq!(codes(&faults), [(1022, what, "spec.clusterCIDRs")], "one is outside");
    let desired = desired.unwrap();
    let [peer] = desired.config.peers.as_slice() else { panic!("{desired:?}") };
    assert_eq!((peer.name.as_str(), peer.kind, peer.port), ("n2", PeerKind::Mesh, 1790));
    assert_eq!(peer.address.to_string(), "192.0.2.2");
    assert_eq!(peer.local_address.unwrap().to_string(), "192.0.2.1");
    assert_eq!(peer.asn, Asn(64513));
    assert_eq!(peer.next_hop_v4.unwrap().to_string(), "192.0.2.1");
    assert_eq!(peer.next_hop_v6.unwrap().to_string(), "2001:db8::1");
    let exactly = |text: &str, length| PrefixMatch {
        prefix: text.parse().unwrap(),
        min_length: length,
        max_length: length,
    };
    let import = vec![exactly("10.2.0.0/24", 24), exactly("fd00:2::/64", 64)];
    assert_eq!(peer.import, Policy::Accept(import), "10.99/24 is outside of the cluster");
    assert_eq!(peer.export, Policy::OwnOnly);
}

#[test]
fn the_mesh_uses_ipv6_where_one_side_has_no_ipv4() {
    let desired = clean(&node("n2", &["2001:db8::2"], &["fd00:2::/64"]));
    assert_eq!(desired.config.peers[0].address.to_string(), "2001:db8::2");
}

#[test]
fn peers_are_selected_by_node_labels() {
    let text = [
        peer("all", "peerAddress: 198.51.100.1, peerASN: 65001"),
        peer("ours", "peerAddress: 198.51.100.2, peerASN: 65001, nodeSelector: {matchLabels: {rack: r-n1}}"),
        peer("other", "peerAddress: 198.51.100.3, peerASN: 65001, nodeSelector: {matchLabels: {rack: r-n2}}"),
        peer("in", "peerAddress: 198.51.100.4, peerASN: 65001, nodeSelector: {matchExpressions: [{key: rack, operator: In, values: [r-n1, x]}]}"),
        peer("none", "peerAddress: 198.51.100.5, peerASN: 65001, nodeSelector: {matchExpressions: [{key: rack, operator: DoesNotExist}]}"),
    ]
    .concat();
    let names: Vec<String> = clean(&text).config.peers.into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["all", "ours", "in"]);
}

#[test]
fn policies_default_by_the_kind_of_session() {
    let text = [
        peer("a", "peerAddress: 198.51.100.1, peerASN: 65001"),
        peer("b", "peerAddress: 198.51.100.2, peerASN: 64512, routeReflectorClient: true"),
        peer("c", "peerAddress: 198.51.100.3, peerASN: 65001, import: [{prefix: 0.0.0.0/0}, {prefix: 10.0.0.0/8, maxLength: 24}], export: []"),
    ]
    .concat();
    let peers = clean(&text).config.peers;
    assert_eq!((&peers[0].import, &peers[0].export), (&Policy::OwnOnly, &Policy::OwnOnly));
    assert_eq!((&peers[1].import, &peers[1].export), (&Policy::All, &Policy::All));
    assert_eq!(peers[1].kind, PeerKind::Internal);
    let Policy::Accept(rules) = &peers[2].import else { panic!() };
    assert_eq!((rules[0].min_length, rules[0].max_length), (0, 0));
    assert_eq!((rules[1].min_length, rules[1].max_length), (8, 24));
    assert_eq!(peers[2].export, Policy::Accept(vec![]));
}

#[test]
fn peer_addresses_have_three_forms() {
    for (text, address, port) in [
        ("198.51.100.1", "198.51.100.1", 179),
        ("198.51.100.1:1790", "198.51.100.1", 1790),
        ("2001:db8::9", "2001:db8::9", 179),
        ("[2001:db8::9]", "2001:db8::9", 179),
        ("[2001:db8::9]:1790", "2001:db8::9", 1790),
    ] {
        let peer = clean(&peer("p", &format!("peerAddress: '{text}', peerASN: 65001")))
            .config
            .peers
            .remove(0);
        assert_eq!((peer.address.to_string().as_str(), peer.port), (address, port));
    }
}

#[test]
fn a_wrong_value_is_one_fault_with_field_and_line() {
    let cases = [
        ("peerAddress: tor, peerASN: 1", 1011, "spec.peerAddress"),
        ("peerAddress: '198.51.100.1:0', peerASN: 1", 1011, "spec.peerAddress"),
        ("peerAddress: '224.0.0.5', peerASN: 1", 1011, "spec.peerAddress"),
        ("peerAddress: 'fe80::1', peerASN: 1", 1011, "spec.peerAddress"),
        ("peerAddress: 198.51.100.1, peerASN: 0", 1011, "spec.peerASN"),
        ("peerAddress: 198.51.100.1, peerASN: 23456", 1011, "spec.peerASN"),
        ("peerAddress: 198.51.100.1, peerASN: 1, holdTimeSeconds: 2", 1011, "spec.holdTimeSeconds"),
        ("peerAddress: 198.51.100.1, peerASN: 1, ebgpMultihop: 0", 1011, "spec.ebgpMultihop"),
        (
            "peerAddress: 198.51.100.1, peerASN: 1, ebgpMultihop: 2, ttlSecurity: true",
            1011,
            "spec.ttlSecurity",
        ),
        ("peerAddress: 198.51.100.1, peerASN: 1, maxPrefixes: 0", 1011, "spec.maxPrefixes"),
        (
            "peerAddress: 198.51.100.1, peerASN: 1, import: [{prefix: 10.0.0.1/8}]",
            1005,
            "spec.import[0].prefix",
        ),
        (
            "peerAddress: 198.51.100.1, peerASN: 1, export: [{prefix: 10.0.0.0/8, minLength: 4}]",
            1011,
            "spec.export[0].minLength",
        ),
        (
            "peerAddress: 198.51.100.1, peerASN: 1, export: [{prefix: 10.0.0.0/8, maxLength: 33}]",
            1011,
            "spec.export[0].maxLength",
        ),
        (
            "peerAddress: 198.51.100.1, peerASN: 1, nodeSelector: {matchExpressions: [{key: a, operator: Is}]}",
            1007,
            "spec.nodeSelector.matchExpressions[0]",
        ),
        (
            "peerAddress: 198.51.100.1, peerASN: 1, routeReflectorClient: true",
            1011,
            "spec.routeReflectorClient",
        ),
        ("peerAddress: 192.0.2.1, peerASN: 1", 2113, "spec.peerAddress"),
        ("peerAddress: '127.0.0.1', peerASN: 1", 2113, "spec.peerAddress"),
    ];
    for (spec, code, field) in cases {
        let good = peer("good", "peerAddress: 198.51.100.9, peerASN: 65001");
        let (desired, faults) = reconciler(&format!("{}{good}", peer("bad", spec))).desired(&[]);
        assert_eq!(codes(&faults), [(code, "BGPPeer bad".to_owned(), field)], "{spec}");
        assert_eq!(faults[0].location.as_deref(), Some("/s/f.yaml:5"), "{spec}");
        let names: Vec<_> = desired.unwrap().config.peers.into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["good"], "{spec}");
    }
}

#[test]
fn wrong_settings_and_nodes_are_faults_too() {
    let cases = [
        (configuration("asn: 0"), 1011, "spec.asn"),
        (configuration("listenPort: 0"), 1011, "spec.listenPort"),
        (configuration("clusterCIDRs: [10.0.0.0/8, x]"), 1005, "spec.clusterCIDRs[1]"),
        (configuration("routerID: 0.0.0.0"), 1011, "spec.routerID"),
        (configuration("clusterID: x"), 1011, "spec.clusterID"),
        (node("n2", &["x"], &[]), 1010, "status.addresses[0].address"),
        (node("n2", &[], &["10.2.0.1/24"]), 1010, "spec.podCIDRs[0]"),
    ];
    for (text, code, field) in cases {
        let (desired, faults) = reconciler(&text).desired(&[]);
        assert_eq!((faults[0].code.0, faults[0].field.as_str()), (code, field));
        assert!(desired.is_some());
    }
}

#[test]
fn the_last_good_version_stays_in_force() {
    let mut reconciler = reconciler(&peer("p", "peerAddress: 198.51.100.1, peerASN: 65001"));
    feed(&mut reconciler, &configuration("asn: 64600"));
    reconciler.desired(&[]);
    for (bad, code) in [
        ("peerAddress: nonsense, peerASN: 65001", 1011),
        ("peerAddress: 192.0.2.1, peerASN: 65001", 2113),
    ] {
        feed(&mut reconciler, &peer("p", bad));
        feed(&mut reconciler, &configuration("asn: 0"));
        let (desired, faults) = reconciler.desired(&[]);
        let desired = desired.unwrap();
        assert_eq!(desired.config.asn, Asn(64600));
        assert_eq!(desired.config.peers[0].address.to_string(), "198.51.100.1", "{bad}");
        assert_eq!(
            faults.iter().filter(|f| f.code.0 == code).count(),
            if code == 1011 { 2 } else { 1 }
        );
        assert!(faults.iter().all(|f| f.next.contains("last good version")), "{faults:?}");
    }
    reconciler.handle(&Event::Delete(Key {
        kind: Kind::BgpPeer,
        namespace: String::new(),
        name: "p".into(),
    }));
    assert!(reconciler.desired(&[]).0.unwrap().config.peers.is_empty());
}

#[test]
fn graceful_restart_is_as_the_cluster_has_it_unless_a_peer_says_otherwise() {
    let text = format!(
        "{}{}{}{}",
        node("n2", &["192.0.2.2"], &["10.2.0.0/24"]),
        configuration("gracefulRestart: {restartTimeSeconds: 60}"),
        peer("a", "peerAddress: 198.51.100.1, peerASN: 65001"),
        peer(
            "b",
            "peerAddress: '2001:db8:f::1', peerASN: 65001, gracefulRestart: {enabled: false}"
        ),
    );
    let peers = clean(&text).config.peers;
    let times: Vec<(&str, Option<u64>)> = peers
        .iter()
        .map(|p| (p.name.as_str(), p.graceful_restart.map(|gr| gr.restart_time.as_secs())))
        .collect();
    assert_eq!(times, [("n2", Some(60)), ("a", Some(60)), ("b", None)]);
}

#[test]
fn two_nodes_with_one_address_leave_it_to_the_first() {
    let text = format!(
        "{}{}",
        node("n2", &["192.0.2.2"], &["10.2.0.0/24"]),
        node("n3", &["192.0.2.2"], &["10.2.0.0/23"])
    );
    let (desired, faults) = reconciler(&text).desired(&[]);
    assert_eq!(
        codes(&faults),
        [
            (1008, "Node n3".to_owned(), "status.addresses"),
            (1008, "Node n3".to_owned(), "spec.podCIDRs")
        ]
    );
    let names: Vec<_> = desired.unwrap().config.peers.into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["n2"]);
}

#[test]
fn a_node_that_claims_our_address_is_no_peer() {
    let (desired, faults) = reconciler(&node("n0", &["192.0.2.1"], &[])).desired(&[]);
    assert_eq!(codes(&faults), [(1008, "Node n1".to_owned(), "status.addresses")]);
    assert!(desired.unwrap().config.peers.is_empty());
}

#[test]
fn two_peers_with_one_address_leave_it_to_the_first_by_name() {
    let text = format!(
        "{}{}",
        peer("b", "peerAddress: 198.51.100.1, peerASN: 65002"),
        peer("a", "peerAddress: '198.51.100.1:1790', peerASN: 65001")
    );
    let (desired, faults) = reconciler(&text).desired(&[]);
    assert_eq!(codes(&faults), [(1008, "BGPPeer b".to_owned(), "spec.peerAddress")]);
    assert_eq!(desired.unwrap().config.peers[0].asn, Asn(65001));
}

#[test]
fn a_new_peer_takes_no_address_from_an_older_one() {
    let of_year = |name: &str, year: &str, spec: &str| {
        let created =
            format!("metadata: {{name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z'}}");
        peer(name, spec).replace(&format!("metadata: {{name: {name}}}"), &created)
    };
    for address in ["198.51.100.1", "2001:db8:9::1"] {
        let old = of_year("tor", "2025", &format!("peerAddress: '{address}', peerASN: 65001"));
        let new = of_year("aaa", "2026", &format!("peerAddress: '{address}', peerASN: 65002"));
        for text in [format!("{old}{new}"), format!("{new}{old}")] {
            let (desired, faults) = reconciler(&text).desired(&[]);
            assert_eq!(codes(&faults), [(1008, "BGPPeer aaa".to_owned(), "spec.peerAddress")]);
            assert!(faults[0].next.contains("the older one"), "{faults:?}");
            assert_eq!(desired.unwrap().config.peers[0].asn, Asn(65001));
        }
    }
}

#[test]
fn the_other_familys_next_hop_is_on_the_link_that_faces_the_tor() {
    let links = [
        link("lo", "127.0.0.1/8"),
        link("up0", "203.0.113.2/24"),
        link("up0", "fe80::2/64"),
        link("up0", "2001:db8:99::2/64"),
        link("up1", "203.0.114.2/24"),
    ];
    let text = [
        peer("a", "peerAddress: 203.0.113.1, peerASN: 65001"),
        peer("b", "peerAddress: 203.0.114.1, peerASN: 65001"),
        peer("c", "peerAddress: '2001:db8:99::1', peerASN: 65001"),
    ]
    .concat();
    let (desired, faults) = reconciler(&text).desired(&links);
    assert!(faults.is_empty(), "{faults:?}");
    let hops: Vec<_> = desired
        .unwrap()
        .config
        .peers
        .iter()
        .map(|p| {
            (
                p.name.clone(),
                p.next_hop_v4.map(|a| a.to_string()),
                p.next_hop_v6.map(|a| a.to_string()),
            )
        })
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        hops,
        [
            ("a".to_owned(), None, some("2001:db8:99::2")),
            ("b".to_owned(), None, some("2001:db8::1")),
            ("c".to_owned(), some("203.0.113.2"), None),
        ]
    );
}

#[test]
fn a_relist_drops_what_it_does_not_name() {
    let mut reconciler = reconciler(&peer("p", "peerAddress: 198.51.100.1, peerASN: 65001"));
    reconciler.handle(&Event::RelistBegin(Kind::BgpPeer));
    feed(&mut reconciler, &peer("q", "peerAddress: 198.51.100.2, peerASN: 65001"));
    reconciler.handle(&Event::RelistEnd(Kind::BgpPeer));
    let names: Vec<_> =
        reconciler.desired(&[]).0.unwrap().config.peers.into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["q"]);
}

fn reflector_pod(name: &str, namespace: &str, spec: &str, addresses: &[&str]) -> String {
    let ips: Vec<String> = addresses.iter().map(|a| format!("{{ip: '{a}'}}")).collect();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app.kubernetes.io/component: route-reflector}}}}\nspec: {{{spec}containers: [{{name: c}}]}}\nstatus: {{phase: Running, podIP: '{}', podIPs: [{}]}}\n",
        addresses[0],
        ips.join(", ")
    )
}

fn network_configuration(spec: &str) -> String {
    format!(
        "---\napiVersion: rampart.network/v1alpha1\nkind: NetworkConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn pods_of_the_reflector_deployment_are_peers_beside_the_agent_of_their_node() {
    let text = [
        node("n2", &["192.0.2.2", "2001:db8::2"], &["10.2.0.0/24", "fd00:2::/64"]),
        reflector_pod(
            "rr-a",
            "rampart-system",
            "hostNetwork: true, ",
            &["192.0.2.1", "2001:db8::1"],
        ),
        reflector_pod(
            "rr-b",
            "rampart-system",
            "hostNetwork: true, ",
            &["2001:db8::2", "192.0.2.2"],
        ),
        reflector_pod("elsewhere", "shop", "hostNetwork: true, ", &["192.0.2.2"]),
        reflector_pod("not-host", "rampart-system", "", &["10.2.0.9"]),
        reflector_pod("no-node", "rampart-system", "hostNetwork: true, ", &["192.0.2.77"]),
    ]
    .concat();
    let desired = clean(&text);
    let endpoints: Vec<String> = desired.reflectors.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["192.0.2.1:1790", "192.0.2.2:1790"]);
    let peers: Vec<(String, PeerKind, bool)> = desired
        .config
        .peers
        .iter()
        .map(|peer| (peer.endpoint().to_string(), peer.kind, peer.dial_only))
        .collect();
    let expected = [
        ("192.0.2.1:1790".to_owned(), PeerKind::Reflector, true),
        ("192.0.2.2:179".to_owned(), PeerKind::Mesh, false),
        ("192.0.2.2:1790".to_owned(), PeerKind::Reflector, true),
    ];
    assert_eq!(peers, expected, "one on our own node, and two speakers at n2");
    assert!(desired.config.peers.iter().all(|peer| peer.export == Policy::OwnOnly));
}

#[test]
fn a_reflector_pod_that_goes_or_ends_is_no_peer_any_more() {
    let pod = reflector_pod("rr", "rampart-system", "hostNetwork: true, ", &["192.0.2.1"]);
    let mut reconciler = reconciler(&pod);
    let count = |r: &mut Reconciler| r.desired(&[]).0.unwrap().reflectors.len();
    assert_eq!(count(&mut reconciler), 1);
    feed(&mut reconciler, &pod.replace("Running", "Failed"));
    assert_eq!(count(&mut reconciler), 0);
    feed(&mut reconciler, &pod);
    let key = |namespace: &str| Key {
        kind: Kind::Pod,
        namespace: namespace.to_owned(),
        name: "rr".to_owned(),
    };
    assert!(!reconciler.handle(&Event::Delete(key("shop"))), "another pod of that name");
    assert!(reconciler.handle(&Event::Delete(key("rampart-system"))));
    assert_eq!(count(&mut reconciler), 0);
}

#[test]
fn clients_of_a_reflector_may_announce_only_what_their_node_owns_and_never_be_dialled() {
    let text = [
        node("n2", &["192.0.2.2"], &["10.2.0.0/24", "10.99.0.0/24"]),
        node("n3", &["2001:db8::3"], &["fd00:3::/64"]),
        configuration("clusterCIDRs: [10.0.0.0/10, 'fd00::/16'], asn: 64600"),
    ]
    .concat();
    let (plan, faults) = reconciler(&text).reflector();
    let what = "BGPConfiguration default".to_owned();
    assert_eq!(codes(&faults), [(1022, what, "spec.clusterCIDRs")], "one is outside");
    let config = plan.unwrap().config;
    assert_eq!(config.asn, Asn(64600));
    assert_ne!(config.router_id.to_string(), "192.0.2.1", "that is the agent's");
    assert_eq!(config.cluster_id, config.router_id.0);
    let names: Vec<&str> = config.peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    assert!(config.peers.iter().all(|p| p.passive && p.route_reflector_client && !p.standby));
    let exactly = |text: &str, length| PrefixMatch {
        prefix: text.parse().unwrap(),
        min_length: length,
        max_length: length,
    };
    assert_eq!(config.peers[1].import, Policy::Accept(vec![exactly("10.2.0.0/24", 24)]));
    assert_eq!(config.peers[2].import, Policy::Accept(vec![exactly("fd00:3::/64", 64)]));
}

#[test]
fn a_network_configuration_is_checked_field_by_field_and_the_last_good_one_stays() {
    let mut reconciler = reconciler(&network_configuration(
        "pools: [{cidr: 10.0.0.0/8}, {cidr: 'fd00::/16', natOutgoing: Enabled}], overlay: {mode: VXLANCrossSubnet}, mtu: 1400",
    ));
    let good = reconciler.desired(&[]).0.unwrap().network;
    let overlay = OverlaySettings { always: false, vni: 4179, port: 4789 };
    assert_eq!((good.overlay, good.mtu, good.pools.len()), (Some(overlay), Some(1400), 2));
    feed(
        &mut reconciler,
        &network_configuration(
            "pools: [{cidr: 10.0.0.0/8}, {cidr: 10.1.0.0/16}, {cidr: 10.1.0.1/8}], overlay: {mode: VXLANAlways, vni: 16777216, port: 0}, mtu: 1000",
        ),
    );
    let (desired, faults) = reconciler.desired(&[]);
    let what = "NetworkConfiguration default".to_owned();
    let expected = [
        (1020, what.clone(), "spec.pools[1].cidr"),
        (1005, what.clone(), "spec.pools[2].cidr"),
        (1020, what.clone(), "spec.overlay.vni"),
        (1020, what.clone(), "spec.overlay.port"),
        (1020, what, "spec.mtu"),
    ];
    assert_eq!(codes(&faults), expected);
    assert_eq!(desired.unwrap().network, good);
}

#[test]
fn the_overlay_is_for_nodes_that_are_not_on_a_link_of_ours_or_for_all() {
    let others = [
        node("near", &["192.0.2.2", "2001:db8::2"], &["10.2.0.0/24"]),
        node("far", &["198.51.100.3", "2001:db8:9::3"], &["10.3.0.0/24", "fd00:3::/64"]),
        node("v6-only", &["2001:db8:9::4"], &["fd00:4::/64"]),
    ]
    .concat();
    let links = [link("up0", "192.0.2.1/24"), link("up0", "2001:db8::1/64")];
    let with = |mode: &str| {
        let text =
            format!("{others}{}", network_configuration(&format!("overlay: {{mode: {mode}}}")));
        reconciler(&text).desired(&links)
    };
    let (desired, faults) = with("VXLANCrossSubnet");
    let plan = desired.unwrap().overlay.unwrap();
    assert_eq!(plan.remotes.keys().collect::<Vec<_>>(), ["far"]);
    assert_eq!(plan.remotes["far"].vtep.to_string(), "198.51.100.3");
    assert_eq!(plan.remotes["far"].next_hops.len(), 2, "both families go through it");
    assert_eq!(plan.senders.len(), 2, "nobody but nodes, in the family of the underlay");
    assert_eq!(codes(&faults), [(3006, "Node v6-only".to_owned(), "status.addresses")]);
    let (desired, _) = with("VXLANAlways");
    let plan = desired.unwrap().overlay.unwrap();
    assert_eq!(plan.remotes.keys().collect::<Vec<_>>(), ["far", "near"]);
    assert_eq!(with("None").0.unwrap().overlay, None);
}

#[test]
fn nodes_behind_a_router_that_nobody_tells_about_pods_are_one_clear_fault() {
    let others = [
        node("far", &["198.51.100.3"], &["10.3.0.0/24"]),
        node("farther", &["198.51.100.4"], &["10.4.0.0/24"]),
    ]
    .concat();
    let links = [link("up0", "192.0.2.1/24")];
    let faults = reconciler(&others).desired(&links).1;
    assert_eq!(codes(&faults), [(3005, "Node n1".to_owned(), "status.addresses")]);
    assert!(faults[0].message.contains("far, farther"), "{}", faults[0].message);
    let tor = peer("tor", "peerAddress: 192.0.2.254, peerASN: 65001");
    assert!(reconciler(&format!("{others}{tor}")).desired(&links).1.is_empty());
}

#[test]
fn a_node_without_pod_cidr_is_told_and_peers_all_the_same() {
    let mut reconciler = Reconciler::new("n1", "rampart-system");
    feed(&mut reconciler, &node("n1", &["192.0.2.1"], &[]));
    feed(&mut reconciler, &node("n2", &["192.0.2.2"], &["10.2.0.0/24"]));
    let (desired, faults) = reconciler.desired(&[]);
    assert_eq!(codes(&faults), [(3020, "Node n1".to_owned(), "spec.podCIDRs")]);
    assert!(faults[0].next.contains("controller-manager"), "{}", faults[0].next);
    let desired = desired.unwrap();
    assert_eq!((desired.config.peers.len(), desired.prefixes.len()), (1, 0));
}

//! Objects that are valid each, and cannot be meant as they are among the others.

use super::*;

#[test]
fn a_cluster_without_mesh_peers_and_reflectors_is_told_once_there_is_more_than_one_node() {
    let off = configuration("nodeMesh: false");
    assert!(clean(&off).config.peers.is_empty(), "a node that is alone needs nobody");
    let two = format!("{}{off}", node("n2", &["192.0.2.2"], &[]));
    let (desired, faults) = reconciler(&two).desired(&[]);
    assert!(desired.unwrap().config.peers.is_empty());
    let what = "BGPConfiguration default".to_owned();
    assert_eq!(codes(&faults), [(2121, what, "spec.nodeMesh")]);
    let rack = "nodeSelector: {matchLabels: {rack: r-n2}}";
    let other = peer("tor", &format!("peerAddress: 198.51.100.1, peerASN: 65001, {rack}"));
    let (_, faults) = reconciler(&format!("{two}{other}")).desired(&[]);
    assert_eq!(codes(&faults), [(2121, "Node n1".to_owned(), "spec.nodeMesh")], "this one only");
    let ours = peer("tor", "peerAddress: '2001:db8:9::1', peerASN: 65001");
    assert_eq!(clean(&format!("{two}{ours}")).config.peers.len(), 1);
    let pod = reflector_pod("rr", "rampart-system", "hostNetwork: true, ", &["192.0.2.2"]);
    assert_eq!(clean(&format!("{two}{pod}")).reflectors.len(), 1);
}

#[test]
fn cluster_cidrs_that_cover_no_pod_cidr_of_a_family_are_not_applied_to_it() {
    let other = node("n2", &["192.0.2.2"], &["10.2.0.0/24", "fd00:2::/64"]);
    let imports = |cidrs: &str| {
        let text = format!("{other}{}", configuration(&format!("clusterCIDRs: [{cidrs}]")));
        let mut reconciler = reconciler(&text);
        let (desired, faults) = reconciler.desired(&[]);
        let (plan, _) = reconciler.reflector();
        let words = |config: &bgp::config::Config| match &config.peers.last().unwrap().import {
            Policy::Accept(list) => list.iter().map(|one| one.prefix.to_string()).collect(),
            other => vec![format!("{other:?}")],
        };
        let desired: Vec<String> = words(&desired.unwrap().config);
        assert_eq!(desired, words(&plan.unwrap().config), "the reflector does the same");
        let messages: Vec<String> = faults.iter().map(ToString::to_string).collect();
        (desired, messages.join("\n"))
    };
    let both = ["10.2.0.0/24", "fd00:2::/64"];
    assert_eq!(
        imports("10.0.0.0/8, 'fd00::/16'"),
        (both.map(str::to_owned).to_vec(), String::new())
    );
    let (accepted, told) = imports("10.224.0.0/16, 'fd00::/16'");
    assert_eq!(accepted, both, "what admits nothing was not meant");
    assert!(told.contains("no IPv4 pod CIDR of any Node is inside"), "{told}");
    let (accepted, told) = imports("10.2.0.0/16, 'fd00::/16'");
    assert_eq!(accepted, both);
    assert!(told.contains("the IPv4 pod CIDRs of Node n1 are outside"), "{told}");
    let (accepted, told) = imports("10.1.0.0/16, 'fd00::/16'");
    assert_eq!(accepted, ["fd00:2::/64"], "some are inside: it means what it says");
    assert!(told.contains("the IPv4 pod CIDRs of Node n2 are outside"), "{told}");
    let (accepted, told) = imports("10.0.0.0/8");
    assert_eq!(accepted, ["10.2.0.0/24"], "a family that is not named is left out");
    assert!(
        told.contains("there is no IPv6 CIDR in it: the IPv6 pod CIDRs of Node n1, n2"),
        "{told}"
    );
}

#[test]
fn pools_that_cover_no_pod_cidr_or_a_part_of_one_are_told_one_by_one() {
    let other = node("n2", &["192.0.2.2"], &["10.2.0.0/24", "fd00:2::/64"]);
    let pools = "pools: [{cidr: 10.244.0.0/16}, {cidr: 10.0.0.0/14}, {cidr: 'fd00:2::/65'}, {cidr: 'fd99::/48'}]";
    let (desired, faults) =
        reconciler(&format!("{other}{}", network_configuration(pools))).desired(&[]);
    assert_eq!(desired.unwrap().network.pools.len(), 4, "they stay as they are written");
    let what = || "NetworkConfiguration default".to_owned();
    let expected = [0, 2, 3].map(|index| (1022, what(), format!("spec.pools[{index}].cidr")));
    let told: Vec<_> =
        faults.iter().map(|f| (f.code.0, f.key.to_string(), f.field.clone())).collect();
    assert_eq!(told, expected);
    assert!(faults[1].message.contains("only a part of the pod CIDR fd00:2::/64 of Node n2"));
}

#[test]
fn a_peer_at_the_address_of_a_mesh_node_is_refused_and_the_mesh_session_stays() {
    let n2 = node("n2", &["192.0.2.2", "2001:db8::2"], &[]);
    let elsewhere = "nodeSelector: {matchLabels: {rack: r-n2}}";
    for spec in [
        "peerAddress: 192.0.2.2, peerASN: 64512".to_owned(),
        "peerAddress: 192.0.2.2, peerASN: 65001".to_owned(),
        "peerAddress: '2001:db8::2', peerASN: 64512".to_owned(),
        "peerAddress: '192.0.2.2:1790', peerASN: 64512, passive: true".to_owned(),
        // The mesh has no password, and the kernel one for each address.
        "peerAddress: '192.0.2.2:1790', peerASN: 65001, passwordSecretRef: {name: s, key: k}"
            .to_owned(),
        format!("peerAddress: 192.0.2.2, peerASN: 64512, {elsewhere}"),
        // Whoever is asked says the same.
        "peerAddress: 192.0.2.1, peerASN: 64512".to_owned(),
    ] {
        let (desired, faults) = reconciler(&format!("{n2}{}", peer("rr", &spec))).desired(&[]);
        let what = "BGPPeer rr".to_owned();
        assert_eq!(codes(&faults), [(2120, what, "spec.peerAddress")], "{spec}");
        assert!(faults[0].next.contains("The session of the mesh stays"), "{faults:?}");
        let peers = desired.unwrap().config.peers;
        let peers: Vec<_> = peers.iter().map(|p| (p.name.as_str(), p.kind)).collect();
        assert_eq!(peers, [("n2", PeerKind::Mesh)], "{spec}");
    }
}

#[test]
fn without_the_mesh_and_at_another_port_a_node_may_be_an_explicit_peer() {
    let n2 = node("n2", &["192.0.2.2"], &[]);
    let rr = peer("rr", "peerAddress: 192.0.2.2, peerASN: 64512");
    let peers = clean(&[&n2, &rr, &configuration("nodeMesh: false")].map(String::as_str).concat());
    let [rr] = peers.config.peers.as_slice() else { panic!("{peers:?}") };
    assert_eq!((rr.name.as_str(), rr.kind, rr.dial_only), ("rr", PeerKind::Internal, false));
    assert_eq!(rr.local_address.unwrap().to_string(), "192.0.2.1");
    let bird = peer("bird", "peerAddress: '192.0.2.2:1790', peerASN: 65001");
    let peers = clean(&format!("{n2}{bird}")).config.peers;
    let found: Vec<_> = peers.iter().map(|p| (p.name.as_str(), p.port, p.dial_only)).collect();
    assert_eq!(found, [("n2", 179, false), ("bird", 1790, true)]);
}

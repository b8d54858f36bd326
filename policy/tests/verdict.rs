//! The oracle's explanations. That its verdicts are right is for `semantics` to show.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use policy::Direction;
use policy::verdict::{At, Cluster, Judgement, Name, Packet, Reason, RuleRef};
use support::cluster::objects;

const CLUSTER: &str = "
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.1.0.0/24, 'fd00:1::/64']}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: Hostname, address: n1}]}
---
kind: Node
metadata: {name: n2}
spec: {podCIDRs: [10.2.0.0/24, 'fd00:2::/64']}
---
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {podIPs: [{ip: 10.1.0.1}, {ip: 'fd00:1::1'}]}
---
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
spec: {nodeName: n2, containers: [{name: c}]}
status: {podIPs: [{ip: 10.2.0.1}, {ip: 'fd00:2::1'}]}
---
kind: NetworkPolicy
metadata: {name: b-deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
kind: NetworkPolicy
metadata: {name: c-web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - ports: [{port: 99999}]
  - from: [{podSelector: {matchLabels: {app: other}}}]
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 80}]
";

fn judge(source: &str, destination: &str, port: u16, at: At<'_>) -> Judgement {
    let cluster: Cluster = objects(CLUSTER).into_iter().collect();
    let (source, destination) =
        (source.parse().expect("address"), destination.parse().expect("address"));
    cluster.judge(&Packet { source, destination, protocol: 6, port }, at)
}

fn policy(name: &str) -> Name {
    Name { namespace: "shop".to_owned(), name: name.to_owned() }
}

#[test]
fn an_admitted_packet_names_its_rule_and_who_isolates() {
    for (source, destination) in [("10.1.0.1", "10.2.0.1"), ("fd00:1::1", "fd00:2::1")] {
        let judgement = judge(source, destination, 80, At::EveryNode);
        assert_eq!(judgement.reason, Reason::Admitted);
        assert!(judgement.allowed());
        let egress = judgement.egress.expect("web sends");
        assert_eq!((egress.pod, egress.isolated_by), (policy("web"), Vec::new()));
        let ingress = judgement.ingress.expect("api gets");
        assert_eq!(ingress.isolated_by, [policy("b-deny"), policy("c-web")]);
        assert_eq!(ingress.allowed_by, Some(RuleRef { policy: policy("c-web"), rule: 2 }));
        assert_eq!(ingress.unreadable, [RuleRef { policy: policy("c-web"), rule: 0 }]);
    }
}

#[test]
fn a_denied_packet_names_the_direction() {
    let judgement = judge("10.1.0.1", "10.2.0.1", 81, At::EveryNode);
    assert_eq!(judgement.reason, Reason::Denied(Direction::Ingress));
    assert!(!judgement.allowed());
    assert_eq!(judgement.ingress.expect("api").allowed_by, None);
}

#[test]
fn each_node_answers_for_its_own_pods() {
    let at_source = judge("10.1.0.1", "10.2.0.1", 81, At::Node("n1"));
    assert!(at_source.allowed() && at_source.ingress.is_none());
    let at_target = judge("10.1.0.1", "10.2.0.1", 81, At::Node("n2"));
    assert!(!at_target.allowed() && at_target.egress.is_none());
}

#[test]
fn nodes_reach_their_own_pods_and_nobody_reaches_addresses_without_a_pod() {
    let from_node = judge("192.168.0.1", "10.1.0.1", 81, At::EveryNode);
    assert_eq!(from_node.reason, Reason::FromNode);
    let elsewhere = judge("192.168.0.1", "10.2.0.1", 81, At::EveryNode);
    assert_eq!(elsewhere.reason, Reason::Denied(Direction::Ingress), "of another node");
    let unknown = judge("10.1.0.1", "fd00:2::9", 81, At::EveryNode);
    assert_eq!(unknown.reason, Reason::UnknownAddress("fd00:2::9".parse().expect("address")));
}

#[test]
fn a_pod_always_reaches_itself() {
    let own = judge("10.2.0.1", "10.2.0.1", 81, At::EveryNode);
    assert!(own.allowed() && own.ingress.expect("api").itself);
}

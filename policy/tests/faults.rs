//! Bad input: each fault has its field path and reason, and disturbs nothing else.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use policy::event::{Event, Kind};
use policy::fault::{Fault, Reason};
use support::cluster::{Node1, object};
use support::walker::{self, Packet, TCP};

const WEB: &str = "
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {podIPs: [{ip: 10.1.0.1}, {ip: 'fd00:1::1'}]}
";

fn policy(spec: &str) -> String {
    format!("kind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n")
}

fn faults(yaml: &str) -> Vec<(String, Reason)> {
    let mut node = Node1::new("n1");
    let faults = node.apply(yaml);
    assert_eq!(faults, node.engine.faults(), "what is returned is listed");
    for fault in &faults {
        assert!(!fault.message.is_empty());
    }
    faults.into_iter().map(|fault| (fault.field, fault.reason)).collect()
}

fn one_fault(yaml: &str, field: &str, reason: Reason) {
    assert_eq!(faults(yaml), [(field.to_owned(), reason)], "{yaml}");
}

fn reaches(node: &Node1, source: &str, port: u16) -> bool {
    let targets = ["10.1.0.1", "fd00:1::1"].map(|text| text.parse().expect("address"));
    let source: std::net::IpAddr = source.parse().expect("address");
    let target = if source.is_ipv4() { targets[0] } else { targets[1] };
    walker::admitted(node.table(), &[], &Packet::new(source, target, TCP, port))
}

#[test]
fn peers_with_faults_name_their_field() {
    let rule = |peer: &str| {
        policy(&format!(
            "{{podSelector: {{}}, ingress: [{{}}, {{from: [{{podSelector: {{}}}}, {peer}]}}]}}"
        ))
    };
    for (peer, field, reason) in [
        ("{ipBlock: {cidr: 10.0.0.0/33}}", "ipBlock.cidr", Reason::InvalidCidr),
        ("{ipBlock: {cidr: 10.0.0.1}}", "ipBlock.cidr", Reason::InvalidCidr),
        ("{ipBlock: {cidr: 'fd00::/129'}}", "ipBlock.cidr", Reason::InvalidCidr),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, x]}}",
            "ipBlock.except[1]",
            Reason::InvalidCidr,
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}",
            "ipBlock.except[0]",
            Reason::ExceptOutsideCidr,
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/16']}}",
            "ipBlock.except[0]",
            Reason::ExceptOutsideCidr,
        ),
        (
            "{ipBlock: {cidr: 10.1.0.0/16, except: [10.0.0.0/8]}}",
            "ipBlock.except[0]",
            Reason::ExceptOutsideCidr,
        ),
        ("{}", "", Reason::EmptyPeer),
        ("{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}", "", Reason::MixedPeer),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: Like}]}}",
            "podSelector.matchExpressions[0].operator",
            Reason::InvalidOperator,
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: In}]}}",
            "podSelector.matchExpressions[0].values",
            Reason::InvalidSelectorValues,
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
            "podSelector.matchExpressions[0].values",
            Reason::InvalidSelectorValues,
        ),
        (
            "{namespaceSelector: {matchExpressions: [{key: -a, operator: Exists}]}}",
            "namespaceSelector.matchExpressions[0].key",
            Reason::InvalidLabelKey,
        ),
        (
            "{namespaceSelector: {matchLabels: {a/b/c: d}}}",
            "namespaceSelector.matchLabels[\"a/b/c\"]",
            Reason::InvalidLabelKey,
        ),
        (
            "{podSelector: {matchLabels: {a: 'b c'}}}",
            "podSelector.matchLabels[\"a\"]",
            Reason::InvalidLabelValue,
        ),
    ] {
        let dot = if field.is_empty() { "" } else { "." };
        one_fault(&rule(peer), &format!("spec.ingress[1].from[1]{dot}{field}"), reason);
    }
}

#[test]
fn ports_with_faults_name_their_field() {
    for (port, field, reason) in [
        ("{port: 0}", "port", Reason::InvalidPort),
        ("{port: 65536}", "port", Reason::InvalidPort),
        ("{port: -1}", "port", Reason::InvalidPort),
        ("{port: 80, endPort: 70000}", "endPort", Reason::InvalidPort),
        ("{port: 80, endPort: 79}", "endPort", Reason::InvalidPortRange),
        ("{endPort: 79}", "endPort", Reason::InvalidPortRange),
        ("{port: http, endPort: 79}", "endPort", Reason::InvalidPortRange),
        ("{port: '80'}", "port", Reason::InvalidPortName),
        ("{port: HTTP}", "port", Reason::InvalidPortName),
        ("{port: a--b}", "port", Reason::InvalidPortName),
        ("{port: a-name-too-long-}", "port", Reason::InvalidPortName),
        ("{protocol: ICMP}", "protocol", Reason::InvalidProtocol),
        ("{protocol: tcp, port: 80}", "protocol", Reason::InvalidProtocol),
    ] {
        let yaml = policy(&format!(
            "{{podSelector: {{}}, policyTypes: [Egress], egress: [{{ports: [{port}]}}]}}"
        ));
        one_fault(&yaml, &format!("spec.egress[0].ports[0].{field}"), reason);
    }
}

#[test]
fn faults_of_subjects_types_pods_and_nodes() {
    one_fault(
        &policy("{podSelector: {matchLabels: {'': x}}}"),
        "spec.podSelector.matchLabels[\"\"]",
        Reason::InvalidLabelKey,
    );
    one_fault(
        &policy("{podSelector: {}, policyTypes: [Ingress, Outgress]}"),
        "spec.policyTypes[1]",
        Reason::InvalidPolicyType,
    );
    let pod = |status: &str| {
        format!(
            "kind: Pod\nmetadata: {{name: p, namespace: a}}\nspec: {{containers: [{{name: c, ports: [{{name: x, containerPort: 1}}]}}]}}\nstatus: {status}\n"
        )
    };
    for bad in
        ["10.1.0.256", "0.0.0.0", "127.0.0.1", "::1", "ff02::1", "::ffff:10.0.0.1", "10.0.0.1/32"]
    {
        one_fault(
            &pod(&format!("{{podIPs: [{{ip: 10.1.0.1}}, {{ip: '{bad}'}}]}}")),
            "status.podIPs[1].ip",
            Reason::InvalidAddress,
        );
    }
    one_fault(&pod("{podIP: nonsense}"), "status.podIP", Reason::InvalidAddress);
    one_fault(
        "kind: Pod\nmetadata: {name: p, namespace: a}\nspec: {containers: [{name: c}, {name: d, ports: [{name: x, containerPort: 0}]}]}\n",
        "spec.containers[1].ports[0].containerPort",
        Reason::InvalidPort,
    );
    one_fault(
        "kind: Node\nmetadata: {name: n1}\nspec: {podCIDRs: [10.1.0.0/24, x]}\n",
        "spec.podCIDRs[1]",
        Reason::InvalidCidr,
    );
}

#[test]
fn nameless_objects_are_refused() {
    let mut node = Node1::new("n1");
    let faults = node.engine.handle(Event::Apply(object("kind: Pod\nmetadata: {namespace: a}\n")));
    assert_eq!(faults.iter().map(|f| f.reason).collect::<Vec<_>>(), [Reason::MissingName]);
    let faults = node.engine.handle(Event::Apply(object("kind: Pod\nmetadata: {name: a}\n")));
    assert_eq!(faults.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), ["metadata.namespace"]);
}

#[test]
fn unreadable_rule_admits_nothing_and_still_isolates() {
    let mut node = Node1::with("n1", WEB);
    assert!(reaches(&node, "10.9.0.1", 80));
    node.apply(&policy(
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: nonsense}}]}, {ports: [{port: 443}]}]}",
    ));
    for source in ["10.9.0.1", "2001:db8::1"] {
        assert!(!reaches(&node, source, 80), "isolated");
        assert!(reaches(&node, source, 443), "the rule beside it counts");
    }
    // Only the peer at fault is gone from the list, but an emptied list must not mean everybody.
    assert_eq!(node.engine.policies()[0].faults.len(), 1);
}

#[test]
fn unreadable_pod_selector_isolates_what_it_may_mean_and_admits_nothing() {
    let mut node = Node1::with("n1", WEB);
    let selector = "{matchLabels: {app: web}, matchExpressions: [{key: x, operator: Like}]}";
    node.apply(&policy(&format!("{{podSelector: {selector}, ingress: [{{}}]}}")));
    assert!(!reaches(&node, "10.9.0.1", 80));
    let selector = "{matchLabels: {app: other}, matchExpressions: [{key: x, operator: Like}]}";
    let mut node = Node1::with("n1", WEB);
    node.apply(&policy(&format!("{{podSelector: {selector}, ingress: [{{}}]}}")));
    assert!(reaches(&node, "10.9.0.1", 80), "not what it may mean");
}

#[test]
fn last_good_version_stays_in_force_until_a_better_one_or_deletion() {
    let good = policy("{podSelector: {}, ingress: [{ports: [{port: 80}]}]}");
    let bad = policy("{podSelector: {}, ingress: [{ports: [{port: 81}, {port: 0}]}]}");
    let mut node = Node1::with("n1", &format!("{WEB}\n---\n{good}"));
    let before = node.table().clone();
    let faults: Vec<Fault> = node.apply(&bad);
    assert_eq!(faults.len(), 1);
    assert_eq!(*node.table(), before);
    assert_eq!(node.engine.faults(), faults, "the fault stays listed");

    node.apply(&policy("{podSelector: {}, ingress: [{ports: [{port: 81}]}]}"));
    assert!(reaches(&node, "10.9.0.1", 81) && !reaches(&node, "10.9.0.1", 80));
    assert_eq!(node.engine.faults(), []);

    node.apply(&bad);
    node.delete(Kind::NetworkPolicy, "shop", "p");
    assert!(reaches(&node, "10.9.0.1", 1), "deleted is deleted");
    assert_eq!(node.engine.faults(), []);
    node.apply(&bad);
    assert!(!reaches(&node, "10.9.0.1", 81), "no good version is left");
}

#[test]
fn invalid_address_disturbs_nothing_else() {
    let mut node = Node1::with(
        "n1",
        "kind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: {podSelector: {}}\n",
    );
    node.apply(&WEB.replace("10.1.0.1", "10.1.0.1000"));
    assert!(!reaches(&node, "2001:db8::1", 80), "its other address is isolated");
    assert_eq!(node.engine.faults().len(), 1);
    node.apply(WEB);
    assert_eq!(node.engine.faults(), []);
}

#[test]
fn shared_address_is_reported_for_both_and_the_first_by_name_has_it() {
    let mut node = Node1::with("n1", WEB);
    let other = WEB.replace("name: web", "name: api").replace("app: web", "app: api");
    let faults = node.apply(&other);
    assert!(faults.iter().all(|fault| fault.reason == Reason::AddressConflict));
    let mut names: Vec<String> = node.engine.faults().iter().map(|f| f.key.name.clone()).collect();
    names.dedup();
    assert_eq!(names, ["api", "web"]);

    node.apply(&policy("{podSelector: {matchLabels: {app: web}}}"));
    assert!(reaches(&node, "10.9.0.1", 80), "api has the address, web is isolated");
    node.delete(Kind::Pod, "shop", "api");
    assert!(!reaches(&node, "10.9.0.1", 80), "now web has it");
    assert_eq!(node.engine.faults(), []);
}

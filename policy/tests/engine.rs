//! The engine's life, event by event, with a simulated kernel.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::net::IpAddr;

use policy::Engine;
use policy::event::{Event, Kind};
use policy::nft::ir::{CtState, Hook, Type};
use policy::nft::transaction::{ApplyError, Step, Transaction};
use support::cluster::{KINDS, Node1, object, objects};
use support::walker::{self, ICMPV6, Packet, TCP};

const NODE: &str =
    "kind: Node\nmetadata: {name: n1}\nspec: {podCIDRs: [10.1.0.0/24, 'fd00:1::/64']}";

/// A pod of namespace `shop`, labelled by its name.
fn pod(name: &str, node: &str, last: u8, extra: &str) -> String {
    let block = if node == "n1" { 1 } else { 2 };
    format!(
        "kind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\n\
         spec: {{nodeName: {node}, containers: [{{name: c}}]{extra}}}\n\
         status: {{podIPs: [{{ip: 10.{block}.0.{last}}}, {{ip: 'fd00:{block}::{last}'}}]}}\n"
    )
}

/// Pods labelled `api` may reach all pods of `shop` on port 80.
const FROM_API: &str = "kind: NetworkPolicy\nmetadata: {name: from-api, namespace: shop}\n\
    spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 80}]}]}\n";

fn shop() -> String {
    let parts = [
        NODE.to_owned(),
        "kind: Namespace\nmetadata: {name: shop}".to_owned(),
        pod("web", "n1", 1, ""),
        pod("api", "n2", 1, ""),
        FROM_API.to_owned(),
    ];
    parts.join("\n---\n")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn passes(node: &Node1, source: &str, destination: &str) -> bool {
    let packet = Packet::new(address(source), address(destination), TCP, 80);
    walker::admitted(node.table(), &[], &packet)
}

/// The same in both families.
fn both(node: &Node1, source: &str, destination: &str) -> bool {
    let v6 = |v4: &str| {
        let parts: Vec<&str> = v4.split('.').collect();
        format!("fd00:{}::{}", parts[1], parts[3])
    };
    let answers = [passes(node, source, destination), passes(node, &v6(source), &v6(destination))];
    assert_eq!(answers[0], answers[1], "the families differ");
    answers[0]
}

fn kinds(transaction: &Transaction) -> Vec<String> {
    let name = |step: &Step| format!("{step:?}").split([' ', '(']).next().map(str::to_owned);
    transaction.steps.iter().filter_map(name).collect()
}

#[test]
fn nothing_comes_out_before_every_kind_was_listed() {
    let mut engine = Engine::new("n1");
    for kind in KINDS {
        engine.handle(Event::RelistEnd(kind));
        assert!(!engine.in_sync(), "an end without a beginning is no listing");
    }
    for kind in KINDS {
        assert!(!engine.in_sync());
        assert_eq!(engine.poll_transaction(), None);
        engine.handle(Event::RelistBegin(kind));
        assert!(!engine.in_sync());
        engine.handle(Event::RelistEnd(kind));
    }
    assert!(engine.in_sync());
    let transaction = engine.poll_transaction().expect("the baseline");
    assert_eq!(transaction.steps[0], Step::AddTable);
    assert_eq!(engine.poll_transaction(), None, "one at a time");
    assert!(engine.programmed_generation() < engine.generation());
    engine.acknowledge(transaction.id + 1, Ok(()));
    assert_eq!(engine.poll_transaction(), None, "an answer to another one does not count");
    engine.acknowledge(transaction.id, Ok(()));
    assert_eq!(engine.poll_transaction(), None, "nothing differs");
    assert_eq!(engine.programmed_generation(), engine.generation());
}

#[test]
fn a_pod_that_joins_a_selector_is_one_element_a_family() {
    let mut node = Node1::with("n1", &shop());
    node.engine.handle(Event::Apply(object(&pod("api", "n2", 9, ""))));
    let moved = node.engine.poll_transaction().expect("change");
    assert_eq!(kinds(&moved), ["DeleteElements", "DeleteElements", "AddElements", "AddElements"]);
    for step in &moved.steps {
        match step {
            Step::AddElements { elements, spec, .. }
            | Step::DeleteElements { elements, spec, .. } => {
                assert_eq!(elements.len(), 1);
                assert_eq!(spec.key[1..], [Type::Proto, Type::Port]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(node.kernel.apply(&moved), Ok(()));
    node.engine.acknowledge(moved.id, Ok(()));

    let second = pod("other", "n2", 10, "").replace("app: other", "app: api");
    node.engine.handle(Event::Apply(object(&second)));
    let joined = node.engine.poll_transaction().expect("change");
    assert_eq!(kinds(&joined), ["AddElements", "AddElements"]);
}

#[test]
fn what_is_taken_back_before_it_was_sent_is_not_sent() {
    let mut node = Node1::with("n1", &shop());
    let before = node.transactions;
    for event in [
        Event::Apply(object(&pod("new", "n1", 7, ""))),
        Event::Apply(object(
            "kind: NetworkPolicy\nmetadata: {name: x, namespace: shop}\nspec: {podSelector: {}, policyTypes: [Egress]}",
        )),
        Event::Delete(support::cluster::key(&object(&pod("new", "n1", 7, "")))),
        Event::Delete(support::cluster::key(&object(
            "kind: NetworkPolicy\nmetadata: {name: x, namespace: shop}",
        ))),
        Event::Apply(object(&pod("web", "n1", 1, ""))),
    ] {
        node.engine.handle(event);
        node.engine.settle();
    }
    node.program();
    assert_eq!(node.transactions, before);
}

#[test]
fn labels_of_pods_and_namespaces_change_who_is_a_peer() {
    let by_team = "kind: NetworkPolicy\nmetadata: {name: team, namespace: shop}\n\
        spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]}\n";
    let mut node = Node1::with("n1", &format!("{}\n---\n{by_team}", shop()));
    assert!(both(&node, "10.2.0.1", "10.1.0.1"), "api");
    node.apply(&pod("api", "n2", 1, "").replace("app: api", "app: x"));
    assert!(!both(&node, "10.2.0.1", "10.1.0.1"), "no longer api");
    node.apply("kind: Namespace\nmetadata: {name: shop, labels: {team: a}}");
    assert!(both(&node, "10.2.0.1", "10.1.0.1"), "of team a");
    node.delete(Kind::Namespace, "", "shop");
    assert!(!both(&node, "10.2.0.1", "10.1.0.1"), "of a namespace that is gone");
    node.delete(Kind::NetworkPolicy, "shop", "team");
    node.delete(Kind::NetworkPolicy, "shop", "from-api");
    assert!(both(&node, "10.2.0.1", "10.1.0.1"), "no policy");
}

#[test]
fn address_reused_by_a_new_pod_stays_a_peer_as_long_as_one_owner_is() {
    let mut node = Node1::with("n1", &shop());
    let heir = pod("heir", "n2", 1, "").replace("app: heir", "app: api");
    node.apply(&heir);
    assert!(both(&node, "10.2.0.1", "10.1.0.1"));
    node.delete(Kind::Pod, "shop", "api");
    assert!(both(&node, "10.2.0.1", "10.1.0.1"), "the heir is api as well");
    node.apply(&pod("api", "n2", 1, ""));
    node.delete(Kind::Pod, "shop", "heir");
    assert!(both(&node, "10.2.0.1", "10.1.0.1"));
    node.delete(Kind::Pod, "shop", "api");
    assert!(!both(&node, "10.2.0.1", "10.1.0.1"));
}

#[test]
fn local_address_reused_while_the_old_pod_is_still_there() {
    let mut node = Node1::with("n1", &shop());
    let ended = pod("web", "n1", 1, "").replace("status: {", "status: {phase: Succeeded, ");
    node.apply(&ended);
    assert!(!both(&node, "10.2.0.1", "10.1.0.1"), "nobody has it");
    node.apply(&pod("zweb", "n1", 1, ""));
    assert!(both(&node, "10.2.0.1", "10.1.0.1") && !both(&node, "10.2.0.5", "10.1.0.1"));
    node.delete(Kind::Pod, "shop", "web");
    assert!(both(&node, "10.2.0.1", "10.1.0.1") && !both(&node, "10.2.0.5", "10.1.0.1"));
}

#[test]
fn pods_with_the_network_of_the_node_are_neither_subject_nor_peer() {
    let mut node = Node1::with("n1", &shop());
    node.apply(&pod("api", "n2", 1, ", hostNetwork: true"));
    assert!(!both(&node, "10.2.0.1", "10.1.0.1"), "no peer");
    node.apply(&pod("web", "n1", 1, ", hostNetwork: true"));
    assert!(node.engine.endpoints().is_empty(), "no subject");
}

#[test]
fn a_listing_removes_what_it_does_not_name() {
    let mut node = Node1::with("n1", &shop());
    node.engine.handle(Event::RelistBegin(Kind::Pod));
    node.engine.handle(Event::Apply(object(&pod("web", "n1", 1, ""))));
    // Other kinds go on meanwhile, and a listing may be begun again.
    node.engine.handle(Event::RelistBegin(Kind::Pod));
    node.engine.handle(Event::Apply(object(&pod("new", "n1", 2, ""))));
    node.program();
    assert!(both(&node, "10.2.0.1", "10.1.0.1"), "nothing is gone before the end");
    node.engine.handle(Event::Apply(object(&pod("web", "n1", 1, ""))));
    node.engine.handle(Event::RelistEnd(Kind::Pod));
    node.program();
    assert!(!both(&node, "10.2.0.1", "10.1.0.1"), "api was not named");
    let names: Vec<String> = node.engine.endpoints().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["new", "web"]);
}

#[test]
fn a_pod_that_is_created_and_deleted_within_a_listing_is_gone() {
    let mut node = Node1::with("n1", NODE);
    node.engine.handle(Event::RelistBegin(Kind::Pod));
    let new = object(&pod("new", "n1", 2, ""));
    let key = support::cluster::key(&new);
    node.engine.handle(Event::Apply(new));
    node.engine.handle(Event::Delete(key));
    node.engine.handle(Event::RelistEnd(Kind::Pod));
    node.program();
    assert!(node.engine.endpoints().is_empty());
}

#[test]
fn a_restarted_engine_that_adopts_the_table_sends_nothing() {
    let node = Node1::with("n1", &shop());
    let mut engine = Engine::new("n1");
    engine.adopt(Some(node.table().clone()));
    for kind in KINDS {
        engine.handle(Event::RelistBegin(kind));
    }
    for object in objects(&shop()) {
        engine.handle(Event::Apply(object));
    }
    for kind in KINDS {
        engine.handle(Event::RelistEnd(kind));
    }
    assert_eq!(engine.poll_transaction(), None);
    assert_eq!(engine.programmed_generation(), engine.generation());
    assert!(engine.endpoints().iter().all(|endpoint| endpoint.programmed));
}

#[test]
fn a_refused_transaction_is_offered_again_with_what_came_since() {
    let mut node = Node1::with("n1", &shop());
    node.engine.handle(Event::Apply(object(&pod("api", "n2", 5, ""))));
    let first = node.engine.poll_transaction().expect("change");
    node.engine.handle(Event::Apply(object(&pod("api", "n2", 6, ""))));
    assert!(!node.engine.endpoints()[0].programmed, "its set is on the way");
    let reason = "no buffer space".to_owned();
    node.engine.acknowledge(first.id, Err(ApplyError { errno: 105, step: None, reason }));
    node.program();
    assert!(both(&node, "10.2.0.6", "10.1.0.1") && !both(&node, "10.2.0.5", "10.1.0.1"));
    assert_eq!(node.engine.totals().refused, 1);
    assert!(node.engine.endpoints()[0].programmed);
}

#[test]
fn interfaces_may_send_from_their_own_address_only() {
    let mut node = Node1::with("n1", &shop());
    for (text, name) in [("10.1.0.1", "rv1"), ("fd00:1::1", "rv1"), ("10.1.0.9", "rv9")] {
        let event = Event::Interface { address: address(text), interface: Some(name.to_owned()) };
        node.engine.handle(event);
    }
    node.program();
    let from = |interface: &str, source: &str, destination: &str| {
        let mut packet = Packet::new(address(source), address(destination), TCP, 80);
        packet.interface = interface.to_owned();
        walker::passes(node.table(), Hook::Prerouting, &packet)
    };
    assert!(from("rv1", "10.1.0.1", "8.8.8.8") && from("rv1", "fd00:1::1", "2001:db8::1"));
    assert!(!from("rv1", "10.1.0.2", "8.8.8.8") && !from("rv1", "fd00:1::2", "2001:db8::1"));
    assert!(!from("rv1", "fe80::1", "ff02::1"), "not TCP from a link-local address");
    assert!(from("eth0", "10.1.0.2", "8.8.8.8"), "not the interface of a pod");
    assert!(from("rv9", "10.1.0.2", "8.8.8.8"), "nor of a pod that we know");

    let icmp = |source: &str, icmp_type: u8| {
        let mut packet = Packet::new(address(source), address("ff02::1"), ICMPV6, 0);
        packet.interface = "rv1".to_owned();
        packet.icmp_type = icmp_type;
        walker::passes(node.table(), Hook::Prerouting, &packet)
    };
    assert!(icmp("fe80::1", 135) && icmp("::", 135) && icmp("fe80::1", 143));
    assert!(!icmp("fe80::1", 134), "router advertisement");
    assert!(!icmp("fe80::1", 137), "redirect");

    let gone = Event::Interface { address: address("10.1.0.1"), interface: None };
    node.engine.handle(gone);
    node.delete(Kind::Pod, "shop", "web");
    let interfaces = &node.table().sets["pod_ifaces"].elements;
    assert!(interfaces.is_empty(), "{interfaces:?}");
}

#[test]
fn conntrack_state_decides_before_and_within_the_chains() {
    let node = Node1::with("n1", &shop());
    let forward = |state, syn| {
        let mut packet = Packet::new(address("10.2.0.9"), address("10.1.0.1"), TCP, 80);
        (packet.state, packet.syn) = (state, syn);
        let denied_peer = walker::passes(node.table(), Hook::Forward, &packet);
        packet.source = address("10.2.0.1");
        (denied_peer, walker::passes(node.table(), Hook::Forward, &packet))
    };
    assert_eq!(forward(CtState::New, true), (false, true));
    assert_eq!(forward(CtState::Established, false), (true, true));
    assert_eq!(forward(CtState::Related, false), (true, true));
    assert_eq!(forward(CtState::Invalid, false), (false, false));
    assert_eq!(forward(CtState::New, false), (false, false), "TCP must begin with SYN");
}

#[test]
fn an_isolated_pod_still_finds_its_router() {
    let deny = "kind: NetworkPolicy\nmetadata: {name: d, namespace: shop}\nspec: {podSelector: {}, policyTypes: [Egress]}";
    let node = Node1::with("n1", &format!("{}\n---\n{deny}", shop()));
    let mut packet = Packet::new(address("fd00:1::1"), address("ff02::1:ff00:1"), ICMPV6, 0);
    packet.icmp_type = 135;
    assert!(walker::passes(node.table(), Hook::Input, &packet));
    packet.icmp_type = 128;
    assert!(!walker::passes(node.table(), Hook::Input, &packet), "an echo request is denied");
}

#[test]
fn views_tell_what_is_in_force() {
    let mut node = Node1::with("n1", &shop());
    let policies = node.engine.policies();
    assert_eq!(policies.len(), 1);
    let policy = &policies[0];
    assert_eq!((policy.selects, policy.selects_local, policy.programmed), (2, 1, 1));
    assert_eq!((policy.isolates_ingress, policy.isolates_egress), (true, false));
    assert_eq!(policy.pod_selector, "all pods");
    assert_eq!(policy.rules, ["ingress 1: from pods app=api, tcp 80"]);

    let address = address("10.1.0.1");
    node.engine.handle(Event::Interface { address, interface: Some("rv1".to_owned()) });
    node.program();
    let endpoints = node.engine.endpoints();
    assert_eq!(endpoints.len(), 1);
    let web = &endpoints[0];
    assert_eq!(web.interface.as_deref(), Some("rv1"));
    assert!(web.isolated_ingress && !web.isolated_egress && web.programmed);
    assert_eq!(web.policies, ["shop/from-api"]);
    assert!(web.chains.len() == 1 && web.chains[0].starts_with("in/shop/web/"), "{web:?}");
    let totals = node.engine.totals();
    assert_eq!((totals.policies, totals.endpoints, totals.isolated), (1, 1, 1));
    let elements: usize = node.table().sets.values().map(|set| set.elements.len()).sum();
    assert_eq!(totals.set_elements, elements as u64);
    assert_eq!(node.engine.local_addresses().count(), 2);
}

#[test]
fn a_set_that_goes_and_comes_back_around_a_refusal_is_still_known() {
    let mut node = Node1::with("n1", &shop());
    node.engine.handle(Event::Apply(object(&pod("api", "n2", 5, ""))));
    let first = node.engine.poll_transaction().expect("change");
    let policy = object(FROM_API);
    node.engine.handle(Event::Delete(support::cluster::key(&policy)));
    node.engine.settle();
    let reason = "no memory".to_owned();
    node.engine.acknowledge(first.id, Err(ApplyError { errno: 12, step: None, reason }));
    node.engine.handle(Event::Apply(policy));
    node.program();
    assert!(both(&node, "10.2.0.5", "10.1.0.1") && !both(&node, "10.2.0.1", "10.1.0.1"));
}

#[test]
fn a_renamed_port_moves_named_ports_on_either_side() {
    let named = |name: &str, node: &str, port: u16| {
        let container = format!("[{{name: c, ports: [{{name: http, containerPort: {port}}}]}}]");
        pod(name, node, 1, "").replace("[{name: c}]", &container)
    };
    let policy = "kind: NetworkPolicy\nmetadata: {name: named, namespace: shop}\n\
        spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], \
        ingress: [{ports: [{port: http}]}], egress: [{to: [{podSelector: {}}], ports: [{port: http}]}]}";
    let parts = [NODE, &named("web", "n1", 80), &named("api", "n2", 80), policy].join("\n---\n");
    let mut node = Node1::with("n1", &parts);
    assert!(both(&node, "10.2.0.1", "10.1.0.1") && both(&node, "10.1.0.1", "10.2.0.1"));
    node.apply(&named("web", "n1", 81));
    assert!(!both(&node, "10.2.0.1", "10.1.0.1"), "the subject's port is another");
    node.apply(&named("api", "n2", 81));
    assert!(!both(&node, "10.1.0.1", "10.2.0.1"), "the peer's port is another");
}

#[test]
fn a_set_that_starts_with_a_shared_address_keeps_it_until_the_last_owner_goes() {
    let heir = pod("heir", "n2", 1, "").replace("app: heir", "app: api");
    let cluster = shop().replace(FROM_API, &heir);
    let mut node = Node1::with("n1", &cluster);
    node.apply(FROM_API);
    node.delete(Kind::Pod, "shop", "api");
    assert!(both(&node, "10.2.0.1", "10.1.0.1"));
    node.delete(Kind::Pod, "shop", "heir");
    assert!(!both(&node, "10.2.0.1", "10.1.0.1"));
}

#[test]
fn pods_that_have_ended_are_not_counted_as_selected() {
    let ended = pod("old", "n1", 8, "").replace("status: {", "status: {phase: Failed, ");
    let mut node = Node1::with("n1", &ended);
    node.apply(&shop());
    assert_eq!(node.engine.policies()[0].selects, 2, "web and api");
}

#[test]
fn a_policy_of_many_cidrs_and_many_ports_does_not_multiply_them() {
    let blocks: Vec<String> = (0..10_000u32)
        .map(|i| format!("{{ipBlock: {{cidr: 11.{}.{}.0/25}}}}", i / 256, i % 256))
        .collect();
    let ports: Vec<String> = (1..=10_000u32).map(|i| format!("{{port: {}}}", 2 * i)).collect();
    let policy = format!(
        "kind: NetworkPolicy\nmetadata: {{name: big, namespace: shop}}\nspec: {{podSelector: {{}}, \
         ingress: [{{from: [{}], ports: [{}]}}]}}",
        blocks.join(", "),
        ports.join(", ")
    );
    let mut node = Node1::with("n1", &shop());
    node.engine.handle(Event::Apply(object(&policy)));
    let transaction = node.engine.poll_transaction().expect("change");
    let elements: usize = transaction
        .steps
        .iter()
        .map(|step| match step {
            Step::AddElements { elements, .. } => elements.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(elements, 20_000, "each CIDR once, each port once");
}

//! What the CNI plugin says about pods, against what the API server says.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::net::IpAddr;

use policy::event::{Event, Kind};
use policy::nft::ir::{Element, Value};
use support::cluster::{Node1, object};
use support::walker::{self, Packet, TCP};

const SHOP: &str = "kind: Node\nmetadata: {name: n1}\n\
    spec: {podCIDRs: [10.1.0.0/24, 'fd00:1::/64']}\n---\n\
    kind: Namespace\nmetadata: {name: shop}\n---\n\
    kind: NetworkPolicy\nmetadata: {name: shut, namespace: shop}\n\
    spec: {podSelector: {matchLabels: {app: shut}}, policyTypes: [Ingress, Egress]}\n";

/// A pod of `shop` on our node; `status` in flow style.
fn pod(name: &str, uid: &str, app: &str, status: &str) -> String {
    format!(
        "kind: Pod\nmetadata: {{name: {name}, namespace: shop, uid: {uid}, labels: {{app: {app}}}}}\n\
         spec: {{nodeName: n1, containers: [{{name: c}}]}}\nstatus: {status}\n"
    )
}

fn attachment(id: &str, name: &str, uid: &str, last: u8) -> Event {
    Event::Attachment {
        id: id.to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        addresses: addresses(last).to_vec(),
        interface: format!("rv{id}"),
    }
}

fn addresses(last: u8) -> [IpAddr; 2] {
    [format!("10.1.0.{last}"), format!("fd00:1::{last}")].map(|text| text.parse().expect("address"))
}

/// Whether packets from elsewhere get to the addresses that end in `last`; both families agree.
fn reached(node: &Node1, last: u8) -> bool {
    let from: [IpAddr; 2] =
        ["198.51.100.7", "2001:db8::7"].map(|text| text.parse().expect("address"));
    let [v4, v6] = addresses(last);
    let admits = |from, to| walker::admitted(node.table(), &[], &Packet::new(from, to, TCP, 80));
    let answers = [admits(from[0], v4), admits(from[1], v6)];
    assert_eq!(answers[0], answers[1], "the families differ");
    answers[0]
}

fn interface_of(node: &Node1, last: u8) -> Vec<String> {
    let of = |element: &Element| match element {
        Element::Key(fields) => match fields.as_slice() {
            [Value::IfName(name), address] => {
                addresses(last).map(Value::from).contains(address).then(|| name.clone())
            }
            _ => None,
        },
        Element::Range(..) => None,
    };
    let sets = ["pod_src4", "pod_src6"].map(|set| &node.table().sets[set].elements);
    sets.into_iter().flat_map(|elements| elements.keys().filter_map(of)).collect()
}

#[test]
fn a_pod_without_status_has_the_addresses_that_its_plugin_says() {
    let mut node = Node1::with("n1", SHOP);
    node.apply(&pod("open", "u1", "open", "{}"));
    node.apply(&pod("shut", "u2", "shut", "{}"));
    assert!(!reached(&node, 1) && !reached(&node, 2), "nobody has these addresses");
    node.engine.handle(attachment("a", "open", "u1", 1));
    node.engine.handle(attachment("b", "shut", "u2", 2));
    node.program();
    assert!(node.engine.knows_pod_of("a") && node.engine.knows_pod_of("b"));
    assert!(reached(&node, 1) && !reached(&node, 2));
    assert_eq!(interface_of(&node, 1), ["rva", "rva"]);
    let detached = Event::Detachment { id: "a".to_owned() };
    node.engine.handle(detached);
    node.program();
    assert!(!reached(&node, 1));
    assert_eq!(interface_of(&node, 1), Vec::<String>::new());
    assert!(!node.engine.knows_pod_of("a"));
}

#[test]
fn the_plugin_may_speak_before_the_api_server_does() {
    let mut node = Node1::with("n1", SHOP);
    node.engine.handle(attachment("a", "late", "u1", 1));
    node.program();
    assert!(!node.engine.knows_pod_of("a"), "its policy cannot be known");
    assert!(!reached(&node, 1));
    node.apply(&pod("late", "u1", "open", "{}"));
    assert!(node.engine.knows_pod_of("a"));
    assert!(reached(&node, 1));
    assert!(!node.engine.knows_pod_of("unheard-of"));
}

#[test]
fn another_pod_of_the_same_name_does_not_inherit_the_addresses() {
    let mut node = Node1::with("n1", SHOP);
    node.engine.handle(attachment("old", "web-0", "u1", 1));
    node.apply(&pod("web-0", "u2", "open", "{}"));
    assert!(!node.engine.knows_pod_of("old") && !reached(&node, 1));
    node.engine.handle(attachment("new", "web-0", "u2", 2));
    node.program();
    assert!(node.engine.knows_pod_of("new"));
    assert!(reached(&node, 2) && !reached(&node, 1));
    // A runtime that tells no uid means the pod of that name.
    node.engine.handle(attachment("any", "web-0", "", 3));
    node.program();
    assert!(node.engine.knows_pod_of("any") && reached(&node, 3));
}

#[test]
fn a_static_pod_is_known_by_the_uid_that_its_runtime_tells() {
    let mut node = Node1::with("n1", SHOP);
    node.apply(
        "kind: Pod\nmetadata: {name: static-n1, namespace: shop, uid: of-the-mirror, \
         annotations: {kubernetes.io/config.mirror: 0123abcd}}\n\
         spec: {nodeName: n1, containers: [{name: c}]}\n",
    );
    node.engine.handle(attachment("a", "static-n1", "0123abcd", 1));
    node.program();
    assert!(node.engine.knows_pod_of("a") && reached(&node, 1));
}

#[test]
fn an_address_belongs_to_the_newest_attachment_whatever_a_status_says() {
    let mut node = Node1::with("n1", SHOP);
    let claims = "{podIPs: [{ip: 10.1.0.1}, {ip: 'fd00:1::1'}]}";
    node.apply(&pod("open", "u1", "open", claims));
    assert!(reached(&node, 1), "nobody says otherwise");
    node.apply(&pod("shut", "u2", "shut", "{}"));
    node.engine.handle(attachment("b", "shut", "u2", 1));
    node.program();
    assert!(!reached(&node, 1), "the address is the isolated pod's");
    node.apply(&pod("open", "u1", "open", claims));
    assert!(!reached(&node, 1), "a status that is told again changes nothing");
    // The end of an attachment that has lost the address already takes nothing away.
    node.engine.handle(attachment("c", "open", "u1", 1));
    node.engine.handle(Event::Detachment { id: "b".to_owned() });
    node.program();
    assert!(node.engine.knows_pod_of("c") && reached(&node, 1));
}

#[test]
fn a_pod_that_goes_and_comes_back_is_known_again() {
    let mut node = Node1::with("n1", SHOP);
    node.apply(&pod("a", "u1", "open", "{}"));
    node.engine.handle(attachment("a", "a", "u1", 1));
    node.program();
    node.delete(Kind::Pod, "shop", "a");
    assert!(!node.engine.knows_pod_of("a") && !reached(&node, 1));
    node.apply(&pod("a", "u1", "open", "{}"));
    assert!(node.engine.knows_pod_of("a") && reached(&node, 1));
}

#[test]
fn attachments_told_before_the_first_listing_are_in_the_first_transaction() {
    let mut engine = policy::Engine::new("n1");
    engine.handle(attachment("a", "shut", "u2", 2));
    for kind in support::cluster::KINDS {
        engine.handle(Event::RelistBegin(kind));
    }
    for yaml in SHOP.split("\n---\n").chain([pod("shut", "u2", "shut", "{}").as_str()]) {
        engine.handle(Event::Apply(object(yaml)));
    }
    for kind in support::cluster::KINDS {
        engine.handle(Event::RelistEnd(kind));
    }
    assert!(engine.knows_pod_of("a"));
    let transaction = engine.poll_transaction().expect("the whole table");
    assert!(engine.programmed_generation() < engine.generation());
    engine.acknowledge(transaction.id, Ok(()));
    assert_eq!(engine.programmed_generation(), engine.generation());
    let pods = &engine.desired().sets["pods4"].elements;
    let [v4, _] = addresses(2);
    assert!(pods.contains_key(&Element::Key(vec![v4.into()])));
    assert_eq!(engine.attachments().collect::<Vec<_>>(), ["a"]);
}

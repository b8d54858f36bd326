//! Whose is an address that several pods claim, and what the CNI plugin's word does to that.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::net::IpAddr;

use policy::event::{Event, Kind};
use support::cluster::Node1;
use support::walker::{self, Packet, TCP};

const NODE: &str = "kind: Node\nmetadata: {name: n1}\nspec: {podCIDRs: [10.1.0.0/24, 'fd00:1::/64']}\n---\n\
    kind: Namespace\nmetadata: {name: shop}\n---\n";

/// The server may be reached from pods labelled `role: friend` only.
const POLICY: &str = "kind: NetworkPolicy\nmetadata: {name: friends, namespace: shop}\nspec: {podSelector: {matchLabels: \
    {role: server}}, ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]}\n---\n";

/// With the addresses 10.BLOCK.0.LAST and fd00:BLOCK::LAST.
fn pod(name: &str, role: &str, metadata: &str, node: &str, block: u8, last: u8) -> String {
    format!(
        "kind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{role: {role}}}{metadata}}}\n\
         spec: {{nodeName: {node}, containers: [{{name: c}}]}}\n\
         status: {{podIPs: [{{ip: 10.{block}.0.{last}}}, {{ip: 'fd00:{block}::{last}'}}]}}\n---\n"
    )
}

fn addresses(block: u8, last: u8) -> [IpAddr; 2] {
    [format!("10.{block}.0.{last}"), format!("fd00:{block}::{last}")]
        .map(|text| text.parse().expect("address"))
}

fn reaches(node: &Node1, from: [IpAddr; 2], to: [IpAddr; 2]) -> bool {
    let [v4, v6] = [0, 1].map(|family| {
        let packet = Packet::new(from[family], to[family], TCP, 80);
        walker::admitted(node.table(), &[], &packet)
    });
    assert_eq!(v4, v6, "the families differ");
    v4
}

fn attach(node: &mut Node1, id: &str, name: &str, uid: &str, addresses: &[IpAddr]) {
    node.engine.handle(Event::Attachment {
        id: id.to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        addresses: addresses.to_vec(),
        interface: format!("rv{id}"),
    });
    node.program();
}

fn detach(node: &mut Node1, id: &str) {
    node.engine.handle(Event::Detachment { id: id.to_owned() });
    node.program();
}

const SERVER: [u8; 2] = [1, 1];
const PEER: [u8; 2] = [2, 7];

fn cluster(peers: &str) -> Node1 {
    let server = pod("server", "server", "", "n1", SERVER[0], SERVER[1]);
    Node1::with("n1", &[NODE, POLICY, &server, peers].concat())
}

fn peer_reaches(node: &Node1) -> bool {
    reaches(node, addresses(PEER[0], PEER[1]), addresses(SERVER[0], SERVER[1]))
}

#[test]
fn a_reused_address_is_the_newer_pods_whatever_the_order_of_events() {
    let born = |second: u8| format!(", creationTimestamp: '2026-01-01T00:00:{second:02}Z'");
    let old = pod("old", "friend", &born(1), "n2", PEER[0], PEER[1]);
    let new = pod("new", "stranger", &born(2), "n2", PEER[0], PEER[1]);
    for peers in [[&*old, &*new], [&*new, &*old]] {
        let mut node = cluster(&peers.concat());
        assert!(!peer_reaches(&node), "the address belongs to a stranger now");
        node.delete(Kind::Pod, "shop", "new");
        assert!(peer_reaches(&node));
        node.delete(Kind::Pod, "shop", "old");
        assert!(!peer_reaches(&node));
    }
}

#[test]
fn a_pod_that_is_being_deleted_yields_its_address_to_one_that_stays_without_a_complaint() {
    let going =
        ", deletionTimestamp: '2026-01-01T00:00:09Z', creationTimestamp: '2026-01-01T00:00:08Z'";
    let going = pod("going", "stranger", going, "n2", PEER[0], PEER[1]);
    let stays = pod("stays", "friend", "", "n2", PEER[0], PEER[1]);
    for peers in [[&*going, &*stays], [&*stays, &*going]] {
        let node = cluster(&peers.concat());
        assert!(peer_reaches(&node));
        assert_eq!(node.engine.faults(), []);
    }
}

#[test]
fn an_attachment_gives_a_pod_its_addresses_before_its_status_does() {
    let server = pod("server", "server", ", uid: u1", "n1", 1, 1);
    let server = server.split("status:").next().expect("spec").to_owned() + "\n---\n";
    let friend = pod("friend", "friend", "", "n2", PEER[0], PEER[1]);
    let stranger = pod("stranger", "stranger", "", "n2", 2, 8);
    let mut node = Node1::with("n1", &[NODE, POLICY, &friend, &stranger].concat());
    attach(&mut node, "a", "server", "u1", &addresses(1, 1));
    assert!(!node.engine.knows_pod_of("a"), "the Pod was not seen yet");
    assert!(!peer_reaches(&node), "an address that no known pod has gets nothing");
    node.apply(&server);
    assert!(node.engine.knows_pod_of("a"));
    assert!(peer_reaches(&node));
    assert!(!reaches(&node, addresses(2, 8), addresses(1, 1)));
    detach(&mut node, "a");
    assert!(!node.engine.knows_pod_of("a"));
    assert!(!peer_reaches(&node));
}

#[test]
fn no_other_pod_has_an_address_that_the_plugin_gave_away() {
    let liar = pod("liar", "friend", "", "n1", 1, 9);
    let mut node = cluster(&liar);
    assert!(reaches(&node, addresses(1, 9), addresses(1, 1)));
    attach(&mut node, "b", "unseen", "", &addresses(1, 9));
    assert!(!reaches(&node, addresses(1, 9), addresses(1, 1)), "neither has it");
    node.apply(&pod("unseen", "stranger", "", "n1", 1, 9));
    assert!(!reaches(&node, addresses(1, 9), addresses(1, 1)));
    assert_eq!(node.engine.faults(), []);
    detach(&mut node, "b");
    node.delete(Kind::Pod, "shop", "unseen");
    assert!(reaches(&node, addresses(1, 9), addresses(1, 1)), "the claim counts again");
}

#[test]
fn the_attachment_of_a_former_pod_of_the_same_name_is_not_the_new_ones() {
    let server = pod("server", "server", ", uid: u2", "n1", 1, 1);
    let friend = pod("friend", "friend", "", "n2", PEER[0], PEER[1]);
    let mut node = Node1::with("n1", &[NODE, POLICY, &friend, &server].concat());
    attach(&mut node, "a", "server", "u1", &addresses(1, 4));
    assert!(!node.engine.knows_pod_of("a"));
    assert!(!reaches(&node, addresses(PEER[0], PEER[1]), addresses(1, 4)));
    assert!(peer_reaches(&node), "by its status");
    attach(&mut node, "b", "server", "u2", &addresses(1, 5));
    assert!(reaches(&node, addresses(PEER[0], PEER[1]), addresses(1, 5)));
    assert!(!peer_reaches(&node), "the plugin knows better than the status");
}

#[test]
fn attachments_after_a_relist_of_pods_are_still_there() {
    let server = pod("server", "server", ", uid: u1", "n1", 1, 1);
    let friend = pod("friend", "friend", "", "n2", PEER[0], PEER[1]);
    let mut node = Node1::with("n1", &[NODE, POLICY, &friend, &server].concat());
    attach(&mut node, "a", "server", "u1", &addresses(1, 5));
    node.engine.handle(Event::RelistBegin(Kind::Pod));
    node.apply(&server);
    node.apply(&friend);
    node.engine.handle(Event::RelistEnd(Kind::Pod));
    node.program();
    assert!(reaches(&node, addresses(PEER[0], PEER[1]), addresses(1, 5)));
    assert_eq!(node.engine.attachments().collect::<Vec<_>>(), ["a"]);
}

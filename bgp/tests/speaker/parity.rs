//! From a mesh to reflectors: peers beside peers, and when the first ones may go.

use std::net::SocketAddr;
use std::time::Duration;

use bgp::config::{Config, PeerKind};
use bgp::speaker::{Speaker, SpeakerEvent};
use bgp::types::Family;
use bgp::view::SessionState;

use crate::speaker_net::{Net, address, config, peer};
use crate::{originate, pod_cidrs};

/// Nodes 0, 1 and 2 of a mesh; 3 and 4 are to be their reflectors.
const NODES: std::ops::Range<usize> = 0..3;
const REFLECTORS: std::ops::Range<usize> = 3..5;

fn reflector(of: usize, node: usize) -> bgp::config::PeerConfig {
    bgp::config::PeerConfig { kind: PeerKind::Reflector, ..peer(of, node, 64512) }
}

fn node_config(node: usize, mesh: bool, reflectors: bool) -> Config {
    let mut peers = Vec::new();
    if mesh {
        peers.extend(NODES.filter(|other| *other != node).map(|other| peer(node, other, 64512)));
    }
    if reflectors {
        peers.extend(REFLECTORS.map(|other| reflector(node, other)));
    }
    Config { peers, ..config(node, 64512) }
}

fn reflector_config(node: usize) -> Config {
    let clients = NODES.map(|client| bgp::config::PeerConfig {
        route_reflector_client: true,
        ..reflector(node, client)
    });
    Config { peers: clients.collect(), ..config(node, 64512) }
}

fn network() -> Net {
    let nodes = NODES.map(|node| node_config(node, true, false));
    let mut net = Net::new(nodes.chain(REFLECTORS.map(reflector_config)).collect());
    NODES.for_each(|node| originate(&mut net, node));
    net.settle();
    net
}

fn configure(net: &mut Net, node: usize, mesh: bool, reflectors: bool) {
    let now = net.now;
    net.nodes[node].speaker.configure(now, node_config(node, mesh, reflectors));
    net.settle();
}

fn endpoint(node: usize) -> SocketAddr {
    (address(node), 179).into()
}

fn mesh_of(node: usize) -> Vec<SocketAddr> {
    NODES.filter(|other| *other != node).map(endpoint).collect()
}

fn reflectors() -> Vec<SocketAddr> {
    REFLECTORS.map(endpoint).collect()
}

#[test]
fn parity_holds_once_every_node_is_a_client_and_not_before() {
    let mut net = network();
    let before = net.nodes[0].speaker.parity(&mesh_of(0), &reflectors());
    assert_eq!(before.unready, reflectors(), "they are no peers yet");
    assert_eq!((before.compared, before.redundancy), (4, Some(0)));
    assert_eq!(before.missing.len(), 4);

    for node in [0, 1] {
        configure(&mut net, node, true, true);
    }
    let partly = net.nodes[0].speaker.parity(&mesh_of(0), &reflectors());
    let mut missing = pod_cidrs(2).to_vec();
    missing.sort_unstable();
    assert_eq!(partly.missing, missing, "node 2 is no client yet");
    assert!(!partly.holds());

    configure(&mut net, 2, true, true);
    let all = net.nodes[0].speaker.parity(&mesh_of(0), &reflectors());
    assert!(all.holds(), "{all:?}");
    assert_eq!((all.compared, all.redundancy), (4, Some(2)));
    let nothing = net.nodes[0].speaker.parity(&[], &reflectors());
    assert_eq!((nothing.compared, nothing.redundancy), (0, None));
}

#[test]
fn a_reflector_that_lost_its_session_does_not_count() {
    let mut net = network();
    NODES.for_each(|node| configure(&mut net, node, true, true));
    net.unreachable.extend([0, 3]);
    let conn = net.between(0, 3)[0];
    net.cut(0, conn, true);
    net.settle();
    let parity = net.nodes[0].speaker.parity(&mesh_of(0), &reflectors());
    assert_eq!((parity.unready.as_slice(), parity.redundancy), (&[endpoint(3)][..], Some(1)));
    assert!(parity.missing.is_empty() && !parity.holds());
}

#[test]
fn holders_are_counted_for_what_is_forwarded_and_only_while_their_session_is_up() {
    let mut net = network();
    for node in [0, 1] {
        configure(&mut net, node, true, true);
    }
    // The reflectors have just started: without node 2 they are not sure that this is all.
    net.run(bgp::speaker::DEFERRAL);
    let count = |net: &Net, node: usize, peers: &[SocketAddr]| -> Vec<usize> {
        let holders = net.nodes[0].speaker.holders(peers);
        assert_eq!(holders.len(), 4, "v4 and v6 of two other nodes, none of our own: {holders:?}");
        let of = |net: &ipnet::IpNet| pod_cidrs(node).contains(net);
        holders.iter().filter(|(prefix, _)| of(prefix)).map(|(_, count)| *count).collect()
    };
    assert_eq!(count(&net, 1, &reflectors()), [2, 2]);
    assert_eq!(count(&net, 2, &reflectors()), [0, 0], "node 2 is no client yet");
    assert_eq!(count(&net, 2, &mesh_of(0)), [1, 1]);
    net.unreachable.extend([0, 3]);
    let conn = net.between(0, 3)[0];
    net.cut(0, conn, true);
    net.settle();
    assert_eq!(count(&net, 1, &reflectors()), [1, 1]);
}

#[test]
fn of_two_peers_at_one_address_a_connection_is_that_of_the_one_that_takes_them() {
    for (first, second) in [(179, 1790), (1790, 179)] {
        let takes = peer(0, 1, 64512);
        let takes = bgp::config::PeerConfig { port: first, passive: true, ..takes };
        let dials = bgp::config::PeerConfig { port: second, dial_only: true, ..reflector(0, 1) };
        let now = Net::new(Vec::new()).now;
        let peers = vec![takes, dials];
        let mut speaker = Speaker::new(now, Config { peers, ..config(0, 64512) });
        let remote = (address(1), 40000).into();
        let accepted = speaker.accept(now, remote, (address(0), 179).into());
        assert!(accepted.is_ok());
        let state = |port| speaker.peers(now).iter().find(|p| p.port == port).map(|p| p.state);
        assert_eq!(state(first), Some(SessionState::OpenSent));
        assert_eq!(state(second), Some(SessionState::Connect));
    }
}

#[test]
fn a_peer_on_standby_is_not_dialled_nor_counted_but_may_connect() {
    let mut net = network();
    let standby = |config: &mut Config| {
        for peer in &mut config.peers {
            (peer.passive, peer.standby) = (true, true);
        }
    };
    let now = net.now;
    for node in NODES {
        let mut config = node_config(node, true, false);
        standby(&mut config);
        net.nodes[node].speaker.configure(now, config);
    }
    net.settle();
    assert_eq!(net.established(0), 2, "a session that is up stays up");
    net.nodes[0].speaker.reset(now, endpoint(1));
    net.run(Duration::from_secs(60));
    assert_eq!(net.established(0), 1, "closed, and nobody asks for it");
    assert_eq!(net.nodes[0].speaker.summary().peers, 1);
    // The other side wants it after all.
    let now = net.now;
    let mut config = node_config(1, true, false);
    config.peers.iter_mut().for_each(|peer| peer.passive = false);
    net.nodes[1].speaker.configure(now, config);
    net.run(Duration::from_secs(60));
    assert_eq!((net.established(0), net.nodes[0].speaker.peers(net.now).len()), (2, 2));
}

#[test]
fn end_of_rib_is_told_once_per_session_and_family() {
    let net = network();
    let told = |family| {
        let wanted = SpeakerEvent::EndOfRib { peer: address(1), family };
        net.nodes[0].events.iter().filter(|event| **event == wanted).count()
    };
    assert_eq!((told(Family::Ipv4), told(Family::Ipv6)), (1, 1));
    let peers = net.nodes[0].speaker.peers(net.now);
    assert!(peers.iter().all(|peer| peer.end_of_rib == Family::ALL), "{peers:?}");
}

#[test]
fn from_mesh_to_reflectors_and_back_forwarding_never_changes() {
    let mut net = network();
    let changes =
        |net: &Net| -> Vec<usize> { NODES.map(|node| net.nodes[node].fib_changes).collect() };
    let before = changes(&net);
    for [mesh, reflectors] in [[true, true], [false, true], [true, true], [true, false]] {
        for node in NODES {
            configure(&mut net, node, mesh, reflectors);
        }
        net.run(Duration::from_secs(100));
        assert_eq!(changes(&net), before, "mesh {mesh}, reflectors {reflectors}");
        assert!((0..3).all(|node| net.nodes[node].fib.len() == 6));
    }
}

//! A peer made by hand: it says what our own speaker never would.

#![expect(clippy::unwrap_used, reason = "test code: a failed assumption must fail the test")]

use std::net::SocketAddr;
use std::time::Duration;

use bgp::config::{Config, GracefulRestart, PeerConfig, PeerKind};
use bgp::speaker::{ConnectionId, DownReason, Output, Speaker, SpeakerEvent};
use bgp::wire::encode;
use bgp::wire::open::{Capability, Open};

use crate::speaker_net::{Net, address, config, peer};

const SECOND: Duration = Duration::from_secs(1);

/// What the peer says about graceful restart.
struct Restart {
    notification: bool,
    /// AFI, SAFI, F bit.
    families: Vec<(u16, u8, bool)>,
}

/// A peer made by hand: it can say what our own speaker never would.
struct Hand {
    net: Net,
    conn: ConnectionId,
}

impl Hand {
    fn open(restart: Option<Restart>) -> Vec<u8> {
        let asn = bgp::types::Asn(64512);
        let mut capabilities =
            vec![Capability::Multiprotocol(1, 1), Capability::Multiprotocol(2, 1)];
        capabilities.push(Capability::FourOctetAs(asn));
        if let Some(Restart { notification, families }) = restart {
            capabilities.push(Capability::GracefulRestart {
                restarted: true,
                notification,
                restart_time_seconds: 120,
                families,
            });
        }
        let open = Open {
            version: 4,
            my_as: 64512,
            hold_time_seconds: 90,
            router_id: "10.0.0.2".parse().unwrap(),
            capabilities,
        };
        let mut bytes = Vec::new();
        encode::open(&open, &mut bytes);
        encode::keepalive(&mut bytes);
        bytes
    }

    /// Opens a session with node 0, as node 1.
    fn connect(net: &mut Net, open: &[u8]) -> ConnectionId {
        let local = SocketAddr::new(address(0), 179);
        let speaker = &mut net.nodes[0].speaker;
        let conn = speaker.accept(net.now, SocketAddr::new(address(1), 50_000), local).unwrap();
        speaker.receive(net.now, conn, open);
        net.settle();
        conn
    }

    fn new(restart: Option<Restart>, prefixes: &[u8]) -> Self {
        let passive = PeerConfig {
            passive: true,
            graceful_restart: Some(GracefulRestart::of(PeerKind::Mesh)),
            ..peer(0, 1, 64512)
        };
        let mut net = Net::new(vec![Config { peers: vec![passive], ..config(0, 64512) }]);
        let conn = Self::connect(&mut net, &Self::open(restart));
        net.nodes[0].speaker.receive(net.now, conn, prefixes);
        net.settle();
        Self { net, conn }
    }

    fn close(&mut self) {
        self.net.nodes[0].speaker.closed(self.net.now, self.conn, "reset by peer".to_owned());
        self.net.settle();
    }

    fn prefixes(&self) -> Vec<String> {
        self.net.nodes[0].fib.keys().map(ToString::to_string).collect()
    }
}

fn both(forwarding: bool) -> Vec<(u16, u8, bool)> {
    vec![(1, 1, forwarding), (2, 1, forwarding)]
}

/// UPDATEs for 10.9.0.0/16 and fd09::/16, as a speaker of ours encodes them.
fn two_prefixes() -> Vec<u8> {
    let towards = peer(1, 0, 64512);
    let mut net = Net::new(vec![
        Config {
            peers: vec![PeerConfig { passive: true, ..peer(0, 1, 64512) }],
            ..config(0, 64512)
        },
        Config { peers: vec![PeerConfig { passive: false, ..towards }], ..config(1, 64512) },
    ]);
    let now = net.now;
    let prefixes = ["10.9.0.0/16", "fd09::/16"].map(crate::speaker_net::net);
    net.nodes[1].speaker.originate(now, &prefixes);
    let recorded = net.record(1);
    assert_eq!(net.nodes[0].fib.len(), 2);
    // From the first UPDATE on: OPEN and KEEPALIVE come first.
    let mut rest = recorded.as_slice();
    while rest[18] != 2 {
        rest = &rest[usize::from(u16::from_be_bytes([rest[16], rest[17]]))..];
    }
    rest.to_vec()
}

#[test]
fn a_family_that_was_not_forwarded_in_loses_its_paths_when_the_peer_is_back() {
    let mut hand =
        Hand::new(Some(Restart { notification: false, families: both(true) }), &two_prefixes());
    hand.close();
    assert_eq!(hand.prefixes(), ["10.9.0.0/16", "fd09::/16"]);
    let open = Hand::open(Some(Restart {
        notification: false,
        families: vec![(1, 1, true), (2, 1, false)],
    }));
    hand.conn = Hand::connect(&mut hand.net, &open);
    assert_eq!(hand.prefixes(), ["10.9.0.0/16"], "F bit of IPv6 is clear");
}

#[test]
fn a_peer_back_without_graceful_restart_loses_its_paths_at_once() {
    let mut hand =
        Hand::new(Some(Restart { notification: false, families: both(true) }), &two_prefixes());
    hand.close();
    assert_eq!(hand.prefixes().len(), 2);
    hand.conn = Hand::connect(&mut hand.net, &Hand::open(None));
    assert!(hand.prefixes().is_empty());
    assert_eq!(hand.net.established(0), 1);
}

#[test]
fn a_family_that_the_capability_does_not_list_ends_with_the_session() {
    let mut hand = Hand::new(
        Some(Restart { notification: false, families: vec![(2, 1, false)] }),
        &two_prefixes(),
    );
    hand.close();
    // The F bit counts when the peer is back, not before (RFC 4724 §4.2).
    assert_eq!(hand.prefixes(), ["fd09::/16"]);
    let mut without = Hand::new(None, &two_prefixes());
    without.close();
    assert!(without.prefixes().is_empty());
}

#[test]
fn a_notification_ends_all_unless_both_offer_rfc_8538_and_a_hard_reset_always_does() {
    let message = |notification: bgp::wire::error::Notification| {
        let mut bytes = Vec::new();
        encode::notification(&notification, &mut bytes);
        bytes
    };
    let cease = || bgp::wire::error::Notification { code: 6, subcode: 2, data: Vec::new() };
    for (agreed, sent, left) in [
        (false, cease(), 0),
        (true, cease(), 2),
        (true, cease().hard_reset(), 0),
        (false, cease().hard_reset(), 0),
    ] {
        let mut hand = Hand::new(
            Some(Restart { notification: agreed, families: both(true) }),
            &two_prefixes(),
        );
        hand.net.nodes[0].speaker.receive(hand.net.now, hand.conn, &message(sent));
        hand.net.settle();
        assert_eq!(hand.prefixes().len(), left, "agreed {agreed}");
    }
}

#[test]
fn without_graceful_restart_a_second_connection_does_not_disturb_the_session() {
    let mut hand = Hand::new(None, &two_prefixes());
    hand.net.run(5 * SECOND);
    let remote = SocketAddr::new(address(1), 50_001);
    let local = SocketAddr::new(address(0), 179);
    let now = hand.net.now;
    assert!(hand.net.nodes[0].speaker.accept(now, remote, local).is_err());
    assert_eq!(hand.net.established(0), 1);
}

#[test]
fn a_stranger_connection_without_an_open_does_not_end_the_session() {
    let mut hand =
        Hand::new(Some(Restart { notification: true, families: both(true) }), &two_prefixes());
    hand.net.run(5 * SECOND);
    let remote = SocketAddr::new(address(1), 50_001);
    let local = SocketAddr::new(address(0), 179);
    let now = hand.net.now;
    let second = hand.net.nodes[0].speaker.accept(now, remote, local).unwrap();
    hand.net.settle();
    assert_eq!(hand.net.established(0), 1, "its OPEN is awaited");
    hand.net.nodes[0].speaker.closed(now, second, "closed".to_owned());
    let mut keepalive = Vec::new();
    encode::keepalive(&mut keepalive);
    for _ in 0..4 {
        hand.net.run(60 * SECOND);
        hand.net.nodes[0].speaker.receive(hand.net.now, hand.conn, &keepalive);
    }
    assert_eq!(hand.net.established(0), 1);
}

#[test]
fn the_r_bit_is_set_after_a_start_and_not_later() {
    let settings = || {
        let graceful_restart = Some(GracefulRestart::of(PeerKind::Mesh));
        let active = PeerConfig { graceful_restart, ..peer(0, 1, 64512) };
        Config { peers: vec![active], ..config(0, 64512) }
    };
    let r_bit = |speaker: &mut Speaker, now| -> bool {
        let conn = std::iter::from_fn(|| speaker.poll_output()).find_map(|output| match output {
            Output::Connect { conn, peer, .. } if peer == address(1) => Some(conn),
            _ => None,
        });
        let conn = conn.unwrap();
        speaker.connected(now, conn, SocketAddr::new(address(0), 40_000));
        let mut out = Vec::new();
        speaker.transmit(now, conn, &mut out, 4096);
        let (kind, len) = bgp::wire::frame(&out[0], 4096).unwrap().unwrap();
        assert_eq!((kind, len), (bgp::wire::MessageType::Open, out[0].len()));
        let decoded = bgp::wire::decode(&out[0], &bgp::wire::Context::OPENING).unwrap();
        let bgp::wire::Message::Open(open) = decoded else { panic!("an OPEN") };
        open.capabilities.iter().any(|capability| {
            matches!(capability, Capability::GracefulRestart { restarted: true, .. })
        })
    };
    let now = Net::new(Vec::new()).now;
    let mut young = Speaker::new(now, settings());
    assert!(r_bit(&mut young, now));
    let mut old = Speaker::new(now, config(0, 64512));
    let later = now + 121 * SECOND;
    old.configure(later, settings());
    assert!(!r_bit(&mut old, later));
}

/// Node 0 with an external peer at node 1.
fn uplink(multihop: Option<u8>) -> Net {
    let towards = |of: usize, asn: u32| PeerConfig {
        passive: of == 0,
        ebgp_multihop: multihop,
        graceful_restart: Some(GracefulRestart::of(PeerKind::Tor)),
        ..peer(of, 1 - of, asn)
    };
    let mut net = Net::new(vec![
        Config { peers: vec![towards(0, 65001)], ..config(0, 64512) },
        Config { peers: vec![towards(1, 64512)], ..config(1, 65001) },
    ]);
    crate::originate(&mut net, 1);
    net.settle();
    assert_eq!(net.nodes[0].fib.len(), 2);
    net
}

#[test]
fn a_link_that_fails_ends_the_session_over_it_at_once_and_keeps_nothing() {
    let link = ["10.0.0.0/24", "172.16.0.0/12"].map(crate::speaker_net::net).to_vec();
    for (multihop, left) in [(None, 0), (Some(2), 2)] {
        let mut net = uplink(multihop);
        let now = net.now;
        net.nodes[0].speaker.set_connected(now, link.clone());
        net.settle();
        assert_eq!(net.nodes[0].fib.len(), 2, "nothing has changed yet");
        net.unreachable.insert(0);
        net.nodes[0].speaker.set_connected(now, link[1..].to_vec());
        net.settle();
        assert_eq!(net.nodes[0].fib.len(), left);
        let down = |event: &SpeakerEvent| {
            matches!(event, SpeakerEvent::SessionDown { reason: DownReason::LinkDown, .. })
        };
        assert_eq!(net.nodes[0].events.iter().any(down), left == 0);
        net.unreachable.clear();
        net.nodes[0].speaker.set_connected(now, link.clone());
        net.run(60 * SECOND);
        assert_eq!((net.nodes[0].fib.len(), net.established(0)), (2, 1));
    }
}

#[test]
fn a_peer_whose_link_is_back_is_dialled_without_waiting() {
    let link = vec![crate::speaker_net::net("10.0.0.0/24")];
    let mut net = uplink(None);
    let now = net.now;
    net.nodes[1].speaker.set_connected(now, link.clone());
    net.unreachable.extend([0, 1]);
    net.nodes[1].speaker.set_connected(now, Vec::new());
    // Long enough for the back-off to be at its longest.
    net.run(600 * SECOND);
    assert_eq!(net.established(0), 0);
    net.unreachable.clear();
    let now = net.now;
    net.nodes[1].speaker.set_connected(now, link);
    net.settle();
    assert_eq!(net.established(0), 1);
}

#[test]
fn paths_kept_for_a_restart_go_with_the_link() {
    let link = vec![crate::speaker_net::net("10.0.0.0/24")];
    let mut net = uplink(None);
    let now = net.now;
    net.nodes[0].speaker.set_connected(now, link);
    net.kill(1);
    net.settle();
    assert_eq!(net.nodes[0].fib.len(), 2);
    net.nodes[0].speaker.set_connected(now, Vec::new());
    net.settle();
    assert!(net.nodes[0].fib.is_empty());
}

#[test]
fn prefixes_that_lost_their_next_hop_are_told_and_not_counted_as_sent() {
    let settings = |next_hop_v6| {
        let towards = PeerConfig { next_hop_v6, ..peer(0, 1, 64512) };
        Config { peers: vec![towards], ..config(0, 64512) }
    };
    let with = settings(Some(crate::speaker_net::next_hop_v6(0)));
    let other = Config { peers: vec![peer(1, 0, 64512)], ..config(1, 64512) };
    let mut net = Net::new(vec![with.clone(), other]);
    crate::originate(&mut net, 0);
    net.settle();
    let state = |net: &Net| {
        let view = &net.nodes[0].speaker.peers(net.now)[0];
        (view.sent, view.no_next_hop, net.nodes[1].fib.len())
    };
    assert_eq!(state(&net), (2, 0, 2));
    let now = net.now;
    net.nodes[0].speaker.configure(now, settings(None));
    net.settle();
    assert_eq!(state(&net), (1, 1, 1));
    net.nodes[0].speaker.configure(now, with);
    net.settle();
    assert_eq!(state(&net), (2, 0, 2));
    let told: Vec<usize> = net.nodes[0]
        .events
        .iter()
        .filter_map(|event| match event {
            SpeakerEvent::Withheld { prefixes, .. } => Some(*prefixes),
            _ => None,
        })
        .collect();
    assert_eq!(told, [1, 0]);
    assert_eq!(net.established(0), 1);
}

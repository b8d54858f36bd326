//! Graceful restart: what stays of a peer that restarts, and when it goes (RFC 4724, RFC 8538).

#![expect(clippy::unwrap_used, reason = "test code: a failed assumption must fail the test")]

use std::net::SocketAddr;
use std::time::Duration;

use bgp::config::{Config, GracefulRestart, PeerConfig, PeerKind};
use bgp::speaker::{DownReason, SpeakerEvent};
use bgp::types::{Families, Family};
use bgp::view::{PeerView, RestartPhase, SessionState};
use proptest::prelude::*;

use crate::speaker_net::{Net, address, config, peer};
use crate::{originate, pod_cidrs};

const SECOND: Duration = Duration::from_secs(1);

/// Settings of `node` in a mesh of three, all with graceful restart as of `kind`.
fn node_config(node: usize, kind: PeerKind) -> Config {
    let peers = (0..3).filter(|other| *other != node).map(|other| PeerConfig {
        passive: false,
        graceful_restart: Some(GracefulRestart::of(kind)),
        ..peer(node, other, 64512)
    });
    Config { peers: peers.collect(), ..config(node, 64512) }
}

/// A settled mesh of three, each with its pod CIDRs, some seconds old.
fn mesh(kind: PeerKind) -> Net {
    let mut net = Net::new((0..3).map(|node| node_config(node, kind)).collect());
    for node in 0..3 {
        originate(&mut net, node);
    }
    net.run(5 * SECOND);
    assert!((0..3).all(|node| net.nodes[node].fib.len() == 6));
    net
}

fn restart(net: &mut Net, node: usize, config: Config) {
    net.start(node, config);
    originate(net, node);
    net.settle();
}

fn changes(net: &Net) -> Vec<usize> {
    net.nodes.iter().map(|node| node.fib_changes).collect()
}

/// What node 0 says of node 1.
fn view(net: &Net) -> PeerView {
    let peers = net.nodes[0].speaker.peers(net.now);
    peers.into_iter().find(|peer| peer.address == address(1)).unwrap()
}

fn has_routes_of(net: &Net, node: usize, of: usize) -> usize {
    pod_cidrs(of).iter().filter(|prefix| net.nodes[node].fib.contains_key(prefix)).count()
}

#[test]
fn a_killed_peer_comes_back_and_forwarding_never_changes() {
    for kind in [PeerKind::Mesh, PeerKind::Tor] {
        let mut net = mesh(kind);
        let before = changes(&net);
        net.kill(1);
        net.run(60 * SECOND);
        let away = view(&net);
        assert_eq!((away.state, away.restart.phase), (SessionState::Active, RestartPhase::Away));
        assert_eq!(away.restart.stale, [(Family::Ipv4, 1), (Family::Ipv6, 1)]);
        assert_eq!(away.restart.left, Some(60 * SECOND));
        assert_eq!((away.received, away.accepted), (2, 2));

        restart(&mut net, 1, node_config(1, kind));
        let back = view(&net);
        assert_eq!(
            (back.state, back.restart.phase),
            (SessionState::Established, RestartPhase::None)
        );
        assert!(back.restart.stale.is_empty() && back.restart.peer_restarted);
        net.run(600 * SECOND);
        assert_eq!([changes(&net)[0], changes(&net)[2]], [before[0], before[2]]);
        assert_eq!(view(&net).received, 2);
        let swept = |event: &SpeakerEvent| matches!(event, SpeakerEvent::StaleRemoved { .. });
        assert!(!net.nodes[0].events.iter().any(swept));
    }
}

#[test]
fn a_peer_that_does_not_come_back_loses_its_paths_at_the_restart_time() {
    let mut net = mesh(PeerKind::Mesh);
    net.kill(1);
    net.run(119 * SECOND);
    assert_eq!(has_routes_of(&net, 0, 1), 2);
    net.run(2 * SECOND);
    assert_eq!(has_routes_of(&net, 0, 1), 0);
    let told = SpeakerEvent::StaleRemoved { peer: address(1), paths: 2 };
    assert!(net.nodes[0].events.contains(&told));
    assert_eq!(view(&net).restart.phase, RestartPhase::None);
    restart(&mut net, 1, node_config(1, PeerKind::Mesh));
    net.run(60 * SECOND);
    assert_eq!(has_routes_of(&net, 0, 1), 2);
}

#[test]
fn what_is_not_sent_again_goes_with_end_of_rib_and_nothing_else_does() {
    let mut net = mesh(PeerKind::Mesh);
    let before = changes(&net)[0];
    net.kill(1);
    net.settle();
    net.start(1, node_config(1, PeerKind::Mesh));
    let [v4, v6] = pod_cidrs(1);
    let now = net.now;
    net.nodes[1].speaker.originate(now, &[v6]);
    net.settle();
    assert!(!net.nodes[0].fib.contains_key(&v4) && net.nodes[0].fib.contains_key(&v6));
    assert_eq!(changes(&net)[0], before + 1, "one removal");
}

#[test]
fn a_family_that_is_not_negotiated_any_more_loses_its_paths_at_once() {
    let mut net = mesh(PeerKind::Mesh);
    net.kill(1);
    net.settle();
    let mut config = node_config(1, PeerKind::Mesh);
    for peer in &mut config.peers {
        peer.families = Families { ipv4: false, ipv6: true };
    }
    restart(&mut net, 1, config);
    let [v4, v6] = pod_cidrs(1);
    let fib = &net.nodes[0].fib;
    assert!(!fib.contains_key(&v4) && fib.contains_key(&v6));
}

#[test]
fn a_silent_peer_keeps_its_paths_only_with_rfc_8538() {
    for (kind, left) in [(PeerKind::Mesh, 2), (PeerKind::Tor, 0)] {
        let mut net = mesh(kind);
        net.power_off(1);
        net.run(91 * SECOND);
        let expired = |event: &SpeakerEvent| {
            matches!(event, SpeakerEvent::SessionDown { reason: DownReason::HoldTimerExpired, .. })
        };
        assert!(net.nodes[0].events.iter().any(expired));
        assert_eq!(has_routes_of(&net, 0, 1), left, "{kind:?}");
        net.run(121 * SECOND);
        assert_eq!(has_routes_of(&net, 0, 1), 0, "{kind:?}");
    }
}

#[test]
fn an_operators_reset_costs_no_route_with_rfc_8538() {
    let mut net = mesh(PeerKind::Mesh);
    let before = changes(&net);
    let now = net.now;
    net.nodes[0].speaker.reset(now, SocketAddr::new(address(1), 179));
    net.run(60 * SECOND);
    assert_eq!(changes(&net), before);
    assert_eq!(view(&net).established_count, 2);
}

#[test]
fn a_peer_that_is_removed_takes_its_paths_along_even_while_it_restarts() {
    let mut net = mesh(PeerKind::Mesh);
    net.kill(1);
    net.settle();
    let now = net.now;
    let mut config = node_config(0, PeerKind::Mesh);
    config.peers.retain(|peer| peer.address != address(1));
    net.nodes[0].speaker.configure(now, config);
    net.settle();
    assert_eq!((has_routes_of(&net, 0, 1), has_routes_of(&net, 0, 2)), (0, 2));
    assert_eq!(net.nodes[0].speaker.summary().paths, 4);
}

#[test]
fn what_a_peer_may_not_announce_any_more_goes_while_it_restarts() {
    let mut net = mesh(PeerKind::Mesh);
    net.kill(1);
    net.settle();
    let now = net.now;
    let mut config = node_config(0, PeerKind::Mesh);
    config.peers[0].import = bgp::config::Policy::Accept(Vec::new());
    net.nodes[0].speaker.configure(now, config);
    net.settle();
    assert_eq!(has_routes_of(&net, 0, 1), 0);
    restart(&mut net, 1, node_config(1, PeerKind::Mesh));
    net.run(60 * SECOND);
    assert_eq!((has_routes_of(&net, 0, 1), view(&net).received), (0, 2));
}

#[test]
fn a_peer_killed_again_and_again_loses_nothing_that_it_sends_in_time() {
    let mut net = mesh(PeerKind::Mesh);
    let before = changes(&net);
    for _ in 0..5 {
        net.kill(1);
        net.run(20 * SECOND);
        // It connects and dies before it can say anything.
        net.start(1, node_config(1, PeerKind::Mesh));
        net.turn(1);
        net.turn(0);
        net.kill(1);
        net.run(SECOND);
    }
    assert_eq!(has_routes_of(&net, 0, 1), 2);
    restart(&mut net, 1, node_config(1, PeerKind::Mesh));
    net.run(60 * SECOND);
    assert_eq!([changes(&net)[0], changes(&net)[2]], [before[0], before[2]]);

    // But nothing is kept for ever: the time of the first end counts for what is not sent again.
    net.kill(1);
    for _ in 0..12 {
        net.run(10 * SECOND);
        net.start(1, node_config(1, PeerKind::Mesh));
        net.kill(1);
    }
    net.run(SECOND);
    assert_eq!(has_routes_of(&net, 0, 1), 0);
}

#[test]
fn a_new_session_of_a_restarted_peer_replaces_the_one_it_has_forgotten() {
    // Node 0 dials node 1, node 2 is dialled by node 1: the old session is outgoing or incoming.
    let mut net = mesh(PeerKind::Mesh);
    let before = changes(&net);
    net.power_off(1);
    net.run(5 * SECOND);
    restart(&mut net, 1, node_config(1, PeerKind::Mesh));
    net.run(5 * SECOND);
    for node in [0, 2] {
        assert_eq!(net.established(node), 2);
        assert_eq!(net.between(node, 1).len(), 1);
        let replaced = net.nodes[node].events.iter().any(|event| matches!(event,
            SpeakerEvent::SessionDown { peer, reason: DownReason::ConnectionLost(why), established: true }
                if *peer == address(1) && why.contains("restarted")));
        assert!(replaced, "{:?}", net.nodes[node].events);
    }
    net.run(300 * SECOND);
    assert_eq!([changes(&net)[0], changes(&net)[2]], [before[0], before[2]]);
}

/// What may happen to a mesh.
#[derive(Clone, Debug)]
enum Step {
    Kill(usize),
    PowerOff(usize),
    Start(usize),
    /// Which of its two prefixes a node originates.
    Originate(usize, [bool; 2]),
    Reset(usize, usize),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..3usize;
    prop_oneof![
        node.clone().prop_map(Step::Kill),
        node.clone().prop_map(Step::PowerOff),
        node.clone().prop_map(Step::Start),
        (node.clone(), any::<[bool; 2]>()).prop_map(|(node, which)| Step::Originate(node, which)),
        (node.clone(), node).prop_map(|(at, of)| Step::Reset(at, of)),
        (0..150u32).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn whatever_restarts_in_the_end_everybody_has_what_everybody_says(
        steps in prop::collection::vec(step(), 0..24)
    ) {
        let mut net = mesh(PeerKind::Mesh);
        let mut alive = [true; 3];
        let mut own = [[true; 2]; 3];
        let prefixes = |node: usize, which: [bool; 2]| -> Vec<ipnet::IpNet> {
            pod_cidrs(node).into_iter().zip(which).filter(|(_, on)| *on).map(|(p, _)| p).collect()
        };
        let start = |net: &mut Net, node: usize, which| {
            net.start(node, node_config(node, PeerKind::Mesh));
            let now = net.now;
            net.nodes[node].speaker.originate(now, &prefixes(node, which));
        };
        for step in steps {
            let now = net.now;
            match step {
                Step::Kill(node) if alive[node] => { net.kill(node); alive[node] = false; }
                Step::PowerOff(node) if alive[node] => { net.power_off(node); alive[node] = false; }
                Step::Start(node) if !alive[node] => {
                    start(&mut net, node, own[node]);
                    alive[node] = true;
                }
                Step::Originate(node, which) if alive[node] => {
                    own[node] = which;
                    net.nodes[node].speaker.originate(now, &prefixes(node, which));
                }
                Step::Reset(at, of) if alive[at] => net.nodes[at].speaker.reset(now, SocketAddr::new(address(of), 179)),
                Step::Wait(seconds) => net.run(seconds * SECOND),
                _ => {}
            }
            net.settle();
        }
        for node in 0..3 {
            if !alive[node] {
                start(&mut net, node, own[node]);
            }
        }
        net.run(400 * SECOND);
        let mut wanted: Vec<ipnet::IpNet> =
            (0..3).flat_map(|node| prefixes(node, own[node])).collect();
        wanted.sort_unstable();
        for node in &net.nodes {
            prop_assert_eq!(node.fib.keys().copied().collect::<Vec<_>>(), wanted.clone());
            prop_assert_eq!(node.speaker.summary().peers_established, 2);
            prop_assert!(node.speaker.peers(net.now).iter().all(|peer| peer.restart.stale.is_empty()));
        }
    }
}

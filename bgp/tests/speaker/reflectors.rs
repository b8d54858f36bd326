//! Reflectors that restart: their clients keep everything.

use std::time::Duration;

use bgp::config::{Config, GracefulRestart, PeerConfig, PeerKind};
use bgp::speaker::{DEFERRAL, SpeakerEvent};
use bgp::view::RestartPhase;

use crate::originate;
use crate::speaker_net::{Net, address, config, peer};

const SECOND: Duration = Duration::from_secs(1);
const REFLECTORS: [usize; 2] = [0, 1];
const CLIENTS: [usize; 4] = [2, 3, 4, 5];

fn node_config(node: usize) -> Config {
    let reflects = REFLECTORS.contains(&node);
    let others = if reflects { CLIENTS.to_vec() } else { REFLECTORS.to_vec() };
    let peers = others.into_iter().map(|other| PeerConfig {
        kind: PeerKind::Reflector,
        route_reflector_client: reflects,
        // A client comes back when it likes; a reflector does not look for it.
        passive: reflects,
        connect_retry: SECOND,
        graceful_restart: Some(GracefulRestart::of(PeerKind::Reflector)),
        ..peer(node, other, 64512)
    });
    Config { peers: peers.collect(), ..config(node, 64512) }
}

fn network() -> Net {
    let mut net = Net::new((0..6).map(node_config).collect());
    CLIENTS.into_iter().for_each(|node| originate(&mut net, node));
    net.run(DEFERRAL + SECOND);
    assert!(CLIENTS.into_iter().all(|node| net.nodes[node].fib.len() == 8));
    net
}

fn changes(net: &Net) -> Vec<usize> {
    CLIENTS.map(|node| net.nodes[node].fib_changes).to_vec()
}

fn end_of_ribs(net: &Net, node: usize) -> usize {
    let from_reflector = |event: &&SpeakerEvent| matches!(event, SpeakerEvent::EndOfRib { peer, .. } if *peer == address(0));
    net.nodes[node].events.iter().filter(from_reflector).count()
}

#[test]
fn all_reflectors_killed_at_once_cost_no_client_a_route() {
    let mut net = network();
    let before = changes(&net);
    for node in REFLECTORS {
        net.kill(node);
    }
    net.run(30 * SECOND);
    for node in REFLECTORS {
        net.start(node, node_config(node));
    }
    net.run(120 * SECOND);
    assert_eq!(changes(&net), before);
    for node in CLIENTS {
        assert_eq!(net.established(node), 2);
        let peers = net.nodes[node].speaker.peers(net.now);
        assert!(peers.iter().all(|peer| peer.restart.stale.is_empty() && peer.received == 8));
    }
}

#[test]
fn everything_killed_at_once_comes_back_without_waiting_for_each_other() {
    let mut net = network();
    (0..6).for_each(|node| net.kill(node));
    net.run(SECOND);
    for node in 0..6 {
        net.start(node, node_config(node));
        if CLIENTS.contains(&node) {
            originate(&mut net, node);
        }
    }
    net.run(10 * SECOND);
    assert!(CLIENTS.into_iter().all(|node| net.nodes[node].fib.len() == 8));
    assert!(CLIENTS.into_iter().all(|node| end_of_ribs(&net, node) == 2));
}

#[test]
fn a_reflector_says_that_this_is_everything_when_its_clients_have_or_after_half_a_minute() {
    let mut net = network();
    for node in [0, 1, 5] {
        net.kill(node);
    }
    net.run(SECOND);
    let before = changes(&net);
    net.nodes.iter_mut().for_each(|node| node.events.clear());
    let started = net.now;
    net.start(0, node_config(0));
    net.run(DEFERRAL - 5 * SECOND);
    assert_eq!(end_of_ribs(&net, 2), 0, "client 5 has not spoken");
    let peers = net.nodes[0].speaker.peers(net.now);
    let waits = peers.iter().filter(|peer| peer.restart.phase == RestartPhase::Restarting);
    assert_eq!(waits.count(), 3);
    net.run(6 * SECOND);
    assert!(net.now > started + DEFERRAL);
    assert_eq!(end_of_ribs(&net, 2), 2, "it does not wait for ever");
    // Routes are never held back, only the word that there are no more: the other reflector's
    // are still kept, and those of client 5 with them.
    assert_eq!(changes(&net)[..3], before[..3]);
}

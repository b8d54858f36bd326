//! The speaker as its driver sees it: configuration, bytes and time in, effects out.

#![expect(clippy::indexing_slicing, reason = "test code: a failed assumption fails the test")]

#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "test code: a failed assumption must fail the test, and a clock has to start somewhere"
)]
mod speaker_net;

mod crafted;
mod graceful;
mod parity;
mod reflectors;

use std::time::Duration;

use bgp::config::{Policy, PrefixMatch};
use bgp::rib::{Ineligible, LostBy, Verdict};
use bgp::speaker::{
    DownReason, FibOrigin, OpenRefusal, Output, PREFIX_LIMIT_PAUSE, Refusal, Speaker, SpeakerEvent,
};
use bgp::types::{Asn, Family};
use bgp::view::{PathFrom, SessionState};
use bgp::wire::error::Notification;
use speaker_net::{Net, address, config, net, next_hop_v6, peer};

/// A full iBGP mesh of `size` nodes.
fn mesh(size: usize) -> Net {
    let configs = (0..size).map(|node| {
        let peers = (0..size).filter(|other| *other != node);
        let peers = peers.map(|other| peer(node, other, 64512)).collect();
        bgp::config::Config { peers, ..config(node, 64512) }
    });
    Net::new(configs.collect())
}

/// Two nodes with these settings of each other.
fn pair(change: impl Fn(usize, &mut bgp::config::PeerConfig), asns: [u32; 2]) -> Net {
    let configs = [(0, 1), (1, 0)].map(|(node, other)| {
        let mut settings = peer(node, other, asns[other]);
        change(node, &mut settings);
        bgp::config::Config { peers: vec![settings], ..config(node, asns[node]) }
    });
    Net::new(configs.to_vec())
}

fn pod_cidrs(node: usize) -> [ipnet::IpNet; 2] {
    [net(&format!("10.244.{node}.0/24")), net(&format!("fd00:{node}::/64"))]
}

fn originate(net: &mut Net, node: usize) {
    net.nodes[node].speaker.originate(net.now, &pod_cidrs(node));
}

#[test]
fn a_mesh_routes_the_pod_cidrs_of_every_node_to_every_other() {
    let mut net = mesh(4);
    for node in 0..4 {
        originate(&mut net, node);
    }
    net.settle();
    for node in 0..4 {
        assert_eq!(net.established(node), 3);
        assert_eq!(net.nodes[node].fib.len(), 8);
        for other in 0..4 {
            let [v4, v6] = pod_cidrs(other);
            let fib = &net.nodes[node].fib;
            if other == node {
                assert_eq!(fib[&v4], (Vec::new(), FibOrigin::Own));
                assert_eq!(fib[&v6], (Vec::new(), FibOrigin::Own));
            } else {
                assert_eq!(fib[&v4], (vec![address(other)], FibOrigin::Learned));
                assert_eq!(fib[&v6], (vec![next_hop_v6(other).into()], FibOrigin::Learned));
            }
        }
    }
    // Keepalives keep it up, and nothing else is said.
    let changes: Vec<usize> = net.nodes.iter().map(|node| node.fib_changes).collect();
    net.run(Duration::from_secs(600));
    assert_eq!(net.nodes.iter().map(|node| node.fib_changes).collect::<Vec<_>>(), changes);
    assert!((0..4).all(|node| net.established(node) == 3));
}

#[test]
fn a_lost_connection_takes_its_routes_and_they_come_back() {
    let mut net = mesh(3);
    for node in 0..3 {
        originate(&mut net, node);
    }
    net.settle();
    let conn = net.between(0, 1)[0];
    net.unreachable.extend([0, 1]);
    net.cut(0, conn, true);
    net.settle();
    for (node, gone) in [(0, 1), (1, 0)] {
        let left: Vec<_> = net.nodes[node].fib.keys().copied().collect();
        assert!(pod_cidrs(gone).iter().all(|prefix| !left.contains(prefix)));
        assert_eq!(left.len(), 4);
        let down = net.nodes[node].events.iter().any(|event| {
            matches!(event, SpeakerEvent::SessionDown {
                peer, reason: DownReason::ConnectionLost(_), established: true,
            } if *peer == address(gone))
        });
        assert!(down, "{:?}", net.nodes[node].events);
    }
    assert_eq!(net.nodes[2].fib.len(), 6);
    net.unreachable.clear();
    net.run(Duration::from_secs(120));
    assert_eq!((net.nodes[0].fib.len(), net.nodes[1].fib.len()), (6, 6));
}

#[test]
fn a_silent_peer_is_dropped_after_the_hold_time() {
    let mut net = mesh(2);
    originate(&mut net, 1);
    net.settle();
    let conn = net.between(1, 0)[0];
    net.stuck.insert((1, conn));
    net.unreachable.insert(0);
    net.run(Duration::from_secs(89));
    assert_eq!(net.nodes[0].fib.len(), 2);
    net.run(Duration::from_secs(2));
    assert_eq!(net.nodes[0].fib.len(), 0);
    assert!(net.nodes[0].events.iter().any(|event| matches!(
        event,
        SpeakerEvent::SessionDown { reason: DownReason::HoldTimerExpired, established: true, .. }
    )));
}

#[test]
fn two_switches_of_different_as_share_traffic_and_both_are_told_why() {
    // 0 is the node, 1 and 2 are switches that originate the default routes.
    let mut node = config(0, 64512);
    node.peers = vec![peer(0, 1, 65001), peer(0, 2, 65002)];
    let switch = |n: usize| {
        let mut settings = peer(n, 0, 64512);
        settings.default_originate = true;
        bgp::config::Config {
            peers: vec![settings],
            ..config(n, 65000 + u32::try_from(n).unwrap())
        }
    };
    let mut net = Net::new(vec![node, switch(1), switch(2)]);
    originate(&mut net, 0);
    net.settle();
    assert_eq!(net.next_hops(0, "0.0.0.0/0"), [address(1), address(2)]);
    assert_eq!(net.next_hops(0, "::/0"), [next_hop_v6(1), next_hop_v6(2)]);
    assert_eq!(net.next_hops(1, "10.244.0.0/24"), [address(0)]);
    let routes = net.nodes[0].speaker.routes(net.now);
    let default = routes.iter().find(|route| route.prefix == speaker_net::net("::/0")).unwrap();
    let verdicts: Vec<Verdict> = default.paths.iter().map(|path| path.verdict).collect();
    assert_eq!(verdicts, [Verdict::Best, Verdict::Multipath(LostBy::RouterId)]);
    assert_eq!(default.next_hops.len(), 2);
    let conn = net.between(0, 2)[0];
    net.unreachable.insert(2);
    net.cut(0, conn, true);
    net.settle();
    assert_eq!(net.next_hops(0, "0.0.0.0/0"), [address(1)]);
    assert_eq!(net.next_hops(0, "::/0"), [next_hop_v6(1)]);
}

#[test]
fn an_external_peer_without_policy_takes_and_gives_only_what_is_our_own() {
    let mut net = pair(
        |node, settings| {
            if node == 0 {
                settings.import = Policy::OwnOnly;
                settings.export = Policy::OwnOnly;
            }
        },
        [64512, 65001],
    );
    originate(&mut net, 1);
    net.settle();
    originate(&mut net, 0);
    net.settle();
    assert_eq!(net.nodes[0].fib.len(), 2, "own prefixes only");
    assert_eq!(net.nodes[1].fib.len(), 4);
    let view = &net.nodes[0].speaker.peers(net.now)[0];
    assert_eq!((view.received, view.accepted, view.sent), (2, 0, 2));
}

#[test]
fn reflectors_connect_clients_and_nothing_survives_its_withdrawal() {
    for same_cluster in [false, true] {
        // 0 and 1 reflect, 2 to 5 are clients of both.
        let mut configs: Vec<_> = (0..6).map(|node| config(node, 64512)).collect();
        for node in 0..6 {
            let others = (0..6).filter(|other| *other != node && (node < 2 || *other < 2));
            configs[node].peers = others
                .map(|other| bgp::config::PeerConfig {
                    route_reflector_client: node < 2 && other >= 2,
                    ..peer(node, other, 64512)
                })
                .collect();
            if same_cluster && node == 1 {
                configs[1].cluster_id = configs[0].cluster_id;
            }
        }
        let mut net = Net::new(configs);
        for node in 2..6 {
            originate(&mut net, node);
        }
        net.settle();
        for node in 2..6 {
            assert_eq!(net.nodes[node].fib.len(), 8);
            assert_eq!(net.next_hops(node, "10.244.2.0/24").len(), usize::from(node != 2));
        }
        let now = net.now;
        net.nodes[2].speaker.originate(now, &[]);
        net.settle();
        for node in 0..6 {
            assert_eq!(net.next_hops(node, "10.244.2.0/24"), [] as [std::net::IpAddr; 0]);
            let summary = net.nodes[node].speaker.summary();
            assert_eq!(summary.prefixes, 6, "a ghost at {node}");
        }
        // One reflector dies: nobody loses a route.
        let before: Vec<usize> = net.nodes.iter().map(|node| node.fib.len()).collect();
        net.unreachable.insert(0);
        for client in 1..6 {
            for conn in net.between(0, client) {
                net.cut(0, conn, true);
            }
        }
        net.settle();
        let after: Vec<usize> = net.nodes.iter().map(|node| node.fib.len()).collect();
        assert_eq!(after[1..], before[1..]);
    }
}

#[test]
fn a_wrong_as_is_refused_on_both_sides_with_what_was_expected_and_got() {
    let mut net = pair(
        |node, settings| {
            if node == 0 {
                settings.asn = Asn(65009);
            }
        },
        [64512, 65001],
    );
    net.run(Duration::from_secs(1));
    let refused = SpeakerEvent::OpenRefused {
        peer: address(1),
        reason: OpenRefusal::BadPeerAs { expected: Asn(65009), got: Asn(65001) },
    };
    assert!(net.nodes[0].events.contains(&refused), "{:?}", net.nodes[0].events);
    let told = net.nodes[1].events.iter().any(|event| {
        matches!(
            event,
            SpeakerEvent::SessionDown {
                reason: DownReason::NotificationReceived(Notification { code: 2, subcode: 2, .. }),
                ..
            }
        )
    });
    assert!(told, "{:?}", net.nodes[1].events);
    let view = &net.nodes[0].speaker.peers(net.now)[0];
    assert_eq!(view.last_error.as_ref().unwrap().event, refused);
    assert_ne!(view.state, SessionState::Established);
}

#[test]
fn a_stranger_is_refused_and_named() {
    let mut net = mesh(2);
    let remote = "192.0.2.66:50000".parse().unwrap();
    let local = "10.0.0.1:179".parse().unwrap();
    let now = net.now;
    let refused = net.nodes[0].speaker.accept(now, remote, local);
    assert_eq!(refused, Err(Refusal::UnknownPeer));
    net.settle();
    assert!(net.nodes[0].events.contains(&SpeakerEvent::UnknownNeighbour { remote }));
}

#[test]
fn too_many_prefixes_end_the_session_until_a_pause_is_over() {
    let limit = |node: usize, settings: &mut bgp::config::PeerConfig| {
        if node == 0 {
            settings.max_prefixes = Some(1);
        }
    };
    let mut net = pair(limit, [64512, 64512]);
    net.settle();
    originate(&mut net, 1);
    net.settle();
    let peer = address(1);
    assert!(net.nodes[0].events.contains(&SpeakerEvent::PrefixLimit { peer, limit: 1 }));
    assert!(net.nodes[1].events.iter().any(|event| matches!(
        event,
        SpeakerEvent::SessionDown {
            reason: DownReason::NotificationReceived(Notification { code: 6, subcode: 1, .. }),
            ..
        }
    )));
    assert_eq!((net.established(0), net.nodes[0].fib.len()), (0, 0));
    net.run(PREFIX_LIMIT_PAUSE - Duration::from_secs(1));
    assert_eq!(net.established(0), 0);
    let now = net.now;
    net.nodes[1].speaker.originate(now, &pod_cidrs(1)[..1]);
    net.run(Duration::from_secs(120));
    assert_eq!((net.established(0), net.nodes[0].fib.len()), (1, 1));
}

#[test]
fn a_raised_prefix_limit_ends_the_pause() {
    let mut net =
        pair(|node, settings| settings.max_prefixes = (node == 0).then_some(1), [64512, 64512]);
    originate(&mut net, 1);
    net.run(Duration::from_secs(10));
    assert_eq!(net.established(0), 0);
    let mut settings = config(0, 64512);
    settings.peers = vec![peer(0, 1, 64512)];
    let now = net.now;
    net.nodes[0].speaker.configure(now, settings);
    net.run(Duration::from_secs(120));
    assert_eq!((net.established(0), net.nodes[0].fib.len()), (1, 2));
}

#[test]
fn new_policies_take_effect_on_the_live_session() {
    let mut net = pair(|_, _| {}, [64512, 65001]);
    originate(&mut net, 0);
    originate(&mut net, 1);
    net.settle();
    assert_eq!((net.nodes[0].fib.len(), net.nodes[1].fib.len()), (4, 4));
    let v4_only = vec![PrefixMatch { prefix: net_of("10.0.0.0/8"), min_length: 8, max_length: 32 }];
    let mut settings = config(0, 64512);
    settings.peers = vec![peer(0, 1, 65001)];
    let all = settings.clone();
    settings.peers[0].import = Policy::Accept(v4_only);
    let now = net.now;
    net.nodes[0].speaker.configure(now, settings);
    net.settle();
    assert_eq!(net.nodes[0].fib.len(), 3);
    net.nodes[0].speaker.configure(now, all);
    net.settle();
    assert_eq!(net.nodes[0].fib.len(), 4, "asked for again by ROUTE-REFRESH");
    let view = &net.nodes[0].speaker.peers(net.now)[0];
    assert_eq!((view.established_count, view.messages_sent.route_refresh), (1, 4));
    let theirs = &net.nodes[1].speaker.peers(net.now)[0];
    assert_eq!(theirs.messages_sent.route_refresh, 8, "BoRR and EoRR for each request");
}

fn net_of(text: &str) -> ipnet::IpNet {
    net(text)
}

#[test]
fn an_unchanged_peer_keeps_its_session_when_others_come_and_go() {
    let mut net = mesh(3);
    net.settle();
    let conn = net.between(0, 1);
    let mut settings = config(0, 64512);
    settings.peers = vec![peer(0, 1, 64512)];
    let now = net.now;
    net.nodes[0].speaker.configure(now, settings.clone());
    net.settle();
    assert_eq!((net.between(0, 1), net.between(0, 2).len()), (conn.clone(), 0));
    assert!(net.nodes[2].events.iter().any(|event| matches!(
        event,
        SpeakerEvent::SessionDown {
            reason: DownReason::NotificationReceived(Notification { code: 6, subcode: 3, .. }),
            established: true,
            ..
        }
    )));
    assert_eq!(net.nodes[0].speaker.peers(now).len(), 1);
    settings.peers.push(peer(0, 2, 64512));
    net.nodes[0].speaker.configure(now, settings);
    net.run(Duration::from_secs(120));
    assert_eq!((net.between(0, 1), net.established(0)), (conn, 2));
}

#[test]
fn a_new_identity_resets_every_session_and_the_routes_come_back() {
    let mut net = mesh(3);
    originate(&mut net, 1);
    net.settle();
    let mut settings = config(0, 64512);
    settings.peers = vec![peer(0, 1, 64512), peer(0, 2, 64512)];
    settings.cluster_id = "10.9.9.9".parse().unwrap();
    let before = net.between(0, 1);
    let now = net.now;
    net.nodes[0].speaker.configure(now, settings);
    net.run(Duration::from_secs(60));
    assert_ne!(net.between(0, 1), before);
    assert_eq!((net.established(0), net.nodes[0].fib.len()), (2, 2));
}

#[test]
fn an_operator_resets_a_peer_and_it_comes_back() {
    let mut net = mesh(2);
    net.settle();
    let before = net.between(0, 1);
    let now = net.now;
    net.nodes[0].speaker.reset(now, (address(1), 179).into());
    net.run(Duration::from_secs(60));
    assert_eq!(net.established(0), 1);
    assert_ne!(net.between(0, 1), before);
}

#[test]
fn a_peer_that_does_not_read_costs_nothing_and_is_given_up_after_the_send_hold_time() {
    let mut net = mesh(3);
    net.settle();
    let conn = net.between(0, 1)[0];
    net.stuck.insert((0, conn));
    net.nodes[0].speaker.limit_log(2000);
    let prefixes: Vec<ipnet::IpNet> =
        (0..200).map(|n| speaker_net::net(&format!("10.{n}.0.0/16"))).collect();
    for _ in 0..50 {
        let now = net.now;
        net.nodes[0].speaker.originate(now, &prefixes);
        net.settle();
        net.nodes[0].speaker.originate(now, &prefixes[..100]);
        net.settle();
    }
    assert_eq!(net.nodes[2].fib.len(), 100, "others are served as ever");
    assert_eq!(net.nodes[1].fib.len(), 0);
    net.run(Duration::from_secs(600));
    let expired = net.nodes[0].events.iter().any(|event| {
        matches!(
            event,
            SpeakerEvent::SessionDown {
                reason: DownReason::SendHoldTimerExpired | DownReason::NotificationReceived(_),
                ..
            }
        )
    });
    assert!(expired, "{:?}", net.nodes[0].events);
}

#[test]
fn garbage_ends_one_session_and_disturbs_no_other() {
    let mut net = mesh(3);
    originate(&mut net, 2);
    net.settle();
    let conn = net.between(0, 1)[0];
    let now = net.now;
    net.nodes[0].speaker.receive(now, conn, &[0; 64]);
    net.settle();
    let peer = address(1);
    assert!(net.nodes[0].events.iter().any(|event| {
        matches!(event, SpeakerEvent::MalformedMessage { peer: who, .. } if *who == peer)
    }));
    let view = &net.nodes[0].speaker.peers(net.now)[0];
    assert_eq!((view.address, view.malformed.session_reset), (peer, 1));
    assert_eq!((net.established(0), net.nodes[0].fib.len()), (1, 2));
}

#[test]
fn a_path_with_our_own_as_is_kept_and_told_but_not_used() {
    // 0 and 2 are in one AS, with 1 of another between them.
    let mut configs = vec![config(0, 64512), config(1, 65001), config(2, 64512)];
    configs[0].peers = vec![peer(0, 1, 65001)];
    configs[1].peers = vec![peer(1, 0, 64512), peer(1, 2, 64512)];
    configs[2].peers = vec![peer(2, 1, 65001)];
    let mut net = Net::new(configs);
    originate(&mut net, 0);
    net.settle();
    assert_eq!((net.nodes[1].fib.len(), net.nodes[2].fib.len()), (2, 0));
    let routes = net.nodes[2].speaker.routes(net.now);
    assert_eq!(routes.len(), 2);
    for route in routes {
        assert_eq!(route.paths[0].verdict, Verdict::Ineligible(Ineligible::AsLoop));
        assert!(matches!(&route.paths[0].from, PathFrom::Peer { name, .. } if name == "n1"));
    }
    let view = &net.nodes[2].speaker.peers(net.now)[0];
    assert_eq!((view.received, view.accepted), (2, 0));
}

#[test]
fn views_tell_what_is_established() {
    let mut net = mesh(2);
    originate(&mut net, 0);
    originate(&mut net, 1);
    net.run(Duration::from_secs(100));
    let view = &net.nodes[0].speaker.peers(net.now)[0];
    assert_eq!(view.state, SessionState::Established);
    assert_eq!(view.families, Family::ALL);
    assert_eq!(view.local_address, Some(address(0)));
    assert_eq!((view.received, view.accepted, view.sent), (2, 2, 2));
    assert_eq!(view.hold_time, Duration::from_secs(90));
    assert!(view.since >= Duration::from_secs(99));
    assert!(view.messages_received.keepalive > 2 && view.messages_sent.update > 1);
    let routes = net.nodes[0].speaker.routes(net.now);
    assert_eq!(routes.len(), 4);
    let own = routes.iter().find(|route| route.prefix == pod_cidrs(0)[0]).unwrap();
    assert_eq!((&own.paths[0].from, own.paths[0].verdict), (&PathFrom::Local, Verdict::Best));
    let theirs = routes.iter().find(|route| route.prefix == pod_cidrs(1)[0]).unwrap();
    assert!(theirs.paths[0].age >= Duration::from_secs(99));
    let summary = net.nodes[0].speaker.summary();
    assert_eq!((summary.prefixes, summary.paths, summary.update_groups), (4, 4, 1));
}

#[test]
fn a_reflector_without_fib_forwards_nothing() {
    let now = mesh(0).now;
    let mut speaker = Speaker::new(now, config(0, 64512)).without_fib();
    speaker.originate(now, &pod_cidrs(0));
    speaker.flush(now);
    assert!(
        !std::iter::from_fn(|| speaker.poll_output())
            .any(|output| matches!(output, Output::FibChange { .. }))
    );
    assert_eq!(speaker.summary().prefixes, 2);
}

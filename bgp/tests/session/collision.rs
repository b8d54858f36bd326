//! Both ends connect at the same time; one connection must remain.

use std::time::Duration;

use bgp::session::{Fault, State};

use crate::dut::{Dut, SECOND, bytes_of, config, keepalive, open};
use crate::link::World;

const LATENCY: Duration = Duration::from_millis(40);

#[test]
fn simultaneous_open_leaves_one_connection_for_every_seed() {
    let (mut collided, mut losers_told) = (0, 0);
    for seed in 0..1000 {
        let mut world = World::new(seed, LATENCY);
        world.start(0);
        let head_start = world.dice(2000);
        world.run(Duration::from_micros(head_start));
        world.start(1);
        world.run(2 * SECOND);
        assert!(world.both_established(), "seed {seed}: {:?}", world.states());
        assert!(world.same_connection(), "seed {seed}");
        assert_eq!(world.connections(), 1, "seed {seed}");
        let ups = world.nodes.each_ref().map(|node| node.ups);
        assert_eq!(ups, [1, 1], "seed {seed}: a session came up and was lost");
        for told in &world.notifications {
            assert_eq!(*told, (6, 7), "seed {seed}");
        }
        losers_told += world.notifications.len();
        for fault in world.nodes.iter().flat_map(|node| &node.faults) {
            // A dial given up in favour of the other connection, seen by a peer that has not
            // heard on the other one yet.
            assert!(matches!(fault, Fault::ConnectionLost(_)), "seed {seed}: {fault}");
        }
        collided += usize::from(world.most_connections == 2);
        // And it stays.
        world.run(600 * SECOND);
        assert!(world.both_established(), "seed {seed}");
        assert_eq!(world.nodes.each_ref().map(|node| node.ups), [1, 1], "seed {seed}");
    }
    assert!(collided > 500, "only {collided} of 1000 runs had a collision at all");
    assert!(losers_told > 500, "{losers_told}");
}

#[test]
fn equal_identifiers_in_different_ases_end_with_one_connection_too() {
    for seed in 0..200 {
        let mut world = World::with(seed, LATENCY, [65001, 65002], [7, 7], &|_| {});
        world.start(0);
        world.start(1);
        world.run(2 * SECOND);
        assert!(world.both_established() && world.same_connection(), "seed {seed}");
        assert_eq!(world.connections(), 1, "seed {seed}");
    }
}

#[test]
fn a_peer_whose_connections_are_reset_at_any_moment_comes_back() {
    for seed in 0..500 {
        let mut world = World::new(seed, LATENCY);
        world.start(0);
        world.start(1);
        let moment = world.dice(400_000);
        world.run(Duration::from_micros(moment));
        world.reset_all();
        world.run(10 * SECOND);
        assert!(world.both_established(), "seed {seed}: {:?} after a reset", world.states());
        assert!(world.same_connection(), "seed {seed}");
        assert_eq!(world.connections(), 1, "seed {seed}");
    }
}

#[test]
fn one_passive_end_is_enough_to_come_up() {
    for seed in 0..100 {
        let passive = seed % 2;
        let mut world = World::with(seed, LATENCY, [65001, 65002], [1, 2], &|config| {
            let first = config.address == std::net::IpAddr::from([192, 0, 2, 1]);
            config.passive = first == (passive == 0);
        });
        world.start(0);
        world.start(1);
        world.run(10 * SECOND);
        assert!(world.both_established(), "seed {seed}: {:?}", world.states());
        assert_eq!(world.most_connections, 1, "seed {seed}");
    }
}

#[test]
fn an_established_session_is_not_displaced_by_a_newcomer() {
    // The peer has the higher identifier, so its new connection would win any other collision.
    let mut dut = Dut::started(config());
    let session = dut.connected();
    dut.send(session, &bytes_of(&open()));
    dut.send(session, &keepalive());
    assert_eq!(dut.peer.established(), Some(session));
    let newcomer = dut.accept().unwrap();
    dut.send(newcomer, &bytes_of(&open()));
    assert_eq!(dut.told(), [(6, 7)]);
    assert_eq!(dut.log.closed, [newcomer]);
    assert_eq!(dut.peer.established(), Some(session));
    // Nor by garbage, and the peer is not punished for it.
    let newcomer = dut.accept().unwrap();
    dut.send(newcomer, b"SSH-2.0-OpenSSH_9.2p1 Debian-2");
    assert_eq!(dut.told(), [(6, 7), (1, 1)]);
    assert_eq!(dut.peer.established(), Some(session));
    assert!(dut.accept().is_ok());
}

#[test]
fn the_loser_is_told_and_the_winner_goes_on() {
    // Their identifier is higher: theirs wins, whichever OPEN comes first.
    let mut dut = Dut::started(config());
    let ours = dut.connected();
    let theirs = dut.accept().unwrap();
    dut.send(theirs, &bytes_of(&open()));
    assert_eq!((dut.told(), &dut.log.closed[..]), (vec![(6, 7)], &[ours][..]));
    dut.send(theirs, &keepalive());
    assert_eq!(dut.peer.established(), Some(theirs));

    let mut dut = Dut::started(config());
    let ours = dut.connected();
    let theirs = dut.accept().unwrap();
    dut.send(ours, &bytes_of(&open()));
    dut.send(ours, &keepalive());
    // Held: no KEEPALIVE from us, so the peer cannot establish it, and neither do we.
    assert!(dut.log.keepalives.is_empty());
    assert_eq!(dut.peer.state(), State::OpenConfirm);
    dut.send(theirs, &bytes_of(&open()));
    assert_eq!((dut.told(), &dut.log.closed[..]), (vec![(6, 7)], &[ours][..]));
    dut.send(theirs, &keepalive());
    assert_eq!(dut.peer.established(), Some(theirs));
    assert_eq!(dut.log.ups, 1);
}

#[test]
fn a_held_connection_goes_on_when_the_winner_fails_or_stays_silent() {
    for fails in [true, false] {
        let mut dut = Dut::started(config());
        let ours = dut.connected();
        let theirs = dut.accept().unwrap();
        dut.send(ours, &bytes_of(&open()));
        dut.send(ours, &keepalive());
        if fails {
            dut.closed(theirs);
        } else {
            dut.advance(4 * SECOND);
            assert_eq!(dut.peer.state(), State::OpenConfirm);
            dut.advance(SECOND);
            assert_eq!(dut.log.closed, [theirs]);
        }
        assert_eq!(dut.peer.established(), Some(ours));
        assert_eq!(dut.log.keepalives.len(), 1);
    }
}

#[test]
fn an_inbound_session_ends_our_own_attempts_until_it_is_lost() {
    let (mut dut, conn) = Dut::established(config());
    let (_, dial) = dut.log.dialled[0];
    assert_eq!(dut.log.closed, [dial]);
    for _ in 0..20 {
        dut.advance(30 * SECOND);
        dut.send(conn, &keepalive());
    }
    assert_eq!(dut.log.dialled.len(), 1);
    dut.closed(conn);
    assert_eq!(dut.peer.state(), State::Active);
    dut.advance(5 * SECOND);
    assert_eq!(dut.log.dialled.len(), 2);
    assert!(matches!(dut.log.faults.last(), Some((_, Fault::ConnectionLost(_)))));
}

//! What happens when, to the second.

use std::time::Duration;

use bgp::config::PeerConfig;
use bgp::session::{Fault, State};
use bgp::wire::open::Open;

use crate::dut::{Dut, SECOND, bytes_of, config, keepalive, open};

#[test]
fn a_peer_that_sends_nothing_is_closed_after_240_seconds() {
    let passive = PeerConfig { passive: true, ..config() };
    let (mut dut, conn) = Dut::accepted(passive);
    dut.advance(240 * SECOND - Duration::from_millis(1));
    assert_eq!(dut.peer.state(), State::OpenSent);
    dut.advance(Duration::from_millis(1));
    assert_eq!((dut.told(), &dut.log.closed[..]), (vec![(4, 0)], &[conn][..]));
}

#[test]
fn a_peer_that_is_silent_after_its_open_is_closed_after_the_hold_time() {
    let (mut dut, conn) = Dut::accepted(config());
    dut.advance(10 * SECOND);
    dut.send(conn, &bytes_of(&Open { hold_time_seconds: 30, ..open() }));
    assert_eq!(dut.peer.state(), State::OpenConfirm);
    dut.advance(30 * SECOND - Duration::from_millis(1));
    assert_eq!(dut.peer.state(), State::OpenConfirm);
    dut.advance(Duration::from_millis(1));
    assert_eq!(dut.told(), [(4, 0)]);
    assert_eq!(dut.log.faults.last().unwrap().1, Fault::HoldTimerExpired(State::OpenConfirm));
}

#[test]
fn the_hold_time_begins_again_with_each_keepalive_and_update() {
    let (mut dut, conn) = Dut::established(config());
    let mut end_of_rib = Vec::new();
    bgp::wire::encode::end_of_rib(bgp::types::Family::Ipv4, &mut end_of_rib);
    for bytes in [keepalive(), end_of_rib] {
        dut.advance(89 * SECOND);
        dut.send(conn, &bytes);
    }
    dut.advance(90 * SECOND - Duration::from_millis(1));
    assert_eq!(dut.peer.state(), State::Established);
    dut.advance(Duration::from_millis(1));
    assert_eq!(dut.told(), [(4, 0)]);
    assert_eq!(dut.log.faults.last().unwrap().1, Fault::HoldTimerExpired(State::Established));
}

#[test]
fn a_route_refresh_is_no_sign_of_life() {
    let (mut dut, conn) = Dut::established(config());
    dut.advance(60 * SECOND);
    dut.send(conn, &crate::dut::message(5, "0001 00 01"));
    dut.advance(30 * SECOND);
    assert_eq!(dut.told(), [(4, 0)]);
}

#[test]
fn keepalives_leave_every_third_of_the_hold_time_or_a_little_earlier() {
    let (mut dut, conn) = Dut::established(config());
    for _ in 0..200 {
        dut.advance(30 * SECOND);
        dut.send(conn, &keepalive());
    }
    let gaps: Vec<_> = dut.log.keepalives.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps.len() > 200);
    let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    assert!(*least >= Duration::from_millis(22_500), "{least:?}");
    assert!(*most <= 30 * SECOND, "{most:?}");
    assert!(*most - *least > 5 * SECOND, "no jitter");
}

#[test]
fn o05_hold_time_zero_means_no_keepalives_and_no_end() {
    let (mut dut, conn) = Dut::accepted(config());
    dut.send(conn, &bytes_of(&Open { hold_time_seconds: 0, ..open() }));
    dut.send(conn, &keepalive());
    assert_eq!(dut.peer.state(), State::Established);
    assert_eq!(dut.log.keepalives.len(), 1, "the one that confirms");
    dut.advance(Duration::from_secs(24 * 3600));
    assert_eq!(dut.peer.state(), State::Established);
    assert_eq!(dut.log.keepalives.len(), 1);
    assert!(dut.told().is_empty());
}

#[test]
fn a_peer_that_never_reads_is_closed_by_the_send_hold_timer() {
    // Hold time 300 s: twice that is more than 480 s.
    for (hold, send_hold) in [(90, 480), (300, 600)] {
        let (mut dut, conn) = Dut::established_with(
            PeerConfig { hold_time: hold * SECOND, ..config() },
            u16::try_from(hold).unwrap(),
        );
        dut.writable = false;
        let begin = dut.now;
        while dut.peer.established().is_some() {
            dut.advance(SECOND);
            // It speaks, so the hold timer is content.
            dut.send(conn, &keepalive());
            assert!(dut.now <= begin + 2 * send_hold * SECOND, "still up");
        }
        assert_eq!(dut.now - begin, send_hold * SECOND);
        assert_eq!(dut.log.faults.last().unwrap().1, Fault::SendHoldTimerExpired);
        // What is left for the driver: one KEEPALIVE at most, and the NOTIFICATION.
        dut.writable = true;
        dut.log.keepalives.clear();
        dut.transmit(conn);
        assert_eq!((dut.told(), dut.log.keepalives.len()), (vec![(8, 0)], 1));
    }
}

#[test]
fn without_keepalives_a_blocked_write_is_what_arms_the_send_hold_timer() {
    let (mut dut, conn) = Dut::accepted(config());
    dut.send(conn, &bytes_of(&Open { hold_time_seconds: 0, ..open() }));
    dut.send(conn, &keepalive());
    dut.advance(3600 * SECOND);
    // The speaker hands out UPDATEs, and the driver never comes back for more.
    dut.writable = false;
    dut.peer.streamed(dut.now, conn, 60_000, 600);
    let begin = dut.now;
    while dut.peer.established().is_some() {
        dut.advance(SECOND);
        assert!(dut.now <= begin + 961 * SECOND, "still up");
    }
    assert_eq!(dut.log.faults.last().unwrap().1, Fault::SendHoldTimerExpired);
}

#[test]
fn updates_count_as_keepalives_towards_the_peer() {
    let (mut dut, conn) = Dut::established(config());
    for _ in 0..30 {
        dut.advance(20 * SECOND);
        dut.send(conn, &keepalive());
        dut.peer.streamed(dut.now, conn, 100, 2);
        dut.transmit(conn);
    }
    assert!(dut.log.keepalives.is_empty());
    let (_, sent) = dut.peer.connection_counts(conn).unwrap();
    assert_eq!(sent.update, 60);
}

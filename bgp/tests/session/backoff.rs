//! A peer that fails is tried again, later and later.

use std::time::Duration;

use bgp::config::PeerConfig;
use bgp::session::{Refusal, State};
use bgp::types::{Asn, Families};
use bgp::wire::Notification;
use bgp::wire::open::{Capability, Open};

use crate::dut::{Dut, SECOND, bytes_of, config, keepalive, message, open};

/// Attribute length that overruns the message: the session must end with 3/1.
const FATAL_UPDATE: &str = "0000 0020 40010100 4002060201 0000FDF2 400304C0000202 18C63364";

/// Pauses between a failure and the next attempt, in seconds.
fn pauses(dut: &mut Dut, count: usize) -> Vec<f64> {
    let mut pauses = Vec::new();
    for _ in 0..count {
        let dials = dut.log.dialled.len();
        dut.connect_failed();
        assert_eq!(dut.peer.state(), State::Active);
        let begin = dut.now;
        while dut.log.dialled.len() == dials {
            dut.advance(Duration::from_millis(100));
        }
        pauses.push((dut.now - begin).as_secs_f64());
    }
    pauses
}

#[test]
fn refused_connections_are_retried_with_doubled_pauses_up_to_a_minute() {
    let mut dut = Dut::started(PeerConfig { connect_retry: 2 * SECOND, ..config() });
    let pauses = pauses(&mut dut, 8);
    for (pause, full) in pauses.iter().zip([2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]) {
        assert!((full * 0.75..=full + 0.1).contains(pause), "{pause} for {full}: {pauses:?}");
    }
    assert_eq!(dut.peer.stats().connect_retries, 8);
}

#[test]
fn an_attempt_that_is_not_answered_is_given_up_for_another() {
    let mut dut = Dut::started(PeerConfig { connect_retry: SECOND, ..config() });
    dut.advance(5 * SECOND);
    assert_eq!(dut.log.dialled.len(), 2);
    assert_eq!(dut.log.closed, [dut.log.dialled[0].1]);
    dut.advance(3600 * SECOND);
    assert_eq!(dut.peer.state(), State::Connect);
    assert!(dut.log.dialled.len() > 60 && dut.log.dialled.len() < 70);
}

#[test]
fn a_passive_peer_is_never_dialled_and_always_welcome() {
    let mut dut = Dut::started(PeerConfig { passive: true, ..config() });
    for _ in 0..10 {
        dut.advance(600 * SECOND);
        assert_eq!(dut.peer.state(), State::Active);
        let conn = dut.accept().unwrap();
        dut.advance(SECOND);
        dut.closed(conn);
    }
    assert!(dut.log.dialled.is_empty());
}

#[test]
fn coming_up_makes_the_next_pause_short_again() {
    let mut dut = Dut::started(config());
    pauses(&mut dut, 6);
    let conn = dut.connected();
    dut.send(conn, &bytes_of(&open()));
    dut.send(conn, &keepalive());
    assert_eq!(dut.peer.stats().connect_retries, 0);
    dut.advance(20 * SECOND);
    dut.closed(conn);
    let begin = dut.now;
    let dials = dut.log.dialled.len();
    while dut.log.dialled.len() == dials {
        dut.advance(Duration::from_millis(100));
    }
    assert!(dut.now - begin <= Duration::from_millis(5100));
}

#[test]
fn d04_errors_in_established_are_not_repeated_twenty_times_an_hour() {
    // The peer dials whenever it may; passive and not, we must slow it down.
    for passive in [true, false] {
        let mut dut = Dut::started(PeerConfig { passive, ..config() });
        let mut sessions = 0;
        while dut.elapsed() < 3600 * SECOND {
            if let Ok(conn) = dut.accept() {
                dut.send(conn, &bytes_of(&open()));
                dut.send(conn, &keepalive());
                assert_eq!(dut.peer.state(), State::Established);
                sessions += 1;
                dut.send(conn, &message(2, FATAL_UPDATE));
                assert_eq!(dut.told().last(), Some(&(3, 1)));
                assert_eq!(dut.accept(), Err(Refusal::HeldDown));
            }
            dut.advance(Duration::from_millis(250));
        }
        assert!((10..=20).contains(&sessions), "{sessions} sessions, passive: {passive}");
    }
}

#[test]
fn o02_a_wrong_as_is_asked_again_after_one_second_and_never_after_more_than_300() {
    let mut dut = Dut::started(config());
    let wrong =
        Open { my_as: 65011, capabilities: vec![Capability::FourOctetAs(Asn(65011))], ..open() };
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let conn = dut.connected();
        dut.send(conn, &bytes_of(&wrong));
        assert_eq!(dut.told().last(), Some(&(2, 2)));
        assert_eq!(dut.peer.state(), State::Idle);
        let until = dut.peer.held_down_until().unwrap();
        pauses.push((until - dut.now).as_secs_f64());
        dut.advance(until - dut.now);
        assert_eq!(dut.peer.state(), State::Connect);
    }
    for (pause, full) in pauses.iter().zip([1.0, 3.0, 9.0, 27.0, 81.0, 243.0, 300.0, 300.0, 300.0])
    {
        assert!((full * 0.75..=full).contains(pause), "{pause} for {full}");
    }
}

#[test]
fn a_session_that_flaps_is_held_down_after_a_few_times() {
    let mut dut = Dut::started(PeerConfig { passive: true, ..config() });
    let mut sessions = 0;
    while dut.elapsed() < 3600 * SECOND {
        if let Ok(conn) = dut.accept() {
            dut.send(conn, &bytes_of(&open()));
            dut.send(conn, &keepalive());
            sessions += 1;
            dut.advance(Duration::from_millis(10));
            dut.closed(conn);
            if sessions <= 3 {
                assert!(dut.peer.held_down_until().is_none(), "a restart is no flap");
            }
        }
        dut.advance(Duration::from_millis(100));
    }
    // Three for nothing, then 1, 3, 9, 27 s and a minute each.
    assert!((60..=90).contains(&sessions), "{sessions}");
}

#[test]
fn a_session_that_lasted_clears_the_record() {
    let mut dut = Dut::started(PeerConfig { passive: true, ..config() });
    let mut pause = Duration::ZERO;
    for lives in [1, 1, 1, 300] {
        let conn = loop {
            match dut.accept() {
                Ok(conn) => break conn,
                Err(_) => dut.advance(SECOND / 4),
            }
        };
        dut.send(conn, &bytes_of(&open()));
        dut.send(conn, &keepalive());
        for _ in 0..lives {
            dut.advance(SECOND);
            dut.send(conn, &keepalive());
        }
        dut.send(conn, &message(2, FATAL_UPDATE));
        pause = dut.peer.held_down_until().unwrap() - dut.now;
    }
    assert!(pause <= SECOND, "{pause:?}");
}

#[test]
fn new_settings_end_a_pause_at_once() {
    let mut dut = Dut::started(config());
    let conn = dut.connected();
    dut.send(conn, &bytes_of(&Open { my_as: 65011, capabilities: vec![], ..open() }));
    assert_eq!(dut.accept(), Err(Refusal::HeldDown));
    let cured = PeerConfig { asn: Asn(65011), ..config() };
    assert!(dut.peer.reconfigure(dut.now, crate::dut::local(), cured));
    dut.collect();
    assert_eq!(dut.peer.state(), State::Connect);
    let conn = dut.connected();
    dut.send(conn, &bytes_of(&Open { my_as: 65011, capabilities: vec![], ..open() }));
    dut.send(conn, &keepalive());
    assert_eq!(dut.peer.state(), State::Established);
}

#[test]
fn settings_that_are_not_the_sessions_leave_it_alone_and_others_reset_it() {
    let (mut dut, conn) = Dut::established(config());
    let policy = PeerConfig { max_prefixes: Some(3), name: "renamed".to_owned(), ..config() };
    assert!(!dut.peer.reconfigure(dut.now, crate::dut::local(), policy));
    assert!(!dut.peer.reconfigure(
        dut.now,
        crate::dut::local(),
        PeerConfig { passive: true, port: 1179, ..config() }
    ));
    dut.collect();
    assert_eq!(dut.peer.established(), Some(conn));
    let v4 = Families { ipv4: true, ipv6: false };
    assert!(dut.peer.reconfigure(
        dut.now,
        crate::dut::local(),
        PeerConfig { families: v4, ..config() }
    ));
    dut.collect();
    assert_eq!(dut.told(), [(6, 6)]);
    assert_eq!(dut.peer.state(), State::Connect);
}

#[test]
fn a_stopped_peer_stays_down_until_it_is_started() {
    let (mut dut, conn) = Dut::established(config());
    dut.peer.stop(dut.now, &Notification::cease_with_text(2, "maintenance"));
    dut.collect();
    assert_eq!(dut.log.notifications[0].communication().as_deref(), Some("maintenance"));
    assert_eq!(dut.log.closed.last(), Some(&conn));
    assert_eq!(dut.accept(), Err(Refusal::HeldDown));
    assert_eq!(dut.peer.poll_timeout(), None);
    dut.advance(3600 * SECOND);
    assert_eq!(dut.peer.state(), State::Idle);
    dut.peer.start(dut.now);
    dut.collect();
    assert_eq!(dut.peer.state(), State::Connect);
}

#[test]
fn a_reset_with_a_pause_keeps_the_peer_out_for_that_long() {
    let (mut dut, conn) = Dut::established(config());
    dut.peer.reset(dut.now, &Notification::new(6, 1), Some(60 * SECOND));
    dut.collect();
    assert_eq!((dut.told(), dut.log.closed.last()), (vec![(6, 1)], Some(&conn)));
    dut.advance(59 * SECOND);
    assert_eq!(dut.accept(), Err(Refusal::HeldDown));
    dut.advance(SECOND);
    assert_eq!(dut.peer.state(), State::Connect);
}

//! Crafted bytes and bad manners: what is answered, and what survives.

use bgp::session::{Fault, Refusal, State};
use bgp::types::{Asn, Families};
use bgp::wire::open::{Capability, Open};

use crate::dut::{Dut, SECOND, bytes_of, config, hex, keepalive, local, message, open};

/// 47 octets: 198.51.100.0/24 with ORIGIN, AS_PATH 65010 and NEXT_HOP.
const GOOD_UPDATE: &str = "0000 0014 40010100 4002060201 0000FDF2 400304C0000202 18C63364";

/// What is answered to `bytes` in OpenSent; the connection must be closed after it.
fn answer_in_open_sent(bytes: &[u8]) -> Vec<(u8, u8)> {
    let (mut dut, conn) = Dut::accepted(config());
    dut.send(conn, bytes);
    assert!(dut.log.closed.contains(&conn));
    assert_eq!(dut.log.ups, 0);
    dut.told()
}

fn is_accepted(open: &Open) -> bool {
    let (mut dut, conn) = Dut::accepted(config());
    dut.send(conn, &bytes_of(open));
    dut.send(conn, &keepalive());
    dut.peer.state() == State::Established && dut.told().is_empty()
}

#[test]
fn o01_other_versions_are_refused_with_ours() {
    let (mut dut, conn) = Dut::accepted(config());
    let mut bytes = bytes_of(&open());
    bytes[19] = 3;
    dut.send(conn, &bytes);
    assert_eq!(dut.told(), [(2, 1)]);
    assert_eq!(dut.log.notifications[0].data, [0, 4]);
    assert!(dut.log.closed.contains(&conn));
}

#[test]
fn o02_a_wrong_as_is_refused_and_told_with_both_numbers() {
    let zero = Open { my_as: 0, capabilities: vec![], ..open() };
    assert_eq!(answer_in_open_sent(&bytes_of(&zero)), [(2, 2)]);

    let (mut dut, conn) = Dut::accepted(config());
    let other =
        Open { my_as: 65011, capabilities: vec![Capability::FourOctetAs(Asn(65011))], ..open() };
    dut.send(conn, &bytes_of(&other));
    assert_eq!(dut.told(), [(2, 2)]);
    let (_, fault) = dut.log.faults.last().unwrap();
    assert_eq!(fault.to_string(), "OPEN refused: peer is in AS 65011, configured is AS 65010");
}

#[test]
fn o03_as_zero_in_the_capability_is_refused() {
    let zero =
        Open { my_as: 0x5ba0, capabilities: vec![Capability::FourOctetAs(Asn(0))], ..open() };
    assert_eq!(answer_in_open_sent(&bytes_of(&zero)), [(2, 2)]);
}

#[test]
fn o04_hold_times_of_one_and_two_seconds_are_refused() {
    for hold_time_seconds in [1, 2] {
        let short = Open { hold_time_seconds, ..open() };
        assert_eq!(answer_in_open_sent(&bytes_of(&short)), [(2, 6)]);
    }
    assert!(is_accepted(&Open { hold_time_seconds: 3, ..open() }));
}

#[test]
fn o06_router_id_zero_and_our_own_id_inside_the_as_are_refused() {
    let zero = Open { router_id: [0, 0, 0, 0].into(), ..open() };
    assert_eq!(answer_in_open_sent(&bytes_of(&zero)), [(2, 3)]);

    let internal = bgp::config::PeerConfig { asn: Asn(65001), ..config() };
    let (mut dut, conn) = Dut::accepted(internal);
    let ours = Open {
        my_as: 65001,
        router_id: local().router_id.0,
        capabilities: vec![Capability::FourOctetAs(Asn(65001))],
        ..open()
    };
    dut.send(conn, &bytes_of(&ours));
    assert_eq!(dut.told(), [(2, 3)]);
}

#[test]
fn o07_a_multicast_id_and_our_own_id_in_another_as_are_fine() {
    assert!(is_accepted(&Open { router_id: [224, 0, 0, 1].into(), ..open() }));
    assert!(is_accepted(&Open { router_id: local().router_id.0, ..open() }));
}

#[test]
fn o08_parameters_beyond_the_message_are_refused() {
    let bytes = message(1, "04 FDF2 005A 0A000002 0A 02 00");
    assert_eq!(answer_in_open_sent(&bytes), [(2, 0)]);
}

#[test]
fn o09_unknown_parameters_are_refused() {
    for parameter in ["01", "07"] {
        let bytes = message(1, &format!("04 FDF2 005A 0A000002 03 {parameter} 01 00"));
        assert_eq!(answer_in_open_sent(&bytes), [(2, 4)], "{parameter}");
    }
}

#[test]
fn o10_capabilities_of_a_wrong_length_never_reach_beyond_their_end() {
    for capability in ["41 02 FDF2", "40 03 000000", "01 03 000100", "41 FF FDF2"] {
        let value = hex(capability);
        let len = value.len();
        let body = format!("04 FDF2 005A 0A000002 {:02X} 02 {len:02X} {capability}", len + 2);
        let (mut dut, conn) = Dut::accepted(config());
        dut.send(conn, &message(1, &body));
        // Refused, or the capability ignored; the OPEN is otherwise good.
        let told = dut.told();
        assert!(told.is_empty() || told == [(2, 0)], "{capability}: {told:?}");
    }
}

#[test]
fn o11_extended_optional_parameters_may_be_empty_but_not_cut() {
    let (mut dut, conn) = Dut::accepted(config());
    dut.send(conn, &message(1, "04 FDF2 005A 0A000002 FF FF 0000"));
    dut.send(conn, &keepalive());
    assert_eq!(dut.peer.state(), State::Established);
    for rest in ["FF FF 0005 020001", "FF FF"] {
        let bytes = message(1, &format!("04 FDF2 005A 0A000002 {rest}"));
        assert_eq!(answer_in_open_sent(&bytes), [(2, 0)], "{rest}");
    }
}

#[test]
fn o12_repeated_and_unknown_capabilities_are_fine() {
    let mut capabilities = vec![Capability::Multiprotocol(1, 1); 200];
    capabilities.extend((128..=239).map(|code| Capability::Unknown(code, vec![])));
    assert!(is_accepted(&Open { capabilities, ..open() }));
}

#[test]
fn o13_contradictory_and_unknown_roles_are_refused() {
    for roles in [vec![0, 3], vec![7]] {
        let mut capabilities = open().capabilities;
        capabilities.extend(roles.into_iter().map(Capability::Role));
        let bytes = bytes_of(&Open { capabilities, ..open() });
        assert_eq!(answer_in_open_sent(&bytes), [(2, 11)]);
    }
}

#[test]
fn o14_an_open_without_parameters_makes_a_plain_ipv4_session() {
    let (mut dut, conn) = Dut::accepted(config());
    dut.send(conn, &message(1, "04 FDF2 005A 0A000002 00"));
    dut.send(conn, &keepalive());
    assert_eq!(dut.peer.state(), State::Established);
    let negotiated = dut.peer.negotiated().unwrap();
    assert_eq!(negotiated.families, Families { ipv4: true, ipv6: false });
    assert!(!negotiated.receive.four_octet_as && !negotiated.send.four_octet_as);
    assert!(!negotiated.route_refresh);
    assert!(negotiated.capabilities.is_empty());
}

#[test]
fn o15_unexpected_messages_are_told_with_their_type() {
    let good = message(2, GOOD_UPDATE);
    let refresh = message(5, "0001 00 01");

    for (bytes, kind) in [(keepalive(), 4), (good.clone(), 2), (refresh.clone(), 5)] {
        let (mut dut, conn) = Dut::accepted(config());
        dut.send(conn, &bytes);
        assert_eq!(dut.told(), [(5, 1)]);
        assert_eq!(dut.log.notifications[0].data, [kind]);
    }
    for (bytes, kind) in [(bytes_of(&open()), 1), (good, 2), (refresh, 5)] {
        let (mut dut, conn) = Dut::accepted(config());
        dut.send(conn, &bytes_of(&open()));
        dut.send(conn, &bytes);
        assert_eq!(dut.told(), [(5, 2)]);
        assert_eq!(dut.log.notifications[0].data, [kind]);
        assert_eq!(dut.log.updates, 0);
    }
    let (mut dut, conn) = Dut::established(config());
    dut.send(conn, &bytes_of(&open()));
    assert_eq!(dut.told(), [(5, 3)]);
    assert_eq!(dut.log.notifications[0].data, [1]);
}

#[test]
fn o16_a_flood_of_silent_connections_costs_one_inbound_connection() {
    let (mut dut, first) = Dut::accepted(config());
    for _ in 0..1000 {
        assert_eq!(dut.accept(), Err(Refusal::Busy));
    }
    let begin = dut.now;
    // Our own attempts go on meanwhile, and fail.
    let mut answered = 0;
    while !dut.log.closed.contains(&first) {
        if dut.log.dialled.len() > answered {
            answered = dut.log.dialled.len();
            dut.connect_failed();
        }
        dut.advance(SECOND);
        assert!(dut.now <= begin + 241 * SECOND, "still open");
    }
    assert!(answered > 5, "only {answered} attempts of our own");
    assert_eq!(dut.told(), [(4, 0)]);
    assert!(dut.now >= begin + 240 * SECOND);
}

#[test]
fn a_silent_connection_gives_way_to_a_new_one_of_the_same_peer() {
    let passive = bgp::config::PeerConfig { passive: true, ..config() };
    let (mut dut, old) = Dut::accepted(passive);
    dut.advance(9 * SECOND);
    assert_eq!(dut.accept(), Err(Refusal::Busy));
    dut.advance(SECOND);
    let new = dut.accept().unwrap();
    assert_eq!((dut.told(), &dut.log.closed[..]), (vec![(6, 7)], &[old][..]));
    dut.send(new, &bytes_of(&open()));
    dut.send(new, &keepalive());
    assert_eq!(dut.peer.state(), State::Established);
}

#[test]
fn h08_a_message_cut_by_fin_is_a_lost_connection_and_its_tail_is_not_parsed() {
    for state in [State::OpenSent, State::Established] {
        let (mut dut, conn) = if state == State::OpenSent {
            Dut::accepted(config())
        } else {
            Dut::established(config())
        };
        dut.send(conn, &message(2, GOOD_UPDATE)[..30]);
        dut.closed(conn);
        assert_eq!(dut.log.updates, 0);
        assert!(dut.told().is_empty());
        let (_, fault) = dut.log.faults.last().unwrap();
        assert_eq!(*fault, Fault::ConnectionLost("reset by peer".to_owned()));
    }
}

#[test]
fn h09_a_trickle_of_octets_does_not_keep_a_session_alive() {
    let update = message(2, GOOD_UPDATE);
    // A whole message takes 47 steps: 70.5 s at hold / 60, more than the hold time at hold / 40.
    for (step, survives) in [(90 * SECOND / 60, true), (90 * SECOND / 40, false)] {
        let (mut dut, conn) = Dut::established(config());
        for _ in 0..3 {
            for octet in &update {
                dut.advance(step);
                dut.send(conn, &[*octet]);
            }
        }
        assert_eq!(dut.peer.state() == State::Established, survives, "{step:?}");
        if survives {
            assert_eq!(dut.log.updates, 3);
        } else {
            assert_eq!((dut.told(), dut.log.updates), (vec![(4, 0)], 0));
        }
    }
}

#[test]
fn h10_nothing_after_a_fatal_message_is_looked_at() {
    let (mut dut, conn) = Dut::established(config());
    let mut bytes = Vec::new();
    for index in 1..=20 {
        if index == 11 {
            bytes.extend(message(6, ""));
        } else {
            bytes.extend(message(2, GOOD_UPDATE));
        }
    }
    dut.send(conn, &bytes);
    assert_eq!(dut.log.updates, 10);
    assert_eq!(dut.told(), [(1, 3)]);
    assert_eq!(dut.log.notifications[0].data, [6]);
    // Late bytes of the dead connection are nobody's.
    dut.send(conn, &message(2, GOOD_UPDATE));
    assert_eq!(dut.log.updates, 10);
}

#[test]
fn header_errors_are_told_as_soon_as_the_header_is_there() {
    let mut unsynchronized = keepalive();
    unsynchronized[0] = 0;
    let too_long = hex("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF 1001 02");
    let too_short = hex("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF 0012 04");
    for (bytes, told) in [(unsynchronized, (1, 1)), (too_long, (1, 2)), (too_short, (1, 2))] {
        assert_eq!(answer_in_open_sent(&bytes), [told]);
        let (mut dut, conn) = Dut::established(config());
        // Also when it comes octet by octet.
        for octet in bytes {
            dut.send(conn, &[octet]);
        }
        assert_eq!(dut.told(), [told]);
    }
}

#[test]
fn garbage_on_the_port_is_one_header_error() {
    let (mut dut, conn) = Dut::accepted(config());
    dut.send(conn, b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert_eq!(dut.told(), [(1, 1)]);
    assert!(dut.log.closed.contains(&conn));
}

#[test]
fn a_notification_is_never_answered() {
    for body in ["01 01", "02 01", "02 02", "06 02", "63 C8 DEADBEEF", ""] {
        for state in [State::OpenSent, State::OpenConfirm, State::Established] {
            let (mut dut, conn) = Dut::accepted(config());
            if state >= State::OpenConfirm {
                dut.send(conn, &bytes_of(&open()));
            }
            if state == State::Established {
                dut.send(conn, &keepalive());
            }
            dut.send(conn, &message(3, body));
            assert!(dut.told().is_empty(), "{body} in {state}");
            assert!(dut.log.closed.contains(&conn), "{body} in {state}");
            let (_, fault) = dut.log.faults.last().unwrap();
            assert!(matches!(fault, Fault::NotificationReceived(_)), "{body} in {state}");
        }
    }
}

#[test]
fn a_route_refresh_goes_up_and_a_broken_one_ends_the_session() {
    let (mut dut, conn) = Dut::established(config());
    dut.send(conn, &message(5, "0001 00 01"));
    dut.send(conn, &message(5, "0002 00 01"));
    assert_eq!(dut.log.refreshes, 2);
    dut.send(conn, &message(5, "0001 00"));
    assert_eq!(dut.told(), [(1, 2)]);

    let (mut dut, conn) = Dut::accepted(config());
    let mut capabilities = open().capabilities;
    capabilities.push(Capability::EnhancedRouteRefresh);
    dut.send(conn, &bytes_of(&Open { capabilities, ..open() }));
    dut.send(conn, &keepalive());
    let broken = message(5, "0001 01 01 00");
    dut.send(conn, &broken);
    assert_eq!(dut.told(), [(7, 1)]);
    assert_eq!(dut.log.notifications[0].data, broken);
}

#[test]
fn chunks_of_any_size_give_the_same_updates() {
    let mut stream = Vec::new();
    for _ in 0..50 {
        stream.extend(message(2, GOOD_UPDATE));
        stream.extend(keepalive());
    }
    for size in [1, 2, 7, 18, 19, 20, 46, 47, 48, 66, 1000, 5000] {
        let (mut dut, conn) = Dut::established(config());
        for chunk in stream.chunks(size) {
            dut.send(conn, chunk);
        }
        assert_eq!((dut.log.updates, dut.told()), (50, vec![]), "chunks of {size}");
        let (received, _) = dut.peer.connection_counts(conn).unwrap();
        assert_eq!((received.update, received.keepalive, received.open), (50, 51, 1));
    }
}

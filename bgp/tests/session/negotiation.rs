//! What two OPENs agree on.

use std::time::Duration;

use bgp::session::negotiate::{local_open, negotiate};
use bgp::types::{Asn, Families};
use bgp::wire::open::{Capability, Open};

use crate::dut::{config, local, open};

fn ours() -> Open {
    local_open(&local(), &config(), false)
}

#[test]
fn our_open_offers_what_we_do_and_nothing_else() {
    assert_eq!(
        ours().capabilities,
        [
            Capability::Multiprotocol(1, 1),
            Capability::Multiprotocol(2, 1),
            Capability::RouteRefresh,
            Capability::ExtendedMessage,
            Capability::FourOctetAs(Asn(65001)),
            Capability::EnhancedRouteRefresh,
            // The kernel forwards while we restart, in both families.
            Capability::GracefulRestart {
                restarted: false,
                notification: false,
                restart_time_seconds: 120,
                families: vec![(1, 1, true), (2, 1, true)],
            },
            Capability::Fqdn(b"dut".to_vec(), vec![]),
        ]
    );
    let nameless = bgp::session::Local { hostname: String::new(), ..local() };
    let large = bgp::session::Local { asn: Asn(4_200_000_000), ..nameless };
    let open = local_open(&large, &config(), false);
    assert_eq!((open.my_as, open.asn()), (23456, Asn(4_200_000_000)));
    assert!(!open.capabilities.iter().any(|c| matches!(c, Capability::Fqdn(..))));
}

#[test]
fn the_smaller_hold_time_counts_and_keepalive_is_a_third_of_it() {
    for (theirs, hold, keepalive) in [(30, 30, 10), (180, 90, 30), (0, 0, 0)] {
        let n = negotiate(&ours(), &Open { hold_time_seconds: theirs, ..open() });
        assert_eq!(n.hold_time, Duration::from_secs(hold));
        assert_eq!(n.keepalive, Duration::from_secs(keepalive));
    }
}

#[test]
fn families_are_those_of_both_sides() {
    let with = |capabilities| negotiate(&ours(), &Open { capabilities, ..open() }).families;
    let v6 = Families { ipv4: false, ipv6: true };
    assert_eq!(with(vec![Capability::Multiprotocol(2, 1)]), v6);
    assert_eq!(with(vec![Capability::Multiprotocol(25, 70)]), Families::NONE);
    assert_eq!(with(open().capabilities), Families::ALL);
    // Without the capability: IPv4 as ever.
    assert_eq!(with(vec![]), Families { ipv4: true, ipv6: false });
}

#[test]
fn both_ends_compute_the_same_session() {
    let mut capabilities = open().capabilities;
    capabilities.push(Capability::ExtendedMessage);
    capabilities.push(Capability::EnhancedRouteRefresh);
    let theirs = Open { capabilities, ..open() };
    let (here, there) = (negotiate(&ours(), &theirs), negotiate(&theirs, &ours()));
    assert_eq!(here.hold_time, there.hold_time);
    assert_eq!(here.families, there.families);
    let names = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    assert_eq!(names(here.capabilities.clone()), names(there.capabilities.clone()));
    for (a, b) in [(&here.send, &there.receive), (&here.receive, &there.send)] {
        assert_eq!(
            (a.four_octet_as, a.extended_message, a.families, a.add_path, a.external),
            (b.four_octet_as, b.extended_message, b.families, b.add_path, b.external)
        );
    }
    assert!(here.send.extended_message && here.receive.enhanced_refresh && here.external);
    assert_eq!((here.peer_asn, there.peer_asn), (Asn(65010), Asn(65001)));
}

#[test]
fn an_extended_message_needs_both_sides() {
    let n = negotiate(&ours(), &open());
    assert!(!n.send.extended_message && !n.receive.extended_message);
    assert_eq!(n.receive.max_len(), 4096);
}

#[test]
fn add_path_goes_by_direction_and_family() {
    let with = |open: Open, entries| {
        let mut capabilities = open.capabilities.clone();
        capabilities.push(Capability::AddPath(entries));
        Open { capabilities, ..open }
    };
    let receiver = with(ours(), vec![(1, 1, 1), (2, 1, 3)]);
    let sender = with(open(), vec![(1, 1, 2), (2, 1, 2)]);
    let n = negotiate(&receiver, &sender);
    assert_eq!(n.receive.add_path, Families::ALL);
    assert_eq!(n.send.add_path, Families::NONE);
    // We do not offer it.
    assert_eq!(negotiate(&ours(), &sender).receive.add_path, Families::NONE);
}

#[test]
fn common_capabilities_are_named_and_graceful_restart_is_shown_in_detail() {
    let mut capabilities = open().capabilities;
    capabilities.push(Capability::GracefulRestart {
        restarted: true,
        notification: false,
        restart_time_seconds: 120,
        families: vec![(1, 1, true), (25, 70, true)],
    });
    capabilities.push(Capability::Fqdn(b"tor1".to_vec(), vec![]));
    let n = negotiate(&ours(), &Open { capabilities, ..open() });
    assert_eq!(
        n.capabilities,
        ["ipv4-unicast", "ipv6-unicast", "route-refresh", "4-octet-as", "graceful-restart", "fqdn"]
    );
    assert_eq!(n.peer_hostname.as_deref(), Some(b"tor1".as_slice()));
    let restart = n.graceful_restart.unwrap();
    assert!(restart.restarted && !restart.notification);
    assert_eq!(restart.restart_time, Duration::from_secs(120));
    assert_eq!(restart.families, Families { ipv4: true, ipv6: false });
}

use std::sync::Arc;

use netlink_packet_route::route::{RouteProtocol, RouteType};

use super::*;
use crate::kernel::route::message::PROTOCOL;
use crate::kernel::route::types::Path;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn via(hops: &[&str]) -> Target {
    Target::NextHops(hops.iter().map(|hop| hop.parse().unwrap()).collect())
}

/// Every next hop is on link 1.
fn resolve(tracker: &mut Tracker) {
    let changed =
        tracker.hops.resolve(true, |hop, _| Ok::<_, ()>(Ok(Arc::from([on_link(hop)])))).unwrap();
    tracker.groups_changed(&changed);
}

fn on_link(gateway: IpAddr) -> Path {
    Path { gateway, interface: 1, onlink: false }
}

fn paths(hops: &[&str]) -> Installed {
    Installed::Paths(hops.iter().map(|hop| on_link(hop.parse().unwrap())).collect())
}

fn seen(prefix: &str, content: Installed, ours: bool, metric: u32) -> Seen {
    let kind = RouteType::Unicast;
    let protocol = if ours { PROTOCOL } else { RouteProtocol::Static };
    let prefix = net(prefix);
    Seen { prefix, table: TABLE, metric, ours, protocol, kind, content, device: None }
}

/// Completes everything with success; returns what was written.
fn write_all(tracker: &mut Tracker) -> Vec<Operation> {
    let mut written = Vec::new();
    while let Some(operation) = tracker.next() {
        written.push(operation.clone());
        tracker.complete(operation, None);
    }
    written
}

#[test]
fn adoption_of_what_is_wanted_writes_nothing() {
    let mut tracker = Tracker::default();
    tracker.resync(
        vec![
            seen("10.1.0.0/24", paths(&["192.0.2.1"]), true, METRIC),
            seen("fd00:1::/64", Installed::Blackhole, true, METRIC),
        ],
        false,
    );
    tracker.set(net("10.1.0.0/24"), Some(&via(&["192.0.2.1"])));
    tracker.set(net("fd00:1::/64"), Some(&Target::Blackhole));
    resolve(&mut tracker);
    assert_eq!(write_all(&mut tracker), []);
    assert_eq!(tracker.summary().installed, 2);
    assert_eq!(tracker.summary().repaired, 0);
}

#[test]
fn a_route_of_ours_that_nobody_wants_is_removed_with_its_own_metric() {
    let mut tracker = Tracker::default();
    tracker.resync(
        vec![
            seen("10.1.0.0/24", paths(&["192.0.2.1"]), true, METRIC),
            seen("10.2.0.0/24", paths(&["192.0.2.1"]), true, 20),
            seen("10.3.0.0/24", paths(&["192.0.2.1"]), false, 20),
        ],
        false,
    );
    let mut written = write_all(&mut tracker);
    written.sort_by_key(|(prefix, _)| *prefix);
    assert_eq!(
        written,
        [(net("10.1.0.0/24"), Action::Delete(METRIC)), (net("10.2.0.0/24"), Action::Delete(20))]
    );
}

#[test]
fn a_route_waits_for_its_next_hop_and_is_removed_when_the_hop_is_lost() {
    let mut tracker = Tracker::default();
    tracker.set(net("10.1.0.0/24"), Some(&via(&["192.0.2.1"])));
    assert_eq!(write_all(&mut tracker), []);
    assert_eq!(tracker.summary().pending, 1);
    resolve(&mut tracker);
    assert_eq!(write_all(&mut tracker), [(net("10.1.0.0/24"), Action::Add(paths(&["192.0.2.1"])))]);
    let changed =
        tracker.hops.resolve(true, |_, _| Ok::<_, ()>(Err(Unresolved::LinkDown))).unwrap();
    tracker.groups_changed(&changed);
    assert_eq!(write_all(&mut tracker), [(net("10.1.0.0/24"), Action::Delete(METRIC))]);
    assert_eq!(
        tracker.reports(&Links::default())[0].state,
        RouteState::Pending(Unresolved::LinkDown)
    );
}

#[test]
fn ecmp_uses_the_hops_that_have_a_path_in_any_order() {
    let mut tracker = Tracker::default();
    tracker.set(net("::/0"), Some(&via(&["fd00::2", "fd00::1", "fd00::2"])));
    resolve(&mut tracker);
    assert_eq!(
        write_all(&mut tracker),
        [(net("::/0"), Action::Add(paths(&["fd00::1", "fd00::2"])))]
    );
    tracker.set(net("::/0"), Some(&via(&["fd00::1", "fd00::2"])));
    assert_eq!(write_all(&mut tracker), []);
    let lost: IpAddr = "fd00::1".parse().unwrap();
    let changed = tracker
        .hops
        .resolve(true, |hop, _| {
            Ok::<_, ()>(if hop == lost {
                Err(Unresolved::NoRoute)
            } else {
                Ok(Arc::from([on_link(hop)]))
            })
        })
        .unwrap();
    tracker.groups_changed(&changed);
    assert_eq!(write_all(&mut tracker), [(net("::/0"), Action::Replace(paths(&["fd00::2"])))]);
}

#[test]
fn a_foreign_route_in_the_way_is_never_replaced() {
    let mut tracker = Tracker::default();
    let prefix = net("10.1.0.0/24");
    tracker.set(prefix, Some(&via(&["192.0.2.1"])));
    resolve(&mut tracker);
    let operation = tracker.next().unwrap();
    tracker.complete(operation, Some(libc::EEXIST));
    assert!(
        matches!(&tracker.reports(&Links::default())[0].state, RouteState::Failed(why) if why.contains("another"))
    );
    assert_eq!(tracker.summary().failed, 1);
    // It goes: ours is written.
    tracker.contest(prefix, true);
    tracker.contest(prefix, false);
    assert_eq!(write_all(&mut tracker), [(prefix, Action::Add(paths(&["192.0.2.1"])))]);
    // One that was appended beside ours: ours is changed without a replace that could hit it.
    tracker.contest(prefix, true);
    tracker.set(prefix, Some(&via(&["192.0.2.2"])));
    resolve(&mut tracker);
    let operation = tracker.next().unwrap();
    assert_eq!(operation.1, Action::Delete(METRIC));
    tracker.complete(operation, None);
    assert_eq!(tracker.next(), Some((prefix, Action::Add(paths(&["192.0.2.2"])))));
}

#[test]
fn damage_is_counted_and_repaired_but_our_own_link_loss_is_not_blamed() {
    let mut tracker = Tracker::default();
    let prefix = net("fd00:1::/64");
    tracker.set(prefix, Some(&via(&["fd00::1"])));
    resolve(&mut tracker);
    write_all(&mut tracker);
    tracker.observe(prefix, None);
    assert_eq!(write_all(&mut tracker), [(prefix, Action::Add(paths(&["fd00::1"])))]);
    tracker.resync(vec![seen("fd00:1::/64", paths(&["fd00::9"]), true, METRIC)], true);
    assert_eq!(write_all(&mut tracker), [(prefix, Action::Replace(paths(&["fd00::1"])))]);
    tracker.resync(Vec::new(), false);
    assert_eq!(write_all(&mut tracker), [(prefix, Action::Add(paths(&["fd00::1"])))]);
    assert_eq!(tracker.summary().repaired, 2);
    assert_eq!(tracker.take_drift(), Some((prefix, 2)));
}

#[test]
fn a_refused_route_is_kept_and_tried_again() {
    let mut tracker = Tracker::default();
    let prefix = net("10.1.0.0/24");
    tracker.set(prefix, Some(&via(&["192.0.2.1"])));
    resolve(&mut tracker);
    let operation = tracker.next().unwrap();
    tracker.complete(operation, Some(libc::ENETUNREACH));
    assert_eq!(tracker.next(), None);
    assert!(tracker.retry_failed());
    assert_eq!(write_all(&mut tracker).len(), 1);
    assert_eq!((tracker.summary().failed, tracker.summary().installed), (0, 1));
}

#[test]
fn numbers_and_next_hops_return_to_zero_when_nothing_is_wanted() {
    let mut tracker = Tracker::default();
    for i in 0..100_u8 {
        let hop = format!("192.0.2.{}", i % 7);
        tracker.set(net(&format!("10.{i}.0.0/16")), Some(&via(&[&hop, "192.0.2.200"])));
    }
    resolve(&mut tracker);
    assert_eq!(write_all(&mut tracker).len(), 100);
    for i in 0..100_u8 {
        tracker.set(net(&format!("10.{i}.0.0/16")), None);
    }
    assert_eq!(write_all(&mut tracker).len(), 100);
    assert_eq!(tracker.summary(), Summary::default());
    assert!(tracker.entries.is_empty());
    let none = tracker.hops.resolve(true, |_, _| Err::<Resolution, _>("a hop is left"));
    assert_eq!(none, Ok(Vec::new()));
}

use super::super::hops::Resolution;

#[test]
fn held_routes_stay_as_they_are_until_released_and_others_are_written() {
    let mut tracker = Tracker::default();
    let (changed, gone, same) = (net("10.1.0.0/24"), net("10.2.0.0/24"), net("fd00:1::/64"));
    let table = vec![
        seen("10.1.0.0/24", paths(&["192.0.2.1", "192.0.2.2"]), true, METRIC),
        seen("10.2.0.0/24", paths(&["192.0.2.1"]), true, METRIC),
        seen("fd00:1::/64", paths(&["fd00::1"]), true, METRIC),
    ];
    tracker.resync(table, false);
    tracker.hold();
    tracker.set(changed, Some(&via(&["192.0.2.1"])));
    tracker.set(same, Some(&via(&["fd00::1"])));
    tracker.set(net("10.3.0.0/24"), Some(&via(&["192.0.2.1"])));
    resolve(&mut tracker);
    let new = (net("10.3.0.0/24"), Action::Add(paths(&["192.0.2.1"])));
    assert_eq!(write_all(&mut tracker), [new]);
    assert_eq!(tracker.summary().held, 2, "one is wanted as it is");
    tracker.observe(changed, None);
    let repaired = (changed, Action::Add(paths(&["192.0.2.1"])));
    assert_eq!(write_all(&mut tracker), [repaired]);
    tracker.observe(changed, Some(paths(&["192.0.2.2"])));
    assert_eq!(write_all(&mut tracker), []);
    tracker.release();
    let mut written = write_all(&mut tracker);
    written.sort_by_key(|(prefix, _)| *prefix);
    let replaced = (changed, Action::Replace(paths(&["192.0.2.1"])));
    assert_eq!(written, [replaced, (gone, Action::Delete(METRIC))]);
    assert_eq!(tracker.summary().held, 0);
}

fn overridden(tracker: &mut Tracker) -> Option<Option<(String, String, usize)>> {
    let told = tracker.take_overridden(&Links::default())?;
    Some(told.map(|o| (o.prefix.to_string(), o.by, o.count)))
}

fn state(tracker: &Tracker, prefix: &str) -> RouteState {
    let reports = tracker.reports(&Links::default());
    reports.into_iter().find(|report| report.prefix == net(prefix)).unwrap().state
}

#[test]
fn a_foreign_route_that_wins_and_leads_elsewhere_is_told_until_it_goes() {
    for (prefix, hop, other) in
        [("10.1.0.0/24", "192.0.2.1", "192.0.2.9"), ("fd00:1::/64", "fd00::1", "fd00::9")]
    {
        let mut tracker = Tracker::default();
        tracker.resync(vec![seen(prefix, paths(&[other]), false, 100)], false);
        assert_eq!(overridden(&mut tracker), None, "nothing of ours is there");
        tracker.set(net(prefix), Some(&via(&[hop])));
        resolve(&mut tracker);
        write_all(&mut tracker);
        let by = format!("proto static via {other} dev 1 metric 100");
        let expected = (net(prefix).to_string(), by.clone(), 1);
        assert_eq!(overridden(&mut tracker), Some(Some(expected)));
        assert_eq!(state(&tracker, prefix), RouteState::Overridden(by));
        let summary = tracker.summary();
        assert_eq!((summary.installed, summary.overridden), (1, 1), "it is in the kernel");
        assert_eq!(overridden(&mut tracker), None, "told once");
        assert!(tracker.rival_vanished(seen(prefix, paths(&[other]), false, 100)));
        assert_eq!(overridden(&mut tracker), Some(None));
        assert_eq!(state(&tracker, prefix), RouteState::Installed);
    }
}

#[test]
fn foreign_routes_that_lose_or_lead_the_same_way_are_no_trouble() {
    let mut tracker = Tracker::default();
    let ours = ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24", "10.4.0.0/24"];
    for prefix in ours {
        tracker.set(net(prefix), Some(&via(&["192.0.2.1"])));
    }
    tracker.set(net("10.5.0.0/24"), Some(&Target::Blackhole));
    resolve(&mut tracker);
    write_all(&mut tracker);
    tracker.rival_appeared(seen("10.1.0.0/24", paths(&["192.0.2.9"]), false, METRIC + 1), false);
    tracker.rival_appeared(seen("10.2.0.0/24", paths(&["192.0.2.1"]), false, 5), false);
    let connected = |prefix: &str, device| Seen {
        device: Some(device),
        ..seen(prefix, Installed::Odd, false, 0)
    };
    tracker.rival_appeared(connected("10.3.0.0/24", 1), false);
    tracker.rival_appeared(connected("10.5.0.0/24", 7), false);
    assert_eq!((overridden(&mut tracker), tracker.summary().overridden), (None, 0));
    tracker.rival_appeared(connected("10.4.0.0/24", 7), false);
    let expected = ("10.4.0.0/24".to_owned(), "proto static dev 7 metric 0".to_owned(), 1);
    assert_eq!(overridden(&mut tracker), Some(Some(expected)), "a bridge with that prefix");
    assert!(tracker.uses_interface(7), "its link matters");
}

#[test]
fn of_several_foreign_routes_the_lowest_metric_counts_and_a_part_of_one_asks_for_the_table() {
    let mut tracker = Tracker::default();
    tracker.set(net("fd00:1::/64"), Some(&via(&["fd00::1"])));
    resolve(&mut tracker);
    write_all(&mut tracker);
    let rival = |hops: &[&str], metric| seen("fd00:1::/64", paths(hops), false, metric);
    tracker.rival_appeared(rival(&["fd00::8", "fd00::9"], 100), false);
    tracker.rival_appeared(rival(&["fd00::1"], 50), false);
    assert_eq!(tracker.summary().overridden, 0, "the first leads our way");
    assert!(tracker.rival_vanished(rival(&["fd00::1"], 50)));
    assert_eq!(tracker.summary().overridden, 1);
    assert!(!tracker.rival_vanished(rival(&["fd00::8"], 100)), "one of its next hops left");
    assert_eq!(tracker.summary().overridden, 1);
    tracker.rival_appeared(rival(&["fd00::1"], 100), true);
    assert_eq!(tracker.summary().overridden, 0, "it was replaced");
}

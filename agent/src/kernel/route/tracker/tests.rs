use std::sync::Arc;

use netlink_packet_route::route::RouteType;

use super::*;
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
    Seen { prefix: net(prefix), table: TABLE, metric, ours, kind, content, device: None }
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
    assert_eq!(tracker.reports()[0].state, RouteState::Pending(Unresolved::LinkDown));
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
        matches!(&tracker.reports()[0].state, RouteState::Failed(why) if why.contains("another"))
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

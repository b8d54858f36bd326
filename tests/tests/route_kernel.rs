//! The route thread against a real kernel, with `ip` as the second opinion.
//!
//! Each test runs in a network namespace of its own (root needed).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::kernel::route::{
    Events, Options, RouteChange, RouteEvent, RouteState, Routes, Summary, Target, spawn,
};
use tests::nft::enter_namespace;

const SOON: Duration = Duration::from_secs(5);

/// Two links with both families, as a node has them.
const LINKS: &str = "link add v0 type veth peer name v0p
link add v1 type veth peer name v1p
link set lo up
link set v0 up
link set v0p up
link set v1 up
link set v1p up
addr add 192.0.2.1/24 dev v0
addr add 198.51.100.1/24 dev v1
addr add fd00:a::1/64 dev v0 nodad
addr add fd00:b::1/64 dev v1 nodad";

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn node() {
    enter_namespace().unwrap();
    for line in LINKS.lines() {
        ip(line);
    }
}

/// Lines of `ip route show ARGUMENTS`, both families (or that of the prefix), undecorated.
fn shown(arguments: &str) -> Vec<String> {
    let families: &[&str] = match arguments {
        prefix if prefix.contains(':') => &["-6"],
        prefix if prefix.contains('.') => &["-4"],
        _ => &["-4", "-6"],
    };
    families
        .iter()
        .flat_map(|family| {
            ip(&format!("{family} -o route show {arguments}"))
                .lines()
                .map(|line| {
                    let line = line.replace('\\', " ").replace(" pref medium", "");
                    line.split_whitespace().collect::<Vec<_>>().join(" ")
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

fn ours() -> Vec<String> {
    shown("proto 82")
}

struct Fixture {
    runtime: tokio::runtime::Runtime,
    routes: Routes,
    events: Events,
}

impl Fixture {
    /// Starts the thread in the namespace of the caller.
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (routes, events, _thread) = spawn(Options::default()).unwrap();
        Self { runtime, routes, events }
    }

    fn in_sync() -> Self {
        let fixture = Self::start();
        fixture.wait(fixture.routes.in_sync()).unwrap();
        fixture
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(SOON * 4, future).await })
            .expect("in time")
    }

    fn set(&self, changes: &[(&str, Option<Target>)]) {
        let changes = changes
            .iter()
            .map(|(prefix, target)| RouteChange {
                prefix: prefix.parse().unwrap(),
                target: target.clone(),
            })
            .collect();
        let before = self.routes.summary().batches;
        self.wait(self.routes.apply(changes)).unwrap();
        self.until(|summary| summary.batches > before && summary.queued == 0);
    }

    fn until(&self, done: impl FnMut(&Summary) -> bool) -> Summary {
        self.wait(self.routes.wait_for(done)).unwrap()
    }

    fn state(&self, prefix: &str) -> RouteState {
        let reports = self.wait(self.routes.report()).unwrap();
        reports.into_iter().find(|report| report.prefix == prefix.parse().unwrap()).unwrap().state
    }

    /// The next event that is not about time.
    fn event(&mut self) -> RouteEvent {
        loop {
            match self.any_event() {
                RouteEvent::Settled(_) => {}
                event => return event,
            }
        }
    }

    fn any_event(&mut self) -> RouteEvent {
        let next = self.events.recv();
        self.runtime
            .block_on(async { tokio::time::timeout(SOON, next).await })
            .expect("an event in time")
            .expect("the thread lives")
    }

    fn settled(&mut self) -> Duration {
        loop {
            if let RouteEvent::Settled(took) = self.any_event() {
                return took;
            }
        }
    }
}

fn via(hops: &[&str]) -> Option<Target> {
    Some(Target::NextHops(hops.iter().map(|hop| hop.parse::<IpAddr>().unwrap()).collect()))
}

/// What `ip monitor` says between two routes of our own making.
struct RouteMonitor {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl RouteMonitor {
    fn start() -> Self {
        let mut child =
            Command::new("ip").args(["monitor", "route"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut monitor = Self { child, lines };
        // It has no way to say that it listens: knock until it answers.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let first = monitor.lines.next();
            sender.send((monitor, first)).unwrap();
        });
        let deadline = Instant::now() + SOON;
        loop {
            ip("route replace 203.0.113.1/32 dev v0");
            ip("route del 203.0.113.1/32 dev v0");
            if let Ok((monitor, first)) = receiver.recv_timeout(Duration::from_millis(20)) {
                assert!(first.unwrap().unwrap().contains("203.0.113.1"));
                return monitor;
            }
            assert!(Instant::now() < deadline, "ip monitor says nothing");
        }
    }

    /// Everything it said, but for our knocking.
    fn stop(mut self) -> Vec<String> {
        ip("route replace 203.0.113.9/32 dev v0");
        let mut said = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if line.contains("203.0.113.9") {
                break;
            }
            if !line.contains("203.0.113.1 ") {
                said.push(line);
            }
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        said
    }
}

#[test]
fn it_is_told_how_long_after_the_news_all_routes_are_acknowledged() {
    node();
    let mut fixture = Fixture::in_sync();
    let long_ago = Instant::now().checked_sub(Duration::from_secs(7)).unwrap();
    let change = |prefix: &str, target| RouteChange { prefix: prefix.parse().unwrap(), target };
    // The first of two batches counts; a next hop without a path is not waited for.
    let batches = [
        (
            long_ago,
            vec![
                change("10.1.0.0/24", via(&["192.0.2.9"])),
                change("fd01::/64", via(&["fd00:a::9"])),
            ],
        ),
        (Instant::now(), vec![change("10.9.0.0/24", via(&["203.0.113.77"]))]),
    ];
    for (since, changes) in batches {
        assert!(fixture.routes.try_apply(since, || changes));
    }
    let took = fixture.settled();
    assert!(took >= Duration::from_secs(7) && took < Duration::from_secs(7) + SOON, "{took:?}");
    let summary = fixture.until(|summary| summary.batches == 2 && summary.pending == 1);
    assert_eq!(summary.installed, 2);
    // The clock starts anew with the next one.
    fixture.set(&[("10.1.0.0/24", None), ("fd01::/64", None)]);
    while fixture.settled() >= Duration::from_secs(7) {}
    assert_eq!(ours(), Vec::<String>::new());
}

#[test]
fn routes_of_both_families_are_installed_changed_and_removed() {
    node();
    let fixture = Fixture::in_sync();
    fixture.set(&[
        ("10.1.0.0/24", via(&["192.0.2.9"])),
        ("fd01::/64", via(&["fd00:a::9"])),
        ("10.2.0.0/24", Some(Target::Blackhole)),
        ("fd02::/64", Some(Target::Blackhole)),
        ("0.0.0.0/0", via(&["192.0.2.9", "198.51.100.9"])),
        ("::/0", via(&["fd00:a::9", "fd00:b::9"])),
    ]);
    fixture.until(|summary| summary.installed == 6);
    assert_eq!(
        ours(),
        [
            "default metric 2048 nexthop via 192.0.2.9 dev v0 weight 1 nexthop via 198.51.100.9 dev v1 weight 1",
            "10.1.0.0/24 via 192.0.2.9 dev v0 metric 2048",
            "blackhole 10.2.0.0/24 metric 2048",
            "fd01::/64 via fd00:a::9 dev v0 metric 2048",
            "blackhole fd02::/64 dev lo metric 2048",
            "default metric 2048 nexthop via fd00:a::9 dev v0 weight 1 nexthop via fd00:b::9 dev v1 weight 1",
        ]
    );
    // One path to many, many to one, across kinds.
    fixture.set(&[
        ("10.1.0.0/24", via(&["192.0.2.9", "192.0.2.8"])),
        ("fd01::/64", via(&["fd00:a::9", "fd00:b::9"])),
        ("10.2.0.0/24", via(&["192.0.2.9"])),
        ("fd02::/64", via(&["fd00:b::9"])),
        ("0.0.0.0/0", via(&["198.51.100.9"])),
        ("::/0", Some(Target::Blackhole)),
    ]);
    fixture.until(|summary| summary.installed == 6);
    assert_eq!(
        ours(),
        [
            "default via 198.51.100.9 dev v1 metric 2048",
            "10.1.0.0/24 metric 2048 nexthop via 192.0.2.8 dev v0 weight 1 nexthop via 192.0.2.9 dev v0 weight 1",
            "10.2.0.0/24 via 192.0.2.9 dev v0 metric 2048",
            "fd01::/64 metric 2048 nexthop via fd00:a::9 dev v0 weight 1 nexthop via fd00:b::9 dev v1 weight 1",
            "fd02::/64 via fd00:b::9 dev v1 metric 2048",
            "blackhole default dev lo metric 2048",
        ]
    );
    assert_eq!(fixture.state("::/0"), RouteState::Blackhole);
    fixture.set(&[
        ("10.1.0.0/24", None),
        ("fd01::/64", None),
        ("10.2.0.0/24", None),
        ("fd02::/64", None),
        ("0.0.0.0/0", None),
        ("::/0", None),
    ]);
    assert_eq!(ours(), Vec::<String>::new());
    assert_eq!(fixture.until(|s| s.desired == 0).repaired, 0);
}

#[test]
fn a_restart_adopts_without_churn_and_removes_only_what_nobody_wants() {
    node();
    let wanted: [(&str, Option<Target>); 5] = [
        ("10.1.0.0/24", via(&["192.0.2.9"])),
        ("10.2.0.0/24", via(&["192.0.2.9", "198.51.100.9"])),
        ("10.3.0.0/24", Some(Target::Blackhole)),
        ("fd01::/64", via(&["fd00:a::9", "fd00:b::9"])),
        ("fd03::/64", Some(Target::Blackhole)),
    ];
    let first = Fixture::in_sync();
    first.set(&wanted);
    first.set(&[("10.66.0.0/24", via(&["192.0.2.9"])), ("fd66::/64", via(&["fd00:a::9"]))]);
    first.until(|summary| summary.installed == 7);
    drop(first);
    assert_eq!(ours().len(), 7, "routes stay on exit");

    let second = Fixture::start();
    let before = second.routes.summary().batches;
    second
        .wait(
            second.routes.apply(
                wanted
                    .iter()
                    .map(|(prefix, target)| RouteChange {
                        prefix: prefix.parse().unwrap(),
                        target: target.clone(),
                    })
                    .collect(),
            ),
        )
        .unwrap();
    second.until(|summary| summary.batches > before && summary.queued > 0);
    assert_eq!(ours().len(), 7, "nothing is written before all inputs are in sync");
    let monitor = RouteMonitor::start();
    second.wait(second.routes.in_sync()).unwrap();
    second.until(|summary| summary.in_sync && summary.queued == 0 && summary.installed == 5);
    let said = monitor.stop();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("Deleted") && said[1].starts_with("Deleted"), "{said:?}");
    assert!(said.iter().any(|line| line.contains("10.66.0.0/24")), "{said:?}");
    assert!(said.iter().any(|line| line.contains("fd66::/64")), "{said:?}");
}

#[test]
fn foreign_routes_are_never_touched() {
    node();
    let foreign = [
        "-4 route add 10.1.0.0/24 via 192.0.2.77",
        "-6 route add fd01::/64 via fd00:a::77 metric 100",
        "-4 route add 10.4.0.0/24 via 192.0.2.77 metric 2048 proto static",
        "-6 route add fd04::/64 via fd00:a::77 metric 2048 proto static",
        "-4 route add 10.5.0.0/24 via 192.0.2.77 proto bird",
    ];
    for route in foreign {
        ip(route);
    }
    let others =
        || shown("").into_iter().filter(|line| !line.contains("proto 82")).collect::<Vec<_>>();
    let before = others();
    let mut fixture = Fixture::in_sync();
    fixture.set(&[
        ("10.1.0.0/24", via(&["192.0.2.9"])),
        ("fd01::/64", via(&["fd00:a::9"])),
        ("10.4.0.0/24", via(&["192.0.2.9"])),
        ("fd04::/64", via(&["fd00:a::9"])),
    ]);
    fixture.until(|summary| summary.installed == 2 && summary.failed == 2);
    assert_eq!(others(), before);
    // The same prefix with another metric: side by side, and the foreign one wins.
    assert!(ip("route get 10.1.0.5").contains("192.0.2.77"));
    for (prefix, gateway) in [("10.1.0.0/24", "192.0.2.77"), ("fd01::/64", "fd00:a::77")] {
        let RouteState::Overridden(by) = fixture.state(prefix) else { panic!("{prefix} is used") };
        assert!(by.contains(&format!("via {gateway} dev ")), "{by}");
    }
    // Prefix and metric taken: said so, and not touched by a change or a removal either.
    assert!(matches!(fixture.state("10.4.0.0/24"), RouteState::Failed(_)));
    let mut told = (false, false);
    while told != (true, true) {
        match fixture.event() {
            RouteEvent::Refused { .. } => told.0 = true,
            RouteEvent::Overridden(Some(_)) => told.1 = true,
            _ => {}
        }
    }
    fixture.set(&[("10.4.0.0/24", via(&["192.0.2.8"])), ("fd04::/64", None)]);
    assert_eq!(others(), before);
    // The foreign one goes: ours takes its place, by event.
    ip("-4 route del 10.4.0.0/24 via 192.0.2.77 metric 2048 proto static");
    fixture.until(|summary| summary.installed == 3 && summary.failed == 0);
    assert!(ip("route get 10.4.0.5").contains("192.0.2.8"));
    // Somebody replaces a route of ours by one of his own: it is his now.
    ip("-4 route replace 10.4.0.0/24 via 192.0.2.77 metric 2048 proto static");
    fixture.until(|summary| summary.failed == 1);
    assert!(ip("route get 10.4.0.5").contains("192.0.2.77"));
}

#[test]
fn damage_is_repaired_by_event() {
    node();
    let fixture = Fixture::in_sync();
    fixture.set(&[
        ("10.1.0.0/24", via(&["192.0.2.9"])),
        ("10.2.0.0/24", via(&["192.0.2.9", "198.51.100.9"])),
        ("10.3.0.0/24", Some(Target::Blackhole)),
        ("fd01::/64", via(&["fd00:a::9"])),
        ("fd02::/64", via(&["fd00:a::9", "fd00:b::9"])),
        ("fd03::/64", Some(Target::Blackhole)),
    ]);
    fixture.until(|summary| summary.installed == 6);
    let whole = ours();
    for damage in [
        "-4 route flush proto 82",
        "-6 route flush proto 82",
        "-4 route replace 10.1.0.0/24 via 198.51.100.66 metric 2048 proto 82",
        "-6 route replace fd01::/64 via fd00:b::66 metric 2048 proto 82",
        "-6 route del fd02::/64 via fd00:b::9 metric 2048 proto 82",
        "-6 route append fd01::/64 via fd00:b::66 metric 2048 proto 82",
        "-4 route add 10.99.0.0/24 via 192.0.2.9 metric 2048 proto 82",
    ] {
        ip(damage);
        let start = Instant::now();
        // The thread may take several looks; what counts is that the kernel is whole within 1 s.
        while ours() != whole {
            assert!(start.elapsed() < Duration::from_secs(1), "{damage}: {:#?}", ours());
            std::thread::yield_now();
        }
    }
    assert!(fixture.until(|summary| summary.installed == 6).repaired >= 10);
}

#[test]
fn a_link_that_flaps_takes_its_routes_along_and_brings_them_back() {
    node();
    let fixture = Fixture::in_sync();
    fixture.set(&[
        ("10.1.0.0/24", via(&["192.0.2.9"])),
        ("10.2.0.0/24", via(&["192.0.2.9", "198.51.100.9"])),
        ("fd01::/64", via(&["fd00:a::9"])),
        ("fd02::/64", via(&["fd00:a::9", "fd00:b::9"])),
    ]);
    fixture.until(|summary| summary.installed == 4);
    let whole = ours();
    ip("link set v0 down");
    fixture.until(|summary| summary.pending == 2 && summary.queued == 0);
    assert!(matches!(fixture.state("10.1.0.0/24"), RouteState::Pending(_)));
    assert_eq!(
        ours(),
        [
            "10.2.0.0/24 via 198.51.100.9 dev v1 metric 2048",
            "fd02::/64 via fd00:b::9 dev v1 metric 2048",
        ]
    );
    ip("link set v0 up");
    // The kernel drops global IPv6 addresses of a link that goes down.
    ip("addr replace fd00:a::1/64 dev v0 nodad");
    fixture.until(|summary| summary.installed == 4 && summary.queued == 0);
    assert_eq!(ours(), whole);
    assert_eq!(fixture.routes.summary().repaired, 0, "a link that fails is nobody's tampering");
}

#[test]
fn a_next_hop_behind_a_gateway_is_resolved_and_follows_the_gateway() {
    node();
    let fixture = Fixture::in_sync();
    fixture.set(&[("10.1.0.0/24", via(&["203.0.113.5"])), ("fd01::/64", via(&["fd99::5"]))]);
    fixture.until(|summary| summary.pending == 2);
    // Own routes serve too: a default route learnt from the switch.
    fixture
        .set(&[("0.0.0.0/0", via(&["192.0.2.9", "198.51.100.9"])), ("::/0", via(&["fd00:a::9"]))]);
    fixture.until(|summary| summary.installed == 4);
    assert!(shown("10.1.0.0/24")[0].contains("nexthop via 198.51.100.9"));
    assert_eq!(shown("fd01::/64"), ["fd01::/64 via fd00:a::9 dev v0 proto 82 metric 2048"]);
    ip("route add 203.0.113.0/24 via 198.51.100.7");
    ip("route add fd99::/64 via fd00:b::7");
    let moved = |prefix: &str, gateway: &str| {
        let start = Instant::now();
        while !shown(prefix).iter().any(|line| line.contains(&format!("via {gateway} dev v1"))) {
            assert!(start.elapsed() < SOON, "{:?}", shown(prefix));
            std::thread::yield_now();
        }
    };
    moved("10.1.0.0/24", "198.51.100.7");
    moved("fd01::/64", "fd00:b::7");
    // A route that covers its own next hop neither loops nor flaps.
    fixture.set(&[("203.0.113.0/28", via(&["203.0.113.5"]))]);
    fixture.until(|summary| summary.installed == 5 && summary.queued == 0);
    assert!(shown("203.0.113.0/28")[0].contains("via 198.51.100.7 dev v1"));
    // Nor is the next hop one of our own addresses.
    fixture.set(&[("10.7.0.0/24", via(&["192.0.2.1"])), ("fd07::/64", via(&["fd00:a::1"]))]);
    fixture.until(|summary| summary.pending == 2);
}

#[test]
fn ten_thousand_routes_arrive_and_survive_a_flush() {
    node();
    let fixture = Fixture::in_sync();
    let changes = |target: Option<Target>| -> Vec<RouteChange> {
        (0..10_000_u32)
            .map(|i| RouteChange {
                prefix: format!("10.{}.{}.{}/28", i >> 12, i >> 4 & 255, (i & 15) << 4)
                    .parse()
                    .unwrap(),
                target: target.clone(),
            })
            .collect()
    };
    fixture.wait(fixture.routes.apply(changes(via(&["192.0.2.9"])))).unwrap();
    fixture.until(|summary| summary.installed == 10_000);
    assert_eq!(ours().len(), 10_000);
    ip("-4 route flush proto 82");
    fixture.until(|summary| summary.repaired >= 10_000 && summary.installed == 10_000);
    assert_eq!(ours().len(), 10_000);
    fixture.wait(fixture.routes.apply(changes(None))).unwrap();
    fixture.until(|summary| summary.desired == 0 && summary.queued == 0);
    assert_eq!(ours(), Vec::<String>::new());
}

#[test]
fn the_interface_of_a_pod_is_told_and_each_change_of_it() {
    node();
    let mut fixture = Fixture::start();
    let pods: Vec<IpAddr> =
        ["10.1.0.5", "fd01::5", "10.1.0.6"].iter().map(|pod| pod.parse().unwrap()).collect();
    ip("route add 10.1.0.5/32 dev v0");
    ip("-6 route add fd01::5/128 dev v0");
    // A default route does not make an address local.
    ip("route add default via 192.0.2.9");
    fixture.wait(fixture.routes.watch_pods(pods.clone())).unwrap();
    let told = |fixture: &mut Fixture, pod: usize, interface: Option<&str>| {
        let event =
            RouteEvent::Interface { address: pods[pod], interface: interface.map(str::to_owned) };
        assert_eq!(fixture.event(), event);
    };
    told(&mut fixture, 0, Some("v0"));
    told(&mut fixture, 2, None);
    told(&mut fixture, 1, Some("v0"));
    ip("route add 10.1.0.6/32 dev v1");
    told(&mut fixture, 2, Some("v1"));
    ip("route replace 10.1.0.5/32 dev v1");
    told(&mut fixture, 0, Some("v1"));
    ip("-6 route del fd01::5/128 dev v0");
    told(&mut fixture, 1, None);
    ip("link del v1");
    told(&mut fixture, 0, None);
    told(&mut fixture, 2, None);
}

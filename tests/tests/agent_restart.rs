//! Agents that peer with each other, die and come back, and have their work undone by others.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use api::control::PeerView;
use tests::agent::{Agent, LIMIT, node, pod, policy};
use tests::monitor::Watch;
use tests::netns::{Directory, Namespace, connect};
use tests::wait::eventually;

/// Two nodes on one link, each with a pod that is isolated, in one store each.
struct Pair {
    left: Namespace,
    right: Namespace,
    left_directory: Directory,
    right_directory: Directory,
}

fn pair() -> Pair {
    let (left, right) = (Namespace::new("left"), Namespace::new("right"));
    connect(&left, "up0", &right, "up0");
    left.ip(&["addr add 192.0.2.1/24 dev up0", "addr add 2001:db8::1/64 dev up0"]);
    right.ip(&["addr add 192.0.2.2/24 dev up0", "addr add 2001:db8::2/64 dev up0"]);
    // Where the pods' routes lead.
    for (namespace, number) in [(&left, 1), (&right, 2)] {
        namespace.ip(&[
            "link add pod0 type veth peer name pod0c",
            "link set pod0 up",
            "link set pod0c up",
            &format!("route add 10.{number}.0.2/32 dev pod0"),
            &format!("route add fd00:{number}::2/128 dev pod0"),
        ]);
    }
    let objects = [
        node("n1", &["192.0.2.1", "2001:db8::1"], &["10.1.0.0/24", "fd00:1::/64"]),
        node("n2", &["192.0.2.2", "2001:db8::2"], &["10.2.0.0/24", "fd00:2::/64"]),
        pod("shop", "web", "n1", ["10.1.0.2", "fd00:1::2"]),
        pod("shop", "db", "n2", ["10.2.0.2", "fd00:2::2"]),
        policy(
            "shop",
            "web",
            "podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]",
        ),
    ]
    .concat();
    let directories = [Directory::new("left"), Directory::new("right")];
    for directory in &directories {
        std::fs::create_dir_all(directory.join("store")).unwrap();
        directory.write("store/all.yaml", &objects);
    }
    let [left_directory, right_directory] = directories;
    Pair { left, right, left_directory, right_directory }
}

impl Pair {
    fn start_left(&self) -> Agent {
        Agent::start(&self.left, "n1", &self.left_directory)
    }

    fn start_right(&self) -> Agent {
        Agent::start(&self.right, "n2", &self.right_directory)
    }

    fn left_reaches_right(&self) -> bool {
        let via = |prefix, gateway: &str| self.left.routes_via(prefix, gateway.parse().unwrap());
        via("10.2.0.0/24", "192.0.2.2") && via("fd00:2::/64", "2001:db8::2")
    }

    fn right_reaches_left(&self) -> bool {
        let via = |prefix, gateway: &str| self.right.routes_via(prefix, gateway.parse().unwrap());
        via("10.1.0.0/24", "192.0.2.1") && via("fd00:1::/64", "2001:db8::1")
    }

    fn connected(&self) {
        eventually(LIMIT, "both nodes have each other's pod CIDRs, v4 and v6", || {
            self.left_reaches_right() && self.right_reaches_left()
        });
    }
}

#[test]
fn nodes_of_a_mesh_install_each_others_pod_cidrs() {
    let pair = pair();
    let (left, right) = (pair.start_left(), pair.start_right());
    pair.connected();
    left.synced();
    right.synced();
    let peers = left.peers();
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].name.as_str(), peers[0].kind.as_str()), ("n2", "mesh"));
    assert_eq!(peers[0].state, "Established");
    assert_eq!((peers[0].received, peers[0].accepted, peers[0].sent), (2, 2, 2));
    let routes = left.routes();
    let shown: Vec<_> =
        routes.iter().map(|r| (r.prefix.as_str(), r.origin.as_str(), r.fib.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("10.1.0.0/24", "local", "blackhole"),
            ("10.2.0.0/24", "n2", "ok"),
            ("fd00:1::/64", "local", "blackhole"),
            ("fd00:2::/64", "n2", "ok"),
        ]
    );
    assert_eq!(left.problems(), []);
}

#[test]
fn a_node_cannot_announce_what_belongs_to_another() {
    let pair = pair();
    // In its own store n2 claims a part of n1's pods, and somebody else's network.
    let all = std::fs::read_to_string(pair.right_directory.join("store/all.yaml")).unwrap();
    let forged = all.replace("'10.2.0.0/24'", "'10.2.0.0/24', '10.1.0.128/25', '198.51.100.0/24'");
    let forged = forged.replace("'10.1.0.0/24'", "'10.77.0.0/24'");
    pair.right_directory.write("store/all.yaml", &forged);
    let (left, _right) = (pair.start_left(), pair.start_right());
    eventually(LIMIT, "n1 hears all four and accepts two", || {
        left.peers().first().is_some_and(|peer| (peer.received, peer.accepted) == (4, 2))
    });
    assert!(pair.left_reaches_right());
    assert!(!pair.left.reaches("10.1.0.128/25") && !pair.left.reaches("198.51.100.0/24"));
}

#[test]
fn a_wrong_as_number_is_one_message_at_either_side_and_goes_when_corrected() {
    let pair = pair();
    let wrong = "apiVersion: rampart.network/v1alpha1\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: {asn: 64600}\n";
    let file = pair.right_directory.write("store/bgp.yaml", wrong);
    let (left, right) = (pair.start_left(), pair.start_right());
    eventually(LIMIT, "one message at the left", || {
        let problems = left.problems();
        problems.len() == 1 && problems[0].code.0 == 2107
    });
    let problem = &left.problems()[0];
    assert_eq!(problem.subject, "peer n2");
    assert_eq!(problem.message, "sent AS 64600, expected 64512");
    assert_eq!(problem.location.as_deref(), Some("192.0.2.2:179"));
    eventually(LIMIT, "one message at the right", || right.problems().len() == 1);
    assert!([2107, 2108].contains(&right.problems()[0].code.0), "{:?}", right.problems());
    // Nothing else is disturbed.
    left.synced();
    assert!(left.status().ready);
    std::fs::remove_file(file).unwrap();
    pair.connected();
    eventually(LIMIT, "no message is left", || {
        left.problems().is_empty() && right.problems().is_empty()
    });
}

#[test]
fn a_killed_agent_leaves_all_in_place_and_its_successor_changes_nothing() {
    let pair = pair();
    let (left, _right) = (pair.start_left(), pair.start_right());
    pair.connected();
    left.synced();
    eventually(LIMIT, "the pod's interface is known", || {
        left.endpoints().iter().all(|endpoint| endpoint.interface.is_some())
    });
    left.synced();
    let ruleset = || pair.left.output("nft", &["-s", "list", "table", "inet", "rampart"]);
    let routes = || pair.left.routes().iter().map(|r| format!("{r:?}")).collect::<Vec<_>>();
    let (table_before, routes_before) = (ruleset(), routes());
    let nft = Watch::start(&pair.left, &pair.left_directory, "nft", &["monitor"]);
    let ip = Watch::start(&pair.left, &pair.left_directory, "ip", &["monitor", "route"]);
    left.kill();
    assert_eq!(ruleset(), table_before);
    assert!(pair.left_reaches_right());

    let left = pair.start_left();
    eventually(LIMIT, "the session is back", || {
        left.peers().first().is_some_and(|peer| peer.accepted == 2)
    });
    left.synced();
    assert_eq!(nft.changes(), [""; 0], "the table was touched");
    assert_eq!(ip.changes(), [""; 0], "routes were touched");
    assert_eq!(ruleset(), table_before);
    assert_eq!(left.status().policy.transactions, 0);
    let now = routes();
    let lost: Vec<_> = routes_before.iter().filter(|route| !now.contains(route)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn a_killed_or_replaced_agent_costs_its_peers_no_route_not_even_for_a_moment() {
    let pair = pair();
    let (mut left, right) = (pair.start_left(), pair.start_right());
    pair.connected();
    left.synced();
    right.synced();
    let ip = Watch::start(&pair.right, &pair.right_directory, "ip", &["monitor", "route"]);
    let restart = |phase: &str| {
        let peers = right.peers();
        peers.first().is_some_and(|peer| peer.graceful_restart.phase == phase)
    };
    for sessions in [2, 3] {
        if sessions == 2 {
            left.kill();
        } else {
            left.daemon().signal(nix::sys::signal::Signal::SIGTERM);
        }
        eventually(LIMIT, "the other node keeps its paths", || restart("away"));
        let peers = right.peers();
        let stale: u64 = peers[0].graceful_restart.stale.values().sum();
        let refused = |peer: &PeerView| {
            peer.last_error.as_ref().is_some_and(|error| error.message.contains("refused"))
        };
        eventually(LIMIT, "it has tried to connect again", || refused(&right.peers()[0]));
        assert_eq!(right.problems(), [], "a restart is no problem");
        assert_eq!((peers[0].state.as_str() == "Established", stale), (false, 2), "{peers:?}");
        assert!(pair.right_reaches_left());
        left = pair.start_left();
        eventually(LIMIT, "it has heard everything again", || {
            let peers = right.peers();
            let view = peers.first().map(|peer| (peer.established_count, peer.end_of_rib.len()));
            view == Some((sessions, 2)) && restart("none")
        });
    }
    left.synced();
    right.synced();
    assert_eq!(ip.changes(), [""; 0], "routes were touched");
}

#[test]
fn what_changed_while_the_agent_was_dead_is_made_right() {
    let pair = pair();
    let (left, _right) = (pair.start_left(), pair.start_right());
    pair.connected();
    left.synced();
    left.kill();
    let all = std::fs::read_to_string(pair.left_directory.join("store/all.yaml")).unwrap();
    let open = all.replace("app: web}}}]}]", "app: nobody}}}]}]");
    assert_ne!(open, all);
    pair.left_directory.write("store/all.yaml", &open);
    pair.left.output("ip", &["route", "del", "10.2.0.0/24"]);
    let left = pair.start_left();
    pair.connected();
    left.synced();
    assert!(left.policies()[0].rules[0].contains("nobody"), "{:?}", left.policies());
    let peers = pair.left.output("nft", &["-s", "list", "table", "inet", "rampart"]);
    assert!(!peers.contains("elements = { 10.1.0.2 . "), "{peers}");
}

#[test]
fn routes_and_table_stay_when_the_agent_ends_in_order() {
    let pair = pair();
    let (left, _right) = (pair.start_left(), pair.start_right());
    pair.connected();
    left.synced();
    let table = pair.left.output("nft", &["-s", "list", "table", "inet", "rampart"]);
    left.terminate();
    assert!(pair.left_reaches_right());
    assert_eq!(pair.left.output("nft", &["-s", "list", "table", "inet", "rampart"]), table);
    assert!(!pair.left_directory.join("run/agent.sock").exists());
}

#[test]
fn an_agent_that_is_started_while_another_one_ends_waits_for_it() {
    let pair = pair();
    let first = pair.start_left();
    first.synced();
    let second = pair.start_left();
    let waits = "waiting for the other agent to end";
    eventually(LIMIT, "the second one waits", || second.daemon().log().contains(waits));
    assert_eq!(second.status().pid, first.daemon().pid(), "the first one answers");
    first.terminate();
    eventually(LIMIT, "the second one has taken over", || {
        pair.left_directory.join("run/agent.sock").exists()
            && second.status().pid == second.daemon().pid()
    });
    second.synced();
    assert_eq!(second.daemon().log().matches(waits).count(), 1);
}

#[test]
fn damage_to_table_and_routes_is_repaired_and_told() {
    let pair = pair();
    let (left, _right) = (pair.start_left(), pair.start_right());
    pair.connected();
    left.synced();
    let ruleset = || pair.left.output("nft", &["-s", "list", "table", "inet", "rampart"]);
    let table = ruleset();
    for damage in [
        &["delete", "table", "inet", "rampart"][..],
        &["flush", "chain", "inet", "rampart", "forward"],
        &["add", "element", "inet", "rampart", "pods4", "{ 10.1.0.77 }"],
        &["flush", "map", "inet", "rampart", "to6"],
    ] {
        let repaired = left.status().policy.repaired;
        pair.left.output("nft", damage);
        eventually(LIMIT, "the table is repaired", || {
            left.status().policy.repaired > repaired && ruleset() == table
        });
    }
    pair.left.output("ip", &["-6", "route", "del", "fd00:2::/64"]);
    pair.connected();
    eventually(LIMIT, "the repairs are told", || {
        let codes: Vec<u16> = left.problems().iter().map(|problem| problem.code.0).collect();
        codes.contains(&4002) && codes.contains(&3002)
    });
    assert!(left.status().routes.repaired >= 1);
    left.synced();
}

#[test]
fn a_table_that_the_kernel_refuses_is_told_makes_us_unready_and_is_written_when_it_can_be() {
    let namespace = Namespace::new("refused");
    let directory = Directory::new("refused");
    std::fs::create_dir_all(directory.join("store")).unwrap();
    directory.write("store/node.yaml", &node("n1", &["192.0.2.1"], &["10.1.0.0/24"]));
    // Somebody owns a table of our name: the kernel lets nobody else change it while they live.
    let mut owner = namespace.within(|| {
        Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    });
    let mut commands = owner.stdin.take().unwrap();
    writeln!(commands, "add table inet rampart {{ flags owner; }}").unwrap();
    let tables = || namespace.output("nft", &["list", "tables"]);
    eventually(LIMIT, "the table is there", || tables().contains("table inet rampart"));

    let agent = Agent::start(&namespace, "n1", &directory);
    eventually(LIMIT, "the refusal is told and the agent is not ready", || {
        let status = agent.status();
        let told = status.problems.iter().any(|problem| problem.code.0 == 4001);
        told && status.not_ready.iter().any(|why| why.contains("refuses"))
    });
    assert!(agent.status().policy.refused >= 5);

    drop(commands);
    owner.wait().unwrap();
    eventually(LIMIT, "the agent recovers by itself", || agent.status().ready);
    agent.synced();
    assert_eq!(agent.problems(), []);
    assert!(
        namespace.output("nft", &["list", "table", "inet", "rampart"]).contains("chain forward")
    );
}

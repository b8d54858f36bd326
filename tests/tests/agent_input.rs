//! Bad input: each piece gets one clear message, disturbs nothing else, and the last good version
//! stays in force.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use api::control::Problem;
use tests::agent::{Agent, LIMIT, node, peer, pod, policy};
use tests::netns::{Directory, Namespace, connect};
use tests::wait::eventually;

/// A node with one pod that is isolated, and one peer that nobody answers for.
struct Bench {
    namespace: Namespace,
    outside: Namespace,
    directory: Directory,
    agent: Agent,
}

const TOR: &str = "peerAddress: '192.0.2.9:1799', peerASN: 65001, passive: true";
const ALLOW: &str = "podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]";

fn bench() -> Bench {
    let namespace = Namespace::new("input");
    let outside = Namespace::new("outside");
    connect(&namespace, "up0", &outside, "down0");
    namespace.ip(&["addr add 192.0.2.1/24 dev up0", "addr add 2001:db8::1/64 dev up0"]);
    outside.ip(&["addr add 192.0.2.9/24 dev down0", "addr add 192.0.2.66/24 dev down0"]);
    let directory = Directory::new("input");
    std::fs::create_dir_all(directory.join("store")).unwrap();
    let own = node("n1", &["192.0.2.1", "2001:db8::1"], &["10.1.0.0/24", "fd00:1::/64"]);
    directory.write("store/node.yaml", &own);
    directory.write("store/pods.yaml", &pod("shop", "web", "n1", ["10.1.0.2", "fd00:1::2"]));
    directory.write("store/policy.yaml", &policy("shop", "web", ALLOW));
    directory.write("store/peer.yaml", &peer("tor", TOR));
    let agent = Agent::start(&namespace, "n1", &directory);
    agent.synced();
    // The peer never comes: it has had its chance after a while.
    eventually(LIMIT, "the agent is ready", || agent.status().ready);
    Bench { namespace, outside, directory, agent }
}

impl Bench {
    fn put(&self, file: &str, text: &str) -> Vec<Problem> {
        self.directory.write(&format!("store/{file}"), text);
        self.agent.synced();
        self.agent.problems()
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.directory.join(&format!("store/{file}"))).unwrap();
        self.agent.synced();
    }

    fn table(&self) -> String {
        self.namespace.output("nft", &["-s", "list", "table", "inet", "rampart"])
    }

    fn location(&self, file: &str, line: u32) -> Option<String> {
        Some(format!("{}:{line}", self.directory.join(&format!("store/{file}")).display()))
    }
}

#[test]
fn each_bad_manifest_is_one_message_and_disturbs_nothing_else() {
    let bench = bench();
    assert_eq!(bench.agent.problems(), []);
    let (table, routes) = (bench.table(), bench.agent.routes());
    let peers = |agent: &Agent| {
        agent.peers().into_iter().map(|p| (p.name, p.address, p.port)).collect::<Vec<_>>()
    };
    let peers_before = peers(&bench.agent);
    assert_eq!(peers_before.len(), 1);
    // Text, code, subject, line, words of the message.
    let cases = [
        ("a: [1\n".to_owned(), 1001, "file bad.yaml", 1, ""),
        ("apiVersion: v1\nkind: Pood\n".to_owned(), 1003, "file bad.yaml", 2, "Pood"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {}\n".to_owned(),
            1004,
            "file bad.yaml",
            3,
            "metadata.name",
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: x\n  label: {}\n".to_owned(),
            1002,
            "Namespace x",
            5,
            "metadata.label: unknown field `label`, is it `labels`?",
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: x}\nspec:\n  podCIDRs: 10.9.0.0/24\n"
                .to_owned(),
            1001,
            "Node x",
            5,
            "spec.podCIDRs",
        ),
        (
            node("n2", &["192.0.2.1"], &[]),
            1008,
            "Node n2",
            6,
            "192.0.2.1 is the address of Node n1, too",
        ),
        (
            node("n2", &["192.0.2.2"], &["10.1.0.0/16"]),
            1008,
            "Node n2",
            5,
            "10.1.0.0/16 overlaps 10.1.0.0/24 of Node n1",
        ),
        (node("n2", &["192.0.2.2"], &["10.2.0.1/24"]), 1010, "Node n2", 5, "is it `10.2.0.0/24`?"),
        (
            peer("x", "peerAddress: '192.0.2.1', peerASN: 65001"),
            2113,
            "BGPPeer x",
            5,
            "an address of this node",
        ),
        (
            peer("x", "peerAddress: '198.51.100.7', peerASN: 0"),
            1011,
            "BGPPeer x",
            5,
            "AS 0 is reserved",
        ),
        (
            peer("x", "peerAddress: '198.51.100.7', peerASN: 65001, holdTimeSeconds: 1"),
            1011,
            "BGPPeer x",
            5,
            "at least 3",
        ),
        (
            peer(
                "x",
                "peerAddress: '198.51.100.7', peerASN: 65001, import: [{prefix: 10.0.0.0/33}]",
            ),
            1005,
            "BGPPeer x",
            5,
            "spec.import[0].prefix",
        ),
        (
            peer("x", "peerAddress: '192.0.2.9', peerASN: 65001"),
            1008,
            "BGPPeer x",
            5,
            "the address of BGPPeer tor, too",
        ),
        (
            policy(
                "other",
                "p",
                "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/40}}]}]",
            ),
            1005,
            "NetworkPolicy other/p",
            5,
            "spec.ingress[0].from[0].ipBlock.cidr",
        ),
        (
            policy("other", "p", "podSelector: {}, ingress: [{ports: [{port: 70000}]}]"),
            1006,
            "NetworkPolicy other/p",
            5,
            "spec.ingress[0].ports[0].port",
        ),
        (
            policy("other", "p", "podSelector: {matchExpressions: [{key: a, operator: Is}]}"),
            1007,
            "NetworkPolicy other/p",
            5,
            "spec.podSelector.matchExpressions[0]",
        ),
        (policy("shop", "web", ALLOW), 1009, "NetworkPolicy shop/web", 2, "bad.yaml is in force"),
    ];
    for (text, code, subject, line, words) in cases {
        let problems = bench.put("bad.yaml", &text);
        let [problem] = problems.as_slice() else { panic!("{text}\n{problems:#?}") };
        // The duplicate by file name is the other one.
        let file = if code == 1009 { "policy.yaml" } else { "bad.yaml" };
        assert_eq!((problem.code.0, problem.subject.as_str()), (code, subject), "{problem:?}");
        assert_eq!(problem.location, bench.location(file, line), "{problem:?}");
        assert!(problem.message.contains(words), "{problem:?}");
        assert!(!problem.next.is_empty(), "{problem:?}");
        assert!(bench.agent.daemon().log().contains(&problem.code.to_string()));
        assert_eq!(bench.table(), table, "{text}");
        assert_eq!(bench.agent.routes().len(), routes.len());
        assert!(peers(&bench.agent).contains(&peers_before[0]), "{text}");
        bench.remove("bad.yaml");
        assert_eq!(bench.agent.problems(), [], "{text}");
        assert_eq!(peers(&bench.agent), peers_before);
    }
}

#[test]
fn the_last_good_version_of_an_object_stays_in_force() {
    let bench = bench();
    let table = bench.table();
    let bad = [
        ("policy.yaml", policy("shop", "web", "podSelector: {}, ingres: [{}]"), 1002),
        (
            "policy.yaml",
            policy("shop", "web", "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: x}}]}]"),
            1005,
        ),
        ("policy.yaml", "a: [\n".to_owned(), 1001),
        (
            "pods.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspc: {}\n"
                .to_owned(),
            1002,
        ),
        ("node.yaml", node("n1", &["192.0.2.1"], &["10.1.0.1/24"]), 1010),
        ("peer.yaml", peer("tor", "peerAddress: x, peerASN: 65001"), 1011),
        ("peer.yaml", peer("tor", "peerAddress: '192.0.2.1', peerASN: 65001"), 2113),
    ];
    for (file, text, code) in bad {
        let good = std::fs::read_to_string(bench.directory.join(&format!("store/{file}"))).unwrap();
        let problems = bench.put(file, &text);
        let codes: Vec<u16> = problems.iter().map(|problem| problem.code.0).collect();
        assert_eq!(codes, [code], "{text}\n{problems:#?}");
        assert!(problems[0].next.contains("in force"), "{problems:?}");
        assert_eq!(bench.table(), table, "{text}");
        let peers = bench.agent.peers();
        assert_eq!(peers.iter().map(|p| p.port).collect::<Vec<_>>(), [1799], "{text}");
        assert_eq!(bench.agent.routes().len(), 2, "{text}");
        assert_eq!(bench.put(file, &good), []);
    }
    assert_eq!(bench.table(), table);
}

#[test]
fn the_last_good_version_survives_a_restart_with_a_broken_file() {
    let Bench { namespace, outside: _outside, directory, agent } = bench();
    let table = || namespace.output("nft", &["-s", "list", "table", "inet", "rampart"]);
    let before = table();
    for (file, text) in [
        ("policy.yaml", "a: [\n".to_owned()),
        ("peer.yaml", peer("tor", "peerAddres: '192.0.2.9:1799', peerASN: 65001")),
    ] {
        directory.write(&format!("store/{file}"), &text);
    }
    agent.synced();
    agent.kill();
    let agent = Agent::start(&namespace, "n1", &directory);
    agent.synced();
    assert_eq!(table(), before);
    assert_eq!(agent.peers().iter().map(|p| p.port).collect::<Vec<_>>(), [1799]);
    assert_eq!(agent.status().policy.transactions, 0);
    let mut codes: Vec<u16> = agent.problems().iter().map(|problem| problem.code.0).collect();
    codes.sort_unstable();
    assert_eq!(codes, [1001, 1002]);
    // Once it is deleted it is gone, whatever was remembered.
    std::fs::remove_file(directory.join("store/policy.yaml")).unwrap();
    agent.synced();
    agent.kill();
    let agent = Agent::start(&namespace, "n1", &directory);
    agent.synced();
    assert_eq!(agent.policies(), []);
}

#[test]
fn a_policy_that_was_never_good_isolates_and_admits_only_what_can_be_read() {
    let bench = bench();
    let text = policy("shop", "new", "podSelector: {matchLabels: {app: web}}, egress: [{too: []}]");
    let problems = bench.put("new.yaml", &text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].code.0, 1002);
    assert!(problems[0].next.contains("isolates"), "{problems:?}");
    let endpoint = &bench.agent.endpoints()[0];
    assert!(endpoint.isolated_egress, "{endpoint:?}");
    let new = bench.agent.policies().into_iter().find(|policy| policy.name == "new").unwrap();
    assert!(new.isolates_egress);
    assert_eq!(new.egress_rules, 0);
}

#[test]
fn a_store_that_vanishes_takes_nothing_with_it() {
    let bench = bench();
    let table = bench.table();
    let store = bench.directory.join("store");
    std::fs::rename(&store, bench.directory.join("away")).unwrap();
    eventually(LIMIT, "the loss is told", || {
        bench.agent.problems().iter().any(|problem| problem.code.0 == 1012)
    });
    assert_eq!(bench.table(), table);
    assert_eq!(bench.agent.routes().len(), 2);
    std::fs::rename(bench.directory.join("away"), &store).unwrap();
    eventually(LIMIT, "the return is noticed", || bench.agent.problems().is_empty());
    assert_eq!(bench.table(), table);
}

#[test]
fn an_empty_directory_in_place_of_the_store_takes_nothing_with_it() {
    let Bench { namespace, outside: _outside, directory, agent } = bench();
    let table = || namespace.output("nft", &["-s", "list", "table", "inet", "rampart"]);
    let before = table();
    let store = directory.join("store");
    std::fs::rename(&store, directory.join("away")).unwrap();
    std::fs::create_dir(&store).unwrap();
    let told = |agent: &Agent| {
        let problems = agent.problems();
        problems.iter().any(|p| p.code.0 == 1012 && p.message.contains("no manifests"))
    };
    eventually(LIMIT, "the loss is told", || told(&agent));
    assert_eq!(table(), before);
    agent.kill();
    let agent = Agent::start(&namespace, "n1", &directory);
    eventually(LIMIT, "the loss is told after a restart", || told(&agent));
    let status = agent.status();
    assert!(!status.ready && status.not_ready[0].contains("no manifests"), "{status:?}");
    assert_eq!(table(), before);
    std::fs::remove_dir(&store).unwrap();
    std::fs::rename(directory.join("away"), &store).unwrap();
    eventually(LIMIT, "the return is noticed", || agent.problems().is_empty());
    agent.synced();
    assert_eq!(table(), before);
}

#[test]
fn garbage_on_the_bgp_port_is_told_and_costs_nobody_else_anything() {
    let bench = bench();
    let mut known = bench.outside.within(|| TcpStream::connect("192.0.2.1:179")).unwrap();
    known.write_all(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n").unwrap();
    eventually(LIMIT, "garbage of a peer is told", || {
        bench.agent.problems().iter().any(|p| p.code.0 == 2111 && p.subject == "peer tor")
    });
    let stranger = bench.outside.within(|| {
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::empty(),
            None,
        )
        .unwrap();
        let address = |text: &str| text.parse::<nix::sys::socket::SockaddrIn>().unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&socket);
        nix::sys::socket::bind(descriptor, &address("192.0.2.66:0")).unwrap();
        nix::sys::socket::connect(descriptor, &address("192.0.2.1:179")).unwrap();
        socket
    });
    eventually(LIMIT, "a stranger is told", || {
        bench
            .agent
            .problems()
            .iter()
            .any(|p| p.code.0 == 2112 && p.subject == "neighbour 192.0.2.66")
    });
    drop(stranger);
    assert!(bench.agent.status().ready);
    bench.agent.synced();
}

#[test]
fn a_second_agent_in_the_same_run_directory_does_not_start() {
    let bench = bench();
    let store = format!("dir:{}", bench.directory.join("store").display());
    let run = bench.directory.join("run");
    let program = tests::program::rampart();
    let output = bench.namespace.within(|| {
        std::process::Command::new(program)
            .args(["agent", "--node-name", "n1", "--store", &store, "--run-dir"])
            .arg(&run)
            .output()
            .unwrap()
    });
    assert!(!output.status.success());
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains(&format!("pid {}", bench.agent.daemon().pid())), "{log}");
    assert!(bench.agent.status().ready, "the first one goes on");
}

#[test]
fn health_readiness_and_metrics_are_served_on_loopback() {
    let bench = bench();
    let get = |path: &str| {
        bench.namespace.output("curl", &["-s", &format!("http://127.0.0.1:9472{path}")])
    };
    assert_eq!(get("/healthz"), "ok\n");
    assert_eq!(get("/readyz"), "ok\n");
    let metrics = get("/metrics");
    assert!(metrics.contains("\nrampart_ready 1\n"), "{metrics}");
    assert!(metrics.contains("\nrampart_bgp_peers 1\n"), "{metrics}");
    assert!(metrics.contains("\nrampart_policies 1\n"), "{metrics}");
    bench.put("bad.yaml", "a: [\n");
    assert!(get("/metrics").contains("\nrampart_problems{code=\"RC1001\"} 1\n"));
    let socket = std::fs::metadata(bench.directory.join("run/agent.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600, "for the owner only");
    assert_eq!(bench.agent.ask("/v1/nothing").0, 404);
    assert_eq!(bench.agent.ask("/v1/synced?timeout_ms=x").0, 400);
}

#[test]
fn an_agent_without_its_node_is_not_ready_and_says_why() {
    let namespace = Namespace::new("lonely");
    let directory = Directory::new("lonely");
    let agent = Agent::start(&namespace, "n1", &directory);
    eventually(Duration::from_secs(5), "the reason is given", || {
        let status = agent.status();
        !status.ready && status.not_ready.iter().any(|why| why.contains("no Node object named n1"))
    });
    let (_, body) = agent.ask("/v1/synced?timeout_ms=50");
    assert!(body.contains("\"synced\":false"), "{body}");
}

//! `/metrics` as scrapers read it: valid by the judgement of promtool, and exactly the contract.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use api::metric::{METRICS, Type};
use tests::agent::{Agent, LIMIT, node, peer, pod, policy};
use tests::netns::{Directory, Namespace};
use tests::wait::eventually;

const METRICS_URL: &str = "http://127.0.0.1:9472/metrics";
const OPEN: &str = "accept: application/openmetrics-text;version=1.0.0";

struct Bench {
    namespace: Namespace,
    directory: Directory,
    agent: Agent,
}

/// A node with two explicit peers that nobody answers for, one of the mesh, a pod and a policy.
fn bench() -> Bench {
    let namespace = Namespace::new("metrics");
    namespace.ip(&["addr add 192.0.2.1/32 dev lo", "addr add 2001:db8::1/128 dev lo"]);
    let directory = Directory::new("metrics");
    std::fs::create_dir_all(directory.join("store")).unwrap();
    let own = node("n1", &["192.0.2.1", "2001:db8::1"], &["10.1.0.0/24", "fd00:1::/64"]);
    let other = node("n2", &["192.0.2.2", "2001:db8::2"], &["10.2.0.0/24", "fd00:2::/64"]);
    directory.write("store/nodes.yaml", &format!("{own}{other}"));
    directory.write("store/pods.yaml", &pod("shop", "web", "n1", ["10.1.0.2", "fd00:1::2"]));
    directory.write("store/policy.yaml", &policy("shop", "web", "podSelector: {}"));
    let v4 = "peerAddress: 192.0.2.9, peerASN: 65001, maxPrefixes: 100";
    let v6 = "peerAddress: '2001:db8::9', peerASN: 65001";
    directory.write("store/peers.yaml", &format!("{}{}", peer("tor-a", v4), peer("tor-b", v6)));
    let agent = Agent::start(&namespace, "n1", &directory);
    agent.synced();
    Bench { namespace, directory, agent }
}

impl Bench {
    fn scrape(&self, header: &str) -> String {
        self.namespace.output("curl", &["-s", "-H", header, METRICS_URL])
    }
}

/// Names in the exposition after `# TYPE`, with the type.
fn families(text: &str) -> BTreeSet<(String, String)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

fn contract(counter_ending: &str) -> BTreeSet<(String, String)> {
    METRICS
        .iter()
        .map(|metric| match metric.kind {
            Type::Counter => (format!("{}{counter_ending}", metric.name), "counter".to_owned()),
            Type::Gauge => (metric.name.to_owned(), "gauge".to_owned()),
            Type::Histogram => (metric.name.to_owned(), "histogram".to_owned()),
        })
        .collect()
}

#[test]
fn both_formats_have_exactly_the_metrics_of_the_contract_and_promtool_accepts_them() {
    let bench = bench();
    let text = bench.scrape("accept: */*");
    assert_eq!(families(&text), contract("_total"));
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    // Warnings of its linter have an exit code of their own.
    assert!(output.status.success() && words.is_empty(), "{words}\n{text}");

    let open = bench.scrape(OPEN);
    assert_eq!(families(&open), contract(""));
    assert!(open.ends_with("# EOF\n"), "{open}");
}

#[test]
fn numbers_follow_what_happens_and_the_mesh_has_no_series_of_its_own() {
    let bench = bench();
    let has = |line: &str| bench.scrape(OPEN).lines().any(|other| other == line);
    for line in [
        "rampart_bgp_peer_up{peer=\"tor-a\",kind=\"tor\"} 0",
        "rampart_bgp_peer_up{peer=\"tor-b\",kind=\"tor\"} 0",
        "rampart_bgp_peer_prefix_limit_ratio{peer=\"tor-a\",kind=\"tor\"} 0.0",
        "rampart_bgp_peer_received_prefixes{peer=\"mesh\",kind=\"mesh\"} 0",
        "rampart_bgp_mesh_peers 1",
        "rampart_bgp_mesh_peer_down{peer=\"n2\"} 1",
        "rampart_policies 1",
        "rampart_config_stale 0",
    ] {
        assert!(has(line), "{line}\n{}", bench.scrape(OPEN));
    }
    let text = bench.scrape(OPEN);
    let of_n2: Vec<&str> = text.lines().filter(|line| line.contains("n2")).collect();
    assert_eq!(of_n2.len(), 1, "only that it is down: {of_n2:?}");

    // The first table is not measured, a change is.
    let counted = |text: &str, name: &str| -> u64 {
        let name = format!("{name}_count ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    };
    let count = |text: &str| counted(text, "rampart_policy_apply_seconds");
    let before = count(&bench.scrape(OPEN));
    let rule = "podSelector: {}, ingress: [{ports: [{port: 80}]}]";
    bench.directory.write("store/policy.yaml", &policy("shop", "web", rule));
    bench.agent.synced();
    assert_eq!(count(&bench.scrape(OPEN)), before + 1);

    let converged = |text: &str| counted(text, "rampart_convergence_seconds");
    let before = converged(&bench.scrape(OPEN));
    let own = node("n1", &["192.0.2.1", "2001:db8::1"], &["10.1.8.0/24", "fd00:8::/64"]);
    bench.directory.write("store/nodes.yaml", &own);
    eventually(LIMIT, "new pod CIDRs are in the kernel, and it is counted", || {
        converged(&bench.scrape(OPEN)) > before
    });

    bench.directory.write("store/policy.yaml", &policy("shop", "web", "podSelector: 7"));
    bench.agent.synced();
    assert!(has("rampart_config_stale 1"));
    eventually(LIMIT, "the agent is ready without its peers", || has("rampart_ready 1"));
}

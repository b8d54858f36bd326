//! The harness of the real cluster, proven without Rampart: what the scenarios stand on.
//!
//! Needs root.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ctl::lab::namespace;
use tests::cluster::control_plane::Part;
use tests::cluster::fabric::Fabric;
use tests::cluster::name::Name;
use tests::cluster::probe::{self, Flow, Knocker};
use tests::cluster::{Cluster, Cni, Options, Proxy, pod};
use tests::netns::{Namespace, connect};
use tests::wait::eventually;

const SOON: Duration = Duration::from_secs(60);

fn nothing_is_left(name: &Name) -> bool {
    let cgroup =
        |hierarchy: &str| Path::new("/sys/fs/cgroup").join(hierarchy).join(name.namespace("n1"));
    namespace::list(&name.prefix()).unwrap().is_empty()
        && !name.directory().exists()
        && ["", "memory", "cpuset"].iter().all(|hierarchy| !cgroup(hierarchy).exists())
}

#[test]
fn pods_of_two_racks_reach_each_other_and_an_api_outage_ends() -> anyhow::Result<()> {
    let options = Options {
        fabric: Fabric::Racks,
        proxy: Proxy::Nftables,
        cni: Cni::Reference,
        ..Options::of_a_test()
    };
    let name = options.name.clone();
    let cluster = Cluster::up(options)?;
    cluster.wait_nodes_ready(SOON)?;
    cluster.wait_dns(SOON)?;
    let serve: &[&str] = &["netexec", "--http-port=8080", "--udp-port=8081"];
    let pods = cluster.run_pods(&[
        pod::manifest("default", "a", Some("n1"), serve),
        pod::manifest("default", "b", Some("n2"), serve),
    ])?;
    cluster.assert_reaches(&pods[0], &pods[1])?;
    cluster.assert_reaches(&pods[1], &pods[0])?;
    // Over the service network too, by name.
    let api = "kubernetes.default.svc.cluster.local:443";
    cluster.pod_exec("default", "a", &["/agnhost", "connect", api, "--timeout=3s"])?;

    assert_eq!(cluster.api().get("/api/v1/nodes")?["items"].as_array().unwrap().len(), 2);
    cluster.stop(Part::ApiServer)?;
    assert!(cluster.kubectl(&["get", "nodes"]).is_err());
    cluster.stop(Part::Etcd)?;
    cluster.start(Part::Etcd)?;
    cluster.start(Part::ApiServer)?;
    assert!(cluster.kubectl(&["get", "nodes"])?.contains("n2"));

    drop(cluster);
    assert!(nothing_is_left(&name));
    Ok(())
}

#[test]
fn probes_count_what_a_broken_link_loses_and_what_gets_through() -> anyhow::Result<()> {
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    connect(&a, "to-b", &b, "to-a");
    a.ip(&["addr add 192.0.2.1/24 dev to-b"]);
    b.ip(&["addr add 192.0.2.2/24 dev to-a"]);
    let (from, to) = (namespace::path(a.name()), namespace::path(b.name()));
    let address = IpAddr::from([192, 0, 2, 2]);
    let flow = Flow::start(&from, &to, address, 9000, Duration::from_millis(1))?;
    flow.wait_first_after(Instant::now(), SOON)?;
    eventually(SOON, "it flows", || flow.sent() >= 100);
    b.ip(&["link set to-a down"]);
    let cut = flow.wait_silence(Duration::from_millis(50), SOON)?;
    assert!(cut.is_some());
    let mended = Instant::now();
    b.ip(&["link set to-a up"]);
    assert!(flow.wait_first_after(mended, SOON)? > mended);
    let report = flow.finish()?;
    assert!(report.lost() > 10 && report.received > 10, "{report:?}");
    assert!(report.longest_gap >= Duration::from_millis(50), "{report:?}");

    let listener = probe::inside(&to, || TcpListener::bind((address, 9001)))??;
    let knocker = Knocker::start(from, (address, 9001).into(), Duration::from_secs(1));
    listener.accept()?;
    let (attempts, connected) = knocker.finish()?;
    assert!(attempts > 0 && connected > 0, "{connected} of {attempts}");
    Ok(())
}

#[test]
fn a_cluster_goes_with_its_owner_beside_another_that_stays() -> anyhow::Result<()> {
    let owned = Name::unique();
    let mut owner = Command::new(env!("CARGO_BIN_EXE_cluster"))
        .args(["up", "--attached", "--nodes", "1", "--name", owned.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let other = Cluster::up(Options { nodes: 1, ..Options::of_a_test() })?;
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line == "up")));
    assert!(!nothing_is_left(&owned));
    owner.kill()?;
    owner.wait()?;
    eventually(SOON, "the guard took it down", || nothing_is_left(&owned));
    assert!(other.kubectl(&["get", "nodes"])?.contains("n1"));
    Ok(())
}

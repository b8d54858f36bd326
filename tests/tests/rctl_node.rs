//! One node as `rctl` sees it, and as it leaves it: doctor, bundle, clean-up, in a network
//! namespace with a real agent.
//!
//! Needs root.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use api::control::Uninstalled;
use api::doctor::{Finding, Level};
use api::error_code;
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::agent::{Agent, node};
use tests::netns::{Directory, Namespace, connect};
use tests::program;
use tests::wait::eventually;

const SOON: Duration = Duration::from_secs(20);

/// Two nodes' Node objects, the namespace of the first, and an agent in it with CNI directories.
struct Scene {
    namespace: Namespace,
    /// The other node, for next hops.
    _other: Namespace,
    directory: Directory,
    agent: Agent,
}

impl Scene {
    fn new(purpose: &str) -> Self {
        let (namespace, other) = (Namespace::new(purpose), Namespace::new("other"));
        connect(&namespace, "eth0", &other, "eth0");
        namespace.ip(&["addr add 192.0.2.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0 nodad"]);
        other.ip(&["addr add 192.0.2.2/24 dev eth0", "addr add 2001:db8::2/64 dev eth0 nodad"]);
        let directory = Directory::new(purpose);
        for name in ["store", "bin", "conf"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        for plugin in ["host-local", "portmap"] {
            let real = Path::new("/usr/lib/cni").join(plugin);
            fs::copy(real, directory.join("bin").join(plugin)).unwrap();
        }
        let nodes = [
            node("n1", &["192.0.2.1", "2001:db8::1"], &["10.1.0.0/24", "fd00:1::/64"]),
            node("n2", &["192.0.2.2", "2001:db8::2"], &["10.2.0.0/24", "fd00:2::/64"]),
        ];
        directory.write("store/nodes.yaml", &nodes.concat());
        let [bin, conf] = ["bin", "conf"].map(|name| text(&directory.join(name)));
        let options = ["--cni-bin-dir", &bin, "--cni-conf-dir", &conf];
        let agent = Agent::start_with(&namespace, "n1", &directory, &options);
        agent.synced();
        let list = directory.join("conf").join(api::constant::CNI_CONFLIST);
        eventually(SOON, "the network list is written", || list.exists());
        Self { namespace, _other: other, directory, agent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        self.namespace.within(|| Command::new(program).args(arguments).output()).unwrap()
    }

    fn cleanup(&self) -> Output {
        let directories = ["run", "state", "bin", "conf"].map(|name| text(&self.path(name)));
        let [run, state, bin, conf] = &directories;
        let ipam = text(&self.path("ipam"));
        let arguments = ["cleanup", "--run-dir", run, "--state-dir", state, "--cni-bin-dir", bin];
        let more = ["--cni-conf-dir", conf, "--ipam-dir", &ipam];
        self.run(&program::rampart(), &[&arguments[..], &more].concat())
    }

    /// `rampart control`, as `rctl` runs it in the pod.
    fn control(&self, method: &str, path: &str) -> Output {
        let run = text(&self.path("run"));
        self.run(&program::rampart(), &["control", method, path, "--run-dir", &run])
    }

    fn rctl(&self, arguments: &[&str]) -> Output {
        let socket = text(&self.path("run/agent.sock"));
        self.run(&program::rctl(), &[&["--socket", &socket], arguments].concat())
    }

    fn doctor(&self) -> (Option<i32>, Vec<Finding>) {
        let output = self.rctl(&["doctor", "-o", "json"]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), serde_json::from_value(answer["items"].clone()).unwrap())
    }

    fn tables(&self) -> String {
        self.namespace.output("nft", &["list", "tables"])
    }

    /// Routes that carry our protocol number.
    fn own_routes(&self) -> String {
        let show = |family| self.namespace.output("ip", &[family, "route", "show", "proto", "82"]);
        show("-4") + &show("-6")
    }

    /// The status line of an answer to a probe of the kubelet.
    fn probe(&self, path: &str) -> String {
        self.namespace.within(|| {
            let mut stream = TcpStream::connect(api::constant::METRICS_ADDRESS).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer.lines().next().unwrap_or_default().to_owned()
        })
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// What somebody else has on the node, and a pod of ours that goes on running.
fn furnish(scene: &Scene) {
    scene.namespace.ip(&[
        "link add rv0123456789ab type veth peer name pod0",
        "link set rv0123456789ab up",
        "route add 10.1.0.7/32 dev rv0123456789ab proto 83",
        "route add fd00:1::7/128 dev rv0123456789ab proto 83",
        "route add 198.51.100.0/24 via 192.0.2.2 proto 81",
    ]);
    scene.namespace.output("nft", &["add", "table", "inet", "theirs"]);
    scene.directory.write("conf/99-theirs.conflist", r#"{"name": "theirs"}"#);
    fs::create_dir_all(scene.path("ipam")).unwrap();
    scene.directory.write("ipam/10.1.0.7", "container");
}

fn assert_only_ours_is_gone(scene: &Scene) {
    assert_eq!(scene.tables(), "table inet theirs\n");
    assert_eq!(scene.own_routes(), "");
    let routes =
        scene.namespace.output("ip", &["route"]) + &scene.namespace.output("ip", &["-6", "route"]);
    for kept in ["10.1.0.7 dev rv0123456789ab", "fd00:1::7 dev rv0123456789ab", "198.51.100.0/24"] {
        assert!(routes.contains(kept), "{kept}: {routes}");
    }
    let names = |name: &str| {
        let entries = fs::read_dir(scene.path(name)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("conf"), ["99-theirs.conflist"]);
    assert_eq!(names("bin"), ["host-local", "portmap"]);
    assert_eq!(names("state"), Vec::<String>::new());
}

#[test]
fn an_agent_that_is_asked_to_leave_takes_away_what_is_ours_and_stays_quiet_until_it_is_ended() {
    let scene = Scene::new("leave");
    furnish(&scene);
    assert!(scene.tables().contains("inet rampart"));
    let before = scene.own_routes();
    assert!(before.contains("10.1.0.0/24") && before.contains("fd00:1::/64"), "{before}");

    let pid = scene.agent.daemon().pid();
    let mut report = Uninstalled::default();
    eventually(SOON, "the node is clean", || {
        let output = scene.control("POST", "/v1/uninstall");
        if output.status.success() {
            report = serde_json::from_slice(&output.stdout).unwrap();
        }
        report.done
    });
    assert_eq!((&report.failed, &report.kept), (&Vec::new(), &Vec::new()));
    assert_eq!(report.pod_routes, ["10.1.0.7/32", "fd00:1::7/128"]);
    for what in
        ["route 10.1.0.0/24", "route fd00:1::/64", "table inet rampart", "10-rampart.conflist"]
    {
        assert!(report.removed.iter().any(|line| line.contains(what)), "{what}: {report:?}");
    }
    assert_only_ours_is_gone(&scene);

    // The same process, so the kubelet restarts nothing; alive, but not ready.
    assert!(Path::new(&format!("/proc/{pid}/cmdline")).exists());
    assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("cleanup"));
    assert_eq!(scene.probe("/healthz"), "HTTP/1.1 200 OK");
    assert_eq!(scene.probe("/readyz"), "HTTP/1.1 503 Service Unavailable");
    let refused = scene.rctl(&["status"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("was uninstalled"), "{refused:?}");
    assert_only_ours_is_gone(&scene);

    let Scene { agent, directory, .. } = scene;
    agent.terminate();
    assert!(!directory.join("run").exists());
}

#[test]
fn cleanup_waits_for_no_agent_and_the_second_time_finds_nothing() {
    let scene = Scene::new("cleanup");
    furnish(&scene);
    let refused = scene.cleanup();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("an agent runs"), "{refused:?}");
    assert!(scene.tables().contains("inet rampart"));

    scene.agent.daemon().signal(Signal::SIGKILL);
    let mut first = scene.cleanup();
    eventually(SOON, "the killed agent is gone", || {
        if !first.status.success() {
            first = scene.cleanup();
        }
        first.status.success()
    });
    assert_only_ours_is_gone(&scene);
    assert!(scene.path("ipam/10.1.0.7").exists(), "the address of a pod that runs");
    let again = scene.cleanup();
    assert!(again.status.success());
    assert!(!String::from_utf8_lossy(&again.stderr).contains("removed what"), "{again:?}");
    assert_only_ours_is_gone(&scene);
    // The kernel takes routes away with the pod; then its address is nobody's any more.
    scene.namespace.ip(&["link del rv0123456789ab"]);
    assert!(scene.cleanup().status.success());
    assert!(!scene.path("ipam").exists());
}

#[test]
fn doctor_names_foreign_firewalls_remains_and_strict_filters_and_is_content_without() {
    let scene = Scene::new("doctor");
    let of = |findings: &[Finding], check: &str| {
        let found = findings.iter().find(|finding| finding.check == check);
        found.cloned().unwrap_or_else(|| panic!("nothing about {check}: {findings:?}"))
    };
    scene.namespace.output("nft", &["add", "table", "inet", "fw"]);
    let chain = "{ type filter hook forward priority 10; policy drop; }";
    scene.namespace.output("nft", &["add", "chain", "inet", "fw", "forward", chain]);
    scene.namespace.output("nft", &["add", "chain", "inet", "fw", "KUBE-ROUTER-FORWARD"]);
    scene.namespace.ip(&["link add cali123 type veth peer name pod1"]);
    scene.namespace.sysctl(&[("ipv4/conf/eth0/rp_filter", "1")]);
    let (exit, findings) = scene.doctor();
    assert_eq!(exit, Some(1), "{findings:?}");
    let firewall = of(&findings, "firewalls");
    assert_eq!(firewall.code, Some(error_code::FOREIGN_FIREWALL));
    assert!(
        firewall.message.contains("inet fw forward (hook forward, priority 10)"),
        "{firewall:?}"
    );
    let remains = of(&findings, "leftovers");
    assert!(remains.message.contains("KUBE-ROUTER-FORWARD"), "{remains:?}");
    assert!(remains.message.contains("interface cali123"), "{remains:?}");
    assert_eq!(of(&findings, "rp_filter").code, Some(error_code::RP_FILTER_STRICT));
    assert_eq!(of(&findings, "peers").level, Level::Warn);
    assert_eq!(of(&findings, "kube-proxy").code, Some(error_code::NO_SERVICE_PROXY));
    assert!(findings.iter().all(|finding| finding.node == "n1" || finding.node.is_empty()));

    scene.namespace.output("nft", &["delete", "table", "inet", "fw"]);
    scene.namespace.ip(&["link del cali123"]);
    scene.namespace.sysctl(&[("ipv4/conf/eth0/rp_filter", "2")]);
    let (_, findings) = scene.doctor();
    for check in
        ["firewalls", "leftovers", "rp_filter", "podCIDRs", "conflist", "CNI plugins", "kernel"]
    {
        assert_eq!(of(&findings, check).level, Level::Ok, "{check}: {findings:?}");
    }
    // A list that runtimes would take instead of ours, and a plugin that is missing.
    scene.directory.write("conf/05-theirs.conflist", "{}");
    fs::remove_file(scene.path("bin/host-local")).unwrap();
    let (_, findings) = scene.doctor();
    assert_eq!(of(&findings, "conflist").code, Some(error_code::CNI_SHADOWED));
    assert_eq!(of(&findings, "CNI plugins").level, Level::Fail);
}

#[test]
fn a_bundle_of_a_node_holds_its_state_and_no_overwritten_file() {
    let scene = Scene::new("bundle");
    furnish(&scene);
    scene.namespace.output("nft", &["add", "chain", "inet", "theirs", "fw"]);
    scene.namespace.ip(&[
        "rule add fwmark 0x7 table 100",
        "route add 203.0.113.0/24 via 192.0.2.2 table 100",
        "route add 2001:db8:9::/48 via 2001:db8::2 table 100",
        "link add v0 type vxlan id 77 dstport 4789 dev eth0",
    ]);
    let rule = ["-6", "rule", "add", "fwmark", "0x7", "table", "100"];
    scene.namespace.output("ip", &rule);
    let file = text(&scene.path("bundle.tar.gz"));
    let output = scene.rctl(&["diag", "bundle", "-o", &file]);
    assert!(output.status.success(), "{output:?}");
    let list = scene.run(Path::new("tar"), &["tzf", &file]);
    let list = String::from_utf8(list.stdout).unwrap();
    for name in ["bundle.json", "status.json", "routes.json", "doctor.json"] {
        assert!(list.contains(name), "{name}: {list}");
    }
    // What `ip` and `nft` would show on the node, in which nobody who reads it can look.
    let inside = |name: &str| -> Value {
        let output = scene.run(Path::new("tar"), &["xzOf", &file, "--wildcards", name]);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let kernel = inside("*/kernel.json");
    for (section, words) in [
        ("links", "rv0123456789ab "),
        ("links", "kind vxlan"),
        ("links", "77"),
        ("rules", "ipv4 32765: fwmark 0x7/0xffffffff ToTable table 100"),
        ("rules", "ipv6 32765: fwmark 0x7/0xffffffff ToTable table 100"),
        ("routes", "table 100 Unicast 203.0.113.0/24 via 192.0.2.2 dev eth0"),
        ("routes", "table 100 Unicast 2001:db8:9::/48"),
        ("routes", "table 254 Unicast 10.1.0.7/32 dev rv0123456789ab proto 83 (a pod of ours)"),
        ("routes", "10.1.0.0/24"),
        ("routes", "proto 82 (ours)"),
    ] {
        let lines = kernel[section].as_array().unwrap();
        let told = lines.iter().any(|line| line.as_str().unwrap().contains(words));
        assert!(told, "{section}: {words}: {lines:#?}");
    }
    assert_eq!(kernel["sysctls"]["net/ipv4/ip_forward"], "1");
    assert!(kernel["sysctls"]["net/ipv4/conf/eth0/rp_filter"].is_string(), "{kernel}");
    let chains = inside("*/nft-chains.json");
    assert!(chains.to_string().contains("\"table\":\"theirs\""), "{chains}");
    let again = scene.rctl(&["diag", "bundle", "-o", &file]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("name another file"), "{again:?}");
}

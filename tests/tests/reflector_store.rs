//! A reflector of the cluster reads its clients from a real API server, and from its state directory
//! where there is none.
#![expect(clippy::unwrap_used, reason = "tests fail this way")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};

use api::constant::REFLECTOR_METRICS_ADDRESS;
use ctl::lab::namespace;
use serde_json::json;
use tests::cluster::Cluster;
use tests::cluster::control_plane::Part;
use tests::kube_source::{LIMIT, control_plane};
use tests::netns::Directory;
use tests::program;
use tests::wait::eventually;

/// A reflector beside the control plane; it ends with the test.
struct Reflector {
    process: Child,
    namespace: String,
}

impl Reflector {
    fn start(cluster: &Cluster, node: &str, directory: &Directory) -> Self {
        let namespace = cluster.name().namespace("cp");
        let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
        let store = format!("kube:{}", cluster.directory().join("admin.conf").display());
        let mut command = Command::new(program::rampart());
        command.args(["route-reflector", "--store", &store, "--node-name", node, "--state-dir"]);
        command.arg(directory.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let process = namespace::within(&namespace, || command.spawn().unwrap()).unwrap();
        Self { process, namespace }
    }

    fn fetch(&self, path: &str) -> Option<String> {
        let port: u16 = REFLECTOR_METRICS_ADDRESS.rsplit(':').next().unwrap().parse().unwrap();
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let mut stream = namespace::within(&self.namespace, connect).unwrap().ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn is_ready(&self) -> bool {
        self.fetch("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }

    /// It serves so many nodes.
    fn has_clients(&self, number: usize) -> bool {
        let line = format!("rampart_bgp_peers {number}");
        self.fetch("/metrics").is_some_and(|text| text.lines().any(|other| other == line))
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        // It may have ended, which the test has seen.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn make_node(cluster: &Cluster, number: u8) {
    let name = format!("n{number}");
    let cidrs = [format!("10.1.{number}.0/24"), format!("fd00:1:{number}::/64")];
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
    });
    cluster.api().create("/api/v1/nodes", &node).unwrap();
    let address = |address: String| json!({"type": "InternalIP", "address": address});
    let addresses =
        [address(format!("198.51.100.{number}")), address(format!("2001:db8:77::{number}"))];
    let status = json!({"status": {"addresses": addresses}});
    cluster.api().patch(&format!("/api/v1/nodes/{name}/status"), &status).unwrap();
}

#[test]
fn a_reflector_follows_nodes_and_serves_those_of_its_state_directory_without_an_api_server() {
    let cluster = control_plane(true);
    let directory = Directory::new("reflector");
    let reflector = Reflector::start(&cluster, "n1", &directory);
    eventually(LIMIT, "it says what it waits for", || {
        reflector.fetch("/readyz").is_some_and(|answer| answer.contains("own Node was not read"))
    });
    make_node(&cluster, 1);
    make_node(&cluster, 2);
    eventually(LIMIT, "it is ready for both", || reflector.is_ready() && reflector.has_clients(2));
    make_node(&cluster, 3);
    eventually(LIMIT, "a node joins", || reflector.has_clients(3));
    cluster.api().delete("/api/v1/nodes/n2").unwrap();
    eventually(LIMIT, "a node leaves", || reflector.has_clients(2));
    let file = directory.join("snapshot/Node.snapshot");
    eventually(LIMIT, "the state directory has it", || {
        std::fs::read_to_string(&file)
            .is_ok_and(|text| text.contains("198.51.100.3") && !text.contains("198.51.100.2"))
    });
    drop(reflector);

    cluster.stop(Part::ApiServer).unwrap();
    let reflector = Reflector::start(&cluster, "n1", &directory);
    eventually(LIMIT, "it serves who was there", || {
        reflector.is_ready() && reflector.has_clients(2)
    });
    cluster.start(Part::ApiServer).unwrap();
    make_node(&cluster, 4);
    eventually(2 * LIMIT, "it follows again", || reflector.has_clients(3));
}

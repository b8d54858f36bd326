//! Memory and time of one agent in a large cluster: a real API server and etcd, objects as large as
//! real ones written straight into etcd, and the real agent.
//!
//! ```sh
//! cargo build --release --bin rampart
//! RAMPART_BIN=target/release/rampart cargo run --release -p tests --bin kube-scale -- --nodes 5000 --pods 100000
//! ```
#![expect(clippy::print_stdout, reason = "figures are what this is for")]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use ctl::lab::namespace;
use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::cluster::control_plane::Part;
use tests::kube_source::control_plane;
use tests::netns::Directory;

/// Memory and time of one agent in a large cluster
#[derive(Debug, Parser)]
struct Arguments {
    /// Nodes of the cluster
    #[arg(long, default_value_t = 5000)]
    nodes: usize,
    /// Pods of the cluster, spread evenly
    #[arg(long, default_value_t = 100_000)]
    pods: usize,
    /// Namespaces, each with a policy that lets its own pods in
    #[arg(long, default_value_t = 200)]
    namespaces: usize,
    /// Seconds to wait for anything
    #[arg(long, default_value_t = 300)]
    limit: u64,
}

/// Objects written in one transaction: etcd takes 128.
const TRANSACTION: usize = 100;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let cluster = control_plane(true);
    let began = Instant::now();
    let mut etcd = Etcd::connect(&cluster)?;
    let mut objects = objects(&arguments);
    loop {
        let batch: Vec<Stored> = objects.by_ref().take(TRANSACTION).collect();
        if batch.is_empty() {
            break;
        }
        etcd.put(&batch)?;
    }
    // As a cluster of this size has it: reflectors, not a session with every other node.
    cluster.apply(
        &json!({
            "apiVersion": "rampart.network/v1alpha1", "kind": "BGPConfiguration",
            "metadata": {"name": "default"}, "spec": {"nodeMesh": false},
        })
        .to_string(),
    )?;
    println!("{} objects written in {:.0?}", arguments.pods + arguments.nodes, began.elapsed());
    let directory = Directory::new("scale");
    let limit = Duration::from_secs(arguments.limit);
    measure("first start, from the API server", &cluster, &directory, &arguments, limit)?;
    measure("restart, from the API server", &cluster, &directory, &arguments, limit)?;
    cluster.stop(Part::ApiServer)?;
    measure("restart, from the snapshot", &cluster, &directory, &arguments, limit)
}

fn measure(
    what: &str,
    cluster: &Cluster,
    directory: &Directory,
    arguments: &Arguments,
    limit: Duration,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut agent = start(cluster, directory)?;
    let result = until_ready(cluster, &mut agent, arguments, began + limit);
    let ready = began.elapsed();
    // The snapshot of all pods is written after that; it is part of what an agent needs.
    std::thread::sleep(Duration::from_secs(3));
    let usage = usage(agent.id())?;
    agent.kill()?;
    agent.wait()?;
    result?;
    println!("{what}: in force after {ready:.2?}, {usage}");
    Ok(())
}

fn start(cluster: &Cluster, directory: &Directory) -> anyhow::Result<Child> {
    let program = std::env::var_os("RAMPART_BIN").context("RAMPART_BIN is not set")?;
    let log = std::fs::File::create(directory.join("agent.log"))?;
    let mut command = Command::new(program);
    let kubeconfig = cluster.directory().join("admin.conf");
    command.args(["agent", "--node-name", "node-0", "--store"]);
    command.arg(format!("kube:{}", kubeconfig.display()));
    command.arg("--run-dir").arg(directory.join("run"));
    command.arg("--state-dir").arg(directory.join("state"));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    cluster.spawn_in("cp", &mut command)
}

/// Waits until the agent has everything and its table is written.
fn until_ready(
    cluster: &Cluster,
    agent: &mut Child,
    arguments: &Arguments,
    deadline: Instant,
) -> anyhow::Result<()> {
    loop {
        ensure!(agent.try_wait()?.is_none(), "the agent ended");
        let mut command = Command::new("curl");
        command.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://127.0.0.1:9472/readyz",
        ]);
        let output = cluster.spawn_in("cp", command.stdout(Stdio::piped()))?.wait_with_output()?;
        if output.stdout == b"200" {
            break;
        }
        if Instant::now() > deadline {
            bail!("not ready in time; {} pods", arguments.pods);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Memory and CPU of a process.
fn usage(pid: u32) -> anyhow::Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .unwrap_or_default()
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> =
        stat.rsplit_once(')').context("a process")?.1.split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
    let mut text = String::new();
    write!(text, "RSS {} MiB (highest {})", field("VmRSS") >> 10, field("VmHWM") >> 10)?;
    write!(text, ", CPU {}.{:02} s", ticks / 100, ticks % 100)?;
    Ok(text)
}

/// Key in etcd, and the object.
type Stored = (String, Value);

fn objects(arguments: &Arguments) -> impl Iterator<Item = Stored> {
    let Arguments { nodes, pods, namespaces, .. } = *arguments;
    let spaces = (0..namespaces).map(|number| {
        let name = format!("team-{number}");
        let labels = json!({"kubernetes.io/metadata.name": name, "team": number.to_string()});
        let key = format!("/registry/namespaces/{name}");
        (
            key,
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "uid": uid(1, number), "labels": labels},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
            }),
        )
    });
    let policies = (0..namespaces).map(|number| {
        let key = format!("/registry/networkpolicies/team-{number}/own");
        (key, json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "own", "namespace": format!("team-{number}"), "uid": uid(2, number)},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"],
                     "ingress": [{"from": [{"podSelector": {}}]}]},
        }))
    });
    let nodes_of =
        (0..nodes).map(|number| (format!("/registry/minions/node-{number}"), node(number)));
    let pods = (0..pods).map(move |number| {
        let space = number % namespaces.max(1);
        let key = format!("/registry/pods/team-{space}/{}", pod_name(number));
        (key, pod(number, space, number % nodes.max(1)))
    });
    spaces.chain(policies).chain(nodes_of).chain(pods)
}

fn uid(kind: usize, number: usize) -> String {
    format!("{kind:08x}-0000-4000-8000-{number:012x}")
}

fn pod_name(number: usize) -> String {
    format!("checkout-service-{:010x}-{:05x}", number / 8 * 7919, number)
}

fn node(number: usize) -> Value {
    let name = format!("node-{number}");
    let [high, low] = [number >> 8, number & 255];
    let images: Vec<Value> = (0..20)
        .map(|image| json!({"names": [format!("registry.example/image-{image}@sha256:{image:064x}")]}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": uid(3, number), "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
            "topology.rampart.network/rack": format!("rack-{}", number % 100),
        }},
        "spec": {"podCIDR": format!("10.{}.{low}.0/24", high + 32),
                 "podCIDRs": [format!("10.{}.{low}.0/24", high + 32), format!("fd00:{number:x}::/64")]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": format!("172.{}.{low}.7", high + 64)},
                          {"type": "InternalIP", "address": format!("2001:db8::{number:x}")},
                          {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": "True"}], "images": images,
        },
    })
}

/// About 4 KB, as pods of a Deployment with two containers are.
fn pod(number: usize, space: usize, node: usize) -> Value {
    let place = number / 5000 + 2;
    let [high, low] = [node >> 8, node & 255];
    let addresses =
        [format!("10.{}.{low}.{place}", high + 32), format!("fd00:{node:x}::{place:x}")];
    let environment: Vec<Value> = (0..12)
        .map(|v| json!({"name": format!("SETTING_{v}"), "value": format!("value-of-{v}-{number}")}))
        .collect();
    let container = |name: &str, port: u16| {
        json!({"name": name, "image": format!("registry.example/{name}@sha256:{number:064x}"),
               "env": environment, "ports": [{"name": name, "containerPort": port, "protocol": "TCP"}],
               "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}})
    };
    let managed: Vec<Value> = (0..2)
        .map(|by| json!({"manager": format!("manager-{by}"), "operation": "Update", "fieldsType": "FieldsV1",
                         "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {}}}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod_name(number), "namespace": format!("team-{space}"), "uid": uid(4, number),
            "labels": {"app.kubernetes.io/name": format!("app-{}", number / 8),
                       "app.kubernetes.io/version": "1.2.3", "team": space.to_string(),
                       "pod-template-hash": format!("{:010x}", number / 8 * 7919)},
            "annotations": {"checksum/config": format!("{number:064x}")}, "managedFields": managed,
        },
        "spec": {"nodeName": format!("node-{node}"), "volumes": [{"name": "tmp", "emptyDir": {}}],
                 "containers": [container("http", 8080), container("metrics", 9090)]},
        "status": {"phase": "Running", "podIP": addresses[0], "hostIP": "172.64.0.7",
                   "podIPs": [{"ip": addresses[0]}, {"ip": addresses[1]}],
                   "conditions": [{"type": "Ready", "status": "True"}],
                   "containerStatuses": [{"name": "http", "ready": true, "restartCount": 0,
                                          "image": "i", "imageID": format!("sha256:{number:064x}")}]},
    })
}

/// etcd's JSON gateway.
struct Etcd(TcpStream);

impl Etcd {
    fn connect(cluster: &Cluster) -> anyhow::Result<Self> {
        let connect = || TcpStream::connect("127.0.0.1:2379");
        let stream = namespace::within(&cluster.name().namespace("cp"), connect)?;
        Ok(Self(stream.context("etcd")?))
    }

    fn put(&mut self, batch: &[Stored]) -> anyhow::Result<()> {
        let puts: Vec<Value> = batch
            .iter()
            .map(|(key, value)| {
                let value = base64(value.to_string().as_bytes());
                json!({"requestPut": {"key": base64(key.as_bytes()), "value": value}})
            })
            .collect();
        let body = json!({ "success": puts }).to_string();
        let head = format!(
            "POST /v3/kv/txn HTTP/1.1\r\nhost: etcd\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(head.as_bytes())?;
        self.0.write_all(body.as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0_u8; 64 << 10];
        loop {
            let read = self.0.read(&mut buffer)?;
            ensure!(read > 0, "etcd closed the connection");
            answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
            let text = String::from_utf8_lossy(&answer);
            ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
            if complete(&text) {
                return Ok(());
            }
        }
    }
}

/// Whether all of an answer is there.
fn complete(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
    });
    length.map_or_else(|| body.ends_with("0\r\n\r\n"), |length| body.len() >= length)
}

fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(octets.len().div_ceil(3) * 4);
    for chunk in octets.chunks(3) {
        let mut bits = [0_u8; 4];
        for (to, from) in bits.iter_mut().skip(1).zip(chunk) {
            *to = *from;
        }
        let bits = u32::from_be_bytes(bits);
        for digit in 0..4_u32 {
            let index = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap_or_default();
            let filled = usize::try_from(digit).is_ok_and(|digit| digit <= chunk.len());
            let octet = DIGITS.get(index).filter(|_| filled).copied().unwrap_or(b'=');
            text.push(char::from(octet));
        }
    }
    text
}

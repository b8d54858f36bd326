//! Nodes with pods on one or more subnets behind a router, with real agents and reflectors.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::agent::{Agent, LIMIT, node, pod};
use crate::netns::{Daemon, Directory, Namespace, connect};
use crate::program;
use crate::wait::eventually;

/// Room for what arrives while the receiver does not run.
const BUFFER: usize = 32 << 20;
/// Shortest time between two packets of a flow.
const PAUSE: Duration = Duration::from_micros(200);

/// Nodes behind one router that knows nothing of pods.
#[derive(Debug)]
pub struct Fabric {
    /// Has a bridge for each subnet, and forwards between them.
    pub router: Namespace,
    /// In the order of their numbers, from 1.
    pub nodes: Vec<FabricNode>,
}

/// A node with one pod.
#[derive(Debug)]
pub struct FabricNode {
    /// From 1.
    pub number: u8,
    /// Its subnet, from 0.
    pub subnet: u8,
    /// The node.
    pub namespace: Namespace,
    /// Its pod.
    pub pod: Namespace,
    /// Its store, run directory and logs.
    pub directory: Directory,
    /// While it runs.
    pub agent: Option<Agent>,
    /// While it runs.
    pub reflector: Option<Daemon>,
}

impl Fabric {
    /// So many nodes on each subnet; no agent runs yet.
    ///
    /// # Panics
    /// When namespaces cannot be made.
    pub fn new(subnets: &[u8]) -> Self {
        let router = Namespace::new("router");
        let mut nodes = Vec::new();
        for (subnet, count) in (0_u8..).zip(subnets) {
            router.ip(&[
                &format!("link add br{subnet} type bridge"),
                &format!("link set br{subnet} up"),
                &format!("addr add 172.20.{subnet}.254/24 dev br{subnet}"),
                &format!("addr add 2001:db8:{subnet}::fe/64 dev br{subnet}"),
            ]);
            for _ in 0..*count {
                let number = u8::try_from(nodes.len() + 1).expect("few nodes");
                nodes.push(FabricNode::new(&router, subnet, number));
            }
        }
        let fabric = Self { router, nodes };
        let numbers: Vec<u8> = fabric.nodes.iter().map(|node| node.number).collect();
        fabric.write("nodes.yaml", &fabric.node_objects(&numbers));
        let pods = fabric.nodes.iter().map(|n| {
            let [v4, v6] = n.pod_addresses().map(|address| address.to_string());
            pod("shop", &format!("p{}", n.number), &n.name(), [&v4, &v6])
        });
        fabric.write("pods.yaml", &pods.collect::<String>());
        fabric
    }

    /// Node objects of these nodes.
    pub fn node_objects(&self, numbers: &[u8]) -> String {
        let listed = self.nodes.iter().filter(|node| numbers.contains(&node.number));
        listed.map(FabricNode::object).collect()
    }

    /// Writes a file of everybody's store.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, name: &str, text: &str) {
        for node in &self.nodes {
            node.directory.write(&format!("store/{name}"), text);
        }
    }

    /// Removes a file of everybody's store.
    ///
    /// # Panics
    /// When that fails.
    pub fn remove(&self, name: &str) {
        for node in &self.nodes {
            fs::remove_file(node.directory.join(&format!("store/{name}"))).expect("remove a file");
        }
    }

    /// Starts all agents.
    pub fn start(&mut self) {
        for node in &mut self.nodes {
            node.start();
        }
    }

    /// The node of this number.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&self, number: u8) -> &FabricNode {
        &self.nodes[usize::from(number) - 1]
    }

    /// The same, to change it.
    ///
    /// # Panics
    /// When there is none.
    pub fn node_mut(&mut self, number: u8) -> &mut FabricNode {
        &mut self.nodes[usize::from(number) - 1]
    }

    /// Every node has a kernel route to the pods of every other, v4 and v6.
    pub fn is_connected(&self) -> bool {
        self.nodes.iter().all(|node| {
            let others = self.nodes.iter().filter(|other| other.number != node.number);
            others.flat_map(FabricNode::pod_cidrs).all(|cidr| node.namespace.reaches(&cidr))
        })
    }

    /// Waits for that.
    ///
    /// # Panics
    /// When it takes too long.
    pub fn connected(&self) {
        eventually(LIMIT, "every node has routes to all pods", || self.is_connected());
    }

    /// Manifests of reflector pods on these nodes.
    pub fn reflector_pods(&self, numbers: &[u8]) -> String {
        let of = |number: &u8| {
            let [v4, v6] = self.node(*number).addresses();
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: rr-{number}, namespace: rampart-system, labels: {{app.kubernetes.io/component: route-reflector}}}}\nspec: {{nodeName: n{number}, hostNetwork: true, containers: [{{name: c}}]}}\nstatus: {{phase: Running, podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}\n"
            )
        };
        numbers.iter().map(of).collect()
    }

    /// What `rctl status` says of the mesh, at each node with an agent.
    pub fn mesh(&self) -> Vec<String> {
        let agents = self.nodes.iter().filter_map(|node| node.agent.as_ref());
        agents.map(|agent| agent.status().bgp.map(|bgp| bgp.mesh).unwrap_or_default()).collect()
    }

    /// Waits until all nodes say so of the mesh.
    ///
    /// # Panics
    /// When it takes too long.
    pub fn mesh_is(&self, state: &str) {
        eventually(Duration::from_secs(60), &format!("the mesh is {state}"), || {
            self.mesh().iter().all(|mesh| mesh == state)
        });
    }

    /// A flow of a thousand packets a second between the pods of two nodes, v4 or v6.
    pub fn flow(&self, from: u8, to: u8, v4: bool) -> Flow {
        let (source, target) = (self.node(from), self.node(to));
        let family = usize::from(!v4);
        let port = 7000 + 10 * u16::from(from) + u16::from(to);
        let target_address = SocketAddr::new(target.pod_addresses()[family], port);
        Flow::start(&source.pod, &target.pod, target_address)
    }
}

impl FabricNode {
    fn new(router: &Namespace, subnet: u8, number: u8) -> Self {
        let namespace = Namespace::new(&format!("n{number}"));
        let directory = Directory::new(&format!("n{number}"));
        fs::create_dir_all(directory.join("store")).expect("store");
        connect(&namespace, "up0", router, &format!("to{number}"));
        router.ip(&[&format!("link set to{number} master br{subnet}")]);
        namespace.ip(&[
            &format!("addr add 172.20.{subnet}.{number}/24 dev up0"),
            &format!("addr add 2001:db8:{subnet}::{number}/64 dev up0"),
            &format!("route add default via 172.20.{subnet}.254"),
            &format!("route add ::/0 via 2001:db8:{subnet}::fe"),
        ]);
        let pod = Namespace::new(&format!("p{number}"));
        connect(&namespace, "rv1", &pod, "eth0");
        namespace.ip(&[
            "addr add 169.254.1.1/32 dev rv1",
            "addr add fe80::1/64 dev rv1",
            &format!("route add 10.{number}.0.2/32 dev rv1"),
            &format!("route add fd00:{number}::2/128 dev rv1"),
        ]);
        pod.ip(&[
            &format!("addr add 10.{number}.0.2/32 dev eth0"),
            &format!("addr add fd00:{number}::2/128 dev eth0"),
            "route add 169.254.1.1 dev eth0",
            "route add default via 169.254.1.1",
            "route add ::/0 via fe80::1 dev eth0",
        ]);
        Self { number, subnet, namespace, pod, directory, agent: None, reflector: None }
    }

    /// `n1`.
    pub fn name(&self) -> String {
        format!("n{}", self.number)
    }

    /// Of the node, v4 and v6.
    pub fn addresses(&self) -> [IpAddr; 2] {
        let (subnet, number) = (self.subnet, self.number);
        [
            Ipv4Addr::new(172, 20, subnet, number).into(),
            Ipv6Addr::new(0x2001, 0xdb8, subnet.into(), 0, 0, 0, 0, number.into()).into(),
        ]
    }

    /// v4 and v6.
    pub fn pod_cidrs(&self) -> [String; 2] {
        [format!("10.{}.0.0/24", self.number), format!("fd00:{}::/64", self.number)]
    }

    /// Of its pod, v4 and v6.
    pub fn pod_addresses(&self) -> [IpAddr; 2] {
        let number = self.number;
        [
            Ipv4Addr::new(10, number, 0, 2).into(),
            Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, 2).into(),
        ]
    }

    /// Its Node.
    pub fn object(&self) -> String {
        let addresses = self.addresses().map(|address| address.to_string());
        let cidrs = self.pod_cidrs();
        let text = |list: &[String; 2]| [list[0].clone(), list[1].clone()];
        let (addresses, cidrs) = (text(&addresses), text(&cidrs));
        node(&self.name(), &[&addresses[0], &addresses[1]], &[&cidrs[0], &cidrs[1]])
    }

    /// Starts its agent.
    pub fn start(&mut self) {
        self.agent = Some(Agent::start(&self.namespace, &self.name(), &self.directory));
    }

    /// Its agent.
    ///
    /// # Panics
    /// When it does not run.
    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("an agent")
    }

    /// Starts a reflector on it.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start_reflector(&mut self) {
        let store = format!("dir:{}", self.directory.join("store").display());
        let name = self.name();
        let arguments = ["route-reflector", "--store", &store, "--node-name", &name];
        let log = self.directory.join("reflector.log");
        let daemon = self.namespace.start(&program::rampart(), &arguments, &log);
        eventually(LIMIT, "the reflector is ready", || {
            self.fetch(9473, "/readyz").is_some_and(|answer| answer.contains(" 200 "))
        });
        self.reflector = Some(daemon);
    }

    /// Kills its reflector (SIGKILL).
    ///
    /// # Panics
    /// When there is none.
    pub fn kill_reflector(&mut self) {
        self.reflector.take().expect("a reflector").kill();
    }

    /// Status line, head and body of a page on loopback.
    pub fn fetch(&self, port: u16, path: &str) -> Option<String> {
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let mut stream = self.namespace.within(connect).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

/// Numbered packets, a thousand a second.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<BTreeSet<u64>>,
}

/// What became of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Packets sent.
    pub sent: u64,
    /// Those that did not arrive: first number and how many in a row.
    pub lost: Vec<(u64, u64)>,
}

impl Flow {
    /// # Panics
    /// When sockets cannot be had.
    pub fn start(from: &Namespace, to: &Namespace, target: SocketAddr) -> Self {
        let any: IpAddr = if target.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let inbound = to.within(|| UdpSocket::bind(target)).expect("a socket that receives");
        let outbound = from.within(|| UdpSocket::bind((any, 0))).expect("a socket that sends");
        // A machine that is busy may let a thread wait for a while: that is no loss of the network.
        setsockopt(&inbound, sockopt::RcvBufForce, &BUFFER).expect("a large buffer");
        inbound.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out");
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_sender, stop_receiver) = (Arc::clone(&stop), Arc::clone(&stop));
        let sender = std::thread::spawn(move || {
            let began = Instant::now();
            let mut number = 0_u64;
            while !stop_sender.load(Ordering::Relaxed) {
                // A packet that cannot be sent is one that does not arrive.
                outbound.send_to(&number.to_be_bytes(), target).ok();
                number += 1;
                let due = began + Duration::from_millis(number);
                // No bursts after a pause: queues on the way are short.
                std::thread::sleep(due.saturating_duration_since(Instant::now()).max(PAUSE));
            }
            number
        });
        let receiver = std::thread::spawn(move || {
            let (mut seen, mut buffer) = (BTreeSet::new(), [0_u8; 8]);
            loop {
                match inbound.recv(&mut buffer) {
                    Ok(8) => {
                        seen.insert(u64::from_be_bytes(buffer));
                    }
                    // Half a second of silence after the end is the end.
                    Err(_) if stop_receiver.load(Ordering::Relaxed) => return seen,
                    Ok(_) | Err(_) => {}
                }
            }
        });
        Self { stop, sender, receiver }
    }

    /// Ends it.
    ///
    /// # Panics
    /// When one of its threads did.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender");
        let seen = self.receiver.join().expect("the receiver");
        let mut lost: Vec<(u64, u64)> = Vec::new();
        for number in (0..sent).filter(|number| !seen.contains(number)) {
            match lost.last_mut() {
                Some((first, count)) if *first + *count == number => *count += 1,
                _ => lost.push((number, 1)),
            }
        }
        Outcome { sent, lost }
    }
}

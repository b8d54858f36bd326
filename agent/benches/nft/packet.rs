//! Nanoseconds that the ruleset adds to a packet, by number of policies.
//!
//! pod `client` - veth - node - veth - pod `server`. The sender is pinned, and the whole way runs
//! inside its `send`, so wall time is processor time. A UDP flow without an answer stays `new`, so
//! each of its packets walks all rules; with one answer it is `established`.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use policy::Engine;
use policy::event::Event;

use super::scene::{admit, listing_begins, listing_ends, metadata, namespace, node, peer, pod};
use super::{Node, delete_table, enter_namespace};
use agent::kernel::nft::NftWriter;

/// A round is shorter than a time slice, so that on a busy machine some rounds are undisturbed.
const PACKETS: u32 = 300;
const ROUNDS: usize = 1500;
const PORT: u16 = 5000;
/// How long the server may take to answer before it is asked again.
const PATIENCE: Duration = Duration::from_millis(100);
const CLIENT: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 2, 255, 1), Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1));
const SERVER: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 1, 0, 1), Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1));

/// What to send: to which address, answered or not.
type Order = (SocketAddr, bool);

pub(crate) fn report() {
    enter_namespace();
    let mut lab = Lab::build();
    println!(
        "\n| packet, ns (minimum of {ROUNDS} rounds) | new v4 | new v6 | established v4 |\n|---|---|---|---|"
    );
    let mut writer = NftWriter::open().unwrap();
    // Conntrack itself is no part of the price: it is on in every row.
    let tracked = "table inet tracking { chain c { type filter hook forward priority 1; ct state new continue; }; }";
    run("nft", &["-f", "-"], tracked);
    lab.row("no policy agent, conntrack on");
    for policies in [1, 10, 100, 1000] {
        let mut node = Node { engine: Engine::new("n1"), writer };
        events(policies).into_iter().for_each(|event| drop(node.engine.handle(event)));
        node.program();
        lab.row(&format!("{policies} policies"));
        writer = node.writer;
        delete_table(&mut writer);
    }
    lab.row("no policy agent, conntrack on, again");
}

/// The server is isolated by `count` policies, each with peers of its own; the last admits the
/// client.
fn events(count: u32) -> Vec<Event> {
    let mut events = listing_begins();
    events.extend([node(), namespace("app"), namespace("peers")]);
    for n in 0..count {
        let last = n + 1 == count;
        let role = if last { "client".to_owned() } else { format!("role-{n}") };
        let port = if last { i32::from(PORT) } else { 80 };
        let everyone = LabelSelector::default();
        events.push(admit(&format!("policy-{n}"), everyone, &role, "UDP", port));
        events.extend((0..10).map(|p| peer(n * 10 + p, &format!("role-{n}"))));
    }
    let server = metadata("app", "server", Some(("group", "server")));
    events.push(pod(server, "n1", &[SERVER.0.into(), SERVER.1.into()]));
    for address in [SERVER.0.into(), SERVER.1.into()] {
        events.push(Event::Interface { address, interface: Some("server".to_owned()) });
    }
    let client = metadata("peers", "client", Some(("role", "client")));
    events.push(pod(client, "n2", &[CLIENT.0.into(), CLIENT.1.into()]));
    events.extend(listing_ends());
    events
}

struct Lab {
    orders: Sender<Order>,
    nanoseconds: Receiver<f64>,
}

impl Lab {
    fn build() -> Self {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        let (orders, queue) = channel();
        let (result, nanoseconds) = channel();
        let (resume, measured) = channel();
        place("server", SERVER, move || serve(&measured));
        place("client", CLIENT, move || {
            pin();
            for order in queue {
                result.send(measure(order, &resume)).unwrap();
            }
        });
        Self { orders, nanoseconds }
    }

    fn row(&mut self, what: &str) {
        let time = |order| {
            self.orders.send(order).unwrap();
            self.nanoseconds.recv().unwrap()
        };
        let new4 = time((SocketAddr::new(SERVER.0.into(), PORT), false));
        let new6 = time((SocketAddr::new(SERVER.1.into(), PORT), false));
        let established = time((SocketAddr::new(SERVER.0.into(), PORT), true));
        println!("| {what} | {new4:.0} | {new6:.0} | {established:.0} |");
    }
}

/// Starts a pod behind a veth pair of its name, set up when this returns.
fn place(name: &'static str, address: (Ipv4Addr, Ipv6Addr), life: impl FnOnce() + Send + 'static) {
    let (ready, path) = channel();
    let (go, wait) = channel::<()>();
    let (done, finished) = channel();
    thread::spawn(move || {
        enter_namespace();
        let task = std::fs::read_link("/proc/thread-self").unwrap();
        ready.send(format!("/proc/{}/ns/net", task.display())).unwrap();
        wait.recv().unwrap();
        let (v4, v6) = address;
        ip(&format!(
            "link set lo up\naddr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\n\
             link set eth0 up\nroute add default via 169.254.1.1 dev eth0 onlink\n\
             route add default via fe80::1 dev eth0 onlink\n"
        ));
        done.send(()).unwrap();
        life();
    });
    let namespace = path.recv().unwrap();
    let (v4, v6) = address;
    ip(&format!(
        "link add {name} type veth peer name eth0 netns {namespace}\n\
         addr add 169.254.1.1/32 dev {name}\naddr add fe80::1/64 dev {name} nodad\n\
         link set {name} up\nroute add {v4}/32 dev {name}\nroute add {v6}/128 dev {name}\n"
    ));
    go.send(()).unwrap();
    finished.recv().unwrap();
}

/// Answers the one datagram that asks for it, then lets its queue fill up while the sender
/// measures: whoever is woken for each packet is part of what is measured.
fn serve(measured: &Receiver<()>) {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
    let mut datagram = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut datagram).unwrap();
        if datagram.get(..length) != Some(b"answer") {
            continue;
        }
        socket.send_to(b"answer", from).unwrap();
        if measured.recv().is_err() {
            return;
        }
    }
}

/// On the second processor: the first serves most interrupts.
fn pin() {
    let mut processors = CpuSet::new();
    processors.set(1).unwrap();
    sched_setaffinity(Pid::from_raw(0), &processors).unwrap();
}

fn measure((to, answered): Order, resume: &Sender<()>) -> f64 {
    let any: SocketAddr = if to.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // The answer of another flow stops the server; that of this flow makes it established.
    let other = UdpSocket::bind(any).unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    other.connect(to).unwrap();
    let asker = if answered { &socket } else { &other };
    loop {
        asker.send(b"answer").unwrap();
        if asker.recv(&mut [0; 64]).is_ok() {
            break;
        }
    }
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..PACKETS {
            socket.send(b"x").unwrap();
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(PACKETS));
    }
    resume.send(()).unwrap();
    best
}

fn ip(script: &str) {
    run("ip", &["-batch", "-"], script);
}

pub(crate) fn run(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} {input}");
}

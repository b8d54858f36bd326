//! A node with pods and neighbours in network namespaces, all servers and clients at once, and
//! probes that say which connections really work.
//!
//! The calling thread becomes the node. Every other place is a thread with a namespace of its own
//! behind a veth pair; nothing has a name on the host, and everything ends with the process.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

use crate::nft::enter_namespace;

/// TCP ports on which every place listens.
pub const TCP_PORTS: [u16; 3] = [80, 443, 9000];
/// UDP ports on which every place answers.
pub const UDP_PORTS: [u16; 2] = [53, 9000];
/// IANA numbers.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;

/// How long an answer may take that should come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for an answer that should not come.
const DOUBT: Duration = Duration::from_millis(400);
/// Where pods send what is not for themselves; every host side interface answers for it.
const GATEWAY_V4: &str = "169.254.1.1";
/// See [`GATEWAY_V4`].
const GATEWAY_V6: &str = "fe80::1";
/// Source ports of UDP probes are never used twice: an old flow must not open a new one.
static NEXT_SOURCE_PORT: AtomicU16 = AtomicU16::new(10_000);

/// A pod, a host, or the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of its host side interface (of the node: of nothing).
    pub interface: &'static str,
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
}

impl Place {
    /// Its address of the same family as another.
    #[must_use]
    pub fn like(&self, other: IpAddr) -> IpAddr {
        match other {
            IpAddr::V4(_) => self.v4.into(),
            IpAddr::V6(_) => self.v6.into(),
        }
    }

    /// Both addresses.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// One connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Index of the place that connects.
    pub from: usize,
    /// Its address.
    pub source: IpAddr,
    /// Whereto.
    pub destination: IpAddr,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Destination port.
    pub port: u16,
    /// What should happen; decides how long to wait for the contrary.
    pub expected: bool,
}

type Answer = Sender<Vec<(Probe, bool)>>;

/// A running place.
#[derive(Debug)]
struct Running {
    /// Path of its network namespace.
    namespace: String,
    work: Sender<(Vec<Probe>, Answer)>,
    /// Who has sent a UDP datagram here.
    heard: Heard,
}

type Heard = Arc<Mutex<BTreeSet<SocketAddr>>>;

/// The node, its pods and neighbours.
#[derive(Debug)]
pub struct Fabric {
    places: Vec<Place>,
    running: Vec<Running>,
}

impl Fabric {
    /// Makes the calling thread a node and connects `places` to it; the first of them is the node
    /// itself.
    ///
    /// # Errors
    /// Not root, or `ip` is missing.
    pub fn build(places: &[Place]) -> Result<Self> {
        enter_namespace()?;
        // Forwarding first: for IPv6 switching it on resets what interfaces have.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        let (node, others) = places.split_first().context("no node")?;
        let mut script = format!(
            "link set lo up\naddr add {}/32 dev lo\naddr add {}/128 dev lo nodad\n",
            node.v4, node.v6
        );
        let mut running = vec![spawn_place(None)?];
        for place in others {
            let thread = spawn_place(Some(*place))?;
            script += &host_side(node, place, &thread.namespace);
            running.push(thread);
        }
        ip(&script)?;
        let fabric = Self { places: places.to_vec(), running };
        fabric.start()?;
        Ok(fabric)
    }

    /// All places; the first is the node.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// An empty round makes every place finish its own set-up, now that its veth pair is there.
    fn start(&self) -> Result<()> {
        for place in &self.running {
            let (answer, done) = channel();
            place.work.send((Vec::new(), answer)).map_err(|_| anyhow!("a place is gone"))?;
            done.recv().context("a place could not start")?;
        }
        Ok(())
    }

    /// Tries all connections at once, and returns those that did not do what was expected.
    ///
    /// # Errors
    /// A place has died.
    pub fn surprises(&self, probes: &[Probe]) -> Result<Vec<Probe>> {
        let (answer, answers) = channel();
        for (index, place) in self.running.iter().enumerate() {
            let own: Vec<Probe> = probes.iter().filter(|p| p.from == index).copied().collect();
            place.work.send((own, answer.clone())).map_err(|_| anyhow!("a place is gone"))?;
        }
        drop(answer);
        let results: Vec<(Probe, bool)> = answers.iter().flatten().collect();
        ensure!(results.len() == probes.len(), "{} of {} answers", results.len(), probes.len());
        Ok(results.into_iter().filter(|(p, worked)| p.expected != *worked).map(|r| r.0).collect())
    }

    /// Gives a place one more address, which the node does not route to it.
    ///
    /// # Errors
    /// There is no such place, or `ip` refuses.
    pub fn add_address(&self, place: usize, address: IpAddr) -> Result<()> {
        let place = self.running.get(place).context("no such place")?;
        let namespace = fs::File::open(&place.namespace)?;
        let script = match address {
            IpAddr::V4(v4) => format!("addr add {v4}/32 dev eth0\n"),
            IpAddr::V6(v6) => format!("addr add {v6}/128 dev eth0 nodad\n"),
        };
        // A thread of its own, as this one has to stay where it is.
        let visitor = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            ip(&script)
        });
        visitor.join().map_err(|_| anyhow!("the thread panicked"))?
    }

    /// Whether a place has ever got a UDP datagram from this address.
    #[must_use]
    pub fn has_heard(&self, place: usize, source: IpAddr) -> bool {
        self.running.get(place).is_some_and(|place| {
            let heard = place.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.iter().any(|from| from.ip().to_canonical() == source)
        })
    }
}

/// Starts the thread of a place (`None`: in the node's own namespace).
fn spawn_place(own: Option<Place>) -> Result<Running> {
    let (ready, path) = channel();
    let (work, queue) = channel();
    let heard = Heard::default();
    let ears = Arc::clone(&heard);
    thread::Builder::new().name("place".to_owned()).spawn(move || {
        let entered = if own.is_some() { enter_namespace() } else { Ok(()) };
        let path = entered.and_then(|()| {
            let task = fs::read_link("/proc/thread-self")?;
            Ok(format!("/proc/{}/ns/net", task.display()))
        });
        // Whoever waits has gone only if the whole test has.
        drop(ready.send(path));
        live(own, &queue, &ears);
    })?;
    let namespace = path.recv().context("a place died at once")??;
    Ok(Running { namespace, work, heard })
}

/// Life of a place: set up and serve at the first round, then probe at each.
fn live(own: Option<Place>, queue: &Receiver<(Vec<Probe>, Answer)>, heard: &Heard) {
    let Ok((_, answer)) = queue.recv() else { return };
    let ready = own.map_or(Ok(()), |place| pod_side(&place)).and_then(|()| serve(heard));
    match ready {
        Ok(()) => drop(answer.send(Vec::new())),
        Err(e) => {
            writeln!(std::io::stderr(), "a place cannot be set up: {e:#}").unwrap_or_default();
            return;
        }
    }
    drop(answer);
    for (probes, answer) in queue {
        let results = thread::scope(|scope| {
            // A thread each: it inherits the namespace, and a connection that is dropped blocks
            // nobody else.
            let tries: Vec<_> =
                probes.into_iter().map(|p| (p, scope.spawn(move || attempt(&p)))).collect();
            tries.into_iter().map(|(p, t)| (p, t.join().unwrap_or(false))).collect()
        });
        drop(answer.send(results));
    }
}

fn host_side(node: &Place, place: &Place, namespace: &str) -> String {
    let Place { interface, v4, v6 } = place;
    format!(
        "link add {interface} type veth peer name eth0 netns {namespace}\n\
         addr add {GATEWAY_V4}/32 dev {interface}\n\
         addr add {GATEWAY_V6}/64 dev {interface} nodad\n\
         link set {interface} up\n\
         route add {v4}/32 dev {interface} src {}\n\
         route add {v6}/128 dev {interface} src {}\n",
        node.v4, node.v6
    )
}

fn pod_side(place: &Place) -> Result<()> {
    let Place { v4, v6, .. } = place;
    ip(&format!(
        "link set lo up\n\
         addr add {v4}/32 dev eth0\n\
         addr add {v6}/128 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via {GATEWAY_V4} dev eth0 onlink src {v4}\n\
         route add default via {GATEWAY_V6} dev eth0 onlink src {v6}\n"
    ))
}

/// Runs `ip -batch` in the namespace of this thread.
///
/// # Errors
/// `ip` is missing or refuses.
pub fn ip(script: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ip")?;
    child.stdin.take().context("no standard input")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Accepts and answers on all ports, both families, until the process ends.
fn serve(heard: &Heard) -> Result<()> {
    for port in TCP_PORTS {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
        thread::spawn(move || listener.incoming().for_each(drop));
    }
    for port in UDP_PORTS {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
        let heard = Arc::clone(heard);
        thread::spawn(move || {
            let mut datagram = [0; 16];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).insert(from);
                // The asker may be gone by now.
                drop(socket.send_to(datagram.get(..length).unwrap_or_default(), from));
            }
        });
    }
    Ok(())
}

fn attempt(probe: &Probe) -> bool {
    let wait = if probe.expected { PATIENCE } else { DOUBT };
    let to = SocketAddr::new(probe.destination, probe.port);
    if probe.protocol == TCP {
        return TcpStream::connect_timeout(&to, wait).is_ok();
    }
    ask(probe.source, to, wait).unwrap_or(false)
}

fn ask(source: IpAddr, to: SocketAddr, wait: Duration) -> std::io::Result<bool> {
    let port = NEXT_SOURCE_PORT.fetch_add(1, Ordering::Relaxed);
    let socket = UdpSocket::bind((source, port))?;
    socket.set_read_timeout(Some(wait))?;
    socket.send_to(b"ping", to)?;
    let mut answer = [0; 16];
    Ok(socket.recv_from(&mut answer).is_ok_and(|(_, from)| from == to))
}

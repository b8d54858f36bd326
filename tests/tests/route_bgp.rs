//! The speaker thread on real sockets: two of them in two network namespaces, and strangers.
//!
//! Needs root.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use agent::bgp::{DriverEvent, Options, SpeakerHandle, kernel_sink, spawn};
use agent::kernel::route::{self, Routes};
use bgp::config::{Config, PeerConfig, PeerKind, Policy};
use bgp::md5::{Md5, Md5Key};
use bgp::speaker::SpeakerEvent;
use bgp::types::{Asn, RouterId};
use bgp::view::SessionState;
use tests::nft::enter_namespace;

const SOON: Duration = Duration::from_secs(20);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, and a thread in it that does what it is told.
struct Space {
    jobs: Sender<Job>,
    path: String,
}

impl Space {
    fn new() -> Self {
        let (jobs, todo): (Sender<Job>, Receiver<Job>) = channel();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            enter_namespace().unwrap();
            let thread = nix::unistd::gettid();
            tell.send(format!("/proc/{}/task/{thread}/ns/net", std::process::id())).unwrap();
            while let Ok(job) = todo.recv() {
                job();
            }
        });
        let space = Self { jobs, path: told.recv().unwrap() };
        space.ip("link set lo up");
        space
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        self.jobs.send(Box::new(move || tell.send(job()).unwrap())).unwrap();
        told.recv().expect("the job did not panic")
    }

    fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || {
            let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
            assert!(
                output.status.success(),
                "ip {arguments}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// A link to another namespace; .1 here, .2 there, likewise in IPv6.
    fn link(&self, other: &Self, name: &str, v4: &str, v6: &str) {
        self.ip(&format!("link add {name} type veth peer name {name} netns {}", other.path));
        for (space, host) in [(self, 1), (other, 2)] {
            space.ip(&format!("link set {name} up"));
            space.ip(&format!("addr add {v4}.{host}/24 dev {name}"));
            space.ip(&format!("addr add {v6}::{host}/64 dev {name} nodad"));
        }
    }
}

fn peer(address: &str, asn: u32) -> PeerConfig {
    PeerConfig {
        hold_time: Duration::from_secs(9),
        import: Policy::All,
        export: Policy::All,
        ..PeerConfig::new(address.to_owned(), PeerKind::Mesh, address.parse().unwrap(), Asn(asn))
    }
}

fn config(asn: u32, id: u8, mut peers: Vec<PeerConfig>) -> Config {
    peers.sort_by_key(|peer| peer.address);
    let id = Ipv4Addr::new(10, 0, 0, id);
    Config {
        asn: Asn(asn),
        router_id: RouterId(id),
        cluster_id: id,
        hostname: String::new(),
        peers,
    }
}

/// A speaker and its routes in a namespace.
struct Node {
    runtime: tokio::runtime::Runtime,
    speaker: SpeakerHandle,
    events: tokio::sync::mpsc::Receiver<DriverEvent>,
    routes: Routes,
}

impl Node {
    fn start(space: &Space, config: Config, own: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (routes, speaker, events) = space.run(|| {
            let (routes, _events, _thread) = route::spawn(route::Options::default()).unwrap();
            let sink = kernel_sink(routes.clone());
            let (speaker, events, _thread) =
                spawn(config, 179, Some(sink), Options::default()).unwrap();
            (routes, speaker, events)
        });
        runtime.block_on(routes.in_sync()).unwrap();
        let own = own.iter().map(|prefix| prefix.parse().unwrap()).collect();
        runtime.block_on(speaker.originate(own)).unwrap();
        Self { runtime, speaker, events, routes }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(SOON, future).await }).expect("in time")
    }

    fn installed(&self, count: usize) {
        self.wait(self.routes.wait_for(|s| s.installed == count && s.desired == count)).unwrap();
    }

    fn until_event(&mut self, mut wanted: impl FnMut(&DriverEvent) -> bool) {
        let next = async {
            loop {
                let event = self.events.recv().await.expect("the thread lives");
                if wanted(&event) {
                    return;
                }
            }
        };
        self.runtime
            .block_on(async { tokio::time::timeout(SOON, next).await })
            .expect("the event in time");
    }

    fn state(&self, address: &str) -> (SessionState, u64) {
        let peers = self.wait(self.speaker.peers()).unwrap();
        let address: IpAddr = address.parse().unwrap();
        let peer = peers.iter().find(|peer| peer.address == address).unwrap();
        (peer.state, peer.established_count)
    }
}

fn exchange(asn: [u32; 2], session: [&str; 2]) {
    let (left, right) = (Space::new(), Space::new());
    left.link(&right, "fabric", "192.0.2", "fd00:a");
    let towards = |address: &str, asn: u32, own: u8| PeerConfig {
        next_hop_v4: Some(Ipv4Addr::new(192, 0, 2, own)),
        next_hop_v6: Some(format!("fd00:a::{own}").parse().unwrap()),
        ..peer(address, asn)
    };
    let a = Node::start(
        &left,
        config(asn[0], 1, vec![towards(session[1], asn[1], 1)]),
        &["10.1.0.0/24", "fd01::/64"],
    );
    let mut b = Node::start(
        &right,
        config(asn[1], 2, vec![towards(session[0], asn[0], 2)]),
        &["10.2.0.0/24", "fd02::/64"],
    );
    a.installed(4);
    b.installed(4);
    let shown = |space: &Space, prefix: &str| {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        space.ip(&format!("{family} route show {prefix}"))
    };
    assert!(shown(&left, "10.2.0.0/24").contains("via 192.0.2.2 dev fabric"));
    assert!(shown(&left, "fd02::/64").contains("via fd00:a::2 dev fabric"));
    assert!(shown(&right, "10.1.0.0/24").contains("via 192.0.2.1 dev fabric"));
    assert!(shown(&right, "fd01::/64").contains("via fd00:a::1 dev fabric"));
    assert!(left.ip("route show type blackhole").contains("10.1.0.0/24"));
    assert_eq!(a.state(session[1]), (SessionState::Established, 1));

    // A withdrawal, and a new prefix, in both families.
    let own = ["10.9.0.0/24", "fd09::/64"].map(|prefix| prefix.parse().unwrap());
    a.wait(a.speaker.originate(own.to_vec())).unwrap();
    let moved = |routes: &Routes| {
        let routes = routes.clone();
        async move {
            loop {
                let reports = routes.report().await.unwrap();
                let has = |prefix: &str| {
                    let prefix = prefix.parse().unwrap();
                    reports.iter().any(|report| report.prefix == prefix)
                };
                if has("10.9.0.0/24")
                    && has("fd09::/64")
                    && !has("10.1.0.0/24")
                    && !has("fd01::/64")
                {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    };
    b.wait(moved(&b.routes));
    b.installed(4);
    a.installed(4);

    // The other side ends: what it announced goes, our own stays.
    a.wait(a.speaker.shutdown(true)).unwrap();
    b.until_event(|event| {
        matches!(event, DriverEvent::Speaker(SpeakerEvent::SessionDown { established: true, .. }))
    });
    b.installed(2);
    let left_over = right.ip("-4 route show proto 82");
    assert!(left_over.contains("blackhole 10.2.0.0/24") && left_over.lines().count() == 1);
}

#[test]
fn ibgp_over_ipv4_carries_both_families_into_the_kernel() {
    exchange([64512, 64512], ["192.0.2.1", "192.0.2.2"]);
}

#[test]
fn ebgp_over_ipv6_carries_both_families_into_the_kernel() {
    exchange([64512, 65001], ["fd00:a::1", "fd00:a::2"]);
}

#[test]
fn garbage_and_strangers_cost_nothing() {
    let (node, good, bad) = (Space::new(), Space::new(), Space::new());
    node.link(&good, "good", "192.0.2", "fd00:a");
    node.link(&bad, "bad", "198.51.100", "fd00:b");
    let mut a = Node::start(
        &node,
        config(
            64512,
            1,
            vec![
                peer("192.0.2.2", 64512),
                PeerConfig { passive: true, ..peer("198.51.100.2", 64512) },
                PeerConfig { passive: true, ..peer("fd00:b::2", 64512) },
            ],
        ),
        &["10.1.0.0/24"],
    );
    let b = Node::start(&good, config(64512, 2, vec![peer("192.0.2.1", 64512)]), &["10.2.0.0/24"]);
    a.installed(2);
    b.installed(2);

    // A configured address that talks nonsense: a NOTIFICATION (1/1), and the connection ends.
    for address in ["198.51.100.1", "fd00:b::1"] {
        let said = bad.run(move || {
            let mut stream = TcpStream::connect((address, 179)).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: router.example\r\n\r\n").unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).unwrap();
            said
        });
        let mut rest = said.as_slice();
        let mut last = None;
        while let Some(length) = rest.get(16..18) {
            let length = usize::from(u16::from_be_bytes(length.try_into().unwrap()));
            let (message, tail) = rest.split_at(length);
            last = message.get(18..21).map(<[u8]>::to_vec);
            rest = tail;
        }
        assert_eq!(last, Some(vec![3, 1, 1]), "{said:?}");
    }

    // An address that nobody configured: closed at once, told, counted.
    bad.ip("addr del 198.51.100.2/24 dev bad");
    bad.ip("addr add 198.51.100.3/24 dev bad");
    for _ in 0..50 {
        let said = bad.run(|| {
            let mut stream = TcpStream::connect(("198.51.100.1", 179)).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut said = Vec::new();
            // Closing with unread bytes of ours may be a reset.
            drop(stream.write_all(&[0xff; 64]));
            drop(stream.read_to_end(&mut said));
            said
        });
        assert!(said.is_empty(), "{said:?}");
    }
    a.until_event(|event| {
        matches!(event, DriverEvent::Speaker(SpeakerEvent::UnknownNeighbour { remote })
            if remote.ip() == IpAddr::from([198, 51, 100, 3]))
    });
    assert_eq!(a.state("192.0.2.2"), (SessionState::Established, 1));
    assert_eq!(b.state("192.0.2.1"), (SessionState::Established, 1));
}

fn keyed(address: &str, key: &str) -> PeerConfig {
    let md5 = Md5::Key(Md5Key::new(key.as_bytes()).unwrap());
    PeerConfig { md5, ..peer(address, 64512) }
}

/// Waits for a session, and for how often it has come up.
fn until_up(node: &Node, address: &str, times: u64) {
    tests::wait::eventually(SOON, "the session is up", || {
        node.state(address) == (SessionState::Established, times)
    });
}

#[test]
fn two_agents_share_a_password_for_each_family_and_change_one() {
    let (left, right) = (Space::new(), Space::new());
    left.link(&right, "fabric", "192.0.2", "fd00:a");
    // One side dials over IPv4, the other one over IPv6.
    let left_is = |v4: PeerConfig| {
        let v6 = PeerConfig { passive: true, ..keyed("fd00:a::2", "six") };
        config(64512, 1, vec![v4, v6])
    };
    let right_is = |v4: &str| {
        let v4 = PeerConfig { passive: true, ..keyed("192.0.2.1", v4) };
        config(64512, 2, vec![v4, keyed("fd00:a::1", "six")])
    };
    let a = Node::start(&left, left_is(keyed("192.0.2.2", "four")), &["10.1.0.0/24"]);
    let b = Node::start(&right, right_is("four"), &["10.2.0.0/24"]);
    for (node, other) in [(&a, "192.0.2.2"), (&a, "fd00:a::2"), (&b, "192.0.2.1")] {
        until_up(node, other, 1);
    }

    // A stranger with the right address has no password: nobody answers him.
    for to in ["192.0.2.2", "fd00:a::2"] {
        let to = SocketAddr::new(to.parse().unwrap(), 179);
        let error = left.run(move || TcpStream::connect_timeout(&to, Duration::from_secs(1)));
        assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::TimedOut, "{to}");
    }

    a.wait(a.speaker.configure(left_is(keyed("192.0.2.2", "new")), 179)).unwrap();
    tests::wait::eventually(SOON, "the session is reset", || {
        a.state("192.0.2.2").0 != SessionState::Established
    });
    b.wait(b.speaker.configure(right_is("new"), 179)).unwrap();
    until_up(&a, "192.0.2.2", 2);

    // Withheld: neither side gets anywhere.
    let unknown = PeerConfig { md5: Md5::Unknown, ..peer("192.0.2.2", 64512) };
    a.wait(a.speaker.configure(left_is(unknown), 179)).unwrap();
    a.wait(a.speaker.reset("192.0.2.2:179".parse().unwrap())).unwrap();
    tests::wait::throughout(Duration::from_secs(2), "there is no session", || {
        a.state("192.0.2.2") == (SessionState::Idle, 2)
    });
    a.wait(a.speaker.configure(left_is(keyed("192.0.2.2", "new")), 179)).unwrap();
    until_up(&a, "192.0.2.2", 3);
    assert_eq!(a.state("fd00:a::2"), (SessionState::Established, 1));
}

#[test]
fn a_taken_port_is_told_and_tried_again() {
    let space = Space::new();
    let taken = space.run(|| std::net::TcpListener::bind("0.0.0.0:179").unwrap());
    let mut node = Node::start(&space, config(64512, 1, Vec::new()), &[]);
    node.until_event(|event| matches!(event, DriverEvent::ListenFailed { port: 179, .. }));
    drop(taken);
    node.until_event(|event| matches!(event, DriverEvent::Listening(179)));
    space.run(|| drop(TcpStream::connect("127.0.0.1:179").unwrap()));
}

//! Speakers wired back to back: real bytes over pipes in memory, time that only we move.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::config::{Config, PeerConfig, PeerKind, Policy};
use bgp::speaker::{ConnectionId, FibOrigin, Output, Speaker, SpeakerEvent};
use bgp::types::{Asn, RouterId};
use bytes::Bytes;
use ipnet::IpNet;

pub(crate) fn address(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(node + 1).unwrap()))
}

pub(crate) fn config(node: usize, asn: u32) -> Config {
    let IpAddr::V4(id) = address(node) else { panic!("IPv4") };
    Config {
        asn: Asn(asn),
        router_id: RouterId(id),
        cluster_id: id,
        hostname: format!("n{node}"),
        peers: Vec::new(),
    }
}

/// Node `node` as a peer of `of`.
pub(crate) fn peer(of: usize, node: usize, asn: u32) -> PeerConfig {
    let IpAddr::V4(next_hop) = address(of) else { panic!("IPv4") };
    PeerConfig {
        connect_retry: Duration::from_secs(5),
        // One side dials; collisions have tests of their own.
        passive: of > node,
        next_hop_v6: Some(next_hop.to_ipv6_mapped()),
        import: Policy::All,
        export: Policy::All,
        graceful_restart: None,
        ..PeerConfig::new(format!("n{node}"), PeerKind::Mesh, address(node), Asn(asn))
    }
}

pub(crate) fn next_hop_v6(node: usize) -> Ipv6Addr {
    let IpAddr::V4(id) = address(node) else { panic!("IPv4") };
    id.to_ipv6_mapped()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) struct Node {
    pub(crate) speaker: Speaker,
    pub(crate) fib: BTreeMap<IpNet, (Vec<IpAddr>, FibOrigin)>,
    pub(crate) fib_changes: usize,
    pub(crate) events: Vec<SpeakerEvent>,
    writable: BTreeSet<ConnectionId>,
    closing: BTreeSet<ConnectionId>,
}

impl Node {
    fn new(now: Instant, config: Config) -> Self {
        Self {
            speaker: Speaker::new(now, config),
            fib: BTreeMap::new(),
            fib_changes: 0,
            events: Vec::new(),
            writable: BTreeSet::new(),
            closing: BTreeSet::new(),
        }
    }
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    /// Both directions of every connection.
    wires: BTreeMap<(usize, ConnectionId), (usize, ConnectionId)>,
    /// Connections whose far end does not read.
    pub(crate) stuck: BTreeSet<(usize, ConnectionId)>,
    /// Nodes that cannot be connected to.
    pub(crate) unreachable: BTreeSet<usize>,
    /// Nodes without a process.
    dead: BTreeSet<usize>,
    /// Octets that a call of `receive` gets at most.
    pub(crate) chunk: usize,
    pub(crate) octets: usize,
    recorded: Option<(usize, Vec<u8>)>,
}

impl Net {
    pub(crate) fn new(configs: Vec<Config>) -> Self {
        let now = Instant::now();
        let node = |config| Node::new(now, config);
        Self {
            now,
            nodes: configs.into_iter().map(node).collect(),
            wires: BTreeMap::new(),
            stuck: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            dead: BTreeSet::new(),
            chunk: 50,
            octets: 0,
            recorded: None,
        }
    }

    /// Runs until nothing happens without time passing.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            for node in 0..self.nodes.len() {
                moved |= self.turn(node);
            }
            if !moved {
                return;
            }
        }
        panic!("the network never comes to rest");
    }

    /// Runs until nothing happens; what `node` sent meanwhile.
    pub(crate) fn record(&mut self, node: usize) -> Vec<u8> {
        self.recorded = Some((node, Vec::new()));
        self.settle();
        self.recorded.take().map_or(Vec::new(), |(_, bytes)| bytes)
    }

    /// Lets time pass, timer by timer.
    pub(crate) fn run(&mut self, period: Duration) {
        let end = self.now + period;
        loop {
            self.settle();
            let alive = (0..self.nodes.len()).filter(|node| !self.dead.contains(node));
            let alive: Vec<usize> = alive.collect();
            let timeout = |node: &usize| self.nodes[*node].speaker.poll_timeout();
            let next = alive.iter().filter_map(timeout).min();
            match next.filter(|at| *at <= end) {
                None => break,
                Some(at) => self.now = self.now.max(at),
            }
            for node in alive {
                self.nodes[node].speaker.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    /// One turn of one node; true if it did anything.
    pub(crate) fn turn(&mut self, index: usize) -> bool {
        let mut moved = false;
        if self.dead.contains(&index) {
            return false;
        }
        self.nodes[index].speaker.flush(self.now);
        while let Some(output) = self.nodes[index].speaker.poll_output() {
            moved = true;
            self.take(index, output);
        }
        let writable: Vec<ConnectionId> = self.nodes[index].writable.iter().copied().collect();
        for conn in writable {
            if !self.stuck.contains(&(index, conn)) {
                moved |= self.write(index, conn);
            }
        }
        moved
    }

    fn take(&mut self, index: usize, output: Output) {
        let node = &mut self.nodes[index];
        match output {
            Output::Connect { conn, peer, dial } => {
                assert_eq!(dial.remote.ip(), peer);
                self.dial(index, conn, dial.remote);
            }
            Output::Transmit { conn } => {
                node.writable.insert(conn);
            }
            Output::Close { conn } => {
                node.closing.insert(conn);
                node.writable.insert(conn);
                self.stuck.remove(&(index, conn));
            }
            Output::FibChange { prefix, next_hops, origin } => {
                node.fib_changes += 1;
                if next_hops.is_empty() && origin == FibOrigin::Learned {
                    assert!(node.fib.remove(&prefix).is_some(), "removed what was not there");
                } else {
                    node.fib.insert(prefix, (next_hops, origin));
                }
            }
            Output::Event(event) => node.events.push(event),
        }
    }

    fn dial(&mut self, index: usize, conn: ConnectionId, remote: SocketAddr) {
        let now = self.now;
        let other = (0..self.nodes.len()).find(|node| address(*node) == remote.ip());
        let other = other.filter(|node| !self.unreachable.contains(node));
        let local = SocketAddr::new(address(index), 40_000);
        let accepted = other.map(|other| self.nodes[other].speaker.accept(now, local, remote));
        match (other, accepted) {
            (Some(other), Some(Ok(theirs))) => {
                self.wires.insert((index, conn), (other, theirs));
                self.wires.insert((other, theirs), (index, conn));
                self.nodes[index].speaker.connected(now, conn, local);
            }
            _ => {
                let reason = "connection refused".to_owned();
                self.nodes[index].speaker.connect_failed(now, conn, reason);
            }
        }
    }

    /// Hands over what a connection has; true if that was anything.
    fn write(&mut self, index: usize, conn: ConnectionId) -> bool {
        let mut out: Vec<Bytes> = Vec::new();
        self.nodes[index].speaker.transmit(self.now, conn, &mut out, 100);
        if out.is_empty() {
            self.nodes[index].writable.remove(&conn);
            if self.nodes[index].closing.remove(&conn) {
                self.cut(index, conn, false);
                return true;
            }
            return false;
        }
        if let Some((other, theirs)) = self.wires.get(&(index, conn)).copied() {
            let bytes: Vec<u8> = out.concat();
            self.octets += bytes.len();
            if let Some((_, recorded)) = self.recorded.as_mut().filter(|(node, _)| *node == index) {
                recorded.extend(&bytes);
            }
            for chunk in bytes.chunks(self.chunk) {
                self.nodes[other].speaker.receive(self.now, theirs, chunk);
            }
        }
        true
    }

    /// The process of a node ends like after SIGKILL: the kernel closes its connections.
    pub(crate) fn kill(&mut self, node: usize) {
        self.unreachable.insert(node);
        self.dead.insert(node);
        let conns = self.wires.keys().filter(|(at, _)| *at == node);
        for (_, conn) in conns.copied().collect::<Vec<_>>() {
            self.cut(node, conn, false);
        }
    }

    /// A node loses its power: nobody hears of it.
    pub(crate) fn power_off(&mut self, node: usize) {
        self.unreachable.insert(node);
        self.dead.insert(node);
        self.wires.retain(|(at, _), (other, _)| *at != node && *other != node);
    }

    /// A new process on a node that was killed.
    pub(crate) fn start(&mut self, node: usize, config: Config) {
        self.unreachable.remove(&node);
        self.dead.remove(&node);
        self.nodes[node] = Node::new(self.now, config);
    }

    /// The TCP connection breaks; the node at `index` hears of it as well if `both`.
    pub(crate) fn cut(&mut self, index: usize, conn: ConnectionId, both: bool) {
        if let Some((other, theirs)) = self.wires.remove(&(index, conn)) {
            self.wires.remove(&(other, theirs));
            self.nodes[other].speaker.closed(self.now, theirs, "reset by peer".to_owned());
        }
        if both {
            self.nodes[index].speaker.closed(self.now, conn, "reset by peer".to_owned());
        }
    }

    /// The connections of two nodes, as seen by the first.
    pub(crate) fn between(&self, a: usize, b: usize) -> Vec<ConnectionId> {
        let wires = self.wires.iter().filter(|((from, _), (to, _))| (*from, *to) == (a, b));
        wires.map(|((_, conn), _)| *conn).collect()
    }

    /// Next hops at `node` for `prefix`.
    pub(crate) fn next_hops(&self, node: usize, prefix: &str) -> Vec<IpAddr> {
        self.nodes[node].fib.get(&net(prefix)).map_or(Vec::new(), |(hops, _)| hops.clone())
    }

    pub(crate) fn established(&self, node: usize) -> usize {
        self.nodes[node].speaker.summary().peers_established
    }
}

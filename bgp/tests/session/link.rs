//! Two peers over a virtual link: TCP with latency, random chunks, simulated time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::config::{PeerConfig, PeerKind};
use bgp::session::{ConnectionId, Fault, Local, Output, Peer, PeerEvent, SessionEvent, State};
use bgp::types::{Asn, RouterId};

use crate::dut::{config, instant};

/// Deterministic randomness for latencies, chunks and faults.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `bound`.
    pub(crate) fn roll(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// One end of a TCP connection: which node, and its name there.
type End = (usize, ConnectionId);

#[derive(Debug)]
enum Arrival {
    /// A SYN at the listener; the dialler's end.
    Syn(End),
    SynAck(ConnectionId),
    Refused(ConnectionId),
    Bytes(ConnectionId, Vec<u8>),
    Fin(ConnectionId),
}

pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) faults: Vec<Fault>,
    pub(crate) ups: usize,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) nodes: [Node; 2],
    dice: Dice,
    /// Longest one-way latency in microseconds.
    latency: u64,
    sequence: u64,
    arrivals: BTreeMap<(Instant, u64), (usize, Arrival)>,
    /// The other end of each connection that is up.
    other: BTreeMap<End, End>,
    /// Nothing overtakes what the same end sent before.
    last_arrival: BTreeMap<End, Instant>,
    /// Every NOTIFICATION sent.
    pub(crate) notifications: Vec<(u8, u8)>,
    /// Most connections that were up at once.
    pub(crate) most_connections: usize,
}

fn node(
    now: Instant,
    index: u8,
    asns: [u32; 2],
    ids: [u8; 2],
    tweak: &dyn Fn(&mut PeerConfig),
    seed: u64,
) -> Node {
    let us = usize::from(index);
    let local = Local {
        asn: Asn(asns[us]),
        router_id: RouterId(Ipv4Addr::new(10, 0, 0, ids[us])),
        hostname: format!("node{index}"),
    };
    let mut config = PeerConfig {
        kind: PeerKind::Mesh,
        address: IpAddr::from([192, 0, 2, 1 - index]),
        asn: Asn(asns[1 - us]),
        ..config()
    };
    tweak(&mut config);
    let peer = Peer::new(now, 1, local, config, seed * 2 + u64::from(index));
    Node { peer, faults: vec![], ups: 0 }
}

impl World {
    pub(crate) fn new(seed: u64, latency: Duration) -> Self {
        Self::with(seed, latency, [65001, 65001], [1, 2], &|_| {})
    }

    pub(crate) fn with(
        seed: u64,
        latency: Duration,
        asns: [u32; 2],
        ids: [u8; 2],
        tweak: &dyn Fn(&mut PeerConfig),
    ) -> Self {
        let now = instant();
        Self {
            now,
            nodes: [0, 1].map(|index| node(now, index, asns, ids, tweak, seed)),
            dice: Dice::new(seed),
            latency: u64::try_from(latency.as_micros()).unwrap().max(1),
            sequence: 0,
            arrivals: BTreeMap::new(),
            other: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            notifications: Vec::new(),
            most_connections: 0,
        }
    }

    pub(crate) fn start(&mut self, index: usize) {
        self.nodes[index].peer.start(self.now);
        self.collect(index);
    }

    pub(crate) fn dice(&mut self, bound: u64) -> u64 {
        self.dice.roll(bound)
    }

    /// Connections that are up.
    pub(crate) fn connections(&self) -> usize {
        self.other.len() / 2
    }

    pub(crate) fn states(&self) -> [State; 2] {
        [self.nodes[0].peer.state(), self.nodes[1].peer.state()]
    }

    pub(crate) fn both_established(&self) -> bool {
        self.states() == [State::Established; 2]
    }

    /// The two ends of the session name the same connection.
    pub(crate) fn same_connection(&self) -> bool {
        let ends = [0, 1].map(|i| self.nodes[i].peer.established().map(|conn| (i, conn)));
        match ends {
            [Some(a), Some(b)] => self.other.get(&a) == Some(&b),
            _ => false,
        }
    }

    /// Both ends see a reset, now, on every connection.
    pub(crate) fn reset_all(&mut self) {
        let ends: Vec<End> = self.other.keys().copied().collect();
        self.other.clear();
        for (index, conn) in ends {
            self.nodes[index].peer.closed(self.now, conn, "reset".to_owned());
            self.collect(index);
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Handles what is next, if it is before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let arrival = self.arrivals.keys().next().copied();
        let timers = [0, 1].map(|i| self.nodes[i].peer.poll_timeout());
        let timeout = timers.into_iter().flatten().min();
        let next = [arrival.map(|(at, _)| at), timeout].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= end) else { return false };
        assert!(next >= self.now, "time went backwards");
        self.now = next;
        if let Some(key) = arrival.filter(|(at, _)| *at == next) {
            let (index, arrival) = self.arrivals.remove(&key).unwrap();
            self.arrive(index, arrival);
        } else {
            for (index, timer) in timers.into_iter().enumerate() {
                if timer == Some(next) {
                    self.nodes[index].peer.handle_timeout(next);
                    self.collect(index);
                }
            }
        }
        self.most_connections = self.most_connections.max(self.connections());
        true
    }

    fn send(&mut self, from: End, to: usize, arrival: Arrival) {
        let mut at = self.now + Duration::from_micros(1 + self.dice.roll(self.latency));
        let last = self.last_arrival.entry(from).or_insert(at);
        at = at.max(*last);
        *last = at;
        self.sequence += 1;
        self.arrivals.insert((at, self.sequence), (to, arrival));
    }

    fn arrive(&mut self, index: usize, arrival: Arrival) {
        let now = self.now;
        let node = &mut self.nodes[index];
        match arrival {
            Arrival::Syn(dialler) => {
                let here = SocketAddr::from(([192, 0, 2, u8::try_from(index).unwrap()], 179));
                // The kernel completes the handshake either way.
                match node.peer.accept(now, here) {
                    Ok(conn) => {
                        self.other.insert(dialler, (index, conn));
                        self.other.insert((index, conn), dialler);
                        self.send((index, conn), dialler.0, Arrival::SynAck(dialler.1));
                    }
                    Err(_) => {
                        let nobody = (index, ConnectionId(0));
                        self.send(nobody, dialler.0, Arrival::Refused(dialler.1));
                    }
                }
            }
            Arrival::SynAck(conn) => {
                let here = SocketAddr::from(([192, 0, 2, u8::try_from(index).unwrap()], 40000));
                node.peer.connected(now, conn, here);
            }
            Arrival::Refused(conn) => {
                let here = SocketAddr::from(([192, 0, 2, u8::try_from(index).unwrap()], 40000));
                node.peer.connected(now, conn, here);
                self.collect(index);
                self.nodes[index].peer.closed(now, conn, "closed by peer".to_owned());
            }
            Arrival::Bytes(conn, bytes) => {
                let (ups, faults) = (&mut node.ups, &mut node.faults);
                node.peer.receive(now, conn, &bytes, &mut |event| match event {
                    SessionEvent::Update(_) | SessionEvent::RouteRefresh(_) => {}
                    SessionEvent::Peer(event) => note(event, ups, faults),
                });
            }
            Arrival::Fin(conn) => {
                self.other.remove(&(index, conn));
                node.peer.closed(now, conn, "closed by peer".to_owned());
            }
        }
        self.collect(index);
    }

    /// Does what node `index` wants done.
    pub(crate) fn collect(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].peer.poll_output() {
            match output {
                Output::Connect { conn, .. } => {
                    self.send((index, conn), 1 - index, Arrival::Syn((index, conn)));
                }
                Output::Transmit { conn } => self.write(index, conn),
                Output::Close { conn } => {
                    self.write(index, conn);
                    if let Some((to, theirs)) = self.other.remove(&(index, conn)) {
                        self.send((index, conn), to, Arrival::Fin(theirs));
                    } else {
                        self.abort(index, conn);
                    }
                }
                Output::Event(event) => {
                    let node = &mut self.nodes[index];
                    note(event, &mut node.ups, &mut node.faults);
                }
            }
        }
    }

    /// A dial that is given up before it was answered: if the listener has a connection already,
    /// it sees a FIN; if not, the SYN never gets there.
    fn abort(&mut self, index: usize, conn: ConnectionId) {
        self.arrivals.retain(|_, (_, arrival)| match arrival {
            Arrival::Syn(dialler) => *dialler != (index, conn),
            _ => true,
        });
    }

    fn write(&mut self, index: usize, conn: ConnectionId) {
        loop {
            let Some((to, theirs)) = self.other.get(&(index, conn)).copied() else { return };
            let mut chunks = Vec::new();
            if self.nodes[index].peer.transmit(self.now, conn, &mut chunks) == 0 {
                return;
            }
            // Own messages come one by one, so the header is at the beginning.
            self.notifications.extend(
                chunks.iter().filter(|chunk| chunk[18] == 3).map(|chunk| (chunk[19], chunk[20])),
            );
            let mut bytes = chunks.concat();
            while !bytes.is_empty() {
                let most = u64::try_from(bytes.len()).unwrap();
                let cut = usize::try_from(1 + self.dice.roll(most)).unwrap();
                let rest = bytes.split_off(cut);
                self.send((index, conn), to, Arrival::Bytes(theirs, bytes));
                bytes = rest;
            }
        }
    }
}

fn note(event: PeerEvent, ups: &mut usize, faults: &mut Vec<Fault>) {
    match event {
        PeerEvent::Up { .. } => *ups += 1,
        PeerEvent::Down { fault, .. } => faults.push(fault),
    }
}

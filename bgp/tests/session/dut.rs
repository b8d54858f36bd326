//! One peer under test, driven by hand.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::config::{PeerConfig, PeerKind, Policy};
use bgp::session::{ConnectionId, Fault, Local, Output, Peer, PeerEvent, SessionEvent, State};
use bgp::types::{Asn, RouterId};
use bgp::wire::open::{Capability, Open};
use bgp::wire::{Context, Message, Notification, decode, encode, frame};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "simulated time needs some instant to start from")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// AS 65001, 10.0.0.1: the device under test of the hostile rows.
pub(crate) fn local() -> Local {
    Local {
        asn: Asn(65001),
        router_id: RouterId(Ipv4Addr::new(10, 0, 0, 1)),
        hostname: "dut".to_owned(),
    }
}

/// Its external peer, AS 65010, 10.0.0.2.
pub(crate) fn config() -> PeerConfig {
    PeerConfig {
        connect_retry: 5 * SECOND,
        import: Policy::All,
        export: Policy::All,
        ..PeerConfig::new("tor".to_owned(), PeerKind::Tor, IpAddr::from([10, 0, 0, 2]), Asn(65010))
    }
}

/// A good OPEN of that peer.
pub(crate) fn open() -> Open {
    Open {
        version: 4,
        my_as: 65010,
        hold_time_seconds: 90,
        router_id: Ipv4Addr::new(10, 0, 0, 2),
        capabilities: vec![
            Capability::Multiprotocol(1, 1),
            Capability::Multiprotocol(2, 1),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(65010)),
        ],
    }
}

pub(crate) fn bytes_of(open: &Open) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::open(open, &mut bytes);
    bytes
}

pub(crate) fn keepalive() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::keepalive(&mut bytes);
    bytes
}

/// `hex` behind a marker, length filled in.
pub(crate) fn message(kind: u8, body: &str) -> Vec<u8> {
    let body = hex(body);
    let mut bytes = vec![0xff; 16];
    bytes.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}

/// What the peer under test said and did.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) notifications: Vec<Notification>,
    pub(crate) opens: Vec<Open>,
    pub(crate) keepalives: Vec<Instant>,
    pub(crate) closed: Vec<ConnectionId>,
    pub(crate) dialled: Vec<(Instant, ConnectionId)>,
    pub(crate) faults: Vec<(Instant, Fault)>,
    pub(crate) ups: usize,
    /// UPDATEs handed out.
    pub(crate) updates: usize,
    pub(crate) refreshes: usize,
}

pub(crate) struct Dut {
    pub(crate) peer: Peer,
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) log: Log,
    /// The driver's socket takes bytes.
    pub(crate) writable: bool,
}

impl Dut {
    pub(crate) fn new(config: PeerConfig) -> Self {
        let now = instant();
        Self {
            peer: Peer::new(now, 3, local(), config, 11),
            now,
            start: now,
            log: Log::default(),
            writable: true,
        }
    }

    /// Started, with the dial of a non-passive peer outstanding.
    pub(crate) fn started(config: PeerConfig) -> Self {
        let mut dut = Self::new(config);
        dut.peer.start(dut.now);
        dut.collect();
        dut
    }

    /// A connection that the peer opened, in OpenSent.
    pub(crate) fn accepted(config: PeerConfig) -> (Self, ConnectionId) {
        let mut dut = Self::started(config);
        let conn = dut.accept().unwrap();
        (dut, conn)
    }

    /// A session in Established, over a connection that the peer opened.
    pub(crate) fn established(config: PeerConfig) -> (Self, ConnectionId) {
        Self::established_with(config, 90)
    }

    /// The same; the peer proposes this hold time.
    pub(crate) fn established_with(
        config: PeerConfig,
        hold_time_seconds: u16,
    ) -> (Self, ConnectionId) {
        let (mut dut, conn) = Self::accepted(config);
        dut.send(conn, &bytes_of(&Open { hold_time_seconds, ..open() }));
        dut.send(conn, &keepalive());
        assert_eq!(dut.peer.state(), State::Established);
        dut.log.keepalives.clear();
        (dut, conn)
    }

    pub(crate) fn accept(&mut self) -> Result<ConnectionId, bgp::session::Refusal> {
        let conn = self.peer.accept(self.now, SocketAddr::from(([10, 0, 0, 1], 179)))?;
        self.collect();
        Ok(conn)
    }

    pub(crate) fn connected(&mut self) -> ConnectionId {
        let (_, conn) = *self.log.dialled.last().unwrap();
        self.peer.connected(self.now, conn, SocketAddr::from(([10, 0, 0, 1], 40000)));
        self.collect();
        conn
    }

    pub(crate) fn connect_failed(&mut self) {
        let (_, conn) = *self.log.dialled.last().unwrap();
        self.peer.connect_failed(self.now, conn, "refused".to_owned());
        self.collect();
    }

    pub(crate) fn closed(&mut self, conn: ConnectionId) {
        self.peer.closed(self.now, conn, "reset by peer".to_owned());
        self.collect();
    }

    /// Bytes from the peer.
    pub(crate) fn send(&mut self, conn: ConnectionId, bytes: &[u8]) {
        let log = &mut self.log;
        let now = self.now;
        let mut events = Vec::new();
        self.peer.receive(now, conn, bytes, &mut |event| match event {
            SessionEvent::Update(_) => log.updates += 1,
            SessionEvent::RouteRefresh(_) => log.refreshes += 1,
            SessionEvent::Peer(event) => events.push(event),
        });
        for event in events {
            self.note(event);
        }
        self.collect();
    }

    fn note(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Up { .. } => self.log.ups += 1,
            PeerEvent::Down { fault, .. } => self.log.faults.push((self.now, fault)),
        }
    }

    /// Lets time pass, stopping at each deadline.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(deadline) = self.peer.poll_timeout().filter(|deadline| *deadline <= end) {
            assert!(deadline >= self.now, "a deadline in the past was not handled");
            self.now = deadline;
            self.peer.handle_timeout(deadline);
            self.collect();
        }
        self.now = end;
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Takes all outputs, as a driver does.
    pub(crate) fn collect(&mut self) {
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Connect { conn, .. } => {
                    self.log.dialled.push((self.now, conn));
                }
                Output::Transmit { conn } => self.transmit(conn),
                Output::Close { conn } => {
                    self.transmit(conn);
                    self.log.closed.push(conn);
                }
                Output::Event(event) => self.note(event),
            }
        }
    }

    /// A driver asks until there is nothing more.
    pub(crate) fn transmit(&mut self, conn: ConnectionId) {
        while self.writable {
            let mut chunks = Vec::new();
            if self.peer.transmit(self.now, conn, &mut chunks) == 0 {
                break;
            }
            for chunk in chunks {
                let (_, len) = frame(&chunk, 4096).unwrap().unwrap();
                assert_eq!(len, chunk.len(), "own messages are handed out one by one");
                match decode(&chunk, &Context::OPENING).unwrap() {
                    Message::Open(open) => self.log.opens.push(open),
                    Message::Keepalive => self.log.keepalives.push(self.now),
                    Message::Notification(n) => self.log.notifications.push(n),
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
    }

    /// Code and subcode of every NOTIFICATION sent.
    pub(crate) fn told(&self) -> Vec<(u8, u8)> {
        self.log.notifications.iter().map(|n| (n.code, n.subcode)).collect()
    }
}

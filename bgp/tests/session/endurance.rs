//! Random driving: whatever a network, a peer and a clock do in whatever order, a started peer
//! never gets stuck and never loses a connection of the driver.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bgp::config::PeerConfig;
use bgp::session::{ConnectionId, Local, Output, Peer, PeerEvent, SessionEvent, State};
use bgp::wire::Notification;
use bgp::wire::open::Open;

use crate::dut::{bytes_of, config, instant, keepalive, local, message, open};
use crate::link::Dice;

/// A driver that knows only what it was told.
struct Driver {
    peer: Peer,
    now: std::time::Instant,
    /// Dials without an answer.
    dials: BTreeSet<ConnectionId>,
    /// TCP connections that are open.
    sockets: BTreeSet<ConnectionId>,
    named: BTreeSet<ConnectionId>,
    /// Up and Down of the session must alternate.
    up: bool,
    ups: usize,
}

impl Driver {
    fn new(seed: u64, config: PeerConfig) -> Self {
        let now = instant();
        let mut peer = Peer::new(now, 1, local(), config, seed);
        peer.start(now);
        let (dials, sockets, named) = Default::default();
        Self { peer, now, dials, sockets, named, up: false, ups: 0 }
    }

    fn note(&mut self, event: &PeerEvent) {
        match event {
            PeerEvent::Up { conn, .. } => {
                assert!(!self.up, "two sessions at once");
                assert!(self.sockets.contains(conn));
                self.up = true;
                self.ups += 1;
            }
            PeerEvent::Down { established, .. } => {
                assert!(!established || self.up, "a session that was not up went down");
                self.up &= !established;
            }
        }
    }

    fn collect(&mut self) {
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Connect { conn, .. } => {
                    assert!(self.named.insert(conn), "{conn} named twice");
                    self.dials.insert(conn);
                }
                Output::Transmit { conn } => {
                    self.peer.transmit(self.now, conn, &mut Vec::new());
                }
                Output::Close { conn } => {
                    self.peer.transmit(self.now, conn, &mut Vec::new());
                    assert!(
                        self.dials.remove(&conn) || self.sockets.remove(&conn),
                        "{conn} closed, but the driver does not have it"
                    );
                }
                Output::Event(event) => self.note(&event),
            }
        }
        assert!(self.dials.len() <= 1 && self.sockets.len() <= 2, "connections leak");
        assert_eq!(self.up, self.peer.established().is_some());
        let state = self.peer.state();
        assert!(
            self.peer.poll_timeout().is_some() || state == State::Established,
            "nothing will ever happen in {state}"
        );
    }

    fn any_socket(&self, dice: &mut Dice) -> Option<ConnectionId> {
        let count = u64::try_from(self.sockets.len()).unwrap();
        let index = usize::try_from(dice.roll(count.max(1))).unwrap();
        self.sockets.iter().nth(index).copied()
    }

    fn step(&mut self, dice: &mut Dice) {
        let here = SocketAddr::from(([10, 0, 0, 1], 179));
        match dice.roll(16) {
            0 | 1 => {
                if let Ok(conn) = self.peer.accept(self.now, here) {
                    assert!(self.named.insert(conn), "{conn} named twice");
                    self.sockets.insert(conn);
                }
            }
            2 | 3 => {
                if let Some(conn) = self.dials.pop_first() {
                    self.sockets.insert(conn);
                    self.peer.connected(self.now, conn, here);
                }
            }
            4 => {
                if let Some(conn) = self.dials.pop_first() {
                    self.peer.connect_failed(self.now, conn, "refused".to_owned());
                }
            }
            5 => {
                if let Some(conn) = self.any_socket(dice) {
                    self.sockets.remove(&conn);
                    self.peer.closed(self.now, conn, "reset".to_owned());
                }
            }
            6 => match dice.roll(8) {
                0 => self.peer.reset(self.now, &Notification::new(6, 4), None),
                1 => {
                    let pause = Some(Duration::from_secs(30));
                    self.peer.reset(self.now, &Notification::new(6, 1), pause);
                }
                2 => {
                    let hold_time = Duration::from_secs(30 + 60 * dice.roll(2));
                    let passive = dice.roll(2) == 0;
                    let changed = PeerConfig { hold_time, passive, ..config() };
                    self.peer.reconfigure(self.now, local(), changed);
                }
                3 => {
                    let renamed = Local { hostname: format!("n{}", dice.roll(2)), ..local() };
                    let same = self.peer.config().clone();
                    self.peer.reconfigure(self.now, renamed, same);
                }
                4 => {
                    self.peer.stop(self.now, &Notification::new(6, 2));
                    self.peer.start(self.now);
                }
                _ => {}
            },
            7 | 8 => {
                self.now += Duration::from_millis(dice.roll(3000));
                self.peer.handle_timeout(self.now);
            }
            9 => {
                if let Some(deadline) = self.peer.poll_timeout() {
                    self.now = self.now.max(deadline);
                    self.peer.handle_timeout(self.now);
                }
            }
            _ => {
                if let Some(conn) = self.any_socket(dice) {
                    let bytes = bytes(dice);
                    let mut events = Vec::new();
                    self.peer.receive(self.now, conn, &bytes, &mut |event| {
                        if let SessionEvent::Peer(event) = event {
                            events.push(event);
                        }
                    });
                    for event in events {
                        self.note(&event);
                    }
                }
            }
        }
        self.collect();
    }
}

/// Mostly what a peer would say, sometimes not.
fn bytes(dice: &mut Dice) -> Vec<u8> {
    let id = 1 + u8::try_from(dice.roll(3)).unwrap();
    let good = Open { router_id: [10, 0, 0, id].into(), ..open() };
    match dice.roll(20) {
        0..=5 => bytes_of(&good),
        6..=8 => [bytes_of(&good), keepalive()].concat(),
        9..=13 => keepalive(),
        14 => message(2, "0000 0000"),
        15 => message(5, "0001 00 01"),
        16 => message(3, "06 04"),
        17 => keepalive()[..usize::try_from(dice.roll(19)).unwrap()].to_vec(),
        18 => bytes_of(&Open { my_as: 1, capabilities: vec![], ..open() }),
        _ => (0..dice.roll(60)).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect(),
    }
}

#[test]
fn nothing_gets_stuck_or_leaks_whatever_happens() {
    let mut ups = 0;
    for seed in 0..400 {
        let mut dice = Dice::new(seed);
        let passive = seed % 4 == 0;
        let mut driver = Driver::new(seed, PeerConfig { passive, ..config() });
        driver.collect();
        for _ in 0..500 {
            driver.step(&mut dice);
        }
        ups += driver.ups;
    }
    assert!(ups > 1000, "the driving is too rough to see sessions: {ups}");
}

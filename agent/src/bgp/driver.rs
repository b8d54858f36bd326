//! The speaker thread.

mod traffic;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::bgp::config::Config;
use ::bgp::md5::Md5Key;
use ::bgp::speaker::{ConnectionId, Output, Speaker};
use ::bgp::wire::encode;
use ::bgp::wire::error::Notification;
use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Interest, Poll, Token, Waker};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, watch};

use super::connection::{self, Connection, Inbound, LINGER, Phase};
use super::handle::{Command, SpeakerHandle, Traffic};
use super::listener::{Listeners, Listening};
use super::outlet::{DriverEvent, EventOutlet, FibChange, FibOutlet, FibSink};

const WAKE: Token = Token(0);
const LISTEN: [Token; 2] = [Token(1), Token(2)];
const FIRST_CONNECTION: usize = 3;

/// Octets read by one system call.
const READ: usize = 256 * 1024;
/// Commands taken in a turn.
const COMMANDS_A_TURN: usize = 64;
/// How soon a full outlet is tried again.
const OUTLET_PAUSE: Duration = Duration::from_millis(2);
/// How often the numbers are published while traffic flows.
const PUBLISH_PAUSE: Duration = Duration::from_millis(100);

/// Sizes of the channels.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Commands that may wait.
    pub commands: usize,
    /// Events that may wait; beyond, only the latest of each peer and kind is kept.
    pub events: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { commands: 64, events: 1024 }
    }
}

/// Starts the speaker thread in the network namespace of the calling thread. Failing to listen is
/// no error but an event, and tried again.
///
/// # Errors
/// The kernel gave no epoll instance or no thread.
pub fn spawn(
    config: Config,
    listen_port: u16,
    fib: Option<FibSink>,
    options: Options,
) -> io::Result<(SpeakerHandle, mpsc::Receiver<DriverEvent>, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let (command_sender, commands) = mpsc::channel(options.commands);
    let (event_sender, events) = mpsc::channel(options.events);
    let (traffic_sender, traffic) = watch::channel(Traffic::default());
    let now = Instant::now();
    let mut listeners = Listeners::new(LISTEN);
    listeners.set_port(now, listen_port);
    let peers = Peers::of(&config);
    listeners.set_keys(peers.keys());
    let speaker = Speaker::new(now, config);
    let driver = Driver {
        poll,
        commands,
        connections: FxHashMap::default(),
        listeners,
        peers,
        speaker: if fib.is_some() { speaker } else { speaker.without_fib() },
        readable: VecDeque::new(),
        to_write: VecDeque::new(),
        ending: Vec::new(),
        fib: FibOutlet::new(fib),
        events: EventOutlet::new(event_sender),
        outlets_wait: false,
        traffic: Traffic::default(),
        traffic_sender,
        published: now,
        chunks: Vec::new(),
    };
    let thread =
        std::thread::Builder::new().name("speaker".to_owned()).spawn(move || driver.run())?;
    Ok((SpeakerHandle::new(command_sender, waker, traffic), events, thread))
}

/// Options of inbound connections, by address of the peer.
#[derive(Debug)]
struct Peers(FxHashMap<IpAddr, Inbound>);

impl Peers {
    fn of(config: &Config) -> Self {
        // Who connects from the address of a peer that is only dialled is another one.
        let peers = config.peers.iter().filter(|peer| !peer.dial_only);
        let options = peers.map(|peer| {
            let (ttl, min_ttl) = (peer.ttl(config.asn), peer.min_ttl());
            (peer.address, Inbound { ttl, min_ttl, md5: peer.md5.key().cloned() })
        });
        Self(options.collect())
    }

    fn keys(&self) -> BTreeMap<IpAddr, Md5Key> {
        let keyed = self.0.iter();
        keyed.filter_map(|(remote, options)| Some((*remote, options.md5.clone()?))).collect()
    }
}

#[derive(Debug)]
struct Driver {
    poll: Poll,
    commands: mpsc::Receiver<Command>,
    connections: FxHashMap<u64, Connection>,
    listeners: Listeners,
    peers: Peers,
    speaker: Speaker,
    readable: VecDeque<u64>,
    to_write: VecDeque<u64>,
    /// Connections with a deadline.
    ending: Vec<u64>,
    fib: FibOutlet,
    events: EventOutlet,
    outlets_wait: bool,
    traffic: Traffic,
    traffic_sender: watch::Sender<Traffic>,
    published: Instant,
    chunks: Vec<Bytes>,
}

impl Driver {
    fn run(mut self) {
        let mut ready = mio::Events::with_capacity(4096);
        let mut buffer = vec![0_u8; READ];
        loop {
            let timeout = self.timeout(Instant::now());
            if let Err(error) = self.poll.poll(&mut ready, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the speaker thread cannot wait for events and ends");
                return;
            }
            let now = Instant::now();
            self.take_events(now, &ready);
            match self.take_commands(now) {
                Next::Turn => {}
                Next::End { cease } => return self.end(cease),
            }
            self.listen(now);
            self.read(now, &mut buffer);
            if self.speaker.poll_timeout().is_some_and(|at| at <= now) {
                self.speaker.handle_timeout(now);
            }
            self.speaker.flush(now);
            self.take_outputs(now);
            self.write(now);
            self.take_outputs(now);
            self.drop_overdue(now);
            let events_out = self.events.flush();
            self.outlets_wait = !(self.fib.flush(now) && events_out);
            self.publish(now);
        }
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        if !self.readable.is_empty() || !self.to_write.is_empty() || !self.commands.is_empty() {
            return Some(Duration::ZERO);
        }
        let ending = self.ending.iter().filter_map(|id| self.connections.get(id)?.deadline()).min();
        let pause = self.outlets_wait.then(|| now + OUTLET_PAUSE);
        let stale = *self.traffic_sender.borrow() != self.current_traffic();
        let publish = stale.then(|| self.published + PUBLISH_PAUSE);
        [self.speaker.poll_timeout(), self.listeners.deadline(), ending, pause, publish]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.saturating_duration_since(now))
    }

    fn current_traffic(&self) -> Traffic {
        Traffic { connections: self.connections.len(), ..self.traffic }
    }

    fn publish(&mut self, now: Instant) {
        if now.saturating_duration_since(self.published) >= PUBLISH_PAUSE {
            self.published = now;
            let new = self.current_traffic();
            self.traffic_sender.send_if_modified(|old| std::mem::replace(old, new) != new);
        }
    }

    fn take_events(&mut self, now: Instant, ready: &mio::Events) {
        for event in ready {
            let token = event.token();
            if token == WAKE {
                continue;
            }
            if LISTEN.contains(&token) {
                self.accept(now);
                continue;
            }
            let id = id_of(token);
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            if connection.phase == Phase::Connecting {
                self.connect_ended(now, id);
                continue;
            }
            if event.is_writable() {
                connection.writable = true;
                self.to_write.push_back(id);
            }
            let ended = event.is_read_closed() || event.is_error();
            if (event.is_readable() || ended) && !connection.reading {
                connection.reading = true;
                self.readable.push_back(id);
            }
        }
        if self.listeners.accept_due(now) {
            self.accept(now);
        }
    }

    fn take_commands(&mut self, now: Instant) -> Next {
        for _ in 0..COMMANDS_A_TURN {
            match self.commands.try_recv() {
                Ok(Command::Configure(config, port)) => {
                    self.listeners.set_port(now, port);
                    if port != self.traffic.listen_port {
                        self.traffic.listen_port = 0;
                    }
                    self.peers = Peers::of(&config);
                    self.listeners.set_keys(self.peers.keys());
                    self.speaker.configure(now, *config);
                }
                Ok(Command::Originate(prefixes)) => self.speaker.originate(now, &prefixes),
                Ok(Command::Reset(peer)) => self.speaker.reset(now, peer),
                // Who asked may have stopped waiting.
                Ok(Command::Peers(reply)) => drop(reply.send(self.speaker.peers(now))),
                Ok(Command::Routes(reply)) => drop(reply.send(self.speaker.routes(now))),
                Ok(Command::Summary(reply)) => drop(reply.send(self.speaker.summary())),
                Ok(Command::Parity { from, against, reply }) => {
                    drop(reply.send(self.speaker.parity(&from, &against)));
                }
                Ok(Command::Holders { peers, reply }) => {
                    drop(reply.send(self.speaker.holders(&peers)));
                }
                Ok(Command::Connected(networks)) => self.speaker.set_connected(now, networks),
                Ok(Command::Shutdown { cease }) => return Next::End { cease },
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return Next::End { cease: false },
            }
        }
        Next::Turn
    }

    fn listen(&mut self, now: Instant) {
        match self.listeners.poll(now, self.poll.registry()) {
            Some(Listening::On(port)) => {
                self.traffic.listen_port = port;
                self.events.push(now, DriverEvent::Listening(port));
            }
            Some(Listening::Failed(port, reason)) => {
                self.traffic.listen_port = 0;
                self.events.push(now, DriverEvent::ListenFailed { port, reason });
            }
            None => {}
        }
    }

    fn accept(&mut self, now: Instant) {
        let mut accepted = Vec::new();
        self.listeners.accept(now, |stream, remote| accepted.push((stream, remote)));
        for (stream, remote) in accepted {
            if let Err(error) = self.take_in(now, stream, remote) {
                tracing::debug!(%remote, %error, "an inbound BGP connection ended at once");
            }
        }
    }

    /// An error means that the connection is already gone, or its options were refused.
    fn take_in(&mut self, now: Instant, stream: TcpStream, remote: SocketAddr) -> io::Result<()> {
        let local = stream.local_addr()?;
        if let Some(options) = self.peers.0.get(&remote.ip()) {
            connection::set_options(&stream, remote.ip(), options)?;
        }
        match self.speaker.accept(now, remote, local) {
            Ok(ConnectionId(id)) => {
                let connection = Connection::new(stream, remote, Phase::Open);
                self.register(now, id, connection);
            }
            Err(reason) => {
                self.traffic.refused += 1;
                tracing::debug!(%remote, %reason, "inbound BGP connection refused");
            }
        }
        Ok(())
    }

    fn register(&mut self, now: Instant, id: u64, mut connection: Connection) {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.poll.registry().register(&mut connection.stream, token_of(id), interest) {
            Ok(()) => drop(self.connections.insert(id, connection)),
            Err(error) => self.speaker.closed(now, ConnectionId(id), error.to_string()),
        }
    }

    fn connect_ended(&mut self, now: Instant, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let stream = &connection.stream;
        let outcome = match stream.take_error() {
            Ok(None) => stream.peer_addr().and_then(|_| stream.local_addr()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match outcome {
            Ok(local) => {
                connection.phase = Phase::Open;
                connection.writable = true;
                connection.reading = true;
                self.readable.push_back(id);
                self.speaker.connected(now, ConnectionId(id), local);
            }
            // Not there yet: a spurious event.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => {
                self.forget(id);
                self.speaker.connect_failed(now, ConnectionId(id), error.to_string());
            }
        }
    }

    fn take_outputs(&mut self, now: Instant) {
        while let Some(output) = self.speaker.poll_output() {
            match output {
                Output::Connect { conn, peer: _, dial } => match connection::dial(&dial) {
                    Ok(stream) => {
                        let connection = Connection::new(stream, dial.remote, Phase::Connecting);
                        self.register(now, conn.0, connection);
                    }
                    Err(error) => self.speaker.connect_failed(now, conn, error.to_string()),
                },
                Output::Transmit { conn } => self.to_write.push_back(conn.0),
                Output::Close { conn } => self.close(now, conn),
                Output::FibChange { prefix, next_hops, origin } => {
                    self.fib.push(FibChange { prefix, next_hops, origin });
                }
                Output::Event(event) => self.events.push(now, DriverEvent::Speaker(event)),
            }
        }
    }

    fn close(&mut self, now: Instant, conn: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&conn.0) else { return };
        match connection.phase {
            Phase::Connecting => {
                self.forget(conn.0);
                self.speaker.closed(now, conn, "given up".to_owned());
            }
            Phase::Open => {
                connection.phase = Phase::Closing(now + LINGER);
                self.ending.push(conn.0);
                self.to_write.push_back(conn.0);
            }
            Phase::Closing(_) | Phase::Lingering(_) => {}
        }
    }

    /// Ends the thread. Routes stay; whether peers keep theirs is up to `cease`.
    fn end(mut self, tell: bool) {
        if !tell {
            return;
        }
        for (id, connection) in &mut self.connections {
            let notification = self.speaker.shutdown_notification(ConnectionId(*id));
            let mut message = Vec::new();
            encode::notification(&notification, &mut message);
            let mut chunks = vec![Bytes::from(message)];
            if connection.phase == Phase::Open && !connection.has_pending() {
                connection.enqueue(&mut chunks);
                let mut octets = 0;
                match connection.write(&mut octets) {
                    Ok(_) => connection.finish(Instant::now()),
                    Err(error) => {
                        tracing::debug!(remote = %connection.remote, %error, "no Cease was sent");
                    }
                }
            }
        }
    }
}

enum Next {
    Turn,
    End { cease: bool },
}

fn cease(subcode: u8) -> Bytes {
    let mut message = Vec::new();
    encode::notification(&Notification { code: 6, subcode, data: Vec::new() }, &mut message);
    message.into()
}

/// Connection ids count up from a small number, so a token holds them.
fn token_of(id: u64) -> Token {
    Token(usize::try_from(id).map_or(usize::MAX, |id| id.saturating_add(FIRST_CONNECTION)))
}

fn id_of(token: Token) -> u64 {
    u64::try_from(token.0.saturating_sub(FIRST_CONNECTION)).unwrap_or(u64::MAX)
}

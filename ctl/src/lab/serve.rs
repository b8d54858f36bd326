//! The demo application: real listeners inside the pods, and the clients that ask them.
//!
//! A TCP server greets with its name and then echoes; a UDP server answers each datagram with
//! its name and the datagram. Both listen on IPv4 and IPv6.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Connections that one server keeps open at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// Line that a server writes to standard output when every port listens.
pub const READY: &str = "ready";

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port to listen on or to ask, written `tcp/8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Protocol.
    pub transport: Transport,
    /// Number.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Transport::Tcp => write!(f, "tcp/{}", self.number),
            Transport::Udp => write!(f, "udp/{}", self.number),
        }
    }
}

/// The text is no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a port is written tcp/NUMBER or udp/NUMBER")]
pub struct InvalidPort;

impl FromStr for Port {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let (transport, number) = text.split_once('/').ok_or(InvalidPort)?;
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return Err(InvalidPort),
        };
        let number = number.parse().map_err(|_| InvalidPort)?;
        Ok(Self { transport, number })
    }
}

/// Serves until the process ends. Writes [`READY`] to standard output once every port listens.
///
/// # Errors
/// When a port cannot be listened on.
pub fn serve(identity: &str, ports: &[Port]) -> io::Result<()> {
    let mut threads = Vec::new();
    for port in ports {
        // IPv6 sockets of std take IPv4 too.
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.number));
        let identity = identity.to_owned();
        threads.push(match port.transport {
            Transport::Tcp => {
                let listener = TcpListener::bind(address)?;
                thread::spawn(move || serve_tcp(&listener, &identity))
            }
            Transport::Udp => {
                let socket = UdpSocket::bind(address)?;
                thread::spawn(move || serve_udp(&socket, &identity))
            }
        });
    }
    let mut output = io::stdout();
    writeln!(output, "{READY}")?;
    output.flush()?;
    for thread in threads {
        if thread.join().is_err() {
            return Err(io::Error::other("a listener died"));
        }
    }
    Ok(())
}

fn serve_tcp(listener: &TcpListener, identity: &str) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _client)) = listener.accept() else {
            // Out of descriptors, or the client is gone already: the next one may do better.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let open = Arc::clone(&open);
        let identity = identity.to_owned();
        thread::spawn(move || {
            // A client that breaks its connection off is its own affair.
            converse(stream, &identity).ok();
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn converse(mut stream: TcpStream, identity: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    stream.write_all(format!("{identity}\n").as_bytes())?;
    let mut buffer = [0; 2048];
    loop {
        let length = stream.read(&mut buffer)?;
        match buffer.get(..length) {
            Some(bytes) if !bytes.is_empty() => stream.write_all(bytes)?,
            _ => return Ok(()),
        }
    }
}

fn serve_udp(socket: &UdpSocket, identity: &str) {
    let mut buffer = [0; 2048];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let mut reply = identity.as_bytes().to_vec();
        reply.push(b' ');
        reply.extend_from_slice(buffer.get(..length).unwrap_or_default());
        // Undeliverable answers look like lost ones to the client, as they should.
        socket.send_to(&reply, client).ok();
    }
}

/// Connects once and returns the name of who answered.
///
/// # Errors
/// When nobody answers within `timeout`.
pub fn ask(transport: Transport, to: SocketAddr, timeout: Duration) -> io::Result<String> {
    match transport {
        Transport::Tcp => ask_tcp(to, timeout),
        Transport::Udp => ask_udp(to, timeout),
    }
}

fn ask_tcp(to: SocketAddr, timeout: Duration) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&to, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut line = String::new();
    BufReader::new(stream.take(256)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn ask_udp(to: SocketAddr, timeout: Duration) -> io::Result<String> {
    const QUESTION: &[u8] = b"who";
    let socket = UdpSocket::bind(match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    })?;
    socket.connect(to)?;
    let deadline = Instant::now() + timeout;
    let mut buffer = [0; 2048];
    // Datagrams get lost for good reasons too (a neighbour that is still being resolved), so the
    // question is asked more than once.
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.send(QUESTION)?;
        socket.set_read_timeout(Some(left.min(Duration::from_millis(200))))?;
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let reply = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                let (name, _question) = reply.rsplit_once(' ').unwrap_or((&reply, ""));
                return Ok(name.to_owned());
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_read_as_it_is_written() {
        let port: Port = "udp/53".parse().unwrap();
        assert_eq!(port.to_string(), "udp/53");
        for text in ["53", "sctp/1", "tcp/70000", "tcp/"] {
            assert_eq!(text.parse::<Port>(), Err(InvalidPort), "{text}");
        }
    }

    #[test]
    fn both_transports_answer_with_their_name() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp = listener.local_addr().unwrap();
        let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let udp = socket.local_addr().unwrap();
        thread::spawn(move || serve_tcp(&listener, "web/web-1"));
        thread::spawn(move || serve_udp(&socket, "api/dns-1"));
        let wait = Duration::from_secs(5);
        assert_eq!(ask(Transport::Tcp, tcp, wait).unwrap(), "web/web-1");
        assert_eq!(ask(Transport::Udp, udp, wait).unwrap(), "api/dns-1");
    }
}

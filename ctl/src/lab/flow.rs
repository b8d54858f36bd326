//! Probe flows: numbered datagrams at a steady pace, to count what an event cost.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::error::LabError;
use super::namespace;

/// Time between two datagrams of one flow.
pub const PACE: Duration = Duration::from_millis(10);
/// How long answers to the last datagrams are waited for.
const LINGER: Duration = Duration::from_millis(300);

/// What flows between two pods lost. All flows of one [`Flow`] differ in their source port only,
/// so that they spread over equal-cost paths.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Where from, for humans.
    pub from: String,
    /// Address and port asked.
    pub to: String,
    /// Flows.
    pub flows: usize,
    /// Datagrams sent.
    pub sent: u64,
    /// Answers received.
    pub answered: u64,
    /// Longest time in which one flow got no answer, in seconds; 0 when nothing was lost.
    pub longest_gap_seconds: f64,
}

impl Loss {
    /// Datagrams without an answer.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.answered)
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} -> {}: {} flows, {} sent, {} lost, longest gap {:.2} s",
            self.from,
            self.to,
            self.flows,
            self.sent,
            self.lost(),
            self.longest_gap_seconds
        )
    }
}

/// Flows that run until they are stopped.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Loss, LabError>>,
}

impl Flow {
    /// Starts `flows` flows from inside the namespace to a UDP server of the demo application.
    #[must_use]
    pub fn start(namespace: &str, label: &str, to: SocketAddr, flows: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let namespace = namespace.to_owned();
        let label = label.to_owned();
        let thread = std::thread::spawn(move || {
            namespace::enter(&namespace)?;
            let failed =
                |source| LabError::Start { role: format!("probe flow from {label}"), source };
            let mut senders = (0..flows)
                .map(|_| Sender::new(to))
                .collect::<io::Result<Vec<_>>>()
                .map_err(failed)?;
            run(&mut senders, &stopped);
            Ok(summary(&label, to, &senders))
        });
        Self { stop, thread }
    }

    /// Stops sending; answers are still taken for a while.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Stops them and waits for late answers.
    ///
    /// # Errors
    /// [`LabError::Enter`], [`LabError::Start`] when they never ran.
    pub fn finish(self) -> Result<Loss, LabError> {
        self.stop();
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

struct Sender {
    socket: UdpSocket,
    next: u64,
    /// When each datagram without an answer was sent.
    unanswered: BTreeMap<u64, Instant>,
}

impl Sender {
    fn new(to: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(match to {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        })?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, next: 0, unanswered: BTreeMap::new() })
    }

    fn send(&mut self) {
        // What the kernel refuses to send (no route) is lost like what the network drops.
        self.socket.send(self.next.to_string().as_bytes()).ok();
        self.unanswered.insert(self.next, Instant::now());
        self.next += 1;
    }

    fn receive(&mut self) {
        let mut buffer = [0; 256];
        loop {
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error is reported once, then reading goes on.
                Err(_) => continue,
            };
            let number = std::str::from_utf8(buffer.get(..length).unwrap_or_default())
                .ok()
                .and_then(|reply| reply.rsplit(' ').next()?.parse().ok());
            if let Some(number) = number {
                self.unanswered.remove::<u64>(&number);
            }
        }
    }

    /// Longest run of consecutive datagrams without an answer, as time.
    fn longest_gap(&self) -> Duration {
        let mut longest = Duration::ZERO;
        let mut run: Option<(Instant, u64)> = None;
        for (number, sent) in &self.unanswered {
            let began = match run {
                Some((began, last)) if last + 1 == *number => began,
                Some(_) | None => *sent,
            };
            run = Some((began, *number));
            longest = longest.max(sent.duration_since(began) + PACE);
        }
        longest
    }
}

fn run(senders: &mut [Sender], stopped: &AtomicBool) {
    let mut due = Instant::now();
    let mut end = None;
    loop {
        let now = Instant::now();
        match end {
            None if stopped.load(Ordering::Relaxed) => end = Some(now + LINGER),
            None if now >= due => {
                senders.iter_mut().for_each(Sender::send);
                due += PACE;
            }
            None => {}
            Some(end) if now >= end => return,
            Some(_) => {}
        }
        senders.iter_mut().for_each(Sender::receive);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn summary(label: &str, to: SocketAddr, senders: &[Sender]) -> Loss {
    let unanswered = senders.iter().map(|sender| sender.unanswered.len());
    let sent: u64 = senders.iter().map(|sender| sender.next).sum();
    let lost = unanswered.map(|n| u64::try_from(n).unwrap_or(u64::MAX));
    Loss {
        from: label.to_owned(),
        to: to.to_string(),
        flows: senders.len(),
        sent,
        answered: sent.saturating_sub(lost.sum()),
        longest_gap_seconds: senders
            .iter()
            .map(Sender::longest_gap)
            .max()
            .unwrap_or_default()
            .as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_the_longest_run_of_lost_datagrams() {
        let mut sender = Sender::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 9))).unwrap();
        let start = Instant::now();
        for number in [3_u64, 10, 11, 12, 20] {
            let offset = PACE * u32::try_from(number).unwrap();
            sender.unanswered.insert(number, start + offset);
        }
        assert_eq!(sender.longest_gap(), PACE * 3);
    }

    #[test]
    fn nothing_lost_is_no_gap() {
        let sender = Sender::new(SocketAddr::from((Ipv6Addr::LOCALHOST, 9))).unwrap();
        assert_eq!(sender.longest_gap(), Duration::ZERO);
    }
}

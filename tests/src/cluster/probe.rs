//! Traffic of our own inside pods: numbered datagrams, and who received which.
//!
//! Threads of this process enter a pod's network namespace, so that both ends share one clock and
//! no image needs a program for it.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, setns};

/// How long late datagrams are waited for.
const LINGER: Duration = Duration::from_millis(500);
/// How often a receiver looks whether it shall stop.
const TICK: Duration = Duration::from_millis(20);

/// Runs `work` on a thread inside a network namespace, given as the path of its file.
///
/// # Errors
/// When it cannot be entered.
pub fn inside<T: Send>(network: &Path, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(network)?;
            Ok(work())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn enter(network: &Path) -> anyhow::Result<()> {
    let file = File::open(network).with_context(|| network.display().to_string())?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| network.display().to_string())
}

fn any(family: IpAddr) -> SocketAddr {
    match family {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// What a flow brought about.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived, each counted once.
    pub received: u64,
    /// Longest time without one.
    pub longest_gap: Duration,
}

impl Report {
    /// Datagrams that did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// Datagrams at a steady pace from one namespace to another, until somebody stops them.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    arrivals: Arc<Mutex<Vec<(u64, Instant)>>>,
    sender: JoinHandle<anyhow::Result<()>>,
    receiver: JoinHandle<anyhow::Result<()>>,
}

impl Flow {
    /// Starts a receiver on `port` of `address` inside `to`, and a sender inside `from`.
    ///
    /// # Errors
    /// When the receiver cannot listen.
    pub fn start(
        from: &Path,
        to: &Path,
        address: IpAddr,
        port: u16,
        pace: Duration,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sent, arrivals) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let socket = inside(to, || UdpSocket::bind((address, port)))??;
        socket.set_read_timeout(Some(TICK))?;
        let receiver = std::thread::spawn({
            let (stop, arrivals) = (Arc::clone(&stop), Arc::clone(&arrivals));
            move || receive(&socket, &stop, &arrivals)
        });
        let sender = std::thread::spawn({
            let (stop, sent, from) = (Arc::clone(&stop), Arc::clone(&sent), from.to_owned());
            move || send(&from, SocketAddr::from((address, port)), pace, &stop, &sent)
        });
        Ok(Self { stop, sent, arrivals, sender, receiver })
    }

    /// Datagrams sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// When the first datagram arrived after `since`.
    #[must_use]
    pub fn first_after(&self, since: Instant) -> Option<Instant> {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = arrivals.partition_point(|(_, at)| *at <= since);
        arrivals.get(begin).map(|(_, at)| *at)
    }

    /// When the last datagram so far arrived.
    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.last().map(|(_, at)| *at)
    }

    /// Waits until a datagram arrives that was not there at `since`, and returns when it did.
    ///
    /// # Errors
    /// When none arrives within `limit`.
    pub fn wait_first_after(&self, since: Instant, limit: Duration) -> anyhow::Result<Instant> {
        let began = Instant::now();
        loop {
            if let Some(at) = self.first_after(since) {
                return Ok(at);
            }
            if began.elapsed() > limit {
                bail!("no datagram within {limit:?}");
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until no datagram arrived for `quiet`, and returns when the last one did.
    ///
    /// # Errors
    /// When they do not cease within `limit`.
    pub fn wait_silence(
        &self,
        quiet: Duration,
        limit: Duration,
    ) -> anyhow::Result<Option<Instant>> {
        let began = Instant::now();
        loop {
            let last = self.last();
            let silent = last.map_or(began.elapsed(), |last| last.elapsed().min(began.elapsed()));
            if silent > quiet {
                return Ok(last);
            }
            if began.elapsed() > limit {
                bail!("datagrams still arrive after {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops it, waits for late datagrams, and counts.
    ///
    /// # Errors
    /// When an end failed.
    pub fn finish(self) -> anyhow::Result<Report> {
        self.stop.store(true, Ordering::Release);
        for thread in [self.sender, self.receiver] {
            match thread.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut numbers: Vec<u64> = arrivals.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let gaps = arrivals.windows(2).filter_map(|pair| match pair {
            [(_, before), (_, after)] => Some(after.duration_since(*before)),
            _ => None,
        });
        Ok(Report {
            sent: self.sent.load(Ordering::Acquire),
            received: numbers.len().try_into()?,
            longest_gap: gaps.max().unwrap_or_default(),
        })
    }
}

fn send(
    from: &Path,
    to: SocketAddr,
    pace: Duration,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> anyhow::Result<()> {
    enter(from)?;
    let socket = UdpSocket::bind(any(to.ip()))?;
    socket.connect(to)?;
    let mut next = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let number = sent.fetch_add(1, Ordering::AcqRel);
        // What the kernel refuses to send is lost like what the network drops; an ICMP error of
        // an earlier one takes one attempt, so each is tried twice.
        if socket.send(&number.to_be_bytes()).is_err() {
            socket.send(&number.to_be_bytes()).ok();
        }
        next += pace;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn receive(
    socket: &UdpSocket,
    stop: &AtomicBool,
    arrivals: &Mutex<Vec<(u64, Instant)>>,
) -> anyhow::Result<()> {
    let mut buffer = [0; 8];
    let mut stopped: Option<Instant> = None;
    loop {
        match socket.recv(&mut buffer) {
            Ok(8) => {
                let at = Instant::now();
                let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
                arrivals.push((u64::from_be_bytes(buffer), at));
            }
            Ok(length) => bail!("a datagram of {length} bytes that nobody of us sent"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if stop.load(Ordering::Acquire) {
            let since = *stopped.get_or_insert_with(Instant::now);
            if since.elapsed() > LINGER {
                return Ok(());
            }
        }
    }
}

/// Whether a TCP connection from inside `from` is made within `limit`.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn connects(from: &Path, to: SocketAddr, limit: Duration) -> anyhow::Result<bool> {
    inside(from, || TcpStream::connect_timeout(&to, limit).is_ok())
}

/// Attempts to connect, one after another, until somebody stops them: new connections all the
/// time, to see whether any gets through that must not.
#[derive(Debug)]
pub struct Knocker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<(u64, u64)>>,
}

impl Knocker {
    /// Starts to knock on `to` from inside `from`; each attempt waits for at most `patience`.
    #[must_use]
    pub fn start(from: PathBuf, to: SocketAddr, patience: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            enter(&from)?;
            let (mut attempts, mut connected) = (0, 0);
            while !stopped.load(Ordering::Acquire) {
                attempts += 1;
                connected += u64::from(TcpStream::connect_timeout(&to, patience).is_ok());
            }
            Ok((attempts, connected))
        });
        Self { stop, thread }
    }

    /// Stops it and returns how many attempts there were and how many connected.
    ///
    /// # Errors
    /// When the namespace could not be entered.
    pub fn finish(self) -> anyhow::Result<(u64, u64)> {
        self.stop.store(true, Ordering::Release);
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

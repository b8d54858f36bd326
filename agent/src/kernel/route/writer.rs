//! The route thread: one loop over commands, kernel events, look-ups and writes.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token, Waker};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::{mpsc, watch};

use super::METRIC;
use super::events::Outbox;
use super::handle::{Command, Events, Routes};
use super::links::{LinkChange, Links};
use super::lookup::{interface_of, resolve};
use super::message::{self, Batch, Seen, TABLE};
use super::pods::Pods;
use super::socket::{Monitor, NetlinkError, Requests};
use super::tracker::{Action, Operation, Tracker};
use super::types::{OverlayLink, RouteChange, Summary};

const WAKE: Token = Token(0);
const KERNEL: Token = Token(1);
/// Requests in one system call. Measured: beyond this the rate does not grow.
const BATCH: usize = 256;
/// Batches of changes taken before the kernel gets its turn.
const COMMANDS_A_TURN: usize = 64;
/// Shortest time between two look-ups of all next hops, and between two reads of the whole table.
const CALM: Duration = Duration::from_millis(20);
/// Refused routes are tried again after this, doubled each time up to the limit.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LIMIT: Duration = Duration::from_secs(30);
/// After netlink itself failed.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);
/// How soon a full event channel is tried again.
const OUTBOX_PAUSE: Duration = Duration::from_millis(10);

/// Sizes of the channels.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Batches of changes that may wait.
    pub commands: usize,
    /// Events that may wait; beyond, they are merged.
    pub events: usize,
    /// Routes of ours that are there at start stay as they are until [`Routes::release`]: a
    /// restarted speaker learns its routes bit by bit, and each step would disturb forwarding
    /// (the idea of RFC 4724 §4.1, deferral of the selection).
    pub hold_adopted: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { commands: 256, events: 1024, hold_adopted: false }
    }
}

/// Starts the route thread in the network namespace of the calling thread.
///
/// # Errors
/// A socket could not be opened.
pub fn spawn(options: Options) -> Result<(Routes, Events, JoinHandle<()>), NetlinkError> {
    let requests = Requests::open()?;
    let monitor = Monitor::open(requests.port())?;
    let poll = Poll::new().map_err(NetlinkError::Open)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(NetlinkError::Open)?);
    let descriptor: RawFd = monitor.descriptor();
    poll.registry()
        .register(&mut SourceFd(&descriptor), KERNEL, Interest::READABLE)
        .map_err(NetlinkError::Open)?;
    let (command_sender, commands) = mpsc::channel(options.commands);
    let (event_sender, events) = mpsc::channel(options.events);
    let (summary_sender, summary) = watch::channel(Summary::default());
    let writer = Writer {
        poll,
        requests,
        monitor,
        commands,
        summary: summary_sender,
        outbox: Outbox::new(event_sender),
        outbox_waits: false,
        tracker: Tracker::default(),
        links: Links::default(),
        pods: Pods::default(),
        batch: Batch::default(),
        operations: Vec::with_capacity(BATCH),
        in_sync: false,
        overlay: None,
        hold_adopted: options.hold_adopted,
        batches: 0,
        settling: None,
        resync: Some(Resync { at: Instant::now(), blame: false }),
        resynced: None,
        looked_up: None,
        retry: None,
    };
    let thread = std::thread::Builder::new()
        .name("routes".to_owned())
        .spawn(move || writer.run())
        .map_err(NetlinkError::Open)?;
    Ok((Routes::new(command_sender, waker, summary), events, thread))
}

#[derive(Clone, Copy, Debug)]
struct Resync {
    at: Instant,
    /// Differences are somebody else's doing.
    blame: bool,
}

#[derive(Debug)]
struct Writer {
    poll: Poll,
    requests: Requests,
    monitor: Monitor,
    commands: mpsc::Receiver<Command>,
    summary: watch::Sender<Summary>,
    outbox: Outbox,
    outbox_waits: bool,
    tracker: Tracker,
    links: Links,
    pods: Pods,
    batch: Batch,
    operations: Vec<Operation>,
    in_sync: bool,
    hold_adopted: bool,
    batches: u64,
    /// When that happened whose routes are not all acknowledged yet.
    settling: Option<Instant>,
    overlay: Option<OverlayLink>,
    /// The table must be read before anything is written.
    resync: Option<Resync>,
    resynced: Option<Instant>,
    looked_up: Option<Instant>,
    /// When to try refused routes again, and how long to wait after that.
    retry: Option<(Instant, Duration)>,
}

impl Writer {
    fn run(mut self) {
        let mut ready = mio::Events::with_capacity(8);
        loop {
            let timeout = self.timeout(Instant::now());
            if let Err(error) = self.poll.poll(&mut ready, timeout)
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the route thread cannot wait for events and ends");
                return;
            }
            self.listen();
            if !self.take_commands() {
                return;
            }
            if let Err(error) = self.work(Instant::now()) {
                self.fail(&error);
            }
            if self.is_settled()
                && let Some(since) = self.settling.take()
            {
                self.outbox.settled(since.elapsed());
            }
            if let Some((prefix, count)) = self.tracker.take_drift() {
                self.outbox.drift(prefix, count);
            }
            if let Some(overridden) = self.tracker.take_overridden(&self.links) {
                self.outbox.overridden(overridden);
            }
            self.outbox_waits = !self.outbox.flush(&mut self.pods);
            self.publish();
        }
    }

    /// Nothing is left that could be written now.
    fn is_settled(&self) -> bool {
        let idle = self.tracker.summary().queued == 0 && !self.tracker.hops.has_fresh();
        self.resync.is_none() && idle
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let mut at = self.retry.map(|(at, _)| at);
        let mut earliest = |candidate: Instant| {
            at = Some(at.map_or(candidate, |at: Instant| at.min(candidate)));
        };
        if let Some(resync) = self.resync {
            earliest(resync.at);
        } else {
            if self.tracker.hops.has_fresh()
                || (self.in_sync && self.tracker.summary().queued > 0)
                || !self.commands.is_empty()
            {
                return Some(Duration::ZERO);
            }
            if self.tracker.hops.is_stale() {
                earliest(self.looked_up.map_or(now, |last| last + CALM));
            }
        }
        if self.outbox_waits {
            earliest(now + OUTBOX_PAUSE);
        }
        at.map(|at| at.saturating_duration_since(now))
    }

    /// Netlink failed: what the kernel holds is not known any more.
    fn fail(&mut self, error: &NetlinkError) {
        for (prefix, _) in std::mem::take(&mut self.operations) {
            self.tracker.retry(prefix);
        }
        tracing::warn!(%error, "route netlink failed; reading the table again");
        self.outbox.trouble(error.to_string());
        self.resync = Some(Resync { at: Instant::now() + TROUBLE_PAUSE, blame: false });
    }

    fn publish(&mut self) {
        let new =
            Summary { batches: self.batches, in_sync: self.in_sync, ..self.tracker.summary() };
        self.summary.send_if_modified(|old| std::mem::replace(old, new) != new);
    }

    /// `false` when nobody is left who could send.
    fn take_commands(&mut self) -> bool {
        for _ in 0..COMMANDS_A_TURN {
            match self.commands.try_recv() {
                Ok(Command::Change(changes, since)) => {
                    self.batches += 1;
                    if self.in_sync {
                        self.settling = Some(self.settling.map_or(since, |first| first.min(since)));
                    }
                    for RouteChange { prefix, target } in changes {
                        self.tracker.set(prefix.trunc(), target.as_ref());
                    }
                }
                Ok(Command::InSync) => self.in_sync = true,
                Ok(Command::Release) => {
                    self.hold_adopted = false;
                    self.tracker.release();
                }
                Ok(Command::Overlay(overlay)) => {
                    // Whoever sends this has made the interface: the kernel has told us by now.
                    self.listen();
                    self.overlay = overlay;
                    self.tracker.hops.touch_all();
                }
                Ok(Command::Watch(addresses)) => self.pods.watch(addresses),
                Ok(Command::Report(reply)) => {
                    // Who asked may have stopped waiting.
                    drop(reply.send(self.tracker.reports(&self.links)));
                }
                Err(mpsc::error::TryRecvError::Empty) => return true,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn work(&mut self, now: Instant) -> Result<(), NetlinkError> {
        if self.resync.is_some_and(|resync| resync.at <= now) {
            self.read_everything(now)?;
        }
        if self.resync.is_none() {
            self.look_up_hops(now)?;
            if self.retry.is_some_and(|(at, _)| at <= now) {
                self.retry_failed(now);
            }
            if self.in_sync {
                self.write_batch(now)?;
            }
        }
        while let Some(address) = self.pods.next_stale() {
            let link = interface_of(&mut self.requests, &self.links, address)?;
            self.pods.resolved(address, link);
        }
        Ok(())
    }

    fn read_everything(&mut self, now: Instant) -> Result<(), NetlinkError> {
        let blame = self.resync.is_some_and(|resync| resync.blame);
        self.links.clear();
        let links = RouteNetlinkMessage::GetLink(LinkMessage::default());
        for answer in self.requests.dump(&links)? {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                self.links.updated(&link);
            }
        }
        let mut table = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for answer in self.requests.dump(&message::dump(family))? {
                if let RouteNetlinkMessage::NewRoute(route) = answer {
                    table.extend(message::read(&route));
                }
            }
        }
        self.tracker.resync(table, blame);
        if self.hold_adopted {
            self.hold_adopted = false;
            self.tracker.hold();
        }
        self.tracker.hops.touch_all();
        self.looked_up = None;
        self.pods.touch_all();
        self.resync = None;
        self.resynced = Some(now);
        Ok(())
    }

    fn look_up_hops(&mut self, now: Instant) -> Result<(), NetlinkError> {
        let calm = self.looked_up.is_none_or(|last| now >= last + CALM);
        let all = self.tracker.hops.is_stale() && calm;
        if !all && !self.tracker.hops.has_fresh() {
            return Ok(());
        }
        if all {
            self.looked_up = Some(now);
        }
        let mut hops = std::mem::take(&mut self.tracker.hops);
        let (requests, links, overlay) = (&mut self.requests, &self.links, self.overlay.as_ref());
        let tracker = &self.tracker;
        let wanted: &dyn Fn(&Seen, IpAddr) -> bool =
            &|seen, hop| seen.ours && tracker.goes_through(&seen.prefix, hop);
        let changed =
            hops.resolve(all, |hop, old| resolve(requests, links, overlay, wanted, hop, old));
        self.tracker.hops = hops;
        self.tracker.groups_changed(&changed?);
        Ok(())
    }

    fn retry_failed(&mut self, now: Instant) {
        let Some((_, pause)) = self.retry.take() else { return };
        if self.tracker.retry_failed() {
            self.retry = Some((now + pause, (pause * 2).min(RETRY_LIMIT)));
        }
    }

    fn write_batch(&mut self, now: Instant) -> Result<(), NetlinkError> {
        self.batch.clear();
        self.operations.clear();
        let mut first = None;
        while self.operations.len() < BATCH
            && let Some((prefix, action)) = self.tracker.next()
        {
            let sequence = self.requests.next_sequence();
            first.get_or_insert(sequence);
            match &action {
                Action::Add(content) => self.batch.push(
                    sequence,
                    NLM_F_CREATE | NLM_F_EXCL,
                    message::new_route(&prefix, content),
                ),
                Action::Replace(content) => {
                    self.batch.push(sequence, NLM_F_REPLACE, message::new_route(&prefix, content))
                }
                Action::Delete(metric) => {
                    self.batch.push(sequence, 0, message::delete_route(&prefix, *metric));
                }
            }
            self.operations.push((prefix, action));
        }
        let Some(first) = first else { return Ok(()) };
        let mut errors = vec![None; self.operations.len()];
        self.requests.write(&mut self.batch, |sequence, errno| {
            let index = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
            if let Some(slot) = errors.get_mut(index) {
                *slot = Some(errno);
            }
        })?;
        for ((prefix, action), errno) in
            std::mem::take(&mut self.operations).into_iter().zip(errors)
        {
            self.pods.touch(&prefix);
            if let Some(errno) = errno
                && !matches!(action, Action::Delete(_))
            {
                self.outbox.refused(prefix, errno);
                self.retry.get_or_insert((now + RETRY_FIRST, RETRY_FIRST * 2));
            }
            self.tracker.complete((prefix, action), errno);
        }
        Ok(())
    }

    /// Reads what the kernel has to tell.
    fn listen(&mut self) {
        loop {
            let mut heard = Vec::new();
            match self.monitor.next(|flags, message| heard.push((flags, message))) {
                Ok(true) => {}
                Ok(false) => return,
                Err(NetlinkError::Overrun) => self.ask_resync(true),
                Err(error) => {
                    self.fail(&error);
                    return;
                }
            }
            for (flags, message) in heard {
                match message {
                    RouteNetlinkMessage::NewRoute(route) => self.route_event(flags, &route, true),
                    RouteNetlinkMessage::DelRoute(route) => self.route_event(flags, &route, false),
                    RouteNetlinkMessage::NewLink(link) => self.link_event(&link, true),
                    RouteNetlinkMessage::DelLink(link) => self.link_event(&link, false),
                    RouteNetlinkMessage::NewAddress(address)
                    | RouteNetlinkMessage::DelAddress(address) => self.address_event(&address),
                    _ => {}
                }
            }
        }
    }

    fn ask_resync(&mut self, blame: bool) {
        let now = Instant::now();
        let at = self.resynced.map_or(now, |last| now.max(last + CALM));
        let resync = self.resync.get_or_insert(Resync { at, blame });
        resync.blame &= blame;
    }

    fn route_event(&mut self, flags: u16, route: &RouteMessage, exists: bool) {
        let Some(seen) = message::read(route) else { return };
        if seen.table != TABLE {
            return;
        }
        self.tracker.hops.touch(&seen.prefix);
        self.pods.touch(&seen.prefix);
        if seen.metric != METRIC {
            if seen.ours {
                self.ask_resync(true);
            } else if exists {
                self.tracker.rival_appeared(seen, flags & NLM_F_REPLACE != 0);
            } else if !self.tracker.rival_vanished(seen) {
                self.ask_resync(false);
            }
            return;
        }
        let v4 = seen.prefix.addr().is_ipv4();
        if !seen.ours {
            self.tracker.contest(seen.prefix, exists);
            if exists && flags & NLM_F_REPLACE != 0 {
                self.tracker.observe(seen.prefix, None);
            }
        } else if v4 && flags & netlink_packet_core::NLM_F_APPEND == 0 {
            self.tracker.observe(seen.prefix, exists.then_some(seen.content));
        } else {
            // IPv6 tells of single next hops that join or leave a route: the whole must be read.
            self.ask_resync(true);
        }
    }

    fn link_event(&mut self, link: &LinkMessage, exists: bool) {
        if link.header.interface_family != AddressFamily::Unspec {
            return; // a bridge port, not the interface itself
        }
        let change = if exists { self.links.updated(link) } else { self.links.removed(link) };
        match change {
            LinkChange::None => {}
            LinkChange::Usable(index) => {
                self.tracker.hops.touch_all();
                self.pods.touch_interface(index);
            }
            LinkChange::Unusable(index) => {
                self.pods.touch_interface(index);
                if self.tracker.uses_interface(index) {
                    self.tracker.hops.touch_all();
                    self.ask_resync(false);
                }
            }
        }
    }

    fn address_event(&mut self, message: &AddressMessage) {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        if let Some(address) = address
            && let Ok(net) = ipnet::IpNet::new(address, message.header.prefix_len)
        {
            self.tracker.hops.touch(&net.trunc());
            self.pods.touch(&net.trunc());
        }
    }
}

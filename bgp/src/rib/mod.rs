//! The routing information bases: what peers told us, what we chose, what we tell them.
//!
//! - One table per family holds each prefix with the paths of all peers (Adj-RIB-In and Loc-RIB in
//!   one); attributes are interned.
//! - [`decision`] chooses, with reasons.
//! - Update groups hold what is sent (Adj-RIB-Out), encoded once for all their members.
//!
//! Changes are collected and take effect in [`Rib::flush`]; nothing here waits for more.
//!
//! ## Index
//! A hash index into a slab of prefixes, not a prefix trie: nothing here asks for the longest
//! match, and views sort when somebody looks. Measured with a million random IPv4 prefixes, one
//! thread: insert 82 ns against 222 ns for `prefix-trie` 0.10, exact lookup 24 ns against 140 ns,
//! at about the same memory (20 octets a prefix with its key, against 27). With everything (index,
//! slab, interned attributes at ten prefixes a set, Adj-RIB-Out of one group) the bench `in_out`
//! sees 66 octets a prefix.

mod adj_out;
mod attributes;
pub mod decision;
mod export;
mod fib;
mod group;
mod import;
mod key;
mod laggard;
mod log;
mod membership;
mod next_hops;
mod parity;
mod path;
mod peer;
mod resync;
mod slots;
mod stale;
mod table;
mod views;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use ipnet::IpNet;

use self::attributes::{AttributeId, AttributeStore};
use self::group::{Decided, Group, LogLimit};
use self::key::{Key, V4, V6};
use self::next_hops::{NextHops, NextHopsId};
use self::path::Path;
use self::peer::Peer;
use self::resync::{Resync, Source, Stream};
use self::slots::Slot;
use self::table::Table;
use crate::types::{Asn, Family};

pub use decision::{Candidate, Decision, Ineligible, LostBy, Verdict, decide};
pub use export::GroupKey;
pub use fib::FibChange;
pub use parity::Coverage;
pub use path::PeerIndex;
pub use peer::{PeerCounts, Session};
pub use resync::Handed;
pub use views::{PathEntry, PrefixEntry};

/// Who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Our CLUSTER_ID.
    pub cluster_id: Ipv4Addr,
}

/// A peer holds more prefixes than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} prefixes")]
pub struct PrefixLimitExceeded {
    /// The limit.
    pub limit: u32,
}

/// The RIBs of a speaker.
#[derive(Debug)]
pub struct Rib {
    identity: Identity,
    store: AttributeStore,
    v4: Table<V4>,
    v6: Table<V6>,
    /// By [`PeerIndex`]; the first is always empty, it stands for ourselves.
    peers: Vec<Option<Peer>>,
    groups: Vec<Option<Group>>,
    next_serial: u64,
    next_hops: NextHops,
    /// Forwarding changes that nobody has fetched.
    fib: VecDeque<(IpNet, NextHopsId)>,
    /// Nobody forwards: no forwarding changes are made.
    without_fib: bool,
    /// Peers with bytes to send that nobody was told about.
    ready: VecDeque<PeerIndex>,
    /// Our own addresses, sorted: no valid next hop is among them.
    own_addresses: Vec<IpAddr>,
    log_limit: LogLimit,
    /// Nobody is told that it has heard everything.
    end_of_rib_held: bool,
    /// Seconds of the speaker's clock.
    clock: u32,
}

/// Prefixes decided and passed to the groups at a time: bounds what a flush allocates.
const BATCH: usize = 32 * 1024;

impl Rib {
    /// Empty.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            store: AttributeStore::new(),
            v4: Table::new(),
            v6: Table::new(),
            peers: vec![None],
            groups: Vec::new(),
            next_serial: 1,
            next_hops: NextHops::new(),
            fib: VecDeque::new(),
            without_fib: false,
            ready: VecDeque::new(),
            own_addresses: Vec::new(),
            log_limit: LogLimit::default(),
            end_of_rib_held: false,
            clock: 0,
        }
    }

    /// Nobody forwards what is learnt here: [`Rib::poll_fib`] stays empty. An own address is a next
    /// hop as good as any: that of the machine the reflector shares with a client.
    pub fn disable_fib(&mut self) {
        self.without_fib = true;
    }

    /// Bounds the octets that a group's log may hold for slow readers, and nothing else: a reader
    /// beyond it is served from the Adj-RIB-Out.
    pub fn limit_log(&mut self, bytes: usize) {
        self.log_limit = LogLimit { base: bytes, per_slot: 0 };
    }

    /// Sets the clock that ages of paths are taken from, in seconds.
    pub fn set_clock(&mut self, seconds: u32) {
        self.clock = seconds;
    }

    /// Sets our own addresses: paths with such a next hop are not eligible from now on.
    pub fn set_own_addresses(&mut self, mut addresses: Vec<IpAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        self.own_addresses = addresses;
    }

    /// Adds to our own addresses.
    pub fn add_own_address(&mut self, address: IpAddr) {
        if let Err(at) = self.own_addresses.binary_search(&address) {
            self.own_addresses.insert(at, address);
        }
    }

    /// Changes who we are. Only while no session is up: what was learnt and sent depends on it.
    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// Replaces the set of own prefixes.
    pub fn originate(&mut self, prefixes: &[IpNet]) {
        let mut wanted: Vec<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let held: Vec<IpNet> = self.own_prefixes().collect();
        for prefix in held.iter().filter(|prefix| wanted.binary_search(prefix).is_err()) {
            self.withdraw(PeerIndex::LOCAL, *prefix);
        }
        for prefix in wanted {
            self.store.hold(AttributeId::OWN);
            let path = Path {
                attributes: AttributeId::OWN,
                since: self.clock,
                peer: PeerIndex::LOCAL,
                ineligible: None,
            };
            self.announce(prefix, path);
        }
    }

    fn own_prefixes(&self) -> impl Iterator<Item = IpNet> {
        fn of<K: Key>(table: &Table<K>) -> impl Iterator<Item = IpNet> {
            table.iter().filter_map(|(_, net)| {
                let own = |path: &Path| path.peer == PeerIndex::LOCAL;
                net.paths.as_slice().iter().any(own).then(|| net.key.prefix())
            })
        }
        of(&self.v4).chain(of(&self.v6))
    }

    /// The peer asked for everything of a family again (RFC 2918).
    pub fn refresh(&mut self, peer: PeerIndex, family: Family) {
        let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) else { return };
        if !entry.session.families.contains(family) {
            return;
        }
        let enhanced = entry.session.enhanced_refresh;
        if let Stream::Log(position) = entry.stream
            && let Some(group) = self.groups.get_mut(entry.group).and_then(Option::as_mut)
        {
            entry.stream = Stream::Resync(Resync::behind(group.log.known(position)));
            group.log.leave(position);
        }
        if let Stream::Resync(resync) = &mut entry.stream {
            resync.refresh(family, enhanced);
        }
        self.announce_ready(peer);
    }

    /// Is there anything that [`Rib::flush`] would do?
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.v4.is_dirty() || self.v6.is_dirty()
    }

    /// Decides about everything that changed, and packs it into UPDATEs for every update group.
    pub fn flush(&mut self) {
        for index in 0..self.groups.len() {
            let group = self.groups.get(index).and_then(Option::as_ref);
            if group.is_some_and(Group::is_worn_out) {
                self.renumber(index);
            }
        }
        self.flush_table(|rib| &mut rib.v4);
        self.flush_table(|rib| &mut rib.v6);
        for index in 0..self.groups.len() {
            self.shed(index);
            self.wake(index);
        }
        self.store.collect();
        self.free_slots();
    }

    /// The generations of a group start again at 1. Members off its log are sent some of what they
    /// know already; nobody misses anything.
    fn renumber(&mut self, index: usize) {
        let Some(group) = self.groups.get_mut(index).and_then(Option::as_mut) else { return };
        group.renumber();
        for peer in &group.members {
            if let Some(Some(Peer { stream: Stream::Resync(resync), .. })) =
                self.peers.get_mut(peer.index())
            {
                resync.renumber();
            }
        }
    }

    fn flush_table<K: Key>(&mut self, table: impl Fn(&mut Self) -> &mut Table<K>) {
        let dirty = table(self).take_dirty();
        for slots in dirty.chunks(BATCH) {
            // The table leaves the RIB for the time of a batch, so that the rest can be used.
            let mut batch = std::mem::replace(table(self), Table::hollow());
            let decided: Vec<Decided> =
                slots.iter().map(|slot| self.settle(&mut batch, *slot)).collect();
            for group in self.groups.iter_mut().flatten() {
                group.apply(&self.identity, &self.store, &batch, &decided);
            }
            for slot in slots {
                batch.linger(*slot);
            }
            *table(self) = batch;
        }
        table(self).reuse_dirty(dirty);
    }

    /// Runs the decision process for one prefix, and tells the kernel's side.
    fn settle<K: Key>(&mut self, table: &mut Table<K>, slot: Slot) -> Decided {
        let Some(net) = table.net(slot) else { return Decided { slot, best: None } };
        let chosen = self.choose(net.paths.as_slice());
        let best = chosen.as_ref().map(|chosen| chosen.best);
        let was = net.fib;
        let fib = match &chosen {
            _ if self.without_fib => NextHopsId::NONE,
            None => NextHopsId::NONE,
            Some(chosen) => self.next_hops_of(chosen),
        };
        if fib == was {
            self.next_hops.release(fib);
        } else {
            self.fib.push_back((net.key.prefix(), fib));
            self.next_hops.hold(fib);
            self.next_hops.release(was);
        }
        table.settle(slot, fib, best.is_some());
        let session = |path: &Path| self.peer(path.peer).map_or(0, |peer| peer.serial);
        Decided { slot, best: best.map(|path| (path.attributes, session(&path))) }
    }

    /// Members that had nothing to send, and now have.
    fn wake(&mut self, index: usize) {
        let Some(group) = self.groups.get_mut(index).and_then(Option::as_mut) else { return };
        if !std::mem::take(&mut group.news) {
            return;
        }
        for peer in std::mem::take(&mut group.idle) {
            if let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) {
                entry.announced = true;
                self.ready.push_back(peer);
            }
        }
    }

    fn announce_ready(&mut self, peer: PeerIndex) {
        let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) else { return };
        if !entry.announced {
            entry.announced = true;
            self.ready.push_back(peer);
            if let Some(group) = self.groups.get_mut(entry.group).and_then(Option::as_mut) {
                group.idle.retain(|idle| *idle != peer);
            }
        }
    }

    /// The next peer that has bytes to send since it last had none.
    pub fn poll_ready(&mut self) -> Option<PeerIndex> {
        loop {
            let peer = self.ready.pop_front()?;
            if self.peer(peer).is_some() {
                return Some(peer);
            }
        }
    }

    /// Appends chunks for `peer` to `out`, about `max_bytes`, at least one if there is any. What is
    /// handed out counts as sent.
    pub fn transmit(&mut self, peer: PeerIndex, out: &mut Vec<Bytes>, max_bytes: usize) -> Handed {
        let entry = self.peers.get_mut(peer.index()).and_then(Option::as_mut);
        let Some(entry) = entry else { return Handed::default() };
        let group = self.groups.get_mut(entry.group).and_then(Option::as_mut);
        let Some(group) = group else { return Handed::default() };
        let source =
            Source { identity: &self.identity, store: &self.store, v4: &self.v4, v6: &self.v6 };
        let handed =
            resync::transmit(group, source, &mut entry.stream, entry.serial, out, max_bytes);
        if !handed.more && entry.announced {
            entry.announced = false;
            group.idle.push(peer);
        }
        handed
    }

    fn peer(&self, peer: PeerIndex) -> Option<&Peer> {
        self.peers.get(peer.index()).and_then(Option::as_ref)
    }

    fn established(&self) -> impl Iterator<Item = (PeerIndex, &Peer)> {
        let peers = (0..).map(PeerIndex).zip(&self.peers);
        let peers = peers.filter_map(|(index, peer)| Some((index, peer.as_ref()?)));
        peers.filter(|(_, peer)| peer.group != membership::NO_GROUP)
    }
}

#[cfg(test)]
mod tests;

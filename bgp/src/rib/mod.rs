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
//! A hash index into a slab, not a prefix trie: nothing here asks for the longest match, and views
//! sort when somebody looks. Measured with `benches/rib.rs`; see `INDEX` there.

mod adj_out;
mod attributes;
pub mod decision;
mod export;
mod fib;
mod group;
mod import;
mod key;
mod log;
mod next_hops;
mod path;
mod peer;
mod resync;
mod slots;
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
    /// Seconds of the speaker's clock.
    clock: u32,
}

/// Prefixes decided and passed to the groups at a time: bounds what a flush allocates.
const BATCH: usize = 32 * 1024;

/// Withdrawn prefixes that may wait for peers that do not read, beside as many as there are live
/// ones.
const MAX_LINGERING: usize = 64 * 1024;

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
            clock: 0,
        }
    }

    /// Nobody forwards what is learnt here: [`Rib::poll_fib`] stays empty.
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

    /// A session is established; its paths will come, and it is to be sent ours.
    ///
    /// `None` if there are 65534 already.
    pub fn peer_up(&mut self, session: Session, key: GroupKey) -> Option<PeerIndex> {
        let vacant = self.peers.iter().skip(1).position(Option::is_none).map(|i| i + 1);
        let index = vacant.unwrap_or(self.peers.len());
        let peer = PeerIndex(u16::try_from(index).ok()?);
        let stream = Stream::Resync(Resync::joining(session.families));
        let group = self.join_group(peer, key);
        let entry = Some(Peer::new(session, self.next_serial, group, stream));
        self.next_serial += 1;
        match self.peers.get_mut(index) {
            Some(place) => *place = entry,
            None => self.peers.push(entry),
        }
        self.announce_ready(peer);
        Some(peer)
    }

    /// The session is gone, and with it all that the peer told us.
    pub fn peer_down(&mut self, peer: PeerIndex) {
        let Some(gone) = self.peers.get_mut(peer.index()).and_then(Option::take) else { return };
        self.leave_group(peer, gone.group, &gone.stream);
        for slot in gone.held(Family::Ipv4).iter() {
            if let Some(path) = self.v4.withdraw_at(slot, peer) {
                self.store.release(path.attributes);
            }
        }
        for slot in gone.held(Family::Ipv6).iter() {
            if let Some(path) = self.v6.withdraw_at(slot, peer) {
                self.store.release(path.attributes);
            }
        }
    }

    /// The export settings of a live session changed: it gets what the new ones say, and
    /// withdrawals of what they do not say any more.
    pub fn regroup(&mut self, peer: PeerIndex, key: GroupKey) {
        let Some(old) = self.peer(peer).map(|p| p.group) else { return };
        if self.groups.get(old).and_then(Option::as_ref).is_some_and(|g| g.key == key) {
            return;
        }
        let new = self.join_group(peer, key);
        let mut moved = Vec::new();
        for family in Family::ALL {
            let Some(group) = self.groups.get(old).and_then(Option::as_ref) else { continue };
            let changed = group.adj_out(family).iter_from(Slot(0)).filter(|cell| cell.2 > 0);
            moved.extend(changed.map(|(slot, ..)| (family, slot)));
        }
        if let Some(group) = self.groups.get_mut(new).and_then(Option::as_mut) {
            group.mark(&moved);
        }
        let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) else { return };
        let end_of_rib = match &entry.stream {
            Stream::Log(_) => crate::types::Families::NONE,
            Stream::Resync(resync) => resync.end_of_rib(),
        };
        entry.group = new;
        let stream = Stream::Resync(Resync::moving(0, end_of_rib));
        let old_stream = std::mem::replace(&mut entry.stream, stream);
        self.leave_group(peer, old, &old_stream);
        self.announce_ready(peer);
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
        for group in self.groups.iter_mut().flatten() {
            if group.is_worn_out() {
                group.renumber();
                for peer in &group.members {
                    if let Some(Some(Peer { stream: Stream::Resync(resync), .. })) =
                        self.peers.get_mut(peer.index())
                    {
                        resync.renumber();
                    }
                }
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

    /// Readers that hold up too much of the log have to leave it.
    fn shed(&mut self, index: usize) {
        let slots = self.v4.slots() + self.v6.slots();
        let Some(group) = self.groups.get_mut(index).and_then(Option::as_mut) else { return };
        while let Some(oldest) = group.overdue(self.log_limit, slots) {
            let known = group.log.known(oldest);
            for member in &group.members {
                if let Some(peer) = self.peers.get_mut(member.index()).and_then(Option::as_mut)
                    && matches!(peer.stream, Stream::Log(position) if position == oldest)
                {
                    peer.stream = Stream::Resync(Resync::behind(known));
                    group.log.leave(oldest);
                }
            }
        }
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

    /// Gives slots of withdrawn prefixes back when every peer has been told.
    fn free_slots(&mut self) {
        if self.v4.lingering().is_none() && self.v6.lingering().is_none() {
            return;
        }
        let known: Vec<u32> =
            (0..self.groups.len()).map(|index| self.known_to_members(index)).collect();
        free(&mut self.v4, &mut self.groups, &known);
        free(&mut self.v6, &mut self.groups, &known);
    }

    /// Every member knows all changes of this generation and before.
    fn known_to_members(&self, index: usize) -> u32 {
        let Some(group) = self.groups.get(index).and_then(Option::as_ref) else { return u32::MAX };
        let resyncs = group.members.iter().filter_map(|member| match &self.peer(*member)?.stream {
            Stream::Resync(resync) => Some(resync.known()),
            Stream::Log(_) => None,
        });
        resyncs.min().unwrap_or(u32::MAX).min(group.log.known_to_all())
    }

    /// The peer to give up on, if withdrawn prefixes pile up because it does not read.
    #[must_use]
    pub fn hopeless(&self) -> Option<PeerIndex> {
        let lingering = self.v4.waiting() + self.v6.waiting();
        if lingering <= MAX_LINGERING + self.v4.reachable + self.v6.reachable {
            return None;
        }
        let off_the_log = self.established().filter_map(|(index, peer)| match &peer.stream {
            Stream::Resync(resync) => Some((resync.known(), index)),
            Stream::Log(_) => None,
        });
        off_the_log.min().map(|(_, index)| index)
    }

    fn join_group(&mut self, peer: PeerIndex, key: GroupKey) -> usize {
        let same = |group: &Option<Group>| group.as_ref().is_some_and(|group| group.key == key);
        let index = match self.groups.iter().position(same) {
            Some(index) => index,
            None => self.create_group(key),
        };
        if let Some(group) = self.groups.get_mut(index).and_then(Option::as_mut) {
            group.members.push(peer);
        }
        index
    }

    /// A new group, with the Adj-RIB-Out that follows from the last flush.
    fn create_group(&mut self, key: GroupKey) -> usize {
        if key.default_originate {
            // The default routes need slots even if nobody else has them.
            self.v4.pin(V4::DEFAULT);
            self.v6.pin(V6::DEFAULT);
        }
        let mut group = Group::new(key);
        self.fill(&mut group, &self.v4);
        self.fill(&mut group, &self.v6);
        let vacant = self.groups.iter().position(Option::is_none);
        let index = vacant.unwrap_or(self.groups.len());
        match self.groups.get_mut(index) {
            Some(place) => *place = Some(group),
            None => self.groups.push(Some(group)),
        }
        index
    }

    fn fill<K: Key>(&self, group: &mut Group, table: &Table<K>) {
        let mut nets = table.iter().peekable();
        while nets.peek().is_some() {
            let batch = nets.by_ref().take(BATCH);
            let decided: Vec<Decided> = batch
                .map(|(slot, net)| {
                    let best = self.choose(net.paths.as_slice()).map(|chosen| chosen.best);
                    let session = |peer| self.peer(peer).map_or(0, |peer| peer.serial);
                    Decided { slot, best: best.map(|path| (path.attributes, session(path.peer))) }
                })
                .collect();
            group.apply(&self.identity, &self.store, table, &decided);
        }
    }

    fn leave_group(&mut self, peer: PeerIndex, index: usize, stream: &Stream) {
        let Some(place) = self.groups.get_mut(index) else { return };
        let Some(group) = place else { return };
        if let Stream::Log(position) = stream {
            group.log.leave(*position);
        }
        group.members.retain(|member| *member != peer);
        group.idle.retain(|member| *member != peer);
        if group.members.is_empty() {
            *place = None;
        }
    }

    fn peer(&self, peer: PeerIndex) -> Option<&Peer> {
        self.peers.get(peer.index()).and_then(Option::as_ref)
    }

    fn established(&self) -> impl Iterator<Item = (PeerIndex, &Peer)> {
        (0..).map(PeerIndex).zip(&self.peers).filter_map(|(i, peer)| Some((i, peer.as_ref()?)))
    }
}

/// Frees lingering slots from the oldest on, as far as all members of all groups know.
fn free<K: Key>(table: &mut Table<K>, groups: &mut [Option<Group>], known: &[u32]) {
    while let Some(slot) = table.lingering() {
        let told = groups.iter().zip(known).all(|(group, known)| {
            let changed = group.as_ref().map_or(0, |g| g.adj_out(K::FAMILY).changed(slot));
            changed <= *known
        });
        if table.is_empty_at(slot) && !told {
            return;
        }
        if table.free_lingering() {
            for group in groups.iter_mut().flatten() {
                group.adj_out_mut(K::FAMILY).forget(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests;

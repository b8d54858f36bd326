//! Bringing one member up to date from the Adj-RIB-Out: after it joined, when it has fallen behind
//! the log, and when it asked for a refresh.
//!
//! A member off the log has no queue and no bitmap, only the generation up to which it knows
//! everything. It is sent, as its socket takes bytes, what changed after that generation: in passes
//! over the Adj-RIB-Out, until one pass begins and ends without a change in between; then it
//! continues on the log. What changed twice meanwhile is sent once.

use bytes::Bytes;

use super::Identity;
use super::adj_out::Sent;
use super::attributes::{AttributeId, AttributeStore};
use super::group::{Group, RUN, encode_run, encode_withdrawals, runs};
use super::key::{Key, V4, V6};
use super::log::{Position, count_messages};
use super::slots::Slot;
use super::table::Table;
use crate::types::{Families, Family};
use crate::wire::{encode, refresh};

/// Where a member stands in the stream of its group.
#[derive(Debug)]
pub(crate) enum Stream {
    /// On the log.
    Log(Position),
    /// Off the log.
    Resync(Resync),
}

/// State of a member off the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resync {
    /// It knows every change of this generation and before.
    known: u32,
    /// What it will know after the current pass.
    next: u32,
    /// Nothing was ever sent to it: in this pass there is nothing to withdraw.
    fresh: bool,
    /// Families of which everything is sent in this pass, changed or not.
    everything: Families,
    /// Families whose complete state is followed by an End-of-RIB (RFC 4724 §2).
    end_of_rib: Families,
    /// Families whose complete state is framed by BoRR and EoRR (RFC 7313 §4).
    framed: Families,
    /// The same, asked for during the current pass: one more pass after it, however often.
    again: Families,
    again_framed: Families,
    /// Families that an End-of-RIB has come due for during the current pass, or before the first:
    /// it follows the next one.
    again_end: Families,
    /// Where the pass is; `None` between passes.
    at: Option<(Family, Slot)>,
}

impl Resync {
    /// Of a member that just came up.
    pub(crate) const fn joining(families: Families) -> Self {
        Self {
            known: 0,
            next: 0,
            fresh: true,
            everything: Families::NONE,
            end_of_rib: families,
            framed: Families::NONE,
            again: Families::NONE,
            again_framed: Families::NONE,
            again_end: Families::NONE,
            at: None,
        }
    }

    /// Of a member that knows all changes up to `known`.
    pub(crate) const fn behind(known: u32) -> Self {
        Self {
            known,
            next: 0,
            fresh: false,
            everything: Families::NONE,
            end_of_rib: Families::NONE,
            framed: Families::NONE,
            again: Families::NONE,
            again_framed: Families::NONE,
            again_end: Families::NONE,
            at: None,
        }
    }

    /// Additionally everything of `family`.
    pub(crate) const fn refresh(&mut self, family: Family, enhanced: bool) {
        self.again.insert(family);
        if enhanced {
            self.again_framed.insert(family);
        }
    }

    /// Of a member that was in another group, whose changes up to `known` it knows and which
    /// are marked as changes here.
    pub(crate) const fn moving(known: u32, end_of_rib: Families) -> Self {
        Self { end_of_rib, ..Self::behind(known) }
    }

    /// End-of-RIB markers that it still has to get.
    pub(crate) fn end_of_rib(&self) -> Families {
        self.end_of_rib.union(self.again_end)
    }

    /// Additionally an End-of-RIB for each of `families`, after all that is known now.
    pub(crate) fn owe(&mut self, families: Families) {
        self.again_end = self.again_end.union(families);
    }

    fn begin(&mut self, next: u32) {
        self.next = next;
        self.end_of_rib = self.end_of_rib();
        self.everything = self.again;
        self.framed = self.again_framed;
        self.again = Families::NONE;
        self.again_framed = Families::NONE;
        self.again_end = Families::NONE;
    }

    const fn finish(&mut self) {
        *self = Self {
            again: self.again,
            again_framed: self.again_framed,
            again_end: self.again_end,
            ..Self::behind(self.next)
        };
    }

    fn is_asked_again(&self) -> bool {
        self.again != Families::NONE || self.again_end != Families::NONE
    }

    /// Every change after this generation may still have to be sent.
    pub(crate) const fn known(&self) -> u32 {
        self.known
    }

    /// Generations start again: nothing is known any more.
    pub(crate) const fn renumber(&mut self) {
        self.known = 0;
        self.next = 0;
    }
}

/// What was handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// Octets.
    pub bytes: usize,
    /// UPDATEs and End-of-RIB markers.
    pub updates: u64,
    /// BoRR and EoRR.
    pub route_refreshes: u64,
    /// There is more.
    pub more: bool,
}

/// What a resync reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) store: &'a AttributeStore,
    pub(crate) v4: &'a Table<V4>,
    pub(crate) v6: &'a Table<V6>,
}

/// One call of a socket that takes bytes.
struct Drain<'a> {
    group: &'a mut Group,
    source: Source<'a>,
    out: &'a mut Vec<Bytes>,
    max_bytes: usize,
    handed: Handed,
}

/// Hands out chunks to the member at `stream`, up to about `max_bytes`, at least one if there is
/// any.
pub(crate) fn transmit(
    group: &mut Group,
    source: Source<'_>,
    stream: &mut Stream,
    session: u64,
    out: &mut Vec<Bytes>,
    max_bytes: usize,
) -> Handed {
    let mut drain = Drain { group, source, out, max_bytes, handed: Handed::default() };
    if let Stream::Resync(resync) = stream
        && drain.resync(resync)
    {
        *stream = Stream::Log(drain.group.log.join());
    }
    match stream {
        Stream::Resync(_) => drain.handed.more = true,
        Stream::Log(position) => drain.log(position, session),
    }
    drain.handed
}

impl Drain<'_> {
    fn is_full(&self) -> bool {
        self.handed.bytes >= self.max_bytes
    }

    fn log(&mut self, position: &mut Position, session: u64) {
        while !self.is_full() {
            let Some((bytes, messages)) = self.group.log.next(position, session) else { return };
            self.handed.bytes += bytes.len();
            self.handed.updates += messages;
            self.out.push(bytes);
        }
        self.handed.more = !self.group.log.at_end(*position);
    }

    /// True when the member knows everything.
    fn resync(&mut self, resync: &mut Resync) -> bool {
        loop {
            let (family, slot) = match resync.at {
                Some(at) => at,
                None => {
                    resync.begin(self.group.log.advance());
                    self.frame(resync, Family::Ipv4, refresh::RefreshKind::Begin);
                    (Family::Ipv4, Slot(0))
                }
            };
            let rest = match family {
                Family::Ipv4 => self.pass(resync, self.source.v4, slot),
                Family::Ipv6 => self.pass(resync, self.source.v6, slot),
            };
            if let Some(slot) = rest {
                resync.at = Some((family, slot));
                return false;
            }
            self.end(resync, family);
            if family == Family::Ipv4 {
                self.frame(resync, Family::Ipv6, refresh::RefreshKind::Begin);
                resync.at = Some((Family::Ipv6, Slot(0)));
            } else {
                resync.finish();
                if !resync.is_asked_again() && self.group.changed() <= resync.known {
                    return true;
                }
            }
            if self.is_full() {
                return false;
            }
        }
    }

    /// One pass over a family from `slot` on; where to go on, if it did not get to the end.
    fn pass<K: Key>(&mut self, resync: &Resync, table: &Table<K>, slot: Slot) -> Option<Slot> {
        let mut first = slot;
        // A batch of prefixes that does not overshoot a small budget by far.
        let most = (self.max_bytes / 16).clamp(1, RUN);
        loop {
            let (announced, withdrawn, rest) = self.batch::<K>(resync, first, most);
            self.encode(table, announced, &withdrawn);
            first = rest?;
            if self.is_full() {
                return Some(first);
            }
        }
    }

    /// The next prefixes to be sent, and where to go on if there may be more.
    fn batch<K: Key>(
        &self,
        resync: &Resync,
        first: Slot,
        most: usize,
    ) -> (Vec<(AttributeId, Slot)>, Vec<Slot>, Option<Slot>) {
        let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
        let everything = resync.everything.contains(K::FAMILY);
        for (slot, sent, changed) in self.group.adj_out(K::FAMILY).iter_from(first) {
            let news = changed > resync.known;
            if !news && !everything {
                continue;
            }
            if announced.len() + withdrawn.len() >= most {
                return (announced, withdrawn, Some(slot));
            }
            match sent {
                Sent::With(id) => announced.push((id, slot)),
                Sent::Nothing | Sent::NoNextHop | Sent::TooBig if news && !resync.fresh => {
                    withdrawn.push(slot);
                }
                Sent::Nothing | Sent::NoNextHop | Sent::TooBig => {}
            }
        }
        (announced, withdrawn, None)
    }

    fn encode<K: Key>(
        &mut self,
        table: &Table<K>,
        mut announced: Vec<(AttributeId, Slot)>,
        withdrawn: &[Slot],
    ) {
        announced.sort_unstable();
        let mut buffer = Vec::new();
        let key = &self.group.key;
        for run in runs(&announced) {
            encode_run(&mut buffer, key, self.source.identity, self.source.store, table, run);
        }
        encode_withdrawals(&mut buffer, &key.context, table, withdrawn);
        self.handed.updates += count_messages(&buffer);
        self.hand(buffer);
    }

    /// The complete state of a family has been sent.
    fn end(&mut self, resync: &mut Resync, family: Family) {
        if resync.end_of_rib.contains(family) {
            let mut buffer = Vec::new();
            encode::end_of_rib(family, &mut buffer);
            self.handed.updates += 1;
            self.hand(buffer);
            match family {
                Family::Ipv4 => resync.end_of_rib.ipv4 = false,
                Family::Ipv6 => resync.end_of_rib.ipv6 = false,
            }
        }
        self.frame(resync, family, refresh::RefreshKind::End);
    }

    fn frame(&mut self, resync: &Resync, family: Family, kind: refresh::RefreshKind) {
        if resync.framed.contains(family) {
            let mut buffer = Vec::new();
            let message = refresh::RouteRefresh::new(family, kind);
            encode::route_refresh(&message, &mut buffer);
            self.handed.route_refreshes += 1;
            self.hand(buffer);
        }
    }

    fn hand(&mut self, buffer: Vec<u8>) {
        if !buffer.is_empty() {
            self.handed.bytes += buffer.len();
            self.out.push(Bytes::from(buffer));
        }
    }
}

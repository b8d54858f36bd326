//! An update group: peers that are sent the same bytes, encoded once.

use super::Identity;
use super::adj_out::{AdjRibOut, Sent};
use super::attributes::{AttributeId, AttributeStore};
use super::export::{Export, GroupKey};
use super::key::Key;
use super::log::{Cause, Log, Position};
use super::path::PeerIndex;
use super::slots::Slot;
use super::table::Table;
use crate::types::Family;
use crate::wire::encode::UpdateWriter;

/// The outcome of the decision process for a changed prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decided {
    pub(crate) slot: Slot,
    /// Attributes of the best path, and the session it came from.
    pub(crate) best: Option<(AttributeId, u64)>,
}

/// Octets that the log may hold before the slowest readers have to leave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLimit {
    /// In any case.
    pub(crate) base: usize,
    /// For each slot: one full table must not make everybody late.
    pub(crate) per_slot: usize,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self { base: 4 * 1024 * 1024, per_slot: 8 }
    }
}

/// An update group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) key: GroupKey,
    pub(crate) log: Log,
    v4: AdjRibOut,
    v6: AdjRibOut,
    pub(crate) members: Vec<PeerIndex>,
    /// Members at the end of the log that nobody was told about since.
    pub(crate) idle: Vec<PeerIndex>,
    /// Generation of the last change of the Adj-RIB-Out.
    changed: u32,
    /// It changed since idle members were last told.
    pub(crate) news: bool,
}

/// What changes for the members, sorted into what goes together.
#[derive(Debug, Default)]
struct Changes {
    /// With the same attributes side by side.
    announced: Vec<(AttributeId, Slot)>,
    withdrawn: Vec<Slot>,
    cause: Cause,
}

/// Prefixes handed to one writer: bounds the size of a chunk, whatever the number of prefixes.
pub(crate) const RUN: usize = 4096;

impl Group {
    pub(crate) fn new(key: GroupKey) -> Self {
        Self {
            key,
            log: Log::new(),
            v4: AdjRibOut::default(),
            v6: AdjRibOut::default(),
            members: Vec::new(),
            idle: Vec::new(),
            changed: 0,
            news: false,
        }
    }

    pub(crate) const fn adj_out(&self, family: Family) -> &AdjRibOut {
        match family {
            Family::Ipv4 => &self.v4,
            Family::Ipv6 => &self.v6,
        }
    }

    pub(crate) const fn adj_out_mut(&mut self, family: Family) -> &mut AdjRibOut {
        match family {
            Family::Ipv4 => &mut self.v4,
            Family::Ipv6 => &mut self.v6,
        }
    }

    /// Generation of the last change.
    pub(crate) const fn changed(&self) -> u32 {
        self.changed
    }

    /// Takes over decisions: the Adj-RIB-Out changes, and the log gets what the members need.
    pub(crate) fn apply<K: Key>(
        &mut self,
        identity: &Identity,
        store: &AttributeStore,
        table: &Table<K>,
        decided: &[Decided],
    ) {
        if !self.key.context.families.contains(K::FAMILY) {
            return;
        }
        let mut changes = self.changes(store, table, decided);
        changes.announced.sort_unstable();
        self.announce(identity, store, table, &mut changes);
        self.withdraw(table, &changes);
    }

    fn changes<K: Key>(
        &mut self,
        store: &AttributeStore,
        table: &Table<K>,
        decided: &[Decided],
    ) -> Changes {
        let generation = self.log.generation();
        let mut changes = Changes::default();
        for Decided { slot, best } in decided {
            let old = self.adj_out(K::FAMILY).get(*slot);
            let new = match self.export(store, table, *slot, *best) {
                Export::Withhold => Sent::Nothing,
                Export::NoNextHop => Sent::NoNextHop,
                Export::Send(id) => Sent::With(id),
            };
            if old == new {
                continue;
            }
            self.changed = generation;
            self.news = true;
            self.adj_out_mut(K::FAMILY).set(*slot, new, generation);
            match new {
                Sent::With(id) => {
                    changes.announced.push((id, *slot));
                    let cause = match best {
                        Some((_, session)) if !old.is_route() => Cause::Session(*session),
                        _ => Cause::Mixed,
                    };
                    changes.cause = changes.cause.and(cause);
                }
                Sent::Nothing | Sent::NoNextHop | Sent::TooBig if old.is_route() => {
                    changes.withdrawn.push(*slot);
                    changes.cause = Cause::Mixed;
                }
                Sent::Nothing | Sent::NoNextHop | Sent::TooBig => {}
            }
        }
        changes
    }

    fn export<K: Key>(
        &self,
        store: &AttributeStore,
        table: &Table<K>,
        slot: Slot,
        best: Option<(AttributeId, u64)>,
    ) -> Export {
        let prefix = || table.net(slot).map(|net| net.key.prefix());
        if self.key.default_originate && prefix().is_some_and(|prefix| prefix.prefix_len() == 0) {
            return self.key.with_next_hop(K::FAMILY, AttributeId::OWN);
        }
        let Some((id, _)) = best else { return Export::Withhold };
        let Some(entry) = store.get(id) else { return Export::Withhold };
        self.key.export(id, entry, prefix, K::FAMILY)
    }

    /// Encodes the announcements. Those that turn out too big join the withdrawals.
    fn announce<K: Key>(
        &mut self,
        identity: &Identity,
        store: &AttributeStore,
        table: &Table<K>,
        changes: &mut Changes,
    ) {
        let generation = self.log.generation();
        for run in runs(&changes.announced) {
            if self.encode(identity, store, table, run, changes.cause) {
                continue;
            }
            for (_, slot) in run {
                // What the members had before is not known any more; a withdrawal is harmless.
                changes.withdrawn.push(*slot);
                self.adj_out_mut(K::FAMILY).set(*slot, Sent::TooBig, generation);
            }
            changes.cause = Cause::Mixed;
        }
    }

    /// False if the attributes do not fit into a message.
    fn encode<K: Key>(
        &mut self,
        identity: &Identity,
        store: &AttributeStore,
        table: &Table<K>,
        run: &[(AttributeId, Slot)],
        cause: Cause,
    ) -> bool {
        let Self { key, log, .. } = self;
        if log.has_readers() {
            let mut fits = false;
            log.append(cause, |out| fits = encode_run(out, key, identity, store, table, run));
            return fits;
        }
        // Nobody reads the log, but whether it fits counts for those who read the Adj-RIB-Out.
        encode_run(&mut Vec::new(), key, identity, store, table, run.get(..1).unwrap_or_default())
    }

    fn withdraw<K: Key>(&mut self, table: &Table<K>, changes: &Changes) {
        if !self.log.has_readers() {
            return;
        }
        for run in changes.withdrawn.chunks(RUN) {
            let context = &self.key.context;
            self.log.append(changes.cause, |out| encode_withdrawals(out, context, table, run));
        }
    }

    /// A member comes from another group: what may have been sent to it there and was never sent
    /// here counts as withdrawn here.
    pub(crate) fn mark(&mut self, slots: &[(Family, Slot)]) {
        let generation = self.log.generation();
        self.changed = generation;
        for (family, slot) in slots {
            let adj_out = self.adj_out_mut(*family);
            if adj_out.changed(*slot) == 0 {
                adj_out.touch(*slot, generation);
            }
        }
    }

    /// Generations are about to run out: start again at 1.
    pub(crate) fn renumber(&mut self) {
        self.log.renumber();
        self.v4.renumber();
        self.v6.renumber();
        self.changed = self.changed.min(1);
    }

    /// True if [`Group::renumber`] is due.
    pub(crate) const fn is_worn_out(&self) -> bool {
        self.log.generation() > u32::MAX / 2
    }

    /// The position to leave the log from, if it holds too much.
    pub(crate) fn overdue(&self, limit: LogLimit, slots: usize) -> Option<Position> {
        self.log.overdue(limit.base.saturating_add(limit.per_slot.saturating_mul(slots)))
    }
}

/// Runs of equal attributes, none longer than [`RUN`].
pub(crate) fn runs(
    announced: &[(AttributeId, Slot)],
) -> impl Iterator<Item = &[(AttributeId, Slot)]> {
    announced.chunk_by(|a, b| a.0 == b.0).flat_map(|run| run.chunks(RUN))
}

/// Appends UPDATEs that announce a run; false, and nothing appended, if the attributes do not fit.
pub(crate) fn encode_run<K: Key>(
    out: &mut Vec<u8>,
    key: &GroupKey,
    identity: &Identity,
    store: &AttributeStore,
    table: &Table<K>,
    run: &[(AttributeId, Slot)],
) -> bool {
    let Some(entry) = run.first().and_then(|(id, _)| store.get(*id)) else { return true };
    let (next_hop, attributes) = key.transform(identity, entry, K::FAMILY);
    let writer = UpdateWriter::announce(out, &key.context, K::FAMILY, next_hop, &attributes);
    let Ok(mut writer) = writer else { return false };
    for (_, slot) in run {
        if let Some(net) = table.net(*slot) {
            writer.push(None, net.key.prefix());
        }
    }
    writer.finish();
    true
}

/// Appends UPDATEs that withdraw prefixes.
pub(crate) fn encode_withdrawals<K: Key>(
    out: &mut Vec<u8>,
    context: &crate::wire::Context,
    table: &Table<K>,
    slots: &[Slot],
) {
    let mut writer = UpdateWriter::withdraw(out, context, K::FAMILY);
    for slot in slots {
        if let Some(net) = table.net(*slot) {
            writer.push(None, net.key.prefix());
        }
    }
    writer.finish();
}

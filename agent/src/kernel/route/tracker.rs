//! Desired against acknowledged: decides what to write, knows nothing of sockets.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHashSet};

use super::METRIC;
use super::hops::{GroupId, Hops};
use super::links::Links;
use super::message::{Seen, TABLE};
use super::rivals::Rivals;
use super::types::{Installed, Overridden, RouteReport, RouteState, Summary, Target, Unresolved};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Via(GroupId),
    Blackhole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Settled,
    Pending(Unresolved),
    /// With the errno.
    Failed(i32),
}

#[derive(Debug)]
struct Entry {
    wish: Option<Wish>,
    /// What the kernel has, as far as we were told.
    installed: Option<Installed>,
    state: State,
    queued: bool,
}

/// One request for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Write a route where there is none of ours.
    Add(Installed),
    /// Change a route of ours.
    Replace(Installed),
    /// Remove our route with this metric.
    Delete(u32),
}

/// One request for the kernel, and the prefix it is about.
pub(super) type Operation = (IpNet, Action);

/// The delta tracker.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    entries: FxHashMap<IpNet, Entry>,
    /// Prefixes where wanted and acknowledged may differ.
    queue: VecDeque<IpNet>,
    /// Routes with our tag but another metric: an older version wrote them.
    leftovers: Vec<(IpNet, u32)>,
    /// Prefixes to which somebody else has a route with our metric.
    contested: FxHashSet<IpNet>,
    /// Routes of others that may win over ours, and the prefixes where one does and leads elsewhere.
    rivals: Rivals,
    overridden: BTreeSet<IpNet>,
    /// Since it was told.
    overridden_changed: bool,
    /// Adopted routes that are left as they are for now.
    held: FxHashSet<IpNet>,
    pub(super) hops: Hops,
    counts: Summary,
    drift: Option<(IpNet, u64)>,
}

impl Tracker {
    /// Numbers; `batches` and `in_sync` are not known here.
    pub(super) fn summary(&self) -> Summary {
        Summary {
            queued: self.queue.len() + self.leftovers.len(),
            held: self.held.len(),
            overridden: self.overridden.len(),
            ..self.counts
        }
    }

    /// Leaves what is installed now as it is until [`Tracker::release`].
    pub(super) fn hold(&mut self) {
        let installed = self.entries.iter().filter(|(_, entry)| entry.installed.is_some());
        self.held = installed.map(|(prefix, _)| *prefix).collect();
    }

    /// Ends [`Tracker::hold`].
    pub(super) fn release(&mut self) {
        for prefix in std::mem::take(&mut self.held) {
            self.retry(prefix);
        }
    }

    /// Changes what is wanted.
    pub(super) fn set(&mut self, prefix: IpNet, target: Option<&Target>) {
        let wish = target.map(|target| match target {
            Target::Blackhole => Wish::Blackhole,
            Target::NextHops(hops) => {
                let mut hops = hops.clone();
                hops.sort_unstable();
                hops.dedup();
                Wish::Via(self.hops.acquire(&hops))
            }
        });
        if wish.is_none() && !self.entries.contains_key(&prefix) {
            return;
        }
        let entry = entry(&mut self.entries, prefix);
        uncount(&mut self.counts, entry);
        let old = std::mem::replace(&mut entry.wish, wish);
        if old != wish {
            entry.state = State::Waiting;
        }
        count(&mut self.counts, entry);
        if old != wish {
            enqueue(&mut self.queue, prefix, entry);
        }
        if let Some(Wish::Via(group)) = old {
            self.hops.release(group);
        }
        self.weigh(prefix);
    }

    /// Takes the next thing to write.
    pub(super) fn next(&mut self) -> Option<Operation> {
        if let Some((prefix, metric)) = self.leftovers.pop() {
            return Some((prefix, Action::Delete(metric)));
        }
        while let Some(prefix) = self.queue.pop_front() {
            if let Some(action) = self.plan(&prefix)
                && (matches!(action, Action::Add(_)) || !self.held.contains(&prefix))
            {
                return Some((prefix, action));
            }
        }
        None
    }

    fn plan(&mut self, prefix: &IpNet) -> Option<Action> {
        let entry = self.entries.get_mut(prefix)?;
        entry.queued = false;
        let mut pending = None;
        let want = match entry.wish {
            None => None,
            Some(Wish::Blackhole) => Some(Installed::Blackhole),
            Some(Wish::Via(group)) => match self.hops.resolution(group) {
                Ok(paths) => Some(Installed::Paths(paths)),
                Err(why) => {
                    pending = Some(why);
                    None
                }
            },
        };
        uncount(&mut self.counts, entry);
        entry.state = match pending {
            Some(why) => State::Pending(why),
            None if want.is_some() && want == entry.installed => State::Settled,
            None => State::Waiting,
        };
        count(&mut self.counts, entry);
        match (&entry.installed, want) {
            (None, None) => {
                if entry.wish.is_none() {
                    self.entries.remove(prefix);
                }
                None
            }
            (Some(old), Some(new)) if *old == new => {
                // As it was: nothing to hold any more.
                self.held.remove(prefix);
                None
            }
            (None, Some(new)) => Some(Action::Add(new)),
            // IPv4 replaces the first route of that prefix and metric, whoever owns it.
            (Some(_), Some(_)) if self.contested.contains(prefix) => Some(Action::Delete(METRIC)),
            (Some(_), Some(new)) => Some(Action::Replace(new)),
            (Some(_), None) => Some(Action::Delete(METRIC)),
        }
    }

    /// The kernel's answer to an operation.
    pub(super) fn complete(&mut self, operation: Operation, errno: Option<i32>) {
        let (prefix, action) = operation;
        if matches!(action, Action::Delete(metric) if metric != METRIC) {
            return;
        }
        let Some(entry) = self.entries.get_mut(&prefix) else { return };
        uncount(&mut self.counts, entry);
        match (action, errno) {
            (Action::Add(new) | Action::Replace(new), None) => {
                entry.installed = Some(new);
                entry.state = State::Settled;
                self.hops.touch(&prefix);
            }
            (Action::Delete(_), None | Some(libc::ESRCH | libc::ENOENT)) => {
                entry.installed = None;
                if entry.state == State::Waiting {
                    enqueue(&mut self.queue, prefix, entry);
                }
                self.hops.touch(&prefix);
            }
            (Action::Replace(_), Some(libc::ENOENT | libc::ESRCH)) => {
                entry.installed = None;
                enqueue(&mut self.queue, prefix, entry);
            }
            (_, Some(errno)) => {
                entry.state = State::Failed(errno);
                if errno != libc::EEXIST {
                    self.hops.touch_all();
                }
            }
        }
        count(&mut self.counts, entry);
        if entry.wish.is_none() && entry.installed.is_none() && !entry.queued {
            self.entries.remove(&prefix);
        }
        self.weigh(prefix);
    }

    /// Whether an operation was done is not known: it is looked at again.
    pub(super) fn retry(&mut self, prefix: IpNet) {
        if let Some(entry) = self.entries.get_mut(&prefix) {
            enqueue(&mut self.queue, prefix, entry);
        }
    }

    /// Tries again what the kernel refused; returns whether there is any.
    pub(super) fn retry_failed(&mut self) -> bool {
        let before = self.queue.len();
        for (prefix, entry) in &mut self.entries {
            if matches!(entry.state, State::Failed(_)) {
                enqueue(&mut self.queue, *prefix, entry);
            }
        }
        self.queue.len() > before
    }

    /// The paths of these sets of next hops changed.
    pub(super) fn groups_changed(&mut self, changed: &[GroupId]) {
        if changed.is_empty() {
            return;
        }
        let changed: FxHashSet<GroupId> = changed.iter().copied().collect();
        for (prefix, entry) in &mut self.entries {
            if matches!(entry.wish, Some(Wish::Via(group)) if changed.contains(&group)) {
                enqueue(&mut self.queue, *prefix, entry);
            }
        }
    }

    /// Does the wanted route to `prefix` go through `hop`?
    pub(super) fn goes_through(&self, prefix: &IpNet, hop: IpAddr) -> bool {
        match self.entries.get(prefix).and_then(|entry| entry.wish) {
            Some(Wish::Via(group)) => self.hops.members(group).contains(&hop),
            _ => false,
        }
    }

    /// Does a route in the kernel leave through this interface, or one that is used instead?
    pub(super) fn uses_interface(&self, index: u32) -> bool {
        let mut instead = self.overridden.iter();
        if instead.any(|prefix| self.rivals.uses_interface(prefix, index)) {
            return true;
        }
        self.entries.values().any(|entry| match &entry.installed {
            Some(Installed::Paths(paths)) => paths.iter().any(|path| path.interface == index),
            _ => false,
        })
    }

    /// Somebody else changed the kernel so that `content` is now our route to `prefix`.
    pub(super) fn observe(&mut self, prefix: IpNet, content: Option<Installed>) {
        if content.is_none() && !self.entries.contains_key(&prefix) {
            return;
        }
        let entry = entry(&mut self.entries, prefix);
        if entry.installed == content {
            return;
        }
        uncount(&mut self.counts, entry);
        if entry.wish.is_some() && entry.state == State::Settled {
            note_drift(&mut self.drift, &mut self.counts, prefix);
        }
        entry.installed = content;
        entry.state = State::Waiting;
        count(&mut self.counts, entry);
        enqueue(&mut self.queue, prefix, entry);
        self.weigh(prefix);
    }

    /// Somebody else's route with another metric than ours came, `instead` of what he had with it.
    pub(super) fn rival_appeared(&mut self, seen: Seen, instead: bool) {
        let prefix = seen.prefix;
        if self.rivals.appeared(seen, instead) {
            self.weigh(prefix);
        }
    }

    /// It went; false if only the whole table can tell what is left of it.
    pub(super) fn rival_vanished(&mut self, seen: Seen) -> bool {
        let prefix = seen.prefix;
        let known = self.rivals.vanished(seen);
        self.weigh(prefix);
        known || !self.entries.contains_key(&prefix)
    }

    /// Does the kernel use our route?
    fn weigh(&mut self, prefix: IpNet) {
        let installed = self.entries.get(&prefix).and_then(|entry| entry.installed.as_ref());
        let loses = match installed {
            Some(Installed::Paths(ours)) => self.rivals.winner(&prefix, ours).is_some(),
            // The way to the pods of our own node is anybody's.
            Some(Installed::Blackhole | Installed::Odd) | None => false,
        };
        self.overridden_changed |=
            if loses { self.overridden.insert(prefix) } else { self.overridden.remove(&prefix) };
    }

    /// What the kernel uses instead of our routes, if that has changed since the last call.
    pub(super) fn take_overridden(&mut self, links: &Links) -> Option<Option<Overridden>> {
        if !std::mem::take(&mut self.overridden_changed) {
            return None;
        }
        let first = self.overridden.first().and_then(|prefix| {
            let by = self.instead(prefix, links)?;
            Some(Overridden { prefix: *prefix, by, count: self.overridden.len() })
        });
        Some(first)
    }

    fn instead(&self, prefix: &IpNet, links: &Links) -> Option<String> {
        let Some(Installed::Paths(ours)) = &self.entries.get(prefix)?.installed else {
            return None;
        };
        Some(self.rivals.winner(prefix, ours)?.describe(links))
    }

    /// Somebody else's route to `prefix` with our metric came or went.
    pub(super) fn contest(&mut self, prefix: IpNet, exists: bool) {
        if exists {
            self.contested.insert(prefix);
        } else if self.contested.remove(&prefix) {
            self.retry(prefix);
        }
    }

    /// The kernel's main table, complete. With `blame`, what differs counts as somebody's doing.
    pub(super) fn resync(&mut self, table: Vec<Seen>, blame: bool) {
        self.leftovers.clear();
        self.contested.clear();
        self.rivals.clear();
        let mut ours = FxHashMap::default();
        for seen in table.into_iter().filter(|seen| seen.table == TABLE) {
            match (seen.ours, seen.metric == METRIC) {
                (true, true) => {
                    ours.insert(seen.prefix, seen.content);
                }
                (true, false) => self.leftovers.push((seen.prefix, seen.metric)),
                (false, true) => {
                    self.contested.insert(seen.prefix);
                }
                (false, false) => drop(self.rivals.appeared(seen, false)),
            }
        }
        for (prefix, entry) in &mut self.entries {
            let now = ours.remove(prefix);
            if now == entry.installed {
                continue;
            }
            uncount(&mut self.counts, entry);
            if blame && entry.wish.is_some() && entry.state == State::Settled {
                note_drift(&mut self.drift, &mut self.counts, *prefix);
            }
            entry.installed = now;
            entry.state = State::Waiting;
            count(&mut self.counts, entry);
            enqueue(&mut self.queue, *prefix, entry);
        }
        for (prefix, content) in ours {
            let entry = entry(&mut self.entries, prefix);
            entry.installed = Some(content);
            enqueue(&mut self.queue, prefix, entry);
        }
        let prefixes: Vec<IpNet> = self.entries.keys().copied().collect();
        for prefix in prefixes {
            self.weigh(prefix);
        }
    }

    /// Routes found deleted or changed by others since the last call: one of them, and how many.
    pub(super) fn take_drift(&mut self) -> Option<(IpNet, u64)> {
        self.drift.take()
    }

    /// Every wanted route, in no order.
    pub(super) fn reports(&self, links: &Links) -> Vec<RouteReport> {
        let report = |(prefix, entry): (&IpNet, &Entry)| {
            let wish = entry.wish?;
            let lost = self.overridden.contains(prefix);
            Some(RouteReport {
                prefix: *prefix,
                next_hops: match wish {
                    Wish::Via(group) => self.hops.members(group).to_vec(),
                    Wish::Blackhole => Vec::new(),
                },
                gateways: match &entry.installed {
                    Some(Installed::Paths(paths)) => paths.iter().map(|p| p.gateway).collect(),
                    _ => Vec::new(),
                },
                state: match entry.state {
                    State::Waiting => RouteState::Waiting,
                    State::Settled if wish == Wish::Blackhole => RouteState::Blackhole,
                    State::Settled => match self.instead(prefix, links).filter(|_| lost) {
                        Some(by) => RouteState::Overridden(by),
                        None => RouteState::Installed,
                    },
                    State::Pending(why) => RouteState::Pending(why),
                    State::Failed(errno) => RouteState::Failed(refusal(errno)),
                },
            })
        };
        self.entries.iter().filter_map(report).collect()
    }
}

/// What a refusal of the kernel means, in words.
pub(super) fn refusal(errno: i32) -> String {
    match errno {
        libc::EEXIST => {
            format!("another program has a route to this prefix with our metric {METRIC}")
        }
        other => std::io::Error::from_raw_os_error(other).to_string(),
    }
}

fn entry(entries: &mut FxHashMap<IpNet, Entry>, prefix: IpNet) -> &mut Entry {
    entries.entry(prefix).or_insert(Entry {
        wish: None,
        installed: None,
        state: State::Waiting,
        queued: false,
    })
}

fn enqueue(queue: &mut VecDeque<IpNet>, prefix: IpNet, entry: &mut Entry) {
    if !entry.queued {
        entry.queued = true;
        queue.push_back(prefix);
    }
}

fn note_drift(drift: &mut Option<(IpNet, u64)>, counts: &mut Summary, prefix: IpNet) {
    counts.repaired += 1;
    drift.get_or_insert((prefix, 0)).1 += 1;
}

fn count(counts: &mut Summary, entry: &Entry) {
    if let Some(counter) = counter(counts, entry) {
        *counter += 1;
        counts.desired += 1;
    } else if entry.wish.is_some() {
        counts.desired += 1;
    }
}

fn uncount(counts: &mut Summary, entry: &Entry) {
    if let Some(counter) = counter(counts, entry) {
        *counter -= 1;
        counts.desired -= 1;
    } else if entry.wish.is_some() {
        counts.desired -= 1;
    }
}

fn counter<'a>(counts: &'a mut Summary, entry: &Entry) -> Option<&'a mut usize> {
    match (entry.wish, entry.state) {
        (None, _) | (_, State::Waiting) => None,
        (_, State::Settled) => Some(&mut counts.installed),
        (_, State::Pending(_)) => Some(&mut counts.pending),
        (_, State::Failed(_)) => Some(&mut counts.failed),
    }
}

#[cfg(test)]
mod tests;

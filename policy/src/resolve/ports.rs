//! Sets of ports in canonical form.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use crate::input::Protocol;

/// Ranges of more numbers than this are taken whole.
const MAX_NARROW: u16 = 16;

/// Ports of all protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortSet {
    /// Every protocol, with or without ports; the rest is empty then.
    everything: bool,
    /// First and last; sorted, disjoint, not adjacent.
    ranges: BTreeMap<Protocol, Vec<(u16, u16)>>,
    /// Resolved by the peer pod (egress).
    names: BTreeSet<(Protocol, String)>,
}

impl PortSet {
    pub(crate) fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.everything
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.everything && self.ranges.is_empty() && self.names.is_empty()
    }

    /// Ports that the peer pod resolves.
    pub(crate) fn names(&self) -> impl Iterator<Item = (Protocol, &str)> {
        self.names.iter().map(|(protocol, name)| (*protocol, name.as_str()))
    }

    /// Only the named ones.
    pub(crate) fn named(&self) -> Self {
        Self { names: self.names.clone(), ..Self::default() }
    }

    /// The numeric ones, in two: ranges to be taken number by number, at most `limit` of these in
    /// all, and ranges to be taken whole.
    pub(crate) fn split(&self, limit: usize) -> (Self, Self) {
        let (mut narrow, mut wide) = (Self::default(), Self::default());
        for (protocol, first, last) in self.ranges() {
            let part = if last - first < MAX_NARROW { &mut narrow } else { &mut wide };
            part.ranges.entry(protocol).or_default().push((first, last));
        }
        if narrow.count() > limit {
            (narrow, wide) = (Self::default(), Self { ranges: self.ranges.clone(), ..wide });
        }
        (narrow, wide)
    }

    /// [`PortSet::split`] would leave all of it to be taken number by number.
    pub(crate) fn is_narrow(&self, limit: usize) -> bool {
        let narrow = |(_, first, last): (Protocol, u16, u16)| last - first < MAX_NARROW;
        !self.everything && self.ranges().all(narrow) && self.count() <= limit
    }

    /// Octets that are equal for equal sets only, whatever follows them.
    pub(crate) fn write_to(&self, octets: &mut Vec<u8>) {
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        octets.push(self.everything.into());
        octets.extend(length(self.ranges().count()));
        for (protocol, first, last) in self.ranges() {
            octets.push(protocol.number());
            octets.extend([first.to_be_bytes(), last.to_be_bytes()].as_flattened());
        }
        octets.extend(length(self.names.len()));
        for (protocol, name) in &self.names {
            octets.push(protocol.number());
            octets.extend(length(name.len()));
            octets.extend(name.as_bytes());
        }
    }

    /// Each number by itself.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Protocol, u16)> {
        self.ranges().flat_map(|(protocol, a, b)| (a..=b).map(move |port| (protocol, port)))
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Protocol, u16, u16)> {
        let ranges = self.ranges.iter();
        ranges.flat_map(|(protocol, list)| list.iter().map(|(a, b)| (*protocol, *a, *b)))
    }

    fn count(&self) -> usize {
        self.ranges().map(|(_, first, last)| usize::from(last - first) + 1).sum()
    }

    /// Both, where one has numbers and the other names.
    pub(crate) fn with_names(mut self, names: &Self) -> Self {
        self.names.extend(names.names.iter().cloned());
        self
    }

    pub(crate) fn add_name(&mut self, protocol: Protocol, name: &str) {
        if !self.everything {
            self.names.insert((protocol, name.to_owned()));
        }
    }

    /// [`PortSet::normalize`] must follow.
    pub(crate) fn add_range(&mut self, protocol: Protocol, first: u16, last: u16) {
        if !self.everything {
            self.ranges.entry(protocol).or_default().push((first, last));
        }
    }

    /// Sorts, and makes one of ranges that overlap or touch.
    pub(crate) fn normalize(&mut self) {
        for list in self.ranges.values_mut() {
            list.sort_unstable();
            let mut merged: Vec<(u16, u16)> = Vec::with_capacity(list.len());
            for (first, last) in list.drain(..) {
                match merged.last_mut() {
                    Some(open) if first <= open.1.saturating_add(1) => open.1 = open.1.max(last),
                    Some(_) | None => merged.push((first, last)),
                }
            }
            *list = merged;
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if other.everything {
            *self = Self::everything();
        }
        for (protocol, first, last) in other.ranges() {
            self.add_range(protocol, first, last);
        }
        for (protocol, name) in &other.names {
            self.add_name(*protocol, name);
        }
        self.normalize();
    }
}

/// Not every range: thousands of peers may share thousands of them, and a collision only costs a
/// comparison.
impl Hash for PortSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.everything.hash(state);
        self.names.hash(state);
        for (protocol, ranges) in &self.ranges {
            (protocol, ranges.len(), ranges.first(), ranges.last()).hash(state);
        }
    }
}

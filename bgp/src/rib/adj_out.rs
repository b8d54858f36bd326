//! What an update group holds out to its members, eight octets a prefix.

use super::attributes::AttributeId;
use super::slots::Slot;

/// State of one prefix towards a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Not sent, or withdrawn.
    Nothing,
    /// Not sent: no next hop of the family.
    NoNextHop,
    /// Not sent: the attributes leave no room for a prefix in a message.
    TooBig,
    /// Sent, with these attributes before transformation.
    With(AttributeId),
}

impl Sent {
    pub(crate) const fn is_route(self) -> bool {
        matches!(self, Self::With(_))
    }
}

/// [`Sent`] in four octets, and the generation of its last change (0 = never changed).
#[derive(Clone, Copy, Debug)]
struct Cell {
    sent: u32,
    changed: u32,
}

const NOTHING: u32 = 0;
const NO_NEXT_HOP: u32 = u32::MAX;
const TOO_BIG: u32 = u32::MAX - 1;

impl Cell {
    const EMPTY: Self = Self { sent: NOTHING, changed: 0 };

    const fn sent(self) -> Sent {
        match self.sent {
            NOTHING => Sent::Nothing,
            NO_NEXT_HOP => Sent::NoNextHop,
            TOO_BIG => Sent::TooBig,
            id => Sent::With(AttributeId(id)),
        }
    }
}

/// Adj-RIB-Out of one family.
#[derive(Debug, Default)]
pub(crate) struct AdjRibOut {
    cells: Vec<Cell>,
    /// Prefixes sent.
    pub(crate) routes: usize,
    /// Prefixes withheld for want of a next hop.
    pub(crate) no_next_hop: usize,
    /// Prefixes withheld because of their size.
    pub(crate) too_big: usize,
}

impl AdjRibOut {
    pub(crate) fn get(&self, slot: Slot) -> Sent {
        self.cells.get(slot.index()).map_or(Sent::Nothing, |cell| cell.sent())
    }

    /// Generation of the last change.
    pub(crate) fn changed(&self, slot: Slot) -> u32 {
        self.cells.get(slot.index()).map_or(0, |cell| cell.changed)
    }

    /// Every slot with its state and the generation of its last change, from `first` on.
    pub(crate) fn iter_from(&self, first: Slot) -> impl Iterator<Item = (Slot, Sent, u32)> {
        let cells = self.cells.get(first.index()..).unwrap_or_default();
        (first.0..).zip(cells).map(|(slot, cell)| (Slot(slot), cell.sent(), cell.changed))
    }

    pub(crate) fn set(&mut self, slot: Slot, sent: Sent, generation: u32) {
        if self.cells.len() <= slot.index() {
            self.cells.resize(slot.index() + 1, Cell::EMPTY);
        }
        self.count(self.get(slot), -1);
        self.count(sent, 1);
        let Some(cell) = self.cells.get_mut(slot.index()) else { return };
        cell.changed = generation;
        cell.sent = match sent {
            Sent::Nothing => NOTHING,
            Sent::NoNextHop => NO_NEXT_HOP,
            Sent::TooBig => TOO_BIG,
            Sent::With(AttributeId(id)) => id,
        };
    }

    /// Marks a slot as changed without changing it.
    pub(crate) fn touch(&mut self, slot: Slot, generation: u32) {
        self.set(slot, self.get(slot), generation);
    }

    /// The slot is about to name another prefix.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.set(slot, Sent::Nothing, 0);
    }

    /// Everything that ever changed, changed in generation 1.
    pub(crate) fn renumber(&mut self) {
        for cell in &mut self.cells {
            cell.changed = cell.changed.min(1);
        }
    }

    fn count(&mut self, sent: Sent, by: isize) {
        let counter = match sent {
            Sent::Nothing => return,
            Sent::NoNextHop => &mut self.no_next_hop,
            Sent::TooBig => &mut self.too_big,
            Sent::With(_) => &mut self.routes,
        };
        *counter = counter.saturating_add_signed(by);
    }
}

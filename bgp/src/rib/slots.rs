//! Slots: small numbers that name the prefixes of one table, and sparse sets of them.

/// Names a prefix in one table for as long as anything refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    /// As an index.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

const WORDS: u32 = 4;
const BLOCK: u32 = WORDS * 64;

/// The slots in which one peer has a path.
///
/// Costs a bit per slot where the peer is dense and some 40 octets per slot where it is sparse,
/// and walks in time proportional to the members: the death of one small peer among thousands
/// must not look at the whole table.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotSet {
    /// Ascending. Slots are mostly taken in order, so that a new block mostly comes last.
    blocks: Vec<Block>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Block {
    number: u32,
    words: [u64; WORDS as usize],
}

impl SlotSet {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// True if it was not in the set.
    pub(crate) fn insert(&mut self, slot: Slot) -> bool {
        let (block, word, bit) = place(slot);
        let index = match self.position(block) {
            Ok(index) => index,
            Err(index) => {
                self.blocks.insert(index, Block { number: block, words: [0; WORDS as usize] });
                index
            }
        };
        let words = self.blocks.get_mut(index).map(|block| &mut block.words);
        let Some(word) = words.and_then(|words| words.get_mut(word)) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        self.len += usize::from(new);
        new
    }

    /// True if it was in the set.
    pub(crate) fn remove(&mut self, slot: Slot) -> bool {
        let (block, word, bit) = place(slot);
        let Ok(index) = self.position(block) else { return false };
        let Some(Block { words, .. }) = self.blocks.get_mut(index) else { return false };
        let Some(word) = words.get_mut(word) else { return false };
        let was = *word & bit != 0;
        *word &= !bit;
        self.len -= usize::from(was);
        if self.len == 0 {
            // A block left empty in between costs little, and its place is likely to be used again.
            self.blocks = Vec::new();
        }
        was
    }

    /// Where a block is, or belongs.
    fn position(&self, block: u32) -> Result<usize, usize> {
        match self.blocks.last() {
            Some(last) if last.number == block => Ok(self.blocks.len() - 1),
            Some(last) if last.number > block => {
                self.blocks.binary_search_by_key(&block, |block| block.number)
            }
            Some(_) | None => Err(self.blocks.len()),
        }
    }

    /// The members, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> {
        self.blocks.iter().flat_map(|Block { number, words }| {
            (0..WORDS).zip(words).flat_map(move |(word, bits)| {
                let base = number * BLOCK + word * 64;
                Bits(*bits).map(move |bit| Slot(base + bit))
            })
        })
    }
}

fn place(slot: Slot) -> (u32, usize, u64) {
    (slot.0 / BLOCK, (slot.0 % BLOCK / 64) as usize, 1 << (slot.0 % 64))
}

/// Positions of the ones.
struct Bits(u64);

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(operations in prop::collection::vec((any::<bool>(), 0u32..2000), 0..300)) {
            let mut set = SlotSet::default();
            let mut model = BTreeSet::new();
            for (insert, slot) in operations {
                if insert {
                    prop_assert_eq!(set.insert(Slot(slot)), model.insert(slot));
                } else {
                    prop_assert_eq!(set.remove(Slot(slot)), model.remove(&slot));
                }
                prop_assert_eq!(set.len(), model.len());
            }
            let members: Vec<u32> = set.iter().map(|s| s.0).collect();
            prop_assert_eq!(members, model.into_iter().collect::<Vec<_>>());
        }
    }
}

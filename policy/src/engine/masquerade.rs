//! Outgoing address translation in and out of the table.

use super::Engine;
use crate::event::Masquerade;
use crate::nft::masquerade::{self, elements};

impl Engine {
    pub(super) fn set_masquerade(&mut self, new: Option<Masquerade>) {
        let new = new.filter(|masquerade| !masquerade.sources.is_empty());
        let old = std::mem::replace(&mut self.masquerade, new.clone());
        let Some(new) = new else {
            if old.is_some() {
                self.delta.remove_chain(masquerade::CHAIN);
                for set in masquerade::SETS {
                    self.delta.remove_set(set);
                }
            }
            return;
        };
        let Some(old) = old else {
            for (name, set) in masquerade::sets(&new) {
                self.delta.add_set(&name, set);
            }
            self.delta.put_chain(masquerade::CHAIN, masquerade::chain(&new));
            return;
        };
        let (before, after) = (elements(&old), elements(&new));
        for (set, element) in before.difference(&after) {
            self.delta.set_element(set, element.clone(), None);
        }
        for (set, element) in after.difference(&before) {
            self.delta.set_element(set, element.clone(), Some(None));
        }
        if old.sources != new.sources {
            self.delta.put_chain(masquerade::CHAIN, masquerade::chain(&new));
        }
    }
}

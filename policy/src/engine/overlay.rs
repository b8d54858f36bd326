//! The overlay's guard in and out of the table.

use super::Engine;
use crate::event::Overlay;
use crate::nft::overlay;

impl Engine {
    pub(super) fn set_overlay(&mut self, new: Option<Overlay>) {
        let old = std::mem::replace(&mut self.overlay, new.clone());
        match (old, new) {
            (None, None) => {}
            (Some(old), Some(new)) if old.port == new.port => {
                for address in old.senders.difference(&new.senders) {
                    let (set, element) = overlay::sender(*address);
                    self.delta.set_element(set, element, None);
                }
                for address in new.senders.difference(&old.senders) {
                    let (set, element) = overlay::sender(*address);
                    self.delta.set_element(set, element, Some(None));
                }
            }
            (old, Some(new)) => {
                if old.is_some() {
                    self.remove_overlay();
                }
                for (name, set) in overlay::sets(&new) {
                    self.delta.add_set(&name, set);
                }
                for (name, chain) in overlay::chains() {
                    self.delta.put_chain(&name, chain);
                }
            }
            (Some(_), None) => self.remove_overlay(),
        }
    }

    fn remove_overlay(&mut self) {
        for name in overlay::CHAINS {
            self.delta.remove_chain(name);
        }
        for name in overlay::SETS {
            self.delta.remove_set(name);
        }
    }
}

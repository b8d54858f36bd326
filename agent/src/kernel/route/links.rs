//! Interfaces: index, name, and whether they are up.

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rustc_hash::FxHashMap;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    name: String,
    up: bool,
}

/// What changed about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkChange {
    /// Nothing that matters here.
    None,
    /// It came up, or has another name. (A new one is no change: what makes it of use, an address
    /// or a route, is told on its own.)
    Usable(u32),
    /// It went down or away; the kernel drops IPv4 routes over it without a word.
    Unusable(u32),
}

/// All interfaces of the namespace.
#[derive(Debug, Default)]
pub(super) struct Links(FxHashMap<u32, Link>);

impl Links {
    /// Starts again from a dump.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Name of an interface.
    pub(super) fn name(&self, index: u32) -> Option<&str> {
        self.0.get(&index).map(|link| link.name.as_str())
    }

    /// Is the interface administratively up?
    pub(super) fn is_up(&self, index: u32) -> bool {
        self.0.get(&index).is_some_and(|link| link.up)
    }

    /// `RTM_NEWLINK`.
    pub(super) fn updated(&mut self, message: &LinkMessage) -> LinkChange {
        let index = message.header.index;
        let name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let up = message.header.flags.contains(LinkFlags::Up);
        let old = self.0.get(&index);
        let name = name.or_else(|| old.map(|link| link.name.clone())).unwrap_or_default();
        let new = Link { name, up };
        let change = match old {
            None => LinkChange::None,
            Some(old) if *old == new => LinkChange::None,
            Some(old) if old.up && !up => LinkChange::Unusable(index),
            Some(_) => LinkChange::Usable(index),
        };
        self.0.insert(index, new);
        change
    }

    /// `RTM_DELLINK`.
    pub(super) fn removed(&mut self, message: &LinkMessage) -> LinkChange {
        match self.0.remove(&message.header.index) {
            Some(_) => LinkChange::Unusable(message.header.index),
            None => LinkChange::None,
        }
    }
}

//! Which interface the kernel uses for each local pod address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

#[derive(Debug, Default, PartialEq, Eq)]
struct Watched {
    index: Option<u32>,
    name: Option<String>,
    told: bool,
}

/// The watched addresses.
#[derive(Debug, Default)]
pub(super) struct Pods {
    watched: BTreeMap<IpAddr, Watched>,
    stale: BTreeSet<IpAddr>,
    /// Changed and not told yet; at most one each, so this never grows beyond the watched ones.
    untold: BTreeSet<IpAddr>,
}

impl Pods {
    /// Watches exactly these.
    pub(super) fn watch(&mut self, addresses: Vec<IpAddr>) {
        let new: BTreeSet<IpAddr> = addresses.into_iter().collect();
        self.watched.retain(|address, _| new.contains(address));
        self.stale.retain(|address| new.contains(address));
        self.untold.retain(|address| new.contains(address));
        for address in new {
            self.watched.entry(address).or_insert_with(|| {
                self.stale.insert(address);
                Watched::default()
            });
        }
    }

    /// A route to `prefix` changed.
    pub(super) fn touch(&mut self, prefix: &IpNet) {
        let inside = self.watched.range(prefix.network()..=prefix.broadcast());
        self.stale.extend(inside.map(|(address, _)| *address));
    }

    /// An interface changed its name or state.
    pub(super) fn touch_interface(&mut self, index: u32) {
        let over = self.watched.iter().filter(|(_, watched)| watched.index == Some(index));
        self.stale.extend(over.map(|(address, _)| *address));
    }

    /// Everything may have changed.
    pub(super) fn touch_all(&mut self) {
        self.stale.extend(self.watched.keys());
    }

    /// The next address to look up.
    pub(super) fn next_stale(&mut self) -> Option<IpAddr> {
        self.stale.pop_first()
    }

    /// What the look-up said.
    pub(super) fn resolved(&mut self, address: IpAddr, link: Option<(u32, String)>) {
        let Some(watched) = self.watched.get_mut(&address) else { return };
        let (index, name) = link.unzip();
        watched.index = index;
        if watched.name != name || !watched.told {
            watched.name = name;
            self.untold.insert(address);
        }
    }

    /// The next change to tell; stays until [`Pods::told`].
    pub(super) fn next_untold(&self) -> Option<(IpAddr, Option<String>)> {
        let address = self.untold.first()?;
        Some((*address, self.watched.get(address)?.name.clone()))
    }

    /// The change of this address was told.
    pub(super) fn told(&mut self, address: IpAddr) {
        self.untold.remove(&address);
        if let Some(watched) = self.watched.get_mut(&address) {
            watched.told = true;
        }
    }
}

//! Whose is an address that several pods claim.
//!
//! An address stays in the status of a pod that is going while the next pod has it already, and a
//! status may simply be wrong. One pod has the address, in all sets and chains; whichever it is
//! follows from the objects alone, so every order of events ends the same.

use std::cmp::Reverse;
use std::net::IpAddr;

use smallvec::SmallVec;

use super::Engine;
use crate::event::{Key, Kind};
use crate::fault::{Fault, Reason};
use crate::index::{Entry, PodId};
use crate::input::{ObjectName, Pod};

impl Engine {
    /// Stores a pod, with the addresses that are its own among those that it claims.
    pub(super) fn put_pod(&mut self, name: &ObjectName, mut pod: Pod) {
        self.attachments.amend(name, &mut pod);
        let known = self.index.find(name);
        let id = known.map(|(id, _)| id);
        // Contested addresses are awarded below; what the pod has it keeps until then.
        let has = |address: &IpAddr| match known {
            Some((_, entry)) if entry.pod.addresses.contains(address) => true,
            _ => self.is_uncontested(*address, id) && !self.attachments.holds(*address),
        };
        let addresses = pod.claims.iter().copied().filter(has).collect();
        pod.addresses = addresses;
        let former: SmallVec<[IpAddr; 2]> =
            known.map(|(_, entry)| entry.pod.claims.clone()).unwrap_or_default();
        let claims = pod.claims.clone();
        if known.is_none_or(|(_, entry)| entry.pod != pod) {
            let (id, former) = self.index.put_pod(name, pod);
            self.pod_changed(name, id, former.as_ref());
        }
        let Some((id, _)) = self.index.find(name) else { return };
        let (new, gone): (Vec<IpAddr>, Vec<IpAddr>) = (
            claims.iter().filter(|address| !former.contains(address)).copied().collect(),
            former.iter().filter(|address| !claims.contains(address)).copied().collect(),
        );
        for address in new {
            let claimants = self.claimants.entry(address).or_default();
            claimants.push(id);
            if claimants.len() > 1 {
                self.shared.insert(address);
            }
        }
        self.disclaim(id, &gone);
        for address in claims {
            self.award(address);
        }
    }

    /// The pod claims these addresses no more.
    pub(super) fn disclaim(&mut self, id: PodId, addresses: &[IpAddr]) {
        for address in addresses {
            let Some(claimants) = self.claimants.get_mut(address) else { continue };
            claimants.retain(|claimant| *claimant != id);
            if claimants.len() < 2 {
                self.shared.remove(address);
            }
            if claimants.is_empty() {
                self.claimants.remove(address);
            } else {
                self.award(*address);
            }
        }
    }

    /// Sees to it that the address is with the one pod that has it.
    pub(super) fn award(&mut self, address: IpAddr) {
        let winner = self.winner(address);
        let claimants = self.claimants.get(&address).cloned().unwrap_or_default();
        for id in claimants {
            let Some(entry) = self.index.pod(id) else { continue };
            let wins = winner == Some(id);
            if entry.pod.addresses.contains(&address) == wins {
                continue;
            }
            let (name, mut pod) = (ObjectName::clone(&entry.name), entry.pod.clone());
            if wins {
                pod.addresses.push(address);
                pod.addresses.sort_unstable();
            } else {
                pod.addresses.retain(|own| *own != address);
            }
            let (id, former) = self.index.put_pod(&name, pod);
            self.pod_changed(&name, id, former.as_ref());
        }
    }

    fn is_uncontested(&self, address: IpAddr, by: Option<PodId>) -> bool {
        let claimants = self.claimants.get(&address);
        claimants.is_none_or(|claimants| claimants.iter().all(|id| Some(*id) == by))
    }

    /// The pod that the CNI plugin names, and no other if it names one; else of those that are not
    /// going the newest, as addresses are given again; else the first by name.
    fn winner(&self, address: IpAddr) -> Option<PodId> {
        let claimants = self.claimants.get(&address)?.iter();
        let mut claimants = claimants.filter_map(|id| Some((*id, self.index.pod(*id)?)));
        if self.attachments.holds(address) {
            let attached = |entry: &Entry| self.attachments.is_of(address, &entry.name, &entry.pod);
            return claimants.find(|(_, entry)| attached(entry)).map(|(id, _)| id);
        }
        let rank = |entry: &Entry| {
            (entry.pod.terminating, Reverse(entry.pod.created), ObjectName::clone(&entry.name))
        };
        claimants.min_by_key(|(_, entry)| rank(entry)).map(|(id, _)| id)
    }

    /// The pod that has an address.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Entry> {
        let claimants = self.claimants.get(&address)?.iter();
        let mut entries = claimants.filter_map(|id| self.index.pod(*id));
        entries.find(|entry| entry.pod.addresses.contains(&address))
    }

    /// Faults of the pods that claim an address, if there are several that are there to stay and
    /// the plugin has not said whose it is.
    pub(super) fn conflicts(&self, address: IpAddr) -> Vec<Fault> {
        if self.attachments.holds(address) {
            return Vec::new();
        }
        let claimants = self.claimants.get(&address).into_iter().flatten();
        let mut names: Vec<&ObjectName> = claimants
            .filter_map(|id| self.index.pod(*id))
            .filter(|entry| !entry.pod.terminating)
            .map(|entry| &*entry.name)
            .collect();
        if names.len() < 2 {
            return Vec::new();
        }
        names.sort_unstable();
        let owner = self.owner(address).map(|entry| entry.name.to_string()).unwrap_or_default();
        let fault = |name: &&ObjectName| {
            let others = names.iter().filter(|other| *other != name);
            let others: Vec<String> = others.map(ToString::to_string).collect();
            Fault {
                key: Key {
                    kind: Kind::Pod,
                    namespace: name.namespace.to_string(),
                    name: name.name.to_string(),
                },
                field: "status.podIPs".to_owned(),
                reason: Reason::AddressConflict,
                message: format!(
                    "{address} is also an address of {}; it counts as that of {owner}",
                    others.join(", ")
                ),
            }
        };
        names.iter().map(fault).collect()
    }
}

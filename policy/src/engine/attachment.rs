//! What the CNI plugin says about pods of our node. It knows a pod's addresses before the API
//! server does, and nobody but the plugin can say it: so it goes before what any Pod's status says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Engine;
use crate::input::{ObjectName, Pod};

/// An attachment, as [`crate::event::Event::Attachment`] has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) pod: ObjectName,
    pub(super) uid: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) interface: String,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    by_id: BTreeMap<String, Attached>,
    by_pod: BTreeMap<ObjectName, BTreeSet<String>>,
    /// The newest attachment of an address has it.
    by_address: BTreeMap<IpAddr, String>,
}

impl Attachments {
    fn insert(&mut self, id: String, attached: Attached) {
        self.by_pod.entry(attached.pod.clone()).or_default().insert(id.clone());
        for address in &attached.addresses {
            self.by_address.insert(*address, id.clone());
        }
        self.by_id.insert(id, attached);
    }

    fn remove(&mut self, id: &str) -> Option<Attached> {
        let attached = self.by_id.remove(id)?;
        if let Some(ids) = self.by_pod.get_mut(&attached.pod) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_pod.remove(&attached.pod);
            }
        }
        for address in &attached.addresses {
            if self.by_address.get(address).is_some_and(|holder| holder == id) {
                self.by_address.remove(address);
            }
        }
        Some(attached)
    }

    /// Ids of the attachments of this very pod: one of the same name with another uid is another.
    fn of<'a>(&'a self, name: &ObjectName, pod: &'a Pod) -> impl Iterator<Item = &'a str> {
        let ids = self.by_pod.get(name).into_iter().flatten();
        ids.filter(|id| {
            let uid = self.by_id.get(*id).map_or("", |attached| attached.uid.as_str());
            uid.is_empty() || pod.uid.is_empty() || *uid == *pod.uid
        })
        .map(String::as_str)
    }

    /// Puts the addresses right that the status of a pod of ours claims.
    pub(super) fn amend(&self, name: &ObjectName, pod: &mut Pod) {
        if pod.aloof || self.by_id.is_empty() {
            return;
        }
        let own: BTreeSet<&str> = self.of(name, pod).collect();
        if own.is_empty() {
            return;
        }
        let held = self.by_address.iter().filter(|(_, id)| own.contains(id.as_str()));
        let addresses = held.map(|(address, _)| *address).collect();
        pod.claims = addresses;
        pod.local = true;
    }

    /// The plugin has said whose the address is.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    /// It is this pod's.
    pub(super) fn is_of(&self, address: IpAddr, name: &ObjectName, pod: &Pod) -> bool {
        let holder = self.by_address.get(&address);
        holder.is_some_and(|holder| self.of(name, pod).any(|id| id == holder))
    }
}

impl Engine {
    pub(super) fn attach(&mut self, id: String, attached: Attached) {
        if self.attachments.by_id.get(&id) == Some(&attached) {
            return;
        }
        self.detach(&id);
        let Attached { pod, addresses, interface, .. } = attached.clone();
        self.attachments.insert(id, attached);
        for address in &addresses {
            if !interface.is_empty() {
                self.set_interface(*address, Some(interface.clone()));
            }
        }
        if let Some((_, entry)) = self.index.find(&pod) {
            let amended = entry.pod.clone();
            self.put_pod(&pod, amended);
        }
        // Whoever had one of the addresses before has it no more.
        for address in addresses {
            self.award(address);
        }
    }

    pub(super) fn detach(&mut self, id: &str) {
        let Some(attached) = self.attachments.remove(id) else { return };
        let freed = |address: &&IpAddr| !self.attachments.by_address.contains_key(*address);
        let freed: Vec<IpAddr> = attached.addresses.iter().filter(freed).copied().collect();
        for address in &freed {
            if self.interfaces.get(address) == Some(&attached.interface) {
                self.set_interface(*address, None);
            }
        }
        if let Some((_, entry)) = self.index.find(&attached.pod) {
            let mut amended = entry.pod.clone();
            amended.claims.retain(|address| !freed.contains(address));
            self.put_pod(&attached.pod, amended);
        }
        // Whoever claims it now by its status may have it.
        for address in freed {
            self.award(address);
        }
    }

    /// The Pod of this attachment is known, so that its policy can be: what has been handled up to
    /// now is what the kernel must hold before the pod may start. False also for an unknown
    /// attachment.
    #[must_use]
    pub fn knows_pod_of(&self, id: &str) -> bool {
        let Some(attached) = self.attachments.by_id.get(id) else { return false };
        let Some((_, entry)) = self.index.find(&attached.pod) else { return false };
        self.attachments.of(&attached.pod, &entry.pod).any(|own| own == id)
            && attached.addresses.iter().all(|address| entry.pod.addresses.contains(address))
    }

    /// Ids of all attachments, sorted.
    pub fn attachments(&self) -> impl Iterator<Item = &str> {
        self.attachments.by_id.keys().map(String::as_str)
    }
}

//! From an UPDATE to paths: import policy, eligibility, counts.

use std::net::IpAddr;

use ipnet::IpNet;

use super::attributes::AttributeId;
use super::decision::Ineligible;
use super::key::{Key, V4, V6};
use super::path::{Path, PeerIndex};
use super::slots::Slot;
use super::table::Announced;
use super::{PeerCounts, PrefixLimitExceeded, Rib};
use crate::config::Policy;
use crate::types::Family;
use crate::wire::attribute::Attributes;
use crate::wire::update::{Nlri, Update};

impl Rib {
    /// Takes in an UPDATE. It takes effect with the next [`Rib::flush`].
    ///
    /// # Errors
    /// The peer now holds more prefixes than it may: end its session (Cease 6/1).
    pub fn update(
        &mut self,
        peer: PeerIndex,
        update: Update<'_>,
    ) -> Result<(), PrefixLimitExceeded> {
        for nlri in update.withdrawn.iter().flatten() {
            self.withdraw_all(peer, nlri);
        }
        // Announced wins over withdrawn in one message: it comes second.
        let mut attributes = update.attributes;
        let [first, second] = &update.announced;
        for (announced, last) in [(first, second.is_none()), (second, true)] {
            let Some((nlri, next_hop)) = announced else { continue };
            let theirs = if last { attributes.take() } else { attributes.clone() };
            match theirs {
                Some(mut attributes) if update.treat_as_withdraw.is_none() => {
                    attributes.next_hop = *next_hop;
                    self.announce_all(peer, nlri, attributes);
                }
                _ => self.withdraw_all(peer, nlri),
            }
        }
        let limit = self.peer(peer).and_then(|p| p.session.max_prefixes.map(|max| (p, max)));
        match limit {
            Some((p, limit)) if u32::try_from(p.claimed()).is_ok_and(|held| held <= limit) => {
                Ok(())
            }
            Some((_, limit)) => Err(PrefixLimitExceeded { limit }),
            None => Ok(()),
        }
    }

    /// Numbers of a peer.
    #[must_use]
    pub fn counts(&self, peer: PeerIndex) -> PeerCounts {
        let Some(entry) = self.peer(peer) else { return PeerCounts::default() };
        let mut counts = PeerCounts {
            received: entry.received(),
            accepted: entry.accepted(),
            ..PeerCounts::default()
        };
        if let Some(group) = self.groups.get(entry.group).and_then(Option::as_ref) {
            for adj_out in Family::ALL.map(|family| group.adj_out(family)) {
                counts.sent += adj_out.routes;
                counts.no_next_hop += adj_out.no_next_hop;
                counts.too_big += adj_out.too_big;
            }
        }
        counts
    }

    /// Replaces the import policy of a peer. Paths that it does not accept are dropped now; paths
    /// that the old one did not accept were not kept: ask the peer for them again.
    pub fn set_import(&mut self, peer: PeerIndex, policy: Policy) {
        let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) else { return };
        entry.session.import = policy;
        let entry = &*entry;
        let mut denied: Vec<IpNet> = Vec::new();
        let v4 = entry.held(Family::Ipv4).iter().filter_map(|slot| self.v4.net(slot));
        denied.extend(v4.map(|net| net.key.prefix()));
        let v6 = entry.held(Family::Ipv6).iter().filter_map(|slot| self.v6.net(slot));
        denied.extend(v6.map(|net| net.key.prefix()));
        denied.retain(|prefix| !entry.session.import.accepts(prefix));
        for prefix in denied {
            self.withdraw(peer, prefix);
            self.deny(peer, prefix);
        }
    }

    /// Replaces the prefix limit of a peer; it is checked with the next UPDATE.
    pub fn set_max_prefixes(&mut self, peer: PeerIndex, limit: Option<u32>) {
        if let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) {
            entry.session.max_prefixes = limit;
        }
    }

    /// The peer begins to send all routes of a family again (BoRR, RFC 7313 §4): those that do not
    /// come again are gone.
    pub fn begin_refresh(&mut self, peer: PeerIndex, family: Family) {
        if let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) {
            *entry.unconfirmed_mut(family) = Some(entry.held(family).clone());
        }
    }

    /// The peer has sent all routes of a family again (EoRR): what it did not send is withdrawn.
    pub fn end_refresh(&mut self, peer: PeerIndex, family: Family) {
        let entry = self.peers.get_mut(peer.index()).and_then(Option::as_mut);
        let Some(gone) = entry.and_then(|entry| entry.unconfirmed_mut(family).take()) else {
            return;
        };
        let gone: Vec<Slot> = gone.iter().collect();
        self.withdraw_slots(peer, family, &gone);
    }

    fn withdraw_all(&mut self, peer: PeerIndex, nlri: &Nlri<'_>) {
        for (_, prefix) in nlri.iter() {
            self.withdraw(peer, prefix);
        }
    }

    fn announce_all(&mut self, peer: PeerIndex, nlri: &Nlri<'_>, attributes: Attributes) {
        let Some(entry) = self.peer(peer) else { return };
        let ineligible = self.eligibility(&attributes);
        let source = entry.source();
        let all = matches!(entry.session.import, Policy::All);
        let id = self.store.intern(attributes, source);
        let path = Path { attributes: id, since: self.clock, peer, ineligible };
        for (_, prefix) in nlri.iter() {
            if all || self.peer(peer).is_some_and(|p| p.session.import.accepts(&prefix)) {
                self.store.hold(id);
                self.announce(prefix, path);
            } else {
                self.withdraw(peer, prefix);
                self.deny(peer, prefix);
            }
        }
        self.store.release(id);
    }

    /// Sets a path, whose reference to its attributes is the caller's.
    pub(super) fn announce(&mut self, prefix: IpNet, path: Path) {
        let announced = match Family::of(&prefix) {
            Family::Ipv4 => V4::new(&prefix).map(|key| self.v4.announce(key, path)),
            Family::Ipv6 => V6::new(&prefix).map(|key| self.v6.announce(key, path)),
        };
        let peer = self.peers.get_mut(path.peer.index()).and_then(Option::as_mut);
        match announced {
            Some(Announced::New(slot)) => {
                if let Some(peer) = peer {
                    peer.held_mut(Family::of(&prefix)).insert(slot);
                    peer.ineligible += usize::from(path.ineligible.is_some());
                    peer.undeny(&prefix);
                }
            }
            Some(Announced::Replaced(slot, old)) => {
                if let Some(peer) = peer {
                    peer.confirm(Family::of(&prefix), slot);
                    peer.ineligible += usize::from(path.ineligible.is_some());
                    peer.ineligible -= usize::from(old.ineligible.is_some());
                }
                self.store.release(old.attributes);
            }
            Some(Announced::Unchanged(slot)) => {
                if let Some(peer) = peer {
                    peer.confirm(Family::of(&prefix), slot);
                }
                self.store.release(path.attributes);
            }
            None => self.store.release(path.attributes),
        }
    }

    /// Removes the path of a peer, and forgets that it was denied.
    pub(super) fn withdraw(&mut self, peer: PeerIndex, prefix: IpNet) {
        let withdrawn = match Family::of(&prefix) {
            Family::Ipv4 => V4::new(&prefix).and_then(|key| self.v4.withdraw(key, peer)),
            Family::Ipv6 => V6::new(&prefix).and_then(|key| self.v6.withdraw(key, peer)),
        };
        let entry = self.peers.get_mut(peer.index()).and_then(Option::as_mut);
        match withdrawn {
            Some((slot, path)) => {
                if let Some(entry) = entry {
                    entry.held_mut(Family::of(&prefix)).remove(slot);
                    entry.confirm(Family::of(&prefix), slot);
                    entry.ineligible -= usize::from(path.ineligible.is_some());
                }
                self.store.release(path.attributes);
            }
            None => {
                if let Some(entry) = entry {
                    entry.undeny(&prefix);
                }
            }
        }
    }

    fn deny(&mut self, peer: PeerIndex, prefix: IpNet) {
        if let Some(entry) = self.peers.get_mut(peer.index()).and_then(Option::as_mut) {
            entry.deny(prefix);
        }
    }

    /// Why a path with these attributes takes no part in the decision (RFC 4271 §9.1.2,
    /// RFC 4456 §8).
    fn eligibility(&self, attributes: &Attributes) -> Option<Ineligible> {
        let identity = &self.identity;
        if attributes.as_path.asns().any(|asn| asn == identity.asn) {
            Some(Ineligible::AsLoop)
        } else if attributes.originator_id == Some(identity.router_id) {
            Some(Ineligible::OriginatorIsUs)
        } else if attributes.cluster_list.contains(&identity.cluster_id) {
            Some(Ineligible::ClusterLoop)
        } else if !self.without_fib
            && self.own_addresses.binary_search(&attributes.next_hop).is_ok()
        {
            Some(Ineligible::NextHopIsUs)
        } else if !is_usable(attributes.next_hop) {
            Some(Ineligible::NextHopInvalid)
        } else {
            None
        }
    }
}

/// Can packets be sent to this address at all?
fn is_usable(next_hop: IpAddr) -> bool {
    let broadcast = matches!(next_hop, IpAddr::V4(address) if address.is_broadcast());
    !(next_hop.is_unspecified() || next_hop.is_loopback() || next_hop.is_multicast() || broadcast)
}

// The number 0 stands for "no attributes" in the Adj-RIB-Out.
const _: () = assert!(AttributeId::OWN.0 != 0);

//! A peer with an established session, as the RIB sees it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::resync::Stream;
use super::slots::{Slot, SlotSet};
use super::stale::Stale;
use crate::config::Policy;
use crate::types::{Families, Family, RouterId};

/// What the RIB needs to know of an established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Address of the peer.
    pub address: IpAddr,
    /// Its BGP Identifier.
    pub router_id: RouterId,
    /// It is in another AS.
    pub external: bool,
    /// It is a route-reflector client of ours.
    pub client: bool,
    /// Import policy. External sessions have [`Policy::OwnOnly`] unless somebody chose.
    pub import: Policy,
    /// Most prefixes it may hold.
    pub max_prefixes: Option<u32>,
    /// Families negotiated.
    pub families: Families,
    /// BoRR and EoRR were negotiated (RFC 7313).
    pub enhanced_refresh: bool,
}

/// Numbers of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// Prefixes it holds out to us, denied ones included.
    pub received: usize,
    /// Of those, past the import policy and eligible.
    pub accepted: usize,
    /// Prefixes that we hold out to it.
    pub sent: usize,
    /// Prefixes withheld because there is no next hop of their family.
    pub no_next_hop: usize,
    /// Prefixes withheld because their attributes are too big for the session.
    pub too_big: usize,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) session: Session,
    /// Never used for another session.
    pub(crate) serial: u64,
    /// Index of its update group.
    pub(crate) group: usize,
    pub(crate) stream: Stream,
    /// Somebody was told that it has bytes to send, and has not come for all of them.
    pub(crate) announced: bool,
    v4: SlotSet,
    v6: SlotSet,
    /// During a refresh by the peer (RFC 7313): what it has not sent again yet.
    unconfirmed: [Option<SlotSet>; 2],
    /// What it told in a session that has ended, and not again since.
    stale: [Stale; 2],
    /// Families whose End-of-RIB is held back.
    pub(crate) owed: Families,
    /// Held, but not eligible.
    pub(crate) ineligible: usize,
    /// Prefixes that the import policy denied: counted, their paths not kept. (Never walked, so the
    /// order of the set does not matter.)
    denied: HashSet<IpNet>,
}

impl Peer {
    pub(crate) fn new(session: Session, serial: u64, group: usize, stream: Stream) -> Self {
        Self {
            session,
            serial,
            group,
            stream,
            announced: false,
            v4: SlotSet::default(),
            v6: SlotSet::default(),
            unconfirmed: [None, None],
            stale: [Stale::default(), Stale::default()],
            owed: Families::NONE,
            ineligible: 0,
            denied: HashSet::new(),
        }
    }

    /// The slots in which it has a path.
    pub(crate) const fn held(&self, family: Family) -> &SlotSet {
        match family {
            Family::Ipv4 => &self.v4,
            Family::Ipv6 => &self.v6,
        }
    }

    pub(crate) const fn held_mut(&mut self, family: Family) -> &mut SlotSet {
        match family {
            Family::Ipv4 => &mut self.v4,
            Family::Ipv6 => &mut self.v6,
        }
    }

    pub(crate) const fn unconfirmed_mut(&mut self, family: Family) -> &mut Option<SlotSet> {
        let [v4, v6] = &mut self.unconfirmed;
        match family {
            Family::Ipv4 => v4,
            Family::Ipv6 => v6,
        }
    }

    /// The peer has spoken about the prefix at `slot`.
    pub(crate) fn confirm(&mut self, family: Family, slot: Slot) {
        if let Some(unconfirmed) = self.unconfirmed_mut(family) {
            unconfirmed.remove(slot);
        }
        self.stale_mut(family).confirm(slot);
    }

    pub(crate) const fn stale_of(&self, family: Family) -> &Stale {
        let [v4, v6] = &self.stale;
        match family {
            Family::Ipv4 => v4,
            Family::Ipv6 => v6,
        }
    }

    pub(crate) const fn stale_mut(&mut self, family: Family) -> &mut Stale {
        let [v4, v6] = &mut self.stale;
        match family {
            Family::Ipv4 => v4,
            Family::Ipv6 => v6,
        }
    }

    /// Stale paths of both families.
    pub(crate) fn stale(&self) -> usize {
        self.stale.iter().map(Stale::len).sum()
    }

    /// Forgets what only a session can have. A later session begins anew.
    pub(crate) fn end_session(&mut self) {
        self.announced = false;
        self.unconfirmed = [None, None];
        self.owed = Families::NONE;
        self.denied = HashSet::new();
    }

    pub(crate) fn deny(&mut self, prefix: IpNet) {
        self.denied.insert(prefix);
    }

    pub(crate) fn undeny(&mut self, prefix: &IpNet) {
        if !self.denied.is_empty() {
            self.denied.remove(prefix);
        }
    }

    /// What counts for its limit: what is left of an earlier session does not.
    pub(crate) fn claimed(&self) -> usize {
        self.received().saturating_sub(self.stale())
    }

    pub(crate) fn received(&self) -> usize {
        self.v4.len() + self.v6.len() + self.denied.len()
    }

    pub(crate) fn accepted(&self) -> usize {
        (self.v4.len() + self.v6.len()).saturating_sub(self.ineligible)
    }

    /// The source of its paths, for those who send them on.
    pub(crate) const fn source(&self) -> super::attributes::Source {
        if self.session.external {
            super::attributes::Source::External
        } else {
            let RouterId(router_id) = self.session.router_id;
            super::attributes::Source::Internal { client: self.session.client, router_id }
        }
    }

    pub(crate) const fn router_id(&self) -> Ipv4Addr {
        self.session.router_id.0
    }
}

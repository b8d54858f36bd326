//! Applying a whole configuration: only what changed is touched.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::neighbour::{Neighbour, Stage, group_key};
use super::{Speaker, identity};
use crate::config::{Config, PeerConfig};
use crate::md5::Md5;
use crate::session::{self, Local};
use crate::wire::error::Notification;
use crate::wire::notification::{cease, error_code};
use crate::wire::refresh::{RefreshKind, RouteRefresh};

impl Speaker {
    /// Replaces the whole configuration. A peer whose settings did not change keeps its session.
    ///
    /// A changed policy takes effect on the live session: what is exported is sent or withdrawn,
    /// and the peer is asked for its routes again if it can be (RFC 2918); if not, the session is
    /// reset.
    pub fn configure(&mut self, now: Instant, config: Config) {
        self.set_clock(now);
        let old = std::mem::replace(&mut self.config, config);
        let config = self.config.clone();
        let wanted: BTreeMap<SocketAddr, &PeerConfig> =
            config.peers.iter().map(|peer| (peer.endpoint(), peer)).collect();
        for endpoint in old.peers.iter().map(PeerConfig::endpoint) {
            if !wanted.contains_key(&endpoint) {
                self.remove(now, endpoint);
            }
        }
        if identity(&old) != identity(&config) {
            // Loops, reflection and the decision depend on it: no path learnt before stays.
            self.reset_all(now);
            self.rib.set_identity(identity(&config));
        }
        self.rib.set_own_addresses(self.own_addresses());
        for (endpoint, peer) in wanted {
            match self.by_endpoint.get(&endpoint).copied() {
                Some(number) => self.change(now, number, peer),
                None => self.add(now, peer),
            }
        }
        self.exports_changed = true;
        self.review_deferral(now);
    }

    fn local(&self) -> Local {
        Local {
            asn: self.config.asn,
            router_id: self.config.router_id,
            hostname: self.config.hostname.clone(),
        }
    }

    fn own_addresses(&self) -> Vec<IpAddr> {
        let configured = self.config.peers.iter().flat_map(|peer| {
            let next_hops = [peer.next_hop_v4.map(IpAddr::V4), peer.next_hop_v6.map(IpAddr::V6)];
            next_hops.into_iter().chain([peer.local_address]).flatten()
        });
        let sessions = self.neighbours.iter().filter_map(|(_, neighbour)| {
            Some(neighbour.record.up.as_ref()?.local?.ip().to_canonical())
        });
        configured.chain(sessions).collect()
    }

    fn add(&mut self, now: Instant, peer: &PeerConfig) {
        let number = self.neighbours.next_number();
        // Peers of one speaker must not move in step, nor all speakers with one peer.
        let seed = u64::from(self.config.router_id.0.to_bits()) << 32 | u64::from(number);
        let mut session = session::Peer::new(now, number, self.local(), peer.clone(), seed);
        if let Some(until) =
            peer.graceful_restart.and_then(|settings| self.start.checked_add(settings.restart_time))
        {
            session = session.restarted_until(until);
        }
        if peer.md5 != Md5::Unknown {
            session.start(now);
        }
        self.neighbours.push(Neighbour::new(session, peer.clone()));
        self.by_endpoint.insert(peer.endpoint(), number);
        self.attend(now, number);
    }

    fn remove(&mut self, now: Instant, endpoint: SocketAddr) {
        let Some(number) = self.by_endpoint.remove(&endpoint) else { return };
        let Some(neighbour) = self.neighbours.get_mut(number) else { return };
        let notification = Notification::new(error_code::CEASE, cease::PEER_DECONFIGURED);
        neighbour.record.leaving = true;
        neighbour.session.stop(now, &notification);
        let outputs = self.outputs.len();
        self.attend(now, number);
        self.drop_kept(now, number);
        // Nothing to close: nobody will ask for its last words.
        let closes = self.outputs.iter().skip(outputs);
        if !closes.into_iter().any(|output| matches!(output, super::Output::Close { .. })) {
            self.bury(number);
        }
    }

    fn reset_all(&mut self, now: Instant) {
        let numbers: Vec<u32> = self.by_endpoint.values().copied().collect();
        for number in numbers {
            self.drop_kept(now, number);
            if let Some(neighbour) = self.neighbours.get_mut(number)
                && neighbour.record.up.is_some()
            {
                let notification =
                    Notification::new(error_code::CEASE, cease::CONFIGURATION_CHANGE);
                neighbour.session.reset(now, &notification, None);
                self.attend(now, number);
            }
        }
    }

    pub(super) fn drop_kept(&mut self, now: Instant, number: u32) {
        let Self { rib, by_index, outputs, neighbours, .. } = self;
        if let Some(neighbour) = neighbours.get_mut(number) {
            neighbour.record.drop_kept(&mut Stage { now, number, rib, by_index, outputs });
        }
    }

    fn change(&mut self, now: Instant, number: u32, peer: &PeerConfig) {
        let local = self.local();
        let Some(neighbour) = self.neighbours.get_mut(number) else { return };
        let old = std::mem::replace(&mut neighbour.record.config, peer.clone());
        // Without the key there is no session: neither with an old one nor without any.
        let (before, after) = (old.md5 == Md5::Unknown, peer.md5 == Md5::Unknown);
        if after && !before {
            let notification = Notification::new(error_code::CEASE, cease::CONFIGURATION_CHANGE);
            neighbour.session.stop(now, &notification);
        }
        let reset = neighbour.session.reconfigure(now, local, peer.clone());
        if before && !after {
            neighbour.session.start(now);
        }
        // A pause for too many prefixes ends with the change that may be its cure.
        if old != *peer && neighbour.session.held_down_until().is_some() {
            let notification = Notification::new(error_code::CEASE, cease::CONFIGURATION_CHANGE);
            neighbour.session.reset(now, &notification, None);
        }
        self.attend(now, number);
        if reset || !peer.graceful_restart.is_some_and(|settings| settings.helper) {
            self.drop_kept(now, number);
        }
        let Some(neighbour) = self.neighbours.get_mut(number) else { return };
        if let Some(kept) = neighbour.record.kept
            && old.import != peer.import
        {
            self.rib.set_import(kept.index, peer.import.clone());
        }
        let Some(up) = neighbour.record.up.clone() else { return };
        let key = group_key(peer, &up.negotiated, up.local);
        self.rib.regroup(up.index, key);
        self.rib.set_max_prefixes(up.index, peer.max_prefixes);
        if old.import == peer.import {
            return;
        }
        self.rib.set_import(up.index, peer.import.clone());
        if up.negotiated.route_refresh {
            for family in up.negotiated.families.iter() {
                let request = RouteRefresh::new(family, RefreshKind::Request);
                neighbour.session.send_route_refresh(request);
            }
        } else {
            let notification = Notification::new(error_code::CEASE, cease::CONFIGURATION_CHANGE);
            neighbour.session.reset(now, &notification, None);
        }
        self.attend(now, number);
    }
}

//! What the speaker is told of the network around it: links that fail, next hops that are not there.

use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::Speaker;
use super::neighbour::Neighbour;
use super::output::{Output, SpeakerEvent};
use crate::rib::PeerCounts;

impl Speaker {
    /// Tells the networks that we are connected to by links that are up.
    ///
    /// The session of an external peer that is not several hops away (no `ebgp_multihop`) ends at
    /// once when its network is no longer among them, and its paths go, graceful restart or not:
    /// nobody forwards over that link. When the network is there again, the peer is dialled at once.
    pub fn set_connected(&mut self, now: Instant, networks: Vec<IpNet>) {
        self.set_clock(now);
        let Some(old) = self.connected.replace(networks) else { return };
        let Some(new) = self.connected.take() else { return };
        let leads = |networks: &[IpNet], address: IpAddr| {
            networks.iter().any(|network| network.contains(&address))
        };
        let numbers: Vec<u32> = self.by_endpoint.values().copied().collect();
        for number in numbers {
            let Some(neighbour) = self.neighbours.get_mut(number) else { continue };
            let config = &neighbour.record.config;
            if config.asn == self.config.asn || config.ebgp_multihop.is_some() {
                continue;
            }
            match (leads(&old, config.address), leads(&new, config.address)) {
                (true, false) => {
                    neighbour.session.link_down(now);
                    self.drop_kept(now, number);
                }
                (false, true) => neighbour.session.link_up(now),
                (true, true) | (false, false) => continue,
            }
            self.attend(now, number);
        }
        self.connected = Some(new);
    }

    /// Tells for which peers the number of prefixes without a next hop has changed.
    pub(super) fn tell_withheld(&mut self) {
        let Self { rib, neighbours, by_endpoint, outputs, .. } = self;
        for number in by_endpoint.values() {
            let Some(Neighbour { record, .. }) = neighbours.get_mut(*number) else { continue };
            let Some(up) = record.up.as_mut() else { continue };
            let PeerCounts { no_next_hop: prefixes, .. } = rib.counts(up.index);
            if up.withheld != prefixes {
                up.withheld = prefixes;
                let peer = record.config.address;
                outputs.push_back(Output::Event(SpeakerEvent::Withheld { peer, prefixes }));
            }
        }
    }
}

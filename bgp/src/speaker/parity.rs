//! May a set of peers go because others tell the same?

use std::net::SocketAddr;

use ipnet::IpNet;

use super::Speaker;
use super::neighbour::Up;
use crate::rib::PeerIndex;
use crate::view::Parity;

impl Speaker {
    /// Is every prefix and next hop learnt from the peers `from` also learnt from the peers
    /// `against`?
    ///
    /// Asked before the sessions with `from` are given up for those with `against`. Paths count as
    /// the import policy of their peer lets them in. What a peer of `against` told in a session
    /// that has ended does not count.
    #[must_use]
    pub fn parity(&self, from: &[SocketAddr], against: &[SocketAddr]) -> Parity {
        let index = |peer: &SocketAddr| self.up(peer).map(|up| up.index);
        let theirs: Vec<PeerIndex> = from.iter().filter_map(index).collect();
        let others: Vec<PeerIndex> = against.iter().filter_map(index).collect();
        let coverage = self.rib.parity(&theirs, &others);
        let told_all = |peer: &SocketAddr| self.up(peer).is_some_and(Up::is_complete);
        Parity {
            compared: coverage.compared,
            missing: coverage.missing,
            redundancy: coverage.least,
            unready: against.iter().copied().filter(|peer| !told_all(peer)).collect(),
        }
    }

    /// For each prefix with a learnt path in use: how many of `peers` hold out all next hops in use,
    /// in the session they have now. Sorted.
    ///
    /// With all but `peers` gone, forwarding to a prefix with at least one holder would not change.
    /// A peer counts once it has told everything.
    #[must_use]
    pub fn holders(&self, peers: &[SocketAddr]) -> Vec<(IpNet, usize)> {
        let complete = peers.iter().filter_map(|peer| self.up(peer)).filter(|up| up.is_complete());
        let indexes: Vec<PeerIndex> = complete.map(|up| up.index).collect();
        self.rib.holders(&indexes)
    }

    fn up(&self, peer: &SocketAddr) -> Option<&Up> {
        let number = self.by_endpoint.get(peer)?;
        self.neighbours.get(*number)?.record.up.as_ref()
    }
}

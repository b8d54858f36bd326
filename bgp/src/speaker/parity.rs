//! May a set of peers go because others tell the same?

use std::net::IpAddr;

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
    pub fn parity(&self, from: &[IpAddr], against: &[IpAddr]) -> Parity {
        let index = |address: &IpAddr| self.up(address).map(|up| up.index);
        let theirs: Vec<PeerIndex> = from.iter().filter_map(index).collect();
        let others: Vec<PeerIndex> = against.iter().filter_map(index).collect();
        let coverage = self.rib.parity(&theirs, &others);
        let told_all = |address: &IpAddr| self.up(address).is_some_and(Up::is_complete);
        Parity {
            compared: coverage.compared,
            missing: coverage.missing,
            redundancy: coverage.least,
            unready: against.iter().copied().filter(|address| !told_all(address)).collect(),
        }
    }

    fn up(&self, address: &IpAddr) -> Option<&Up> {
        let number = self.by_address.get(address)?;
        self.neighbours.get(*number)?.record.up.as_ref()
    }
}

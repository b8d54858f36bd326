//! Is everything that some peers tell, or that is in use, known from others as well?

use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::Rib;
use super::key::Key;
use super::path::{Path, PeerIndex};
use super::table::{Net, Table};

/// Answer of [`Rib::parity`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Pairs of prefix and next hop looked at.
    pub compared: usize,
    /// Prefixes with a next hop that only the first set of peers knows, sorted.
    pub missing: Vec<IpNet>,
    /// Fewest peers of the second set that know a pair; `None` without any pair.
    pub least: Option<usize>,
}

/// A set of peers, asked once for every path.
struct Members(Vec<bool>);

impl Members {
    fn new(peers: &[PeerIndex]) -> Self {
        let mut members = Vec::new();
        for peer in peers {
            if members.len() <= peer.index() {
                members.resize(peer.index() + 1, false);
            }
            if let Some(member) = members.get_mut(peer.index()) {
                *member = true;
            }
        }
        Self(members)
    }

    fn contains(&self, peer: PeerIndex) -> bool {
        self.0.get(peer.index()).copied().unwrap_or(false)
    }
}

impl Rib {
    /// Compares the eligible paths of two sets of peers: for each prefix and next hop learnt from
    /// `from`, how many of `against` hold out the same?
    #[must_use]
    pub fn parity(&self, from: &[PeerIndex], against: &[PeerIndex]) -> Coverage {
        let mut coverage = Coverage::default();
        let (from, against) = (Members::new(from), Members::new(against));
        self.compare(&self.v4, &from, &against, &mut coverage);
        self.compare(&self.v6, &from, &against, &mut coverage);
        coverage.missing.sort_unstable();
        coverage
    }

    fn compare<K: Key>(
        &self,
        table: &Table<K>,
        from: &Members,
        against: &Members,
        coverage: &mut Coverage,
    ) {
        for (_, net) in table.iter() {
            let wanted = self.next_hops_from(net, from);
            if wanted.is_empty() {
                continue;
            }
            let held = self.next_hops_from(net, against);
            let mut least = usize::MAX;
            for (index, next_hop) in wanted.iter().enumerate() {
                if wanted.iter().take(index).any(|earlier| earlier == next_hop) {
                    continue;
                }
                coverage.compared += 1;
                least = least.min(held.iter().filter(|other| *other == next_hop).count());
            }
            if least == 0 {
                coverage.missing.push(net.key.prefix());
            }
            coverage.least = Some(coverage.least.map_or(least, |so_far| so_far.min(least)));
        }
    }

    /// For each prefix that is forwarded to learnt next hops: how many of `peers` hold out each of
    /// them at least. Sorted by prefix.
    #[must_use]
    pub fn holders(&self, peers: &[PeerIndex]) -> Vec<(IpNet, usize)> {
        let members = Members::new(peers);
        let mut holders = Vec::new();
        self.count_holders(&self.v4, &members, &mut holders);
        self.count_holders(&self.v6, &members, &mut holders);
        holders.sort_unstable();
        holders
    }

    fn count_holders<K: Key>(
        &self,
        table: &Table<K>,
        peers: &Members,
        holders: &mut Vec<(IpNet, usize)>,
    ) {
        for (_, net) in table.iter() {
            let held = self.next_hops_from(net, peers);
            let count = |hop: &IpAddr| held.iter().filter(|other| *other == hop).count();
            // None in use: our own, or nothing that is eligible.
            let least = self.next_hops.get(net.fib).iter().map(count).min();
            holders.extend(least.map(|least| (net.key.prefix(), least)));
        }
    }

    /// The next hop of each eligible path of `peers`.
    fn next_hops_from<K>(&self, net: &Net<K>, peers: &Members) -> SmallVec<[IpAddr; 4]> {
        let theirs = |path: &&Path| path.ineligible.is_none() && peers.contains(path.peer);
        let paths = net.paths.as_slice().iter().filter(theirs);
        paths
            .filter_map(|path| Some(self.store.get(path.attributes)?.attributes.next_hop))
            .collect()
    }
}

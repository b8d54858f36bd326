//! The RIBs as somebody who looks sees them.

use ipnet::IpNet;

use super::Rib;
use super::decision::{Candidate, Verdict, decide};
use super::export::DEFAULT_LOCAL_PREF;
use super::key::Key;
use super::next_hops::NextHopsId;
use super::path::{Path, PeerIndex};
use super::table::{Net, Table};
use crate::types::Family;
use crate::wire::attribute::Attributes;

/// A prefix with its paths.
#[derive(Clone, Debug, PartialEq)]
pub struct PrefixEntry {
    /// Prefix.
    pub prefix: IpNet,
    /// Best first, ineligible last.
    pub paths: Vec<PathEntry>,
    /// Next hops that the kernel was last told.
    pub next_hops: Vec<std::net::IpAddr>,
}

/// A path.
#[derive(Clone, Debug, PartialEq)]
pub struct PathEntry {
    /// Who says so; `None`: we do.
    pub peer: Option<PeerIndex>,
    /// Attributes as received; `None` for an own prefix.
    pub attributes: Option<Attributes>,
    /// LOCAL_PREF used in the decision.
    pub local_pref: u32,
    /// Outcome.
    pub verdict: Verdict,
    /// When it was learnt or last changed, in seconds of the clock.
    pub since: u32,
}

impl Rib {
    /// All prefixes that have a path, sorted.
    #[must_use]
    pub fn prefixes(&self) -> Vec<PrefixEntry> {
        let mut entries = self.entries(&self.v4);
        entries.extend(self.entries(&self.v6));
        entries
    }

    /// One prefix, if it has a path.
    #[must_use]
    pub fn prefix(&self, prefix: &IpNet) -> Option<PrefixEntry> {
        fn entry<K: Key>(rib: &Rib, table: &Table<K>, prefix: &IpNet) -> Option<PrefixEntry> {
            table.net(table.find(K::new(prefix)?)?).and_then(|net| rib.entry(net))
        }
        match Family::of(prefix) {
            Family::Ipv4 => entry(self, &self.v4, prefix),
            Family::Ipv6 => entry(self, &self.v6, prefix),
        }
    }

    /// Prefixes with a best path, as of the last flush.
    #[must_use]
    pub fn reachable(&self) -> usize {
        self.v4.reachable + self.v6.reachable
    }

    /// Paths of all peers and our own, ineligible ones included.
    #[must_use]
    pub fn paths(&self) -> usize {
        self.v4.paths + self.v6.paths
    }

    /// Distinct attribute sets.
    #[must_use]
    pub fn attribute_sets(&self) -> usize {
        self.store.len()
    }

    /// Update groups.
    #[must_use]
    pub fn update_groups(&self) -> usize {
        self.groups.iter().flatten().count()
    }

    /// Octets of encoded UPDATEs that wait for readers.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        self.groups.iter().flatten().map(|group| group.log.bytes()).sum()
    }

    /// Slots in use or waiting to be freed, both families: what memory grows with.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.v4.iter().count() + self.v6.iter().count()
    }

    fn entries<K: Key>(&self, table: &Table<K>) -> Vec<PrefixEntry> {
        let mut nets: Vec<&Net<K>> = table.iter().map(|(_, net)| net).collect();
        nets.sort_unstable_by_key(|net| net.key);
        nets.into_iter().filter_map(|net| self.entry(net)).collect()
    }

    fn entry<K: Key>(&self, net: &Net<K>) -> Option<PrefixEntry> {
        let paths = net.paths.as_slice();
        if paths.is_empty() {
            return None;
        }
        let (eligible, other): (Vec<&Path>, Vec<&Path>) =
            paths.iter().partition(|path| path.ineligible.is_none());
        let candidates: Vec<Candidate> = eligible.iter().map(|p| self.candidate(p)).collect();
        let decision = decide(&candidates);
        let verdict = |index| decision.as_ref().map_or(Verdict::Best, |d| d.verdict(index));
        let mut ranked: Vec<(Verdict, &Path)> =
            eligible.into_iter().enumerate().map(|(i, path)| (verdict(i), path)).collect();
        ranked.extend(
            other.into_iter().filter_map(|p| Some((Verdict::Ineligible(p.ineligible?), p))),
        );
        ranked.sort_by_key(|(verdict, path)| (rank(*verdict), path.peer));
        Some(PrefixEntry {
            prefix: net.key.prefix(),
            paths: ranked.into_iter().map(|(verdict, path)| self.path(path, verdict)).collect(),
            next_hops: match net.fib {
                NextHopsId::NONE | NextHopsId::OWN => Vec::new(),
                id => self.next_hops.get(id).to_vec(),
            },
        })
    }

    fn path(&self, path: &Path, verdict: Verdict) -> PathEntry {
        let own = path.peer == PeerIndex::LOCAL;
        let entry = self.store.get(path.attributes);
        let local_pref = entry.and_then(|entry| entry.attributes.local_pref);
        PathEntry {
            peer: (!own).then_some(path.peer),
            attributes: entry.filter(|_| !own).map(|entry| entry.attributes.clone()),
            local_pref: local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            verdict,
            since: path.since,
        }
    }
}

/// The longer a path stayed in the decision process, the better it is.
fn rank(verdict: Verdict) -> (u8, u8) {
    match verdict {
        Verdict::Best => (0, 0),
        Verdict::Multipath(by) | Verdict::Lost(by) => (1, u8::MAX - by.step()),
        Verdict::Ineligible(_) => (2, 0),
    }
}

//! Sets of pod addresses that rules name.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::address_type;
use crate::index::PodQuery;
use crate::input::Block;
use crate::nft::ir::{IpFamily, SetSpec, Type};
use crate::nft::name;
use crate::resolve::PortSet;

/// A set of the addresses of pods, alone or with protocol and port. It is known by the digest of its
/// sources, of which there may be thousands.
#[derive(Debug)]
pub(crate) struct PeerSet {
    with_ports: bool,
    /// Sorted, each once.
    sources: Vec<Source>,
    digest: u128,
}

/// Part of a [`PeerSet`]: these pods, as far as they lie within the block, with these ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) query: PodQuery,
    pub(crate) within: Option<Arc<Block>>,
    pub(crate) ports: Arc<PortSet>,
}

impl PeerSet {
    /// Of these pods, on any port.
    pub(super) fn any_port<'a>(queries: impl Iterator<Item = &'a PodQuery>) -> Self {
        let everything = Arc::new(PortSet::everything());
        let source = |query: &PodQuery| Source {
            query: query.clone(),
            within: None,
            ports: Arc::clone(&everything),
        };
        Self::new(false, queries.map(source).collect())
    }

    /// Of these pods with their ports.
    pub(super) fn with_ports(sources: Vec<Source>) -> Self {
        Self::new(true, sources)
    }

    fn new(with_ports: bool, mut sources: Vec<Source>) -> Self {
        sources.sort_unstable();
        sources.dedup();
        let mut octets = Vec::with_capacity(sources.len().saturating_mul(32));
        for Source { query, within, ports } in &sources {
            octets.extend(query.digest().to_be_bytes());
            let within = within.as_ref().map(ToString::to_string).unwrap_or_default();
            octets.extend(u32::try_from(within.len()).unwrap_or(u32::MAX).to_be_bytes());
            octets.extend(within.as_bytes());
            ports.write_to(&mut octets);
        }
        Self { with_ports, sources, digest: name::number(&octets) }
    }

    /// Its elements have protocol and port.
    pub(crate) fn has_ports(&self) -> bool {
        self.with_ports
    }

    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Names of its sets, v4 and v6.
    pub(crate) fn names(&self) -> [String; 2] {
        let kind = if self.with_ports { "peer-ports" } else { "peers" };
        [format!("{kind}4/{:032x}", self.digest), format!("{kind}6/{:032x}", self.digest)]
    }

    pub(crate) fn spec(&self, family: IpFamily) -> SetSpec {
        let mut key = vec![address_type(family)];
        if self.with_ports {
            key.extend([Type::Proto, Type::Port]);
        }
        SetSpec { key, interval: false, verdict_map: false }
    }

    fn identity(&self) -> (bool, u128) {
        (self.with_ports, self.digest)
    }
}

impl PartialEq for PeerSet {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for PeerSet {}

impl PartialOrd for PeerSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PeerSet {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl Hash for PeerSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

//! Routes of others to prefixes that may be ours as well, with a metric that the kernel prefers.

use ipnet::IpNet;
use netlink_packet_route::route::{RouteProtocol, RouteType};
use rustc_hash::FxHashMap;

use super::METRIC;
use super::links::Links;
use super::message::Seen;
use super::types::{Installed, Path};

/// Prefixes that are remembered. Where another program has more routes than that in the main table,
/// some that win over ours are not told.
const LIMIT: usize = 1 << 16;

/// A route that wins over ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rival {
    metric: u32,
    protocol: RouteProtocol,
    kind: RouteType,
    content: Installed,
    device: Option<u32>,
}

impl Rival {
    /// Packets go another way than by our route: not so if it is the same way, or if the prefix is
    /// that of the very link that our route leaves by.
    fn misleads(&self, ours: &[Path]) -> bool {
        match (&self.content, self.kind, self.device) {
            (Installed::Paths(theirs), ..) => {
                let way = |path: &Path| (path.gateway, path.interface);
                !theirs.iter().map(way).eq(ours.iter().map(way))
            }
            (_, RouteType::Unicast, Some(device)) => {
                ours.iter().any(|path| path.interface != device)
            }
            _ => true,
        }
    }

    fn uses_interface(&self, index: u32) -> bool {
        let paths: &[Path] = match &self.content {
            Installed::Paths(paths) => paths,
            Installed::Blackhole | Installed::Odd => &[],
        };
        self.device == Some(index) || paths.iter().any(|path| path.interface == index)
    }

    /// Whose it is and where it leads, in the words of `ip route`.
    pub(super) fn describe(&self, links: &Links) -> String {
        let name = |index: u32| links.name(index).map_or_else(|| index.to_string(), str::to_owned);
        let way = match (&self.content, self.device) {
            (Installed::Paths(paths), _) => {
                let hop = |p: &Path| format!("via {} dev {}", p.gateway, name(p.interface));
                paths.iter().map(hop).collect::<Vec<_>>().join(", ")
            }
            (_, Some(device)) if self.kind == RouteType::Unicast => format!("dev {}", name(device)),
            _ => format!("{:?}", self.kind).to_lowercase(),
        };
        let protocol = self.protocol.to_string().to_lowercase();
        format!("proto {protocol} {way} metric {}", self.metric)
    }
}

/// All that is known of them.
#[derive(Debug, Default)]
pub(super) struct Rivals(FxHashMap<IpNet, Vec<Rival>>);

impl Rivals {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes a route of somebody else that is there now, `instead` of those with its metric; false if
    /// it is of no interest.
    pub(super) fn appeared(&mut self, seen: Seen, instead: bool) -> bool {
        let Seen { prefix, metric, protocol, kind, content, device, .. } = seen;
        if metric >= METRIC || (self.0.len() >= LIMIT && !self.0.contains_key(&prefix)) {
            return false;
        }
        let rival = Rival { metric, protocol, kind, content, device };
        let all = self.0.entry(prefix).or_default();
        all.retain(|other| *other != rival && !(instead && other.metric == metric));
        all.push(rival);
        true
    }

    /// Takes that it is gone; false if it is not known as such: it may be a part of one.
    pub(super) fn vanished(&mut self, seen: Seen) -> bool {
        let Seen { prefix, metric, protocol, kind, content, device, .. } = seen;
        let Some(all) = self.0.get_mut(&prefix) else { return metric >= METRIC };
        let rival = Rival { metric, protocol, kind, content, device };
        let before = all.len();
        all.retain(|other| *other != rival);
        let found = all.len() < before;
        let known = found || all.iter().all(|other| other.metric != metric);
        if all.is_empty() {
            self.0.remove(&prefix);
        }
        known
    }

    /// The one that the kernel prefers to our route by these paths, and that leads elsewhere.
    pub(super) fn winner(&self, prefix: &IpNet, ours: &[Path]) -> Option<&Rival> {
        let first = self.0.get(prefix)?.iter().min_by_key(|rival| rival.metric)?;
        first.misleads(ours).then_some(first)
    }

    /// One to this prefix leaves by this interface.
    pub(super) fn uses_interface(&self, prefix: &IpNet, index: u32) -> bool {
        let all = self.0.get(prefix).map_or(&[][..], Vec::as_slice);
        all.iter().any(|rival| rival.uses_interface(index))
    }
}

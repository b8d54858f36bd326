//! Paths of one prefix, twelve octets each, the first one without an allocation.

use super::attributes::AttributeId;
use super::decision::Ineligible;

/// Names a peer with an established session; reused after the session's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub(crate) u16);

impl PeerIndex {
    /// Ourselves.
    pub(crate) const LOCAL: Self = Self(0);

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// As an index into what somebody else keeps by peer; small and dense.
    #[must_use]
    pub const fn position(self) -> usize {
        self.index()
    }
}

/// A path: who says so, with which attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) attributes: AttributeId,
    /// Seconds of the speaker's clock when it was learnt or last changed.
    pub(crate) since: u32,
    pub(crate) peer: PeerIndex,
    pub(crate) ineligible: Option<Ineligible>,
}

/// The paths of a prefix, at most one of each peer.
#[derive(Debug, Default)]
pub(crate) enum Paths {
    #[default]
    None,
    One(Path),
    // The box keeps a prefix with one path small; a vector alone has three words.
    #[expect(clippy::box_collection, reason = "one word instead of three in every prefix")]
    Many(Box<Vec<Path>>),
}

impl Paths {
    pub(crate) fn as_slice(&self) -> &[Path] {
        match self {
            Self::None => &[],
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }

    pub(crate) fn of_mut(&mut self, peer: PeerIndex) -> Option<&mut Path> {
        let paths = match self {
            Self::None => return None,
            Self::One(path) => std::slice::from_mut(path),
            Self::Many(paths) => paths.as_mut_slice(),
        };
        paths.iter_mut().find(|path| path.peer == peer)
    }

    /// Adds the path of a peer that has none yet.
    pub(crate) fn add(&mut self, path: Path) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(path),
            Self::One(first) => Self::Many(Box::new(vec![first, path])),
            Self::Many(mut paths) => {
                paths.push(path);
                Self::Many(paths)
            }
        };
    }

    pub(crate) fn remove(&mut self, peer: PeerIndex) -> Option<Path> {
        match self {
            Self::None => None,
            Self::One(path) if path.peer == peer => {
                let path = *path;
                *self = Self::None;
                Some(path)
            }
            Self::One(_) => None,
            Self::Many(paths) => {
                let at = paths.iter().position(|path| path.peer == peer)?;
                let removed = paths.swap_remove(at);
                if let [last] = paths.as_slice() {
                    *self = Self::One(*last);
                }
                Some(removed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_compact() {
        assert_eq!(size_of::<Path>(), 12);
        assert_eq!(size_of::<Paths>(), 16);
    }

    #[test]
    fn paths_of_peers_come_and_go_in_any_order() {
        let path = |peer| Path {
            attributes: AttributeId::OWN,
            since: 0,
            peer: PeerIndex(peer),
            ineligible: None,
        };
        let mut paths = Paths::default();
        for peer in 1..=3 {
            paths.add(path(peer));
        }
        assert_eq!(paths.remove(PeerIndex(1)), Some(path(1)));
        assert_eq!(paths.remove(PeerIndex(1)), None);
        assert_eq!(paths.as_slice().len(), 2);
        assert!(paths.of_mut(PeerIndex(3)).is_some());
        assert_eq!(paths.remove(PeerIndex(3)), Some(path(3)));
        assert!(matches!(paths, Paths::One(_)));
        assert_eq!(paths.remove(PeerIndex(2)), Some(path(2)));
        assert!(paths.as_slice().is_empty());
    }
}

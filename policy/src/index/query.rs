//! What a selector of the API comes down to.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::file;
use crate::input::{LabelSelector, Labels};
use crate::nft::name;

/// Pods by namespace and labels. Cheap to copy and to compare, by a digest of its text: a selector
/// is compared whenever the policies of a pod are added up, and there may be thousands of them.
#[derive(Clone, Debug)]
pub(crate) struct PodQuery {
    digest: u128,
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    namespaces: NamespaceQuery,
    pods: LabelSelector,
}

#[derive(Debug)]
pub(crate) enum NamespaceQuery {
    Named(Box<str>),
    /// A namespace that we have not heard of matches no selector, not even the empty one.
    Selected(LabelSelector),
}

impl PodQuery {
    pub(crate) fn new(namespaces: NamespaceQuery, pods: LabelSelector) -> Self {
        let parts = Parts { namespaces, pods };
        Self { digest: name::number(parts.to_string().as_bytes()), parts: Arc::new(parts) }
    }

    /// Pods of one namespace.
    pub(crate) fn pods_of(namespace: &str, pods: LabelSelector) -> Self {
        Self::new(NamespaceQuery::Named(namespace.into()), pods)
    }

    /// Pods of all namespaces.
    pub(crate) fn everybody() -> Self {
        Self::new(NamespaceQuery::Selected(LabelSelector::default()), LabelSelector::default())
    }

    /// Different for different queries: nobody can find two texts of one digest.
    pub(crate) fn digest(&self) -> u128 {
        self.digest
    }

    pub(super) fn namespaces(&self) -> &NamespaceQuery {
        &self.parts.namespaces
    }

    pub(super) fn matches(
        &self,
        namespace: &str,
        namespace_labels: Option<&Labels>,
        pod: &Labels,
    ) -> bool {
        let in_namespace = match &self.parts.namespaces {
            NamespaceQuery::Named(name) => **name == *namespace,
            NamespaceQuery::Selected(selector) => {
                namespace_labels.is_some_and(|labels| selector.matches(labels))
            }
        };
        in_namespace && self.parts.pods.matches(pod)
    }

    /// Where the selector is filed: one file, or one for each value that its anchor admits.
    pub(super) fn files(&self) -> Vec<u64> {
        let namespace = match &self.parts.namespaces {
            NamespaceQuery::Named(name) => Some(&**name),
            NamespaceQuery::Selected(_) => None,
        };
        match self.parts.pods.anchor() {
            None => vec![file(namespace, None)],
            Some((key, values)) => {
                values.iter().map(|value| file(namespace, Some((key, value)))).collect()
            }
        }
    }
}

impl PartialEq for PodQuery {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for PodQuery {}

impl PartialOrd for PodQuery {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The same in every process, as names are made of it.
impl Ord for PodQuery {
    fn cmp(&self, other: &Self) -> Ordering {
        self.digest.cmp(&other.digest)
    }
}

impl Hash for PodQuery {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// Text that is equal for equal queries only.
impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespaces {
            NamespaceQuery::Named(name) => write!(f, "namespace {name:?}")?,
            NamespaceQuery::Selected(selector) => write!(f, "namespaces [{selector}]")?,
        }
        write!(f, " pods [{}]", self.pods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_equal_when_they_ask_the_same() {
        let own = || PodQuery::pods_of("a", LabelSelector::default());
        assert_eq!(own(), own());
        assert_ne!(own(), PodQuery::pods_of("b", LabelSelector::default()));
        assert_ne!(own(), PodQuery::everybody());
        assert_eq!(PodQuery::everybody().cmp(&PodQuery::everybody()), Ordering::Equal);
    }
}

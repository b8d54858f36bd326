//! Which pods match which selectors, kept up to date pod by pod.
//!
//! A selector is known once however many policies and sets use it. A changed pod is compared only
//! with the selectors that could match it: they are filed by namespace and by a label that they
//! require.

mod query;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use crate::input::{Labels, ObjectName, Pod};
pub(crate) use query::{NamespaceQuery, PodQuery};

pub(crate) type PodId = u64;
pub(crate) type SelectorId = u64;

/// A collision of two files only costs a comparison.
fn file(namespace: Option<&str>, label: Option<(&str, &str)>) -> u64 {
    let mut hasher = FxHasher::default();
    (namespace, label).hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug)]
struct Selector {
    query: PodQuery,
    uses: u32,
    members: BTreeSet<PodId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    namespaces: BTreeMap<Box<str>, Labels>,
    pods: FxHashMap<PodId, Entry>,
    /// For the pods of one namespace.
    names: BTreeMap<Arc<ObjectName>, PodId>,
    selectors: FxHashMap<SelectorId, Selector>,
    ids: FxHashMap<PodQuery, SelectorId>,
    files: FxHashMap<u64, Vec<SelectorId>>,
    /// Labels of pods, each once.
    labels: FxHashSet<Labels>,
    next_pod: PodId,
    next_selector: SelectorId,
}

/// A pod and what it matches.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Arc<ObjectName>,
    pub(crate) pod: Pod,
    /// Sorted.
    pub(crate) selectors: Vec<SelectorId>,
}

impl Index {
    pub(crate) fn pod(&self, id: PodId) -> Option<&Entry> {
        self.pods.get(&id)
    }

    pub(crate) fn find(&self, name: &ObjectName) -> Option<(PodId, &Entry)> {
        let id = *self.names.get(name)?;
        Some((id, self.pods.get(&id)?))
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// Names of the namespaces that we have heard of.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(|name| &**name)
    }

    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.into(), labels),
            None => self.namespaces.remove(name),
        };
    }

    /// All pods, by name.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (PodId, &Entry)> {
        self.names.values().filter_map(|id| Some((*id, self.pods.get(id)?)))
    }

    pub(crate) fn pods_in(&self, namespace: &str) -> Vec<PodId> {
        let first = ObjectName::new(namespace, "");
        let names = self.names.range::<ObjectName, _>(first..);
        names.take_while(|(name, _)| *name.namespace == *namespace).map(|(_, id)| *id).collect()
    }

    /// Stores a pod and what it matches; returns its former entry.
    pub(crate) fn put_pod(&mut self, name: &ObjectName, mut pod: Pod) -> (PodId, Option<Entry>) {
        pod.labels = self.share(pod.labels);
        let (id, name) = match self.names.get_key_value(name) {
            Some((name, id)) => (*id, Arc::clone(name)),
            None => {
                self.next_pod += 1;
                let name = Arc::new(name.clone());
                self.names.insert(Arc::clone(&name), self.next_pod);
                (self.next_pod, name)
            }
        };
        let selectors = self.matching(&name.namespace, &pod);
        let entry = Entry { name, pod, selectors };
        let former = self.pods.remove(&id);
        self.update_members(id, former.as_ref().map_or(&[], |e| &e.selectors), &entry.selectors);
        self.pods.insert(id, entry);
        (id, former)
    }

    fn share(&mut self, labels: Labels) -> Labels {
        if let Some(same) = self.labels.get(&labels) {
            return same.clone();
        }
        // What nobody has any more goes when there may be much of it.
        if self.labels.len() > 2 * self.pods.len() + 64 {
            self.labels.retain(Labels::is_shared);
        }
        self.labels.insert(labels.clone());
        labels
    }

    pub(crate) fn remove_pod(&mut self, name: &ObjectName) -> Option<(PodId, Entry)> {
        let id = self.names.remove(name)?;
        let entry = self.pods.remove(&id)?;
        self.update_members(id, &entry.selectors, &[]);
        Some((id, entry))
    }

    /// Compares a pod with the selectors again, after its namespace has changed; returns what it
    /// matched before.
    pub(crate) fn rematch(&mut self, id: PodId) -> Option<Vec<SelectorId>> {
        let entry = self.pods.get(&id)?;
        let now = self.matching(&entry.name.namespace, &entry.pod);
        if now == entry.selectors {
            return None;
        }
        self.update_members(id, &self.pods.get(&id)?.selectors.clone(), &now);
        let entry = self.pods.get_mut(&id)?;
        Some(std::mem::replace(&mut entry.selectors, now))
    }

    fn update_members(&mut self, id: PodId, before: &[SelectorId], after: &[SelectorId]) {
        for (selector, joined) in changes(before, after) {
            if let Some(selector) = self.selectors.get_mut(&selector) {
                if joined {
                    selector.members.insert(id);
                } else {
                    selector.members.remove(&id);
                }
            }
        }
    }

    fn matching(&self, namespace: &str, pod: &Pod) -> Vec<SelectorId> {
        if pod.aloof {
            return Vec::new();
        }
        let namespace_labels = self.namespaces.get(namespace);
        let mut found = Vec::new();
        for scope in [Some(namespace), None] {
            let labels = pod.labels.iter().map(Some).chain([None]);
            for candidate in
                labels.filter_map(|label| self.files.get(&file(scope, label))).flatten()
            {
                let matches = self.selectors.get(candidate).is_some_and(|selector| {
                    selector.query.matches(namespace, namespace_labels, &pod.labels)
                });
                if matches {
                    found.push(*candidate);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// One more use of the selector.
    pub(crate) fn acquire(&mut self, query: &PodQuery) -> SelectorId {
        if let Some(id) = self.ids.get(query)
            && let Some(selector) = self.selectors.get_mut(id)
        {
            selector.uses += 1;
            return *id;
        }
        self.next_selector += 1;
        let id = self.next_selector;
        let members = self.scan(query);
        for pod in &members {
            if let Some(entry) = self.pods.get_mut(pod) {
                // The newest id is the greatest: the list stays sorted.
                entry.selectors.push(id);
            }
        }
        for file in query.files() {
            self.files.entry(file).or_default().push(id);
        }
        self.ids.insert(query.clone(), id);
        self.selectors.insert(id, Selector { query: query.clone(), uses: 1, members });
        id
    }

    fn scan(&self, query: &PodQuery) -> BTreeSet<PodId> {
        let matches = |id: &PodId| {
            self.pods.get(id).is_some_and(|entry| {
                let namespace = &entry.name.namespace;
                !entry.pod.aloof
                    && query.matches(namespace, self.namespaces.get(namespace), &entry.pod.labels)
            })
        };
        match query.namespaces() {
            NamespaceQuery::Named(name) => self.pods_in(name).into_iter().filter(matches).collect(),
            NamespaceQuery::Selected(_) => self.names.values().copied().filter(matches).collect(),
        }
    }

    /// One use less; the last one forgets the selector.
    pub(crate) fn release(&mut self, id: SelectorId) {
        let Some(selector) = self.selectors.get_mut(&id) else { return };
        selector.uses -= 1;
        if selector.uses > 0 {
            return;
        }
        let Some(selector) = self.selectors.remove(&id) else { return };
        for pod in &selector.members {
            if let Some(entry) = self.pods.get_mut(pod)
                && let Ok(at) = entry.selectors.binary_search(&id)
            {
                entry.selectors.remove(at);
            }
        }
        for file in selector.query.files() {
            if let Some(filed) = self.files.get_mut(&file) {
                filed.retain(|other| *other != id);
                if filed.is_empty() {
                    self.files.remove(&file);
                }
            }
        }
        self.ids.remove(&selector.query);
    }

    /// Pods that match.
    pub(crate) fn members(&self, id: SelectorId) -> impl Iterator<Item = (PodId, &Entry)> {
        let members = self.selectors.get(&id).into_iter().flat_map(|selector| &selector.members);
        members.filter_map(|pod| Some((*pod, self.pods.get(pod)?)))
    }
}

/// What is in one sorted list only: (item, true) if in `after`, (item, false) if in `before`.
pub(crate) fn changes<'a>(
    before: &'a [SelectorId],
    after: &'a [SelectorId],
) -> impl Iterator<Item = (SelectorId, bool)> + 'a {
    let only = |these: &'a [SelectorId], those: &'a [SelectorId], joined| {
        let these = these.iter().filter(|item| those.binary_search(item).is_err());
        these.map(move |item| (*item, joined))
    };
    only(after, before, true).chain(only(before, after, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(version: usize) -> Pod {
        let labels = BTreeMap::from([("version".to_owned(), version.to_string())]);
        let metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            labels: Some(labels),
            ..Default::default()
        };
        let raw = k8s_openapi::api::core::v1::Pod { metadata, ..Default::default() };
        Pod::parse(&raw, "n1", &mut Vec::new())
    }

    #[test]
    fn pods_share_equal_labels_and_forget_those_of_former_pods() {
        let mut index = Index::default();
        for version in 0..1000 {
            index.put_pod(&ObjectName::new("a", "changing"), pod(version));
            index.put_pod(&ObjectName::new("a", "constant"), pod(0));
        }
        assert!(index.labels.len() < 100, "{}", index.labels.len());
        let before = index.labels.len();
        index.put_pod(&ObjectName::new("a", "another"), pod(0));
        assert_eq!(index.labels.len(), before);
    }
}

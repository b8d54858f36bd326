//! Objects in and out of the engine.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Engine;
use crate::event::{Key, Kind, Object};
use crate::fault::{Fault, FieldFault, Path, Reason};
use crate::index::{Entry, PodId, PodQuery, SelectorId, changes};
use crate::input::{Labels, ObjectName, Pod, Policy, pod_cidrs};
use crate::resolve::Grants;

/// A policy in force.
#[derive(Debug)]
pub(super) struct StoredPolicy {
    pub(super) policy: Policy,
    /// It was read without faults.
    pub(super) clean: bool,
    pub(super) subject: SelectorId,
}

impl Engine {
    /// `None` if the object has no name (or no namespace where it needs one).
    pub(super) fn key_of(&self, object: &Object) -> Option<Key> {
        let (kind, metadata, namespaced) = parts(object);
        let name = metadata.name.clone().filter(|name| !name.is_empty())?;
        let namespace = metadata.namespace.clone().filter(|_| namespaced).unwrap_or_default();
        (namespaced != namespace.is_empty()).then_some(Key { kind, namespace, name })
    }

    /// Nothing can be stored under no name, so nobody could take the fault back either: it is
    /// reported but not listed.
    #[expect(clippy::unused_self, reason = "symmetric with the other kinds of objects")]
    pub(super) fn nameless(&self, object: &Object) -> Vec<Fault> {
        let (kind, metadata, _) = parts(object);
        let name = metadata.name.clone().unwrap_or_default();
        let field = if name.is_empty() { "name" } else { "namespace" };
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let metadata = Path::root("metadata");
        let path = metadata.field(field);
        let fault = FieldFault::new(&path, Reason::MissingName, format!("{field} is missing"));
        vec![fault.of(&Key { kind, namespace, name })]
    }

    pub(super) fn keys_of(&self, kind: Kind) -> Vec<Key> {
        let key = |name: &ObjectName| Key {
            kind,
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
        };
        match kind {
            Kind::Node => vec![Key { kind, namespace: String::new(), name: self.node.clone() }],
            Kind::Namespace => {
                let names = self.index.namespaces();
                names.map(|name| key(&ObjectName::new("", name))).collect()
            }
            Kind::Pod => self.index.pods().map(|(_, entry)| key(&entry.name)).collect(),
            Kind::NetworkPolicy => self.policies.keys().map(key).collect(),
        }
    }

    pub(super) fn apply_node(&mut self, key: &Key, node: &core::Node) -> Vec<Fault> {
        if key.name != self.node {
            return Vec::new();
        }
        let mut faults = Vec::new();
        let cidrs = pod_cidrs(node, &mut faults);
        // With a CIDR that cannot be read the former ones stay, if there are any.
        if faults.is_empty() || self.pod_cidrs.is_empty() {
            self.set_pod_cidrs(cidrs);
        }
        let faults = faults.into_iter().map(|fault| fault.of(key)).collect();
        self.note(key, faults)
    }

    pub(super) fn apply_namespace(&mut self, key: &Key, namespace: &core::Namespace) -> Vec<Fault> {
        let labels = Labels::of_namespace(&key.name, namespace.metadata.labels.as_ref());
        self.set_namespace(&key.name, Some(labels));
        Vec::new()
    }

    pub(super) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        if self.index.namespace(name) == labels.as_ref() {
            return;
        }
        self.index.set_namespace(name, labels);
        for id in self.index.pods_in(name) {
            let Some(before) = self.index.rematch(id) else { continue };
            let Some(entry) = self.index.pod(id) else { continue };
            // Subjects are of their own namespace whatever its labels: only peers have changed.
            for (selector, joined) in changes(&before, &entry.selectors) {
                if joined {
                    self.content.join(selector, &entry.pod, &mut self.delta);
                } else {
                    self.content.leave(selector, &entry.pod, &mut self.delta);
                }
            }
        }
    }

    pub(super) fn apply_pod(&mut self, key: &Key, raw: &core::Pod) -> Vec<Fault> {
        let name = ObjectName::new(&key.namespace, &key.name);
        let mut faults = Vec::new();
        let pod = Pod::parse(raw, &self.node, &mut faults);
        let faults = faults.into_iter().map(|fault| fault.of(key)).collect();
        let mut faults = self.note(key, faults);
        self.put_pod(&name, pod);
        if let Some((_, entry)) = self.index.find(&name) {
            for address in &entry.pod.claims {
                faults.extend(self.conflicts(*address));
            }
        }
        faults
    }

    pub(super) fn remove_pod(&mut self, name: &ObjectName) {
        if let Some((id, former)) = self.index.remove_pod(name) {
            self.pod_changed(name, id, Some(&former));
            self.disclaim(id, &former.pod.claims);
        }
    }

    /// Carries the change of a pod over to all that depends on it.
    pub(super) fn pod_changed(&mut self, name: &ObjectName, id: PodId, former: Option<&Entry>) {
        let entry = self.index.pod(id);
        let (before, was) = former.map_or((&[][..], None), |e| (&e.selectors[..], Some(&e.pod)));
        let (after, is) = entry.map_or((&[][..], None), |e| (&e.selectors[..], Some(&e.pod)));
        let same_elements = match (was, is) {
            (Some(was), Some(is)) => was.addresses == is.addresses && was.ports == is.ports,
            (None, _) | (_, None) => false,
        };
        // Joins come first, so that what stays does not leave the set in between.
        if let Some(is) = is {
            for selector in after {
                if !(same_elements && before.binary_search(selector).is_ok()) {
                    self.content.join(*selector, is, &mut self.delta);
                }
            }
        }
        if let Some(was) = was {
            for selector in before {
                if !(same_elements && after.binary_search(selector).is_ok()) {
                    self.content.leave(*selector, was, &mut self.delta);
                }
            }
        }
        let subject_changed =
            changes(before, after).any(|(selector, _)| self.subjects.contains_key(&selector));
        let local = [was, is].into_iter().flatten().any(|pod| pod.local);
        let moved = was.is_some_and(|pod| pod.local) != is.is_some_and(|pod| pod.local);
        if local && (subject_changed || moved || !same_elements) {
            self.stale_endpoints.insert(name.clone());
        }
        if !same_elements || moved {
            for pod in is.into_iter().filter(|pod| pod.local) {
                for address in &pod.addresses {
                    self.stale_addresses.insert(*address);
                    *self.local.entry(*address).or_default() += 1;
                }
            }
            for pod in was.into_iter().filter(|pod| pod.local) {
                for address in &pod.addresses {
                    self.stale_addresses.insert(*address);
                    if let Some(pods) = self.local.get_mut(address) {
                        *pods -= 1;
                        if *pods == 0 {
                            self.local.remove(address);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn apply_policy(&mut self, key: &Key, raw: &NetworkPolicy) -> Vec<Fault> {
        let name = ObjectName::new(&key.namespace, &key.name);
        let mut faults = Vec::new();
        let policy = Policy::parse(raw, &mut faults);
        let clean = faults.is_empty();
        let former = self.policies.get(&name);
        // The last good version of a policy stays in force.
        let keep = former.is_some_and(|former| former.policy == policy || (former.clean && !clean));
        if keep {
            if let (Some(former), true) = (self.policies.get_mut(&name), clean) {
                former.clean = true;
            }
        } else {
            let query = PodQuery::pods_of(&key.namespace, policy.subject.clone());
            let subject = self.index.acquire(&query);
            self.remove_policy(&name);
            let grants = Grants::new(&key.namespace, &policy);
            self.subjects.entry(subject).or_default().insert(name.clone(), grants);
            self.policies.insert(name, StoredPolicy { policy, clean, subject });
            self.subject_stale(subject);
        }
        let faults = faults.into_iter().map(|fault| fault.of(key)).collect();
        self.note(key, faults)
    }

    pub(super) fn remove_policy(&mut self, name: &ObjectName) {
        let Some(former) = self.policies.remove(name) else { return };
        self.subject_stale(former.subject);
        if let Some(policies) = self.subjects.get_mut(&former.subject) {
            policies.remove(name);
            if policies.is_empty() {
                self.subjects.remove(&former.subject);
            }
        }
        self.index.release(former.subject);
    }

    /// The policies of these pods have changed.
    fn subject_stale(&mut self, subject: SelectorId) {
        self.plans.clear();
        let local = self.index.members(subject).filter(|(_, entry)| entry.pod.local);
        self.stale_endpoints.extend(local.map(|(_, entry)| ObjectName::clone(&entry.name)));
    }
}

/// Kind, metadata, and whether objects of the kind have a namespace.
fn parts(object: &Object) -> (Kind, &ObjectMeta, bool) {
    match object {
        Object::Node(node) => (Kind::Node, &node.metadata, false),
        Object::Namespace(namespace) => (Kind::Namespace, &namespace.metadata, false),
        Object::Pod(pod) => (Kind::Pod, &pod.metadata, true),
        Object::NetworkPolicy(policy) => (Kind::NetworkPolicy, &policy.metadata, true),
    }
}

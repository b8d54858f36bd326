//! What the control socket shows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Engine;
use super::endpoint::{DIRECTIONS, Endpoint, of};
use crate::event::{Key, Kind};
use crate::input::{Direction, Namespaces, ObjectName, Peer, Policy, Rule};
use crate::nft::baseline::{FROM, PODS, TO};
use crate::nft::ir::{Element, Match};

/// Numbers of the whole engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// NetworkPolicy objects in force.
    pub policies: u64,
    /// Pods of this node in the table.
    pub endpoints: u64,
    /// Of those, isolated in at least one direction.
    pub isolated: u64,
    /// Elements in all sets.
    pub set_elements: u64,
    /// Transactions that the kernel took.
    pub committed: u64,
    /// Transactions that the kernel refused.
    pub refused: u64,
}

/// A policy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySummary {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Pods it selects, in the whole cluster.
    pub selects: u64,
    /// Pods it selects on this node.
    pub selects_local: u64,
    /// Of those, whose rules the kernel has acknowledged.
    pub programmed: u64,
    /// Ingress rules.
    pub ingress_rules: u64,
    /// Egress rules.
    pub egress_rules: u64,
    /// Isolates ingress.
    pub isolates_ingress: bool,
    /// Isolates egress.
    pub isolates_egress: bool,
    /// podSelector in words.
    pub pod_selector: String,
    /// Each rule in words: `ingress 1: from pods app=web, tcp 8080`.
    pub rules: Vec<String>,
    /// What could not be understood, with the field path.
    pub faults: Vec<String>,
}

/// A local pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSummary {
    /// Namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Pod addresses.
    pub addresses: Vec<IpAddr>,
    /// Host side interface.
    pub interface: Option<String>,
    /// Some policy isolates ingress.
    pub isolated_ingress: bool,
    /// Some policy isolates egress.
    pub isolated_egress: bool,
    /// `namespace/name` of every policy that selects it.
    pub policies: Vec<String>,
    /// The kernel has acknowledged its rules.
    pub programmed: bool,
    /// Names of its chains, ingress then egress.
    pub chains: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Engine {
    /// The policy of this name has faults now, and an earlier version without any is in force.
    #[must_use]
    pub fn keeps_last_good(&self, key: &Key) -> bool {
        let name = ObjectName::new(&key.namespace, &key.name);
        let faulty = self.faults.get(key).is_some_and(|faults| !faults.is_empty());
        key.kind == Kind::NetworkPolicy
            && faulty
            && self.policies.get(&name).is_some_and(|stored| stored.clean)
    }

    /// Numbers, as of the last [`Engine::settle`].
    #[must_use]
    pub fn totals(&self) -> Totals {
        let isolated = self.endpoints.values();
        let isolated = isolated.filter(|e| e.ingress.is_some() || e.egress.is_some()).count();
        Totals {
            policies: count(self.policies.len()),
            endpoints: count(self.endpoints.len()),
            isolated: count(isolated),
            set_elements: count(self.delta.element_count()),
            committed: self.committed,
            refused: self.refused,
        }
    }

    /// Policies in force, by namespace and name.
    #[must_use]
    pub fn policies(&self) -> Vec<PolicySummary> {
        let summary = |(name, stored): (&ObjectName, &super::StoredPolicy)| {
            let members = || self.index.members(stored.subject);
            let local = || members().filter(|(_, entry)| entry.pod.local);
            let key = Key {
                kind: Kind::NetworkPolicy,
                namespace: name.namespace.to_string(),
                name: name.name.to_string(),
            };
            let faults = self.faults.get(&key).into_iter().flatten();
            let policy = &stored.policy;
            let rules = |direction| policy.rules(direction).map_or(0, |rules| count(rules.len()));
            PolicySummary {
                selects: count(members().count()),
                selects_local: count(local().count()),
                programmed: count(local().filter(|(_, e)| self.is_programmed(&e.name)).count()),
                ingress_rules: rules(Direction::Ingress),
                egress_rules: rules(Direction::Egress),
                isolates_ingress: policy.ingress.is_some(),
                isolates_egress: policy.egress.is_some(),
                pod_selector: match policy.subject.to_string() {
                    all if all.is_empty() => "all pods".to_owned(),
                    some => some,
                },
                rules: rules_in_words(policy),
                faults: faults.map(|f| format!("{}: {}", f.field, f.message)).collect(),
                namespace: key.namespace,
                name: key.name,
            }
        };
        self.policies.iter().map(summary).collect()
    }

    /// Local pods in the table, by namespace and name, as of the last [`Engine::settle`].
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointSummary> {
        let summary = |(name, endpoint): (&ObjectName, &Endpoint)| {
            let (_, entry) = self.index.find(name)?;
            let addresses = entry.pod.addresses.to_vec();
            let interface = addresses.iter().find_map(|address| self.interfaces.get(address));
            let mut policies: Vec<String> =
                self.policies_of(&entry.selectors).map(ToString::to_string).collect();
            policies.sort_unstable();
            let chains = DIRECTIONS.into_iter().filter_map(|d| endpoint.isolation(d));
            let labels = entry.pod.labels.iter();
            Some(EndpointSummary {
                namespace: name.namespace.to_string(),
                name: name.name.to_string(),
                interface: interface.cloned(),
                isolated_ingress: endpoint.ingress.is_some(),
                isolated_egress: endpoint.egress.is_some(),
                policies,
                programmed: self.is_programmed(name),
                chains: chains.map(|isolation| isolation.chain.clone()).collect(),
                labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
                addresses,
            })
        };
        self.endpoints.iter().filter_map(summary).collect()
    }

    /// The kernel has acknowledged the rules of this local pod.
    fn is_programmed(&self, name: &ObjectName) -> bool {
        if self.stale_endpoints.contains(name) {
            return false;
        }
        let (Some(endpoint), Some((_, entry))) = (self.endpoints.get(name), self.index.find(name))
        else {
            return false;
        };
        let chains_there = DIRECTIONS.into_iter().all(|direction| {
            endpoint.isolation(direction).is_none_or(|isolation| self.chain_there(&isolation.chain))
        });
        let addresses_there = entry.pod.addresses.iter().all(|address| {
            let element = Element::Key(vec![(*address).into()]);
            let there = |sets| self.delta.has_element(of(sets, *address), &element);
            there(PODS)
                && (endpoint.egress.is_none() || there(FROM))
                && (endpoint.ingress.is_none() || there(TO))
        });
        chains_there && addresses_there
    }

    fn chain_there(&self, name: &str) -> bool {
        let Some(chain) = self.desired().chains.get(name) else { return false };
        let mut matches = chain.rules.iter().flat_map(|rule| &rule.matches);
        self.delta.has_chain(name)
            && matches.all(|matched| match matched {
                Match::Lookup { set, .. } => self.delta.has_set(set),
                Match::CtState(_)
                | Match::TcpNotSyn
                | Match::Address { .. }
                | Match::L4Proto(_)
                | Match::Icmpv6Type(_)
                | Match::Family(_) => true,
            })
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn rules_in_words(policy: &Policy) -> Vec<String> {
    let mut words = Vec::new();
    for (direction, name, preposition) in
        [(Direction::Ingress, "ingress", "from"), (Direction::Egress, "egress", "to")]
    {
        for (i, rule) in policy.rules(direction).into_iter().flatten().enumerate() {
            let what = match rule {
                None => "nothing (not understood)".to_owned(),
                Some(rule) => format!("{preposition} {}", rule_in_words(rule)),
            };
            words.push(format!("{name} {}: {what}", i + 1));
        }
    }
    words
}

fn rule_in_words(rule: &Rule) -> String {
    let peers: Vec<String> = rule.peers.iter().map(peer_in_words).collect();
    let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
    let or = |list: Vec<String>, none: &str| {
        if list.is_empty() { none.to_owned() } else { list.join(" or ") }
    };
    format!("{}, {}", or(peers, "anybody"), or(ports, "any port"))
}

fn peer_in_words(peer: &Peer) -> String {
    let pods =
        |pods: String| if pods.is_empty() { "all pods".to_owned() } else { format!("pods {pods}") };
    match peer {
        Peer::Block(block) => block.to_string(),
        Peer::Pods { namespaces: Namespaces::Own, pods: selector } => pods(selector.to_string()),
        Peer::Pods { namespaces: Namespaces::Selected(namespaces), pods: selector } => {
            let namespaces = match namespaces.to_string() {
                all if all.is_empty() => "all namespaces".to_owned(),
                some => format!("namespaces {some}"),
            };
            format!("{} of {namespaces}", pods(selector.to_string()))
        }
    }
}

//! Node, BGPConfiguration and BGPPeer objects -> [`bgp::config::Config`].
//!
//! Pure: objects go in, the whole desired configuration and the list of what is wrong come out.
//! A faulty object costs only itself, and its last version that could be used stays in force.
//!
//! | what | becomes |
//! |---|---|
//! | every other Node, with `nodeMesh` | an iBGP peer that may announce just the podCIDRs of its Node |
//! | BGPPeer that selects our Node | a peer, unless it names a node that is a mesh peer already |
//! | Pod of the reflector Deployment | an iBGP peer, beside the mesh (see [`crate::handover`]) |
//! | own podCIDRs | the prefixes we originate |
//! | NetworkConfiguration | what is encapsulated (see [`crate::overlay`]), pools, MTU |
//!
//! Next hops of our own routes: towards another node (mesh, reflector) our Node's addresses. Towards
//! a ToR the address of the session for the session's own family; for the other family the address
//! on the interface that faces the peer if it has one, else our Node's. That is looked up among the
//! interface addresses given to [`Reconciler::desired`], again whenever they change.

mod assemble;
mod clients;
mod consistency;
mod masquerade;
mod network;
mod node;
mod password;
mod peer;
mod reach;
mod reflector;
mod restart;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use api::crd::BGPPeerSpec;
use api::error_code::Code;
use ipnet::IpNet;

use crate::source::{Event, Key, Kind, Object, Origin, Secret};
pub use clients::ReflectorPlan;
pub use masquerade::masquerade;
pub use network::{Network, OverlaySettings};
pub use node::NodeFacts;
use peer::PeerSettings;
pub use reflector::ReflectorFacts;
use settings::Settings;

/// Something wrong with an object's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Catalogue code.
    pub code: Code,
    /// Which object.
    pub key: Key,
    /// Field path.
    pub field: String,
    /// What, without the field.
    pub message: String,
    /// What to do, and what is in force until then.
    pub next: String,
    /// `file:line`, if known.
    pub location: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.key, self.field, self.message)
    }
}

/// A fault that does not know its object yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldFault {
    code: Code,
    field: String,
    message: String,
}

impl FieldFault {
    fn new(code: Code, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, field: field.into(), message: message.into() }
    }
}

/// What the speaker should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Identity and peers.
    pub config: bgp::config::Config,
    /// Port to listen on.
    pub listen_port: u16,
    /// Own prefixes, sorted.
    pub prefixes: Vec<IpNet>,
    /// The peers of `config` that are other nodes' agents.
    pub mesh: Vec<MeshPeer>,
    /// The peers of `config` that are route reflectors of the cluster.
    pub reflectors: Vec<SocketAddr>,
    /// How pods are networked.
    pub network: Network,
    /// What to encapsulate, and for whom.
    pub overlay: Option<crate::overlay::Plan>,
    /// A BGPPeer in another AS selects our Node: the fabric is told pod CIDRs.
    pub fabric_routes: bool,
}

/// Another node's agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshPeer {
    /// What identifies it among the peers.
    pub endpoint: SocketAddr,
    /// Prefixes that it announces: its pod CIDRs.
    pub prefixes: Vec<IpNet>,
}

/// An address of an interface, with the prefix of its link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkAddress {
    /// Interface name.
    pub interface: String,
    /// Address and prefix length.
    pub net: IpNet,
}

/// An object as last applied.
#[derive(Clone, Debug)]
struct Tracked<T> {
    /// The last version that parsed.
    good: Option<T>,
    /// The last version that was part of a configuration.
    in_force: Option<T>,
    faults: Vec<FieldFault>,
    origin: Option<Origin>,
}

impl<T> Default for Tracked<T> {
    fn default() -> Self {
        Self { good: None, in_force: None, faults: Vec::new(), origin: None }
    }
}

impl<T> Tracked<T> {
    fn apply(&mut self, parsed: Result<T, Vec<FieldFault>>, origin: Option<Origin>) {
        self.origin = origin;
        match parsed {
            Ok(value) => {
                self.good = Some(value);
                self.faults.clear();
            }
            Err(faults) => self.faults = faults,
        }
    }
}

/// Secrets of our own namespace.
#[derive(Debug, Default)]
struct Secrets {
    /// `None`: it is not there.
    known: BTreeMap<String, Option<Secret>>,
    /// What is not in there does not exist, either.
    listed: bool,
}

/// Holds the objects.
#[derive(Debug)]
pub struct Reconciler {
    node_name: String,
    namespace: String,
    nodes: BTreeMap<String, Tracked<NodeFacts>>,
    settings: Option<Tracked<Settings>>,
    network: Option<Tracked<Network>>,
    peers: BTreeMap<String, Tracked<PeerSettings>>,
    /// By name of the pod.
    reflectors: BTreeMap<String, ReflectorFacts>,
    secrets: Secrets,
    /// Objects not seen since the listing of their kind began.
    unlisted: BTreeMap<Kind, Vec<Key>>,
}

impl Reconciler {
    /// For the node of this name; reflectors are pods of `namespace`.
    #[must_use]
    pub fn new(node_name: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            namespace: namespace.into(),
            nodes: BTreeMap::new(),
            settings: None,
            network: None,
            peers: BTreeMap::new(),
            reflectors: BTreeMap::new(),
            secrets: Secrets::default(),
            unlisted: BTreeMap::new(),
        }
    }

    /// Takes a change of the input; true if it can matter.
    pub fn handle(&mut self, event: &Event) -> bool {
        match event {
            Event::Apply(object, origin) => self.apply(object, origin.clone()),
            Event::Delete(key) => self.delete(key),
            Event::RelistBegin(kind) => {
                self.unlisted.insert(*kind, self.keys(*kind));
                false
            }
            Event::RelistEnd(kind) => {
                let gone = self.unlisted.remove(kind).unwrap_or_default();
                let deleted = gone.iter().filter(|key| self.delete(key)).count();
                let all_secrets = *kind == Kind::Secret && !self.secrets.listed;
                self.secrets.listed |= all_secrets;
                deleted > 0 || all_secrets
            }
            Event::Rejected(_) | Event::Resolved(_) => false,
        }
    }

    fn apply(&mut self, object: &Object, origin: Option<Origin>) -> bool {
        let key = object.key();
        if let Some(unlisted) = self.unlisted.get_mut(&key.kind) {
            unlisted.retain(|other| *other != key);
        }
        match object {
            Object::Node(node) => {
                self.nodes.entry(key.name).or_default().apply(node::parse(node), origin);
            }
            Object::BgpConfiguration(configuration) => {
                let parsed = settings::parse(&configuration.spec);
                self.settings.get_or_insert_default().apply(parsed, origin);
            }
            Object::BgpPeer(object) => {
                let created = object.metadata.creation_timestamp.as_ref();
                let created = created.map_or(0, |time| time.0.as_second());
                let parsed = peer::parse(&object.spec);
                let parsed = parsed.map(|settings| PeerSettings { created, ..settings });
                self.peers.entry(key.name).or_default().apply(parsed, origin);
            }
            Object::NetworkConfiguration(configuration) => {
                let parsed = network::parse(&configuration.spec);
                self.network.get_or_insert_default().apply(parsed, origin);
            }
            Object::Pod(pod) => {
                let now = reflector::read(pod, &self.namespace);
                return match now {
                    Some(facts) => self.reflectors.insert(key.name, facts.clone()) != Some(facts),
                    None => self.delete(&key),
                };
            }
            Object::Secret(secret) => {
                if key.namespace != self.namespace {
                    return false;
                }
                let secret = Some((**secret).clone());
                return self.secrets.known.insert(key.name, secret.clone()) != Some(secret);
            }
            Object::Namespace(_) | Object::NetworkPolicy(_) => return false,
        }
        true
    }

    fn delete(&mut self, key: &Key) -> bool {
        match key.kind {
            Kind::Node => self.nodes.remove(&key.name).is_some(),
            Kind::BgpConfiguration => self.settings.take().is_some(),
            Kind::BgpPeer => self.peers.remove(&key.name).is_some(),
            Kind::NetworkConfiguration => self.network.take().is_some(),
            Kind::Pod => {
                key.namespace == self.namespace && self.reflectors.remove(&key.name).is_some()
            }
            // Of a single Secret this is how its absence is told.
            Kind::Secret => {
                key.namespace == self.namespace
                    && self.secrets.known.insert(key.name.clone(), None) != Some(None)
            }
            Kind::Namespace | Kind::NetworkPolicy => false,
        }
    }

    fn keys(&self, kind: Kind) -> Vec<Key> {
        let namespace = if kind.namespaced() { self.namespace.as_str() } else { "" };
        let key = |name: &String| Key { kind, namespace: namespace.to_owned(), name: name.clone() };
        match kind {
            Kind::Node => self.nodes.keys().map(key).collect(),
            Kind::BgpConfiguration => {
                self.settings.iter().map(|_| key(&"default".to_owned())).collect()
            }
            Kind::BgpPeer => self.peers.keys().map(key).collect(),
            Kind::NetworkConfiguration => {
                self.network.iter().map(|_| key(&"default".to_owned())).collect()
            }
            Kind::Pod => self.reflectors.keys().map(key).collect(),
            Kind::Secret => {
                let there = self.secrets.known.iter().filter(|(_, secret)| secret.is_some());
                there.map(|(name, _)| key(name)).collect()
            }
            Kind::Namespace | Kind::NetworkPolicy => Vec::new(),
        }
    }

    /// The Node as last applied is faulty, and an earlier version is in force.
    #[must_use]
    pub fn keeps_last_good_node(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|t| !t.faults.is_empty() && t.good.is_some())
    }

    /// Nodes in their last good version, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeFacts> {
        self.nodes.values().filter_map(|tracked| tracked.good.as_ref())
    }

    /// Name of the Node that an address or prefix belongs to.
    #[must_use]
    pub fn owner_of(&self, prefix: &IpNet) -> Option<&str> {
        self.nodes().find(|node| node.pod_cidrs.contains(prefix)).map(|node| node.name.as_str())
    }

    /// The configuration that the objects ask for, `None` while our own Node is not there; and all
    /// that is wrong with them. `links` are the addresses of our interfaces.
    pub fn desired(&mut self, links: &[LinkAddress]) -> (Option<Desired>, Vec<Fault>) {
        assemble::assemble(self, links)
    }

    /// Names of the Secrets, in our own namespace, that the peers of this node need.
    #[must_use]
    pub fn secrets(&self) -> BTreeSet<String> {
        let peers = self.peers.values().filter_map(|tracked| tracked.in_force.as_ref());
        peers.filter_map(|peer| Some(peer.password.as_ref()?.secret.clone())).collect()
    }

    /// What a route reflector on this node should be: see the module `clients`.
    pub fn reflector(&mut self) -> (Option<ReflectorPlan>, Vec<Fault>) {
        clients::assemble(self)
    }

    fn faults(&self, found: Vec<(Key, FieldFault)>) -> Vec<Fault> {
        let parsed = self
            .nodes
            .iter()
            .map(|(name, t)| (Kind::Node, name.as_str(), &t.faults))
            .chain(self.settings.iter().map(|t| (Kind::BgpConfiguration, "default", &t.faults)))
            .chain(self.network.iter().map(|t| (Kind::NetworkConfiguration, "default", &t.faults)))
            .chain(self.peers.iter().map(|(name, t)| (Kind::BgpPeer, name.as_str(), &t.faults)))
            .flat_map(|(kind, name, faults)| {
                let key = Key { kind, namespace: String::new(), name: name.to_owned() };
                faults.iter().map(move |fault| (key.clone(), fault.clone()))
            });
        parsed.chain(found).map(|(key, fault)| self.complete(key, fault)).collect()
    }

    fn complete(&self, key: Key, fault: FieldFault) -> Fault {
        let (origin, last) = match key.kind {
            Kind::Node => describe(self.nodes.get(&key.name)),
            Kind::BgpConfiguration => describe(self.settings.as_ref()),
            Kind::BgpPeer => describe(self.peers.get(&key.name)),
            Kind::NetworkConfiguration => describe(self.network.as_ref()),
            Kind::Namespace | Kind::Pod | Kind::NetworkPolicy | Kind::Secret => (None, false),
        };
        if let Some(next) = reach::advice(fault.code) {
            return Fault {
                code: fault.code,
                location: origin.map(|origin| origin.locate(&fault.field)),
                next: next.to_owned(),
                key,
                field: fault.field,
                message: fault.message,
            };
        }
        let consequence = if fault.code == api::error_code::DUPLICATE_ADDRESS {
            match key.kind {
                Kind::BgpPeer => "the older one (of one age the first by name) stays in force",
                _ => "the first by name stays in force",
            }
        } else if last {
            "the last good version stays in force"
        } else {
            "until then it is not used"
        };
        Fault {
            code: fault.code,
            location: origin.map(|origin| origin.locate(&fault.field)),
            next: format!("Correct {}; {consequence}.", fault.field),
            key,
            field: fault.field,
            message: fault.message,
        }
    }
}

fn describe<T>(tracked: Option<&Tracked<T>>) -> (Option<&Origin>, bool) {
    tracked.map_or((None, false), |t| {
        (
            t.origin.as_ref(),
            if t.faults.is_empty() { t.in_force.is_some() } else { t.good.is_some() },
        )
    })
}

/// Which node labels a BGPPeer selects; `None` if it is not valid.
#[must_use]
pub fn selects(spec: &BGPPeerSpec) -> Option<impl Fn(&BTreeMap<String, String>) -> bool> {
    let settings = peer::parse(spec).ok()?;
    Some(move |labels: &BTreeMap<String, String>| settings.selects(labels))
}

/// Parses a network without host bits.
fn network(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.parse().map_err(|_| format!("`{text}` is not a CIDR"))?;
    if net.addr() == net.network() {
        Ok(net)
    } else {
        Err(format!("`{text}` has host bits set, is it `{}`?", net.trunc()))
    }
}

/// An address that a session can be held with.
fn is_host(address: IpAddr) -> bool {
    let unusable = match address {
        IpAddr::V4(a) => a.is_broadcast(),
        // Without an interface beside it a link-local address says nothing.
        IpAddr::V6(a) => a.is_unicast_link_local() || a.to_ipv4_mapped().is_some(),
    };
    !(unusable || address.is_unspecified() || address.is_multicast())
}

#[cfg(test)]
mod tests;

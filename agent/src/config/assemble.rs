//! Puts the parts together, and finds what only shows between objects.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use api::constant::REFLECTOR_PORT;
use api::error_code;
use bgp::config::{Config, PeerConfig, PeerKind, Policy, PrefixMatch};
use bgp::md5::Md5;
use bgp::types::RouterId;
use ipnet::IpNet;
use rustc_hash::FxHasher;

use super::node::NodeFacts;
use super::peer::PeerSettings;
use super::settings::Settings;
use super::{
    Desired, Fault, FieldFault, Key, Kind, LinkAddress, MeshPeer, Network, Reconciler, Secrets,
    consistency, reach,
};

/// A reflector that is gone without a word is noticed sooner than a node: many wait for its news.
pub(super) const REFLECTOR_HOLD_TIME: Duration = Duration::from_secs(30);

pub(super) fn assemble(
    reconciler: &mut Reconciler,
    links: &[LinkAddress],
) -> (Option<Desired>, Vec<Fault>) {
    let mut found = Vec::new();
    let nodes = without_duplicates(reconciler, &mut found);
    let mut settings = Settings::default();
    if let Some(tracked) = &mut reconciler.settings {
        tracked.in_force.clone_from(&tracked.good);
        settings = tracked.good.clone().unwrap_or_default();
    }
    found.extend(consistency::cluster_cidrs(&mut settings, &nodes));
    let claimed = reconciler.nodes.get(&reconciler.node_name).and_then(|t| t.good.clone());
    let (Some(claimed), Some(own)) = (claimed, nodes.get(&reconciler.node_name)) else {
        return (None, reconciler.faults(found));
    };
    let own_addresses: BTreeSet<IpAddr> =
        claimed.addresses.iter().copied().chain(links.iter().map(|link| link.net.addr())).collect();
    let mut in_mesh = BTreeMap::new();
    if settings.node_mesh && nodes.len() > 1 {
        let addresses = |node: &NodeFacts| node.addresses.clone();
        in_mesh.extend(nodes.iter().flat_map(|(name, node)| {
            addresses(node).into_iter().map(move |address| (address, name.as_str()))
        }));
    }
    let context = Context {
        settings: &settings,
        own,
        own_addresses,
        in_mesh,
        links,
        namespace: &reconciler.namespace,
        secrets: &reconciler.secrets,
    };
    let explicit = context.explicit_peers(&mut reconciler.peers, &mut found);
    let fabric_routes = explicit.values().any(|peer| peer.asn != settings.asn);
    let mut peers = BTreeMap::new();
    let mut mesh = Vec::new();
    if settings.node_mesh {
        for node in nodes.values().filter(|node| node.name != own.name) {
            let Some(peer) = context.mesh_peer(node) else { continue };
            let prefixes = announced(node, &settings).into_iter().map(|one| one.prefix).collect();
            mesh.push(MeshPeer { endpoint: peer.endpoint(), prefixes });
            peers.insert(peer.endpoint(), peer);
        }
    }
    peers.extend(explicit.into_values().map(|peer| (peer.endpoint(), peer)));
    let mut reflectors = Vec::new();
    let known: BTreeSet<IpAddr> =
        nodes.values().flat_map(|node| node.addresses.iter().copied()).collect();
    for pod in reconciler.reflectors.values() {
        let at_node: Vec<IpAddr> =
            pod.addresses.iter().copied().filter(|address| known.contains(address)).collect();
        let peer = context.reflector_peer(&pod.name, &at_node);
        let Some(peer) = peer.filter(|peer| !peers.contains_key(&peer.endpoint())) else {
            continue;
        };
        reflectors.push(peer.endpoint());
        peers.insert(peer.endpoint(), peer);
    }
    reflectors.sort_unstable();
    if peers.is_empty() && !settings.node_mesh {
        found.extend(consistency::no_peers(own, &nodes, reconciler.peers.is_empty()));
    }
    let mut network = Network::default();
    if let Some(tracked) = &mut reconciler.network {
        tracked.in_force.clone_from(&tracked.good);
        network = tracked.good.clone().unwrap_or_default();
    }
    found.extend(consistency::pools(&network, &nodes));
    let overlay = network
        .overlay
        .and_then(|settings| reach::overlay(settings, own, &nodes, links, &mut found));
    if network.overlay.is_none() && !fabric_routes {
        found.extend(reach::behind_routers(own, &nodes, links));
    }
    found.extend(reach::no_pod_cidr(&claimed.pod_cidrs, own));
    let router_id = settings.router_id.unwrap_or_else(|| context.router_id());
    let mut prefixes = own.pod_cidrs.clone();
    prefixes.sort_unstable();
    let config = Config {
        asn: settings.asn,
        router_id: RouterId(router_id),
        cluster_id: settings.cluster_id.unwrap_or(router_id),
        hostname: own.name.clone(),
        peers: peers.into_values().collect(),
    };
    let desired = Desired {
        config,
        listen_port: settings.listen_port,
        prefixes,
        mesh,
        reflectors,
        network,
        overlay,
        fabric_routes,
    };
    (Some(desired), reconciler.faults(found))
}

/// Nodes by name; an address or pod CIDR that two of them claim belongs to the first by name.
pub(super) fn without_duplicates(
    reconciler: &mut Reconciler,
    found: &mut Vec<(Key, FieldFault)>,
) -> BTreeMap<String, NodeFacts> {
    let mut addresses: BTreeMap<IpAddr, String> = BTreeMap::new();
    let mut cidrs: Vec<(IpNet, String)> = Vec::new();
    let mut nodes = BTreeMap::new();
    for (name, tracked) in &mut reconciler.nodes {
        tracked.in_force.clone_from(&tracked.good);
        let Some(mut node) = tracked.good.clone() else { continue };
        let mut fault = |field: &str, message: String| {
            let key = Key { kind: Kind::Node, namespace: String::new(), name: name.clone() };
            found.push((key, FieldFault::new(error_code::DUPLICATE_ADDRESS, field, message)));
        };
        node.addresses.retain(|address| match addresses.get(address) {
            Some(first) if first != name => {
                fault("status.addresses", format!("{address} is the address of Node {first}, too"));
                false
            }
            _ => {
                addresses.insert(*address, name.clone());
                true
            }
        });
        node.pod_cidrs.retain(|cidr| {
            let overlaps = |other: &IpNet| other.contains(cidr) || cidr.contains(other);
            match cidrs.iter().find(|(other, owner)| owner != name && overlaps(other)) {
                Some((other, first)) => {
                    let message = format!("{cidr} overlaps {other} of Node {first}");
                    fault("spec.podCIDRs", message);
                    false
                }
                None => {
                    cidrs.push((*cidr, name.clone()));
                    true
                }
            }
        });
        nodes.insert(name.clone(), node);
    }
    nodes
}

/// What a node may announce: the pod CIDRs of its Node that are inside the cluster's.
pub(super) fn announced(node: &NodeFacts, settings: &Settings) -> Vec<PrefixMatch> {
    let inside = |net: &&IpNet| {
        let cidrs = &settings.cluster_cidrs;
        cidrs.is_empty() || cidrs.iter().any(|cidr| cidr.contains(*net))
    };
    let exactly = |net: &IpNet| PrefixMatch {
        prefix: *net,
        min_length: net.prefix_len(),
        max_length: net.prefix_len(),
    };
    node.pod_cidrs.iter().filter(inside).map(exactly).collect()
}

struct Context<'a> {
    settings: &'a Settings,
    own: &'a NodeFacts,
    /// Of the Node, even if disputed, and of all interfaces.
    own_addresses: BTreeSet<IpAddr>,
    /// Addresses of all nodes, and their names, while nodes peer with each other.
    in_mesh: BTreeMap<IpAddr, &'a str>,
    links: &'a [LinkAddress],
    /// Ours.
    namespace: &'a str,
    secrets: &'a Secrets,
}

impl Context<'_> {
    /// The node's IPv4 address, or a hash of its name: never zero.
    fn router_id(&self) -> Ipv4Addr {
        if let Some(IpAddr::V4(address)) = self.own.address(true) {
            return address;
        }
        let mut hasher = FxHasher::default();
        hasher.write(self.own.name.as_bytes());
        let hash = hasher.finish();
        let folded = (hash >> 32) ^ (hash & u64::from(u32::MAX));
        Ipv4Addr::from(u32::try_from(folded).unwrap_or(1).max(1))
    }

    fn own_v4(&self) -> Option<Ipv4Addr> {
        self.own.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }

    fn own_v6(&self) -> Option<Ipv6Addr> {
        self.own.addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        })
    }

    fn mesh_peer(&self, node: &NodeFacts) -> Option<PeerConfig> {
        let (address, local) = self.own.way_to(&node.addresses)?;
        if self.own_addresses.contains(&address) {
            return None;
        }
        Some(PeerConfig {
            import: Policy::Accept(announced(node, self.settings)),
            ..self.inner_peer(&node.name, PeerKind::Mesh, address, local)
        })
    }

    /// Another speaker of the cluster: as a node's agent is to us, but nothing is taken from it.
    fn inner_peer(&self, name: &str, kind: PeerKind, address: IpAddr, local: IpAddr) -> PeerConfig {
        PeerConfig {
            port: self.settings.listen_port,
            // The other side knows us by this address only.
            local_address: Some(local),
            next_hop_v4: self.own_v4(),
            next_hop_v6: self.own_v6(),
            import: Policy::Accept(Vec::new()),
            graceful_restart: self.settings.restart.of(kind),
            ..PeerConfig::new(name.to_owned(), kind, address, self.settings.asn)
        }
    }

    /// A reflector of the cluster at one of these addresses. It may be on our own node.
    fn reflector_peer(&self, pod: &str, addresses: &[IpAddr]) -> Option<PeerConfig> {
        let (address, local) = self.own.way_to(addresses)?;
        // What a node may announce, the reflector sees to.
        let cluster = self.settings.cluster_cidrs.iter().map(|cidr| PrefixMatch {
            prefix: *cidr,
            min_length: cidr.prefix_len(),
            max_length: cidr.max_prefix_len(),
        });
        let cluster: Vec<PrefixMatch> = cluster.collect();
        Some(PeerConfig {
            port: REFLECTOR_PORT,
            hold_time: REFLECTOR_HOLD_TIME,
            // Who connects from there is the agent of that node.
            dial_only: true,
            import: if cluster.is_empty() { Policy::All } else { Policy::Accept(cluster) },
            ..self.inner_peer(pod, PeerKind::Reflector, address, local)
        })
    }

    fn explicit_peers(
        &self,
        tracked: &mut BTreeMap<String, super::Tracked<PeerSettings>>,
        found: &mut Vec<(Key, FieldFault)>,
    ) -> BTreeMap<IpAddr, PeerConfig> {
        let mut peers: BTreeMap<IpAddr, PeerConfig> = BTreeMap::new();
        // A new object takes no session from one that was there before it.
        let mut by_age: Vec<_> = tracked.iter_mut().collect();
        by_age.sort_by_key(|(_, peer)| peer.good.as_ref().map(|settings| settings.created));
        for (name, tracked) in by_age {
            let Some(wanted) = &tracked.good else { continue };
            let key = || Key { kind: Kind::BgpPeer, namespace: String::new(), name: name.clone() };
            if !wanted.selects(&self.own.labels) {
                tracked.in_force = None;
                // Wrong for every node, and so for the one that is elected to say it.
                found.extend(self.of_mesh(wanted).map(|fault| (key(), fault)));
                continue;
            }
            let chosen = match self.check(wanted, &peers) {
                Ok(()) => Some(wanted.clone()),
                Err(fault) => {
                    found.push((key(), fault));
                    let last = tracked.in_force.take();
                    last.filter(|last| {
                        last.selects(&self.own.labels) && self.check(last, &peers).is_ok()
                    })
                }
            };
            if let Some(chosen) = &chosen {
                let (md5, fault) = match &chosen.password {
                    Some(password) => password.md5(self.namespace, self.secrets),
                    None => (Md5::Off, None),
                };
                let key = Key { kind: Kind::BgpPeer, namespace: String::new(), name: name.clone() };
                found.extend(fault.map(|fault| (key, fault)));
                let peer = PeerConfig { md5, ..self.explicit_peer(name, chosen) };
                peers.insert(chosen.address, peer);
            }
            tracked.in_force = chosen;
        }
        peers
    }

    /// A peer that would take the place of a node's agent: both would connect to the same port, from
    /// and to the same addresses, and BGP has one session for that.
    fn of_mesh(&self, peer: &PeerSettings) -> Option<FieldFault> {
        let node = self.in_mesh.get(&peer.address)?;
        if !self.is_beside_agent(peer) {
            let message = format!(
                "{} is an address of Node {node}, which nodes peer with already (nodeMesh)",
                peer.address
            );
            let field = "spec.peerAddress";
            return Some(FieldFault::new(error_code::NODE_ADDRESS, field, message));
        }
        None
    }

    /// Another speaker on the node of an agent: told apart by its port, which only we can dial.
    fn is_beside_agent(&self, peer: &PeerSettings) -> bool {
        self.in_mesh.contains_key(&peer.address)
            && peer.port != self.settings.listen_port
            && !peer.passive
            // The kernel asks for the signature of all that comes from that address.
            && peer.password.is_none()
    }

    /// What is wrong with a peer among the others.
    fn check(
        &self,
        peer: &PeerSettings,
        others: &BTreeMap<IpAddr, PeerConfig>,
    ) -> Result<(), FieldFault> {
        let address = peer.address;
        if let Some(fault) = self.of_mesh(peer) {
            return Err(fault);
        }
        if self.own_addresses.contains(&address) || address.is_loopback() {
            let message = format!("{address} is an address of this node");
            return Err(FieldFault::new(error_code::OWN_ADDRESS, "spec.peerAddress", message));
        }
        if let Some(other) = others.get(&address) {
            let message = format!("{address} is the address of BGPPeer {}, too", other.name);
            return Err(FieldFault::new(
                error_code::DUPLICATE_ADDRESS,
                "spec.peerAddress",
                message,
            ));
        }
        if peer.route_reflector_client && peer.asn != self.settings.asn {
            let message = format!(
                "a client of a route reflector is in our own AS {}, not in {}",
                self.settings.asn, peer.asn
            );
            let field = "spec.routeReflectorClient";
            return Err(FieldFault::new(error_code::INVALID_BGP_CONFIG, field, message));
        }
        Ok(())
    }

    fn explicit_peer(&self, name: &str, peer: &PeerSettings) -> PeerConfig {
        let ibgp = peer.asn == self.settings.asn;
        let facing = self.facing(peer.address);
        let connected = facing.is_some();
        let (next_hop_v4, next_hop_v6) = if ibgp {
            (self.own_v4(), self.own_v6())
        } else if peer.address.is_ipv4() {
            (None, facing.and_then(|name| self.link_v6(name)).or_else(|| self.own_v6()))
        } else {
            (facing.and_then(|name| self.link_v4(name)).or_else(|| self.own_v4()), None)
        };
        // RFC 8212: nothing by default across an AS border but what is ours.
        let policy = |list: &Option<Vec<PrefixMatch>>| match list {
            Some(matches) => Policy::Accept(matches.clone()),
            None if ibgp => Policy::All,
            None => Policy::OwnOnly,
        };
        let kind = if ibgp { PeerKind::Internal } else { PeerKind::Tor };
        PeerConfig {
            port: peer.port,
            // A reflector some hops away knows us by the address of our Node.
            local_address: (ibgp && !connected)
                .then(|| self.own.address(peer.address.is_ipv4()))
                .flatten(),
            hold_time: peer.hold_time,
            passive: peer.passive,
            dial_only: self.is_beside_agent(peer),
            ebgp_multihop: peer.ebgp_multihop,
            ttl_security: peer.ttl_security,
            route_reflector_client: peer.route_reflector_client,
            next_hop_v4,
            next_hop_v6,
            import: policy(&peer.import),
            export: policy(&peer.export),
            default_originate: peer.default_originate,
            max_prefixes: peer.max_prefixes,
            graceful_restart: peer.restart.or(self.settings.restart).of(kind),
            ..PeerConfig::new(name.to_owned(), kind, peer.address, peer.asn)
        }
    }

    /// The interface whose link the peer is on.
    fn facing(&self, peer: IpAddr) -> Option<&str> {
        self.links
            .iter()
            .filter(|link| {
                link.net.contains(&peer) && link.net.prefix_len() < link.net.max_prefix_len()
            })
            .max_by_key(|link| link.net.prefix_len())
            .map(|link| link.interface.as_str())
    }

    fn link_v4(&self, interface: &str) -> Option<Ipv4Addr> {
        self.links.iter().filter(|link| link.interface == interface).find_map(|link| {
            match link.net.addr() {
                IpAddr::V4(address) if !address.is_link_local() => Some(address),
                IpAddr::V4(_) | IpAddr::V6(_) => None,
            }
        })
    }

    fn link_v6(&self, interface: &str) -> Option<Ipv6Addr> {
        self.links.iter().filter(|link| link.interface == interface).find_map(|link| {
            match link.net.addr() {
                IpAddr::V6(address) if !address.is_unicast_link_local() => Some(address),
                IpAddr::V4(_) | IpAddr::V6(_) => None,
            }
        })
    }
}

use std::net::IpAddr;

use bgp::config::{PeerKind, Policy};
use bgp::types::{Asn, RouterId};

use super::*;

fn endpoint(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn peer(endpoint: SocketAddr, kind: PeerKind) -> PeerConfig {
    PeerConfig {
        port: endpoint.port(),
        dial_only: kind == PeerKind::Reflector,
        import: Policy::All,
        ..PeerConfig::new(endpoint.to_string(), kind, endpoint.ip(), Asn(64512))
    }
}

/// A node with two others and reflectors on the first so many of them.
fn desired(reflectors: usize) -> Desired {
    let mesh: Vec<MeshPeer> = (2..=3)
        .map(|n| MeshPeer {
            endpoint: endpoint(&format!("192.0.2.{n}:179")),
            prefixes: vec![
                format!("10.{n}.0.0/24").parse().unwrap(),
                format!("fd00:{n}::/64").parse().unwrap(),
            ],
        })
        .collect();
    let reflectors: Vec<SocketAddr> =
        (2..).take(reflectors).map(|n| endpoint(&format!("192.0.2.{n}:1790"))).collect();
    let peers = mesh.iter().map(|node| peer(node.endpoint, PeerKind::Mesh));
    let peers = peers.chain(reflectors.iter().map(|r| peer(*r, PeerKind::Reflector))).collect();
    let id = RouterId([192, 0, 2, 1].into());
    Desired {
        config: Config {
            asn: Asn(64512),
            router_id: id,
            cluster_id: id.0,
            hostname: String::new(),
            peers,
        },
        listen_port: 179,
        prefixes: Vec::new(),
        mesh,
        reflectors,
        network: crate::config::Network::default(),
        overlay: None,
        fabric_routes: false,
    }
}

/// The whole of the other nodes' prefixes, each held out by so many reflectors.
fn held(by: usize) -> BTreeMap<IpNet, usize> {
    let prefixes = desired(0).mesh.into_iter().flat_map(|node| node.prefixes);
    prefixes.map(|prefix| (prefix, by)).collect()
}

struct Node {
    handover: Handover,
    desired: Desired,
    now: Instant,
    /// Sessions that are up.
    up: Vec<SocketAddr>,
    closed: Vec<SocketAddr>,
}

impl Node {
    /// In a mesh that is up.
    fn in_mesh() -> Self {
        let mut node = Self::start(0);
        node.up = node.desired.mesh.iter().map(|peer| peer.endpoint).collect();
        node
    }

    fn start(reflectors: usize) -> Self {
        let desired = desired(reflectors);
        let (mut handover, now) = (Handover::default(), Instant::now());
        handover.update(now, &desired);
        Self { handover, desired, now, up: Vec::new(), closed: Vec::new() }
    }

    fn reflectors(&mut self, count: usize) {
        self.desired = desired(count);
        self.handover.update(self.now, &self.desired);
    }

    /// All reflectors are up, and so many hold out everything, for so long.
    fn run(&mut self, seconds: u64, holders: usize) {
        let mesh: Vec<SocketAddr> = self.desired.mesh.iter().map(|peer| peer.endpoint).collect();
        let until = self.now + Duration::from_secs(seconds);
        while self.now < until {
            self.now += PERIOD;
            let mut established = self.up.clone();
            established.extend(self.desired.reflectors.iter().take(holders));
            let by_staying = held(holders + self.up.len());
            let sight = Sight { established, by_reflectors: held(holders), by_staying };
            let step = self.handover.step(self.now, &sight);
            for peer in step.close {
                assert!(mesh.contains(&peer));
                self.up.retain(|other| *other != peer);
                self.closed.push(peer);
            }
        }
    }

    fn standby(&self) -> usize {
        let shaped = self.handover.shape(self.desired.config.clone());
        shaped.peers.iter().filter(|p| p.kind == PeerKind::Mesh && p.standby && p.passive).count()
    }
}

#[test]
fn the_mesh_goes_when_two_reflectors_have_held_out_everything_for_the_soak_time() {
    let mut node = Node::in_mesh();
    node.reflectors(2);
    node.run(60, 1);
    assert_eq!((node.standby(), node.handover.mesh()), (0, Mesh::On), "one of two is not enough");
    node.run(SOAK.as_secs() - 1, 2);
    assert_eq!(node.handover.mesh(), Mesh::On);
    node.run(2, 2);
    assert_eq!((node.standby(), node.handover.mesh()), (2, Mesh::Off));
    assert_eq!(node.closed.len(), 2, "each closed once");
    node.run(300, 2);
    assert_eq!(node.closed.len(), 2);
}

#[test]
fn one_reflector_is_enough_where_there_is_one() {
    let mut node = Node::in_mesh();
    node.reflectors(1);
    node.run(10, 1);
    assert_eq!(node.handover.mesh(), Mesh::Off);
}

#[test]
fn a_node_that_is_no_client_keeps_its_session_and_the_others_go() {
    let mut node = Node::in_mesh();
    node.reflectors(2);
    for _ in 0..40 {
        node.now += PERIOD;
        let mut by_reflectors = held(2);
        by_reflectors.remove(&node.desired.mesh[1].prefixes[1]);
        let established = node.up.iter().chain(&node.desired.reflectors).copied().collect();
        let sight = Sight { established, by_reflectors, by_staying: BTreeMap::new() };
        let step = node.handover.step(node.now, &sight);
        assert!(!step.close.contains(&node.desired.mesh[1].endpoint), "its IPv6 prefix is missing");
        node.up.retain(|peer| !step.close.contains(peer));
    }
    assert_eq!(node.handover.mesh(), Mesh::Draining);
    assert_eq!(node.up, [node.desired.mesh[1].endpoint]);
}

#[test]
fn one_of_two_reflectors_that_goes_changes_nothing() {
    let mut node = Node::in_mesh();
    node.reflectors(2);
    node.run(10, 2);
    for _ in 0..20 {
        node.run(7, 1);
        node.run(7, 2);
    }
    assert_eq!((node.handover.mesh(), node.closed.len()), (Mesh::Off, 2));
}

#[test]
fn without_any_reflector_the_mesh_is_back_soon_and_goes_later_the_next_time() {
    let mut node = Node::in_mesh();
    node.reflectors(2);
    node.run(10, 2);
    node.run(PATIENCE.as_secs() - 1, 0);
    assert_eq!(node.handover.mesh(), Mesh::Off, "not for a hiccup");
    node.run(2, 0);
    assert_eq!(node.handover.mesh(), Mesh::On);
    let flap = |node: &mut Node| {
        let began = node.now;
        while node.handover.mesh() != Mesh::Off {
            node.run(1, 2);
        }
        let soak = node.now - began;
        node.run(PATIENCE.as_secs() + 1, 0);
        soak
    };
    let soaks: Vec<Duration> = (0..4).map(|_| flap(&mut node)).collect();
    assert!(soaks.is_sorted() && soaks[3] >= SOAK * 8, "{soaks:?}");
}

#[test]
fn a_session_that_the_other_side_opens_again_stays_longer_each_time() {
    let mut node = Node::in_mesh();
    node.reflectors(2);
    node.run(10, 2);
    let peer = node.desired.mesh[0].endpoint;
    let mut lasted = Vec::new();
    for _ in 0..4 {
        let (began, closed) = (node.now, node.closed.len());
        node.up.push(peer);
        while node.closed.len() == closed {
            node.run(1, 2);
        }
        lasted.push(node.now - began);
    }
    assert!(lasted[0] >= SOAK && lasted[3] >= SOAK * 8 && lasted.is_sorted(), "{lasted:?}");
}

#[test]
fn a_start_beside_reflectors_gives_them_a_chance_before_it_dials_the_mesh() {
    let mut node = Node::start(2);
    assert_eq!((node.standby(), node.handover.mesh()), (2, Mesh::Off));
    node.run(1, 0);
    node.run(60, 2);
    assert_eq!(node.handover.mesh(), Mesh::Off);
    let mut alone = Node::start(2);
    alone.run(PATIENCE.as_secs() + 1, 0);
    assert_eq!(alone.handover.mesh(), Mesh::On);
}

#[test]
fn reflectors_whose_pods_are_gone_stay_until_everything_is_known_from_others() {
    let mut node = Node::in_mesh();
    node.reflectors(2);
    node.run(10, 2);
    assert_eq!(node.handover.mesh(), Mesh::Off);
    node.reflectors(0);
    assert_eq!(node.handover.mesh(), Mesh::On, "at once: nobody else will tell");
    let peers = |node: &Node| {
        let shaped = node.handover.shape(node.desired.config.clone());
        shaped.peers.iter().filter(|peer| peer.kind == PeerKind::Reflector).count()
    };
    node.run(30, 0);
    assert_eq!(peers(&node), 2, "the mesh is not up yet");
    node.up = node.desired.mesh.iter().map(|peer| peer.endpoint).collect();
    node.run(PATIENCE.as_secs() + 1, 0);
    assert_eq!(peers(&node), 0);
    assert!(!node.handover.is_active());
}

#[test]
fn reflectors_that_are_gone_do_not_stay_for_ever() {
    let mut node = Node::start(2);
    node.run(10, 2);
    node.reflectors(0);
    node.run(LEAVE_LIMIT.as_secs() + 1, 0);
    assert!(!node.handover.has_leaving(), "nobody else knows, and their routes are gone by now");
}

#[test]
fn a_reflector_that_moves_to_the_place_of_one_that_leaves_is_wanted_again() {
    let mut node = Node::start(2);
    node.run(10, 2);
    node.reflectors(1);
    assert!(node.handover.has_leaving());
    node.reflectors(2);
    assert!(!node.handover.has_leaving());
    let shaped = node.handover.shape(node.desired.config.clone());
    assert!(shaped.peers.iter().all(|p| p.kind == PeerKind::Mesh || !p.standby));
    let addresses: Vec<IpAddr> = shaped.peers.iter().map(|peer| peer.address).collect();
    assert!(addresses.is_sorted());
}

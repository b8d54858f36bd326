//! Two reflectors and four clients, each client with both: loops must end, ghosts must die.

use super::*;

/// A session between two RIBs, or between a RIB and a client that is only a receiver.
struct Fabric {
    reflectors: [Rib; 2],
    /// `between[i]`: reflector i's session with the other one.
    between: [PeerIndex; 2],
    /// `clients[c][i]`: client c's session with reflector i.
    clients: Vec<[Link; 2]>,
}

impl Fabric {
    fn new(same_cluster: bool, clients: u8) -> Self {
        let cluster = |n: u8| identity(if same_cluster { 1 } else { n }).cluster_id;
        let mut reflectors =
            [1, 2].map(|n| Rib::new(Identity { cluster_id: cluster(n), ..identity(n) }));
        let between = [0usize, 1].map(|i| {
            let other = identity(u8::try_from(2 - i).unwrap()).router_id;
            let session = Session {
                router_id: RouterId(other),
                address: IpAddr::V4(other),
                ..session(0, Role::NonClient)
            };
            reflectors[i].peer_up(session, key(Role::NonClient)).unwrap()
        });
        let clients = (1..=clients)
            .map(|n| {
                let [a, b] = &mut reflectors;
                [Link::up(a, n, Role::Client), Link::up(b, n, Role::Client)]
            })
            .collect();
        Self { reflectors, between, clients }
    }

    /// Exchanges until nothing moves; fails if that never happens.
    fn settle(&mut self) {
        let context = context(false);
        for _ in 0..50 {
            let mut moved = false;
            for from in 0..2 {
                self.reflectors[from].flush();
                let mut out = Vec::new();
                while self.reflectors[from].transmit(self.between[from], &mut out, 1000).more {}
                let to = 1 - from;
                for chunk in out {
                    messages(&context, &chunk, |message| {
                        let Message::Update(update) = message else { panic!("{message:?}") };
                        moved |= update.end_of_rib.is_none();
                        self.reflectors[to].update(self.between[to], update).unwrap();
                    });
                }
                self.reflectors[to].flush();
            }
            if !moved {
                for client in &mut self.clients {
                    for (rib, link) in self.reflectors.iter_mut().zip(client) {
                        link.view(rib);
                    }
                }
                return;
            }
        }
        panic!("the reflectors never come to rest");
    }

    fn announce(&mut self, client: usize, prefix: IpNet) {
        let attributes = attributes(address(u8::try_from(client).unwrap() + 1));
        for (rib, link) in self.reflectors.iter_mut().zip(&self.clients[client]) {
            let attributes = match prefix {
                IpNet::V4(_) => attributes.clone(),
                IpNet::V6(_) => {
                    Attributes { next_hop: "2001:db8::77".parse().unwrap(), ..attributes.clone() }
                }
            };
            link.announce(rib, &attributes, &[prefix]);
        }
    }
}

const PREFIXES: [&str; 2] = ["10.1.0.0/24", "2001:db8:1::/64"];

#[test]
fn every_client_learns_every_route_from_both_reflectors() {
    for same_cluster in [false, true] {
        for text in PREFIXES {
            let mut fabric = Fabric::new(same_cluster, 4);
            fabric.announce(0, net(text));
            fabric.settle();
            for client in &fabric.clients[1..] {
                for (i, link) in client.iter().enumerate() {
                    let got = &link.receiver.view[&net(text)];
                    assert_eq!(got.originator_id, Some(router_id(1)));
                    let cluster = fabric.reflectors[i].identity.cluster_id;
                    assert_eq!(got.cluster_list.first(), Some(&cluster));
                    assert_eq!(got.cluster_list.len(), 1, "the direct path wins");
                }
            }
        }
    }
}

#[test]
fn a_path_of_the_own_cluster_is_not_eligible() {
    let mut fabric = Fabric::new(true, 4);
    fabric.announce(0, net(PREFIXES[0]));
    fabric.settle();
    let entry = fabric.reflectors[0].prefix(&net(PREFIXES[0])).unwrap();
    let verdicts: Vec<Verdict> = entry.paths.iter().map(|path| path.verdict).collect();
    assert_eq!(verdicts, [Verdict::Best, Verdict::Ineligible(Ineligible::ClusterLoop)]);
}

#[test]
fn with_different_clusters_a_client_of_one_reflector_only_is_known_to_both() {
    let mut fabric = Fabric::new(false, 4);
    let lost = fabric.clients[0][1].index;
    fabric.reflectors[1].peer_down(lost);
    fabric.announce_to(0, 0, net(PREFIXES[0]));
    fabric.settle();
    let got = &fabric.clients[1][1].receiver.view[&net(PREFIXES[0])];
    let clusters = [2, 1].map(|n| identity(n).cluster_id);
    assert_eq!(got.cluster_list.as_slice(), clusters);
    assert_eq!(got.next_hop, address(1));
}

#[test]
fn a_withdrawn_route_does_not_live_on_between_the_reflectors() {
    for same_cluster in [false, true] {
        for order in [[0, 1], [1, 0]] {
            for text in PREFIXES {
                let mut fabric = Fabric::new(same_cluster, 4);
                fabric.announce(0, net(text));
                fabric.announce(1, net(text));
                fabric.settle();
                for client in 0..2 {
                    for i in order {
                        let [a, b] = &mut fabric.reflectors;
                        let rib = if i == 0 { a } else { b };
                        fabric.clients[client][i].withdraw(rib, &[net(text)]);
                        // The other reflector hears of it before the client tells it.
                        fabric.settle();
                    }
                }
                for (rib, n) in fabric.reflectors.iter().zip(0..) {
                    assert_eq!(rib.prefix(&net(text)), None, "ghost at reflector {n}");
                }
                for link in fabric.clients.iter().flatten() {
                    assert!(link.receiver.view.is_empty(), "ghost at a client");
                }
            }
        }
    }
}

#[test]
fn a_dead_client_takes_only_its_own_paths_along() {
    let mut fabric = Fabric::new(false, 4);
    fabric.announce(0, net("10.1.0.0/24"));
    fabric.announce(1, net("10.1.0.0/24"));
    fabric.announce(1, net("10.2.0.0/24"));
    fabric.settle();
    let gone = fabric.clients.remove(1);
    for (rib, link) in fabric.reflectors.iter_mut().zip(gone) {
        rib.peer_down(link.index);
    }
    fabric.settle();
    let view = &fabric.clients[2][0].receiver.view;
    assert_eq!(view.keys().copied().collect::<Vec<_>>(), [net("10.1.0.0/24")]);
    assert_eq!(view[&net("10.1.0.0/24")].originator_id, Some(router_id(1)));
}

impl Fabric {
    fn announce_to(&mut self, client: usize, reflector: usize, prefix: IpNet) {
        let attributes = attributes(address(u8::try_from(client).unwrap() + 1));
        let link = &self.clients[client][reflector];
        link.announce(&mut self.reflectors[reflector], &attributes, &[prefix]);
    }
}

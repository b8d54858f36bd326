//! Who is in the lab and how it is wired: a pure function of the options.
//!
//! Every node has one point-to-point link to every ToR and its own addresses on `lo`. Pods are
//! routed (/32 and /128) behind a veth of their node.
//!
//! | what | IPv4 | IPv6 |
//! |---|---|---|
//! | ToR `t` on `lo` | 10.0.0.t/32 | fd00:0::t/128 |
//! | node `i` of rack `r` on `lo` | 10.1.r.i/32 | fd00:1::r:i/128 |
//! | link of ToR `t` and the `n`-th node | 10.2.t.(2n-2)/31, ToR first | fd00:2:t:n::/64, ToR ::1, node ::2 |
//! | pods of the `n`-th node | 10.244.n.0/24 | fd00:244:0:n::/64 |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::ValueEnum;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::error::LabError;

/// AS of every node.
pub const NODE_ASN: u32 = api::constant::DEFAULT_ASN;
/// Hold time of every session in seconds: short, so that a dead ToR is noticed quickly.
pub const HOLD_TIME_SECONDS: u16 = 9;
/// All pod CIDRs of a lab are inside of these.
pub const CLUSTER_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:244::/48"];

/// What the user asks for on the ToRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TorChoice {
    /// Like `mixed`, with what is installed
    Auto,
    /// BIRD 2
    Bird,
    /// FRR
    Frr,
    /// Rampart itself
    Rampart,
    /// BIRD and FRR in turn
    Mixed,
}

/// What runs on a ToR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TorKind {
    /// BIRD 2.
    Bird,
    /// FRR (zebra and bgpd).
    Frr,
    /// Rampart.
    Rampart,
}

impl TorKind {
    /// As users write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Rampart => "rampart",
        }
    }
}

/// Which families the BGP sessions to a ToR carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// IPv4 and IPv6 unicast over one session, transported over IPv4.
    Shared,
    /// A session over IPv4 for IPv4 and one over IPv6 for IPv6.
    PerFamily,
}

/// What the lab is built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// Racks.
    pub racks: u8,
    /// One entry for each ToR.
    pub tors: Vec<TorKind>,
    /// Nodes in each rack.
    pub nodes_per_rack: u8,
    /// Pods on each node.
    pub pods_per_node: u8,
}

impl std::fmt::Display for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tors: Vec<_> = self.tors.iter().map(|kind| kind.as_str()).collect();
        write!(
            f,
            "{} racks, ToRs {}, {} nodes per rack, {} pods per node",
            self.racks,
            tors.join("+"),
            self.nodes_per_rack,
            self.pods_per_node
        )
    }
}

/// The whole fabric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Switches.
    pub tors: Vec<Tor>,
    /// Nodes, rack by rack.
    pub nodes: Vec<Node>,
    /// Pods of the demo application.
    pub pods: Vec<Pod>,
}

/// A top-of-rack switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tor {
    /// Name, also of its interface on every node.
    pub name: String,
    /// What runs on it.
    pub kind: TorKind,
    /// Its AS.
    pub asn: u32,
    /// Address on `lo`, also the BGP Identifier.
    pub address_v4: Ipv4Addr,
    /// Address on `lo`.
    pub address_v6: Ipv6Addr,
    /// Sessions it has with each node.
    pub sessions: Sessions,
}

/// A Kubernetes node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name, also of its interface on every ToR.
    pub name: String,
    /// Name of its rack.
    pub rack: String,
    /// Address on `lo`.
    pub address_v4: Ipv4Addr,
    /// Address on `lo`.
    pub address_v6: Ipv6Addr,
    /// Pod CIDRs, IPv4 first.
    pub pod_cidrs: [IpNet; 2],
    /// One link to each ToR, in the order of [`Topology::tors`].
    pub uplinks: Vec<Link>,
}

/// A point-to-point link between a node and a ToR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The ToR's name.
    pub tor: String,
    /// Its network, IPv4.
    pub network_v4: Ipv4Net,
    /// Its network, IPv6.
    pub network_v6: Ipv6Net,
    /// The ToR's end.
    pub tor_v4: Ipv4Addr,
    /// The ToR's end.
    pub tor_v6: Ipv6Addr,
    /// The node's end.
    pub node_v4: Ipv4Addr,
    /// The node's end.
    pub node_v6: Ipv6Addr,
}

/// A pod of the demo application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Its `app` label.
    pub app: String,
    /// Its node's name.
    pub node: String,
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
    /// Host side interface.
    pub host_interface: String,
}

impl Pod {
    /// `namespace/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Both addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// The demo application: (namespace, app), dealt out to the nodes in turn.
const CAST: [(&str, &str); 8] = [
    ("web", "web"),
    ("api", "api"),
    ("db", "db"),
    ("web", "web"),
    ("api", "api"),
    ("db", "db"),
    ("web", "web"),
    ("api", "dns"),
];

impl Topology {
    /// Lays the fabric out.
    ///
    /// # Errors
    /// [`LabError::Options`] when it does not fit into the address plan.
    pub fn new(options: &Options) -> Result<Self, LabError> {
        let tors: Vec<Tor> = (1_u8..).zip(&options.tors).map(tor).collect();
        let mut nodes = Vec::new();
        for rack in 1..=options.racks {
            for position in 1..=options.nodes_per_rack {
                let number = u8::try_from(nodes.len() + 1)
                    .ok()
                    .filter(|number| *number <= 127)
                    .ok_or_else(|| LabError::Options("more than 127 nodes".to_owned()))?;
                nodes.push(node(rack, position, number, &tors)?);
            }
        }
        let pods = pods(&nodes, options.pods_per_node)?;
        Ok(Self { tors, nodes, pods })
    }

    /// Names of all members: ToRs, nodes, pods.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        let tors = self.tors.iter().map(|tor| tor.name.as_str());
        let nodes = self.nodes.iter().map(|node| node.name.as_str());
        let pods = self.pods.iter().map(|pod| pod.name.as_str());
        tors.chain(nodes).chain(pods)
    }

    /// The member called `name`; a pod also as `namespace/name`.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&str> {
        let pod_name = self
            .pods
            .iter()
            .find(|pod| pod.full_name() == name)
            .map_or(name, |pod| pod.name.as_str());
        self.members().find(|member| *member == pod_name)
    }
}

fn tor((number, kind): (u8, &TorKind)) -> Tor {
    // Both ways of carrying two families are worth having; a Rampart ToR offers every family on
    // every session.
    let sessions = if number % 2 == 0 && *kind != TorKind::Rampart {
        Sessions::PerFamily
    } else {
        Sessions::Shared
    };
    Tor {
        name: format!("tor{number}"),
        kind: *kind,
        asn: 65000 + u32::from(number),
        address_v4: Ipv4Addr::new(10, 0, 0, number),
        address_v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)),
        sessions,
    }
}

fn node(rack: u8, position: u8, number: u8, tors: &[Tor]) -> Result<Node, LabError> {
    let n = u16::from(number);
    let invalid = |_| LabError::Options(format!("no addresses for node {number}"));
    let mut uplinks = Vec::new();
    for (t, tor) in (1_u8..).zip(tors) {
        let first = (number - 1) * 2;
        let v6 = |host| Ipv6Addr::new(0xfd00, 2, u16::from(t), n, 0, 0, 0, host);
        uplinks.push(Link {
            tor: tor.name.clone(),
            network_v4: Ipv4Net::new(Ipv4Addr::new(10, 2, t, first), 31).map_err(invalid)?,
            network_v6: Ipv6Net::new(v6(0), 64).map_err(invalid)?,
            tor_v4: Ipv4Addr::new(10, 2, t, first),
            tor_v6: v6(1),
            node_v4: Ipv4Addr::new(10, 2, t, first + 1),
            node_v6: v6(2),
        });
    }
    let pods_v6 = Ipv6Addr::new(0xfd00, 0x244, 0, n, 0, 0, 0, 0);
    Ok(Node {
        name: format!("n{rack}{position}"),
        rack: format!("r{rack}"),
        address_v4: Ipv4Addr::new(10, 1, rack, position),
        address_v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, rack.into(), position.into()),
        pod_cidrs: [
            IpNet::new(Ipv4Addr::new(10, 244, number, 0).into(), 24).map_err(invalid)?,
            IpNet::new(pods_v6.into(), 64).map_err(invalid)?,
        ],
        uplinks,
    })
}

fn pods(nodes: &[Node], per_node: u8) -> Result<Vec<Pod>, LabError> {
    let places = (0..per_node).flat_map(|round| (1_u8..).zip(nodes).map(move |n| (round, n)));
    let mut pods: Vec<Pod> = Vec::new();
    for ((round, (number, node)), (namespace, app)) in places.zip(CAST.iter().cycle()) {
        let nth = pods.iter().filter(|pod| pod.app == *app).count() + 1;
        let host = round.checked_add(10).ok_or_else(|| {
            LabError::Options(format!("no address for pod {round} of {}", node.name))
        })?;
        let name = format!("{app}-{nth}");
        pods.push(Pod {
            host_interface: host_interface(&format!("{namespace}/{name}")),
            name,
            namespace: (*namespace).to_owned(),
            app: (*app).to_owned(),
            node: node.name.clone(),
            v4: Ipv4Addr::new(10, 244, number, host),
            v6: Ipv6Addr::new(0xfd00, 0x244, 0, number.into(), 0, 0, 0, host.into()),
        });
    }
    Ok(pods)
}

/// `rv` and eight hexadecimal digits of a hash, as a CNI plugin names the host side of a veth.
fn host_interface(pod: &str) -> String {
    // FNV-1a, 32 bits: stable across builds, and good enough for a few hundred pods of one node.
    let hash = pod
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("rv{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn default_lab() -> Topology {
        Topology::new(&Options {
            racks: 2,
            tors: vec![TorKind::Bird, TorKind::Frr],
            nodes_per_rack: 2,
            pods_per_node: 2,
        })
        .unwrap()
    }

    #[test]
    fn the_default_lab_has_two_tors_four_nodes_and_eight_pods() {
        let lab = default_lab();
        let names: Vec<_> = lab.members().collect();
        assert_eq!(
            names,
            [
                "tor1", "tor2", "n11", "n12", "n21", "n22", "web-1", "api-1", "db-1", "web-2",
                "api-2", "db-2", "web-3", "dns-1"
            ]
        );
        for node in &lab.nodes {
            assert_eq!(lab.pods.iter().filter(|p| p.node == node.name).count(), 2);
            assert_eq!(node.uplinks.len(), 2);
        }
    }

    #[test]
    fn every_pod_is_inside_its_nodes_pod_cidrs() {
        let lab = default_lab();
        for pod in &lab.pods {
            let node = lab.nodes.iter().find(|n| n.name == pod.node).unwrap();
            for (cidr, address) in node.pod_cidrs.iter().zip(pod.addresses()) {
                assert!(cidr.contains(&address), "{} {address}", pod.name);
            }
        }
    }

    #[test]
    fn the_largest_lab_gives_every_address_once() {
        let lab = Topology::new(&Options {
            racks: 9,
            tors: vec![TorKind::Rampart; 4],
            nodes_per_rack: 9,
            pods_per_node: 32,
        })
        .unwrap();
        let mut seen = BTreeSet::new();
        let mut once = |address: IpAddr| assert!(seen.insert(address), "{address} twice");
        for tor in &lab.tors {
            once(tor.address_v4.into());
            once(tor.address_v6.into());
        }
        for node in &lab.nodes {
            once(node.address_v4.into());
            once(node.address_v6.into());
            for link in &node.uplinks {
                assert!(link.network_v4.contains(&link.tor_v4));
                assert!(link.network_v4.contains(&link.node_v4));
                for address in [link.tor_v4, link.node_v4] {
                    once(address.into());
                }
                for address in [link.tor_v6, link.node_v6] {
                    once(address.into());
                }
            }
        }
        for pod in &lab.pods {
            pod.addresses().into_iter().for_each(&mut once);
        }
        let mut interfaces = BTreeSet::new();
        for pod in &lab.pods {
            assert!(interfaces.insert((&pod.node, &pod.host_interface)));
            assert!(pod.host_interface.len() <= 15);
        }
    }

    #[test]
    fn cluster_cidrs_cover_every_pod_cidr() {
        let cluster: Vec<IpNet> = CLUSTER_CIDRS.iter().map(|c| c.parse().unwrap()).collect();
        for node in default_lab().nodes {
            for cidr in node.pod_cidrs {
                assert!(cluster.iter().any(|c| c.contains(&cidr)), "{cidr}");
            }
        }
    }

    #[test]
    fn a_pod_is_found_with_and_without_its_namespace() {
        let lab = default_lab();
        assert_eq!(lab.member("web/web-1"), Some("web-1"));
        assert_eq!(lab.member("web-1"), Some("web-1"));
        assert_eq!(lab.member("db/web-1"), None);
    }
}

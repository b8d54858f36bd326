//! VXLAN between nodes that the fabric cannot route pod addresses between.
//!
//! ```text
//! Node objects, links --config--> Plan --Keeper--> interface, FDB, neighbours   (kernel::vxlan)
//!                                   |------------> next hops that go through it (kernel::route)
//!                                   '------------> who may send                 (policy table)
//! ```
//! BGP stays what tells where a prefix is. What changes is the way to a next hop: that of a node
//! behind the overlay is not looked up in the kernel's FIB, it is a neighbour on the overlay's
//! interface. So a route has the same life with and without overlay, and switching it on or off
//! replaces routes in place.
//!
//! Everything about a remote node follows from its Node object; nodes agree without a word:
//! - the MAC of its end is a hash of its name, set at its interface and in everybody's entries;
//! - its address on the overlay is its node address for IPv4, and the link-local address that follows
//!   from the MAC for IPv6 (Linux takes no gateway there that another interface leads to). A permanent
//!   neighbour entry gives the MAC for it, a forwarding entry the address to encapsulate for. Nothing
//!   is learnt from packets, nothing flooded.
//!
//! The interface has the first address of each own pod CIDR, which no pod gets (host-local starts with
//! the second): what the node itself sends to remote pods has a source that comes back the same way,
//! and passes strict reverse path filters.
//!
//! A VXLAN socket takes packets from anybody. Who may send is guarded in our table, on input, and
//! pods may not send encapsulated packets to nodes ([`policy::event::Overlay`]).

mod keeper;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

pub use keeper::Keeper;

/// Octets of an Ethernet address.
pub type Mac = [u8; 6];

/// What the overlay of our node should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Our end of the underlay; its family is that of the underlay.
    pub local: IpAddr,
    /// Our own MAC on the overlay.
    pub mac: Mac,
    /// Our own addresses on it.
    pub addresses: Vec<IpNet>,
    /// Nodes behind it, by name.
    pub remotes: BTreeMap<String, Remote>,
    /// Addresses of all other nodes in the underlay's family: nobody else may send.
    pub senders: BTreeSet<IpAddr>,
}

/// A node behind the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where encapsulated packets for it go.
    pub vtep: IpAddr,
    /// Its MAC on the overlay.
    pub mac: Mac,
    /// BGP next hops that it is.
    pub next_hops: Vec<IpAddr>,
}

impl Remote {
    /// What the routes through this next hop have as gateway on the overlay.
    #[must_use]
    pub fn gateway(&self, next_hop: IpAddr) -> IpAddr {
        match next_hop {
            IpAddr::V4(_) => next_hop,
            IpAddr::V6(_) => link_local(self.mac).into(),
        }
    }
}

/// Link-local address that follows from a MAC (RFC 4291 appendix A).
fn link_local([a, b, c, d, e, f]: Mac) -> Ipv6Addr {
    let halves = [[a ^ 0x02, b], [c, 0xff], [0xfe, d], [e, f]];
    let [p, q, r, s] = halves.map(u16::from_be_bytes);
    Ipv6Addr::new(0xfe80, 0, 0, 0, p, q, r, s)
}

/// MAC of a node's end: locally administered, unicast, the same in everybody's eyes.
#[must_use]
pub fn mac_of(node: &str) -> Mac {
    let hash = Sha256::new().chain_update(b"rampart-vxlan/").chain_update(node).finalize();
    let mut mac = Mac::default();
    for (to, from) in mac.iter_mut().zip(hash) {
        *to = from;
    }
    if let Some(first) = mac.first_mut() {
        *first = (*first & !0x01) | 0x02;
    }
    mac
}

/// Our addresses on the overlay: the first of the first pod CIDR of each family.
#[must_use]
pub fn addresses_of(pod_cidrs: &[IpNet]) -> Vec<IpNet> {
    let first = |v4: bool| pod_cidrs.iter().find(|cidr| cidr.addr().is_ipv4() == v4);
    [true, false].into_iter().filter_map(first).map(|cidr| IpNet::from(cidr.network())).collect()
}

/// What encapsulation adds to a packet, in octets: outer IP header, UDP, VXLAN and inner Ethernet
/// (RFC 7348 §5). Pods get an MTU that is smaller by this.
#[must_use]
pub const fn overhead(underlay: IpAddr) -> u32 {
    match underlay {
        IpAddr::V4(_) => 20 + 8 + 8 + 14,
        IpAddr::V6(_) => 40 + 8 + 8 + 14,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_unicast_locally_administered_and_differ() {
        let macs: BTreeSet<Mac> = (0..1000).map(|n| mac_of(&format!("node-{n}"))).collect();
        assert_eq!(macs.len(), 1000);
        assert!(macs.iter().all(|mac| mac[0] & 0x03 == 0x02));
        assert_eq!(mac_of("n1"), mac_of("n1"));
    }

    #[test]
    fn encapsulation_takes_fifty_octets_over_ipv4_and_seventy_over_ipv6() {
        assert_eq!(overhead("192.0.2.1".parse().unwrap()), 50);
        assert_eq!(overhead("2001:db8::1".parse().unwrap()), 70);
    }

    #[test]
    fn the_node_has_the_first_address_of_its_first_cidr_of_each_family() {
        let cidrs: Vec<IpNet> =
            ["fd00:1::/64", "10.1.0.0/24", "10.9.0.0/24"].map(|c| c.parse().unwrap()).into();
        let addresses: Vec<String> = addresses_of(&cidrs).iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.1.0.0/32", "fd00:1::/128"]);
    }
}

//! Our routes as rtnetlink messages, and back.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::METRIC;
use super::types::{Installed, Path};

/// `RT_TABLE_MAIN`.
pub(super) const TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;
/// Our ownership tag.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(api::constant::ROUTE_PROTOCOL);

/// A route as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) prefix: IpNet,
    pub(super) table: u32,
    pub(super) metric: u32,
    pub(super) ours: bool,
    pub(super) protocol: RouteProtocol,
    pub(super) kind: RouteType,
    pub(super) content: Installed,
    /// Interface of a route without gateway.
    pub(super) device: Option<u32>,
}

/// Route requests, one after the other in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    last: usize,
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.last = 0;
    }

    /// Appends one request; its sequence number is `sequence`.
    pub(crate) fn push(&mut self, sequence: u32, flags: u16, message: RouteNetlinkMessage) {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let start = self.bytes.len();
        self.bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        if let Some(slot) = self.bytes.get_mut(start..) {
            message.serialize(slot);
        }
        self.last = start;
    }

    /// The bytes as they are: a question is answered by its answer.
    pub(super) fn without_ack(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, with an acknowledgement asked for the last request only.
    pub(super) fn finish(&mut self) -> &[u8] {
        // struct nlmsghdr: length u32, type u16, flags u16 (host order).
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8)
            && let Ok(old) = <[u8; 2]>::try_from(&*flags)
        {
            flags.copy_from_slice(&(u16::from_ne_bytes(old) | NLM_F_ACK).to_ne_bytes());
        }
        &self.bytes
    }
}

fn base(prefix: &IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(prefix.addr()),
        destination_prefix_length: prefix.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: PROTOCOL,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Destination(prefix.network().into()));
    message
}

/// `RTM_NEWROUTE` of one of our routes.
pub(super) fn new_route(prefix: &IpNet, content: &Installed) -> RouteNetlinkMessage {
    let mut message = base(prefix);
    message.attributes.push(RouteAttribute::Priority(METRIC));
    match content {
        Installed::Blackhole | Installed::Odd => message.header.kind = RouteType::BlackHole,
        Installed::Paths(paths) => match &**paths {
            [only] => {
                if only.onlink {
                    message.header.flags |= RouteFlags::Onlink;
                }
                message.attributes.push(RouteAttribute::Gateway(only.gateway.into()));
                message.attributes.push(RouteAttribute::Oif(only.interface));
            }
            many => {
                let hops = many.iter().map(next_hop).collect();
                message.attributes.push(RouteAttribute::MultiPath(hops));
            }
        },
    }
    RouteNetlinkMessage::NewRoute(message)
}

fn next_hop(path: &Path) -> RouteNextHop {
    let mut hop = RouteNextHop::default();
    hop.interface_index = path.interface;
    if path.onlink {
        hop.flags |= RouteNextHopFlags::Onlink;
    }
    hop.attributes.push(RouteAttribute::Gateway(path.gateway.into()));
    hop
}

/// `RTM_DELROUTE` that removes our route to `prefix` with this metric, and nobody else's: the
/// kernel matches the protocol too.
pub(super) fn delete_route(prefix: &IpNet, metric: u32) -> RouteNetlinkMessage {
    let mut message = base(prefix);
    // RTN_UNSPEC and RT_SCOPE_NOWHERE: whatever type and scope it has.
    message.header.kind = RouteType::Unspec;
    message.header.scope = RouteScope::NoWhere;
    message.attributes.push(RouteAttribute::Priority(metric));
    RouteNetlinkMessage::DelRoute(message)
}

/// `RTM_GETROUTE` that asks for the FIB entry (not the cached result) an address matches.
pub(super) fn lookup(address: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    message.header.flags = RouteFlags::FibMatch;
    message.attributes.push(RouteAttribute::Destination(address.into()));
    RouteNetlinkMessage::GetRoute(message)
}

/// `RTM_GETROUTE` for the dump of one family's main table.
pub(super) fn dump(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.attributes.push(RouteAttribute::Table(TABLE));
    RouteNetlinkMessage::GetRoute(message)
}

/// Reads a route; `None` for families other than IPv4 and IPv6, and for clones.
pub(super) fn read(message: &RouteMessage) -> Option<Seen> {
    let header = &message.header;
    let v4 = match header.address_family {
        AddressFamily::Inet => true,
        AddressFamily::Inet6 => false,
        _ => return None,
    };
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut address: IpAddr =
        if v4 { [0_u8; 4].into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let mut seen = Seen {
        prefix: IpNet::new(address, 0).ok()?,
        table: u32::from(header.table),
        metric: 0,
        ours: header.protocol == PROTOCOL,
        protocol: header.protocol,
        kind: header.kind,
        content: Installed::Odd,
        device: None,
    };
    let (mut gateway, mut paths) = (None, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => address = ip(to)?,
            RouteAttribute::Table(table) => seen.table = *table,
            RouteAttribute::Priority(metric) => seen.metric = *metric,
            RouteAttribute::Gateway(via) => gateway = ip(via),
            RouteAttribute::Oif(interface) => seen.device = Some(*interface),
            RouteAttribute::MultiPath(hops) => paths = hops.iter().filter_map(path_of).collect(),
            _ => {}
        }
    }
    seen.prefix = IpNet::new(address, header.destination_prefix_length).ok()?;
    if let (Some(gateway), Some(interface)) = (gateway, seen.device) {
        seen.device = None;
        paths.push(Path { gateway, interface, onlink: header.flags.contains(RouteFlags::Onlink) });
    }
    paths.sort_unstable();
    seen.content = match header.kind {
        RouteType::BlackHole => Installed::Blackhole,
        RouteType::Unicast if !paths.is_empty() => Installed::Paths(Arc::from(paths)),
        _ => Installed::Odd,
    };
    Some(seen)
}

fn path_of(hop: &RouteNextHop) -> Option<Path> {
    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(via) => ip(via),
        _ => None,
    })?;
    let onlink = hop.flags.contains(RouteNextHopFlags::Onlink);
    Some(Path { gateway, interface: hop.interface_index, onlink })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(prefix: &str, content: Installed) {
        let prefix: IpNet = prefix.parse().unwrap();
        let RouteNetlinkMessage::NewRoute(message) = new_route(&prefix, &content) else {
            panic!("not a new route");
        };
        let seen = read(&message).unwrap();
        assert_eq!(seen.content, content);
        assert_eq!(
            (seen.prefix, seen.table, seen.metric, seen.ours),
            (prefix, TABLE, METRIC, true)
        );
    }

    fn paths(of: &[(&str, u32)]) -> Installed {
        Installed::Paths(
            of.iter()
                .map(|(gateway, interface)| Path {
                    gateway: gateway.parse().unwrap(),
                    interface: *interface,
                    onlink: false,
                })
                .collect(),
        )
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_route() {
        round_trip("10.1.0.0/24", paths(&[("192.0.2.1", 3)]));
        round_trip("0.0.0.0/0", paths(&[("192.0.2.1", 3), ("192.0.2.2", 4)]));
        round_trip("fd00:1::/64", paths(&[("fd00::1", 3)]));
        round_trip("::/0", paths(&[("fd00::1", 3), ("fd00::2", 3)]));
        round_trip("10.2.0.0/24", Installed::Blackhole);
        round_trip("fd00:2::/64", Installed::Blackhole);
    }

    #[test]
    fn only_the_last_request_of_a_batch_asks_for_an_acknowledgement() {
        let mut batch = Batch::default();
        for sequence in 1..=3 {
            batch.push(sequence, 0, delete_route(&"10.0.0.0/24".parse().unwrap(), METRIC));
        }
        let bytes = batch.finish().to_vec();
        let mut rest = bytes.as_slice();
        let mut acks = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).unwrap();
            acks.push(message.header.flags & NLM_F_ACK != 0);
            rest = &rest[usize::try_from(message.header.length).unwrap()..];
        }
        assert_eq!(acks, [false, false, true]);
    }
}

//! MTU of the way out of the node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::kernel::route::{NetlinkError, Requests};

/// The smallest MTU among the interfaces of the default routes of both families, or else of those
/// that have one of `addresses`; `None` if there are none of these either.
pub(crate) fn mtu(addresses: &[IpAddr]) -> Result<Option<u32>, NetlinkError> {
    let mut requests = Requests::open()?;
    let mut interfaces = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        interfaces.extend(default_routes(&mut requests, family)?);
    }
    if interfaces.is_empty() {
        let owned = crate::kernel::address::list();
        let names = owned.iter().filter(|link| addresses.contains(&link.net.addr()));
        let index = |name: &str| nix::net::if_::if_nametoindex(name).ok();
        interfaces.extend(names.filter_map(|link| index(&link.interface)));
    }
    let mut smallest: Option<u32> = None;
    for index in interfaces {
        if let Some(mtu) = mtu_of(&mut requests, index)? {
            smallest = Some(smallest.map_or(mtu, |other| other.min(mtu)));
        }
    }
    Ok(smallest)
}

/// Interfaces of the route that the kernel takes to nowhere in particular.
fn default_routes(
    requests: &mut Requests,
    family: AddressFamily,
) -> Result<Vec<u32>, NetlinkError> {
    // Of the documentation ranges: nobody has a route of its own to it.
    let probe: IpAddr = match family {
        AddressFamily::Inet => Ipv4Addr::new(192, 0, 2, 1).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.flags = RouteFlags::FibMatch;
    message.header.destination_prefix_length = if probe.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(probe.into()));
    let Ok(RouteNetlinkMessage::NewRoute(route)) =
        requests.ask(RouteNetlinkMessage::GetRoute(message))?
    else {
        return Ok(Vec::new());
    };
    if route.header.kind != RouteType::Unicast {
        return Ok(Vec::new());
    }
    let mut interfaces = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interfaces.push(*index),
            RouteAttribute::MultiPath(hops) => {
                interfaces.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    Ok(interfaces)
}

fn mtu_of(requests: &mut Requests, index: u32) -> Result<Option<u32>, NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let Ok(RouteNetlinkMessage::NewLink(link)) =
        requests.ask(RouteNetlinkMessage::GetLink(message))?
    else {
        return Ok(None);
    };
    Ok(link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    }))
}

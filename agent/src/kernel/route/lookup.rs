//! Questions to the kernel's FIB.

use std::net::IpAddr;
use std::sync::Arc;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteType;

use super::hops::Resolution;
use super::links::Links;
use super::message::{self, Seen};
use super::socket::{NetlinkError, Requests};
use super::types::{Installed, OverlayLink, Path, Unresolved};

/// Asks the kernel for the way to a next hop.
pub(super) fn resolve(
    requests: &mut Requests,
    links: &Links,
    overlay: Option<&OverlayLink>,
    goes_through: &dyn Fn(&Seen, IpAddr) -> bool,
    hop: IpAddr,
    old: Option<&Resolution>,
) -> Result<Resolution, NetlinkError> {
    if let Some((overlay, gateway)) = overlay.and_then(|o| Some((o, *o.gateways.get(&hop)?))) {
        let interface = overlay.interface;
        // In IPv6 it is a link-local address, which is on the link by its nature.
        let path = Path { gateway, interface, onlink: gateway.is_ipv4() };
        let up = links.is_up(interface);
        return Ok(if up { Ok(Arc::from([path])) } else { Err(Unresolved::LinkDown) });
    }
    let seen = match requests.ask(message::lookup(hop))? {
        Ok(RouteNetlinkMessage::NewRoute(route)) => message::read(&route),
        Err(libc::EINVAL | libc::EACCES | libc::EHOSTUNREACH) => {
            return Ok(Err(Unresolved::Dropped));
        }
        Ok(_) | Err(_) => None,
    };
    let Some(seen) = seen else { return Ok(Err(Unresolved::NoRoute)) };
    let paths: Vec<Path> = match (seen.kind, &seen.content, seen.device) {
        (RouteType::Local, _, _) => return Ok(Err(Unresolved::OwnAddress)),
        (RouteType::Unicast, Installed::Paths(paths), _) => paths.to_vec(),
        (RouteType::Unicast, _, Some(interface)) => {
            vec![Path { gateway: hop, interface, onlink: false }]
        }
        (RouteType::Unicast, _, None) => Vec::new(),
        // IPv6 has an unreachable default route of the kernel where IPv4 has none.
        _ if seen.prefix.prefix_len() == 0 => return Ok(Err(Unresolved::NoRoute)),
        _ => return Ok(Err(Unresolved::Dropped)),
    };
    if goes_through(&seen, hop) {
        // The route we wrote covers its own next hop: what it stood on before is hidden now.
        return Ok(match old {
            Some(Ok(old)) if old.iter().all(|path| links.is_up(path.interface)) => {
                Ok(Arc::clone(old))
            }
            _ => Err(Unresolved::Recursive),
        });
    }
    let any = !paths.is_empty();
    let usable: Vec<Path> = paths.into_iter().filter(|path| links.is_up(path.interface)).collect();
    Ok(match usable.is_empty() {
        false => Ok(usable.into()),
        true if any => Err(Unresolved::LinkDown),
        true => Err(Unresolved::NoRoute),
    })
}

/// The interface that the kernel uses for an address on a link of ours; a route through a gateway,
/// or a default route, does not make it local.
pub(super) fn interface_of(
    requests: &mut Requests,
    links: &Links,
    address: IpAddr,
) -> Result<Option<(u32, String)>, NetlinkError> {
    let Ok(RouteNetlinkMessage::NewRoute(route)) = requests.ask(message::lookup(address))? else {
        return Ok(None);
    };
    Ok(message::read(&route)
        .filter(|seen| seen.kind == RouteType::Unicast && seen.prefix.prefix_len() > 0)
        .and_then(|seen| seen.device)
        .and_then(|index| Some((index, links.name(index)?.to_owned()))))
}

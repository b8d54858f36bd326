//! `GET /v1/kernel`: the node's links, routes, rules, neighbours of ours and switches as the kernel
//! has them now, in lines as `ip` prints them, for a bundle. The image has no `ip`, and nobody who
//! reads the bundle has the node. It reads and changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;

use api::constant::{OVERLAY_INTERFACE, POD_ROUTE_PROTOCOL, ROUTE_PROTOCOL};
use api::control::KernelState;
use netlink_packet_route::link::{LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteProtocol,
};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::cni::name::is_host_interface;
use crate::kernel::route::{NetlinkError, Requests};

/// More lines of one kind do not help, and fill memory where the table is a whole Internet.
const LINES: usize = 20_000;
/// The kernel's own table of its addresses: not of interest.
const LOCAL_TABLE: u32 = 255;
/// Below `/proc/sys`, of the node as a whole.
const SWITCHES: [&str; 13] = [
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/default/accept_dad",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/conf/all/proxy_arp",
    "net/ipv4/fib_multipath_hash_policy",
    "net/ipv6/fib_multipath_hash_policy",
    "net/bridge/bridge-nf-call-iptables",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "net/core/somaxconn",
];
/// Below `/proc/sys/net/`, of each link that is no pod's.
const SWITCHES_OF_LINK: [(&str, &str); 5] = [
    ("ipv4/conf", "rp_filter"),
    ("ipv4/conf", "forwarding"),
    ("ipv6/conf", "forwarding"),
    ("ipv6/conf", "accept_ra"),
    ("ipv6/conf", "disable_ipv6"),
];

type Names = BTreeMap<u32, String>;

/// Reads it all.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn read() -> Result<KernelState, NetlinkError> {
    let mut requests = Requests::open()?;
    let mut state = KernelState::default();
    let mut names = Names::new();
    for message in requests.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        let RouteNetlinkMessage::NewLink(link) = message else { continue };
        if let Some(name) = name_of(&link) {
            names.insert(link.header.index, name);
        }
        state.links.push(link_line(&link));
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut routes = RouteMessage::default();
        routes.header.address_family = family;
        for message in requests.dump(&RouteNetlinkMessage::GetRoute(routes))? {
            let RouteNetlinkMessage::NewRoute(route) = message else { continue };
            state.routes.extend(route_line(&route, &names));
        }
        let mut rules = RuleMessage::default();
        rules.header.family = family;
        for message in requests.dump(&RouteNetlinkMessage::GetRule(rules))? {
            let RouteNetlinkMessage::NewRule(rule) = message else { continue };
            state.rules.push(rule_line(&rule));
        }
    }
    let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    for message in requests.dump(&all)? {
        let RouteNetlinkMessage::NewNeighbour(neighbour) = message else { continue };
        state.neighbours.extend(neighbour_line(&neighbour, &names));
    }
    state.sysctls = switches(&names);
    for lines in [&mut state.links, &mut state.routes, &mut state.rules, &mut state.neighbours] {
        let all = lines.len();
        if all > LINES {
            lines.truncate(LINES);
            lines.push(format!("... and {} more", all - LINES));
        }
    }
    Ok(state)
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// As `ip -d link`: what it is, and everything about its kind.
fn link_line(link: &LinkMessage) -> String {
    let name = name_of(link).unwrap_or_default();
    let mut line = format!("{}: {name} flags {:?}", link.header.index, link.header.flags);
    for attribute in &link.attributes {
        // Writing to a String cannot fail.
        let _ = match attribute {
            LinkAttribute::Mtu(octets) => write!(line, " mtu {octets}"),
            LinkAttribute::OperState(state) => write!(line, " state {state:?}"),
            LinkAttribute::Controller(index) => write!(line, " master {index}"),
            LinkAttribute::Link(index) => write!(line, " link {index}"),
            LinkAttribute::Address(octets) => write!(line, " address {}", hardware(octets)),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    let _ = match info {
                        LinkInfo::Kind(kind) => write!(line, " kind {kind}"),
                        LinkInfo::Data(data) => write!(line, " {data:?}"),
                        _ => Ok(()),
                    };
                }
                Ok(())
            }
            _ => Ok(()),
        };
    }
    line
}

fn hardware(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

fn address(address: &RouteAddress) -> String {
    match address {
        RouteAddress::Inet(v4) => v4.to_string(),
        RouteAddress::Inet6(v6) => v6.to_string(),
        other => format!("{other:?}"),
    }
}

fn gateway(hop: &RouteNextHop) -> String {
    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(via) => Some(address(via)),
        _ => None,
    });
    gateway.unwrap_or_else(|| "-".to_owned())
}

/// `None` for what the kernel keeps for itself: its own addresses, and cached clones.
fn route_line(route: &RouteMessage, names: &Names) -> Option<String> {
    let header = &route.header;
    let device = |index: &u32| names.get(index).cloned().unwrap_or_else(|| format!("if{index}"));
    let mut table = u32::from(header.table);
    let mut destination = None;
    let mut ways = String::new();
    for attribute in &route.attributes {
        // Writing to a String cannot fail.
        let _ = match attribute {
            RouteAttribute::Destination(to) => {
                destination = Some(address(to));
                Ok(())
            }
            RouteAttribute::Table(number) => {
                table = *number;
                Ok(())
            }
            RouteAttribute::Gateway(via) => write!(ways, " via {}", address(via)),
            RouteAttribute::Oif(index) => write!(ways, " dev {}", device(index)),
            RouteAttribute::Priority(metric) => write!(ways, " metric {metric}"),
            RouteAttribute::PrefSource(source) => write!(ways, " src {}", address(source)),
            RouteAttribute::NhId(id) => write!(ways, " nhid {id}"),
            RouteAttribute::MultiPath(hops) => {
                ways.extend(hops.iter().map(|hop| {
                    format!(" nexthop via {} dev {}", gateway(hop), device(&hop.interface_index))
                }));
                Ok(())
            }
            _ => Ok(()),
        };
    }
    if table == LOCAL_TABLE || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let to = match destination {
        Some(to) => format!("{to}/{}", header.destination_prefix_length),
        None => format!("default ({:?})", header.address_family),
    };
    let owner = match header.protocol {
        RouteProtocol::Other(ROUTE_PROTOCOL) => " (ours)".to_owned(),
        RouteProtocol::Other(POD_ROUTE_PROTOCOL) => " (a pod of ours)".to_owned(),
        _ => String::new(),
    };
    let (kind, protocol) = (header.kind, u8::from(header.protocol));
    Some(format!(
        "table {table} {kind:?} {to}{ways} proto {protocol}{owner} scope {:?}",
        header.scope
    ))
}

/// As `ip rule`.
fn rule_line(rule: &RuleMessage) -> String {
    let header = &rule.header;
    let mut priority = 0;
    let mut table = u32::from(header.table);
    let mut line = String::new();
    for attribute in &rule.attributes {
        // Writing to a String cannot fail.
        let _ = match attribute {
            RuleAttribute::Priority(number) => {
                priority = *number;
                Ok(())
            }
            RuleAttribute::Table(number) => {
                table = *number;
                Ok(())
            }
            RuleAttribute::Source(from) => write!(line, " from {from}/{}", header.src_len),
            RuleAttribute::Destination(to) => write!(line, " to {to}/{}", header.dst_len),
            RuleAttribute::Iifname(name) => write!(line, " iif {name}"),
            RuleAttribute::Oifname(name) => write!(line, " oif {name}"),
            RuleAttribute::FwMark(mark) => write!(line, " fwmark {mark:#x}"),
            RuleAttribute::FwMask(mask) => write!(line, "/{mask:#x}"),
            RuleAttribute::Goto(rule) => write!(line, " goto {rule}"),
            _ => Ok(()),
        };
    }
    let family = if header.family == AddressFamily::Inet { "ipv4" } else { "ipv6" };
    format!("{family} {priority}:{line} {:?} table {table}", header.action)
}

/// Those that we or the overlay made; what else the node talks to is nobody's business.
fn neighbour_line(neighbour: &NeighbourMessage, names: &Names) -> Option<String> {
    let header = &neighbour.header;
    let device = names.get(&header.ifindex)?;
    if device != OVERLAY_INTERFACE && !is_host_interface(device) {
        return None;
    }
    let mut line = String::new();
    for attribute in &neighbour.attributes {
        // Writing to a String cannot fail.
        let _ = match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(to)) => {
                write!(line, " {}", IpAddr::from(*to))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(to)) => {
                write!(line, " {}", IpAddr::from(*to))
            }
            NeighbourAttribute::LinkLayerAddress(octets) => {
                write!(line, " lladdr {}", hardware(octets))
            }
            _ => Ok(()),
        };
    }
    Some(format!("{device}{line} {:?} {:?}", header.state, header.flags))
}

/// Names as `sysctl` has them. What this kernel does not have is left out.
fn switches(names: &Names) -> BTreeMap<String, String> {
    let own = SWITCHES.iter().map(|path| (*path).to_owned());
    let links = names.values().filter(|name| !is_host_interface(name)).flat_map(|name| {
        SWITCHES_OF_LINK.map(|(directory, switch)| format!("net/{directory}/{name}/{switch}"))
    });
    let read = |path: String| {
        let value = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
        // A link may have a dot in its name, so `sysctl` takes slashes, too.
        Some((path, value.trim().to_owned()))
    };
    own.chain(links).filter_map(read).collect()
}

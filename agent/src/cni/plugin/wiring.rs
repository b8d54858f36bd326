//! The pod's interface: a veth pair, routed.
//!
//! ```text
//! pod: eth0  10.244.1.5/32, fd00::5/128         host: rv<hash>  fe80::1
//!      169.254.1.1 dev eth0, default via it            10.244.1.5/32 dev rv<hash>
//!      default via fe80::1                             fd00::5/128 dev rv<hash>
//! ```
//! Both gateways are the host side's MAC address by permanent neighbour entries, and the host has such
//! entries for the pod: nothing has to be resolved, so the first packet passes at once, either way. ARP
//! for 169.254.1.1 is answered too (`proxy_arp`), for a pod that flushes its entries.
//!
//! The whole of a side is one batch of netlink requests.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use api::constant::{POD_GATEWAY, POD_GATEWAY_V6, POD_ROUTE_PROTOCOL};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use super::error::{ErrorCode, Failure, kernel};
use super::sysctl;
use crate::cni::name::{Mac, is_host_interface};
use crate::kernel::route::{Batch, Requests};

/// A pair to make.
#[derive(Clone, Debug)]
pub(super) struct Pair<'a> {
    /// Host side.
    pub(super) host: &'a str,
    /// Pod side.
    pub(super) pod: &'a str,
    /// For people, and for GC: network, and pod.
    pub(super) alias: &'a str,
    /// MTU of both; `None` = the kernel's default.
    pub(super) mtu: Option<u32>,
    /// MAC addresses of host side and pod side.
    pub(super) macs: (Mac, Mac),
    /// Addresses of the pod.
    pub(super) addresses: &'a [IpAddr],
}

/// A network namespace that is not ours.
#[derive(Debug)]
pub(super) struct PodNamespace(File);

impl PodNamespace {
    /// Opens it. It must not be the one that we are in.
    pub(super) fn open(path: &std::path::Path) -> Result<Self, Failure> {
        use std::os::unix::fs::MetadataExt as _;
        let invalid = |why: String| {
            let text = format!("CNI_NETNS {}: {why}", path.display());
            Failure::new(ErrorCode::InvalidEnvironment, text)
        };
        let file = File::open(path).map_err(|error| invalid(error.to_string()))?;
        let theirs = file.metadata().map_err(|error| invalid(error.to_string()))?;
        let own = std::fs::metadata("/proc/self/ns/net").map_err(|e| invalid(e.to_string()))?;
        if (theirs.dev(), theirs.ino()) == (own.dev(), own.ino()) {
            return Err(invalid("is the network namespace of the host".to_owned()));
        }
        Ok(Self(file))
    }

    /// Runs `work` on a thread inside.
    pub(super) fn within<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| kernel("enter the pod's network namespace", errno))?;
                work()
            });
            let panicked = |_| Failure::new(ErrorCode::Internal, "a thread of the plugin panicked");
            thread.join().map_err(panicked)?
        })
    }
}

/// A batch of requests, and what each of them is for.
struct Steps<'a> {
    requests: &'a mut Requests,
    batch: Batch,
    what: Vec<(u32, String)>,
}

impl<'a> Steps<'a> {
    fn new(requests: &'a mut Requests) -> Self {
        Self { requests, batch: Batch::default(), what: Vec::new() }
    }

    fn push(&mut self, what: String, flags: u16, message: RouteNetlinkMessage) {
        let sequence = self.requests.next_sequence();
        self.batch.push(sequence, flags, message);
        self.what.push((sequence, what));
    }

    /// Sends all of them; the first that the kernel refused, if any.
    fn run(mut self) -> Result<(), (Option<Errno>, Failure)> {
        let mut first = None;
        let written = self.requests.write(&mut self.batch, |sequence, errno| {
            first.get_or_insert((sequence, errno));
        });
        if let Err(error) = written {
            return Err((None, kernel("talk to the kernel", error)));
        }
        let Some((sequence, errno)) = first else { return Ok(()) };
        let what = self.what.iter().find(|(other, _)| *other == sequence);
        let what = what.map_or("do what was asked", |(_, what)| what.as_str());
        let error = io::Error::from_raw_os_error(errno);
        Err((Some(Errno::from_raw(errno)), kernel(what, error)))
    }
}

/// Opens the request socket of the network namespace of this thread.
pub(super) fn requests() -> Result<Requests, Failure> {
    Requests::open().map_err(|error| kernel("open a netlink socket", error))
}

/// Index of a link, with its message. `None` if there is no such link.
pub(super) fn link(requests: &mut Requests, name: &str) -> Result<Option<LinkMessage>, Failure> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match requests.ask(RouteNetlinkMessage::GetLink(message)) {
        Ok(Ok(RouteNetlinkMessage::NewLink(link))) => Ok(Some(link)),
        Ok(Err(errno)) if Errno::from_raw(errno) == Errno::ENODEV => Ok(None),
        Ok(Ok(_)) => Ok(None),
        Ok(Err(errno)) => Err(kernel(&format!("find {name}"), Errno::from_raw(errno).desc())),
        Err(error) => Err(kernel(&format!("find {name}"), error)),
    }
}

/// Removes a link with its other end; `false` if there was none.
pub(super) fn remove(requests: &mut Requests, name: &str) -> Result<bool, Failure> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut steps = Steps::new(requests);
    steps.push(format!("remove {name}"), 0, RouteNetlinkMessage::DelLink(message));
    match steps.run() {
        Ok(()) => Ok(true),
        Err((Some(Errno::ENODEV), _)) => Ok(false),
        Err((_, failure)) => Err(failure),
    }
}

/// Makes the pair: host side here, pod side in `namespace`. An interface of the same name on the host
/// is what an earlier ADD of this very attachment left, and gives way.
pub(super) fn make(
    requests: &mut Requests,
    namespace: &PodNamespace,
    pair: &Pair<'_>,
) -> Result<(), Failure> {
    let mut again = true;
    loop {
        let mut steps = Steps::new(requests);
        let what = format!("make {} and {}", pair.host, pair.pod);
        steps.push(what, NLM_F_CREATE | NLM_F_EXCL, new_pair(namespace, pair));
        match steps.run() {
            Ok(()) => return Ok(()),
            Err((Some(Errno::EEXIST), failure)) => {
                if !std::mem::take(&mut again) || !remove(requests, pair.host)? {
                    let other = format!("{} is there already in the pod", pair.pod);
                    return Err(failure.details(other));
                }
            }
            Err((_, failure)) => return Err(failure),
        }
    }
}

fn new_pair(namespace: &PodNamespace, pair: &Pair<'_>) -> RouteNetlinkMessage {
    let (host_mac, pod_mac) = pair.macs;
    let end = |name: &str, mac: Mac| {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Address(mac.to_vec()));
        if let Some(mtu) = pair.mtu {
            message.attributes.push(LinkAttribute::Mtu(mtu));
        }
        message
    };
    let mut peer = end(pair.pod, pod_mac);
    peer.attributes.push(LinkAttribute::NetNsFd(namespace.0.as_raw_fd()));
    let mut message = end(pair.host, host_mac);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    RouteNetlinkMessage::NewLink(message)
}

/// Host side: up, with the link-local gateway, neighbour entries and routes of the pod.
pub(super) fn host_side(requests: &mut Requests, pair: &Pair<'_>) -> Result<(), Failure> {
    let index = index_of(requests, pair.host)?;
    let v6 = pair.addresses.iter().any(IpAddr::is_ipv6);
    sysctl::host_side(pair.host, v6)?;
    let (_, pod_mac) = pair.macs;
    lead_to_pod(requests, index, pair.host, Some(pair.alias), pod_mac, pair.addresses)
}

/// The host side of a pod that runs as ADD left it; false if there is no such interface any more.
pub(super) fn restore(
    requests: &mut Requests,
    host: &str,
    pod_mac: Mac,
    addresses: &[IpAddr],
) -> Result<bool, Failure> {
    let Some(link) = link(requests, host)? else { return Ok(false) };
    lead_to_pod(requests, link.header.index, host, None, pod_mac, addresses).map(|()| true)
}

fn lead_to_pod(
    requests: &mut Requests,
    index: u32,
    host: &str,
    alias: Option<&str>,
    pod_mac: Mac,
    addresses: &[IpAddr],
) -> Result<(), Failure> {
    let mut steps = Steps::new(requests);
    steps.push(format!("set {host} up"), 0, up(index, alias));
    if addresses.iter().any(IpAddr::is_ipv6)
        && let Some(gateway) = gateway(false)
    {
        let what = format!("give {host} the address {gateway}");
        steps.push(what, NLM_F_CREATE | NLM_F_REPLACE, address(index, gateway, 64));
    }
    for pod in addresses {
        let what = format!("enter {pod} as a neighbour on {host}");
        steps.push(what, NLM_F_CREATE | NLM_F_REPLACE, neighbour(index, *pod, pod_mac));
        let mut route = route(index, Some(*pod));
        route.header.protocol = RouteProtocol::Other(POD_ROUTE_PROTOCOL);
        let what = format!("route {pod} to {host}");
        let message = RouteNetlinkMessage::NewRoute(route);
        steps.push(what, NLM_F_CREATE | NLM_F_REPLACE, message);
    }
    steps.run().map_err(|(_, failure)| failure)
}

/// Pod side; runs inside the pod's namespace. The host side is up by now, so that setting this side up
/// makes both of them ready in one step.
pub(super) fn pod_side(pair: &Pair<'_>) -> Result<(), Failure> {
    let mut requests = requests()?;
    let index = index_of(&mut requests, pair.pod)?;
    let has = |v4: bool| pair.addresses.iter().any(|address| address.is_ipv4() == v4);
    sysctl::pod_side(pair.pod, has(false))?;
    let (host_mac, _) = pair.macs;
    let mut steps = Steps::new(&mut requests);
    steps.push(format!("set {} up", pair.pod), 0, up(index, None));
    for own in pair.addresses {
        let length = if own.is_ipv4() { 32 } else { 128 };
        let what = format!("give {} the address {own}", pair.pod);
        steps.push(what, NLM_F_CREATE | NLM_F_EXCL, address(index, *own, length));
    }
    for v4 in [true, false] {
        let Some(gateway) = gateway(v4).filter(|_| has(v4)) else { continue };
        let what = format!("enter {gateway} as a neighbour");
        steps.push(what, NLM_F_CREATE | NLM_F_REPLACE, neighbour(index, gateway, host_mac));
        if v4 {
            let message = RouteNetlinkMessage::NewRoute(route(index, Some(gateway)));
            steps.push(format!("route {gateway} to {}", pair.pod), NLM_F_CREATE, message);
        }
        let mut default = route(index, None);
        default.header.address_family = family(gateway);
        default.header.scope = RouteScope::Universe;
        default.attributes.push(RouteAttribute::Gateway(gateway.into()));
        let message = RouteNetlinkMessage::NewRoute(default);
        steps.push(format!("set the default route via {gateway}"), NLM_F_CREATE, message);
    }
    steps.run().map_err(|(_, failure)| failure)
}

/// The pod's gateway.
pub(super) fn gateway(v4: bool) -> Option<IpAddr> {
    if v4 { POD_GATEWAY } else { POD_GATEWAY_V6 }.parse().ok()
}

/// Whether the link is administratively up.
pub(super) fn is_up(link: &LinkMessage) -> bool {
    link.header.flags.contains(LinkFlags::Up)
}

/// The interface of the kernel's route to an address on a link; not of a default route, nor of one
/// through a gateway.
pub(super) fn route_of(requests: &mut Requests, address: IpAddr) -> Option<String> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    message.header.flags = RouteFlags::FibMatch;
    message.attributes.push(RouteAttribute::Destination(address.into()));
    let Ok(Ok(RouteNetlinkMessage::NewRoute(route))) =
        requests.ask(RouteNetlinkMessage::GetRoute(message))
    else {
        return None;
    };
    let on_link = route.header.kind == RouteType::Unicast
        && route.header.destination_prefix_length > 0
        && !route.attributes.iter().any(|a| matches!(a, RouteAttribute::Gateway(_)));
    let index = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) if on_link => Some(*index),
        _ => None,
    })?;
    let mut message = LinkMessage::default();
    message.header.index = index;
    match requests.ask(RouteNetlinkMessage::GetLink(message)) {
        Ok(Ok(RouteNetlinkMessage::NewLink(link))) => name_of(&link),
        _ => None,
    }
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// Veths whose name can be the host side of one of our pods, with their aliases.
pub(super) fn host_interfaces(requests: &mut Requests) -> Result<Vec<(String, String)>, Failure> {
    let links = requests
        .dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))
        .map_err(|error| kernel("list interfaces", error))?;
    let of = |message: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        let name = name_of(&link).filter(|name| is_host_interface(name))?;
        let mut alias = String::new();
        let mut veth = false;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfAlias(text) => alias.clone_from(text),
                LinkAttribute::LinkInfo(infos) => {
                    veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                }
                _ => {}
            }
        }
        veth.then_some((name, alias))
    };
    Ok(links.into_iter().filter_map(of).collect())
}

/// Addresses of an interface.
pub(super) fn addresses(requests: &mut Requests, index: u32) -> Result<Vec<IpAddr>, Failure> {
    let all = requests
        .dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))
        .map_err(|error| kernel("list addresses", error))?;
    let of = |message: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewAddress(address) = message else { return None };
        address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) if address.header.index == index => Some(*ip),
            _ => None,
        })
    };
    Ok(all.into_iter().filter_map(of).collect())
}

/// Whether there is a default route over this interface and gateway.
pub(super) fn has_default(
    requests: &mut Requests,
    index: u32,
    gateway: IpAddr,
) -> Result<bool, Failure> {
    let mut request = RouteMessage::default();
    request.header.address_family = family(gateway);
    let routes = requests
        .dump(&RouteNetlinkMessage::GetRoute(request))
        .map_err(|error| kernel("list routes", error))?;
    Ok(routes.iter().any(|message| {
        let RouteNetlinkMessage::NewRoute(route) = message else { return false };
        let has = |wanted: &RouteAttribute| route.attributes.contains(wanted);
        route.header.destination_prefix_length == 0
            && has(&RouteAttribute::Oif(index))
            && has(&RouteAttribute::Gateway(gateway.into()))
    }))
}

fn index_of(requests: &mut Requests, name: &str) -> Result<u32, Failure> {
    let found = link(requests, name)?.map(|link| link.header.index);
    found.ok_or_else(|| Failure::new(ErrorCode::Kernel, format!("interface {name} has vanished")))
}

fn up(index: u32, alias: Option<&str>) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    // `IFALIASZ` is 256; names of namespaces and pods can have 63 and 253 characters.
    let alias = alias.map(|alias| alias.chars().take(250).collect());
    message.attributes.extend(alias.map(LinkAttribute::IfAlias));
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

fn address(index: u32, address: IpAddr, length: u8) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = length;
    message.header.index = index;
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    let link_local = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
    message.header.scope = if link_local { AddressScope::Link } else { AddressScope::Universe };
    if address.is_ipv4() {
        message.attributes.push(AddressAttribute::Local(address));
    }
    message.attributes.push(AddressAttribute::Address(address));
    RouteNetlinkMessage::NewAddress(message)
}

fn neighbour(index: u32, address: IpAddr, mac: Mac) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(a) => NeighbourAddress::Inet(a),
        IpAddr::V6(a) => NeighbourAddress::Inet6(a),
    }));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    RouteNetlinkMessage::NewNeighbour(message)
}

/// A route to one address, or to everything, over an interface.
fn route(index: u32, to: Option<IpAddr>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: RouteScope::Link,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    if let Some(to) = to {
        message.header.address_family = family(to);
        message.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(to.into()));
        if to.is_ipv6() {
            message.header.scope = RouteScope::Universe;
        }
    }
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

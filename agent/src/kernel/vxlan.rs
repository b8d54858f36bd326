//! The VXLAN interface of the overlay: made, compared, repaired, removed.
//!
//! The interface is ours by its name and kind; one of our name and another kind is somebody else's and
//! left alone. What it is made with (VNI, port, addresses of the tunnel, learning) cannot be changed
//! later, so a difference there makes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::thread::{self, JoinHandle};

use api::constant::{OVERLAY_INTERFACE, POD_INTERFACE_PREFIX};
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::sync::mpsc;
use tracing::warn;

use super::route::{Batch, NetlinkError, Requests};
use crate::overlay::{Mac, Plan, overhead};

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// Requests in one system call.
const BATCH: usize = 256;

/// Why the overlay is not as planned.
#[derive(Debug, thiserror::Error)]
pub enum VxlanError {
    /// Netlink itself failed.
    #[error("netlink failed")]
    Netlink(#[from] NetlinkError),
    /// No interface has our end of the underlay.
    #[error("no interface has the node address {0}")]
    NoUplink(IpAddr),
    /// There is one of our name that we did not make.
    #[error("an interface named {OVERLAY_INTERFACE} exists and is not a VXLAN interface")]
    Foreign,
    /// The kernel refused a request.
    #[error("the kernel refused to {what}")]
    Refused {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        why: io::Error,
    },
    /// It is gone again.
    #[error("the interface vanished while it was set up")]
    Vanished,
}

/// An interface as the kernel tells it.
struct Seen {
    index: u32,
    up: bool,
    mtu: u32,
    mac: Vec<u8>,
    vxlan: Option<Tunnel>,
}

/// What a VXLAN interface is made with.
#[derive(PartialEq, Eq)]
struct Tunnel {
    vni: u32,
    port: u16,
    local: Option<IpAddr>,
    learning: bool,
}

impl Tunnel {
    fn of(plan: &Plan) -> Self {
        Self { vni: plan.vni, port: plan.port, local: Some(plan.local), learning: false }
    }
}

/// Makes everything be as planned; returns the index of the interface.
///
/// # Errors
/// See [`VxlanError`]; what could be done is done.
pub fn establish(plan: &Plan) -> Result<u32, VxlanError> {
    let mut requests = Requests::open()?;
    let mtu = uplink_mtu(&mut requests, plan.local)?.saturating_sub(overhead(plan.local));
    let mut seen = find(&mut requests)?;
    if let Some(found) = &seen
        && found.vxlan.as_ref() != Some(&Tunnel::of(plan))
    {
        delete(&mut requests, found.index)?;
        seen = None;
    }
    if seen.is_none() {
        create(&mut requests, plan, mtu)?;
        seen = find(&mut requests)?;
    }
    let found = seen.ok_or(VxlanError::Vanished)?;
    if !found.up || found.mtu != mtu || found.mac != plan.mac {
        adjust(&mut requests, found.index, plan.mac, mtu)?;
    }
    addresses(&mut requests, found.index, &plan.addresses)?;
    entries(&mut requests, found.index, plan)?;
    Ok(found.index)
}

/// Removes the interface, if it is there and ours.
///
/// # Errors
/// The kernel refused.
pub fn remove() -> Result<(), VxlanError> {
    let mut requests = Requests::open()?;
    match find(&mut requests) {
        Ok(Some(found)) => delete(&mut requests, found.index),
        Ok(None) | Err(VxlanError::Foreign) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Tells whenever something changes that the overlay depends on: its own interface, addresses and
/// entries, and other interfaces than pods'. Several changes may be told as one. The thread ends when
/// the receiver is gone and the next change comes, or with the process.
///
/// # Errors
/// The socket cannot be opened or the thread not started.
pub fn watch() -> io::Result<(mpsc::Receiver<()>, JoinHandle<()>)> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in [RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR] {
        socket.add_membership(group)?;
    }
    // One note is enough: whoever takes it looks at everything.
    let (sender, receiver) = mpsc::channel(1);
    let thread = thread::Builder::new().name("overlay-watch".to_owned()).spawn(move || {
        let mut buffer = Vec::with_capacity(64 << 10);
        while !sender.is_closed() {
            buffer.clear();
            let matters = match socket.recv(&mut buffer, 0) {
                Ok(_) => concerns_overlay(&buffer),
                // An overrun is a change like any other.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
                Err(error) => {
                    warn!(%error, "changes of the overlay's interface are not noticed any more");
                    return;
                }
            };
            if matters && matches!(sender.try_send(()), Err(mpsc::error::TrySendError::Closed(())))
            {
                return;
            }
        }
    })?;
    Ok((receiver, thread))
}

/// A datagram of the kernel tells of something that matters. What cannot be read does.
fn concerns_overlay(datagram: &[u8]) -> bool {
    let index = nix::net::if_::if_nametoindex(OVERLAY_INTERFACE).ok();
    let mut rest = datagram;
    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
        let concerns = match &message.payload {
            NetlinkPayload::InnerMessage(inner) => match inner {
                RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                    !link.attributes.iter().any(|attribute| {
                        matches!(attribute, LinkAttribute::IfName(name)
                            if name.starts_with(POD_INTERFACE_PREFIX))
                    })
                }
                RouteNetlinkMessage::NewNeighbour(entry)
                | RouteNetlinkMessage::DelNeighbour(entry) => Some(entry.header.ifindex) == index,
                RouteNetlinkMessage::NewAddress(address)
                | RouteNetlinkMessage::DelAddress(address) => Some(address.header.index) == index,
                _ => false,
            },
            _ => false,
        };
        if concerns {
            return true;
        }
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        match rest.get(length.next_multiple_of(4)..) {
            Some(more) if !more.is_empty() && length > 0 => rest = more,
            _ => return false,
        }
    }
    true
}

fn read(link: &LinkMessage) -> Seen {
    let mut seen = Seen {
        index: link.header.index,
        up: link.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        mac: Vec::new(),
        vxlan: None,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => seen.mtu = *mtu,
            LinkAttribute::Address(mac) => seen.mac.clone_from(mac),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Data(InfoData::Vxlan(of)) = info {
                        seen.vxlan = Some(tunnel(of));
                    }
                }
            }
            _ => {}
        }
    }
    seen
}

fn tunnel(attributes: &[InfoVxlan]) -> Tunnel {
    let mut tunnel = Tunnel { vni: 0, port: 0, local: None, learning: true };
    for attribute in attributes {
        match attribute {
            InfoVxlan::Id(vni) => tunnel.vni = *vni,
            InfoVxlan::Port(port) => tunnel.port = *port,
            InfoVxlan::Local(local) => tunnel.local = Some((*local).into()),
            InfoVxlan::Local6(local) => tunnel.local = Some((*local).into()),
            InfoVxlan::Learning(learning) => tunnel.learning = *learning,
            _ => {}
        }
    }
    tunnel
}

fn link_named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

/// Our interface; an error if the name is taken by another kind.
fn find(requests: &mut Requests) -> Result<Option<Seen>, VxlanError> {
    let question = RouteNetlinkMessage::GetLink(link_named(OVERLAY_INTERFACE));
    match requests.ask(question)? {
        Ok(RouteNetlinkMessage::NewLink(link)) => {
            let seen = read(&link);
            if seen.vxlan.is_some() { Ok(Some(seen)) } else { Err(VxlanError::Foreign) }
        }
        Ok(_) | Err(libc::ENODEV) => Ok(None),
        Err(errno) => Err(refused("look for the interface", errno)),
    }
}

fn refused(what: &'static str, errno: i32) -> VxlanError {
    VxlanError::Refused { what, why: io::Error::from_raw_os_error(errno) }
}

fn uplink_mtu(requests: &mut Requests, local: IpAddr) -> Result<u32, VxlanError> {
    let links = super::address::list();
    let name = links.iter().find(|link| link.net.addr() == local).map(|link| &link.interface);
    let name = name.ok_or(VxlanError::NoUplink(local))?;
    match requests.ask(RouteNetlinkMessage::GetLink(link_named(name)))? {
        Ok(RouteNetlinkMessage::NewLink(link)) => Ok(read(&link).mtu),
        Ok(_) => Err(VxlanError::NoUplink(local)),
        Err(errno) => Err(refused("tell the uplink's MTU", errno)),
    }
}

fn create(requests: &mut Requests, plan: &Plan, mtu: u32) -> Result<(), VxlanError> {
    let local = match plan.local {
        IpAddr::V4(local) => InfoVxlan::Local(local),
        IpAddr::V6(local) => InfoVxlan::Local6(local),
    };
    let data = vec![
        InfoVxlan::Id(plan.vni),
        local,
        InfoVxlan::Learning(false),
        InfoVxlan::Port(plan.port),
    ];
    let mut message = link_named(OVERLAY_INTERFACE);
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.push(LinkAttribute::Address(plan.mac.to_vec()));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(data)),
    ]));
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    send(requests, "make the interface", flags, vec![RouteNetlinkMessage::NewLink(message)])
}

fn adjust(requests: &mut Requests, index: u32, mac: Mac, mtu: u32) -> Result<(), VxlanError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.push(LinkAttribute::Address(mac.to_vec()));
    send(requests, "change the interface", 0, vec![RouteNetlinkMessage::SetLink(message)])
}

fn delete(requests: &mut Requests, index: u32) -> Result<(), VxlanError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    send(requests, "remove the interface", 0, vec![RouteNetlinkMessage::DelLink(message)])
}

/// Sends all; the first refusal is the error, the others are done all the same.
fn send(
    requests: &mut Requests,
    what: &'static str,
    flags: u16,
    messages: Vec<RouteNetlinkMessage>,
) -> Result<(), VxlanError> {
    let mut first = None;
    let mut rest = messages.into_iter().peekable();
    while rest.peek().is_some() {
        let mut batch = Batch::default();
        for message in rest.by_ref().take(BATCH) {
            batch.push(requests.next_sequence(), flags, message);
        }
        requests.write(&mut batch, |_, errno| {
            first.get_or_insert(errno);
        })?;
    }
    first.map_or(Ok(()), |errno| Err(refused(what, errno)))
}

/// The interface has these addresses, and no others but link-local ones.
fn addresses(requests: &mut Requests, index: u32, wanted: &[IpNet]) -> Result<(), VxlanError> {
    let mut present = BTreeSet::new();
    for answer in requests.dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) | AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        if let (true, Some(address)) = (message.header.index == index, address)
            && let Ok(net) = IpNet::new(address, message.header.prefix_len)
        {
            present.insert(net);
        }
    }
    let link_local = |net: &IpNet| match net.addr() {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let missing = wanted.iter().filter(|net| !present.contains(*net));
    let missing = missing.map(|net| RouteNetlinkMessage::NewAddress(address(index, net)));
    let surplus = present.iter().filter(|net| !wanted.contains(net) && !link_local(net));
    let surplus = surplus.map(|net| RouteNetlinkMessage::DelAddress(address(index, net)));
    send(requests, "remove an address", 0, surplus.collect())?;
    send(requests, "add an address", NLM_F_CREATE | NLM_F_REPLACE, missing.collect())
}

fn address(index: u32, net: &IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = net.addr().into();
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message.attributes.push(AddressAttribute::Address(net.addr()));
    if net.addr().is_ipv6() {
        // Nobody else can have it, and there is nobody to ask.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// Forwarding and neighbour entries: exactly those of the remote nodes.
fn entries(requests: &mut Requests, index: u32, plan: &Plan) -> Result<(), VxlanError> {
    let forwarding: BTreeSet<(Mac, IpAddr)> =
        plan.remotes.values().map(|remote| (remote.mac, remote.vtep)).collect();
    let neighbours: BTreeMap<IpAddr, Mac> = plan
        .remotes
        .values()
        .flat_map(|remote| remote.next_hops.iter().map(|hop| (remote.gateway(*hop), remote.mac)))
        .collect();
    let present = dump(requests, index, AddressFamily::Bridge)?;
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    let held: BTreeSet<(Mac, IpAddr)> =
        present.iter().filter_map(|entry| Some((entry.mac?, entry.destination?))).collect();
    for (mac, vtep) in held.difference(&forwarding) {
        remove.push(RouteNetlinkMessage::DelNeighbour(fdb(index, *mac, *vtep)));
    }
    for (mac, vtep) in forwarding.difference(&held) {
        add.push(RouteNetlinkMessage::NewNeighbour(fdb(index, *mac, *vtep)));
    }
    let mut held = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        // What the kernel makes for itself (multicast) is no permanent entry.
        let permanent = dump(requests, index, family)?.into_iter().filter(|entry| entry.permanent);
        held.extend(permanent.filter_map(|entry| Some((entry.destination?, entry.mac?))));
    }
    for (address, mac) in held.iter().filter(|(address, _)| !neighbours.contains_key(*address)) {
        remove.push(RouteNetlinkMessage::DelNeighbour(neighbour(index, *address, *mac)));
    }
    for (address, mac) in
        neighbours.iter().filter(|(address, mac)| held.get(*address) != Some(*mac))
    {
        add.push(RouteNetlinkMessage::NewNeighbour(neighbour(index, *address, *mac)));
    }
    send(requests, "remove an entry of a node", 0, remove)?;
    send(requests, "add an entry of a node", NLM_F_CREATE | NLM_F_REPLACE, add)
}

/// A forwarding or neighbour entry of the kernel.
struct Entry {
    destination: Option<IpAddr>,
    mac: Option<Mac>,
    permanent: bool,
}

fn dump(
    requests: &mut Requests,
    index: u32,
    family: AddressFamily,
) -> Result<Vec<Entry>, VxlanError> {
    let mut question = NeighbourMessage::default();
    question.header.family = family;
    let mut entries = Vec::new();
    for answer in requests.dump(&RouteNetlinkMessage::GetNeighbour(question))? {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else { continue };
        if message.header.ifindex == index {
            entries.push(entry(&message));
        }
    }
    Ok(entries)
}

fn entry(message: &NeighbourMessage) -> Entry {
    let mut entry = Entry {
        destination: None,
        mac: None,
        permanent: message.header.state == NeighbourState::Permanent,
    };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => {
                entry.mac = Mac::try_from(mac.as_slice()).ok();
            }
            NeighbourAttribute::Destination(to) => entry.destination = ip(to),
            _ => {}
        }
    }
    entry
}

/// In a forwarding entry the family is not told beside the address.
fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some((*address).into()),
        NeighbourAddress::Inet6(address) => Some((*address).into()),
        NeighbourAddress::Other(octets) => {
            let v4 = <[u8; 4]>::try_from(octets.as_slice()).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(octets.as_slice()).map(IpAddr::from)).ok()
        }
        _ => None,
    }
}

fn to_netlink(address: IpAddr) -> NeighbourAddress {
    match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    }
}

fn fdb(index: u32, mac: Mac, vtep: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(to_netlink(vtep)));
    message
}

fn neighbour(index: u32, address: IpAddr, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = address.into();
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::Destination(to_netlink(address)));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message
}

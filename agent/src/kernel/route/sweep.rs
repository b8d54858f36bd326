//! The end of what is ours: routes by their protocol tag, a link by its name and type; and what is
//! left to pods that run.

use std::io;

use api::constant::POD_ROUTE_PROTOCOL;
use ipnet::IpNet;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::message::{Batch, delete_route, dump, read};
use super::socket::{NetlinkError, Requests};
use crate::cni::name::is_host_interface;

/// Removes every route of the main table that carries our tag; the prefixes that had one.
///
/// # Errors
/// The kernel does not tell, or refuses to remove one.
pub fn sweep_routes() -> Result<Vec<IpNet>, NetlinkError> {
    let mut requests = Requests::open()?;
    let mut removed = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut batch = Batch::default();
        let mut doomed = Vec::new();
        for message in requests.dump(&dump(family))? {
            let RouteNetlinkMessage::NewRoute(message) = message else { continue };
            let Some(seen) = read(&message).filter(|seen| seen.ours) else { continue };
            let sequence = requests.next_sequence();
            batch.push(sequence, 0, delete_route(&seen.prefix, seen.metric));
            doomed.push(seen.prefix);
        }
        if doomed.is_empty() {
            continue;
        }
        let mut refusal = None;
        requests.write(&mut batch, |_, errno| {
            // It went with its interface, or somebody was faster.
            if errno != libc::ESRCH {
                refusal = Some(errno);
            }
        })?;
        if let Some(errno) = refusal {
            return Err(NetlinkError::Refused(io::Error::from_raw_os_error(errno)));
        }
        removed.extend(doomed);
    }
    // IPv6 tells each hop of one route by itself.
    removed.dedup();
    Ok(removed)
}

/// What pods of ours that run have on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRemains {
    /// Host sides of their veths.
    pub interfaces: usize,
    /// Routes to them ([`POD_ROUTE_PROTOCOL`]).
    pub routes: Vec<IpNet>,
}

/// Looks for pods whose network we made. Nothing is changed.
///
/// # Errors
/// The kernel does not tell.
pub fn pod_remains() -> Result<PodRemains, NetlinkError> {
    let mut requests = Requests::open()?;
    let mut remains = PodRemains::default();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for message in requests.dump(&dump(family))? {
            let RouteNetlinkMessage::NewRoute(message) = message else { continue };
            if message.header.protocol == RouteProtocol::Other(POD_ROUTE_PROTOCOL) {
                remains.routes.extend(read(&message).map(|seen| seen.prefix));
            }
        }
    }
    let links = requests.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    remains.interfaces = links.iter().filter(|message| is_of_pod(message)).count();
    Ok(remains)
}

fn is_of_pod(message: &RouteNetlinkMessage) -> bool {
    let RouteNetlinkMessage::NewLink(link) = message else { return false };
    link.attributes.iter().any(
        |attribute| matches!(attribute, LinkAttribute::IfName(name) if is_host_interface(name)),
    )
}

/// Removes the link of this name if it is a VXLAN; `false` if there is none.
///
/// # Errors
/// The kernel refuses, or the link is of another type: then it is not ours.
pub fn sweep_link(name: &str) -> Result<bool, NetlinkError> {
    let mut requests = Requests::open()?;
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let found = match requests.ask(RouteNetlinkMessage::GetLink(question))? {
        Ok(RouteNetlinkMessage::NewLink(link)) => link,
        Err(libc::ENODEV) => return Ok(false),
        Ok(_) => return Ok(false),
        Err(errno) => return Err(NetlinkError::Refused(io::Error::from_raw_os_error(errno))),
    };
    if !is_vxlan(&found) {
        return Err(NetlinkError::Refused(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a VXLAN interface, so not ours",
        )));
    }
    let mut doomed = LinkMessage::default();
    doomed.header.index = found.header.index;
    let mut batch = Batch::default();
    let sequence = requests.next_sequence();
    batch.push(sequence, 0, RouteNetlinkMessage::DelLink(doomed));
    let mut refusal = None;
    requests.write(&mut batch, |_, errno| refusal = Some(errno))?;
    match refusal {
        None | Some(libc::ENODEV) => Ok(true),
        Some(errno) => Err(NetlinkError::Refused(io::Error::from_raw_os_error(errno))),
    }
}

fn is_vxlan(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => {
            infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Vxlan)))
        }
        _ => false,
    })
}

//! Addresses of our interfaces, and a thread that tells when they change.

use std::io;
use std::net::IpAddr;
use std::thread::{self, JoinHandle};

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use tokio::sync::mpsc;
use tracing::warn;

use crate::config::LinkAddress;

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// All addresses now, sorted; none if the kernel does not tell.
#[must_use]
pub fn list() -> Vec<LinkAddress> {
    let mut addresses: Vec<LinkAddress> = match getifaddrs() {
        Ok(addresses) => addresses.filter_map(|address| link_address(&address)).collect(),
        Err(error) => {
            warn!(%error, "addresses of interfaces cannot be listed");
            Vec::new()
        }
    };
    addresses.sort_unstable();
    addresses
}

fn link_address(entry: &InterfaceAddress) -> Option<LinkAddress> {
    let address = ip(entry.address.as_ref()?)?;
    let mask = ip(entry.netmask.as_ref()?)?;
    let net = IpNet::with_netmask(address, mask).ok()?;
    Some(LinkAddress { interface: entry.interface_name.clone(), net })
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

/// Networks that a link leads to which is up and has a carrier; `None` if the kernel does not tell.
#[must_use]
pub fn connected() -> Option<Vec<IpNet>> {
    let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let addresses = match getifaddrs() {
        Ok(addresses) => addresses,
        Err(error) => {
            warn!(%error, "addresses of interfaces cannot be listed");
            return None;
        }
    };
    let mut networks: Vec<IpNet> = addresses
        .filter(|entry| entry.flags.contains(up))
        .filter_map(|entry| Some(link_address(&entry)?.net.trunc()))
        .collect();
    networks.sort_unstable();
    networks.dedup();
    Some(networks)
}

/// Tells whenever a link changes, or an address comes or goes; several changes may be told as one. The thread ends
/// when the receiver is gone and the next change comes, or with the process.
///
/// # Errors
/// The socket cannot be opened or the thread not started.
pub fn watch() -> io::Result<(mpsc::Receiver<()>, JoinHandle<()>)> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.add_membership(RTNLGRP_LINK)?;
    socket.add_membership(RTNLGRP_IPV4_IFADDR)?;
    socket.add_membership(RTNLGRP_IPV6_IFADDR)?;
    // One note is enough: whoever takes it looks at everything.
    let (sender, receiver) = mpsc::channel(1);
    let thread = thread::Builder::new().name("addresses".to_owned()).spawn(move || {
        let mut buffer = Vec::with_capacity(64 << 10);
        while !sender.is_closed() {
            buffer.clear();
            // An overrun is a change like any other.
            if let Err(error) = socket.recv(&mut buffer, 0)
                && error.raw_os_error() != Some(libc::ENOBUFS)
                && error.kind() != io::ErrorKind::Interrupted
            {
                warn!(%error, "changes of interface addresses are not noticed any more");
                return;
            }
            if let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                return;
            }
        }
    })?;
    Ok((receiver, thread))
}

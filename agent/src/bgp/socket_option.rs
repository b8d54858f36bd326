//! Socket options that no crate of ours has a typed call for.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _};

/// Drops what comes with a lower TTL (`IP_MINTTL`) or hop limit (`IPV6_MINHOPCOUNT`), by the family
/// of `remote`.
pub(super) fn set_min_ttl(socket: &impl AsFd, remote: IpAddr, min_ttl: u8) -> io::Result<()> {
    let (level, option) = match remote {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    };
    let value = libc::c_int::from(min_ttl);
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "setsockopt reads `length` octets of `value`, which lives here")]
    // SAFETY: the descriptor is borrowed for the call, the pointer and length are those of `value`.
    let result = unsafe {
        let value = std::ptr::from_ref(&value).cast();
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, value, length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_take_a_least_ttl() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(address).unwrap();
            let remote = listener.local_addr().unwrap().ip();
            set_min_ttl(&listener, remote, 255).unwrap();
        }
    }
}

//! Socket options that no crate of ours has a typed call for.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _};

use ::bgp::md5::{LONGEST_KEY, Md5Key};

/// `sizeof(struct sockaddr_storage)`.
const ADDRESS: usize = 128;

/// Drops what comes with a lower TTL (`IP_MINTTL`) or hop limit (`IPV6_MINHOPCOUNT`), by the family
/// of `remote`.
pub(super) fn set_min_ttl(socket: &impl AsFd, remote: IpAddr, min_ttl: u8) -> io::Result<()> {
    let (level, option) = match remote {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    };
    set(socket, level, option, &libc::c_int::from(min_ttl).to_ne_bytes())
}

/// Signs what goes to `remote` with this key, and drops what comes from there without the same
/// signature (`TCP_MD5SIG`, RFC 2385); without a key: stops that. Of a listener it holds for the
/// connections that are yet to come.
///
/// The socket's family is that of `remote`: our listeners take one family each.
pub(super) fn set_md5(socket: &impl AsFd, remote: IpAddr, key: Option<&Md5Key>) -> io::Result<()> {
    match set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &md5sig(remote, key)?) {
        // There was no key to remove.
        Err(error) if key.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// `struct tcp_md5sig`: address, flags, prefix length, key length, interface index, key.
fn md5sig(remote: IpAddr, key: Option<&Md5Key>) -> io::Result<Vec<u8>> {
    let octets = key.map_or(&[][..], Md5Key::octets);
    let length = u16::try_from(octets.len()).map_err(io::Error::other)?;
    let mut value = Vec::with_capacity(ADDRESS + 8 + LONGEST_KEY);
    // Port (and, of IPv6, flow label): none, they do not matter.
    match remote {
        IpAddr::V4(address) => {
            value.extend(u16::try_from(libc::AF_INET).map_err(io::Error::other)?.to_ne_bytes());
            value.extend([0; 2]);
            value.extend(address.octets());
        }
        IpAddr::V6(address) => {
            value.extend(u16::try_from(libc::AF_INET6).map_err(io::Error::other)?.to_ne_bytes());
            value.extend([0; 6]);
            value.extend(address.octets());
        }
    }
    value.resize(ADDRESS, 0);
    value.extend([0, 0]);
    value.extend(length.to_ne_bytes());
    value.extend([0; 4]);
    value.extend(octets);
    value.resize(ADDRESS + 8 + LONGEST_KEY, 0);
    Ok(value)
}

fn set(socket: &impl AsFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    #[expect(
        unsafe_code,
        reason = "setsockopt reads `length` octets of `value`, which are borrowed"
    )]
    // SAFETY: descriptor and octets are borrowed for the call, pointer and length are of one slice,
    // and the kernel asks for no alignment: it copies.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, value.as_ptr().cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;

    const LOOPBACK: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

    #[test]
    fn both_families_take_a_least_ttl() {
        for address in LOOPBACK {
            let listener = TcpListener::bind(address).unwrap();
            let remote = listener.local_addr().unwrap().ip();
            set_min_ttl(&listener, remote, 255).unwrap();
        }
    }

    fn key(text: &str) -> Md5Key {
        Md5Key::new(text.as_bytes()).unwrap()
    }

    fn dial(to: SocketAddr, key: Option<&Md5Key>) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if key.is_some() {
            set_md5(&socket, to.ip(), key)?;
        }
        socket.connect_timeout(&to.into(), Duration::from_millis(300))?;
        Ok(socket.into())
    }

    #[test]
    fn a_connection_comes_about_with_the_same_key_only() {
        for address in LOOPBACK {
            let listener = TcpListener::bind(address).unwrap();
            let to = listener.local_addr().unwrap();
            set_md5(&listener, to.ip(), Some(&key("one"))).unwrap();
            for wrong in [Some(key("two")), None] {
                let error = dial(to, wrong.as_ref()).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{to} {error}");
            }
            let mut ours = dial(to, Some(&key("one"))).unwrap();
            let (mut theirs, _) = listener.accept().unwrap();
            ours.write_all(b"hello").unwrap();
            let mut heard = [0; 5];
            theirs.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"hello");
        }
    }

    #[test]
    fn a_key_is_replaced_and_removed_and_removing_none_is_no_error() {
        for address in LOOPBACK {
            let listener = TcpListener::bind(address).unwrap();
            let to = listener.local_addr().unwrap();
            set_md5(&listener, to.ip(), None).unwrap();
            for key in [key("first"), key(&"x".repeat(LONGEST_KEY))] {
                set_md5(&listener, to.ip(), Some(&key)).unwrap();
                dial(to, Some(&key)).unwrap();
            }
            set_md5(&listener, to.ip(), None).unwrap();
            dial(to, None).unwrap();
        }
    }
}

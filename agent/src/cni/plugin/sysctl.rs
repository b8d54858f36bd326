//! Switches of a pod's two interfaces, below `/proc/sys/net` of the thread's network namespace.

use std::fs;
use std::io;

use super::error::{Failure, kernel};

/// Host side. Must come before the interface is set up: the kernel would start duplicate address
/// detection otherwise, and the gateway would not answer for a second.
pub(super) fn host_side(name: &str, v6: bool) -> Result<(), Failure> {
    set(&[
        (format!("ipv4/conf/{name}/forwarding"), "1"),
        (format!("ipv4/conf/{name}/proxy_arp"), "1"),
        // The answer would otherwise wait up to 0.8 s.
        (format!("ipv4/neigh/{name}/proxy_delay"), "0"),
        // All that a pod may send from is routed to its interface.
        (format!("ipv4/conf/{name}/rp_filter"), "1"),
        (format!("ipv4/conf/{name}/accept_redirects"), "0"),
        (format!("ipv4/conf/{name}/send_redirects"), "0"),
    ])?;
    if v6 {
        set(&[
            (format!("ipv6/conf/{name}/disable_ipv6"), "0"),
            (format!("ipv6/conf/{name}/forwarding"), "1"),
            (format!("ipv6/conf/{name}/accept_ra"), "0"),
            (format!("ipv6/conf/{name}/accept_redirects"), "0"),
            (format!("ipv6/conf/{name}/accept_dad"), "0"),
            // No address but the gateway's.
            (format!("ipv6/conf/{name}/addr_gen_mode"), "1"),
        ])?;
    }
    Ok(())
}

/// Pod side, within the pod's namespace; before it is set up.
pub(super) fn pod_side(name: &str, v6: bool) -> Result<(), Failure> {
    if !v6 {
        return Ok(());
    }
    set(&[
        (format!("ipv6/conf/{name}/disable_ipv6"), "0"),
        (format!("ipv6/conf/{name}/accept_ra"), "0"),
        (format!("ipv6/conf/{name}/accept_redirects"), "0"),
        (format!("ipv6/conf/{name}/accept_dad"), "0"),
        (format!("ipv6/conf/{name}/dad_transmits"), "0"),
    ])
}

fn set(switches: &[(String, &str)]) -> Result<(), Failure> {
    for (name, value) in switches {
        let path = format!("/proc/sys/net/{name}");
        // Some are costly to write (forwarding takes the routing lock): only what differs.
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == *value => {}
            // A kernel without it behaves as if it were off.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) | Err(_) => {
                fs::write(&path, value)
                    .map_err(|error| kernel(&format!("set {path} to {value}"), error))?;
            }
        }
    }
    Ok(())
}

//! Kernel, capabilities, sysctls, interfaces.

use std::fs;

use api::doctor::{Finding, Level};
use api::error_code;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use tracing::warn;

use crate::cni::name::is_host_interface;
use crate::kernel::route::Requests;

/// The oldest kernel that has all that is programmed.
const OLDEST: (u32, u32) = (5, 10);
/// Bits of `CapEff` that the agent cannot do without.
const CAPABILITIES: [(u32, &str); 2] = [(12, "NET_ADMIN"), (10, "NET_BIND_SERVICE")];
/// systemd-networkd listens there, in the network namespace of the host.
const NETWORKD_SOCKET: &str = "/run/systemd/netif/io.systemd.Network";

pub(super) fn examine(uplinks: &[String]) -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let links = links();
    let mut findings = vec![
        kernel(&read("/proc/sys/kernel/osrelease")),
        capabilities(&read("/proc/self/status")),
        forwarding(
            &read("/proc/sys/net/ipv4/ip_forward"),
            &read("/proc/sys/net/ipv6/conf/all/forwarding"),
        ),
    ];
    let filter = |name: &str| read(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
    let all = filter("all");
    let strict = uplinks.iter().filter(|name| is_strict(&all, &filter(name)));
    findings.push(reverse_path(&strict.cloned().collect::<Vec<_>>()));
    findings.push(mtu(&links, uplinks));
    findings.extend(networkd(&read("/proc/net/unix")));
    findings
}

fn kernel(release: &str) -> Finding {
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST => {
            let message = format!("Linux {release} is older than {}.{}", OLDEST.0, OLDEST.1);
            Finding::trouble(Level::Fail, "kernel", error_code::KERNEL_TOO_OLD, message)
        }
        _ => Finding::ok("kernel", format!("Linux {release}")),
    }
}

fn capabilities(status: &str) -> Finding {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| effective & (1 << bit) == 0)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Finding::ok("capabilities", "NET_ADMIN and NET_BIND_SERVICE");
    }
    let message = format!("the agent lacks {}", missing.join(" and "));
    Finding::trouble(Level::Fail, "capabilities", error_code::CAPABILITY_MISSING, message)
}

/// A family that the kernel does not have reads as nothing.
fn forwarding(v4: &str, v6: &str) -> Finding {
    let off: Vec<&str> = [("net.ipv4.ip_forward", v4), ("net.ipv6.conf.all.forwarding", v6)]
        .into_iter()
        .filter(|(_, value)| value.trim() == "0")
        .map(|(name, _)| name)
        .collect();
    if off.is_empty() {
        return Finding::ok("forwarding", "on for both families");
    }
    let message = format!("{} is 0", off.join(" and "));
    Finding::trouble(Level::Fail, "forwarding", error_code::FORWARDING_DISABLED, message)
}

/// The kernel takes the larger of the two (`ip-sysctl.rst`); 1 is strict, 2 is loose.
fn is_strict(all: &str, own: &str) -> bool {
    let number = |text: &str| text.trim().parse::<u8>().unwrap_or(0);
    number(all).max(number(own)) == 1
}

fn reverse_path(strict: &[String]) -> Finding {
    if strict.is_empty() {
        return Finding::ok("rp_filter", "not strict on the uplinks");
    }
    let message = format!("rp_filter is strict on {}", strict.join(", "));
    Finding::trouble(Level::Warn, "rp_filter", error_code::RP_FILTER_STRICT, message)
}

/// An interface and its MTU.
type Link = (String, u32);

/// Of the network namespace that we are in: `/sys` may be mounted from another one.
fn links() -> Vec<Link> {
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answer = Requests::open().and_then(|mut requests| requests.dump(&question));
    let mut links: Vec<Link> = match answer {
        Ok(messages) => messages.iter().filter_map(link).collect(),
        Err(error) => {
            warn!(%error, "interfaces cannot be listed");
            Vec::new()
        }
    };
    links.sort();
    links
}

fn link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let (mut name, mut mtu) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(octets) => mtu = Some(*octets),
            _ => {}
        }
    }
    name.zip(mtu)
}

/// Names of all interfaces.
pub(super) fn interfaces() -> Vec<String> {
    links().into_iter().map(|(name, _)| name).collect()
}

fn mtu(links: &[Link], uplinks: &[String]) -> Finding {
    let smallest =
        links.iter().filter(|(name, _)| uplinks.contains(name)).map(|(_, mtu)| *mtu).min();
    let Some(limit) = smallest else {
        return Finding::ok("MTU", "no uplink known yet");
    };
    let pods = links.iter().filter(|(name, _)| is_host_interface(name));
    let large: Vec<&Link> = pods.filter(|(_, mtu)| *mtu > limit).collect();
    let Some((_, worst)) = large.iter().max_by_key(|(_, mtu)| *mtu) else {
        return Finding::ok("MTU", format!("uplink {limit}"));
    };
    let message = format!("{} pod interfaces have up to {worst}, the uplink {limit}", large.len());
    Finding::trouble(Level::Warn, "MTU", error_code::MTU_MISMATCH, message)
}

/// Its settings are in files of the host, which the agent does not see; that it runs is visible.
fn networkd(sockets: &str) -> Option<Finding> {
    sockets.lines().any(|line| line.ends_with(NETWORKD_SOCKET)).then(|| {
        let message = "systemd-networkd runs on the node: unless it has ManageForeignRoutes=no it \
                       removes our routes when it reconfigures an interface";
        Finding::trouble(Level::Warn, "networkd", error_code::NETWORKD_ROUTES, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_fails_and_an_odd_release_does_not() {
        assert_eq!(kernel("5.4.0-42-generic\n").level, Level::Fail);
        assert_eq!(kernel("5.10.0\n").level, Level::Ok);
        assert_eq!(kernel("6.18.44-fc-v595\n").level, Level::Ok);
        assert_eq!(kernel("next-20260101\n").level, Level::Ok);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(capabilities("CapEff:\t0000000000001400\n").level, Level::Ok);
        let finding = capabilities("CapEff:\t0000000000001000\n");
        assert_eq!(
            (finding.level, finding.message.as_str()),
            (Level::Fail, "the agent lacks NET_BIND_SERVICE")
        );
        assert!(capabilities("").message.contains("NET_ADMIN and NET_BIND_SERVICE"));
    }

    #[test]
    fn forwarding_that_is_off_is_named_by_family() {
        assert_eq!(forwarding("1\n", "1\n").level, Level::Ok);
        assert_eq!(forwarding("1\n", "").level, Level::Ok);
        assert!(forwarding("1", "0\n").message.contains("ipv6"));
        assert!(forwarding("0", "1").message.contains("ip_forward"));
    }

    #[test]
    fn the_larger_rp_filter_counts_as_in_the_kernel() {
        assert!(is_strict("0", "1\n") && is_strict("1", "0"));
        assert!(!is_strict("2", "1") && !is_strict("0", "0") && !is_strict("", ""));
        assert_eq!(reverse_path(&["eth0".to_owned()]).level, Level::Warn);
    }

    #[test]
    fn pods_with_a_larger_mtu_than_the_uplink_are_a_trap() {
        let links = |pod: u32| {
            vec![
                ("eth0".to_owned(), 1450),
                ("rv0123456789ab".to_owned(), pod),
                ("rvx".to_owned(), 9000),
            ]
        };
        let uplinks = ["eth0".to_owned()];
        assert_eq!(mtu(&links(1450), &uplinks).level, Level::Ok);
        assert!(
            mtu(&links(1500), &uplinks).message.starts_with("1 pod interfaces have up to 1500")
        );
        assert_eq!(mtu(&links(1500), &[]).level, Level::Ok);
    }

    #[test]
    fn networkd_is_known_by_its_socket() {
        let line = format!("0000: 00000002 00000000 00010000 0001 01 12 {NETWORKD_SOCKET}\n");
        assert_eq!(networkd(&line).map(|f| f.code), Some(Some(error_code::NETWORKD_ROUTES)));
        assert!(networkd("0000: 2 0 1 1 1 12 /run/other\n").is_none());
    }
}

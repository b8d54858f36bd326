//! The network below the cluster: racks, their ToRs, a core that joins them.
//!
//! Everything is in namespaces; nothing reaches the machine's own network. The control plane and a
//! host of the outside world (`world`) are on the core; each rack is one subnet behind its ToR.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ctl::lab::namespace;
use ctl::lab::tor::FRR_DIRECTORY;
use serde::{Deserialize, Serialize};

use super::name::Name;
use super::process;

/// What the nodes are plugged into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fabric {
    /// All nodes on one subnet; their router knows nothing of pods.
    #[default]
    Flat,
    /// Two subnets behind two ToRs that speak BGP: `tor1` is BIRD (AS 65101), `tor2` is FRR
    /// (AS 65102). Nodes with odd numbers are in the first rack. A ToR takes any node of its rack
    /// as a peer (AS 64512).
    Racks,
}

/// AS of the nodes, as Rampart has it without configuration.
pub const NODE_ASN: u32 = 64512;
/// Networks of all pods.
pub const CLUSTER_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:244::/56"];
/// The API server and the other parts of the control plane.
pub const CONTROL_PLANE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(172, 30, 0, 2), Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 2));
/// A host that is no part of the cluster.
pub const WORLD: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(172, 30, 0, 3), Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 3));

impl Fabric {
    /// Racks, by number.
    #[must_use]
    pub fn racks(self) -> &'static [u8] {
        match self {
            Self::Flat => &[1],
            Self::Racks => &[1, 2],
        }
    }

    /// The rack of node `number`.
    #[must_use]
    pub fn rack_of(self, number: u8) -> u8 {
        match self {
            Self::Flat => 1,
            Self::Racks => 2 - number % 2,
        }
    }
}

/// AS of a ToR.
#[must_use]
pub fn tor_asn(rack: u8) -> u32 {
    65100 + u32::from(rack)
}

/// Addresses of a ToR towards its nodes.
#[must_use]
pub fn tor_addresses(rack: u8) -> (Ipv4Addr, Ipv6Addr) {
    addresses(rack, 1)
}

/// Addresses of node `number` in a rack.
#[must_use]
pub fn node_addresses(rack: u8, number: u8) -> (Ipv4Addr, Ipv6Addr) {
    addresses(rack, 10 + number)
}

/// Addresses on the subnet of a rack; rack 0 is the core.
fn addresses(rack: u8, host: u8) -> (Ipv4Addr, Ipv6Addr) {
    let v6 = Ipv6Addr::new(0xfd00, 0x30, rack.into(), 0, 0, 0, 0, host.into());
    (Ipv4Addr::new(172, 30, rack, host), v6)
}

/// Addresses of a ToR towards the core.
pub(super) fn core_addresses(rack: u8) -> (Ipv4Addr, Ipv6Addr) {
    addresses(0, 10 + rack)
}

/// Runs `ip` commands inside the namespace of a member.
///
/// # Errors
/// What `ip` said.
pub fn ip(name: &Name, member: &str, lines: &[String]) -> anyhow::Result<()> {
    Ok(namespace::ip_batch(None, Some(&name.namespace(member)), lines)?)
}

/// Makes the namespace of a member.
fn make(name: &Name, member: &str, forwards: bool) -> anyhow::Result<()> {
    let namespace = name.namespace(member);
    namespace::ip_batch(None, None, &[format!("netns add {namespace}")])?;
    let mut settings = vec![
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/dad_transmits", "0"),
    ];
    if forwards {
        settings.extend([
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ]);
    }
    namespace::sysctl(&namespace, &settings)?;
    ip(name, member, &["link set lo up".to_owned()])
}

/// Makes a member with `eth0` on the bridge of `switch`.
///
/// # Errors
/// What `ip` said.
pub fn plug(
    name: &Name,
    member: &str,
    forwards: bool,
    switch: &str,
    (v4, v6): (Ipv4Addr, Ipv6Addr),
) -> anyhow::Result<()> {
    make(name, member, forwards)?;
    join(name, member, "eth0", switch, (v4, v6))
}

fn join(
    name: &Name,
    member: &str,
    interface: &str,
    switch: &str,
    (v4, v6): (Ipv4Addr, Ipv6Addr),
) -> anyhow::Result<()> {
    let (namespace, switch_namespace) = (name.namespace(member), name.namespace(switch));
    namespace::ip_batch(
        None,
        None,
        &[format!(
            "link add {interface} netns {namespace} type veth peer name p-{member} netns {switch_namespace}"
        )],
    )?;
    ip(name, switch, &[format!("link set p-{member} master br0 up")])?;
    ip(
        name,
        member,
        &[
            format!("addr add {v4}/24 dev {interface}"),
            format!("addr add {v6}/64 dev {interface} nodad"),
            format!("link set {interface} up"),
        ],
    )
}

fn bridge(name: &Name, member: &str) -> anyhow::Result<()> {
    ip(name, member, &["link add br0 type bridge".to_owned(), "link set br0 up".to_owned()])
}

/// Makes the core, the ToRs, the control plane's namespace and the outside world.
///
/// # Errors
/// What `ip` or a router said.
pub fn up(name: &Name, fabric: Fabric) -> anyhow::Result<()> {
    make(name, "core", false)?;
    bridge(name, "core")?;
    for rack in fabric.racks() {
        let tor = format!("tor{rack}");
        let (v4, v6) = tor_addresses(*rack);
        make(name, &tor, true)?;
        bridge(name, &tor)?;
        ip(
            name,
            &tor,
            &[format!("addr add {v4}/24 dev br0"), format!("addr add {v6}/64 dev br0 nodad")],
        )?;
        join(name, &tor, "core", "core", core_addresses(*rack))?;
    }
    plug(name, "cp", false, "core", CONTROL_PLANE)?;
    plug(name, "world", false, "core", WORLD)?;
    // Every host of the core knows the way to every rack, and every ToR the way to the others'.
    for rack in fabric.racks() {
        let (via_v4, via_v6) = core_addresses(*rack);
        let others = fabric.racks().iter().filter(|other| *other != rack);
        let others: Vec<String> = others.map(|other| format!("tor{other}")).collect();
        for member in ["cp", "world"].into_iter().chain(others.iter().map(String::as_str)) {
            let lines = [
                format!("route add 172.30.{rack}.0/24 via {via_v4}"),
                format!("route add fd00:30:{rack}::/64 via {via_v6}"),
            ];
            ip(name, member, &lines)?;
        }
    }
    let (via_v4, via_v6) = core_addresses(1);
    for member in ["cp", "world"] {
        let lines =
            [format!("route add default via {via_v4}"), format!("route add default via {via_v6}")];
        ip(name, member, &lines)?;
    }
    if fabric == Fabric::Racks {
        start_tor(name, 1)?;
        start_tor(name, 2)?;
    }
    Ok(())
}

/// Starts the routing daemons of a ToR.
///
/// # Errors
/// When they do not start.
pub fn start_tor(name: &Name, rack: u8) -> anyhow::Result<()> {
    let directory = name.directory().join(format!("tor{rack}"));
    std::fs::create_dir_all(&directory)?;
    if rack == 1 {
        std::fs::write(directory.join("bird.conf"), bird(rack))?;
        let mut command = Command::new("bird");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("-f");
        command.arg("-c").arg(directory.join("bird.conf"));
        command.arg("-s").arg(directory.join("bird.ctl"));
        process::start(name, "tor1", "tor1-bird", &mut command)?;
        return appears(&directory.join("bird.ctl"));
    }
    std::fs::write(directory.join("bgpd.conf"), frr(rack))?;
    std::fs::write(directory.join("zebra.conf"), "log stdout\n")?;
    // FRR's daemons drop root before they make their sockets.
    let user = nix::unistd::User::from_name("frr")?.context("no user frr: install frr")?;
    nix::unistd::chown(&directory, Some(user.uid), Some(user.gid))?;
    // bgpd looks for zebra once, and then only ten seconds later again.
    for (daemon, socket) in [("zebra", "zserv.api"), ("bgpd", "bgpd.vty")] {
        std::fs::remove_file(directory.join(socket)).ok();
        let mut command = Command::new(Path::new(FRR_DIRECTORY).join(daemon));
        command.args(["-F", "datacenter", "-P", "0", "--log", "stdout", "-f"]);
        command.arg(directory.join(format!("{daemon}.conf")));
        command.arg("-i").arg(directory.join(format!("{daemon}.pid")));
        command.arg("-z").arg(directory.join("zserv.api")).arg("--vty_socket").arg(&directory);
        process::start(name, "tor2", &format!("tor2-{daemon}"), &mut command)?;
        appears(&directory.join(socket))?;
    }
    Ok(())
}

fn appears(path: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    while !path.exists() {
        if began.elapsed() > Duration::from_secs(10) {
            bail!("a router does not make {}: see the logs beside it", path.display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn bird(rack: u8) -> String {
    let (asn, (own_v4, own_v6)) = (tor_asn(rack), tor_addresses(rack));
    let (core_v4, core_v6) = core_addresses(rack);
    let (other_v4, _) = core_addresses(2);
    let other_asn = tor_asn(2);
    let [pods_v4, pods_v6] = CLUSTER_CIDRS;
    let mut text = format!(
        "log stderr all;\nrouter id {core_v4};\nprotocol device {{ scan time 1; }}\n\
         protocol kernel {{ merge paths on; ipv4 {{ export where source = RTS_BGP; }}; }}\n\
         protocol kernel {{ merge paths on; ipv6 {{ export where source = RTS_BGP; }}; }}\n"
    );
    // Writing to a String cannot fail.
    write!(
        text,
        "protocol bgp nodes {{\n  local {own_v4} as {asn};\n  neighbor range 172.30.{rack}.0/24 as {NODE_ASN};\n  \
         dynamic name \"node\";\n  hold time 9;\n  \
         ipv4 {{ import where net ~ [ {pods_v4}{{24,24}} ]; export none; }};\n  \
         ipv6 {{ import where net ~ [ {pods_v6}{{64,64}} ]; export none; next hop address {own_v6}; }};\n}}\n\
         protocol bgp spine {{\n  local {core_v4} as {asn};\n  neighbor {other_v4} as {other_asn};\n  hold time 9;\n  \
         connect delay time 1; connect retry time 2; error wait time 1, 4;\n  \
         ipv4 {{ import all; export where source = RTS_BGP; next hop self; }};\n  \
         ipv6 {{ import all; export where source = RTS_BGP; next hop address {core_v6}; }};\n}}\n"
    )
    .ok();
    text
}

fn frr(rack: u8) -> String {
    let (asn, (core_v4, _)) = (tor_asn(rack), core_addresses(rack));
    let (_, core_v6) = core_addresses(rack);
    let (other_v4, _) = core_addresses(1);
    let other_asn = tor_asn(1);
    let [pods_v4, pods_v6] = CLUSTER_CIDRS;
    format!(
        "log stdout\n\
         ip prefix-list PODS seq 5 permit {pods_v4} ge 24 le 24\n\
         ipv6 prefix-list PODS seq 5 permit {pods_v6} ge 64 le 64\n\
         ip prefix-list NOTHING seq 5 deny any\n\
         ipv6 prefix-list NOTHING seq 5 deny any\n\
         route-map CORE permit 10\n set ipv6 next-hop global {core_v6}\n\
         router bgp {asn}\n bgp router-id {core_v4}\n no bgp default ipv4-unicast\n \
         no bgp ebgp-requires-policy\n no bgp suppress-duplicates\n coalesce-time 50\n \
         neighbor NODES4 peer-group\n neighbor NODES4 remote-as {NODE_ASN}\n neighbor NODES4 timers 3 9\n \
         neighbor NODES6 peer-group\n neighbor NODES6 remote-as {NODE_ASN}\n neighbor NODES6 timers 3 9\n \
         bgp listen range 172.30.{rack}.0/24 peer-group NODES4\n \
         bgp listen range fd00:30:{rack}::/64 peer-group NODES6\n \
         neighbor {other_v4} remote-as {other_asn}\n neighbor {other_v4} timers 3 9\n \
         neighbor {other_v4} timers connect 2\n neighbor {other_v4} advertisement-interval 0\n \
         address-family ipv4 unicast\n  neighbor NODES4 activate\n  neighbor NODES4 prefix-list PODS in\n  \
         neighbor NODES4 prefix-list NOTHING out\n  neighbor {other_v4} activate\n exit-address-family\n \
         address-family ipv6 unicast\n  neighbor NODES6 activate\n  neighbor NODES6 prefix-list PODS in\n  \
         neighbor NODES6 prefix-list NOTHING out\n  neighbor {other_v4} activate\n  \
         neighbor {other_v4} route-map CORE out\n exit-address-family\n"
    )
}

//! VXLAN between two subnets whose router knows nothing of pods.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use agent::overlay::mac_of;
use tests::agent::{LIMIT, node};
use tests::fabric::Fabric;
use tests::netns::Namespace;
use tests::wait::eventually;

const INTERFACE: &str = "rampart-vxlan";
const VNI: u32 = 4179;
const PORT: u16 = 4789;

fn configuration(mode: &str) -> String {
    format!(
        "---\napiVersion: rampart.network/v1alpha1\nkind: NetworkConfiguration\nmetadata: {{name: default}}\nspec: {{overlay: {{mode: {mode}}}}}\n"
    )
}

/// n1 and n2 on one subnet, n3 on another.
fn with_overlay() -> Fabric {
    let mut fabric = Fabric::new(&[2, 1]);
    fabric.write("network.yaml", &configuration("VXLANCrossSubnet"));
    for node in &fabric.nodes {
        // As many distributions have it: what comes in must go out the same way.
        node.namespace.sysctl(&[("ipv4/conf/all/rp_filter", "1")]);
    }
    fabric.start();
    fabric.connected();
    eventually(LIMIT, "routes between the subnets are encapsulated", || {
        is_encapsulated(&fabric, 1, 3) && is_encapsulated(&fabric, 3, 1)
    });
    fabric
}

/// Both routes to the pods of a node leave through the overlay.
fn is_encapsulated(fabric: &Fabric, from: u8, to: u8) -> bool {
    let namespace = &fabric.node(from).namespace;
    fabric.node(to).pod_cidrs().iter().all(|cidr| {
        let family = if cidr.contains(':') { "-6" } else { "-4" };
        let route = namespace.output("ip", &[family, "route", "show", cidr]);
        route.contains(&format!("dev {INTERFACE}"))
    })
}

fn exists(namespace: &Namespace) -> bool {
    namespace.output("ip", &["link", "show", INTERFACE]).contains(INTERFACE)
}

fn flows_without_loss(fabric: &Fabric, pairs: &[(u8, u8)]) {
    for (from, to) in pairs {
        for v4 in [true, false] {
            let flow = fabric.flow(*from, *to, v4);
            std::thread::sleep(Duration::from_millis(500));
            let outcome = flow.stop();
            assert!(
                outcome.sent > 100 && outcome.lost.is_empty(),
                "{from} to {to}, IPv4 {v4}: {outcome:?}"
            );
        }
    }
}

#[test]
fn pods_on_two_subnets_reach_each_other_and_those_on_one_are_not_encapsulated() {
    let fabric = with_overlay();
    flows_without_loss(&fabric, &[(1, 3), (3, 2), (1, 2)]);
    assert!(!is_encapsulated(&fabric, 1, 2));
    for node in &fabric.nodes {
        assert!(node.agent().problems().is_empty(), "{:?}", node.agent().problems());
    }
    // The node itself, with strict reverse path filters.
    for address in fabric.node(3).pod_addresses() {
        let listener = fabric.node(3).pod.within(|| UdpSocket::bind((address, 9000))).unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let any: IpAddr = if address.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
        let node = fabric.node(1).namespace.within(|| UdpSocket::bind((any, 0))).unwrap();
        node.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        node.send_to(b"ping", (address, 9000)).unwrap();
        let (_, from) = listener.recv_from(&mut [0; 16]).unwrap();
        listener.send_to(b"pong", from).unwrap();
        let mut answer = [0; 16];
        assert_eq!(node.recv_from(&mut answer).unwrap(), (4, (address, 9000).into()));
    }
}

#[test]
fn a_packet_that_does_not_fit_is_told_the_right_mtu() {
    let fabric = with_overlay();
    let target = fabric.node(3).pod_addresses()[0];
    let pod = &fabric.node(1).pod;
    let ping = |octets: &str| {
        let target = target.to_string();
        pod.output("ping", &["-n", "-c", "1", "-W", "2", "-M", "do", "-s", octets, &target])
    };
    // 1450 octets: 20 of IPv4, 8 of ICMP.
    assert!(ping("1422").contains(" 0% packet loss"), "{}", ping("1422"));
    ping("1423");
    let learnt = pod.output("ip", &["route", "get", &target.to_string()]);
    assert!(learnt.contains("mtu 1450"), "{learnt}");
}

#[test]
fn switching_it_on_and_off_changes_routes_in_place_and_leaves_nothing() {
    let fabric = with_overlay();
    let nft = |number: u8| fabric.node(number).namespace.output("nft", &["list", "ruleset"]);
    assert!(nft(1).contains("overlay-input") && nft(1).contains("overlay_src4"));
    // Nobody who is not on the other subnet notices.
    let near = fabric.flow(1, 2, true);
    fabric.remove("network.yaml");
    eventually(LIMIT, "the interface is gone everywhere", || {
        fabric.nodes.iter().all(|node| !exists(&node.namespace))
    });
    eventually(LIMIT, "the guard is gone", || (1..=3).all(|n| !nft(n).contains("overlay")));
    fabric.connected();
    assert!(!is_encapsulated(&fabric, 1, 3));
    fabric.write("network.yaml", &configuration("VXLANAlways"));
    eventually(LIMIT, "every node is behind the overlay now", || {
        [(1, 2), (1, 3), (2, 3), (3, 1)].iter().all(|(a, b)| is_encapsulated(&fabric, *a, *b))
    });
    flows_without_loss(&fabric, &[(2, 1), (2, 3)]);
    let outcome = near.stop();
    assert!(outcome.lost.len() <= 1, "on the way from one path to the other: {outcome:?}");
}

#[test]
fn damage_by_others_is_repaired_and_a_restart_changes_nothing() {
    let mut fabric = with_overlay();
    let node = &fabric.node(1).namespace;
    let mac = mac_of("n3").map(|octet| format!("{octet:02x}")).join(":");
    node.output("bridge", &["fdb", "del", &mac, "dev", INTERFACE]);
    node.output("ip", &["neigh", "flush", "dev", INTERFACE, "nud", "permanent"]);
    eventually(LIMIT, "entries are repaired", || {
        let fdb = node.output("bridge", &["fdb", "show", "dev", INTERFACE]);
        let neighbours = node.output("ip", &["neigh", "show", "dev", INTERFACE]);
        fdb.contains(&mac) && neighbours.matches(&mac).count() == 2
    });
    flows_without_loss(&fabric, &[(1, 3)]);
    node.ip(&[&format!("link del {INTERFACE}")]);
    eventually(LIMIT, "the interface is made again", || is_encapsulated(&fabric, 1, 3));
    flows_without_loss(&fabric, &[(1, 3)]);
    let flow = fabric.flow(1, 3, true);
    fabric.node_mut(1).agent.take().unwrap().kill();
    fabric.node_mut(1).start();
    fabric.node(1).agent().synced();
    let outcome = flow.stop();
    assert!(outcome.lost.is_empty(), "{outcome:?}");
}

/// The same nodes without any IPv4 address of their own: the underlay is IPv6, and so are the pods.
fn over_ipv6() -> Fabric {
    let mut fabric = Fabric::new(&[2, 1]);
    fabric.write("network.yaml", &configuration("VXLANCrossSubnet"));
    let objects = fabric.nodes.iter().map(|one| {
        let ([_, address], [_, cidr]) = (one.addresses(), one.pod_cidrs());
        node(&one.name(), &[&address.to_string()], &[&cidr])
    });
    fabric.write("nodes.yaml", &objects.collect::<String>());
    for one in &fabric.nodes {
        one.namespace.ip(&[&format!("addr del {}/24 dev up0", one.addresses()[0])]);
    }
    fabric.start();
    eventually(LIMIT, "routes between the subnets are encapsulated", || {
        [(1, 3), (2, 3), (3, 1), (3, 2)].iter().all(|(from, to)| ipv6_gateway(&fabric, *from, *to))
            && fabric.node(1).namespace.reaches(&fabric.node(2).pod_cidrs()[1])
            && fabric.node(2).namespace.reaches(&fabric.node(1).pod_cidrs()[1])
    });
    fabric
}

/// The IPv6 route to the pods of a node leaves through the overlay.
fn ipv6_gateway(fabric: &Fabric, from: u8, to: u8) -> bool {
    let cidr = &fabric.node(to).pod_cidrs()[1];
    let route = fabric.node(from).namespace.output("ip", &["-6", "route", "show", cidr]);
    route.contains(&format!("dev {INTERFACE}"))
}

#[test]
fn over_an_ipv6_underlay_pods_reach_each_other_with_seventy_octets_less() {
    let mut fabric = over_ipv6();
    assert!(!ipv6_gateway(&fabric, 1, 2), "n1 and n2 are on one subnet");
    let flows = |fabric: &Fabric| {
        for (from, to) in [(1, 3), (3, 2), (1, 2)] {
            let flow = fabric.flow(from, to, false);
            std::thread::sleep(Duration::from_millis(500));
            let outcome = flow.stop();
            assert!(outcome.sent > 100 && outcome.lost.is_empty(), "{from} to {to}: {outcome:?}");
        }
    };
    flows(&fabric);
    for one in &fabric.nodes {
        assert!(one.agent().problems().is_empty(), "{:?}", one.agent().problems());
        let link = one.namespace.output("ip", &["-d", "link", "show", INTERFACE]);
        let local = format!("local {}", one.addresses()[1]);
        assert!(link.contains("mtu 1430") && link.contains(&local), "{link}");
    }
    // What does not fit is told: 1430 octets, 40 of them IPv6, 8 ICMP.
    let target = fabric.node(3).pod_addresses()[1].to_string();
    let pod = &fabric.node(1).pod;
    let ping = |octets: &str| {
        pod.output("ping", &["-n", "-c", "1", "-W", "2", "-M", "do", "-s", octets, &target])
    };
    assert!(ping("1382").contains(" 0% packet loss"), "{}", ping("1382"));
    ping("1383");
    let learnt = pod.output("ip", &["-6", "route", "get", &target]);
    assert!(learnt.contains("mtu 1430"), "{learnt}");

    // Repaired, and a restart changes nothing.
    let namespace = &fabric.node(1).namespace;
    let mac = mac_of("n3").map(|octet| format!("{octet:02x}")).join(":");
    namespace.output("bridge", &["fdb", "del", &mac, "dev", INTERFACE]);
    eventually(LIMIT, "the entry is repaired", || {
        let entries = namespace.output("bridge", &["fdb", "show", "dev", INTERFACE]);
        let dst = format!("dst {}", fabric.node(3).addresses()[1]);
        entries.lines().any(|entry| entry.contains(&mac) && entry.contains(&dst))
    });
    namespace.ip(&[&format!("link del {INTERFACE}")]);
    eventually(LIMIT, "the interface is made again", || ipv6_gateway(&fabric, 1, 3));
    let flow = fabric.flow(1, 3, false);
    fabric.node_mut(1).agent.take().unwrap().kill();
    fabric.node_mut(1).start();
    fabric.node(1).agent().synced();
    let outcome = flow.stop();
    assert!(outcome.lost.is_empty(), "{outcome:?}");
    flows(&fabric);

    fabric.remove("network.yaml");
    eventually(LIMIT, "the interface is gone everywhere", || {
        fabric.nodes.iter().all(|one| !exists(&one.namespace))
    });
}

#[test]
fn over_an_ipv6_underlay_encapsulated_packets_from_anybody_but_a_node_are_refused() {
    let fabric = over_ipv6();
    let inside = SocketAddr::new(fabric.node(1).pod_addresses()[1], 9999);
    let listener = fabric.node(1).pod.within(|| UdpSocket::bind(inside)).unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let vtep = SocketAddr::new(fabric.node(1).addresses()[1], PORT);
    let addresses = [3, 1].map(|number| {
        let address = fabric.node(number).pod_addresses()[1];
        address.to_string().parse::<Ipv6Addr>().unwrap()
    });
    let packet = in_vxlan([0x86, 0xdd], udp_over_ipv6(addresses));
    let send = |from: &Namespace| {
        let socket = from.within(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        socket.send_to(&packet, vtep).unwrap();
    };
    let arrives = || listener.recv(&mut [0; 64]).is_ok();
    send(&fabric.node(3).namespace);
    assert!(arrives(), "from a node it would be taken: the packet is well made");
    send(&fabric.router);
    assert!(!arrives(), "from a machine on the subnet that is no node");
    send(&fabric.node(2).pod);
    assert!(!arrives(), "from a pod of another node");
    send(&fabric.node(1).pod);
    assert!(!arrives(), "from a pod of the node itself");
}

/// Port 5000 to 9999.
fn udp_over_ipv6([from, to]: [Ipv6Addr; 2]) -> Vec<u8> {
    let payload = b"spoofed!";
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut udp = [5000, 9999, length, 0].map(u16::to_be_bytes).concat();
    udp.extend(payload);
    // Of IPv6 the checksum has to be there (RFC 8200 §8.1).
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 0], &length.to_be_bytes(), &[0, 0, 0, 17]];
    let summed = [pseudo.concat(), udp.clone()].concat();
    udp[6..8].copy_from_slice(&checksum(&summed).to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([17, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(udp);
    packet
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let sum: u32 = octets.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

/// In Ethernet from n3 to n1, in VXLAN.
fn in_vxlan(protocol: [u8; 2], packet: Vec<u8>) -> Vec<u8> {
    let mut outer = vec![0x08, 0, 0, 0];
    outer.extend((VNI << 8).to_be_bytes());
    outer.extend(mac_of("n1"));
    outer.extend(mac_of("n3"));
    outer.extend(protocol);
    outer.extend(packet);
    outer
}

/// UDP from the pod of n3 to that of n1, port 9999, in Ethernet, in VXLAN.
fn encapsulated() -> Vec<u8> {
    let payload = b"spoofed";
    let udp_length = u16::try_from(8 + payload.len()).unwrap();
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip[2..4].copy_from_slice(&(20 + udp_length).to_be_bytes());
    ip.extend(Ipv4Addr::new(10, 3, 0, 2).octets());
    ip.extend(Ipv4Addr::new(10, 1, 0, 2).octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(5000_u16.to_be_bytes());
    ip.extend(9999_u16.to_be_bytes());
    ip.extend(udp_length.to_be_bytes());
    ip.extend([0, 0]);
    ip.extend(payload);
    in_vxlan([0x08, 0x00], ip)
}

#[test]
fn encapsulated_packets_from_anybody_but_a_node_are_refused() {
    let fabric = with_overlay();
    let inside = SocketAddr::new(fabric.node(1).pod_addresses()[0], 9999);
    let listener = fabric.node(1).pod.within(|| UdpSocket::bind(inside)).unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let vtep = SocketAddr::new(fabric.node(1).addresses()[0], PORT);
    let send = |from: &Namespace| {
        let socket = from.within(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        socket.send_to(&encapsulated(), vtep).unwrap();
    };
    let arrives = || listener.recv(&mut [0; 64]).is_ok();
    send(&fabric.node(3).namespace);
    assert!(arrives(), "from a node it would be taken: the packet is well made");
    send(&fabric.router);
    assert!(!arrives(), "from a machine on the subnet that is no node");
    send(&fabric.node(2).pod);
    assert!(!arrives(), "from a pod of another node");
    send(&fabric.node(1).pod);
    assert!(!arrives(), "from a pod of the node itself");
}

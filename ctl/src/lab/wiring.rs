//! Namespaces, links, addresses and static routes of the fabric: everything below BGP.

use super::error::LabError;
use super::name::Name;
use super::namespace;
use super::topology::{Node, Pod, Topology, Tor};

/// Link-local gateway addresses of every pod, as CNI plugins with routed veths have them.
const GATEWAY_V4: &str = "169.254.1.1";
const GATEWAY_V6: &str = "fe80::1";

/// Sysctls of every namespace, before it has any link.
const BASE: [(&str, &str); 6] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    // Addresses are ours alone: duplicate detection would only make them wait.
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
];

/// Sysctls of what forwards: ToRs and nodes.
const FORWARDING: [(&str, &str); 5] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    // Flows, not packets or hosts, are spread over equal paths.
    ("ipv4/fib_multipath_hash_policy", "1"),
    ("ipv6/fib_multipath_hash_policy", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
];

/// Makes the namespaces; those that exist stay.
///
/// # Errors
/// [`LabError::Ip`], [`LabError::File`], [`LabError::Enter`].
pub fn namespaces(lab: &Name, topology: &Topology) -> Result<(), LabError> {
    let lines: Vec<String> =
        topology.members().map(|member| format!("netns add {}", lab.namespace(member))).collect();
    namespace::ip_batch(Some(lab), None, &lines)?;
    in_parallel(topology.members(), |member| namespace::sysctl(&lab.namespace(member), &BASE))?;
    let tors = topology.tors.iter().map(|tor| tor.name.as_str());
    let nodes = topology.nodes.iter().map(|node| node.name.as_str());
    in_parallel(tors.chain(nodes), |member| forwarding(lab, member, true))
}

/// Turns forwarding on (with the settings that go with it) or off.
///
/// # Errors
/// [`LabError::File`], [`LabError::Enter`].
pub fn forwarding(lab: &Name, member: &str, on: bool) -> Result<(), LabError> {
    let namespace = lab.namespace(member);
    if on {
        return namespace::sysctl(&namespace, &FORWARDING);
    }
    namespace::sysctl(&namespace, &[("ipv4/ip_forward", "0"), ("ipv6/conf/all/forwarding", "0")])
}

/// Makes every link and address.
///
/// # Errors
/// [`LabError::Ip`].
pub fn links(lab: &Name, topology: &Topology) -> Result<(), LabError> {
    let mut veths = Vec::new();
    let mut veth = |(a, member_a): (&str, &str), (b, member_b): (&str, &str)| {
        veths.push(format!(
            "link add {a} netns {} type veth peer name {b} netns {}",
            lab.namespace(member_a),
            lab.namespace(member_b)
        ));
    };
    for node in &topology.nodes {
        for link in &node.uplinks {
            veth((&link.tor, &node.name), (&node.name, &link.tor));
        }
    }
    for pod in &topology.pods {
        veth((&pod.host_interface, &pod.node), ("eth0", &pod.name));
    }
    namespace::ip_batch(Some(lab), None, &veths)?;

    let mut scripts: Vec<(&str, Vec<String>)> = Vec::new();
    for tor in &topology.tors {
        scripts.push((&tor.name, tor_script(topology, tor)));
    }
    for node in &topology.nodes {
        scripts.push((&node.name, node_script(topology, node)));
    }
    for pod in &topology.pods {
        scripts.push((&pod.name, pod_script(pod)));
    }
    in_parallel(scripts.into_iter(), |(member, lines)| {
        namespace::ip_batch(Some(lab), Some(&lab.namespace(member)), &lines)
    })
}

fn tor_script(topology: &Topology, tor: &Tor) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("addr add {}/32 dev lo", tor.address_v4),
        format!("addr add {}/128 dev lo nodad", tor.address_v6),
    ];
    for node in &topology.nodes {
        for link in node.uplinks.iter().filter(|link| link.tor == tor.name) {
            lines.push(format!("link set {} up", node.name));
            lines.push(format!("addr add {}/31 dev {}", link.tor_v4, node.name));
            lines.push(format!("addr add {}/64 dev {} nodad", link.tor_v6, node.name));
            // The rack's own routes: to the node itself and to its ends of the other links, so
            // that what a node sends over one ToR is answered over any.
            let (via_v4, via_v6) = (link.node_v4, link.node_v6);
            lines.push(format!("route add {}/32 via {via_v4}", node.address_v4));
            lines.push(format!("route add {}/128 via {via_v6}", node.address_v6));
            for other in node.uplinks.iter().filter(|other| other.tor != tor.name) {
                lines.push(format!("route add {} via {via_v4}", other.network_v4));
                lines.push(format!("route add {} via {via_v6}", other.network_v6));
            }
        }
    }
    lines
}

fn node_script(topology: &Topology, node: &Node) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("addr add {}/32 dev lo", node.address_v4),
        format!("addr add {}/128 dev lo nodad", node.address_v6),
    ];
    for link in &node.uplinks {
        lines.push(format!("link set {} up", link.tor));
        lines.push(format!("addr add {}/31 dev {}", link.node_v4, link.tor));
        lines.push(format!("addr add {}/64 dev {} nodad", link.node_v6, link.tor));
    }
    for pod in topology.pods.iter().filter(|pod| pod.node == node.name) {
        let interface = &pod.host_interface;
        lines.push(format!("link set {interface} up"));
        lines.push(format!("addr add {GATEWAY_V4}/32 dev {interface} scope link"));
        lines.push(format!("addr add {GATEWAY_V6}/64 dev {interface} nodad"));
        // The node talks to its pods from its own address, not from the gateway's.
        let (source_v4, source_v6) = (node.address_v4, node.address_v6);
        lines.push(format!("route add {}/32 dev {interface} scope link src {source_v4}", pod.v4));
        lines.push(format!("route add {}/128 dev {interface} src {source_v6}", pod.v6));
    }
    lines
}

fn pod_script(pod: &Pod) -> Vec<String> {
    vec![
        "link set lo up".to_owned(),
        "link set eth0 up".to_owned(),
        format!("addr add {}/32 dev eth0", pod.v4),
        format!("addr add {}/128 dev eth0 nodad", pod.v6),
        format!("route add {GATEWAY_V4} dev eth0 scope link"),
        format!("route add default via {GATEWAY_V4} dev eth0"),
        format!("route add default via {GATEWAY_V6} dev eth0"),
    ]
}

/// Runs `work` for each item on a few threads; the first error wins.
pub(super) fn in_parallel<T: Send>(
    items: impl Iterator<Item = T>,
    work: impl Fn(T) -> Result<(), LabError> + Sync,
) -> Result<(), LabError> {
    const THREADS: usize = 8;
    let mut items: Vec<T> = items.collect();
    let share = items.len().div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        while !items.is_empty() {
            let rest = items.split_off(items.len().saturating_sub(share));
            let work = &work;
            threads.push(scope.spawn(move || rest.into_iter().try_for_each(work)));
        }
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

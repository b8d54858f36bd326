//! Nodes that peer with each other without any configuration, come, go and change.

use tests::agent::{LIMIT, node};
use tests::fabric::Fabric;
use tests::wait::eventually;

fn codes(fabric: &Fabric, number: u8) -> Vec<u16> {
    fabric.node(number).agent().problems().iter().map(|problem| problem.code.0).collect()
}

#[test]
fn nodes_on_one_link_reach_each_others_pods_without_any_configuration() {
    let mut fabric = Fabric::new(&[3]);
    fabric.start();
    fabric.connected();
    for v4 in [true, false] {
        let flow = fabric.flow(1, 3, v4);
        std::thread::sleep(std::time::Duration::from_secs(1));
        let outcome = flow.stop();
        assert!(outcome.sent >= 500 && outcome.lost.is_empty(), "IPv4 {v4}: {outcome:?}");
    }
    assert_eq!(fabric.mesh(), ["on", "on", "on"]);
    for number in 1..=3 {
        assert_eq!(codes(&fabric, number), Vec::<u16>::new());
    }
}

#[test]
fn a_node_joins_leaves_and_comes_back_with_other_pod_cidrs_and_nobody_else_notices() {
    let mut fabric = Fabric::new(&[3]);
    fabric.write("nodes.yaml", &fabric.node_objects(&[1, 2]));
    for number in [1, 2] {
        fabric.node_mut(number).start();
    }
    let cidrs = |number: u8| fabric_cidrs(number);
    let reaches = |fabric: &Fabric, cidr: &str| fabric.node(1).namespace.reaches(cidr);
    eventually(LIMIT, "two nodes know each other", || {
        cidrs(2).iter().all(|cidr| reaches(&fabric, cidr))
    });
    let flow = fabric.flow(1, 2, true);
    fabric.write("nodes.yaml", &fabric.node_objects(&[1, 2, 3]));
    fabric.node_mut(3).start();
    fabric.connected();
    fabric.write("nodes.yaml", &fabric.node_objects(&[1, 2]));
    eventually(LIMIT, "the routes of the node that left are gone", || {
        cidrs(3).iter().all(|cidr| !reaches(&fabric, cidr))
    });
    let [v4, v6] = fabric.node(3).addresses().map(|address| address.to_string());
    let back = node("n3", &[&v4, &v6], &["10.33.0.0/24", "fd00:33::/64"]);
    fabric.write("nodes.yaml", &format!("{}{back}", fabric.node_objects(&[1, 2])));
    eventually(LIMIT, "it is back with its new pod CIDRs", || {
        ["10.33.0.0/24", "fd00:33::/64"].iter().all(|cidr| reaches(&fabric, cidr))
    });
    assert!(cidrs(3).iter().all(|cidr| !reaches(&fabric, cidr)), "and without the old ones");
    let outcome = flow.stop();
    assert!(outcome.lost.is_empty(), "between the others: {outcome:?}");
}

fn fabric_cidrs(number: u8) -> [String; 2] {
    [format!("10.{number}.0.0/24"), format!("fd00:{number}::/64")]
}

#[test]
fn overlapping_and_missing_pod_cidrs_are_one_clear_problem_and_disturb_nobody_else() {
    let mut fabric = Fabric::new(&[3]);
    fabric.start();
    fabric.connected();
    let flow = fabric.flow(1, 2, true);
    let [v4, v6] = fabric.node(3).addresses().map(|address| address.to_string());
    let objects = fabric.node_objects(&[1, 2]);
    // A part of n1's, and none of IPv6.
    let overlapping = node("n3", &[&v4, &v6], &["10.1.0.128/25"]);
    fabric.write("nodes.yaml", &format!("{objects}{overlapping}"));
    eventually(LIMIT, "it is told", || codes(&fabric, 2) == [1008]);
    let problem = &fabric.node(2).agent().problems()[0];
    assert_eq!(problem.subject, "Node n3");
    assert!(problem.message.contains("10.1.0.0/24 of Node n1"), "{}", problem.message);
    assert!(!fabric.node(2).namespace.reaches("10.1.0.128/25"));
    let none = node("n3", &[&v4, &v6], &[]);
    fabric.write("nodes.yaml", &format!("{objects}{none}"));
    eventually(LIMIT, "the node itself tells that it has none", || codes(&fabric, 3) == [3020]);
    assert_eq!(codes(&fabric, 2), Vec::<u16>::new());
    fabric.write("nodes.yaml", &fabric.node_objects(&[1, 2, 3]));
    fabric.connected();
    eventually(LIMIT, "all is well", || codes(&fabric, 3).is_empty());
    assert!(flow.stop().lost.is_empty());
}

#[test]
fn nodes_behind_a_router_peer_and_say_that_the_router_must_know_their_pods() {
    let mut fabric = Fabric::new(&[1, 1]);
    fabric.start();
    fabric.connected();
    eventually(LIMIT, "both tell it", || {
        codes(&fabric, 1) == [3005] && codes(&fabric, 2) == [3005]
    });
    // Routers with static routes: there is nothing to do, as the advice says.
    let problem = &fabric.node(1).agent().problems()[0];
    assert!(problem.next.contains("static routes") && problem.next.contains("VXLANCrossSubnet"));
    fabric.router.ip(&[
        "route add 10.1.0.0/24 via 172.20.0.1",
        "route add 10.2.0.0/24 via 172.20.1.2",
        "route add fd00:1::/64 via 2001:db8:0::1",
        "route add fd00:2::/64 via 2001:db8:1::2",
    ]);
    for v4 in [true, false] {
        let flow = fabric.flow(1, 2, v4);
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert!(flow.stop().lost.is_empty(), "IPv4 {v4}");
    }
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    let head = "---\napiVersion: rampart.network/v1alpha1";
    format!("{head}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

#[test]
fn a_peer_with_the_address_of_a_node_is_told_and_cuts_nobody_off() {
    let mut fabric = Fabric::new(&[3]);
    fabric.start();
    fabric.connected();
    let flows = [true, false].map(|v4| fabric.flow(1, 2, v4));
    let [v4, v6] = fabric.node(2).addresses().map(|address| address.to_string());
    for (address, asn) in [(&v4, 64512), (&v6, 65001)] {
        let spec = format!("peerAddress: '{address}', peerASN: {asn}");
        fabric.write("peer.yaml", &object("BGPPeer", "n2-again", &spec));
        let about = format!("{address} is an address of Node n2");
        eventually(LIMIT, "every node tells it", || {
            (1..=3).all(|number| {
                let problems = fabric.node(number).agent().problems();
                problems.len() == 1 && problems[0].message.contains(&about)
            })
        });
        let problem = &fabric.node(1).agent().problems()[0];
        assert_eq!((problem.code.0, problem.subject.as_str()), (2120, "BGPPeer n2-again"));
        assert_eq!(fabric.mesh(), ["on", "on", "on"]);
        let kinds = fabric.node(1).agent().peers().into_iter().map(|peer| (peer.name, peer.kind));
        let kinds: Vec<(String, String)> = kinds.collect();
        let mesh = ["n2", "n3"].map(|name| (name.to_owned(), "mesh".to_owned()));
        assert_eq!(kinds, mesh);
    }
    fabric.write("peer.yaml", "");
    eventually(LIMIT, "all is well", || (1..=3).all(|number| codes(&fabric, number).is_empty()));
    for flow in flows {
        let outcome = flow.stop();
        assert!(outcome.sent > 0 && outcome.lost.is_empty(), "{outcome:?}");
    }
}

#[test]
fn a_foreign_route_that_the_kernel_prefers_is_told_with_its_protocol_and_way() {
    let mut fabric = Fabric::new(&[2]);
    fabric.start();
    fabric.connected();
    let fib = |fabric: &Fabric, prefix: &str| {
        let routes = fabric.node(1).agent().routes();
        routes.into_iter().find(|route| route.prefix == prefix).map(|route| route.fib)
    };
    let status = |fabric: &Fabric| fabric.node(1).agent().status().routes;
    for (prefix, via) in [("10.2.0.0/24", "172.20.0.254"), ("fd00:2::/64", "2001:db8:0::fe")] {
        let node = &fabric.node(1).namespace;
        node.ip(&[&format!("route add {prefix} via {via} metric 10 proto bird")]);
        let shown = via.replace(":0::", "::");
        let words = format!("proto bird via {shown} dev up0 metric 10");
        eventually(LIMIT, "the route says so", || {
            fib(&fabric, prefix).is_some_and(|fib| fib == format!("overridden: {words}"))
        });
        eventually(LIMIT, "it is a problem", || codes(&fabric, 1) == [3008]);
        let problem = &fabric.node(1).agent().problems()[0];
        assert_eq!(problem.subject, format!("route {prefix}"));
        assert!(problem.message.contains(&words), "{}", problem.message);
        let routes = status(&fabric);
        assert_eq!((routes.overridden, routes.desired), (1, routes.installed));
        fabric.node(1).namespace.ip(&[&format!("route del {prefix} via {via} metric 10")]);
        eventually(LIMIT, "ours is used", || fib(&fabric, prefix).as_deref() == Some("ok"));
        eventually(LIMIT, "all is well", || codes(&fabric, 1).is_empty());
        assert_eq!(status(&fabric).overridden, 0);
        // The same way with another metric does no harm.
        let node = fabric.node(2).addresses()[usize::from(prefix.contains(':'))];
        fabric.node(1).namespace.ip(&[&format!("route add {prefix} via {node} metric 10")]);
        fabric.node(1).agent().synced();
        assert_eq!(fib(&fabric, prefix).as_deref(), Some("ok"));
        fabric.node(1).namespace.ip(&[&format!("route del {prefix} via {node} metric 10")]);
    }
}

#[test]
fn ranges_that_cover_no_pod_cidr_and_a_mesh_that_is_off_are_told() {
    let mut fabric = Fabric::new(&[2]);
    fabric.start();
    fabric.connected();
    let flow = fabric.flow(1, 2, true);
    let mistyped =
        object("BGPConfiguration", "default", "clusterCIDRs: [10.96.0.0/12, 'fd00::/16']");
    fabric.write("settings.yaml", &mistyped);
    let pools = object("NetworkConfiguration", "default", "pools: [{cidr: 'fd99::/48'}]");
    fabric.write("network.yaml", &pools);
    eventually(LIMIT, "both are told", || codes(&fabric, 1) == [1022, 1022]);
    fabric.connected();
    assert!(flow.stop().lost.is_empty(), "what admits nothing at all is not applied");
    fabric.write("network.yaml", "");
    fabric.write("settings.yaml", &object("BGPConfiguration", "default", "nodeMesh: false"));
    // Who reads the change later may connect once more to who does not know him any more.
    let standing = |number| {
        codes(&fabric, number).into_iter().filter(|code| *code != 2112).collect::<Vec<u16>>()
    };
    eventually(LIMIT, "a cluster without peers is told", || {
        standing(1) == [2121] && standing(2) == [2121]
    });
    fabric.write("settings.yaml", "");
    fabric.connected();
    eventually(LIMIT, "all is well", || standing(1).is_empty() && standing(2).is_empty());
}

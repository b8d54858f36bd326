//! NetworkPolicy v1, point by point: each case is checked on the compiled table and on the oracle.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use policy::verdict::{self, At, Cluster};
use support::cluster::{Node1, objects};
use support::walker::{self, Packet, SCTP, TCP, UDP};

/// Three local pods and one elsewhere, dual stack; `web` has a port called http, `db` one called
/// sql.
const CLUSTER: &str = "
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.1.0.0/24, 'fd00:1::/64']}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: InternalIP, address: 'fd00:99::1'}]}
---
kind: Namespace
metadata: {name: shop, labels: {team: blue}}
---
kind: Namespace
metadata: {name: data, labels: {team: green}}
---
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.1.0.1}, {ip: 'fd00:1::1'}]}
---
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 9090}]}]}
status: {podIPs: [{ip: 10.1.0.2}, {ip: 'fd00:1::2'}]}
---
kind: Pod
metadata: {name: job, namespace: data, labels: {app: job}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {podIPs: [{ip: 10.1.0.3}, {ip: 'fd00:1::3'}]}
---
kind: Pod
metadata: {name: db, namespace: data, labels: {app: db}}
spec: {nodeName: n2, containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}
status: {podIPs: [{ip: 10.2.0.1}, {ip: 'fd00:2::1'}]}
";

/// Who is meant in both families.
fn pair(who: &str) -> [&'static str; 2] {
    match who {
        "web" => ["10.1.0.1", "fd00:1::1"],
        "api" => ["10.1.0.2", "fd00:1::2"],
        "job" => ["10.1.0.3", "fd00:1::3"],
        "db" => ["10.2.0.1", "fd00:2::1"],
        "node" => ["192.168.0.1", "fd00:99::1"],
        "nobody" => ["10.1.0.77", "fd00:1::77"],
        "world" => ["198.51.100.9", "2001:db8::9"],
        other => panic!("who is {other}?"),
    }
}

/// Checks flows (`web > db:5432`, `/udp` or `/sctp` after the port) with what must become of them.
fn check(policies: &str, admitted: &[&str], denied: &[&str]) {
    let yaml = format!("{CLUSTER}\n---\n{policies}");
    let mut node = Node1::new("n1");
    assert_eq!(node.apply(&yaml), [], "no faults");
    let cluster: Cluster = objects(&yaml).into_iter().collect();
    for (flows, wanted) in [(admitted, true), (denied, false)] {
        for flow in flows {
            check_flow(&node, &cluster, flow, wanted);
        }
    }
}

fn check_flow(node: &Node1, cluster: &Cluster, flow: &str, wanted: bool) {
    let (source, target) = flow.split_once(" > ").expect("arrow");
    let (target, port) = target.split_once(':').expect("port");
    let (port, protocol) = match port.split_once('/') {
        Some((port, "udp")) => (port, UDP),
        Some((port, "sctp")) => (port, SCTP),
        Some((_, other)) => panic!("protocol {other}"),
        None => (port, TCP),
    };
    let port: u16 = port.parse().expect("port");
    let own = pair("node").map(|text| text.parse().expect("address"));
    for (source, destination) in pair(source).into_iter().zip(pair(target)) {
        let (source, destination) =
            (source.parse().expect("address"), destination.parse().expect("address"));
        let packet = Packet::new(source, destination, protocol, port);
        let question = verdict::Packet { source, destination, protocol, port };
        let judgement = cluster.judge(&question, At::Node("n1"));
        assert_eq!(judgement.allowed(), wanted, "oracle: {flow}: {judgement:#?}");
        let walked = walker::admitted(node.table(), &own, &packet);
        assert_eq!(walked, wanted, "table: {flow} {packet:?}\n{}", node.script());
    }
}

#[test]
fn without_policies_everything_passes_but_unknown_local_addresses() {
    check(
        "",
        &["web > db:1", "db > web:1", "world > job:1/udp", "web > node:1", "node > web:1"],
        &["web > nobody:1", "nobody > web:1", "world > nobody:1", "nobody > node:1"],
    );
}

#[test]
fn default_deny_ingress() {
    check(
        "
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
",
        &["web > db:1", "web > web:1", "node > web:1", "web > job:1", "world > job:1"],
        &["api > web:1", "world > web:1", "db > web:1/udp"],
    );
}

#[test]
fn default_deny_egress_holds_for_the_own_node_too() {
    check(
        "
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Egress]}
",
        &["world > web:1", "job > web:1", "web > web:1", "node > web:1", "job > node:1"],
        &["web > api:1", "web > world:1", "web > node:1", "api > db:1/udp"],
    );
}

#[test]
fn default_deny_both() {
    check(
        "
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
",
        &["web > web:1", "node > web:1", "job > db:1"],
        &["world > web:1", "web > world:1", "web > api:1"],
    );
}

#[test]
fn missing_policy_types_isolate_ingress_and_egress_only_with_egress_rules() {
    check(
        "
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, egress: []}
---
kind: NetworkPolicy
metadata: {name: b, namespace: shop}
spec: {podSelector: {matchLabels: {app: api}}, egress: [{ports: [{port: 80}]}]}
",
        &["web > world:1", "api > world:80"],
        &["world > web:1", "world > api:1", "api > world:81"],
    );
}

#[test]
fn empty_peers_and_ports_mean_all() {
    check(
        "
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{}]}
---
kind: NetworkPolicy
metadata: {name: b, namespace: shop}
spec: {podSelector: {matchLabels: {app: api}}, ingress: [{from: [], ports: [{port: 80}]}]}
---
kind: NetworkPolicy
metadata: {name: c, namespace: data}
spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: []}]}
",
        &["world > web:1", "world > web:1/sctp", "world > api:80", "db > job:5/udp"],
        &["world > api:81", "world > api:80/udp", "world > job:5", "web > job:5"],
    );
}

#[test]
fn pod_selector_means_the_own_namespace() {
    check(
        "
kind: NetworkPolicy
metadata: {name: a, namespace: data}
spec: {podSelector: {matchLabels: {app: job}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}]}]}
",
        &["db > job:1"],
        &["web > job:1", "world > job:1"],
    );
}

#[test]
fn namespace_selector_alone_and_combined_with_pod_selector() {
    let policy = |peers: &str| {
        format!(
            "
kind: NetworkPolicy
metadata: {{name: a, namespace: data}}
spec: {{podSelector: {{}}, ingress: [{{from: [{peers}]}}]}}
"
        )
    };
    check(
        &policy("{namespaceSelector: {matchLabels: {team: blue}}}"),
        &["web > job:1", "api > job:1"],
        &["db > job:1"],
    );
    check(
        &policy(
            "{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: web}}}",
        ),
        &["web > job:1"],
        &["api > job:1", "db > job:1"],
    );
    check(
        &policy(
            "{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {app: db}}}",
        ),
        &["web > job:1", "api > job:1", "db > job:1"],
        &["world > job:1"],
    );
    check(
        &policy("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}"),
        &["web > job:1"],
        &["db > job:1"],
    );
}

#[test]
fn not_in_and_does_not_exist_match_absent_keys() {
    let policy = |expression: &str| {
        format!(
            "
kind: NetworkPolicy
metadata: {{name: a, namespace: data}}
spec: {{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {{matchExpressions: [{expression}]}}}}]}}]}}
"
        )
    };
    check(
        &policy("{key: tier, operator: NotIn, values: [front]}"),
        &["api > job:1", "db > job:1"],
        &["web > job:1"],
    );
    check(&policy("{key: tier, operator: DoesNotExist}"), &["api > job:1"], &["web > job:1"]);
    check(&policy("{key: tier, operator: Exists}"), &["web > job:1"], &["api > job:1"]);
    check(
        &policy("{key: tier, operator: In, values: [front, back]}"),
        &["web > job:1"],
        &["api > job:1"],
    );
}

#[test]
fn ip_block_with_exceptions_both_families() {
    check(
        "
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{ipBlock: {cidr: 198.51.100.77/16, except: [198.51.100.128/25]}}, {ipBlock: {cidr: '2001:db8::/32', except: ['2001:db8:1::/48']}}]
  egress:
  - to: [{ipBlock: {cidr: 0.0.0.0/0, except: [198.51.100.0/24]}}, {ipBlock: {cidr: '::/0', except: ['2001:db8::/64']}}]
    ports: [{port: 443}]
",
        &["world > web:1/udp", "web > db:443"],
        &["db > web:1", "web > world:443", "web > db:444", "web > db:443/udp"],
    );
}

#[test]
fn numeric_ports_protocols_and_ranges() {
    check(
        "
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{namespaceSelector: {}}]
    ports: [{port: 80}, {port: 53, protocol: UDP}, {port: 7, protocol: SCTP}, {port: 30000, endPort: 32767}, {port: 90, endPort: 91}]
  - ports: [{port: 30500, endPort: 40000, protocol: UDP}]
  - from: [{ipBlock: {cidr: 198.51.100.0/24}}, {ipBlock: {cidr: '2001:db8::/32'}}]
    ports: [{port: 1000, endPort: 65535}, {protocol: SCTP}]
",
        &[
            "db > web:80",
            "db > web:53/udp",
            "db > web:7/sctp",
            "db > web:30000",
            "db > web:32767",
            "db > web:90",
            "db > web:91",
            "db > web:30500/udp",
            "world > web:40000/udp",
            "world > web:1000",
            "world > web:65535",
            "world > web:7/sctp",
            "world > web:0/sctp",
        ],
        &[
            "db > web:80/udp",
            "db > web:53",
            "db > web:29999",
            "db > web:32768",
            "db > web:89",
            "db > web:92",
            "world > web:80",
            "world > web:999",
            "world > web:30499/udp",
            "world > web:40001/udp",
        ],
    );
}

#[test]
fn adjacent_and_separate_ports_stay_exact() {
    check(
        "
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}, {port: 82}, {port: 83, endPort: 84}]}]}
",
        &["world > web:80", "world > web:82", "world > web:83", "world > web:84"],
        &["world > web:81", "world > web:79", "world > web:85"],
    );
}

#[test]
fn ingress_named_port_is_that_of_the_target() {
    check(
        "
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec: {podSelector: {}, ingress: [{ports: [{port: http}]}]}
",
        &["world > web:8080", "world > api:9090"],
        &["world > web:9090", "world > api:8080", "world > web:8080/udp"],
    );
}

#[test]
fn egress_named_port_is_that_of_each_peer() {
    check(
        "
kind: NetworkPolicy
metadata: {name: a, namespace: data}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: http}]}]}
---
kind: NetworkPolicy
metadata: {name: b, namespace: shop}
spec: {podSelector: {matchLabels: {app: api}}, policyTypes: [Egress], egress: [{ports: [{port: sql}, {port: http}]}]}
---
kind: NetworkPolicy
metadata: {name: c, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 'fd00::/16'}}], ports: [{port: sql}]}]}
",
        &["job > web:8080", "job > api:9090", "api > db:5432", "api > web:8080", "web > db:5432"],
        &["job > web:9090", "job > db:5432", "api > world:5432", "api > web:5432", "web > api:9090"],
    );
}

#[test]
fn policies_add_up_and_need_both_sides() {
    check(
        "
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec: {podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}
---
kind: NetworkPolicy
metadata: {name: b, namespace: shop}
spec: {podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 81}]}]}
---
kind: NetworkPolicy
metadata: {name: c, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 80}, {port: 82}]}]}
",
        &["web > api:80"],
        // Ingress alone, egress alone.
        &["web > api:81", "web > api:82", "api > web:80"],
    );
}

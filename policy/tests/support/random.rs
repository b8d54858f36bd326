//! Random objects: few names, labels, addresses and ports, so that things meet.

use std::net::IpAddr;

use policy::event::Object;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

pub(crate) const NAMESPACES: [&str; 3] = ["a", "b", "c"];
pub(crate) const POD_CIDRS: [&str; 2] = ["10.1.0.0/24", "fd00:1::/64"];
pub(crate) const NODE_ADDRESSES: [&str; 2] = ["192.168.0.1", "fd00:99::1"];

/// Addresses of pods; the first half of each family is in the pod CIDRs of our node.
const POD_ADDRESSES: [&str; 12] = [
    "10.1.0.1",
    "10.1.0.2",
    "10.1.0.3",
    "10.2.0.1",
    "10.2.0.2",
    "10.2.0.3",
    "fd00:1::1",
    "fd00:1::2",
    "fd00:1::3",
    "fd00:2::1",
    "fd00:2::2",
    "fd00:2::3",
];

/// All that packets are tried from and to.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let others = ["10.1.0.200", "fd00:1::200", "8.8.8.8", "10.2.0.129", "2001:db8::8"];
    let all = POD_ADDRESSES.iter().chain(&NODE_ADDRESSES).chain(&others);
    all.map(|text| text.parse().expect("address")).collect()
}

/// Protocols and ports that packets are tried with.
pub(crate) const PORTS: [(u8, u16); 12] = [
    (6, 80),
    (6, 81),
    (6, 443),
    (6, 8080),
    (6, 8100),
    (6, 65535),
    (17, 53),
    (17, 80),
    (17, 8090),
    (132, 80),
    (1, 0),
    (58, 0),
];

fn chance(percent: u32) -> impl Strategy<Value = bool> {
    prop::bool::weighted(f64::from(percent) / 100.0)
}

fn labels() -> impl Strategy<Value = Value> {
    (option::of(select(vec!["web", "db"])), option::of(select(vec!["1", "2", ""]))).prop_map(
        |(app, tier)| {
            let mut labels = serde_json::Map::new();
            labels.extend(app.map(|app| ("app".to_owned(), json!(app))));
            labels.extend(tier.map(|tier| ("tier".to_owned(), json!(tier))));
            Value::Object(labels)
        },
    )
}

fn expression() -> impl Strategy<Value = Value> {
    let key = select(vec!["app", "tier", "kubernetes.io/metadata.name"]);
    let values = || vec(select(vec!["web", "db", "1", "2", "", "a", "b"]), 1..3);
    prop_oneof![
        3 => (key.clone(), values())
            .prop_map(|(k, v)| json!({"key": k, "operator": "In", "values": v})),
        3 => (key.clone(), values())
            .prop_map(|(k, v)| json!({"key": k, "operator": "NotIn", "values": v})),
        2 => key.clone().prop_map(|k| json!({"key": k, "operator": "Exists"})),
        2 => key.prop_map(|k| json!({"key": k, "operator": "DoesNotExist"})),
    ]
}

fn bad_expression() -> impl Strategy<Value = Value> {
    select(vec![
        json!({"key": "app", "operator": "Like", "values": ["web"]}),
        json!({"key": "app", "operator": "In"}),
        json!({"key": "app", "operator": "Exists", "values": ["web"]}),
        json!({"key": "not a key", "operator": "Exists"}),
        json!({"key": "app", "operator": "In", "values": ["not a value"]}),
    ])
}

fn selector() -> impl Strategy<Value = Value> {
    let expressions =
        vec(prop_oneof![60 => expression().boxed(), 1 => bad_expression().boxed()], 0..3);
    prop_oneof![
        2 => Just(json!({})),
        3 => labels().prop_map(|labels| json!({"matchLabels": labels})),
        3 => (labels(), expressions)
            .prop_map(|(l, e)| json!({"matchLabels": l, "matchExpressions": e})),
    ]
}

fn block() -> impl Strategy<Value = Value> {
    select(vec![
        json!({"cidr": "0.0.0.0/0"}),
        json!({"cidr": "::/0", "except": ["fd00::/16"]}),
        json!({"cidr": "10.2.0.7/24", "except": ["10.2.0.2/32", "10.2.0.128/25"]}),
        json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/24"]}),
        json!({"cidr": "fd00:2::/64", "except": ["fd00:2::1/128"]}),
        json!({"cidr": "192.168.0.1/32"}),
        json!({"cidr": "10.2.0.0/30", "except": ["10.2.0.0/30"]}),
        json!({"cidr": "10.2.0.0/16"}),
    ])
}

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        30 => selector().prop_map(|pods| json!({"podSelector": pods})),
        30 => selector().prop_map(|ns| json!({"namespaceSelector": ns})),
        30 => (selector(), selector())
            .prop_map(|(ns, pods)| json!({"namespaceSelector": ns, "podSelector": pods})),
        30 => block().prop_map(|block| json!({"ipBlock": block})),
        1 => select(vec![
            json!({}),
            json!({"ipBlock": {"cidr": "10.0.0.0/33"}}),
            json!({"ipBlock": {"cidr": "10.0.0.0"}}),
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}),
            json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
        ]),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = || select(vec![json!(null), json!("TCP"), json!("UDP"), json!("SCTP")]);
    prop_oneof![
        20 => protocol().prop_map(|protocol| json!({"protocol": protocol})),
        40 => (protocol(), select(vec![80, 82, 443, 53, 8080, 65535]))
            .prop_map(|(protocol, port)| json!({"protocol": protocol, "port": port})),
        40 => (protocol(), select(vec!["http", "dns", "alt"]))
            .prop_map(|(protocol, port)| json!({"protocol": protocol, "port": port})),
        30 => (protocol(), select(vec![(80, 81), (80, 8100), (8080, 8090), (1, 65535), (443, 443)]))
            .prop_map(|(p, (a, b))| json!({"protocol": p, "port": a, "endPort": b})),
        1 => select(vec![
            json!({"port": 0}),
            json!({"port": 65536}),
            json!({"port": "80"}),
            json!({"port": "http", "endPort": 90}),
            json!({"port": 90, "endPort": 80}),
            json!({"endPort": 80}),
            json!({"protocol": "ICMP"}),
        ]),
    ]
}

fn rule(peers: &'static str) -> impl Strategy<Value = Value> {
    (option::weighted(0.8, vec(peer(), 0..4)), option::weighted(0.7, vec(port(), 0..4)))
        .prop_map(move |(list, ports)| json!({peers: list, "ports": ports}))
}

fn metadata(namespace: &str, name: &str, labels: &Value) -> Value {
    json!({"namespace": namespace, "name": name, "labels": labels})
}

fn policy() -> impl Strategy<Value = Object> {
    let types = select(vec![
        json!(null),
        json!(null),
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
        json!(["Ingress", "Egress"]),
        json!([]),
    ]);
    let bad_types = chance(1);
    let name = (select(&NAMESPACES[..2]), 0..3u8);
    (
        name,
        selector(),
        types,
        bad_types,
        option::of(vec(rule("from"), 0..3)),
        option::of(vec(rule("to"), 0..3)),
    )
        .prop_map(|((namespace, n), selector, types, bad, ingress, egress)| {
            let types = if bad { json!(["Ingres"]) } else { types };
            from_json(
                Object::NetworkPolicy,
                json!({
                    "metadata": metadata(namespace, &format!("policy-{n}"), &json!({})),
                    "spec": {
                        "podSelector": selector, "policyTypes": types,
                        "ingress": ingress, "egress": egress,
                    },
                }),
            )
        })
}

fn pod() -> impl Strategy<Value = Object> {
    let ports = vec(
        (
            select(vec!["http", "dns", "alt"]),
            select(vec![80, 8080, 53, 81]),
            select(vec!["TCP", "UDP"]),
        )
            .prop_map(|(n, p, q)| json!({"name": n, "containerPort": p, "protocol": q})),
        0..3,
    );
    let ips = vec(
        prop_oneof![20 => select(&POD_ADDRESSES[..]), 1 => select(vec!["10.1.0.999", "::", ""])],
        0..3,
    );
    let phase = select(vec!["Running", "Running", "Running", "Running", "Succeeded", "Failed"]);
    let name = (select(&NAMESPACES[..]), 0..4u8);
    (name, labels(), select(vec!["n1", "n1", "n2"]), chance(5), phase, ips, ports).prop_map(
        |((namespace, n), labels, node, host, phase, ips, ports)| {
            let ips: Vec<Value> = ips.into_iter().map(|ip| json!({"ip": ip})).collect();
            from_json(
                Object::Pod,
                json!({
                    "metadata": metadata(namespace, &format!("pod-{n}"), &labels),
                    "spec": {
                        "nodeName": node, "hostNetwork": host,
                        "containers": [{"name": "main", "ports": ports}],
                    },
                    "status": {"phase": phase, "podIPs": ips},
                }),
            )
        },
    )
}

fn namespace() -> impl Strategy<Value = Object> {
    (select(&NAMESPACES[..]), labels()).prop_map(|(name, labels)| {
        from_json(Object::Namespace, json!({"metadata": {"name": name, "labels": labels}}))
    })
}

fn node() -> impl Strategy<Value = Object> {
    let cidrs = select(vec![&POD_CIDRS[..], &POD_CIDRS[..1], &[]]);
    (select(vec!["n1", "n1", "n1", "n2"]), cidrs).prop_map(|(name, cidrs)| {
        let mine = name == "n1";
        let cidrs = if mine { json!(cidrs) } else { json!(["10.2.0.0/24"]) };
        let addresses: Vec<Value> = NODE_ADDRESSES
            .iter()
            .filter(|_| mine)
            .map(|a| json!({"type": "InternalIP", "address": a}))
            .collect();
        from_json(
            Object::Node,
            json!({
                "metadata": {"name": name},
                "spec": {"podCIDRs": cidrs},
                "status": {"addresses": addresses},
            }),
        )
    })
}

fn from_json<T: serde::de::DeserializeOwned>(wrap: fn(Box<T>) -> Object, json: Value) -> Object {
    wrap(Box::new(serde_json::from_value(json).expect("object")))
}

pub(crate) fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        1 => node().boxed(),
        3 => namespace().boxed(),
        10 => pod().boxed(),
        8 => policy().boxed(),
    ]
}

/// What may happen to a node agent.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Apply(Object),
    /// Of the objects there are, the one at this position changes in one respect.
    Change(prop::sample::Index, Change),
    /// Of the objects there are, the one at this position is deleted.
    Delete(prop::sample::Index),
    /// All that there is of one kind is listed again, but for one object.
    Relist(usize, prop::sample::Index),
    /// The kernel routes an address to an interface.
    Interface(prop::sample::Index, Option<&'static str>),
    /// What there is to send is sent.
    Send,
    /// What was sent is taken, or refused.
    Answer(bool),
    /// The table is read back; what was sent may have been taken by then.
    Adopt(bool),
    /// The agent starts anew.
    Restart(bool),
    /// Somebody removes the table, or brings back an old one.
    Damage(Option<prop::sample::Index>),
}

/// Of a pod or policy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// To the other node.
    Move,
    /// Ends, or starts again.
    Phase,
    /// Changes its labels (a policy: its podSelector).
    Relabel,
    /// Loses its first port (a policy: its first ingress rule).
    Shorten,
}

impl Change {
    pub(crate) fn of(self, object: &Object) -> Object {
        let mut object = object.clone();
        match (&mut object, self) {
            (Object::Pod(pod), Self::Move) => {
                let spec = pod.spec.get_or_insert_default();
                let here = spec.node_name.as_deref() == Some("n1");
                spec.node_name = Some(if here { "n2" } else { "n1" }.to_owned());
            }
            (Object::Pod(pod), Self::Phase) => {
                let status = pod.status.get_or_insert_default();
                let ended = status.phase.as_deref() == Some("Succeeded");
                status.phase = Some(if ended { "Running" } else { "Succeeded" }.to_owned());
            }
            (Object::Pod(pod), Self::Relabel) => {
                let labels = pod.metadata.labels.get_or_insert_default();
                if labels.remove("app").is_none() {
                    labels.insert("app".to_owned(), "web".to_owned());
                }
            }
            (Object::Pod(pod), Self::Shorten) => {
                for container in pod.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
                    container.ports = container.ports.take().map(|p| p[p.len().min(1)..].to_vec());
                }
            }
            (Object::NetworkPolicy(policy), Self::Relabel | Self::Phase) => {
                policy.spec.get_or_insert_default().pod_selector = None;
            }
            (Object::NetworkPolicy(policy), Self::Shorten | Self::Move) => {
                let spec = policy.spec.get_or_insert_default();
                spec.ingress =
                    spec.ingress.take().map(|rules| rules[rules.len().min(1)..].to_vec());
            }
            (Object::Node(_) | Object::Namespace(_), _) => {}
        }
        object
    }
}

pub(crate) fn action() -> impl Strategy<Value = Action> {
    let interface = option::of(select(vec!["rv1", "rv2", "rv3"]));
    let change = select(vec![Change::Move, Change::Phase, Change::Relabel, Change::Shorten]);
    prop_oneof![
        60 => object().prop_map(Action::Apply),
        15 => (any::<prop::sample::Index>(), change).prop_map(|(i, c)| Action::Change(i, c)),
        8 => any::<prop::sample::Index>().prop_map(Action::Delete),
        2 => (0..4usize, any::<prop::sample::Index>()).prop_map(|(k, i)| Action::Relist(k, i)),
        5 => (any::<prop::sample::Index>(), interface).prop_map(|(a, i)| Action::Interface(a, i)),
        20 => Just(Action::Send),
        15 => chance(75).prop_map(Action::Answer),
        2 => any::<bool>().prop_map(Action::Adopt),
        2 => any::<bool>().prop_map(Action::Restart),
        2 => option::of(any::<prop::sample::Index>()).prop_map(Action::Damage),
    ]
}

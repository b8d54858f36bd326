use proptest::prelude::*;
use serde_json::json;

use super::super::record;
use super::*;

fn good(kind: Kind, raw: &Value) -> Object {
    let item = item(kind, &raw.to_string()).expect("it has a name");
    match item.content {
        Decoded::Good(object) => object,
        Decoded::Bad { faults, .. } => panic!("{faults:?}"),
    }
}

fn faults(kind: Kind, raw: &Value) -> Vec<String> {
    match item(kind, &raw.to_string()).expect("it has a name").content {
        Decoded::Good(object) => panic!("{object:?}"),
        Decoded::Bad { faults, .. } => faults.iter().map(ToString::to_string).collect(),
    }
}

fn full_pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "1-2", "resourceVersion": "77",
            "labels": {"app": "web"}, "annotations": {"big": "x"}, "managedFields": [{"a": 1}],
            "ownerReferences": [{"kind": "ReplicaSet"}], "deletionTimestamp": null,
        },
        "spec": {
            "nodeName": "n1", "volumes": [{"name": "v"}], "hostNetwork": null,
            "initContainers": [
                {"name": "once", "ports": [{"name": "gone", "containerPort": 1}]},
                {"name": "mesh", "restartPolicy": "Always",
                 "ports": [{"name": "proxy", "containerPort": 15001, "protocol": "TCP"}]},
            ],
            "containers": [{
                "name": "c", "image": "i", "env": [{"name": "SECRET", "value": "s"}],
                "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP", "hostPort": 80},
                    {"containerPort": 9090},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                ],
            }, {"name": "d", "ports": null}],
        },
        "status": {
            "phase": "Running", "hostIP": "192.0.2.1", "podIP": "10.1.0.1",
            "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c"}],
        },
    })
}

#[test]
fn of_a_pod_the_fields_that_are_read_are_kept() {
    let Object::Pod(pod) = good(Kind::Pod, &full_pod()) else { panic!() };
    let metadata = &pod.metadata;
    assert_eq!(metadata.resource_version.as_deref(), Some("77"));
    assert_eq!((metadata.uid.as_deref(), metadata.annotations.as_ref()), (Some("1-2"), None));
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((spec.node_name.as_deref(), spec.host_network), (Some("n1"), None));
    let ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
    let ports: Vec<_> = ports
        .map(|p| (p.name.as_deref().unwrap(), p.container_port, p.protocol.as_deref().unwrap()))
        .collect();
    assert_eq!(ports, [("http", 8080, "TCP"), ("dns", 53, "UDP"), ("proxy", 15001, "TCP")]);
    let status = pod.status.as_ref().unwrap();
    let addresses: Vec<&str> =
        status.pod_ips.iter().flatten().map(|address| address.ip.as_str()).collect();
    assert_eq!(addresses, ["10.1.0.1", "fd00::1"]);
    assert_eq!(status.conditions, None, "readiness of others changes all the time");
    let mut object = Object::Pod(pod);
    let line = record::encode(&mut object).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains("SECRET"));
    assert!(line.len() < 250, "{} octets", line.len());
    assert_eq!(record::decode(Kind::Pod, &line, 77).unwrap(), object);
}

#[test]
fn readiness_of_our_own_pods_is_kept() {
    let mut raw = full_pod();
    raw["metadata"]["labels"][COMPONENT_LABEL] = json!("route-reflector");
    let ready = |raw: &Value| {
        let Object::Pod(pod) = good(Kind::Pod, raw) else { panic!() };
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap();
        conditions[0].status.clone()
    };
    assert_eq!(ready(&raw), "True");
    raw["status"]["conditions"][0]["status"] = json!("Unknown");
    assert_eq!(ready(&raw), "False");
}

#[test]
fn a_pod_of_an_old_api_server_has_its_single_address() {
    let mut raw = full_pod();
    raw["status"]["podIPs"] = Value::Null;
    let Object::Pod(pod) = good(Kind::Pod, &raw) else { panic!() };
    let status = pod.status.as_ref().unwrap();
    assert_eq!(status.pod_ips.as_ref().map(|ips| ips[0].ip.as_str()), Some("10.1.0.1"));
}

#[test]
fn of_a_node_addresses_cidrs_and_labels_are_kept() {
    let raw = json!({
        "metadata": {"name": "n1", "uid": "u", "resourceVersion": "5", "labels": {"rack": "a"}},
        "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64"], "taints": []},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"},
                          {"type": "Unheard", "address": "2001:db8::1"}],
            "images": [{"names": ["a"]}], "nodeInfo": {"kernelVersion": "6"},
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "now"},
                           {"type": "NetworkUnavailable", "status": "True", "reason": "r"}],
        },
    });
    let Object::Node(node) = good(Kind::Node, &raw) else { panic!() };
    let spec = node.spec.as_ref().unwrap();
    assert_eq!(spec.pod_cidrs.as_ref().unwrap(), &["10.1.0.0/24", "fd00:1::/64"]);
    let status = node.status.as_ref().unwrap();
    let addresses = status.addresses.as_ref().unwrap();
    assert_eq!((addresses.len(), addresses[1].address.as_str()), (2, "2001:db8::1"));
    assert_eq!((&status.images, &status.node_info), (&None, &None));
    assert_eq!(status.conditions.as_ref().unwrap()[0].type_, "NetworkUnavailable");
}

#[test]
fn a_namespace_is_selected_by_its_name_even_if_the_label_is_missing() {
    let raw = json!({"metadata": {"name": "shop", "labels": null, "resourceVersion": "x"}});
    let item = item(Kind::Namespace, &raw.to_string()).unwrap();
    assert_eq!(item.version, None);
    let Decoded::Good(Object::Namespace(namespace)) = item.content else { panic!() };
    let labels = namespace.metadata.labels.unwrap();
    assert_eq!(labels.get("kubernetes.io/metadata.name").map(String::as_str), Some("shop"));
}

#[test]
fn what_cannot_be_read_names_its_field() {
    let mut raw = full_pod();
    raw["spec"]["containers"][0]["ports"][0]["containerPort"] = json!("http");
    let found = faults(Kind::Pod, &raw);
    assert!(found[0].starts_with("spec.containers[0].ports[0].containerPort"), "{found:?}");
    let metadata = json!({"name": "default", "resourceVersion": "1", "managedFields": []});
    let newer = json!({"metadata": metadata, "spec": {"asn": 1, "newer": true}, "status": 7});
    assert_eq!(faults(Kind::BgpConfiguration, &newer).len(), 1);
    let other = json!({"metadata": {"name": "other"}, "spec": {}});
    assert!(faults(Kind::BgpConfiguration, &other)[0].contains("default"));
}

#[test]
fn the_status_of_our_own_kinds_is_nobodys_input() {
    let peer = |status: Value| {
        json!({
            "apiVersion": "rampart.network/v1alpha1", "kind": "BGPPeer",
            "metadata": {"name": "tor", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"peerAddress": "2001:db8::9", "peerASN": 65001},
            "status": status,
        })
    };
    let a = good(Kind::BgpPeer, &peer(json!({"conditions": []})));
    assert_eq!(a, good(Kind::BgpPeer, &peer(json!("odd"))));
    let Object::BgpPeer(peer) = a else { panic!() };
    assert_eq!((peer.metadata.generation, peer.spec.peer_asn), (Some(3), 65001));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        ".{0,8}".prop_map(Value::from),
        Just(json!("10.0.0.0/8")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A whole object of each kind, to be damaged.
fn template(kind: Kind) -> Value {
    let metadata = json!({"name": "default", "resourceVersion": "5", "labels": {"a": "b"}});
    let spec = match kind {
        Kind::Pod => return full_pod(),
        Kind::Node => json!({"podCIDRs": ["10.0.0.0/24"]}),
        Kind::Namespace => json!({"finalizers": []}),
        Kind::NetworkPolicy => json!({
            "podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                         "ports": [{"port": 80, "endPort": 90}, {"port": "http"}]}],
        }),
        Kind::BgpConfiguration => json!({"asn": 64512, "clusterCIDRs": ["10.0.0.0/8"]}),
        Kind::BgpPeer => {
            json!({"peerAddress": "192.0.2.1", "peerASN": 1, "import": [{"prefix": "::/0"}]})
        }
        Kind::NetworkConfiguration => json!({"pools": [{"cidr": "10.0.0.0/8"}], "mtu": 1400}),
        Kind::Secret => Value::Null,
    };
    let mut object = json!({"metadata": metadata, "spec": spec, "status": {"addresses": []}});
    if kind == Kind::Secret {
        let metadata = &object["metadata"];
        object = json!({"metadata": metadata, "type": "Opaque", "data": {"a": "aHVudGVyMg=="}});
    }
    if kind.namespaced() {
        object["metadata"]["namespace"] = json!("shop");
    }
    object
}

/// Every place in a value.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                places(value, &format!("{at}/{}", key.replace('/', "~1")), out);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                places(value, &format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever stands in any place of an object: it is read, or it has a fault; and what was read
    /// is the same after it was kept.
    #[test]
    fn no_content_of_an_object_is_too_odd(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        place in any::<prop::sample::Index>(),
        odd in json_value(),
    ) {
        let mut raw = template(kind);
        let mut all = Vec::new();
        places(&raw, "", &mut all);
        *raw.pointer_mut(place.get(all.as_slice()).as_str()).unwrap() = odd;
        let text = raw.to_string();
        let named = identity(kind, &text).map(|(key, _)| key);
        match item(kind, &text) {
            None => {}
            Some(Item { key, content: Decoded::Good(mut object), version }) => {
                prop_assert_eq!(&object.key(), &key);
                // serde takes a list for a structure: odd, but nobody is hurt.
                if raw["metadata"].is_object() {
                    prop_assert_eq!(named, Some(key));
                }
                let line = record::encode(&mut object).unwrap();
                prop_assert!(!line.contains(&b'\n'));
                let mut back = record::decode(kind, &line, version.unwrap_or(0)).unwrap();
                metadata(&mut back).resource_version = None;
                metadata(&mut object).resource_version = None;
                prop_assert_eq!(back, object);
            }
            Some(Item { content: Decoded::Bad { faults, .. }, .. }) => {
                prop_assert!(!faults.is_empty());
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,64}", value in json_value()) {
        for kind in Kind::ALL {
            item(kind, &text);
            item(kind, &value.to_string());
            identity(kind, &text);
        }
    }
}

use super::*;

fn manifests(text: &str) -> Vec<Manifest> {
    read(&Arc::from(Path::new("/store/a.yaml")), text)
}

fn good(manifest: &Manifest) -> &Object {
    match manifest {
        Manifest::Good { object, .. } => object,
        Manifest::Bad { .. } => panic!("{manifest:?}"),
    }
}

fn faults(manifest: &Manifest) -> Vec<(u16, &str, u32)> {
    match manifest {
        Manifest::Bad { faults, .. } => {
            faults.iter().map(|f| (f.code.0, f.field.as_str(), f.line)).collect()
        }
        Manifest::Good { .. } => panic!("{manifest:?}"),
    }
}

fn salvaged(text: &str) -> Option<k8s_openapi::api::networking::v1::NetworkPolicySpec> {
    match manifests(text).remove(0) {
        Manifest::Bad { salvaged: Some(Object::NetworkPolicy(policy)), .. } => policy.spec,
        Manifest::Bad { salvaged: None, .. } => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_is_read() {
    let text = "
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {rack: r1}}
spec: {podCIDRs: [10.0.1.0/24, 'fd00:1::/64']}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}], futureField: {x: 1}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, creationTimestamp: null}
spec: {nodeName: n1, containers: [{name: c, image: x, resources: {limits: {cpu: 1, memory: 1Gi}}}]}
status: {podIP: 10.0.1.2, podIPs: [{ip: 10.0.1.2}, {ip: 'fd00:1::2'}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, ingress: [{ports: [{port: 80}, {port: http, protocol: TCP}]}]}
---
apiVersion: rampart.network/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asn: 64513, clusterCIDRs: [10.0.0.0/16]}
---
apiVersion: rampart.network/v1alpha1
kind: BGPPeer
metadata: {name: tor}
spec: {peerAddress: '192.0.2.9:1790', peerASN: 65001}
";
    let read = manifests(text);
    let keys: Vec<String> = read.iter().map(|m| good(m).key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "Node n1",
            "Namespace shop",
            "Pod shop/web",
            "NetworkPolicy shop/deny",
            "BGPConfiguration default",
            "BGPPeer tor"
        ]
    );
    let Object::Namespace(namespace) = good(&read[1]) else { panic!() };
    assert_eq!(namespace.metadata.labels.as_ref().unwrap()["kubernetes.io/metadata.name"], "shop");
}

#[test]
fn lists_are_opened_and_other_kinds_ignored() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "a"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}]}"#;
    let read = manifests(text);
    assert_eq!(read.len(), 1);
    assert_eq!(good(&read[0]).key().name, "a");
}

#[test]
fn objects_without_a_namespace_live_in_default() {
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: []}}";
    assert_eq!(good(&manifests(text)[0]).key().to_string(), "Pod default/a");
}

#[test]
fn what_is_wrong_is_said_with_code_field_and_line() {
    let cases: [(&str, (u16, &str, u32)); 9] = [
        ("a: [1\n", (1001, "", 1)),
        ("- a\n", (1001, "", 1)),
        ("kind: Pod\n", (1004, "apiVersion", 1)),
        ("apiVersion: v1\nkind: Pood\nmetadata: {name: a}\n", (1003, "kind", 2)),
        ("apiVersion: v2\nkind: Pod\nmetadata: {name: a}\n", (1003, "kind", 2)),
        ("apiVersion: networking.k8s.io/v1\nkind: Networkpolicy\n", (1003, "kind", 2)),
        ("apiVersion: v1\nkind: Pod\nmetadata:\n  name: Web\n", (1004, "metadata.name", 4)),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec:\n  podCIDR: 5\n",
            (1001, "spec.podCIDR", 5),
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec:\n  podCIDRS: []\n",
            (1002, "spec.podCIDRS", 5),
        ),
    ];
    for (text, fault) in cases {
        assert_eq!(faults(&manifests(text)[0]), [fault], "{text}");
    }
}

#[test]
fn a_misspelt_required_field_is_one_fault_under_its_wrong_name() {
    let peer = |spec: &str| {
        format!(
            "apiVersion: rampart.network/v1alpha1\nkind: BGPPeer\nmetadata: {{name: a}}\nspec:\n  peerASN: 1\n{spec}"
        )
    };
    let manifest = manifests(&peer("  peerAddres: x\n")).remove(0);
    assert_eq!(faults(&manifest), [(1002, "spec.peerAddres", 6)]);
    assert_eq!(faults(&manifests(&peer(""))[0]), [(1004, "spec", 5)]);
}

#[test]
fn a_semantic_complaint_finds_its_line_later() {
    let text = "---\napiVersion: rampart.network/v1alpha1\nkind: BGPPeer\nmetadata: {name: tor}\nspec:\n  peerASN: 1\n  peerAddress: nonsense\n  import:\n  - prefix: x\n";
    let Manifest::Good { origin, .. } = manifests(text).remove(0) else { panic!() };
    assert_eq!(origin.locate("spec.peerAddress"), "/store/a.yaml:7");
    assert_eq!(origin.locate("spec.import[0].prefix"), "/store/a.yaml:9");
    assert_eq!(origin.locate("spec.import[0].minLength"), "/store/a.yaml:9");
    assert_eq!(origin.locate("nowhere"), "/store/a.yaml:2");
}

const POLICY: &str =
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n";

#[test]
fn an_unreadable_rule_is_dropped_and_the_others_stand() {
    let spec = salvaged(&format!(
        "{POLICY}  podSelector: {{matchLabels: {{app: web}}}}\n  ingress:\n  - form: []\n  - ports: [{{port: 80}}]\n"
    ))
    .unwrap();
    let rules = spec.ingress.unwrap();
    assert_eq!(rules.len(), 1);
    assert!(rules[0].ports.is_some());
    assert_eq!(spec.policy_types.unwrap(), ["Ingress"]);
    assert_eq!(spec.pod_selector.unwrap().match_labels.unwrap()["app"], "web");
}

#[test]
fn a_misspelt_direction_isolates_both_and_admits_nothing() {
    let spec = salvaged(&format!("{POLICY}  podSelector: {{}}\n  egres: [{{}}]\n")).unwrap();
    assert_eq!(spec.policy_types.unwrap(), ["Ingress", "Egress"]);
    assert_eq!((spec.ingress, spec.egress), (None, None));
}

#[test]
fn rules_of_the_wrong_type_admit_nothing() {
    let spec = salvaged(&format!("{POLICY}  podSelector: {{}}\n  egress: all\n")).unwrap();
    assert_eq!(spec.egress, Some(vec![]));
    assert_eq!(spec.policy_types.unwrap(), ["Ingress", "Egress"]);
}

#[test]
fn an_unreadable_selector_falls_back_to_its_labels_or_to_no_policy() {
    let wider = salvaged(&format!(
        "{POLICY}  podSelector: {{matchLabels: {{a: b}}, matchExpression: []}}\n"
    ));
    assert_eq!(wider.unwrap().pod_selector.unwrap().match_labels.unwrap()["a"], "b");
    assert_eq!(salvaged(&format!("{POLICY}  podSelector: {{matchLabel: {{a: b}}}}\n")), None);
    assert_eq!(salvaged(&format!("{POLICY}  podSelector: all\n")), None);
}

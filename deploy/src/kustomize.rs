//! The same objects as a kustomize base, with components and overlays for what clusters differ in.

use api::constant::NAMESPACE;
use serde_json::{Value, json};

use crate::agent::{self, CNI_BIN_DIR, CNI_CONF_DIR};
use crate::document::Document;
use crate::name::AGENT;

/// Files of the base, and their objects' order.
pub(crate) const BASE: &[&str] =
    &["namespace.yaml", "crds.yaml", "rbac.yaml", "admission.yaml", "agent.yaml"];

/// Directories of k3s: it brings its own, and makes a new one for plugins at each upgrade, which is
/// why the agent keeps its plugin repaired.
const K3S_DIRS: [(&str, &str); 2] = [
    ("cni-bin", "/var/lib/rancher/k3s/data/cni"),
    ("cni-conf", "/var/lib/rancher/k3s/agent/etc/cni/net.d"),
];

/// Where the API server answers on every Talos node, whatever becomes of the network (KubePrism).
const TALOS_API: [(&str, &str); 2] =
    [("KUBERNETES_SERVICE_HOST", "localhost"), ("KUBERNETES_SERVICE_PORT", "7445")];

/// `manifests/kustomization.yaml`.
pub(crate) fn base() -> Document {
    kustomization("Kustomization", json!({ "resources": BASE }))
        .comment("kubectl apply -k deploy/manifests is kubectl apply -f deploy/install.yaml.")
}

/// `components/route-reflector/kustomization.yaml`.
pub(crate) fn reflector() -> Document {
    kustomization("Component", json!({ "resources": ["route-reflector.yaml"] }))
        .comment("Route reflectors instead of the mesh.")
}

/// `components/monitoring/kustomization.yaml`.
pub(crate) fn monitoring(resources: &[&str]) -> Document {
    let target = json!({ "kind": "DaemonSet", "name": AGENT });
    let patches = [patch(target, &agent::operations_to_listen_on_the_node_address())];
    kustomization("Component", json!({ "resources": resources, "patches": patches })).comment(
        "\
For clusters with the Prometheus operator: what to scrape, alerts, dashboards.
The agents then answer /metrics on their node's address, in the clear and to whoever reaches it (counts
and names of BGP peers, nothing of pods); without this component they listen on 127.0.0.1 only.",
    )
}

/// `overlays/kubeadm/kustomization.yaml`.
pub(crate) fn kubeadm() -> Document {
    overlay(json!({ "resources": ["../../manifests"] })).comment(
        "\
kubeadm init --pod-network-cidr 10.244.0.0/16,fd00:244::/56 (nodes need podCIDRs), then
kubectl apply -k deploy/overlays/kubeadm. Nothing differs from the base.",
    )
}

/// `overlays/k3s/kustomization.yaml`.
pub(crate) fn k3s() -> Document {
    let volumes =
        K3S_DIRS.map(|(name, path)| json!({ "name": name, "hostPath": { "path": path } }));
    let patch = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": AGENT, "namespace": NAMESPACE },
        "spec": { "template": { "spec": { "volumes": volumes } } },
    });
    overlay(json!({
        "resources": ["../../manifests"],
        "patches": [{ "patch": text(&patch) }],
    }))
    .comment(format!(
        "\
k3s server --flannel-backend=none --disable-network-policy, on every server.
k3s looks for plugins and networks in its own directories, not in {CNI_BIN_DIR} and {CNI_CONF_DIR}."
    ))
}

/// `overlays/talos/kustomization.yaml`.
pub(crate) fn talos() -> Document {
    let operations: Vec<Value> = TALOS_API
        .iter()
        .map(|(name, value)| {
            json!({
                "op": "add",
                "path": "/spec/template/spec/containers/0/env/-",
                "value": { "name": name, "value": value },
            })
        })
        .collect();
    let target = json!({
        "kind": "DaemonSet|Deployment",
        "labelSelector": "app.kubernetes.io/name=rampart",
    });
    overlay(json!({
        "resources": ["../../manifests"],
        "patches": [patch(target, &operations)],
    }))
    .comment(
        "\
Machine configuration: cluster.network.cni.name: none (KubePrism is on by default, port 7445).
The agents reach the API server by KubePrism: it needs neither kube-proxy nor a network of pods.",
    )
}

fn overlay(body: Value) -> Document {
    kustomization("Kustomization", body)
}

fn kustomization(kind: &str, body: Value) -> Document {
    let version = match kind {
        "Component" => "kustomize.config.k8s.io/v1alpha1",
        _ => "kustomize.config.k8s.io/v1beta1",
    };
    let mut object = json!({ "apiVersion": version, "kind": kind });
    if let (Value::Object(object), Value::Object(body)) = (&mut object, body) {
        object.extend(body);
    }
    Document::plain(object)
}

fn patch(target: Value, operations: &[Value]) -> Value {
    json!({ "target": target, "patch": text(&Value::from(operations)) })
}

/// A patch in JSON, which is YAML.
fn text(patch: &Value) -> String {
    format!("{patch:#}\n")
}

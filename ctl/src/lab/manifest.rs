//! The manifests of the lab: what Kubernetes would hold.

use std::fs;
use std::path::Path;

use api::crd::{BGPConfiguration, BGPConfigurationSpec, BGPPeer, BGPPeerSpec};
use api::crd::{NodeSelector, PrefixRule};
use serde::Serialize;
use serde_json::{Value, json};

use super::error::LabError;
use super::state::write_atomically;
use super::topology::{CLUSTER_CIDRS, HOLD_TIME_SECONDS, NODE_ASN, Sessions};
use super::topology::{Node, Pod, Topology, Tor};

/// Label that every kubelet puts on its Node.
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// The network policies of the demo application, by file name.
pub const POLICIES: [(&str, &str); 2] = [
    ("policy-10-default-deny.yaml", include_str!("../../../deploy/lab/default-deny.yaml")),
    ("policy-20-allow.yaml", include_str!("../../../deploy/lab/allow.yaml")),
];
const NAMESPACES: (&str, &str) =
    ("namespaces.yaml", include_str!("../../../deploy/lab/namespaces.yaml"));

/// A file of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// File name.
    pub file: String,
    /// YAML.
    pub text: String,
}

/// Everything that the nodes' agents read, without the policies.
///
/// # Errors
/// [`LabError::Render`].
pub fn cluster(topology: &Topology) -> Result<Vec<Manifest>, LabError> {
    let mut manifests = vec![
        Manifest { file: NAMESPACES.0.to_owned(), text: NAMESPACES.1.to_owned() },
        render("bgp.yaml", &configuration(NODE_ASN))?,
    ];
    for node in &topology.nodes {
        manifests.push(render(&format!("node-{}.yaml", node.name), &node_object(node))?);
        for peer in peers(node, &topology.tors) {
            manifests.push(peer_manifest(&peer)?);
        }
    }
    for pod in &topology.pods {
        manifests
            .push(render(&format!("pod-{}-{}.yaml", pod.namespace, pod.name), &pod_object(pod))?);
    }
    Ok(manifests)
}

/// The manifest of one BGPPeer.
///
/// # Errors
/// [`LabError::Render`].
pub fn peer_manifest(peer: &BGPPeer) -> Result<Manifest, LabError> {
    let name = peer.metadata.name.as_deref().unwrap_or_default();
    render(&format!("peer-{name}.yaml"), peer)
}

/// What the agent on a Rampart ToR reads.
///
/// # Errors
/// [`LabError::Render`].
pub fn tor_store(topology: &Topology, tor: &Tor) -> Result<Vec<Manifest>, LabError> {
    let object = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": tor.name, "labels": { HOSTNAME_LABEL: tor.name } },
        "status": { "addresses": internal([tor.address_v4.into(), tor.address_v6.into()]) },
    });
    let mut manifests =
        vec![render("node.yaml", &object)?, render("bgp.yaml", &configuration(tor.asn))?];
    for node in &topology.nodes {
        for link in node.uplinks.iter().filter(|link| link.tor == tor.name) {
            let peer = BGPPeer::new(
                &node.name,
                BGPPeerSpec {
                    peer_address: link.node_v4.to_string(),
                    peer_asn: NODE_ASN,
                    import: Some(pod_cidr_rules()),
                    default_originate: Some(true),
                    ..peer_defaults()
                },
            );
            manifests.push(peer_manifest(&peer)?);
        }
    }
    Ok(manifests)
}

/// Makes the directory hold exactly these manifests.
///
/// # Errors
/// [`LabError::File`].
pub fn write_store(directory: &Path, manifests: &[Manifest]) -> Result<(), LabError> {
    fs::create_dir_all(directory).map_err(LabError::file("make", directory))?;
    let entries = fs::read_dir(directory).map_err(LabError::file("read", directory))?;
    for entry in entries {
        let entry = entry.map_err(LabError::file("read", directory))?;
        if !manifests.iter().any(|m| entry.file_name() == *m.file) {
            let path = entry.path();
            fs::remove_file(&path).map_err(LabError::file("remove", &path))?;
        }
    }
    for manifest in manifests {
        write(directory, manifest)?;
    }
    Ok(())
}

/// Writes one manifest unless the file has this content already, so that agents see no change
/// where there is none.
///
/// # Errors
/// [`LabError::File`].
pub fn write(directory: &Path, manifest: &Manifest) -> Result<(), LabError> {
    let path = directory.join(&manifest.file);
    if fs::read_to_string(&path).is_ok_and(|text| text == manifest.text) {
        return Ok(());
    }
    write_atomically(&path, &manifest.text)
}

/// The demo application's policies as manifests.
#[must_use]
pub fn policies() -> Vec<Manifest> {
    POLICIES
        .iter()
        .map(|(file, text)| Manifest { file: (*file).to_owned(), text: (*text).to_owned() })
        .collect()
}

/// The BGPPeers of one node: one or two for each ToR.
#[must_use]
pub fn peers(node: &Node, tors: &[Tor]) -> Vec<BGPPeer> {
    let mut peers = Vec::new();
    for (link, tor) in node.uplinks.iter().zip(tors) {
        let mut add = |suffix: &str, address: String, defaults: &[&str]| {
            let spec = BGPPeerSpec {
                node_selector: Some(NodeSelector {
                    match_labels: [(HOSTNAME_LABEL.to_owned(), node.name.clone())].into(),
                    ..NodeSelector::default()
                }),
                peer_address: address,
                peer_asn: tor.asn,
                import: Some(defaults.iter().map(|prefix| exactly(prefix)).collect()),
                ..peer_defaults()
            };
            let name = format!("{}-{}{suffix}", node.name, tor.name);
            peers.push(BGPPeer::new(&name, spec));
        };
        match tor.sessions {
            Sessions::Shared => add("", link.tor_v4.to_string(), &["0.0.0.0/0", "::/0"]),
            Sessions::PerFamily => {
                add("", link.tor_v4.to_string(), &["0.0.0.0/0"]);
                add("-v6", link.tor_v6.to_string(), &["::/0"]);
            }
        }
    }
    peers
}

fn peer_defaults() -> BGPPeerSpec {
    BGPPeerSpec {
        node_selector: None,
        peer_address: String::new(),
        peer_asn: 0,
        hold_time_seconds: Some(HOLD_TIME_SECONDS),
        passive: None,
        ebgp_multihop: None,
        ttl_security: None,
        password_secret_ref: None,
        graceful_restart: None,
        route_reflector_client: None,
        import: None,
        export: None,
        default_originate: None,
        max_prefixes: None,
    }
}

fn configuration(asn: u32) -> BGPConfiguration {
    BGPConfiguration::new(
        "default",
        BGPConfigurationSpec {
            asn: Some(asn),
            // Nodes share no link, so they only talk to their switches.
            node_mesh: Some(false),
            cluster_cidrs: CLUSTER_CIDRS.map(str::to_owned).to_vec(),
            ..BGPConfigurationSpec::default()
        },
    )
}

fn exactly(prefix: &str) -> PrefixRule {
    PrefixRule { prefix: prefix.to_owned(), min_length: None, max_length: None }
}

fn pod_cidr_rules() -> Vec<PrefixRule> {
    CLUSTER_CIDRS
        .iter()
        .zip([24, 64])
        .map(|(prefix, length)| PrefixRule {
            prefix: (*prefix).to_owned(),
            min_length: Some(length),
            max_length: None,
        })
        .collect()
}

fn internal(addresses: [std::net::IpAddr; 2]) -> Value {
    addresses
        .iter()
        .map(|address| json!({ "type": "InternalIP", "address": address.to_string() }))
        .collect()
}

fn node_object(node: &Node) -> Value {
    let cidrs: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": { HOSTNAME_LABEL: node.name, api::constant::RACK_LABEL: node.rack },
        },
        "spec": { "podCIDR": cidrs.first(), "podCIDRs": cidrs },
        "status": { "addresses": internal([node.address_v4.into(), node.address_v6.into()]) },
    })
}

fn pod_object(pod: &Pod) -> Value {
    let ips = pod.addresses().map(|ip| json!({ "ip": ip.to_string() }));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "labels": { "app": pod.app },
        },
        "spec": {
            "nodeName": pod.node,
            "containers": [{
                "name": pod.app,
                "image": "demo",
                "ports": [
                    { "name": "http", "containerPort": 8080, "protocol": "TCP" },
                    { "name": "postgres", "containerPort": 5432, "protocol": "TCP" },
                    { "name": "dns", "containerPort": 53, "protocol": "UDP" },
                ],
            }],
        },
        "status": { "phase": "Running", "podIP": pod.v4.to_string(), "podIPs": ips },
    })
}

fn render(file: &str, object: &impl Serialize) -> Result<Manifest, LabError> {
    let text = serde_saphyr::to_string(object).map_err(|error| LabError::Render {
        object: file.to_owned(),
        message: error.to_string(),
    })?;
    Ok(Manifest { file: file.to_owned(), text })
}

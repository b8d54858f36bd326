//! Our kinds. Doc comments become the descriptions in the CRD schema.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Cluster-wide BGP settings. One object named `default`.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "rampart.network",
    version = "v1alpha1",
    kind = "BGPConfiguration",
    plural = "bgpconfigurations",
    shortname = "bgpconfig",
    status = "ConfigurationStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPConfigurationSpec {
    /// AS number of every node. Default 64512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// TCP port to listen on for BGP, and to dial in the mesh. Default 179.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Every node peers with every other node. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh: Option<bool>,
    /// The prefixes that pod CIDRs are taken from; mesh sessions accept nothing outside of them,
    /// and of a node only what its Node object assigns to it.
    #[serde(default, rename = "clusterCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_cidrs: Vec<String>,
    /// BGP Identifier. Default: the node's IPv4 address, or a hash of its name without one.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// CLUSTER_ID for route reflection. Default: the router id.
    #[serde(default, rename = "clusterID", skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

/// One BGP neighbour of the nodes that `nodeSelector` selects.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "rampart.network",
    version = "v1alpha1",
    kind = "BGPPeer",
    plural = "bgppeers",
    status = "ConfigurationStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPPeerSpec {
    /// Nodes that peer with it; absent = every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<NodeSelector>,
    /// `IP`, `IP:port` or `[v6]:port`.
    pub peer_address: String,
    /// AS number that the peer must announce.
    #[serde(rename = "peerASN")]
    pub peer_asn: u32,
    /// Proposed hold time in seconds: 0, or 3 to 65535. Default 90.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time_seconds: Option<u16>,
    /// Wait for the peer to connect. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<bool>,
    /// TTL for an eBGP peer that is not directly connected, 1 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebgp_multihop: Option<u8>,
    /// The peer is a client of ours: reflect iBGP routes to and from it (RFC 4456).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_reflector_client: Option<bool>,
    /// Prefixes to accept from the peer. Absent: nothing from an eBGP peer (RFC 8212), all from an iBGP peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<Vec<PrefixRule>>,
    /// Prefixes to send beside our own pod CIDRs. Absent: none to an eBGP peer, all to an iBGP peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Vec<PrefixRule>>,
    /// Send 0.0.0.0/0 and ::/0 to the peer. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_originate: Option<bool>,
    /// Close the session when the peer sends more prefixes than this. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<u32>,
}

/// A label selector over Nodes (as metav1.LabelSelector).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSelector {
    /// Labels that must be present with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Expressions that must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<SelectorRequirement>,
}

/// One expression of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SelectorRequirement {
    /// Label key.
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: String,
    /// Values for In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// An entry of an accept-list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixRule {
    /// Covering prefix, IPv4 or IPv6.
    pub prefix: String,
    /// Shortest accepted length. Default: the length of `prefix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u8>,
    /// Longest accepted length. Default: `minLength` if given, else the length of `prefix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u8>,
}

/// How pods are networked. One object named `default`; all of it is optional.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "rampart.network",
    version = "v1alpha1",
    kind = "NetworkConfiguration",
    plural = "networkconfigurations",
    shortname = "netconfig",
    status = "ConfigurationStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkConfigurationSpec {
    /// Ranges that pod addresses are taken from, and how they are treated. A pod address outside of
    /// all of them is treated as in a pool with the defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Pool>,
    /// Encapsulation for nodes that the fabric cannot route pod addresses between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// MTU of pod interfaces in octets. Default: that of the interface of the default route, less the
    /// overlay's 50 (IPv4 underlay) or 70 (IPv6 underlay) if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// A range of pod addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// The range, IPv4 or IPv6.
    pub cidr: String,
    /// Replace the pod's address by the node's for destinations outside of all pools, pod CIDRs and
    /// node addresses. Default `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_outgoing: Option<NatOutgoing>,
}

/// When to masquerade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NatOutgoing {
    /// Unless a BGPPeer selects the node: then the fabric routes pod addresses.
    #[default]
    Auto,
    /// Always.
    Enabled,
    /// Never.
    Disabled,
}

/// An overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Overlay {
    /// Default `None`.
    #[serde(default)]
    pub mode: OverlayMode,
    /// VXLAN network identifier, 1 to 16777215. Default 4179.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// UDP port. Default 4789.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What is encapsulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OverlayMode {
    /// Nothing.
    #[default]
    None,
    /// VXLAN to nodes that are not on a link of ours.
    VXLANCrossSubnet,
    /// VXLAN to every other node.
    VXLANAlways,
}

/// Conditions of a configuration object, written by one of the agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationStatus {
    /// `Accepted`, `NodesSelected`, `Established`, `Programmed`, as they apply (reason `15of16`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// As metav1.Condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it says, CamelCase.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, CamelCase.
    pub reason: String,
    /// For people: what, why, what next.
    #[serde(default)]
    pub message: String,
    /// When `status` changed last, RFC 3339.
    pub last_transition_time: String,
    /// `metadata.generation` that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// What one node's agent reports of itself; named as its Node, owned by it.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "rampart.network",
    version = "v1alpha1",
    kind = "NodeNetworkStatus",
    plural = "nodenetworkstatuses",
    shortname = "nns",
    status = "NodeNetworkStatusStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeNetworkStatusSpec {}

/// Written on change, with jitter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkStatusStatus {
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// `Ready`, `PolicyProgrammed`, `RoutesProgrammed`, `PeersEstablished`, `SourceConnected`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// BGP sessions. Mesh peers are counted, not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerStatus>,
    /// Sessions with other nodes: established.
    #[serde(default)]
    pub mesh_established: u32,
    /// Sessions with other nodes: configured.
    #[serde(default)]
    pub mesh_configured: u32,
    /// Routes of ours in the kernel.
    #[serde(default)]
    pub routes: u32,
    /// Pods of the node that the table knows.
    #[serde(default)]
    pub endpoints: u32,
    /// NetworkPolicy objects in force.
    #[serde(default)]
    pub policies: u32,
    /// Prefixes that the node announces.
    #[serde(default, rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<String>,
    /// Complaints that stand now, with their RC codes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// One session that is not with another node's agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Name of the BGPPeer or of the reflector pod.
    pub name: String,
    /// Address.
    pub address: String,
    /// `Idle`, `Connect`, `Active`, `OpenSent`, `OpenConfirm` or `Established`.
    pub state: String,
    /// Why it is not Established.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_error: String,
}

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

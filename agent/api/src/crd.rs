//! Our kinds. Doc comments become the descriptions in the CRD schema.
//!
//! The rules are as strict as the agent's own parsers, so that the API server refuses, with the same
//! words, what an agent would have to complain about later. What an object is among others (a
//! duplicate address, a client in another AS) only the agent can see.
#![expect(clippy::duplicated_attributes, reason = "several columns have the same type")]
#![expect(unreachable_pub, reason = "KubeSchema puts a copy of each struct into a function")]

use kube::core::cel::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Every element of a list is a CIDR without host bits.
const NETWORKS: &str = "self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())";
/// A CIDR without host bits.
const NETWORK: &str = "isCIDR(self) && cidr(self) == cidr(self).masked()";
/// No pool contains another one.
const DISJOINT: &str = "self.all(a, self.all(b, a.cidr == b.cidr || !isCIDR(a.cidr) || !isCIDR(b.cidr) || !cidr(a.cidr).containsCIDR(cidr(b.cidr))))";
/// A BGP Identifier (RFC 6286).
const IDENTIFIER: &str = "isIP(self) && ip(self).family() == 4 && !ip(self).isUnspecified()";
/// AS numbers that no speaker has: AS_TRANS and the last ones (RFC 4893 §9, RFC 7300).
const NOT_RESERVED: &str = "!(self in [23456, 65535, 4294967295])";
/// `IP`, `IP:port`, `[IPv6]:port` or `[IP]`.
const ENDPOINT: &str = r"isIP(self) || (self.matches('^\\[[^\\[\\]]+\\](:[0-9]{1,5})?$') && isIP(self.substring(1, self.indexOf(']')))) || (self.matches('^[0-9.]+:[0-9]{1,5}$') && isIP(self.substring(0, self.indexOf(':'))))";
/// The port of an endpoint that has one.
const ENDPOINT_PORT: &str = r"!self.matches('^(\\[[^\\[\\]]+\\]|[0-9.]+):[0-9]{1,5}$') || (int(self.substring(self.lastIndexOf(':') + 1)) >= 1 && int(self.substring(self.lastIndexOf(':') + 1)) <= 65535)";
/// The address of an endpoint can be that of another host.
const ENDPOINT_HOST: &str = r"[self.startsWith('[') ? self.substring(1, self.indexOf(']')) : (isIP(self) ? self : self.substring(0, self.indexOf(':')))].all(a, ip(a).isGlobalUnicast() || (ip(a).family() == 4 && ip(a).isLinkLocalUnicast()))";
/// Bounds of a [`PrefixRule`].
const SHORTEST: &str = "!has(self.minLength) || !isCIDR(self.prefix) || (self.minLength >= cidr(self.prefix).prefixLength() && self.minLength <= (cidr(self.prefix).ip().family() == 4 ? 32 : 128))";
const LONGEST: &str = "!has(self.maxLength) || !isCIDR(self.prefix) || (self.maxLength >= (has(self.minLength) ? self.minLength : cidr(self.prefix).prefixLength()) && self.maxLength <= (cidr(self.prefix).ip().family() == 4 ? 32 : 128))";
/// A requirement has values exactly if its operator takes some.
const OPERATOR_VALUES: &str =
    "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)";
/// Nothing goes while its peer may still be away.
const STALE_TIME: &str = "!has(self.restartTimeSeconds) || !has(self.staleTimeSeconds) || self.staleTimeSeconds >= self.restartTimeSeconds";
/// A DNS subdomain name (RFC 1123).
const SECRET_NAME: &str =
    r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')";
/// What a key of a Secret may be.
const SECRET_KEY: &str = r"self.matches('^[-._a-zA-Z0-9]+$')";
/// There is one object of the kind.
const SINGLETON: &str = "self.metadata.name == 'default'";

fn rule(expression: &str, message: &str) -> Rule {
    Rule::new(expression).message(message)
}

/// Cluster-wide BGP settings. One object named `default`.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema,
)]
#[kube(
    group = "rampart.network",
    version = "v1alpha1",
    kind = "BGPConfiguration",
    plural = "bgpconfigurations",
    shortname = "bgpconfig",
    category = "rampart",
    doc = "Cluster-wide BGP settings. One object named `default`; without it the defaults hold.",
    status = "ConfigurationStatus",
    derive = "PartialEq",
    validation = rule(SINGLETON, "the agents read the one named `default`"),
    printcolumn(name = "ASN", type_ = "integer", json_path = ".spec.asn"),
    printcolumn(name = "Mesh", type_ = "boolean", json_path = ".spec.nodeMesh"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPConfigurationSpec {
    /// AS number of every node. Default 64512.
    #[schemars(range(min = 1))]
    #[x_kube(validation = rule(NOT_RESERVED, "this AS number is reserved"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// TCP port to listen on for BGP, and to dial in the mesh. Default 179.
    #[schemars(range(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Every node peers with every other node. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh: Option<bool>,
    /// The prefixes that pod CIDRs are taken from; mesh sessions accept nothing outside of them,
    /// and of a node only what its Node object assigns to it.
    #[schemars(length(max = 64), inner(length(max = 49)))]
    #[x_kube(validation = rule(NETWORKS, "each must be a CIDR without host bits"))]
    #[serde(default, rename = "clusterCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_cidrs: Vec<String>,
    /// Graceful restart with other nodes, reflectors, and peers whose BGPPeer does not say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<GracefulRestartSpec>,
    /// BGP Identifier. Default: the node's IPv4 address, or a hash of its name without one.
    #[schemars(length(max = 15))]
    #[x_kube(validation = rule(IDENTIFIER, "must be four octets, not all zero"))]
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// CLUSTER_ID for route reflection. Default: the router id.
    #[schemars(length(max = 15))]
    #[x_kube(validation = rule(IDENTIFIER, "must be four octets, not all zero"))]
    #[serde(default, rename = "clusterID", skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

/// One BGP neighbour of the nodes that `nodeSelector` selects.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rampart.network",
    version = "v1alpha1",
    kind = "BGPPeer",
    plural = "bgppeers",
    category = "rampart",
    doc = "One BGP neighbour of the nodes that `nodeSelector` selects: a top-of-rack switch, or a route reflector of one's own.",
    status = "ConfigurationStatus",
    derive = "PartialEq",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.peerAddress"),
    printcolumn(name = "ASN", type_ = "integer", json_path = ".spec.peerASN"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Established",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Established\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPPeerSpec {
    /// Nodes that peer with it; absent = every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<NodeSelector>,
    /// `IP`, `IP:port` or `[v6]:port`.
    #[schemars(length(min = 1, max = 53))]
    #[x_kube(validation = rule(ENDPOINT, "must be IP, IP:port or [IPv6]:port"))]
    #[x_kube(validation = rule(ENDPOINT_PORT, "the port must be within 1 to 65535"))]
    #[x_kube(validation = rule(&format!("!({ENDPOINT}) || {ENDPOINT_HOST}"), "must be the address of another host: not unspecified, loopback, multicast, broadcast or IPv6 link-local"))]
    pub peer_address: String,
    /// AS number that the peer must announce.
    #[schemars(range(min = 1))]
    #[x_kube(validation = rule(NOT_RESERVED, "this AS number is reserved"))]
    #[serde(rename = "peerASN")]
    pub peer_asn: u32,
    /// Proposed hold time in seconds: 0, or 3 to 65535. Default 90.
    #[x_kube(validation = rule("self == 0 || self >= 3", "must be 0 or at least 3 (RFC 4271 §4.2)"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time_seconds: Option<u16>,
    /// Wait for the peer to connect. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<bool>,
    /// TTL for an eBGP peer that is not directly connected, 1 to 255.
    #[schemars(range(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebgp_multihop: Option<u8>,
    /// Send with TTL 255 and take nothing that has passed a router (GTSM, RFC 5082). Only for a
    /// directly connected peer, which must do the same (`ttl-security hops 1`). Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<bool>,
    /// Password of the session: TCP MD5 signatures (RFC 2385), as the peer has to ask for as well.
    /// Without the Secret or its key there is no session. A new value resets the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
    /// Graceful restart with this peer; what is left out is as BGPConfiguration has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<GracefulRestartSpec>,
    /// The peer is a client of ours: reflect iBGP routes to and from it (RFC 4456).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_reflector_client: Option<bool>,
    /// Prefixes to accept from the peer. Absent: nothing from an eBGP peer (RFC 8212), all from an iBGP peer.
    #[schemars(length(max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<Vec<PrefixRule>>,
    /// Prefixes to send beside our own pod CIDRs. Absent: none to an eBGP peer, all to an iBGP peer.
    #[schemars(length(max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Vec<PrefixRule>>,
    /// Send 0.0.0.0/0 and ::/0 to the peer. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_originate: Option<bool>,
    /// Close the session when the peer sends more prefixes than this. Default: no limit.
    #[schemars(range(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<u32>,
}

/// Graceful restart (RFC 4724): while one side is away the other keeps forwarding on its routes. A
/// change resets sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = rule(STALE_TIME, "staleTimeSeconds must not be less than restartTimeSeconds"))]
pub struct GracefulRestartSpec {
    /// Offer it, and keep the routes of a peer that restarts. Without, a session that ends takes its
    /// routes along on both sides, at each replacement of an agent as well. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How long the peer is asked to keep our routes while we are away, and how long we keep its
    /// routes at most while it is, 1 to 4095 seconds. Default 120.
    #[schemars(range(min = 1, max = 4095))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_time_seconds: Option<u16>,
    /// How long, in seconds from the end of the old session, a route that was kept waits for a peer
    /// that is back to send it again. Default 300, or the restart time if that is longer.
    #[schemars(range(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_time_seconds: Option<u16>,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of a Secret in the namespace that Rampart runs in. Default `rampart-bgp-passwords`, which
    /// agents may read; any other one has to be granted to them (list and watch, by resourceNames).
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule(SECRET_NAME, "must be the name of a Secret"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Key of the value that is the password: 1 to 80 octets without control characters.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule(SECRET_KEY, "must be letters, digits, `-`, `_` or `.`"))]
    pub key: String,
}

/// A label selector over Nodes (as metav1.LabelSelector).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSelector {
    /// Labels that must be present with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Expressions that must all hold.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<SelectorRequirement>,
}

/// One expression of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = rule(OPERATOR_VALUES, "In and NotIn need values, Exists and DoesNotExist take none")
)]
pub struct SelectorRequirement {
    /// Label key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,
    /// Values for In and NotIn.
    #[schemars(length(max = 256))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// An entry of an accept-list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = rule(SHORTEST, "minLength must be within the length of prefix and 32 (IPv4) or 128 (IPv6)"),
    validation = rule(LONGEST, "maxLength must be within minLength (or the length of prefix) and 32 (IPv4) or 128 (IPv6)")
)]
pub struct PrefixRule {
    /// Covering prefix, IPv4 or IPv6.
    #[schemars(length(max = 49))]
    #[x_kube(validation = rule(NETWORK, "must be a CIDR without host bits"))]
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
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema,
)]
#[kube(
    group = "rampart.network",
    version = "v1alpha1",
    kind = "NetworkConfiguration",
    plural = "networkconfigurations",
    shortname = "netconfig",
    category = "rampart",
    doc = "How pods are networked. One object named `default`; without it the defaults hold.",
    status = "ConfigurationStatus",
    derive = "PartialEq",
    validation = rule(SINGLETON, "the agents read the one named `default`"),
    printcolumn(name = "Overlay", type_ = "string", json_path = ".spec.overlay.mode"),
    printcolumn(name = "MTU", type_ = "integer", json_path = ".spec.mtu"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkConfigurationSpec {
    /// Ranges that pod addresses are taken from, and how they are treated. A pod address outside of
    /// all of them is treated as in a pool with the defaults.
    #[x_kube(validation = rule(DISJOINT, "pools must not overlap"))]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["cidr"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Pool>,
    /// Encapsulation for nodes that the fabric cannot route pod addresses between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// MTU of pod interfaces in octets. Default: that of the interface of the default route, less the
    /// overlay's 50 (IPv4 underlay) or 70 (IPv6 underlay) if there is one.
    #[schemars(range(min = 1280))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// A range of pod addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// The range, IPv4 or IPv6.
    #[schemars(length(max = 49))]
    #[x_kube(validation = rule(NETWORK, "must be a CIDR without host bits"))]
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
    #[schemars(range(min = 1, max = 16_777_215))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// UDP port. Default 4789.
    #[schemars(range(min = 1))]
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
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
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
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
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
    category = "rampart",
    doc = "What one node's agent reports of itself; named as its Node, owned by it, written by the agent.",
    status = "NodeNetworkStatusStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Mesh", type_ = "integer", json_path = ".status.meshEstablished"),
    printcolumn(
        name = "Peers",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"PeersEstablished\")].reason"
    ),
    printcolumn(name = "Routes", type_ = "integer", json_path = ".status.routes"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.endpoints"),
    printcolumn(name = "Policies", type_ = "integer", json_path = ".status.policies"),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.agentVersion",
        priority = 1
    ),
    printcolumn(
        name = "Pod-CIDRs",
        type_ = "string",
        json_path = ".status.podCIDRs",
        priority = 1
    ),
    printcolumn(name = "Problems", type_ = "string", json_path = ".status.problems", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
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
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
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

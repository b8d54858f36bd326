//! The control socket: HTTP/1.1 with JSON over `RUN_DIR/agent.sock`. Read-only; who may connect is
//! decided by peer credentials (root, or the agent's own user).
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/version` | [`Version`] |
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/nodes` | `Vec<`[`NodeView`]`>` |
//! | `GET /v1/peers` | `Vec<`[`PeerView`]`>` |
//! | `GET /v1/routes` | `Vec<`[`RouteView`]`>` |
//! | `GET /v1/networkpolicies` | `Vec<`[`PolicyView`]`>` |
//! | `GET /v1/endpoints` | `Vec<`[`EndpointView`]`>` |
//! | `GET /v1/synced?timeout_ms=N` | [`Synced`], when all input read so far is acknowledged by the kernel, or after N ms |
//!
//! | `GET /v1/chains` | the chains of all nf_tables tables of the node: `family`, `table`, `name`, and of base chains `hook` |
//! | `GET /v1/doctor` | `Vec<`[`Finding`](crate::doctor::Finding)`>` |
//! | `POST /v1/uninstall` | [`Uninstalled`], `done` once nothing of ours is left; ask again until it is |
//!
//! Errors are an [`Error`] body with status 400, 404 or 500. Lists are sorted by name or prefix.
//! Times are RFC 3339; durations are seconds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error_code::Code;

/// Body of an error answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What happened.
    pub code: Code,
    /// One line: what.
    pub message: String,
    /// One line: why.
    pub why: String,
    /// One line: what to do next.
    pub next: String,
}

/// `GET /v1/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Crate version of the agent.
    pub version: String,
    /// Git commit it was built from, `unknown` outside a checkout.
    pub commit: String,
    /// Name of its node.
    pub node: String,
}

/// `POST /v1/uninstall`: what the node was rid of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Uninstalled {
    /// All was looked at. While this is false the agent is still ending.
    pub done: bool,
    /// What was removed, a line each.
    pub removed: Vec<String>,
    /// What looks like ours and was left alone, and why.
    pub kept: Vec<String>,
    /// What could not be removed, and why.
    pub failed: Vec<String>,
    /// Routes of the host to pods that run, and that go with them.
    #[serde(default)]
    pub pod_routes: Vec<String>,
}

/// `GET /v1/kernel`: what the kernel of the node has, in lines for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelState {
    /// Interfaces, with everything about their kind.
    pub links: Vec<String>,
    /// Routes of all tables but the kernel's own `local`.
    pub routes: Vec<String>,
    /// Routing rules, both families.
    pub rules: Vec<String>,
    /// Neighbours and forwarding entries of interfaces that we made.
    pub neighbours: Vec<String>,
    /// Switches below `/proc/sys` that matter for routing, by path.
    pub sysctls: BTreeMap<String, String>,
}

/// `GET /v1/synced`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Synced {
    /// Everything read so far is in the kernel.
    pub synced: bool,
    /// Input generation that the answer is about (increases with each change that was read).
    pub generation: u64,
    /// What is still missing when not synced, for humans.
    pub pending: Vec<String>,
}

/// `GET /v1/status`: health of one agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Node name.
    pub node: String,
    /// Agent version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the agent started.
    pub uptime_seconds: f64,
    /// Same as `/readyz`.
    pub ready: bool,
    /// Why not, or empty.
    pub not_ready: Vec<String>,
    /// Where objects come from, e.g. `dir:/etc/rampart`.
    pub store: String,
    /// Generation of the input read.
    pub desired_generation: u64,
    /// Generation of the input that the kernel has acknowledged.
    pub programmed_generation: u64,
    /// How the API server is read; `None` where the store is a directory.
    #[serde(default)]
    pub source: Option<SourceStatus>,
    /// BGP in numbers; `None` while the speaker has no configuration.
    pub bgp: Option<BgpStatus>,
    /// Kernel routes.
    pub routes: RouteStatus,
    /// Policy.
    pub policy: PolicyStatus,
    /// Current complaints: input that was refused, peers that are down, drift. Oldest first.
    pub problems: Vec<Problem>,
}

/// Part of [`Status`]: how the API server is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// URL of the API server.
    pub server: String,
    /// Every kind is followed now.
    pub connected: bool,
    /// Some of what is in force is from the snapshot of an earlier run: the API server was not read
    /// since.
    pub from_snapshot: bool,
    /// Each kind.
    pub kinds: Vec<SourceKind>,
}

/// Part of [`SourceStatus`]. Numbers count from the start of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceKind {
    /// Kind.
    pub kind: String,
    /// It is followed now, or the API server said that there is no such kind.
    pub connected: bool,
    /// Objects known.
    pub objects: u64,
    /// resourceVersion of the state.
    pub version: u64,
    /// Lists asked for.
    pub lists: u64,
    /// Watches opened.
    pub watches: u64,
    /// Requests that failed, and watches that were cut.
    pub errors: u64,
    /// Lists and objects that were refused because what was known is newer.
    pub stale: u64,
    /// Objects that cannot be read now.
    pub rejected: u64,
    /// Seconds since the API server said something about the kind.
    pub heard_seconds: Option<f64>,
    /// What is wrong, if something is.
    pub trouble: Option<String>,
}

/// Part of [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpStatus {
    /// Our AS.
    pub asn: u32,
    /// Our BGP Identifier.
    pub router_id: String,
    /// Listening port; 0 if listening failed.
    pub listen_port: u16,
    /// Peers in state Established.
    pub peers_established: u32,
    /// Configured peers.
    pub peers: u32,
    /// Prefixes with a best path.
    pub prefixes: u64,
    /// Sessions with other nodes: `on`, `draining` (some gave way to reflectors) or `off`.
    #[serde(default)]
    pub mesh: String,
    /// Route reflectors of the cluster.
    #[serde(default)]
    pub reflectors: u32,
    /// Of those, with a session that is Established.
    #[serde(default)]
    pub reflectors_established: u32,
}

/// Part of [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// Routes we want in the kernel.
    pub desired: u64,
    /// Of those, acknowledged.
    pub installed: u64,
    /// Refused by the kernel and retried.
    pub failed: u64,
    /// Of the installed ones, not used: the kernel prefers somebody else's route.
    #[serde(default)]
    pub overridden: u64,
    /// Times someone else's change was repaired.
    pub repaired: u64,
}

/// Part of [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// NetworkPolicy objects in force.
    pub policies: u64,
    /// Pods of this node known to the kernel table.
    pub endpoints: u64,
    /// Of those, isolated in at least one direction.
    pub isolated: u64,
    /// Elements in all sets.
    pub set_elements: u64,
    /// Transactions committed.
    pub transactions: u64,
    /// Transactions that the kernel refused.
    pub refused: u64,
    /// Times someone else's change was repaired.
    pub repaired: u64,
}

/// One thing that is wrong now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Catalogue code.
    pub code: Code,
    /// What it is about: `NetworkPolicy shop/web`, `peer tor-r1-a`, `node n11`.
    pub subject: String,
    /// What, in one line, with the field path if there is one.
    pub message: String,
    /// Where: `file:line` for input from a directory, `address:port` for a peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// What to do.
    pub next: String,
    /// Since when (RFC 3339).
    pub since: String,
}

/// A Node as this agent sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Name.
    pub name: String,
    /// Rack label, if any.
    pub rack: Option<String>,
    /// Internal addresses.
    pub addresses: Vec<IpAddr>,
    /// Pod CIDRs.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Present only for the node of the answering agent: what it knows about itself.
    pub agent: Option<AgentView>,
}

/// Part of [`NodeView`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    /// Agent version.
    pub version: String,
    /// `/readyz`.
    pub ready: bool,
    /// Established BGP peers.
    pub peers_established: u32,
    /// Configured BGP peers.
    pub peers: u32,
    /// Routes installed by us.
    pub routes: u64,
    /// Repairs so far, of routes and table.
    pub drift: u64,
    /// Input generation.
    pub desired_generation: u64,
    /// Acknowledged generation.
    pub programmed_generation: u64,
    /// Local pods known to the kernel table.
    pub endpoints: u64,
    /// Seconds since start.
    pub uptime_seconds: f64,
}

/// A BGP neighbour of the answering agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// Node of the agent.
    pub node: String,
    /// Peer name.
    pub name: String,
    /// `mesh`, `reflector` (of the cluster), `peer` (a BGPPeer in our AS) or `tor`. (`kind` itself is the type of the object in `rctl -o json`.)
    #[serde(rename = "peerKind")]
    pub kind: String,
    /// Remote address.
    pub address: IpAddr,
    /// Remote port we dial.
    pub port: u16,
    /// Configured remote AS.
    pub remote_asn: u32,
    /// Our AS.
    pub local_asn: u32,
    /// RFC 4271 name: Idle, Connect, Active, OpenSent, OpenConfirm, Established.
    pub state: String,
    /// Seconds since the last state change into or out of Established.
    pub since_seconds: f64,
    /// Remote BGP Identifier, once an OPEN was seen.
    pub router_id: Option<String>,
    /// Local address of the session.
    pub local_address: Option<IpAddr>,
    /// Families negotiated.
    pub families: Vec<String>,
    /// Families for which the peer has said in this session that it has told everything
    /// (End-of-RIB, RFC 4724).
    #[serde(default)]
    pub end_of_rib: Vec<String>,
    /// Graceful restart.
    #[serde(default)]
    pub graceful_restart: GracefulRestartView,
    /// Prefixes in Adj-RIB-In, both families.
    pub received: u64,
    /// Of those, past the import policy and eligible.
    pub accepted: u64,
    /// Prefixes in Adj-RIB-Out.
    pub sent: u64,
    /// Prefixes that should be there, but have no next hop of their family for this peer, or do not
    /// fit into a message.
    #[serde(default)]
    pub withheld: u64,
    /// Negotiated hold time in seconds.
    pub hold_time_seconds: u64,
    /// Negotiated keepalive interval in seconds.
    pub keepalive_seconds: u64,
    /// Capabilities that both sides have, by name.
    pub capabilities: Vec<String>,
    /// Session came up this many times.
    pub established_count: u64,
    /// Messages in, by type name.
    pub messages_received: BTreeMap<String, u64>,
    /// Messages out, by type name.
    pub messages_sent: BTreeMap<String, u64>,
    /// UPDATEs with a malformed attribute (RFC 7606), by disposition.
    pub malformed: BTreeMap<String, u64>,
    /// TCP MD5 signatures (RFC 2385): `off`; `on`; `unknown`: asked for, but the password is not there,
    /// and so there is no session.
    #[serde(default)]
    pub md5: String,
    /// Last thing that went wrong.
    pub last_error: Option<PeerError>,
    /// Import policy in words.
    pub import: String,
    /// Export policy in words.
    pub export: String,
}

/// Part of [`PeerView`]: graceful restart (RFC 4724).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GracefulRestartView {
    /// `none`; `away`: the peer restarts and its paths are kept; `back`: it has not told everything
    /// again; `restarting`: we have restarted and have not told it everything.
    pub phase: String,
    /// Both sides offer it.
    pub negotiated: bool,
    /// Both sides offer that a NOTIFICATION and the hold timer are restarts as well (RFC 8538).
    pub notification: bool,
    /// How long the peer asks us to wait for it, in seconds.
    pub peer_restart_seconds: u64,
    /// How long we wait for it, in seconds: the shorter of that and our own setting.
    #[serde(default)]
    pub wait_seconds: u64,
    /// Families whose paths are kept meanwhile: those that the peer asks it for.
    #[serde(default)]
    pub families: Vec<String>,
    /// Families in which the peer went on forwarding before this session (F bit).
    pub forwarding: Vec<String>,
    /// Paths that are kept and were not sent again, by family.
    pub stale: BTreeMap<String, u64>,
    /// Seconds until the oldest of them go.
    pub seconds_left: Option<f64>,
}

/// Part of [`PeerView`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerError {
    /// Catalogue code.
    pub code: Code,
    /// In words.
    pub message: String,
    /// Seconds ago.
    pub ago_seconds: f64,
}

/// A prefix in the Loc-RIB of the answering agent, with all its paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// Node of the agent.
    pub node: String,
    /// Prefix.
    pub prefix: String,
    /// Node that owns the prefix, `tor` for one from a ToR peer, `local` for our own, `-` unknown.
    pub origin: String,
    /// Best path first.
    pub paths: Vec<PathView>,
    /// Next hops in the kernel (more than one = ECMP); empty for a blackhole or nothing.
    pub fib_next_hops: Vec<IpAddr>,
    /// `ok`, `pending`, `failed: REASON`, `blackhole`, `none`; `overridden: ROUTE` where the kernel has
    /// it and prefers somebody else's route that leads elsewhere, in the words of `ip route`.
    pub fib: String,
}

/// Part of [`RouteView`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathView {
    /// Name of the peer it came from, or `local`.
    pub from: String,
    /// Next hop; `None` for a local one.
    pub next_hop: Option<IpAddr>,
    /// AS_PATH, e.g. `65001 64512`.
    pub as_path: String,
    /// LOCAL_PREF.
    pub local_pref: u32,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// `igp`, `egp`, `incomplete`.
    pub origin: String,
    /// ORIGINATOR_ID.
    pub originator_id: Option<String>,
    /// CLUSTER_LIST.
    pub cluster_list: Vec<String>,
    /// Communities as `asn:value`.
    pub communities: Vec<String>,
    /// The best path.
    pub best: bool,
    /// Used for ECMP with the best path.
    pub multipath: bool,
    /// Why it lost against the best, or is not eligible; empty for the best.
    pub reason: String,
    /// Seconds since it was learnt or changed.
    pub age_seconds: f64,
}

/// A NetworkPolicy as this agent enforces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyView {
    /// Node of the agent.
    pub node: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `knp` (networking.k8s.io/v1 NetworkPolicy).
    #[serde(rename = "policyKind")]
    pub kind: String,
    /// Pods it selects, in the whole cluster.
    pub selects: u64,
    /// Pods it selects on this node.
    pub selects_local: u64,
    /// Of those, programmed in the kernel.
    pub programmed: u64,
    /// Ingress rules.
    pub ingress_rules: u64,
    /// Egress rules.
    pub egress_rules: u64,
    /// Isolates ingress.
    pub isolates_ingress: bool,
    /// Isolates egress.
    pub isolates_egress: bool,
    /// `enforce`.
    pub mode: String,
    /// podSelector in words.
    pub pod_selector: String,
    /// Each rule in words: `ingress 1: from pods app=web, tcp 8080`.
    pub rules: Vec<String>,
    /// Rules that could not be understood (they admit nothing), with the field path.
    pub faults: Vec<String>,
}

/// A pod of this node as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointView {
    /// Node of the agent.
    pub node: String,
    /// Namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Pod addresses.
    pub addresses: Vec<IpAddr>,
    /// Host side interface; `None` while the kernel has no route to the pod.
    pub interface: Option<String>,
    /// Some policy isolates ingress.
    pub isolated_ingress: bool,
    /// Some policy isolates egress.
    pub isolated_egress: bool,
    /// `namespace/name` of every policy that selects it.
    pub policies: Vec<String>,
    /// The kernel has acknowledged its rules.
    pub programmed: bool,
    /// Names of its chains, ingress then egress.
    pub chains: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

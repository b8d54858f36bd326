//! Names, units and meaning of all metrics. `/metrics` has exactly these.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Goes up and down.
    Gauge,
    /// Only goes up; its name in the exposition ends in `_total`.
    Counter,
    /// Observations in buckets; its names in the exposition end in `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// One metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name without `_total`.
    pub name: &'static str,
    /// Type.
    pub kind: Type,
    /// What it counts, with the unit. Without a full stop at the end.
    pub help: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($name:ident = $text:literal, $kind:ident, $help:literal, [$($label:literal),*];)*) => {
        $(#[doc = $help] pub const $name: Metric = Metric {
            name: $text, kind: Type::$kind, help: $help, labels: &[$($label),*],
        };)*
        /// Every metric.
        pub const METRICS: &[Metric] = &[$($name),*];
    };
}

metrics! {
    BUILD_INFO = "rampart_build_info", Gauge, "Always 1; version and commit of the agent are in the labels", ["version", "commit"];
    READY = "rampart_ready", Gauge, "1 when /readyz says so, else 0", [];
    GENERATION_DESIRED = "rampart_generation_desired", Gauge, "Input changes read so far", [];
    GENERATION_PROGRAMMED = "rampart_generation_programmed", Gauge, "Input changes that the kernel has acknowledged", [];
    PROBLEMS = "rampart_problems", Gauge, "Complaints that stand now, by code", ["code"];
    CONFIG_STALE = "rampart_config_stale", Gauge, "1 while an object of the input is not in force as it is written (see rctl status), else 0", [];
    RECONCILE_ERRORS = "rampart_reconcile_errors", Counter, "Failed attempts to bring about what is wanted, by stage: source (reading the API server), table (nf_tables), routes (rtnetlink), report (writing to the API server)", ["stage"];
    KUBE_WATCH_LAG = "rampart_kube_watch_lag_seconds", Gauge, "Time since the API server last sent something for the kind (event, bookmark or list), in seconds", ["kind"];
    KUBE_WRITES = "rampart_kube_writes", Counter, "Writes to the API server, by what was written (status, conditions, lease, node, event) and result (ok, error)", ["object", "result"];
    KUBE_EVENTS_DROPPED = "rampart_kube_events_dropped", Counter, "Kubernetes Events that were not written because too many were due", [];
    STATUS_LEADER = "rampart_status_leader", Gauge, "1 when this agent writes the conditions of BGPPeer, BGPConfiguration and NetworkConfiguration for all, else 0", [];
    BGP_PEERS = "rampart_bgp_peers", Gauge, "Configured BGP peers", [];
    BGP_PEERS_ESTABLISHED = "rampart_bgp_peers_established", Gauge, "BGP peers in state Established", [];
    BGP_MESH_PEERS = "rampart_bgp_mesh_peers", Gauge, "Of the configured BGP peers, other nodes of the mesh", [];
    BGP_MESH_PEERS_ESTABLISHED = "rampart_bgp_mesh_peers_established", Gauge, "Of the peers in state Established, other nodes of the mesh", [];
    BGP_MESH_PEER_DOWN = "rampart_bgp_mesh_peer_down", Gauge, "1 for each other node of the mesh that there is no session with; the first 10 by name", ["peer"];
    BGP_PEER_UP = "rampart_bgp_peer_up", Gauge, "1 when the peer is Established, else 0; not for peers of the mesh", ["peer", "kind"];
    BGP_PEER_RECEIVED = "rampart_bgp_peer_received_prefixes", Gauge, "Prefixes that the peer holds out to us", ["peer", "kind"];
    BGP_PEER_ACCEPTED = "rampart_bgp_peer_accepted_prefixes", Gauge, "Prefixes of the peer past import policy", ["peer", "kind"];
    BGP_PEER_SENT = "rampart_bgp_peer_sent_prefixes", Gauge, "Prefixes announced to the peer", ["peer", "kind"];
    BGP_PEER_ESTABLISHED = "rampart_bgp_peer_established", Counter, "Times the session came up", ["peer", "kind"];
    BGP_PEER_TRANSITIONS = "rampart_bgp_peer_transitions", Counter, "Times the session came up or went down", ["peer", "kind"];
    BGP_PEER_ESTABLISHED_TIMESTAMP = "rampart_bgp_peer_established_timestamp_seconds", Gauge, "When the session came up, in seconds since 1970; only while it is up, not for peers of the mesh", ["peer", "kind"];
    BGP_PEER_MESSAGES = "rampart_bgp_peer_messages", Counter, "BGP messages, by direction (received, sent) and type", ["peer", "kind", "direction", "type"];
    BGP_PEER_NOTIFICATIONS = "rampart_bgp_peer_notifications", Counter, "NOTIFICATION messages that ended a session, by direction and error code (RFC 4271 section 4.5)", ["peer", "kind", "direction", "code"];
    BGP_PEER_PREFIX_LIMIT = "rampart_bgp_peer_prefix_limit_ratio", Gauge, "Received prefixes as part of maxPrefixes, 1 = at the limit; only for peers with a limit", ["peer", "kind"];
    BGP_PEER_STALE = "rampart_bgp_peer_stale_paths", Gauge, "Paths of a peer that restarts, kept and not yet sent again (RFC 4724)", ["peer", "kind"];
    BGP_PREFIXES = "rampart_bgp_prefixes", Gauge, "Prefixes with a best path", [];
    BGP_OCTETS_RECEIVED = "rampart_bgp_received_octets", Counter, "Octets read from BGP connections", [];
    BGP_OCTETS_SENT = "rampart_bgp_sent_octets", Counter, "Octets written to BGP connections", [];
    BGP_CONNECTIONS_REFUSED = "rampart_bgp_connections_refused", Counter, "Connections to the BGP port that were refused", [];
    CONVERGENCE = "rampart_convergence_seconds", Histogram, "Time from what changes routes (an UPDATE that was read, a session that was lost, other pod CIDRs of our own) until the kernel has acknowledged all routes that follow from it, in seconds", [];
    ROUTES_DESIRED = "rampart_routes_desired", Gauge, "Routes wanted in the kernel", [];
    ROUTES_INSTALLED = "rampart_routes_installed", Gauge, "Routes wanted and acknowledged by the kernel", [];
    ROUTES_FAILED = "rampart_routes_failed", Gauge, "Routes refused by the kernel and retried", [];
    ROUTES_REPAIRED = "rampart_routes_repaired", Counter, "Times a route was repaired after someone else changed it", [];
    POLICIES = "rampart_policies", Gauge, "NetworkPolicy objects in force", [];
    ENDPOINTS = "rampart_endpoints", Gauge, "Pods of this node known to the kernel table", [];
    ENDPOINTS_ISOLATED = "rampart_endpoints_isolated", Gauge, "Of the endpoints, isolated in at least one direction", [];
    POLICY_APPLY = "rampart_policy_apply_seconds", Histogram, "Time from reading a change of the input until the kernel has acknowledged the table that follows from it, in seconds", [];
    POD_GATE = "rampart_pod_gate_seconds", Histogram, "Time from the plugin's ADD request until the policy of the pod is in the kernel, in seconds", [];
    POD_GATE_TIMEOUTS = "rampart_pod_gate_timeouts", Counter, "ADD requests refused because the policy of the pod was not in the kernel in time", [];
    NFT_SET_ELEMENTS = "rampart_nft_set_elements", Gauge, "Elements in all sets of the kernel table", [];
    NFT_TRANSACTIONS = "rampart_nft_transactions", Counter, "Transactions that the kernel took", [];
    NFT_REFUSED = "rampart_nft_refused", Counter, "Transactions that the kernel refused", [];
    NFT_REPAIRED = "rampart_nft_repaired", Counter, "Times the table was repaired after someone else changed it", [];
    PROCESS_CPU = "process_cpu_seconds", Counter, "Processor time of the agent, user and system, in seconds", [];
    PROCESS_MEMORY = "process_resident_memory_bytes", Gauge, "Resident memory of the agent in bytes", [];
    PROCESS_OPEN_FILES = "process_open_fds", Gauge, "Open file descriptors of the agent", [];
    PROCESS_START = "process_start_time_seconds", Gauge, "When the agent started, in seconds since 1970", [];
}

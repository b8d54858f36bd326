//! Names, units and meaning of all metrics. `/metrics` has exactly these.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Goes up and down.
    Gauge,
    /// Only goes up; its name in the exposition ends in `_total`.
    Counter,
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
    READY = "rampart_ready", Gauge, "1 when /readyz says so, else 0", [];
    GENERATION_DESIRED = "rampart_generation_desired", Gauge, "Input changes read so far", [];
    GENERATION_PROGRAMMED = "rampart_generation_programmed", Gauge, "Input changes that the kernel has acknowledged", [];
    PROBLEMS = "rampart_problems", Gauge, "Complaints that stand now, by code", ["code"];
    BGP_PEERS = "rampart_bgp_peers", Gauge, "Configured BGP peers", [];
    BGP_PEERS_ESTABLISHED = "rampart_bgp_peers_established", Gauge, "BGP peers in state Established", [];
    BGP_PEER_UP = "rampart_bgp_peer_up", Gauge, "1 when the peer is Established, else 0", ["peer", "kind"];
    BGP_PEER_RECEIVED = "rampart_bgp_peer_received_prefixes", Gauge, "Prefixes that the peer holds out to us", ["peer", "kind"];
    BGP_PEER_ACCEPTED = "rampart_bgp_peer_accepted_prefixes", Gauge, "Prefixes of the peer past import policy", ["peer", "kind"];
    BGP_PEER_SENT = "rampart_bgp_peer_sent_prefixes", Gauge, "Prefixes announced to the peer", ["peer", "kind"];
    BGP_PEER_ESTABLISHED = "rampart_bgp_peer_established", Counter, "Times the session came up", ["peer", "kind"];
    BGP_PREFIXES = "rampart_bgp_prefixes", Gauge, "Prefixes with a best path", [];
    BGP_OCTETS_RECEIVED = "rampart_bgp_received_octets", Counter, "Octets read from BGP connections", [];
    BGP_OCTETS_SENT = "rampart_bgp_sent_octets", Counter, "Octets written to BGP connections", [];
    BGP_CONNECTIONS_REFUSED = "rampart_bgp_connections_refused", Counter, "Connections to the BGP port that were refused", [];
    ROUTES_DESIRED = "rampart_routes_desired", Gauge, "Routes wanted in the kernel", [];
    ROUTES_INSTALLED = "rampart_routes_installed", Gauge, "Routes wanted and acknowledged by the kernel", [];
    ROUTES_FAILED = "rampart_routes_failed", Gauge, "Routes refused by the kernel and retried", [];
    ROUTES_REPAIRED = "rampart_routes_repaired", Counter, "Times a route was repaired after someone else changed it", [];
    POLICIES = "rampart_policies", Gauge, "NetworkPolicy objects in force", [];
    ENDPOINTS = "rampart_endpoints", Gauge, "Pods of this node known to the kernel table", [];
    ENDPOINTS_ISOLATED = "rampart_endpoints_isolated", Gauge, "Of the endpoints, isolated in at least one direction", [];
    NFT_SET_ELEMENTS = "rampart_nft_set_elements", Gauge, "Elements in all sets of the kernel table", [];
    NFT_TRANSACTIONS = "rampart_nft_transactions", Counter, "Transactions that the kernel took", [];
    NFT_REFUSED = "rampart_nft_refused", Counter, "Transactions that the kernel refused", [];
    NFT_REPAIRED = "rampart_nft_repaired", Counter, "Times the table was repaired after someone else changed it", [];
}

//! What a speaker is told to be: its own identity and its peers.
//!
//! These values are valid by construction; turning Kubernetes objects into them is the agent's job.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::md5::{Md5, Md5Key};
use crate::types::{Asn, Families, RouterId};

/// Everything a [`crate::speaker::Speaker`] needs to know. Applied as a whole; the speaker works
/// out the difference, and a peer whose own settings did not change keeps its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP Identifier. A change resets every session.
    pub router_id: RouterId,
    /// CLUSTER_ID for route reflection (RFC 4456); the router id when nobody says otherwise.
    pub cluster_id: Ipv4Addr,
    /// Hostname for the FQDN capability (code 73); empty = not sent.
    pub hostname: String,
    /// Sorted by `address` and `port`, no duplicates.
    pub peers: Vec<PeerConfig>,
}

/// One configured neighbour. Identified by `address` and `port`: a node may run two speakers. Of the
/// peers at one address at most one is not `dial_only`; a connection from there is its.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerConfig {
    /// Name a human gave it (BGPPeer object, or the node name in a mesh).
    pub name: String,
    /// What kind of neighbour this is, for display only.
    pub kind: PeerKind,
    /// Remote address: who may connect, and where we connect to.
    pub address: IpAddr,
    /// Remote TCP port for outgoing connections, 179 by default.
    pub port: u16,
    /// Source address for outgoing connections, if it matters.
    pub local_address: Option<IpAddr>,
    /// The AS the peer must announce in its OPEN. Equal to ours = iBGP.
    pub asn: Asn,
    /// Proposed hold time (RFC 4271 §4.2): zero, or at least three seconds.
    pub hold_time: Duration,
    /// First back-off between connection attempts; doubled per failure, capped at 60 s.
    pub connect_retry: Duration,
    /// Never open a connection, only accept one.
    pub passive: bool,
    /// Never accept a connection, only open one: who connects from this address is somebody else.
    pub dial_only: bool,
    /// The session is welcome, but not asked for (set `passive` as well): the peer may open it, and
    /// while it is down the peer is neither shown nor counted.
    pub standby: bool,
    /// TTL for an eBGP session more than one hop away; `None` = directly connected.
    pub ebgp_multihop: Option<u8>,
    /// Generalized TTL security (RFC 5082): send with TTL 255, take nothing that has passed a router.
    /// Only for a directly connected peer, which must send with TTL 255 as well.
    pub ttl_security: bool,
    /// TCP MD5 signatures (RFC 2385). A change resets the session.
    pub md5: Md5,
    /// The peer is a route-reflector client of ours (RFC 4456; iBGP only).
    pub route_reflector_client: bool,
    /// Families to offer.
    pub families: Families,
    /// Next hops that we put into routes of our own (and into everything towards eBGP).
    /// `None`: the driver's local address of the session, if it is of that family.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// See `next_hop_v4`. RFC 8950 is not used: IPv4 prefixes get IPv4 next hops.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// What to accept from the peer.
    pub import: Policy,
    /// What to send to the peer (after split horizon and the reflection rules).
    pub export: Policy,
    /// Originate 0.0.0.0/0 and ::/0 towards this peer, as a ToR switch does.
    pub default_originate: bool,
    /// Close the session (Cease 6/1) when the peer holds more prefixes than this.
    pub max_prefixes: Option<u32>,
    /// Graceful restart (RFC 4724); `None`: not offered, and nothing outlives a session.
    pub graceful_restart: Option<GracefulRestart>,
}

/// What no packet has that was forwarded.
const MAX_TTL: u8 = 255;

impl PeerConfig {
    /// Proposed when nobody says otherwise (RFC 4271 §10).
    pub const HOLD_TIME: Duration = Duration::from_secs(90);
    /// First back-off between connection attempts when nobody says otherwise.
    pub const CONNECT_RETRY: Duration = Duration::from_secs(1);

    /// A peer that nothing more is said about: port 179, either side may connect, directly connected,
    /// all families, graceful restart as its kind has it; nothing is imported and only what is our
    /// own exported (RFC 8212).
    #[must_use]
    pub const fn new(name: String, kind: PeerKind, address: IpAddr, asn: Asn) -> Self {
        Self {
            name,
            kind,
            address,
            port: 179,
            local_address: None,
            asn,
            hold_time: Self::HOLD_TIME,
            connect_retry: Self::CONNECT_RETRY,
            passive: false,
            dial_only: false,
            standby: false,
            ebgp_multihop: None,
            ttl_security: false,
            md5: Md5::Off,
            route_reflector_client: false,
            families: Families::ALL,
            next_hop_v4: None,
            next_hop_v6: None,
            import: Policy::OwnOnly,
            export: Policy::OwnOnly,
            default_originate: false,
            max_prefixes: None,
            graceful_restart: Some(GracefulRestart::of(kind)),
        }
    }

    /// TTL or hop limit of what we send, ourselves being in AS `local_asn`.
    #[must_use]
    pub fn ttl(&self, local_asn: Asn) -> u8 {
        let external = self.asn != local_asn;
        match self.ebgp_multihop {
            Some(hops) if external && !self.ttl_security => hops,
            None if external && !self.ttl_security => 1,
            Some(_) | None => MAX_TTL,
        }
    }

    /// Least TTL or hop limit of what we take.
    #[must_use]
    pub fn min_ttl(&self) -> Option<u8> {
        self.ttl_security.then_some(MAX_TTL)
    }

    /// What identifies the peer among those of a speaker.
    #[must_use]
    pub const fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// What is offered and done about restarts, of ours and of the peer's (RFC 4724, RFC 8538).
///
/// Our own forwarding outlives us in any case (it is the kernel's), so the F bit is always set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GracefulRestart {
    /// How long the peer is asked to keep our routes while we are away, and how long we keep its
    /// routes at most while it is. On the wire whole seconds, at most 4095.
    pub restart_time: Duration,
    /// How long a route that was kept may wait, counted from the end of the old session, for the
    /// peer that is back to send it again or End-of-RIB. Not less than `restart_time`.
    pub stale_time: Duration,
    /// Keep the peer's routes while it restarts ("helper"). Without, we only ask the peer to keep
    /// ours.
    pub helper: bool,
    /// Offer that a NOTIFICATION other than Hard Reset, and the hold timer, leave the routes as a
    /// lost connection does (N bit, RFC 8538).
    pub notification: bool,
}

impl GracefulRestart {
    /// Long enough to replace an agent.
    pub const RESTART_TIME: Duration = Duration::from_secs(120);
    /// Time for the restarted peer to hear from everybody else first.
    pub const STALE_TIME: Duration = Duration::from_secs(300);

    /// What a peer of this kind gets unless somebody chose.
    ///
    /// To keep the routes of a node or a reflector that is gone costs nothing: nobody else leads to
    /// those pods. A switch that falls silent usually has a twin, so its hold timer still ends all.
    #[must_use]
    pub const fn of(kind: PeerKind) -> Self {
        Self {
            restart_time: Self::RESTART_TIME,
            stale_time: Self::STALE_TIME,
            helper: true,
            notification: !matches!(kind, PeerKind::Tor),
        }
    }
}

/// Kind of neighbour, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerKind {
    /// Another node of the cluster (node-to-node mesh).
    Mesh,
    /// A route reflector of the cluster, or its client.
    Reflector,
    /// Named by a BGPPeer object, and in our AS.
    Internal,
    /// Named by a BGPPeer object, and in another AS: usually a top-of-rack switch.
    Tor,
}

/// Import or export policy: an accept-list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    /// Import nothing; export only what this speaker originates itself (RFC 8212 default for eBGP).
    #[default]
    OwnOnly,
    /// Everything passes (RFC 4271 behaviour; iBGP within one trust domain).
    All,
    /// A prefix passes if any entry matches. Own prefixes always pass on export.
    Accept(Vec<PrefixMatch>),
}

/// Matches a prefix inside `prefix` whose length is within `[min_length, max_length]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PrefixMatch {
    /// The covering prefix.
    pub prefix: IpNet,
    /// Shortest accepted length; at least `prefix.prefix_len()`.
    pub min_length: u8,
    /// Longest accepted length.
    pub max_length: u8,
}

/// Where to dial, and how: the driver turns this into a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Remote endpoint.
    pub remote: SocketAddr,
    /// Local address to bind, port 0.
    pub local: Option<IpAddr>,
    /// IP TTL / hop limit for the socket: 1 for directly connected eBGP, 255 for iBGP,
    /// the configured value for multihop; 255 with TTL security.
    pub ttl: u8,
    /// Packets with a lower TTL or hop limit are dropped (RFC 5082).
    pub min_ttl: Option<u8>,
    /// Segments are signed with it, and dropped if they are not (RFC 2385).
    pub md5: Option<Md5Key>,
}

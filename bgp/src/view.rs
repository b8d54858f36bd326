//! What an operator may ask of a [`crate::speaker::Speaker`]: snapshots, never references into it.
//!
//! Durations are relative to the `now` given with the question.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use crate::config::{PeerKind, Policy};
use crate::rib::Verdict;
use crate::speaker::SpeakerEvent;
use crate::types::{Asn, Family, RouterId};
use crate::wire::attribute::Attributes;

/// State of a session, in the words of RFC 4271 §8.2.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum SessionState {
    /// Nothing is attempted.
    #[default]
    Idle,
    /// A TCP connection is being opened.
    Connect,
    /// Waiting for the peer, or for the next attempt.
    Active,
    /// OPEN sent, the peer's awaited.
    OpenSent,
    /// OPENs exchanged, KEEPALIVE awaited.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        })
    }
}

/// Messages of one direction, by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MessageCounts {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub route_refresh: u64,
}

/// Malformed input, by RFC 7606 disposition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MalformedCounts {
    /// Attribute dropped, route kept.
    pub attribute_discard: u64,
    /// Routes of the UPDATE withdrawn.
    pub treat_as_withdraw: u64,
    /// Session ended.
    pub session_reset: u64,
}

/// A configured peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerView {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: PeerKind,
    /// Remote address.
    pub address: IpAddr,
    /// Remote port that we dial.
    pub port: u16,
    /// Configured remote AS.
    pub remote_asn: Asn,
    /// Our AS.
    pub local_asn: Asn,
    /// State.
    pub state: SessionState,
    /// Time since the last change into or out of Established (or since it was configured).
    pub since: Duration,
    /// Remote BGP Identifier, once an OPEN was seen.
    pub router_id: Option<RouterId>,
    /// Local address of the session.
    pub local_address: Option<IpAddr>,
    /// Families negotiated.
    pub families: Vec<Family>,
    /// Families for which the peer has said in this session that it has sent everything
    /// (End-of-RIB, RFC 4724 §2).
    pub end_of_rib: Vec<Family>,
    /// Graceful restart.
    pub restart: RestartView,
    /// Prefixes the peer holds out to us, both families, denied ones included.
    pub received: u64,
    /// Of those, past the import policy and eligible.
    pub accepted: u64,
    /// Prefixes in Adj-RIB-Out.
    pub sent: u64,
    /// Prefixes that export would pass, but that have no next hop of their family for this peer.
    pub no_next_hop: u64,
    /// Prefixes whose attributes do not fit into a message for this peer.
    pub too_big: u64,
    /// Negotiated hold time.
    pub hold_time: Duration,
    /// Negotiated keepalive interval.
    pub keepalive: Duration,
    /// Capabilities that both sides have, by name.
    pub capabilities: Vec<&'static str>,
    /// How often the session came up.
    pub established_count: u64,
    /// Messages in.
    pub messages_received: MessageCounts,
    /// Messages out.
    pub messages_sent: MessageCounts,
    /// Malformed UPDATEs.
    pub malformed: MalformedCounts,
    /// Last thing that went wrong.
    pub last_error: Option<PeerError>,
    /// TCP MD5 signatures.
    pub md5: crate::md5::Word,
    /// Import policy (its `Display` is words).
    pub import: Policy,
    /// Export policy (its `Display` is words).
    pub export: Policy,
}

/// Part of [`PeerView`]: graceful restart (RFC 4724) of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RestartView {
    /// What goes on.
    pub phase: RestartPhase,
    /// Both sides offered it in the session that is up.
    pub negotiated: bool,
    /// Both sides offered RFC 8538: a NOTIFICATION or the hold timer is a restart as well.
    pub notification: bool,
    /// The peer said in this session that it has restarted (R bit).
    pub peer_restarted: bool,
    /// How long the peer asks us to wait for it.
    pub peer_restart_time: Duration,
    /// How long we wait for it: no longer than we are told to. Zero: we do not.
    pub wait: Duration,
    /// Families whose paths are kept while it is away: those that it asks it for.
    pub families: Vec<Family>,
    /// Families that the peer went on forwarding in when it last opened this session (F bit).
    pub forwarding: Vec<Family>,
    /// Paths that wait to be sent again, by family; families without any are left out.
    pub stale: Vec<(Family, usize)>,
    /// Time left to the oldest of them.
    pub left: Option<Duration>,
}

/// Part of [`RestartView`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum RestartPhase {
    /// Nothing restarts.
    #[default]
    None,
    /// The peer is away; we keep its paths.
    Away,
    /// The peer is back and has not told everything again.
    Back,
    /// We have restarted and have not told the peer yet that this is everything.
    Restarting,
}

impl fmt::Display for RestartPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Away => "away",
            Self::Back => "back",
            Self::Restarting => "restarting",
        })
    }
}

/// Part of [`PeerView`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerError {
    /// What.
    pub event: SpeakerEvent,
    /// How long ago.
    pub ago: Duration,
}

/// Is what some peers tell also known from others?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Parity {
    /// Pairs of prefix and next hop that the first set of peers holds out, each once.
    pub compared: usize,
    /// Prefixes of which a next hop is known from the first set only; sorted.
    pub missing: Vec<IpNet>,
    /// The fewest peers of the second set that hold out any pair: losing one less than this loses
    /// nothing. 0 as long as something is missing; `None` where there was nothing to compare.
    pub redundancy: Option<usize>,
    /// Peers of the second set that have not told everything yet (not configured, not Established,
    /// or no End-of-RIB for a family of the session).
    pub unready: Vec<SocketAddr>,
}

impl Parity {
    /// The first set of peers can go: everything is known from the others, and they have told all.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.missing.is_empty() && self.unready.is_empty()
    }
}

/// Where a path came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum PathFrom {
    /// We originate it.
    Local,
    /// Learnt from a peer.
    Peer {
        /// Its configured address.
        address: IpAddr,
        /// Its name.
        name: String,
        /// Its kind.
        kind: PeerKind,
    },
}

/// A prefix of the Loc-RIB with all its paths.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteView {
    /// Prefix.
    pub prefix: IpNet,
    /// Best path first, then by rank; ineligible ones last.
    pub paths: Vec<PathView>,
    /// Next hops of the best path and its multipaths; empty for an own prefix or nothing eligible.
    pub next_hops: Vec<IpAddr>,
}

/// Part of [`RouteView`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathView {
    /// Source.
    pub from: PathFrom,
    /// Attributes as received; `None` for an own prefix.
    pub attributes: Option<Attributes>,
    /// LOCAL_PREF used in the decision (100 where none was received).
    pub local_pref: u32,
    /// Best, multipath, or why not.
    pub verdict: Verdict,
    /// Time since it was learnt or changed.
    pub age: Duration,
}

/// The speaker in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Established peers.
    pub peers_established: usize,
    /// Configured peers.
    pub peers: usize,
    /// Prefixes with a best path.
    pub prefixes: usize,
    /// Paths, ineligible ones included.
    pub paths: usize,
    /// Distinct attribute sets.
    pub attribute_sets: usize,
    /// Update groups.
    pub update_groups: usize,
}

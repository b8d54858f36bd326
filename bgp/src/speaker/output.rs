//! What a speaker wants done, and what it has to say.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::ConnectionId;
use crate::config::Dial;
use crate::session::{Fault, open_check};
use crate::types::{Asn, Families, Family, RouterId};
use crate::wire::error::Notification;
use crate::wire::update::AttributeFault;

/// Why an inbound connection is not wanted. The driver closes it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, thiserror::Error)]
pub enum Refusal {
    /// Nobody is configured at that address.
    #[error("no peer is configured at this address")]
    UnknownPeer,
    /// The peer already has as many connections as it may.
    #[error("the peer already has a connection")]
    Busy,
    /// The peer is not to be talked to now (it exceeded its prefix limit, or backs off).
    #[error("the peer is held down")]
    HeldDown,
}

/// A thing for the driver to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a TCP connection and answer with `connected` or `connect_failed`.
    Connect {
        /// Name it by this from now on.
        conn: ConnectionId,
        /// For whom.
        peer: IpAddr,
        /// How.
        dial: Dial,
    },
    /// The connection has bytes to send: call `transmit` when the socket is writable.
    Transmit {
        /// Which.
        conn: ConnectionId,
    },
    /// Take what `transmit` still has, then close. The connection is forgotten by the speaker once
    /// `transmit` hands out nothing more, or when the driver calls `closed`.
    Close {
        /// Which.
        conn: ConnectionId,
    },
    /// The kernel should forward this prefix so.
    FibChange {
        /// Prefix.
        prefix: IpNet,
        /// Sorted; empty: remove the route (or, for an own prefix, see `origin`).
        next_hops: Vec<IpAddr>,
        /// Learnt, or our own (then `next_hops` is empty and the prefix is not to be removed, but
        /// covered by a blackhole).
        origin: FibOrigin,
    },
    /// Something happened.
    Event(SpeakerEvent),
}

/// Where a forwarding change comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum FibOrigin {
    /// Best path learnt from peers (or none left).
    Learned,
    /// The prefix is our own.
    Own,
}

/// Something worth a log line, a metric or an entry in `rctl status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SpeakerEvent {
    /// A session reached Established.
    SessionUp {
        /// Peer.
        peer: IpAddr,
        /// Its BGP Identifier.
        router_id: RouterId,
        /// Families negotiated.
        families: Families,
    },
    /// A session left Established, or an attempt at one failed.
    SessionDown {
        /// Peer.
        peer: IpAddr,
        /// Why.
        reason: DownReason,
        /// It had been Established.
        established: bool,
    },
    /// The OPENs do not fit together; the session does not come up until a side is changed.
    OpenRefused {
        /// Peer.
        peer: IpAddr,
        /// What does not fit.
        reason: OpenRefusal,
    },
    /// The peer sent bytes that are not BGP; the session was reset.
    MalformedMessage {
        /// Peer.
        peer: IpAddr,
        /// Octet offset within the message.
        offset: usize,
        /// What was wrong.
        reason: &'static str,
    },
    /// A malformed attribute that did not end the session (RFC 7606).
    MalformedAttribute {
        /// Peer.
        peer: IpAddr,
        /// What was wrong.
        fault: AttributeFault,
        /// What was done.
        disposition: Disposition,
    },
    /// Someone who is no configured peer connected.
    UnknownNeighbour {
        /// Who.
        remote: SocketAddr,
    },
    /// The peer has told everything it has of a family (RFC 4724 §2); once in a session.
    EndOfRib {
        /// Peer.
        peer: IpAddr,
        /// Family.
        family: Family,
    },
    /// The session ended, and the peer's paths stay while it restarts (RFC 4724 §4.2).
    PathsKept {
        /// Peer.
        peer: IpAddr,
        /// How many.
        paths: usize,
        /// How long it may be away.
        restart_time: Duration,
    },
    /// Paths that were kept are gone: the peer did not send them again, or not in time.
    StaleRemoved {
        /// Peer.
        peer: IpAddr,
        /// How many.
        paths: usize,
    },
    /// How many prefixes this peer should get and does not, because there is no next hop of their
    /// family for it: told whenever it changes.
    Withheld {
        /// Peer.
        peer: IpAddr,
        /// How many; 0: none any more.
        prefixes: usize,
    },
    /// The peer holds more prefixes than it may; the session was closed (Cease 6/1).
    PrefixLimit {
        /// Peer.
        peer: IpAddr,
        /// Limit.
        limit: u32,
    },
}

impl SpeakerEvent {
    /// Something went wrong, as opposed to well.
    pub(super) const fn is_trouble(&self) -> bool {
        !matches!(
            self,
            Self::SessionUp { .. }
                | Self::EndOfRib { .. }
                | Self::PathsKept { .. }
                | Self::StaleRemoved { .. }
                | Self::Withheld { .. }
        )
    }
}

/// RFC 7606 dispositions that keep the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Disposition {
    /// Attribute dropped, route kept.
    AttributeDiscard,
    /// Routes withdrawn.
    TreatAsWithdraw,
}

/// Why two OPENs do not make a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OpenRefusal {
    /// The peer is in another AS than configured (2/2).
    BadPeerAs {
        /// Configured.
        expected: Asn,
        /// In its OPEN.
        got: Asn,
    },
    /// An internal peer has our own BGP Identifier (2/3).
    OurRouterId(RouterId),
    /// No address family in common (2/7).
    NoCommonFamily {
        /// What we offered.
        offered: Families,
    },
}

/// Why a session ended or did not come up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DownReason {
    /// The TCP connection could not be opened.
    ConnectFailed(String),
    /// The TCP connection ended without a NOTIFICATION.
    ConnectionLost(String),
    /// The link to a directly connected peer is down.
    LinkDown,
    /// Nothing was heard for the hold time.
    HoldTimerExpired,
    /// The peer takes no bytes (RFC 9687).
    SendHoldTimerExpired,
    /// We sent a NOTIFICATION.
    NotificationSent(Notification),
    /// The peer sent one.
    NotificationReceived(Notification),
    /// The other one of two connections was kept (RFC 4271 §6.8).
    Collision,
    /// The peer sent a message out of turn.
    Unexpected,
}

impl From<&open_check::OpenRefusal> for OpenRefusal {
    fn from(refusal: &open_check::OpenRefusal) -> Self {
        match *refusal {
            open_check::OpenRefusal::BadPeerAs { expected, got } => {
                Self::BadPeerAs { expected, got }
            }
            open_check::OpenRefusal::OurRouterId(id) => Self::OurRouterId(id),
            open_check::OpenRefusal::NoCommonFamily { offered } => Self::NoCommonFamily { offered },
        }
    }
}

impl From<&Fault> for DownReason {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::ConnectFailed(reason) => Self::ConnectFailed(reason.clone()),
            Fault::ConnectionLost(reason) => Self::ConnectionLost(reason.clone()),
            Fault::LinkDown => Self::LinkDown,
            Fault::HoldTimerExpired(_) => Self::HoldTimerExpired,
            Fault::SendHoldTimerExpired => Self::SendHoldTimerExpired,
            Fault::NotificationReceived(notification) => {
                Self::NotificationReceived(notification.clone())
            }
            Fault::OpenRefused(refusal) => Self::NotificationSent(refusal.notification()),
            Fault::Malformed(error) => Self::NotificationSent(error.notification.clone()),
            Fault::Collision => Self::Collision,
            Fault::Stopped(notification) => Self::NotificationSent(notification.clone()),
            Fault::Unexpected { .. } => match fault.notification() {
                Some(notification) => Self::NotificationSent(notification),
                None => Self::Unexpected,
            },
        }
    }
}

//! Two connections to one peer, one survivor (RFC 4271 §6.8, RFC 6286 §2.3).
//!
//! The rule that every speaker follows: the connection opened by the side with the higher BGP
//! Identifier wins (equal identifiers: the higher AS), except that Established always wins: unless
//! graceful restart was negotiated and a second has passed since, because then the peer has restarted
//! and forgotten the session (RFC 4724 §5).
//!
//! The RFC decides only when an OPEN arrives on one connection while the other is in OpenConfirm.
//! Messages of two TCP connections overtake each other, so two ends can then see different states
//! and each close the connection that the other kept. Here the loser is known as soon as the
//! peer's identifier is, that is at the first OPEN on either connection:
//! - the connection with the OPEN wins: the other is closed (Cease 6/7), whatever its state;
//! - it loses while the other still waits for its OPEN: it is held. No KEEPALIVE is sent on it, so
//!   it cannot reach Established at the other end, until the other connection either got its OPEN
//!   (this one is closed) or failed (this one goes on). So a peer that refuses second connections
//!   still comes up.

use std::net::Ipv4Addr;

use crate::session::state::State;
use crate::types::Asn;

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// We did.
    Outgoing,
    /// The peer did.
    Incoming,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Outgoing, Self::Incoming];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Outgoing => Self::Incoming,
            Self::Incoming => Self::Outgoing,
        }
    }
}

/// What identifies a speaker in a collision. Ordered: the greater one's connection wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// BGP Identifier, compared first.
    pub router_id: Ipv4Addr,
    /// AS, compared if the identifiers are equal.
    pub asn: Asn,
}

/// What becomes of the connection that an acceptable OPEN has arrived on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No other connection: go on.
    Alone,
    /// Go on; close the other one.
    Wins,
    /// Hold it until the other one is decided.
    Held,
    /// Close it.
    Loses,
}

/// Which side's connection survives when both are equally far.
#[must_use]
pub fn dominant(local: Identity, remote: Identity) -> Side {
    if local > remote { Side::Outgoing } else { Side::Incoming }
}

/// Judges the connection on `side`, on which an acceptable OPEN has just arrived, by the state of
/// the other connection.
#[must_use]
pub fn judge(side: Side, other: State, local: Identity, remote: Identity) -> Verdict {
    let wins = dominant(local, remote) == side;
    match other {
        State::Idle => Verdict::Alone,
        // Not connected yet: no collision, and one attempt less.
        State::Connect | State::Active => Verdict::Wins,
        State::OpenSent if wins => Verdict::Wins,
        State::OpenSent => Verdict::Held,
        State::OpenConfirm if wins => Verdict::Wins,
        State::OpenConfirm | State::Established => Verdict::Loses,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn identity(id: u8, asn: u32) -> Identity {
        Identity { router_id: Ipv4Addr::new(10, 0, 0, id), asn: Asn(asn) }
    }

    #[test]
    fn the_connection_of_the_higher_identifier_wins_at_both_ends() {
        let (low, high) = (identity(1, 65001), identity(2, 65000));
        assert_eq!(dominant(high, low), Side::Outgoing);
        assert_eq!(dominant(low, high), Side::Incoming);
        // Unsigned comparison of the whole value, not octet by octet from the end.
        let big = Identity { router_id: Ipv4Addr::new(200, 0, 0, 1), asn: Asn(1) };
        assert_eq!(dominant(big, high), Side::Outgoing);
    }

    #[test]
    fn equal_identifiers_are_settled_by_the_as() {
        let (low, high) = (identity(1, 65000), identity(1, 65001));
        assert_eq!(dominant(high, low), Side::Outgoing);
        assert_eq!(dominant(low, high), Side::Incoming);
    }

    #[test]
    fn established_always_wins() {
        let (local, remote) = (identity(9, 1), identity(1, 1));
        for side in Side::BOTH {
            assert_eq!(judge(side, State::Established, local, remote), Verdict::Loses);
            assert_eq!(judge(side, State::Established, remote, local), Verdict::Loses);
        }
    }

    #[test]
    fn the_two_ends_never_keep_different_connections() {
        // Each end judges the same connection (outgoing here is incoming there).
        for other in [State::OpenSent, State::OpenConfirm] {
            let (a, b) = (identity(1, 1), identity(2, 1));
            for side in Side::BOTH {
                let here = judge(side, other, a, b) == Verdict::Wins;
                let there = judge(side.other(), other, b, a) == Verdict::Wins;
                assert_eq!(here, there, "{side:?} {other}");
            }
        }
    }

    #[test]
    fn a_loser_is_held_only_while_the_other_one_has_no_open() {
        let (local, remote) = (identity(2, 1), identity(1, 1));
        assert_eq!(judge(Side::Incoming, State::Idle, local, remote), Verdict::Alone);
        assert_eq!(judge(Side::Incoming, State::Connect, local, remote), Verdict::Wins);
        assert_eq!(judge(Side::Incoming, State::OpenSent, local, remote), Verdict::Held);
        assert_eq!(judge(Side::Incoming, State::OpenConfirm, local, remote), Verdict::Loses);
        assert_eq!(judge(Side::Outgoing, State::OpenSent, local, remote), Verdict::Wins);
        assert_eq!(judge(Side::Outgoing, State::OpenConfirm, local, remote), Verdict::Wins);
    }
}

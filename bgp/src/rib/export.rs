//! What may be sent to whom, and how the attributes change on the way out.
//!
//! | learnt from | to internal client | to internal non-client | to external |
//! |---|---|---|---|
//! | ourselves | yes | yes | yes |
//! | external | yes | yes | yes |
//! | internal client | reflected | reflected | yes |
//! | internal non-client | reflected | no | yes |
//!
//! All that the function of a peer's settings yields is in [`GroupKey`]: peers with equal keys are
//! sent the same bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use smallvec::SmallVec;

use super::Identity;
use super::attributes::{AttributeId, Entry, Source};
use crate::config::Policy;
use crate::types::{Asn, Family};
use crate::wire::Context;
use crate::wire::attribute::{AsPath, Attributes, Segment, SegmentKind};

/// LOCAL_PREF where nobody set one (the default of every implementation that has one).
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

/// Everything that decides what a peer is sent. Peers with equal keys are one update group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey {
    /// The session is external.
    pub external: bool,
    /// The peer is a route-reflector client of ours.
    pub client: bool,
    /// Export policy.
    pub policy: Policy,
    /// Encoding that was negotiated for what we send.
    pub context: Context,
    /// Next hop of our own IPv4 prefixes, and of all of them towards an external peer.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Originate the default route of each family.
    pub default_originate: bool,
}

/// What an update group holds about a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Export {
    /// Not for these peers.
    Withhold,
    /// For these peers, but there is no next hop of the family.
    NoNextHop,
    /// Send it with (a transformation of) these attributes.
    Send(AttributeId),
}

impl GroupKey {
    /// The key of a session, without what does not change the bytes sent.
    #[must_use]
    pub fn new(mut self) -> Self {
        self.context.peer_asn = Asn(0);
        self.context.enhanced_refresh = false;
        self
    }

    /// May the best path `entry` of a prefix be sent?
    pub(crate) fn export(
        &self,
        id: AttributeId,
        entry: &Entry,
        prefix: impl FnOnce() -> Option<IpNet>,
        family: Family,
    ) -> Export {
        let may_reflect = match entry.source {
            Source::Local => return self.with_next_hop(family, id),
            Source::External | Source::Internal { client: true, .. } => true,
            Source::Internal { client: false, .. } => self.client,
        };
        if entry.no_advertise || (self.external && entry.no_export) {
            return Export::Withhold;
        }
        if !self.external && !may_reflect {
            return Export::Withhold;
        }
        let passes = match &self.policy {
            Policy::All => true,
            Policy::OwnOnly => false,
            Policy::Accept(_) => prefix().is_some_and(|prefix| self.policy.accepts(&prefix)),
        };
        match (passes, self.external) {
            (false, _) => Export::Withhold,
            (true, true) => self.with_next_hop(family, id),
            (true, false) => Export::Send(id),
        }
    }

    /// A route with our own next hop: needs one.
    pub(crate) fn with_next_hop(&self, family: Family, id: AttributeId) -> Export {
        match self.next_hop(family) {
            Some(_) => Export::Send(id),
            None => Export::NoNextHop,
        }
    }

    fn next_hop(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.next_hop_v4.map(IpAddr::V4),
            Family::Ipv6 => self.next_hop_v6.map(IpAddr::V6),
        }
    }

    /// Next hop and attributes as they go out.
    pub(crate) fn transform(
        &self,
        identity: &Identity,
        entry: &Entry,
        family: Family,
    ) -> (IpAddr, Attributes) {
        let own_next_hop = self.next_hop(family).unwrap_or(entry.attributes.next_hop);
        if self.external {
            return (own_next_hop, to_external(&entry.attributes, identity.asn));
        }
        let theirs = &entry.attributes;
        let mut attributes = Attributes {
            origin: theirs.origin,
            as_path: AsPath { segments: theirs.as_path.segments.iter().map(copy).collect() },
            next_hop: theirs.next_hop,
            med: theirs.med,
            local_pref: Some(theirs.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)),
            originator_id: theirs.originator_id,
            cluster_list: SmallVec::from_slice(&theirs.cluster_list),
            extra: theirs.extra.clone(),
        };
        match entry.source {
            Source::Local => (own_next_hop, attributes),
            // RFC 4271 §5.1.3: the next hop is not changed towards internal peers.
            Source::External => (attributes.next_hop, attributes),
            Source::Internal { router_id, .. } => {
                attributes.originator_id.get_or_insert(router_id);
                attributes.cluster_list.insert(0, identity.cluster_id);
                (attributes.next_hop, attributes)
            }
        }
    }
}

/// RFC 4271 §5.1.2 to §5.1.5, RFC 4456 §8, RFC 4360 §6.
fn to_external(theirs: &Attributes, asn: Asn) -> Attributes {
    let mut extra = theirs.extra.clone();
    if let Some(extra) = &mut extra {
        // Non-transitive extended communities stay in the AS.
        const NON_TRANSITIVE: u8 = 0x40;
        extra.extended_communities.retain(|[kind, ..]| kind & NON_TRANSITIVE == 0);
    }
    Attributes {
        origin: theirs.origin,
        as_path: prepended(&theirs.as_path, asn),
        next_hop: theirs.next_hop,
        med: None,
        local_pref: None,
        originator_id: None,
        cluster_list: SmallVec::new(),
        extra,
    }
}

/// `path` with `asn` in front (RFC 4271 §5.1.2 b): in the leading AS_SEQUENCE if it has room.
fn prepended(path: &AsPath, asn: Asn) -> AsPath {
    const MOST: usize = 255;
    let mut asns = SmallVec::new();
    asns.push(asn);
    let rest = match path.segments.split_first() {
        Some((first, rest)) if first.kind == SegmentKind::Sequence && first.asns.len() < MOST => {
            asns.extend_from_slice(&first.asns);
            rest
        }
        Some(_) | None => &path.segments,
    };
    let mut segments = SmallVec::new();
    segments.push(Segment { kind: SegmentKind::Sequence, asns });
    segments.extend(rest.iter().map(copy));
    AsPath { segments }
}

/// A clone in one piece, where `SmallVec::clone` goes item by item.
fn copy(segment: &Segment) -> Segment {
    Segment { kind: segment.kind, asns: SmallVec::from_slice(&segment.asns) }
}

//! UPDATEs: one attribute set, many prefixes, as few messages as possible.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{begin, end, patch};
use crate::types::{Asn, Family};
use crate::wire::Context;
use crate::wire::attribute::table::{EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE, code};
use crate::wire::attribute::{Aggregator, Attributes, DEFAULT_LOCAL_PREF, Extra, Origin, as_path};
use crate::wire::header::MessageType;
use crate::wire::nlri;

/// Why attributes cannot be sent on a session. The routes must be withdrawn there instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Not even one prefix fits beside the attributes.
    #[error("attributes of {len} octets leave no room for a prefix in a message of {max_len}")]
    TooLarge {
        /// Octets of the message without prefixes.
        len: usize,
        /// The most that the session allows.
        max_len: usize,
    },
    /// The next hop is not of the family of the prefixes (RFC 8950 is not used).
    #[error("next hop of another address family")]
    NextHopFamily,
}

/// Packs prefixes that share one fate (announced with the same attributes, or withdrawn) into
/// UPDATEs as large as the session allows, appended to a buffer.
///
/// IPv4 uses the fields of RFC 4271, IPv6 the MP attributes, which come first (RFC 7606 §5.1).
/// Nothing is written until the first [`UpdateWriter::push`]. Call [`UpdateWriter::finish`] when
/// done: without it the last message is taken back.
#[derive(Debug)]
pub struct UpdateWriter<'a> {
    out: &'a mut Vec<u8>,
    family: Family,
    add_path: bool,
    max_len: usize,
    kind: Kind,
    /// Encoded attributes, without the MP ones.
    attributes: Vec<u8>,
    /// The message being filled.
    open: Option<OpenMessage>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Announce(IpAddr),
    Withdraw,
}

#[derive(Clone, Copy, Debug)]
struct OpenMessage {
    start: usize,
    /// Where the prefixes begin.
    nlri: usize,
}

/// Octets before the attributes: header, withdrawn length, attributes length.
const FIXED_LEN: usize = crate::wire::HEADER_LEN + 4;
/// Octets of a prefix at most: path identifier, length, IPv6 address.
const LONGEST_PREFIX_LEN: usize = 4 + 1 + 16;

impl<'a> UpdateWriter<'a> {
    /// Will announce prefixes of `family` with `attributes` and `next_hop`
    /// (`attributes.next_hop` is not looked at).
    ///
    /// Only internal peers are told LOCAL_PREF (mandatory there), ORIGINATOR_ID, CLUSTER_LIST and
    /// non-transitive extended communities.
    ///
    /// # Errors
    /// [`EncodeError`]; nothing was written.
    pub fn announce(
        out: &'a mut Vec<u8>,
        context: &Context,
        family: Family,
        next_hop: IpAddr,
        attributes: &Attributes,
    ) -> Result<Self, EncodeError> {
        let next_hop_len = match (family, next_hop) {
            (Family::Ipv4, IpAddr::V4(_)) => 0, // among the attributes
            // Flags, code, length: 2, AFI: 2, SAFI, next hop length, next hop, reserved.
            (Family::Ipv6, IpAddr::V6(_)) => 9 + 16,
            _ => return Err(EncodeError::NextHopFamily),
        };
        let mut encoded = Vec::with_capacity(128);
        write_attributes(&mut encoded, context, next_hop, attributes);
        let len = FIXED_LEN + next_hop_len + encoded.len();
        let max_len = context.max_len();
        if len + LONGEST_PREFIX_LEN > max_len {
            return Err(EncodeError::TooLarge { len, max_len });
        }
        Ok(Self::new(out, context, family, Kind::Announce(next_hop), encoded))
    }

    /// Will withdraw prefixes of `family`.
    pub fn withdraw(out: &'a mut Vec<u8>, context: &Context, family: Family) -> Self {
        Self::new(out, context, family, Kind::Withdraw, Vec::new())
    }

    fn new(
        out: &'a mut Vec<u8>,
        context: &Context,
        family: Family,
        kind: Kind,
        attributes: Vec<u8>,
    ) -> Self {
        let add_path = context.add_path.contains(family);
        Self { out, family, add_path, max_len: context.max_len(), kind, attributes, open: None }
    }

    /// Adds one prefix. `path_id` counts only where add-path was negotiated (0 if `None`).
    ///
    /// False, and nothing added, if the prefix is of the other family.
    pub fn push(&mut self, path_id: Option<u32>, prefix: IpNet) -> bool {
        if Family::of(&prefix) != self.family {
            return false;
        }
        let len = nlri::encoded_len(self.add_path, prefix);
        // What comes after the prefixes counts too.
        let tail = self.tail_len();
        if let Some(open) = self.open
            && self.out.len() - open.start + len + tail > self.max_len
        {
            self.close(open);
        }
        if self.open.is_none() {
            self.open = Some(self.begin());
        }
        nlri::write(self.out, self.add_path.then(|| path_id.unwrap_or(0)), prefix);
        true
    }

    /// Completes the last message.
    pub fn finish(mut self) {
        if let Some(open) = self.open.take() {
            self.close(open);
        }
    }

    fn tail_len(&self) -> usize {
        match (self.kind, self.family) {
            (Kind::Announce(_), Family::Ipv4) => 0,
            (Kind::Announce(_), Family::Ipv6) => self.attributes.len(),
            // The attributes length.
            (Kind::Withdraw, Family::Ipv4) => 2,
            (Kind::Withdraw, Family::Ipv6) => 0,
        }
    }

    /// Everything before the first prefix.
    fn begin(&mut self) -> OpenMessage {
        let start = begin(self.out, MessageType::Update);
        self.out.extend_from_slice(&[0, 0]); // withdrawn length
        match (self.kind, self.family) {
            (Kind::Announce(_), Family::Ipv4) => {
                self.out.extend_from_slice(&[0, 0]); // attributes length
                self.out.extend_from_slice(&self.attributes);
                patch(self.out, start + 21, self.attributes.len());
            }
            (Kind::Announce(next_hop), Family::Ipv6) => {
                self.out.extend_from_slice(&[0, 0]);
                self.mp_header(code::MP_REACH);
                self.out.push(16);
                if let IpAddr::V6(next_hop) = next_hop {
                    self.out.extend_from_slice(&next_hop.octets());
                }
                self.out.push(0); // reserved
            }
            (Kind::Withdraw, Family::Ipv4) => {}
            (Kind::Withdraw, Family::Ipv6) => {
                self.out.extend_from_slice(&[0, 0]);
                self.mp_header(code::MP_UNREACH);
            }
        }
        OpenMessage { start, nlri: self.out.len() }
    }

    /// Flags, code, length to be patched, AFI, SAFI.
    fn mp_header(&mut self, code: u8) {
        self.out.extend_from_slice(&[OPTIONAL | EXTENDED_LENGTH, code, 0, 0]);
        self.out.extend_from_slice(&self.family.afi().to_be_bytes());
        self.out.push(1); // SAFI unicast
    }

    /// Everything after the last prefix, and the lengths.
    fn close(&mut self, open: OpenMessage) {
        let OpenMessage { start, nlri } = open;
        match (self.kind, self.family) {
            (Kind::Announce(_), Family::Ipv4) => {}
            (Kind::Withdraw, Family::Ipv4) => {
                let len = self.out.len() - nlri;
                patch(self.out, start + 19, len);
                self.out.extend_from_slice(&[0, 0]); // attributes length
            }
            (Kind::Announce(_) | Kind::Withdraw, Family::Ipv6) => {
                // The MP attribute starts after the fixed part, its value four octets later.
                let value = start + FIXED_LEN + 4;
                let len = self.out.len() - value;
                patch(self.out, start + FIXED_LEN + 2, len);
                self.out.extend_from_slice(&self.attributes);
                let len = self.out.len() - start - FIXED_LEN;
                patch(self.out, start + 21, len);
            }
        }
        end(self.out, start);
        self.open = None;
    }
}

impl Drop for UpdateWriter<'_> {
    /// Half a message must never be sent.
    fn drop(&mut self) {
        if let Some(open) = self.open {
            self.out.truncate(open.start);
        }
    }
}

/// All attributes but the MP ones, in ascending order of type, unknown ones last.
fn write_attributes(
    out: &mut Vec<u8>,
    context: &Context,
    next_hop: IpAddr,
    attributes: &Attributes,
) {
    let origin = match attributes.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    attribute(out, TRANSITIVE, code::ORIGIN, &[origin]);
    let mut path = Vec::with_capacity(64);
    as_path::write(&mut path, &attributes.as_path, context.four_octet_as);
    attribute(out, TRANSITIVE, code::AS_PATH, &path);
    if let IpAddr::V4(next_hop) = next_hop {
        attribute(out, TRANSITIVE, code::NEXT_HOP, &next_hop.octets());
    }
    if let Some(med) = attributes.med {
        attribute(out, OPTIONAL, code::MED, &med.to_be_bytes());
    }
    if !context.external {
        let local_pref = attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
        attribute(out, TRANSITIVE, code::LOCAL_PREF, &local_pref.to_be_bytes());
    }
    if let Some(extra) = &attributes.extra {
        write_aggregation(out, context, extra);
        list(out, code::COMMUNITIES, &extra.communities, |c| c.to_be_bytes());
    }
    if !context.external {
        if let Some(id) = attributes.originator_id {
            attribute(out, OPTIONAL, code::ORIGINATOR_ID, &id.octets());
        }
        if !attributes.cluster_list.is_empty() {
            let ids: Vec<u8> = attributes.cluster_list.iter().flat_map(|id| id.octets()).collect();
            attribute(out, OPTIONAL, code::CLUSTER_LIST, &ids);
        }
    }
    if let Some(extra) = &attributes.extra {
        write_extended_communities(out, context, &extra.extended_communities);
    }
    if !context.four_octet_as {
        write_as4(out, attributes);
    }
    if let Some(extra) = &attributes.extra {
        let words = extra.large_communities.as_flattened();
        list(out, code::LARGE_COMMUNITIES, words, |word| word.to_be_bytes());
        if let Some(asn) = extra.only_to_customer {
            let value = asn.0.to_be_bytes();
            attribute(out, OPTIONAL | TRANSITIVE, code::ONLY_TO_CUSTOMER, &value);
        }
        for raw in &extra.unknown {
            // RFC 4271 §5: we pass it on without having understood it.
            attribute(out, raw.flags | PARTIAL, raw.code, &raw.value);
        }
    }
}

/// Non-transitive ones stay inside the AS (RFC 4360 §6).
fn write_extended_communities(out: &mut Vec<u8>, context: &Context, communities: &[[u8; 8]]) {
    let stays = |community: &[u8; 8]| is_non_transitive(*community);
    if context.external && communities.iter().any(stays) {
        let sent: Vec<_> = communities.iter().copied().filter(|c| !stays(c)).collect();
        list(out, code::EXTENDED_COMMUNITIES, &sent, |c| *c);
    } else {
        list(out, code::EXTENDED_COMMUNITIES, communities, |c| *c);
    }
}

/// The T bit of the type (RFC 4360 §2).
const fn is_non_transitive(community: [u8; 8]) -> bool {
    let [kind, ..] = community;
    kind & 0x40 != 0
}

fn write_aggregation(out: &mut Vec<u8>, context: &Context, extra: &Extra) {
    if extra.atomic_aggregate {
        attribute(out, TRANSITIVE, code::ATOMIC_AGGREGATE, &[]);
    }
    if let Some(Aggregator { asn, id }) = extra.aggregator {
        let mut value = Vec::with_capacity(8);
        if context.four_octet_as {
            value.extend_from_slice(&asn.0.to_be_bytes());
        } else {
            value.extend_from_slice(&as_path::two_octets(asn).to_be_bytes());
        }
        value.extend_from_slice(&id.octets());
        attribute(out, OPTIONAL | TRANSITIVE, code::AGGREGATOR, &value);
    }
}

/// RFC 6793 §4.2.2: what does not fit two octets travels beside it.
fn write_as4(out: &mut Vec<u8>, attributes: &Attributes) {
    let large = |asn: Asn| asn.0 > u32::from(u16::MAX);
    if attributes.as_path.asns().any(large) {
        let mut path = Vec::new();
        as_path::write(&mut path, &attributes.as_path, true);
        attribute(out, OPTIONAL | TRANSITIVE, code::AS4_PATH, &path);
    }
    let aggregator = attributes.extra.as_ref().and_then(|extra| extra.aggregator);
    if let Some(Aggregator { asn, id }) = aggregator.filter(|a| large(a.asn)) {
        let [a, b, c, d] = asn.0.to_be_bytes();
        let [e, f, g, h] = id.octets();
        let value = [a, b, c, d, e, f, g, h];
        attribute(out, OPTIONAL | TRANSITIVE, code::AS4_AGGREGATOR, &value);
    }
}

/// An optional transitive attribute that is a list; nothing for an empty one.
fn list<T, const N: usize>(out: &mut Vec<u8>, code: u8, items: &[T], bytes: fn(&T) -> [u8; N]) {
    if !items.is_empty() {
        let value: Vec<u8> = items.iter().flat_map(bytes).collect();
        attribute(out, OPTIONAL | TRANSITIVE, code, &value);
    }
}

/// Appends one attribute, with an extended length if it needs one.
pub(crate) fn attribute(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    if let Ok(len) = u8::try_from(value.len()) {
        out.extend_from_slice(&[flags & !EXTENDED_LENGTH, code, len]);
    } else {
        // Beyond 65535 the message is refused as too large before it is sent.
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&[flags | EXTENDED_LENGTH, code]);
        out.extend_from_slice(&len.to_be_bytes());
    }
    out.extend_from_slice(value);
}

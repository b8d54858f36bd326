//! The RIB between real bytes: what goes in was encoded, what comes out is decoded.

mod export_rules;
mod growth;
mod import_rules;
mod model;
mod reflection;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use ipnet::IpNet;
use smallvec::SmallVec;

use super::*;
use crate::config::Policy;
use crate::types::{Families, RouterId};
use crate::wire::attribute::{AsPath, Attributes, Origin, Segment, SegmentKind};
use crate::wire::encode::UpdateWriter;
use crate::wire::{Context, Message};

pub(super) const ASN: Asn = Asn(64512);

pub(super) fn identity(n: u8) -> Identity {
    Identity {
        asn: ASN,
        router_id: Ipv4Addr::new(10, 0, 0, n),
        cluster_id: Ipv4Addr::new(10, 0, 0, n),
    }
}

pub(super) fn context(external: bool) -> Context {
    Context {
        four_octet_as: true,
        extended_message: false,
        families: Families::ALL,
        add_path: Families::NONE,
        enhanced_refresh: false,
        external,
        peer_asn: ASN,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    NonClient,
    External,
}

/// Address and router id of test peer `n`.
pub(super) fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
}

pub(super) fn router_id(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 9, n)
}

pub(super) fn session(n: u8, role: Role) -> Session {
    Session {
        address: address(n),
        router_id: RouterId(router_id(n)),
        external: role == Role::External,
        client: role == Role::Client,
        import: Policy::All,
        max_prefixes: None,
        families: Families::ALL,
        enhanced_refresh: false,
    }
}

pub(super) fn key(role: Role) -> GroupKey {
    GroupKey {
        external: role == Role::External,
        client: role == Role::Client,
        policy: Policy::All,
        context: context(role == Role::External),
        next_hop_v4: Some(Ipv4Addr::new(198, 51, 100, 1)),
        next_hop_v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        default_originate: false,
    }
    .new()
}

pub(super) fn as_path(asns: &[u32]) -> AsPath {
    if asns.is_empty() {
        return AsPath::default();
    }
    let segment =
        Segment { kind: SegmentKind::Sequence, asns: asns.iter().copied().map(Asn).collect() };
    AsPath { segments: SmallVec::from_iter([segment]) }
}

pub(super) fn attributes(next_hop: IpAddr) -> Attributes {
    Attributes {
        origin: Origin::Igp,
        as_path: AsPath::default(),
        next_hop,
        med: None,
        local_pref: Some(100),
        originator_id: None,
        cluster_list: SmallVec::new(),
        extra: None,
    }
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// An UPDATE per family that announces `prefixes`, each with the next hop of its family.
pub(super) fn encode(context: &Context, attributes: &Attributes, prefixes: &[IpNet]) -> Vec<u8> {
    let mut out = Vec::new();
    for family in Family::ALL {
        let next_hop = match (family, attributes.next_hop) {
            (Family::Ipv6, IpAddr::V4(address)) => IpAddr::V6(address.to_ipv6_mapped()),
            (_, address) => address,
        };
        let of_family: Vec<&IpNet> = prefixes.iter().filter(|p| Family::of(p) == family).collect();
        if of_family.is_empty() {
            continue;
        }
        let mut writer =
            UpdateWriter::announce(&mut out, context, family, next_hop, attributes).unwrap();
        for prefix in of_family {
            assert!(writer.push(None, *prefix));
        }
        writer.finish();
    }
    out
}

pub(super) fn encode_withdrawals(context: &Context, prefixes: &[IpNet]) -> Vec<u8> {
    let mut out = Vec::new();
    for family in Family::ALL {
        let mut writer = UpdateWriter::withdraw(&mut out, context, family);
        for prefix in prefixes.iter().filter(|p| Family::of(p) == family) {
            assert!(writer.push(None, *prefix));
        }
        writer.finish();
    }
    out
}

/// Calls `each` with every message of a byte stream.
pub(super) fn messages(context: &Context, mut bytes: &[u8], mut each: impl FnMut(Message<'_>)) {
    while let Some((_, len)) = crate::wire::frame(bytes, context.max_len()).unwrap() {
        each(crate::wire::decode(&bytes[..len], context).unwrap());
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty(), "half a message in the stream");
}

/// Feeds a stream of UPDATEs to a RIB.
pub(super) fn feed(rib: &mut Rib, peer: PeerIndex, context: &Context, bytes: &[u8]) {
    messages(context, bytes, |message| match message {
        Message::Update(update) => rib.update(peer, update).unwrap(),
        other => panic!("{other:?}"),
    });
}

/// The far end of a session: what it was told.
#[derive(Clone, Debug)]
pub(super) struct Receiver {
    pub(super) context: Context,
    pub(super) view: BTreeMap<IpNet, Attributes>,
    pub(super) end_of_rib: Families,
    pub(super) withdrawals: usize,
    pub(super) announcements: usize,
}

impl Receiver {
    pub(super) fn new(external: bool) -> Self {
        Self {
            context: context(external),
            view: BTreeMap::new(),
            end_of_rib: Families::NONE,
            withdrawals: 0,
            announcements: 0,
        }
    }

    /// Reads up to about `max` octets; false when there was nothing.
    pub(super) fn read(&mut self, rib: &mut Rib, peer: PeerIndex, max: usize) -> bool {
        let mut chunks: Vec<Bytes> = Vec::new();
        let handed = rib.transmit(peer, &mut chunks, max);
        assert_eq!(handed.bytes, chunks.iter().map(Bytes::len).sum::<usize>());
        for chunk in &chunks {
            self.take(chunk);
        }
        handed.more
    }

    pub(super) fn drain(&mut self, rib: &mut Rib, peer: PeerIndex) {
        while self.read(rib, peer, 64 * 1024) {}
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        let Self { context, view, end_of_rib, withdrawals, announcements } = self;
        messages(context, bytes, |message| {
            let Message::Update(update) = message else { return };
            assert_eq!(update.treat_as_withdraw, None);
            if let Some(family) = update.end_of_rib {
                assert!(!end_of_rib.contains(family), "End-of-RIB twice");
                end_of_rib.insert(family);
            }
            for (_, prefix) in update.withdrawn.iter().flatten().flat_map(|nlri| nlri.iter()) {
                view.remove(&prefix);
                *withdrawals += 1;
            }
            for (nlri, next_hop) in update.announced.iter().flatten() {
                let attributes = update.attributes.clone().unwrap();
                for (_, prefix) in nlri.iter() {
                    let attributes = Attributes { next_hop: *next_hop, ..attributes.clone() };
                    view.insert(prefix, attributes);
                    *announcements += 1;
                }
            }
        });
    }
}

/// A peer that is up, with its far end.
pub(super) struct Link {
    pub(super) index: PeerIndex,
    pub(super) role: Role,
    pub(super) receiver: Receiver,
}

impl Link {
    pub(super) fn up(rib: &mut Rib, n: u8, role: Role) -> Self {
        Self::with(rib, session(n, role), key(role), role)
    }

    pub(super) fn with(rib: &mut Rib, session: Session, key: GroupKey, role: Role) -> Self {
        let mut receiver = Receiver::new(role == Role::External);
        let context = key.context.clone();
        receiver.context = Context { peer_asn: ASN, ..context };
        Self { index: rib.peer_up(session, key).unwrap(), role, receiver }
    }

    pub(super) fn announce(&self, rib: &mut Rib, attributes: &Attributes, prefixes: &[IpNet]) {
        let context = self.context(attributes);
        feed(rib, self.index, &context, &encode(&context, attributes, prefixes));
    }

    /// How the RIB reads what this peer sends: external paths start with the peer's AS.
    fn context(&self, attributes: &Attributes) -> Context {
        let peer_asn = attributes.as_path.first().unwrap_or(ASN);
        Context { peer_asn, ..context(self.role == Role::External) }
    }

    pub(super) fn withdraw(&self, rib: &mut Rib, prefixes: &[IpNet]) {
        let context = context(self.role == Role::External);
        feed(rib, self.index, &context, &encode_withdrawals(&context, prefixes));
    }

    /// Flushes, and reads everything.
    pub(super) fn view(&mut self, rib: &mut Rib) -> &BTreeMap<IpNet, Attributes> {
        rib.flush();
        self.receiver.drain(rib, self.index);
        &self.receiver.view
    }
}

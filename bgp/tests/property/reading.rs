//! What a decoder read in an UPDATE, in terms that every decoder can fill in.

use std::net::{IpAddr, Ipv4Addr};

use bgp::wire::attribute::{Origin, SegmentKind};
use bgp::wire::{Context, Message, Update, decode};
use ipnet::IpNet;

pub type Prefixes = Vec<(Option<u32>, IpNet)>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub announced: Prefixes,
    pub withdrawn: Prefixes,
    pub origin: Option<u8>,
    /// Segments: type code and ASNs, AS4_PATH merged.
    pub path: Vec<(u8, Vec<u32>)>,
    pub next_hop: Option<IpAddr>,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    pub communities: Vec<u32>,
    pub large_communities: Vec<[u32; 3]>,
    pub originator_id: Option<Ipv4Addr>,
    pub cluster_list: Vec<Ipv4Addr>,
}

impl Reading {
    /// The prefixes in one order: decoders may keep fields apart in their own.
    pub fn sorted(mut self) -> Self {
        self.announced.sort();
        self.withdrawn.sort();
        self
    }
}

/// Our own reading.
pub fn ours(message: &[u8], context: &Context) -> Result<Reading, String> {
    match decode(message, context) {
        Ok(Message::Update(update)) if update.treat_as_withdraw.is_none() => Ok(of(&update)),
        Ok(Message::Update(update)) => Err(format!("{:?}", update.treat_as_withdraw)),
        Ok(other) => Err(format!("not an UPDATE: {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn of(update: &Update<'_>) -> Reading {
    let mut reading = Reading {
        announced: update.announced.iter().flatten().flat_map(|(nlri, _)| nlri.iter()).collect(),
        withdrawn: update.withdrawn.iter().flatten().flat_map(|nlri| nlri.iter()).collect(),
        ..Reading::default()
    };
    let Some(attributes) = &update.attributes else { return reading.sorted() };
    reading.origin = Some(match attributes.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    });
    reading.path = attributes
        .as_path
        .segments
        .iter()
        .map(|segment| {
            assert_eq!(segment.kind, SegmentKind::Sequence, "the only kind that is accepted");
            (2, segment.asns.iter().map(|asn| asn.0).collect())
        })
        .collect();
    reading.next_hop = Some(attributes.next_hop);
    reading.med = attributes.med;
    reading.local_pref = attributes.local_pref;
    reading.originator_id = attributes.originator_id;
    reading.cluster_list = attributes.cluster_list.to_vec();
    if let Some(extra) = &attributes.extra {
        reading.communities.clone_from(&extra.communities);
        reading.large_communities.clone_from(&extra.large_communities);
    }
    reading.sorted()
}

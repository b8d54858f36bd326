//! bgpkit-parser: the tolerant reader.

use bgp::wire::Context;
use bgpkit_parser::models::{
    AsPathSegment, AsnLength, AttributeValue, BgpMessage, Community, MetaCommunity, NextHopAddress,
};
use bgpkit_parser::parser::bgp::messages::parse_bgp_message;
use bytes::Bytes;

use super::reading::Reading;

pub fn message(bytes: &[u8], context: &Context) -> Result<BgpMessage, String> {
    let width = if context.four_octet_as { AsnLength::Bits32 } else { AsnLength::Bits16 };
    // It knows add-path for both families or for none.
    let add_path = context.add_path.ipv4;
    parse_bgp_message(&mut Bytes::copy_from_slice(bytes), add_path, &width)
        .map_err(|e| e.to_string())
}

/// The message as bgpkit-parser would have written it.
pub fn rewrite(bytes: &[u8], context: &Context) -> Result<Vec<u8>, String> {
    let width = if context.four_octet_as { AsnLength::Bits32 } else { AsnLength::Bits16 };
    message(bytes, context)?.encode(width).map(Vec::from).map_err(|e| e.to_string())
}

pub fn read(bytes: &[u8], context: &Context) -> Result<Reading, String> {
    let BgpMessage::Update(update) = message(bytes, context)? else {
        return Err("not an UPDATE".into());
    };
    if let Some(warning) = update.attributes.validation_warnings().first() {
        return Err(warning.to_string());
    }
    let mut out = Reading {
        announced: update.announced_prefixes.iter().map(|p| (p.path_id, p.prefix)).collect(),
        withdrawn: update.withdrawn_prefixes.iter().map(|p| (p.path_id, p.prefix)).collect(),
        ..Reading::default()
    };
    // Our writer puts the whole path into AS4_PATH when it writes one; `effective_as_path` would
    // also melt neighbouring segments into one.
    if let Some(path) = update.attributes.as4_path().or(update.attributes.as_path()) {
        out.path = path
            .segments
            .iter()
            .map(|segment| match segment {
                AsPathSegment::AsSet(asns) => (1, asns.iter().map(u32::from).collect()),
                AsPathSegment::AsSequence(asns) => (2, asns.iter().map(u32::from).collect()),
                AsPathSegment::ConfedSequence(asns) => (3, asns.iter().map(u32::from).collect()),
                AsPathSegment::ConfedSet(asns) => (4, asns.iter().map(u32::from).collect()),
            })
            .collect();
    }
    for attribute in update.attributes.iter() {
        match attribute {
            AttributeValue::Origin(origin) => out.origin = Some(*origin as u8),
            AttributeValue::NextHop(hop) => out.next_hop = Some(*hop),
            AttributeValue::MultiExitDiscriminator(med) => out.med = Some(*med),
            AttributeValue::LocalPreference(pref) => out.local_pref = Some(*pref),
            AttributeValue::OriginatorId(id) => out.originator_id = Some(*id),
            AttributeValue::Clusters(ids) => {
                out.cluster_list = ids.iter().map(|id| (*id).into()).collect();
            }
            AttributeValue::MpReachNlri(nlri) => {
                out.next_hop = match nlri.next_hop {
                    Some(
                        NextHopAddress::Ipv6(global) | NextHopAddress::Ipv6LinkLocal(global, _),
                    ) => Some(global.into()),
                    Some(NextHopAddress::Ipv4(address)) => Some(address.into()),
                    _ => None,
                };
                out.announced.extend(nlri.prefixes.iter().map(|p| (p.path_id, p.prefix)));
            }
            AttributeValue::MpUnreachNlri(nlri) => {
                out.withdrawn.extend(nlri.prefixes.iter().map(|p| (p.path_id, p.prefix)));
            }
            _ => {}
        }
    }
    for community in update.attributes.iter_communities() {
        match community {
            MetaCommunity::Plain(community) => out.communities.push(match community {
                Community::NoExport => 0xffff_ff01,
                Community::NoAdvertise => 0xffff_ff02,
                Community::NoExportSubConfed => 0xffff_ff03,
                Community::Custom(asn, value) => (u32::from(asn) << 16) | u32::from(value),
            }),
            MetaCommunity::Large(c) => {
                out.large_communities.push([c.global_admin, c.local_data[0], c.local_data[1]]);
            }
            _ => {}
        }
    }
    Ok(out.sorted())
}

//! netgauze-bgp-pkt: the strict reader.

use std::collections::HashMap;

use bgp::wire::Context;
use ipnet::IpNet;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::path_attribute::{AsPath, MpReach, MpUnreach, PathAttributeValue};
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_iana::address_family::AddressType;
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;

use super::reading::Reading;

pub fn message(bytes: &[u8], context: &Context) -> Result<BgpMessage, String> {
    let families = [AddressType::Ipv4Unicast, AddressType::Ipv6Unicast];
    let [v4, v6] = [context.add_path.ipv4, context.add_path.ipv6];
    let add_path = HashMap::from([(families[0], v4), (families[1], v6)]);
    let mut parsing = BgpParsingContext::new(
        context.four_octet_as,
        HashMap::new(),
        add_path,
        true,
        true,
        true,
        true,
    );
    BgpMessage::parse(&mut SliceReader::new(bytes), &mut parsing).map_err(|e| format!("{e:?}"))
}

/// The message as netgauze would have written it.
pub fn rewrite(bytes: &[u8], context: &Context) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    message(bytes, context)?.write(&mut out).map_err(|e| format!("{e:?}"))?;
    Ok(out)
}

pub fn read(bytes: &[u8], context: &Context) -> Result<Reading, String> {
    let BgpMessage::Update(update) = message(bytes, context)? else {
        return Err("not an UPDATE".into());
    };
    let mut out = Reading {
        announced: update
            .nlri()
            .iter()
            .map(|p| (p.path_id(), IpNet::V4(p.network().address())))
            .collect(),
        withdrawn: update
            .withdraw_routes()
            .iter()
            .map(|p| (p.path_id(), IpNet::V4(p.network().address())))
            .collect(),
        ..Reading::default()
    };
    let mut as4_path = None;
    for attribute in update.path_attributes() {
        match attribute.value() {
            PathAttributeValue::Origin(origin) => out.origin = Some(*origin as u8),
            PathAttributeValue::AsPath(AsPath::As2PathSegments(segments)) => {
                out.path = segments
                    .iter()
                    .map(|s| {
                        let asns = s.as_numbers().iter().map(|a| u32::from(*a)).collect();
                        (s.segment_type() as u8, asns)
                    })
                    .collect();
            }
            PathAttributeValue::AsPath(AsPath::As4PathSegments(segments)) => {
                out.path = segments
                    .iter()
                    .map(|s| (s.segment_type() as u8, s.as_numbers().to_vec()))
                    .collect();
            }
            PathAttributeValue::As4Path(path) => {
                let segments = path.segments().iter();
                as4_path = Some(
                    segments.map(|s| (s.segment_type() as u8, s.as_numbers().to_vec())).collect(),
                );
            }
            PathAttributeValue::NextHop(hop) => out.next_hop = Some(hop.next_hop().into()),
            PathAttributeValue::MultiExitDiscriminator(med) => out.med = Some(med.metric()),
            PathAttributeValue::LocalPreference(pref) => out.local_pref = Some(pref.metric()),
            PathAttributeValue::Communities(list) => {
                out.communities = list.communities().iter().map(|c| c.value()).collect();
            }
            PathAttributeValue::LargeCommunities(list) => {
                out.large_communities = list
                    .communities()
                    .iter()
                    .map(|c| [c.global_admin(), c.local_data1(), c.local_data2()])
                    .collect();
            }
            PathAttributeValue::Originator(id) => out.originator_id = Some(id.id()),
            PathAttributeValue::ClusterList(ids) => {
                out.cluster_list = ids.cluster_list().iter().map(|id| id.id()).collect();
            }
            PathAttributeValue::MpReach(MpReach::Ipv6Unicast { next_hop_global, nlri, .. }) => {
                out.next_hop = Some((*next_hop_global).into());
                let prefixes = nlri.iter().map(|p| (p.path_id(), p.network().address().into()));
                out.announced.extend(prefixes);
            }
            PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => {
                let prefixes = nlri.iter().map(|p| (p.path_id(), p.network().address().into()));
                out.withdrawn.extend(prefixes);
            }
            _ => {}
        }
    }
    // Our writer puts the whole path into AS4_PATH when it writes one.
    out.path = as4_path.unwrap_or(out.path);
    Ok(out.sorted())
}

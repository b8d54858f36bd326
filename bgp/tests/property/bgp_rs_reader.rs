//! bgp-rs: the oldest reader. It guesses add-path and the width of ASNs from the bytes, and it
//! panics on some, so it reads behind a guard and only what it cannot guess wrongly.

use std::io::Cursor;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bgp::wire::Context;
use bgp_rs::{Capabilities, Message, NLRIEncoding, PathAttribute, Reader, Segment};
use ipnet::IpNet;

use super::reading::{Prefixes, Reading};

pub fn message(bytes: &[u8], context: &Context) -> Result<Message, String> {
    let capabilities = Capabilities {
        FOUR_OCTET_ASN_SUPPORT: context.four_octet_as,
        EXTENDED_PATH_NLRI_SUPPORT: context.add_path.ipv4,
        ..Capabilities::default()
    };
    let read = || {
        let mut reader = Reader { stream: Cursor::new(bytes), capabilities };
        reader.read().map(|(_, message)| message).map_err(|e| e.to_string())
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("panic".into()))
}

pub fn read(bytes: &[u8], context: &Context) -> Result<Reading, String> {
    let Message::Update(update) = message(bytes, context)? else {
        return Err("not an UPDATE".into());
    };
    let mut out = Reading {
        announced: prefixes(&update.announced_routes)?,
        withdrawn: prefixes(&update.withdrawn_routes)?,
        ..Reading::default()
    };
    let mut as4_path = None;
    for attribute in &update.attributes {
        match attribute {
            PathAttribute::ORIGIN(origin) => out.origin = Some(origin.clone() as u8),
            PathAttribute::AS_PATH(path) => out.path = segments(&path.segments),
            PathAttribute::AS4_PATH(path) => as4_path = Some(segments(&path.segments)),
            PathAttribute::NEXT_HOP(hop) => out.next_hop = Some(*hop),
            PathAttribute::MULTI_EXIT_DISC(med) => out.med = Some(*med),
            PathAttribute::LOCAL_PREF(pref) => out.local_pref = Some(*pref),
            PathAttribute::COMMUNITY(list) => out.communities.clone_from(list),
            PathAttribute::LARGE_COMMUNITY(list) => {
                out.large_communities = list.iter().map(|(a, b, c)| [*a, *b, *c]).collect();
            }
            PathAttribute::ORIGINATOR_ID(id) => out.originator_id = Some((*id).into()),
            PathAttribute::CLUSTER_LIST(ids) => {
                out.cluster_list = ids.iter().map(|id| (*id).into()).collect();
            }
            PathAttribute::MP_REACH_NLRI(reach) => {
                let hop: [u8; 16] =
                    reach.next_hop.as_slice().try_into().map_err(|_| "next hop length")?;
                out.next_hop = Some(hop.into());
                out.announced.extend(prefixes(&reach.announced_routes)?);
            }
            PathAttribute::MP_UNREACH_NLRI(unreach) => {
                out.withdrawn.extend(prefixes(&unreach.withdrawn_routes)?);
            }
            _ => {}
        }
    }
    out.path = as4_path.unwrap_or(out.path);
    Ok(out.sorted())
}

fn segments(segments: &[Segment]) -> Vec<(u8, Vec<u32>)> {
    segments
        .iter()
        .map(|segment| match segment {
            Segment::AS_SET(asns) => (1, asns.clone()),
            Segment::AS_SEQUENCE(asns) => (2, asns.clone()),
        })
        .collect()
}

fn prefixes(routes: &[NLRIEncoding]) -> Result<Prefixes, String> {
    routes
        .iter()
        .map(|route| {
            let (prefix, id) = match route {
                NLRIEncoding::IP(prefix) => (prefix, None),
                NLRIEncoding::IP_WITH_PATH_ID((prefix, id)) => (prefix, Some(*id)),
                _ => return Err("not a unicast prefix".to_owned()),
            };
            let net = IpNet::new(IpAddr::from(prefix), prefix.length).map_err(|e| e.to_string())?;
            Ok((id, net.trunc()))
        })
        .collect()
}

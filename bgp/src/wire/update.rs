//! UPDATE (RFC 4271 §4.3, RFC 4760, RFC 7606): zero-copy prefixes, owned attributes.
//!
//! ```text
//! | withdrawn length: 2 | withdrawn | attributes length: 2 | attributes | NLRI |
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Context;
use super::attribute::Attributes;
use super::attribute::decode::{Collected, collect};
use super::error::DecodeError;
use super::notification::{error_code, update};
use super::reader::Reader;
use crate::types::Family;

pub use super::nlri::{Nlri, NlriIter};

/// A decoded UPDATE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update<'a> {
    /// Withdrawn prefixes: the WITHDRAWN field (IPv4) and MP_UNREACH_NLRI.
    pub withdrawn: [Option<Nlri<'a>>; 2],
    /// Announced prefixes: the NLRI field (IPv4) and MP_REACH_NLRI, each with its next hop.
    /// Announced wins over withdrawn in one message (RFC 4271 §4.3).
    ///
    /// With [`Self::treat_as_withdraw`] the next hop means nothing (0.0.0.0 if there was none).
    pub announced: [Option<(Nlri<'a>, IpAddr)>; 2],
    /// Attributes of the announced prefixes; `None` if there are none, or if they must be
    /// withdrawn. `next_hop` inside is that of the NLRI field when there is one, else that of
    /// MP_REACH_NLRI; use the next hop beside the NLRI.
    pub attributes: Option<Attributes>,
    /// RFC 7606: every prefix announced here must be handled as withdrawn, for this reason.
    pub treat_as_withdraw: Option<AttributeFault>,
    /// RFC 7606: attributes dropped, the routes kept.
    pub discarded: Vec<AttributeFault>,
    /// End-of-RIB of this family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// (AFI, SAFI) of prefixes of a family that was not negotiated: ignored and counted.
    pub ignored_family: Option<(u16, u8)>,
}

/// A malformed attribute that does not end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct AttributeFault {
    /// Attribute type code; 0 where it is the attribute list itself that is broken.
    pub code: u8,
    /// What was wrong.
    pub reason: &'static str,
}

/// Address families of MP attributes that are not ours to read are only counted.
enum MpNlri<'a> {
    Ours(Nlri<'a>, IpAddr),
    Ignored { afi: u16, safi: u8, reachable: bool },
}

#[inline]
pub(crate) fn decode<'a>(message: &'a [u8], context: &Context) -> Result<Update<'a>, DecodeError> {
    let mut body = Reader::body(message);
    let overrun = |offset| {
        error(offset, "length overruns the message", update::MALFORMED_ATTRIBUTE_LIST, &[])
    };
    let mut field = || {
        let offset = body.offset();
        let len = body.u16().ok_or_else(|| overrun(offset))?;
        body.sub(len.into()).ok_or_else(|| overrun(offset))
    };
    let (withdrawn, attributes) = (field()?, field()?);

    let mut out = Update::default();
    let withdrawn = prefixes(withdrawn, Family::Ipv4, context)?;
    let nlri = prefixes(body, Family::Ipv4, context)?;
    let mut collected = Collected::default();
    collect(attributes, context, &mut collected)?;
    let mp_reach = collected.mp_reach.map(|value| mp_reach(value, context)).transpose()?;
    let mp_unreach = collected.mp_unreach.map(|value| mp_unreach(value, context)).transpose()?;

    if withdrawn.is_empty() && nlri.is_empty() {
        out.end_of_rib = end_of_rib(&collected, mp_unreach.as_ref(), context);
    }
    if !withdrawn.is_empty() {
        if context.families.ipv4 {
            out.withdrawn[0] = Some(withdrawn);
        } else {
            out.ignored_family = Some((1, 1));
        }
    }
    match mp_unreach {
        Some(MpNlri::Ours(nlri, _)) if !nlri.is_empty() => out.withdrawn[1] = Some(nlri),
        Some(MpNlri::Ignored { afi, safi, .. }) => out.ignored_family = Some((afi, safi)),
        Some(MpNlri::Ours(..)) | None => {}
    }
    announce(&mut out, nlri, mp_reach, &mut collected, context)?;
    Ok(out)
}

/// Fills in the announced half, and judges faults by whether anything is announced at all.
fn announce<'a>(
    out: &mut Update<'a>,
    nlri: Nlri<'a>,
    mp_reach: Option<MpNlri<'a>>,
    collected: &mut Collected<'a>,
    context: &Context,
) -> Result<(), DecodeError> {
    let mut reachable = !nlri.is_empty();
    let mut mp_next_hop = None;
    match mp_reach {
        Some(MpNlri::Ours(nlri, next_hop)) if !nlri.is_empty() => {
            reachable = true;
            mp_next_hop = Some(next_hop);
            out.announced[1] = Some((nlri, next_hop));
        }
        Some(MpNlri::Ignored { afi, safi, reachable: prefixes }) => {
            reachable |= prefixes;
            out.ignored_family = Some((afi, safi));
        }
        Some(MpNlri::Ours(..)) | None => {}
    }
    let field = !nlri.is_empty() && context.families.ipv4;
    if !nlri.is_empty() && !field {
        out.ignored_family = Some((1, 1));
    }
    out.discarded = std::mem::take(&mut collected.discarded);
    out.treat_as_withdraw = collected.withdraw;
    if collected.withdraw.is_some() && !reachable {
        // RFC 7606 §5.2: without prefixes to withdraw, only the session is left to end. An
        // MP_REACH_NLRI without prefixes is no shield.
        let reason = "malformed attribute in a message that announces nothing";
        return Err(error(23, reason, update::MALFORMED_ATTRIBUTE_LIST, &[]));
    }
    if collected.withdraw.is_none() && (field || mp_next_hop.is_some()) {
        match collected.finish(context, mp_next_hop, field) {
            Ok(attributes) => out.attributes = Some(attributes),
            Err(fault) => out.treat_as_withdraw = Some(fault),
        }
    }
    if field {
        let next_hop = out.attributes.as_ref().map(|a| a.next_hop);
        out.announced[0] = Some((nlri, next_hop.unwrap_or(Ipv4Addr::UNSPECIFIED.into())));
    }
    Ok(())
}

/// RFC 4724 §2: an empty UPDATE for IPv4, a lone empty MP_UNREACH_NLRI for any family.
fn end_of_rib(
    collected: &Collected<'_>,
    mp_unreach: Option<&MpNlri<'_>>,
    context: &Context,
) -> Option<Family> {
    match (collected.count, mp_unreach) {
        (0, None) if collected.withdraw.is_none() => context.families.ipv4.then_some(Family::Ipv4),
        (1, Some(MpNlri::Ours(nlri, _))) if nlri.is_empty() && collected.withdraw.is_none() => {
            Some(nlri.family)
        }
        _ => None,
    }
}

/// AFI: 2 | SAFI: 1 | next hop length: 1 | next hop | reserved: 1 | NLRI (RFC 4760 §3).
fn mp_reach<'a>(mut value: Reader<'a>, context: &Context) -> Result<MpNlri<'a>, DecodeError> {
    let whole = value;
    let malformed = || optional_attribute_error(whole, "malformed MP_REACH_NLRI", 14);
    let afi = value.u16().ok_or_else(malformed)?;
    let safi = value.u8().ok_or_else(malformed)?;
    let next_hop_len = value.u8().ok_or_else(malformed)?;
    let next_hop = value.take(next_hop_len.into()).ok_or_else(malformed)?;
    value.u8().ok_or_else(malformed)?; // reserved, ignored (RFC 4760 §3)
    let Some(family) = negotiated(afi, safi, context) else {
        return Ok(MpNlri::Ignored { afi, safi, reachable: !value.is_empty() });
    };
    let next_hop = next_hop_of(family, next_hop).ok_or_else(|| {
        optional_attribute_error(whole, "bad next hop length in MP_REACH_NLRI", 14)
    })?;
    Ok(MpNlri::Ours(prefixes(value, family, context)?, next_hop))
}

/// AFI: 2 | SAFI: 1 | NLRI (RFC 4760 §4).
fn mp_unreach<'a>(mut value: Reader<'a>, context: &Context) -> Result<MpNlri<'a>, DecodeError> {
    let whole = value;
    let malformed = || optional_attribute_error(whole, "malformed MP_UNREACH_NLRI", 15);
    let afi = value.u16().ok_or_else(malformed)?;
    let safi = value.u8().ok_or_else(malformed)?;
    match negotiated(afi, safi, context) {
        Some(family) => {
            let nlri = prefixes(value, family, context)?;
            Ok(MpNlri::Ours(nlri, Ipv4Addr::UNSPECIFIED.into()))
        }
        None => Ok(MpNlri::Ignored { afi, safi, reachable: false }),
    }
}

fn negotiated(afi: u16, safi: u8, context: &Context) -> Option<Family> {
    Family::from_afi_safi(afi, safi).filter(|family| context.families.contains(*family))
}

/// The next hop of the family: IPv6 may add a link-local one (RFC 2545 §3), which is not used.
/// RFC 8950 (IPv6 next hops for IPv4) is never negotiated.
fn next_hop_of(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    match (family, bytes.len()) {
        (Family::Ipv4, 4) => bytes.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into()),
        (Family::Ipv6, 16 | 32) => bytes.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into()),
        _ => None,
    }
}

fn prefixes<'a>(
    field: Reader<'a>,
    family: Family,
    context: &Context,
) -> Result<Nlri<'a>, DecodeError> {
    Nlri::parse(family, context.add_path.contains(family), field.rest()).map_err(|at| {
        let reason = "prefix is too long or cut short";
        error(field.offset() + at, reason, update::INVALID_NETWORK, &[])
    })
}

/// 3/9 with the attribute as data (RFC 4271 §6.3): flags and length are written anew.
fn optional_attribute_error(value: Reader<'_>, reason: &'static str, code: u8) -> DecodeError {
    let mut data = Vec::with_capacity(value.rest().len() + 4);
    super::encode::attribute(&mut data, super::attribute::table::OPTIONAL, code, value.rest());
    error(value.offset(), reason, update::OPTIONAL_ATTRIBUTE, &data)
}

fn error(offset: usize, reason: &'static str, subcode: u8, data: &[u8]) -> DecodeError {
    DecodeError::new(offset, reason, error_code::UPDATE, subcode, data)
}

//! Walks an attribute list and collects what it holds, with every fault's disposition.

use std::net::{IpAddr, Ipv4Addr};

use super::as_path::PathError;
use super::table::{self, OPTIONAL, Row, Sender, TRANSITIVE, code};
use super::{
    Aggregator, AsPath, Attributes, DEFAULT_LOCAL_PREF, Extra, Origin, RawAttribute, as_path,
};
use crate::types::Asn;
use crate::wire::Context;
use crate::wire::error::{DecodeError, Disposition};
use crate::wire::notification::{error_code, update};
use crate::wire::reader::Reader;
use crate::wire::update::AttributeFault;

/// What an attribute list says. The MP attributes stay bytes: they are about prefixes.
#[derive(Debug, Default)]
pub(crate) struct Collected<'a> {
    pub(crate) mp_reach: Option<Reader<'a>>,
    pub(crate) mp_unreach: Option<Reader<'a>>,
    /// How many attributes there were.
    pub(crate) count: usize,
    /// The first fault that means treat-as-withdraw.
    pub(crate) withdraw: Option<AttributeFault>,
    pub(crate) discarded: Vec<AttributeFault>,
    seen: Seen,
    /// Those that came more than once: told once, or a message full of them would cost more
    /// memory than its own size.
    repeated: Seen,
    origin: Option<Origin>,
    as_path: Option<AsPath>,
    as4_path: Option<AsPath>,
    next_hop: Option<Ipv4Addr>,
    med: Option<u32>,
    local_pref: Option<u32>,
    originator_id: Option<Ipv4Addr>,
    cluster_list: smallvec::SmallVec<[Ipv4Addr; 2]>,
    as4_aggregator: Option<Aggregator>,
    extra: Option<Box<Extra>>,
}

/// One bit per attribute code.
#[derive(Clone, Copy, Debug, Default)]
struct Seen([u128; 2]);

impl Seen {
    /// Marks `code`; was it marked before?
    const fn replace(&mut self, code: u8) -> bool {
        let [low, high] = &mut self.0;
        let (half, bit) = if code < 128 { (low, code) } else { (high, code - 128) };
        let mask = 1 << bit;
        let before = *half & mask != 0;
        *half |= mask;
        before
    }
}

/// What is wrong with one attribute, and what it costs.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Discard(&'static str),
    Withdraw(&'static str),
    /// With the subcode of the NOTIFICATION.
    Reset(u8, &'static str),
}

impl Fault {
    /// A bad length or value of the attribute of `row`.
    const fn of(row: Row, reason: &'static str) -> Self {
        match row.fault {
            Disposition::AttributeDiscard => Self::Discard(reason),
            Disposition::TreatAsWithdraw => Self::Withdraw(reason),
            Disposition::SessionReset => Self::Reset(update::OPTIONAL_ATTRIBUTE, reason),
        }
    }
}

/// Reads the whole list. Errors end the session: only the MP attributes can do that.
///
/// (Fills in the caller's value: returned, these some 300 octets would be copied.)
pub(crate) fn collect<'a>(
    mut list: Reader<'a>,
    context: &Context,
    collected: &mut Collected<'a>,
) -> Result<(), DecodeError> {
    while !list.is_empty() {
        let attribute = list;
        let header = (|| {
            let flags = list.u8()?;
            let code = list.u8()?;
            let extended = flags & table::EXTENDED_LENGTH != 0;
            let len = if extended { list.u16()?.into() } else { list.u8()?.into() };
            Some((flags, code, list.sub(len)?))
        })();
        let Some((flags, code, value)) = header else {
            // RFC 7606 §4: the list is broken, but where the NLRI field is stays known.
            collected.withdraw(0, "attribute list overruns its length");
            break;
        };
        collected.count += 1;
        match collected.attribute(flags, code, value, context) {
            Ok(()) => {}
            Err(Fault::Discard(reason)) => {
                collected.discarded.push(AttributeFault { code, reason });
            }
            Err(Fault::Withdraw(reason)) => collected.withdraw(code, reason),
            Err(Fault::Reset(subcode, reason)) => {
                // RFC 4271 §6.3: an Optional Attribute Error holds the attribute.
                let len = attribute.rest().len() - list.rest().len();
                let data = match subcode {
                    update::OPTIONAL_ATTRIBUTE => attribute.rest().get(..len).unwrap_or_default(),
                    _ => &[],
                };
                let code = error_code::UPDATE;
                return Err(DecodeError::new(attribute.offset(), reason, code, subcode, data));
            }
        }
    }
    Ok(())
}

impl<'a> Collected<'a> {
    /// The first fault is the one that is told.
    fn withdraw(&mut self, code: u8, reason: &'static str) {
        self.withdraw.get_or_insert(AttributeFault { code, reason });
    }

    fn attribute(
        &mut self,
        flags: u8,
        code: u8,
        value: Reader<'a>,
        context: &Context,
    ) -> Result<(), Fault> {
        if self.seen.replace(code) {
            // RFC 7606 §3 g: the first one counts, except that MP attributes are fatal.
            let reason = "attribute appears twice";
            return match code {
                code::MP_REACH | code::MP_UNREACH => {
                    Err(Fault::Reset(update::MALFORMED_ATTRIBUTE_LIST, reason))
                }
                _ if self.repeated.replace(code) => Ok(()),
                _ => Err(Fault::Discard(reason)),
            };
        }
        let Some(row) = table::row(code) else {
            return self.unknown(flags, code, value.rest());
        };
        match row.sender {
            Sender::Internal if context.external => {
                return Err(Fault::Discard("not accepted from an external peer"));
            }
            Sender::TwoOctetAs if context.four_octet_as => {
                return Err(Fault::Discard("not accepted from a 4-octet AS peer"));
            }
            Sender::Anyone | Sender::Internal | Sender::TwoOctetAs => {}
        }
        if !row.length.allows(value.rest().len(), context.four_octet_as) {
            return Err(Fault::of(row, "bad attribute length"));
        }
        self.value(code, row, flags, value, context)?;
        if (flags ^ row.flags) & (OPTIONAL | TRANSITIVE) != 0 {
            return Err(Fault::Withdraw("bad attribute flags"));
        }
        Ok(())
    }

    /// RFC 4271 §5, §9: kept if optional transitive, ignored if optional non-transitive.
    fn unknown(&mut self, flags: u8, code: u8, value: &[u8]) -> Result<(), Fault> {
        if code == 0 {
            return Err(Fault::Discard("attribute type 0 is reserved"));
        }
        if flags & OPTIONAL == 0 {
            // RFC 4271 §6.3 would reset the session (3/2); a well-known attribute that nobody
            // knows must not cost the peer's other routes.
            return Err(Fault::Withdraw("unknown well-known attribute"));
        }
        if flags & TRANSITIVE != 0 {
            self.keep(flags, code, value);
        }
        Ok(())
    }

    fn keep(&mut self, flags: u8, code: u8, value: &[u8]) {
        // The lower four bits are to be ignored, and zero when sent (RFC 4271 §4.3).
        let flags = flags & (OPTIONAL | TRANSITIVE | table::PARTIAL);
        let unknown = &mut self.extra().unknown;
        let at = unknown.partition_point(|a| a.code < code);
        unknown.insert(at, RawAttribute { flags, code, value: value.into() });
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// The value of an attribute of a valid length.
    fn value(
        &mut self,
        code: u8,
        row: Row,
        flags: u8,
        mut value: Reader<'a>,
        context: &Context,
    ) -> Result<(), Fault> {
        let fault = |reason| Fault::of(row, reason);
        let bytes = value.rest();
        match code {
            code::ORIGIN => {
                self.origin = Some(match bytes {
                    [0] => Origin::Igp,
                    [1] => Origin::Egp,
                    [2] => Origin::Incomplete,
                    _ => return Err(fault("unknown ORIGIN")),
                });
            }
            code::AS_PATH => {
                self.as_path = Some(
                    as_path::decode(bytes, context.four_octet_as).map_err(|e| fault(e.reason()))?,
                );
            }
            // RFC 9774 §3 has AS_SETs withdrawn here too; RFC 6793 §6 discards any other fault.
            code::AS4_PATH => match as_path::decode(bytes, true) {
                Ok(path) if path.segments.is_empty() => return Err(fault("empty AS4_PATH")),
                Ok(path) => self.as4_path = Some(path),
                Err(PathError::AsSet) => return Err(Fault::Withdraw(PathError::AsSet.reason())),
                Err(error) => return Err(fault(error.reason())),
            },
            code::NEXT_HOP => self.next_hop = value.u32().map(Ipv4Addr::from_bits),
            code::MED => self.med = value.u32(),
            code::LOCAL_PREF => self.local_pref = value.u32(),
            code::ATOMIC_AGGREGATE => self.extra().atomic_aggregate = true,
            code::AGGREGATOR => {
                let aggregator = aggregator(value, context.four_octet_as);
                self.extra().aggregator = Some(aggregator.ok_or_else(|| fault("AS 0"))?);
            }
            code::AS4_AGGREGATOR => {
                let aggregator = aggregator(value, true);
                self.as4_aggregator = Some(aggregator.ok_or_else(|| fault("AS 0"))?);
            }
            code::ORIGINATOR_ID => self.originator_id = value.u32().map(Ipv4Addr::from_bits),
            code::CLUSTER_LIST => {
                self.cluster_list =
                    bytes.as_chunks().0.iter().map(|id: &[u8; 4]| Ipv4Addr::from(*id)).collect();
            }
            code::MP_REACH => self.mp_reach = Some(value),
            code::MP_UNREACH => self.mp_unreach = Some(value),
            code::COMMUNITIES => {
                self.extra().communities =
                    bytes.as_chunks().0.iter().map(|c| u32::from_be_bytes(*c)).collect();
            }
            code::EXTENDED_COMMUNITIES => {
                self.extra().extended_communities = bytes.as_chunks().0.to_vec();
            }
            code::LARGE_COMMUNITIES => {
                let words = bytes.as_chunks().0.iter().map(|w| u32::from_be_bytes(*w));
                self.extra().large_communities = triples(words);
            }
            code::ONLY_TO_CUSTOMER => self.extra().only_to_customer = value.u32().map(Asn),
            _ => self.keep(flags, code, bytes),
        }
        Ok(())
    }

    /// Puts the attributes together for announced prefixes. `mp_next_hop` is MP_REACH_NLRI's,
    /// `field` says that there are prefixes in the NLRI field, which need NEXT_HOP.
    pub(crate) fn finish(
        &mut self,
        context: &Context,
        mp_next_hop: Option<IpAddr>,
        field: bool,
    ) -> Result<Attributes, AttributeFault> {
        // RFC 7606 §3 d: a missing well-known mandatory attribute.
        let missing = |code| AttributeFault { code, reason: "mandatory attribute is missing" };
        let origin = self.origin.ok_or_else(|| missing(code::ORIGIN))?;
        let as_path = self.as_path.take().ok_or_else(|| missing(code::AS_PATH))?;
        let own_next_hop = self.next_hop.map(IpAddr::V4);
        let next_hop = if field { own_next_hop } else { mp_next_hop.or(own_next_hop) }
            .ok_or_else(|| missing(code::NEXT_HOP))?;

        let mut extra = self.extra.take();
        let trust_as4 = merge_aggregator(&mut extra, self.as4_aggregator);
        let as_path = match self.as4_path.take() {
            Some(as4_path) if trust_as4 => as_path::merge(as_path, as4_path),
            _ => as_path,
        };
        if context.external && as_path.first() != Some(context.peer_asn) {
            // RFC 4271 §6.3, as treat-as-withdraw by RFC 7606 §7.2.
            let reason = "first AS is not the peer's";
            return Err(AttributeFault { code: code::AS_PATH, reason });
        }
        let local_pref = match self.local_pref {
            None if !context.external => Some(DEFAULT_LOCAL_PREF),
            other => other,
        };
        Ok(Attributes {
            origin,
            as_path,
            next_hop,
            med: self.med,
            local_pref,
            originator_id: self.originator_id,
            cluster_list: std::mem::take(&mut self.cluster_list),
            extra,
        })
    }
}

/// RFC 6793 §4.2.3: the real aggregator, and whether AS4_PATH may be used.
fn merge_aggregator(extra: &mut Option<Box<Extra>>, as4: Option<Aggregator>) -> bool {
    let Some(as4) = as4 else { return true };
    match extra.as_mut().and_then(|e| e.aggregator.as_mut()) {
        // A 2-octet speaker aggregated since: both AS4 attributes are of the past.
        Some(aggregator) if aggregator.asn != Asn::TRANS => false,
        Some(aggregator) => {
            *aggregator = as4;
            true
        }
        None => true,
    }
}

/// `None` for AS 0 (RFC 7607 §2).
fn aggregator(mut value: Reader<'_>, four_octet_as: bool) -> Option<Aggregator> {
    let asn = if four_octet_as { value.u32()? } else { value.u16()?.into() };
    let id = Ipv4Addr::from_bits(value.u32()?);
    (asn != 0).then_some(Aggregator { asn: Asn(asn), id })
}

fn triples(mut words: impl Iterator<Item = u32>) -> Vec<[u32; 3]> {
    std::iter::from_fn(|| Some([words.next()?, words.next()?, words.next()?])).collect()
}

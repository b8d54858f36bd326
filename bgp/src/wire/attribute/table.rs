//! The attribute table: flags, length rule, and cost of a fault, one row per attribute.

use crate::wire::error::Disposition;

/// Attribute flag: optional (RFC 4271 §4.3).
pub const OPTIONAL: u8 = 0x80;
/// Attribute flag: transitive.
pub const TRANSITIVE: u8 = 0x40;
/// Attribute flag: a speaker on the way did not understand it.
pub const PARTIAL: u8 = 0x20;
/// Attribute flag: the length has two octets.
pub const EXTENDED_LENGTH: u8 = 0x10;

const WELL_KNOWN: u8 = TRANSITIVE;
const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;

/// Attribute type codes (IANA "BGP Path Attributes").
pub mod code {
    /// ORIGIN.
    pub const ORIGIN: u8 = 1;
    /// AS_PATH.
    pub const AS_PATH: u8 = 2;
    /// NEXT_HOP.
    pub const NEXT_HOP: u8 = 3;
    /// MULTI_EXIT_DISC.
    pub const MED: u8 = 4;
    /// LOCAL_PREF.
    pub const LOCAL_PREF: u8 = 5;
    /// ATOMIC_AGGREGATE.
    pub const ATOMIC_AGGREGATE: u8 = 6;
    /// AGGREGATOR.
    pub const AGGREGATOR: u8 = 7;
    /// COMMUNITIES (RFC 1997).
    pub const COMMUNITIES: u8 = 8;
    /// ORIGINATOR_ID (RFC 4456).
    pub const ORIGINATOR_ID: u8 = 9;
    /// CLUSTER_LIST (RFC 4456).
    pub const CLUSTER_LIST: u8 = 10;
    /// MP_REACH_NLRI (RFC 4760).
    pub const MP_REACH: u8 = 14;
    /// MP_UNREACH_NLRI (RFC 4760).
    pub const MP_UNREACH: u8 = 15;
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    /// AS4_PATH (RFC 6793).
    pub const AS4_PATH: u8 = 17;
    /// AS4_AGGREGATOR (RFC 6793).
    pub const AS4_AGGREGATOR: u8 = 18;
    /// IPv6 Address Specific Extended Community (RFC 5701).
    pub const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    /// LARGE_COMMUNITY (RFC 8092).
    pub const LARGE_COMMUNITIES: u8 = 32;
    /// Only to Customer (RFC 9234).
    pub const ONLY_TO_CUSTOMER: u8 = 35;
}

/// Which lengths a value may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// The value's own decoder says.
    Any,
    /// Exactly so many octets.
    Exactly(usize),
    /// At least so many octets.
    AtLeast(usize),
    /// One or more elements of so many octets.
    MultipleOf(usize),
    /// An AS number (2 or 4 octets, as negotiated) and an address.
    Aggregator,
}

impl Length {
    /// Is `len` allowed?
    #[must_use]
    pub const fn allows(self, len: usize, four_octet_as: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(n) => len == n,
            Self::AtLeast(n) => len >= n,
            Self::MultipleOf(n) => len != 0 && len.is_multiple_of(n),
            Self::Aggregator => len == if four_octet_as { 8 } else { 6 },
        }
    }
}

/// Who may send an attribute to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Every peer.
    Anyone,
    /// Only internal peers; from others it is discarded.
    Internal,
    /// Only peers without 4-octet AS numbers; from others it is discarded (RFC 6793 §6).
    TwoOctetAs,
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name in the RFC that defines it.
    pub name: &'static str,
    /// The Optional and Transitive bits it must have. Wrong ones mean treat-as-withdraw for every
    /// attribute (RFC 7606 §3 c).
    pub flags: u8,
    /// Allowed lengths.
    pub length: Length,
    /// Cost of a bad length or value.
    pub fault: Disposition,
    /// Who may send it.
    pub sender: Sender,
}

/// The row of an attribute that we know.
#[must_use]
pub const fn row(code: u8) -> Option<Row> {
    use Disposition::{AttributeDiscard, SessionReset, TreatAsWithdraw};
    use Length::{Aggregator, Any, AtLeast, Exactly, MultipleOf};
    use Sender::{Anyone, Internal, TwoOctetAs};

    let (name, flags, length, fault, sender) = match code {
        // RFC 7606 §7.1 to §7.10.
        code::ORIGIN => ("ORIGIN", WELL_KNOWN, Exactly(1), TreatAsWithdraw, Anyone),
        code::AS_PATH => ("AS_PATH", WELL_KNOWN, Any, TreatAsWithdraw, Anyone),
        code::NEXT_HOP => ("NEXT_HOP", WELL_KNOWN, Exactly(4), TreatAsWithdraw, Anyone),
        code::MED => ("MULTI_EXIT_DISC", OPTIONAL, Exactly(4), TreatAsWithdraw, Anyone),
        code::LOCAL_PREF => ("LOCAL_PREF", WELL_KNOWN, Exactly(4), TreatAsWithdraw, Internal),
        code::ATOMIC_AGGREGATE => {
            ("ATOMIC_AGGREGATE", WELL_KNOWN, Exactly(0), AttributeDiscard, Anyone)
        }
        code::AGGREGATOR => {
            ("AGGREGATOR", OPTIONAL_TRANSITIVE, Aggregator, AttributeDiscard, Anyone)
        }
        code::COMMUNITIES => {
            ("COMMUNITIES", OPTIONAL_TRANSITIVE, MultipleOf(4), TreatAsWithdraw, Anyone)
        }
        code::ORIGINATOR_ID => ("ORIGINATOR_ID", OPTIONAL, Exactly(4), TreatAsWithdraw, Internal),
        code::CLUSTER_LIST => ("CLUSTER_LIST", OPTIONAL, MultipleOf(4), TreatAsWithdraw, Internal),
        // RFC 7606 §5.3, §7.11, §7.12.
        code::MP_REACH => ("MP_REACH_NLRI", OPTIONAL, AtLeast(5), SessionReset, Anyone),
        code::MP_UNREACH => ("MP_UNREACH_NLRI", OPTIONAL, AtLeast(3), SessionReset, Anyone),
        // RFC 7606 §7.14.
        code::EXTENDED_COMMUNITIES => {
            ("EXTENDED COMMUNITIES", OPTIONAL_TRANSITIVE, MultipleOf(8), TreatAsWithdraw, Anyone)
        }
        // RFC 6793 §6.
        code::AS4_PATH => ("AS4_PATH", OPTIONAL_TRANSITIVE, Any, AttributeDiscard, TwoOctetAs),
        code::AS4_AGGREGATOR => {
            ("AS4_AGGREGATOR", OPTIONAL_TRANSITIVE, Exactly(8), AttributeDiscard, TwoOctetAs)
        }
        // RFC 7606 §7.15; the value is passed on unread.
        code::IPV6_EXTENDED_COMMUNITIES => (
            "IPv6 EXTENDED COMMUNITIES",
            OPTIONAL_TRANSITIVE,
            MultipleOf(20),
            TreatAsWithdraw,
            Anyone,
        ),
        // RFC 8092 §5.
        code::LARGE_COMMUNITIES => {
            ("LARGE_COMMUNITY", OPTIONAL_TRANSITIVE, MultipleOf(12), TreatAsWithdraw, Anyone)
        }
        // RFC 9234 §5.
        code::ONLY_TO_CUSTOMER => {
            ("ONLY_TO_CUSTOMER", OPTIONAL_TRANSITIVE, Exactly(4), TreatAsWithdraw, Anyone)
        }
        _ => return None,
    };
    Some(Row { name, flags, length, fault, sender })
}

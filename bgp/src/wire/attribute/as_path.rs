//! AS_PATH and AS4_PATH on the wire (RFC 4271 §4.3 b, RFC 6793 §4.2).
//!
//! ```text
//! (segment type: 1 | number of ASNs: 1 | ASNs: 2 or 4 octets each)*
//! ```

use smallvec::SmallVec;

use super::{AsPath, Segment, SegmentKind};
use crate::types::Asn;
use crate::wire::reader::Reader;

/// ASNs of one segment on the wire.
const MAX_SEGMENT_LEN: usize = 255;

/// What makes a path malformed (RFC 7606 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathError {
    /// RFC 9774 §3: routes with sets are withdrawn.
    AsSet,
    /// RFC 5065 §5.3: we are never a member of a confederation.
    Confederation,
    UnknownSegment,
    EmptySegment,
    Truncated,
    /// RFC 7607 §2.
    AsZero,
}

impl PathError {
    /// For humans.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::AsSet => "AS_SET in the path",
            Self::Confederation => "confederation segment from outside",
            Self::UnknownSegment => "unknown segment type",
            Self::EmptySegment => "empty segment",
            Self::Truncated => "segment is cut short",
            Self::AsZero => "AS 0 in the path",
        }
    }
}

/// Decodes a path.
pub(super) fn decode(value: &[u8], four_octet_as: bool) -> Result<AsPath, PathError> {
    let width = if four_octet_as { 4 } else { 2 };
    let mut reader = Reader::new(value, 0);
    let mut segments = SmallVec::new();
    while !reader.is_empty() {
        let kind = match reader.u8() {
            Some(1) => return Err(PathError::AsSet),
            Some(2) => SegmentKind::Sequence,
            Some(3 | 4) => return Err(PathError::Confederation),
            _ => return Err(PathError::UnknownSegment),
        };
        let bytes = match reader.u8() {
            Some(0) => return Err(PathError::EmptySegment),
            Some(count) => reader.take(usize::from(count) * width),
            None => None,
        };
        let Some(bytes) = bytes else { return Err(PathError::Truncated) };
        let asns: SmallVec<[Asn; 6]> = if four_octet_as {
            bytes.as_chunks().0.iter().map(|asn| Asn(u32::from_be_bytes(*asn))).collect()
        } else {
            bytes.as_chunks().0.iter().map(|asn| Asn(u16::from_be_bytes(*asn).into())).collect()
        };
        if asns.contains(&Asn(0)) {
            return Err(PathError::AsZero);
        }
        segments.push(Segment { kind, asns });
    }
    Ok(AsPath { segments })
}

/// The real path of a route from a 2-octet peer (RFC 6793 §4.2.3): `as4_path` with the ASNs that
/// 2-octet speakers prepended since in front of it.
pub(super) fn merge(as_path: AsPath, as4_path: AsPath) -> AsPath {
    let Some(surplus) = as_path.hops().checked_sub(as4_path.hops()) else {
        return as_path;
    };
    let mut front: SmallVec<[Asn; 6]> = as_path.asns().take(surplus).collect();
    let mut rest = as4_path.segments.into_iter().peekable();
    if let Some(next) = rest.next_if(|next| front.len() + next.asns.len() <= MAX_SEGMENT_LEN) {
        front.extend(next.asns);
    }
    let mut segments = SmallVec::new();
    // The surplus may be longer than one segment, in a path longer than 255.
    for chunk in front.chunks(MAX_SEGMENT_LEN) {
        segments.push(Segment { kind: SegmentKind::Sequence, asns: chunk.into() });
    }
    segments.extend(rest);
    AsPath { segments }
}

/// Appends the path; ASNs that do not fit two octets become AS_TRANS.
pub(crate) fn write(out: &mut Vec<u8>, path: &AsPath, four_octet_as: bool) {
    for segment in &path.segments {
        let code = match segment.kind {
            SegmentKind::Set => 1,
            SegmentKind::Sequence => 2,
            SegmentKind::ConfedSequence => 3,
            SegmentKind::ConfedSet => 4,
        };
        for chunk in segment.asns.chunks(MAX_SEGMENT_LEN) {
            // `chunks` bounds the length.
            out.extend_from_slice(&[code, u8::try_from(chunk.len()).unwrap_or(u8::MAX)]);
            for asn in chunk {
                if four_octet_as {
                    out.extend_from_slice(&asn.0.to_be_bytes());
                } else {
                    out.extend_from_slice(&two_octets(*asn).to_be_bytes());
                }
            }
        }
    }
}

/// `asn` for a 2-octet speaker.
pub(crate) fn two_octets(asn: Asn) -> u16 {
    u16::try_from(asn.0).unwrap_or(23456)
}

//! Prefixes on the wire (RFC 4271 §4.3, RFC 4760 §5, RFC 7911 §3).
//!
//! ```text
//! [path identifier: 4 octets] | length in bits: 1 octet | prefix: just enough octets
//! ```
//!
//! A field is validated once, as a whole; iterating over it afterwards cannot fail and does not
//! allocate.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::types::Family;

/// Validated NLRI of one family: iteration cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nlri<'a> {
    /// Family of every prefix in `bytes`.
    pub family: Family,
    /// Each prefix is preceded by a 4-octet path identifier (RFC 7911).
    pub add_path: bool,
    /// Already validated: lengths within bounds, nothing left over.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Nlri<'a> {
    /// Validates a whole NLRI field; the error is the octet offset within `bytes` of the first
    /// prefix that is too long, or cut short.
    pub(crate) fn parse(family: Family, add_path: bool, bytes: &'a [u8]) -> Result<Self, usize> {
        let longest = longest(family);
        let id_len = if add_path { 4 } else { 0 };
        let mut at = 0;
        while at < bytes.len() {
            let Some(&bits) = bytes.get(at + id_len) else { return Err(at) };
            let next = at + id_len + 1 + octets(bits);
            if bits > longest || next > bytes.len() {
                return Err(at);
            }
            at = next;
        }
        Ok(Self { family, add_path, bytes })
    }

    /// Is there no prefix?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The prefixes with their path identifiers (`None` without add-path), host bits cleared.
    #[must_use]
    pub const fn iter(&self) -> NlriIter<'a> {
        NlriIter { family: self.family, add_path: self.add_path, rest: self.bytes }
    }
}

impl<'a> IntoIterator for Nlri<'a> {
    type Item = (Option<u32>, IpNet);
    type IntoIter = NlriIter<'a>;

    fn into_iter(self) -> NlriIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Nlri<'a> {
    type Item = (Option<u32>, IpNet);
    type IntoIter = NlriIter<'a>;

    fn into_iter(self) -> NlriIter<'a> {
        self.iter()
    }
}

/// Iterator over [`Nlri`].
#[derive(Clone, Debug)]
pub struct NlriIter<'a> {
    family: Family,
    add_path: bool,
    rest: &'a [u8],
}

impl Iterator for NlriIter<'_> {
    type Item = (Option<u32>, IpNet);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let id = if self.add_path {
            let (id, rest) = self.rest.split_first_chunk::<4>()?;
            self.rest = rest;
            Some(u32::from_be_bytes(*id))
        } else {
            None
        };
        let (&bits, rest) = self.rest.split_first()?;
        let prefix = match self.family {
            // Masked here: `IpNet::trunc` is a call into another crate for each prefix.
            Family::Ipv4 => {
                let address = u32::from_be_bytes(padded(rest, bits)) & mask_v4(bits);
                IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(address), bits).ok()?)
            }
            Family::Ipv6 => {
                let address = u128::from_be_bytes(padded(rest, bits)) & mask_v6(bits);
                IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(address), bits).ok()?)
            }
        };
        self.rest = rest.get(octets(bits)..)?;
        Some((id, prefix))
    }
}

#[inline]
fn mask_v4(bits: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0)
}

#[inline]
fn mask_v6(bits: u8) -> u128 {
    u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0)
}

/// An address whose first [`octets`]`(bits)` octets come from `bytes`; the others are arbitrary,
/// the caller masks them.
#[inline]
fn padded<const N: usize>(bytes: &[u8], bits: u8) -> [u8; N] {
    // Reading beyond the prefix saves the variable-length copy for all but the last prefixes.
    if let Some(whole) = bytes.first_chunk::<N>() {
        return *whole;
    }
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes).take(octets(bits)) {
        *to = *from;
    }
    out
}

/// Appends one prefix.
pub(crate) fn write(out: &mut Vec<u8>, path_id: Option<u32>, prefix: IpNet) {
    if let Some(id) = path_id {
        out.extend_from_slice(&id.to_be_bytes());
    }
    let bits = prefix.prefix_len();
    out.push(bits);
    match prefix {
        IpNet::V4(p) => {
            extend_prefix(out, (p.addr().to_bits() & mask_v4(bits)).to_be_bytes(), bits);
        }
        IpNet::V6(p) => {
            extend_prefix(out, (p.addr().to_bits() & mask_v6(bits)).to_be_bytes(), bits);
        }
    }
}

#[inline]
fn extend_prefix<const N: usize>(out: &mut Vec<u8>, address: [u8; N], bits: u8) {
    // A fixed-size copy and a truncation are faster than a copy of variable length.
    let end = out.len() + octets(bits);
    out.extend_from_slice(&address);
    out.truncate(end);
}

/// Octets that [`write`] appends.
pub(crate) fn encoded_len(add_path: bool, prefix: IpNet) -> usize {
    usize::from(add_path) * 4 + 1 + octets(prefix.prefix_len())
}

const fn longest(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 32,
        Family::Ipv6 => 128,
    }
}

#[inline]
const fn octets(bits: u8) -> usize {
    // Lossless: a u8 fits any usize.
    bits.div_ceil(8) as usize
}

//! Prefixes as compact keys: 8 octets for IPv4, 20 for IPv6, instead of the 18 to 20 of `IpNet`.

use std::fmt::Debug;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::types::Family;

/// A prefix of one family.
pub(crate) trait Key: Copy + Eq + Ord + Debug {
    /// The family.
    const FAMILY: Family;
    /// The default route.
    const DEFAULT: Self;

    /// The key of `prefix`, host bits cleared; `None` if it is of the other family.
    fn new(prefix: &IpNet) -> Option<Self>;

    /// Back.
    fn prefix(self) -> IpNet;

    /// A hash that somebody who does not know `seed` cannot steer into collisions.
    fn hash(self, seed: u64) -> u64;
}

/// An IPv4 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct V4 {
    address: u32,
    len: u8,
}

/// An IPv6 prefix; words of 32 bits, so that it aligns to four octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct V6 {
    high: [u32; 2],
    low: [u32; 2],
    len: u8,
}

/// Fractional part of the golden ratio: no structure in its bits.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Both halves of the product folded together: each input bit reaches every output bit.
fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = a.carrying_mul(b, 0);
    low ^ high
}

const fn join([high, low]: [u32; 2]) -> u64 {
    ((high as u64) << 32) | low as u64
}

const fn split(word: u64) -> [u32; 2] {
    [(word >> 32) as u32, ((word << 32) >> 32) as u32]
}

impl Key for V4 {
    const FAMILY: Family = Family::Ipv4;
    const DEFAULT: Self = Self { address: 0, len: 0 };

    fn new(prefix: &IpNet) -> Option<Self> {
        match prefix {
            IpNet::V4(net) => {
                Some(Self { address: net.network().to_bits(), len: net.prefix_len() })
            }
            IpNet::V6(_) => None,
        }
    }

    fn prefix(self) -> IpNet {
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(self.address), self.len))
    }

    fn hash(self, seed: u64) -> u64 {
        fold(join([self.address, self.len.into()]) ^ seed, MIX)
    }
}

impl Key for V6 {
    const FAMILY: Family = Family::Ipv6;
    const DEFAULT: Self = Self { high: [0; 2], low: [0; 2], len: 0 };

    fn new(prefix: &IpNet) -> Option<Self> {
        match prefix {
            IpNet::V4(_) => None,
            IpNet::V6(net) => {
                let bits = net.network().to_bits();
                let high = split((bits >> 64) as u64);
                let low = split(((bits << 64) >> 64) as u64);
                Some(Self { high, low, len: net.prefix_len() })
            }
        }
    }

    fn prefix(self) -> IpNet {
        let bits = (u128::from(join(self.high)) << 64) | u128::from(join(self.low));
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), self.len))
    }

    fn hash(self, seed: u64) -> u64 {
        let high = fold(join(self.high) ^ seed, MIX);
        fold(high ^ join(self.low), MIX ^ u64::from(self.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_its_prefix_back_without_host_bits() {
        for text in ["0.0.0.0/0", "10.1.2.0/24", "255.255.255.255/32"] {
            let net: IpNet = text.parse().unwrap();
            assert_eq!(V4::new(&net).unwrap().prefix(), net);
            assert!(V6::new(&net).is_none());
        }
        for text in ["::/0", "2001:db8:1:2::/64", "fd00::1/128"] {
            let net: IpNet = text.parse().unwrap();
            assert_eq!(V6::new(&net).unwrap().prefix(), net);
            assert!(V4::new(&net).is_none());
        }
        let host: IpNet = "10.1.2.3/24".parse().unwrap();
        assert_eq!(V4::new(&host).unwrap().prefix(), host.trunc());
    }

    #[test]
    fn keys_stay_compact() {
        assert_eq!(size_of::<V4>(), 8);
        assert_eq!(size_of::<V6>(), 20);
    }
}

//! Import and export accept-lists (RFC 8212: no policy on an external session means nothing).

use std::fmt;

use ipnet::IpNet;

use crate::config::{Policy, PrefixMatch};

impl PrefixMatch {
    /// Is `prefix` inside, with a length within the bounds?
    #[must_use]
    pub fn matches(&self, prefix: &IpNet) -> bool {
        (self.min_length..=self.max_length).contains(&prefix.prefix_len())
            && self.prefix.contains(prefix)
    }
}

impl fmt::Display for PrefixMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix.fmt(f)?;
        if (self.min_length, self.max_length)
            == (self.prefix.prefix_len(), self.prefix.prefix_len())
        {
            return Ok(());
        }
        write!(f, " length {}-{}", self.min_length, self.max_length)
    }
}

impl Policy {
    /// Does the policy accept a prefix learnt from a peer?
    ///
    /// Own prefixes are not asked about: every export policy passes them.
    #[must_use]
    pub fn accepts(&self, prefix: &IpNet) -> bool {
        match self {
            Self::OwnOnly => false,
            Self::All => true,
            Self::Accept(entries) => entries.iter().any(|e| e.matches(prefix)),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnOnly => f.write_str("own prefixes only"),
            Self::Accept(entries) if entries.is_empty() => f.write_str("own prefixes only"),
            Self::All => f.write_str("everything"),
            Self::Accept(entries) => {
                f.write_str("only ")?;
                for (i, entry) in entries.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    entry.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(prefix: &str, min_length: u8, max_length: u8) -> PrefixMatch {
        PrefixMatch { prefix: prefix.parse().unwrap(), min_length, max_length }
    }

    #[test]
    fn a_prefix_matches_inside_and_within_the_lengths() {
        let table = [
            (entry("10.0.0.0/8", 16, 24), "10.1.0.0/16", true),
            (entry("10.0.0.0/8", 16, 24), "10.1.1.0/24", true),
            (entry("10.0.0.0/8", 16, 24), "10.0.0.0/8", false),
            (entry("10.0.0.0/8", 16, 24), "10.1.1.0/25", false),
            (entry("10.0.0.0/8", 16, 24), "11.1.0.0/16", false),
            (entry("0.0.0.0/0", 0, 0), "0.0.0.0/0", true),
            (entry("0.0.0.0/0", 0, 0), "::/0", false),
            (entry("0.0.0.0/0", 0, 32), "2001:db8::/32", false),
            (entry("::/0", 0, 128), "2001:db8::1/128", true),
            (entry("::/0", 0, 128), "10.0.0.0/8", false),
            (entry("2001:db8::/32", 48, 64), "2001:db8:1::/48", true),
            (entry("2001:db8::/32", 48, 64), "2001:db9:1::/48", false),
        ];
        for (entry, prefix, matches) in table {
            assert_eq!(entry.matches(&prefix.parse().unwrap()), matches, "{entry}: {prefix}");
        }
    }

    #[test]
    fn only_an_explicit_policy_accepts_what_was_learnt() {
        let prefix: IpNet = "10.1.0.0/16".parse().unwrap();
        assert!(!Policy::default().accepts(&prefix));
        assert!(Policy::All.accepts(&prefix));
        assert!(!Policy::Accept(Vec::new()).accepts(&prefix));
        assert!(Policy::Accept(vec![entry("10.1.0.0/16", 16, 16)]).accepts(&prefix));
    }

    #[test]
    fn policies_are_told_in_words() {
        assert_eq!(Policy::OwnOnly.to_string(), "own prefixes only");
        assert_eq!(Policy::Accept(Vec::new()).to_string(), "own prefixes only");
        assert_eq!(Policy::All.to_string(), "everything");
        let entries = vec![entry("0.0.0.0/0", 0, 0), entry("10.0.0.0/8", 16, 24)];
        assert_eq!(Policy::Accept(entries).to_string(), "only 0.0.0.0/0, 10.0.0.0/8 length 16-24");
    }
}

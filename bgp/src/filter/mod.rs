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

//! The name of a lab, and everything on the machine that is derived from it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use api::constant::LAB_DIR;
use serde::{Deserialize, Serialize};

/// Name of the lab when nobody gives one.
pub const DEFAULT_NAME: &str = "rlab";

/// Names a lab: 1 to 12 lower-case letters and digits, a letter first. No hyphen, so that the
/// namespaces of one lab never carry the prefix of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The text is no name of a lab or a cluster of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 12 lower-case letters and digits, a letter first")]
pub struct InvalidName;

/// The rule for names that names of network namespaces are made of.
///
/// # Errors
/// It is none.
pub fn checked(text: &str) -> Result<String, InvalidName> {
    let valid = text.len() <= 12
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if valid { Ok(text.to_owned()) } else { Err(InvalidName) }
}

impl Name {
    /// Directory of everything the lab writes: stores, logs, control sockets, state.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        if self.0 == DEFAULT_NAME {
            PathBuf::from(LAB_DIR)
        } else {
            PathBuf::from(format!("{LAB_DIR}-{}", self.0))
        }
    }

    /// Name of the network namespace of a node, ToR or pod.
    #[must_use]
    pub fn namespace(&self, member: &str) -> String {
        format!("{}-{member}", self.0)
    }

    /// What the names of all its namespaces begin with.
    #[must_use]
    pub fn namespace_prefix(&self) -> String {
        format!("{}-", self.0)
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        checked(text).map(Self)
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_lab_lives_where_rctl_looks_for_agents() {
        let name: Name = DEFAULT_NAME.parse().unwrap();
        assert_eq!(name.directory(), PathBuf::from(LAB_DIR));
        assert_eq!(name.namespace("n11"), "rlab-n11");
    }

    #[test]
    fn a_name_with_a_hyphen_or_a_slash_is_refused() {
        for text in ["", "a-b", "../x", "A", "1a", "abcdefghijklm"] {
            assert_eq!(text.parse::<Name>(), Err(InvalidName), "{text}");
        }
    }
}

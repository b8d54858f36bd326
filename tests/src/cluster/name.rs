//! The name of a cluster, and everything on the machine that is derived from it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use ctl::lab::{InvalidName, checked_name};
use serde::{Deserialize, Serialize};

/// Directory of the states of all clusters of this machine.
const STATES: &str = "/var/tmp/rampart-cluster";

/// Names a cluster: 1 to 12 lower-case letters and digits, a letter first. No hyphen, so that the
/// namespaces of one cluster never carry the prefix of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// A name that no other cluster of this machine has now.
    #[must_use]
    pub fn unique() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self(format!("t{}x{count}", std::process::id()))
    }

    /// Directory of certificates, logs, data and records.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        PathBuf::from(STATES).join(&self.0)
    }

    /// Name of the network namespace of a member.
    #[must_use]
    pub fn namespace(&self, member: &str) -> String {
        format!("rc-{}-{member}", self.0)
    }

    /// What the names of all its namespaces and cgroups begin with.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("rc-{}-", self.0)
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names of all clusters that left something on this machine.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(STATES) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
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
        checked_name(text).map(Self)
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
    fn unique_names_are_valid_and_differ() {
        let (a, b) = (Name::unique(), Name::unique());
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<Name>().unwrap(), a);
    }

    #[test]
    fn a_name_that_could_be_the_prefix_of_another_is_refused() {
        for text in ["", "a-b", "../x", "A", "1a", "abcdefghijklm"] {
            assert_eq!(text.parse::<Name>(), Err(InvalidName), "{text}");
        }
    }
}

//! Versions of the spec, and how results look in each.

use serde_json::{Value, json};

use super::error::{ErrorCode, Failure};

/// A version that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.1: addresses have a `version`.
    V0_3_1,
    /// 0.4.0: CHECK; DEL gets `prevResult`.
    V0_4_0,
    /// 1.0.0: addresses have no `version`.
    V1_0_0,
    /// 1.1.0: GC, STATUS.
    V1_1_0,
}

/// All of them, ascending.
pub const SUPPORTED: [Version; 4] =
    [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];

impl Version {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none that we speak.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let known = |version: &Self| version.as_str() == text;
        SUPPORTED.into_iter().find(|version| known(version)).ok_or_else(|| {
            let all = SUPPORTED.map(Self::as_str).join(", ");
            Failure::new(
                ErrorCode::IncompatibleVersion,
                format!("cniVersion `{text}` is not supported; supported: {all}"),
            )
        })
    }

    /// Whether addresses of a result carry `version` (spec 0.3.0 to 0.4.0).
    #[must_use]
    pub fn tags_addresses(self) -> bool {
        self < Self::V1_0_0
    }
}

/// Answer to VERSION.
#[must_use]
pub fn answer() -> Value {
    json!({
        "cniVersion": Version::V1_1_0.as_str(),
        "supportedVersions": SUPPORTED.map(Version::as_str),
    })
}

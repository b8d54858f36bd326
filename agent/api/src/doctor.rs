//! `GET /v1/doctor`: what an agent finds when it looks at its node, good and bad.

use serde::{Deserialize, Serialize};

use crate::error_code::Code;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and there is a trap.
    Warn,
    /// It does not work, or not as configured.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Node that was looked at; empty for the cluster as a whole.
    pub node: String,
    /// How bad it is.
    pub level: Level,
    /// What was looked at: one or two words, the same on every node.
    pub check: String,
    /// What was found, in one line.
    pub message: String,
    /// Catalogue code, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What to do; empty when nothing has to be done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub next: String,
}

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn ok(check: &str, message: impl Into<String>) -> Self {
        Self {
            node: String::new(),
            level: Level::Ok,
            check: check.to_owned(),
            message: message.into(),
            code: None,
            next: String::new(),
        }
    }

    /// Trouble, with its code; what to do is what the catalogue says.
    #[must_use]
    pub fn trouble(level: Level, check: &str, code: Code, message: impl Into<String>) -> Self {
        let entry = crate::error_code::CATALOGUE.iter().find(|entry| entry.code == code);
        Self {
            level,
            code: Some(code),
            next: entry.map_or("", |entry| entry.next).to_owned(),
            ..Self::ok(check, message)
        }
    }
}

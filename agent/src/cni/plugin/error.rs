//! What the runtime is told when something fails (CNI spec 1.1.0, "Error").

use serde::Serialize;

/// Codes of the spec that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// 1: the version asked for is none of ours, or has no such command.
    IncompatibleVersion,
    /// 4: an environment variable is missing or not valid.
    InvalidEnvironment,
    /// 5: input or output failed.
    Io,
    /// 6: standard input is not what the spec says.
    Decode,
    /// 7: the network configuration does not hold.
    InvalidConfig,
    /// 11: nothing is wrong with the request; try again later.
    TryAgainLater,
    /// 50: the plugin cannot serve ADD now.
    NotAvailable,
    /// 100: IPAM failed without a code of its own.
    Ipam,
    /// 101: the kernel refused.
    Kernel,
    /// 102: CHECK found something missing.
    CheckFailed,
    /// 999: a defect of the plugin.
    Internal,
    /// A code that a delegate gave.
    Delegate(u32),
}

impl ErrorCode {
    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::Ipam => 100,
            Self::Kernel => 101,
            Self::CheckFailed => 102,
            Self::Internal => 999,
            Self::Delegate(code) => code,
        }
    }
}

/// A failure, as the runtime is told it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Code.
    pub code: ErrorCode,
    /// One line.
    pub message: String,
    /// What to do, or what the delegate printed; may be empty.
    pub details: String,
}

#[derive(Serialize)]
struct Wire<'a> {
    #[serde(rename = "cniVersion")]
    version: &'a str,
    code: u32,
    msg: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'a str,
}

impl Failure {
    /// A failure.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// With more to say.
    #[must_use]
    pub fn details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// The JSON object of the spec.
    #[must_use]
    pub fn json(&self, version: &str) -> String {
        let wire =
            Wire { version, code: self.code.number(), msg: &self.message, details: &self.details };
        serde_json::to_string(&wire)
            .unwrap_or_else(|_| r#"{"code":999,"msg":"internal"}"#.to_owned())
    }
}

/// The kernel refused `what`.
pub(super) fn kernel(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Kernel, format!("cannot {what}: {error}"))
}

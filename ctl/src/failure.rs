//! How a verb ends badly: what, why, what next, and the exit code that scripts rely on.

use std::fmt::Write as _;
use std::process::ExitCode;

use api::error_code::Code;

/// Exit codes; a code never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// A negative answer: denied, differs, unhealthy, not found.
    Negative = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Agent or API not reachable.
    Unreachable = 3,
    /// What was waited for did not happen in time.
    TimedOut = 4,
    /// Not allowed.
    Refused = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error as the user sees it: one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// Catalogue code, when there is one.
    pub code: Option<Code>,
    /// What happened.
    pub message: String,
    /// Why; empty when `message` says it all.
    pub why: String,
    /// What to do next; empty when nobody knows.
    pub next: String,
}

impl Failure {
    /// A failure with a catalogue code, whose entry gives `why` and `next`.
    #[must_use]
    pub fn catalogued(exit: Exit, code: Code, message: impl Into<String>) -> Self {
        let entry = api::error_code::CATALOGUE.iter().find(|entry| entry.code == code);
        Self {
            exit,
            code: Some(code),
            message: message.into(),
            why: entry.map_or_else(String::new, |entry| entry.why.to_owned()),
            next: entry.map_or_else(String::new, |entry| entry.next.to_owned()),
        }
    }

    /// A failure without a catalogue code.
    #[must_use]
    pub fn plain(exit: Exit, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit, code: None, message: message.into(), why: String::new(), next: next.into() }
    }

    /// Replaces the reason.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Replaces the advice.
    #[must_use]
    pub fn advise(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// The text for standard error, with a final line feed.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::from("error");
        // Writing to a String cannot fail.
        match self.code {
            Some(code) => writeln!(text, " {code}: {}", self.message),
            None => writeln!(text, ": {}", self.message),
        }
        .ok();
        for (label, line) in [("why", &self.why), ("next", &self.next)] {
            if !line.is_empty() {
                writeln!(text, "{label}: {line}").ok();
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::error_code;

    #[test]
    fn a_catalogued_failure_says_what_why_and_next() {
        let failure = Failure::catalogued(
            Exit::Refused,
            error_code::NOT_PRIVILEGED,
            "rctl lab up needs root",
        );
        assert_eq!(
            failure.render(),
            "error RC5002: rctl lab up needs root\n\
             why: The command needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN).\n\
             next: Run it with sudo.\n"
        );
    }

    #[test]
    fn empty_lines_are_left_out() {
        let failure = Failure::plain(Exit::Usage, "no such node n99", "");
        assert_eq!(failure.render(), "error: no such node n99\n");
    }
}

//! What can go wrong in the lab, and how it is told.

use std::io;
use std::path::{Path, PathBuf};

use api::error_code;

use crate::failure::{Exit, Failure};

/// What went wrong in the lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Root or a capability is lacking.
    #[error("the lab needs {missing}")]
    NotPrivileged {
        /// What is lacking.
        missing: &'static str,
    },
    /// A program is not installed.
    #[error("the lab needs the program {program}")]
    MissingProgram {
        /// The program.
        program: String,
        /// How to get it.
        remedy: String,
    },
    /// The kernel lacks something.
    #[error("the kernel has no {feature}")]
    MissingKernelFeature {
        /// What it lacks.
        feature: &'static str,
    },
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// `ip` refused a command.
    #[error("ip failed: {message}")]
    Ip {
        /// Its own words.
        message: String,
    },
    /// A namespace could not be entered.
    #[error("cannot enter namespace {namespace}: {source}")]
    Enter {
        /// Its name.
        namespace: String,
        /// Cause.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {role}: {source}")]
    Start {
        /// Its job in the lab.
        role: String,
        /// Cause.
        source: io::Error,
    },
    /// A program of the lab ended by itself.
    #[error("{role} ended: {last_words}")]
    Ended {
        /// Its job in the lab.
        role: String,
        /// The last line of its log.
        last_words: String,
    },
    /// A process does not go away.
    #[error("{role} (process {pid}) does not end")]
    Stuck {
        /// Its job in the lab.
        role: String,
        /// Its process id.
        pid: i32,
    },
    /// The user or the system asked us to stop.
    #[error("interrupted")]
    Interrupted,
    /// No lab of that name.
    #[error("no lab {name} is up")]
    NotUp {
        /// Name of the lab.
        name: String,
    },
    /// A lab with other options is up.
    #[error("lab {name} is up with other options: {options}")]
    OtherOptions {
        /// Name of the lab.
        name: String,
        /// Options it was built with.
        options: String,
    },
    /// Options that do not fit together.
    #[error("{0}")]
    Options(String),
    /// No such member.
    #[error("the lab has no node, ToR or pod {name}")]
    UnknownMember {
        /// Name that was given.
        name: String,
        /// Names that exist.
        known: String,
    },
    /// Something did not happen in time.
    #[error("not up after {seconds} s: {pending}")]
    TimedOut {
        /// Limit.
        seconds: u64,
        /// What is missing.
        pending: String,
    },
    /// A manifest could not be rendered.
    #[error("cannot render {object}: {message}")]
    Render {
        /// The object.
        object: String,
        /// Cause.
        message: String,
    },
    /// The state file is damaged.
    #[error("{} is damaged: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
}

impl LabError {
    /// For `map_err` on file operations.
    pub(super) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { operation, path, source }
    }
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        let message = error.to_string();
        match error {
            LabError::NotPrivileged { .. } => {
                Self::catalogued(Exit::Refused, error_code::NOT_PRIVILEGED, message)
            }
            LabError::MissingProgram { remedy, .. } => {
                Self::catalogued(Exit::Refused, error_code::MISSING_PROGRAM, message).advise(remedy)
            }
            LabError::MissingKernelFeature { .. } => {
                Self::plain(Exit::Refused, message, "Load the module, or use a kernel that has it.")
            }
            LabError::NotUp { name } => {
                let up = if name == super::DEFAULT_NAME {
                    "rctl lab up".to_owned()
                } else {
                    format!("rctl --lab {name} lab up")
                };
                Self::plain(Exit::Unreachable, message, format!("Build it: {up}"))
            }
            LabError::OtherOptions { .. } => Self::plain(
                Exit::Usage,
                message,
                "Remove it first: rctl lab down; or give the new one another --lab NAME.",
            ),
            LabError::Options(_) => Self::plain(Exit::Usage, message, ""),
            LabError::UnknownMember { known, .. } => {
                Self::catalogued(Exit::Usage, error_code::NOT_FOUND, message)
                    .because("")
                    .advise(format!("Known: {known}"))
            }
            LabError::TimedOut { .. } => {
                Self::catalogued(Exit::TimedOut, error_code::TIMED_OUT, message)
            }
            LabError::State { .. } => Self::plain(
                Exit::Negative,
                message,
                "Remove what is left of the lab: rctl lab down",
            ),
            LabError::File { .. }
            | LabError::Ip { .. }
            | LabError::Enter { .. }
            | LabError::Start { .. }
            | LabError::Ended { .. }
            | LabError::Stuck { .. }
            | LabError::Interrupted
            | LabError::Render { .. } => Self::plain(Exit::Negative, message, ""),
        }
    }
}

//! `rampart-cni`: the plugin (CNI spec 1.1.0, and back to 0.3.1).
//!
//! | configuration | role |
//! |---|---|
//! | has `ipam` | main plugin: makes the pod's interface, addresses from the delegate |
//! | has none | gate, chained after any other plugin: passes its result on |
//!
//! Either way ADD returns when the agent has the pod's policy in the kernel, or fails with code 11 and
//! leaves nothing. Nothing is kept between two runs, and whatever a killed run has left is removed by
//! DEL or GC: the host side's name and the lease follow from container id and interface name.
//!
//! Errors go to standard output as the spec says; nothing here panics on what comes in.

mod add;
mod agent;
mod check;
mod collect;
mod del;
pub(crate) mod delegate;
pub mod error;
pub mod input;
pub(crate) mod leases;
mod status;
mod sysctl;
pub mod version;
mod wiring;

use api::cni::Attachment;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use super::name;
use error::{ErrorCode, Failure};
use input::{Command, Config};
use version::Version;

/// No configuration of a network is longer.
const INPUT_LIMIT: u64 = 4 << 20;

/// Puts the host side of a pod back as ADD left it: link, neighbour entries, routes. False if the
/// interface is gone, as it is when the pod ends.
///
/// # Errors
/// The kernel does not take it.
pub fn restore_host_side(attachment: &Attachment) -> Result<bool, Failure> {
    let (_, pod_mac) = name::macs(&attachment.id);
    let mut requests = wiring::requests()?;
    wiring::restore(&mut requests, &attachment.interface, pod_mac, &attachment.addresses)
}

/// Whether the program was called as the plugin.
#[must_use]
pub fn is_called() -> bool {
    let name = std::env::args_os().next();
    let name = name.as_deref().map(std::path::Path::new).and_then(std::path::Path::file_name);
    name.is_some_and(|name| name == api::constant::CNI_PLUGIN)
}

/// Does what the environment and standard input ask for, prints the answer.
#[must_use]
pub fn main() -> ExitCode {
    let answer = std::panic::catch_unwind(run).unwrap_or_else(|_| {
        let failure = Failure::new(ErrorCode::Internal, "the plugin panicked (see its stderr)");
        Err((Version::V1_0_0, failure))
    });
    let (text, code) = match answer {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(value)) => (value.to_string(), ExitCode::SUCCESS),
        Err((version, failure)) => (failure.json(version.as_str()), ExitCode::FAILURE),
    };
    let mut stdout = io::stdout().lock();
    // Nobody reads: then there is nobody to tell it, either.
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

type Answer = Result<Option<Value>, (Version, Failure)>;

fn run() -> Answer {
    let early = |failure| (Version::V1_0_0, failure);
    let command = input::command().map_err(early)?;
    if command == Command::Version {
        return Ok(Some(version::answer()));
    }
    let mut stdin = Vec::new();
    io::stdin().lock().take(INPUT_LIMIT).read_to_end(&mut stdin).map_err(|error| {
        early(Failure::new(ErrorCode::Io, format!("cannot read standard input: {error}")))
    })?;
    let config = input::config(&stdin).map_err(early)?;
    let version = config.version;
    dispatch(command, &config).map_err(|failure| (version, failure))
}

fn dispatch(command: Command, config: &Config) -> Result<Option<Value>, Failure> {
    let since = |oldest: Version, name: &str| {
        let text = format!("{name} is not part of version {}", config.version.as_str());
        let failure = Failure::new(ErrorCode::IncompatibleVersion, text);
        if config.version >= oldest { Ok(()) } else { Err(failure) }
    };
    match command {
        Command::Add => add::run(config).map(Some),
        Command::Del => del::run(config).map(|()| None),
        Command::Check => {
            since(Version::V0_4_0, "CHECK")?;
            check::run(config).map(|()| None)
        }
        Command::Gc => {
            since(Version::V1_1_0, "GC")?;
            collect::run(config).map(|()| None)
        }
        Command::Status => {
            since(Version::V1_1_0, "STATUS")?;
            status::run(config).map(|()| None)
        }
        Command::Version => Ok(Some(version::answer())),
    }
}

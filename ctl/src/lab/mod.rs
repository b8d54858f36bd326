//! A whole fabric in network namespaces of one Linux machine, with real agents and real routers.
//!
//! Everything it makes carries its name: namespaces `NAME-*`, files below one directory in
//! `/run`, processes with a mark in their environment. The host's own namespace gets no link, no
//! route and no table.

pub mod args;
pub mod connect;
pub mod converge;
pub mod down;
pub mod error;
pub mod exec;
pub mod flow;
pub mod manifest;
pub mod matrix;
mod name;
pub mod namespace;
pub mod preflight;
pub mod process;
pub mod progress;
mod scenario;
pub mod serve;
pub mod state;
pub mod status;
pub mod topology;
pub mod tor;
pub mod up;
pub mod wiring;

use std::process::ExitCode;
use std::time::Duration;

pub use name::{DEFAULT_NAME, InvalidName, Name, checked as checked_name};

use crate::failure::{Exit, Failure};
use args::{Format, LabArgs, LabVerb};
use error::LabError;
use progress::say;

/// Runs a verb of `rctl lab`.
///
/// # Errors
/// A [`Failure`] for the user.
pub fn run(lab: &Name, args: LabArgs) -> Result<ExitCode, Failure> {
    match args.verb {
        LabVerb::Up(args) => up::up(lab, &args)?,
        LabVerb::Down => down(lab)?,
        LabVerb::Status { output } => return show_status(lab, output),
        LabVerb::Exec { member, command } => {
            let _never = exec::exec(lab, &member, &command)?;
        }
        LabVerb::Matrix { output } => show_matrix(lab, output)?,
        LabVerb::Scenario { name } => return scenario::run(lab, name),
        LabVerb::Serve { identity, ports } => serve::serve(&identity, &ports)
            .map_err(|error| Failure::plain(Exit::Negative, error.to_string(), ""))?,
        LabVerb::Connect { to, udp, timeout } => return connect_once(lab, &to, udp, timeout),
    }
    Ok(Exit::Ok.into())
}

/// `rctl`, or `rctl --lab NAME` for a lab that is not the default one.
fn invocation(lab: &Name) -> String {
    if lab.as_str() == DEFAULT_NAME { "rctl".to_owned() } else { format!("rctl --lab {lab}") }
}

fn down(lab: &Name) -> Result<(), LabError> {
    preflight::privilege()?;
    let lock = state::Lock::acquire(lab)?;
    let removed = down::remove(lab, &lock)?;
    if removed == down::Removed::default() {
        say(&format!("lab {lab}: nothing to remove"));
        return Ok(());
    }
    say(&format!(
        "lab {lab}: ended {} processes, removed {} namespaces",
        removed.processes, removed.namespaces
    ));
    for stranger in removed.strangers {
        say(&format!(
            "note: {stranger} is not of the lab and still runs in one of its namespaces, \
             which lives until it ends"
        ));
    }
    Ok(())
}

fn show_status(lab: &Name, output: Format) -> Result<ExitCode, Failure> {
    let status = status::status(lab)?;
    match output {
        Format::Text => say(status::render(&status).trim_end()),
        Format::Json => say(&json(&status)?),
    }
    let exit = if status.healthy { Exit::Ok } else { Exit::Negative };
    Ok(exit.into())
}

fn show_matrix(lab: &Name, output: Format) -> Result<(), Failure> {
    preflight::privilege()?;
    let state = state::State::of_running(lab)?;
    let topology = topology::Topology::new(&state.options)?;
    let probes = matrix::probe_all(lab, &topology, &pod_ports())?;
    match output {
        Format::Text => say(matrix::render(&probes, &topology).trim_end()),
        Format::Json => say(&json(&probes)?),
    }
    Ok(())
}

/// What every pod listens on.
#[must_use]
pub fn pod_ports() -> Vec<serve::Port> {
    up::POD_PORTS.iter().filter_map(|port| port.parse().ok()).collect()
}

fn connect_once(lab: &Name, to: &str, udp: bool, timeout: f64) -> Result<ExitCode, Failure> {
    let transport = if udp { serve::Transport::Udp } else { serve::Transport::Tcp };
    let timeout = Duration::try_from_secs_f64(timeout)
        .map_err(|error| Failure::plain(Exit::Usage, format!("--timeout: {error}"), ""))?;
    let connected = connect::connect(lab, to, transport, timeout)?;
    Ok(if connected { Exit::Ok } else { Exit::Negative }.into())
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::plain(Exit::Negative, error.to_string(), ""))
}

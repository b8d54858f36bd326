//! `rctl lab scenario`.

use std::process::ExitCode;

use super::Name;
use super::args::ScenarioName;
use crate::failure::{Exit, Failure};

pub(super) fn run(lab: &Name, name: ScenarioName) -> Result<ExitCode, Failure> {
    Err(Failure::plain(Exit::Usage, format!("lab {lab} has no scenario {name:?} yet"), ""))
}

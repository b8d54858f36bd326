//! `rctl lab exec`: a command inside of a node, ToR or pod.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::error::LabError;
use super::name::Name;
use super::namespace;
use super::process::MARK;
use super::state::State;
use super::topology::Topology;

/// Becomes the command. Its directory of programs is searched for ours too, so that
/// `rctl` itself can be run inside.
///
/// # Errors
/// [`LabError::NotUp`], [`LabError::UnknownMember`], [`LabError::Enter`], [`LabError::Start`]; it
/// only returns with one of them.
pub fn exec(
    lab: &Name,
    member: &str,
    command: &[String],
) -> Result<std::convert::Infallible, LabError> {
    let state = State::of_running(lab)?;
    let topology = Topology::new(&state.options)?;
    let Some(name) = topology.member(member) else {
        let known: Vec<&str> = topology.members().collect();
        return Err(LabError::UnknownMember { name: member.to_owned(), known: known.join(" ") });
    };
    let Some((program, arguments)) = command.split_first() else {
        return Err(LabError::Options("no command given".to_owned()));
    };
    namespace::enter(&lab.namespace(name))?;
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(beside) = std::env::current_exe().ok().as_deref().and_then(|us| us.parent()) {
        path.push(":");
        path.push(beside);
    }
    let source = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env(MARK, lab.as_str())
        .env("RCTL_LAB", lab.as_str())
        .exec();
    Err(LabError::Start { role: program.clone(), source })
}

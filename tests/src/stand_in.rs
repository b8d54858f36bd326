//! Programs in the place of the agent, to see what the lab does when the agent does not do well.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

use ctl::lab::state::State;

use crate::lab::{Lab, PATIENCE, SMALL};
use crate::netns::Directory;
use crate::wait::eventually;

/// A shell script in the place of the agent.
///
/// # Panics
/// When it cannot be written.
pub fn script(directory: &Directory, text: &str) -> String {
    let path = directory.write("rampart", text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    path.display().to_string()
}

/// An agent that never gets ready: `lab up` waits for it.
///
/// # Panics
/// When it cannot be written.
pub fn sleeper(directory: &Directory) -> String {
    script(directory, "#!/bin/sh\nexec sleep 600\n")
}

/// A small `rctl lab up` that has started everything and waits for an agent that never gets
/// ready.
///
/// # Panics
/// When it does not get that far.
pub fn up_that_waits(lab: &Lab, directory: &Directory) -> Child {
    let mut command = lab.command(&["lab", "up", "--rampart", &sleeper(directory)]);
    command.args(SMALL).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("rctl runs");
    eventually(PATIENCE, "the agents are started", || {
        State::load(lab.name())
            .ok()
            .flatten()
            .is_some_and(|state| state.process("agent n11").is_some())
    });
    child
}

//! `rctl lab up` and `down` with working agents.
#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;
use std::fs;

use ctl::lab::state::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::lab::{Lab, SMALL};
use tests::netns::Directory;
use tests::program;
use tests::stand_in::up_that_waits;

/// Role and pid of everything that runs.
fn pids(lab: &Lab) -> BTreeSet<(String, i32)> {
    let state = State::of_running(lab.name()).expect("the lab is up");
    state.processes.iter().map(|process| (process.role.clone(), process.pid)).collect()
}

#[test]
fn down_leaves_no_namespace_process_or_file() {
    let lab = Lab::up(&SMALL);
    assert!(!lab.remains().is_empty());
    lab.rctl_ok(&["lab", "down"]);
    assert_eq!(lab.remains(), Vec::<String>::new());
}

#[test]
fn up_twice_keeps_what_runs_and_restarts_what_died() {
    let lab = Lab::up(&SMALL);
    let first = pids(&lab);
    lab.rctl_ok(&[&["lab", "up"], &SMALL[..]].concat());
    assert_eq!(pids(&lab), first);
    let (_, server) = first.iter().find(|(role, _)| role == "server web-1").expect("a server");
    kill(Pid::from_raw(*server), Signal::SIGKILL).expect("kill");
    lab.rctl_ok(&[&["lab", "up"], &SMALL[..]].concat());
    let changed: Vec<_> = pids(&lab).difference(&first).map(|(role, _)| role.clone()).collect();
    assert_eq!(changed, ["server web-1"]);
}

#[test]
fn up_with_other_options_is_refused_and_changes_nothing() {
    let lab = Lab::up(&SMALL);
    let before = lab.remains();
    let output = lab.rctl(&["lab", "up", "--tor", "rampart"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(lab.remains(), before);
}

#[test]
fn up_after_a_killed_up_starts_afresh() {
    let lab = Lab::new();
    let directory = Directory::new("stand-in");
    let mut child = up_that_waits(&lab, &directory);
    child.kill().expect("kill");
    child.wait().expect("wait");
    lab.rctl_ok(&[&["lab", "up"], &SMALL[..]].concat());
}

#[test]
fn up_after_a_new_build_replaces_what_runs_the_old_one() {
    let directory = Directory::new("build");
    let rampart = directory.join("rampart");
    fs::copy(program::rampart(), &rampart).expect("copy");
    let lab = Lab::new();
    let path = rampart.display().to_string();
    let up = [&["lab", "up", "--rampart", &path], &SMALL[..]].concat();
    lab.rctl_ok(&up);
    let before = pids(&lab);
    fs::remove_file(&rampart).expect("remove");
    fs::copy(program::rampart(), &rampart).expect("copy");
    lab.rctl_ok(&up);
    let changed: Vec<_> = pids(&lab).difference(&before).map(|(role, _)| role.clone()).collect();
    assert_eq!(changed, ["agent n11", "agent tor1"]);
}

//! `rctl lab up` and `down` with working agents.

use std::collections::BTreeSet;

use ctl::lab::state::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::lab::{Lab, SMALL};
use tests::netns::Directory;
use tests::stand_in::up_that_waits;

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
    let pids = || -> BTreeSet<(String, i32)> {
        let state = State::of_running(lab.name()).expect("the lab is up");
        state.processes.iter().map(|p| (p.role.clone(), p.pid)).collect()
    };
    let first = pids();
    lab.rctl_ok(&[&["lab", "up"], &SMALL[..]].concat());
    assert_eq!(pids(), first);
    let (_, server) = first.iter().find(|(role, _)| role == "server web-1").expect("a server");
    kill(Pid::from_raw(*server), Signal::SIGKILL).expect("kill");
    lab.rctl_ok(&[&["lab", "up"], &SMALL[..]].concat());
    let changed: Vec<_> = pids().difference(&first).map(|(role, _)| role.clone()).collect();
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

//! `rctl lab up` that fails, is refused, interrupted or killed: nothing is left.

use std::fs;
use std::os::unix::process::CommandExt as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::lab::{Lab, SMALL};
use tests::netns::Directory;
use tests::program;
use tests::stand_in::{script, sleeper, up_that_waits};

#[test]
fn down_without_a_lab_has_nothing_to_do() {
    let lab = Lab::new();
    let text = lab.rctl_ok(&["lab", "down"]);
    assert!(text.contains("nothing to remove"), "{text}");
    assert_eq!(lab.remains(), Vec::<String>::new());
}

#[test]
fn an_agent_that_does_not_start_rolls_everything_back() {
    let lab = Lab::new();
    let directory = Directory::new("stand-in");
    let rampart = script(&directory, "#!/bin/sh\necho cannot work >&2\nexit 1\n");
    let output = lab.rctl(&[&["lab", "up", "--rampart", &rampart], &SMALL[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("cannot work"), "{errors}");
    assert_eq!(lab.remains(), Vec::<String>::new());
}

#[test]
fn an_agent_that_never_gets_ready_is_given_up_in_time() {
    let lab = Lab::new();
    let directory = Directory::new("stand-in");
    let rampart = sleeper(&directory);
    let arguments = ["lab", "up", "--timeout", "1", "--rampart", &rampart];
    let output = lab.rctl(&[&arguments, &SMALL[..]].concat());
    assert_eq!(output.status.code(), Some(4));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("RC5005") && errors.contains("n11"), "{errors}");
    assert_eq!(lab.remains(), Vec::<String>::new());
}

#[test]
fn ctrl_c_rolls_everything_back() {
    let lab = Lab::new();
    let directory = Directory::new("stand-in");
    let mut child = up_that_waits(&lab, &directory);
    let pid = i32::try_from(child.id()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("kill");
    let status = child.wait().expect("wait");
    assert_eq!(status.code(), Some(1));
    assert_eq!(lab.remains(), Vec::<String>::new());
}

#[test]
fn down_removes_what_a_killed_up_left_behind() {
    let lab = Lab::new();
    let directory = Directory::new("stand-in");
    let mut child = up_that_waits(&lab, &directory);
    child.kill().expect("kill");
    child.wait().expect("wait");
    // The worst case: not even the notes are left.
    fs::remove_file(lab.directory().join("lab.json")).expect("remove the state");
    assert!(lab.remains().len() > 3, "{:?}", lab.remains());
    lab.rctl_ok(&["lab", "down"]);
    assert_eq!(lab.remains(), Vec::<String>::new());
}

#[test]
fn without_root_the_lab_is_refused_with_its_reason() {
    let lab = Lab::new();
    // Where the binary lies may be closed to other users.
    let directory = Directory::new("rctl");
    let rctl = directory.join("rctl");
    fs::copy(program::rctl(), &rctl).expect("copy rctl");
    let output = std::process::Command::new(&rctl)
        .args(["lab", "up", "--lab", lab.name().as_str()])
        .uid(65534)
        .gid(65534)
        .output()
        .expect("rctl runs");
    assert_eq!(output.status.code(), Some(5));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("RC5002") && errors.contains("sudo"), "{errors}");
    assert_eq!(lab.remains(), Vec::<String>::new());
}

#[test]
fn a_missing_agent_is_named_before_anything_is_made() {
    let lab = Lab::new();
    let output = lab.rctl(&["lab", "up", "--rampart", "/nonexistent/rampart"]);
    assert_eq!(output.status.code(), Some(5));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("RC5003") && errors.contains("/nonexistent/rampart"), "{errors}");
    assert_eq!(lab.remains(), Vec::<String>::new());
}

//! The programs under test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The agent: `RAMPART_BIN`, or built now.
pub fn rampart() -> PathBuf {
    program("RAMPART_BIN", "rampart")
}

/// `rctl`: `RCTL_BIN`, or built now.
pub fn rctl() -> PathBuf {
    program("RCTL_BIN", "rctl")
}

fn program(variable: &str, name: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => built().join(name),
    }
}

/// Builds both once for each test program, so that a test never runs against an old binary.
fn built() -> &'static PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let us = std::env::current_exe().expect("path of the test program");
        // target/PROFILE/deps/TEST
        let profile = us.ancestors().nth(2).expect("target directory").to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        build.args(["build", "--quiet", "-p", "agent", "-p", "ctl", "--bins"]);
        build.arg("--target-dir").arg(profile.parent().expect("target directory"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("cargo runs");
        assert!(status.success(), "the programs under test do not build");
        profile
    })
}

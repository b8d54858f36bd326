//! `rctl lab` as a user runs it, with a name of its own for each test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ctl::lab::matrix::Probe;
use ctl::lab::{Name, namespace, process};

use crate::program;

/// Options of the smallest lab.
pub const SMALL: [&str; 10] = [
    "--racks",
    "1",
    "--tors",
    "1",
    "--nodes-per-rack",
    "1",
    "--pods-per-node",
    "1",
    "--tor",
    "rampart",
];

/// A lab that goes with the test.
#[derive(Debug)]
pub struct Lab {
    name: Name,
}

impl Lab {
    /// A name for a lab; nothing is made yet.
    ///
    /// # Panics
    /// Never in practice.
    pub fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        // Twelve characters at most: pids have seven digits at most.
        let text = format!("t{:x}x{count:x}", std::process::id());
        Self { name: text.parse().expect("a lab name") }
    }

    /// A lab that is up with these options.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn up(options: &[&str]) -> Self {
        let lab = Self::new();
        let output = lab.rctl(&[&["lab", "up"], options].concat());
        assert!(
            output.status.success(),
            "lab up failed:\n{}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            lab.agent_logs()
        );
        lab
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The command, ready to be changed and run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program::rctl());
        command
            .env("RCTL_LAB", self.name.as_str())
            .env("RAMPART_BIN", program::rampart())
            .args(arguments);
        command
    }

    /// Runs `rctl` for this lab.
    ///
    /// # Panics
    /// When it does not start.
    pub fn rctl(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("rctl runs")
    }

    /// Runs `rctl` and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn rctl_ok(&self, arguments: &[&str]) -> String {
        let output = self.rctl(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "rctl {arguments:?} failed:\n{text}{}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.agent_logs()
        );
        text
    }

    /// Every pod to every pod.
    ///
    /// # Panics
    /// When `rctl lab matrix` fails.
    pub fn matrix(&self) -> Vec<Probe> {
        let text = self.rctl_ok(&["lab", "matrix", "-o", "json"]);
        serde_json::from_str(&text).expect("the matrix as JSON")
    }

    /// What of this lab is on the machine: namespaces, processes, files.
    ///
    /// # Panics
    /// When that cannot be listed.
    pub fn remains(&self) -> Vec<String> {
        let mut remains = namespace::list(&self.name.namespace_prefix()).expect("namespaces");
        for process in process::marked(&self.name) {
            remains.push(format!("process {} {}", process.pid, process.role));
        }
        let directory = self.name.directory();
        if directory.exists() {
            remains.push(directory.display().to_string());
        }
        remains
    }

    /// Directory of the lab's files.
    pub fn directory(&self) -> PathBuf {
        self.name.directory()
    }

    /// The ends of the agents' logs.
    fn agent_logs(&self) -> String {
        let mut text = String::new();
        let Ok(entries) = fs::read_dir(self.directory()) else {
            return text;
        };
        for entry in entries.filter_map(Result::ok) {
            let log = entry.path().join("agent.log");
            if log.exists() {
                text += &format!("--- {}\n{}\n", log.display(), tail(&log));
            }
        }
        text
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.agent_logs());
        }
        let output = self.rctl(&["lab", "down"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("lab down failed: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// How long anything of a lab may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

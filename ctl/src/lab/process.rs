//! Processes of the lab: started inside a namespace, recognised later, ended.
//!
//! A process is ours when its pid and start time are those we wrote down, or, for one that a
//! crash kept from being written down, when its environment carries our mark. A pid alone proves
//! nothing: the kernel gives it to the next one.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::error::LabError;
use super::name::Name;
use super::namespace;
use super::preflight::search_path;

/// Environment variable that marks every process of a lab with its name.
pub const MARK: &str = "RAMPART_LAB_MEMBER";

/// A process that the lab started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its job: `agent n11`, `bird tor1`, `server web-1`.
    pub role: String,
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks after boot.
    pub start_time: u64,
    /// Namespace it runs in.
    pub namespace: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its output.
    pub log: PathBuf,
}

/// What the process is to run.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its job, unique in the lab.
    pub role: String,
    /// Namespace to run in.
    pub namespace: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where its output goes, after what an earlier life wrote there.
    pub log: PathBuf,
    /// File that it makes when it is ready for those who are started after it.
    pub ready: Option<PathBuf>,
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    start_time: u64,
}

impl Process {
    /// Starts it, in a process group of its own so that a Ctrl-C at the terminal is not meant
    /// for it.
    ///
    /// # Errors
    /// [`LabError::Start`], [`LabError::Enter`], [`LabError::File`].
    pub fn start(lab: &Name, start: Start) -> Result<Self, LabError> {
        let Start { role, namespace, command, log, ready: _ } = start;
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(LabError::file("open", &log))?;
        let errors = output.try_clone().map_err(LabError::file("duplicate", &log))?;
        let Some((program, arguments)) = command.split_first() else {
            return Err(LabError::Options(format!("{role} has no command")));
        };
        let child = namespace::within(&namespace, || {
            Command::new(program)
                .args(arguments)
                .env(MARK, lab.as_str())
                .env("PATH", search_path())
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(errors)
                .process_group(0)
                .spawn()
        })?
        .map_err(|source| LabError::Start { role: role.clone(), source })?;
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        // A child that is gone already keeps its entry until we wait for it, so this reads.
        let stat = stat(pid)
            .ok_or_else(|| LabError::Ended { role: role.clone(), last_words: last_line(&log) })?;
        Ok(Self { role, pid, start_time: stat.start_time, namespace, command, log })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        stat(self.pid).is_some_and(|now| now.start_time == self.start_time && now.state != 'Z')
    }

    /// Whether its program was replaced since it started, as a new build does.
    #[must_use]
    pub fn outdated(&self) -> bool {
        // proc(5): the link of an unlinked program ends so.
        fs::read_link(format!("/proc/{}/exe", self.pid))
            .is_ok_and(|program| program.to_string_lossy().ends_with(" (deleted)"))
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.alive() {
            // It may have ended since the look above: then there is nothing to signal.
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }

    /// The last line it wrote.
    #[must_use]
    pub fn last_words(&self) -> String {
        last_line(&self.log)
    }
}

/// How long processes may take to end by themselves.
pub const GRACE: Duration = Duration::from_secs(3);

/// Ends processes: SIGTERM to all, and SIGKILL for what is left after `grace`.
///
/// # Errors
/// [`LabError::Stuck`] when one survives even that for five seconds.
pub fn end(processes: &[Process], grace: Duration) -> Result<(), LabError> {
    for process in processes {
        process.signal(Signal::SIGTERM);
        // One that a scenario stopped would not see the SIGTERM.
        process.signal(Signal::SIGCONT);
    }
    if gone(processes, grace) {
        return Ok(());
    }
    for process in processes {
        process.signal(Signal::SIGKILL);
    }
    if gone(processes, Duration::from_secs(5)) {
        return Ok(());
    }
    match processes.iter().find(|process| process.alive()) {
        Some(process) => Err(LabError::Stuck { role: process.role.clone(), pid: process.pid }),
        None => Ok(()),
    }
}

fn gone(processes: &[Process], limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if !processes.iter().any(Process::alive) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All running processes with the mark of this lab, whether written down or not.
#[must_use]
pub fn marked(lab: &Name) -> Vec<Process> {
    let mark = format!("{MARK}={lab}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            let directory = PathBuf::from(format!("/proc/{pid}"));
            let stat = stat(pid).filter(|stat| stat.state != 'Z')?;
            let environment = fs::read(directory.join("environ")).ok()?;
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()).then(
                || Process {
                    role: fs::read_to_string(directory.join("comm"))
                        .map_or_else(|_| pid.to_string(), |name| name.trim().to_owned()),
                    pid,
                    start_time: stat.start_time,
                    namespace: String::new(),
                    command: Vec::new(),
                    log: PathBuf::new(),
                },
            )
        })
        .collect()
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc(5): `pid (comm) state ppid ...`, start time is field 22. The name may hold anything,
/// parentheses too, so the fields count from the last one.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

fn last_line(log: &Path) -> String {
    fs::read_to_string(log)
        .ok()
        .and_then(|text| text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned))
        .unwrap_or_else(|| format!("nothing in {}", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_read_past_a_hostile_process_name() {
        let line = "42 (a) Z 1 ()) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2";
        assert_eq!(parse_stat(line), Some(Stat { state: 'S', start_time: 98765 }));
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_ours() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let mut process = Process {
            role: "this test".to_owned(),
            pid,
            start_time: stat(pid).unwrap().start_time,
            namespace: String::new(),
            command: Vec::new(),
            log: PathBuf::new(),
        };
        assert!(process.alive());
        process.start_time += 1;
        assert!(!process.alive());
    }
}

//! Processes of a cluster: started inside a namespace, found again by a later run, ended.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ctl::lab::namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::name::Name;

/// How long the kernel may take to end what was killed.
const GRACE: Duration = Duration::from_secs(10);
/// How many lines of a log an error shows.
const LAST_WORDS: usize = 30;

/// Starts a program inside a namespace of the cluster, in a process group of its own: Ctrl-C at
/// the terminal is meant for the test. Its pid goes to `pid/ROLE`, its output to `log/ROLE.log`.
///
/// # Errors
/// When it does not start.
pub fn start(
    name: &Name,
    member: &str,
    role: &str,
    command: &mut Command,
) -> anyhow::Result<Child> {
    let directory = name.directory();
    let log = directory.join("log").join(format!("{role}.log"));
    let output = OpenOptions::new().create(true).append(true).open(&log)?;
    let errors = output.try_clone()?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0).current_dir("/");
    let child = namespace::within(&name.namespace(member), || command.spawn())?;
    let child = child.with_context(|| format!("{role} ({})", command.get_program().display()))?;
    fs::write(directory.join("pid").join(role), child.id().to_string())?;
    Ok(child)
}

/// Pid of a role, if that process runs.
#[must_use]
pub fn pid(name: &Name, role: &str) -> Option<i32> {
    let text = fs::read_to_string(name.directory().join("pid").join(role)).ok()?;
    let pid = text.trim().parse().ok()?;
    runs(pid).then_some(pid)
}

/// The last lines that a role wrote: what an error about it should say.
#[must_use]
pub fn last_words(name: &Name, role: &str) -> String {
    let log = name.directory().join("log").join(format!("{role}.log"));
    let text = fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(LAST_WORDS).collect();
    let lines: Vec<&str> = lines.into_iter().rev().collect();
    format!("{}: {}", log.display(), lines.join("\n"))
}

/// Kills the process of a role and waits for its end.
///
/// # Errors
/// When it survives.
pub fn stop(name: &Name, role: &str) -> anyhow::Result<()> {
    let Some(pid) = pid(name, role) else { bail!("{role} does not run") };
    end(&BTreeSet::from([pid]))?;
    fs::remove_file(name.directory().join("pid").join(role))?;
    Ok(())
}

/// Kills processes and waits for their end.
///
/// # Errors
/// When one survives.
pub fn end(pids: &BTreeSet<i32>) -> anyhow::Result<()> {
    for pid in pids {
        // Gone already is fine.
        kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
    }
    let began = Instant::now();
    while let Some(pid) = pids.iter().find(|pid| runs(**pid)) {
        if began.elapsed() > GRACE {
            bail!("process {pid} survives SIGKILL");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Every process whose network namespace is one of these, by the names `ip netns` knows.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn inside(namespaces: &[String]) -> anyhow::Result<BTreeSet<i32>> {
    use std::os::unix::fs::MetadataExt as _;
    let identities: BTreeSet<(u64, u64)> = namespaces
        .iter()
        .filter_map(|name| fs::metadata(namespace::path(name)).ok())
        .map(|metadata| (metadata.dev(), metadata.ino()))
        .collect();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|text| text.parse::<i32>().ok()) else {
            continue;
        };
        let identity = fs::metadata(Path::new("/proc").join(pid.to_string()).join("ns/net"));
        if identity.is_ok_and(|it| identities.contains(&(it.dev(), it.ino()))) && runs(pid) {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// Start time of a process in clock ticks after boot: with the pid, its identity.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    stat(pid).ok()?.1
}

fn runs(pid: i32) -> bool {
    stat(pid).is_ok_and(|(state, _)| state != 'Z' && state != 'X')
}

/// proc(5): `pid (comm) state ppid ...`, start time is field 22. The name may hold anything.
fn stat(pid: i32) -> io::Result<(char, Option<u64>)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let mut fields =
        text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
    let state = fields.next().and_then(|field| field.chars().next()).unwrap_or('X');
    Ok((state, fields.nth(18).and_then(|field| field.parse().ok())))
}

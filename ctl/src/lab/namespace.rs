//! Network namespaces: made and wired by `ip`, entered by threads of ours.
//!
//! Veths are created directly between the namespaces, so that the host's own namespace never
//! sees any of them.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};

use super::error::LabError;
use super::name::Name;
use super::process::MARK;

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// File that stands for the namespace.
#[must_use]
pub fn path(namespace: &str) -> PathBuf {
    Path::new(NAMES).join(namespace)
}

/// Names of all network namespaces of this machine that begin with `prefix`, sorted.
///
/// # Errors
/// [`LabError::File`] when the directory of names cannot be read.
pub fn list(prefix: &str) -> Result<Vec<String>, LabError> {
    let entries = match std::fs::read_dir(NAMES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LabError::file("read", Path::new(NAMES))(error)),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    Ok(names)
}

/// Runs `work` on a thread of its own inside the namespace and waits for it. What it starts is
/// inside of the namespace too.
///
/// # Errors
/// [`LabError::Enter`] when there is no such namespace or it may not be entered.
pub fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace)?;
            Ok(work())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Moves the calling thread into the namespace, for good.
///
/// # Errors
/// [`LabError::Enter`] when there is no such namespace or it may not be entered.
pub fn enter(namespace: &str) -> Result<(), LabError> {
    let failed = |source| LabError::Enter { namespace: namespace.to_owned(), source };
    let file = File::open(path(namespace)).map_err(failed)?;
    setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))
}

/// Runs `ip -batch` on the given lines, inside `namespace` or, without one, where we are. Carries
/// the mark of the lab, so that `down` also ends one that outlived a killed `up`.
///
/// # Errors
/// [`LabError::Ip`] with what `ip` said, and [`LabError::Start`] when it does not start.
pub fn ip_batch(
    lab: Option<&Name>,
    namespace: Option<&str>,
    lines: &[String],
) -> Result<(), LabError> {
    if lines.is_empty() {
        return Ok(());
    }
    let start = |source| LabError::Start { role: "ip".to_owned(), source };
    let mut command = Command::new("ip");
    if let Some(lab) = lab {
        command.env(MARK, lab.as_str());
    }
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let mut script = lines.join("\n");
    script.push('\n');
    if let Some(mut stdin) = child.stdin.take() {
        // When `ip` gives up early its message on stderr says more than our broken pipe.
        stdin.write_all(script.as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(start)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(LabError::Ip { message: explain(&words, lines) })
}

/// `Command failed -:7` alone helps nobody: adds the line it means.
fn explain(words: &str, lines: &[String]) -> String {
    let words = words.trim().replace('\n', "; ");
    let line = words
        .rsplit_once("-:")
        .and_then(|(_, number)| number.parse::<usize>().ok())
        .and_then(|number| lines.get(number.checked_sub(1)?));
    match line {
        Some(line) => format!("{words} ({line})"),
        None => words,
    }
}

/// Writes sysctls (`net.ipv4.ip_forward` style names with slashes) inside of the namespace.
///
/// # Errors
/// [`LabError::File`] for one that cannot be set, [`LabError::Enter`].
pub fn sysctl(namespace: &str, settings: &[(&str, &str)]) -> Result<(), LabError> {
    within(namespace, || {
        for (key, value) in settings {
            let path = Path::new("/proc/sys/net").join(key);
            std::fs::write(&path, value).map_err(LabError::file("write", &path))?;
        }
        Ok(())
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_batch_names_the_line_that_failed() {
        let lines = ["link add a".to_owned(), "bogus".to_owned()];
        assert_eq!(
            explain("Object \"bogus\" is unknown\nCommand failed -:2\n", &lines),
            "Object \"bogus\" is unknown; Command failed -:2 (bogus)"
        );
    }
}

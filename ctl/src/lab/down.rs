//! `rctl lab down`: removes whatever a lab of this name made, whole or in part.
//!
//! It does not trust the state file alone: processes are also found by their mark and
//! namespaces by their prefix, so that a crash at any moment leaves nothing that `down` misses.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::error::LabError;
use super::name::Name;
use super::namespace;
use super::process::{self, GRACE, Process};
use super::state::{Lock, State};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Processes that were ended.
    pub processes: usize,
    /// Namespaces that were deleted.
    pub namespaces: usize,
    /// Processes of someone else that still run in a deleted namespace, `name (pid)`.
    pub strangers: Vec<String>,
}

/// Removes the lab. The lock's directory is part of what goes.
///
/// # Errors
/// [`LabError::Stuck`], [`LabError::Ip`], [`LabError::File`]; calling it again goes on from there.
pub fn remove(lab: &Name, _lock: &Lock) -> Result<Removed, LabError> {
    // A damaged file only costs us the names: the marks tell who is ours.
    let recorded = State::load(lab).ok().flatten().map(|state| state.processes).unwrap_or_default();
    let mut removed = Removed::default();
    let alive: Vec<Process> = recorded.into_iter().filter(Process::alive).collect();
    process::end(&alive, GRACE)?;
    removed.processes += alive.len();
    let unrecorded = others_with_mark(lab);
    process::end(&unrecorded, GRACE)?;
    removed.processes += unrecorded.len();

    let namespaces = namespace::list(&lab.namespace_prefix())?;
    removed.strangers = strangers(&namespaces);
    let lines: Vec<String> = namespaces.iter().map(|name| format!("netns del {name}")).collect();
    namespace::ip_batch(Some(lab), None, &lines)?;
    removed.namespaces = namespaces.len();

    let directory = lab.directory();
    match fs::remove_dir_all(&directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(LabError::file("remove", &directory)(error)),
    }
    Ok(removed)
}

/// Processes with our mark, but for this one (`rctl lab exec n11 -- rctl lab down`).
fn others_with_mark(lab: &Name) -> Vec<Process> {
    let us = nix::unistd::getpid().as_raw();
    process::marked(lab).into_iter().filter(|process| process.pid != us).collect()
}

/// Who still runs inside. Not ours, so not ended; their namespace goes when they do.
fn strangers(namespaces: &[String]) -> Vec<String> {
    let identity =
        |path: &std::path::Path| fs::metadata(path).ok().map(|entry| (entry.dev(), entry.ino()));
    let inside: Vec<_> =
        namespaces.iter().filter_map(|name| identity(&namespace::path(name))).collect();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|directory| {
            identity(&directory.join("ns/net")).is_some_and(|net| inside.contains(&net))
        })
        .filter_map(|directory| {
            let name = fs::read_to_string(directory.join("comm")).ok()?;
            let pid = directory.file_name()?.to_str()?.to_owned();
            Some(format!("{} ({pid})", name.trim()))
        })
        .collect()
}

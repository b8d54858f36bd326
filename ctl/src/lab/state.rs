//! What the lab remembers between two calls of `rctl lab`: written before what it is about.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::LabError;
use super::name::Name;
use super::process::Process;
use super::progress::say;
use super::topology::Options;

const FILE: &str = "lab.json";

/// Memory of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// What it is built from.
    pub options: Options,
    /// With the policies of the demo application.
    pub policies: bool,
    /// The agent's program.
    pub rampart: PathBuf,
    /// It came up; false while it is being built or taken down.
    pub complete: bool,
    /// What was started, in order.
    pub processes: Vec<Process>,
}

impl State {
    /// Reads the state of the lab; `None` when there is none.
    ///
    /// # Errors
    /// [`LabError::File`], and [`LabError::State`] when the file is damaged.
    pub fn load(lab: &Name) -> Result<Option<Self>, LabError> {
        let path = lab.directory().join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LabError::file("read", &path)(error)),
        };
        serde_json::from_str(&text).map(Some).map_err(|source| LabError::State { path, source })
    }

    /// The state of a lab that is up.
    ///
    /// # Errors
    /// [`LabError::NotUp`], and those of [`State::load`].
    pub fn of_running(lab: &Name) -> Result<Self, LabError> {
        Self::load(lab)?
            .filter(|state| state.complete)
            .ok_or_else(|| LabError::NotUp { name: lab.to_string() })
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// [`LabError::File`].
    pub fn save(&self, lab: &Name) -> Result<(), LabError> {
        let path = lab.directory().join(FILE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| LabError::State { path: path.clone(), source })?;
        write_atomically(&path, &text)
    }

    /// The process with this role.
    #[must_use]
    pub fn process(&self, role: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.role == role)
    }

    /// Notes a process, in the place of an earlier one with the same role.
    pub fn remember(&mut self, process: Process) {
        match self.processes.iter_mut().find(|known| known.role == process.role) {
            Some(known) => *known = process,
            None => self.processes.push(process),
        }
    }
}

/// Writes a file so that a reader sees the old or the new content, nothing between.
///
/// # Errors
/// [`LabError::File`].
pub fn write_atomically(path: &Path, text: &str) -> Result<(), LabError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let draft = path.with_file_name(name);
    fs::write(&draft, text).map_err(LabError::file("write", &draft))?;
    fs::rename(&draft, path).map_err(LabError::file("replace", path))
}

/// Keeps two calls of `rctl lab` from changing one lab at the same time. Held while it lives; it
/// is a lock on the lab's directory, so it leaves nothing behind.
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

impl Lock {
    /// Waits for the lock; makes the lab's directory if there is none.
    ///
    /// # Errors
    /// [`LabError::File`].
    pub fn acquire(lab: &Name) -> Result<Self, LabError> {
        let path = lab.directory();
        loop {
            fs::create_dir_all(&path).map_err(LabError::file("make", &path))?;
            let directory = match File::open(&path) {
                Ok(directory) => directory,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(LabError::file("open", &path)(error)),
            };
            match directory.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    say(&format!("waiting for another rctl that works on lab {lab}"));
                    directory.lock().map_err(LabError::file("lock", &path))?;
                }
                Err(TryLockError::Error(error)) => {
                    return Err(LabError::file("lock", &path)(error));
                }
            }
            // Who held the lock may have removed the directory: then ours is a lock on nothing.
            let ours = directory.metadata().map_err(LabError::file("look at", &path))?;
            match fs::metadata(&path) {
                Ok(now) if now.ino() == ours.ino() && now.dev() == ours.dev() => {
                    return Ok(Self { _directory: directory });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LabError::file("look at", &path)(error)),
            }
        }
    }
}

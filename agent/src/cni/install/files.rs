//! The files themselves. Blocking.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use api::constant::{CNI_CONFLIST, CNI_PLUGIN};

use super::Places;
use crate::cni::plugin::delegate::{Delegate, is_program};
use crate::cni::plugin::version::Version;

/// Our own program, whatever it was started as.
const OWN_PROGRAM: &str = "/proc/self/exe";
const PLUGIN_MODE: u32 = 0o755;

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It was right.
    None,
    /// It was missing or different.
    Written,
}

/// A file as it was when it was looked at: whatever is done to it, its ctime changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(metadata: &Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self { device: metadata.dev(), inode: metadata.ino(), changed }
    }
}

/// What need not be found out again: the plugin has tens of megabytes, and asking a plugin for its
/// versions starts a program.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// The plugin, when it was found to be right.
    plugin: Option<Fingerprint>,
    /// `portmap`, and whether it speaks 1.1.0.
    portmap: Option<(Fingerprint, bool)>,
}

/// A list that runtimes take instead of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shadow {
    pub(super) path: PathBuf,
}

/// What there is beside our own files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Plugins that are needed and not there.
    pub(super) missing: Vec<String>,
    /// `portmap` is there.
    pub(super) portmap: bool,
    /// Every plugin that a runtime will call speaks 1.1.0.
    pub(super) recent: bool,
    pub(super) shadow: Option<Shadow>,
}

/// Looks around.
pub(super) fn survey(places: &Places, memory: &mut Memory) -> Survey {
    let is_there = |name: &&str| is_program(&places.bin.join(name));
    let missing = ["host-local", "portmap"].iter().filter(|name| !is_there(name));
    let missing: Vec<String> = missing.map(|name| (*name).to_owned()).collect();
    let portmap = is_there(&"portmap");
    let mut speaks_recent = || {
        let now = fs::metadata(places.bin.join("portmap")).ok().map(|m| Fingerprint::of(&m));
        if let (Some((then, recent)), Some(now)) = (memory.portmap, now)
            && then == now
        {
            return recent;
        }
        let found = Delegate::find("portmap", std::slice::from_ref(&places.bin));
        let versions = found.and_then(|portmap| portmap.versions());
        let recent = versions.is_ok_and(|versions| versions.contains(&Version::V1_1_0));
        memory.portmap = now.map(|now| (now, recent));
        recent
    };
    Survey { missing, portmap, recent: !portmap || speaks_recent(), shadow: shadow(&places.conf) }
}

/// The first list by name, if it is not ours.
fn shadow(directory: &Path) -> Option<Shadow> {
    let entries = fs::read_dir(directory).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_list = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("conf" | "conflist" | "json"))
    };
    let before = paths
        .filter(|path| is_list(path) && path.file_name().is_some_and(|name| name < CNI_CONFLIST));
    before.min().map(|path| Shadow { path })
}

/// Copies our own program to where runtimes look for the plugin.
pub(super) fn install_plugin(directory: &Path, memory: &mut Memory) -> io::Result<Change> {
    let target = directory.join(CNI_PLUGIN);
    let there = fs::symlink_metadata(&target).ok().map(|metadata| Fingerprint::of(&metadata));
    if there.is_some() && there == memory.plugin {
        return Ok(Change::None);
    }
    if is_same(&target)? {
        memory.plugin = there;
        return Ok(Change::None);
    }
    let hidden = directory.join(format!(".{CNI_PLUGIN}.new"));
    let mut own = File::open(OWN_PROGRAM)?;
    let mut copy = create(&hidden, PLUGIN_MODE)?;
    io::copy(&mut own, &mut copy)?;
    finish(&copy, &hidden, &target, PLUGIN_MODE)?;
    memory.plugin = Some(Fingerprint::of(&copy.metadata()?));
    Ok(Change::Written)
}

/// Writes a file unless it has just this content and mode.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<Change> {
    let right = fs::symlink_metadata(path)
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o7777 == mode);
    if right && fs::read(path).is_ok_and(|found| found == content) {
        return Ok(Change::None);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = path.with_file_name(format!(".{name}.new"));
    let mut file = create(&hidden, mode)?;
    file.write_all(content)?;
    finish(&file, &hidden, path, mode)?;
    Ok(Change::Written)
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)
}

/// A name that was renamed to exists after a crash with its whole content.
fn finish(file: &File, hidden: &Path, target: &Path, mode: u32) -> io::Result<()> {
    // Whatever the umask, and whatever an older file had.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(hidden, target)?;
    match target.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// The plugin is a plain file with the right mode and the content of our own program.
fn is_same(target: &Path) -> io::Result<bool> {
    let Ok(there) = fs::symlink_metadata(target) else { return Ok(false) };
    let own = fs::metadata(OWN_PROGRAM)?;
    if !there.is_file()
        || there.len() != own.len()
        || there.permissions().mode() & 0o7777 != PLUGIN_MODE
    {
        return Ok(false);
    }
    let (mut one, mut other) = (File::open(OWN_PROGRAM)?, File::open(target)?);
    let (mut left, mut right) = (vec![0_u8; 1 << 17], vec![0_u8; 1 << 17]);
    loop {
        let count = fill(&mut one, &mut left)?;
        if fill(&mut other, &mut right)? != count || left.get(..count) != right.get(..count) {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rampart-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_file_is_replaced_when_it_differs_and_only_then() {
        let directory = directory("replace");
        let path = directory.join("list");
        assert_eq!(replace(&path, b"one", 0o644).unwrap(), Change::Written);
        assert_eq!(replace(&path, b"one", 0o644).unwrap(), Change::None);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(replace(&path, b"one", 0o644).unwrap(), Change::Written);
        assert_eq!(replace(&path, b"two", 0o644).unwrap(), Change::Written);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_eq!(replace(&path, b"two", 0o644).unwrap(), Change::Written);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_list_that_sorts_before_ours_is_noticed_and_other_files_are_not() {
        let directory = directory("shadow");
        for name in ["10-zzz.conflist", "00-readme.txt", ".05-hidden.new", CNI_CONFLIST] {
            fs::write(directory.join(name), "{}").unwrap();
        }
        assert_eq!(shadow(&directory), None);
        fs::write(directory.join("05-cilium.conflist"), "{}").unwrap();
        fs::write(directory.join("01-first.conf"), "{}").unwrap();
        assert_eq!(shadow(&directory).unwrap().path, directory.join("01-first.conf"));
        fs::remove_dir_all(&directory).unwrap();
    }
}

//! A cgroup for each node, in the hierarchies of version 1 or in the one of version 2.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

const ROOT: &str = "/sys/fs/cgroup";
/// Controllers that kubelet needs.
const CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"];

fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn hierarchies() -> Vec<PathBuf> {
    if unified() {
        return vec![PathBuf::from(ROOT)];
    }
    CONTROLLERS
        .iter()
        .chain(&["unified"])
        .map(|controller| Path::new(ROOT).join(controller))
        .filter(|directory| directory.is_dir())
        .collect()
}

/// Makes the cgroup `name` and returns it as kubelet's `cgroupRoot`.
///
/// # Errors
/// When the hierarchy cannot be written.
pub fn make(name: &str) -> anyhow::Result<String> {
    if unified() {
        // What is on already, or is not there, stays as it is.
        for controller in ["+cpu", "+cpuset", "+memory", "+pids", "+io"] {
            fs::write(Path::new(ROOT).join("cgroup.subtree_control"), controller).ok();
        }
    }
    for hierarchy in hierarchies() {
        let directory = hierarchy.join(name);
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        // Version 1 begins with an empty set, in which nothing can run.
        if hierarchy.ends_with("cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(directory.join(file), fs::read(hierarchy.join(file))?)?;
            }
        }
    }
    Ok(format!("/{name}"))
}

/// Removes the cgroup `name` and all below it, as far as nothing runs in it.
pub fn remove(name: &str) {
    for hierarchy in hierarchies() {
        remove_tree(&hierarchy.join(name));
    }
}

/// Removes all cgroups whose names begin so.
pub fn remove_all(prefix: &str) {
    for hierarchy in hierarchies() {
        let Ok(entries) = fs::read_dir(&hierarchy) else { continue };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                remove_tree(&entry.path());
            }
        }
    }
}

fn remove_tree(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // Busy for a moment after its last process ended: the sweep of the next start takes the rest.
    for _ in 0..50 {
        if fs::remove_dir(directory).is_ok() || !directory.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

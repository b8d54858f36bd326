//! The directories that the container runtime reads.

use std::fs;
use std::path::Path;

use api::constant::{CNI_CONFLIST, CNI_PLUGIN};
use api::doctor::{Finding, Level};
use api::error_code::{CNI_PLUGIN_MISSING, CNI_SHADOWED};

use super::super::core::CniPlaces;

pub(super) fn examine(places: &CniPlaces) -> Vec<Finding> {
    vec![order(&names(&places.conf)), plugins(&places.bin)]
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Runtimes take the first by name.
fn order(names: &[String]) -> Finding {
    let is_list = |name: &&String| {
        [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end))
            && !name.starts_with('.')
    };
    match names.iter().find(is_list) {
        Some(first) if first == CNI_CONFLIST => Finding::ok("conflist", "first"),
        Some(first) => {
            let message = format!("{first} comes before {CNI_CONFLIST}: runtimes take that one");
            Finding::trouble(Level::Fail, "conflist", CNI_SHADOWED, message)
        }
        None => {
            let message = format!("{CNI_CONFLIST} is not written: the agent is not ready yet");
            let mut finding = Finding::trouble(Level::Fail, "conflist", CNI_SHADOWED, message);
            "See `rctl status` for what the agent waits for.".clone_into(&mut finding.next);
            finding
        }
    }
}

fn plugins(directory: &Path) -> Finding {
    let missing: Vec<&str> = [CNI_PLUGIN, "host-local", "portmap"]
        .into_iter()
        .filter(|name| !directory.join(name).is_file())
        .collect();
    if missing.is_empty() {
        return Finding::ok("CNI plugins", format!("{CNI_PLUGIN}, host-local, portmap"));
    }
    // Without portmap only hostPort is missing.
    let level = if missing == ["portmap"] { Level::Warn } else { Level::Fail };
    let message = format!("not in the CNI binary directory: {}", missing.join(", "));
    let mut finding = Finding::trouble(level, "CNI plugins", CNI_PLUGIN_MISSING, message);
    "Install the package containernetworking-plugins (or the release of github.com/containernetworking/plugins)."
        .clone_into(&mut finding.next);
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_first_list_by_name_must_be_ours() {
        assert_eq!(
            order(&owned(&["00-readme.txt", CNI_CONFLIST, "87-podman.conflist"])).level,
            Level::Ok
        );
        let finding = order(&owned(&["05-cilium.conflist", CNI_CONFLIST]));
        assert!(
            finding.message.starts_with("05-cilium.conflist comes before"),
            "{}",
            finding.message
        );
        assert_eq!(order(&[]).level, Level::Fail);
        assert_eq!(order(&owned(&[".10-rampart.conflist.new"])).level, Level::Fail);
    }

    #[test]
    fn a_missing_portmap_is_a_trap_and_a_missing_host_local_a_failure() {
        let directory = std::env::temp_dir().join(format!("rampart-doctor-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for name in [CNI_PLUGIN, "host-local"] {
            fs::write(directory.join(name), "").unwrap();
        }
        assert_eq!(plugins(&directory).level, Level::Warn);
        fs::remove_file(directory.join("host-local")).unwrap();
        let finding = plugins(&directory);
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.message.ends_with("host-local, portmap"), "{}", finding.message);
        fs::remove_dir_all(&directory).unwrap();
    }
}

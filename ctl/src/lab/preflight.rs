//! Looks whether the machine can carry a lab, before anything is made.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::LabError;
use super::topology::{TorChoice, TorKind};
use super::tor::FRR_DIRECTORY;

/// Capability numbers of linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Checks privilege.
///
/// # Errors
/// [`LabError::NotPrivileged`].
pub fn privilege() -> Result<(), LabError> {
    let missing = |missing| LabError::NotPrivileged { missing };
    if !nix::unistd::geteuid().is_root() {
        return Err(missing("root: it makes network namespaces"));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = effective_capabilities(&status);
    if effective & (1 << CAP_SYS_ADMIN) == 0 {
        return Err(missing("CAP_SYS_ADMIN, which this container was started without"));
    }
    if effective & (1 << CAP_NET_ADMIN) == 0 {
        return Err(missing("CAP_NET_ADMIN, which this container was started without"));
    }
    Ok(())
}

fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        // Without /proc nobody knows: the kernel will say no in its own words.
        .unwrap_or(u64::MAX)
}

/// Checks the programs and kernel features that every lab needs.
///
/// # Errors
/// [`LabError::MissingProgram`], [`LabError::MissingKernelFeature`].
pub fn machine() -> Result<(), LabError> {
    if find("ip").is_none() {
        return Err(missing_package("ip", "iproute2"));
    }
    for (path, feature) in
        [("/proc/self/ns/net", "network namespaces"), ("/proc/sys/net/ipv6", "IPv6")]
    {
        if !Path::new(path).exists() {
            return Err(LabError::MissingKernelFeature { feature });
        }
    }
    Ok(())
}

/// The agent's program: the one given, or the one beside us.
///
/// # Errors
/// [`LabError::MissingProgram`].
pub fn rampart(given: Option<&Path>) -> Result<PathBuf, LabError> {
    let beside = std::env::current_exe().ok().and_then(|us| Some(us.parent()?.join("rampart")));
    let candidate = given.map(Path::to_owned).or(beside).unwrap_or_default();
    match fs::canonicalize(&candidate) {
        Ok(path) if path.is_file() => Ok(path),
        _ => Err(LabError::MissingProgram {
            program: candidate.display().to_string(),
            remedy: "Build it (cargo build --release), or give its path with --rampart.".to_owned(),
        }),
    }
}

/// Decides what runs on each ToR.
///
/// # Errors
/// [`LabError::MissingProgram`] when the user named what is not installed.
pub fn tor_kinds(choice: TorChoice, count: u8) -> Result<Vec<TorKind>, LabError> {
    let bird = find("bird").is_some();
    let frr = ["zebra", "bgpd"].iter().all(|daemon| Path::new(FRR_DIRECTORY).join(daemon).exists());
    let pair = match choice {
        TorChoice::Auto => match (bird, frr) {
            (true, true) => [TorKind::Bird, TorKind::Frr],
            (true, false) => [TorKind::Bird; 2],
            (false, true) => [TorKind::Frr; 2],
            (false, false) => [TorKind::Rampart; 2],
        },
        TorChoice::Bird => [TorKind::Bird; 2],
        TorChoice::Frr => [TorKind::Frr; 2],
        TorChoice::Rampart => [TorKind::Rampart; 2],
        TorChoice::Mixed => [TorKind::Bird, TorKind::Frr],
    };
    let kinds: Vec<TorKind> = pair.into_iter().cycle().take(count.into()).collect();
    if kinds.contains(&TorKind::Bird) && !bird {
        return Err(missing_package("bird", "bird2"));
    }
    if kinds.contains(&TorKind::Frr) && !frr {
        return Err(missing_package("bgpd", "frr"));
    }
    Ok(kinds)
}

fn missing_package(program: &str, package: &str) -> LabError {
    LabError::MissingProgram {
        program: program.to_owned(),
        remedy: format!("Install it: apt-get install {package}"),
    }
}

/// Where programs are looked up: PATH, and where daemons live when PATH does not say so.
#[must_use]
pub fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path())
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_capabilities_are_read_from_proc() {
        let status = "Name:\trctl\nCapPrm:\t0\nCapEff:\t0000000000201000\nCapBnd:\t0\n";
        let mask = effective_capabilities(status);
        assert_eq!(mask, 1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN);
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_remedy() {
        let error = rampart(Some(Path::new("/nonexistent/rampart"))).unwrap_err();
        assert!(matches!(error, LabError::MissingProgram { ref program, .. }
            if program == "/nonexistent/rampart"));
    }
}

//! What only this machine's own files and programs tell.

use std::fs;
use std::path::{Path, PathBuf};

use api::doctor::{Finding, Level};
use api::error_code;

use super::firewall;

/// Later files win, and in one file later lines (systemd.conf.d(5)).
const NETWORKD: [&str; 2] = ["/etc/systemd/networkd.conf", "/etc/systemd/networkd.conf.d"];
/// There while systemd-networkd runs.
const NETWORKD_RUNS: &str = "/run/systemd/netif";

/// Looks at this machine; what `known` says already is not said again.
pub(super) fn examine(known: &[Finding]) -> Vec<Finding> {
    let networkd = Path::new(NETWORKD_RUNS).exists().then(|| {
        let texts = networkd_files().into_iter().filter_map(|path| fs::read_to_string(path).ok());
        networkd(&texts.collect::<Vec<_>>())
    });
    let findings = networkd.into_iter().chain(firewall::examine());
    findings
        .filter(|new| {
            let said = |old: &Finding| old.check == new.check && old.message == new.message;
            !known.iter().any(said)
        })
        .collect()
}

fn networkd_files() -> Vec<PathBuf> {
    let [main, more] = NETWORKD;
    let entries = fs::read_dir(more).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    files.sort();
    files.insert(0, PathBuf::from(main));
    files
}

fn networkd(texts: &[String]) -> Finding {
    let value = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| {
            line.trim().strip_prefix("ManageForeignRoutes")?.trim().strip_prefix('=')
        })
        .next_back()
        .map(|value| value.trim().to_lowercase());
    match value.as_deref() {
        Some("no" | "false" | "off" | "0") => Finding::ok("networkd", "ManageForeignRoutes=no"),
        _ => Finding::trouble(
            Level::Warn,
            "networkd",
            error_code::NETWORKD_ROUTES,
            "ManageForeignRoutes=yes will delete our routes on restart",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_setting_of_networkd_counts() {
        let texts = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(networkd(&texts(&["[Network]\nManageForeignRoutes=no\n"])).level, Level::Ok);
        assert_eq!(networkd(&texts(&["[Network]\n#ManageForeignRoutes=no\n"])).level, Level::Warn);
        let later = texts(&["ManageForeignRoutes = no", "[Network]\nManageForeignRoutes=yes"]);
        assert_eq!(networkd(&later).level, Level::Warn);
        assert_eq!(networkd(&[]).level, Level::Warn);
    }
}

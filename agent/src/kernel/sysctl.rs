//! Forwarding: a router that does not forward is of no use, so both switches are turned on, and
//! watched: whoever turns one off cuts pods off, and nothing else would say so.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::error_code;
use tracing::info;

use crate::observe::problems::{Area, Complaint, Problems};

/// Files of the switches, and their names for `sysctl`.
const FORWARDING: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"),
    ("/proc/sys/net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
];
/// How often they are looked at: `/proc` tells nobody of a change, and reading it costs microseconds.
const LOOK: Duration = Duration::from_secs(5);

/// Keeps forwarding on, both families, and complains where it is off and stays off. Never ends.
pub async fn keep_forwarding(problems: Problems) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        enable_forwarding(&problems);
    }
}

/// Turns forwarding on where it is off. What stays off is a problem until it is on.
pub fn enable_forwarding(problems: &Problems) {
    for (path, name) in FORWARDING {
        look(&PathBuf::from(path), name, problems);
    }
}

fn look(path: &Path, name: &str, problems: &Problems) {
    match enable(path) {
        Ok(()) => problems.resolve(Area::Host, name),
        Err(error) => {
            let message = format!("{name} is 0 and cannot be set from here: {error}");
            let complaint = Complaint::new(error_code::FORWARDING_DISABLED, "host", message);
            problems.raise(Area::Host, name, complaint);
        }
    }
}

fn enable(path: &Path) -> std::io::Result<()> {
    match fs::read_to_string(path).map(|text| text.trim() != "0") {
        Ok(true) => Ok(()),
        // No such switch: that family is not there to forward.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(false) | Err(_) => {
            fs::write(path, "1")?;
            info!(switch = %path.display(), "forwarding turned on");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_turned_on_and_one_that_stays_off_is_a_problem_until_it_is_on() {
        let directory = std::env::temp_dir().join(format!("rampart-sysctl-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (switch, problems) = (directory.join("forwarding"), Problems::default());
        fs::write(&switch, "0\n").unwrap();
        look(&switch, "x", &problems);
        assert_eq!(fs::read_to_string(&switch).unwrap(), "1");
        assert_eq!(problems.list(), Vec::new());
        // A directory can neither be read nor written as a file, as a file of a read-only /proc.
        let stuck = directory.join("stuck");
        fs::create_dir_all(&stuck).unwrap();
        look(&stuck, "x", &problems);
        look(&stuck, "x", &problems);
        let standing = problems.list();
        assert_eq!(standing.len(), 1, "{standing:?}");
        assert_eq!(standing[0].code, error_code::FORWARDING_DISABLED);
        assert!(standing[0].message.starts_with("x is 0 and cannot be set"), "{standing:?}");
        look(&directory.join("no-such-family"), "x", &problems);
        assert_eq!(problems.list(), Vec::new());
        fs::remove_dir_all(&directory).unwrap();
    }
}

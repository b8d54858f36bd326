//! Forwarding: a router that does not forward is of no use, so both switches are turned on.

use std::fs;
use std::path::Path;

use tracing::info;

const FORWARDING: [&str; 2] =
    ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];

/// Turns forwarding on where it is off, both families. Returns what stays off, and why.
#[must_use]
pub fn enable_forwarding() -> Vec<String> {
    FORWARDING.into_iter().filter_map(|path| enable(Path::new(path)).err()).collect()
}

fn enable(path: &Path) -> Result<(), String> {
    let is_on = || fs::read_to_string(path).map(|text| text.trim() != "0");
    match is_on() {
        Ok(true) => Ok(()),
        // No such switch: that family is not there to forward.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(false) | Err(_) => {
            fs::write(path, "1").map_err(|error| format!("{}: {error}", path.display()))?;
            info!(switch = %path.display(), "forwarding turned on");
            Ok(())
        }
    }
}

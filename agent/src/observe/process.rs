//! What the process costs, from `/proc/self`.

use std::fs;

/// Clock ticks a second in `/proc/PID/stat`: part of the kernel's interface, on every architecture
/// that Rampart is built for.
const TICKS: f64 = 100.0;

/// What the process costs; `None` is what the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory in octets.
    pub resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_files: Option<u64>,
}

/// What this process costs now.
#[must_use]
pub fn usage() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let status = fs::read_to_string("/proc/self/status").ok();
    let open = fs::read_dir("/proc/self/fd").ok();
    Usage {
        cpu_seconds: stat.as_deref().and_then(cpu_seconds),
        resident_bytes: status.as_deref().and_then(resident_bytes),
        open_files: open.map(|entries| u64::try_from(entries.count()).unwrap_or(u64::MAX)),
    }
}

/// utime and stime: fields 14 and 15; the second field, the name, may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(cpu_seconds("7 (a"), None);
    }

    #[test]
    fn the_kernel_tells_it_all_of_this_process() {
        let usage = usage();
        assert!(usage.cpu_seconds.is_some() && usage.open_files > Some(2), "{usage:?}");
        assert!(usage.resident_bytes > Some(1 << 20), "{usage:?}");
    }
}

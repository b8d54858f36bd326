//! What others do to the kernel: everything that `ip monitor` or `nft monitor` tells.

use std::path::Path;
use std::time::Duration;

use crate::netns::{Daemon, Directory, Namespace};
use crate::wait::eventually;

/// How long the program may take to tell what has happened.
const PATIENCE: Duration = Duration::from_secs(20);

/// Follows a kernel subsystem in a namespace; what it wrote is everything that changed since.
#[derive(Debug)]
pub struct Watch<'a> {
    daemon: Daemon,
    namespace: &'a Namespace,
    program: &'static str,
}

impl<'a> Watch<'a> {
    /// Starts `program` with `arguments` (`ip monitor`, `nft monitor`) in `namespace`, and waits until
    /// it follows.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(
        namespace: &'a Namespace,
        directory: &Directory,
        program: &'static str,
        arguments: &[&str],
    ) -> Self {
        let log = directory.join(&format!("{program}.monitor"));
        let daemon = namespace.start(Path::new(program), arguments, &log);
        let watch = Self { daemon, namespace, program };
        // It follows from now on once it has seen a change of our own.
        let mut number = 0;
        eventually(PATIENCE, "the monitor listens", || {
            number += 1;
            watch.mark(&format!("begin{number}"));
            watch.daemon.log().contains("begin") || watch.daemon.log().contains("203.0.113.")
        });
        watch
    }

    /// A change that is ours and easy to tell.
    fn mark(&self, name: &str) {
        match self.program {
            "nft" => {
                self.namespace.output("nft", &["add", "table", "inet", name]);
            }
            _ => {
                let octet = name.trim_start_matches(|c: char| !c.is_ascii_digit());
                let route = format!("203.0.113.{octet}/32");
                self.namespace.output("ip", &["route", "replace", "blackhole", &route]);
            }
        }
    }

    /// Lines since the start, without our own marks.
    ///
    /// # Panics
    /// When the program has ended.
    pub fn changes(&self) -> Vec<String> {
        self.mark("end200");
        eventually(PATIENCE, "the monitor has seen all", || {
            self.daemon.log().contains("end200") || self.daemon.log().contains("203.0.113.200")
        });
        let ours = ["begin", "end200", "203.0.113.", "new generation"];
        self.daemon
            .log()
            .lines()
            .filter(|line| !line.is_empty() && !ours.iter().any(|word| line.contains(word)))
            .map(str::to_owned)
            .collect()
    }
}

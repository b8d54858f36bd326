//! The NetworkPolicy suite of Kubernetes itself (`k8s.io/kubernetes/test/e2e/network/netpol`).

use std::ffi::OsString;
use std::process::Command;

use super::Cluster;
use super::programs::Programs;

/// Specs that need what not every kernel has: sockets of SCTP.
const SKIP: &str = "SCTP";
/// Specs of NetworkPolicy in the suite, all of which but [`SKIP`] must pass.
pub const SPECS: usize = 45;

impl Cluster {
    /// The suite as a command, to be run in the control plane's namespace. `arguments` are flags
    /// of ginkgo; without any, all specs run.
    ///
    /// # Errors
    /// When the suite does not build.
    pub fn upstream_suite(&self, arguments: &[OsString]) -> anyhow::Result<Command> {
        let programs = Programs::find(&["e2e.test"])?;
        let mut command = Command::new(programs.path("e2e.test")?);
        command.arg("--kubeconfig").arg(self.directory().join("admin.conf"));
        command.args(["--provider=local", "--ginkgo.no-color", "--ginkgo.skip", SKIP]);
        if arguments.iter().all(|it| !it.to_string_lossy().contains("ginkgo.focus")) {
            command.args(["--ginkgo.focus", "Netpol"]);
        }
        command.args(arguments);
        Ok(command)
    }
}

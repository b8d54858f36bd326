//! The NetworkPolicy suite of Kubernetes itself (`k8s.io/kubernetes/test/e2e/network/netpol`).

use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::programs::Programs;
use super::scenario::up_with_rampart;
use super::{Cluster, Options};

/// Specs that need what not every kernel has: sockets of SCTP.
const SKIP: &str = "SCTP";
/// Specs of NetworkPolicy in the suite, all of which but those of `SKIP` must pass.
pub const SPECS: usize = 45;
/// What CI runs: a dozen specs that between them use every part of the API.
pub const CHOSEN: [&str; 13] = [
    "should support a 'default-deny-ingress' policy",
    "should support a 'default-deny-all' policy",
    "should enforce policy to allow traffic only from a different namespace, based on NamespaceSelector",
    "should enforce policy based on PodSelector with MatchExpressions",
    "should enforce policy based on PodSelector and NamespaceSelector",
    "should enforce policy based on Multiple PodSelectors and NamespaceSelectors",
    "should enforce policy based on Ports",
    "should enforce updated policy",
    "should allow ingress access from updated pod",
    "should enforce ingress policy allowing any port traffic to a server on a specific protocol",
    "should enforce egress policy allowing traffic to a server in a different namespace based on PodSelector and NamespaceSelector",
    "should enforce except clause while egress access to server in CIDR block",
    "should allow egress access on one named port",
];

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

/// Brings up a cluster with Rampart, runs these specs (or all of them), and returns how many
/// passed.
///
/// # Errors
/// When one fails, or fewer ran than were named.
pub fn run(options: Options, specs: Option<&[&str]>) -> anyhow::Result<usize> {
    let cluster = up_with_rampart(options)?;
    let report = cluster.directory().join("report.json");
    let mut arguments = vec![OsString::from("--ginkgo.json-report"), report.clone().into()];
    for spec in specs.unwrap_or_default() {
        // A regular expression; the names have no other special characters.
        arguments.push(format!("--ginkgo.focus=Netpol.*{spec}").into());
    }
    let mut command = cluster.upstream_suite(&arguments)?;
    if specs.is_some() {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let status = cluster.spawn_in("cp", &mut command)?.wait()?;
    let passed = passed(&fs::read(&report).context("the suite wrote no report")?)?;
    ensure!(status.success(), "the suite failed; it passed {passed:?}");
    let expected = specs.map_or(SPECS, <[_]>::len);
    ensure!(passed.len() >= expected, "{} of {expected} specs ran: {passed:?}", passed.len());
    Ok(passed.len())
}

/// Names of the specs that passed.
///
/// # Errors
/// When one failed, with what it said; when the report is none.
fn passed(report: &[u8]) -> anyhow::Result<Vec<String>> {
    let report: Value = serde_json::from_slice(report)?;
    let specs = report.pointer("/0/SpecReports").and_then(Value::as_array).context("no specs")?;
    let text = |spec: &Value, key: &str| {
        spec.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut passed = Vec::new();
    for spec in specs.iter().filter(|spec| text(spec, "LeafNodeType") == "It") {
        let name = text(spec, "LeafNodeText");
        match text(spec, "State").as_str() {
            "passed" => passed.push(name),
            "skipped" | "pending" => {}
            state => {
                let why = spec.pointer("/Failure/Message").and_then(Value::as_str).unwrap_or("?");
                anyhow::bail!("{name}: {state}: {why}");
            }
        }
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_spec_is_told_with_what_it_said() {
        let report = |state: &str| {
            serde_json::to_vec(&serde_json::json!([{"SpecReports": [
                {"LeafNodeType": "It", "LeafNodeText": "skips", "State": "skipped"},
                {"LeafNodeType": "It", "LeafNodeText": "does", "State": state, "Failure": {"Message": "no route"}},
            ]}]))
            .unwrap()
        };
        assert_eq!(passed(&report("passed")).unwrap(), ["does"]);
        let error = passed(&report("failed")).unwrap_err().to_string();
        assert_eq!(error, "does: failed: no route");
    }
}

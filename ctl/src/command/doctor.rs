//! `rctl doctor`: is everything on the nodes and in the cluster as Rampart needs it.
//!
//! Each agent looks at its own node (kernel, firewalls, CNI, peers); here the cluster is looked at,
//! and on a node itself what only files and programs of the host can tell.

mod firewall;
mod local;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use api::doctor::{Finding, Level};
use clap::Args;
use serde_json::json;

use super::{print, remark};
use crate::agents::{Agents, failure};
use crate::args::Global;
use crate::cluster::{Cluster, LOOK};
use crate::failure::{Exit, Failure};
use crate::output::table::printable;
use crate::output::{Format, format};

/// Options of `rctl doctor`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  rctl doctor\n  rctl doctor --node n1\n  rctl doctor --wait 5m      # until nothing fails\n  rctl doctor -o json | jq '.items[] | select(.level == \"fail\")'"
)]
pub struct DoctorArgs {
    /// Only this node
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Look again until nothing fails, for at most this long (exit code 4)
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        default_missing_value = "5m",
        value_parser = super::wait::duration
    )]
    pub wait: Option<Duration>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Runs the verb: exit code 1 if anything fails or warns.
///
/// # Errors
/// There is no cluster and no agent to look at; not well in time.
pub async fn run(global: &Global, args: &DoctorArgs) -> Result<Exit, Failure> {
    let deadline = args.wait.map(|wait| Instant::now() + wait);
    let mut told = 0;
    loop {
        let findings = examine(global, args.node.as_deref()).await;
        let failing = match &findings {
            Ok(findings) => count(findings, Level::Fail),
            Err(_) => 1,
        };
        match deadline {
            Some(deadline) if failing > 0 && Instant::now() < deadline => {
                if failing != told {
                    remark(&format!("{failing} still failing\n"));
                    told = failing;
                }
                tokio::time::sleep(LOOK * 2).await;
            }
            Some(_) | None => {
                let findings = findings?;
                print(&render(&findings, args.output)?)?;
                return Ok(exit(&findings, args.wait.is_some()));
            }
        }
    }
}

fn count(findings: &[Finding], level: Level) -> usize {
    findings.iter().filter(|finding| finding.level == level).count()
}

/// A warning is for people and scripts that look; what was waited for is that nothing fails.
fn exit(findings: &[Finding], waited: bool) -> Exit {
    match (count(findings, Level::Fail), count(findings, Level::Warn)) {
        (0, 0) => Exit::Ok,
        (0, _) if waited => Exit::Ok,
        (0, _) => Exit::Negative,
        (_, _) if waited => Exit::TimedOut,
        (_, _) => Exit::Negative,
    }
}

async fn examine(global: &Global, node: Option<&str>) -> Result<Vec<Finding>, Failure> {
    let agents = Agents::open(global, None).await?.of_node(node);
    let mut findings = Vec::new();
    if let Some(cluster) = agents.cluster()
        && node.is_none()
    {
        findings.extend(of_cluster(cluster).await);
    }
    let mut versions = BTreeMap::<String, Vec<String>>::new();
    let (reports, known) = tokio::join!(
        agents.request(&hyper::Method::GET, "/v1/doctor", ""),
        agents.request(&hyper::Method::GET, "/v1/version", "")
    );
    for (label, report) in reports {
        let report = report.and_then(|body| crate::client::decode::<Vec<Finding>>(&label, &body));
        match report {
            Ok(report) => findings.extend(report),
            Err(error) => findings.push(silent(&label, &failure(&error))),
        }
    }
    for (label, version) in known {
        let version =
            version.and_then(|body| crate::client::decode::<api::control::Version>(&label, &body));
        if let Ok(version) = version {
            versions.entry(version.version).or_default().push(version.node);
        }
    }
    findings.extend(skew(&versions));
    if agents.is_local() {
        findings.extend(local::examine(&findings));
    }
    if let Some(node) = node {
        findings.retain(|finding| finding.node == node || finding.node.is_empty());
    }
    Ok(findings)
}

fn silent(label: &str, failure: &Failure) -> Finding {
    let code = failure.code.unwrap_or(api::error_code::AGENT_UNREACHABLE);
    let message = format!("{} ({})", failure.message, failure.why.trim_end_matches('.'));
    let mut finding = Finding::trouble(Level::Fail, "agent", code, message);
    label.clone_into(&mut finding.node);
    finding.next.clone_from(&failure.next);
    finding
}

/// All agents should be of one version, and that of this `rctl`.
fn skew(versions: &BTreeMap<String, Vec<String>>) -> Option<Finding> {
    let ours = env!("CARGO_PKG_VERSION");
    let other: Vec<String> = versions
        .iter()
        .filter(|(version, _)| *version != ours)
        .map(|(version, nodes)| format!("{version} on {}", nodes.join(",")))
        .collect();
    if versions.is_empty() {
        return None;
    }
    if other.is_empty() {
        return Some(Finding::ok("versions", ours));
    }
    let message = format!("rctl is {ours}, agents are {}", other.join(", "));
    let code = api::error_code::VERSION_SKEW;
    Some(Finding::trouble(Level::Warn, "versions", code, message))
}

async fn of_cluster(cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    match cluster.server_version().await {
        Ok(version) => findings.push(Finding::ok("API server", version)),
        Err(error) => findings.push(silent("", &error.failure())),
    }
    for (check, rollout) in [
        ("agents", cluster.agent_rollout().await),
        ("reflectors", cluster.reflector_rollout().await),
    ] {
        match rollout {
            Ok(None) => {}
            Ok(Some(rollout)) if rollout.is_complete() => {
                findings.push(Finding::ok(check, format!("{} ready", rollout.ready)));
            }
            Ok(Some(rollout)) => {
                let message = format!("{} of {} {check} are ready", rollout.ready, rollout.wanted);
                let code = api::error_code::POD_NOT_RUNNING;
                findings.push(Finding::trouble(Level::Fail, check, code, message));
            }
            // Not everybody who may ask agents may see these.
            Err(error) => {
                let mut finding = silent("", &error.failure());
                finding.level = Level::Warn;
                check.clone_into(&mut finding.check);
                findings.push(finding);
            }
        }
    }
    findings
}

fn render(findings: &[Finding], output: Format) -> Result<String, Failure> {
    match output {
        Format::Table | Format::Wide => Ok(text(findings, output == Format::Wide)),
        Format::Name => Ok(findings
            .iter()
            .filter(|finding| finding.level != Level::Ok)
            .map(|finding| format!("{}/{}\n", finding.node, finding.check))
            .collect()),
        Format::Json | Format::Yaml => {
            let mut value = format::list("Finding", findings)?;
            if let Some(fields) = value.as_object_mut() {
                let counts = json!({
                    "ok": count(findings, Level::Ok),
                    "warn": count(findings, Level::Warn),
                    "fail": count(findings, Level::Fail),
                });
                fields.insert("summary".to_owned(), counts);
            }
            format::text(&value, output)
        }
    }
}

/// What is well in one line; every trouble in one, with the nodes that have it.
fn text(findings: &[Finding], wide: bool) -> String {
    let mut text = String::new();
    let mut well: Vec<&str> = Vec::new();
    for finding in findings.iter().filter(|finding| finding.level == Level::Ok) {
        let check = finding.check.as_str();
        let spoilt = findings.iter().any(|f| f.check == check && f.level != Level::Ok);
        if !spoilt && !well.contains(&check) {
            well.push(check);
        }
    }
    // Writing to a String cannot fail.
    if wide {
        for finding in findings.iter().filter(|finding| finding.level == Level::Ok) {
            let node = if finding.node.is_empty() { "cluster" } else { &finding.node };
            let _ =
                writeln!(text, "ok   {node} {}: {}", finding.check, printable(&finding.message));
        }
    } else if !well.is_empty() {
        let _ = writeln!(text, "ok   {}", well.join(", "));
    }
    for (level, word) in [(Level::Warn, "warn"), (Level::Fail, "FAIL")] {
        for (finding, nodes) in together(findings, level) {
            let place =
                if nodes.is_empty() { String::new() } else { format!("[{}] ", nodes.join(",")) };
            let code = finding.code.map(|code| format!(" ({code})")).unwrap_or_default();
            let _ = write!(
                text,
                "{word} {place}{}: {}{code}",
                finding.check,
                printable(&finding.message)
            );
            if !finding.next.is_empty() {
                let _ = write!(text, "\n     -> {}", finding.next);
            }
            text.push('\n');
        }
    }
    let (warn, fail) = (count(findings, Level::Warn), count(findings, Level::Fail));
    if warn + fail > 0 {
        let _ = writeln!(text, "{warn} warn, {fail} fail");
    }
    text
}

fn together(findings: &[Finding], level: Level) -> Vec<(&Finding, Vec<&str>)> {
    let mut groups: Vec<(&Finding, Vec<&str>)> = Vec::new();
    for finding in findings.iter().filter(|finding| finding.level == level) {
        let same = |known: &Finding| {
            (&known.check, &known.message, known.code)
                == (&finding.check, &finding.message, finding.code)
        };
        let node = (!finding.node.is_empty()).then_some(finding.node.as_str());
        match groups.iter_mut().find(|(known, _)| same(known)) {
            Some((_, nodes)) => nodes.extend(node),
            None => groups.push((finding, node.into_iter().collect())),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::error_code;

    fn on(node: &str, mut finding: Finding) -> Finding {
        node.clone_into(&mut finding.node);
        finding
    }

    fn warning(node: &str) -> Finding {
        let code = error_code::NETWORKD_ROUTES;
        on(node, Finding::trouble(Level::Warn, "networkd", code, "runs"))
    }

    #[test]
    fn what_is_well_is_one_line_and_the_same_trouble_is_told_once_with_its_nodes() {
        let findings = [
            on("n1", Finding::ok("kernel", "Linux 6.1")),
            on("n2", Finding::ok("kernel", "Linux 6.1")),
            warning("n1"),
            warning("n2"),
            on("n1", Finding::ok("peers", "2 established")),
            on(
                "n2",
                Finding::trouble(
                    Level::Fail,
                    "peers",
                    error_code::PEER_UNREACHABLE,
                    "uplink tor-a is Active",
                ),
            ),
        ];
        let text = text(&findings, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ok   kernel");
        assert_eq!(lines[1], "warn [n1,n2] networkd: runs (RC3007)");
        assert!(lines[2].starts_with("     -> Set ManageForeignRoutes=no"), "{text}");
        assert_eq!(lines[3], "FAIL [n2] peers: uplink tor-a is Active (RC2031)");
        assert_eq!(lines.last(), Some(&"2 warn, 1 fail"));
    }

    #[test]
    fn the_exit_code_says_whether_anything_is_wrong() {
        let well = [on("n1", Finding::ok("kernel", ""))];
        assert_eq!(exit(&well, false), Exit::Ok);
        assert_eq!(exit(&[warning("n1")], false), Exit::Negative);
        assert_eq!(exit(&[warning("n1")], true), Exit::Ok);
        let failing = [Finding::trouble(Level::Fail, "x", error_code::NOT_FOUND, "")];
        assert_eq!(exit(&failing, false), Exit::Negative);
        assert_eq!(exit(&failing, true), Exit::TimedOut);
    }

    #[test]
    fn agents_of_another_version_are_named() {
        let ours = env!("CARGO_PKG_VERSION").to_owned();
        let mut versions = BTreeMap::from([(ours, vec!["n1".to_owned()])]);
        assert_eq!(skew(&versions).unwrap().level, Level::Ok);
        versions.insert("0.0.9".to_owned(), vec!["n2".to_owned()]);
        assert!(skew(&versions).unwrap().message.contains("0.0.9 on n2"));
        assert!(skew(&BTreeMap::new()).is_none());
    }

    #[test]
    fn json_carries_the_counts() {
        let value: serde_json::Value =
            serde_json::from_str(&render(&[warning("n1")], Format::Json).unwrap()).unwrap();
        assert_eq!(value["summary"], json!({"ok": 0, "warn": 1, "fail": 0}));
        assert_eq!(value["items"][0]["level"], "warn");
    }
}

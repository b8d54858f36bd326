//! `rctl diag bundle`: everything that helps somebody else to understand what is wrong, in one
//! file, without secrets.

mod archive;
mod mask;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::{print, remark};
use crate::agents::{Agents, failure};
use crate::args::Global;
use crate::cluster::{Cluster, Place};
use crate::failure::{Exit, Failure};
use archive::Archive;
use mask::Mask;

/// What is asked of every agent, and the file that it goes to.
const REQUESTS: [(&str, &str); 10] = [
    ("/v1/version", "version.json"),
    ("/v1/status", "status.json"),
    ("/v1/nodes", "nodes.json"),
    ("/v1/peers", "peers.json"),
    ("/v1/routes", "routes.json"),
    ("/v1/networkpolicies", "networkpolicies.json"),
    ("/v1/endpoints", "endpoints.json"),
    ("/v1/chains", "nft-chains.json"),
    ("/v1/kernel", "kernel.json"),
    ("/v1/doctor", "doctor.json"),
];

/// What programs of this machine tell, where they are: command, and the file that it goes to.
const HOST: [(&[&str], &str); 6] = [
    (&["nft", "list", "ruleset"], "nft-ruleset.txt"),
    (&["ip", "-details", "link"], "ip-link.txt"),
    (&["ip", "-4", "rule"], "ip-rule-4.txt"),
    (&["ip", "-6", "rule"], "ip-rule-6.txt"),
    (&["ip", "-4", "route", "show", "table", "all"], "ip-route-4.txt"),
    (&["ip", "-6", "route", "show", "table", "all"], "ip-route-6.txt"),
];

/// `rctl diag`.
#[derive(Clone, Debug, Args)]
pub struct DiagArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: DiagVerb,
}

/// The verbs of `rctl diag`.
#[derive(Clone, Debug, Subcommand)]
pub enum DiagVerb {
    /// Collect state, logs, objects and events of all nodes in one file
    #[command(
        after_help = "Examples:\n  rctl diag bundle\n  rctl diag bundle --redact -o /tmp/for-support.tar.gz\n  rctl diag bundle --node n1\n\nPasswords, tokens and keys are always masked, and Secrets are never read. --redact also masks\nannotations, environment variables and the address of the API server."
    )]
    Bundle(BundleArgs),
}

/// Options of `rctl diag bundle`.
#[derive(Clone, Debug, Args)]
pub struct BundleArgs {
    /// Mask what is private beside what is secret
    #[arg(long)]
    pub redact: bool,
    /// File to write (default diag-TIME.tar.gz here)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only this node
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// At most so many lines of each log
    #[arg(long, default_value_t = 20_000, value_name = "LINES")]
    pub log_lines: i64,
}

/// Runs the verb. What cannot be had is noted in the bundle, and makes the exit code 3.
///
/// # Errors
/// Nothing can be asked, or the file cannot be written.
pub async fn run(global: &Global, args: &DiagArgs) -> Result<Exit, Failure> {
    let DiagVerb::Bundle(args) = &args.verb;
    let agents = Agents::open(global, None).await?.of_node(args.node.as_deref());
    let time = jiff::Timestamp::now();
    let name = format!("diag-{}", time.strftime("%Y%m%dT%H%M%SZ"));
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    let server = agents.cluster().map(|cluster| cluster.server().to_owned());
    let mut bundle = Bundle {
        archive: Archive::create(&path, &name, time)?,
        mask: Mask::new(args.redact, server.as_deref()),
        missing: Vec::new(),
    };
    bundle.state(&agents).await?;
    if agents.is_local() {
        bundle.host()?;
    }
    if let Some(cluster) = agents.cluster() {
        bundle.logs(cluster, args).await?;
        bundle.objects(cluster).await?;
    }
    let (count, missing) = (agents.count(), std::mem::take(&mut bundle.missing));
    let about = json!({
        "rctl": env!("CARGO_PKG_VERSION"),
        "time": time.to_string(),
        "agents": count,
        "redacted": args.redact,
        "missing": missing,
    });
    bundle.value("bundle.json", about)?;
    let masked = bundle.mask.count();
    let size = bundle.archive.finish()?;
    for line in &missing {
        remark(&format!("missing: {line}\n"));
    }
    print(&format!(
        "{count} agents: state, logs, objects, events -> {} {}, {masked} secrets masked\n",
        path.display(),
        human(size)
    ))?;
    Ok(if missing.is_empty() { Exit::Ok } else { Exit::Unreachable })
}

fn human(octets: u64) -> String {
    match octets {
        0..1024 => format!("{octets} B"),
        1024..1_048_576 => format!("{} KiB", octets >> 10),
        _ => format!("{}.{} MiB", octets >> 20, (octets % 1_048_576) * 10 / 1_048_576),
    }
}

/// A bundle that is being written.
struct Bundle {
    archive: Archive,
    mask: Mask,
    /// What could not be had, and why.
    missing: Vec<String>,
}

impl Bundle {
    fn value(&mut self, name: &str, mut value: Value) -> Result<(), Failure> {
        self.mask.value(&mut value);
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        self.archive.add(name, text.as_bytes())
    }

    async fn state(&mut self, agents: &Agents) -> Result<(), Failure> {
        for (path, file) in REQUESTS {
            for (label, result) in agents.request(&Method::GET, path, "").await {
                let name = format!("nodes/{}/{file}", directory(&label));
                let value = result.and_then(|body| crate::client::decode(&label, &body));
                match value {
                    Ok(value) => self.value(&name, value)?,
                    Err(error) => {
                        let failure = failure(&error);
                        self.missing.push(format!("{label} {path}: {}", failure.message));
                    }
                }
            }
        }
        Ok(())
    }

    /// Of the machine that we are on; it need not have these programs.
    fn host(&mut self) -> Result<(), Failure> {
        for (command, file) in HOST {
            let [program, arguments @ ..] = command else { continue };
            let output = std::process::Command::new(program).args(arguments).output();
            match output {
                Ok(output) if output.status.success() => {
                    let text = self.mask.text(&String::from_utf8_lossy(&output.stdout));
                    self.archive.add(&format!("host/{file}"), text.as_bytes())?;
                }
                Ok(output) => {
                    let words = String::from_utf8_lossy(&output.stderr);
                    let first = words.lines().next().unwrap_or_default();
                    self.missing.push(format!("{}: {first}", command.join(" ")));
                }
                Err(error) => self.missing.push(format!("{program}: {error}")),
            }
        }
        Ok(())
    }

    async fn logs(&mut self, cluster: &Cluster, args: &BundleArgs) -> Result<(), Failure> {
        let mut places = cluster.agents().await.unwrap_or_default();
        places.extend(cluster.reflectors().await.unwrap_or_default());
        for place in places {
            let (Place::Running(pod) | Place::NotRunning(pod, _)) = place else { continue };
            if args.node.as_ref().is_some_and(|node| *node != pod.node) {
                continue;
            }
            for previous in [false, true] {
                let suffix = if previous { "-previous" } else { "" };
                let name = format!("nodes/{}/{}{suffix}.log", directory(&pod.node), pod.name);
                match cluster.log(&pod, previous, args.log_lines).await {
                    Ok(text) => {
                        let masked = self.mask.text(&text);
                        self.archive.add(&name, masked.as_bytes())?;
                    }
                    // Most have not been restarted.
                    Err(_) if previous => {}
                    Err(error) => self.missing.push(format!("{name}: {}", error.failure().message)),
                }
            }
        }
        Ok(())
    }

    async fn objects(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        for (name, list) in cluster.diagnostic_objects().await {
            match list {
                Ok(list) => self.value(&format!("cluster/{name}.json"), list)?,
                Err(error) => self.missing.push(format!("{name}: {}", error.failure().message)),
            }
        }
        Ok(())
    }
}

/// A socket's path, or a node, as the name of a directory.
fn directory(label: &str) -> String {
    let name = label.trim_start_matches('/').trim_end_matches("/agent.sock");
    name.chars().map(|c| if c.is_alphanumeric() || "-._".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_becomes_one_directory() {
        assert_eq!(directory("n1.example"), "n1.example");
        assert_eq!(directory("/run/rampart/agent.sock"), "run_rampart");
        assert_eq!(directory("../x"), ".._x");
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(human(900), "900 B");
        assert_eq!(human(2048), "2 KiB");
        assert_eq!(human(6_396_313), "6.0 MiB");
    }
}

//! `rctl version`: ours, and where there is a cluster or an agent, theirs.

use api::control::Version;
use api::error_code;
use clap::Args;
use serde_json::json;

use super::{print, remark};
use crate::agents::{Agents, silence};
use crate::args::Global;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::output::{Format, format};

/// Prints the version of rctl and of every reachable agent.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  rctl version -o json")]
pub struct VersionArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Do not ask the agents
    #[arg(long)]
    pub client: bool,
}

/// Runs the verb. That nobody can be asked, or does not answer, is remarked and no error: the version
/// of rctl is known.
///
/// # Errors
/// Standard output is closed.
pub async fn run(global: &Global, args: &VersionArgs) -> Result<Exit, Failure> {
    let mut known = Known::default();
    match Agents::open(global, None).await {
        Ok(agents) => {
            if let Some(cluster) = agents.cluster() {
                known.kubernetes = of_api_server(cluster).await;
            }
            match agents.ask::<Version>("/v1/version").await {
                Ok(answers) => {
                    remark(&silence(&answers.failures));
                    known.agents = answers.answers;
                }
                Err(failure) => remark(&failure.render()),
            }
        }
        // On a laptop without a cluster there is nothing wrong.
        Err(failure) if failure.code == Some(error_code::KUBECONFIG) => {
            remark(&format!("no cluster asked: {}\n", failure.why));
        }
        Err(failure) => {
            if failure.code == Some(error_code::NOT_INSTALLED)
                && let Ok(cluster) = global.access.connect().await
            {
                known.kubernetes = of_api_server(&cluster).await;
            }
            remark(&failure.render());
        }
    }
    known.agents.sort_by(|a, b| a.node.cmp(&b.node));
    show(&known, args.output)
}

async fn of_api_server(cluster: &Cluster) -> Option<String> {
    match cluster.server_version().await {
        Ok(version) => Some(version),
        Err(error) => {
            remark(&error.failure().render());
            None
        }
    }
}

/// Versions of others.
#[derive(Debug, Default)]
struct Known {
    kubernetes: Option<String>,
    agents: Vec<Version>,
}

/// Our own version alone.
///
/// # Errors
/// Standard output is closed.
pub fn client(output: Format) -> Result<Exit, Failure> {
    show(&Known::default(), output)
}

fn show(known: &Known, output: Format) -> Result<Exit, Failure> {
    let ours = env!("CARGO_PKG_VERSION");
    print(&match output {
        Format::Json | Format::Yaml => {
            let mut value = json!({"rctl": ours, "agents": known.agents});
            if let (Some(version), Some(fields)) = (&known.kubernetes, value.as_object_mut()) {
                fields.insert("kubernetes".to_owned(), version.as_str().into());
            }
            format::text(&value, output)?
        }
        Format::Table | Format::Wide | Format::Name => {
            let mut text = format!("rctl {ours}\n");
            if let Some(version) = &known.kubernetes {
                text.push_str(&format!("kubernetes {version}\n"));
            }
            for version in &known.agents {
                let skew = if version.version == ours { "" } else { "!" };
                text.push_str(&format!(
                    "agent {} on {}{skew} ({})\n",
                    version.version, version.node, version.commit
                ));
            }
            text
        }
    })?;
    Ok(Exit::Ok)
}

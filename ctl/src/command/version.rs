//! `rctl version`: ours, and the agents'.

use api::control::Version;
use clap::Args;
use serde_json::json;

use super::print;
use crate::agents::Agents;
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

/// Runs the verb. Agents that do not answer are no error: the version of rctl is known.
///
/// # Errors
/// Standard output is closed.
pub async fn run(agents: &Agents, args: &VersionArgs) -> Result<Exit, Failure> {
    let mut versions = match args.client {
        true => Vec::new(),
        false => agents.ask::<Version>("/v1/version").await.map(|a| a.answers).unwrap_or_default(),
    };
    versions.sort_by(|a, b| a.node.cmp(&b.node));
    let ours = env!("CARGO_PKG_VERSION");
    print(&match args.output {
        Format::Json | Format::Yaml => {
            format::text(&json!({"rctl": ours, "agents": versions}), args.output)?
        }
        Format::Table | Format::Wide | Format::Name => {
            let mut text = format!("rctl {ours}\n");
            for version in &versions {
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

//! `rctl version`: ours, and the agents'.

use api::control::Version;
use clap::Args;
use serde_json::json;

use super::{print, remark};
use crate::agents::{Agents, silence};
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
    let asked = agents.ask::<Version>("/v1/version").await;
    let mut versions = match asked {
        Ok(answers) => {
            remark(&silence(&answers.failures));
            answers.answers
        }
        Err(failure) => {
            remark(&failure.render());
            Vec::new()
        }
    };
    versions.sort_by(|a, b| a.node.cmp(&b.node));
    show(&versions, args.output)
}

/// Our own version alone.
///
/// # Errors
/// Standard output is closed.
pub fn client(output: Format) -> Result<Exit, Failure> {
    show(&[], output)
}

fn show(versions: &[Version], output: Format) -> Result<Exit, Failure> {
    let ours = env!("CARGO_PKG_VERSION");
    print(&match output {
        Format::Json | Format::Yaml => {
            format::text(&json!({"rctl": ours, "agents": versions}), output)?
        }
        Format::Table | Format::Wide | Format::Name => {
            let mut text = format!("rctl {ours}\n");
            for version in versions {
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

//! The command line, as a type.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cluster::Access;
use crate::command::{describe, explain, get, status, version, wait};
use crate::lab;

/// Rampart's command line: see sessions, routes and policies of every node, and run the laboratory.
#[derive(Debug, Parser)]
#[command(name = "rctl", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// Options that every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every verb takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Ask only the agent behind this control socket
    #[arg(long, global = true, value_name = "PATH", env = "RCTL_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Name of the lab, for more than one lab on a machine
    #[arg(
        long,
        alias = "name",
        global = true,
        value_name = "NAME",
        env = "RCTL_LAB",
        default_value = lab::DEFAULT_NAME
    )]
    pub lab: lab::Name,
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub access: Access,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List nodes, peers, routes, networkpolicy or endpoints of all agents
    Get(get::GetArgs),
    /// Show everything about one object
    Describe(describe::DescribeArgs),
    /// Is everything well, and if not: what, where, what next
    Status(status::StatusArgs),
    /// Wait until all input read so far is in the kernel
    Wait(wait::WaitArgs),
    /// Say what an error code means and what to do
    Explain(explain::ExplainArgs),
    /// A whole fabric in network namespaces: racks, ToR switches, nodes, pods
    Lab(lab::args::LabArgs),
    /// Print the version of rctl and of the agents
    Version(version::VersionArgs),
    /// Print a completion script
    Completion {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }
}

//! The command line, as a type.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::cluster::Access;
use crate::command::{
    describe, diag, doctor, explain, get, install, status, uninstall, version, wait,
};
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
    /// Look at the nodes and the cluster: what is well, what is not, what to do
    Doctor(doctor::DoctorArgs),
    /// Collect what helps to find out what is wrong
    Diag(diag::DiagArgs),
    /// Install Rampart into the cluster of the kubeconfig: shows a plan, applies it, waits
    #[command(after_long_help = install_help("install"), after_help = INSTALL_EXAMPLES)]
    Install(install::InstallArgs),
    /// Replace the installed version by that of this rctl
    #[command(after_long_help = install_help("upgrade"), after_help = UPGRADE_EXAMPLES)]
    Upgrade(install::UpgradeArgs),
    /// Take Rampart off every node and out of the cluster; pods keep running
    #[command(
        after_help = "Examples:\n  rctl uninstall              # the plan\n  rctl uninstall --yes\n  rctl uninstall --yes --keep-crds"
    )]
    Uninstall(uninstall::UninstallArgs),
    /// Say what an error code means and what to do
    Explain(explain::ExplainArgs),
    /// A whole fabric in network namespaces: racks, ToR switches, nodes, pods
    Lab(lab::args::LabArgs),
    /// Print the version of rctl and of the agents
    Version(version::VersionArgs),
    /// Print a completion script
    #[command(
        after_help = "Examples:\n  rctl completion bash > /etc/bash_completion.d/rctl\n  rctl completion zsh > ~/.zfunc/_rctl"
    )]
    Completion {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
}

/// What the program is called: `kubectl rampart` when kubectl has started it as its plugin.
#[must_use]
pub fn program_name() -> &'static str {
    let own = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&own).file_name().unwrap_or_default();
    if name == "kubectl-rampart" { "kubectl rampart" } else { "rctl" }
}

/// The command tree, in the words of the program's name: usage and examples follow it.
#[must_use]
pub fn command(name: &'static str) -> clap::Command {
    let command = Cli::command();
    if name == "rctl" { command } else { renamed(command, name).bin_name(name) }
}

fn renamed(mut command: clap::Command, name: &'static str) -> clap::Command {
    let rename = |text: &clap::builder::StyledStr| {
        let text = text.to_string();
        let lines =
            text.split_inclusive('\n').map(|line| line.replace("rctl ", &format!("{name} ")));
        lines.collect::<String>()
    };
    if let Some(text) = command.get_after_help().map(rename) {
        command = command.after_help(text);
    }
    if let Some(text) = command.get_after_long_help().map(rename) {
        command = command.after_long_help(text);
    }
    let verbs: Vec<String> =
        command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    for verb in verbs {
        command = command.mut_subcommand(verb, |verb| renamed(verb, name));
    }
    command
}

/// Prints the completion script. kubectl asks a program `kubectl_complete-rampart` for completions
/// of its plugins, so for it the script is of the program itself.
pub fn completion(shell: clap_complete::Shell, name: &str, out: &mut dyn std::io::Write) {
    let program = if name == "rctl" { "rctl" } else { "kubectl-rampart" };
    clap_complete::generate(shell, &mut Cli::command(), program, &mut WriteAll(out));
}

/// `generate` wants a sized writer.
struct WriteAll<'a>(&'a mut dyn std::io::Write);

impl std::io::Write for WriteAll<'_> {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.write(octets)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

const INSTALL_EXAMPLES: &str = "Examples:\n  rctl install\n  rctl install --dry-run\n  rctl install --set image.repository=registry.example/rampart\n  rctl install --dry-run=client > rampart.yaml";
const UPGRADE_EXAMPLES: &str =
    "Examples:\n  rctl upgrade --dry-run\n  rctl upgrade\n  rctl upgrade --set logging.level=debug";

fn install_help(verb: &str) -> String {
    let examples = if verb == "install" { INSTALL_EXAMPLES } else { UPGRADE_EXAMPLES };
    format!("{}\n{examples}", crate::manifest::settings_help())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    fn leaves(command: &mut clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        let path = format!("{path} {}", command.get_name());
        let help = command.render_long_help().to_string();
        if command.get_subcommands().next().is_none() {
            found.push((path, help));
            return;
        }
        for verb in command
            .get_subcommands_mut()
            .filter(|verb| verb.get_name() != "help" && !verb.is_hide_set())
        {
            leaves(verb, &path, found);
        }
    }

    #[test]
    fn every_verb_has_an_example() {
        let mut found = Vec::new();
        leaves(&mut command("rctl"), "", &mut found);
        for (path, help) in found {
            assert!(help.contains("Example"), "{path}:\n{help}");
        }
    }

    #[test]
    fn as_a_plugin_usage_and_examples_say_kubectl_rampart() {
        let mut plugin = command("kubectl rampart");
        plugin.build();
        let mut found = Vec::new();
        leaves(&mut plugin, "", &mut found);
        assert!(found.len() > 10);
        for (path, help) in found {
            assert!(help.contains("Usage: kubectl rampart "), "{path}:\n{help}");
            assert!(!help.contains("  rctl "), "{path}:\n{help}");
        }
    }
}

//! `rampart`: one multi-call binary.

use std::process::ExitCode;

use agent::bgp::reflector;
use agent::control::request;
use agent::runtime::End;
use agent::{cleanup, cni, observe, runtime};
use anyhow::Context as _;
use api::agent_args::{AgentArgs, LogFormat};
use clap::{Parser, Subcommand};
use tracing::error;

/// Network agent of a Kubernetes node: BGP and NetworkPolicy
#[derive(Debug, Parser)]
#[command(name = "rampart", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent of one node until SIGTERM; routes and policy stay in the kernel
    #[command(after_help = "\
Example:
  rampart agent --node-name n1 --store dir:/etc/rampart --run-dir /run/rampart
  rctl --socket /run/rampart/agent.sock status")]
    Agent(Box<AgentArgs>),
    /// Run a route reflector, of a cluster or with a configuration file
    #[command(after_help = reflector::HELP)]
    RouteReflector(reflector::Args),
    /// Send one request to the control socket of this machine's agent, print the answer
    #[command(after_help = request::HELP)]
    Control(request::Args),
    /// Take everything off this node that Rampart has put there; pods keep running
    #[command(after_help = cleanup::HELP)]
    Cleanup(cleanup::Args),
    /// Print the version
    #[command(after_help = "Example:\n  rampart version")]
    Version,
}

fn main() -> ExitCode {
    // Before anything else: a runtime waits for the plugin, with each pod.
    if cni::plugin::is_called() {
        return cni::plugin::main();
    }
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Agent(args) => {
            observe::log::init(args.log_format, &args.log_level).context("--log-level")?;
            if runtime::run(&args)? == End::Uninstall {
                cleanup::replace_agent(&args)?;
            }
        }
        Command::Cleanup(args) => {
            observe::log::init(LogFormat::Text, "info").context("logging")?;
            return Ok(cleanup::run(&args)?);
        }
        Command::RouteReflector(args) => {
            let log = &args.cluster;
            observe::log::init(log.log_format, &log.log_level).context("--log-level")?;
            reflector::run(&args)?;
        }
        Command::Control(args) => return request::run(&args).context("standard output"),
        Command::Version => print_version(),
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "there is no log yet when its own settings are wrong")]
fn complain(error: &anyhow::Error) {
    if tracing::dispatcher::has_been_set() {
        error!(error = format!("{error:#}"), "rampart cannot go on");
    } else {
        eprintln!("error: {error:#}");
    }
}

#[expect(clippy::print_stdout, reason = "the version is what was asked for")]
fn print_version() {
    let commit = option_env!("RAMPART_COMMIT").unwrap_or("unknown");
    println!("rampart {} ({commit})", env!("CARGO_PKG_VERSION"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_an_example() {
        Arguments::command().debug_assert();
        for command in Arguments::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example") || help.contains("The file:"), "{help}");
        }
    }

    #[test]
    fn the_store_is_a_directory() {
        let parse = |store: &str| {
            Arguments::try_parse_from(["rampart", "agent", "--node-name", "n", "--store", store])
        };
        assert!(parse("dir:/etc/rampart").is_ok());
        assert!(parse("/etc/rampart").is_err());
        assert!(parse("dir:").is_err());
    }
}

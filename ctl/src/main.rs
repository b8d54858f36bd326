//! `rctl`: parse, run, exit.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use ctl::agents::Agents;
use ctl::args::{Cli, Global, Verb};
use ctl::command;
use ctl::failure::{Exit, Failure};
use ctl::lab;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors; nobody is left to tell when printing fails.
            error.print().ok();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            std::io::stderr().write_all(failure.render().as_bytes()).ok();
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { global, verb } = cli;
    let asked = match verb {
        Verb::Lab(args) => return lab::run(&global.lab, args),
        Verb::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "rctl", &mut std::io::stdout());
            return Ok(Exit::Ok.into());
        }
        Verb::Explain(args) => return command::explain::run(&args).map(Into::into),
        Verb::Get(args) => Asked::Get(args),
        Verb::Describe(args) => Asked::Describe(args),
        Verb::Status(args) => Asked::Status(args),
        Verb::Wait(args) => Asked::Wait(args),
        Verb::Version(args) => Asked::Version(args),
    };
    let exit = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::plain(Exit::Unreachable, "cannot start the client", "")
                .because(error.to_string())
        })?
        .block_on(ask(&global, asked))?;
    Ok(exit.into())
}

/// The verbs that ask agents.
enum Asked {
    Get(command::get::GetArgs),
    Describe(command::describe::DescribeArgs),
    Status(command::status::StatusArgs),
    Wait(command::wait::WaitArgs),
    Version(command::version::VersionArgs),
}

async fn ask(global: &Global, asked: Asked) -> Result<Exit, Failure> {
    // An agent that waits answers only when the wait is over.
    let patience = match &asked {
        Asked::Wait(args) => Some(args.timeout + Duration::from_secs(5)),
        Asked::Get(_) | Asked::Describe(_) | Asked::Status(_) | Asked::Version(_) => None,
    };
    if let Asked::Version(command::version::VersionArgs { client: true, output }) = &asked {
        return command::version::client(*output);
    }
    let agents = Agents::open(global, patience).await?;
    match asked {
        Asked::Get(mut args) => {
            let agents = agents.of_node(args.kind.asker(args.scope.node.as_deref()));
            args.scope.default_to(&agents);
            command::get::run(&agents, &args).await
        }
        Asked::Describe(mut args) => {
            let agents = agents.of_node(args.kind.asker(args.scope.node.as_deref()));
            args.scope.default_to(&agents);
            command::describe::run(&agents, &args).await
        }
        Asked::Status(args) => {
            command::status::run(&agents.of_node(args.node.as_deref()), &args).await
        }
        Asked::Wait(args) => command::wait::run(&agents.of_node(args.node.as_deref()), &args).await,
        Asked::Version(args) => command::version::run(&agents, &args).await,
    }
}

//! `rctl`: parse, run, exit.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::FromArgMatches as _;
use ctl::agents::Agents;
use ctl::args::{self, Cli, Global, Verb};
use ctl::command;
use ctl::failure::{Exit, Failure};
use ctl::lab;

fn main() -> ExitCode {
    let name = args::program_name();
    let matches = args::command(name).try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors; nobody is left to tell when printing fails.
            error.print().ok();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match run(cli, name) {
        Ok(code) => code,
        Err(failure) => {
            std::io::stderr().write_all(failure.render().as_bytes()).ok();
            failure.exit.into()
        }
    }
}

fn run(cli: Cli, name: &'static str) -> Result<ExitCode, Failure> {
    let Cli { global, verb } = cli;
    let verb = match verb {
        Verb::Lab(args) => return lab::run(&global.lab, args),
        Verb::Completion { shell } => {
            args::completion(shell, name, &mut std::io::stdout());
            return Ok(Exit::Ok.into());
        }
        Verb::Explain(args) => return command::explain::run(&args).map(Into::into),
        Verb::Version(args) if args.client => {
            return command::version::client(args.output).map(Into::into);
        }
        verb => verb,
    };
    let exit = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::plain(Exit::Unreachable, "cannot start the client", "")
                .because(error.to_string())
        })?
        .block_on(ask(&global, verb))?;
    Ok(exit.into())
}

/// The verbs that ask agents or a cluster.
async fn ask(global: &Global, verb: Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Get(mut args) => {
            let agents = Agents::open(global, None).await?;
            let agents = agents.of_node(args.kind.asker(args.scope.node.as_deref()));
            args.scope.default_to(&agents);
            command::get::run(&agents, &args).await
        }
        Verb::Describe(mut args) => {
            let agents = Agents::open(global, None).await?;
            let agents = agents.of_node(args.kind.asker(args.scope.node.as_deref()));
            args.scope.default_to(&agents);
            command::describe::run(&agents, &args).await
        }
        Verb::Status(args) => {
            let agents = Agents::open(global, None).await?.of_node(args.node.as_deref());
            command::status::run(&agents, &args).await
        }
        Verb::Wait(args) => {
            // An agent that waits answers only when the wait is over.
            let patience = Some(args.timeout + Duration::from_secs(5));
            let agents = Agents::open(global, patience).await?.of_node(args.node.as_deref());
            command::wait::run(&agents, &args).await
        }
        Verb::Version(args) => command::version::run(global, &args).await,
        Verb::Doctor(args) => command::doctor::run(global, &args).await,
        Verb::Diag(args) => command::diag::run(global, &args).await,
        Verb::Install(args) => command::install::install(global, &args).await,
        Verb::Upgrade(args) => command::install::upgrade(global, &args).await,
        Verb::Uninstall(args) => command::uninstall::run(global, &args).await,
        // These ask nobody, and were done before.
        Verb::Lab(_) | Verb::Completion { .. } | Verb::Explain(_) => Ok(Exit::Ok),
    }
}

//! `rctl`: parse, run, exit.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use ctl::args::{Cli, Verb};
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
    match verb {
        Verb::Lab(args) => lab::run(&global.lab, args),
        Verb::Version => {
            writeln!(std::io::stdout(), "rctl {}", env!("CARGO_PKG_VERSION")).ok();
            Ok(Exit::Ok.into())
        }
        Verb::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "rctl", &mut std::io::stdout());
            Ok(Exit::Ok.into())
        }
    }
}

//! `rctl explain RCnnnn`: the error catalogue, offline.

use api::error_code::{CATALOGUE, Entry};
use clap::Args;

use super::print;
use crate::failure::{Exit, Failure};

/// Says what an error code means and what to do about it.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  rctl explain RC2107\n  rctl explain          # the whole catalogue"
)]
pub struct ExplainArgs {
    /// Code, as `RC2107` or `2107`; without one the whole catalogue is printed
    pub code: Option<String>,
}

/// Runs the verb.
///
/// # Errors
/// No such code.
pub fn run(args: &ExplainArgs) -> Result<Exit, Failure> {
    match &args.code {
        None => print(
            &CATALOGUE.iter().map(|e| format!("{}  {}\n", e.code, e.title)).collect::<String>(),
        )?,
        Some(code) => print(&text(find(code)?))?,
    };
    Ok(Exit::Ok)
}

fn find(code: &str) -> Result<&'static Entry, Failure> {
    let digits = code.trim_start_matches(['R', 'C', 'r', 'c']);
    CATALOGUE.iter().find(|entry| digits.parse() == Ok(entry.code.0)).ok_or_else(|| {
        Failure::plain(
            Exit::Negative,
            format!("no error code {}", crate::output::table::printable(code)),
            "list them with `rctl explain`",
        )
    })
}

fn text(entry: &Entry) -> String {
    format!("{}: {}\nwhy: {}\nnext: {}\n", entry.code, entry.title, entry.why, entry.next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_however_it_is_written() {
        for entry in CATALOGUE {
            for spelling in [
                entry.code.to_string(),
                entry.code.to_string().to_lowercase(),
                entry.code.0.to_string(),
            ] {
                assert_eq!(find(&spelling).unwrap().title, entry.title);
            }
        }
        assert_eq!(find("RC0000").unwrap_err().exit, Exit::Negative);
    }

    #[test]
    fn codes_are_unique_and_ascending() {
        assert!(CATALOGUE.windows(2).all(|pair| pair[0].code < pair[1].code));
    }
}

//! `rctl wait --for=synced`: until all input read so far is in the kernel.

use std::time::Duration;

use api::control::{Synced, Version};
use clap::{Args, ValueEnum};

use super::print;
use crate::agents::{Agents, failure};
use crate::failure::{Exit, Failure};

/// Waits until every agent has all input that it read so far acknowledged by the kernel.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Example:\n  cp policy.yaml /etc/rampart/ && rctl wait --for=synced --timeout 30s"
)]
pub struct WaitArgs {
    /// What to wait for
    #[arg(long = "for", value_enum, default_value_t)]
    pub condition: Condition,
    /// Give up after this long (exit code 4): `500ms`, `30s`, `2m`
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Only the agent of this node
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Condition {
    /// All input read so far is acknowledged by the kernel
    #[default]
    Synced,
}

/// `500ms`, `30s`, `2m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let number: f64 =
        digits.parse().map_err(|_| format!("`{text}` is no duration: write 500ms, 30s or 2m"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("unit `{unit}` is unknown: write ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Runs the verb. `agents` must be patient for longer than `args.timeout`.
///
/// # Errors
/// An agent does not answer, or is not synced in time.
pub async fn run(agents: &Agents, args: &WaitArgs) -> Result<Exit, Failure> {
    let path = format!("/v1/synced?timeout_ms={}", args.timeout.as_millis());
    let (versions, synced) =
        tokio::join!(agents.ask::<Version>("/v1/version"), agents.ask::<Synced>(&path));
    let (versions, synced) = (versions?, synced?);
    if let Some(error) = synced.failures.first().or(versions.failures.first()) {
        return Err(failure(error));
    }
    let mut pending = Vec::new();
    let mut text = String::new();
    for (version, synced) in versions.answers.iter().zip(&synced.answers) {
        if synced.synced {
            text.push_str(&format!(
                "{} synced at generation {}\n",
                version.node, synced.generation
            ));
        } else {
            pending.push(format!("{}: {}", version.node, synced.pending.join(", ")));
        }
    }
    print(&text)?;
    if pending.is_empty() {
        return Ok(Exit::Ok);
    }
    Err(Failure::catalogued(
        Exit::TimedOut,
        api::error_code::TIMED_OUT,
        format!("not synced within {} s", args.timeout.as_secs_f64()),
    )
    .because(pending.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn durations_as_kubectl_takes_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "-1s", "10d", "1s2"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}

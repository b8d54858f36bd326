//! STATUS: could an ADD be served now?

use std::time::Duration;

use api::cni::Serving;

use super::agent::{Agent, AgentError};
use super::delegate::Delegate;
use super::error::{ErrorCode, Failure};
use super::input::{self, Config};

const AGENT_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn run(config: &Config) -> Result<(), Failure> {
    if let Some(ipam) = &config.ipam {
        let delegate = Delegate::find(&ipam.kind, &input::search_path())?;
        delegate.run_recent("STATUS", &config.raw)?;
    }
    let agent = Agent::new(&config.socket);
    agent.ask::<(), Serving>("GET", "/v1/cni/status", None, AGENT_TIMEOUT, false).map(drop).map_err(
        |error| {
            let failure = Failure::new(ErrorCode::NotAvailable, error.to_string());
            match error {
                AgentError::Refused(refused) => failure.details(refused.next),
                AgentError::Silent { .. } | AgentError::Unreadable { .. } => failure,
            }
        },
    )
}

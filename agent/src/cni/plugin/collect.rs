//! GC: all that is left of attachments which the runtime does not know any more.

use std::collections::BTreeSet;
use std::time::Duration;

use api::cni::{AttachmentId, Collected};

use super::agent::Agent;
use super::delegate::Delegate;
use super::error::{ErrorCode, Failure};
use super::input::{self, Config, Ipam};
use super::leases::Leases;
use super::wiring;
use crate::cni::name;

const AGENT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn run(config: &Config) -> Result<(), Failure> {
    // Without the list everything would count as left over.
    let Some(valid) = &config.valid_attachments else {
        let text = "GC needs `cni.dev/valid-attachments`";
        return Err(Failure::new(ErrorCode::InvalidConfig, text));
    };
    let path = format!("/v1/cni/gc?network={}", config.name);
    let agent = Agent::new(&config.socket)
        .ask::<_, Collected>("POST", &path, Some(valid), AGENT_TIMEOUT, false)
        .map(drop)
        .map_err(|error| Failure::new(ErrorCode::TryAgainLater, error.to_string()));
    let Some(ipam) = &config.ipam else { return agent };
    // Each goes on whatever became of the others; the first failure is told.
    let links = links(config, valid);
    let leases = leases(config, ipam, valid);
    let delegate = Delegate::find(&ipam.kind, &input::search_path())
        .and_then(|delegate| delegate.run_recent("GC", &config.raw))
        .map(drop);
    agent.and(links).and(leases).and(delegate)
}

fn links(config: &Config, valid: &[AttachmentId]) -> Result<(), Failure> {
    let valid: BTreeSet<String> = valid.iter().map(name::host_interface).collect();
    let mut requests = wiring::requests()?;
    let mut first = Ok(());
    for (link, alias) in wiring::host_interfaces(&mut requests)? {
        // An interface without an alias was made by an ADD that was killed at once.
        let network = alias.split_once(' ').map_or(alias.as_str(), |(network, _)| network);
        if valid.contains(&link) || !(network.is_empty() || network == config.name) {
            continue;
        }
        first = first.and(wiring::remove(&mut requests, &link).map(drop));
    }
    first
}

fn leases(config: &Config, ipam: &Ipam, valid: &[AttachmentId]) -> Result<(), Failure> {
    if ipam.kind != "host-local" {
        return Ok(());
    }
    let valid = valid.iter().cloned().collect();
    let freed = Leases::of(&config.name, ipam.data_dir.as_deref()).collect(&valid);
    freed.map(drop).map_err(|error| {
        Failure::new(ErrorCode::Io, format!("cannot free leaked addresses: {error}"))
    })
}

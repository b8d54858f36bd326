//! DEL: whatever there is of the attachment goes. Works without a network namespace, without an agent
//! and any number of times.

use std::fs;
use std::io;
use std::time::Duration;

use api::cni::AttachmentId;
use serde_json::Value;

use super::agent::{Agent, AgentError};
use super::delegate::Delegate;
use super::error::{ErrorCode, Failure};
use super::input::{self, Config, Ipam};
use super::leases::Leases;
use super::wiring;
use crate::cni::name;

/// The agent answers when the kernel has taken the change; a pod's end does not wait long for it.
const AGENT_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn run(config: &Config) -> Result<(), Failure> {
    let id = input::attachment_id()?;
    match &config.ipam {
        Some(ipam) => undo(config, ipam, &id),
        None => forget(config, &id),
    }
}

/// Takes interface, policy and address away, in this order, each whatever became of the others; the
/// address last, so that nobody gets it while something of the old pod is left.
pub(super) fn undo(config: &Config, ipam: &Ipam, id: &AttachmentId) -> Result<(), Failure> {
    let host = name::host_interface(id);
    let link = wiring::requests().and_then(|mut requests| wiring::remove(&mut requests, &host));
    let agent = forget(config, id);
    let lease = if link.is_ok() { release(config, ipam, id) } else { Ok(()) };
    link.map(drop).and(agent).and(lease)
}

/// Tells the agent. One that is not there reads what we leave it when it starts.
fn forget(config: &Config, id: &AttachmentId) -> Result<(), Failure> {
    let agent = Agent::new(&config.socket);
    match agent.ask::<_, Value>("POST", "/v1/cni/del", Some(id), AGENT_TIMEOUT, false) {
        Ok(_) => Ok(()),
        Err(AgentError::Silent { .. }) => {
            match fs::remove_file(config.attachments.join(name::file(id))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let text = format!("cannot forget the attachment: {error}");
                    Err(Failure::new(ErrorCode::Io, text))
                }
                _ => Ok(()),
            }
        }
        Err(error) => Err(Failure::new(ErrorCode::TryAgainLater, error.to_string())),
    }
}

fn release(config: &Config, ipam: &Ipam, id: &AttachmentId) -> Result<(), Failure> {
    let deleted = Delegate::find(&ipam.kind, &input::search_path())
        .and_then(|delegate| delegate.run("DEL", &config.raw, config.version));
    match deleted {
        Err(_) if ipam.kind == "host-local" => {
            // A node that lost its host-local must be able to end its pods all the same.
            Leases::of(&config.name, ipam.data_dir.as_deref()).release(id).map_err(|error| {
                Failure::new(ErrorCode::Io, format!("cannot free the pod's addresses: {error}"))
            })
        }
        other => other,
    }
}

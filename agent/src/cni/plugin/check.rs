//! CHECK: the interface, its addresses and routes, the lease, and the policy are still there.

use std::net::IpAddr;
use std::time::Duration;

use api::cni::Attachment;
use serde_json::Value;

use super::add::addresses_of;
use super::agent::Agent;
use super::delegate::Delegate;
use super::error::{ErrorCode, Failure};
use super::input::{self, Config};
use super::wiring::{self, PodNamespace};
use crate::cni::name;

const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn run(config: &Config) -> Result<(), Failure> {
    let id = input::attachment_id()?;
    let pod = input::pod()?;
    let Some(previous) = &config.previous else {
        return Err(Failure::new(ErrorCode::InvalidConfig, "CHECK needs `prevResult`"));
    };
    let path = input::netns()
        .ok_or_else(|| Failure::new(ErrorCode::InvalidEnvironment, "CNI_NETNS is not set"))?;
    let namespace = PodNamespace::open(&path)?;
    let addresses = addresses_of(previous, &id.ifname)?;
    let mut interface = String::new();
    if let Some(ipam) = &config.ipam {
        interface = name::host_interface(&id);
        let delegate = Delegate::find(&ipam.kind, &input::search_path())?;
        delegate.run("CHECK", &config.raw, config.version)?;
        host_side(&interface, &addresses)?;
        namespace.within(|| pod_side(&id.ifname, &addresses))?;
    }
    let attachment = Attachment {
        id,
        network: config.name.clone(),
        namespace: pod.namespace,
        pod: pod.name,
        uid: pod.uid,
        addresses,
        interface,
        netns: path.display().to_string(),
    };
    let agent = Agent::new(&config.socket);
    agent
        .ask::<_, Value>("POST", "/v1/cni/check", Some(&attachment), AGENT_TIMEOUT, false)
        .map(drop)
        .map_err(|error| missing(error.to_string()))
}

fn missing(text: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::CheckFailed, text)
}

fn host_side(host: &str, addresses: &[IpAddr]) -> Result<(), Failure> {
    let mut requests = wiring::requests()?;
    let link = wiring::link(&mut requests, host)?;
    let link = link.ok_or_else(|| missing(format!("interface {host} is gone")))?;
    if !wiring::is_up(&link) {
        return Err(missing(format!("interface {host} is down")));
    }
    for address in addresses {
        if wiring::route_of(&mut requests, *address).as_deref() != Some(host) {
            return Err(missing(format!("{address} is not routed to {host}")));
        }
    }
    Ok(())
}

fn pod_side(name: &str, addresses: &[IpAddr]) -> Result<(), Failure> {
    let mut requests = wiring::requests()?;
    let link = wiring::link(&mut requests, name)?;
    let link = link.ok_or_else(|| missing(format!("the pod's interface {name} is gone")))?;
    if !wiring::is_up(&link) {
        return Err(missing(format!("the pod's interface {name} is down")));
    }
    let own = wiring::addresses(&mut requests, link.header.index)?;
    for address in addresses {
        if !own.contains(address) {
            return Err(missing(format!("{name} has lost the address {address}")));
        }
        let Some(gateway) = wiring::gateway(address.is_ipv4()) else { continue };
        if !wiring::has_default(&mut requests, link.header.index, gateway)? {
            return Err(missing(format!("the pod has lost its default route via {gateway}")));
        }
    }
    Ok(())
}

//! `rctl lab connect`: one connection from where it runs, which is what `rctl lab exec` is for.

use std::net::SocketAddr;
use std::time::Duration;

use super::error::LabError;
use super::name::Name;
use super::progress::say;
use super::serve::{Transport, ask};
use super::state::State;
use super::topology::Topology;

/// Connects to each address that `to` stands for and prints who answered. Says whether all did.
///
/// # Errors
/// [`LabError::UnknownMember`], [`LabError::Options`], and those of [`State::load`].
pub fn connect(
    lab: &Name,
    to: &str,
    transport: Transport,
    timeout: Duration,
) -> Result<bool, LabError> {
    let mut all = true;
    for address in resolve(lab, to)? {
        match ask(transport, address, timeout) {
            Ok(name) => say(&format!("{address}  connected: {name} answers")),
            Err(error) => {
                all = false;
                say(&format!("{address}  NOT connected: {error}"));
            }
        }
    }
    Ok(all)
}

/// `IP:PORT`, `[v6]:PORT`, or `POD:PORT` for all addresses of a pod of the lab.
fn resolve(lab: &Name, to: &str) -> Result<Vec<SocketAddr>, LabError> {
    if let Ok(address) = to.parse() {
        return Ok(vec![address]);
    }
    let invalid = || LabError::Options(format!("{to} is not IP:PORT, [IPv6]:PORT or POD:PORT"));
    let (name, port) = to.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    let topology = Topology::new(&State::of_running(lab)?.options)?;
    let pod = topology
        .pods
        .iter()
        .find(|pod| pod.name == name || pod.full_name() == name)
        .ok_or_else(|| LabError::UnknownMember {
            name: name.to_owned(),
            known: topology.pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>().join(" "),
        })?;
    Ok(pod.addresses().map(|address| SocketAddr::new(address, port)).to_vec())
}

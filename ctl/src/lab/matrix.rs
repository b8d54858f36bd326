//! Real connections from every pod to every pod.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::LabError;
use super::name::Name;
use super::namespace;
use super::serve::{Port, ask};
use super::topology::{Pod, Topology};
use super::wiring::in_parallel;

/// How long a connection may take. Allowed ones take under a millisecond; this leaves room for
/// the second SYN, sent after one second, on a machine that is busy with something else.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// Probes under way at a time, for each pod.
const AT_A_TIME: usize = 48;

/// One connection attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// `namespace/name` of the pod it started from.
    pub from: String,
    /// `namespace/name` of the pod it was meant for.
    pub to: String,
    /// Address it was sent to.
    pub address: IpAddr,
    /// Port, for example `tcp/8080`.
    pub port: String,
    /// The pod meant answered.
    pub connected: bool,
    /// What happened when it did not: time-out, refusal, a wrong pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Connects every pod to every other, on each of the ports, over IPv4 and IPv6. Sorted.
///
/// # Errors
/// [`LabError::Enter`].
pub fn probe_all(lab: &Name, topology: &Topology, ports: &[Port]) -> Result<Vec<Probe>, LabError> {
    let probes = Mutex::new(Vec::new());
    in_parallel(topology.pods.iter(), |from| {
        let found = namespace::within(&lab.namespace(&from.name), || {
            probe_from(from, &topology.pods, ports)
        })?;
        if let Ok(mut probes) = probes.lock() {
            probes.extend(found);
        }
        Ok(())
    })?;
    let mut probes = probes.into_inner().unwrap_or_default();
    probes.sort();
    Ok(probes)
}

/// Must run inside of the pod's namespace; the threads it makes inherit that.
fn probe_from(from: &Pod, pods: &[Pod], ports: &[Port]) -> Vec<Probe> {
    let mut plan = Vec::new();
    for to in pods.iter().filter(|to| to.name != from.name) {
        for address in to.addresses() {
            plan.extend(ports.iter().map(|port| (to, address, *port)));
        }
    }
    let next = AtomicUsize::new(0);
    let probes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(plan.len()) {
            scope.spawn(|| {
                while let Some((to, address, port)) = plan.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let probe = probe(from, to, *address, *port);
                    if let Ok(mut probes) = probes.lock() {
                        probes.push(probe);
                    }
                }
            });
        }
    });
    probes.into_inner().unwrap_or_default()
}

fn probe(from: &Pod, to: &Pod, address: IpAddr, port: Port) -> Probe {
    let answer = ask(port.transport, SocketAddr::new(address, port.number), TIMEOUT);
    let failure = match answer {
        Ok(name) if name == to.full_name() => None,
        Ok(name) => Some(format!("{name} answered")),
        Err(error) => Some(error.to_string()),
    };
    Probe {
        from: from.full_name(),
        to: to.full_name(),
        address,
        port: port.to_string(),
        connected: failure.is_none(),
        failure,
    }
}

/// One table for each port: rows connect to columns.
#[must_use]
pub fn render(probes: &[Probe], topology: &Topology) -> String {
    let mut ports: Vec<&str> = probes.iter().map(|probe| probe.port.as_str()).collect();
    ports.sort_unstable();
    ports.dedup();
    let mut text = String::new();
    for port in ports {
        let row_width = topology.pods.iter().map(|pod| pod.full_name().len()).max().unwrap_or(0);
        // Writing to a String cannot fail.
        write!(text, "{port:<row_width$}").ok();
        for pod in &topology.pods {
            write!(text, "  {}", pod.name).ok();
        }
        text.push('\n');
        for from in &topology.pods {
            write!(text, "{:<row_width$}", from.full_name()).ok();
            for to in &topology.pods {
                let width = to.name.len();
                let cell = cell(probes, &from.full_name(), &to.full_name(), port);
                write!(text, "  {cell:^width$}").ok();
            }
            let end = text.trim_end().len();
            text.truncate(end);
            text.push('\n');
        }
        text.push('\n');
    }
    text.push_str("o connected over IPv4 and IPv6   4 or 6 over one only   . not connected\n");
    text
}

fn cell(probes: &[Probe], from: &str, to: &str, port: &str) -> &'static str {
    let connected = |v4: bool| {
        probes
            .iter()
            .filter(|p| p.from == from && p.to == to && p.port == port)
            .any(|p| p.connected && p.address.is_ipv4() == v4)
    };
    match (connected(true), connected(false)) {
        _ if from == to => "-",
        (true, true) => "o",
        (true, false) => "4",
        (false, true) => "6",
        (false, false) => ".",
    }
}

#[cfg(test)]
mod tests {
    use super::super::topology::{Options, TorKind};
    use super::*;

    #[test]
    fn the_table_tells_one_family_from_both() {
        let lab = Topology::new(&Options {
            racks: 1,
            tors: vec![TorKind::Rampart],
            nodes_per_rack: 1,
            pods_per_node: 2,
        })
        .unwrap();
        let probe = |from: &str, to: &str, address: &str, connected| Probe {
            from: from.to_owned(),
            to: to.to_owned(),
            address: address.parse().unwrap(),
            port: "tcp/8080".to_owned(),
            connected,
            failure: None,
        };
        let probes = [
            probe("web/web-1", "api/api-1", "10.244.1.11", true),
            probe("web/web-1", "api/api-1", "fd00:244:0:1::b", true),
            probe("api/api-1", "web/web-1", "10.244.1.10", true),
            probe("api/api-1", "web/web-1", "fd00:244:0:1::a", false),
        ];
        let text = render(&probes, &lab);
        assert_eq!(
            text,
            "tcp/8080   web-1  api-1\n\
             web/web-1    -      o\n\
             api/api-1    4      -\n\
             \n\
             o connected over IPv4 and IPv6   4 or 6 over one only   . not connected\n"
        );
    }
}

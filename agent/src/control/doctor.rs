//! `GET /v1/doctor`: a look at the node from where the agent is, so that it is the same from
//! everywhere and needs no shell on the node. It reads and changes nothing.

mod cni;
mod firewall;
mod host;
mod routing;

use api::doctor::{Finding, Level};
use tracing::warn;

use super::core::{CniPlaces, Core, Ending};
use crate::kernel::address;

/// Looks at everything.
pub(super) async fn examine(core: &Core) -> Result<Vec<Finding>, Ending> {
    let overview = core.overview().await?;
    let view = core.view();
    let own = view.nodes.iter().find(|node| node.name == core.node());
    let addresses = own.map(|node| node.addresses.clone()).unwrap_or_default();
    let places = core.cni();
    let on_host = move || look_at_host(&addresses, places.as_ref());
    let mut findings = tokio::task::spawn_blocking(on_host).await.unwrap_or_else(|error| {
        warn!(%error, "the node cannot be looked at");
        Vec::new()
    });
    findings.extend(routing::pod_cidrs(core.node(), &view.nodes));
    findings.extend(routing::peers(&overview.peers));
    findings.extend(routing::agent(&overview.status));
    // What the agent complains about anyway, unless it was just found.
    for problem in &overview.status.problems {
        let known = findings.iter().any(|finding| finding.code == Some(problem.code));
        if !known && !problem.subject.starts_with("peer ") {
            let message = format!("{}: {}", problem.subject, problem.message);
            let mut finding = Finding::trouble(Level::Warn, "problems", problem.code, message);
            finding.next.clone_from(&problem.next);
            findings.push(finding);
        }
    }
    for finding in &mut findings {
        core.node().clone_into(&mut finding.node);
    }
    Ok(findings)
}

fn look_at_host(addresses: &[std::net::IpAddr], places: Option<&CniPlaces>) -> Vec<Finding> {
    let uplinks: Vec<String> = address::list()
        .into_iter()
        .filter(|link| addresses.contains(&link.net.addr()))
        .map(|link| link.interface)
        .collect();
    let mut findings = host::examine(&uplinks);
    findings.extend(firewall::examine(places.is_some()));
    if let Some(places) = places {
        findings.extend(cni::examine(places));
    }
    findings
}

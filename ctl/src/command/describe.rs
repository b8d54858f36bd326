//! `rctl describe`: everything about one object, in sections.

use std::fmt::Write as _;

use api::control::{EndpointView, NodeView, PathView, PeerView, PolicyView, RouteView};
use clap::Args;

use super::get::{Scope, fetch};
use super::print;
use super::resource::{Kind, Resource};
use crate::agents::Agents;
use crate::failure::{Exit, Failure};
use crate::output::duration::short;
use crate::output::table::printable;

/// Shows everything about objects: state, last events, what comes next.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  rctl describe peer tor-a --node n1\n  rctl describe route 10.244.3.0/24\n  rctl describe route 10.244.3.7 --node n1\n  rctl describe netpol default-deny -n shop"
)]
pub struct DescribeArgs {
    /// What kind
    pub kind: Kind,
    /// Which one (all of the kind without it)
    pub name: Option<String>,
    /// Which of them
    #[command(flatten)]
    pub scope: Scope,
}

/// Runs the verb.
///
/// # Errors
/// Nobody answers, or no object of that name.
pub async fn run(agents: &Agents, args: &DescribeArgs) -> Result<Exit, Failure> {
    match args.kind {
        Kind::Nodes => describe::<NodeView>(agents, args).await,
        Kind::Peers => describe::<PeerView>(agents, args).await,
        Kind::Routes => describe::<RouteView>(agents, args).await,
        Kind::NetworkPolicies => describe::<PolicyView>(agents, args).await,
        Kind::Endpoints => describe::<EndpointView>(agents, args).await,
    }
}

async fn describe<T: Resource>(agents: &Agents, args: &DescribeArgs) -> Result<Exit, Failure> {
    let (items, exit) = fetch::<T>(agents, args.name.as_deref(), &args.scope).await?;
    let sections: Vec<String> = items.iter().map(Resource::describe).collect();
    print(&sections.join("\n"))?;
    Ok(exit)
}

/// `Label:   value` lines, the values in one column.
#[derive(Debug, Default)]
struct Sheet(String);

impl Sheet {
    fn line(&mut self, label: &str, value: impl std::fmt::Display) -> &mut Self {
        let value = printable(&value.to_string());
        let value = if value.is_empty() { "-" } else { &value };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{:<17} {value}", format!("{label}:"));
        self
    }

    fn lines<T: std::fmt::Display>(
        &mut self,
        label: &str,
        values: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return self.line(label, "");
        }
        let _ = writeln!(self.0, "{label}:");
        for value in values {
            let _ = writeln!(self.0, "  {}", printable(&value.to_string()));
        }
        self
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn pairs<V: std::fmt::Display>(map: &std::collections::BTreeMap<String, V>) -> String {
    map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", ")
}

fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

pub(super) fn node(node: &NodeView) -> String {
    let mut sheet = Sheet::default();
    sheet
        .line("Name", &node.name)
        .line("Rack", or_dash(node.rack.as_ref()))
        .line("Addresses", joined(&node.addresses))
        .line("Pod CIDRs", joined(&node.pod_cidrs))
        .line("Labels", pairs(&node.labels));
    match &node.agent {
        None => sheet.line("Agent", "not asked (another node's agent answered)"),
        Some(agent) => sheet
            .line(
                "Agent",
                format!(
                    "{}, up {}, {}",
                    agent.version,
                    short(agent.uptime_seconds),
                    if agent.ready { "ready" } else { "NOT READY" }
                ),
            )
            .line(
                "BGP peers",
                format!("{} of {} established", agent.peers_established, agent.peers),
            )
            .line("Routes", format!("{} installed", agent.routes))
            .line(
                "Policy",
                format!(
                    "generation {} read, {} in the kernel",
                    agent.desired_generation, agent.programmed_generation
                ),
            )
            .line("Endpoints", agent.endpoints)
            .line("Repairs", agent.drift),
    };
    sheet.0
}

/// What was agreed, and what goes on.
fn graceful_restart(peer: &PeerView) -> String {
    let restart = &peer.graceful_restart;
    let stale: Vec<String> =
        restart.stale.iter().map(|(family, paths)| format!("{paths} {family}")).collect();
    let left = restart.seconds_left.map_or_else(String::new, |left| format!(" ({})", short(left)));
    let agreed = if !restart.negotiated {
        "no".to_owned()
    } else if restart.families.is_empty() {
        "of us only: the peer does not ask us to keep its routes while it is away".to_owned()
    } else {
        let after = if restart.notification { ", after a NOTIFICATION as well" } else { "" };
        let (families, wait) = (restart.families.join(" and "), restart.wait_seconds);
        let theirs = restart.peer_restart_seconds;
        format!("yes, {families} routes are kept for {wait} s (the peer asks for {theirs}){after}")
    };
    match restart.phase.as_str() {
        "away" => format!("the peer is away, {} paths are kept{left}", stale.join(", ")),
        "back" => format!("the peer is back, {} paths to be sent again{left}", stale.join(", ")),
        "restarting" => format!("{agreed}; we have not told it everything yet"),
        _ => agreed,
    }
}

pub(super) fn peer(peer: &PeerView) -> String {
    let mut sheet = Sheet::default();
    let up = peer.state == "Established";
    sheet
        .line("Name", &peer.name)
        .line("Node", &peer.node)
        .line("Kind", &peer.kind)
        .line("Address", std::net::SocketAddr::new(peer.address, peer.port))
        .line(
            "AS",
            format!(
                "remote {}, local {} ({})",
                peer.remote_asn,
                peer.local_asn,
                if peer.remote_asn == peer.local_asn { "iBGP" } else { "eBGP" }
            ),
        )
        .line("State", format!("{} for {}", peer.state, short(peer.since_seconds)))
        .line("Established", format!("{} times", peer.established_count))
        .line("Router ID", or_dash(peer.router_id.as_ref()))
        .line("Local address", or_dash(peer.local_address.as_ref()));
    if up {
        sheet
            .line(
                "Timers",
                format!(
                    "hold {} s, keepalive {} s",
                    peer.hold_time_seconds, peer.keepalive_seconds
                ),
            )
            .line("Families", joined(&peer.families))
            .line("End-of-RIB", joined(&peer.end_of_rib))
            .line("Capabilities", joined(&peer.capabilities))
            .line(
                "Prefixes",
                format!(
                    "{} received, {} accepted, {} sent, {} withheld",
                    peer.received, peer.accepted, peer.sent, peer.withheld
                ),
            );
    }
    sheet.line("Graceful restart", graceful_restart(peer));
    let password = match peer.md5.as_str() {
        "on" => Some("TCP MD5 (RFC 2385)"),
        "unknown" => Some("asked for, but not known: no session until it is"),
        _ => None,
    };
    if let Some(password) = password {
        sheet.line("Password", password);
    }
    sheet
        .line("Import", &peer.import)
        .line("Export", &peer.export)
        .line("Messages in", pairs(&peer.messages_received))
        .line("Messages out", pairs(&peer.messages_sent));
    if !peer.malformed.is_empty() {
        sheet.line("Malformed", pairs(&peer.malformed));
    }
    match &peer.last_error {
        None => sheet.line("Last error", ""),
        // What went wrong before it came up is history, and nothing is to be done about it.
        Some(error) if up && error.ago_seconds >= peer.since_seconds => sheet.line(
            "Last error",
            format!(
                "none since it came up; before that, {} ago: {} ({})",
                short(error.ago_seconds),
                error.message,
                error.code
            ),
        ),
        Some(error) => sheet
            .line(
                "Last error",
                format!("{} ({}), {} ago", error.message, error.code, short(error.ago_seconds)),
            )
            .line("Next", format!("rctl explain {}", error.code)),
    };
    sheet.0
}

pub(super) fn route(route: &RouteView) -> String {
    let mut sheet = Sheet::default();
    sheet
        .line("Prefix", &route.prefix)
        .line("Node", &route.node)
        .line("Origin", &route.origin)
        .line("Kernel", in_kernel(&route.fib))
        .line("Next hops", joined(&route.fib_next_hops))
        .lines("Paths", route.paths.iter().map(path));
    sheet.0
}

/// The route to all pods of a node ends nowhere, for each of them has a longer one.
fn in_kernel(fib: &str) -> String {
    match fib {
        "blackhole" => {
            "blackhole, for addresses of no pod; each pod has a route of its own (protocol 83)"
                .to_owned()
        }
        other => other.to_owned(),
    }
}

fn path(path: &PathView) -> String {
    let mark = match (path.best, path.multipath) {
        (true, _) => "best",
        (false, true) => "ecmp",
        (false, false) => "    ",
    };
    let mut text = format!("{mark} from {}", path.from);
    // Writing to a String cannot fail.
    if let Some(hop) = path.next_hop {
        let _ = write!(text, ", next hop {hop}");
    }
    let as_path = if path.as_path.is_empty() { "empty" } else { &path.as_path };
    let _ =
        write!(text, ", AS path {as_path}, local pref {}, origin {}", path.local_pref, path.origin);
    if let Some(med) = path.med {
        let _ = write!(text, ", MED {med}");
    }
    if let Some(originator) = &path.originator_id {
        let _ = write!(text, ", originator {originator}, clusters {}", path.cluster_list.join(" "));
    }
    if !path.communities.is_empty() {
        let _ = write!(text, ", communities {}", path.communities.join(" "));
    }
    let _ = write!(text, ", age {}", short(path.age_seconds));
    if !path.reason.is_empty() {
        let _ = write!(text, " -- {}", path.reason);
    }
    text
}

pub(super) fn policy(policy: &PolicyView) -> String {
    let mut sheet = Sheet::default();
    let isolates = match (policy.isolates_ingress, policy.isolates_egress) {
        (true, true) => "ingress and egress",
        (true, false) => "ingress",
        (false, true) => "egress",
        (false, false) => "nothing",
    };
    sheet
        .line("Name", &policy.name)
        .line("Namespace", &policy.namespace)
        .line("Kind", &policy.kind)
        .line("Mode", &policy.mode)
        .line("Pod selector", &policy.pod_selector)
        .line("Isolates", isolates)
        .line(
            "Selects",
            format!(
                "{} pods; {} on the nodes asked, {} of them in the kernel",
                policy.selects, policy.selects_local, policy.programmed
            ),
        )
        .line("Nodes", &policy.node)
        .lines("Rules", &policy.rules);
    if !policy.faults.is_empty() {
        sheet.lines("Not understood (admits nothing)", &policy.faults);
    }
    sheet.0
}

pub(super) fn endpoint(endpoint: &EndpointView) -> String {
    let mut sheet = Sheet::default();
    let isolated = |yes: bool| if yes { "isolated" } else { "open" };
    sheet
        .line("Pod", format!("{}/{}", endpoint.namespace, endpoint.name))
        .line("Node", &endpoint.node)
        .line("Addresses", joined(&endpoint.addresses))
        .line("Interface", or_dash(endpoint.interface.as_ref()))
        .line("Ingress", isolated(endpoint.isolated_ingress))
        .line("Egress", isolated(endpoint.isolated_egress))
        .line("In the kernel", if endpoint.programmed { "yes" } else { "NOT YET" })
        .line("Labels", pairs(&endpoint.labels))
        .lines("Policies", &endpoint.policies)
        .lines("Chains", &endpoint.chains);
    sheet.0
}

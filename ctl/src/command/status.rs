//! `rctl status`: is everything well, and if not: what, where, what next.

use std::fmt::Write as _;

use api::control::{Problem, Status};
use clap::Args;

use super::{print, remark};
use crate::agents::{Agents, silence};
use crate::failure::{Exit, Failure};
use crate::output::duration::short;
use crate::output::table::{Column, printable};
use crate::output::{Format, Table, format};

/// Health of every agent, and what is wrong. Exit code 1 if anything is, 3 if an agent is silent.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  rctl status\n  rctl status --node n1\n  rctl --context prod status -o wide\n  rctl status -o json | jq '.items[].problems'"
)]
pub struct StatusArgs {
    /// Only the agent of this node
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

const COLUMNS: &[Column<Status>] = &[
    Column::new("NODE", |s| s.node.clone()),
    Column::new("READY", |s| if s.ready { "yes" } else { "no!" }.to_owned()),
    Column::new("PEERS", |s| {
        s.bgp
            .as_ref()
            .map(|b| {
                format!(
                    "{}/{}{}",
                    b.peers_established,
                    b.peers,
                    if b.peers_established < b.peers { "!" } else { "" }
                )
            })
            .unwrap_or_default()
    }),
    Column::new("PREFIXES", |s| s.bgp.as_ref().map(|b| b.prefixes.to_string()).unwrap_or_default()),
    Column::new("ROUTES", |s| {
        format!(
            "{}/{}{}",
            s.routes.installed,
            s.routes.desired,
            if s.routes.installed < s.routes.desired || s.routes.overridden > 0 { "!" } else { "" }
        )
    }),
    Column::new("POLICIES", |s| s.policy.policies.to_string()),
    Column::new("PODS", |s| s.policy.endpoints.to_string()),
    Column::new("ISOLATED", |s| s.policy.isolated.to_string()),
    Column::new("GENERATION", |s| {
        let relation = if s.programmed_generation == s.desired_generation { "=" } else { "<" };
        format!("{}{relation}{}", s.programmed_generation, s.desired_generation)
    }),
    Column::new("REPAIRS", |s| (s.routes.repaired + s.policy.repaired).to_string()),
    Column::new("PROBLEMS", |s| {
        if s.problems.is_empty() { "0".to_owned() } else { format!("{}!", s.problems.len()) }
    }),
    Column::volatile("UP", |s| short(s.uptime_seconds)),
    Column::wide("ASN", |s| s.bgp.as_ref().map(|b| b.asn.to_string()).unwrap_or_default()),
    Column::wide("ROUTER-ID", |s| s.bgp.as_ref().map(|b| b.router_id.clone()).unwrap_or_default()),
    Column::wide("PORT", |s| s.bgp.as_ref().map(|b| b.listen_port.to_string()).unwrap_or_default()),
    Column::wide("STORE", |s| s.store.clone()),
    Column::wide("VERSION", |s| s.version.clone()),
    Column::wide("PID", |s| s.pid.to_string()),
];

/// Runs the verb.
///
/// # Errors
/// Nobody answers.
pub async fn run(agents: &Agents, args: &StatusArgs) -> Result<Exit, Failure> {
    let mut answers = agents.ask::<Status>("/v1/status").await?;
    answers.answers.sort_by(|a, b| a.node.cmp(&b.node));
    if let Some(node) = &args.node {
        answers.answers.retain(|status| status.node == *node);
        if answers.answers.is_empty() && answers.failures.is_empty() {
            return Err(not_found(node));
        }
    }
    print(&match args.output {
        Format::Table | Format::Wide => text(&answers.answers, args.output == Format::Wide),
        Format::Name => answers.answers.iter().map(|s| format!("status/{}\n", s.node)).collect(),
        Format::Json | Format::Yaml => {
            format::text(&format::list("Status", &answers.answers)?, args.output)?
        }
    })?;
    remark(&silence(&answers.failures));
    if !answers.failures.is_empty() {
        return Ok(Exit::Unreachable);
    }
    let well = answers.answers.iter().all(|s| s.ready && s.problems.is_empty());
    Ok(if well { Exit::Ok } else { Exit::Negative })
}

fn not_found(node: &str) -> Failure {
    let message = format!("no agent of node \"{node}\"");
    Failure::catalogued(Exit::Negative, api::error_code::NOT_FOUND, message)
        .because("no agent that was asked is of that node")
}

fn text(statuses: &[Status], wide: bool) -> String {
    let mut text = Table::new(COLUMNS, statuses, wide).render(true, &mut Vec::new());
    for (node, reason) in
        statuses.iter().flat_map(|s| s.not_ready.iter().map(move |r| (&s.node, r)))
    {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{node} is not ready: {}", printable(reason));
    }
    text.push_str(&shortfalls(statuses));
    for (problem, nodes) in by_problem(statuses) {
        let _ = writeln!(
            text,
            "\n! {} {}: {} [{}]",
            problem.code,
            printable(&problem.subject),
            printable(&problem.message),
            nodes.join(",")
        );
        if let Some(location) = &problem.location {
            let _ = writeln!(text, "  where: {}", printable(location));
        }
        let _ = writeln!(text, "  next:  {} (since {})", printable(&problem.next), problem.since);
    }
    text
}

/// What a `!` in the table means, and where to look.
fn shortfalls(statuses: &[Status]) -> String {
    let mut text = String::new();
    let mut explain = |column: &str, what: &str, command: &str, parts: Vec<String>| {
        if !parts.is_empty() {
            let _ = writeln!(text, "\n{column}: {what}: {}; see `{command}`", parts.join(", "));
        }
    };
    let peers = statuses.iter().filter_map(|s| Some((&s.node, s.bgp.as_ref()?)));
    let peers = peers.filter(|(_, bgp)| bgp.peers_established < bgp.peers);
    let peers = peers.map(|(node, bgp)| {
        format!("{} of {} on {node}", bgp.peers - bgp.peers_established, bgp.peers)
    });
    explain("PEERS", "sessions that are not Established", "rctl get peers", peers.collect());
    let routes = statuses.iter().filter(|s| s.routes.installed < s.routes.desired);
    let routes = routes.map(|s| {
        format!("{} of {} on {}", s.routes.desired - s.routes.installed, s.routes.desired, s.node)
    });
    explain("ROUTES", "routes that are not in the kernel", "rctl get routes", routes.collect());
    let unused = statuses.iter().filter(|s| s.routes.overridden > 0);
    let unused =
        unused.map(|s| format!("{} of {} on {}", s.routes.overridden, s.routes.desired, s.node));
    let what = "routes to which the kernel prefers somebody else's";
    explain("ROUTES", what, "rctl get routes", unused.collect());
    text
}

/// A bad manifest is every agent's problem, but one line for a person: equal problems together.
fn by_problem(statuses: &[Status]) -> Vec<(&Problem, Vec<&str>)> {
    let mut problems: Vec<(&Problem, Vec<&str>)> = Vec::new();
    for (status, problem) in statuses.iter().flat_map(|s| s.problems.iter().map(move |p| (s, p))) {
        let same = |known: &Problem| {
            (known.code, &known.subject, &known.message, &known.location)
                == (problem.code, &problem.subject, &problem.message, &problem.location)
        };
        match problems.iter_mut().find(|(known, _)| same(known)) {
            Some((_, nodes)) => nodes.push(&status.node),
            None => problems.push((problem, vec![&status.node])),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(node: &str) -> Status {
        Status {
            node: node.to_owned(),
            version: "0.1.0".to_owned(),
            pid: 1,
            uptime_seconds: 61.0,
            ready: true,
            not_ready: Vec::new(),
            store: "dir:/x".to_owned(),
            desired_generation: 3,
            programmed_generation: 3,
            source: None,
            bgp: None,
            routes: api::control::RouteStatus::default(),
            policy: api::control::PolicyStatus::default(),
            problems: vec![Problem {
                code: api::error_code::INVALID_CIDR,
                subject: "NetworkPolicy shop/web".to_owned(),
                message: "spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0/8\" is no CIDR".to_owned(),
                location: Some("/x/web.yaml:12".to_owned()),
                next: "Fix the CIDR".to_owned(),
                since: "2026-01-01T00:00:00Z".to_owned(),
            }],
        }
    }

    #[test]
    fn a_problem_of_every_agent_is_told_once_with_its_place_and_what_next() {
        let text = text(&[status("n1"), status("n2")], false);
        assert_eq!(text.matches("RC1005").count(), 1, "{text}");
        assert!(text.contains("[n1,n2]\n  where: /x/web.yaml:12\n  next:  Fix the CIDR"), "{text}");
        assert!(text.starts_with("NODE   READY"), "{text}");
    }

    #[test]
    fn a_shortfall_in_the_table_is_explained_with_the_command_that_shows_more() {
        let mut short = status("n1");
        short.bgp = Some(api::control::BgpStatus {
            asn: 64512,
            router_id: "192.0.2.1".to_owned(),
            listen_port: 179,
            peers: 3,
            peers_established: 2,
            prefixes: 0,
            mesh: String::new(),
            reflectors: 0,
            reflectors_established: 0,
        });
        short.routes = api::control::RouteStatus {
            desired: 5,
            installed: 1,
            overridden: 1,
            ..api::control::RouteStatus::default()
        };
        let text = text(&[short, status("n2")], false);
        for line in [
            "PEERS: sessions that are not Established: 1 of 3 on n1; see `rctl get peers`",
            "ROUTES: routes that are not in the kernel: 4 of 5 on n1; see `rctl get routes`",
            "ROUTES: routes to which the kernel prefers somebody else's: 1 of 5 on n1; see `rctl get routes`",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!super::text(&[status("n2")], false).contains("PEERS:"));
    }
}

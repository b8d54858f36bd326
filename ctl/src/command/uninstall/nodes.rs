//! The nodes: who takes Rampart off them, and what each was rid of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::control::{Uninstalled, Version};
use hyper::Method;

use super::PATIENCE;
use crate::agents::{Agents, failure, silence};
use crate::cluster::{Cluster, LOOK, images_not_pulled};
use crate::command::remark;
use crate::failure::{Exit, Failure};
use crate::output::table::printable;

/// How long a node gets with `--force`.
pub(super) const FORCED: Duration = Duration::from_secs(30);
/// More lines of one node do not help.
const LINES: usize = 24;
/// More routes of pods on a line do not help.
const ROUTES: usize = 12;

/// What each node was rid of.
pub(super) type Reports = BTreeMap<String, Uninstalled>;

/// One look at all of them: who is done, and who is not, and why.
struct Round {
    done: Reports,
    open: BTreeMap<String, Option<String>>,
}

async fn ask(agents: &Agents) -> Round {
    let mut round = Round { done: Reports::new(), open: BTreeMap::new() };
    for (node, result) in agents.request(&Method::POST, "/v1/uninstall", "").await {
        let report = result.and_then(|body| crate::client::decode::<Uninstalled>(&node, &body));
        match report {
            Ok(report) if report.done => drop(round.done.insert(node, report)),
            Ok(_) => drop(round.open.insert(node, None)),
            Err(error) => {
                let failure = failure(&error);
                let why = format!("{} ({})", failure.message, failure.why.trim_end_matches('.'));
                round.open.insert(node, Some(why));
            }
        }
    }
    round
}

fn remark_open(open: &BTreeMap<String, Option<String>>) {
    for (node, why) in open {
        let why = why.as_deref().unwrap_or("not in time");
        remark(&format!("node {node} is not clean: {}\n", printable(why)));
    }
}

/// Every agent leaves its node. All must answer before the first one is asked to.
pub(super) async fn leave(
    agents: &Agents,
    force: bool,
    deadline: Instant,
) -> Result<Reports, Failure> {
    if let Ok(answers) = agents.ask::<Version>("/v1/version").await {
        let silent = answers.failures;
        remark(&silence(&silent));
        if !silent.is_empty() && !force {
            return Err(silent_agents(silent.len()));
        }
    }
    loop {
        let Round { done, open } = ask(agents).await;
        let hopeless = force && open.values().all(Option::is_some);
        if open.is_empty() || hopeless || Instant::now() > deadline {
            remark_open(&open);
            if !open.is_empty() && !force {
                return Err(silent_agents(open.len()));
            }
            return Ok(done);
        }
        // An agent that is being replaced by its own clean-up is silent for a moment.
        tokio::time::sleep(LOOK).await;
    }
}

/// What agents have left, or all where there are none: by pods that do nothing else. Returns the
/// nodes that are not clean; there are none without `--force`.
pub(super) async fn sweep(
    cluster: &Cluster,
    force: bool,
    deadline: Instant,
    reports: &mut Reports,
) -> Result<Vec<String>, Failure> {
    let forced = Instant::now() + FORCED;
    let mut told = BTreeSet::new();
    let mut clean = Reports::new();
    loop {
        let mut places = cluster.cleaners().await?;
        places.retain(|place| !clean.contains_key(place.node()));
        let Round { done, open } =
            ask(&Agents::at(places.clone(), cluster.clone(), PATIENCE)).await;
        clean.extend(done);
        for error in images_not_pulled(&places) {
            if told.insert(error.to_string()) {
                remark(&error.failure().render());
            }
        }
        let given_up = Instant::now() > deadline || (force && Instant::now() > forced);
        if !(open.is_empty() || given_up) {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        remark_open(&open);
        let unfinished = clean.iter().filter(|(_, report)| !report.failed.is_empty());
        let unclean: Vec<String> =
            open.keys().chain(unfinished.map(|(node, _)| node)).cloned().collect();
        for (node, report) in clean {
            add(reports.entry(node).or_default(), report);
        }
        return if unclean.is_empty() || force { Ok(unclean) } else { Err(not_clean(&unclean)) };
    }
}

/// The later look knows better what is left.
fn add(earlier: &mut Uninstalled, later: Uninstalled) {
    earlier.removed.extend(later.removed);
    *earlier = Uninstalled { removed: std::mem::take(&mut earlier.removed), ..later };
}

fn silent_agents(count: usize) -> Failure {
    Failure::plain(
        Exit::Unreachable,
        format!("{count} nodes cannot be cleaned"),
        "repair them and try again; or --force: what their agents cannot do, pods of rctl try",
    )
    .because("their agents do not answer; nothing is done by halves")
}

fn not_clean(nodes: &[String]) -> Failure {
    Failure::plain(
        Exit::Unreachable,
        format!("{} nodes cannot be cleaned: {}", nodes.len(), nodes.join(", ")),
        "`rctl uninstall --yes` again goes on where it stopped, --force goes on without them; \
         `rampart cleanup` on the node does the same by hand",
    )
    .because("the pods that clean them do not run, or could not remove everything")
}

/// What each node was rid of, and what stays there.
pub(super) fn text(reports: &Reports) -> String {
    let mut text = String::new();
    for (node, report) in reports {
        let nothing = if report.removed.is_empty() { " nothing of ours was left" } else { "" };
        text.push_str(&format!("node {node}:{nothing}\n"));
        let mut line = |word: &str, what: &str| {
            text.push_str(&format!("  {word:<8} {}\n", printable(what)));
        };
        for removed in report.removed.iter().take(LINES) {
            line("removed", removed);
        }
        if let Some(more) = report.removed.len().checked_sub(LINES).filter(|more| *more > 0) {
            line("removed", &format!("and {more} more"));
        }
        if !report.pod_routes.is_empty() {
            line("kept", &routes_of_pods(&report.pod_routes));
        }
        for kept in &report.kept {
            line("kept", kept);
        }
        for failed in &report.failed {
            line("FAILED", failed);
        }
    }
    text
}

fn routes_of_pods(routes: &[String]) -> String {
    let shown: Vec<&str> = routes.iter().take(ROUTES).map(String::as_str).collect();
    let more = match routes.len().saturating_sub(ROUTES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("routes of pods that run, which go with them: {}{more}", shown.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(removed: &[&str], kept: &[&str]) -> Uninstalled {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Uninstalled {
            done: true,
            removed: lines(removed),
            kept: lines(kept),
            ..Uninstalled::default()
        }
    }

    #[test]
    fn every_node_tells_what_it_was_rid_of_and_what_stays_and_why() {
        let mut first = report(&["table inet rampart"], &[]);
        add(
            &mut first,
            Uninstalled {
                pod_routes: vec!["10.1.0.7/32".to_owned(), "fd00:1::7/128".to_owned()],
                ..report(&["/run/rampart"], &["/x: why"])
            },
        );
        let reports =
            Reports::from([("n1".to_owned(), first), ("n2".to_owned(), report(&[], &[]))]);
        assert_eq!(
            text(&reports),
            "node n1:\n  removed  table inet rampart\n  removed  /run/rampart\n  \
             kept     routes of pods that run, which go with them: 10.1.0.7/32 fd00:1::7/128\n  \
             kept     /x: why\nnode n2: nothing of ours was left\n"
        );
    }

    #[test]
    fn a_large_node_does_not_fill_the_screen() {
        let many: Vec<String> = (0..100).map(|i| format!("route 10.0.{i}.0/24")).collect();
        let mut large = report(&[], &[]);
        large.removed.clone_from(&many);
        large.pod_routes = many;
        let text = text(&Reports::from([("n1".to_owned(), large)]));
        assert_eq!(text.lines().count(), LINES + 3, "{text}");
        assert!(text.contains("and 76 more") && text.contains("and 88 more"), "{text}");
    }
}

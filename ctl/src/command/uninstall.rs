//! `rctl uninstall`: first the nodes, by their agents; then what runs; then the rest.

use std::time::{Duration, Instant};

use api::control::{Uninstalled, Version};
use clap::Args;
use hyper::Method;
use kube::api::DynamicObject;

use super::{print, remark};
use crate::agents::{Agents, failure, silence};
use crate::args::Global;
use crate::cluster::{Cluster, ClusterError, LOOK, title};
use crate::failure::{Exit, Failure};
use crate::manifest;

/// How long one request to an agent may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What becomes of the pods, said before and after.
const PODS: &str = "\
Pods keep running, with their interfaces and addresses, and still reach each other on their node.
From now on no NetworkPolicy is in force, pods are not reached from other nodes, and no pod is started
or deleted until another network plugin is installed. Then restart the pods, node by node.
";

/// Options of `rctl uninstall`.
#[derive(Clone, Debug, Args)]
pub struct UninstallArgs {
    /// Do it; without this only the plan is shown
    #[arg(long)]
    pub yes: bool,
    /// Only show the plan
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Leave our CustomResourceDefinitions, and so all BGPPeers and the like
    #[arg(long)]
    pub keep_crds: bool,
    /// Go on although an agent does not answer: its node keeps routes, policy and CNI files
    #[arg(long)]
    pub force: bool,
    /// Give up waiting after this long (exit code 4)
    #[arg(long, default_value = "3m", value_parser = super::wait::duration)]
    pub timeout: Duration,
}

/// Runs the verb.
///
/// # Errors
/// Not confirmed; an agent does not answer; the cluster refuses; not done in time.
pub async fn run(global: &Global, args: &UninstallArgs) -> Result<Exit, Failure> {
    let cluster = global.access.connect().await?;
    let agents = match Agents::of_cluster(cluster.clone(), PATIENCE).await {
        Ok(agents) => Some(agents),
        Err(ClusterError::NotInstalled { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let objects = present(&cluster).await?;
    print(&plan(&cluster, agents.as_ref(), &objects, args.keep_crds).await?)?;
    if args.dry_run || (objects.is_empty() && agents.is_none()) {
        return Ok(Exit::Ok);
    }
    if !args.yes {
        return Err(Failure::plain(
            Exit::Usage,
            "nothing was done",
            "say --yes to do it, and --keep-crds to keep BGPPeers and the like",
        ));
    }
    let deadline = Instant::now() + args.timeout;
    if let Some(agents) = &agents {
        clean_nodes(agents, args.force, deadline).await?;
    }
    let (workloads, rest): (Vec<_>, Vec<_>) =
        objects.iter().partition(|o| manifest::is_workload(o));
    for object in workloads {
        remove(&cluster, object).await?;
    }
    wait_until(deadline, "the pods are gone", async || Ok(cluster.own_pods().await? == 0)).await?;
    let (definitions, others): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|object| manifest::is_definition(object));
    for object in others.iter().rev() {
        remove(&cluster, object).await?;
    }
    if !args.keep_crds {
        for object in &definitions {
            remove(&cluster, object).await?;
        }
    }
    let gone = async || {
        let expected = if args.keep_crds { definitions.len() } else { 0 };
        Ok(present(&cluster).await?.len() <= expected)
    };
    wait_until(deadline, "everything is gone", gone).await?;
    print(&format!("Rampart is gone.\n{PODS}"))?;
    Ok(Exit::Ok)
}

/// Those of our objects that are in the cluster, in the order of installation.
async fn present(cluster: &Cluster) -> Result<Vec<DynamicObject>, Failure> {
    let mut all = manifest::objects(&[])?;
    let workload = all.iter().position(manifest::is_workload).unwrap_or(all.len());
    all.splice(workload..workload, manifest::reflector()?);
    let mut present = Vec::new();
    for object in all {
        if cluster.find(&object).await?.is_some() {
            present.push(object);
        }
    }
    Ok(present)
}

async fn plan(
    cluster: &Cluster,
    agents: Option<&Agents>,
    objects: &[DynamicObject],
    keep_crds: bool,
) -> Result<String, Failure> {
    let mut text = format!("uninstall Rampart from {}\n", cluster.server());
    match agents {
        Some(agents) => text.push_str(&format!(
            "  1. {} nodes: CNI list and plugin, overlay, routes, policy, state (by their agents)\n",
            agents.count()
        )),
        None => text.push_str("  1. no agents: nothing is removed from nodes\n"),
    }
    text.push_str("  2. objects:\n");
    for object in objects {
        let definition = manifest::is_definition(object);
        if definition && keep_crds {
            continue;
        }
        let note = if definition {
            match cluster.objects_of(object).await?.len() {
                0 => String::new(),
                count => format!("   and with it {count} objects!"),
            }
        } else if object.types.as_ref().is_some_and(|types| types.kind == "Namespace") {
            "   and with it all that is in it!".to_owned()
        } else {
            String::new()
        };
        text.push_str(&format!("     {}{note}\n", title(object)));
    }
    text.push_str(PODS);
    Ok(text)
}

/// All agents must answer before the first one is asked to leave.
async fn clean_nodes(agents: &Agents, force: bool, deadline: Instant) -> Result<(), Failure> {
    if let Ok(answers) = agents.ask::<Version>("/v1/version").await {
        let silent = answers.failures;
        remark(&silence(&silent));
        if !silent.is_empty() && !force {
            return Err(not_clean(silent.len()));
        }
    }
    loop {
        let mut open = Vec::new();
        let mut reports = Vec::new();
        for (node, result) in agents.request(&Method::POST, "/v1/uninstall", "").await {
            let report = result.and_then(|body| crate::client::decode::<Uninstalled>(&node, &body));
            match report {
                Ok(report) if report.done => reports.push((node, report)),
                Ok(_) => open.push((node, None)),
                Err(error) => open.push((node, Some(error))),
            }
        }
        let late = Instant::now() > deadline;
        if open.is_empty() || late || (force && open.iter().all(|(_, error)| error.is_some())) {
            let failed = tell(&reports)?;
            for (node, error) in &open {
                let why = error.as_ref().map_or("not in time".to_owned(), |e| failure(e).message);
                remark(&format!("node {node} is not clean: {why}\n"));
            }
            if open.len() + failed > 0 && !force {
                return Err(not_clean(open.len() + failed));
            }
            return Ok(());
        }
        // An agent that is being replaced by its own clean-up is silent for a moment.
        tokio::time::sleep(LOOK).await;
    }
}

fn not_clean(count: usize) -> Failure {
    Failure::plain(
        Exit::Unreachable,
        format!("{count} nodes cannot be cleaned"),
        "repair them and try again; or --force, and run `rampart cleanup` on them yourself",
    )
    .because("only the agent of a node can remove its routes, policy and CNI files")
}

/// What each node was rid of; how many have something left.
fn tell(reports: &[(String, Uninstalled)]) -> Result<usize, Failure> {
    let mut text = String::new();
    let mut unclean = 0;
    for (node, report) in reports {
        text.push_str(&format!("node {node}: {} things removed\n", report.removed.len()));
        for kept in &report.kept {
            text.push_str(&format!("  kept   {kept}\n"));
        }
        for failed in &report.failed {
            text.push_str(&format!("  FAILED {failed}\n"));
        }
        unclean += usize::from(!report.failed.is_empty());
    }
    print(&text)?;
    Ok(unclean)
}

async fn remove(cluster: &Cluster, object: &DynamicObject) -> Result<(), Failure> {
    if cluster.delete(object).await? {
        print(&format!("deleted {}\n", title(object)))?;
    }
    Ok(())
}

async fn wait_until(
    deadline: Instant,
    what: &str,
    condition: impl AsyncFn() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    while !condition().await? {
        if Instant::now() > deadline {
            return Err(Failure::catalogued(
                Exit::TimedOut,
                api::error_code::TIMED_OUT,
                format!("still waiting until {what}"),
            )
            .advise("run `rctl uninstall --yes` again: it goes on where it stopped"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

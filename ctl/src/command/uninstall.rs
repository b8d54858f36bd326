//! `rctl uninstall`: first the nodes, by their agents; then what runs; then what agents cannot
//! remove, or where there are none, by pods that only do that; then the rest.

mod nodes;

use std::time::{Duration, Instant};

use api::constant::NAMESPACE;
use clap::Args;
use kube::api::DynamicObject;

use super::{print, remark};
use crate::agents::Agents;
use crate::args::Global;
use crate::cluster::{Cluster, ClusterError, LOOK, title};
use crate::failure::{Exit, Failure};
use crate::manifest;

/// How long one request to an agent may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What becomes of the pods, said before and after.
const PODS: &str = "\
Pods keep running, with their interfaces, addresses and host routes (protocol 83), which go with them,
and still reach each other on their node. From now on no NetworkPolicy is in force, pods are not
reached from other nodes, and no pod is started or deleted until another network plugin is installed.
Then restart the pods, node by node.
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
    /// Go on although an agent does not answer, or a node cannot be cleaned
    #[arg(long)]
    pub force: bool,
    /// As for `rctl install`, where the agents are gone already: image.repository, cni.binDir, ...
    #[arg(long, value_name = "KEY=VALUE", value_parser = manifest::parse_setting)]
    pub set: Vec<(String, String)>,
    /// Give up waiting after this long (exit code 4)
    #[arg(long, default_value = "3m", value_parser = super::wait::duration)]
    pub timeout: Duration,
}

/// Runs the verb. With `--force` it ends with exit code 3 when nodes are not clean.
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
    let cleaners = cleaners(&cluster, &args.set, &objects).await?;
    print(&plan(&cluster, agents.as_ref(), &objects, args.keep_crds).await?)?;
    if args.dry_run {
        return Ok(Exit::Ok);
    }
    if !args.yes {
        return Err(Failure::plain(
            Exit::Usage,
            "nothing was done",
            "say --yes to do it, and --keep-crds to keep BGPPeers and the like",
        ));
    }
    let course = Course { cluster, force: args.force, deadline: Instant::now() + args.timeout };
    let unclean = course.clean_nodes(agents.as_ref(), &objects, &cleaners).await?;
    for node in course.cluster.withdraw_node_conditions().await? {
        print(&format!("node {node}: condition NetworkUnavailable removed\n"))?;
    }
    course.remove_rest(args.keep_crds).await?;
    print(&format!("Rampart is gone{}.\n{PODS}", but_for(&unclean)))?;
    Ok(if unclean.is_empty() { Exit::Ok } else { Exit::Unreachable })
}

/// Nodes that `--force` has left as they were.
fn but_for(unclean: &[String]) -> String {
    if unclean.is_empty() {
        return String::new();
    }
    let nodes = unclean.join(", ");
    format!(", but not from {nodes}: `rctl uninstall --yes` again when they answer")
}

/// An uninstallation that is under way.
struct Course {
    cluster: Cluster,
    force: bool,
    deadline: Instant,
}

impl Course {
    /// Agents leave, what runs is ended, and what they could not do is done by `cleaners`. Returns the
    /// nodes that are not clean; there are none without `--force`.
    async fn clean_nodes(
        &self,
        agents: Option<&Agents>,
        objects: &[DynamicObject],
        cleaners: &DynamicObject,
    ) -> Result<Vec<String>, Failure> {
        let cluster = &self.cluster;
        let mut reports = match agents {
            Some(agents) => nodes::leave(agents, self.force, self.deadline).await?,
            None => nodes::Reports::new(),
        };
        for object in objects.iter().filter(|object| manifest::is_workload(object)) {
            remove(cluster, object).await?;
        }
        // Those of an uninstallation that was interrupted.
        cluster.delete(cleaners).await?;
        self.pods_end().await?;
        let made = self.make_namespace().await?;
        cluster.apply(cleaners).await?;
        let swept = nodes::sweep(cluster, self.force, self.deadline, &mut reports).await;
        cluster.delete(cleaners).await?;
        print(&nodes::text(&reports))?;
        let unclean = swept?;
        self.pods_end().await?;
        // Ours goes with the rest.
        if let Some(namespace) = made.filter(|_| cluster.agent_namespace() != NAMESPACE) {
            remove(cluster, &namespace).await?;
        }
        Ok(unclean)
    }

    /// Waits until no pod of ours is left. On a node whose kubelet is silent that never happens, so
    /// with `--force` it is not waited for long.
    async fn pods_end(&self) -> Result<(), Failure> {
        let ended = async || Ok(self.cluster.own_pods().await? == 0);
        self.wait("the pods are gone", ended).await
    }

    async fn wait(
        &self,
        what: &str,
        condition: impl AsyncFn() -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let patient = Instant::now() + nodes::FORCED;
        let deadline = if self.force { self.deadline.min(patient) } else { self.deadline };
        match wait_until(deadline, what, condition).await {
            Err(failure) if self.force && failure.exit == Exit::TimedOut => {
                remark(&format!(
                    "{}: pods of nodes that do not answer stay until their Nodes are deleted\n",
                    failure.message
                ));
                Ok(())
            }
            result => result,
        }
    }

    /// `kubectl delete -f install.yaml` takes the namespace away, too, and that takes a while. It is
    /// returned if it was made.
    async fn make_namespace(&self) -> Result<Option<DynamicObject>, Failure> {
        let embedded = manifest::objects(&[])?.into_iter().find(manifest::is_namespace);
        let Some(mut namespace) = embedded else { return Ok(None) };
        namespace.metadata.name = Some(self.cluster.agent_namespace().to_owned());
        let settled = async || {
            let found = self.cluster.find(&namespace).await?;
            Ok(found.is_none_or(|found| found.metadata.deletion_timestamp.is_none()))
        };
        let what = "the namespace that is being deleted is gone";
        wait_until(self.deadline, what, settled).await?;
        if self.cluster.find(&namespace).await?.is_some() {
            return Ok(None);
        }
        self.cluster.apply(&namespace).await?;
        Ok(Some(namespace))
    }

    /// Everything but what runs: what was applied last goes first, kinds with their objects last.
    async fn remove_rest(&self, keep_crds: bool) -> Result<(), Failure> {
        let cluster = &self.cluster;
        let objects = present(cluster).await?;
        let (definitions, others): (Vec<_>, Vec<_>) =
            objects.iter().partition(|object| manifest::is_definition(object));
        for object in others.iter().rev() {
            remove(cluster, object).await?;
        }
        if !keep_crds {
            for object in &definitions {
                remove(cluster, object).await?;
            }
        }
        let expected = if keep_crds { definitions.len() } else { 0 };
        let gone = async || Ok(present(cluster).await?.len() <= expected);
        self.wait("everything is gone", gone).await
    }
}

/// The DaemonSet that cleans nodes: like that which is installed, or as `--set` says.
async fn cleaners(
    cluster: &Cluster,
    settings: &[(String, String)],
    present: &[DynamicObject],
) -> Result<DynamicObject, Failure> {
    let embedded = manifest::objects(settings)?;
    let mut agent = embedded.into_iter().find(manifest::is_agent);
    if settings.is_empty()
        && let Some(named) = present.iter().find(|object| manifest::is_agent(object))
        && let Some(installed) = cluster.find(named).await?
    {
        agent = Some(installed);
    }
    let agent = agent.ok_or_else(|| {
        Failure::plain(
            Exit::Negative,
            "the embedded manifests have no agent",
            "report this as a bug",
        )
    })?;
    Ok(manifest::cleanup::daemon_set(&agent, cluster.agent_namespace()))
}

/// Those of our objects that are in the cluster, in the order of installation.
async fn present(cluster: &Cluster) -> Result<Vec<DynamicObject>, Failure> {
    let mut all = manifest::objects(&[])?;
    let workload = all.iter().position(manifest::is_workload).unwrap_or(all.len());
    all.splice(workload..workload, manifest::reflector()?);
    // A chart may have been installed into a namespace of the user's, which then is not ours.
    let namespace = cluster.agent_namespace();
    if namespace != NAMESPACE {
        all.retain(|object| !manifest::is_namespace(object));
    }
    let mut present = Vec::new();
    for mut object in all {
        if object.metadata.namespace.is_some() {
            object.metadata.namespace = Some(namespace.to_owned());
        }
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
            "  1. {} nodes, by their agents and then by a short-lived DaemonSet {}:\n",
            agents.count(),
            manifest::cleanup::NAME
        )),
        None => text.push_str(&format!(
            "  1. no agents run; all nodes, by a short-lived DaemonSet {}:\n",
            manifest::cleanup::NAME
        )),
    }
    text.push_str("     CNI list and plugin, overlay, routes, policy, state, node condition\n");
    if objects.is_empty() {
        text.push_str("  2. objects: none is left\n");
        text.push_str(PODS);
        return Ok(text);
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
        } else if manifest::is_namespace(object) {
            "   and with it all that is in it!".to_owned()
        } else {
            String::new()
        };
        text.push_str(&format!("     {}{note}\n", title(object)));
    }
    text.push_str(PODS);
    Ok(text)
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

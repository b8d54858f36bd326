//! `rctl install` and `rctl upgrade`: the manifests of this version into a cluster, with a plan
//! before and progress meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::DynamicObject;
use serde_json::Value;

use super::{print, remark};
use crate::args::Global;
use crate::cluster::{
    Cluster, ClusterError, Difference, LOOK, Place, Rollout, images_not_pulled, title,
};
use crate::failure::{Exit, Failure};
use crate::manifest;
use crate::manifest::kept::Setting;
use crate::output::Format;
use crate::output::table::printable;

/// The oldest API server that the manifests are for, as the chart's `kubeVersion` says.
const OLDEST_API: (u32, u32) = (1, 33);
/// Requests to the API server at once.
const AT_ONCE: usize = 8;
/// More fields of one object do not help.
const FIELDS: usize = 10;
/// How often it is looked why pods do not run.
const LOOK_AT_PODS: Duration = Duration::from_secs(3);
/// How long the API server may take to serve a new kind.
const ESTABLISH: Duration = Duration::from_secs(30);

/// Options of `rctl install` and `rctl upgrade`.
#[derive(Clone, Debug, Args)]
pub struct InstallArgs {
    /// Change nothing: print what would be done (server), or the manifests (client)
    #[arg(
        long,
        value_name = "WHERE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "server"
    )]
    pub dry_run: Option<DryRun>,
    /// Change a value of the manifests; may be given several times. Kept by later upgrades
    #[arg(long, value_name = "KEY=VALUE", value_parser = manifest::parse_setting)]
    pub set: Vec<(String, String)>,
    /// Forget the values that were set before
    #[arg(long)]
    pub reset_values: bool,
    /// Give up waiting after this long (exit code 4)
    #[arg(long, default_value = "5m", value_parser = super::wait::duration)]
    pub timeout: Duration,
    /// Do not wait until the agents run
    #[arg(long)]
    pub no_wait: bool,
}

/// Where a dry run stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Ask the API server, which changes nothing
    Server,
    /// Ask nobody: print the manifests
    Client,
}

/// Options of `rctl upgrade` alone.
#[derive(Clone, Debug, Args)]
pub struct UpgradeArgs {
    /// What it has in common with `install`.
    #[command(flatten)]
    pub install: InstallArgs,
    /// Go back to an older version
    #[arg(long)]
    pub allow_downgrade: bool,
}

/// What the user wants to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Install,
    Upgrade { allow_downgrade: bool },
}

/// Installs, or repairs an installation of the same version.
///
/// # Errors
/// The cluster refuses, has another version, or is not ready in time.
pub async fn install(global: &Global, args: &InstallArgs) -> Result<Exit, Failure> {
    run(global, args, Mode::Install).await
}

/// Replaces the installed version by this one.
///
/// # Errors
/// The same; and when nothing is installed, or something newer.
pub async fn upgrade(global: &Global, args: &UpgradeArgs) -> Result<Exit, Failure> {
    run(global, &args.install, Mode::Upgrade { allow_downgrade: args.allow_downgrade }).await
}

async fn run(global: &Global, args: &InstallArgs, mode: Mode) -> Result<Exit, Failure> {
    if global.access.agent_namespace != api::constant::NAMESPACE {
        return Err(Failure::plain(
            Exit::Usage,
            format!("Rampart is installed into the namespace {}", api::constant::NAMESPACE),
            "leave out --agent-namespace, or use the Helm chart",
        ));
    }
    let said = manifest::objects(&args.set)?;
    if args.dry_run == Some(DryRun::Client) {
        print(&yaml(&said)?)?;
        return Ok(Exit::Ok);
    }
    let cluster = global.access.connect().await?;
    check_api(&cluster.server_version().await?)?;
    let installed = cluster.installed().await?;
    let note = installed.as_ref().and_then(|installed| installed.note.as_deref());
    let settings = manifest::kept::merged(note.filter(|_| !args.reset_values), &args.set)?;
    let objects = with(&settings)?;
    let ours = version_of(&objects);
    let theirs = installed.as_ref().map(|installed| installed.version.as_str());
    let heading = check_versions(theirs, &ours, mode)?;
    print(&format!("{heading} on {}\n{}", cluster.server(), render_settings(&settings)))?;
    let plan = plan(&cluster, &objects).await?;
    print(&render_plan(&plan))?;
    for node in cluster.nodes_without_pod_cidrs().await? {
        remark(&format!(
            "warn: node {node} has no podCIDRs, so its pods get no addresses: run \
             kube-controller-manager with --allocate-node-cidrs and --cluster-cidr\n"
        ));
    }
    if args.dry_run.is_some() {
        print("dry run: nothing was changed\n")?;
        return Ok(Exit::Ok);
    }
    apply(&cluster, &plan).await?;
    if args.no_wait {
        return Ok(Exit::Ok);
    }
    wait_for_rollout(&cluster, args.timeout).await?;
    print("Rampart runs on every node.\nnext: rctl doctor --wait, then rctl status\n")?;
    Ok(Exit::Ok)
}

/// The manifests with all settings, which they carry as a note.
fn with(settings: &[Setting]) -> Result<Vec<DynamicObject>, Failure> {
    let pairs: Vec<_> = settings.iter().map(|s| (s.key.clone(), s.value.clone())).collect();
    let mut objects = manifest::objects(&pairs).map_err(|failure| {
        if settings.iter().any(|setting| setting.kept) {
            let next = "say another value, use the rctl that set it, or --reset-values";
            failure.because("a value that was set before does not fit this version").advise(next)
        } else {
            failure
        }
    })?;
    manifest::kept::note(&mut objects, settings);
    Ok(objects)
}

fn render_settings(settings: &[Setting]) -> String {
    let line = |setting: &Setting| {
        let kept = if setting.kept { "   (kept from before)" } else { "" };
        format!("  set        {}={}{kept}\n", setting.key, setting.value)
    };
    settings.iter().map(line).collect()
}

fn yaml(objects: &[DynamicObject]) -> Result<String, Failure> {
    let mut text = String::new();
    for object in objects {
        let value = serde_json::to_value(object).map_err(|error| {
            Failure::plain(Exit::Negative, "cannot print the manifests", "")
                .because(error.to_string())
        })?;
        text.push_str("---\n");
        text.push_str(&crate::output::format::text(&value, Format::Yaml)?);
    }
    Ok(text)
}

/// `v1.36.3` -> (1, 36); providers add `+` and more.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    let number = |text: &str| {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        digits.parse().ok()
    };
    Some((number(parts.next()?)?, number(parts.next()?)?))
}

fn check_api(version: &str) -> Result<(), Failure> {
    match numbers(version) {
        Some(found) if found < OLDEST_API => Err(Failure::plain(
            Exit::Negative,
            format!("the API server is {version}"),
            format!("upgrade Kubernetes to {}.{} or later first", OLDEST_API.0, OLDEST_API.1),
        )
        .because("the manifests use what it does not have")),
        Some(_) | None => Ok(()),
    }
}

/// Tag of the image that will be installed.
fn version_of(objects: &[DynamicObject]) -> String {
    objects
        .iter()
        .filter(|object| manifest::is_workload(object))
        .find_map(|object| object.data.pointer("/spec/template/spec/containers/0/image"))
        .and_then(Value::as_str)
        .and_then(|image| image.rsplit_once(':'))
        .map_or_else(String::new, |(_, tag)| tag.to_owned())
}

/// What is done, as a heading; or why it is not.
fn check_versions(installed: Option<&str>, ours: &str, mode: Mode) -> Result<String, Failure> {
    match (installed, mode) {
        (None, Mode::Install) => Ok(format!("install Rampart {ours}")),
        (None, Mode::Upgrade { .. }) => Err(Failure::catalogued(
            Exit::Negative,
            api::error_code::NOT_INSTALLED,
            "there is nothing to upgrade",
        )),
        (Some(theirs), _) if theirs == ours => Ok(format!("apply Rampart {ours} again")),
        (Some(theirs), Mode::Install) => Err(Failure::plain(
            Exit::Negative,
            format!("Rampart {theirs} is installed, and this rctl is of {ours}"),
            "use `rctl upgrade`",
        )),
        (Some(theirs), Mode::Upgrade { allow_downgrade }) => {
            if is_newer(theirs, ours) && !allow_downgrade {
                return Err(Failure::plain(
                    Exit::Negative,
                    format!("Rampart {theirs} is installed, which is newer than {ours}"),
                    "use a newer rctl, or --allow-downgrade",
                )
                .because("objects that the newer version wrote may not be understood"));
            }
            Ok(format!("upgrade Rampart {theirs} to {ours}"))
        }
    }
}

/// Versions that are no numbers are not compared.
fn is_newer(one: &str, other: &str) -> bool {
    let parts = |version: &str| -> Option<Vec<u64>> {
        let core = version.trim_start_matches('v').split(['-', '+']).next()?;
        core.split('.').map(|part| part.parse().ok()).collect()
    };
    match (parts(one), parts(other)) {
        (Some(one), Some(other)) => one > other,
        _ => false,
    }
}

type Planned<'a> = (&'a DynamicObject, Difference);

async fn plan<'a>(
    cluster: &Cluster,
    objects: &'a [DynamicObject],
) -> Result<Vec<Planned<'a>>, ClusterError> {
    let namespace =
        objects.iter().find(|o| o.types.as_ref().is_some_and(|types| types.kind == "Namespace"));
    let exists = match namespace {
        Some(namespace) => cluster.find(namespace).await?.is_some(),
        None => true,
    };
    futures::stream::iter(objects)
        .map(|object| async move { Ok((object, cluster.difference(object, exists).await?)) })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

fn render_plan(plan: &[Planned<'_>]) -> String {
    let mut text = String::new();
    let mut unchanged = 0;
    for (object, difference) in plan {
        match difference {
            Difference::Created => text.push_str(&format!("  created    {}\n", title(object))),
            Difference::Changed(fields) => {
                text.push_str(&format!("  changed    {}\n", title(object)));
                for field in fields.iter().take(FIELDS) {
                    text.push_str(&format!("               {}\n", printable(&field.to_string())));
                }
                if let Some(more) = fields.len().checked_sub(FIELDS).filter(|more| *more > 0) {
                    text.push_str(&format!("               and {more} more\n"));
                }
            }
            Difference::Unchanged => unchanged += 1,
        }
    }
    if unchanged > 0 {
        text.push_str(&format!("  unchanged  {unchanged} of {} objects\n", plan.len()));
    }
    text
}

/// Definitions first; the rest only when they are served.
async fn apply(cluster: &Cluster, plan: &[Planned<'_>]) -> Result<(), Failure> {
    let to_do = |wanted: bool| {
        plan.iter().filter(move |(object, difference)| {
            manifest::is_definition(object) == wanted && *difference != Difference::Unchanged
        })
    };
    for (object, _) in to_do(true) {
        cluster.apply(object).await?;
    }
    let definitions = plan.iter().filter(|(object, _)| manifest::is_definition(object));
    for (object, _) in definitions {
        wait_established(cluster, object).await?;
    }
    for (object, _) in to_do(false) {
        cluster.apply(object).await?;
    }
    Ok(())
}

async fn wait_established(cluster: &Cluster, definition: &DynamicObject) -> Result<(), Failure> {
    let deadline = Instant::now() + ESTABLISH;
    loop {
        let found = cluster.find(definition).await?;
        let conditions = found.as_ref().and_then(|o| o.data.pointer("/status/conditions"));
        let established = conditions.and_then(Value::as_array).is_some_and(|all| {
            all.iter().any(|condition| {
                condition.get("type").and_then(Value::as_str) == Some("Established")
                    && condition.get("status").and_then(Value::as_str) == Some("True")
            })
        });
        if established {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::catalogued(
                Exit::TimedOut,
                api::error_code::TIMED_OUT,
                format!("{} is not served", title(definition)),
            )
            .because(format!("not Established within {} s", ESTABLISH.as_secs())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn wait_for_rollout(cluster: &Cluster, timeout: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let mut told = String::new();
    let mut images = BTreeSet::new();
    let mut next_look = Instant::now() + LOOK_AT_PODS;
    loop {
        let agents = cluster.agent_rollout().await?;
        let reflectors = cluster.reflector_rollout().await?;
        let progress = progress(agents.as_ref(), reflectors.as_ref());
        if progress != told {
            remark(&format!("{progress}\n"));
            told = progress;
        }
        if [&agents, &reflectors].into_iter().flatten().all(Rollout::is_complete) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(late(cluster, timeout, &told).await);
        }
        if Instant::now() > next_look {
            next_look = Instant::now() + LOOK_AT_PODS;
            for error in images_not_pulled(&pods(cluster).await) {
                if images.insert(error.failure().message) {
                    remark(&error.failure().render());
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn progress(agents: Option<&Rollout>, reflectors: Option<&Rollout>) -> String {
    let part = |name: &str, rollout: &Rollout| {
        format!("{name} {}/{} ready", rollout.ready, rollout.wanted)
    };
    let parts = agents.map(|r| part("agents", r)).into_iter();
    parts.chain(reflectors.map(|r| part("reflectors", r))).collect::<Vec<_>>().join(", ")
}

/// Our pods, where they can be seen.
async fn pods(cluster: &Cluster) -> Vec<Place> {
    let mut places = cluster.agents().await.unwrap_or_default();
    places.extend(cluster.reflectors().await.unwrap_or_default());
    places
}

/// It took too long: why pods do not run, where it is known, and what to do about it.
async fn late(cluster: &Cluster, timeout: Duration, progress: &str) -> Failure {
    let places = pods(cluster).await;
    let late = Failure::catalogued(
        Exit::TimedOut,
        api::error_code::TIMED_OUT,
        format!("not all agents run after {} s: {progress}", timeout.as_secs()),
    );
    if let Some(error) = images_not_pulled(&places).first() {
        let cause = error.failure();
        return late.because(format!("{}: {}", cause.message, cause.why)).advise(cause.next);
    }
    let reasons: Vec<String> = places
        .into_iter()
        .filter_map(|place| match place {
            Place::NotRunning(pod, trouble) => {
                Some(format!("{} (pod {}): {}", pod.node, pod.name, trouble.why))
            }
            Place::Absent(node) => Some(format!("{node}: no pod yet")),
            Place::Running(_) => None,
        })
        .collect();
    if reasons.is_empty() {
        return late
            .because("the agents run and are not ready")
            .advise("rctl status and rctl doctor say why");
    }
    let namespace = cluster.agent_namespace();
    late.because(reasons.join("; "))
        .advise(format!("`kubectl -n {namespace} describe pod POD` of one of them; rctl doctor"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Change;

    #[test]
    fn versions_decide_what_is_done() {
        let upgrade = |allow_downgrade| Mode::Upgrade { allow_downgrade };
        assert_eq!(check_versions(None, "0.2.0", Mode::Install).unwrap(), "install Rampart 0.2.0");
        assert_eq!(
            check_versions(Some("0.2.0"), "0.2.0", Mode::Install).unwrap(),
            "apply Rampart 0.2.0 again"
        );
        assert!(
            check_versions(Some("0.1.0"), "0.2.0", Mode::Install)
                .unwrap_err()
                .next
                .contains("upgrade")
        );
        assert!(check_versions(Some("0.1.9"), "0.2.0", upgrade(false)).is_ok());
        assert!(check_versions(Some("0.10.0"), "0.2.0", upgrade(false)).is_err());
        assert!(check_versions(Some("0.10.0"), "0.2.0", upgrade(true)).is_ok());
        let nothing = check_versions(None, "0.2.0", upgrade(true)).unwrap_err();
        assert_eq!(nothing.code, Some(api::error_code::NOT_INSTALLED));
    }

    #[test]
    fn an_old_api_server_is_refused_and_a_provider_suffix_is_read() {
        assert!(check_api("v1.32.4").is_err());
        assert!(check_api("v1.33.0-eks-123").is_ok());
        assert_eq!(numbers("v1.31+"), Some((1, 31)));
        assert!(check_api("unknown").is_ok());
    }

    #[test]
    fn a_plan_names_what_changes_and_counts_the_rest() {
        let objects = manifest::objects(&[]).unwrap();
        let plan: Vec<Planned<'_>> = objects
            .iter()
            .enumerate()
            .map(|(index, object)| match index {
                0 => (object, Difference::Created),
                1 => {
                    let change = |index| Change {
                        path: format!("spec.field{index}"),
                        from: Some("a".to_owned()),
                        to: Some("b".to_owned()),
                    };
                    (object, Difference::Changed((0..FIELDS + 2).map(change).collect()))
                }
                _ => (object, Difference::Unchanged),
            })
            .collect();
        let text = render_plan(&plan);
        assert!(text.starts_with("  created    CustomResourceDefinition "), "{text}");
        assert!(text.contains("\n               spec.field0: a -> b\n"), "{text}");
        assert!(text.contains("\n               and 2 more\n"), "{text}");
        assert!(
            text.ends_with(&format!("{} of {} objects\n", plan.len() - 2, plan.len())),
            "{text}"
        );
    }

    #[test]
    fn the_manifests_are_of_this_version() {
        let objects = manifest::objects(&[]).unwrap();
        assert_eq!(version_of(&objects), env!("CARGO_PKG_VERSION"));
    }
}

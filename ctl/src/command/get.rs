//! `rctl get`: list, filter, watch.

use std::collections::BTreeMap;
use std::time::Duration;

use api::control::{EndpointView, NodeView, PeerView, PolicyView, RouteView};
use clap::Args;

use super::resource::{Kind, Resource};
use super::{print, remark};
use crate::agents::{Agents, failure, silence};
use crate::client::ClientError;
use crate::failure::{Exit, Failure};
use crate::output::table::stable_cells;
use crate::output::{Format, Table, format};

/// How often `-w` looks again.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// The same through an API server, which starts a process on every node for it.
const REMOTE_WATCH_INTERVAL: Duration = Duration::from_secs(3);

/// Lists objects of all reachable agents, merged.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  rctl get peers -o wide\n  rctl get routes --node n1\n  rctl get route 10.244.3.7   # which route it takes, on every node\n  rctl get networkpolicy -A\n  rctl get endpoints -n shop -l app=web -o json\n  rctl get peers -w"
)]
pub struct GetArgs {
    /// What to list
    pub kind: Kind,
    /// Only the one of this name (for routes a prefix, or an address: the route that it takes; for
    /// peers a name or address)
    pub name: Option<String>,
    /// Which of them
    #[command(flatten)]
    pub scope: Scope,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Print rows again as they change, until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// Leave out the header line
    #[arg(long)]
    pub no_headers: bool,
}

/// Which objects of a kind are meant.
#[derive(Clone, Debug, Default, Args)]
pub struct Scope {
    /// Namespace of networkpolicy and endpoints (else the context's, else default)
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Only of this node
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Only with these labels: `app=web,tier!=cache,canary,!legacy`
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = parse_selector)]
    pub selector: Option<Selector>,
}

/// A label selector in kubectl's equality form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Equals(String, String),
    Differs(String, String),
    Exists(String),
    Absent(String),
}

fn parse_selector(text: &str) -> Result<Selector, String> {
    text.split(',')
        .map(str::trim)
        .map(|term| {
            let requirement = if let Some((key, value)) = term.split_once("!=") {
                Requirement::Differs(key.trim().to_owned(), value.trim().to_owned())
            } else if let Some((key, value)) = term.split_once('=') {
                Requirement::Equals(
                    key.trim().to_owned(),
                    value.trim_start_matches('=').trim().to_owned(),
                )
            } else if let Some(key) = term.strip_prefix('!') {
                Requirement::Absent(key.trim().to_owned())
            } else {
                Requirement::Exists(term.to_owned())
            };
            if requirement.key().is_empty() || requirement.key().contains(char::is_whitespace) {
                Err(format!("`{term}` is no requirement: write key=value, key!=value, key or !key"))
            } else {
                Ok(requirement)
            }
        })
        .collect::<Result<_, _>>()
        .map(Selector)
}

impl Requirement {
    fn key(&self) -> &str {
        match self {
            Self::Equals(key, _)
            | Self::Differs(key, _)
            | Self::Exists(key)
            | Self::Absent(key) => key,
        }
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(self.key());
        match self {
            Self::Equals(_, wanted) => value == Some(wanted),
            Self::Differs(_, unwanted) => value != Some(unwanted),
            Self::Exists(_) => value.is_some(),
            Self::Absent(_) => value.is_none(),
        }
    }
}

impl Scope {
    /// Without `-n` it is the namespace of the kubeconfig's context, as with kubectl.
    pub fn default_to(&mut self, agents: &Agents) {
        if self.namespace.is_none() {
            self.namespace = agents.cluster().map(|cluster| cluster.namespace().to_owned());
        }
    }

    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    fn admits<T: Resource>(&self, item: &T) -> bool {
        let namespace =
            self.all_namespaces || item.namespace().is_none_or(|n| n == self.namespace());
        let node =
            self.node.as_deref().is_none_or(|wanted| item.node().is_none_or(|n| n == wanted));
        let labels = self.selector.as_ref().is_none_or(|selector| {
            item.labels().is_some_and(|labels| selector.0.iter().all(|r| r.matches(labels)))
        });
        namespace && node && labels
    }
}

/// Runs the verb.
///
/// # Errors
/// Nobody answers; no object of that name; a label selector for a kind without labels.
pub async fn run(agents: &Agents, args: &GetArgs) -> Result<Exit, Failure> {
    match args.kind {
        Kind::Nodes => get::<NodeView>(agents, args).await,
        Kind::Peers => get::<PeerView>(agents, args).await,
        Kind::Routes => get::<RouteView>(agents, args).await,
        Kind::NetworkPolicies => get::<PolicyView>(agents, args).await,
        Kind::Endpoints => get::<EndpointView>(agents, args).await,
    }
}

/// Everything of kind `T` that is meant by `name` and `scope`, and [`Exit::Unreachable`] if agents
/// that do not answer may know more: they are remarked upon.
///
/// # Errors
/// Nobody answers, nothing has that name, or no agent has that node.
pub async fn fetch<T: Resource>(
    agents: &Agents,
    name: Option<&str>,
    scope: &Scope,
) -> Result<(Vec<T>, Exit), Failure> {
    let (items, mut silent) = ask(agents, name, scope).await?;
    if items.is_empty() && (name.is_some() || scope.node.is_some()) {
        // Who does not answer may have it: that is not the same as that there is none.
        return Err(match (silent.pop(), name, &scope.node) {
            (Some(error), _, _) => failure(&error),
            (None, Some(name), _) => not_found::<T>(name, scope),
            (None, None, node) => nothing_there::<T>(node.as_deref().unwrap_or_default()),
        });
    }
    let exit = if silent.is_empty() { Exit::Ok } else { Exit::Unreachable };
    remark(&silence(&silent));
    Ok((items, exit))
}

fn nothing_there<T: Resource>(node: &str) -> Failure {
    Failure::catalogued(
        Exit::Negative,
        api::error_code::NOT_FOUND,
        format!("no {} of node \"{node}\"", T::PLURAL),
    )
    .because("no agent that was asked is of that node, or it has none that match")
}

async fn ask<T: Resource>(
    agents: &Agents,
    name: Option<&str>,
    scope: &Scope,
) -> Result<(Vec<T>, Vec<ClientError>), Failure> {
    let answers = agents.ask::<Vec<T>>(T::PATH).await?;
    let mut items = T::merge(answers.answers);
    items.retain(|item| scope.admits(item));
    if let Some(name) = name {
        T::retain_called(&mut items, name);
    }
    Ok((items, answers.failures))
}

fn not_found<T: Resource>(name: &str, scope: &Scope) -> Failure {
    let namespaced = T::COLUMNS.first().is_some_and(|c| c.header == "NAMESPACE");
    let place = if namespaced && !scope.all_namespaces {
        format!(" in namespace {}", scope.namespace())
    } else {
        String::new()
    };
    Failure::catalogued(
        Exit::Negative,
        api::error_code::NOT_FOUND,
        format!("no {} \"{name}\"{place}", T::KIND),
    )
    .because(format!("none of the agents asked has it among its {}", T::PLURAL))
}

async fn get<T: Resource>(agents: &Agents, args: &GetArgs) -> Result<Exit, Failure> {
    let (items, exit) = fetch::<T>(agents, args.name.as_deref(), &args.scope).await?;
    let mut widths = Vec::new();
    let mut open = print(&render(&items, args, &mut widths, !args.no_headers)?)?;
    if items.is_empty() && !args.watch && matches!(args.output, Format::Table | Format::Wide) {
        let namespaced = T::COLUMNS.first().is_some_and(|c| c.header == "NAMESPACE");
        remark(&if namespaced && !args.scope.all_namespaces {
            format!(
                "No {} in namespace {} (-A shows all namespaces).\n",
                T::PLURAL,
                args.scope.namespace()
            )
        } else {
            format!("No {}.\n", T::PLURAL)
        });
    }
    let mut shown: BTreeMap<Vec<String>, Vec<String>> = items.iter().map(fingerprint).collect();
    let mut said_before = String::new();
    let interval = if agents.cluster().is_some() { REMOTE_WATCH_INTERVAL } else { WATCH_INTERVAL };
    while args.watch && open {
        tokio::time::sleep(interval).await;
        // An agent that restarts is silent for a moment; watching goes on without it.
        let (items, silent) = match ask::<T>(agents, args.name.as_deref(), &args.scope).await {
            Ok((items, silent)) => (items, silence(&silent)),
            Err(failure) => (Vec::new(), failure.render()),
        };
        if silent != said_before {
            remark(&silent);
        }
        said_before = silent;
        let changed: Vec<T> = items
            .into_iter()
            .filter(|item| {
                let (key, state) = fingerprint(item);
                shown.insert(key, state.clone()).as_ref() != Some(&state)
            })
            .collect();
        if !changed.is_empty() {
            open = print(&render(&changed, args, &mut widths, false)?)?;
        }
    }
    Ok(exit)
}

/// What a row is, and what state it is in.
fn fingerprint<T: Resource>(item: &T) -> (Vec<String>, Vec<String>) {
    let key = [item.node(), item.namespace()]
        .into_iter()
        .map(|part| part.unwrap_or_default().to_owned())
        .chain([item.name()]);
    (key.collect(), stable_cells(T::COLUMNS, item))
}

fn render<T: Resource>(
    items: &[T],
    args: &GetArgs,
    widths: &mut Vec<usize>,
    headers: bool,
) -> Result<String, Failure> {
    match args.output {
        Format::Table | Format::Wide if items.is_empty() => Ok(String::new()),
        Format::Table | Format::Wide => {
            Ok(Table::new(T::COLUMNS, items, args.output == Format::Wide).render(headers, widths))
        }
        Format::Name => Ok(items
            .iter()
            .map(|item| format!("{}/{}\n", T::KIND.to_lowercase(), item.name()))
            .collect()),
        Format::Json | Format::Yaml => {
            let value = match (items, &args.name) {
                // As kubectl: asked for by name, an object is no list (of several nodes it is).
                ([only], Some(_)) => format::object(T::KIND, only)?,
                _ => format::list(T::KIND, items)?,
            };
            format::text(&value, args.output)
        }
    }
}

#[cfg(test)]
mod tests;

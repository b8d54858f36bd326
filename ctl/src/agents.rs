//! Whom to ask: one socket that was named, every agent of a running lab, this machine's own, or
//! every agent of a cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use hyper::Method;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;

use crate::args::Global;
use crate::client::{Client, ClientError, decode};
use crate::cluster::{AgentPod, Cluster, Place, Trouble};
use crate::failure::{Exit, Failure};
use crate::output::table::printable;

/// How long an agent may take to answer before it counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same through API server and kubelet, which start a process in a pod for it.
const REMOTE_PATIENCE: Duration = Duration::from_secs(15);
/// Agents asked at once through an API server: it is everybody's.
const AT_ONCE: usize = 16;
/// So many of those that are silent are named.
const NAMED: usize = 8;
/// What `rampart control` says when the agent is silent.
const SILENT: i32 = 3;

/// The agents that a command asks. At least one.
#[derive(Clone, Debug)]
pub struct Agents {
    doors: Vec<Door>,
    /// The cluster, if they are asked through one.
    cluster: Option<Cluster>,
}

/// The way to one agent.
#[derive(Clone, Debug)]
enum Door {
    /// Its control socket.
    Socket(Client),
    /// Its own client, run in its pod.
    Pod { cluster: Cluster, pod: AgentPod, patience: Duration },
    /// Its pod does not run.
    Shut { pod: AgentPod, trouble: Trouble },
    /// There is no pod on that node.
    None { node: String },
}

/// What the agents said: answers, and who did not answer.
#[derive(Debug)]
pub struct Answers<T> {
    /// One a reachable agent.
    pub answers: Vec<T>,
    /// One a silent agent.
    pub failures: Vec<ClientError>,
}

impl Agents {
    /// Those that the options mean: `--socket`; else a cluster if one is named; else the lab if it
    /// runs; else this machine's agent; else the cluster of the kubeconfig.
    ///
    /// # Errors
    /// The cluster does not say which agents there are.
    pub async fn open(global: &Global, patience: Option<Duration>) -> Result<Self, Failure> {
        let own = Path::new(api::constant::RUN_DIR);
        let local =
            Self::discover(global.socket.as_deref(), &global.lab.directory(), own, patience);
        if global.socket.is_some() || !(global.access.is_explicit() || local.is_absent()) {
            return Ok(local);
        }
        let cluster = global.access.connect().await?;
        let patience = patience.unwrap_or(REMOTE_PATIENCE);
        Ok(Self::of_cluster(cluster, patience).await?)
    }

    /// `socket` if given, else every `*/agent.sock` below `lab`, else `run_dir/agent.sock`.
    #[must_use]
    pub fn discover(
        socket: Option<&Path>,
        lab: &Path,
        run_dir: &Path,
        patience: Option<Duration>,
    ) -> Self {
        let sockets = match socket {
            Some(socket) => vec![socket.to_owned()],
            None => {
                lab_sockets(lab).unwrap_or_else(|| vec![run_dir.join(api::constant::SOCKET_NAME)])
            }
        };
        let patience = patience.unwrap_or(PATIENCE);
        let doors = sockets.iter().map(|s| Door::Socket(Client::new(s, patience))).collect();
        Self { doors, cluster: None }
    }

    /// Every agent of `cluster`.
    ///
    /// # Errors
    /// The cluster does not say which there are.
    pub async fn of_cluster(
        cluster: Cluster,
        patience: Duration,
    ) -> Result<Self, crate::cluster::ClusterError> {
        let places = cluster.agents().await?;
        Ok(Self::at(places, cluster, patience))
    }

    /// Those at `places` of `cluster`.
    #[must_use]
    pub fn at(places: Vec<Place>, cluster: Cluster, patience: Duration) -> Self {
        let doors = places.into_iter().map(|place| match place {
            Place::Running(pod) => Door::Pod { cluster: cluster.clone(), pod, patience },
            Place::NotRunning(pod, trouble) => Door::Shut { pod, trouble },
            Place::Absent(node) => Door::None { node },
        });
        Self { doors: doors.collect(), cluster: Some(cluster) }
    }

    /// The cluster that they are asked through.
    #[must_use]
    pub const fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// It is this machine's own agent, and no laboratory's or cluster's.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let own = Path::new(api::constant::RUN_DIR).join(api::constant::SOCKET_NAME);
        self.doors.iter().all(|door| match door {
            Door::Socket(client) => client.socket() == own,
            Door::Pod { .. } | Door::Shut { .. } | Door::None { .. } => false,
        })
    }

    /// How many there are, whether they answer or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.doors.len()
    }

    /// Not a single socket exists.
    fn is_absent(&self) -> bool {
        self.doors.iter().all(|door| match door {
            Door::Socket(client) => !client.socket().exists(),
            Door::Pod { .. } | Door::Shut { .. } | Door::None { .. } => false,
        })
    }

    /// Only the agent of `node`, where it is known which that is: others need not be asked. If
    /// nobody is known to be it, all are asked.
    #[must_use]
    pub fn of_node(mut self, node: Option<&str>) -> Self {
        let Some(node) = node else { return self };
        if self.doors.iter().any(|door| door.node() == Some(node)) {
            self.doors.retain(|door| door.node() == Some(node));
        }
        self
    }

    /// Sends `GET path` to all of them at once.
    ///
    /// # Errors
    /// When not a single agent answers, or one refuses the request.
    pub async fn ask<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
    ) -> Result<Answers<T>, Failure> {
        let mut answers = Vec::new();
        let mut failures = Vec::new();
        let mut silent = Vec::new();
        for (label, result) in self.request(&Method::GET, path, "").await {
            match result.and_then(|body| decode(&label, &body)) {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    failures.push(error);
                    silent.push(label);
                }
            }
        }
        match failures.first() {
            Some(error) if answers.is_empty() => {
                let mut all = failure(error);
                all.message.push_str(&nor_of(silent.get(1..).unwrap_or_default()));
                Err(all)
            }
            _ => Ok(Answers { answers, failures }),
        }
    }

    /// Sends any request to all of them at once; who answered what, in the order of the agents.
    pub async fn request(
        &self,
        method: &Method,
        path: &str,
        body: &str,
    ) -> Vec<(String, Result<Bytes, ClientError>)> {
        futures::stream::iter(&self.doors)
            .map(|door| async move { (door.label(), door.request(method, path, body).await) })
            .buffered(AT_ONCE)
            .collect()
            .await
    }
}

/// Who else does not answer.
fn nor_of(others: &[String]) -> String {
    if others.is_empty() {
        return String::new();
    }
    let named: Vec<&str> = others.iter().take(NAMED).map(String::as_str).collect();
    let more = match others.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; nor of {}{more}", named.join(", "))
}

impl Door {
    /// Node of the agent, where it is known without asking.
    fn node(&self) -> Option<&str> {
        match self {
            Self::Socket(_) => None,
            Self::Pod { pod, .. } | Self::Shut { pod, .. } => Some(&pod.node),
            Self::None { node } => Some(node),
        }
    }

    /// For messages: the node, or the socket.
    fn label(&self) -> String {
        match self {
            Self::Socket(client) => client.socket().display().to_string(),
            Self::Pod { pod, .. } | Self::Shut { pod, .. } => pod.node.clone(),
            Self::None { node } => node.clone(),
        }
    }

    async fn request(&self, method: &Method, path: &str, body: &str) -> Result<Bytes, ClientError> {
        match self {
            Self::Socket(client) => client.request(method, path, body).await,
            Self::Pod { cluster, pod, patience } => {
                through_pod(cluster, pod, *patience, &[method.as_str(), path, body]).await
            }
            Self::Shut { pod, trouble } => {
                Err(ClientError::Cluster { node: pod.node.clone(), source: trouble.error(pod) })
            }
            Self::None { node } => Err(ClientError::NoPod { node: node.clone() }),
        }
    }
}

async fn through_pod(
    cluster: &Cluster,
    pod: &AgentPod,
    patience: Duration,
    request: &[&str],
) -> Result<Bytes, ClientError> {
    // An empty body is no argument.
    let request = request.iter().copied().filter(|word| !word.is_empty());
    let seconds = patience.as_secs().to_string();
    let words = ["/rampart", "control", "--timeout", &seconds];
    let command: Vec<&str> = words.into_iter().chain(request).collect();
    let output = cluster
        .exec(pod, &command, patience)
        .await
        .map_err(|source| ClientError::Cluster { node: pod.node.clone(), source })?;
    let said = || {
        let stderr = output.stderr.trim().trim_start_matches("error: ");
        let why = if stderr.is_empty() {
            format!("exit code {}", output.code)
        } else {
            stderr.to_owned()
        };
        ClientError::Silent { node: pod.node.clone(), pod: pod.name.clone(), why }
    };
    match output.code {
        0 => Ok(Bytes::from(output.stdout)),
        SILENT => Err(said()),
        // An agent that refuses says why in a body; a client that is too old knows no such command.
        _ => match serde_json::from_slice(&output.stdout) {
            Ok(error) => Err(ClientError::Refused { status: 0, error }),
            Err(_) => Err(said()),
        },
    }
}

/// Control sockets of a lab, sorted; `None` when there is no lab.
fn lab_sockets(lab: &Path) -> Option<Vec<PathBuf>> {
    let mut sockets: Vec<_> = std::fs::read_dir(lab)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join(api::constant::SOCKET_NAME))
        .filter(|socket| socket.exists())
        .collect();
    sockets.sort();
    (!sockets.is_empty()).then_some(sockets)
}

/// The error of one agent as the user sees it.
#[must_use]
pub fn failure(error: &ClientError) -> Failure {
    match error {
        ClientError::Refused { status, error } => Failure {
            exit: if *status == 403 { Exit::Refused } else { Exit::Negative },
            code: Some(error.code),
            message: error.message.clone(),
            why: error.why.clone(),
            next: error.next.clone(),
        },
        ClientError::Connect { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Failure::catalogued(Exit::Refused, api::error_code::NOT_PRIVILEGED, error.to_string())
        }
        ClientError::TimedOut { .. } => {
            Failure::catalogued(Exit::TimedOut, api::error_code::TIMED_OUT, error.to_string())
        }
        ClientError::Cluster { node, source } => {
            let mut failure = source.failure();
            failure.message = format!("no answer of node {node}: {}", failure.message);
            failure
        }
        ClientError::Silent { why, .. } => Failure::catalogued(
            Exit::Unreachable,
            api::error_code::AGENT_UNREACHABLE,
            error.to_string(),
        )
        .because(why.clone())
        .advise("See the log of the agent: `kubectl -n rampart-system logs POD`."),
        ClientError::NoPod { .. } => Failure::catalogued(
            Exit::Unreachable,
            api::error_code::POD_NOT_RUNNING,
            error.to_string(),
        )
        .because("The DaemonSet has not started a pod there.")
        .advise("Look at it: `kubectl -n rampart-system describe daemonset rampart-agent`."),
        ClientError::Connect { .. }
        | ClientError::Http { .. }
        | ClientError::Body { .. }
        | ClientError::Runtime(_) => {
            let failure = Failure::catalogued(
                Exit::Unreachable,
                api::error_code::AGENT_UNREACHABLE,
                error.to_string(),
            );
            match std::error::Error::source(error) {
                Some(cause) => failure.because(cause.to_string()),
                None => failure,
            }
        }
    }
}

/// Who does not answer, and why: a line each, and each advice once. Empty if all have answered.
#[must_use]
pub fn silence(errors: &[ClientError]) -> String {
    let failures: Vec<Failure> = errors.iter().map(failure).collect();
    let mut text = String::new();
    for (position, failure) in failures.iter().enumerate() {
        let code = failure.code.map(|code| format!(" {code}")).unwrap_or_default();
        let why = printable(failure.why.trim_end_matches('.'));
        text.push_str(&format!("error{code}: {} ({why})\n", printable(&failure.message)));
        let told_later = failures.iter().skip(position + 1).any(|later| later.next == failure.next);
        if !told_later && !failure.next.is_empty() {
            text.push_str(&format!("next: {}\n", failure.next));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_socket_wins() {
        let agents = Agents::discover(
            Some(Path::new("/x/agent.sock")),
            Path::new("/nonexistent"),
            Path::new("/run/rampart"),
            None,
        );
        assert_eq!(agents.doors.len(), 1);
        assert_eq!(agents.doors[0].label(), "/x/agent.sock");
    }

    #[test]
    fn without_a_lab_this_machine_is_asked() {
        let agents =
            Agents::discover(None, Path::new("/nonexistent"), Path::new("/run/rampart"), None);
        assert_eq!(agents.doors[0].label(), "/run/rampart/agent.sock");
    }

    #[tokio::test]
    async fn nobody_there_is_exit_code_3_with_the_cause() {
        let agents = Agents::discover(
            Some(Path::new("/nonexistent/agent.sock")),
            Path::new("/"),
            Path::new("/"),
            None,
        );
        let failure = agents.ask::<api::control::Version>("/v1/version").await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert_eq!(failure.code, Some(api::error_code::AGENT_UNREACHABLE));
        assert!(failure.why.contains("No such file"), "{}", failure.why);
    }

    #[test]
    fn those_that_are_silent_too_are_named() {
        assert_eq!(nor_of(&[]), "");
        let others: Vec<String> = (1..=10).map(|i| format!("n{i}")).collect();
        assert_eq!(nor_of(&others[..2]), "; nor of n1, n2");
        assert!(nor_of(&others).ends_with("n8 and 2 more"));
    }

    #[test]
    fn every_silent_agent_has_a_line_and_advice_is_given_once() {
        let error = |node: &str| ClientError::NoPod { node: node.to_owned() };
        let text = silence(&[error("n1"), error("n2")]);
        assert!(
            text.starts_with("error RC5015: node n1 has no agent pod (The DaemonSet"),
            "{text}"
        );
        assert!(text.contains("error RC5015: node n2 has no agent pod"), "{text}");
        assert_eq!(text.matches("next: ").count(), 1, "{text}");
        assert_eq!(silence(&[]), "");
    }
}

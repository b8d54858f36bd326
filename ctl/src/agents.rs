//! Whom to ask: one socket that was named, every agent of a running lab, or this machine's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::client::{Client, ClientError};
use crate::failure::{Exit, Failure};

/// How long an agent may take to answer before it counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(5);

/// The agents that a command asks. At least one.
#[derive(Clone, Debug)]
pub struct Agents {
    clients: Vec<Client>,
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
        Self { clients: sockets.iter().map(|s| Client::new(s, patience)).collect() }
    }

    /// Sends `GET path` to all of them at once.
    ///
    /// # Errors
    /// When not a single agent answers, or one refuses the request.
    pub async fn ask<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
    ) -> Result<Answers<T>, Failure> {
        let mut requests = tokio::task::JoinSet::new();
        for (position, client) in self.clients.iter().cloned().enumerate() {
            let path = path.to_owned();
            requests.spawn(async move { (position, client.get::<T>(&path).await) });
        }
        let mut results = requests.join_all().await;
        results.sort_by_key(|(position, _)| *position);
        let mut answers = Vec::new();
        let mut failures = Vec::new();
        for (_, result) in results {
            match result {
                Ok(answer) => answers.push(answer),
                Err(error) => failures.push(error),
            }
        }
        match failures.pop() {
            Some(error) if answers.is_empty() => Err(failure(&error)),
            last => {
                failures.extend(last);
                Ok(Answers { answers, failures })
            }
        }
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
        assert_eq!(agents.clients.len(), 1);
        assert_eq!(agents.clients[0].socket(), Path::new("/x/agent.sock"));
    }

    #[test]
    fn without_a_lab_this_machine_is_asked() {
        let agents =
            Agents::discover(None, Path::new("/nonexistent"), Path::new("/run/rampart"), None);
        assert_eq!(agents.clients[0].socket(), Path::new("/run/rampart/agent.sock"));
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
}

//! A command in the pod of an agent.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::error::{Request, classify};
use super::{AgentPod, Cluster, ClusterError};

/// More than any agent has to say: a full table of a large fabric is below a tenth of it.
pub const LARGEST_ANSWER: u64 = 256 << 20;
/// Larger than the default of 1 KiB: a table of routes is megabytes.
const BUFFER: usize = 64 << 10;

/// What a command left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Cluster {
    /// Runs `command` in the container of the agent, for at most `patience`.
    ///
    /// # Errors
    /// It could not be run, was not allowed, or did not end in time. That it ended with another
    /// exit code than 0 is no error.
    pub async fn exec(
        &self,
        pod: &AgentPod,
        command: &[&str],
        patience: Duration,
    ) -> Result<Output, ClusterError> {
        let run = async {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.agent_namespace);
            let parameters = AttachParams::default()
                .container(&pod.container)
                .stdin(false)
                .stdout(true)
                .stderr(true)
                .max_stdout_buf_size(BUFFER);
            let what = Request {
                verb: "get and create",
                resource: "pods/exec",
                namespace: Some(&self.agent_namespace),
            };
            let process = api.exec(&pod.name, command.iter().copied(), &parameters).await.map_err(
                |error| match classify(&self.server, &what, error) {
                    // The pod or its container went away a moment ago, or its kubelet is silent.
                    ClusterError::Refused { message: why, .. } => {
                        ClusterError::Exec { pod: pod.name.clone(), why }
                    }
                    other => other,
                },
            )?;
            output(process).await.map_err(|why| ClusterError::Exec { pod: pod.name.clone(), why })
        };
        match tokio::time::timeout(patience, run).await {
            Ok(result) => result,
            Err(_) => Err(ClusterError::Exec {
                pod: pod.name.clone(),
                why: format!("no answer within {} s", patience.as_secs()),
            }),
        }
    }
}

async fn output(mut process: AttachedProcess) -> Result<Output, String> {
    let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
    // Both must be read at once: a full one would hold up the other.
    let (stdout, stderr) = tokio::join!(read(stdout, LARGEST_ANSWER), read(stderr, LARGEST_ANSWER));
    let (stdout, stderr) = (stdout?, stderr?);
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    match status {
        Some(status) => Ok(Output { code: exit_code(&status)?, stdout, stderr }),
        None => Err("the connection ended before the command did".to_owned()),
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    if let Some(stream) = stream {
        let mut limited = stream.take(limit);
        limited.read_to_end(&mut octets).await.map_err(|error| error.to_string())?;
        if limited.limit() == 0 {
            return Err(format!("the answer is larger than {limit} octets"));
        }
    }
    Ok(octets)
}

/// The exit code is a cause of the status that the kubelet sends last.
fn exit_code(status: &Status) -> Result<i32, String> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    causes
        .into_iter()
        .flatten()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_deref()?.parse().ok())
        .ok_or_else(|| status.message.clone().unwrap_or_else(|| "no reason given".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_exit_code_is_read_from_the_last_status() {
        let status = |value| serde_json::from_value::<Status>(value).unwrap();
        assert_eq!(exit_code(&status(json!({"status": "Success"}))), Ok(0));
        let failed = json!({
            "status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
        });
        assert_eq!(exit_code(&status(failed)), Ok(3));
        let broken = json!({"status": "Failure", "message": "no such container"});
        assert_eq!(exit_code(&status(broken)), Err("no such container".to_owned()));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off() {
        let endless = tokio::io::repeat(b'x');
        let error = read(Some(endless), 1 << 20).await.unwrap_err();
        assert!(error.contains("larger than 1048576"), "{error}");
    }
}

//! Why the cluster does not say: in words that name the verb, the resource and the namespace.

use std::time::Duration;

use api::error_code::{self, Code};
use kube::client::UpgradeConnectionError;
use kube::config::KubeconfigError;

use crate::failure::{Exit, Failure};

/// Why the cluster does not say.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no kubeconfig, or it is wrong.
    #[error("no usable kubeconfig")]
    Kubeconfig {
        /// Cause.
        #[source]
        source: KubeconfigError,
    },
    /// The kubeconfig is well formed, but no client can be made of it.
    #[error("the kubeconfig cannot be used")]
    Unusable {
        /// Cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// No connection, or it broke.
    #[error("API server {server} is not reachable")]
    Unreachable {
        /// Address.
        server: String,
        /// Cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// Too slow.
    #[error("API server {server} did not answer within {} s", .seconds.as_secs())]
    TimedOut {
        /// Address.
        server: String,
        /// Limit.
        seconds: Duration,
    },
    /// The user is not known.
    #[error("API server {server} does not accept the credentials")]
    Unauthenticated {
        /// Address.
        server: String,
    },
    /// RBAC says no.
    #[error("may not {verb} {resource} {place}")]
    Forbidden {
        /// Verb of RBAC.
        verb: String,
        /// Resource, with subresource and group.
        resource: String,
        /// `in namespace x` or `in the cluster`.
        place: String,
        /// What the API server said; empty if it did not.
        message: String,
    },
    /// No pod of ours.
    #[error("no agents in namespace {namespace}")]
    NotInstalled {
        /// Where they were looked for.
        namespace: String,
    },
    /// The pod of the agent does not run.
    #[error("pod {pod} is not running")]
    NotRunning {
        /// Pod.
        pod: String,
        /// What it does instead.
        why: String,
    },
    /// Kubelets cannot get an image of ours.
    #[error("image {image} cannot be pulled on {place}")]
    ImageNotPulled {
        /// Image.
        image: String,
        /// Nodes and pods.
        place: String,
        /// What a kubelet says.
        why: String,
    },
    /// The command in the pod could not be run, or broke off.
    #[error("cannot run the client in pod {pod}")]
    Exec {
        /// Pod.
        pod: String,
        /// What came back.
        why: String,
    },
    /// Any other refusal.
    #[error("API server refused to {verb} {resource}")]
    Refused {
        /// Verb.
        verb: String,
        /// Resource.
        resource: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
}

impl ClusterError {
    /// Code of the catalogue, and exit code.
    #[must_use]
    pub fn code(&self) -> (Code, Exit) {
        match self {
            Self::Kubeconfig { .. } | Self::Unusable { .. } => {
                (error_code::KUBECONFIG, Exit::Unreachable)
            }
            Self::Unreachable { .. } | Self::TimedOut { .. } => {
                (error_code::CLUSTER_UNREACHABLE, Exit::Unreachable)
            }
            Self::Unauthenticated { .. } => (error_code::UNAUTHENTICATED, Exit::Refused),
            Self::Forbidden { .. } => (error_code::FORBIDDEN, Exit::Refused),
            Self::NotInstalled { .. } => (error_code::NOT_INSTALLED, Exit::Unreachable),
            Self::NotRunning { .. } => (error_code::POD_NOT_RUNNING, Exit::Unreachable),
            Self::ImageNotPulled { .. } => (error_code::IMAGE_NOT_PULLED, Exit::Unreachable),
            Self::Exec { .. } => (error_code::AGENT_UNREACHABLE, Exit::Unreachable),
            Self::Refused { .. } => (error_code::API_REFUSED, Exit::Negative),
        }
    }

    /// As the user sees it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (code, exit) = self.code();
        let failure = Failure::catalogued(exit, code, self.to_string());
        match self {
            Self::Kubeconfig { source } => failure.because(source.to_string()),
            Self::Unusable { source } | Self::Unreachable { source, .. } => {
                failure.because(innermost(source))
            }
            Self::NotRunning { pod, why } => failure.because(why.clone()).advise(format!(
                "Look at it: `kubectl -n {} describe pod {pod}`.",
                api::constant::NAMESPACE
            )),
            Self::Exec { pod, why } => failure.because(why.clone()).advise(format!(
                "Is the node up and its kubelet reached by the API server (`kubectl get nodes`)? \
                 Look at the pod: `kubectl -n {} get pod {pod} -o wide`.",
                api::constant::NAMESPACE
            )),
            Self::Forbidden { message: why, .. }
            | Self::ImageNotPulled { why, .. }
            | Self::Refused { message: why, .. }
                if !why.is_empty() =>
            {
                failure.because(why.clone())
            }
            Self::Forbidden { .. }
            | Self::ImageNotPulled { .. }
            | Self::Refused { .. }
            | Self::TimedOut { .. }
            | Self::Unauthenticated { .. }
            | Self::NotInstalled { .. } => failure,
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        error.failure()
    }
}

/// Errors of the client are nested; the innermost says what happened (`Connection refused`).
fn innermost(error: &kube::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A request, for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// Verb of RBAC.
    pub(super) verb: &'a str,
    /// Plural, with group and subresource.
    pub(super) resource: &'a str,
    /// `None` = cluster-wide.
    pub(super) namespace: Option<&'a str>,
}

impl Request<'_> {
    fn place(&self) -> String {
        match self.namespace {
            Some(namespace) => format!("in namespace {namespace}"),
            None => "in the cluster".to_owned(),
        }
    }
}

/// What an error of the client means.
pub(super) fn classify(server: &str, what: &Request<'_>, error: kube::Error) -> ClusterError {
    let (status, message) = match &error {
        kube::Error::Api(status) => (status.code, status.message.clone()),
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => {
            (status.as_u16(), format!("HTTP {status}"))
        }
        _ => {
            return ClusterError::Unreachable {
                server: server.to_owned(),
                source: Box::new(error),
            };
        }
    };
    match status {
        401 => ClusterError::Unauthenticated { server: server.to_owned() },
        403 => ClusterError::Forbidden {
            verb: what.verb.to_owned(),
            resource: what.resource.to_owned(),
            place: what.place(),
            message: if message.starts_with("HTTP") { String::new() } else { message },
        },
        _ => ClusterError::Refused {
            verb: what.verb.to_owned(),
            resource: format!("{} {}", what.resource, what.place()),
            status,
            message,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHAT: Request<'_> =
        Request { verb: "list", resource: "pods", namespace: Some("rampart-system") };

    fn answer(code: u16) -> kube::Error {
        let status =
            kube::core::Status { code, message: "said so".to_owned(), ..Default::default() };
        kube::Error::Api(Box::new(status))
    }

    #[test]
    fn a_missing_permission_names_verb_resource_and_namespace_and_is_exit_code_5() {
        let failure = classify("https://x", &WHAT, answer(403)).failure();
        assert_eq!(failure.exit, Exit::Refused);
        let text = failure.render();
        assert!(
            text.starts_with("error RC5012: may not list pods in namespace rampart-system\n"),
            "{text}"
        );
        assert!(text.contains("why: said so\n") && text.contains("rampart-remote"), "{text}");
    }

    #[test]
    fn an_upgrade_that_is_refused_is_a_missing_permission_too() {
        let refused = UpgradeConnectionError::ProtocolSwitch(http_status(403));
        let what = Request { verb: "create", resource: "pods/exec", namespace: Some("x") };
        let failure =
            classify("https://x", &what, kube::Error::UpgradeConnection(refused)).failure();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.why.contains("RBAC"), "{failure:?}");
    }

    fn http_status(code: u16) -> hyper::StatusCode {
        hyper::StatusCode::from_u16(code).unwrap()
    }

    #[test]
    fn expired_credentials_are_told_from_missing_permissions() {
        let failure = classify("https://x", &WHAT, answer(401)).failure();
        assert_eq!(failure.code, Some(error_code::UNAUTHENTICATED));
    }

    #[test]
    fn other_refusals_carry_the_words_of_the_api_server() {
        let failure = classify("https://x", &WHAT, answer(500)).failure();
        assert_eq!((failure.exit, failure.why.as_str()), (Exit::Negative, "said so"));
    }
}

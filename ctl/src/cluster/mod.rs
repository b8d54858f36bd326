//! The Kubernetes cluster: the only place of `rctl` that talks to an API server.
//!
//! Nothing here opens a port or needs one: agents are asked by `pods/exec` of their own client.

mod access;
mod agents;
mod apply;
mod difference;
mod error;
mod evidence;
mod exec;
mod nodes;
mod rollout;

use std::time::Duration;

use kube::Client;

pub use access::Access;
pub use agents::{AgentPod, Place, Trouble, images_not_pulled};
pub use apply::{Difference, title};
pub use difference::Change;
pub use error::ClusterError;
pub use exec::{LARGEST_ANSWER, Output};
pub use rollout::{AGENT, Installed, LOOK, REFLECTOR, Rollout};

/// How long the API server may take for a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster that a kubeconfig leads to.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// Address of the API server, for messages.
    server: String,
    /// Namespace of the context, for objects of users.
    namespace: String,
    /// Namespace that the agents run in.
    agent_namespace: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Namespace of the context.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Namespace that the agents run in.
    #[must_use]
    pub fn agent_namespace(&self) -> &str {
        &self.agent_namespace
    }

    /// Address of the API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Waits for a request, but not for ever; an error becomes one that names the request.
    async fn request<T>(
        &self,
        what: &error::Request<'_>,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        match tokio::time::timeout(PATIENCE, request).await {
            Ok(result) => result.map_err(|error| error::classify(&self.server, what, error)),
            Err(_) => {
                Err(ClusterError::TimedOut { server: self.server.clone(), seconds: PATIENCE })
            }
        }
    }
}

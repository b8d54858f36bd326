//! Which cluster, and as whom: the options of kubectl.

use std::path::PathBuf;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::{Cluster, ClusterError, PATIENCE};

/// Which cluster, and as whom.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster options")]
pub struct Access {
    /// Kubeconfig file (else KUBECONFIG, else ~/.kube/config, else the pod's service account)
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Act as this user
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,
    /// Namespace that Rampart runs in
    #[arg(
        long,
        global = true,
        value_name = "NAMESPACE",
        env = "RCTL_AGENT_NAMESPACE",
        default_value = api::constant::NAMESPACE
    )]
    pub agent_namespace: String,
}

impl Access {
    /// The user wants a cluster, whatever runs on this machine.
    #[must_use]
    pub fn is_explicit(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some() || self.impersonate.is_some()
    }

    /// Reads the kubeconfig. Nothing is asked yet.
    ///
    /// # Errors
    /// No kubeconfig, or one that cannot be used.
    pub async fn connect(&self) -> Result<Cluster, ClusterError> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(PATIENCE);
        if let Some(user) = &self.impersonate {
            config.auth_info.impersonate = Some(user.clone());
        }
        let (server, namespace) =
            (config.cluster_url.to_string(), config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| ClusterError::Unusable { source: Box::new(error) })?;
        Ok(Cluster {
            client,
            server: server.trim_end_matches('/').to_owned(),
            namespace,
            agent_namespace: self.agent_namespace.clone(),
        })
    }

    async fn config(&self) -> Result<Config, ClusterError> {
        let options = KubeConfigOptions { context: self.context.clone(), ..Default::default() };
        let unusable = |source| ClusterError::Kubeconfig { source };
        let kubeconfig = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        match kubeconfig {
            Ok(kubeconfig) => {
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unusable)
            }
            Err(error) if self.kubeconfig.is_none() && is_absent(&error) => {
                Config::incluster().map_err(|_| unusable(error))
            }
            Err(error) => Err(unusable(error)),
        }
    }
}

/// There is none, as opposed to one that is wrong.
fn is_absent(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

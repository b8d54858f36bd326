//! How far the DaemonSet and the Deployment are.

use std::time::Duration;

use api::constant::{COMPONENT_AGENT, COMPONENT_CLEANUP, COMPONENT_REFLECTOR};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::Api;

use super::error::Request;
use super::{Cluster, ClusterError};

/// Name of the DaemonSet.
pub const AGENT: &str = "rampart-agent";
/// Name of the reflectors' Deployment.
pub const REFLECTOR: &str = "rampart-route-reflector";
/// How often what is waited for is looked at.
pub const LOOK: Duration = Duration::from_millis(500);

/// How far something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Pods there should be.
    pub wanted: i32,
    /// Of the newest version, and ready.
    pub ready: i32,
    /// The controller has seen the newest version.
    pub observed: bool,
}

impl Rollout {
    /// All pods are of the newest version, and ready.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.observed && self.ready >= self.wanted
    }
}

/// The agents that are installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Version by the tag of the image; empty if it has none.
    pub version: String,
    /// Image.
    pub image: String,
    /// What `rctl` noted at the DaemonSet about its `--set` values.
    pub note: Option<String>,
}

impl Cluster {
    async fn daemon_set(&self) -> Result<Option<DaemonSet>, ClusterError> {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &self.agent_namespace);
        let what = Request {
            verb: "get",
            resource: "daemonsets.apps",
            namespace: Some(&self.agent_namespace),
        };
        self.request(&what, api.get_opt(AGENT)).await
    }

    /// What is installed; `None` if nothing is.
    ///
    /// # Errors
    /// The API server does not say.
    pub async fn installed(&self) -> Result<Option<Installed>, ClusterError> {
        let Some(set) = self.daemon_set().await? else { return Ok(None) };
        let annotations = set.metadata.annotations.as_ref();
        let note = annotations.and_then(|all| all.get(crate::manifest::SETTINGS_NOTE)).cloned();
        let containers = set.spec.and_then(|spec| spec.template.spec).map(|pod| pod.containers);
        let image = containers
            .unwrap_or_default()
            .into_iter()
            .find(|container| container.name == COMPONENT_AGENT)
            .and_then(|container| container.image)
            .unwrap_or_default();
        let name = image.split('@').next().unwrap_or_default();
        let version = name.rsplit_once(':').map_or("", |(_, tag)| tag).to_owned();
        Ok(Some(Installed { version, image, note }))
    }

    /// How far the agents are; `None` if there is no DaemonSet.
    ///
    /// # Errors
    /// The API server does not say.
    pub async fn agent_rollout(&self) -> Result<Option<Rollout>, ClusterError> {
        let Some(set) = self.daemon_set().await? else { return Ok(None) };
        let status = set.status.unwrap_or_default();
        Ok(Some(Rollout {
            wanted: status.desired_number_scheduled,
            ready: status.updated_number_scheduled.unwrap_or(0).min(status.number_ready),
            observed: status.observed_generation >= set.metadata.generation,
        }))
    }

    /// How far the route reflectors are; `None` if there is no Deployment.
    ///
    /// # Errors
    /// The API server does not say.
    pub async fn reflector_rollout(&self) -> Result<Option<Rollout>, ClusterError> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.agent_namespace);
        let what = Request {
            verb: "get",
            resource: "deployments.apps",
            namespace: Some(&self.agent_namespace),
        };
        let Some(set) = self.request(&what, api.get_opt(REFLECTOR)).await? else {
            return Ok(None);
        };
        let status = set.status.unwrap_or_default();
        Ok(Some(Rollout {
            wanted: set.spec.and_then(|spec| spec.replicas).unwrap_or(1),
            ready: status.updated_replicas.unwrap_or(0).min(status.ready_replicas.unwrap_or(0)),
            observed: status.observed_generation >= set.metadata.generation,
        }))
    }

    /// Pods of ours that exist, whatever state they are in.
    ///
    /// # Errors
    /// The API server does not say.
    pub async fn own_pods(&self) -> Result<usize, ClusterError> {
        let mut count = 0;
        for component in [COMPONENT_AGENT, COMPONENT_REFLECTOR, COMPONENT_CLEANUP] {
            count += self.component(component).await?.len();
        }
        Ok(count)
    }
}

//! What the cluster has for a bundle: logs, our objects, events. No Secret is ever read.

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Api;
use kube::api::{ListParams, LogParams};
use serde::Serialize;
use serde_json::Value;

use super::error::Request;
use super::{AgentPod, Cluster, ClusterError};
use crate::manifest;

/// More of a log does not help, and fills the disk.
const LOG_OCTETS: i64 = 64 << 20;

impl Cluster {
    /// The log of a pod; of its last run before this with `previous`.
    ///
    /// # Errors
    /// It may not be read, or there is none.
    pub async fn log(
        &self,
        pod: &AgentPod,
        previous: bool,
        lines: i64,
    ) -> Result<String, ClusterError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.agent_namespace);
        let what =
            Request { verb: "get", resource: "pods/log", namespace: Some(&self.agent_namespace) };
        let parameters = LogParams {
            container: Some(pod.container.clone()),
            previous,
            tail_lines: Some(lines),
            limit_bytes: Some(LOG_OCTETS),
            timestamps: true,
            ..LogParams::default()
        };
        self.request(&what, api.logs(&pod.name, &parameters)).await
    }

    /// What is of interest, by name of the file that it goes to.
    pub async fn diagnostic_objects(&self) -> Vec<(String, Result<Value, ClusterError>)> {
        let own = &self.agent_namespace;
        let in_own = |resource| Request { verb: "list", resource, namespace: Some(own) };
        let everywhere = |resource| Request { verb: "list", resource, namespace: None };
        let parameters = ListParams::default();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), own);
        let events: Api<Event> = Api::namespaced(self.client.clone(), own);
        // Events about Nodes and our cluster-scoped kinds are in `default`.
        let more: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let nodes: Api<Node> = Api::all(self.client.clone());
        let mut found = vec![
            ("pods".to_owned(), json(self.request(&in_own("pods"), pods.list(&parameters)).await)),
            (
                "events".to_owned(),
                json(self.request(&in_own("events"), events.list(&parameters)).await),
            ),
            (
                "events-default".to_owned(),
                json(self.request(&everywhere("events"), more.list(&parameters)).await),
            ),
            (
                "nodes".to_owned(),
                json(self.request(&everywhere("nodes"), nodes.list(&parameters)).await),
            ),
        ];
        let mut ours = manifest::objects(&[]).unwrap_or_default();
        ours.extend(manifest::reflector().unwrap_or_default());
        for object in ours {
            let name = super::title(&object).replace([' ', '/'], "-").to_lowercase();
            if manifest::is_definition(&object) {
                let plural = object.metadata.name.clone().unwrap_or_default();
                found.push((plural, json(self.objects_of(&object).await)));
            }
            match self.find(&object).await {
                Ok(None) => {}
                Ok(Some(object)) => found.push((name, json(Ok(object)))),
                Err(error) => found.push((name, Err(error))),
            }
        }
        found
    }
}

fn json<T: Serialize>(result: Result<T, ClusterError>) -> Result<Value, ClusterError> {
    result.map(|value| serde_json::to_value(&value).unwrap_or_default())
}

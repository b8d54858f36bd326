//! Where the agents are: their pods, by label.

use api::constant::{COMPONENT_AGENT, COMPONENT_LABEL, COMPONENT_REFLECTOR};
use k8s_openapi::api::core::v1::{ContainerState, Node, Pod};
use kube::Api;
use kube::api::ListParams;

use super::error::Request;
use super::{Cluster, ClusterError};

/// Label and value that all our pods have.
const NAME_LABEL: &str = "app.kubernetes.io/name=rampart";

/// The pod of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPod {
    /// Node it is for.
    pub node: String,
    /// Name of the pod.
    pub name: String,
    /// Container to run the client in.
    pub container: String,
}

/// What there is on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A running agent.
    Running(AgentPod),
    /// A pod that does not run, and why.
    NotRunning(AgentPod, String),
    /// A node without an agent's pod.
    Absent(String),
}

impl Place {
    /// Name of the node.
    #[must_use]
    pub fn node(&self) -> &str {
        match self {
            Self::Running(pod) | Self::NotRunning(pod, _) => &pod.node,
            Self::Absent(node) => node,
        }
    }
}

impl Cluster {
    /// The agents of all nodes, by name of the node. Nodes without one are named, too, where the
    /// user may list nodes.
    ///
    /// # Errors
    /// Pods may not be listed, there is none, or the API server does not answer.
    pub async fn agents(&self) -> Result<Vec<Place>, ClusterError> {
        let nodes = async {
            let api: Api<Node> = Api::all(self.client.clone());
            let what = Request { verb: "list", resource: "nodes", namespace: None };
            let parameters = ListParams::default();
            self.request(&what, api.list_metadata(&parameters)).await
        };
        let (pods, nodes) = tokio::join!(self.component(COMPONENT_AGENT), nodes);
        let mut places: Vec<Place> = pods?.iter().filter_map(place).collect();
        if places.is_empty() {
            return Err(ClusterError::NotInstalled { namespace: self.agent_namespace.clone() });
        }
        // Nodes may be secret to this user: the pods are what is asked.
        for node in nodes.map(|list| list.items).unwrap_or_default() {
            let name = node.metadata.name.unwrap_or_default();
            if !places.iter().any(|place| place.node() == name) {
                places.push(Place::Absent(name));
            }
        }
        places.sort_by(|a, b| a.node().cmp(b.node()));
        // While a pod is being replaced there are two: the one that runs is asked.
        places.dedup_by(|later, earlier| {
            let same = later.node() == earlier.node();
            if same && matches!(later, Place::Running(_)) {
                std::mem::swap(later, earlier);
            }
            same
        });
        Ok(places)
    }

    /// The route reflectors; there need not be any.
    ///
    /// # Errors
    /// See [`Cluster::agents`].
    pub async fn reflectors(&self) -> Result<Vec<Place>, ClusterError> {
        Ok(self.component(COMPONENT_REFLECTOR).await?.iter().filter_map(place).collect())
    }

    pub(super) async fn component(&self, component: &str) -> Result<Vec<Pod>, ClusterError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.agent_namespace);
        let labels = format!("{NAME_LABEL},{COMPONENT_LABEL}={component}");
        let what =
            Request { verb: "list", resource: "pods", namespace: Some(&self.agent_namespace) };
        let parameters = ListParams::default().labels(&labels);
        Ok(self.request(&what, api.list(&parameters)).await?.items)
    }
}

/// `None` for a pod that no node has taken yet.
fn place(pod: &Pod) -> Option<Place> {
    let spec = pod.spec.as_ref()?;
    let containers = &spec.containers;
    let own =
        containers.iter().find(|c| c.name == COMPONENT_AGENT || c.name == COMPONENT_REFLECTOR);
    let agent = AgentPod {
        node: spec.node_name.clone()?,
        name: pod.metadata.name.clone()?,
        container: own.or(containers.first())?.name.clone(),
    };
    Some(match trouble(pod, &agent.container) {
        None => Place::Running(agent),
        Some(why) => Place::NotRunning(agent, why),
    })
}

/// Why nothing can be run in the container now.
fn trouble(pod: &Pod, container: &str) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("the pod is being deleted".to_owned());
    }
    let status = pod.status.as_ref();
    let of_container = status
        .and_then(|s| s.container_statuses.as_ref())
        .and_then(|all| all.iter().find(|c| c.name == container));
    let state = of_container.and_then(|c| c.state.as_ref());
    if state.is_some_and(|state| state.running.is_some()) {
        return None;
    }
    let phase = status.and_then(|s| s.phase.clone()).unwrap_or_else(|| "unknown".to_owned());
    let reason = state.and_then(reason).or_else(|| status.and_then(|s| s.reason.clone()));
    let restarts = of_container.map_or(0, |c| c.restart_count);
    let mut why = format!("the pod is {phase}");
    if let Some(reason) = reason {
        why.push_str(&format!(": {reason}"));
    }
    if restarts > 0 {
        why.push_str(&format!(", {restarts} restarts"));
    }
    Some(why)
}

fn reason(state: &ContainerState) -> Option<String> {
    let waiting = state.waiting.as_ref().map(|w| (w.reason.clone(), w.message.clone()));
    let terminated = state.terminated.as_ref().map(|t| {
        (t.reason.clone(), t.message.clone().or_else(|| Some(format!("exit code {}", t.exit_code))))
    });
    let (reason, message) = waiting.or(terminated)?;
    Some([reason, message].into_iter().flatten().collect::<Vec<_>>().join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(state: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "rampart-agent-x"},
            "spec": {"nodeName": "n1", "containers": [{"name": "sidecar"}, {"name": "agent"}]},
            "status": {"phase": "Pending", "containerStatuses": [{
                "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 3,
                "state": state,
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn a_running_container_can_be_asked() {
        let expected = AgentPod {
            node: "n1".into(),
            name: "rampart-agent-x".into(),
            container: "agent".into(),
        };
        assert_eq!(place(&pod(json!({"running": {}}))), Some(Place::Running(expected)));
    }

    #[test]
    fn a_pod_that_does_not_run_says_why() {
        let waiting =
            json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        let Some(Place::NotRunning(_, why)) = place(&pod(waiting)) else { panic!() };
        assert_eq!(why, "the pod is Pending: ImagePullBackOff: no such image, 3 restarts");
        let mut ending = pod(json!({"running": {}}));
        ending.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        let Some(Place::NotRunning(_, why)) = place(&ending) else { panic!() };
        assert_eq!(why, "the pod is being deleted");
        let ended = json!({"terminated": {"reason": "Error", "exitCode": 1}});
        let Some(Place::NotRunning(_, why)) = place(&pod(ended)) else { panic!() };
        assert!(why.contains("Error: exit code 1"), "{why}");
    }
}

//! Where the agents are: their pods, by label.

use std::collections::BTreeMap;

use api::constant::{COMPONENT_AGENT, COMPONENT_CLEANUP, COMPONENT_LABEL, COMPONENT_REFLECTOR};
use k8s_openapi::api::core::v1::{ContainerState, Node, Pod};
use kube::Api;
use kube::api::ListParams;

use super::error::Request;
use super::{Cluster, ClusterError};

/// Label and value that all our pods have.
const NAME_LABEL: &str = "app.kubernetes.io/name=rampart";

/// Label of a Node that tells its operating system.
const SYSTEM_LABEL: &str = "kubernetes.io/os";
/// More nodes in one message do not help.
const NODES: usize = 4;
/// Reasons of a kubelet that cannot get an image.
const NO_IMAGE: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
];

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

/// Why a pod does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In words, with those of the kubelet.
    pub why: String,
    /// The image, if it is that which the kubelet cannot get.
    pub image: Option<String>,
}

impl Trouble {
    /// As an error about `pod`.
    #[must_use]
    pub fn error(&self, pod: &AgentPod) -> ClusterError {
        let why = self.why.clone();
        match &self.image {
            Some(image) => ClusterError::ImageNotPulled {
                image: image.clone(),
                place: format!("{} (pod {})", pod.node, pod.name),
                why,
            },
            None => ClusterError::NotRunning { pod: pod.name.clone(), why },
        }
    }
}

/// Images that kubelets cannot get, an error each: with the nodes, and what the first of them says.
#[must_use]
pub fn images_not_pulled(places: &[Place]) -> Vec<ClusterError> {
    let mut images = BTreeMap::<&str, (Vec<String>, &str)>::new();
    for place in places {
        if let Place::NotRunning(pod, Trouble { image: Some(image), why }) = place {
            let (nodes, _) = images.entry(image).or_insert_with(|| (Vec::new(), why));
            nodes.push(format!("{} (pod {})", pod.node, pod.name));
        }
    }
    let error = |(image, (nodes, why)): (&str, (Vec<String>, &str))| {
        let shown: Vec<&str> = nodes.iter().take(NODES).map(String::as_str).collect();
        let more = nodes.len().saturating_sub(NODES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        ClusterError::ImageNotPulled {
            image: image.to_owned(),
            place: format!("{}{more}", shown.join(", ")),
            why: why.to_owned(),
        }
    };
    images.into_iter().map(error).collect()
}

/// What there is on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A running agent.
    Running(AgentPod),
    /// A pod that does not run, and why.
    NotRunning(AgentPod, Trouble),
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
        let places = self.places(COMPONENT_AGENT).await?;
        if places.iter().all(|place| matches!(place, Place::Absent(_))) {
            return Err(ClusterError::NotInstalled { namespace: self.agent_namespace.clone() });
        }
        Ok(places)
    }

    /// The pods that clean nodes, in the same way; there may be none yet.
    ///
    /// # Errors
    /// Pods may not be listed, or the API server does not answer.
    pub async fn cleaners(&self) -> Result<Vec<Place>, ClusterError> {
        self.places(COMPONENT_CLEANUP).await
    }

    /// What there is of a DaemonSet of ours on each node.
    async fn places(&self, component: &str) -> Result<Vec<Place>, ClusterError> {
        let nodes = async {
            let api: Api<Node> = Api::all(self.client.clone());
            let what = Request { verb: "list", resource: "nodes", namespace: None };
            let parameters = ListParams::default();
            self.request(&what, api.list_metadata(&parameters)).await
        };
        let (pods, nodes) = tokio::join!(self.component(component), nodes);
        let mut places: Vec<Place> = pods?.iter().filter_map(place).collect();
        // Nodes may be secret to this user: the pods are what is asked.
        for node in nodes.map(|list| list.items).unwrap_or_default() {
            let system = node.metadata.labels.as_ref().and_then(|labels| labels.get(SYSTEM_LABEL));
            let name = node.metadata.name.unwrap_or_default();
            let ours = system.is_none_or(|system| system == "linux");
            if ours && !places.iter().any(|place| place.node() == name) {
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
fn trouble(pod: &Pod, container: &str) -> Option<Trouble> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(Trouble { why: "the pod is being deleted".to_owned(), image: None });
    }
    let status = pod.status.as_ref();
    let of_container = status
        .and_then(|s| s.container_statuses.as_ref())
        .and_then(|all| all.iter().find(|c| c.name == container));
    let state = of_container.and_then(|c| c.state.as_ref());
    if state.is_some_and(|state| state.running.is_some()) {
        return None;
    }
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let no_image = waiting
        .and_then(|waiting| waiting.reason.as_deref())
        .is_some_and(|reason| NO_IMAGE.contains(&reason));
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
    let image = no_image.then(|| image_of(pod, container)).flatten();
    Some(Trouble { why, image })
}

/// Image of the container, as the pod asks for it.
fn image_of(pod: &Pod, container: &str) -> Option<String> {
    let containers = &pod.spec.as_ref()?.containers;
    containers.iter().find(|c| c.name == container)?.image.clone()
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
        let Some(Place::NotRunning(_, trouble)) = place(&pod(waiting)) else { panic!() };
        assert_eq!(trouble.why, "the pod is Pending: ImagePullBackOff: no such image, 3 restarts");
        let mut ending = pod(json!({"running": {}}));
        ending.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        let Some(Place::NotRunning(_, trouble)) = place(&ending) else { panic!() };
        assert_eq!(trouble.why, "the pod is being deleted");
        let ended = json!({"terminated": {"reason": "Error", "exitCode": 1}});
        let Some(Place::NotRunning(_, trouble)) = place(&pod(ended)) else { panic!() };
        assert!(trouble.why.contains("Error: exit code 1"), "{trouble:?}");
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_told_once_with_nodes_pods_and_the_kubelets_words() {
        let mut waiting = pod(json!({"waiting": {
            "reason": "ErrImagePull", "message": "dial tcp: lookup registry.example: no such host",
        }}));
        for container in &mut waiting.spec.as_mut().unwrap().containers {
            container.image = Some("registry.example/rampart:1".to_owned());
        }
        let mut places = Vec::new();
        for node in 1..=6 {
            waiting.spec.as_mut().unwrap().node_name = Some(format!("n{node}"));
            places.push(place(&waiting).unwrap());
        }
        let ended = json!({"terminated": {"reason": "Error", "exitCode": 1}});
        places.push(place(&pod(ended)).unwrap());
        let [error] = &images_not_pulled(&places)[..] else { panic!() };
        let text = error.failure().render();
        for words in [
            "image registry.example/rampart:1 cannot be pulled on n1 (pod rampart-agent-x), n2 ",
            " and 2 more\nwhy: the pod is Pending: ErrImagePull: dial tcp: lookup registry.example",
            "next: ",
            "--set image.repository=",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}

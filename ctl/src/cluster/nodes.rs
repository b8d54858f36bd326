//! Nodes: what is said of them, and our word among it.

use api::constant::{NETWORK_UNAVAILABLE, NETWORK_UNAVAILABLE_REASON};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::error::Request;
use super::{Cluster, ClusterError};

impl Cluster {
    async fn nodes(&self) -> Result<Vec<Node>, ClusterError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let what = Request { verb: "list", resource: "nodes", namespace: None };
        Ok(self.request(&what, api.list(&ListParams::default())).await?.items)
    }

    /// Nodes without pod CIDRs, which cannot have pods of ours.
    ///
    /// # Errors
    /// The API server does not say.
    pub async fn nodes_without_pod_cidrs(&self) -> Result<Vec<String>, ClusterError> {
        let without = self.nodes().await?.into_iter().filter(|node| {
            let spec = node.spec.as_ref();
            let cidrs = spec.and_then(|spec| spec.pod_cidrs.as_ref());
            cidrs.is_none_or(Vec::is_empty) && spec.is_none_or(|spec| spec.pod_cidr.is_none())
        });
        Ok(without.filter_map(|node| node.metadata.name).collect())
    }

    /// Takes our word off the Nodes that there is a network; the names of those that had it.
    ///
    /// The condition is removed, not set to True: with True no pod is scheduled until somebody
    /// clears it, and most network plugins never do. That no network plugin is there the kubelet
    /// says itself (Ready is False).
    ///
    /// # Errors
    /// Nodes may not be read, or their status may not be written.
    pub async fn withdraw_node_conditions(&self) -> Result<Vec<String>, ClusterError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let what = Request { verb: "patch", resource: "nodes/status", namespace: None };
        let mut withdrawn = Vec::new();
        for node in self.nodes().await?.into_iter().filter(has_our_condition) {
            let name = node.metadata.name.unwrap_or_default();
            let gone = json!({"type": NETWORK_UNAVAILABLE, "$patch": "delete"});
            let patch = Patch::Strategic(json!({"status": {"conditions": [gone]}}));
            match self
                .request(&what, api.patch_status(&name, &PatchParams::default(), &patch))
                .await
            {
                Ok(_) => withdrawn.push(name),
                Err(ClusterError::Refused { status: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(withdrawn)
    }
}

fn has_our_condition(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == NETWORK_UNAVAILABLE
            && condition.reason.as_deref() == Some(NETWORK_UNAVAILABLE_REASON)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_word_is_ours_to_withdraw() {
        let node = |kind: &str, reason: &str| -> Node {
            let condition = json!({"type": kind, "status": "False", "reason": reason});
            serde_json::from_value(json!({"status": {"conditions": [condition]}})).unwrap()
        };
        assert!(has_our_condition(&node("NetworkUnavailable", "RampartIsUp")));
        assert!(!has_our_condition(&node("NetworkUnavailable", "RouteCreated")));
        assert!(!has_our_condition(&node("Ready", "RampartIsUp")));
        assert!(!has_our_condition(&Node::default()));
    }
}

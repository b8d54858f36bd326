//! Our own Node: its UID, which owns the status object, and its condition `NetworkUnavailable`.
//!
//! The condition is set to False once the node's pods can be networked, and only then; the controller
//! manager then takes the taint `node.kubernetes.io/network-unavailable` off. It is set again only if
//! somebody sets it to True. Nothing else of the Node is ever written.

use std::time::Duration;

use api::constant::NETWORK_UNAVAILABLE;
pub use api::constant::NETWORK_UNAVAILABLE_REASON as REASON;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Event;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::Clients;
use super::follow::{Follow, after, until};
use super::pace::{Backoff, answered};
use super::trouble::Trouble;
use crate::control::Core;
use crate::observe::recorder::Write;

/// Somebody who sets the condition again and again is answered so often.
const BETWEEN: Duration = Duration::from_secs(10);

/// The task.
pub(super) struct OwnNode {
    node: String,
    clients: Clients,
    trouble: Trouble,
    core: Core,
    uid: watch::Sender<Option<String>>,
    condition: Option<NodeCondition>,
    /// Our condition was seen on the Node since the agent started.
    was_set: bool,
    due: Option<Instant>,
    not_before: Instant,
    backoff: Backoff,
}

impl OwnNode {
    pub(super) fn new(
        parts: &super::Parts,
        trouble: Trouble,
    ) -> (Self, watch::Receiver<Option<String>>) {
        let (uid, receiver) = watch::channel(None);
        let task = Self {
            node: parts.node.clone(),
            clients: parts.clients.clone(),
            trouble,
            core: parts.core.clone(),
            uid,
            condition: None,
            was_set: false,
            due: None,
            not_before: Instant::now(),
            backoff: Backoff::default(),
        };
        (task, receiver)
    }

    pub(super) async fn run(mut self) {
        let name = self.node.clone();
        let (clients, trouble) = (self.clients.clone(), self.trouble.clone());
        let mut follow: Follow<Node> =
            Follow::new("own node", clients, trouble, Some(&name), Api::all);
        let mut changes = self.core.changes();
        loop {
            tokio::select! {
                event = follow.next() => self.take(event),
                changed = changes.changed() => if changed.is_err() { return },
                () = until(self.due) => self.write().await,
            }
            if self.is_wanted() {
                self.due.get_or_insert(self.not_before);
            } else {
                self.due = None;
            }
        }
    }

    fn take(&mut self, event: Event<Node>) {
        let node = match event {
            Event::Apply(node) | Event::InitApply(node) => node,
            Event::Delete(_) => {
                self.uid.send_replace(None);
                self.condition = None;
                self.was_set = false;
                return;
            }
            Event::Init | Event::InitDone => return,
        };
        let uid = node.metadata.uid;
        let new = uid != *self.uid.borrow();
        if new {
            // A node that comes back under its name is another one.
            self.was_set = false;
            self.uid.send_replace(uid);
        }
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        self.condition = conditions.into_iter().find(|c| c.type_ == NETWORK_UNAVAILABLE);
        self.was_set |= self.condition.as_ref().is_some_and(is_ours);
    }

    fn is_wanted(&self) -> bool {
        let wrong = match &self.condition {
            // Once ours was there, others may say False in their own words.
            Some(condition) => condition.status != "False" || !self.was_set,
            None => true,
        };
        wrong && self.uid.borrow().is_some() && self.core.unready().is_empty()
    }

    async fn write(&mut self) {
        self.due = None;
        let now = Time(Timestamp::now());
        let condition = NodeCondition {
            type_: NETWORK_UNAVAILABLE.to_owned(),
            status: "False".to_owned(),
            reason: Some(REASON.to_owned()),
            message: Some("Rampart networks the pods of this node".to_owned()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(now),
        };
        let patch = serde_json::json!({ "status": { "conditions": [condition] } });
        let nodes: Api<Node> = Api::all((self.clients)());
        let params = PatchParams::default();
        let patch = Patch::Strategic(patch);
        let result = answered(nodes.patch_status(&self.node, &params, &patch)).await;
        match self.trouble.wrote(Write::Node, result) {
            Ok(node) => {
                info!(condition = NETWORK_UNAVAILABLE, status = "False", "node condition set");
                self.backoff.reset();
                self.not_before = after(BETWEEN);
                self.take(Event::Apply(node));
            }
            Err(error) => {
                tracing::debug!(%error, "node condition not set");
                self.not_before = after(self.backoff.next());
            }
        }
    }
}

fn is_ours(condition: &NodeCondition) -> bool {
    condition.status == "False" && condition.reason.as_deref() == Some(REASON)
}

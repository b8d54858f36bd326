//! Writes what [`Events`] has due, at a bounded rate.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{
    ApiResource, DynamicObject, GroupVersionKind, ListParams, ObjectMeta, Patch, PatchParams,
    PostParams,
};
use kube::{Api, Client};
use tokio::time::sleep;

use super::Clients;
use super::event::{Due, Events, Subject, Subjects};
use super::pace::{Backoff, answered};
use super::trouble::Trouble;
use crate::observe::recorder::Write;

/// Between two writes; the rest waits in the queue.
const BETWEEN: Duration = Duration::from_millis(200);
/// Events about objects without namespace live here.
const CLUSTER_SCOPED: &str = "default";
/// Who says so.
const COMPONENT: &str = "rampart-agent";

/// The task.
pub(super) struct Writer {
    pub(super) node: String,
    pub(super) clients: Clients,
    pub(super) trouble: Trouble,
    pub(super) events: Events,
    /// Makes names of Events differ between starts of agents.
    pub(super) seed: RandomState,
}

impl Writer {
    /// Runs for ever.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        loop {
            let due = self.events.due().await;
            let result = answered(self.write(&due)).await;
            match self.trouble.wrote(Write::Event, result) {
                Ok(name) => {
                    self.events.written(&due.happening, name);
                    backoff.reset();
                    sleep(BETWEEN).await;
                }
                Err(error) => {
                    tracing::debug!(%error, event = ?due.happening, "event not written");
                    self.events.again(&due.happening);
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    /// The name of the Event; `None` when what it is about is not there any more.
    async fn write(&self, due: &Due) -> Result<Option<String>, kube::Error> {
        let subject = &due.happening.subject;
        let namespace =
            if subject.namespace.is_empty() { CLUSTER_SCOPED } else { &subject.namespace };
        let client = (self.clients)();
        let events: Api<Event> = Api::namespaced(client.clone(), namespace);
        if let Some(name) = &due.written {
            let patch = serde_json::json!({
                "count": due.count,
                "lastTimestamp": Time(due.last),
                "message": due.happening.message,
            });
            match events.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(Some(name.clone())),
                // Events are forgotten by the API server after an hour.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let Some(reference) = refer(client, subject).await? else { return Ok(None) };
        let event = self.event(due, namespace, reference);
        match events.create(&PostParams::default(), &event).await {
            Ok(event) => Ok(event.metadata.name),
            // The namespace is being deleted, or the Event of a write whose answer was lost is there.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(event.metadata.name),
            Err(kube::Error::Api(status)) if is_ending(&status) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn event(&self, due: &Due, namespace: &str, reference: ObjectReference) -> Event {
        let happening = &due.happening;
        let hash = self.seed.hash_one((
            happening.subject.to_string(),
            happening.reason,
            &happening.detail,
            due.first.as_nanosecond(),
        ));
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{hash:016x}", happening.subject.name)),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: reference,
            type_: Some(happening.severity.name().to_owned()),
            reason: Some(happening.reason.to_owned()),
            message: Some(happening.message.clone()),
            count: Some(due.count),
            first_timestamp: Some(Time(due.first)),
            last_timestamp: Some(Time(due.last)),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }
}

fn is_ending(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 404 || causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// The reference with the UID, by which `kubectl describe` finds Events; `None` without the object.
async fn refer(client: Client, subject: &Subject) -> Result<Option<ObjectReference>, kube::Error> {
    let (group, version) = match subject.kind {
        Subjects::Node | Subjects::Pod => ("", "v1"),
        Subjects::NetworkPolicy => ("networking.k8s.io", "v1"),
        Subjects::BgpPeer | Subjects::BgpConfiguration | Subjects::NetworkConfiguration => {
            (api::constant::GROUP, api::constant::VERSION)
        }
    };
    let kind = subject.kind.name();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let objects: Api<DynamicObject> = if subject.namespace.is_empty() {
        Api::all_with(client, &resource)
    } else {
        Api::namespaced_with(client, &subject.namespace, &resource)
    };
    let named = ListParams::default().fields(&format!("metadata.name={}", subject.name));
    let Some(object) = objects.list_metadata(&named).await?.items.into_iter().next() else {
        return Ok(None);
    };
    Ok(Some(ObjectReference {
        api_version: Some(resource.api_version),
        kind: Some(kind.to_owned()),
        name: Some(subject.name.clone()),
        namespace: Some(subject.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        uid: object.metadata.uid,
        resource_version: object.metadata.resource_version,
        ..ObjectReference::default()
    }))
}

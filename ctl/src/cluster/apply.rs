//! Objects of any kind: compare with the cluster, apply (server-side), delete, watch them settle.

use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use super::difference::{self, Change};
use super::error::Request;
use super::{Cluster, ClusterError};

/// Field manager of what `rctl` applies.
const MANAGER: &str = "rctl";

/// What applying an object would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// There is none yet.
    Created,
    /// These fields differ.
    Changed(Vec<Change>),
    /// Nothing.
    Unchanged,
}

/// `Kind name` or `Kind namespace/name`, for people.
#[must_use]
pub fn title(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("", |types| types.kind.as_str());
    match object.namespace() {
        Some(namespace) => format!("{kind} {namespace}/{}", object.name_any()),
        None => format!("{kind} {}", object.name_any()),
    }
}

/// An API for one kind, and its plural name with the group.
struct KindApi {
    api: Api<DynamicObject>,
    plural: String,
}

impl Cluster {
    async fn kind_api(&self, object: &DynamicObject) -> Result<KindApi, ClusterError> {
        let types = object.types.clone().unwrap_or_default();
        let kind = GroupVersionKind::try_from(&types).map_err(|error| ClusterError::Refused {
            verb: "read".to_owned(),
            resource: title(object),
            status: 0,
            message: error.to_string(),
        })?;
        let what = Request { verb: "discover", resource: &types.kind, namespace: None };
        let found = discovery::pinned_kind(&self.client, &kind);
        let (resource, capabilities) = self.request(&what, found).await?;
        let api = match (&capabilities.scope, object.namespace()) {
            (Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(self.client.clone(), &namespace, &resource)
            }
            _ => Api::all_with(self.client.clone(), &resource),
        };
        let group =
            if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
        Ok(KindApi { api, plural: format!("{}{group}", resource.plural) })
    }

    /// The object as it is in the cluster.
    ///
    /// # Errors
    /// The API server does not say.
    pub async fn find(
        &self,
        object: &DynamicObject,
    ) -> Result<Option<DynamicObject>, ClusterError> {
        let namespace = object.namespace();
        let KindApi { api, plural } = match self.kind_api(object).await {
            Ok(kind) => kind,
            // A kind that is not known has no objects.
            Err(ClusterError::Refused { status: 404, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let what = Request { verb: "get", resource: &plural, namespace: namespace.as_deref() };
        self.request(&what, api.get_opt(&object.name_any())).await
    }

    /// What applying `object` would do, by a dry run of the API server. In a namespace that is not
    /// there yet nothing can be tried: everything there is new.
    ///
    /// # Errors
    /// The API server would refuse it.
    pub async fn difference(
        &self,
        object: &DynamicObject,
        namespace_exists: bool,
    ) -> Result<Difference, ClusterError> {
        let current = self.find(object).await?;
        if current.is_none() && object.namespace().is_some() && !namespace_exists {
            return Ok(Difference::Created);
        }
        let parameters = PatchParams::apply(MANAGER).force().dry_run();
        let outcome = self.patch(object, &parameters).await?;
        let Some(current) = current else { return Ok(Difference::Created) };
        let fields = difference::changes(&current, &outcome);
        Ok(if fields.is_empty() { Difference::Unchanged } else { Difference::Changed(fields) })
    }

    /// Applies it. Fields that somebody else manages and that differ become ours: an installation
    /// that was edited by hand is what the manifest says again.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn apply(&self, object: &DynamicObject) -> Result<(), ClusterError> {
        self.patch(object, &PatchParams::apply(MANAGER).force()).await.map(drop)
    }

    async fn patch(
        &self,
        object: &DynamicObject,
        parameters: &PatchParams,
    ) -> Result<DynamicObject, ClusterError> {
        let namespace = object.namespace();
        let KindApi { api, plural } = self.kind_api(object).await?;
        let what = Request { verb: "patch", resource: &plural, namespace: namespace.as_deref() };
        let (name, patch) = (object.name_any(), Patch::Apply(object));
        self.request(&what, api.patch(&name, parameters, &patch)).await
    }

    /// Deletes it; `false` if there is none. What depends on it goes with it, afterwards.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self, object: &DynamicObject) -> Result<bool, ClusterError> {
        let namespace = object.namespace();
        let KindApi { api, plural } = match self.kind_api(object).await {
            Ok(kind) => kind,
            Err(ClusterError::Refused { status: 404, .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let what = Request { verb: "delete", resource: &plural, namespace: namespace.as_deref() };
        let (name, parameters) = (object.name_any(), DeleteParams::background());
        match self.request(&what, api.delete(&name, &parameters)).await {
            Ok(_) => Ok(true),
            Err(ClusterError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every object of the kind that a CustomResourceDefinition defines.
    ///
    /// # Errors
    /// The API server does not say.
    pub async fn objects_of(
        &self,
        definition: &DynamicObject,
    ) -> Result<Vec<DynamicObject>, ClusterError> {
        let text = |path: &str| {
            definition.data.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let version = text("/spec/versions/0/name");
        let kind = GroupVersionKind::gvk(&text("/spec/group"), &version, &text("/spec/names/kind"));
        let resource =
            kube::core::ApiResource::from_gvk_with_plural(&kind, &text("/spec/names/plural"));
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let plural = format!("{}.{}", resource.plural, resource.group);
        let what = Request { verb: "list", resource: &plural, namespace: None };
        match self.request(&what, api.list(&ListParams::default())).await {
            Ok(list) => Ok(list.items),
            Err(ClusterError::Refused { status: 404, .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Version of the API server as it tells it: `v1.36.3`.
    ///
    /// # Errors
    /// The API server does not say.
    pub async fn server_version(&self) -> Result<String, ClusterError> {
        let what = Request { verb: "get", resource: "/version", namespace: None };
        Ok(self.request(&what, self.client.apiserver_version()).await?.git_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn titles_name_kind_namespace_and_name() {
        let value = json!({"apiVersion": "v1", "kind": "Role", "metadata": {"name": "r", "namespace": "n"}});
        assert_eq!(title(&serde_json::from_value(value).unwrap()), "Role n/r");
    }
}

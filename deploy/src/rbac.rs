//! Who may do what, computed from what the code asks for.

use api::constant::{COMPONENT_AGENT, GROUP, NAMESPACE};
use api::watched::{NAMED, Named, REFLECTOR_WATCHED, Scope, WATCHED, WRITTEN, Watched};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use crate::document::Document;
use crate::name::{self, AGENT, OPERATOR, REFLECTOR, REMOTE, VIEWER};

const READ: &[&str] = &["get", "list", "watch"];

/// Verbs of one resource, and what they are for.
#[derive(Clone, Debug)]
struct Grant {
    group: &'static str,
    resource: &'static str,
    verbs: Vec<&'static str>,
    /// Of these objects only.
    names: Vec<&'static str>,
    why: String,
}

impl Grant {
    fn input(kind: &Watched) -> Self {
        let verbs = vec!["list", "watch"];
        let why = "input".to_owned();
        Self { group: kind.group, resource: kind.plural, verbs, names: Vec::new(), why }
    }

    fn named(named: &Named) -> Self {
        let verbs = vec!["list", "watch"];
        let why = named.why.to_owned();
        Self { group: "", resource: named.plural, verbs, names: vec![named.name], why }
    }

    fn rule(&self) -> PolicyRule {
        let names = self.names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        PolicyRule {
            resource_names: (!names.is_empty()).then_some(names),
            ..rule(self.group, &[self.resource], &self.verbs)
        }
    }

    fn line(&self) -> String {
        let resource = [&[self.resource], self.names.as_slice()].concat().join(" ");
        format!("{} {resource}: {}", self.verbs.join(", "), self.why)
    }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

/// What an agent is granted in a scope.
fn agent_grants(scope: Scope) -> Vec<Grant> {
    let watched = WATCHED.iter().filter(|_| scope == Scope::Cluster).map(Grant::input);
    let written = WRITTEN.iter().filter(|written| written.scope == scope).map(|written| Grant {
        group: written.group,
        resource: written.resource,
        verbs: written.verbs.to_vec(),
        names: Vec::new(),
        why: written.why.to_owned(),
    });
    let named = NAMED.iter().filter(|_| scope == Scope::OwnNamespace).map(Grant::named);
    watched.chain(written).chain(named).collect()
}

/// ServiceAccount, roles and bindings of the agent.
pub(crate) fn agent() -> anyhow::Result<Vec<Document>> {
    subject(AGENT, &agent_grants(Scope::Cluster), &agent_grants(Scope::OwnNamespace))
}

/// ServiceAccount, roles and bindings of the route reflectors: they read, and write nothing.
pub(crate) fn reflector() -> anyhow::Result<Vec<Document>> {
    let read = |kind: &Watched| REFLECTOR_WATCHED.contains(&kind.plural);
    let grants: Vec<Grant> = WATCHED.iter().filter(|kind| read(kind)).map(Grant::input).collect();
    subject(REFLECTOR, &grants, &[])
}

/// ServiceAccount, roles and bindings of something of ours that runs.
fn subject(name: &str, cluster: &[Grant], own: &[Grant]) -> anyhow::Result<Vec<Document>> {
    let account = ServiceAccount {
        metadata: name::own(name),
        // Each pod asks for its token itself.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let subjects = Some(vec![Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(NAMESPACE.to_owned()),
        ..Subject::default()
    }]);
    let lines = |grants: &[Grant]| grants.iter().map(Grant::line).collect::<Vec<_>>().join("\n");
    let rules = |grants: &[Grant]| Some(grants.iter().map(Grant::rule).collect());
    let mut documents = vec![
        Document::new(&account)?,
        Document::new(&ClusterRole {
            metadata: name::cluster(name),
            rules: rules(cluster),
            ..ClusterRole::default()
        })?
        .comment(lines(cluster)),
        Document::new(&ClusterRoleBinding {
            metadata: name::cluster(name),
            role_ref: role_ref("ClusterRole", name),
            subjects: subjects.clone(),
        })?,
    ];
    if !own.is_empty() {
        let role = Role { metadata: name::own(name), rules: rules(own) };
        documents.push(Document::new(&role)?.comment(lines(own)));
        documents.push(Document::new(&RoleBinding {
            metadata: name::own(name),
            role_ref: role_ref("Role", name),
            subjects,
        })?);
    }
    Ok(documents)
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef {
        api_group: "rbac.authorization.k8s.io".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    }
}

/// Roles for people.
pub(crate) fn people() -> anyhow::Result<Vec<Document>> {
    let kinds: Vec<&str> =
        WATCHED.iter().filter(|kind| kind.ours).map(|kind| kind.plural).collect();
    let mut readable = kinds.clone();
    readable.push("nodenetworkstatuses");
    let aggregated = |name: &str, to: &[&str]| {
        let mut metadata = name::cluster(name);
        let labels = metadata.labels.get_or_insert_default();
        for role in to {
            let key = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
            labels.insert(key, "true".to_owned());
        }
        metadata
    };
    let viewer = ClusterRole {
        metadata: aggregated(VIEWER, &["view", "edit", "admin"]),
        rules: Some(vec![rule(GROUP, &readable, READ)]),
        ..ClusterRole::default()
    };
    let operator = ClusterRole {
        metadata: aggregated(OPERATOR, &["edit", "admin"]),
        rules: Some(vec![
            rule(GROUP, &readable, READ),
            rule(GROUP, &kinds, &["create", "delete", "deletecollection", "patch", "update"]),
        ]),
        ..ClusterRole::default()
    };
    let remote = Role {
        metadata: name::own(REMOTE),
        rules: Some(vec![
            rule("", &["pods"], READ),
            // Clients that speak WebSocket open an exec with GET, and 1.35 asks for create on top.
            rule("", &["pods/exec"], &["create", "get"]),
        ]),
    };
    Ok(vec![
        Document::new(&viewer)?.comment("Reads our kinds. Part of view, edit and admin."),
        Document::new(&operator)?
            .comment("Reads and writes our kinds (not their status). Part of edit and admin."),
        Document::new(&remote)?.comment(format!(
            "\
What `rctl` needs to ask agents from afar: it runs `/rampart control` in their pods. Bound to nobody,
and part of no other role, for `pods/exec` is more than reading: whoever has it starts what he likes
in a container with NET_ADMIN on the host's network. Give it to those who run the network:
  kubectl -n {NAMESPACE} create rolebinding rctl --role {REMOTE} --group network-team
(pods of component `{COMPONENT_AGENT}`; with it goes the ClusterRole {VIEWER} or {OPERATOR})"
        )),
    ])
}

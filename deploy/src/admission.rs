//! What RBAC cannot say: an agent writes about its own node only.

use api::constant::{GROUP, NAMESPACE, VERSION};
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec, Validation, Variable,
};

use crate::document::Document;
use crate::name::{self, AGENT};

const POLICY: &str = "rampart-agent-own-node";

/// The only condition of a Node that is ours to write.
const NODE_CONDITION: &str = "NetworkUnavailable";

/// Parts of a Node that a write of its status can change, and that are not ours.
const FOREIGN_METADATA: &[&str] = &["annotations", "finalizers", "labels", "ownerReferences"];
const FOREIGN_STATUS: &[&str] = &[
    "addresses",
    "allocatable",
    "capacity",
    "config",
    "daemonEndpoints",
    "declaredFeatures",
    "features",
    "images",
    "nodeInfo",
    "phase",
    "runtimeHandlers",
    "volumesAttached",
    "volumesInUse",
];

/// The policy and its binding.
pub(crate) fn documents() -> anyhow::Result<Vec<Document>> {
    let policy = ValidatingAdmissionPolicy {
        metadata: name::cluster(POLICY),
        spec: Some(spec()),
        ..ValidatingAdmissionPolicy::default()
    };
    let binding = ValidatingAdmissionPolicyBinding {
        metadata: name::cluster(POLICY),
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: Some(POLICY.to_owned()),
            validation_actions: Some(vec!["Deny".to_owned()]),
            ..ValidatingAdmissionPolicyBindingSpec::default()
        }),
    };
    Ok(vec![
        Document::new(&policy)?.comment(
            "\
An agent's token is bound to its node. With it the agent may write the NodeNetworkStatus of that node,
and one condition in the status of that Node: a stolen token says nothing about other nodes.",
        ),
        Document::new(&binding)?,
    ])
}

fn spec() -> ValidatingAdmissionPolicySpec {
    let rule = |group: &str, version: &str, resources: &[&str], operations: &[&str]| {
        let owned = |list: &[&str]| Some(list.iter().map(|&text| text.to_owned()).collect());
        NamedRuleWithOperations {
            api_groups: owned(&[group]),
            api_versions: owned(&[version]),
            operations: owned(operations),
            resources: owned(resources),
            ..NamedRuleWithOperations::default()
        }
    };
    let statuses = ["nodenetworkstatuses", "nodenetworkstatuses/status"];
    ValidatingAdmissionPolicySpec {
        failure_policy: Some("Fail".to_owned()),
        match_constraints: Some(MatchResources {
            resource_rules: Some(vec![
                rule(GROUP, VERSION, &statuses, &["CREATE", "UPDATE", "DELETE"]),
                rule("", "v1", &["nodes", "nodes/status"], &["CREATE", "UPDATE", "DELETE"]),
            ]),
            ..MatchResources::default()
        }),
        match_conditions: Some(vec![MatchCondition {
            name: "agent".to_owned(),
            expression: format!(
                "request.userInfo.username == 'system:serviceaccount:{NAMESPACE}:{AGENT}'"
            ),
        }]),
        variables: Some(vec![
            Variable {
                name: "node".to_owned(),
                expression: "request.userInfo.extra\
                    [?'authentication.kubernetes.io/node-name'][0].orValue('')"
                    .to_owned(),
            },
            Variable {
                name: "target".to_owned(),
                expression: "object == null ? oldObject.metadata.name : object.metadata.name"
                    .to_owned(),
            },
        ]),
        validations: Some(vec![
            validation(
                "variables.node != '' && variables.target == variables.node".to_owned(),
                "'the agent of node \"' + variables.node + '\" may write only about that node, not \
                 about \"' + variables.target + '\"'",
            ),
            validation(
                format!("request.resource.resource != 'nodes' || ({})", only_our_condition()),
                &format!("'of a Node the agent may write condition {NODE_CONDITION} only'"),
            ),
        ]),
        ..ValidatingAdmissionPolicySpec::default()
    }
}

fn validation(expression: String, message: &str) -> Validation {
    Validation {
        expression,
        message_expression: Some(message.to_owned()),
        reason: Some("Forbidden".to_owned()),
        ..Validation::default()
    }
}

/// Nothing but our condition differs between the old and the new Node.
fn only_our_condition() -> String {
    let same = |parent: &str, field: &str| {
        format!("object.{parent}.?{field} == oldObject.{parent}.?{field}")
    };
    let others = |object: &str| {
        format!("{object}.status.?conditions.orValue([]).filter(c, c.type != '{NODE_CONDITION}')")
    };
    let mut parts = vec![
        "request.subResource == 'status'".to_owned(),
        "object != null && oldObject != null".to_owned(),
    ];
    parts.extend(FOREIGN_METADATA.iter().map(|field| same("metadata", field)));
    parts.extend(FOREIGN_STATUS.iter().map(|field| same("status", field)));
    parts.push(format!("{} == {}", others("object"), others("oldObject")));
    parts.join(" &&\n")
}

//! Route reflectors: applying this file is what makes the cluster use them.

use api::constant::{COMPONENT_REFLECTOR, REFLECTOR_METRICS_ADDRESS, REFLECTOR_PORT};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, EmptyDirVolumeSource, PodAffinityTerm, PodAntiAffinity,
    PodSpec, PodTemplateSpec, Toleration, Volume, VolumeMount,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::agent::{field, host_network_pod, metrics_port, probe, requests, security};
use crate::document::Document;
use crate::name::{self, REFLECTOR};
use crate::rbac;

/// Name of the container.
const CONTAINER: &str = "route-reflector";
/// Two: each node has a session with both, and one may fail or be replaced.
const REPLICAS: i32 = 2;
/// Where it keeps what it read: a restarted container starts without the API server.
const STATE_DIR: &str = "/var/lib/rampart-route-reflector";
/// Nobody: it opens ports above 1023, and writes only into its own empty directory.
const USER: i64 = 65532;

/// What a reflector may be scheduled in spite of: it must run before there is a network.
const TOLERATED: &[&str] = &[
    "node-role.kubernetes.io/control-plane",
    "node.kubernetes.io/network-unavailable",
    "node.kubernetes.io/not-ready",
];

/// Account, roles, Deployment and disruption budget.
pub(crate) fn documents() -> anyhow::Result<Vec<Document>> {
    let mut documents = rbac::reflector()?;
    documents.push(Document::new(&deployment())?.comment(
        "\
Route reflectors (RFC 4456). Agents find their pods by themselves and open sessions with all of them;
a node leaves the mesh when it has learnt from them what the mesh told it. Delete this file's objects,
and the mesh is back first.",
    ));
    documents.push(Document::new(&budget())?);
    Ok(documents)
}

fn deployment() -> Deployment {
    Deployment {
        metadata: name::own(REFLECTOR),
        spec: Some(DeploymentSpec {
            replicas: Some(REPLICAS),
            selector: name::selector(COMPONENT_REFLECTOR),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(name::pod_labels(COMPONENT_REFLECTOR)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod()),
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                // The ports are the node's: no second one beside the first, and never both away.
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(0)),
                    max_unavailable: Some(IntOrString::Int(1)),
                }),
            }),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod() -> PodSpec {
    PodSpec {
        affinity: Some(Affinity {
            pod_anti_affinity: Some(PodAntiAffinity {
                required_during_scheduling_ignored_during_execution: Some(vec![PodAffinityTerm {
                    label_selector: Some(name::selector(COMPONENT_REFLECTOR)),
                    topology_key: "kubernetes.io/hostname".to_owned(),
                    ..PodAffinityTerm::default()
                }]),
                ..PodAntiAffinity::default()
            }),
            ..Affinity::default()
        }),
        containers: vec![container()],
        volumes: Some(vec![Volume {
            name: "state".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        }]),
        priority_class_name: Some("system-cluster-critical".to_owned()),
        // Not every taint: off a node that is gone it must be evicted to start elsewhere.
        tolerations: Some(
            TOLERATED
                .iter()
                .map(|&key| Toleration {
                    key: Some(key.to_owned()),
                    operator: Some("Exists".to_owned()),
                    effect: Some("NoSchedule".to_owned()),
                    ..Toleration::default()
                })
                .collect(),
        ),
        ..host_network_pod(REFLECTOR)
    }
}

fn container() -> Container {
    let metrics = metrics_port(REFLECTOR_METRICS_ADDRESS);
    let port = |name: &str, port: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        host_port: Some(port),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mut security = security(&[]);
    security.run_as_user = Some(USER);
    security.run_as_group = Some(USER);
    security.run_as_non_root = Some(true);
    Container {
        name: CONTAINER.to_owned(),
        image: Some(name::image()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(vec![
            "route-reflector".to_owned(),
            "--store=kube".to_owned(),
            format!("--state-dir={STATE_DIR}"),
            format!("--metrics-address={REFLECTOR_METRICS_ADDRESS}"),
            "--log-format=text".to_owned(),
            "--log-level=info".to_owned(),
        ]),
        env: Some(vec![
            field("RAMPART_NODE_NAME", "spec.nodeName"),
            field("RAMPART_NAMESPACE", "metadata.namespace"),
        ]),
        ports: Some(vec![port("bgp", i32::from(REFLECTOR_PORT)), port("metrics", metrics)]),
        resources: Some(requests("50m", "32Mi")),
        security_context: Some(security),
        volume_mounts: Some(vec![VolumeMount {
            name: "state".to_owned(),
            mount_path: STATE_DIR.to_owned(),
            ..VolumeMount::default()
        }]),
        startup_probe: Some(probe("/healthz", metrics, 1, 60)),
        readiness_probe: Some(probe("/readyz", metrics, 2, 1)),
        liveness_probe: Some(probe("/healthz", metrics, 10, 6)),
        ..Container::default()
    }
}

fn budget() -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: name::own(REFLECTOR),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(name::selector(COMPONENT_REFLECTOR)),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

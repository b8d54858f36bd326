//! The DaemonSet.

use api::constant::{COMPONENT_AGENT, HOST_MOUNT, METRICS_ADDRESS, RUN_DIR, STATE_DIR};
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    HostPathVolumeSource, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use serde_json::{Value, json};

use crate::document::Document;
use crate::name::{self, AGENT};

/// Name of the container.
pub(crate) const CONTAINER: &str = "agent";
/// Where the runtime looks for plugins.
pub(crate) const CNI_BIN_DIR: &str = "/opt/cni/bin";
/// Where the runtime looks for its network.
pub(crate) const CNI_CONF_DIR: &str = "/etc/cni/net.d";

/// Netlink, nf_tables and the network's sysctls; the BGP port. Nothing else: no raw sockets, since
/// the agent sends no packet of its own but TCP and what the kernel makes.
const CAPABILITIES: &[&str] = &["NET_ADMIN", "NET_BIND_SERVICE"];

/// The DaemonSet.
pub(crate) fn documents() -> anyhow::Result<Vec<Document>> {
    Ok(vec![Document::new(&daemon_set())?.comment(
        "\
The agent of every node. Routes, policy and pods outlive it: replacing it interrupts no traffic, and
BGP peers keep the routes meanwhile (graceful restart).",
    )])
}

/// The DaemonSet.
pub(crate) fn daemon_set() -> DaemonSet {
    DaemonSet {
        metadata: name::own(AGENT),
        spec: Some(DaemonSetSpec {
            selector: name::selector(COMPONENT_AGENT),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(name::pod_labels(COMPONENT_AGENT)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod()),
            },
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDaemonSet {
                    // Rounded up: one node of ten.
                    max_unavailable: Some(IntOrString::String("10%".to_owned())),
                    ..RollingUpdateDaemonSet::default()
                }),
            }),
            ..DaemonSetSpec::default()
        }),
        ..DaemonSet::default()
    }
}

fn pod() -> PodSpec {
    let host_paths = [
        ("run", RUN_DIR),
        ("state", STATE_DIR),
        ("cni-bin", CNI_BIN_DIR),
        ("cni-conf", CNI_CONF_DIR),
    ];
    PodSpec {
        containers: vec![container()],
        volumes: Some(host_paths.map(|(name, path)| host_path(name, path)).into()),
        ..host_network_pod(AGENT)
    }
}

/// What every pod of ours has: it makes the network, so it waits for no network, no DNS of the
/// cluster, and no taint keeps it away.
pub(crate) fn host_network_pod(account: &str) -> PodSpec {
    PodSpec {
        automount_service_account_token: Some(true),
        dns_policy: Some("Default".to_owned()),
        enable_service_links: Some(false),
        host_network: Some(true),
        node_selector: Some(name::labels([("kubernetes.io/os", "linux")])),
        priority_class_name: Some("system-node-critical".to_owned()),
        security_context: Some(PodSecurityContext {
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        service_account_name: Some(account.to_owned()),
        termination_grace_period_seconds: Some(10),
        tolerations: Some(vec![Toleration {
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        }]),
        ..PodSpec::default()
    }
}

fn container() -> Container {
    let inside = |path: &str| format!("{HOST_MOUNT}{path}");
    let port = metrics_port(METRICS_ADDRESS);
    Container {
        name: CONTAINER.to_owned(),
        image: Some(name::image()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(vec![
            "agent".to_owned(),
            "--store=kube".to_owned(),
            format!("--run-dir={RUN_DIR}"),
            format!("--state-dir={STATE_DIR}"),
            format!("--cni-bin-dir={}", inside(CNI_BIN_DIR)),
            format!("--cni-conf-dir={}", inside(CNI_CONF_DIR)),
            format!("--metrics-address={METRICS_ADDRESS}"),
            "--log-format=text".to_owned(),
            "--log-level=info".to_owned(),
        ]),
        env: Some(vec![
            field("RAMPART_NODE_NAME", "spec.nodeName"),
            field("RAMPART_NAMESPACE", "metadata.namespace"),
        ]),
        ports: Some(vec![ContainerPort {
            name: Some("metrics".to_owned()),
            container_port: port,
            host_port: Some(port),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(requests("50m", "64Mi")),
        security_context: Some(security(CAPABILITIES)),
        // As long as it takes: a large cluster is read and compiled before the first answer.
        startup_probe: Some(probe("/healthz", port, 1, 300)),
        readiness_probe: Some(probe("/readyz", port, 2, 1)),
        // The agent answers whatever becomes of the API server, its peers and the kernel.
        liveness_probe: Some(probe("/healthz", port, 10, 6)),
        volume_mounts: Some(vec![
            mount("run", RUN_DIR),
            mount("state", STATE_DIR),
            mount("cni-bin", &inside(CNI_BIN_DIR)),
            mount("cni-conf", &inside(CNI_CONF_DIR)),
        ]),
        ..Container::default()
    }
}

/// Changes to the DaemonSet (RFC 6902) that let Prometheus reach the agents' metrics.
pub(crate) fn operations_to_listen_on_the_node_address() -> Vec<Value> {
    let container = container();
    let at = |field: &str| format!("/spec/template/spec/containers/0/{field}");
    let host_ip = field("HOST_IP", "status.hostIP");
    let mut operations = vec![json!({ "op": "add", "path": at("env/0"), "value": host_ip })];
    let args = container.args.unwrap_or_default();
    if let Some(index) = args.iter().position(|arg| arg.starts_with("--metrics-address=")) {
        let port = metrics_port(METRICS_ADDRESS);
        operations.push(json!({
            "op": "replace",
            "path": at(&format!("args/{index}")),
            "value": format!("--metrics-address=$(HOST_IP):{port}"),
        }));
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        operations.push(json!({ "op": "remove", "path": at(&format!("{probe}/httpGet/host")) }));
    }
    operations
}

/// Port of `ADDRESS:PORT`.
pub(crate) fn metrics_port(address: &str) -> i32 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default()
}

/// Requests without limits: a limit on CPU delays policy, one on memory ends the agent when the
/// cluster grows.
pub(crate) fn requests(cpu: &str, memory: &str) -> ResourceRequirements {
    let quantity = |name: &str, text: &str| (name.to_owned(), Quantity(text.to_owned()));
    ResourceRequirements {
        requests: Some([quantity("cpu", cpu), quantity("memory", memory)].into()),
        ..ResourceRequirements::default()
    }
}

/// Root (netlink and host directories are root's) with these capabilities and nothing else.
pub(crate) fn security(capabilities: &[&str]) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: Some(capabilities.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
                .filter(|added| !added.is_empty()),
            drop: Some(vec!["ALL".to_owned()]),
        }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_user: Some(0),
        run_as_group: Some(0),
        ..SecurityContext::default()
    }
}

pub(crate) fn probe(path: &str, port: i32, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            host: Some("127.0.0.1".to_owned()),
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(period.min(5)),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// An environment variable from the pod's own object.
pub(crate) fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn host_path(name: &str, path: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: path.to_owned(),
            type_: Some("DirectoryOrCreate".to_owned()),
        }),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::agent_args::{AgentArgs, Store};
    use clap::Parser;
    use std::path::Path;

    #[derive(Debug, Parser)]
    enum Rampart {
        Agent(AgentArgs),
    }

    #[test]
    fn the_agent_understands_the_arguments_of_its_container() {
        let container = container();
        let args = container.args.unwrap();
        let line = ["rampart"].into_iter().chain(args.iter().map(String::as_str));
        // The node's name comes by environment, from the downward API.
        let Rampart::Agent(parsed) =
            Rampart::try_parse_from(line.chain(["--node-name", "n1"])).unwrap();
        assert_eq!(parsed.store, Store::Kubernetes(None));
        assert_eq!(parsed.run_dir, Path::new(RUN_DIR));
        assert_eq!(parsed.metrics_address.to_string(), METRICS_ADDRESS);
        assert_eq!(parsed.cni_bin_dir.as_deref(), Some(Path::new("/host/opt/cni/bin")));
        let command = <Rampart as clap::CommandFactory>::command();
        let known: Vec<String> = command
            .get_subcommands()
            .flat_map(clap::Command::get_arguments)
            .filter_map(|arg| arg.get_env().map(|name| name.to_string_lossy().into_owned()))
            .collect();
        for variable in container.env.unwrap() {
            assert!(
                known.contains(&variable.name),
                "{} is no variable of the agent",
                variable.name
            );
        }
    }

    #[test]
    fn every_directory_given_to_the_agent_is_a_mount_of_the_same_directory_of_the_host() {
        let pod = pod();
        let volumes = pod.volumes.unwrap();
        for mount in pod.containers[0].volume_mounts.as_deref().unwrap() {
            let volume = volumes.iter().find(|volume| volume.name == mount.name).unwrap();
            let host = &volume.host_path.as_ref().unwrap().path;
            assert!(mount.mount_path == *host || mount.mount_path == format!("/host{host}"));
            let args = pod.containers[0].args.as_deref().unwrap();
            assert!(args.iter().any(|arg| arg.ends_with(&format!("={}", mount.mount_path))));
        }
    }
}

//! The pods that clean nodes where no agent is left to do it: made from the agent's DaemonSet.

use std::collections::BTreeSet;
use std::path::Path;

use api::constant::{
    CNI_NETWORK, COMPONENT_AGENT, COMPONENT_CLEANUP, COMPONENT_LABEL, HOST_MOUNT, IPAM_DIR,
    RUN_DIR, STATE_DIR,
};
use kube::api::DynamicObject;
use serde_json::{Value, json};

/// Name of the DaemonSet.
pub const NAME: &str = "rampart-cleanup";
/// Volumes of the agent that are kept as they are: where plugins and lists are on the host.
const KEPT: [&str; 2] = ["cni-bin", "cni-conf"];

/// A DaemonSet `rampart-cleanup` that runs `rampart cleanup` in place of the agents of `agent`, on
/// the same nodes, from the same image. It needs no access to the API server, and the parents of
/// our directories: a directory cannot be removed where it is mounted itself.
#[must_use]
pub fn daemon_set(agent: &DynamicObject, namespace: &str) -> DynamicObject {
    let pod = |path: &str| agent.data.pointer(&format!("/spec/template/spec{path}"));
    let containers = pod("/containers").and_then(Value::as_array);
    let container = containers.into_iter().flatten().find(|c| c["name"] == COMPONENT_AGENT);
    let of_container = |field: &str| container.map_or(Value::Null, |c| c[field].clone());
    let host_path = |volume: &str| {
        let volumes = pod("/volumes").and_then(Value::as_array);
        let volume = volumes.into_iter().flatten().find(|v| v["name"] == volume)?;
        volume.pointer("/hostPath/path").and_then(Value::as_str).map(str::to_owned)
    };
    let run = host_path("run").unwrap_or_else(|| RUN_DIR.to_owned());
    let state = host_path("state").unwrap_or_else(|| STATE_DIR.to_owned());
    let mut arguments = vec![
        "cleanup".to_owned(),
        format!("--hold={RUN_DIR}"),
        format!("--run-dir={HOST_MOUNT}{run}"),
        format!("--state-dir={HOST_MOUNT}{state}"),
        format!("--ipam-dir={HOST_MOUNT}{IPAM_DIR}/{CNI_NETWORK}"),
    ];
    let mut volumes = vec![json!({"name": "hold", "emptyDir": {"medium": "Memory"}})];
    let mut mounts = vec![json!({"name": "hold", "mountPath": RUN_DIR})];
    let mut mount = |name: &str, path: &str, directory_type: &str| {
        volumes.push(json!({"name": name, "hostPath": {"path": path, "type": directory_type}}));
        // What the host unmounts meanwhile must not stay mounted here.
        mounts.push(json!({
            "name": name, "mountPath": format!("{HOST_MOUNT}{path}"),
            "mountPropagation": "HostToContainer",
        }));
    };
    for volume in KEPT {
        let Some(path) = host_path(volume) else { continue };
        arguments.push(format!("--{volume}-dir={HOST_MOUNT}{path}"));
        mount(volume, &path, "DirectoryOrCreate");
    }
    let parents = [run.as_str(), &state, "/var/lib/cni"].map(parent);
    for (index, path) in parents.into_iter().flatten().collect::<BTreeSet<_>>().iter().enumerate() {
        mount(&format!("host-{index}"), path, "Directory");
    }
    let labels = json!({"app.kubernetes.io/name": "rampart", COMPONENT_LABEL: COMPONENT_CLEANUP});
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "containers": [{
            "name": COMPONENT_CLEANUP, "args": arguments, "volumeMounts": mounts,
            "image": of_container("image"), "imagePullPolicy": of_container("imagePullPolicy"),
            "securityContext": of_container("securityContext"),
        }],
        "enableServiceLinks": false,
        "hostNetwork": true,
        "terminationGracePeriodSeconds": 5,
        "volumes": volumes,
    });
    for field in
        ["imagePullSecrets", "nodeSelector", "priorityClassName", "securityContext", "tolerations"]
    {
        if let (Some(value), Some(fields)) = (pod(&format!("/{field}")), spec.as_object_mut()) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    DynamicObject {
        types: agent.types.clone(),
        metadata: kube::core::ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([("app.kubernetes.io/name".to_owned(), "rampart".to_owned())].into()),
            ..Default::default()
        },
        data: json!({"spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}},
        }}),
    }
}

/// `None` for what stands at the root: all of the host is not mounted for that.
fn parent(path: &str) -> Option<String> {
    let parent = Path::new(path).parent()?.to_str()?;
    (parent != "/").then(|| parent.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_cleans_the_places_of_the_agent_from_the_same_image_and_asks_no_api_server() {
        let settings = [("cni.binDir", "/opt/other/bin"), ("image.repository", "r.example/r")];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let objects = super::super::objects(&settings).unwrap();
        let agent = objects.iter().find(|object| super::super::is_agent(object)).unwrap();
        let set = daemon_set(agent, "elsewhere");
        assert_eq!(set.metadata.namespace.as_deref(), Some("elsewhere"));
        let pod = set.data.pointer("/spec/template/spec").unwrap();
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert!(pod.get("serviceAccountName").is_none() && pod["tolerations"].is_array(), "{pod}");
        let container = &pod["containers"][0];
        assert!(container["image"].as_str().unwrap().starts_with("r.example/r:"), "{container}");
        let arguments: Vec<&str> =
            container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
        assert_eq!(
            arguments,
            [
                "cleanup",
                "--hold=/run/rampart",
                "--run-dir=/host/run/rampart",
                "--state-dir=/host/var/lib/rampart",
                "--ipam-dir=/host/var/lib/cni/networks/rampart",
                "--cni-bin-dir=/host/opt/other/bin",
                "--cni-conf-dir=/host/etc/cni/net.d",
            ]
        );
        let mounts = container["volumeMounts"].to_string();
        for path in ["/host/run\"", "/host/var/lib\"", "/host/opt/other/bin\""] {
            assert!(mounts.contains(path), "{path}: {mounts}");
        }
        assert_eq!(container["securityContext"]["privileged"], false);
    }

    #[test]
    fn an_agent_without_cni_has_no_cni_files_to_remove() {
        let settings = [("cni.install".to_owned(), "false".to_owned())];
        let objects = super::super::objects(&settings).unwrap();
        let agent = objects.iter().find(|object| super::super::is_agent(object)).unwrap();
        let text = daemon_set(agent, "x").data.to_string();
        assert!(!text.contains("--cni-"), "{text}");
    }
}

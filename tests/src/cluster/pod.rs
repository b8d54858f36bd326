//! Pods of the tests: made, entered, asked.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Cluster;
use super::image::AGNHOST;

/// How long a pod may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a pod is, once it runs.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    /// Id of its first container.
    pub container: String,
}

impl Pod {
    /// Both addresses.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4, self.v6]
    }
}

/// A Pod of agnhost, labelled `app: NAME`, that runs `arguments` (`netexec --http-port=8080` for a
/// server of HTTP and UDP) on a node, or wherever the scheduler puts it.
#[must_use]
pub fn manifest(namespace: &str, name: &str, node: Option<&str>, arguments: &[&str]) -> Value {
    let mut pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "args": arguments,
            }],
        },
    });
    if let (Some(node), Some(spec)) = (node, pod.get_mut("spec").and_then(Value::as_object_mut)) {
        spec.insert("nodeSelector".to_owned(), serde_json::json!({"kubernetes.io/hostname": node}));
    }
    pod
}

impl Cluster {
    /// Makes pods and waits until all are ready.
    ///
    /// # Errors
    /// When one is not in time.
    pub fn run_pods(&self, manifests: &[Value]) -> anyhow::Result<Vec<Pod>> {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": manifests});
        self.apply(&list.to_string())?;
        manifests
            .iter()
            .map(|manifest| {
                let text = |pointer| manifest.pointer(pointer).and_then(Value::as_str);
                let namespace = text("/metadata/namespace").unwrap_or("default");
                self.wait_pod(namespace, text("/metadata/name").context("a name")?)
            })
            .collect()
    }

    /// Waits until a pod is ready, and says where it is.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_pod(&self, namespace: &str, name: &str) -> anyhow::Result<Pod> {
        let pod = format!("pod/{name}");
        let ready = self.wait(&["--for=condition=Ready", "-n", namespace, &pod], PATIENCE);
        if let Err(error) = ready {
            let story = self.kubectl(&["describe", "-n", namespace, &pod]).unwrap_or_default();
            return Err(error.context(story));
        }
        self.pod(namespace, name)
    }

    /// Where a pod is.
    ///
    /// # Errors
    /// When there is none, or it has no addresses yet.
    pub fn pod(&self, namespace: &str, name: &str) -> anyhow::Result<Pod> {
        let text = self.kubectl(&["get", "pod", "-n", namespace, name, "-o", "json"])?;
        let pod: Value = serde_json::from_str(&text)?;
        let text = |pointer: &str| {
            let text = pod.pointer(pointer).and_then(Value::as_str);
            text.with_context(|| format!("{namespace}/{name} has no {pointer}"))
        };
        let container = text("/status/containerStatuses/0/containerID")?;
        Ok(Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: text("/spec/nodeName")?.to_owned(),
            v4: text("/status/podIPs/0/ip")?.parse()?,
            v6: text("/status/podIPs/1/ip")?.parse()?,
            container: container.trim_start_matches("containerd://").to_owned(),
        })
    }

    /// Runs a command in a pod over the API (`kubectl exec`).
    ///
    /// # Errors
    /// When it fails.
    pub fn pod_exec(&self, namespace: &str, pod: &str, command: &[&str]) -> anyhow::Result<String> {
        self.kubectl(&[&["exec", "-n", namespace, pod, "--"], command].concat())
    }

    /// Path of a pod's network namespace, by which this process can enter it.
    ///
    /// # Errors
    /// When its node does not know it.
    pub fn pod_network(&self, pod: &Pod) -> anyhow::Result<PathBuf> {
        self.node(&pod.node)?.container_network(&pod.container)
    }

    /// Asserts that a pod answers HTTP on port 8080 when asked from another one, both families.
    ///
    /// # Errors
    /// When it does not.
    pub fn assert_reaches(&self, from: &Pod, to: &Pod) -> anyhow::Result<()> {
        for address in to.addresses() {
            let target = std::net::SocketAddr::from((address, 8080)).to_string();
            let connect = ["/agnhost", "connect", &target, "--timeout=3s", "--protocol=tcp"];
            let said = self.pod_exec(&from.namespace, &from.name, &connect);
            ensure!(said.is_ok(), "{} -> {} ({target}): {said:?}", from.name, to.name);
        }
        Ok(())
    }
}

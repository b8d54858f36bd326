//! What the scenarios share: one cluster with Rampart for all tests of a program, a namespace for
//! each test, and who reaches whom.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure};
use serde_json::{Value, json};

use super::pod::{self, Pod};
use super::{Cluster, Options, probe};

/// How soon a change must be in force before a test gives up.
pub const SOON: Duration = Duration::from_secs(10);
/// How soon an installation must work: from `kubectl apply` on.
pub const INSTALLED: Duration = Duration::from_secs(30);
/// How long the controllers may take: after an outage of the API server they back off for a while.
const CONTROLLERS: Duration = Duration::from_secs(90);
/// How long a connection may take that is allowed.
const PATIENCE: Duration = Duration::from_secs(1);
/// Port of the HTTP server of [`Space::serve`].
pub const HTTP: u16 = 8080;
/// A second port of it.
pub const OTHER: u16 = 8090;

/// The cluster of this test program: made when the first test wants it, with Rampart installed and
/// ready; one test has it at a time; gone when the program ends.
///
/// # Errors
/// When it does not come up.
pub fn shared(options: impl FnOnce() -> Options) -> anyhow::Result<MutexGuard<'static, Cluster>> {
    static CLUSTER: OnceLock<Result<Mutex<Cluster>, String>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| {
        up_with_rampart(options()).map(Mutex::new).map_err(|error| format!("{error:#}"))
    });
    let cluster = cluster.as_ref().map_err(|error| anyhow!("{error}"))?;
    // A test that failed leaves the cluster to the next one.
    Ok(cluster.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A cluster with Rampart installed and ready.
///
/// # Errors
/// When it does not come up.
pub fn up_with_rampart(options: Options) -> anyhow::Result<Cluster> {
    let cluster = Cluster::up(options)?;
    cluster.install_rampart()?;
    cluster.wait_agents()?;
    cluster.wait_nodes_ready(INSTALLED)?;
    cluster.wait_dns(INSTALLED)?;
    Ok(cluster)
}

/// A namespace of one test, with the pods of it. It goes with the test.
#[derive(Debug)]
pub struct Space<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    name: String,
}

impl<'a> Space<'a> {
    /// Makes one.
    ///
    /// # Errors
    /// When there is one of this name.
    pub fn new(cluster: &'a Cluster, name: &str) -> anyhow::Result<Self> {
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        cluster.api().create("/api/v1/namespaces", &space)?;
        let space = Self { cluster, name: name.to_owned() };
        // Pods are refused until the controllers have made it.
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        cluster.eventually(CONTROLLERS, "the namespace has its service account", || {
            Ok(cluster.api().get(&account).is_ok())
        })?;
        Ok(space)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a pod that serves HTTP on [`HTTP`] and [`OTHER`], labelled `app: NAME`.
    #[must_use]
    pub fn server(&self, name: &str, node: &str) -> Value {
        let serve = format!(
            "/agnhost netexec --http-port={HTTP} --udp-port={HTTP} & exec /agnhost netexec --http-port={OTHER} --udp-port={OTHER}"
        );
        let mut pod = pod::manifest(&self.name, name, Some(node), &["-c", &serve]);
        if let Some(container) =
            pod.pointer_mut("/spec/containers/0").and_then(Value::as_object_mut)
        {
            container.insert("command".to_owned(), json!(["/bin/sh"]));
            container.insert(
                "readinessProbe".to_owned(),
                json!({"httpGet": {"path": "/hostname", "port": HTTP}, "periodSeconds": 1}),
            );
        }
        pod
    }

    /// Runs servers, each on a node.
    ///
    /// # Errors
    /// When one is not ready in time.
    pub fn serve(&self, pods: &[(&str, &str)]) -> anyhow::Result<Vec<Pod>> {
        let manifests: Vec<Value> =
            pods.iter().map(|(name, node)| self.server(name, node)).collect();
        self.cluster.run_pods(&manifests)
    }

    /// A NetworkPolicy with this spec.
    #[must_use]
    pub fn policy(&self, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": self.name, "name": name}, "spec": spec,
        })
    }

    /// Creates or changes a NetworkPolicy.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn apply_policy(&self, name: &str, spec: &Value) -> anyhow::Result<()> {
        self.cluster.apply(&self.policy(name, spec).to_string())
    }

    /// Deletes a NetworkPolicy.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn delete_policy(&self, name: &str) -> anyhow::Result<()> {
        self.cluster.kubectl(&["delete", "networkpolicy", "-n", &self.name, name])?;
        Ok(())
    }

    /// Denies all in both directions.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn default_deny(&self) -> anyhow::Result<()> {
        let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        self.apply_policy("default-deny", &spec)
    }
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        let path = format!("/api/v1/namespaces/{}", self.name);
        // What cannot be deleted now goes with the cluster.
        self.cluster.api().delete(&path).ok();
    }
}

/// Network namespaces of pods.
///
/// # Errors
/// When a node does not know one.
pub fn networks(cluster: &Cluster, pods: &[Pod]) -> anyhow::Result<Vec<PathBuf>> {
    pods.iter().map(|pod| cluster.pod_network(pod)).collect()
}

/// Whether `from` reaches this port of `to`: for each family whether a new connection is made.
///
/// # Errors
/// When the pod is gone.
pub fn reach(cluster: &Cluster, from: &Pod, to: &Pod, port: u16) -> anyhow::Result<[bool; 2]> {
    let network = cluster.pod_network(from)?;
    let [v4, v6] = to.addresses();
    Ok([
        probe::connects(&network, SocketAddr::from((v4, port)), PATIENCE)?,
        probe::connects(&network, SocketAddr::from((v6, port)), PATIENCE)?,
    ])
}

/// Waits until `from` reaches (or does not reach) this port of `to`, in both families.
///
/// # Errors
/// When that is not so in time.
pub fn becomes(
    cluster: &Cluster,
    from: &Pod,
    to: &Pod,
    port: u16,
    expected: bool,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let reached = reach(cluster, from, to, port)?;
        if reached == [expected; 2] {
            return Ok(began.elapsed());
        }
        if began.elapsed() > SOON {
            let verb = if expected { "reach" } else { "be kept from" };
            bail!("{} does not {verb} {}:{port} ([IPv4, IPv6]: {reached:?})", from.name, to.name);
        }
    }
}

/// Asserts that `from` reaches (or does not reach) this port of `to`, in both families, now.
///
/// # Errors
/// When that is not so.
pub fn is(
    cluster: &Cluster,
    from: &Pod,
    to: &Pod,
    port: u16,
    expected: bool,
) -> anyhow::Result<()> {
    let reached = reach(cluster, from, to, port)?;
    ensure!(
        reached == [expected; 2],
        "{} -> {}:{port} is {reached:?} ([IPv4, IPv6]), not {expected}",
        from.name,
        to.name
    );
    Ok(())
}

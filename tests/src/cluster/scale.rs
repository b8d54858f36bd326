//! The scenario of a Deployment that is scaled up and down under default deny, every pod of which
//! connects to a server that it may reach and to one that it may not as its first instruction.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use super::image::AGNHOST;
use super::scenario::{HTTP, Space, becomes};
use super::{Cluster, probe};

/// Pods that are made in a second.
const RATE: usize = 20;
/// How long all may take to be ready, and to be gone.
const PATIENCE: Duration = Duration::from_secs(180);
/// Port of the two listeners.
const PORT: u16 = 9100;

/// Who connected, on a listener inside a pod's network namespace.
struct Listener {
    stop: Arc<AtomicBool>,
    callers: Arc<Mutex<BTreeSet<IpAddr>>>,
    thread: JoinHandle<()>,
}

impl Listener {
    fn start(network: &Path) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        let listener = probe::inside(network, || TcpListener::bind(address))??;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let callers = Arc::new(Mutex::new(BTreeSet::new()));
        let thread = std::thread::spawn({
            let (stop, callers) = (Arc::clone(&stop), Arc::clone(&callers));
            move || {
                while !stop.load(Ordering::Acquire) {
                    match listener.accept() {
                        Ok((_, from)) => {
                            let mut callers =
                                callers.lock().unwrap_or_else(PoisonError::into_inner);
                            callers.insert(from.ip().to_canonical());
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
            }
        });
        Ok(Self { stop, callers, thread })
    }

    fn finish(self) -> BTreeSet<IpAddr> {
        self.stop.store(true, Ordering::Release);
        // It does nothing that can fail.
        self.thread.join().ok();
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self) -> usize {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Scales from one pod to `pods` at `RATE` a second and back to one.
///
/// # Errors
/// When a pod reaches what it must not, or not what it may.
pub fn run(cluster: &Cluster, pods: usize) -> anyhow::Result<()> {
    let space = Space::new(cluster, "scale")?;
    let servers = Space::new(cluster, "scale-servers")?;
    let made = servers.serve(&[("allowed", "n1"), ("forbidden", "n1")])?;
    let [allowed, forbidden] = &made[..] else { anyhow::bail!("two servers") };
    space.default_deny()?;
    space.apply_policy(
        "to-allowed",
        &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "allowed"}}},
        ]}]}),
    )?;
    // The policies are everywhere before the first pod starts.
    let canary = &space.serve(&[("canary", "n1")])?[0];
    becomes(cluster, canary, allowed, HTTP, true)?;
    becomes(cluster, canary, forbidden, HTTP, false)?;

    let reached = Listener::start(&cluster.pod_network(allowed)?)?;
    let leaked = Listener::start(&cluster.pod_network(forbidden)?)?;
    // The shell's own connect(): nothing runs before it.
    let attempts: Vec<String> =
        [(allowed, "v4"), (forbidden, "v4"), (allowed, "v6"), (forbidden, "v6")]
            .iter()
            .map(|(pod, family)| {
                let address = if *family == "v4" { pod.v4 } else { pod.v6 };
                format!("(exec 3<>/dev/tcp/{address}/{PORT}) 2>/dev/null &")
            })
            .collect();
    let script = format!("{} exec /agnhost pause", attempts.join(" "));
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "scaled", "namespace": space.name()},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "scaled"}},
            "template": {
                "metadata": {"labels": {"app": "scaled"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "main", "image": AGNHOST, "imagePullPolicy": "Never",
                        "command": ["/bin/sh", "-c", script]}],
                },
            },
        },
    });
    cluster.apply(&deployment.to_string())?;
    scale_to(cluster, space.name(), pods)?;
    let seen = addresses(cluster, space.name())?;
    ensure!(seen.len() == 2 * pods, "{} addresses of {pods} pods", seen.len());
    cluster.eventually(PATIENCE, "every pod reached the allowed server", || {
        Ok(reached.count() >= seen.len())
    })?;
    scale_to(cluster, space.name(), 1)?;
    let (reached, leaked) = (reached.finish(), leaked.finish());
    ensure!(leaked.is_empty(), "{} of {} addresses leaked: {leaked:?}", leaked.len(), seen.len());
    let lost: Vec<&IpAddr> = seen.difference(&reached).collect();
    ensure!(lost.is_empty(), "{} of {} did not get through: {lost:?}", lost.len(), seen.len());
    Ok(())
}

/// Addresses of all pods of the Deployment.
fn addresses(cluster: &Cluster, namespace: &str) -> anyhow::Result<BTreeSet<IpAddr>> {
    let columns = "jsonpath={.items[*].status.podIPs[*].ip}";
    let text =
        cluster.kubectl(&["get", "pods", "-n", namespace, "-l", "app=scaled", "-o", columns])?;
    Ok(text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

fn scale_to(cluster: &Cluster, namespace: &str, goal: usize) -> anyhow::Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/scaled");
    let mut replicas = cluster.api().get(&path)?["spec"]["replicas"].as_u64().unwrap_or(0);
    let goal = goal.try_into()?;
    let began = Instant::now();
    while replicas != goal {
        // A few at a time, so that they come at this rate whatever the controller does.
        let step = 2_u64;
        replicas = if replicas < goal { (replicas + step).min(goal) } else { goal };
        cluster.api().patch(&path, &json!({"spec": {"replicas": replicas}}))?;
        std::thread::sleep(Duration::from_secs_f64(1.0 / RATE as f64 * 2.0));
    }
    cluster.eventually(PATIENCE, "the Deployment has its size", || {
        let status = &cluster.api().get(&path)?["status"];
        let count = |field: &str| status[field].as_u64().unwrap_or(0);
        Ok(count("replicas") == goal && count("readyReplicas") == goal)
    })?;
    ensure!(began.elapsed() < PATIENCE, "scaling took {:?}", began.elapsed());
    Ok(())
}

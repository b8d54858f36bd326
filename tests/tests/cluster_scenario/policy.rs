//! NetworkPolicy as a user changes it.

use anyhow::ensure;
use serde_json::json;
use tests::cluster::scenario::{HTTP, OTHER, SOON, Space, becomes, is};

use crate::cluster;

#[test]
fn a_policy_created_changed_and_deleted_is_in_force_each_time() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = Space::new(&cluster, "policy-life")?;
    let pods = space.serve(&[("server", "n1"), ("near", "n1"), ("far", "n2")])?;
    let [server, near, far] = &pods[..] else { anyhow::bail!("three pods") };
    for client in [near, far] {
        is(&cluster, client, server, HTTP, true)?;
    }
    space.apply_policy("server", &json!({"podSelector": {"matchLabels": {"app": "server"}}}))?;
    for client in [near, far] {
        becomes(&cluster, client, server, HTTP, false)?;
        // The other way round nobody isolated anything.
        is(&cluster, server, client, HTTP, true)?;
    }
    let from = |app: &str, port: u16| {
        json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": app}}}], "ports": [{"port": port}]},
        ]})
    };
    space.apply_policy("server", &from("far", HTTP))?;
    becomes(&cluster, far, server, HTTP, true)?;
    is(&cluster, far, server, OTHER, false)?;
    is(&cluster, near, server, HTTP, false)?;
    space.apply_policy("server", &from("near", OTHER))?;
    becomes(&cluster, near, server, OTHER, true)?;
    becomes(&cluster, far, server, HTTP, false)?;
    is(&cluster, near, server, HTTP, false)?;
    // What the server sends is isolated too.
    space.default_deny()?;
    becomes(&cluster, server, far, HTTP, false)?;
    becomes(&cluster, near, server, OTHER, false)?;
    space.delete_policy("default-deny")?;
    space.delete_policy("server")?;
    for client in [near, far] {
        becomes(&cluster, client, server, HTTP, true)?;
        becomes(&cluster, server, client, HTTP, true)?;
    }
    Ok(())
}

#[test]
fn labels_of_pods_and_namespaces_decide_at_once() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = Space::new(&cluster, "relabel")?;
    let guests = Space::new(&cluster, "relabel-guests")?;
    let pods = space.serve(&[("server", "n1"), ("client", "n2")])?;
    let guest = &guests.serve(&[("guest", "n2")])?[0];
    let (server, client) = (&pods[0], &pods[1]);
    space.apply_policy(
        "server",
        &json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [
            {"podSelector": {"matchLabels": {"role": "friend"}}},
            {"namespaceSelector": {"matchLabels": {"team": "friends"}}},
        ]}]}),
    )?;
    becomes(&cluster, client, server, HTTP, false)?;
    becomes(&cluster, guest, server, HTTP, false)?;
    let label = |arguments: &[&str]| cluster.kubectl(&[&["label"], arguments].concat());
    label(&["pod", "-n", "relabel", "client", "role=friend"])?;
    becomes(&cluster, client, server, HTTP, true)?;
    is(&cluster, guest, server, HTTP, false)?;
    label(&["namespace", "relabel-guests", "team=friends"])?;
    becomes(&cluster, guest, server, HTTP, true)?;
    label(&["namespace", "relabel-guests", "team-"])?;
    becomes(&cluster, guest, server, HTTP, false)?;
    is(&cluster, client, server, HTTP, true)?;
    label(&["pod", "-n", "relabel", "client", "role-"])?;
    becomes(&cluster, client, server, HTTP, false)?;
    // The policy is the server's as long as its label says so.
    label(&["pod", "-n", "relabel", "server", "app=other", "--overwrite"])?;
    becomes(&cluster, client, server, HTTP, true)?;
    Ok(())
}

#[test]
fn kubelet_probes_pass_under_default_deny() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = Space::new(&cluster, "probes")?;
    space.default_deny()?;
    let mut manifest = space.server("probed", "n1");
    let get = json!({"path": "/hostname", "port": HTTP});
    let container = &mut manifest["spec"]["containers"][0];
    container["startupProbe"] = json!({"httpGet": get, "periodSeconds": 1, "failureThreshold": 60});
    container["livenessProbe"] = json!({"httpGet": get, "periodSeconds": 1, "timeoutSeconds": 5});
    // Ready means that the startup and the readiness probe passed.
    let probed = &cluster.run_pods(&[manifest])?[0];
    let other = &space.serve(&[("other", "n1")])?[0];
    is(&cluster, other, probed, HTTP, false)?;
    cluster.eventually(SOON, "kubelet has asked a dozen times", || {
        let log = cluster.kubectl(&["logs", "-n", "probes", "probed"])?;
        Ok(log.matches("GET /hostname").count() >= 12)
    })?;
    let path = "jsonpath={.status.containerStatuses[0].restartCount}";
    let restarts = cluster.kubectl(&["get", "pod", "-n", "probes", "probed", "-o", path])?;
    ensure!(restarts == "0", "kubelet restarted the pod: {restarts}");
    Ok(())
}

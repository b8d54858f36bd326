//! Objects that the API server lets through and that make no sense.

use anyhow::ensure;
use api::control::Status;
use serde_json::json;
use tests::cluster::outage;
use tests::cluster::scenario::{HTTP, Space, becomes, is};

use crate::cluster;

/// Objects of each kind of junk.
const JUNK: usize = 60;

#[test]
fn two_clusters_worth_of_junk_disturbs_nothing_else() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = Space::new(&cluster, "junk")?;
    let pods = space.serve(&[("server", "n1"), ("client", "n2"), ("friend", "n2")])?;
    let [server, client, friend] = &pods[..] else { anyhow::bail!("three pods") };
    space.apply_policy(
        "server",
        &json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]},
        ]}),
    )?;
    becomes(&cluster, client, server, HTTP, false)?;
    let restarts = outage::restarts(&cluster)?;

    let mut junk = Vec::new();
    for number in 0..JUNK {
        let name = |what: &str| format!("junk-{what}-{number}");
        // Selects nobody, names ports nobody has, excludes more than it admits.
        junk.push(space.policy(
            &name("policy"),
            &json!({
                "podSelector": {"matchLabels": {"app": format!("nobody-{number}")}},
                "ingress": [
                    {"from": [{"podSelector": {"matchExpressions": [
                        {"key": "x", "operator": "DoesNotExist"},
                        {"key": "x", "operator": "In", "values": ["y"]},
                    ]}}], "ports": [{"port": "no-such-port", "protocol": "SCTP"}]},
                    {"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "10.0.0.0/9"]}}]},
                ],
            }),
        ));
        // A peer that cannot be, beside one that nobody answers for.
        junk.push(json!({
            "apiVersion": "rampart.network/v1alpha1", "kind": "BGPPeer",
            "metadata": {"name": name("peer")},
            "spec": {"peerAddress": format!("198.51.100.{}", number + 1), "peerASN": 64999},
        }));
        junk.push(json!({
            "apiVersion": "rampart.network/v1alpha1", "kind": "BGPPeer",
            "metadata": {"name": name("own-address")},
            "spec": {"peerAddress": "172.30.1.11", "peerASN": 64512},
        }));
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": junk}).to_string();
    // What the API server refuses never reaches the agent; the rest is applied all the same.
    cluster.kubectl_with(&["apply", "-f", "-"], &list).ok();
    let made = cluster.kubectl(&["get", "networkpolicies", "-n", "junk", "-o", "name"])?;
    ensure!(made.lines().count() > JUNK, "the junk policies are there");

    is(&cluster, client, server, HTTP, false)?;
    is(&cluster, friend, server, HTTP, true)?;
    space.apply_policy("open", &json!({"podSelector": {}, "ingress": [{}]}))?;
    becomes(&cluster, client, server, HTTP, true)?;
    space.delete_policy("open")?;
    becomes(&cluster, client, server, HTTP, false)?;
    let status: Status = cluster.node("n1")?.agent("/v1/status")?;
    ensure!(status.ready, "not ready: {:?}", status.not_ready);
    ensure!(outage::restarts(&cluster)? == restarts, "an agent restarted");
    cluster.kubectl_with(&["delete", "--ignore-not-found", "--wait=false", "-f", "-"], &list)?;
    cluster.eventually(tests::cluster::scenario::SOON, "the complaints go with the junk", || {
        let status: Status = cluster.node("n1")?.agent("/v1/status")?;
        Ok(!status.problems.iter().any(|it| it.subject.contains("junk")))
    })
}

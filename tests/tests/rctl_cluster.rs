//! `rctl` from a laptop, on a real cluster: install, look, diagnose, uninstall.
//!
//! Needs root.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use api::constant::NAMESPACE;
use tests::cluster::programs::Programs;
use tests::cluster::rampart::{AGENT, image};
use tests::cluster::{Cluster, Options, pod};
use tests::netns::Directory;
use tests::program;

const SOON: Duration = Duration::from_secs(60);
/// What must not be in a bundle.
const SECRET: &str = "hunter2-of-the-tor";

/// Runs a program where the API server is reached, without an agent of this machine.
fn run(cluster: &Cluster, program: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).env("RCTL_LAB", "none");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(cluster.spawn_in("cp", &mut command)?.wait_with_output()?)
}

fn rctl(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Output> {
    run(cluster, &program::rctl(), arguments)
}

/// Standard output of what must go well.
fn ok(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<String> {
    let output = rctl(cluster, arguments)?;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn install_look_diagnose_and_uninstall_from_afar() -> anyhow::Result<()> {
    let cluster = Cluster::up(Options::of_a_test())?;
    cluster.load_image(&image()?)?;
    nothing_is_installed(&cluster)?;
    installs(&cluster)?;
    shows_all_nodes(&cluster)?;
    names_what_is_not_permitted(&cluster)?;
    bundles_without_secrets(&cluster)?;
    tells_that_a_node_does_not_forward(&cluster)?;
    hides_nobody_when_one_node_is_silent(&cluster)?;
    uninstalls(&cluster)
}

fn nothing_is_installed(cluster: &Cluster) -> anyhow::Result<()> {
    let output = rctl(cluster, &["status"])?;
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("RC5014: no agents in namespace rampart-system"), "{output:?}");
    let output = rctl(cluster, &["--kubeconfig", "/nonexistent", "status"])?;
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("RC5010: no usable kubeconfig"), "{output:?}");
    let output = rctl(cluster, &["upgrade"])?;
    assert_eq!(output.status.code(), Some(1));
    // One's own version is known wherever one is, that of the API server where there is one.
    let alone = ok(cluster, &["--kubeconfig", "/nonexistent", "version"])?;
    assert_eq!(alone.lines().count(), 1, "{alone}");
    assert!(alone.starts_with("rctl "), "{alone}");
    let version = ok(cluster, &["version"])?;
    assert!(version.contains("\nkubernetes v1."), "{version}");
    Ok(())
}

fn names_an_image_that_is_missing(cluster: &Cluster) -> anyhow::Result<()> {
    // Nobody listens there, so the kubelets know at once.
    let image = "127.0.0.1:1/rampart";
    let set = format!("image.repository={image}");
    let output = rctl(cluster, &["install", "--timeout", "15s", "--set", &set])?;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let words = said(&output);
    // Said while it waits, and again in the end.
    assert!(words.matches("cannot be pulled on n1 (pod rampart-agent-").count() > 1, "{words}");
    for part in ["RC5018", image, "n2 (pod rampart-agent-", "ErrImagePull", "next: Import it"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let status = said(&rctl(cluster, &["status"])?);
    assert!(
        status.contains("cannot be pulled on n1") && !status.contains("describe pod ..."),
        "{status}"
    );
    Ok(())
}

fn installs(cluster: &Cluster) -> anyhow::Result<()> {
    let plan = ok(cluster, &["install", "--dry-run"])?;
    assert!(plan.contains("created    DaemonSet rampart-system/rampart-agent"), "{plan}");
    assert!(cluster.kubectl(&["get", "namespace", NAMESPACE]).is_err());
    names_an_image_that_is_missing(cluster)?;
    let done = ok(cluster, &["install", "--reset-values", "--timeout", "90s"])?;
    assert!(done.contains("Rampart runs on every node"), "{done}");
    cluster.wait_nodes_ready(SOON)?;
    let again = ok(cluster, &["install", "--dry-run"])?;
    let all = again.lines().find(|line| line.contains("unchanged")).unwrap().to_owned();
    let words: Vec<&str> = all.split_whitespace().collect();
    assert_eq!(words.get(1), words.get(3), "{again}");
    // An edit by hand is shown, and taken back.
    let patch = r#"{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":1}}}}"#;
    cluster.kubectl(&["patch", "-n", NAMESPACE, AGENT, "-p", patch])?;
    let plan = ok(cluster, &["upgrade", "--dry-run"])?;
    assert!(plan.contains("changed    DaemonSet"), "{plan}");
    assert!(plan.contains("spec.updateStrategy.rollingUpdate.maxUnavailable"), "{plan}");
    // What is set shows as what it changes, and stays set.
    let set = ["upgrade", "--set", "logging.level=debug"];
    let plan = ok(cluster, &[&set[..], &["--dry-run"]].concat())?;
    let change = "spec.template.spec.containers[agent].args: --log-level=info -> --log-level=debug";
    assert!(plan.contains("set        logging.level=debug\n") && plan.contains(change), "{plan}");
    assert!(!plan.contains("template.generation"), "{plan}");
    ok(cluster, &[&set[..], &["--timeout", "90s"]].concat())?;
    let plan = ok(cluster, &["upgrade", "--dry-run"])?;
    assert!(!plan.contains("changed    DaemonSet"), "{plan}");
    assert!(plan.contains("logging.level=debug   (kept from before)"), "{plan}");
    let plan = ok(cluster, &["upgrade", "--dry-run", "--reset-values"])?;
    assert!(plan.contains("--log-level=debug -> --log-level=info"), "{plan}");
    Ok(())
}

fn shows_all_nodes(cluster: &Cluster) -> anyhow::Result<()> {
    ok(cluster, &["doctor", "--wait", "60s"])?;
    ok(cluster, &["wait"])?;
    let status = ok(cluster, &["status"])?;
    assert!(status.contains("\nn1 ") && status.contains("\nn2 "), "{status}");
    let one = ok(cluster, &["status", "--node", "n2"])?;
    assert!(!one.contains("\nn1 ") && one.contains("\nn2 "), "{one}");
    let peers = ok(cluster, &["get", "peers"])?;
    assert_eq!(peers.matches("Established").count(), 2, "{peers}");
    let routes = ok(cluster, &["get", "routes", "--node", "n1"])?;
    assert!(routes.contains("10.244.") && routes.contains("fd00:244:"), "{routes}");
    // An address means the route that it takes.
    let prefix = routes.split_whitespace().find(|word| word.starts_with("10.244.")).unwrap();
    let address = prefix.replace("0/24", "77");
    let route = ok(cluster, &["get", "route", &address, "--node", "n1", "--no-headers"])?;
    assert!(route.lines().count() == 1 && route.contains(prefix), "{address}: {route}");
    let doctor = ok(cluster, &["doctor"])?;
    assert!(doctor.starts_with("ok   ") && doctor.contains("kube-proxy"), "{doctor}");
    let mut pods = Vec::new();
    for name in ["a", "b"] {
        pods.push(pod::manifest("default", name, Some("n1"), &["netexec", "--http-port=8080"]));
    }
    cluster.run_pods(&pods)?;
    let endpoints = ok(cluster, &["get", "endpoints"])?;
    assert!(endpoints.contains("default     a ") && endpoints.contains("yes"), "{endpoints}");
    // As a plugin of kubectl it is the same program under another name.
    let directory = Directory::new("plugin");
    let plugin = directory.join("kubectl-rampart");
    std::os::unix::fs::symlink(program::rctl(), &plugin)?;
    let programs = Programs::find(&["kubectl"])?;
    let path = format!("PATH={}", plugin.parent().unwrap().display());
    let words = [path.as_str(), programs.path("kubectl")?.to_str().unwrap(), "rampart"];
    let kubectl = |arguments: &[&str]| {
        run(cluster, Path::new("/usr/bin/env"), &[&words[..], arguments].concat())
    };
    let help = String::from_utf8(kubectl(&["get", "--help"])?.stdout)?;
    assert!(help.contains("Usage: kubectl rampart get"), "{help}");
    let status = kubectl(&["status"])?;
    assert!(status.status.success(), "{status:?}");
    Ok(())
}

fn names_what_is_not_permitted(cluster: &Cluster) -> anyhow::Result<()> {
    let account = |name: &str| format!("system:serviceaccount:{NAMESPACE}:{name}");
    let nobody = rctl(cluster, &["--as", &account("nobody"), "status"])?;
    assert_eq!(nobody.status.code(), Some(5));
    assert!(said(&nobody).contains("may not list pods in namespace rampart-system"), "{nobody:?}");
    // The role that is installed for it is enough, and grants no more than to ask.
    let binding = ["create", "rolebinding", "rctl", "-n", NAMESPACE, "--role=rampart-remote"];
    let subject = format!("--user={}", account("looker"));
    cluster.kubectl(&[&binding[..], &[&subject]].concat())?;
    let looker = rctl(cluster, &["--as", &account("looker"), "status"])?;
    assert!(looker.status.success(), "{looker:?}");
    let refused = rctl(cluster, &["--as", &account("looker"), "uninstall"])?;
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    Ok(())
}

fn bundles_without_secrets(cluster: &Cluster) -> anyhow::Result<()> {
    let secret = format!("--from-literal=password={SECRET}");
    cluster.kubectl(&["create", "secret", "generic", "tor", "-n", NAMESPACE, &secret])?;
    let token = format!("password={SECRET}");
    cluster.kubectl(&["annotate", "node", "n1", &format!("example.com/note={token}")])?;
    cluster.kubectl(&["annotate", "node", "n1", &format!("example.com/token={SECRET}")])?;
    let directory = Directory::new("bundle");
    let file = directory.join("bundle.tar.gz");
    let file = file.to_str().unwrap();
    for options in [&["--redact"][..], &[]] {
        let arguments = [&["diag", "bundle", "-o", file], options].concat();
        ok(cluster, &arguments)?;
        let out = directory.join("out");
        std::fs::create_dir_all(&out)?;
        let unpacked = Command::new("tar").args(["xzf", file, "-C"]).arg(&out).status()?;
        assert!(unpacked.success());
        // Also not in the form that the API server keeps it in.
        let encoded = cluster.kubectl(&[
            "get",
            "secret",
            "tor",
            "-n",
            NAMESPACE,
            "-o",
            "jsonpath={.data.password}",
        ])?;
        for needle in [SECRET, encoded.trim()] {
            let found = Command::new("grep").args(["-r", needle]).arg(&out).output()?;
            assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stdout));
        }
        for node in ["n1", "n2"] {
            let kernel =
                Command::new("grep").args(["-rl", "proto 82 (ours)"]).arg(&out).output()?;
            let kernel = String::from_utf8(kernel.stdout)?;
            assert!(kernel.contains(&format!("nodes/{node}/kernel.json")), "{kernel}");
        }
        let logs = Command::new("grep").args(["-rl", "agent started"]).arg(&out).output()?;
        assert!(String::from_utf8(logs.stdout)?.contains(".log"));
        std::fs::remove_dir_all(&out)?;
        std::fs::remove_file(file)?;
    }
    Ok(())
}

fn hides_nobody_when_one_node_is_silent(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl(&["label", "node", "n2", "example.com/without=agent"])?;
    let affinity = serde_json::json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{
            "matchExpressions": [{"key": "example.com/without", "operator": "DoesNotExist"}],
        }]},
    }});
    let patch = |affinity: serde_json::Value| {
        serde_json::json!({"spec": {"template": {"spec": {"affinity": affinity}}}}).to_string()
    };
    cluster.kubectl(&["patch", "-n", NAMESPACE, AGENT, "-p", &patch(affinity)])?;
    // The change replaces the agent of n1, too.
    cluster.wait_agents()?;
    cluster.eventually(SOON, "n2 has no agent", || {
        let wide = ["get", "pods", "-n", NAMESPACE, "-o", "wide", "--no-headers"];
        let pods = cluster.kubectl(&wide)?;
        Ok(!pods.contains(" n2 ") && pods.lines().count() == 1 && pods.contains("1/1"))
    })?;
    let output = rctl(cluster, &["status"])?;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8(output.stdout.clone())?.contains("\nn1 "), "{output:?}");
    assert!(said(&output).contains("RC5015: node n2 has no agent pod"), "{output:?}");
    let output = rctl(cluster, &["get", "nodes"])?;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8(output.stdout)?.contains("\nn2 "));
    let output = rctl(cluster, &["uninstall", "--yes"])?;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(said(&output).contains("1 nodes cannot be cleaned"), "{output:?}");
    let n1 = cluster.node("n1")?.exec(&["nft", "list", "tables"])?;
    assert!(n1.contains("inet rampart"), "nothing may be done by halves: {n1}");
    Ok(())
}

fn tells_that_a_node_does_not_forward(cluster: &Cluster) -> anyhow::Result<()> {
    let node = cluster.node("n1")?;
    for (value, wrong) in [("0", true), ("1", false)] {
        node.exec(&["sysctl", "-w", &format!("net.ipv4.ip_forward={value}")])?;
        cluster.eventually(SOON, "the status tells whether the node forwards", || {
            let status = String::from_utf8(rctl(cluster, &["status"])?.stdout)?;
            Ok(status.contains("RC3003 host: net.ipv4.ip_forward is 0") == wrong)
        })?;
    }
    Ok(())
}

fn uninstalls(cluster: &Cluster) -> anyhow::Result<()> {
    let plan = rctl(cluster, &["uninstall"])?;
    assert_eq!(plan.status.code(), Some(2));
    assert!(String::from_utf8(plan.stdout)?.contains("Pods keep running"));
    let restarts = |cluster: &Cluster| cluster.kubectl(&["get", "pods", "a", "b"]);
    assert!(restarts(cluster)?.contains("Running"));
    let (a, b) = (cluster.pod("default", "a")?, cluster.pod("default", "b")?);
    // n2 has no agent, and is cleaned all the same.
    let done = ok(cluster, &["uninstall", "--yes", "--force"])?;
    let (_, n2) = done.split_once("node n2:\n").unwrap();
    assert!(n2.contains("removed  table inet rampart"), "{done}");
    for node in cluster.nodes() {
        let name = &node.record().name;
        let tables = node.exec(&["nft", "list", "tables"])?;
        assert!(!tables.contains("rampart"), "{name}: {tables}");
        for family in ["-4", "-6"] {
            let routes = node.exec(&["ip", family, "route", "show", "proto", "82"])?;
            assert_eq!(routes, "", "{name}");
        }
        assert!(!node.exec(&["ip", "link"])?.contains("rampart-vxlan"));
        let directories = ["/etc/cni/net.d", "/opt/cni/bin", "/var/lib", "/run"];
        let depth = ["-maxdepth", "1", "-name", "*rampart*"];
        let files = node.exec(&[&["find"], &directories[..], &depth].concat())?;
        assert_eq!(files, "", "{name}");
    }
    let kinds = "crd,namespace,clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding";
    let left = cluster.kubectl(&["get", kinds, "-o", "name"])?;
    assert!(!left.contains("rampart"), "{left}");
    // Pods that were there run on and reach each other on their node.
    cluster.assert_reaches(&a, &b)?;
    cluster.assert_reaches(&b, &a)?;
    let pods = restarts(cluster)?;
    assert_eq!(pods.matches("Running").count(), 2, "{pods}");
    let again = rctl(cluster, &["uninstall", "--yes"])?;
    assert!(again.status.success(), "{again:?}");
    Ok(())
}

//! The generated manifests as the tools of their users read them: kustomize, helm, promtool.
//!
//! Needs no root. `helm` and `kubectl` are built from their Go modules where they are missing.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::cluster::programs::Programs;

/// Kind, namespace and name.
type Name = (String, String, String);
type Objects = BTreeMap<Name, Value>;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?}: {complaint}");
    Ok(String::from_utf8(output.stdout)?)
}

fn objects(text: &str) -> Objects {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let mut found = Objects::new();
    for object in documents.into_iter().filter(|document| !document.is_null()) {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or("").to_owned();
        let name = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        assert!(found.insert(name.clone(), object).is_none(), "{name:?} is there twice");
    }
    found
}

fn committed(path: &str) -> Objects {
    objects(&std::fs::read_to_string(deploy(path)).unwrap())
}

fn kustomize(directory: &str) -> anyhow::Result<Objects> {
    let programs = Programs::find(&["kubectl"])?;
    let mut command = Command::new(programs.path("kubectl")?);
    Ok(objects(&run(command.arg("kustomize").arg(deploy(directory)))?))
}

fn helm(arguments: &[&str], chart: &str) -> anyhow::Result<String> {
    let programs = Programs::find(&["helm"])?;
    let mut command = Command::new(programs.path("helm")?);
    run(command.args(arguments).arg(deploy(chart)))
}

/// Both charts, rendered with values.
fn charts(values: &[&str]) -> anyhow::Result<Objects> {
    // A helm built without the release's flags takes the cluster for one of long ago.
    let version = ["--kube-version", "1.36.0"];
    let template = ["template", "rampart", "--namespace", "rampart-system"];
    let template = [&template[..], &version[..]].concat();
    let mut found = objects(&helm(&template, "chart/rampart-crds")?);
    for crd in found.values_mut() {
        // All that the chart's CRDs have more.
        let kept = json!({ "helm.sh/resource-policy": "keep" });
        assert_eq!(crd["metadata"].as_object_mut().unwrap().remove("annotations"), Some(kept));
    }
    found.extend(objects(&helm(&[&template[..], values].concat(), "chart/rampart")?));
    Ok(found)
}

/// Fails with what differs, not with two pages of JSON.
fn assert_same(found: &Objects, expected: &Objects) {
    let mut report = String::new();
    for name in found.keys().chain(expected.keys()) {
        match (found.get(name), expected.get(name)) {
            (Some(found), Some(expected)) if found == expected => {}
            (found, expected) => {
                writeln!(report, "{name:?}\n found    {found:?}\n expected {expected:?}").unwrap();
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}

fn agent(objects: &Objects) -> &Value {
    let name = ("DaemonSet", "rampart-system", "rampart-agent");
    &objects[&(name.0.to_owned(), name.1.to_owned(), name.2.to_owned())]["spec"]["template"]["spec"]
}

fn args(pod: &Value) -> Vec<&str> {
    pod["containers"][0]["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

fn variable<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    let env = pod["containers"][0]["env"].as_array().unwrap();
    env.iter().find(|variable| variable["name"] == name)
}

fn host_path<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let volumes = pod["volumes"].as_array().unwrap();
    &volumes.iter().find(|volume| volume["name"] == name).unwrap()["hostPath"]["path"]
}

#[test]
fn the_kustomize_base_and_the_overlay_for_kubeadm_are_install_yaml() -> anyhow::Result<()> {
    assert_same(&kustomize("manifests")?, &committed("install.yaml"));
    assert_same(&kustomize("overlays/kubeadm")?, &committed("install.yaml"));
    Ok(())
}

#[test]
fn the_overlay_for_k3s_changes_nothing_but_its_two_directories() -> anyhow::Result<()> {
    let mut found = kustomize("overlays/k3s")?;
    assert_eq!(host_path(agent(&found), "cni-bin"), "/var/lib/rancher/k3s/data/cni");
    assert_eq!(host_path(agent(&found), "cni-conf"), "/var/lib/rancher/k3s/agent/etc/cni/net.d");
    let mut expected = committed("install.yaml");
    for objects in [&mut found, &mut expected] {
        for (_, object) in objects.iter_mut().filter(|((kind, ..), _)| kind == "DaemonSet") {
            let volumes = object["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap();
            volumes.sort_by_key(|volume| volume["name"].to_string());
            for volume in volumes.iter_mut().filter(|v| v["name"].to_string().contains("cni-")) {
                volume["hostPath"]["path"].take();
            }
        }
    }
    assert_same(&found, &expected);
    Ok(())
}

#[test]
fn the_overlay_for_talos_reaches_the_api_server_by_kubeprism() -> anyhow::Result<()> {
    let mut found = kustomize("overlays/talos")?;
    let pod = agent(&found);
    assert_eq!(variable(pod, "KUBERNETES_SERVICE_HOST").unwrap()["value"], "localhost");
    assert_eq!(variable(pod, "KUBERNETES_SERVICE_PORT").unwrap()["value"], "7445");
    for (_, object) in found.iter_mut().filter(|((kind, ..), _)| kind == "DaemonSet") {
        let containers = &mut object["spec"]["template"]["spec"]["containers"];
        let env = containers[0]["env"].as_array_mut().unwrap();
        env.retain(|variable| !variable["name"].to_string().contains("KUBERNETES_SERVICE"));
    }
    assert_same(&found, &committed("install.yaml"));
    Ok(())
}

#[test]
fn the_components_add_reflectors_and_metrics_that_prometheus_can_reach() -> anyhow::Result<()> {
    let directory = tests_directory("components");
    let all = deploy("").canonicalize()?;
    std::fs::write(
        directory.join("kustomization.yaml"),
        json!({
            "resources": [relative(&directory, &all.join("overlays/talos"))],
            "components": [
                relative(&directory, &all.join("components/route-reflector")),
                relative(&directory, &all.join("components/monitoring")),
            ],
        })
        .to_string(),
    )?;
    let programs = Programs::find(&["kubectl"])?;
    let mut command = Command::new(programs.path("kubectl")?);
    let found = objects(&run(command.arg("kustomize").arg(&directory))?);
    std::fs::remove_dir_all(&directory)?;
    for (name, object) in &committed("route-reflector.yaml") {
        assert_eq!(found.get(name), Some(object));
    }
    let pod = agent(&found);
    assert!(args(pod).contains(&"--metrics-address=$(HOST_IP):9472"));
    let host = &variable(pod, "HOST_IP").unwrap()["valueFrom"]["fieldRef"]["fieldPath"];
    assert_eq!(host, "status.hostIP");
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert!(pod["containers"][0][probe]["httpGet"].get("host").is_none(), "{probe}");
    }
    for kind in ["PodMonitor", "PrometheusRule", "ConfigMap"] {
        assert!(found.keys().any(|(found, ..)| found == kind), "{kind}");
    }
    Ok(())
}

#[test]
fn the_charts_with_their_defaults_are_install_yaml() -> anyhow::Result<()> {
    let mut expected = committed("install.yaml");
    // Helm makes the namespace itself.
    expected.retain(|(kind, ..), _| kind != "Namespace");
    assert_same(&charts(&[])?, &expected);
    expected.extend(committed("route-reflector.yaml"));
    assert_same(&charts(&["--set", "routeReflector.enabled=true"])?, &expected);
    Ok(())
}

#[test]
fn the_chart_with_monitoring_is_the_component_for_it() -> anyhow::Result<()> {
    let found = charts(&[
        "--set=metrics.host=$(HOST_IP)",
        "--set=metrics.podMonitor.enabled=true",
        "--set=metrics.prometheusRule.enabled=true",
        "--set=dashboards.enabled=true",
    ])?;
    for file in ["pod-monitor.yaml", "prometheus-rule.yaml", "dashboards.yaml"] {
        for (name, object) in &committed(&format!("components/monitoring/{file}")) {
            let found = found.get(name).with_context(|| format!("{name:?}"))?;
            assert_eq!(found, object, "{name:?}");
        }
    }
    assert!(args(agent(&found)).contains(&"--metrics-address=$(HOST_IP):9472"));
    assert!(variable(agent(&found), "HOST_IP").is_some());
    Ok(())
}

#[test]
fn every_value_of_the_chart_arrives() -> anyhow::Result<()> {
    let found = charts(&[
        "--set=image.repository=registry.example/net/rampart",
        "--set=image.tag=v7",
        "--set=imagePullSecrets[0].name=pull",
        "--set=commonLabels.team=network",
        "--set=kubernetesServiceEndpoint.host=fd00::1",
        "--set=kubernetesServiceEndpoint.port=7445",
        "--set=cni.binDir=/usr/libexec/cni",
        "--set=cni.confDir=/run/cni",
        "--set=agent.extraEnv[0].name=X,agent.extraEnv[0].value=y",
        "--set=agent.podAnnotations.note=here",
        "--set=metrics.port=9999",
        "--set=logging.level=debug,logging.format=json",
        "--set=routeReflector.enabled=true,routeReflector.replicas=3",
        "--set=routeReflector.pdb.maxUnavailable=2",
        "--set=bgp.asn=4200000001,bgp.nodeMesh=false,bgp.listenPort=1179",
        "--set=bgp.clusterCIDRs={10.244.0.0/16,fd00:244::/56}",
        "--set=bgp.peers[0].name=tor,bgp.peers[0].spec.peerAddress=192.0.2.1,bgp.peers[0].spec.peerASN=65001",
        "--set=network.mtu=9000,network.overlay.mode=VXLANCrossSubnet",
        "--set=network.pools[0].cidr=10.244.0.0/16,network.pools[0].natOutgoing=Disabled",
    ])?;
    let pod = agent(&found);
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "registry.example/net/rampart:v7");
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "pull" }]));
    assert_eq!(variable(pod, "KUBERNETES_SERVICE_HOST").unwrap()["value"], "fd00::1");
    assert_eq!(variable(pod, "KUBERNETES_SERVICE_PORT").unwrap()["value"], "7445");
    assert_eq!(variable(pod, "X").unwrap()["value"], "y");
    assert_eq!(host_path(pod, "cni-bin"), "/usr/libexec/cni");
    assert_eq!(host_path(pod, "cni-conf"), "/run/cni");
    for argument in ["--metrics-address=127.0.0.1:9999", "--log-level=debug", "--log-format=json"] {
        assert!(args(pod).contains(&argument), "{argument}");
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], 9999);
    }
    assert_eq!(container["ports"][0]["hostPort"], 9999);
    for ((kind, _, name), object) in &found {
        let labels = &object["metadata"]["labels"];
        assert!(kind == "CustomResourceDefinition" || labels["team"] == "network", "{kind} {name}");
    }
    let of = |kind: &str, name: &str| {
        let key = found.keys().find(|(k, _, n)| k == kind && n == name);
        found[key.unwrap_or_else(|| panic!("{kind} {name}"))]["spec"].clone()
    };
    assert_eq!(of("Deployment", "rampart-route-reflector")["replicas"], 3);
    assert_eq!(of("PodDisruptionBudget", "rampart-route-reflector")["maxUnavailable"], 2);
    let (cidrs, asn) = (json!(["10.244.0.0/16", "fd00:244::/56"]), 4_200_000_001_u32);
    let expected =
        json!({ "asn": asn, "nodeMesh": false, "listenPort": 1179, "clusterCIDRs": cidrs });
    assert_eq!(of("BGPConfiguration", "default"), expected);
    assert_eq!(of("BGPPeer", "tor"), json!({ "peerAddress": "192.0.2.1", "peerASN": 65001 }));
    let pools = json!([{ "cidr": "10.244.0.0/16", "natOutgoing": "Disabled" }]);
    let overlay = json!({ "mode": "VXLANCrossSubnet" });
    let expected = json!({ "pools": pools, "overlay": overlay, "mtu": 9000 });
    assert_eq!(of("NetworkConfiguration", "default"), expected);

    let bare = charts(&["--set=cni.install=false"])?;
    assert!(!args(agent(&bare)).iter().any(|argument| argument.starts_with("--cni-")));
    assert!(!agent(&bare).to_string().contains("/etc/cni"));
    Ok(())
}

#[test]
fn the_chart_refuses_values_that_it_does_not_have_or_that_cannot_be() {
    for wrong in [
        "cni.instal=true",
        "cni.install=maybe",
        "cni.binDir=opt/cni/bin",
        "metrics.port=0",
        "image.digest=sha256:12",
        "bgp.asn=0",
        "network.mtu=1000",
        "routeReflector.replicas=0",
        "bgp.peers[0].name=x",
    ] {
        let error = charts(&["--set", wrong]).expect_err(wrong).to_string();
        assert!(error.contains("schema"), "{wrong}: {error}");
    }
}

#[test]
fn helm_finds_no_fault_with_the_charts() -> anyhow::Result<()> {
    for chart in ["chart/rampart", "chart/rampart-crds"] {
        helm(&["lint", "--strict", "--quiet"], chart)?;
    }
    Ok(())
}

#[test]
fn promtool_takes_the_rules_and_they_fire_when_they_should() -> anyhow::Result<()> {
    run(Command::new("promtool").args(["check", "rules"]).arg(deploy("monitoring/rules.yaml")))?;
    run(Command::new("promtool")
        .args(["test", "rules"])
        .arg(deploy("monitoring/rules_test.yaml")))?;
    Ok(())
}

#[test]
fn prometheus_understands_every_query_of_the_dashboards() -> anyhow::Result<()> {
    let mut rules = Vec::new();
    for file in std::fs::read_dir(deploy("monitoring/dashboards"))? {
        let board: Value = serde_json::from_slice(&std::fs::read(file?.path())?)?;
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
                rules.push(json!({ "record": format!("query:{}", rules.len()), "expr": query }));
            }
        }
    }
    assert!(rules.len() > 40, "{}", rules.len());
    let directory = tests_directory("queries");
    let path = directory.join("rules.yaml");
    std::fs::write(&path, json!({ "groups": [{ "name": "boards", "rules": rules }] }).to_string())?;
    run(Command::new("promtool").args(["check", "rules"]).arg(&path))?;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

fn tests_directory(name: &str) -> PathBuf {
    let directory =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory.canonicalize().unwrap()
}

/// kustomize takes no absolute paths.
fn relative(from: &Path, to: &Path) -> String {
    format!(
        "{}{}",
        "../".repeat(from.components().count() - 1),
        to.strip_prefix("/").unwrap().display()
    )
}

//! The Helm charts: the same objects, with the places that values fill in.
//!
//! `Chart.yaml` and the templates of objects are made here from the objects of `install.yaml`, so
//! that a chart cannot have another rule or argument. Values, schema, helpers, notes and templates
//! of settings are files of their own beside them.

use anyhow::Context as _;
use api::constant::{METRICS_ADDRESS, NAMESPACE, REFLECTOR_METRICS_ADDRESS};
use serde_json::{Value, json};

use crate::document::{self, Document};
use crate::{Generated, admission, agent, crds, install, reflector};

/// Generated files of both charts.
pub(crate) fn files() -> anyhow::Result<Vec<Generated>> {
    let main = "BGP and NetworkPolicy for the nodes of a Kubernetes cluster";
    let kinds = "The kinds of Rampart: a chart of their own, so that helm upgrade upgrades them";
    let file = |path, content| Generated { path, content };
    Ok(vec![
        file("chart/rampart-crds/Chart.yaml", chart_yaml("rampart-crds", kinds)?),
        file("chart/rampart-crds/templates/crds.yaml", crds_template()?),
        file("chart/rampart/Chart.yaml", chart_yaml("rampart", main)?),
        file("chart/rampart/templates/rbac.yaml", template(install::rbac()?)?),
        file("chart/rampart/templates/admission.yaml", template(admission::documents()?)?),
        file("chart/rampart/templates/agent.yaml", agent_template()?),
        file("chart/rampart/templates/route-reflector.yaml", reflector_template()?),
    ])
}

fn chart_yaml(name: &str, description: &str) -> anyhow::Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    document::yaml(&[Document::plain(json!({
        "apiVersion": "v2",
        "name": name,
        "description": description,
        "type": "application",
        "version": version,
        "appVersion": version,
        "kubeVersion": ">=1.33.0-0",
        "home": env!("CARGO_PKG_REPOSITORY"),
    }))])
}

/// Deleting a CRD deletes all objects of its kind: `helm uninstall` leaves it.
fn crds_template() -> anyhow::Result<String> {
    let mut documents = crds::documents()?;
    for document in &mut documents {
        let kept = json!({ "helm.sh/resource-policy": "keep" });
        place(&mut document.object, "/metadata/annotations", kept)?;
    }
    document::yaml(&documents)
}

fn agent_template() -> anyhow::Result<String> {
    let mut filled = Filled::default();
    let mut documents = agent::documents()?;
    let when = |text: &str| format!("{{{{- if .Values.cni.install }}}}\n{text}\n{{{{- end }}}}");
    for document in &mut documents {
        let object = &mut document.object;
        filled.workload(object, METRICS_ADDRESS, ".Values.agent", ".Values.metrics.port")?;
        for flag in ["--cni-bin-dir=", "--cni-conf-dir="] {
            let (at, value) = argument(object, flag)?;
            filled.line(object, &at, when(&format!("- {value}")))?;
        }
        for (name, value) in [("cni-bin", "binDir"), ("cni-conf", "confDir")] {
            let (at, mount) = named(object, &format!("{CONTAINER}/volumeMounts"), name)?;
            let path = mount.get("mountPath").and_then(Value::as_str).unwrap_or_default();
            let mount = format!("- mountPath: {path}\n  name: {name}");
            filled.line(object, &at, when(&mount))?;
            let (at, _) = named(object, &format!("{POD}/volumes"), name)?;
            let volume = format!(
                "- hostPath:\n    path: {{{{ .Values.cni.{value} }}}}\n    \
                 type: DirectoryOrCreate\n  name: {name}"
            );
            filled.line(object, &at, when(&volume))?;
        }
    }
    filled.print(documents)
}

fn reflector_template() -> anyhow::Result<String> {
    let mut filled = Filled::default();
    let mut documents = reflector::documents()?;
    for document in &mut documents {
        let object = &mut document.object;
        match object.get("kind").and_then(Value::as_str) {
            Some("Deployment") => {
                let values = ".Values.routeReflector";
                let port = ".Values.metrics.routeReflectorPort";
                filled.workload(object, REFLECTOR_METRICS_ADDRESS, values, port)?;
                filled.value(object, "/spec/replicas", "{{ .Values.routeReflector.replicas }}")?;
            }
            Some("PodDisruptionBudget") => {
                let value = "{{ .Values.routeReflector.pdb.maxUnavailable }}";
                filled.value(object, "/spec/maxUnavailable", value)?;
            }
            _ => {}
        }
    }
    let text = filled.print(documents)?;
    Ok(format!("{{{{- if .Values.routeReflector.enabled }}}}\n{text}{{{{- end }}}}\n"))
}

fn template(documents: Vec<Document>) -> anyhow::Result<String> {
    Filled::default().print(documents)
}

/// Where a workload has its pod, and the pod its container.
const POD: &str = "/spec/template/spec";
const CONTAINER: &str = "/spec/template/spec/containers/0";

/// Places in objects that a value fills in. Until the objects are printed each is a marker.
#[derive(Debug, Default)]
struct Filled {
    values: Vec<(String, String)>,
    lines: Vec<(String, String)>,
}

impl Filled {
    fn marker(&self) -> String {
        format!("FILLED-{}-IN", self.values.len() + self.lines.len())
    }

    /// The value at the place becomes the text.
    fn value(
        &mut self,
        object: &mut Value,
        at: &str,
        text: impl Into<String>,
    ) -> anyhow::Result<()> {
        let marker = self.marker();
        place(object, at, Value::from(marker.clone()))?;
        self.values.push((marker, text.into()));
        Ok(())
    }

    /// The key or element at the place, with its value, becomes these lines.
    fn line(
        &mut self,
        object: &mut Value,
        at: &str,
        lines: impl Into<String>,
    ) -> anyhow::Result<()> {
        let marker = self.marker();
        place(object, at, Value::from(marker.clone()))?;
        self.lines.push((marker, lines.into()));
        Ok(())
    }

    /// What both workloads have.
    fn workload(
        &mut self,
        object: &mut Value,
        metrics_address: &str,
        values: &str,
        port: &str,
    ) -> anyhow::Result<()> {
        let port_value = format!("{{{{ {port} }}}}");
        let container = |field: &str| format!("{CONTAINER}/{field}");
        self.value(object, &container("image"), "{{ include \"rampart.image\" . }}")?;
        self.value(object, &container("imagePullPolicy"), "{{ .Values.image.pullPolicy }}")?;
        for (flag, value) in [
            ("--metrics-address=", format!("{{{{ .Values.metrics.host }}}}:{port_value}")),
            ("--log-format=", "{{ .Values.logging.format }}".to_owned()),
            ("--log-level=", "{{ .Values.logging.level }}".to_owned()),
        ] {
            let (at, _) = argument(object, flag)?;
            self.value(object, &at, format!("{flag}{value}"))?;
        }
        let (at, _) = named(object, &container("ports"), "metrics")?;
        self.value(object, &format!("{at}/containerPort"), port_value.as_str())?;
        self.value(object, &format!("{at}/hostPort"), port_value.as_str())?;
        let host = metrics_address.rsplit_once(':').map_or(metrics_address, |(host, _)| host);
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let get = container(&format!("{probe}/httpGet"));
            self.value(object, &format!("{get}/port"), port_value.as_str())?;
            let condition = format!("{{{{- if eq .Values.metrics.host \"{host}\" }}}}");
            let line = format!("{condition}\nhost: \"{host}\"\n{{{{- end }}}}");
            self.line(object, &format!("{get}/host"), line)?;
        }
        let environment = format!(
            "{{{{- include \"rampart.env\" (dict \"root\" . \"extra\" {values}.extraEnv) | nindent 8 }}}}"
        );
        self.line(object, &container("env/-"), environment)?;
        self.map(object, &container("resources"), &format!("{values}.resources"), 10)?;
        self.map(object, &format!("{POD}/nodeSelector"), &format!("{values}.nodeSelector"), 8)?;
        self.map(object, &format!("{POD}/tolerations"), &format!("{values}.tolerations"), 6)?;
        self.map(object, &format!("{POD}/imagePullSecrets"), ".Values.imagePullSecrets", 8)?;
        let annotations = "/spec/template/metadata/annotations";
        self.map(object, annotations, &format!("{values}.podAnnotations"), 8)?;
        let class = format!("{{{{ {values}.priorityClassName }}}}");
        self.value(object, &format!("{POD}/priorityClassName"), class)
    }

    /// The value at the place becomes that of the chart's value, if it has one.
    fn map(&mut self, object: &mut Value, at: &str, value: &str, indent: u8) -> anyhow::Result<()> {
        let key = at.rsplit('/').next().unwrap_or_default();
        let yaml = format!("{{{{- toYaml . | nindent {indent} }}}}");
        let lines = format!("{{{{- with {value} }}}}\n{key}:\n  {yaml}\n{{{{- end }}}}");
        self.line(object, at, lines)
    }

    /// The template.
    fn print(self, mut documents: Vec<Document>) -> anyhow::Result<String> {
        for document in &mut documents {
            for line in &mut document.comment {
                anyhow::ensure!(!line.contains("{{"), "a comment looks like a template: {line}");
            }
        }
        let text = document::yaml(&documents)?;
        anyhow::ensure!(!text.contains("{{"), "a manifest looks like a template");
        let labels = "  labels:\n    app.kubernetes.io/name: rampart\n";
        let more = format!("{labels}    {{{{- include \"rampart.labels\" . }}}}\n");
        let mut text = text
            .replace(NAMESPACE, "{{ .Release.Namespace }}")
            .replace(&format!("\n{labels}"), &format!("\n{more}"));
        for (marker, value) in &self.values {
            text = text.replace(marker, value);
        }
        for (marker, lines) in &self.lines {
            let line = text.lines().find(|line| line.contains(marker));
            let line = line.with_context(|| format!("{marker} is not printed"))?.to_owned();
            let indent = line.chars().take_while(|&c| c == ' ').collect::<String>();
            let indented: Vec<String> = lines.lines().map(|l| format!("{indent}{l}")).collect();
            text = text.replace(&line, &indented.join("\n"));
        }
        Ok(text)
    }
}

/// Sets what is at a JSON pointer; the parent must be there. `-` appends to an array.
fn place(object: &mut Value, at: &str, value: Value) -> anyhow::Result<()> {
    let (parent, key) = at.rsplit_once('/').with_context(|| format!("{at} is no pointer"))?;
    match object.pointer_mut(parent).with_context(|| format!("the object has no {parent}"))? {
        Value::Object(fields) => {
            fields.insert(key.to_owned(), value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let index: usize =
                key.parse().with_context(|| format!("{at} is no place in a list"))?;
            *items.get_mut(index).with_context(|| format!("{at} is not there"))? = value;
        }
        _ => anyhow::bail!("{parent} holds nothing"),
    }
    Ok(())
}

/// Where the argument is that begins so, and what it is.
fn argument(object: &Value, flag: &str) -> anyhow::Result<(String, String)> {
    let list = format!("{CONTAINER}/args");
    let args = object.pointer(&list).and_then(Value::as_array).context("no arguments")?;
    let found = args.iter().enumerate().find_map(|(index, arg)| {
        let arg = arg.as_str().filter(|arg| arg.starts_with(flag))?;
        Some((format!("{list}/{index}"), arg.to_owned()))
    });
    found.with_context(|| format!("no argument {flag}"))
}

/// Where the element of that name is, and what it is.
fn named(object: &Value, list: &str, name: &str) -> anyhow::Result<(String, Value)> {
    let items = object.pointer(list).and_then(Value::as_array);
    let items = items.with_context(|| format!("no {list}"))?;
    let found = items.iter().enumerate().find(|(_, item)| item.get("name") == Some(&json!(name)));
    let (index, item) = found.with_context(|| format!("no {name} in {list}"))?;
    Ok((format!("{list}/{index}"), item.clone()))
}

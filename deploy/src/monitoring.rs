//! What Prometheus scrapes, what it alerts on, and what Grafana shows.
//!
//! Every metric is named by its constant: one that is renamed or removed does not build here.

mod alerts;
mod boards;
mod dashboard;

use api::constant::{COMPONENT_LABEL, NAMESPACE};
use api::metric::{Metric, Type};
use serde_json::{Value, json};

use crate::Generated;
use crate::document::{self, Document};
use crate::kustomize;
use crate::name;

/// Name of the objects.
const NAME: &str = "rampart";

/// Files for clusters with and without the Prometheus operator, and for the chart.
pub(crate) fn files() -> anyhow::Result<Vec<Generated>> {
    let groups = alerts::groups();
    let rules = document::yaml(&[Document::plain(groups.clone()).comment(
        "\
Alerts of Rampart for a Prometheus without operator. Give the scrape job a label `node`, the name of the
node, as deploy/components/monitoring does.",
    )])?;
    let mut files = vec![
        Generated { path: "monitoring/rules.yaml", content: rules.clone() },
        Generated { path: "chart/rampart/files/rules.yaml", content: rules },
        Generated {
            path: "chart/rampart/files/pod-monitor.yaml",
            content: document::yaml(&[Document::plain(pod_monitor_spec())])?,
        },
    ];
    let boards = boards::all();
    let mut config_maps = Vec::new();
    for board in &boards {
        let text = format!("{:#}\n", board.json());
        config_maps.push(config_map(board.name, &text));
        files.push(Generated { path: board.path, content: text.clone() });
        files.push(Generated { path: board.chart_path, content: text });
    }
    let operator = |kind: &str, spec: Value| {
        Document::plain(json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": kind,
            "metadata": name::own(NAME),
            "spec": spec,
        }))
    };
    let resources = ["pod-monitor.yaml", "prometheus-rule.yaml", "dashboards.yaml"];
    for (path, documents) in [
        ("components/monitoring/kustomization.yaml", vec![kustomize::monitoring(&resources)]),
        (
            "components/monitoring/pod-monitor.yaml",
            vec![operator("PodMonitor", pod_monitor_spec())],
        ),
        ("components/monitoring/prometheus-rule.yaml", vec![operator("PrometheusRule", groups)]),
        ("components/monitoring/dashboards.yaml", config_maps),
    ] {
        files.push(Generated { path, content: document::yaml(&documents)? });
    }
    Ok(files)
}

/// Agents and reflectors; the label `node` is what alerts and boards go by.
fn pod_monitor_spec() -> Value {
    json!({
        "selector": { "matchExpressions": [{ "key": COMPONENT_LABEL, "operator": "Exists" }],
                      "matchLabels": { "app.kubernetes.io/name": "rampart" } },
        "podMetricsEndpoints": [{
            "port": "metrics",
            "interval": "15s",
            "relabelings": [{ "sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node" }],
        }],
    })
}

/// A board where Grafana's sidecar looks for it.
fn config_map(name: &str, board: &str) -> Document {
    Document::plain(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": format!("rampart-dashboard-{name}"),
            "namespace": NAMESPACE,
            "labels": { "app.kubernetes.io/name": "rampart", "grafana_dashboard": "1" },
        },
        "data": { format!("{name}.json"): board },
    }))
}

/// The metric as PromQL names it.
fn series(metric: Metric) -> String {
    match metric.kind {
        Type::Gauge => metric.name.to_owned(),
        Type::Counter => format!("{}_total", metric.name),
        Type::Histogram => format!("{}_bucket", metric.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::metric::METRICS;

    /// Names and labels that a query may use: those of our metrics.
    #[test]
    fn rules_and_boards_use_no_metric_that_the_agent_does_not_have() {
        let known: Vec<String> = METRICS.iter().map(|metric| series(*metric)).collect();
        let mut queries = 0;
        for file in files().unwrap() {
            let words = file.content.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|w| w.starts_with("rampart_") || w.starts_with("process_")) {
                assert!(known.iter().any(|name| name == word), "{}: {word}", file.path);
                queries += 1;
            }
        }
        assert!(queries > 100, "{queries}");
    }
}

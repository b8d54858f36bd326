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

    /// Whole words of a text that begin so.
    fn words<'a>(text: &'a str, prefixes: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
    }

    #[test]
    fn rules_and_boards_use_no_metric_that_the_agent_does_not_have() {
        let known: Vec<String> = METRICS.iter().map(|metric| series(*metric)).collect();
        let mut queries = 0;
        for file in files().unwrap() {
            for word in words(&file.content, &["rampart_", "process_"]) {
                assert!(known.iter().any(|name| name == word), "{}: {word}", file.path);
                queries += 1;
            }
        }
        assert!(queries > 100, "{queries}");
    }

    #[test]
    fn legends_and_summaries_use_no_label_that_their_metrics_do_not_have() {
        let mut used = 0;
        let mut check = |query: &str, text: &str| {
            let of = |metric: &&Metric| {
                words(query, &["rampart_", "process_"]).any(|w| w == series(**metric))
            };
            let labels: Vec<&str> =
                METRICS.iter().filter(of).flat_map(|metric| metric.labels).copied().collect();
            for place in text.split("{{").skip(1) {
                let (place, _) = place.split_once("}}").unwrap();
                let label = place.trim().trim_start_matches("$labels.");
                if !label.starts_with("$value") {
                    assert!(label == "node" || labels.contains(&label), "{query}: {label}");
                    used += 1;
                }
            }
        };
        for board in boards::all() {
            for (query, legend) in board.rows.iter().flatten().flat_map(|panel| &panel.queries) {
                check(query, legend);
            }
        }
        for group in alerts::groups()["groups"].as_array().unwrap() {
            for rule in group["rules"].as_array().unwrap() {
                for text in ["summary", "description"] {
                    let text = rule["annotations"][text].as_str().unwrap();
                    check(rule["expr"].as_str().unwrap(), text);
                }
            }
        }
        assert!(used > 50, "{used}");
    }
}

//! Grafana boards: rows of panels, and the JSON that Grafana reads.

use serde_json::{Value, json};

/// A board.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) name: &'static str,
    /// Where it is printed, below `deploy/`.
    pub(super) path: &'static str,
    pub(super) chart_path: &'static str,
    pub(super) title: &'static str,
    /// Query for the values of `$node`, and of `$peer` where the board has one.
    pub(super) node: String,
    pub(super) peer: Option<String>,
    pub(super) rows: Vec<Vec<Panel>>,
}

/// A panel.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    pub(super) shape: Shape,
    /// Unit as Grafana names it.
    pub(super) unit: &'static str,
    /// PromQL and legend.
    pub(super) queries: Vec<(String, &'static str)>,
}

/// How a panel shows its queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Lines over time.
    Lines,
    /// One number.
    Number,
    /// 0 and 1 over time, one row for each series.
    States,
}

/// Columns of Grafana's grid.
const COLUMNS: usize = 24;

impl Board {
    /// As Grafana imports it.
    pub(super) fn json(&self) -> Value {
        let mut panels = Vec::new();
        let mut y = 0;
        for row in &self.rows {
            let width = COLUMNS / row.len().max(1);
            let height = if row.iter().all(|panel| panel.shape == Shape::Number) { 4 } else { 8 };
            for (index, panel) in row.iter().enumerate() {
                let id = panels.len() + 1;
                panels.push(panel.json(id, [index * width, y, width, height]));
            }
            y += height;
        }
        let mut variables = vec![
            json!({ "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus" }),
            variable("node", "Node", &self.node),
        ];
        variables.extend(self.peer.as_ref().map(|query| variable("peer", "Peer", query)));
        json!({
            "uid": format!("rampart-{}", self.name),
            "title": self.title,
            "tags": ["rampart"],
            "schemaVersion": 39,
            "editable": true,
            "refresh": "30s",
            "time": { "from": "now-1h", "to": "now" },
            "templating": { "list": variables },
            "panels": panels,
        })
    }
}

fn variable(name: &str, label: &str, query: &str) -> Value {
    json!({
        "name": name,
        "label": label,
        "type": "query",
        "datasource": source(),
        "query": { "query": query, "refId": name },
        "refresh": 2,
        "multi": true,
        "includeAll": true,
        "allValue": ".*",
        "current": { "text": "All", "value": "$__all" },
        "sort": 1,
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

impl Panel {
    fn json(&self, id: usize, [x, y, w, h]: [usize; 4]) -> Value {
        let kind = match self.shape {
            Shape::Lines => "timeseries",
            Shape::Number => "stat",
            Shape::States => "state-timeline",
        };
        let targets: Vec<Value> = self
            .queries
            .iter()
            .zip('A'..='Z')
            .map(|((expression, legend), id)| {
                json!({
                    "refId": id.to_string(),
                    "datasource": source(),
                    "expr": expression,
                    "legendFormat": legend,
                    "instant": self.shape == Shape::Number,
                    "range": self.shape != Shape::Number,
                })
            })
            .collect();
        let mut defaults = json!({ "unit": self.unit, "min": 0 });
        if self.shape == Shape::States
            && let Value::Object(defaults) = &mut defaults
        {
            let state = |text: &str, color: &str| json!({ "text": text, "color": color });
            defaults.insert(
                "mappings".to_owned(),
                json!([{ "type": "value", "options": { "0": state("down", "red"), "1": state("up", "green") } }]),
            );
        }
        json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": source(),
            "gridPos": { "x": x, "y": y, "w": w, "h": h },
            "fieldConfig": { "defaults": defaults, "overrides": [] },
            "options": {},
            "targets": targets,
        })
    }
}

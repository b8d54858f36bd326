//! `/metrics`: every number is read from its owner, or from the [`Recorder`], when it is asked for.
//!
//! OpenMetrics for those who ask for it, else the older Prometheus text format.

use api::control::{PeerView, Status};
use api::metric::{METRICS, Metric, Type};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Recorder;
use super::series::series;
use crate::bgp::Traffic;

/// Form of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text format 0.0.4.
    Text,
}

impl Format {
    /// What a client with this `Accept` header gets.
    #[must_use]
    pub fn accepted(header: Option<&str>) -> Self {
        match header {
            Some(header) if header.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// Content type.
    #[must_use]
    pub const fn mime(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What the numbers are taken from.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Status of the agent.
    pub status: &'a Status,
    /// Some input is not in force as it is written.
    pub stale: bool,
    /// Its peers.
    pub peers: &'a [PeerView],
    /// `maxPrefixes` of the peers that have one, by name.
    pub limits: &'a [(String, u32)],
    /// What the driver counted.
    pub traffic: Traffic,
    /// What was counted where it happened.
    pub recorder: &'a Recorder,
}

/// The exposition, with exactly the families of [`METRICS`].
#[must_use]
pub fn encode(sample: &Sample<'_>, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families(sample))));
    let mut text = String::new();
    // Writing into a String cannot fail; a half-written exposition would be refused by its reader.
    if text::encode(&mut text, &registry).is_err() {
        text.clear();
    }
    match format {
        Format::OpenMetrics => text,
        Format::Text => plain(&text),
    }
}

/// OpenMetrics -> text format 0.0.4: there a counter's family is named as its series, and there is
/// no end mark.
fn plain(open: &str) -> String {
    let counter = |name: &str| {
        METRICS.iter().any(|metric| metric.kind == Type::Counter && metric.name == name)
    };
    let mut text = String::with_capacity(open.len());
    for line in open.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counter(name) => {
                text.extend(["# ", what, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

pub(super) type Labels = Vec<(&'static str, String)>;

/// One number of a family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    Real(f64),
}

/// What a family holds.
#[derive(Debug)]
pub(super) enum Series {
    Numbers(Vec<(Labels, Value)>),
    Histogram(Histogram),
}

/// A family and its series.
#[derive(Debug)]
struct Family {
    metric: Metric,
    series: Series,
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for Family { metric, series } in &self.0 {
            let kind = match metric.kind {
                Type::Gauge => MetricType::Gauge,
                Type::Counter => MetricType::Counter,
                Type::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            let numbers = match series {
                Series::Histogram(histogram) => {
                    histogram.encode(family)?;
                    continue;
                }
                Series::Numbers(numbers) => numbers,
            };
            for (labels, value) in numbers {
                if labels.is_empty() {
                    number(&mut family, metric.kind, *value)?;
                } else {
                    number(&mut family.encode_family(labels)?, metric.kind, *value)?;
                }
            }
        }
        Ok(())
    }
}

fn number(encoder: &mut MetricEncoder<'_>, kind: Type, value: Value) -> std::fmt::Result {
    match (kind, value) {
        (Type::Counter, Value::Whole(value)) => {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        }
        (Type::Counter, Value::Real(value)) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
        }
        (Type::Gauge | Type::Histogram, Value::Whole(value)) => encoder.encode_gauge(&value),
        (Type::Gauge | Type::Histogram, Value::Real(value)) => encoder.encode_gauge(&value),
    }
}

fn families(sample: &Sample<'_>) -> Vec<Family> {
    METRICS
        .iter()
        .map(|metric| Family { metric: *metric, series: series(*metric, sample) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::control::{BgpStatus, PolicyStatus, Problem, RouteStatus};
    use api::error_code::INVALID_CIDR;
    use std::time::Duration;

    use crate::observe::recorder::{Direction, Stage, Write};
    use crate::source::Kind;

    fn status() -> Status {
        Status {
            node: "n1".into(),
            version: "1".into(),
            pid: 1,
            uptime_seconds: 1.0,
            ready: true,
            not_ready: vec![],
            store: "dir:/s".into(),
            desired_generation: 7,
            programmed_generation: 6,
            source: None,
            bgp: Some(BgpStatus {
                asn: 1,
                router_id: "192.0.2.1".into(),
                listen_port: 179,
                peers_established: 1,
                peers: 2,
                prefixes: 3,
                mesh: "on".to_owned(),
                reflectors: 0,
                reflectors_established: 0,
            }),
            routes: RouteStatus { desired: 5, installed: 4, failed: 1, overridden: 0, repaired: 2 },
            policy: PolicyStatus { transactions: 9, refused: 8, ..PolicyStatus::default() },
            problems: vec![Problem {
                code: INVALID_CIDR,
                subject: "x".into(),
                message: "y".into(),
                location: None,
                next: "z".into(),
                since: "now".into(),
            }],
        }
    }

    fn peer() -> PeerView {
        serde_json::from_value(serde_json::json!({
            "node": "n1", "name": "tor\"a", "peerKind": "tor", "address": "192.0.2.9", "port": 179,
            "remoteAsn": 65001, "localAsn": 64512, "state": "Established", "sinceSeconds": 1.0,
            "routerId": null, "localAddress": null, "families": [], "received": 11, "accepted": 10,
            "sent": 9, "holdTimeSeconds": 90, "keepaliveSeconds": 30, "capabilities": [],
            "establishedCount": 3, "messagesReceived": {}, "messagesSent": {"open": 2}, "malformed": {},
            "lastError": null, "import": "", "export": ""
        }))
        .unwrap()
    }

    fn recorder() -> Recorder {
        let recorder = Recorder::default();
        recorder.policy_applied(Duration::from_millis(3));
        recorder.converged(Duration::from_millis(3));
        recorder.failed(Stage::Routes);
        recorder.heard(Kind::Pod);
        recorder.wrote(Write::Status, false);
        recorder.session_up("tor\"a".to_owned());
        recorder.notification("tor\"a".to_owned(), Direction::Received, 6);
        recorder.notification("gone".to_owned(), Direction::Received, 6);
        recorder
    }

    fn exposition(format: Format) -> String {
        let status = status();
        let mut mesh = [peer(), peer()];
        for (index, peer) in mesh.iter_mut().enumerate() {
            peer.name = format!("n{index}");
            peer.kind = "mesh".to_owned();
        }
        let [first, mut second] = mesh;
        second.state = "Active".to_owned();
        let sample = Sample {
            status: &status,
            stale: true,
            peers: &[peer(), first, second],
            limits: &[("tor\"a".to_owned(), 22)],
            traffic: Traffic::default(),
            recorder: &recorder(),
        };
        encode(&sample, format)
    }

    #[test]
    fn of_the_mesh_only_the_first_peers_that_are_down_are_named() {
        let status = status();
        let peers: Vec<PeerView> = (10..30)
            .map(|number| {
                let state = if number % 7 == 3 { "Established" } else { "Connect" };
                let name = format!("n{number}");
                PeerView { name, kind: "mesh".to_owned(), state: state.to_owned(), ..peer() }
            })
            .collect();
        let sample = Sample {
            status: &status,
            stale: false,
            peers: &peers,
            limits: &[],
            traffic: Traffic::default(),
            recorder: &recorder(),
        };
        let text = encode(&sample, Format::Text);
        let named: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("rampart_bgp_mesh_peer_down{peer=\""))
            .filter_map(|rest| rest.split('"').next())
            .collect();
        let expected = ["n11", "n12", "n13", "n14", "n15", "n16", "n18", "n19", "n20", "n21"];
        assert_eq!(named, expected, "n10 and n17 are up");
    }

    #[test]
    fn the_exposition_has_every_metric_of_the_contract_with_its_labels_and_no_other() {
        let text = exposition(Format::OpenMetrics);
        for metric in METRICS {
            let (kind, ending) = match metric.kind {
                Type::Gauge => ("gauge", ""),
                Type::Counter => ("counter", "_total"),
                Type::Histogram => ("histogram", "_count"),
            };
            let head = format!("# HELP {0} {1}\n# TYPE {0} {kind}\n", metric.name, metric.help);
            assert!(text.contains(&head), "{head}\n{text}");
            let name = format!("{}{ending}", metric.name);
            let line = text
                .lines()
                .find(|line| line.split(['{', ' ']).next() == Some(name.as_str()))
                .unwrap_or_else(|| panic!("{name} has no series:\n{text}"));
            for label in metric.labels {
                assert!(line.contains(&format!("{label}=\"")), "{line}");
            }
            assert_eq!(line.matches("=\"").count(), metric.labels.len(), "{line}");
        }
        let families = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(families, METRICS.len());
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn numbers_are_those_of_their_owners_and_the_mesh_is_summed_up() {
        let text = exposition(Format::OpenMetrics);
        for line in [
            "rampart_bgp_peer_received_prefixes{peer=\"tor\\\"a\",kind=\"tor\"} 11",
            "rampart_bgp_peer_received_prefixes{peer=\"mesh\",kind=\"mesh\"} 22",
            "rampart_bgp_peer_transitions_total{peer=\"tor\\\"a\",kind=\"tor\"} 5",
            "rampart_bgp_peer_transitions_total{peer=\"mesh\",kind=\"mesh\"} 11",
            "rampart_bgp_peer_prefix_limit_ratio{peer=\"tor\\\"a\",kind=\"tor\"} 0.5",
            "rampart_bgp_peer_messages_total{peer=\"mesh\",kind=\"mesh\",direction=\"sent\",type=\"open\"} 4",
            "rampart_bgp_mesh_peers 2",
            "rampart_bgp_mesh_peers_established 1",
            "rampart_nft_transactions_total 9",
            "rampart_problems{code=\"RC1005\"} 1",
            "rampart_config_stale 1",
            "rampart_reconcile_errors_total{stage=\"report\"} 1",
            "rampart_reconcile_errors_total{stage=\"table\"} 8",
            "rampart_reconcile_errors_total{stage=\"source\"} 0",
            "rampart_kube_writes_total{object=\"status\",result=\"error\"} 1",
            "rampart_policy_apply_seconds_bucket{le=\"0.004\"} 1",
            "rampart_convergence_seconds_bucket{le=\"0.004\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("rampart_kube_watch_lag_seconds{").count(), 1, "who was heard");
        assert!(!text.contains("peer=\"n0\"") && !text.contains("gone"), "{text}");
        assert_eq!(text.matches("rampart_bgp_peer_up{").count(), 1, "not for the mesh");
    }

    #[test]
    fn who_does_not_ask_for_openmetrics_gets_the_older_format() {
        let browser = Some("text/html,*/*");
        assert_eq!(Format::accepted(browser), Format::Text);
        assert_eq!(Format::accepted(None), Format::Text);
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        let text = exposition(Format::Text);
        assert!(text.contains("# TYPE rampart_nft_transactions_total counter\n"), "{text}");
        assert!(text.contains("# TYPE rampart_ready gauge\nrampart_ready 1\n"), "{text}");
        assert!(text.contains("# TYPE rampart_pod_gate_seconds histogram\n"), "{text}");
        assert!(!text.contains("# EOF") && !text.contains("# TYPE rampart_nft_transactions "));
    }
}

//! `/metrics`: OpenMetrics text, every number read from the owners when it is asked for.

use std::collections::BTreeMap;

use api::control::{PeerView, Status};
use api::metric::{self, METRICS, Metric, Type};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::bgp::Traffic;

/// Content type of [`encode`].
pub const MIME: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the numbers are taken from.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Status of the agent.
    pub status: &'a Status,
    /// Its peers.
    pub peers: &'a [PeerView],
    /// What the driver counted.
    pub traffic: Traffic,
}

/// The exposition, with exactly the families of [`METRICS`].
#[must_use]
pub fn encode(sample: &Sample<'_>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families(sample))));
    let mut text = String::new();
    // Writing into a String cannot fail; a half-written exposition would be refused by its reader.
    if text::encode(&mut text, &registry).is_err() {
        text.clear();
    }
    text
}

type Labels = Vec<(&'static str, String)>;

/// A family and its series.
#[derive(Debug)]
struct Family {
    metric: Metric,
    series: Vec<(Labels, u64)>,
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for Family { metric, series } in &self.0 {
            let kind = match metric.kind {
                Type::Gauge => MetricType::Gauge,
                Type::Counter => MetricType::Counter,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for (labels, value) in series {
                let one = if labels.is_empty() { None } else { Some(labels) };
                match (metric.kind, one) {
                    (Type::Gauge, None) => family.encode_gauge(value)?,
                    (Type::Gauge, Some(labels)) => {
                        family.encode_family(labels)?.encode_gauge(value)?;
                    }
                    (Type::Counter, None) => {
                        family.encode_counter::<NoLabelSet, _, u64>(value, None)?;
                    }
                    (Type::Counter, Some(labels)) => family
                        .encode_family(labels)?
                        .encode_counter::<NoLabelSet, _, u64>(value, None)?,
                }
            }
        }
        Ok(())
    }
}

fn families(sample: &Sample<'_>) -> Vec<Family> {
    METRICS
        .iter()
        .map(|metric| Family { metric: *metric, series: series(*metric, sample) })
        .collect()
}

/// Every metric of the contract has its row here; the test finds a missing one.
fn series(metric: Metric, sample: &Sample<'_>) -> Vec<(Labels, u64)> {
    let Sample { status, peers, traffic } = sample;
    let bgp = status.bgp.as_ref();
    let each = |value: fn(&PeerView) -> u64| -> Vec<(Labels, u64)> {
        peers
            .iter()
            .map(|peer| {
                (vec![("peer", peer.name.clone()), ("kind", peer.kind.clone())], value(peer))
            })
            .collect()
    };
    let value = match metric {
        metric::PROBLEMS => return problems(status),
        metric::BGP_PEER_UP => return each(|peer| u64::from(peer.state == "Established")),
        metric::BGP_PEER_RECEIVED => return each(|peer| peer.received),
        metric::BGP_PEER_ACCEPTED => return each(|peer| peer.accepted),
        metric::BGP_PEER_SENT => return each(|peer| peer.sent),
        metric::BGP_PEER_ESTABLISHED => return each(|peer| peer.established_count),
        metric::READY => u64::from(status.ready),
        metric::GENERATION_DESIRED => status.desired_generation,
        metric::GENERATION_PROGRAMMED => status.programmed_generation,
        metric::BGP_PEERS => bgp.map_or(0, |bgp| bgp.peers.into()),
        metric::BGP_PEERS_ESTABLISHED => bgp.map_or(0, |bgp| bgp.peers_established.into()),
        metric::BGP_PREFIXES => bgp.map_or(0, |bgp| bgp.prefixes),
        metric::BGP_OCTETS_RECEIVED => traffic.octets_in,
        metric::BGP_OCTETS_SENT => traffic.octets_out,
        metric::BGP_CONNECTIONS_REFUSED => traffic.refused,
        metric::ROUTES_DESIRED => status.routes.desired,
        metric::ROUTES_INSTALLED => status.routes.installed,
        metric::ROUTES_FAILED => status.routes.failed,
        metric::ROUTES_REPAIRED => status.routes.repaired,
        metric::POLICIES => status.policy.policies,
        metric::ENDPOINTS => status.policy.endpoints,
        metric::ENDPOINTS_ISOLATED => status.policy.isolated,
        metric::NFT_SET_ELEMENTS => status.policy.set_elements,
        metric::NFT_TRANSACTIONS => status.policy.transactions,
        metric::NFT_REFUSED => status.policy.refused,
        metric::NFT_REPAIRED => status.policy.repaired,
        _ => return Vec::new(),
    };
    vec![(Vec::new(), value)]
}

fn problems(status: &Status) -> Vec<(Labels, u64)> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for problem in &status.problems {
        let count = counts.entry(problem.code.to_string()).or_default();
        *count = count.saturating_add(1);
    }
    counts.into_iter().map(|(code, count)| (vec![("code", code)], count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::control::{BgpStatus, PolicyStatus, Problem, RouteStatus};
    use api::error_code::INVALID_CIDR;

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
            bgp: Some(BgpStatus {
                asn: 1,
                router_id: "192.0.2.1".into(),
                listen_port: 179,
                peers_established: 1,
                peers: 2,
                prefixes: 3,
            }),
            routes: RouteStatus { desired: 5, installed: 4, failed: 1, repaired: 2 },
            policy: PolicyStatus { transactions: 9, ..PolicyStatus::default() },
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
            "establishedCount": 3, "messagesReceived": {}, "messagesSent": {}, "malformed": {},
            "lastError": null, "import": "", "export": ""
        }))
        .unwrap()
    }

    #[test]
    fn the_exposition_has_every_metric_of_the_contract_with_its_labels_and_no_other() {
        let (status, peers) = (status(), [peer()]);
        let text = encode(&Sample { status: &status, peers: &peers, traffic: Traffic::default() });
        for metric in METRICS {
            let kind = match metric.kind {
                Type::Gauge => "gauge",
                Type::Counter => "counter",
            };
            let head = format!("# HELP {0} {1}\n# TYPE {0} {kind}\n", metric.name, metric.help);
            assert!(text.contains(&head), "{head}\n{text}");
            let total = if metric.kind == Type::Counter { "_total" } else { "" };
            let name = format!("{}{total}", metric.name);
            let line = text
                .lines()
                .find(|line| line.split(['{', ' ']).next() == Some(name.as_str()))
                .unwrap_or_else(|| panic!("{name} has no series:\n{text}"));
            for label in metric.labels {
                assert!(line.contains(&format!("{label}=\"")), "{line}");
            }
            assert_eq!(line.contains('{'), !metric.labels.is_empty(), "{line}");
        }
        let families = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(families, METRICS.len());
        assert!(
            text.contains(
                "rampart_bgp_peer_received_prefixes{peer=\"tor\\\"a\",kind=\"tor\"} 11\n"
            )
        );
        assert!(text.contains("rampart_nft_transactions_total 9\n"));
        assert!(text.contains("rampart_problems{code=\"RC1005\"} 1\n"));
        assert!(text.ends_with("# EOF\n"));
    }
}

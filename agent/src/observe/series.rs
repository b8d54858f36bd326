//! Where each metric of the contract comes from.

use std::collections::BTreeMap;

use api::control::{PeerView, Status};
use api::metric::{self, Metric};

use super::metrics::{Labels, Sample, Series, Value};
use super::process;
use super::recorder::{Stage, Write};

/// What the peers of the mesh are summed up as: a series for each would be the square of the number
/// of nodes in the whole cluster.
const MESH: &str = "mesh";
const ESTABLISHED: &str = "Established";
/// So many peers of the mesh that are down are named: enough to say which node it is, and a cluster
/// that falls apart does not make the square of its nodes either.
const NAMED: usize = 10;

/// Every metric of the contract has its row here; the test finds a missing one.
pub(super) fn series(metric: Metric, sample: &Sample<'_>) -> Series {
    match metric {
        metric::POLICY_APPLY => Series::Histogram(sample.recorder.policy_apply().clone()),
        metric::CONVERGENCE => Series::Histogram(sample.recorder.convergence().clone()),
        metric::POD_GATE => Series::Histogram(sample.recorder.pod_gate().clone()),
        metric => Series::Numbers(
            single(metric, sample)
                .map(|value| vec![(Labels::new(), value)])
                .or_else(|| of_peers(metric, sample))
                .or_else(|| labelled(metric, sample))
                .unwrap_or_default(),
        ),
    }
}

/// Metrics without labels.
fn single(metric: Metric, sample: &Sample<'_>) -> Option<Value> {
    let Sample { status, traffic, recorder, .. } = sample;
    let bgp = status.bgp.as_ref();
    let value = match metric {
        metric::PROCESS_START => return Some(Value::Real(recorder.started())),
        metric::PROCESS_CPU => return process::usage().cpu_seconds.map(Value::Real),
        metric::PROCESS_MEMORY => return process::usage().resident_bytes.map(Value::Whole),
        metric::PROCESS_OPEN_FILES => return process::usage().open_files.map(Value::Whole),
        metric::READY => u64::from(status.ready),
        metric::GENERATION_DESIRED => status.desired_generation,
        metric::GENERATION_PROGRAMMED => status.programmed_generation,
        metric::CONFIG_STALE => u64::from(sample.stale),
        metric::KUBE_EVENTS_DROPPED => recorder.events_dropped(),
        metric::STATUS_LEADER => u64::from(recorder.leader()),
        metric::BGP_PEERS => bgp.map_or(0, |bgp| bgp.peers.into()),
        metric::BGP_PEERS_ESTABLISHED => bgp.map_or(0, |bgp| bgp.peers_established.into()),
        metric::BGP_MESH_PEERS => count(sample.peers, |_| true),
        metric::BGP_MESH_PEERS_ESTABLISHED => count(sample.peers, is_up),
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
        metric::POD_GATE_TIMEOUTS => recorder.gate_timeouts(),
        metric::NFT_SET_ELEMENTS => status.policy.set_elements,
        metric::NFT_TRANSACTIONS => status.policy.transactions,
        metric::NFT_REFUSED => status.policy.refused,
        metric::NFT_REPAIRED => status.policy.repaired,
        _ => return None,
    };
    Some(Value::Whole(value))
}

/// Metrics with a series for each peer.
fn of_peers(metric: Metric, sample: &Sample<'_>) -> Option<Vec<(Labels, Value)>> {
    let sum = |value: fn(&PeerView) -> u64| Some(summed(sample.peers, value));
    match metric {
        metric::BGP_PEER_UP => {
            Some(alone(sample.peers, |peer| Some(Value::Whole(u64::from(is_up(peer))))))
        }
        metric::BGP_MESH_PEER_DOWN => Some(mesh_down(sample.peers)),
        metric::BGP_PEER_RECEIVED => sum(|peer| peer.received),
        metric::BGP_PEER_ACCEPTED => sum(|peer| peer.accepted),
        metric::BGP_PEER_SENT => sum(|peer| peer.sent),
        metric::BGP_PEER_STALE => sum(|peer| {
            peer.graceful_restart.stale.values().fold(0, |sum, paths| sum.saturating_add(*paths))
        }),
        metric::BGP_PEER_ESTABLISHED => sum(|peer| peer.established_count),
        // Each time it came up it went down again, but for now.
        metric::BGP_PEER_TRANSITIONS => sum(|peer| {
            peer.established_count.saturating_mul(2).saturating_sub(u64::from(is_up(peer)))
        }),
        metric::BGP_PEER_ESTABLISHED_TIMESTAMP => {
            let sessions = sample.recorder.sessions();
            Some(alone(sample.peers, |peer| {
                sessions.get(&peer.name).filter(|_| is_up(peer)).copied().map(Value::Real)
            }))
        }
        metric::BGP_PEER_PREFIX_LIMIT => Some(alone(sample.peers, |peer| {
            let (_, limit) = sample.limits.iter().find(|(name, _)| *name == peer.name)?;
            // Prefix counts are far below what a real number holds exactly.
            let received = u32::try_from(peer.received).unwrap_or(u32::MAX);
            Some(Value::Real(f64::from(received) / f64::from(*limit)))
        })),
        _ => None,
    }
}

/// Metrics with labels of their own.
fn labelled(metric: Metric, sample: &Sample<'_>) -> Option<Vec<(Labels, Value)>> {
    let recorder = sample.recorder;
    let series = match metric {
        metric::BUILD_INFO => {
            let commit = option_env!("RAMPART_COMMIT").unwrap_or("unknown").to_owned();
            let version = sample.status.version.clone();
            vec![(vec![("version", version), ("commit", commit)], Value::Whole(1))]
        }
        metric::PROBLEMS => problems(sample.status),
        metric::RECONCILE_ERRORS => Stage::ALL
            .into_iter()
            .map(|stage| {
                let counted_elsewhere =
                    if stage == Stage::Table { sample.status.policy.refused } else { 0 };
                let errors = recorder.errors(stage).saturating_add(counted_elsewhere);
                (vec![("stage", stage.name().to_owned())], Value::Whole(errors))
            })
            .collect(),
        metric::KUBE_WATCH_LAG => watch_lag(sample),
        metric::KUBE_WRITES => Write::ALL
            .into_iter()
            .flat_map(|what| [(what, true), (what, false)])
            .map(|(what, ok)| {
                let result = if ok { "ok" } else { "error" };
                let labels =
                    vec![("object", what.name().to_owned()), ("result", result.to_owned())];
                (labels, Value::Whole(recorder.writes(what, ok)))
            })
            .collect(),
        metric::BGP_PEER_MESSAGES => messages(sample.peers),
        metric::BGP_PEER_NOTIFICATIONS => notifications(sample),
        _ => return None,
    };
    Some(series)
}

fn watch_lag(sample: &Sample<'_>) -> Vec<(Labels, Value)> {
    let silence = sample.recorder.silence().into_iter();
    silence
        .map(|(kind, lag)| (vec![("kind", kind.name().to_owned())], Value::Real(lag.as_secs_f64())))
        .collect()
}

fn is_up(peer: &PeerView) -> bool {
    peer.state == ESTABLISHED
}

/// Peers of the mesh that are such.
fn count(peers: &[PeerView], such: impl Fn(&PeerView) -> bool) -> u64 {
    let mesh = peers.iter().filter(|peer| peer.kind == MESH && such(peer));
    u64::try_from(mesh.count()).unwrap_or(u64::MAX)
}

/// The first peers of the mesh that are down.
fn mesh_down(peers: &[PeerView]) -> Vec<(Labels, Value)> {
    let down = peers.iter().filter(|peer| peer.kind == MESH && !is_up(peer));
    let mut names: Vec<&str> = down.map(|peer| peer.name.as_str()).collect();
    names.sort_unstable();
    names.truncate(NAMED);
    names.into_iter().map(|name| (vec![("peer", name.to_owned())], Value::Whole(1))).collect()
}

fn labels(peer: &PeerView) -> Labels {
    let name = if peer.kind == MESH { MESH } else { &peer.name };
    vec![("peer", name.to_owned()), ("kind", peer.kind.clone())]
}

/// A series for each peer that is not of the mesh.
fn alone(peers: &[PeerView], value: impl Fn(&PeerView) -> Option<Value>) -> Vec<(Labels, Value)> {
    let each = peers.iter().filter(|peer| peer.kind != MESH);
    each.filter_map(|peer| Some((labels(peer), value(peer)?))).collect()
}

/// A series for each peer, and one for all of the mesh.
fn summed(peers: &[PeerView], value: impl Fn(&PeerView) -> u64) -> Vec<(Labels, Value)> {
    let mut sums = Sums::default();
    for peer in peers {
        sums.add(labels(peer), value(peer));
    }
    sums.finish()
}

fn messages(peers: &[PeerView]) -> Vec<(Labels, Value)> {
    let mut sums = Sums::default();
    for peer in peers {
        let received = peer.messages_received.iter().map(|entry| ("received", entry));
        let sent = peer.messages_sent.iter().map(|entry| ("sent", entry));
        for (direction, (kind, number)) in received.chain(sent) {
            let mut labels = labels(peer);
            labels.extend([("direction", direction.to_owned()), ("type", kind.clone())]);
            sums.add(labels, *number);
        }
    }
    sums.finish()
}

fn notifications(sample: &Sample<'_>) -> Vec<(Labels, Value)> {
    let mut sums = Sums::default();
    for ((name, direction, code), number) in sample.recorder.notifications() {
        let Some(peer) = sample.peers.iter().find(|peer| peer.name == name) else { continue };
        let mut labels = labels(peer);
        labels.extend([("direction", direction.name().to_owned()), ("code", code.to_string())]);
        sums.add(labels, number);
    }
    sums.finish()
}

/// Adds up what has the same labels.
#[derive(Default)]
struct Sums(BTreeMap<Labels, u64>);

impl Sums {
    fn add(&mut self, labels: Labels, number: u64) {
        let sum = self.0.entry(labels).or_default();
        *sum = sum.saturating_add(number);
    }

    fn finish(self) -> Vec<(Labels, Value)> {
        self.0.into_iter().map(|(labels, number)| (labels, Value::Whole(number))).collect()
    }
}

fn problems(status: &Status) -> Vec<(Labels, Value)> {
    let mut sums = Sums::default();
    for problem in &status.problems {
        sums.add(vec![("code", problem.code.to_string())], 1);
    }
    sums.finish()
}

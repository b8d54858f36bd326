//! The words of the pure crates -> the words of the contract.

use std::collections::BTreeMap;
use std::time::Duration;

use api::constant::RACK_LABEL;
use api::control::{
    AgentView, EndpointView, GracefulRestartView, NodeView, PathView, PeerError, PeerView,
    PolicyView, RouteView,
};
use api::error_code;
use bgp::config::{PeerKind, Policy, PrefixMatch};
use bgp::md5::Word;
use bgp::rib::Verdict;
use bgp::speaker::{DownReason, SpeakerEvent};
use bgp::types::Family;
use bgp::view::{self, MalformedCounts, MessageCounts, PathFrom, RestartView};
use bgp::wire::attribute::{AsPath, Attributes, Origin, SegmentKind};
use policy::engine::{EndpointSummary, PolicySummary};

use crate::config::NodeFacts;
use crate::herald;
use crate::kernel::route::{RouteReport, RouteState};
use crate::kernel::tcp_md5;

pub(super) fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

pub(super) fn node(node: &NodeFacts, agent: Option<AgentView>) -> NodeView {
    NodeView {
        name: node.name.clone(),
        rack: node.labels.get(RACK_LABEL).cloned(),
        addresses: node.addresses.clone(),
        pod_cidrs: node.pod_cidrs.iter().map(ToString::to_string).collect(),
        labels: node.labels.clone(),
        agent,
    }
}

const fn kind(kind: PeerKind) -> &'static str {
    match kind {
        PeerKind::Mesh => "mesh",
        PeerKind::Reflector => "reflector",
        PeerKind::Internal => "peer",
        PeerKind::Tor => "tor",
    }
}

pub(super) fn peer(node: &str, peer: view::PeerView) -> PeerView {
    let ibgp = peer.remote_asn == peer.local_asn;
    let last_error = last_error(&peer);
    PeerView {
        node: node.to_owned(),
        name: peer.name,
        kind: kind(peer.kind).to_owned(),
        address: peer.address,
        port: peer.port,
        remote_asn: peer.remote_asn.0,
        local_asn: peer.local_asn.0,
        state: peer.state.to_string(),
        since_seconds: peer.since.as_secs_f64(),
        router_id: peer.router_id.map(|id| id.to_string()),
        local_address: peer.local_address,
        families: names(&peer.families),
        end_of_rib: names(&peer.end_of_rib),
        graceful_restart: restart(&peer.restart),
        received: peer.received,
        accepted: peer.accepted,
        sent: peer.sent,
        withheld: peer.no_next_hop + peer.too_big,
        hold_time_seconds: peer.hold_time.as_secs(),
        keepalive_seconds: peer.keepalive.as_secs(),
        capabilities: peer.capabilities.into_iter().map(str::to_owned).collect(),
        established_count: peer.established_count,
        messages_received: messages(peer.messages_received),
        messages_sent: messages(peer.messages_sent),
        malformed: malformed(peer.malformed),
        md5: word(peer.md5).to_owned(),
        last_error,
        import: import_words(&peer.import, ibgp),
        export: export_words(&peer.export),
    }
}

/// A peer that is waited for and has a password is suspected after so long.
const SILENCE: Duration = Duration::from_secs(15);

const fn word(md5: Word) -> &'static str {
    match md5 {
        Word::Off => "off",
        Word::Key => "on",
        Word::Unknown => "unknown",
    }
}

fn last_error(peer: &view::PeerView) -> Option<PeerError> {
    if peer.md5 == Word::Unknown {
        let message = "its password is not known, so there is no session".to_owned();
        let ago_seconds = peer.since.as_secs_f64();
        return Some(PeerError { code: error_code::PASSWORD_MISSING, message, ago_seconds });
    }
    let signed = peer.md5 == Word::Key && peer.state != view::SessionState::Established;
    let Some(error) = &peer.last_error else {
        // One that we wait for, and that the kernel may not let through.
        return (signed && peer.since >= SILENCE).then(|| PeerError {
            code: error_code::PASSWORD_MISMATCH,
            message: format!("nobody has connected from there; {}", suspicion()),
            ago_seconds: peer.since.as_secs_f64(),
        });
    };
    let (mut code, mut message) = herald::last_error(&error.event);
    if signed
        && let SpeakerEvent::SessionDown { reason: DownReason::ConnectFailed(why), .. } =
            &error.event
        && why.contains("timed out")
    {
        code = error_code::PASSWORD_MISMATCH;
        message = format!("{message}; {}", suspicion());
    }
    Some(PeerError { code, message, ago_seconds: error.ago.as_secs_f64() })
}

/// What a peer that does not answer may have.
fn suspicion() -> String {
    let evidence = match tcp_md5::dropped() {
        Some(dropped) if dropped != tcp_md5::Dropped::default() => format!(" ({dropped})"),
        Some(_) | None => String::new(),
    };
    format!("{}{evidence}", tcp_md5::SUSPICION)
}

fn names(families: &[Family]) -> Vec<String> {
    families.iter().map(ToString::to_string).collect()
}

fn restart(view: &RestartView) -> GracefulRestartView {
    let count = |count: &usize| u64::try_from(*count).unwrap_or(u64::MAX);
    GracefulRestartView {
        phase: view.phase.to_string(),
        negotiated: view.negotiated,
        notification: view.notification,
        peer_restart_seconds: view.peer_restart_time.as_secs(),
        wait_seconds: view.wait.as_secs(),
        families: names(&view.families),
        forwarding: names(&view.forwarding),
        stale: view.stale.iter().map(|(f, paths)| (f.to_string(), count(paths))).collect(),
        seconds_left: view.left.map(|left| left.as_secs_f64()),
    }
}

fn messages(counts: MessageCounts) -> BTreeMap<String, u64> {
    let MessageCounts { open, update, notification, keepalive, route_refresh } = counts;
    [
        ("open", open),
        ("update", update),
        ("notification", notification),
        ("keepalive", keepalive),
        ("route-refresh", route_refresh),
    ]
    .into_iter()
    .map(|(name, count)| (name.to_owned(), count))
    .collect()
}

fn malformed(counts: MalformedCounts) -> BTreeMap<String, u64> {
    let MalformedCounts { attribute_discard, treat_as_withdraw, session_reset } = counts;
    [
        ("attribute-discard", attribute_discard),
        ("treat-as-withdraw", treat_as_withdraw),
        ("session-reset", session_reset),
    ]
    .into_iter()
    .map(|(name, count)| (name.to_owned(), count))
    .collect()
}

fn import_words(policy: &Policy, ibgp: bool) -> String {
    match policy {
        Policy::OwnOnly if ibgp => "nothing".to_owned(),
        Policy::OwnOnly => "nothing (no import list, RFC 8212)".to_owned(),
        Policy::All => "all".to_owned(),
        Policy::Accept(rules) if rules.is_empty() => "nothing".to_owned(),
        Policy::Accept(rules) => list(rules),
    }
}

fn export_words(policy: &Policy) -> String {
    match policy {
        Policy::OwnOnly => "own prefixes".to_owned(),
        Policy::All => "all".to_owned(),
        Policy::Accept(rules) if rules.is_empty() => "own prefixes".to_owned(),
        Policy::Accept(rules) => format!("own prefixes, {}", list(rules)),
    }
}

fn list(rules: &[PrefixMatch]) -> String {
    let words: Vec<String> = rules.iter().map(rule_words).collect();
    words.join(", ")
}

fn rule_words(rule: &PrefixMatch) -> String {
    let PrefixMatch { prefix, min_length, max_length } = rule;
    if min_length == max_length && *min_length == prefix.prefix_len() {
        prefix.to_string()
    } else {
        format!("{prefix} (/{min_length} to /{max_length})")
    }
}

pub(super) fn route(
    node: &str,
    nodes: &[NodeFacts],
    route: view::RouteView,
    report: Option<&RouteReport>,
) -> RouteView {
    let owner = nodes.iter().find(|n| n.pod_cidrs.contains(&route.prefix));
    let best = route.paths.first().filter(|path| path.verdict == Verdict::Best);
    let origin = match (best.map(|path| &path.from), owner) {
        (Some(PathFrom::Local), _) => "local".to_owned(),
        (_, Some(owner)) => owner.name.clone(),
        (Some(PathFrom::Peer { kind: PeerKind::Tor, .. }), None) => "tor".to_owned(),
        _ => "-".to_owned(),
    };
    RouteView {
        node: node.to_owned(),
        prefix: route.prefix.to_string(),
        origin,
        paths: route.paths.into_iter().map(path).collect(),
        fib_next_hops: report.map(|report| report.gateways.clone()).unwrap_or_default(),
        fib: report.map_or_else(|| "none".to_owned(), |report| fib_words(&report.state)),
    }
}

fn fib_words(state: &RouteState) -> String {
    match state {
        RouteState::Installed => "ok".to_owned(),
        RouteState::Blackhole => "blackhole".to_owned(),
        RouteState::Overridden(by) => format!("overridden: {by}"),
        RouteState::Waiting => "pending".to_owned(),
        RouteState::Pending(why) => format!("pending: {why}"),
        RouteState::Failed(why) => format!("failed: {why}"),
    }
}

fn path(path: view::PathView) -> PathView {
    let attributes = path.attributes.as_ref();
    PathView {
        from: match path.from {
            PathFrom::Local => "local".to_owned(),
            PathFrom::Peer { name, .. } => name,
        },
        next_hop: attributes.map(|a| a.next_hop),
        as_path: attributes.map(|a| as_path(&a.as_path)).unwrap_or_default(),
        local_pref: path.local_pref,
        med: attributes.and_then(|a| a.med),
        origin: attributes.map_or("igp", |a| origin(a.origin)).to_owned(),
        originator_id: attributes.and_then(|a| a.originator_id).map(|id| id.to_string()),
        cluster_list: attributes
            .map(|a| a.cluster_list.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        communities: attributes.map(communities).unwrap_or_default(),
        best: path.verdict == Verdict::Best,
        multipath: matches!(path.verdict, Verdict::Multipath(_)),
        reason: if path.verdict == Verdict::Best {
            String::new()
        } else {
            path.verdict.to_string()
        },
        age_seconds: path.age.as_secs_f64(),
    }
}

const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Igp => "igp",
        Origin::Egp => "egp",
        Origin::Incomplete => "incomplete",
    }
}

fn as_path(path: &AsPath) -> String {
    let segments = path.segments.iter().map(|segment| {
        let asns: Vec<String> = segment.asns.iter().map(ToString::to_string).collect();
        match segment.kind {
            SegmentKind::Sequence => asns.join(" "),
            SegmentKind::Set => format!("{{{}}}", asns.join(",")),
            SegmentKind::ConfedSequence => format!("({})", asns.join(" ")),
            SegmentKind::ConfedSet => format!("[{}]", asns.join(",")),
        }
    });
    segments.collect::<Vec<_>>().join(" ")
}

fn communities(attributes: &Attributes) -> Vec<String> {
    let Some(extra) = &attributes.extra else { return Vec::new() };
    extra.communities.iter().map(|c| format!("{}:{}", c >> 16, c & 0xffff)).collect()
}

pub(super) fn policy(node: &str, policy: PolicySummary) -> PolicyView {
    PolicyView {
        node: node.to_owned(),
        namespace: policy.namespace,
        name: policy.name,
        kind: "knp".to_owned(),
        selects: policy.selects,
        selects_local: policy.selects_local,
        programmed: policy.programmed,
        ingress_rules: policy.ingress_rules,
        egress_rules: policy.egress_rules,
        isolates_ingress: policy.isolates_ingress,
        isolates_egress: policy.isolates_egress,
        mode: "enforce".to_owned(),
        pod_selector: policy.pod_selector,
        rules: policy.rules,
        faults: policy.faults,
    }
}

pub(super) fn endpoint(node: &str, endpoint: EndpointSummary) -> EndpointView {
    EndpointView {
        node: node.to_owned(),
        namespace: endpoint.namespace,
        name: endpoint.name,
        addresses: endpoint.addresses,
        interface: endpoint.interface,
        isolated_ingress: endpoint.isolated_ingress,
        isolated_egress: endpoint.isolated_egress,
        policies: endpoint.policies,
        programmed: endpoint.programmed,
        chains: endpoint.chains,
        labels: endpoint.labels,
    }
}

//! What must hold against every foreign router.

use std::sync::Arc;
use std::time::Duration;

use super::{HOLD_TIME, Implementation, Opens, Options, PATIENCE, Pair, Transport};
use crate::monitor::Watch;
use crate::wait::{eventually, throughout};
use api::control::PeerView;
use nix::sys::signal::Signal;

/// A router with graceful restart.
const GRACEFUL: Options = Options {
    graceful: true,
    node_ttl_security: false,
    router_ttl_security: false,
    node_passwords: false,
    router_password: None,
    opens: Opens::Both,
    node_abrupt: false,
};

/// Hold time, and what a loaded machine may take beyond it.
fn hold_time_and_a_bit() -> Duration {
    Duration::from_secs(u64::from(HOLD_TIME) + 3)
}

/// Each side routes to the other what the other originates, IPv4 and IPv6.
///
/// # Panics
/// When that does not hold.
pub fn routes_both_ways(implementation: Implementation, asn: u32, transport: Transport) {
    let pair = Pair::start(implementation, asn, transport);
    pair.converge();
    for peer in pair.peers() {
        assert_eq!(peer.remote_asn, asn);
        assert_eq!(peer.hold_time_seconds, u64::from(HOLD_TIME), "{}", peer.name);
        assert!(peer.accepted > 0, "{} accepted nothing", peer.name);
        assert!(peer.sent > 0, "{} was sent nothing", peer.name);
    }
}

/// A router that falls silent is given up when the hold time is over, not earlier.
///
/// # Panics
/// When that does not hold.
pub fn silent_router_expires(implementation: Implementation, asn: u32) {
    let pair = Pair::start(implementation, asn, Transport::SharedV4);
    pair.converge();
    pair.signal_router(Signal::SIGSTOP);
    // A fresh KEEPALIVE may have come just before, so nothing may happen too early either: the
    // router sends one every second.
    throughout(
        Duration::from_secs(u64::from(HOLD_TIME) - 2),
        "routes stay within the hold time",
        || pair.node_has_routes(),
    );
    eventually(hold_time_and_a_bit(), "the routes go", || pair.node_has_no_routes());
    let error = pair.peers().into_iter().find_map(|peer| peer.last_error);
    assert_eq!(error.map(|error| error.code), Some(api::error_code::HOLD_TIMER_EXPIRED));
    pair.signal_router(Signal::SIGCONT);
    pair.converge();
}

/// An agent that falls silent is given up when the hold time is over.
///
/// # Panics
/// When that does not hold.
pub fn silent_agent_expires(implementation: Implementation, asn: u32) {
    let pair = Pair::start(implementation, asn, Transport::SharedV4);
    pair.converge();
    pair.signal_agent(Signal::SIGSTOP);
    eventually(hold_time_and_a_bit(), "the router ends the session", || !pair.router_established());
    pair.signal_agent(Signal::SIGCONT);
    pair.converge();
}

/// A router that is killed and started again gets its session and routes back.
///
/// # Panics
/// When that does not hold.
pub fn router_restarts(implementation: Implementation, asn: u32) {
    let mut pair = Pair::start(implementation, asn, Transport::SharedV4);
    pair.converge();
    pair.kill_router();
    eventually(PATIENCE, "the agent sees the session end", || !pair.established());
    pair.start_router();
    pair.converge();
}

/// A router with graceful restart that is killed keeps its routes in the agent's kernel: none is
/// touched until it has told them again, and after.
///
/// # Panics
/// When that does not hold.
pub fn router_restarts_gracefully(implementation: Implementation, asn: u32, transport: Transport) {
    let mut pair = Pair::start_with(implementation, asn, transport, GRACEFUL);
    pair.converge();
    let complete = |pair: &Pair, times: u64| {
        pair.peers().iter().all(|peer| {
            peer.established_count == times
                && peer.end_of_rib == peer.families
                && peer.graceful_restart.phase == "none"
        })
    };
    eventually(PATIENCE, "the router says that this is everything", || complete(&pair, 1));
    let before = pair.peers();
    let kept = |peer: &PeerView| {
        let restart = &peer.graceful_restart;
        restart.negotiated && restart.families == peer.families && restart.wait_seconds > 0
    };
    assert!(before.iter().all(kept), "{before:?}");
    let namespace = Arc::clone(&pair.node_namespace);
    let watch = Watch::start(&namespace, &pair.directory, "ip", &["monitor", "route"]);
    pair.kill_router();
    eventually(PATIENCE, "the agent keeps the paths of a router that is away", || {
        pair.peers().iter().all(|peer| peer.graceful_restart.phase == "away")
    });
    throughout(Duration::from_secs(2), "routes stay without the router", || pair.node_has_routes());
    pair.start_router();
    eventually(PATIENCE, "the router has said everything again", || complete(&pair, 2));
    pair.converge();
    assert_eq!(watch.changes(), [""; 0], "routes were touched");
}

/// The session over a link that fails ends at once, not after the hold time, and nothing is kept.
///
/// # Panics
/// When that does not hold.
pub fn link_fails(implementation: Implementation, asn: u32) {
    let pair = Pair::start_with(implementation, asn, Transport::SharedV4, GRACEFUL);
    pair.converge();
    pair.router_namespace.ip(&["link set node down"]);
    eventually(PATIENCE, "the session is down", || !pair.established());
    let error = pair.peers().into_iter().find_map(|peer| peer.last_error).map(|e| e.message);
    assert!(error.as_deref().is_some_and(|words| words.contains("link")), "{error:?}");
    let peers = pair.peers();
    assert!(peers.iter().all(|peer| peer.graceful_restart.stale.is_empty()), "{peers:?}");
    pair.router_namespace
        .ip(&["link set node up", &format!("addr replace {}/64 dev node nodad", super::ROUTER[1])]);
    // What the router does about its own side is its affair: FRR may find its link not ready yet.
    eventually(PATIENCE, "the agent has its session and routes back", || {
        pair.established() && pair.node_has_routes()
    });
}

/// With TTL security at both ends a session comes up, over either family; with a router that sends
/// with TTL 1 it does not, and the agent says what that may be.
///
/// # Panics
/// When that does not hold.
pub fn ttl_security(implementation: Implementation, asn: u32) {
    let both = Options { node_ttl_security: true, router_ttl_security: true, ..Options::default() };
    let pair = Pair::start_with(implementation, asn, Transport::PerFamily, both);
    pair.converge();
    drop(pair);
    let ours = Options { node_ttl_security: true, ..Options::default() };
    let pair = Pair::start_with(implementation, asn, Transport::PerFamily, ours);
    // A session that hears nothing ends with the hold timer, and each side may try twice meanwhile.
    eventually(3 * PATIENCE, "the agent tells what is the matter", || {
        let problems = pair.problems();
        pair.peers().len() == 2 && problems.matches("ttlSecurity").count() >= 2
    });
    let up = |pair: &Pair| pair.peers().iter().any(|peer| peer.established_count > 0);
    assert!(!up(&pair), "{:?}", pair.peers());
}

/// An agent that is killed and started again never loses a kernel route, on either side.
///
/// # Panics
/// When that does not hold.
pub fn agent_is_killed(implementation: Implementation, asn: u32) {
    agent_restarts(implementation, asn, Pair::kill_agent);
}

/// An agent that is ended in an orderly way (an upgrade) never loses a kernel route either.
///
/// # Panics
/// When that does not hold.
pub fn agent_is_replaced(implementation: Implementation, asn: u32) {
    agent_restarts(implementation, asn, Pair::terminate_agent);
}

/// Without graceful restart a session takes its routes along, on both sides, although the router does
/// graceful restart.
///
/// # Panics
/// When that does not hold.
pub fn no_graceful_restart(implementation: Implementation, asn: u32) {
    let options = Options { node_abrupt: true, ..GRACEFUL };
    let mut pair = Pair::start_with(implementation, asn, Transport::SharedV4, options);
    pair.converge();
    assert!(pair.peers().iter().all(|peer| !peer.graceful_restart.negotiated));
    pair.kill_router();
    eventually(hold_time_and_a_bit(), "the agent drops the routes", || pair.node_has_no_routes());
    pair.start_router();
    pair.converge();
    pair.kill_agent();
    eventually(hold_time_and_a_bit(), "the router drops the routes", || !pair.router_has_routes());
}

fn agent_restarts(implementation: Implementation, asn: u32, end: impl FnOnce(&mut Pair)) {
    let mut pair = Pair::start(implementation, asn, Transport::SharedV4);
    pair.converge();
    end(&mut pair);
    // The router keeps ours because of graceful restart (RFC 4724).
    let both = |pair: &Pair| pair.node_has_routes() && pair.router_has_routes();
    throughout(Duration::from_secs(1), "routes stay without an agent", || both(&pair));
    pair.start_agent();
    // From start to session to full table neither kernel loses a route.
    let mut lost = false;
    eventually(PATIENCE, "the session is back", || {
        lost |= !both(&pair);
        pair.established() && pair.router_established()
    });
    throughout(Duration::from_secs(1), "routes stay after the restart", || both(&pair));
    assert!(!lost, "a route went while the session was coming back");
    pair.converge();
}

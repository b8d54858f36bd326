//! The whole fabric at work: BIRD and FRR as switches, four agents, eight pods.
#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use ctl::lab::converge::kernel_routes;
use ctl::lab::matrix::Probe;
use tests::lab::Lab;

/// These labs time real packets: one at a time.
static TURN: Mutex<()> = Mutex::new(());

fn my_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// `(from app, to app, port)` of a probe.
fn kind(probe: &Probe) -> (String, String, String) {
    let app = |pod: &str| {
        let (_, name) = pod.split_once('/').expect("namespace/name");
        let (app, _) = name.split_once('-').expect("app-number");
        app.to_owned()
    };
    (app(&probe.from), app(&probe.to), probe.port.clone())
}

/// What the first lines of deploy/lab/allow.yaml promise.
fn allowed(probe: &Probe) -> bool {
    match kind(probe) {
        (from, to, port) if from == "web" && to == "api" => port == "tcp/8080",
        (from, to, port) if from == "api" && to == "db" => port == "tcp/5432",
        (_, to, port) => to == "dns" && port == "udp/53",
    }
}

#[test]
fn every_pod_reaches_every_pod_over_both_tors() {
    let _turn = my_turn();
    let lab = Lab::up(&["--no-policies"]);
    for node in ["n11", "n12", "n21", "n22"] {
        for family in ["-4", "-6"] {
            let routes = kernel_routes(&lab.name().namespace(node), family).expect("routes");
            let default = routes.iter().find(|r| r.dst == "default").expect("a default route");
            assert_eq!(default.gateways().len(), 2, "{node} {family} {default:?}");
        }
    }
    let probes = lab.matrix();
    // 8 pods, 7 others, 3 ports, 2 families.
    assert_eq!(probes.len(), 8 * 7 * 3 * 2);
    let failed: Vec<_> = probes.iter().filter(|probe| !probe.connected).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn exactly_the_allowed_pairs_connect() {
    let _turn = my_turn();
    let lab = Lab::up(&[]);
    let probes = lab.matrix();
    assert_eq!(probes.len(), 8 * 7 * 3 * 2);
    let connected: BTreeSet<&Probe> = probes.iter().filter(|p| p.connected).collect();
    let expected: BTreeSet<&Probe> = probes.iter().filter(|p| allowed(p)).collect();
    let wrong: Vec<_> = connected.symmetric_difference(&expected).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(expected.len(), (3 * 2 + 2 * 2 + 7) * 2);
}

#[test]
fn switches_of_every_kind_carry_the_pods() {
    let _turn = my_turn();
    for tor in ["bird", "frr", "rampart"] {
        let lab = Lab::up(&["--no-policies", "--racks", "1", "--tor", tor]);
        let failed: Vec<_> = lab.matrix().into_iter().filter(|p| !p.connected).collect();
        assert!(failed.is_empty(), "{tor}: {failed:#?}");
    }
}

#[test]
fn a_frozen_tor_costs_no_more_than_the_hold_time() {
    let _turn = my_turn();
    let lab = Lab::up(&[]);
    let text = lab.rctl_ok(&["lab", "scenario", "tor-fail"]);
    // Flows did go over the frozen ToR: else nothing was measured.
    assert!(!text.contains("result  0 datagrams lost"), "{text}");
}

#[test]
fn wrong_input_is_named_and_disturbs_nothing_else() {
    let _turn = my_turn();
    let lab = Lab::up(&[]);
    lab.rctl_ok(&["lab", "scenario", "asn-mismatch"]);
    lab.rctl_ok(&["lab", "scenario", "bad-manifest"]);
}

#[test]
fn policies_of_the_demo_go_and_come() {
    let _turn = my_turn();
    let lab = Lab::up(&[]);
    lab.rctl_ok(&["lab", "scenario", "default-deny"]);
}
#[test]
fn a_killed_agent_costs_no_packet_no_route_and_no_rule() {
    let _turn = my_turn();
    let lab = Lab::up(&[]);
    lab.rctl_ok(&["lab", "scenario", "agent-restart"]);
}

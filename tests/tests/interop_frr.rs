//! The agent against FRR: real sockets, real kernels.

use tests::interop::Implementation::Frr;
use tests::interop::{NODE_ASN, Opens, Transport, cases, passwords};

const ROUTER_ASN: u32 = 65001;

#[test]
fn ebgp_with_both_families_over_one_ipv4_session_routes_both_ways() {
    cases::routes_both_ways(Frr, ROUTER_ASN, Transport::SharedV4);
}

#[test]
fn ebgp_with_both_families_over_one_ipv6_session_routes_both_ways() {
    cases::routes_both_ways(Frr, ROUTER_ASN, Transport::SharedV6);
}

#[test]
fn ebgp_with_a_session_for_each_family_routes_both_ways() {
    cases::routes_both_ways(Frr, ROUTER_ASN, Transport::PerFamily);
}

#[test]
fn ibgp_routes_both_ways() {
    cases::routes_both_ways(Frr, NODE_ASN, Transport::SharedV4);
}

#[test]
fn a_silent_frr_loses_its_session_and_routes_when_the_hold_time_is_over() {
    cases::silent_router_expires(Frr, ROUTER_ASN);
}

#[test]
fn a_silent_agent_loses_its_session_at_frr_when_the_hold_time_is_over() {
    cases::silent_agent_expires(Frr, ROUTER_ASN);
}

#[test]
fn a_restarted_frr_gets_its_session_and_routes_back() {
    cases::router_restarts(Frr, ROUTER_ASN);
}

#[test]
fn a_killed_agent_costs_neither_side_a_route() {
    cases::agent_is_killed(Frr, ROUTER_ASN);
}

#[test]
fn a_replaced_agent_costs_neither_side_a_route() {
    cases::agent_is_replaced(Frr, ROUTER_ASN);
}

#[test]
fn a_killed_frr_with_graceful_restart_costs_no_route_over_a_shared_session() {
    cases::router_restarts_gracefully(Frr, ROUTER_ASN, Transport::SharedV4);
}

#[test]
fn a_killed_frr_with_graceful_restart_costs_no_route_with_a_session_for_each_family() {
    cases::router_restarts_gracefully(Frr, ROUTER_ASN, Transport::PerFamily);
}

#[test]
fn a_failed_link_ends_the_session_with_frr_at_once() {
    cases::link_fails(Frr, ROUTER_ASN);
}

#[test]
fn ttl_security_lets_only_a_frr_in_that_does_the_same() {
    cases::ttl_security(Frr, ROUTER_ASN);
}

#[test]
fn a_password_signs_sessions_that_the_agent_opens() {
    passwords::same_password(Frr, ROUTER_ASN, Opens::Agent);
}

#[test]
fn a_password_signs_sessions_that_frr_opens() {
    passwords::same_password(Frr, ROUTER_ASN, Opens::Router);
}

#[test]
fn a_rotated_password_rekeys_its_session_with_frr_and_no_other() {
    passwords::password_is_rotated_and_lost(Frr, ROUTER_ASN);
}

#[test]
fn a_password_that_is_missing_or_that_frr_does_not_have_means_no_session() {
    passwords::no_session_without_a_password(Frr, ROUTER_ASN);
}

#[test]
fn without_graceful_restart_a_session_with_frr_takes_its_routes_along() {
    cases::no_graceful_restart(Frr, ROUTER_ASN);
}

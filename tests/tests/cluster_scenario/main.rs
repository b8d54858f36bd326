//! Scenarios on a real cluster with Rampart as its network. All tests of this program share one
//! cluster; each has it for itself while it runs.
//!
//! Needs root.

mod api_server;
mod input;
mod life;
mod policy;
mod reflectors;
mod service;
mod traffic;

use std::sync::MutexGuard;

use tests::cluster::{Cluster, Options, scenario};

/// Three nodes on one subnet, kube-proxy in iptables mode.
fn cluster() -> anyhow::Result<MutexGuard<'static, Cluster>> {
    scenario::shared(|| Options { nodes: 3, ..Options::of_a_test() })
}

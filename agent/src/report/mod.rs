//! What the agent tells the API server: how its node is, and what happened.
//!
//! ```text
//! Problems ----> Narrator --Happening--> Events --> event_writer --> Event
//! Core.observed -> StatusWriter ------------------------------------> NodeNetworkStatus (own)
//! readiness ----> OwnNode ------------------------------------------> Node condition (own)
//! Lease --------> Election --elected--> Leader <--all NodeNetworkStatus
//!                                         +-------------------------> conditions of our kinds
//! ```
//! Nothing else in the agent waits for any of this. A write that fails is tried again with pauses; an
//! API server that is not there, lacks a kind or refuses us costs log lines and one problem.

mod condition;
mod election;
mod event;
mod event_writer;
mod follow;
mod leader;
mod narrator;
mod node_status;
mod observed;
mod own_node;
mod pace;
mod summary;
mod trouble;

use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;

use crate::control::Core;
use crate::watchdog::Watchdog;

pub use election::LEASE;
pub use event::{Events, Happening, Severity, Subject, Subjects};
pub(crate) use observed::Observed;
pub use own_node::REASON as NODE_CONDITION_REASON;

/// Gives the client to use now: credentials can change while the agent runs.
pub type Clients = Arc<dyn Fn() -> kube::Client + Send + Sync>;

/// What reporting needs.
#[derive(Clone)]
pub struct Parts {
    /// Name of our Node.
    pub node: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// The API server.
    pub clients: Clients,
    /// The agent's own answers.
    pub core: Core,
    /// Write NodeNetworkStatus, and conditions from it.
    pub node_status: bool,
}

impl fmt::Debug for Parts {
    // Not the client: it holds the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Starts all tasks.
pub fn start(parts: &Parts, watchdog: &Watchdog) {
    let core = &parts.core;
    let trouble = trouble::Trouble::new(core.problems().clone(), core.recorder().clone());
    let (own_node, uid) = own_node::OwnNode::new(parts, trouble.clone());
    watchdog.task("the task of the own Node", own_node.run());
    let (election, elected) = election::Election::new(parts, trouble.clone(), core.views());
    watchdog.task("the election", election.run());
    let narrator = narrator::Narrator {
        node: parts.node.clone(),
        problems: core.problems().clone(),
        view: core.views(),
        leader: elected.clone(),
        events: core.events().clone(),
    };
    watchdog.task("the narrator", narrator.run());
    let writer = event_writer::Writer {
        node: parts.node.clone(),
        clients: Arc::clone(&parts.clients),
        trouble: trouble.clone(),
        events: core.events().clone(),
        seed: RandomState::new(),
    };
    watchdog.task("the writer of events", writer.run());
    if parts.node_status {
        let status = node_status::StatusWriter::new(parts, trouble.clone(), uid);
        watchdog.task("the writer of the node's status", status.run());
        let leader = leader::Leader::new(parts, trouble, elected);
        watchdog.task("the writer of conditions", leader.run());
    }
}

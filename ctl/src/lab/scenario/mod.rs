//! `rctl lab scenario`: breaks something of a lab that is up, measures what that costs, and puts
//! it right again, also when it fails or is interrupted.

mod agent_restart;
mod default_deny;
mod input;
mod tor_fail;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum as _;

use super::Name;
use super::args::ScenarioName;
use super::converge;
use super::error::LabError;
use super::flow::{Flow, Loss};
use super::preflight;
use super::progress::{Interrupt, say};
use super::state::{Lock, State};
use super::topology::Topology;
use crate::failure::{Exit, Failure};

/// Flows of each family from each client, so that every path carries some of them.
const FLOWS: usize = 4;
/// How long flows run before something breaks, and after it is over.
const CALM: Duration = Duration::from_secs(1);
/// How long a change may take to show, beyond what a timer of BGP allows for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a scenario found.
pub(super) enum Verdict {
    /// As promised.
    Kept(String),
    /// Worse than promised.
    Broken(String),
}

/// Runs one.
pub(super) fn run(lab: &Name, name: ScenarioName) -> Result<ExitCode, Failure> {
    if name == ScenarioName::List {
        list();
        return Ok(Exit::Ok.into());
    }
    preflight::privilege()?;
    let stage = Stage::open(lab)?;
    let verdict = match name {
        ScenarioName::List => return Ok(Exit::Ok.into()),
        ScenarioName::TorFail => tor_fail::run(&stage),
        ScenarioName::AgentRestart => agent_restart::run(stage),
        ScenarioName::DefaultDeny => default_deny::run(&stage),
        ScenarioName::AsnMismatch => input::asn_mismatch(&stage),
        ScenarioName::BadManifest => input::bad_manifest(&stage),
    }?;
    match verdict {
        Verdict::Kept(text) => {
            say(&format!("result  {text}"));
            Ok(Exit::Ok.into())
        }
        Verdict::Broken(text) => {
            say(&format!("result  {text}"));
            Ok(Exit::Negative.into())
        }
    }
}

fn list() {
    for scenario in ScenarioName::value_variants() {
        if let Some(value) = scenario.to_possible_value() {
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            say(&format!("{:<14} {help}", value.get_name()));
        }
    }
}

/// A lab that is up, held so that nobody else changes it meanwhile.
pub(super) struct Stage {
    pub(super) lab: Name,
    pub(super) topology: Topology,
    pub(super) state: State,
    pub(super) interrupt: Interrupt,
    _lock: Lock,
}

impl Stage {
    fn open(lab: &Name) -> Result<Self, LabError> {
        // First a look without the lock: that would make a directory where there is no lab.
        State::of_running(lab)?;
        let interrupt = Interrupt::catch()?;
        let lock = Lock::acquire(lab)?;
        let state = State::of_running(lab)?;
        let topology = Topology::new(&state.options)?;
        let stage = Self { lab: lab.clone(), topology, state, interrupt, _lock: lock };
        stage.settle()?;
        Ok(stage)
    }

    /// Says what is about to happen.
    pub(super) fn introduce(&self, what: &str, look: &str) {
        say(&format!("what    {what}"));
        say(&format!("look    {look}"));
    }

    /// Waits until the lab is whole.
    pub(super) fn settle(&self) -> Result<(), LabError> {
        converge::wait(
            &self.lab,
            &self.topology,
            &self.state,
            Duration::from_secs(30),
            &self.interrupt,
        )
    }

    /// Lets time pass.
    pub(super) fn pass(&self, time: Duration) -> Result<(), LabError> {
        converge::until(time, &self.interrupt, || Ok(false)).map(|_| ())
    }

    /// Waits for a condition, not longer than `limit`.
    pub(super) fn until(
        &self,
        limit: Duration,
        condition: impl FnMut() -> Result<bool, LabError>,
    ) -> Result<bool, LabError> {
        converge::until(limit, &self.interrupt, condition)
    }

    /// Flows that the demo application's policies allow, over every node: from one pod of every
    /// node to the DNS pod, IPv4 and IPv6.
    pub(super) fn flows(&self) -> Result<Vec<Flow>, LabError> {
        let server = self.topology.pods.iter().find(|pod| pod.app == "dns").ok_or_else(|| {
            LabError::Options("the scenario needs a lab of at least 8 pods".to_owned())
        })?;
        let mut flows = Vec::new();
        for node in self.topology.nodes.iter().filter(|n| n.name != server.node) {
            let Some(client) = self.topology.pods.iter().find(|p| p.node == node.name) else {
                continue;
            };
            for address in server.addresses() {
                flows.push(Flow::start(
                    &self.lab.namespace(&client.name),
                    &client.full_name(),
                    SocketAddr::new(address, 53),
                    FLOWS,
                ));
            }
        }
        Ok(flows)
    }
}

/// Stops the flows, prints what they lost, and returns it.
pub(super) fn finish(flows: Vec<Flow>) -> Result<Vec<Loss>, LabError> {
    flows.iter().for_each(Flow::stop);
    let losses = flows.into_iter().map(Flow::finish).collect::<Result<Vec<_>, _>>()?;
    for loss in &losses {
        say(&format!("seen    {loss}"));
    }
    Ok(losses)
}

/// Lost datagrams and the longest gap in seconds over all flows.
pub(super) fn total(losses: &[Loss]) -> (u64, f64) {
    let lost = losses.iter().map(Loss::lost).sum();
    let gap = losses.iter().map(|loss| loss.longest_gap_seconds).fold(0.0, f64::max);
    (lost, gap)
}

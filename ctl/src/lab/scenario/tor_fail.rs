//! A ToR freezes.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{CALM, PATIENCE, Stage, Verdict, finish, total};
use crate::lab::converge::kernel_routes;
use crate::lab::error::LabError;
use crate::lab::progress::say;
use crate::lab::topology::{HOLD_TIME_SECONDS, Tor};
use crate::lab::wiring;

/// Beyond the hold time: the timer's granularity and the change of the kernel's routes.
const ALLOWANCE: Duration = Duration::from_secs(1);

pub(super) fn run(stage: &Stage) -> Result<Verdict, LabError> {
    let Some(tor) = stage.topology.tors.first() else {
        return Err(LabError::Options("the lab has no ToR".to_owned()));
    };
    if stage.topology.tors.len() < 2 {
        return Err(LabError::Options("the scenario needs a lab of at least 2 ToRs".to_owned()));
    }
    stage.introduce(
        &format!(
            "{} freezes: its daemons stop and it forwards nothing, but its links stay up. \
             Nodes notice when the hold time of {HOLD_TIME_SECONDS} s is over.",
            tor.name
        ),
        &format!(
            "{} get peers; ip -n {} route show default",
            crate::lab::invocation(&stage.lab),
            stage.lab.namespace("n11")
        ),
    );
    let result = freeze_and_watch(stage, tor);
    let thawed = freeze(stage, tor, false).and_then(|()| {
        say(&format!("undo    {} runs again", tor.name));
        stage.settle()
    });
    let verdict = result?;
    thawed?;
    say("undo    all default routes are back");
    Ok(verdict)
}

fn freeze_and_watch(stage: &Stage, tor: &Tor) -> Result<Verdict, LabError> {
    let flows = stage.flows()?;
    stage.pass(CALM)?;
    freeze(stage, tor, true)?;
    let frozen = Instant::now();
    let hold = Duration::from_secs(HOLD_TIME_SECONDS.into());
    let rerouted = stage.until(hold + PATIENCE, || nobody_uses(stage, tor))?;
    if rerouted {
        say(&format!(
            "seen    no node uses {} any more after {:.1} s",
            tor.name,
            frozen.elapsed().as_secs_f64()
        ));
    }
    stage.pass(CALM)?;
    let (lost, gap) = total(&finish(flows)?);
    let text =
        format!("{lost} datagrams lost, longest gap {gap:.2} s, hold time {HOLD_TIME_SECONDS} s");
    Ok(if rerouted && gap <= (hold + ALLOWANCE).as_secs_f64() {
        Verdict::Kept(text)
    } else {
        Verdict::Broken(text)
    })
}

fn freeze(stage: &Stage, tor: &Tor, frozen: bool) -> Result<(), LabError> {
    let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
    let namespace = stage.lab.namespace(&tor.name);
    for process in &stage.state.processes {
        if process.namespace == namespace {
            process.signal(signal);
        }
    }
    wiring::forwarding(&stage.lab, &tor.name, !frozen)
}

fn nobody_uses(stage: &Stage, tor: &Tor) -> Result<bool, LabError> {
    for node in &stage.topology.nodes {
        let Some(link) = node.uplinks.iter().find(|link| link.tor == tor.name) else {
            continue;
        };
        let gateways = [link.tor_v4.to_string(), link.tor_v6.to_string()];
        for family in ["-4", "-6"] {
            let uses = kernel_routes(&stage.lab.namespace(&node.name), family)?
                .iter()
                .filter(|route| route.dst == "default")
                .any(|route| gateways.iter().any(|g| route.gateways().contains(g)));
            if uses {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

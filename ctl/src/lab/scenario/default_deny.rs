//! The policies of the demo application go and come.

use std::collections::BTreeSet;

use super::{PATIENCE, Stage, Verdict};
use crate::lab::converge;
use crate::lab::error::LabError;
use crate::lab::manifest::{self, Manifest};
use crate::lab::matrix::{self, Probe};
use crate::lab::pod_ports;
use crate::lab::progress::say;
use crate::lab::up;

pub(super) fn run(stage: &Stage) -> Result<Verdict, LabError> {
    stage.introduce(
        "every pod connects to every pod, without policies, with default-deny, and with \
         default-deny and what the application needs (deploy/lab/*.yaml).",
        &format!("{} get networkpolicy -A", crate::lab::invocation(&stage.lab)),
    );
    let result = compare(stage);
    let wanted = if stage.state.policies { manifest::policies() } else { Vec::new() };
    let restored = apply(stage, &wanted);
    let verdict = result?;
    restored?;
    say("undo    the policies are as they were");
    Ok(verdict)
}

fn compare(stage: &Stage) -> Result<Verdict, LabError> {
    let policies = manifest::policies();
    let open = probe(stage, "no policies", &[])?;
    let denied = probe(stage, "default-deny", policies.get(..1).unwrap_or_default())?;
    let allowed = probe(stage, "default-deny and allow", &policies)?;
    let expected: BTreeSet<&Probe> = allowed.iter().filter(|p| expected(p)).collect();
    let connected: BTreeSet<&Probe> = allowed.iter().filter(|p| p.connected).collect();
    for wrong in expected.symmetric_difference(&connected) {
        say(&format!(
            "seen    WRONG: {} -> {} {} ({}) {}",
            wrong.from,
            wrong.to,
            wrong.port,
            wrong.address,
            if wrong.connected { "connects" } else { "does not connect" }
        ));
    }
    let all = open.iter().all(|probe| probe.connected);
    let none = !denied.iter().any(|probe| probe.connected);
    let text = format!(
        "without policies {}, with default-deny {}, with allows exactly the application's: {}",
        if all { "all connected" } else { "NOT all connected" },
        if none { "none" } else { "NOT none" },
        if expected == connected { "yes" } else { "NO" },
    );
    Ok(if all && none && expected == connected {
        Verdict::Kept(text)
    } else {
        Verdict::Broken(text)
    })
}

/// What deploy/lab/allow.yaml says in its first lines, by hand.
fn expected(probe: &Probe) -> bool {
    let app = |pod: &str| {
        let name = pod.rsplit('/').next().unwrap_or_default();
        name.split('-').next().unwrap_or_default().to_owned()
    };
    matches!(
        (app(&probe.from).as_str(), app(&probe.to).as_str(), probe.port.as_str()),
        ("web", "api", "tcp/8080") | ("api", "db", "tcp/5432") | (_, "dns", "udp/53")
    )
}

fn probe(stage: &Stage, what: &str, policies: &[Manifest]) -> Result<Vec<Probe>, LabError> {
    apply(stage, policies)?;
    let probes = matrix::probe_all(&stage.lab, &stage.topology, &pod_ports())?;
    let connected = probes.iter().filter(|probe| probe.connected).count();
    say(&format!("seen    {what}: {connected} of {} connect", probes.len()));
    Ok(probes)
}

/// Makes exactly these policies be in force on every node.
fn apply(stage: &Stage, policies: &[Manifest]) -> Result<(), LabError> {
    let store = up::store(&stage.lab);
    for manifest in manifest::policies() {
        let path = store.join(&manifest.file);
        if policies.contains(&manifest) {
            manifest::write(&store, &manifest)?;
        } else if path.exists() {
            std::fs::remove_file(&path).map_err(LabError::file("remove", &path))?;
        }
    }
    let objects = policies
        .iter()
        .map(|manifest| manifest.text.matches("kind: NetworkPolicy").count())
        .sum::<usize>();
    let known = stage.until(PATIENCE, || {
        Ok(stage.topology.nodes.iter().all(|node| {
            converge::agent(&stage.lab, &node.name)
                .get_blocking::<Vec<api::control::PolicyView>>("/v1/networkpolicies")
                .is_ok_and(|policies| policies.len() == objects)
        }))
    })?;
    if !known {
        return Err(LabError::TimedOut {
            seconds: PATIENCE.as_secs(),
            pending: format!("agents that know {objects} policies"),
        });
    }
    stage.settle()
}

//! Input that is wrong: said clearly, and no harm to anything else.

use std::time::Duration;

use api::control::{PeerView, Problem, Status};
use api::error_code::{self, Code};

use super::{CALM, PATIENCE, Stage, Verdict, finish, total};
use crate::lab::converge;
use crate::lab::error::LabError;
use crate::lab::manifest::{self, Manifest};
use crate::lab::progress::say;
use crate::lab::topology::Node;
use crate::lab::up;

/// An AS that no ToR of the lab has.
const WRONG_ASN: u32 = 65099;

/// A peer with the wrong AS.
pub(super) fn asn_mismatch(stage: &Stage) -> Result<Verdict, LabError> {
    let node = first_node(stage)?;
    let Some(right) = manifest::peers(node, &stage.topology.tors).into_iter().next() else {
        return Err(LabError::Options("the lab has no ToR".to_owned()));
    };
    let name = right.metadata.name.clone().unwrap_or_default();
    stage.introduce(
        &format!(
            "BGPPeer {name} now says AS {WRONG_ASN}; the ToR answers with AS {}.",
            right.spec.peer_asn
        ),
        &format!("{} describe peer {name}", crate::lab::invocation(&stage.lab)),
    );
    let mut wrong = right.clone();
    wrong.spec.peer_asn = WRONG_ASN;
    let store = up::store(&stage.lab);
    manifest::write(&store, &manifest::peer_manifest(&wrong)?)?;
    let result = watch_refusal(stage, node, &name);
    let restored =
        manifest::write(&store, &manifest::peer_manifest(&right)?).and_then(|()| stage.settle());
    let verdict = result?;
    restored?;
    say(&format!("undo    BGPPeer {name} is right again, its session is up"));
    Ok(verdict)
}

fn watch_refusal(stage: &Stage, node: &Node, name: &str) -> Result<Verdict, LabError> {
    let agent = converge::agent(&stage.lab, &node.name);
    let mut seen = None;
    stage.until(PATIENCE, || {
        let peers: Vec<PeerView> = agent.get_blocking("/v1/peers").unwrap_or_default();
        seen = peers
            .iter()
            .find(|peer| peer.name == name && peer.state != "Established")
            .and_then(|peer| peer.last_error.clone())
            .filter(|error| error.code == error_code::BAD_PEER_AS);
        let others = peers.iter().filter(|peer| peer.name != name);
        let undisturbed = others.into_iter().all(|peer| peer.state == "Established");
        Ok(seen.is_some() && undisturbed)
    })?;
    Ok(match seen {
        Some(error) => {
            say(&format!("seen    error {}: {}", error.code, error.message));
            Verdict::Kept("one session is refused with its reason, the others stay up".to_owned())
        }
        None => Verdict::Broken(format!("{} does not say what is wrong", node.name)),
    })
}

/// Manifests that cannot be used.
pub(super) fn bad_manifest(stage: &Stage) -> Result<Verdict, LabError> {
    let node = first_node(stage)?;
    let bad = bad_manifests();
    stage.introduce(
        "three manifests arrive in the store: one is no YAML, one has an unknown field, one has \
         an invalid CIDR.",
        &format!("{} status", crate::lab::invocation(&stage.lab)),
    );
    let store = up::store(&stage.lab);
    let result = watch_complaints(stage, node, &bad);
    let mut removed = Ok(());
    for (manifest, _) in &bad {
        let path = store.join(&manifest.file);
        removed = removed.and(
            std::fs::remove_file(&path)
                .or_else(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })
                .map_err(LabError::file("remove", &path)),
        );
    }
    let verdict = result?;
    removed?;
    let quiet = stage.until(PATIENCE, || {
        Ok(bad.iter().all(|(manifest, code)| complaint(stage, node, manifest, *code).is_none()))
    })?;
    say(&format!(
        "undo    the manifests are removed, the complaints {}",
        if quiet { "too" } else { "are NOT" }
    ));
    Ok(if quiet {
        verdict
    } else {
        Verdict::Broken("complaints stay after their cause is gone".to_owned())
    })
}

fn watch_complaints(
    stage: &Stage,
    node: &Node,
    bad: &[(Manifest, Code)],
) -> Result<Verdict, LabError> {
    let flows = stage.flows()?;
    stage.pass(CALM)?;
    for (manifest, _) in bad {
        manifest::write(&up::store(&stage.lab), manifest)?;
    }
    let all = stage.until(PATIENCE, || {
        Ok(bad.iter().all(|(manifest, code)| complaint(stage, node, manifest, *code).is_some()))
    })?;
    for (manifest, code) in bad {
        match complaint(stage, node, manifest, *code) {
            Some(problem) => say(&format!(
                "seen    error {} {}: {} ({})",
                problem.code,
                problem.subject,
                problem.message,
                problem.location.unwrap_or_default()
            )),
            None => say(&format!("seen    nothing about {}", manifest.file)),
        }
    }
    stage.pass(Duration::from_millis(500))?;
    let (lost, _gap) = total(&finish(flows)?);
    let text = format!("each has one clear message: {all}; {lost} datagrams lost");
    Ok(if all && lost == 0 { Verdict::Kept(text) } else { Verdict::Broken(text) })
}

fn complaint(stage: &Stage, node: &Node, manifest: &Manifest, code: Code) -> Option<Problem> {
    let status: Status = converge::agent(&stage.lab, &node.name).get_blocking("/v1/status").ok()?;
    status.problems.into_iter().find(|problem| {
        let location = problem.location.as_deref().unwrap_or_default();
        problem.code == code && location.contains(&manifest.file)
    })
}

fn first_node(stage: &Stage) -> Result<&Node, LabError> {
    stage.topology.nodes.first().ok_or_else(|| LabError::Options("the lab has no node".to_owned()))
}

fn bad_manifests() -> Vec<(Manifest, Code)> {
    let manifest =
        |file: &str, text: &str| Manifest { file: file.to_owned(), text: text.to_owned() };
    vec![
        (
            manifest("bad-syntax.yaml", "apiVersion: v1\nkind: Pod\nmetadata: [\n"),
            error_code::MANIFEST_SYNTAX,
        ),
        (
            manifest(
                "bad-field.yaml",
                "apiVersion: rampart.network/v1alpha1\nkind: BGPPeer\nmetadata:\n  name: bad-field\n\
                 spec:\n  peerAdress: 10.9.9.9\n  peerAddress: 10.9.9.9\n  peerASN: 65000\n\
                 \x20 nodeSelector:\n    matchLabels:\n      none: such\n",
            ),
            error_code::UNKNOWN_FIELD,
        ),
        (
            manifest(
                "bad-cidr.yaml",
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: bad-cidr\n\
                 \x20 namespace: web\nspec:\n  podSelector:\n    matchLabels:\n      app: nobody\n\
                 \x20 ingress:\n    - from:\n        - ipBlock:\n            cidr: 10.0.0.0/33\n",
            ),
            error_code::INVALID_CIDR,
        ),
    ]
}

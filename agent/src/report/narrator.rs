//! Problems -> Events. The registry of problems is the one source of what is wrong; this task looks
//! what has changed in it.
//!
//! | problem | Event | on | told by |
//! |---|---|---|---|
//! | of a peer that is no node of the mesh | `BGPPeerDown`, `BGPPeerUp` | the Node | its agent |
//! | route or table changed by someone else | `FIBDrift`, `NftDrift` | the Node | its agent |
//! | any other of the machine | `ProblemRaised`, `ProblemResolved` | the Node | its agent |
//! | an object that is not valid | `InvalidRule`, `InvalidObject` | the object | the elected agent |
//! | a password that is not there | `SecretMissing` | the BGPPeer | the elected agent |
//!
//! Sessions of the mesh are not told: when one node dies every other would say so.

use std::collections::BTreeMap;

use api::error_code;
use bgp::config::PeerKind;
use tokio::sync::watch;
use tokio::time::{Duration, sleep};

use super::event::{Events, Happening, Severity, Subject, Subjects};
use crate::observe::Area;
use crate::observe::problems::{Problems, Standing};
use crate::reconcile::View;

/// What changes shortly after something else is told together with it.
const SETTLE: Duration = Duration::from_millis(300);

/// The task.
pub(super) struct Narrator {
    pub(super) node: String,
    pub(super) problems: Problems,
    pub(super) view: watch::Receiver<View>,
    pub(super) leader: watch::Receiver<bool>,
    pub(super) events: Events,
}

/// What was told, and how often it had happened by then.
type Told = BTreeMap<(Area, String), (Happening, u32)>;

impl Narrator {
    /// Runs until the agent ends.
    pub(super) async fn run(mut self) {
        let mut changed = self.problems.subscribe();
        let mut told = Told::new();
        loop {
            self.look(&mut told);
            tokio::select! {
                result = changed.changed() => if result.is_err() { return },
                result = self.leader.changed() => if result.is_err() { return },
            }
            sleep(SETTLE).await;
        }
    }

    fn look(&self, told: &mut Told) {
        let standing = self.problems.standing();
        let mut gone = std::mem::take(told);
        for problem in standing {
            let key = (problem.area, problem.id.clone());
            let before = gone.remove(&key);
            let Some(happening) = self.happening(&problem) else { continue };
            let news = before != Some((happening.clone(), problem.times));
            if news {
                self.events.tell(happening.clone());
            }
            told.insert(key, (happening, problem.times));
        }
        for ((area, _), (happening, _)) in gone {
            if let Some(end) = ended(area, happening) {
                self.events.tell(end);
            }
        }
    }

    /// What to say about a problem, if it is for us to say.
    fn happening(&self, problem: &Standing) -> Option<Happening> {
        let complaint = &problem.complaint;
        let node = Subject::node(&self.node);
        let about = Subject::read(&complaint.subject);
        let (subject, reason) = match problem.area {
            Area::Peer => {
                let name = complaint.subject.strip_prefix("peer ")?;
                if !self.is_explicit(name) {
                    return None;
                }
                let down = problem.id.ends_with("|session") || problem.id.ends_with("|open");
                (node, if down { "BGPPeerDown" } else { "ProblemRaised" })
            }
            Area::Route if complaint.code == error_code::ROUTE_DRIFT => (node, "FIBDrift"),
            Area::Table if complaint.code == error_code::NFT_DRIFT => (node, "NftDrift"),
            Area::Source | Area::Config | Area::Policy => match about {
                // Only one node has that address.
                Some(_) if complaint.code == error_code::OWN_ADDRESS => (node, "ProblemRaised"),
                Some(subject) if subject == node => (node, "ProblemRaised"),
                // All agents see it; one says it.
                Some(_) if !*self.leader.borrow() => return None,
                Some(subject) if subject.kind == Subjects::NetworkPolicy => {
                    (subject, "InvalidRule")
                }
                Some(subject) if complaint.code == error_code::PASSWORD_MISSING => {
                    (subject, "SecretMissing")
                }
                Some(subject) => (subject, "InvalidObject"),
                None if problem.area == Area::Policy => return None,
                None => (node, "ProblemRaised"),
            },
            _ => (node, "ProblemRaised"),
        };
        let message = format!("{}: {}", complaint.code, said(problem, subject.kind));
        // Of peers what goes wrong is one thing, however it goes wrong.
        let detail = match problem.area {
            Area::Peer => complaint.subject.clone(),
            _ => problem.id.clone(),
        };
        Some(Happening { subject, severity: Severity::Warning, reason, detail, message })
    }

    fn is_explicit(&self, name: &str) -> bool {
        let view = self.view.borrow();
        let mut peers = view.desired.iter().flat_map(|desired| &desired.config.peers);
        peers.any(|peer| peer.name == name && peer.kind != PeerKind::Mesh)
    }
}

/// What, and what next; with the name of what it is about where that is not the object itself.
fn said(problem: &Standing, kind: Subjects) -> String {
    let complaint = &problem.complaint;
    if kind == Subjects::Node {
        format!("{}: {}. {}", complaint.subject, complaint.message, complaint.next)
    } else {
        format!("{}. {}", complaint.message, complaint.next)
    }
}

/// What to say when a problem is over.
fn ended(area: Area, happening: Happening) -> Option<Happening> {
    let reason = match happening.reason {
        "BGPPeerDown" => "BGPPeerUp",
        "ProblemRaised" => "ProblemResolved",
        // A correct object is what everybody expects; drift was repaired when it was told.
        _ => return None,
    };
    let what = happening.message.split(". ").next().unwrap_or_default();
    let message = match area {
        Area::Peer => {
            let name = what.split(": ").nth(1).unwrap_or(what);
            format!("{name}: session up, or no longer configured")
        }
        _ => format!("resolved: {what}"),
    };
    Some(Happening { severity: Severity::Normal, reason, message, ..happening })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::Arc;

    use api::error_code::Code;

    use crate::config::{Desired, Reconciler};
    use crate::observe::problems::Complaint;
    use crate::source::Event;
    use crate::source::manifest::{self, Manifest};

    const OBJECTS: &str = "---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
---
apiVersion: rampart.network/v1alpha1
kind: BGPPeer
metadata: {name: tor-a}
spec: {peerAddress: 192.0.2.9, peerASN: 65001}
";

    /// A peer of the mesh, n2, and an explicit one.
    fn desired() -> Desired {
        let mut reconciler = Reconciler::new("n1", "rampart-system");
        for manifest in manifest::read(&Arc::from(Path::new("/s/f.yaml")), OBJECTS) {
            match manifest {
                Manifest::Good { object, origin } => {
                    reconciler.handle(&Event::Apply(object, Some(origin)));
                }
                Manifest::Bad { faults, .. } => panic!("{faults:?}"),
            }
        }
        reconciler.desired(&[]).0.unwrap()
    }

    struct Bench {
        narrator: Narrator,
        told: Told,
        leader: watch::Sender<bool>,
        _view: watch::Sender<View>,
    }

    fn bench() -> Bench {
        let (view_sender, view) =
            watch::channel(View { desired: Some(Arc::new(desired())), ..View::default() });
        let (leader, elected) = watch::channel(false);
        let narrator = Narrator {
            node: "n1".to_owned(),
            problems: Problems::default(),
            view,
            leader: elected,
            events: Events::default(),
        };
        Bench { narrator, told: Told::new(), leader, _view: view_sender }
    }

    impl Bench {
        fn raise(&self, area: Area, id: &str, code: Code, subject: &str) {
            let complaint = Complaint::new(code, subject, "why");
            self.narrator.problems.raise(area, id, complaint);
        }

        /// What is told now.
        async fn news(&mut self) -> Vec<String> {
            self.narrator.look(&mut self.told);
            let mut news = Vec::new();
            let soon = Duration::from_millis(20);
            while let Ok(due) = tokio::time::timeout(soon, self.narrator.events.due()).await {
                news.push(format!("{} {}", due.happening.subject, due.happening.reason));
            }
            news
        }
    }

    #[tokio::test]
    async fn sessions_of_the_mesh_are_not_told_and_explicit_ones_go_down_and_up() {
        let mut bench = bench();
        let code = error_code::PEER_UNREACHABLE;
        bench.raise(Area::Peer, "192.0.2.2|session", code, "peer n2");
        bench.raise(Area::Peer, "192.0.2.9|session", code, "peer tor-a");
        assert_eq!(bench.news().await, ["Node n1 BGPPeerDown"]);
        assert!(bench.news().await.is_empty(), "nothing new");
        bench.narrator.problems.resolve(Area::Peer, "192.0.2.9|session");
        assert_eq!(bench.news().await, ["Node n1 BGPPeerUp"]);
    }

    #[tokio::test]
    async fn what_every_agent_sees_is_told_by_the_elected_one() {
        let mut bench = bench();
        bench.raise(Area::Policy, "a", error_code::INVALID_CIDR, "NetworkPolicy shop/web");
        bench.raise(Area::Config, "b", error_code::INVALID_BGP_CONFIG, "BGPPeer tor-a");
        assert!(bench.news().await.is_empty());
        bench.leader.send_replace(true);
        let mut news = bench.news().await;
        news.sort();
        assert_eq!(news, ["BGPPeer tor-a InvalidObject", "NetworkPolicy shop/web InvalidRule"]);
        bench.narrator.problems.resolve(Area::Policy, "a");
        assert!(bench.news().await.is_empty(), "a correct policy is no news");
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_machine_is_told_by_its_own_agent() {
        let mut bench = bench();
        bench.raise(Area::Host, "a", error_code::FORWARDING_DISABLED, "host");
        assert_eq!(bench.news().await, ["Node n1 ProblemRaised"]);
        bench.narrator.problems.resolve(Area::Host, "a");
        assert_eq!(bench.news().await, ["Node n1 ProblemResolved"]);
        let complaint = Complaint::new(error_code::ROUTE_DRIFT, "route x", "repaired");
        bench.narrator.problems.note(Area::Route, "drift", complaint);
        assert_eq!(bench.news().await, ["Node n1 FIBDrift"]);
    }
}

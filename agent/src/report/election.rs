//! One agent of the cluster writes what is about all nodes: the holder of a Lease in our namespace.
//!
//! A Lease that its holder has not renewed for [`DURATION`], by our own clock since we saw it last,
//! is taken over. The first few nodes in the order of a hash look every [`RENEW`]; the others look
//! seldom, so that 5,000 of them cost the API server ten requests a second.

use std::hash::Hasher as _;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use rustc_hash::FxHasher;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::Clients;
use super::pace::{answered, jitter, spread};
use super::trouble::Trouble;
use crate::config::NodeFacts;
use crate::observe::Recorder;
use crate::observe::recorder::Write;
use crate::reconcile::View;

/// Name of the Lease.
pub const LEASE: &str = "rampart-status";
/// A Lease that was not renewed for so long is free.
pub(super) const DURATION: Duration = Duration::from_secs(40);
/// How often its holder renews it, and candidates look.
const RENEW: Duration = Duration::from_secs(10);
/// The holder gives up when it could not renew for so long: before anybody takes over.
const GIVE_UP: Duration = Duration::from_secs(30);
/// Nodes that look often.
const CANDIDATES: usize = 5;
/// All others together look so often a second.
const OTHERS_PER_SECOND: u32 = 10;

/// What is known of the Lease as somebody else's.
#[derive(Debug)]
struct Seen {
    renewed: Option<MicroTime>,
    holder: Option<String>,
    at: Instant,
}

/// The task.
pub(super) struct Election {
    node: String,
    namespace: String,
    clients: Clients,
    trouble: Trouble,
    recorder: Recorder,
    view: watch::Receiver<View>,
    leader: watch::Sender<bool>,
    seen: Option<Seen>,
    renewed: Option<Instant>,
}

impl Election {
    pub(super) fn new(
        parts: &super::Parts,
        trouble: Trouble,
        view: watch::Receiver<View>,
    ) -> (Self, watch::Receiver<bool>) {
        let (leader, receiver) = watch::channel(false);
        let task = Self {
            node: parts.node.clone(),
            namespace: parts.namespace.clone(),
            clients: parts.clients.clone(),
            trouble,
            recorder: parts.core.recorder().clone(),
            view,
            leader,
            seen: None,
            renewed: None,
        };
        (task, receiver)
    }

    pub(super) async fn run(mut self) {
        // Without Nodes it is not known how many others there are.
        if self.view.wait_for(|view| view.desired.is_some()).await.is_err() {
            return;
        }
        loop {
            let result = answered(self.round()).await;
            match result {
                Ok(false) => {
                    self.trouble.read(Write::Lease.name(), None);
                    self.renewed = None;
                }
                result => match self.trouble.wrote(Write::Lease, result) {
                    Ok(_) => self.renewed = Some(Instant::now()),
                    Err(error) => tracing::debug!(%error, "lease not renewed"),
                },
            }
            self.tell(self.renewed.is_some_and(|at| at.elapsed() < GIVE_UP));
            sleep(self.pause()).await;
        }
    }

    fn tell(&self, leads: bool) {
        self.recorder.set_leader(leads);
        self.leader.send_if_modified(|old| {
            if *old != leads {
                info!(leads, lease = LEASE, "election");
            }
            std::mem::replace(old, leads) != leads
        });
    }

    fn pause(&self) -> Duration {
        let view = self.view.borrow();
        if self.renewed.is_some() {
            return RENEW;
        }
        if is_candidate(&self.node, &view.nodes) {
            return RENEW / 2 + jitter(RENEW);
        }
        let all = spread(view.nodes.len(), OTHERS_PER_SECOND).max(DURATION);
        all / 2 + jitter(all)
    }

    /// True when the Lease is ours now.
    async fn round(&mut self) -> Result<bool, kube::Error> {
        let leases: Api<Lease> = Api::namespaced((self.clients)(), &self.namespace);
        let Some(mut lease) = leases.get_opt(LEASE).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.held(None)),
            };
            return taken(leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if !self.may_take(&spec) {
            return Ok(false);
        }
        lease.spec = Some(self.held(Some(&spec)));
        // The resourceVersion in it makes sure that nobody else was faster.
        taken(leases.replace(LEASE, &PostParams::default(), &lease).await)
    }

    fn may_take(&mut self, spec: &LeaseSpec) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.node {
            return true;
        }
        match &self.seen {
            Some(seen)
                if seen.renewed == spec.renew_time && seen.holder == spec.holder_identity =>
            {
                seen.at.elapsed() > DURATION
            }
            _ => {
                let renewed = spec.renew_time.clone();
                let holder = spec.holder_identity.clone();
                self.seen = Some(Seen { renewed, holder, at: Instant::now() });
                false
            }
        }
    }

    fn held(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let ours = old.filter(|old| old.holder_identity.as_ref() == Some(&self.node));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.node.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: ours.and_then(|old| old.acquire_time.clone()).or_else(|| now.clone()),
            renew_time: now,
            lease_transitions: Some(match (old, ours) {
                (Some(_), None) => transitions.saturating_add(1),
                _ => transitions,
            }),
            ..LeaseSpec::default()
        }
    }
}

/// Somebody else was faster: no failure.
fn taken(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// One of the first [`CANDIDATES`] nodes in the order of their hashes.
fn is_candidate(node: &str, nodes: &[NodeFacts]) -> bool {
    let rank = |name: &str| {
        let mut hasher = FxHasher::default();
        hasher.write(name.as_bytes());
        hasher.finish()
    };
    let own = rank(node);
    nodes.iter().filter(|other| rank(&other.name) < own).take(CANDIDATES).count() < CANDIDATES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_nodes_of_many_are_candidates() {
        let nodes: Vec<NodeFacts> = (0..1000)
            .map(|number| NodeFacts {
                name: format!("node-{number}"),
                labels: std::collections::BTreeMap::new(),
                addresses: vec![],
                pod_cidrs: vec![],
            })
            .collect();
        let candidates = nodes.iter().filter(|node| is_candidate(&node.name, &nodes)).count();
        assert_eq!(candidates, CANDIDATES);
        assert!(is_candidate("alone", &[]));
    }
}

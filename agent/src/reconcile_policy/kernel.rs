//! The side of the policy task towards the kernel: what is asked of it and when, and what its answers
//! mean.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::error_code;
use nix::errno::Errno;
use policy::nft::ir::Table;
use policy::nft::transaction::{ApplyError, Step, Transaction};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info};

use super::{PATIENCE, PolicyTask, Progress};
use crate::kernel::nft::{Drift, SocketError};
use crate::observe::Area;
use crate::observe::problems::Complaint;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Refusals in a row after which the whole table is replaced.
const REBUILD_AFTER: u32 = 2;
/// Refusals in a row after which the agent is not ready.
const ALARM_AFTER: u32 = 5;
/// Batches of input whose way into the kernel is measured at once; while more of them wait, the
/// rest goes unmeasured.
const MEASURED: usize = 1024;

pub(super) type Reply = Pin<Box<dyn Future<Output = Answer> + Send>>;

pub(super) enum Answer {
    Applied { id: u64, generation: u64, result: Result<(), ApplyError> },
    ReadBack(Result<Option<Table>, SocketError>),
}

impl PolicyTask {
    /// Asks the kernel for the next thing, if there is one and nothing is under way.
    pub(super) fn start_next(&mut self) {
        if self.under_way.is_some() || self.not_before.is_some() || !self.engine.in_sync() {
            return;
        }
        if !self.awaited.is_empty() || self.network_unknown {
            let until = *self.patience.get_or_insert_with(|| Instant::now() + PATIENCE);
            if until > Instant::now() {
                self.not_before = Some(until);
                return;
            }
            self.awaited.clear();
            self.network_unknown = false;
        }
        if self.unknown {
            self.engine.settle();
            let desired = Arc::new(self.engine.desired().clone());
            let writer = self.writer.clone();
            let read = async move { Answer::ReadBack(writer.readback(desired).await) };
            self.under_way = Some(Box::pin(read));
            return;
        }
        if self.gathers_until().is_some() {
            return;
        }
        match self.engine.poll_transaction() {
            Some(transaction) => {
                self.pace.spend(Instant::now());
                self.apply(transaction);
            }
            None => self.programmed(self.handled),
        }
    }

    /// Until when more changes are gathered. A pod that cannot start before its policy is there does
    /// not wait for the changes of others.
    pub(super) fn gathers_until(&self) -> Option<Instant> {
        if self.unknown || !self.waiters.is_empty() {
            return None;
        }
        self.pace.wait_until(Instant::now())
    }

    fn apply(&mut self, mut transaction: Transaction) {
        if std::mem::take(&mut self.rebuild) {
            transaction.steps.insert(0, Step::DeleteTable);
        }
        debug!(id = transaction.id, steps = transaction.steps.len(), "nft transaction");
        let (id, generation) = (transaction.id, self.handled);
        let writer = self.writer.clone();
        self.under_way = Some(Box::pin(async move {
            let result = writer.apply(Arc::new(transaction)).await;
            Answer::Applied { id, generation, result }
        }));
    }

    /// From now on it is measured how long the kernel takes. What is read before the first table is
    /// written is not: that waits for the whole cluster to be listed.
    pub(super) fn note_waiting(&mut self, generation: u64) {
        if self.progress.borrow().programmed && self.waiting.len() < MEASURED {
            self.waiting.push_back((generation, Instant::now()));
        }
    }

    fn programmed(&mut self, generation: u64) {
        while let Some((_, since)) = self.waiting.pop_front_if(|(read, _)| *read <= generation) {
            self.recorder.policy_applied(since.elapsed());
        }
        self.progress.send_if_modified(|progress| {
            let new = Progress { generation, programmed: true, alarm: None };
            std::mem::replace(progress, new.clone()) != new
        });
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::ReadBack(Ok(observed)) => {
                self.unknown = false;
                self.adopt(observed);
            }
            Answer::ReadBack(Err(error)) => self.failed(None, error.to_string()),
            Answer::Applied { id, generation, result: Ok(()) } => {
                self.engine.acknowledge(id, Ok(()));
                if self.refusals > 0 {
                    self.refusals = 0;
                    self.problems.resolve(Area::Table, "refused");
                }
                // What came in since is the next transaction's.
                self.programmed(generation);
            }
            Answer::Applied { id, result: Err(error), .. } => {
                let (errno, reason) = (error.errno, error.reason.clone());
                self.engine.acknowledge(id, Err(error));
                self.failed(Some(errno), reason);
            }
        }
    }

    fn adopt(&mut self, observed: Option<Table>) {
        let found = observed.is_some();
        let rebuild = self.refusals >= REBUILD_AFTER;
        self.rebuild = rebuild;
        let damaged = observed.as_ref() != Some(self.engine.desired());
        self.engine.adopt(if rebuild { None } else { observed });
        let Some(drift) = self.drift.take() else {
            info!(found, rebuild, "table read back");
            return;
        };
        if damaged {
            self.repaired = self.repaired.saturating_add(1);
            let who = match &drift {
                Drift::Changed { process, pid } => format!(
                    "changed by {} (pid {})",
                    process.as_deref().unwrap_or("an unknown process"),
                    pid.map_or("unknown".to_owned(), |pid| pid.to_string())
                ),
                Drift::Overrun => "changed while we could not listen".to_owned(),
            };
            let complaint = Complaint::new(error_code::NFT_DRIFT, "table inet rampart", who);
            self.problems.note(Area::Table, "drift", complaint);
        }
    }

    /// The kernel did not do what was asked.
    fn failed(&mut self, errno: Option<i32>, reason: String) {
        self.unknown = true;
        let raced = errno == Some(Errno::ERESTART as i32);
        if raced {
            debug!(%reason, "someone else changed the ruleset meanwhile");
        } else {
            self.refusals = self.refusals.saturating_add(1);
            error!(%reason, refusals = self.refusals, "kernel refused a transaction");
            let complaint =
                Complaint::new(error_code::NFT_REFUSED, "table inet rampart", reason.clone());
            self.problems.raise(Area::Table, "refused", complaint);
        }
        let doublings = self.refusals.saturating_sub(1).min(16);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
        self.not_before = Some(Instant::now() + if raced { FIRST_PAUSE / 10 } else { pause });
        if self.refusals >= ALARM_AFTER {
            self.progress.send_modify(|progress| progress.alarm = Some(reason));
        }
    }
}

/// Cancel-safe: the future stays where it is.
pub(super) async fn poll_reply(reply: &mut Option<Reply>) -> Answer {
    match reply {
        Some(reply) => reply.await,
        None => std::future::pending().await,
    }
}

pub(super) async fn pause(until: Option<Instant>) {
    if let Some(until) = until {
        sleep_until(until).await;
    }
}

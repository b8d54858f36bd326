//! ADDs that wait for the kernel.

use std::collections::BTreeMap;

use policy::engine::Engine;
use tokio::sync::oneshot;

#[derive(Debug)]
struct Waiter {
    /// What had been handled when the pod was known first.
    needed: Option<u64>,
    done: oneshot::Sender<u64>,
}

/// All of them, by attachment.
#[derive(Debug, Default)]
pub(crate) struct Waiters(BTreeMap<String, Vec<Waiter>>);

impl Waiters {
    pub(crate) fn push(&mut self, id: String, done: oneshot::Sender<u64>) {
        self.0.entry(id).or_default().push(Waiter { needed: None, done });
    }

    /// Nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nobody will get an answer for this one.
    pub(crate) fn forget(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// Answers those whose pod is known, and was so in a generation that the kernel has acknowledged.
    pub(crate) fn release(&mut self, engine: &Engine) {
        let programmed = engine.programmed_generation();
        self.0.retain(|id, waiters| {
            let known = engine.knows_pod_of(id);
            let waiting = std::mem::take(waiters).into_iter().filter_map(|mut waiter| {
                if known {
                    waiter.needed.get_or_insert(engine.generation());
                } else {
                    // Known once and not any more: what was in the kernel then does not count.
                    waiter.needed = None;
                }
                match waiter.needed {
                    Some(needed) if needed <= programmed => {
                        // Who does not wait any more has been told that it took too long.
                        waiter.done.send(needed).ok();
                        None
                    }
                    _ => (!waiter.done.is_closed()).then_some(waiter),
                }
            });
            *waiters = waiting.collect();
            !waiters.is_empty()
        });
    }
}

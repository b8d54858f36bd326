//! When an older state is the present one: etcd was restored from a backup.
//!
//! A list that is older than what was read is refused, since a replica of the API server, or a cache
//! before it, may hang behind. Our lists ask for the most recent state, though: what stays behind for
//! minutes, and goes forward all the while as a living cluster does, while nothing of any kind comes
//! in that is as new as what we have, has gone back for good.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Refusals that it takes at least: an API server that mostly does not answer proves nothing.
const REFUSALS: u32 = 5;

/// The last version that came in of each kind, and when. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<BTreeMap<String, (Instant, u64)>>>);

impl Heard {
    fn note(&self, of: &str, version: u64, now: Instant) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(of.to_owned(), (now, version));
    }

    /// Something as new as that has come in since then.
    fn has(&self, version: u64, since: Instant) -> bool {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.values().any(|(at, newest)| *at >= since && *newest >= version)
    }
}

/// How far one kind is with that.
#[derive(Debug)]
pub(super) struct Rewind {
    /// Name of the kind.
    of: String,
    heard: Heard,
    patience: Duration,
    refused: Option<Refused>,
}

/// Lists that were refused one after the other.
#[derive(Clone, Copy, Debug)]
struct Refused {
    since: Instant,
    first: u64,
    last: u64,
    times: u32,
}

impl Rewind {
    /// Lists are refused for `patience` at least.
    pub(super) fn new(of: String, heard: Heard, patience: Duration) -> Self {
        Self { of, heard, patience, refused: None }
    }

    /// A state of this version came in, and was taken.
    pub(super) fn heard(&mut self, version: u64, now: Instant) {
        self.refused = None;
        self.heard.note(&self.of, version, now);
    }

    /// A list of version `listed` was refused because `known` is newer; true if that is to end.
    pub(super) fn refuse(&mut self, listed: u64, known: u64, now: Instant) -> bool {
        let fresh = Refused { since: now, first: listed, last: listed, times: 0 };
        let refused = self.refused.get_or_insert(fresh);
        // Now this, now that: several replicas answer, and one of them may be right.
        if listed < refused.last {
            *refused = fresh;
        }
        refused.last = listed;
        refused.times = refused.times.saturating_add(1);
        let Refused { since, first, last, times } = *refused;
        let lasts = now.saturating_duration_since(since) >= self.patience && times >= REFUSALS;
        let gone_back = lasts && last > first && !self.heard.has(known, since);
        if gone_back {
            self.refused = None;
        }
        gone_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(300);

    fn rewind(heard: &Heard) -> Rewind {
        Rewind::new("Pod".to_owned(), heard.clone(), PATIENCE)
    }

    /// Whether lists of these versions, half a minute apart, are taken at last.
    fn ends(rewind: &mut Rewind, versions: &[u64], known: u64, start: Instant) -> bool {
        let mut now = start;
        versions.iter().any(|listed| {
            now += PATIENCE / 10;
            rewind.refuse(*listed, known, now)
        })
    }

    #[test]
    fn a_state_that_stays_behind_and_goes_forward_is_the_present_one() {
        let versions: Vec<u64> = (100..111).collect();
        let start = Instant::now();
        assert!(ends(&mut rewind(&Heard::default()), &versions, 1000, start));
        assert!(!ends(&mut rewind(&Heard::default()), &versions[..10], 1000, start), "not sooner");
    }

    #[test]
    fn a_replica_that_hangs_or_changes_with_another_one_never_is() {
        let start = Instant::now();
        assert!(!ends(&mut rewind(&Heard::default()), &[100; 40], 1000, start), "it hangs");
        let two: Vec<u64> = (0..40).map(|n| if n % 5 == 0 { 90 + n } else { 500 + n }).collect();
        assert!(!ends(&mut rewind(&Heard::default()), &two, 1000, start), "two replicas");
        let mut few = rewind(&Heard::default());
        assert!(!few.refuse(100, 1000, start));
        assert!(!few.refuse(101, 1000, start + 2 * PATIENCE), "two answers are no proof");
    }

    #[test]
    fn anything_as_new_as_what_is_known_says_that_the_api_server_has_it() {
        let versions: Vec<u64> = (100..140).collect();
        let start = Instant::now();
        let heard = Heard::default();
        heard.note("Node", 1000, start + PATIENCE / 2);
        assert!(!ends(&mut rewind(&heard), &versions, 1000, start));
        let before = Heard::default();
        before.note("Node", 1000, start);
        assert!(ends(&mut rewind(&before), &versions, 1000, start), "that was before");
        let older = Heard::default();
        older.note("Node", 999, start + PATIENCE / 2);
        assert!(ends(&mut rewind(&older), &versions, 1000, start), "older than ours");
    }
}

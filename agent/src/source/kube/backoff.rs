//! Pauses between tries: doubling, capped, with jitter, so that the agents of a large cluster do not
//! come back in step.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// First pause.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
pub(super) const LONGEST: Duration = Duration::from_secs(5);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Failures in a row.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// All is well.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// One more failure; how long to wait: between half of the step and all of it.
    pub(super) fn next(&mut self) -> Duration {
        let step = FIRST.saturating_mul(1_u32 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        step / 2 + jitter(step / 2)
    }
}

/// Anything from nothing to `most`.
pub(super) fn jitter(most: Duration) -> Duration {
    // Each RandomState has keys of its own: as good a source of chance as this needs.
    let chance = RandomState::new().hash_one(0_u8) % 1024;
    most.mul_f64(f64::from(u16::try_from(chance).unwrap_or_default()) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_seconds_with_jitter() {
        let mut backoff = Backoff::default();
        let mut step = FIRST;
        for _ in 0..100 {
            let pause = backoff.next();
            assert!(pause >= step / 2 && pause <= step, "{pause:?} of {step:?}");
            step = (step * 2).min(LONGEST);
        }
        assert_eq!(backoff.failures(), 100);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }

    #[test]
    fn jitter_is_spread_over_the_whole_range() {
        let most = Duration::from_millis(1000);
        let drawn: Vec<Duration> = (0..1000).map(|_| jitter(most)).collect();
        assert!(drawn.iter().all(|d| *d < most));
        let early = drawn.iter().filter(|d| **d < most / 2).count();
        assert!((350..650).contains(&early), "{early} of 1000 in the first half");
    }
}

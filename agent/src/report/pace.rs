//! When to do something again: never at once, never all nodes together.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// First pause after a failure.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST: Duration = Duration::from_secs(30);

/// A request that is not answered for so long has failed.
const ANSWER: Duration = Duration::from_secs(10);

/// The answer to a request, or the failure that there is none.
pub(super) async fn answered<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("the API server has not answered for {} s", ANSWER.as_secs());
            Err(kube::Error::Service(message.into()))
        }
    }
}

/// A random time up to this. Not for secrets.
pub(super) fn jitter(up_to: Duration) -> Duration {
    // Every RandomState is keyed anew from the operating system's randomness.
    let random = RandomState::new().build_hasher().finish() >> 33;
    let part = u32::try_from(random).unwrap_or_default();
    up_to.mul_f64(f64::from(part) / f64::from(u32::MAX >> 1)).min(up_to)
}

/// The time that all nodes of a cluster together need for one thing each, at so many a second.
pub(super) fn spread(nodes: usize, per_second: u32) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    Duration::from_secs(1).saturating_mul(nodes) / per_second.max(1)
}

/// Pauses after failures: doubling, capped, with jitter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Backoff {
    /// It failed again: wait so long.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0 / 2 + jitter(self.0 / 2);
        self.0 = self.0.saturating_mul(2).min(LONGEST);
        pause
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..10).map(|_| backoff.next()).collect();
        for (index, pause) in pauses.iter().enumerate() {
            let full = (SHORTEST * (1 << index)).min(LONGEST);
            assert!(*pause >= full / 2 && *pause <= full, "{pauses:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= SHORTEST);
    }

    #[test]
    fn jitter_stays_below_its_bound_and_differs() {
        let bound = Duration::from_secs(50);
        let some: Vec<Duration> = (0..100).map(|_| jitter(bound)).collect();
        assert!(some.iter().all(|pause| *pause <= bound));
        assert!(some.iter().any(|pause| *pause > bound / 2));
        assert!(some.iter().any(|pause| *pause < bound / 2));
    }

    #[test]
    fn many_nodes_take_their_time() {
        assert_eq!(spread(5000, 100), Duration::from_secs(50));
        assert_eq!(spread(2, 100), Duration::from_millis(20));
    }
}

//! How often the table is written.
//!
//! A change that comes alone, or with a few others, is written at once. While changes come in without
//! end, each transaction waits a little for more of them: a thousand policies that somebody applies
//! one after the other are worked out, encoded and committed fifty times a second, not a thousand
//! times in a row.

use std::time::Duration;

use tokio::time::Instant;

/// Transactions in a row that do not wait.
const BURST: u32 = 16;
/// Time after which one more need not.
const REFILL: Duration = Duration::from_millis(20);

/// A bucket of transactions that may be written at once; it is refilled with time.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the bucket was, or will be, full again.
    full: Option<Instant>,
}

impl Pace {
    /// Until when the next transaction should wait, if it should.
    pub(super) fn wait_until(&self, now: Instant) -> Option<Instant> {
        // Empty when it takes a whole burst to refill.
        let until = self.full?.checked_sub(REFILL * (BURST - 1))?;
        (until > now).then_some(until)
    }

    /// A transaction is written. One that was written without waiting as it should is not owed for
    /// longer than an empty bucket.
    pub(super) fn spend(&mut self, now: Instant) {
        let full = self.full.unwrap_or(now).max(now) + REFILL;
        self.full = Some(full.min(now + REFILL * BURST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_does_not_wait_and_what_goes_on_for_ever_does() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..BURST {
            assert_eq!(pace.wait_until(start), None);
            pace.spend(start);
        }
        assert_eq!(pace.wait_until(start), Some(start + REFILL));
        // Whoever waits as told goes on at one a refill.
        let mut now = start;
        for _ in 0..100 {
            let until = pace.wait_until(now).unwrap();
            assert_eq!(until, now + REFILL);
            now = until;
            assert_eq!(pace.wait_until(now), None);
            pace.spend(now);
        }
    }

    #[test]
    fn changes_that_come_slower_than_the_refill_never_wait() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..1000 {
            assert_eq!(pace.wait_until(now), None);
            pace.spend(now);
            now += REFILL;
        }
    }

    #[test]
    fn what_was_written_out_of_turn_holds_up_nobody_later() {
        let now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..1000 {
            pace.spend(now);
        }
        assert_eq!(pace.wait_until(now), Some(now + REFILL));
    }

    #[test]
    fn after_some_rest_a_whole_burst_is_free_again() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..3 * BURST {
            now = pace.wait_until(now).unwrap_or(now);
            pace.spend(now);
        }
        now += REFILL * BURST;
        for _ in 0..BURST {
            assert_eq!(pace.wait_until(now), None);
            pace.spend(now);
        }
        assert!(pace.wait_until(now).is_some());
    }
}

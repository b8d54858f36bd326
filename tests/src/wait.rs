//! Waiting for something that happens elsewhere.

use std::time::{Duration, Instant};

/// Waits until `condition` holds and returns how long that took.
///
/// # Panics
/// When it does not hold within `limit`.
pub fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// Asserts that `condition` holds all the time.
///
/// # Panics
/// As soon as it does not.
pub fn throughout(time: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < time {
        assert!(condition(), "no longer true after {:?}: {what}", began.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
}

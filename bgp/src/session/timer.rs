//! Timers as a table of deadlines; nobody here reads a clock.

use std::time::{Duration, Instant};

/// Hold time in OpenSent, before anything is negotiated (RFC 4271 §8.2.2).
pub const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);
/// Shortest send hold time (RFC 9687 §3.1: the greater of this and twice the hold time).
pub const MIN_SEND_HOLD_TIME: Duration = Duration::from_secs(480);
/// Longest pause between connection attempts.
pub const MAX_CONNECT_RETRY: Duration = Duration::from_secs(60);
/// Shortest time that a connection attempt gets before it is given up for another.
pub const MIN_CONNECT_TIME: Duration = Duration::from_secs(5);
/// Longest pause after errors.
pub const MAX_IDLE_HOLD: Duration = Duration::from_secs(300);
/// How long a connection that lost a collision is kept in case the winner does not come up.
pub const COLLISION_WAIT: Duration = Duration::from_secs(5);

/// The timers of one connection's FSM. IdleHold belongs to the peer as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// Pause between connection attempts, and limit for one attempt.
    ConnectRetry,
    /// Nothing heard.
    Hold,
    /// KEEPALIVE due.
    Keepalive,
    /// The peer takes no bytes (RFC 9687).
    SendHold,
    /// Pause after errors.
    IdleHold,
    /// The other connection of a collision should have won by now (not an RFC timer).
    Collision,
}

impl Timer {
    /// All timers. When several are due they fire in this order: a hold timer before a keepalive,
    /// so that a dead session does not speak once more.
    pub const ALL: [Self; 6] = [
        Self::Hold,
        Self::SendHold,
        Self::Collision,
        Self::IdleHold,
        Self::ConnectRetry,
        Self::Keepalive,
    ];
}

/// When each timer expires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deadlines {
    connect_retry: Option<Instant>,
    hold: Option<Instant>,
    keepalive: Option<Instant>,
    send_hold: Option<Instant>,
    idle_hold: Option<Instant>,
    collision: Option<Instant>,
}

impl Deadlines {
    /// When `timer` expires; `None` = not running.
    #[must_use]
    pub const fn get(&self, timer: Timer) -> Option<Instant> {
        match timer {
            Timer::ConnectRetry => self.connect_retry,
            Timer::Hold => self.hold,
            Timer::Keepalive => self.keepalive,
            Timer::SendHold => self.send_hold,
            Timer::IdleHold => self.idle_hold,
            Timer::Collision => self.collision,
        }
    }

    fn slot(&mut self, timer: Timer) -> &mut Option<Instant> {
        match timer {
            Timer::ConnectRetry => &mut self.connect_retry,
            Timer::Hold => &mut self.hold,
            Timer::Keepalive => &mut self.keepalive,
            Timer::SendHold => &mut self.send_hold,
            Timer::IdleHold => &mut self.idle_hold,
            Timer::Collision => &mut self.collision,
        }
    }

    /// (Re)starts `timer`. A zero period stops it: hold time 0 means neither hold nor keepalive
    /// timer (RFC 4271 §4.2).
    pub fn arm(&mut self, timer: Timer, now: Instant, period: Duration) {
        *self.slot(timer) = if period.is_zero() { None } else { now.checked_add(period) };
    }

    /// Stops `timer`.
    pub fn disarm(&mut self, timer: Timer) {
        *self.slot(timer) = None;
    }

    /// Stops all timers.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        Timer::ALL.into_iter().filter_map(|timer| self.get(timer)).min()
    }

    /// Takes one timer that is due, and stops it.
    pub fn expire(&mut self, now: Instant) -> Option<Timer> {
        let due = Timer::ALL
            .into_iter()
            .find(|timer| self.get(*timer).is_some_and(|deadline| deadline <= now))?;
        self.disarm(due);
        Some(due)
    }
}

/// Deterministic jitter (RFC 4271 §10): the same seed gives the same sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jitter {
    state: u64,
}

impl Jitter {
    /// A sequence of its own for each seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// `period` times a factor between 0.75 and 1.0.
    pub fn apply(&mut self, period: Duration) -> Duration {
        // 768/1024 to 1024/1024.
        let factor = 768 + u32::from(self.byte()) + u32::from(self.byte() & 1);
        period.checked_mul(factor).map_or(period, |scaled| scaled / 1024)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014), upper bits.
    fn byte(&mut self) -> u8 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [byte, ..] = (z ^ (z >> 31)).to_be_bytes();
        byte
    }
}

/// Exponential back-off: `first` for the first failure, `factor` times more for each further one,
/// never more than `cap`. No pause before the first failure.
#[must_use]
pub fn backoff(first: Duration, factor: u32, cap: Duration, failures: u32) -> Duration {
    let Some(further) = failures.checked_sub(1) else { return Duration::ZERO };
    factor.checked_pow(further).and_then(|f| first.checked_mul(f)).map_or(cap, |p| p.min(cap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "deadlines need some instant to start from")]
    fn instant() -> Instant {
        Instant::now()
    }

    #[test]
    fn back_off_doubles_up_to_its_cap() {
        let pauses = (0..7)
            .chain([u32::MAX])
            .map(|n| backoff(Duration::from_secs(5), 2, MAX_CONNECT_RETRY, n).as_secs())
            .collect::<Vec<_>>();
        assert_eq!(pauses, [0, 5, 10, 20, 40, 60, 60, 60]);
    }

    #[test]
    fn a_first_pause_above_the_cap_is_the_cap() {
        assert_eq!(backoff(Duration::from_secs(120), 2, MAX_CONNECT_RETRY, 1), MAX_CONNECT_RETRY);
    }

    #[test]
    fn jitter_stays_between_three_quarters_and_one_and_is_a_function_of_the_seed() {
        let period = Duration::from_secs(100);
        let run = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..2000).map(|_| jitter.apply(period)).collect::<Vec<_>>()
        };
        let values = run(7);
        assert!(values.iter().all(|d| (75..=100).contains(&d.as_secs())));
        assert!(values.iter().any(|d| *d < Duration::from_secs(77)));
        assert!(values.iter().any(|d| *d > Duration::from_secs(98)));
        assert_eq!(values, run(7));
        assert_ne!(values, run(8));
    }

    #[test]
    fn deadlines_give_the_earliest_and_expire_each_timer_once() {
        let now = instant();
        let mut deadlines = Deadlines::default();
        deadlines.arm(Timer::Keepalive, now, Duration::from_secs(30));
        deadlines.arm(Timer::Hold, now, Duration::from_secs(90));
        assert_eq!(deadlines.next(), Some(now + Duration::from_secs(30)));
        assert_eq!(deadlines.expire(now + Duration::from_secs(29)), None);
        let late = now + Duration::from_secs(90);
        assert_eq!(deadlines.expire(late), Some(Timer::Hold));
        assert_eq!(deadlines.expire(late), Some(Timer::Keepalive));
        assert_eq!(deadlines.expire(late), None);
        deadlines.arm(Timer::Hold, now, Duration::ZERO);
        assert_eq!(deadlines.next(), None);
    }
}

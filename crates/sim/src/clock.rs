//! Virtual time: one timeline for the world, and each node's own idea of the calendar.
//!
//! The world's timeline counts microseconds. A node sees whole milliseconds, may believe that it
//! is an hour earlier or later than it is, and its timers fire a little late, as real ones do.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use commons_port::BoxFuture;
use commons_port::time::Clock;
use commons_record::Millis;

use crate::entropy::Rng;
use crate::executor::Executor;
use crate::lock;

/// A time on the world's timeline, or a duration, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u64);

impl Micros {
    /// The beginning, and no time at all.
    pub const ZERO: Self = Self(0);

    /// A number of milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// A number of seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs.saturating_mul(1000))
    }

    /// Whole milliseconds.
    pub const fn as_millis(self) -> Millis {
        Millis(self.0 / 1000)
    }

    /// The sum, stopping at the end of time.
    #[must_use]
    pub const fn plus(self, duration: Self) -> Self {
        Self(self.0.saturating_add(duration.0))
    }
}

impl From<Millis> for Micros {
    fn from(millis: Millis) -> Self {
        Self::from_millis(millis.0)
    }
}

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Unix time when a world begins: 2026-01-01, so that epochs are counted from something.
pub const START_UNIX: Millis = Millis(1_767_225_600_000);

/// A timer is late by less than this: what a busy machine's scheduler adds.
const LATE_MAX: Micros = Micros(2_000);

/// How far a node's calendar is off, in milliseconds. Outlives the runs of the node.
pub type Skew = Arc<AtomicI64>;

/// The clocks of one node.
#[derive(Debug)]
pub struct SimClock {
    executor: Executor,
    skew: Skew,
    late: Mutex<Rng>,
}

impl SimClock {
    /// A clock whose calendar is off by `skew` and whose timers are late by what `late` draws.
    pub fn new(executor: Executor, skew: Skew, late: Rng) -> Self {
        Self { executor, skew, late: Mutex::new(late) }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Millis {
        self.executor.now().as_millis()
    }

    fn unix(&self) -> Millis {
        let right = START_UNIX.saturating_add(self.now());
        Millis(right.0.saturating_add_signed(self.skew.load(Ordering::Relaxed)))
    }

    fn sleep_until(&self, deadline: Millis) -> BoxFuture<'static, ()> {
        let late = Micros(lock(&self.late).below(LATE_MAX.0));
        Box::pin(self.executor.sleep_until(Micros::from(deadline).plus(late)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Schedule;

    fn clock(executor: &Executor, skew_ms: i64) -> SimClock {
        SimClock::new(executor.clone(), Skew::new(skew_ms.into()), Rng::new(1, "late", 0))
    }

    #[test]
    fn calendars_differ_and_jump_while_the_monotonic_clock_does_not() {
        let executor = Executor::new(1, Schedule::Shuffled);
        let (right, early) = (clock(&executor, 0), clock(&executor, -3_600_000));
        assert_eq!(right.unix().since(early.unix()), Millis(3_600_000));
        early.skew.store(5, Ordering::Relaxed);
        assert_eq!(early.unix().since(right.unix()), Millis(5));
        assert_eq!(right.now(), early.now());
    }

    #[test]
    fn a_timer_never_fires_early_and_little_late() {
        let executor = Executor::new(1, Schedule::Shuffled);
        let clock = clock(&executor, 0);
        let woken = executor.block_on(async {
            clock.sleep_until(Millis(250)).await;
            clock.now()
        });
        assert!(matches!(woken, Ok(Millis(250..=252))), "{woken:?}");
    }
}

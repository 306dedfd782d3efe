//! Whether a server lives, and when to look again: pure, with time and noise as arguments.
//!
//! ```text
//! Starting -- fine --> Up -- absent, or silent three times --> Down -- fine --> Up
//! ```
//!
//! A server that computes with all it has may be slow to say that it lives. While answers come out
//! of it, it lives.

use commons_record::Millis;

use crate::config::Limits;

/// Looks that a slow server may miss in a row.
const MISSED_MAX: u32 = 3;

/// A look at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// All is well.
    Fine,
    /// There is nobody.
    Absent,
    /// It was silent, broken or odd.
    Odd {
        /// Whether an answer of it was heard while it was looked at.
        is_heard: bool,
    },
}

/// Whether it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Starting,
    Up,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) life: Life,
    failures: u32,
}

impl Health {
    pub(crate) const fn new() -> Self {
        Self { life: Life::Starting, failures: 0 }
    }

    /// Takes a look into account; the result is the wait until the next. `noise` is random: it
    /// keeps many nodes from looking in step.
    pub(crate) fn step(&mut self, limits: &Limits, look: Look, noise: u32) -> Millis {
        self.failures = match look {
            Look::Fine | Look::Odd { is_heard: true } => 0,
            Look::Absent | Look::Odd { is_heard: false } => self.failures.saturating_add(1),
        };
        self.life = match (look, self.life) {
            (Look::Fine, _) => Life::Up,
            (Look::Odd { .. }, Life::Up) if self.failures < MISSED_MAX => Life::Up,
            (Look::Absent | Look::Odd { .. }, _) => Life::Down,
        };
        let wait = match self.failures {
            0 => limits.check_every.0,
            failures => {
                let doubled = 1_u64.checked_shl(failures - 1).unwrap_or(u64::MAX);
                limits.retry_first.0.saturating_mul(doubled).min(limits.retry_max.0)
            }
        };
        // Between three and five quarters of it.
        let share = u64::from(noise) * (wait / 2) / u64::from(u32::MAX);
        Millis(wait - wait / 4 + share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MISSED: Look = Look::Odd { is_heard: false };

    fn check(looks: &[Look], want: Life) {
        let mut health = Health::new();
        for look in looks {
            health.step(&Limits::default(), *look, 0);
        }
        assert_eq!(health.life, want, "{looks:?}");
    }

    #[test]
    fn a_slow_server_lives_and_an_absent_one_does_not() {
        check(&[], Life::Starting);
        check(&[Look::Fine], Life::Up);
        check(&[MISSED], Life::Down);
        check(&[Look::Fine, MISSED, MISSED], Life::Up);
        check(&[Look::Fine, MISSED, MISSED, MISSED], Life::Down);
        check(&[Look::Fine, MISSED, MISSED, Look::Odd { is_heard: true }, MISSED], Life::Up);
        check(&[Look::Fine, Look::Absent], Life::Down);
        check(&[Look::Fine, Look::Absent, MISSED], Life::Down);
        check(&[Look::Fine, Look::Absent, Look::Fine], Life::Up);
    }

    proptest! {
        /// However long a server is away, it is looked for again, and never in a tight loop.
        #[test]
        fn the_wait_grows_and_stays_bounded(failures in 1_u32..200, noise: u32) {
            let (limits, mut health) = (Limits::default(), Health::new());
            let mut wait = Millis(0);
            for _ in 0..failures {
                wait = health.step(&limits, Look::Absent, noise);
            }
            prop_assert!(wait.0 >= limits.retry_first.0 * 3 / 4 && wait.0 <= limits.retry_max.0 * 5 / 4);
            if failures > 8 {
                prop_assert!(wait.0 >= limits.retry_max.0 * 3 / 4);
            }
        }
    }
}

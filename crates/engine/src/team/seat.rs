//! Which processor the leading thread has, where another program wants the same.
//!
//! The thread that calls [`Team::run`](super::Team::run) does all that lies between two products.
//! Whoever takes its processor takes the time of the whole team; whoever takes a helper's takes
//! that helper's tiles. A system that shares processors fairly cannot know the difference. So where
//! the leader is kept from its processor, it takes the next one for itself and its helpers keep to
//! the others. When nothing has disturbed it for a while, all may go where the system likes.
//!
//! ```text
//! batch: begin -> (computed) -> end: share of the time that the leader ran -> Policy -> move, release
//! ```
//!
//! Not here: which tiles a late helper loses (`team.rs`). Only Linux is told anything.

use std::time::Duration;

/// The leader is kept from its processor where it runs for less of the time than this.
const SHARE_MIN: f64 = 0.9;

/// Shorter times are added up: what happened in one says nothing.
const SPAN: Duration = Duration::from_millis(20);

/// How many spans a move is given to show its effect.
const SETTLING: u32 = 4;

/// After so many spans without disturbance everybody may go where the system likes.
const CALM: u32 = 100;

/// What shall happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The leader takes another processor for itself.
    Move,
    /// Everybody may go anywhere.
    Release,
}

/// Decides, from the share of its time that the leader ran.
#[derive(Debug, Default)]
struct Policy {
    is_seated: bool,
    /// Spans since the last change.
    spans: u32,
    wall: Duration,
    ran: Duration,
}

impl Policy {
    /// A batch took `wall`, of which the leader ran for `ran`.
    fn hear(&mut self, wall: Duration, ran: Duration) -> Option<Change> {
        self.wall += wall;
        self.ran += ran;
        if self.wall < SPAN {
            return None;
        }
        let share = self.ran.as_secs_f64() / self.wall.as_secs_f64();
        (self.wall, self.ran) = (Duration::ZERO, Duration::ZERO);
        self.spans = self.spans.saturating_add(1);
        let change = if share < SHARE_MIN {
            (!self.is_seated || self.spans >= SETTLING).then_some(Change::Move)
        } else {
            (self.is_seated && self.spans >= CALM).then_some(Change::Release)
        };
        if let Some(change) = change {
            self.is_seated = change == Change::Move;
            self.spans = 0;
        }
        change
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::{Helpers, Seat};
#[cfg(not(target_os = "linux"))]
pub(super) use other::{Helpers, Seat};

#[cfg(target_os = "linux")]
mod linux {
    //! Two clocks and the masks of allowed processors.

    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use rustix::process::Pid;
    use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};
    use rustix::time::{ClockId, Timespec, clock_gettime};

    use super::{Change, Policy};

    /// The helpers of a team, as the system knows them.
    #[derive(Debug, Default)]
    pub(in crate::team) struct Helpers(Mutex<Vec<Pid>>);

    impl Helpers {
        /// The calling thread is one.
        pub(in crate::team) fn register(&self) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(gettid());
        }

        fn all(&self) -> Vec<Pid> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    /// Where the leader is, and for how long it was computing.
    #[derive(Debug, Default)]
    pub(in crate::team) struct Seat {
        policy: Policy,
        begun: Option<(Duration, Duration)>,
        /// Who leads, and where everybody was allowed before the first move.
        moved: Option<(Pid, CpuSet)>,
    }

    impl Seat {
        /// A batch begins on the calling thread, which leads.
        pub(in crate::team) fn begin(&mut self) {
            self.begun = Some(clocks());
        }

        /// It ends.
        pub(in crate::team) fn end(&mut self, helpers: &Helpers) {
            let Some((wall, ran)) = self.begun.take() else { return };
            let (wall_now, ran_now) = clocks();
            match self.policy.hear(wall_now.saturating_sub(wall), ran_now.saturating_sub(ran)) {
                Some(Change::Move) => self.take_next(&helpers.all()),
                Some(Change::Release) => self.release(&helpers.all()),
                None => {}
            }
        }

        /// The leader takes the next processor for itself, where there is one for everybody.
        pub(super) fn take_next(&mut self, helpers: &[Pid]) {
            let Ok(now) = sched_getaffinity(None) else { return };
            let (_, allowed) = self.moved.get_or_insert((gettid(), now));
            let processors: Vec<usize> =
                (0..CpuSet::MAX_CPU).filter(|&it| allowed.is_set(it)).collect();
            if processors.len() <= helpers.len() || processors.len() < 2 {
                return;
            }
            let here = sched_getcpu();
            let after = processors.iter().find(|&&it| it > here).or(processors.first());
            let Some(&next) = after else { return };
            let (mut own, mut others) = (CpuSet::new(), *allowed);
            own.set(next);
            others.unset(next);
            // Helpers first: two on one processor would keep each other from it.
            for helper in helpers {
                place(Some(*helper), &others);
            }
            place(None, &own);
        }

        /// Everybody may go where they were allowed before.
        pub(super) fn release(&mut self, helpers: &[Pid]) {
            let Some((leader, allowed)) = self.moved.take() else { return };
            for helper in helpers {
                place(Some(*helper), &allowed);
            }
            // Another thread than the one that led has nothing to give back.
            if leader == gettid() {
                place(None, &allowed);
            }
        }

        /// The team is dissolved.
        pub(in crate::team) fn leave(&mut self) {
            self.release(&[]);
        }
    }

    fn place(thread: Option<Pid>, processors: &CpuSet) {
        if let Err(error) = sched_setaffinity(thread, processors) {
            tracing::debug!(%error, "the system does not let a thread choose its processor");
        }
    }

    /// Since when is unsaid: the time, and for how long the calling thread ran.
    fn clocks() -> (Duration, Duration) {
        let read = |id| {
            let Timespec { tv_sec, tv_nsec } = clock_gettime(id);
            let (seconds, nanos) = (u64::try_from(tv_sec), u32::try_from(tv_nsec));
            Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
        };
        (read(ClockId::Monotonic), read(ClockId::ThreadCPUTime))
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    //! Systems that are told nothing.

    /// Nothing is known of helpers.
    #[derive(Debug, Default)]
    pub(in crate::team) struct Helpers;

    impl Helpers {
        pub(in crate::team) fn register(&self) {}
    }

    /// Nobody is moved.
    #[derive(Debug, Default)]
    pub(in crate::team) struct Seat;

    impl Seat {
        pub(in crate::team) fn begin(&mut self) {}

        pub(in crate::team) fn end(&mut self, _: &Helpers) {}

        pub(in crate::team) fn leave(&mut self) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hears spans of 20 ms in which the leader ran for so many, and says what came of each.
    fn check(policy: &mut Policy, spans: &[(u64, u32)], want: &[(u32, Change)]) {
        let mut changes = Vec::new();
        let mut at = 0;
        for &(ran, count) in spans {
            for _ in 0..count {
                at += 1;
                let change = policy.hear(SPAN, Duration::from_millis(ran));
                changes.extend(change.map(|it| (at, it)));
            }
        }
        assert_eq!(changes, want, "{spans:?}");
    }

    #[test]
    fn a_leader_that_is_kept_from_its_processor_moves_at_once() {
        check(&mut Policy::default(), &[(20, 5), (10, 1)], &[(6, Change::Move)]);
    }

    #[test]
    fn a_move_is_given_time_before_the_next() {
        let want = [(1, Change::Move), (5, Change::Move), (9, Change::Move)];
        check(&mut Policy::default(), &[(10, 10)], &want);
    }

    #[test]
    fn after_a_calm_time_everybody_is_released_once() {
        let want = [(1, Change::Move), (101, Change::Release)];
        check(&mut Policy::default(), &[(10, 1), (20, 300)], &want);
    }

    #[test]
    fn short_batches_are_added_up() {
        let mut policy = Policy::default();
        let (wall, ran) = (Duration::from_millis(6), Duration::from_millis(3));
        let heard: Vec<_> = (0..4).map(|_| policy.hear(wall, ran)).collect();
        assert_eq!(heard, [None, None, None, Some(Change::Move)]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn who_moved_is_allowed_everywhere_again_afterwards() {
        use rustix::thread::sched_getaffinity;
        let allowed = |it: rustix::thread::CpuSet| (0..1_024).filter(move |&cpu| it.is_set(cpu));
        let before: Vec<_> = allowed(sched_getaffinity(None).unwrap()).collect();
        let mut seat = Seat::default();
        for _ in 0..3 {
            seat.take_next(&[]);
            let now = allowed(sched_getaffinity(None).unwrap()).count();
            assert_eq!(now, 1, "of {}", before.len());
        }
        seat.leave();
        let after: Vec<_> = allowed(sched_getaffinity(None).unwrap()).collect();
        assert_eq!(after, before);
    }
}

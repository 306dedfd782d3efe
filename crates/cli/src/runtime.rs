//! The real clock, randomness and tasks behind `port`'s traits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use commons_port::BoxFuture;
use commons_port::time::{Clock, Entropy, Spawn, TaskHandle};
use commons_record::Millis;
use tracing::Instrument as _;

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RealClock {
    start: Instant,
}

impl RealClock {
    /// A clock that counts from now.
    pub(crate) fn new() -> Self {
        Self { start: instant() }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the shell that lends the clock")]
fn instant() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the shell that lends the clock")]
fn system_time() -> SystemTime {
    SystemTime::now()
}

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl Clock for RealClock {
    fn now(&self) -> Millis {
        millis(instant().duration_since(self.start))
    }

    fn unix(&self) -> Millis {
        // A clock before 1970 is wrong; zero makes it old and not new.
        millis(system_time().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    fn sleep_until(&self, deadline: Millis) -> BoxFuture<'static, ()> {
        // One beyond the end of this clock never comes; a century is as good.
        let wait = Duration::from_millis(deadline.since(self.now()).0).min(CENTURY);
        Box::pin(async move { tokio::time::sleep(wait).await })
    }
}

/// Longer than any process lives, and far from where timers overflow.
const CENTURY: Duration = Duration::from_hours(100 * 365 * 24);

/// Time that has passed, finer than a clock's milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self(instant())
    }

    /// Since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        instant().duration_since(self.0)
    }
}

/// The operating system's random numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OsEntropy;

impl Entropy for OsEntropy {
    /// # Panics
    ///
    /// If the system has no random numbers: keys and nonces must not be made without.
    fn fill(&self, buffer: &mut [u8]) {
        if let Err(error) = getrandom::fill(buffer) {
            panic!("the operating system gives no random numbers: {error}");
        }
    }
}

/// Tasks on tokio.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokioSpawn;

impl Spawn for TokioSpawn {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        let task = tokio::spawn(task.instrument(tracing::debug_span!("task", name)));
        TaskHandle::new(move || task.abort())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_stops_when_its_handle_is_dropped() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let task = Box::pin(async move {
            let _held = sender;
            std::future::pending::<()>().await;
        });
        let handle = TokioSpawn.spawn("waiting", task);
        drop(handle);
        assert!(receiver.await.is_err(), "the task must drop what it held");
    }

    #[tokio::test]
    async fn a_deadline_in_the_past_is_over_at_once() {
        let clock = RealClock::new();
        clock.sleep_until(Millis(0)).await;
        assert!(clock.unix() > Millis::from_secs(1_700_000_000));
    }
}

//! Clocks, randomness and tasks: what a runtime lends to the machines.

use commons_record::Millis;

use crate::BoxFuture;

/// Two clocks: one that only moves forward, and the calendar.
pub trait Clock: Send + Sync {
    /// Time since an arbitrary start. Never goes back; all deadlines are on this clock.
    fn now(&self) -> Millis;

    /// Unix time as this machine believes it. May be wrong, and may jump.
    fn unix(&self) -> Millis;

    /// Completes once [`Clock::now`] has reached `deadline`. Dropping it is safe.
    fn sleep_until(&self, deadline: Millis) -> BoxFuture<'static, ()>;
}

/// Unpredictable bytes.
pub trait Entropy: Send + Sync {
    /// Fills the whole buffer.
    fn fill(&self, buffer: &mut [u8]);
}

/// Draws a fixed number of unpredictable bytes.
pub fn draw<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// Runs tasks beside the caller.
pub trait Spawn: Send + Sync {
    /// Starts a task. It is stopped at its next await point when the handle is dropped.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle;
}

/// A running task; dropping the handle stops it.
#[must_use = "dropping the handle stops the task"]
pub struct TaskHandle(Option<Box<dyn FnOnce() + Send + Sync>>);

impl TaskHandle {
    /// A handle that calls `stop` when it is dropped.
    pub fn new(stop: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(stop)))
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        if let Some(stop) = self.0.take() {
            stop();
        }
    }
}

impl std::fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TaskHandle")
    }
}

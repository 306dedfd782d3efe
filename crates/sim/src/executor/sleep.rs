//! A future that completes at a time, and takes its timer with it when it is dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Core, Timer, TimerKey};
use crate::clock::Micros;
use crate::lock;

/// Completes once the executor's time has reached the deadline.
pub struct Sleep {
    core: Arc<Core>,
    deadline: Micros,
    key: Option<TimerKey>,
}

impl Sleep {
    pub(super) fn new(core: Arc<Core>, deadline: Micros) -> Self {
        Self { core, deadline, key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<()> {
        let core = Arc::clone(&self.core);
        let mut state = lock(&core.state);
        if let Some(key) = self.key.take() {
            state.timers.remove(&key);
        }
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        self.key = Some(state.set_timer(self.deadline, Timer::Wake(ctx.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            lock(&self.core.state).timers.remove(&key);
        }
    }
}

impl std::fmt::Debug for Sleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

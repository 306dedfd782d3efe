//! Running tasks, each with someone who can stop it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use commons_port::BoxFuture;
use commons_port::time::{Clock, Spawn, TaskHandle};
use commons_record::Millis;

/// A set of tasks that stops them all when it is dropped.
#[derive(Clone)]
pub(crate) struct Tasks {
    spawn: Arc<dyn Spawn>,
    running: Arc<Mutex<Running>>,
}

#[derive(Default)]
struct Running {
    next: u64,
    handles: BTreeMap<u64, TaskHandle>,
    is_stopped: bool,
}

impl Tasks {
    pub(crate) fn new(spawn: Arc<dyn Spawn>) -> Self {
        Self { spawn, running: Arc::default() }
    }

    /// Runs a task that leaves the set by itself when it ends.
    pub(crate) fn start(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        let mut running = lock(&self.running);
        if running.is_stopped {
            return;
        }
        let id = running.next;
        running.next += 1;
        let set = Arc::downgrade(&self.running);
        let task = Box::pin(async move {
            task.await;
            if let Some(set) = set.upgrade() {
                // Taken out first, dropped after the lock: dropping a handle may run code.
                let handle = lock(&set).handles.remove(&id);
                drop(handle);
            }
        });
        // The lock is held, so the task cannot look for its handle before it is there.
        let handle = self.spawn.spawn(name, task);
        running.handles.insert(id, handle);
    }

    /// Stops all tasks, and every one that is started later.
    pub(crate) fn stop(&self) {
        let handles = {
            let mut running = lock(&self.running);
            running.is_stopped = true;
            std::mem::take(&mut running.handles)
        };
        drop(handles);
    }
}

/// Locks a mutex whose data stays valid whatever panicked while it was held: no holder leaves
/// it half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of `work`, or none if it takes longer than `duration`.
pub(crate) async fn within<T>(
    clock: &dyn Clock,
    duration: Millis,
    work: impl Future<Output = T>,
) -> Option<T> {
    let timer = clock.sleep_until(clock.now().saturating_add(duration));
    tokio::select! {
        biased;
        value = work => Some(value),
        () = timer => None,
    }
}

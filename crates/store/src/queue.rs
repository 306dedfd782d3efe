//! A bounded queue from futures to a thread.
//!
//! Futures wait for room, the thread waits for work. When either end goes away the other is
//! told: jobs that are dropped answer their callers by dropping the reply channel.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Jobs that wait at the same time. Each is one small batch of one exchange, so this is far more
/// than a node serves at once; beyond it callers wait, which is the back-pressure they need.
const LEN_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    work: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Inner<T> {
    jobs: VecDeque<(T, OwnedSemaphorePermit)>,
    is_closed: bool,
}

/// The queue takes no more jobs.
#[derive(Debug)]
pub(crate) struct Closed;

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        let inner = Mutex::new(Inner { jobs: VecDeque::new(), is_closed: false });
        Self { inner, work: Condvar::new(), room: Arc::new(Semaphore::new(LEN_MAX)) }
    }

    /// Waits for room and adds a job. Jobs are taken in the order in which they found room, and
    /// waiting callers find it in the order in which they came.
    pub(crate) async fn push(&self, job: T) -> Result<(), Closed> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| Closed)?;
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(Closed);
        }
        inner.jobs.push_back((job, permit));
        drop(inner);
        self.work.notify_one();
        Ok(())
    }

    /// Blocks until there is work and takes up to `count_max` jobs; none once the queue is
    /// closed and empty.
    pub(crate) fn take(&self, count_max: usize) -> Vec<T> {
        let is_idle = |inner: &mut Inner<T>| inner.jobs.is_empty() && !inner.is_closed;
        let inner = self.work.wait_while(self.lock(), is_idle);
        let mut inner = inner.unwrap_or_else(PoisonError::into_inner);
        let count = inner.jobs.len().min(count_max);
        inner.jobs.drain(..count).map(|(job, _room)| job).collect()
    }

    /// Lets the thread finish what is queued, and nothing more.
    pub(crate) fn close(&self) {
        self.room.close();
        self.lock().is_closed = true;
        self.work.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // No code panics while it holds the lock, so there is nothing half-done in there.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the thread: if it ends, for whatever reason, nobody waits for it in vain.
#[derive(Debug)]
pub(crate) struct Consumer<T>(pub(crate) Arc<Queue<T>>);

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.0.close();
        self.0.lock().jobs.clear();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::executor::block_on;

    use super::*;

    fn full() -> Arc<Queue<usize>> {
        let queue = Arc::new(Queue::new());
        for job in 0..LEN_MAX {
            block_on(queue.push(job)).expect("there is room");
        }
        queue
    }

    #[test]
    fn a_full_queue_makes_its_callers_wait() {
        let queue = full();
        let mut waiting = Box::pin(queue.push(LEN_MAX));
        assert!(waiting.as_mut().now_or_never().is_none(), "no room");
        assert_eq!(queue.take(2), [0, 1]);
        block_on(waiting).expect("room for two");
        assert_eq!(queue.take(usize::MAX).last(), Some(&LEN_MAX));
    }

    #[test]
    fn a_closed_queue_lets_no_caller_wait_and_hands_out_what_it_has() {
        let queue = full();
        let waiting = Box::pin(queue.push(LEN_MAX));
        queue.close();
        assert!(matches!(waiting.now_or_never(), Some(Err(Closed))));
        assert_eq!(queue.take(usize::MAX).len(), LEN_MAX);
        assert!(queue.take(usize::MAX).is_empty(), "and then says that nothing comes");
    }

    /// The thread panicked with jobs queued: dropping them tells their callers.
    #[test]
    fn a_consumer_that_goes_away_takes_the_jobs_with_it() {
        let queue = Arc::new(Queue::new());
        let job = Arc::new(());
        block_on(queue.push(Arc::clone(&job))).expect("there is room");
        drop(Consumer(Arc::clone(&queue)));
        assert_eq!(Arc::strong_count(&job), 1);
        assert!(matches!(block_on(queue.push(job)), Err(Closed)));
    }
}

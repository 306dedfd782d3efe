//! Threads that do blocking work for callers who hold futures.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use commons_port::BoxFuture;
use commons_port::blobs::BlobError;
use tokio::sync::oneshot;

use crate::queue::{Consumer, Queue};

type Job = Box<dyn FnOnce() + Send>;

/// Some threads with one queue. Dropping it finishes what is queued. A job must not own the pool:
/// a thread cannot wait for itself.
pub(super) struct Pool {
    queue: Arc<Queue<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(name: &str, threads: usize) -> io::Result<Self> {
        let mut pool = Self { queue: Arc::new(Queue::new()), threads: Vec::new() };
        for _ in 0..threads {
            let jobs = Consumer(Arc::clone(&pool.queue));
            let thread = thread::Builder::new().name(name.to_owned());
            pool.threads.push(thread.spawn(move || run_until_closed(&jobs))?);
        }
        Ok(pool)
    }

    /// Queues a job. Waits while the queue is full.
    pub(super) fn start(&self, job: Job) -> BoxFuture<'static, Result<(), BlobError>> {
        let queue = Arc::clone(&self.queue);
        Box::pin(async move { queue.push(job).await.map_err(|_| closed()) })
    }

    /// Queues a job and waits for its answer. A job that is queued runs even if its caller goes.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, BlobError>> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move || {
            // A caller that went away does not want to know.
            let _ = reply.send(job());
        });
        let start = self.start(job);
        Box::pin(async move {
            start.await?;
            answer.await.unwrap_or_else(|_| Err(closed()))
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the blob store had panicked");
            }
        }
    }
}

fn run_until_closed(jobs: &Consumer<Job>) {
    loop {
        let Some(job) = jobs.0.take(1).pop() else { return };
        job();
    }
}

fn closed() -> BlobError {
    BlobError::Disk { detail: "the blob store is closed".to_owned() }
}

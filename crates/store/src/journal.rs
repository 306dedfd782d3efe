//! The journal over redb: one thread writes, two read, and callers hold futures.
//!
//! ```text
//! commit(batch) --queue--> writer: takes all that wait, one transaction, one sync, one answer each
//! get / scan    --queue--> readers: a read transaction for each question
//! ```
//!
//! # Invariants
//!
//! * A batch is answered with success only after its transaction was synced. Batches that share
//!   a transaction succeed or fail together.
//! * A batch that was answered with an error is not in the journal: see `disk` for how that is
//!   kept when a sync fails and nobody can tell what reached the disk.
//! * After an error, reads and later commits go on: redb latches itself shut on the first I/O
//!   error, so `disk` opens the file again.
//! * Order: batches are applied in the order in which their futures were first polled.
//!
//! Not here: what the tables hold; running out of time (a caller that drops its future does not
//! take back a batch that is queued).

mod disk;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use commons_port::BoxFuture;
use commons_port::journal::{Change, Entry, Journal, JournalError, Table};
use redb::{Database, DatabaseError};
use tokio::sync::oneshot;

use crate::data_dir::{DataDir, private_file};
use crate::queue::{Consumer, Queue};
use disk::{Disk, Writer};

/// Batches in one transaction: enough to share a sync among all streams of a busy node, few
/// enough that the first of them does not wait long.
const GROUP_LEN_MAX: usize = 256;

/// Two, so that a long scan does not keep a point read waiting.
const READERS: usize = 2;

/// redb's own default is a gibibyte, which belongs to the models. A node's working set is the
/// upper levels of seven small trees.
const CACHE_SIZE: usize = 32 * 1024 * 1024;

/// Why a journal did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum OpenJournalError {
    #[error("failed to open the journal {}", path.display())]
    Open { path: PathBuf, source: JournalError },

    #[error(
        "the journal {} has format {found} and this version of commons knows format {known}: \
         install a newer version, or choose another folder with `--data-dir`",
        path.display(),
        known = disk::FORMAT
    )]
    NewerFormat { path: PathBuf, found: u64 },

    #[error("failed to start a thread for the journal")]
    Thread { source: io::Error },
}

/// Durable state in a data folder. Dropping it finishes what is queued and closes the file.
#[derive(Debug)]
pub struct RedbJournal {
    commits: Arc<Queue<Commit>>,
    reads: Arc<Queue<Read>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Commit {
    changes: Vec<Change>,
    reply: oneshot::Sender<Result<(), JournalError>>,
}

#[derive(Debug)]
enum Read {
    Get {
        table: Table,
        key: Vec<u8>,
        reply: oneshot::Sender<Result<Option<Vec<u8>>, JournalError>>,
    },
    Scan {
        range: disk::Range,
        reply: oneshot::Sender<Result<Vec<Entry>, JournalError>>,
    },
}

impl RedbJournal {
    /// Opens the journal of a data folder and repairs it if the last process was killed. The
    /// folder stays locked until the journal is dropped.
    pub fn open(dir: &DataDir) -> Result<Self, OpenJournalError> {
        let path = dir.journal_path();
        let owned = dir.clone();
        Self::open_with(path.clone(), move || {
            // The file is made here and not by redb, so that only its owner may read it.
            let mut options = private_file();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.open(owned.journal_path())?;
            Database::builder().set_cache_size(CACHE_SIZE).create_file(file)
        })
    }

    /// Opens with a function that opens the database: tests put other disks under it.
    fn open_with(
        path: PathBuf,
        open: impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Result<Self, OpenJournalError> {
        let disk = Arc::new(Disk::new(Box::new(open)));
        match disk.prepare() {
            Ok(disk::FORMAT) => {}
            Ok(found) => return Err(OpenJournalError::NewerFormat { path, found }),
            Err(source) => return Err(OpenJournalError::Open { path, source }),
        }
        let (commits, reads) = (Arc::new(Queue::new()), Arc::new(Queue::new()));
        let mut journal = Self { commits, reads, threads: Vec::new() };
        let writer = Writer::new(Arc::clone(&disk));
        let commits = Consumer(Arc::clone(&journal.commits));
        journal.spawn("journal-write", move || write_until_closed(writer, &commits))?;
        for _ in 0..READERS {
            let (disk, reads) = (Arc::clone(&disk), Consumer(Arc::clone(&journal.reads)));
            journal.spawn("journal-read", move || read_until_closed(&disk, &reads))?;
        }
        Ok(journal)
    }

    fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), OpenJournalError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads.push(thread.map_err(|source| OpenJournalError::Thread { source })?);
        Ok(())
    }
}

impl Drop for RedbJournal {
    fn drop(&mut self) {
        self.commits.close();
        self.reads.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal had panicked");
            }
        }
    }
}

fn write_until_closed(mut writer: Writer, commits: &Consumer<Commit>) {
    loop {
        let group = commits.0.take(GROUP_LEN_MAX);
        if group.is_empty() {
            return;
        }
        let (batches, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|commit| (commit.changes, commit.reply)).unzip();
        let result = writer.commit(&batches);
        for reply in replies {
            // A caller that went away does not want to know.
            let _ = reply.send(result.clone());
        }
    }
}

fn read_until_closed(disk: &Disk, reads: &Consumer<Read>) {
    loop {
        let Some(read) = reads.0.take(1).pop() else { return };
        match read {
            Read::Get { table, key, reply } => {
                let _ = reply.send(disk.get(table, &key));
            }
            Read::Scan { range, reply } => {
                let _ = reply.send(disk.scan(&range));
            }
        }
    }
}

/// Queues a job and waits for its answer.
fn ask<T: Send + 'static, A: Send + 'static>(
    queue: &Arc<Queue<T>>,
    job: impl FnOnce(oneshot::Sender<Result<A, JournalError>>) -> T + Send + 'static,
) -> BoxFuture<'static, Result<A, JournalError>> {
    let queue = Arc::clone(queue);
    Box::pin(async move {
        let (reply, answer) = oneshot::channel();
        queue.push(job(reply)).await.map_err(|_| JournalError::Closed)?;
        answer.await.unwrap_or(Err(JournalError::Closed))
    })
}

impl Journal for RedbJournal {
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), JournalError>> {
        ask(&self.commits, |reply| Commit { changes, reply })
    }

    fn get(
        &self,
        table: Table,
        key: Vec<u8>,
    ) -> BoxFuture<'static, Result<Option<Vec<u8>>, JournalError>> {
        ask(&self.reads, move |reply| Read::Get { table, key, reply })
    }

    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        let range = disk::Range { table, prefix, after, limit };
        ask(&self.reads, |reply| Read::Scan { range, reply })
    }
}

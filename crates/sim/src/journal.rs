//! The journal port over a disk in memory that outlives the runs of its node.
//!
//! ```text
//! commit -> queue (in order) -> durable, or refused -> the caller is told
//!                 \-> crash: a first part of the queue is durable, the rest never was
//! ```
//!
//! # Invariants
//!
//! * A batch is durable whole or not at all, and no later batch without the earlier ones that
//!   were not refused.
//! * A caller that was told of success finds its batch after any crash. One that was not told
//!   may find it too.
//!
//! Not here: damage. A disk that lies is another fault, for `store` to find.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use commons_port::BoxFuture;
use commons_port::journal::{Change, Entry, Journal, JournalError, Table};
use futures::channel::oneshot;

use crate::clock::Micros;
use crate::entropy::Rng;
use crate::executor::Executor;
use crate::life::Life;
use crate::lock;
use crate::log::Log;

/// How long a commit takes: from a fast disk's `fsync` to a slow one's.
const COMMIT: (u64, u64) = (300, 8_000);

/// How long a read takes.
const READ: (u64, u64) = (5, 200);

/// Commits that wait at once: a node that is further ahead of its disk has lost its bounds.
const WAITING_MAX: usize = 65_536;

type Contents = BTreeMap<(Table, Vec<u8>), Vec<u8>>;
type Verdict = Result<(), JournalError>;
type Condition = Box<dyn FnMut(&[Change]) -> bool + Send>;

/// A node's disk.
pub struct Disk {
    executor: Executor,
    log: Arc<Log>,
    state: Mutex<State>,
}

struct State {
    contents: Contents,
    waiting: VecDeque<Batch>,
    next_id: u64,
    busy_until: Micros,
    is_full: bool,
    full_when: Option<Condition>,
    read_failure: Option<JournalError>,
    commits: u64,
    refusals: u64,
    rng: Rng,
}

struct Batch {
    id: u64,
    changes: Vec<Change>,
    done: oneshot::Sender<Verdict>,
}

impl State {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            let key = (change.table, change.key);
            match change.value {
                Some(value) => self.contents.insert(key, value),
                None => self.contents.remove(&key),
            };
        }
        self.commits += 1;
    }

    fn judge(&mut self, changes: &[Change]) -> Verdict {
        if let Some(condition) = &mut self.full_when
            && condition(changes)
        {
            (self.is_full, self.full_when) = (true, None);
        }
        if self.is_full {
            self.refusals += 1;
            return Err(JournalError::Full { detail: "simulated".to_owned() });
        }
        Ok(())
    }
}

impl Disk {
    /// An empty disk.
    pub fn new(executor: Executor, log: Arc<Log>, rng: Rng) -> Arc<Self> {
        let state = State {
            contents: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_id: 0,
            busy_until: Micros::ZERO,
            is_full: false,
            full_when: None,
            read_failure: None,
            commits: 0,
            refusals: 0,
            rng,
        };
        Arc::new(Self { executor, log, state: Mutex::new(state) })
    }

    /// From now on, commits find the disk full, or find room again.
    pub fn set_full(&self, is_full: bool) {
        let mut state = lock(&self.state);
        state.full_when = None;
        state.is_full = is_full;
    }

    /// The disk is full from the first batch on for which `condition` holds, that one included.
    pub fn set_full_when(&self, condition: impl FnMut(&[Change]) -> bool + Send + 'static) {
        lock(&self.state).full_when = Some(Box::new(condition));
    }

    /// Whether commits find the disk full.
    pub fn is_full(&self) -> bool {
        lock(&self.state).is_full
    }

    /// From now on, reads fail, or work again.
    pub fn set_read_failure(&self, failure: Option<JournalError>) {
        lock(&self.state).read_failure = failure;
    }

    /// How many batches became durable.
    pub fn commits(&self) -> u64 {
        lock(&self.state).commits
    }

    /// How many batches were refused.
    pub fn refusals(&self) -> u64 {
        lock(&self.state).refusals
    }

    /// What is durable in a table now, in key order.
    pub fn table(&self, table: Table) -> Vec<Entry> {
        let state = lock(&self.state);
        let range = state.contents.range((table, Vec::new())..);
        let of_table = range.take_while(|((found, _), _)| *found == table);
        of_table.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }

    /// Changes what is durable behind the node's back: to show that somebody notices.
    pub fn tamper(&self, changes: Vec<Change>) {
        lock(&self.state).apply(changes);
    }

    /// The crash of the node: of what waits, a first part is durable and the rest never was.
    pub(crate) fn crash(&self) {
        let mut state = lock(&self.state);
        let waiting = std::mem::take(&mut state.waiting);
        let durable = state.rng.index(waiting.len() + 1);
        let mut rest = Vec::new();
        for (index, batch) in waiting.into_iter().enumerate() {
            let verdict = state.judge(&batch.changes);
            if index < durable && verdict.is_ok() {
                state.apply(batch.changes);
            }
            rest.push(batch.done);
        }
        state.busy_until = self.executor.now();
        drop(state);
        // Nobody is told: the tasks that would listen are gone with their node.
        drop(rest);
    }

    /// Queues a batch; the result tells how it went.
    fn queue(
        self: &Arc<Self>,
        life: &Arc<Life>,
        changes: Vec<Change>,
    ) -> oneshot::Receiver<Verdict> {
        let (done, told) = oneshot::channel();
        let mut state = lock(&self.state);
        assert!(state.waiting.len() < WAITING_MAX, "{WAITING_MAX} commits without a pause");
        let id = state.next_id;
        state.next_id += 1;
        let time = Micros(state.rng.within(COMMIT.0, COMMIT.1));
        state.busy_until = state.busy_until.max(self.executor.now()).plus(time);
        let at = state.busy_until;
        state.waiting.push_back(Batch { id, changes, done });
        drop(state);
        let (disk, life) = (Arc::clone(self), Arc::clone(life));
        self.executor.schedule(at, move || disk.finish(&life, id));
        told
    }

    /// Makes the oldest batch durable or refuses it. Its caller is told a moment later, so that
    /// a crash can fall in between.
    fn finish(self: &Arc<Self>, life: &Life, id: u64) {
        let mut state = lock(&self.state);
        // A crash took the queue: what this would have finished is decided.
        if !life.is_alive() || state.waiting.front().is_none_or(|batch| batch.id != id) {
            return;
        }
        let Some(batch) = state.waiting.pop_front() else { return };
        let verdict = state.judge(&batch.changes);
        let count = batch.changes.len();
        if verdict.is_ok() {
            state.apply(batch.changes);
        }
        let moment = Micros(state.rng.below(300));
        drop(state);
        let what = if verdict.is_ok() { "disk.committed" } else { "disk.refused" };
        self.log.note(Some(life.node), what, format_args!("{count} changes"));
        let done = batch.done;
        self.executor.schedule(self.executor.now().plus(moment), move || {
            // A caller that went away does not hear it.
            let _ = done.send(verdict);
        });
    }

    async fn pause_to_read(&self) -> Verdict {
        let time = Micros(lock(&self.state).rng.within(READ.0, READ.1));
        self.executor.sleep(time).await;
        lock(&self.state).read_failure.clone().map_or(Ok(()), Err)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Vec<Entry> {
        let state = lock(&self.state);
        let from = match after {
            Some(after) if after.as_slice() >= prefix => Bound::Excluded((table, after)),
            Some(_) | None => Bound::Included((table, prefix.to_vec())),
        };
        let range = state.contents.range((from, Bound::Unbounded));
        let fitting =
            range.take_while(|((found, key), _)| *found == table && key.starts_with(prefix));
        fitting.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("commits", &self.commits()).finish_non_exhaustive()
    }
}

/// A node's disk, opened by one run of it.
#[derive(Debug)]
pub struct SimJournal {
    disk: Arc<Disk>,
    life: Arc<Life>,
}

impl SimJournal {
    /// Opens a disk.
    pub fn new(disk: Arc<Disk>, life: Arc<Life>) -> Self {
        Self { disk, life }
    }
}

impl Journal for SimJournal {
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), JournalError>> {
        let (disk, life) = (Arc::clone(&self.disk), Arc::clone(&self.life));
        Box::pin(async move {
            if !life.is_alive() {
                return Err(JournalError::Closed);
            }
            disk.queue(&life, changes).await.unwrap_or(Err(JournalError::Closed))
        })
    }

    fn get(
        &self,
        table: Table,
        key: Vec<u8>,
    ) -> BoxFuture<'static, Result<Option<Vec<u8>>, JournalError>> {
        let disk = Arc::clone(&self.disk);
        Box::pin(async move {
            disk.pause_to_read().await?;
            Ok(lock(&disk.state).contents.get(&(table, key)).cloned())
        })
    }

    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        let disk = Arc::clone(&self.disk);
        Box::pin(async move {
            disk.pause_to_read().await?;
            Ok(disk.scan(table, &prefix, after, limit))
        })
    }
}

#[cfg(test)]
mod tests;

//! A few threads that compute one matrix together, and do not wait for one that was taken away.
//!
//! ```text
//! run(tiles, work):  every thread claims the next tile until none is left
//! tile:              open -> (computed into a scratch of the thread) -> writing -> done
//! ```
//!
//! A desktop's owner may take a core at any time, and with it the thread that runs there, in the
//! middle of a tile. Waiting for it costs a time slice per product: milliseconds against
//! microseconds. So nobody waits. The thread that called [`Team::run`] computes an unfinished tile
//! once more, and whoever finishes first writes it; both computed the same bits. The one who comes
//! back late finds its tile done and its work thrown away. It may still *read* what the job reads,
//! so a job owns all that (`Arc`s in its closure).
//!
//! # Invariants
//!
//! * Each tile is written by one thread, once.
//! * [`Team::run`] returns when all tiles are written, and no thread writes after that.
//! * Helpers spin for some ten microseconds, then sleep: an idle team costs nothing.
//! * A helper that takes no part ([`Team::take_part`]) sleeps until it does: its core is free.
//! * A panic in a job reaches the caller of [`Team::run`].
//!
//! JUSTIFICATION: tiles of one matrix are written in place by several threads. The safe form, a
//! lock or a buffer of its own for every tile, costs a second pass over every product.
//!
//! Not here: what a tile computes (`forward`).
#![allow(unsafe_code, reason = "see JUSTIFICATION above")]

mod seat;
mod tiles;

#[cfg(test)]
mod tests;

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use commons_kernels::Isa;
use commons_kernels::attend;

use seat::{Helpers, Seat};
pub use tiles::{Tile, Tiles};

/// How often a helper looks for work before it sleeps: about 30 microseconds, longer than the
/// caller takes between two products.
const SPINS: u32 = 1_500;

/// Computes a tile: its rows and columns, its values (row by row), and room to work in.
type Work = Box<dyn Fn(&Tile, &mut [f32], &mut Bench) + Send + Sync>;

/// Room to work in: what a thread keeps from tile to tile.
#[derive(Debug, Default)]
pub struct Bench {
    /// Numbers, of any length and value.
    pub numbers: Vec<f32>,
    /// What attention keeps between its splits.
    pub attend: attend::Scratch,
}

/// Nobody has written the tile.
const OPEN: u8 = 0;
/// One thread is writing the tile.
const WRITING: u8 = 1;
/// The tile is written.
const DONE: u8 = 2;

/// The threads that compute a model.
#[derive(Debug)]
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// How many threads take part in the next job, the caller among them.
    members: usize,
    isa: Isa,
    scratch: Scratch,
    /// Buffers of earlier outputs.
    spare: Vec<Vec<f32>>,
    seat: Seat,
}

/// Buffers that are kept for the next output. A layer has no more in use at once.
const SPARE_MAX: usize = 8;

#[derive(Debug, Default)]
struct Scratch {
    values: Vec<f32>,
    bench: Bench,
}

#[derive(Debug, Default)]
struct Shared {
    board: Mutex<Board>,
    bell: Condvar,
    /// Wakes those who took no part in the jobs before.
    rest_bell: Condvar,
    /// A copy of the board's number that can be watched without the lock.
    posted: AtomicU64,
    is_closed: AtomicBool,
    helpers: Helpers,
}

/// Where the job of the moment hangs.
#[derive(Debug, Default)]
struct Board {
    job: Option<Arc<Job>>,
    sleepers: usize,
    /// Threads that took part in the last job.
    members: usize,
    /// Helpers that took no part in it, and sleep until they do.
    resting: usize,
}

struct Job {
    /// Threads of a lower number than this take part; the caller has number 0.
    members: usize,
    work: Work,
    tiles: Tiles,
    next: AtomicUsize,
    /// Tiles that are not done.
    left: AtomicUsize,
    states: Box<[AtomicU8]>,
    output: UnsafeCell<Vec<f32>>,
    has_panicked: AtomicBool,
}

// SAFETY: everything but `output` is `Sync` by itself. `output` is written by `Job::put`, which
// admits one thread to each tile and tiles do not overlap; it is taken by `Job::into_output` after
// all tiles are done, when `put` admits nobody any more.
unsafe impl Sync for Job {}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("tiles", &self.tiles)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Team {
    /// A team of the calling thread and `threads - 1` helpers.
    pub fn new(threads: usize, isa: Isa) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut team = Self {
            shared,
            helpers: Vec::new(),
            members: threads.max(1),
            isa,
            scratch: Scratch::default(),
            spare: Vec::new(),
            seat: Seat::default(),
        };
        for index in 1..threads.max(1) {
            let shared = Arc::clone(&team.shared);
            let helper = std::thread::Builder::new().name(format!("engine helper {index}"));
            team.helpers.push(helper.spawn(move || help(&shared, index))?);
        }
        Ok(team)
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        self.members
    }

    /// From now on so many threads compute, of those that there are. What they compute is the same.
    pub fn take_part(&mut self, members: usize) {
        self.members = members.clamp(1, self.helpers.len() + 1);
    }

    /// What they compute with.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The calling thread leads the team through a batch: many products, and all between them.
    pub fn lead<T>(&mut self, batch: impl FnOnce(&mut Self) -> T) -> T {
        self.seat.begin();
        let result = batch(self);
        self.seat.end(&self.shared.helpers);
        result
    }

    /// Computes a matrix of `tiles.row_count()` rows, tile by tile.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub fn run(
        &mut self,
        tiles: Tiles,
        work: impl Fn(&Tile, &mut [f32], &mut Bench) + Send + Sync + 'static,
    ) -> Vec<f32> {
        let output = self.buffer(tiles.value_count());
        let job = Arc::new(Job::new(self.members, tiles, (output, Box::new(work))));
        let is_shared = job.states.len() > 1 && self.members > 1;
        if is_shared {
            self.shared.post(Arc::clone(&job));
        }
        let mut patience = Duration::ZERO;
        let mut started = now();
        while let Some(index) = job.claim() {
            job.compute(index, &mut self.scratch);
            let ended = now();
            patience = ended - started;
            started = ended;
        }
        job.finish(patience, &mut self.scratch);
        if is_shared {
            self.shared.clear();
        }
        job.take_output()
    }

    /// A buffer of `len` numbers of any value.
    fn buffer(&mut self, len: usize) -> Vec<f32> {
        let fitting = self.spare.iter().position(|spare| spare.capacity() >= len);
        let mut buffer = fitting.map_or_else(Vec::new, |index| self.spare.swap_remove(index));
        buffer.resize(len, 0.0);
        buffer
    }

    /// Takes back what [`Self::run`] returned, for a later output. Something that a late helper
    /// still reads is left to it.
    pub fn reuse(&mut self, buffer: Arc<Vec<f32>>) {
        if let Ok(buffer) = Arc::try_unwrap(buffer)
            && self.spare.len() < SPARE_MAX
        {
            self.spare.push(buffer);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.seat.leave();
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.shared.posted.fetch_add(1, Ordering::SeqCst);
        drop(self.shared.lock());
        self.shared.bell.notify_all();
        self.shared.rest_bell.notify_all();
        for helper in self.helpers.drain(..) {
            // A panic in it was reported by the job in which it happened.
            let _ = helper.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Board> {
        // The board holds no invariant that a panic could break half-way.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, job: Arc<Job>) {
        let mut board = self.lock();
        // Who rests was left out of the job before: a smaller job needs none of them either.
        let wakes = board.resting > 0 && job.members > board.members;
        board.members = job.members;
        board.job = Some(job);
        self.posted.fetch_add(1, Ordering::SeqCst);
        let sleepers = board.sleepers;
        drop(board);
        if sleepers > 0 {
            self.bell.notify_all();
        }
        if wakes {
            self.rest_bell.notify_all();
        }
    }

    fn clear(&self) {
        self.lock().job = None;
    }

    /// The job behind those that `seen` counts, for the helper of this number. `None` if the team
    /// is dissolved.
    fn next(&self, seen: &mut u64, index: usize) -> Option<Arc<Job>> {
        loop {
            let mut spins = 0;
            while self.posted.load(Ordering::SeqCst) == *seen && spins < SPINS {
                std::hint::spin_loop();
                spins += 1;
            }
            let mut board = self.lock();
            while self.posted.load(Ordering::SeqCst) == *seen {
                board.sleepers += 1;
                board = self.bell.wait(board).unwrap_or_else(PoisonError::into_inner);
                board.sleepers -= 1;
            }
            while index >= board.members && !self.is_closed.load(Ordering::SeqCst) {
                board.resting += 1;
                board = self.rest_bell.wait(board).unwrap_or_else(PoisonError::into_inner);
                board.resting -= 1;
            }
            *seen = self.posted.load(Ordering::SeqCst);
            if self.is_closed.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(job) = &board.job {
                return Some(Arc::clone(job));
            }
        }
    }
}

impl Job {
    fn new(members: usize, tiles: Tiles, (output, work): (Vec<f32>, Work)) -> Self {
        let count = tiles.len();
        Self {
            members,
            work,
            tiles,
            next: AtomicUsize::new(0),
            left: AtomicUsize::new(count),
            states: (0..count).map(|_| AtomicU8::new(OPEN)).collect(),
            output: UnsafeCell::new(output),
            has_panicked: AtomicBool::new(false),
        }
    }

    /// The next tile that nobody has begun.
    fn claim(&self) -> Option<usize> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.states.len()).then_some(index)
    }

    /// Computes a tile and writes it, unless somebody was faster.
    fn compute(&self, index: usize, scratch: &mut Scratch) {
        let tile = self.tiles.get(index);
        let len = tile.rows.len() * tile.columns.len();
        if scratch.values.len() < len {
            scratch.values.resize(len, 0.0);
        }
        let values = &mut scratch.values[..len];
        (self.work)(&tile, values, &mut scratch.bench);
        self.put(index, &tile, values);
    }

    fn put(&self, index: usize, tile: &Tile, values: &[f32]) {
        let state = &self.states[index];
        let admitted =
            state.compare_exchange(OPEN, WRITING, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !admitted {
            return;
        }
        let (stride, width) = (self.tiles.column_count(), tile.columns.len());
        assert_eq!(values.len(), tile.rows.len() * width, "a tile has all its values");
        // SAFETY: the vector itself is not touched while a tile is open (`take_output`), so its
        // pointer and length are stable.
        let output = unsafe { (*self.output.get()).as_mut_ptr() };
        for (row, from) in tile.rows.clone().zip(values.chunks_exact(width.max(1))) {
            let at = row * stride + tile.columns.start;
            // SAFETY: the output has `row_count * column_count` numbers and the tile lies inside
            // (`Tiles` makes no other). Tiles do not overlap, and the exchange above admits one
            // thread to each, so nobody else writes here, and nobody reads before `left` is zero.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), output.add(at), width) };
        }
        state.store(DONE, Ordering::Release);
        self.left.fetch_sub(1, Ordering::Release);
    }

    /// Waits until all tiles are done: a little, then computes what others have not finished.
    fn finish(&self, patience: Duration, scratch: &mut Scratch) {
        let started = now();
        while self.left.load(Ordering::Acquire) > 0 {
            assert!(!self.has_panicked.load(Ordering::Relaxed), "a helper panicked in a job");
            if started.elapsed() < patience {
                std::hint::spin_loop();
                continue;
            }
            let open = |state: &AtomicU8| state.load(Ordering::Relaxed) == OPEN;
            match self.states.iter().position(open) {
                Some(index) => self.compute(index, scratch),
                None => std::hint::spin_loop(),
            }
        }
    }

    fn take_output(&self) -> Vec<f32> {
        assert_eq!(self.left.load(Ordering::Acquire), 0, "all tiles are done");
        // SAFETY: every tile is done, so `put` admits no thread any more; the load above makes
        // what they wrote visible. Only the caller of `Team::run` gets here, once for each job.
        unsafe { std::mem::take(&mut *self.output.get()) }
    }
}

/// What a helper does until the team is dissolved.
fn help(shared: &Shared, index: usize) {
    shared.helpers.register();
    let (mut seen, mut scratch) = (0, Scratch::default());
    while let Some(job) = shared.next(&mut seen, index) {
        let all = AssertUnwindSafe(|| {
            while let Some(index) = job.claim() {
                job.compute(index, &mut scratch);
            }
        });
        if catch_unwind(all).is_err() {
            job.has_panicked.store(true, Ordering::Relaxed);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long to wait for a helper: results are the same"
)]
fn now() -> Instant {
    Instant::now()
}

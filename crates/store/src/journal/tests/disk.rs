//! A disk in memory that fills up, fails when told to, and loses what was not synced.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// What survives a power failure is decided piece by piece, as on a real disk.
const SECTOR: usize = 512;

/// A repeatable source of chance.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*: good enough to choose what breaks.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound
    }
}

#[derive(Debug, Default)]
pub(super) struct Medium(Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// What a reader sees.
    pub(super) bytes: Vec<u8>,
    /// What syncs made safe.
    synced: Vec<u8>,
    /// Sectors that the next sync makes safe. A sync that fails forgets them, as Linux does: what
    /// a reader sees of them is never written unless somebody writes it again.
    dirty: BTreeSet<usize>,
    /// The file cannot be set longer than this.
    len_max: Option<usize>,
    /// Nothing beyond this has room, though the file may be longer.
    room: Option<usize>,
    pub(super) syncs: u64,
    /// The sync after this many fails, though a reader sees what it was to make safe.
    pub(super) fail_sync_in: Option<u64>,
    pub(super) opens_refused: u64,
    pub(super) fail_reads: bool,
    /// The power fails after this many writes and syncs.
    pub(super) power_off_in: Option<(u64, Rng)>,
    pub(super) is_off: bool,
    /// Only the newest opening may use the medium.
    opening: u64,
}

impl State {
    pub(super) fn fill(&mut self, refuse_growth: bool) {
        let len = self.bytes.len();
        (self.len_max, self.room) =
            if refuse_growth { (Some(len), None) } else { (None, Some(len)) };
    }

    pub(super) fn free(&mut self) {
        (self.len_max, self.room) = (None, None);
    }

    /// Of what was not synced, each sector is lost or not.
    pub(super) fn power_off(&mut self, rng: &mut Rng) {
        if rng.below(2) == 0 {
            self.synced.resize(self.bytes.len(), 0);
        }
        let dirty = std::mem::take(&mut self.dirty);
        for sector in dirty.into_iter().filter(|_| rng.below(2) == 0) {
            self.save(sector);
        }
        self.bytes.clone_from(&self.synced);
        self.power_off_in = None;
        self.is_off = true;
    }

    fn save(&mut self, sector: usize) {
        let start = sector * SECTOR;
        let end = self.bytes.len().min(self.synced.len()).min(start + SECTOR);
        if start < end {
            self.synced[start..end].copy_from_slice(&self.bytes[start..end]);
        }
    }

    fn step(&mut self) -> io::Result<()> {
        if let Some((steps, mut rng)) = self.power_off_in.take() {
            match steps.checked_sub(1) {
                Some(steps) => self.power_off_in = Some((steps, rng)),
                None => self.power_off(&mut rng),
            }
        }
        if self.is_off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }
}

impl Medium {
    /// Looks at the medium or changes how it behaves.
    pub(super) fn set<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().expect("no test panics in here"))
    }

    /// Opens the medium; openings before this one are over.
    pub(super) fn backend(self: &Arc<Self>) -> io::Result<Backend> {
        self.set(|state| {
            if let Some(left) = state.opens_refused.checked_sub(1) {
                state.opens_refused = left;
                return Err(io::Error::other("not now"));
            }
            state.opening += 1;
            Ok(Backend { medium: Arc::clone(self), opening: state.opening })
        })
    }
}

#[derive(Debug)]
pub(super) struct Backend {
    medium: Arc<Medium>,
    opening: u64,
}

impl Backend {
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.medium.0.lock().expect("no test panics in here");
        assert_eq!(state.opening, self.opening, "a closed database goes on");
        state
    }
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if state.is_off || state.fail_reads {
            return Err(io::Error::other("the disk does not answer"));
        }
        let start = usize::try_from(offset).expect("a small file");
        let bytes = state.bytes.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let len = usize::try_from(len).expect("a small file");
        if state.len_max.is_some_and(|max| len > max) {
            return Err(full());
        }
        state.bytes.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.syncs += 1;
        if let Some(left) = state.fail_sync_in {
            state.fail_sync_in = left.checked_sub(1);
            if left == 0 {
                state.dirty.clear();
                return Err(io::Error::other("the sync failed"));
            }
        }
        let len = state.bytes.len();
        state.synced.resize(len, 0);
        for sector in std::mem::take(&mut state.dirty) {
            state.save(sector);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let start = usize::try_from(offset).expect("a small file");
        let end = start + data.len();
        if state.room.is_some_and(|room| end > room) {
            return Err(full());
        }
        state.bytes[start..end].copy_from_slice(data);
        state.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
        Ok(())
    }
}

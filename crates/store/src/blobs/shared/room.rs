//! Room: what the budget and the disk still allow, and who goes to make some.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use commons_port::blobs::{BlobError, Collected};
use commons_record::Hash;

use super::super::file;
use super::super::index::{Kind, Meta};
use super::{Book, Shared};

/// Entries that are read from the index at once while looking for what may go.
const STEP: usize = 1024;

/// Something that may go to make room.
#[derive(Debug)]
enum Victim {
    Blob(Hash, Meta),
    Arrival(Hash, u64),
}

impl Victim {
    fn size(&self) -> u64 {
        match self {
            Self::Blob(_, meta) => meta.size,
            Self::Arrival(_, size) => *size,
        }
    }
}

impl Shared {
    /// Takes room for `size` bytes that will arrive, or says why there is none. With a budget, what
    /// is not pinned goes to make some; but only if that is enough.
    pub(in super::super) fn reserve(&self, book: &mut Book, size: u64) -> Result<(), BlobError> {
        let missing = self.missing.load(Ordering::Relaxed);
        let spoken_for = missing.saturating_add(self.options.keep_free);
        let disk = file::free(&self.folder).saturating_sub(spoken_for);
        let budget = self.options.budget.unwrap_or(u64::MAX);
        let over = book.taken.saturating_add(size).saturating_sub(budget);
        let mut victims = Vec::new();
        if over > 0 {
            victims = self.victims(book, over)?;
            let freed: u64 = victims.iter().map(Victim::size).sum();
            if freed < over {
                let free = budget.saturating_sub(book.taken - freed.min(book.taken));
                return Err(BlobError::Full { need: size, free });
            }
        }
        let freed: u64 = victims.iter().map(Victim::size).sum();
        if size > disk.saturating_add(freed) {
            return Err(BlobError::Full { need: size, free: disk });
        }
        self.evict(book, victims)?;
        book.taken += size;
        self.missing.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }

    /// Gives back room, of which so many bytes had not arrived.
    pub(in super::super) fn release(&self, book: &mut Book, size: u64, missing: u64) {
        book.taken = book.taken.saturating_sub(size);
        self.arrived(missing);
    }

    /// Bytes that were missing are on the disk, or are no longer waited for.
    pub(in super::super) fn arrived(&self, bytes: u64) {
        let less = |missing: u64| Some(missing.saturating_sub(bytes));
        let _ = self.missing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Bytes that are missing again.
    pub(in super::super) fn missing_again(&self, bytes: u64) {
        self.missing.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Removes what may go, the longest unused first, until all fits into the budget.
    pub(super) fn collect_to(&self, book: &mut Book, budget: u64) -> Result<Collected, BlobError> {
        let over = book.taken.saturating_sub(budget);
        let victims = if over > 0 { self.victims(book, over)? } else { Vec::new() };
        let bytes = victims.iter().map(Victim::size).sum();
        let blobs = victims.len() as u64;
        self.evict(book, victims)?;
        Ok(Collected { blobs, bytes })
    }

    /// What may go, the longest unused first: so many that `over` bytes are free, or all.
    fn victims(&self, book: &Book, over: u64) -> Result<Vec<Victim>, BlobError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let metas = self.index.metas(after, STEP).map_err(|error| self.index_error(error))?;
            let Some((last, _)) = metas.last() else { break };
            after = Some(*last);
            for (blob, meta) in metas {
                let open = book.open.get(&blob);
                let is_busy = open.is_some_and(|it| Arc::strong_count(it) > 1);
                let used = open.map_or(meta.used, |it| it.used.load(Ordering::Relaxed));
                // A blob that is on its way to its place belongs to who moves it.
                let may_go = matches!(meta.kind, Kind::Whole | Kind::Partial) && !is_busy;
                if may_go && self.index.pins(blob).map_err(|it| self.index_error(it))?.is_empty() {
                    found.push((used, Victim::Blob(blob, meta)));
                }
            }
        }
        for (key, size, used) in self.index.arrivals().map_err(|error| self.index_error(error))? {
            if !book.arriving.contains(&key) {
                found.push((used, Victim::Arrival(key, size)));
            }
        }
        found.sort_by_key(|(used, _)| *used);
        let mut freed = 0;
        let mut victims = Vec::new();
        for (_, victim) in found {
            if freed >= over {
                break;
            }
            freed += victim.size();
            victims.push(victim);
        }
        Ok(victims)
    }

    fn evict(&self, book: &mut Book, victims: Vec<Victim>) -> Result<(), BlobError> {
        let mut blobs = Vec::new();
        for victim in victims {
            match victim {
                Victim::Blob(blob, meta) => blobs.push((blob, meta)),
                Victim::Arrival(key, size) => self.forget_arrival_in(book, key, size)?,
            }
        }
        if blobs.is_empty() { Ok(()) } else { self.forget_in(book, &blobs) }
    }
}

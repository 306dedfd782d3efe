//! What all calls share: the folder, the index, the blobs that are open, and the room that is left.
//!
//! The book (one lock) is held by whatever makes a blob appear or go. Pieces are read and written
//! without it once their blob is open.

mod adopt;
mod room;
mod start;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use commons_port::blobs::{BLOB_LEN_MAX, BlobError, BlobInfo, Collected, PIECE_LEN, pieces_of};
use commons_record::Hash;
use commons_swarm::tree::Shape;
use redb::Durability;

use super::entry::{Entry, Paths, Put};
use super::file;
use super::index::{Index, Kind, Meta};
use super::{BlobOptions, PIN_LEN_MAX};
use crate::data_dir::DataDir;

pub(super) use adopt::Adopt;

/// Blobs whose files are open at the same time: three files and half a mebibyte each at most.
const OPEN_MAX: usize = 64;

/// A use is noted on the disk when it is so much later than the one that stands there.
const NOTE_USE_MS: u64 = 60_000;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    pub(super) index: Index,
    pub(super) options: BlobOptions,
    book: Mutex<Book>,
    /// Bytes that are promised to blobs and are not on the disk yet.
    missing: AtomicU64,
    /// Numbers the files in `adding`.
    next_draft: AtomicU64,
    /// The folder stays this process's own.
    _dir: DataDir,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    open: HashMap<Hash, Arc<Entry>>,
    /// Files that are arriving, and are not collected.
    pub(super) arriving: HashSet<Hash>,
    /// Bytes that are held or promised, less files that are held in place.
    taken: u64,
}

impl Shared {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> u64 {
        (self.options.unix_ms)()
    }

    pub(super) fn paths(&self, blob: Hash) -> Paths {
        Paths::new(&self.folder, blob)
    }

    pub(super) fn disk(&self, error: &std::io::Error, need: u64) -> BlobError {
        file::disk_error(error, need, &self.folder)
    }

    /// What a caller can do about an error of the index.
    pub(super) fn index_error(&self, error: redb::Error) -> BlobError {
        match error {
            redb::Error::Io(error) => self.disk(&error, 0),
            error => BlobError::Disk { detail: error.to_string() },
        }
    }

    pub(super) fn meta(&self, blob: Hash) -> Result<Option<Meta>, BlobError> {
        self.index.meta(blob).map_err(|error| self.index_error(error))
    }

    /// The open files of a blob.
    pub(super) fn entry(&self, blob: Hash) -> Result<Arc<Entry>, BlobError> {
        self.entry_in(&mut self.book(), blob)
    }

    fn entry_in(&self, book: &mut Book, blob: Hash) -> Result<Arc<Entry>, BlobError> {
        if let Some(entry) = book.open.get(&blob) {
            return Ok(Arc::clone(entry));
        }
        let meta = self.meta(blob)?.ok_or(BlobError::NotHeld { blob })?;
        let place = match meta.kind {
            Kind::InPlace => self.index.in_place(blob).map_err(|it| self.index_error(it))?,
            Kind::Partial | Kind::Whole | Kind::Moving => None,
        };
        let shape = shape_of(meta.size)?;
        let entry = Entry::open(blob, self.paths(blob), (meta.kind, shape, meta.used), place);
        let entry = entry.map_err(|error| self.disk(&error, 0))?;
        let Some(entry) = entry else {
            tracing::warn!(%blob, "the file of a blob is gone");
            self.forget_in(book, &[(blob, meta)])?;
            return Err(BlobError::NotHeld { blob });
        };
        self.make_room_for_open(book);
        let entry = Arc::new(entry);
        book.open.insert(blob, Arc::clone(&entry));
        Ok(entry)
    }

    /// Closes the blob that was not used for longest, if too many are open.
    fn make_room_for_open(&self, book: &mut Book) {
        if book.open.len() < OPEN_MAX {
            return;
        }
        let idle = book.open.values().filter(|it| Arc::strong_count(it) == 1);
        let oldest = idle.map(|it| (it.used.load(Ordering::Relaxed), it.blob)).min();
        if let Some((used, blob)) = oldest {
            book.open.remove(&blob);
            if let Err(error) = self.index.touch(&[(blob, used)], Durability::None) {
                tracing::debug!(%error, "a use of a blob was not noted");
            }
        }
    }

    /// Notes that a blob is used now; on the disk only now and then.
    fn touch(&self, entry: &Entry) {
        let now = self.now();
        let before = entry.used.swap(now, Ordering::Relaxed);
        if before / NOTE_USE_MS != now / NOTE_USE_MS
            && let Err(error) = self.index.touch(&[(entry.blob, now)], Durability::None)
        {
            tracing::debug!(%error, "a use of a blob was not noted");
        }
    }

    pub(super) fn info(&self, blob: Hash) -> Result<Option<BlobInfo>, BlobError> {
        match self.meta(blob)? {
            Some(meta) => self.info_of(blob, meta).map(Some),
            None => Ok(None),
        }
    }

    fn info_of(&self, blob: Hash, meta: Meta) -> Result<BlobInfo, BlobError> {
        let pieces_held = match meta.kind {
            Kind::Partial | Kind::Moving => match self.entry(blob) {
                Ok(entry) => entry.count(),
                Err(BlobError::NotHeld { .. }) => 0, // It went meanwhile.
                Err(error) => return Err(error),
            },
            Kind::Whole | Kind::InPlace => pieces_of(meta.size),
        };
        let open = self.book().open.get(&blob).map(|it| it.used.load(Ordering::Relaxed));
        let pins = self.index.pins(blob).map_err(|error| self.index_error(error))?;
        Ok(BlobInfo {
            blob,
            size: meta.size,
            pieces_held,
            pins: u32::try_from(pins.len()).unwrap_or(u32::MAX),
            is_in_place: meta.kind == Kind::InPlace,
            used_unix_ms: open.unwrap_or(meta.used),
        })
    }

    pub(super) fn list(
        &self,
        after: Option<Hash>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>, BlobError> {
        let metas = self.index.metas(after, limit).map_err(|error| self.index_error(error))?;
        metas.into_iter().map(|(blob, meta)| self.info_of(blob, meta)).collect()
    }

    pub(super) fn begin(&self, blob: Hash, size: u64) -> Result<BlobInfo, BlobError> {
        let shape = shape_of(size)?;
        let mut book = self.book();
        if let Some(meta) = self.meta(blob)? {
            if meta.size == size {
                drop(book);
                return self.info_of(blob, meta);
            }
            // What a partial blob was said to have may be wrong until its last piece is held.
            let last = shape_of(meta.size)?.pieces() - 1;
            if meta.kind != Kind::Partial || self.entry_in(&mut book, blob)?.held()?.has(last) {
                return Err(BlobError::OtherSize { blob, known: meta.size, size });
            }
            self.forget_in(&mut book, &[(blob, meta)])?;
        }
        self.reserve(&mut book, shape.size())?;
        let meta = self.index.put(blob, Kind::Partial, size, self.now());
        let meta = meta.map_err(|error| {
            self.release(&mut book, size, size);
            self.index_error(error)
        })?;
        drop(book);
        self.info_of(blob, meta)
    }

    pub(super) fn put_piece(&self, blob: Hash, piece: u64, bytes: &Bytes) -> Result<(), BlobError> {
        let entry = self.entry(blob)?;
        let put = entry.put_piece(piece, bytes)?;
        if put == Put::New {
            self.arrived(bytes.len() as u64);
        }
        // One that was held before may have been the last, and the call after it may have failed.
        if entry.complete()? {
            let (_book, size) = (self.book(), self.meta(blob)?.map(|it| it.size));
            if let Some(size) = size {
                let put = self.index.put(blob, Kind::Whole, size, self.now());
                put.map_err(|error| self.index_error(error))?;
            }
        }
        self.touch(&entry);
        Ok(())
    }

    pub(super) fn read(&self, blob: Hash, offset: u64, len: u32) -> Result<Bytes, BlobError> {
        let entry = self.entry(blob)?;
        let bytes = entry.read(offset, len)?;
        self.touch(&entry);
        Ok(bytes)
    }

    pub(super) fn pin(&self, blob: Hash, pin: &str, is_on: bool) -> Result<(), BlobError> {
        if pin.len() > PIN_LEN_MAX {
            let detail = format!("a pin's name has {PIN_LEN_MAX} bytes at most");
            return Err(BlobError::Disk { detail });
        }
        // Under the book, so that nothing is collected between the question and the answer.
        let _book = self.book();
        self.index.pin(blob, pin, is_on).map_err(|error| self.index_error(error))
    }

    pub(super) fn remove(&self, blob: Hash) -> Result<(), BlobError> {
        let mut book = self.book();
        let Some(meta) = self.meta(blob)? else { return Err(BlobError::NotHeld { blob }) };
        let pins = self.index.pins(blob).map_err(|error| self.index_error(error))?;
        if let Some(pin) = pins.into_iter().next() {
            return Err(BlobError::Pinned { blob, pin });
        }
        self.forget_in(&mut book, &[(blob, meta)])
    }

    /// Forgets blobs: first in the index, then their files, so that a crash leaves files which
    /// nobody knows, and not blobs without files.
    pub(super) fn forget_in(
        &self,
        book: &mut Book,
        blobs: &[(Hash, Meta)],
    ) -> Result<(), BlobError> {
        let mut held = Vec::with_capacity(blobs.len());
        for (blob, meta) in blobs {
            held.push(match meta.kind {
                Kind::Partial => self.entry_in(book, *blob)?.count(),
                Kind::Whole | Kind::InPlace | Kind::Moving => pieces_of(meta.size),
            });
        }
        let hashes: Vec<Hash> = blobs.iter().map(|(blob, _)| *blob).collect();
        self.index.forget(&hashes).map_err(|error| self.index_error(error))?;
        for ((blob, meta), held) in blobs.iter().zip(held) {
            if let Some(entry) = book.open.remove(blob) {
                entry.close();
            }
            // The room of one on its way to its place is its mover's.
            if matches!(meta.kind, Kind::Partial | Kind::Whole) {
                let held = (held * u64::from(PIECE_LEN)).min(meta.size);
                self.release(book, meta.size, meta.size - held);
            }
            let paths = self.paths(*blob);
            for path in [&paths.whole, &paths.part, &paths.held, &paths.tree] {
                if let Err(error) = file::remove(path) {
                    tracing::warn!(%error, "a file of a blob stays until the next start");
                }
            }
        }
        Ok(())
    }

    pub(super) fn collect(&self) -> Result<Collected, BlobError> {
        let mut book = self.book();
        let mut collected = Collected::default();
        if let Some(budget) = self.options.budget {
            collected = self.collect_to(&mut book, budget)?;
        }
        drop(book);
        self.index.sweep_chunks().map_err(|error| self.index_error(error))?;
        Ok(collected)
    }

    pub(super) fn verify(&self, blob: Hash) -> Result<Vec<u64>, BlobError> {
        let entry = self.entry(blob)?;
        let wrong = entry.verify()?;
        let mut book = self.book();
        if let (false, Some(meta)) = (wrong.is_empty(), self.meta(blob)?) {
            let shape = shape_of(meta.size)?;
            let lens = wrong.iter().filter_map(|&piece| shape.piece_len(piece));
            let missing = lens.map(u64::from).sum();
            match meta.kind {
                // What it was is no longer anywhere.
                Kind::InPlace => self.forget_in(&mut book, &[(blob, meta)])?,
                Kind::Partial | Kind::Moving => self.missing_again(missing),
                Kind::Whole => {
                    self.missing_again(missing);
                    let put = self.index.put(blob, Kind::Partial, meta.size, meta.used);
                    put.map_err(|error| self.index_error(error))?;
                }
            }
        }
        Ok(wrong)
    }

    pub(super) fn by_sha256(&self, sha256: [u8; 32]) -> Result<Option<Hash>, BlobError> {
        self.index.by_sha256(sha256).map_err(|error| self.index_error(error))
    }

    /// A new path in the folder of copies that are being made.
    pub(super) fn draft(&self, extension: &str) -> PathBuf {
        let number = self.next_draft.fetch_add(1, Ordering::Relaxed);
        self.folder.join("adding").join(number.to_string()).with_extension(extension)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let open =
            std::mem::take(&mut self.book.get_mut().unwrap_or_else(PoisonError::into_inner).open);
        let used = open.into_values().map(|it| (it.blob, it.used.load(Ordering::Relaxed)));
        if let Err(error) = self.index.touch(&used.collect::<Vec<_>>(), Durability::Immediate) {
            tracing::debug!(%error, "the last uses of blobs were not noted");
        }
    }
}

pub(super) fn shape_of(size: u64) -> Result<Shape, BlobError> {
    Shape::new(size).ok_or(BlobError::TooLarge { size, max: BLOB_LEN_MAX })
}

//! Blobs on the disk: files by their hash, whole or in part while they arrive.
//!
//! ```text
//! DIR/blobs/index.redb      what is known of them, see `index`
//! DIR/blobs/HH/HASH         the bytes of a whole blob; HH are the first two digits of its hash
//! DIR/blobs/HH/HASH.part    those of a partial one, sparse, each piece at its place
//! DIR/blobs/HH/HASH.held    which pieces of it are held, see `held`
//! DIR/blobs/HH/HASH.tree    the chaining values of its pieces and groups, see `hashes`
//! DIR/blobs/arriving/KEY/   files whose BLAKE3 is not known yet, see `arrive`
//! DIR/blobs/adding/         copies that are being made; empty after a start
//! ```
//!
//! # Invariants
//!
//! * Names of files are made of hashes, never of what a peer or a hub wrote (T90).
//! * `HASH` is there only if all its pieces were checked and synced; it is renamed into its place.
//! * What a call has confirmed outlives a kill of the process, and is not hashed again (T91).
//! * The sum of what is held or promised stays within the budget, and what is promised fits on the
//!   disk at the time when it is promised (T92).
//! * What is pinned, or is being read or written, is not collected (T93).
//! * A call holds a piece or two in memory, whatever the blob's length. One that takes in a file
//!   holds five.
//!
//! Blocking work is done by threads of its own: a few for pieces, two for whole files.
//!
//! Not here: who may have a blob, and where it comes from.

mod add;
mod arrive;
mod chunks;
mod entry;
mod file;
mod hashes;
mod held;
mod index;
mod pass;
mod pool;
mod shared;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use commons_port::blobs::{
    AddEvent, Bits, BlobError, BlobInfo, Blobs, Collected, Holding, Place, Receiving,
};
use commons_port::{BoxFuture, BoxStream};
use commons_record::Hash;

use crate::data_dir::DataDir;
use pool::Pool;
use shared::Shared;

/// Threads for single pieces: they wait for the disk and compute hashes in turn.
const PIECE_THREADS: usize = 4;

/// Threads for whole files: adding, verifying, collecting.
const FILE_THREADS: usize = 2;

/// What a disk keeps free by default: the index must be able to write when it is full.
const KEEP_FREE: u64 = 64 << 20;

/// Bytes of a pin's name.
const PIN_LEN_MAX: usize = 256;

/// Blobs in one answer of a list.
const LIST_LEN_MAX: usize = 1024;

/// How much the store may hold, and whose time it notes.
#[derive(Clone)]
pub struct BlobOptions {
    /// Bytes of all blobs in the data folder; files that are held in place do not count. Where
    /// there is none, the disk is the limit.
    pub budget: Option<u64>,
    /// Bytes of the file system that a blob which is begun must leave free.
    pub keep_free: u64,
    /// Milliseconds of Unix time. Only the order of collection depends on it.
    pub unix_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for BlobOptions {
    fn default() -> Self {
        Self { budget: None, keep_free: KEEP_FREE, unix_ms: Arc::new(unix_ms) }
    }
}

impl std::fmt::Debug for BlobOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { budget, keep_free, .. } = self;
        f.debug_struct("BlobOptions")
            .field("budget", budget)
            .field("keep_free", keep_free)
            .finish_non_exhaustive()
    }
}

#[expect(clippy::disallowed_methods, reason = "the disk's own shell: when a blob was last used")]
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Why the blobs of a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum OpenBlobsError {
    #[error("failed to read or write the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },

    #[error("failed to open the index of blobs {}", path.display())]
    Index { path: PathBuf, source: Box<redb::Error> },

    #[error(
        "the index of blobs {} has format {found} and this version of commons knows format \
         {known}: install a newer version, or choose another folder with `--data-dir`",
        path.display(),
        known = index::FORMAT
    )]
    NewerFormat { path: PathBuf, found: u64 },

    #[error("failed to start a thread for the blobs")]
    Thread { source: io::Error },
}

/// The blobs of a data folder. Dropping it finishes what is queued.
#[derive(Debug)]
pub struct BlobStore {
    pieces: Arc<Pool>,
    files: Arc<Pool>,
    shared: Arc<Shared>,
}

impl BlobStore {
    /// Opens the blobs of a data folder, and clears away what a crash left.
    pub fn open(dir: &DataDir, options: BlobOptions) -> Result<Self, OpenBlobsError> {
        let shared = Arc::new(Shared::open(dir, options)?);
        let thread = |source| OpenBlobsError::Thread { source };
        let pieces = Arc::new(Pool::new("blob pieces", PIECE_THREADS).map_err(thread)?);
        let files = Arc::new(Pool::new("blob files", FILE_THREADS).map_err(thread)?);
        Ok(Self { pieces, files, shared })
    }

    /// Does something short on a thread for pieces.
    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Arc<Shared>) -> Result<T, BlobError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, BlobError>> {
        let shared = Arc::clone(&self.shared);
        self.pieces.ask(move || job(&shared))
    }

    /// Does something long on a thread for files.
    fn ask_long<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Arc<Shared>) -> Result<T, BlobError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, BlobError>> {
        let shared = Arc::clone(&self.shared);
        self.files.ask(move || job(&shared))
    }
}

impl Blobs for BlobStore {
    fn info(&self, blob: Hash) -> BoxFuture<'static, Result<Option<BlobInfo>, BlobError>> {
        self.ask(move |shared| shared.info(blob))
    }

    fn list(
        &self,
        after: Option<Hash>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<BlobInfo>, BlobError>> {
        self.ask(move |shared| shared.list(after, limit.min(LIST_LEN_MAX)))
    }

    fn begin(&self, blob: Hash, size: u64) -> BoxFuture<'static, Result<BlobInfo, BlobError>> {
        self.ask(move |shared| shared.begin(blob, size))
    }

    fn held(&self, blob: Hash) -> BoxFuture<'static, Result<Bits, BlobError>> {
        self.ask(move |shared| shared.entry(blob)?.held())
    }

    fn top(&self, blob: Hash) -> BoxFuture<'static, Result<Option<Bytes>, BlobError>> {
        self.ask(move |shared| shared.entry(blob)?.top())
    }

    fn page(&self, blob: Hash, group: u64) -> BoxFuture<'static, Result<Option<Bytes>, BlobError>> {
        self.ask(move |shared| shared.entry(blob)?.page(group))
    }

    fn put_top(&self, blob: Hash, top: Bytes) -> BoxFuture<'static, Result<(), BlobError>> {
        self.ask(move |shared| shared.entry(blob)?.put_top(top))
    }

    fn put_page(
        &self,
        blob: Hash,
        group: u64,
        page: Bytes,
    ) -> BoxFuture<'static, Result<(), BlobError>> {
        self.ask(move |shared| shared.entry(blob)?.put_page(group, page))
    }

    fn put_piece(
        &self,
        blob: Hash,
        piece: u64,
        bytes: Bytes,
    ) -> BoxFuture<'static, Result<(), BlobError>> {
        self.ask(move |shared| shared.put_piece(blob, piece, &bytes))
    }

    fn read(
        &self,
        blob: Hash,
        offset: u64,
        len: u32,
    ) -> BoxFuture<'static, Result<Bytes, BlobError>> {
        self.ask(move |shared| shared.read(blob, offset, len))
    }

    fn find_chunks(
        &self,
        chunks: Vec<Hash>,
    ) -> BoxFuture<'static, Result<Vec<Option<Place>>, BlobError>> {
        self.ask(move |shared| shared.find_chunks(&chunks))
    }

    fn index_chunks(&self, blob: Hash, recipe: Hash) -> BoxFuture<'static, Result<(), BlobError>> {
        self.ask_long(move |shared| shared.index_chunks(blob, recipe))
    }

    fn add(
        &self,
        path: String,
        holding: Holding,
    ) -> BoxStream<'static, Result<AddEvent, BlobError>> {
        add::start(&self.files, &self.shared, path, holding)
    }

    fn receive(
        &self,
        key: String,
        size: u64,
    ) -> BoxFuture<'static, Result<Box<dyn Receiving>, BlobError>> {
        arrive::start([&self.pieces, &self.files], &self.shared, key, size)
    }

    fn pin(
        &self,
        blob: Hash,
        pin: String,
        is_on: bool,
    ) -> BoxFuture<'static, Result<(), BlobError>> {
        self.ask(move |shared| shared.pin(blob, &pin, is_on))
    }

    fn remove(&self, blob: Hash) -> BoxFuture<'static, Result<(), BlobError>> {
        self.ask_long(move |shared| shared.remove(blob))
    }

    fn collect(&self) -> BoxFuture<'static, Result<Collected, BlobError>> {
        self.ask_long(move |shared| shared.collect())
    }

    fn verify(&self, blob: Hash) -> BoxFuture<'static, Result<Vec<u64>, BlobError>> {
        self.ask_long(move |shared| shared.verify(blob))
    }

    fn by_sha256(&self, sha256: [u8; 32]) -> BoxFuture<'static, Result<Option<Hash>, BlobError>> {
        self.ask(move |shared| shared.by_sha256(sha256))
    }
}

//! Files by their hash, as a node holds them: whole, or in part while they arrive.
//!
//! A blob is a file whose name is its plain BLAKE3. It is cut into pieces of [`PIECE_LEN`] bytes;
//! 1,024 pieces are a group. The chaining values of the pieces of a group are a page, those of all
//! groups are the top: with them each piece is checked by itself (`swarm::tree`).
//!
//! ```text
//! begin -> put_top -> put_page -> put_piece ... -> whole
//! add / receive: the other way round, the name is known at the end
//! ```
//!
//! Not here: who may have a blob, and where it comes from.

use bytes::Bytes;
use commons_record::Hash;

use crate::{BoxFuture, BoxStream};

/// Bytes of a piece; the last one of a blob may be shorter.
pub const PIECE_LEN: u32 = 1 << 20;

/// Pieces of a group; the last one of a blob may have fewer.
pub const GROUP_PIECES: u64 = 1024;

/// What one blob may be long: 64 TiB, so that a top is 2 MiB at most.
pub const BLOB_LEN_MAX: u64 = 1 << 46;

/// Bytes of one chaining value.
pub const CV_LEN: usize = 32;

/// A blob as it stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its plain BLAKE3.
    pub blob: Hash,
    /// Bytes.
    pub size: u64,
    /// Pieces that are held and were checked.
    pub pieces_held: u64,
    /// How many pins hold it.
    pub pins: u32,
    /// Whether it is a file elsewhere on this machine that is read where it lies.
    pub is_in_place: bool,
    /// When it was last read or written, in milliseconds of Unix time.
    pub used_unix_ms: u64,
}

impl BlobInfo {
    /// How many pieces it has. An empty blob has one.
    pub const fn pieces(&self) -> u64 {
        pieces_of(self.size)
    }

    /// Whether all of it is held.
    pub const fn is_whole(&self) -> bool {
        self.pieces_held == self.pieces()
    }
}

/// How many pieces a blob of this size has. An empty blob has one.
pub const fn pieces_of(size: u64) -> u64 {
    let pieces = size.div_ceil(PIECE_LEN as u64);
    if pieces == 0 { 1 } else { pieces }
}

/// Which pieces are held: bit `i % 8` of byte `i / 8`, the lowest bit first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bits(pub Vec<u8>);

impl Bits {
    /// Whether piece `index` is set; beyond the end nothing is.
    pub fn has(&self, index: u64) -> bool {
        let byte = usize::try_from(index / 8).ok().and_then(|at| self.0.get(at));
        byte.is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }
}

/// A stretch of bytes of a blob that is held here and equals a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The blob that has it.
    pub blob: Hash,
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub len: u32,
}

/// How a file on this machine is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// A copy in the data folder (a reflink where the file system can).
    Copied,
    /// Read where it lies. Each piece is checked against its hash when it is read.
    InPlace,
}

/// What happens while a file is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddEvent {
    /// So many bytes of so many are hashed.
    Progress {
        /// Done.
        bytes: u64,
        /// In all.
        size: u64,
    },
    /// It is held. The last event.
    Held {
        /// What it is.
        blob: Hash,
        /// Its SHA-256, as hubs name it.
        sha256: [u8; 32],
        /// Bytes.
        size: u64,
        /// The recipe of its chunks, a blob of its own; see `swarm::recipe`.
        recipe: Hash,
    },
}

/// What garbage collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that went.
    pub blobs: u64,
    /// Bytes that are free now.
    pub bytes: u64,
}

/// Why a blob was not read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum BlobError {
    #[error("{blob} is not held here; pull it first")]
    NotHeld { blob: Hash },

    #[error("piece {piece} of {blob} is not held yet")]
    NotYet { blob: Hash, piece: u64 },

    #[error("what was sent as piece {piece} of {blob} is something else")]
    WrongPiece { blob: Hash, piece: u64 },

    #[error("the hashes that were sent for {blob} do not lead to its name")]
    WrongHashes { blob: Hash },

    #[error("{blob} ends at byte {size}; bytes {from} to {to} were asked for")]
    OutOfRange { blob: Hash, size: u64, from: u64, to: u64 },

    #[error(
        "{need} bytes are needed and {free} are free; raise the budget, free the disk, or \
         type: commons blobs gc"
    )]
    Full { need: u64, free: u64 },

    #[error("a blob of {size} bytes is more than {max}, which is the most that one can have")]
    TooLarge { size: u64, max: u64 },

    #[error("{blob} is known with {known} bytes; it was asked for with {size}")]
    OtherSize { blob: Hash, known: u64, size: u64 },

    #[error("{blob} is pinned by {pin}; take the pin away first")]
    Pinned { blob: Hash, pin: String },

    #[error("{path} changed since it was taken in; take it in again")]
    Changed { path: String },

    #[error("{path} could not be read: {detail}")]
    BadFile { path: String, detail: String },

    #[error("what arrived has SHA-256 {got} and was to have {want}; it was thrown away")]
    WrongDigest { want: String, got: String },

    #[error("{key} has {len} bytes so far and is to have {size}")]
    OtherLen { key: String, len: u64, size: u64 },

    #[error("{what} is being read or written; try again when that is done")]
    Busy { what: String },

    #[error("the disk refused: {detail}")]
    Disk { detail: String },
}

/// The blobs of a node. Calls on one blob may run at the same time; each is atomic.
///
/// What a call has confirmed outlives the process; of pieces that were written in the last moments
/// before a loss of power, some may have to be fetched again, never believed wrongly.
pub trait Blobs: Send + Sync {
    /// What is known of a blob; `None` if nothing is.
    fn info(&self, blob: Hash) -> BoxFuture<'static, Result<Option<BlobInfo>, BlobError>>;

    /// Blobs in the order of their hashes, those after `after`, `limit` at most.
    fn list(
        &self,
        after: Option<Hash>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<BlobInfo>, BlobError>>;

    /// Makes room for a blob and remembers it; a blob that is known goes on where it stood.
    fn begin(&self, blob: Hash, size: u64) -> BoxFuture<'static, Result<BlobInfo, BlobError>>;

    /// Which pieces are held.
    fn held(&self, blob: Hash) -> BoxFuture<'static, Result<Bits, BlobError>>;

    /// The chaining values of all groups; empty if the blob has one group.
    fn top(&self, blob: Hash) -> BoxFuture<'static, Result<Option<Bytes>, BlobError>>;

    /// The chaining values of a group's pieces; empty if the blob has one piece.
    fn page(&self, blob: Hash, group: u64) -> BoxFuture<'static, Result<Option<Bytes>, BlobError>>;

    /// Checks a top against the blob's name and keeps it.
    fn put_top(&self, blob: Hash, top: Bytes) -> BoxFuture<'static, Result<(), BlobError>>;

    /// Checks a page against the top and keeps it.
    fn put_page(
        &self,
        blob: Hash,
        group: u64,
        page: Bytes,
    ) -> BoxFuture<'static, Result<(), BlobError>>;

    /// Checks a piece against its page and keeps it; one that is held is left alone.
    fn put_piece(
        &self,
        blob: Hash,
        piece: u64,
        bytes: Bytes,
    ) -> BoxFuture<'static, Result<(), BlobError>>;

    /// Reads bytes that are held, [`PIECE_LEN`] at most.
    fn read(
        &self,
        blob: Hash,
        offset: u64,
        len: u32,
    ) -> BoxFuture<'static, Result<Bytes, BlobError>>;

    /// For each chunk, where a blob that is held whole has it. The bytes are a hint until the
    /// piece that they become part of was checked.
    fn find_chunks(
        &self,
        chunks: Vec<Hash>,
    ) -> BoxFuture<'static, Result<Vec<Option<Place>>, BlobError>>;

    /// Enters the chunks of a blob that is held whole, as its recipe says, for [`Self::find_chunks`].
    fn index_chunks(&self, blob: Hash, recipe: Hash) -> BoxFuture<'static, Result<(), BlobError>>;

    /// Takes in a file of this machine.
    fn add(
        &self,
        path: String,
        holding: Holding,
    ) -> BoxStream<'static, Result<AddEvent, BlobError>>;

    /// A file that arrives from a place that does not know its BLAKE3, from where it stood: `key`
    /// tells one such file from another.
    fn receive(
        &self,
        key: String,
        size: u64,
    ) -> BoxFuture<'static, Result<Box<dyn Receiving>, BlobError>>;

    /// Whether a pin of this name holds a blob. Pinned blobs stay.
    fn pin(
        &self,
        blob: Hash,
        pin: String,
        is_on: bool,
    ) -> BoxFuture<'static, Result<(), BlobError>>;

    /// Forgets a blob and frees its bytes. A file that is held in place stays where it is.
    fn remove(&self, blob: Hash) -> BoxFuture<'static, Result<(), BlobError>>;

    /// Removes what is not pinned, the longest unused first, until all fits into the budget.
    fn collect(&self) -> BoxFuture<'static, Result<Collected, BlobError>>;

    /// Reads a blob and checks each piece; the indices of those that are wrong, which are no longer
    /// held then.
    fn verify(&self, blob: Hash) -> BoxFuture<'static, Result<Vec<u64>, BlobError>>;

    /// The blob of a SHA-256 that this node has itself computed.
    fn by_sha256(&self, sha256: [u8; 32]) -> BoxFuture<'static, Result<Option<Hash>, BlobError>>;
}

/// A file that arrives from its first byte to its last.
pub trait Receiving: Send {
    /// Bytes that are kept.
    fn len(&self) -> u64;

    /// Whether none are.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes.
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), BlobError>>;

    /// Throws away what is kept: what arrives is another file now.
    fn restart(&mut self) -> BoxFuture<'_, Result<(), BlobError>>;

    /// The file is whole: it becomes a blob if its SHA-256 is `sha256` (where one is known), else
    /// it is thrown away. The event is [`AddEvent::Held`].
    fn finish(
        self: Box<Self>,
        sha256: Option<[u8; 32]>,
    ) -> BoxFuture<'static, Result<AddEvent, BlobError>>;
}

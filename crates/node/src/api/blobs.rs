//! What a node can be asked about its files: the part of the contract for its blobs.
//!
//! Long work is a stream of [`BlobEvent`]s. Dropping the stream ends the work; what is held stays.

use std::path::PathBuf;

use commons_port::{BoxFuture, BoxStream};
use commons_record::{Hash, PeerId};
use serde::{Deserialize, Serialize};

use super::Refusal;

/// The files of a running node, as its front rooms see them.
pub trait BlobsApi: Send + Sync {
    /// All blobs, in the order of their hashes.
    fn list(&self) -> BoxFuture<'static, Result<Vec<BlobView>, Refusal>>;

    /// Takes in a file of this machine. The last event is [`BlobEvent::Added`].
    fn add(&self, file: FileToAdd) -> BoxStream<'static, BlobEvent>;

    /// Pulls a release by its name or record id, a blob by its hash, or takes files from outside:
    /// `hf:ORG/REPO[@REV][:FILE]`, `ollama:NAME[:TAG]`, `https://...#sha256=HEX`. The last event is
    /// [`BlobEvent::Pulled`].
    fn pull(&self, what: String) -> BoxStream<'static, BlobEvent>;

    /// Bytes of a blob that is held, a piece at a time, each checked.
    fn read(&self, blob: Hash) -> BoxStream<'static, Result<bytes::Bytes, Refusal>>;

    /// Reads a blob and checks every piece.
    fn verify(&self, blob: Hash) -> BoxFuture<'static, Result<VerifiedView, Refusal>>;

    /// Takes the pins of a blob away and forgets it. A file that is held in place stays where it is.
    fn remove(&self, blob: Hash) -> BoxFuture<'static, Result<(), Refusal>>;

    /// Removes what no pin holds, the longest unused first, until all fits into the budget.
    fn collect(&self) -> BoxFuture<'static, Result<CollectedView, Refusal>>;
}

/// A blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobView {
    /// Its plain BLAKE3.
    pub blob: Hash,
    /// Bytes.
    pub size: u64,
    /// Pieces that are held.
    pub pieces_held: u64,
    /// Pieces in all.
    pub pieces: u64,
    /// How many pins hold it.
    pub pins: u32,
    /// Whether it is a file elsewhere on this machine that is read where it lies.
    pub is_in_place: bool,
    /// The releases that have it, as `ORG/NAME@VERSION:PATH`.
    pub names: Vec<String>,
    /// Why it is not given to members; none if it is.
    pub kept_back: Option<String>,
}

/// A file to take in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileToAdd {
    /// Where it is: an absolute path.
    pub path: PathBuf,
    /// Whether it is copied into the data folder; else it is read where it lies.
    pub is_copied: bool,
}

/// What long work tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BlobEvent {
    /// How far a file is.
    Progress(ProgressView),
    /// Nothing comes now, and why.
    Stalled {
        /// Which file.
        file: String,
        /// Why.
        reason: String,
    },
    /// A peer lied or broke the protocol; nothing is asked of it again.
    Banned {
        /// Who.
        peer: PeerId,
        /// What shows it.
        reason: String,
    },
    /// A file of this machine is held. The last event.
    Added(AddedView),
    /// All is held. The last event.
    Pulled(PulledView),
    /// It broke off. What is held stays. The last event.
    Failed(Refusal),
}

/// How far a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressView {
    /// Which file.
    pub file: String,
    /// Bytes that are held.
    pub bytes: u64,
    /// Bytes in all.
    pub size: u64,
    /// Bytes per second now, as it was last measured.
    pub bytes_per_s: u64,
    /// Peers that are asked.
    pub peers: u64,
}

/// A file that was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedView {
    /// Its plain BLAKE3.
    pub blob: Hash,
    /// Its SHA-256, as hubs name it.
    pub sha256: Hash,
    /// Bytes.
    pub size: u64,
    /// The recipe of its chunks, a blob of its own.
    pub recipe: Hash,
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledView {
    /// The release, if it is one now.
    pub release: Option<Hash>,
    /// Its name and version, `ORG/NAME@VERSION`.
    pub name: Option<String>,
    /// The files.
    pub files: Vec<PulledFile>,
    /// What else its owner should know.
    pub notes: Vec<String>,
}

/// A file that was pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledFile {
    /// Its path in the release, or its hash.
    pub path: String,
    /// Its plain BLAKE3.
    pub blob: Hash,
    /// Bytes.
    pub size: u64,
    /// Of these, bytes that came now.
    pub fetched: u64,
}

/// What checking a blob found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedView {
    /// The blob.
    pub blob: Hash,
    /// Pieces that were wrong, and are no longer held.
    pub wrong_pieces: Vec<u64>,
}

/// What garbage collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectedView {
    /// Blobs that went.
    pub blobs: u64,
    /// Bytes that are free now.
    pub bytes: u64,
}

//! The blob store against what it says of itself.

mod calls;
pub(super) mod fault;
mod kill;
mod model;
mod refuse;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use commons_port::blobs::{
    AddEvent, BlobError, Blobs as _, CV_LEN, GROUP_PIECES, Holding, PIECE_LEN,
};
use commons_record::Hash;
use commons_swarm::tree::{Tree, TreeBuilder};
use futures::executor::block_on;
use futures::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use super::{BlobOptions, BlobStore};
use crate::DataDir;

const PIECE: usize = PIECE_LEN as usize;

/// A blob, and what it takes to send it.
#[derive(Clone)]
struct Sample {
    bytes: Bytes,
    tree: Tree,
    cvs: Bytes,
}

impl Sample {
    /// Bytes that only depend on the seed.
    fn new(seed: u64, len: usize) -> Self {
        // Noise that repeats, but for a number in each stretch: made much faster than all noise.
        let mut noise = vec![0; 64 << 10];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
        let mut bytes = Vec::with_capacity(len);
        for stretch in (0_u64..).take(len.div_ceil(noise.len())) {
            noise[..8].copy_from_slice(&(stretch ^ seed).to_le_bytes());
            bytes.extend_from_slice(&noise[..noise.len().min(len - bytes.len())]);
        }
        let (mut builder, mut cvs) = (TreeBuilder::new(), Vec::new());
        builder.update(&bytes, |cv| cvs.extend_from_slice(&cv));
        let tree = builder.finish(|cv| cvs.extend_from_slice(&cv)).expect("not too long");
        Self { bytes: bytes.into(), tree, cvs: cvs.into() }
    }

    fn blob(&self) -> Hash {
        self.tree.blob
    }

    fn size(&self) -> u64 {
        self.tree.shape.size()
    }

    fn pieces(&self) -> u64 {
        self.tree.shape.pieces()
    }

    fn piece(&self, piece: u64) -> Bytes {
        let from = usize::try_from(piece).expect("small") * PIECE;
        self.bytes.slice(from..(from + PIECE).min(self.bytes.len()))
    }

    fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    fn begin(&self, store: &BlobStore) -> Result<(), BlobError> {
        block_on(store.begin(self.blob(), self.size()))?;
        block_on(store.put_top(self.blob(), self.tree.top.clone()))?;
        block_on(store.put_page(self.blob(), 0, self.cvs.clone()))
    }

    fn put(&self, store: &BlobStore, piece: u64) -> Result<(), BlobError> {
        block_on(store.put_piece(self.blob(), piece, self.piece(piece)))
    }

    fn put_all(&self, store: &BlobStore) -> Result<(), BlobError> {
        self.begin(store)?;
        (0..self.pieces()).try_for_each(|piece| self.put(store, piece))
    }

    /// Whatever the store says that it holds of this blob is right. How many pieces it holds.
    fn check(&self, store: &BlobStore) -> u64 {
        let Some(info) = block_on(store.info(self.blob())).expect("looks") else { return 0 };
        let held = block_on(store.held(self.blob())).expect("is known");
        let pieces: Vec<u64> = (0..self.pieces()).filter(|&piece| held.has(piece)).collect();
        assert_eq!(info.pieces_held, pieces.len() as u64, "{}", self.blob());
        for &piece in &pieces {
            let (from, want) = (piece * PIECE as u64, self.piece(piece));
            let len = u32::try_from(want.len()).expect("a piece");
            let got = block_on(store.read(self.blob(), from, len));
            assert!(got.expect("is held") == want, "piece {piece} of {}", self.blob());
        }
        pieces.len() as u64
    }
}

/// A data folder that goes away with the test, in memory where the system has such a folder.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary folder")
}

/// A clock that moves by one with every look at it.
fn options(budget: Option<u64>) -> BlobOptions {
    static NOW: AtomicU64 = AtomicU64::new(1);
    let unix_ms = Arc::new(|| NOW.fetch_add(1, Ordering::Relaxed));
    BlobOptions { budget, keep_free: 0, unix_ms }
}

fn open(path: &Path, budget: Option<u64>) -> BlobStore {
    let dir = DataDir::open(path).expect("a folder of ours");
    BlobStore::open(&dir, options(budget)).expect("opens")
}

/// Takes in a file and returns its last event.
fn add(store: &BlobStore, path: &Path, holding: Holding) -> Result<AddEvent, BlobError> {
    let path = path.to_str().expect("a plain path").to_owned();
    let events: Vec<AddEvent> = block_on(store.add(path, holding).try_collect())?;
    Ok(*events.last().expect("the last event says what it is"))
}

/// Every file in the folder belongs to a blob that is known.
fn check_files(path: &Path, store: &BlobStore) {
    for folder in std::fs::read_dir(path.join("blobs")).expect("reads") {
        let folder = folder.expect("reads").path();
        if !folder.is_dir() || folder.file_name().is_some_and(|name| name.len() != 2) {
            continue;
        }
        for file in std::fs::read_dir(folder).expect("reads") {
            let file = file.expect("reads").path();
            let name = file.file_stem().and_then(|it| it.to_str()).expect("a plain name");
            let blob: Hash = name.parse().expect("names are hashes");
            let info = block_on(store.info(blob)).expect("looks");
            assert!(info.is_some(), "nobody knows {}", file.display());
        }
    }
    let adding = std::fs::read_dir(path.join("blobs/adding")).expect("reads");
    assert_eq!(adding.count(), 0, "a draft was left");
}

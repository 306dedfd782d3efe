//! One pass over a file: its tree, its SHA-256 and its chunks, and a copy of it.
//!
//! ```text
//! reader (and the copy) --pieces of 1 MiB--> tree | sha256 | chunks, a thread each
//! ```
//!
//! The pieces are shared and go round: five at most are in memory. What the tree and the chunks
//! give is written to files at once, so that a pass takes as much memory for any length.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use commons_port::blobs::{CV_LEN, PIECE_LEN};
use commons_record::Hash;
use commons_swarm::chunk::{Chunk, Chunks};
use commons_swarm::recipe::{ENTRY_LEN, HEADER_LEN, Header, encode_entry};
use commons_swarm::tree::{Cv, Tree, TreeBuilder};
use sha2::{Digest as _, Sha256};

use super::file;

/// Pieces that wait for a thread. With those that are read and worked on, five are in memory.
const WAITING: usize = 3;
const RING: usize = WAITING + 2;

/// A shorter file is done before threads would have started.
const SHORT: u64 = 1 << 20;

/// What is written of the tree and the chunks before it goes to a file.
const OUT_LEN: usize = 64 << 10;

/// Hashes a file as a tree. The chaining values go to a file as they become known.
#[derive(Debug)]
pub(super) struct TreeStage {
    builder: TreeBuilder,
    out: Out,
}

impl TreeStage {
    /// From the beginning, or after pieces whose chaining values are in the file already.
    pub(super) fn new(builder: TreeBuilder, file: File) -> Self {
        let at = builder.closed() * CV_LEN as u64;
        Self { builder, out: Out { file, at, bytes: Vec::new() } }
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.builder.size()
    }

    pub(super) fn update(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { builder, out } = self;
        builder.update(bytes, |cv: Cv| out.bytes.extend_from_slice(&cv));
        out.flush_if(OUT_LEN)
    }

    /// Writes what is known so far.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush_if(1)
    }

    /// Waits until what was written is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        file::sync(&self.out.file)
    }

    /// Writes the last page and the top, and syncs. None if the file is longer than a blob.
    pub(super) fn finish(mut self) -> io::Result<Option<Tree>> {
        let out = &mut self.out;
        let Some(tree) = self.builder.finish(|cv| out.bytes.extend_from_slice(&cv)) else {
            return Ok(None);
        };
        out.bytes.extend_from_slice(&tree.top);
        out.flush_if(1)?;
        file::sync(&out.file)?;
        Ok(Some(tree))
    }
}

/// Cuts a file into chunks, and writes their entries where a recipe has them.
#[derive(Debug)]
pub(super) struct ChunkStage {
    chunks: Chunks,
    count: u64,
    out: Out,
}

impl ChunkStage {
    pub(super) fn new(file: File) -> Self {
        let out = Out { file, at: HEADER_LEN as u64, bytes: Vec::new() };
        Self { chunks: Chunks::new(), count: 0, out }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { chunks, count, out } = self;
        chunks.update(bytes, |chunk| {
            *count += 1;
            out.entry(&chunk);
        });
        out.flush_if(OUT_LEN)
    }

    /// Writes the last entry; how many there are.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        if let Some(last) = self.chunks.finish() {
            self.count += 1;
            self.out.entry(&last);
        }
        self.out.flush_if(1)?;
        Ok(self.count)
    }
}

/// Bytes on their way to a file.
#[derive(Debug)]
struct Out {
    file: File,
    at: u64,
    bytes: Vec<u8>,
}

impl Out {
    fn entry(&mut self, chunk: &Chunk) {
        let entry: [u8; ENTRY_LEN] = encode_entry(&chunk.hash, chunk.end);
        self.bytes.extend_from_slice(&entry);
    }

    fn flush_if(&mut self, len: usize) -> io::Result<()> {
        if self.bytes.len() < len {
            return Ok(());
        }
        file::write_at(&self.file, &self.bytes, self.at)?;
        self.at += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

/// Puts the header before the entries of a recipe. Whether they can be one.
pub(super) fn finish_recipe(file: &File, blob: Hash, size: u64, chunks: u64) -> io::Result<bool> {
    let Ok(header) = Header::new(blob, size, chunks) else { return Ok(false) };
    file::write_at(file, &header.encode(), 0)?;
    Ok(true)
}

/// Where the results of a pass go.
#[derive(Debug)]
pub(super) struct Sinks {
    /// A copy of the file.
    pub(super) copy: Option<File>,
    /// The chaining values; none if they are known.
    pub(super) hashes: Option<File>,
    /// The entries of the recipe.
    pub(super) recipe: File,
}

#[derive(Debug)]
pub(super) struct Passed {
    /// None if it was not asked for, or if the file is longer than a blob may be.
    pub(super) tree: Option<Tree>,
    pub(super) sha256: [u8; 32],
    pub(super) chunks: u64,
}

/// Why a pass ended early.
#[derive(Debug)]
pub(super) enum PassError {
    /// The file could not be read.
    Read(io::Error),
    /// It has fewer or more bytes than it had when the pass began.
    Changed,
    /// The results could not be written.
    Write(io::Error),
    /// Nobody waits for it any more.
    Cancelled,
}

/// Reads `size` bytes of a file. `progress` is told how many were read, and whether to go on is its
/// answer.
pub(super) fn pass(
    source: &File,
    size: u64,
    sinks: Sinks,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<Passed, PassError> {
    let Sinks { copy, hashes, recipe } = sinks;
    let tree = hashes.map(|file| TreeStage::new(TreeBuilder::new(), file));
    let (sha256, chunks) = (Sha256::new(), ChunkStage::new(recipe));
    let mut copy = copy.map(|file| Copy { file, at: 0 });
    if size <= SHORT {
        return pass_short(source, size, copy.as_mut(), (tree, sha256, chunks));
    }
    thread::scope(|scope| {
        let (to_tree, pieces) = sync_channel(WAITING);
        let tree = scope.spawn(move || run_tree(tree, &pieces));
        let (to_sha256, pieces) = sync_channel(WAITING);
        let sha256 = scope.spawn(move || run_sha256(sha256, &pieces));
        let (to_chunks, pieces) = sync_channel(WAITING);
        let chunks = scope.spawn(move || run_chunks(chunks, &pieces));
        let read = {
            let to = [to_tree, to_sha256, to_chunks];
            read_all(source, size, copy.as_mut(), &to, &mut progress)
            // The channels end here, and with them the threads.
        };
        let gone = || PassError::Write(io::Error::other("a thread of the pass has ended"));
        let tree = tree.join().map_err(|_| gone())?.map_err(PassError::Write);
        let sha256 = sha256.join().map_err(|_| gone())?;
        let chunks = chunks.join().map_err(|_| gone())?.map_err(PassError::Write);
        // A thread that failed is the reason why reading ended, and not the other way round.
        let (tree, chunks) = (tree?, chunks?);
        read?;
        Ok(Passed { tree, sha256, chunks })
    })
}

type Piece = Arc<Vec<u8>>;

fn run_tree(tree: Option<TreeStage>, pieces: &Receiver<Piece>) -> io::Result<Option<Tree>> {
    let Some(mut tree) = tree else {
        pieces.iter().for_each(drop);
        return Ok(None);
    };
    for piece in pieces {
        tree.update(&piece)?;
    }
    tree.finish()
}

fn run_sha256(mut sha256: Sha256, pieces: &Receiver<Piece>) -> [u8; 32] {
    for piece in pieces {
        sha256.update(&**piece);
    }
    sha256.finalize().into()
}

fn run_chunks(mut chunks: ChunkStage, pieces: &Receiver<Piece>) -> io::Result<u64> {
    for piece in pieces {
        chunks.update(&piece)?;
    }
    chunks.finish()
}

fn pass_short(
    source: &File,
    size: u64,
    copy: Option<&mut Copy>,
    (mut tree, mut sha256, mut chunks): (Option<TreeStage>, Sha256, ChunkStage),
) -> Result<Passed, PassError> {
    let mut bytes = Vec::new();
    read_piece(source, &mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(PassError::Changed);
    }
    if let Some(copy) = copy {
        copy.write(&bytes).map_err(PassError::Write)?;
    }
    sha256.update(&bytes);
    chunks.update(&bytes).map_err(PassError::Write)?;
    if let Some(tree) = &mut tree {
        tree.update(&bytes).map_err(PassError::Write)?;
    }
    let tree = tree.map_or(Ok(None), TreeStage::finish).map_err(PassError::Write)?;
    let chunks = chunks.finish().map_err(PassError::Write)?;
    Ok(Passed { tree, sha256: sha256.finalize().into(), chunks })
}

fn read_all(
    source: &File,
    size: u64,
    mut copy: Option<&mut Copy>,
    to: &[SyncSender<Piece>],
    progress: &mut impl FnMut(u64) -> bool,
) -> Result<(), PassError> {
    let mut ring: [Piece; RING] = Default::default();
    let mut done = 0;
    for index in (0..RING).cycle() {
        let piece = &mut ring[index];
        // Each thread has taken a later one, so nobody else has this one.
        let bytes = match Arc::get_mut(piece) {
            Some(bytes) => bytes,
            None => {
                *piece = Arc::default();
                Arc::make_mut(piece)
            }
        };
        read_piece(source, bytes)?;
        done += bytes.len() as u64;
        if done > size || (bytes.is_empty() && done < size) {
            return Err(PassError::Changed);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(copy) = &mut copy {
            copy.write(bytes).map_err(PassError::Write)?;
        }
        for to in to {
            // One that has ended tells why when it is joined.
            to.send(Arc::clone(piece)).map_err(|_| PassError::Cancelled)?;
        }
        if !progress(done) {
            return Err(PassError::Cancelled);
        }
    }
    Ok(())
}

/// Fills the buffer with the next piece of the file; less at its end.
fn read_piece(mut source: &File, bytes: &mut Vec<u8>) -> Result<(), PassError> {
    bytes.resize(PIECE_LEN as usize, 0);
    let mut filled = 0;
    while filled < bytes.len() {
        match source.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(PassError::Read(error)),
        }
    }
    bytes.truncate(filled);
    Ok(())
}

/// A copy that is being written.
#[derive(Debug)]
struct Copy {
    file: File,
    at: u64,
}

impl Copy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        file::write_at(&self.file, bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

//! A file that arrives from its first byte to its last, from a place that does not know its BLAKE3.
//!
//! ```text
//! DIR/blobs/arriving/KEY/data     the bytes so far
//! DIR/blobs/arriving/KEY/tree     the chaining values of the pieces that are complete
//! DIR/blobs/arriving/KEY/recipe   the chunks so far
//! DIR/blobs/arriving/KEY/about    magic 16 | boot id 16 | size u64 | synced u64, little-endian
//! ```
//!
//! `KEY` is a hash of what the caller calls the file. After a kill of the process all that was
//! written is there; after a loss of power, what was synced. Then SHA-256 and chunks, which cannot
//! be taken up in the middle, are computed in one pass at the end; the tree goes on where it stood.
//!
//! # Invariants
//!
//! * What is kept is a beginning of the file: bytes are appended in order, and cut off after the
//!   last that are known to be right.
//! * The bytes and the chaining values are synced before `about` says so.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use commons_port::BoxFuture;
use commons_port::blobs::{AddEvent, BlobError, CV_LEN, PIECE_LEN, Receiving};
use commons_record::Hash;
use commons_swarm::tree::{Cv, TreeBuilder};
use sha2::{Digest as _, Sha256};

use super::add;
use super::file;
use super::held::UNSYNCED_MAX;
use super::pass::{ChunkStage, PassError, Sinks, TreeStage, pass};
use super::pool::Pool;
use super::shared::{Adopt, Book, Shared, shape_of};
use crate::data_dir::create_private_dir;

const DOMAIN: &str = "commons/arriving/1";
const MAGIC: &[u8; 16] = b"commons/arrive/1";
const ABOUT_LEN: usize = 48;

/// Bytes that are kept of a file whose folder this is; none if it has left it, or never came.
pub(super) fn len_of(folder: &Path) -> Option<u64> {
    fs::metadata(folder.join("data")).map(|about| about.len()).ok()
}

impl Shared {
    fn arrival_folder(&self, key: Hash) -> PathBuf {
        self.folder.join("arriving").join(key.to_string())
    }

    /// Forgets a file that was arriving, and gives back its room.
    pub(super) fn forget_arrival_in(
        &self,
        book: &mut Book,
        key: Hash,
        size: u64,
    ) -> Result<(), BlobError> {
        let folder = self.arrival_folder(key);
        let missing = size.saturating_sub(len_of(&folder).unwrap_or(0));
        self.index.forget_arrival(key).map_err(|error| self.index_error(error))?;
        self.release(book, size, missing);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.disk(&error, 0)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Begins to receive a file, or goes on where it stood.
pub(super) fn start(
    [pieces, files]: [&Arc<Pool>; 2],
    shared: &Arc<Shared>,
    name: String,
    size: u64,
) -> BoxFuture<'static, Result<Box<dyn Receiving>, BlobError>> {
    let (pieces, files) = (Arc::clone(pieces), Arc::clone(files));
    let shared = Arc::clone(shared);
    Box::pin(async move {
        let arrival = Arc::new(pieces.ask(move || open(&shared, name, size)).await?);
        Ok(Box::new(Arriving { pieces, files, arrival }) as _)
    })
}

fn open(shared: &Arc<Shared>, name: String, size: u64) -> Result<Arrival, BlobError> {
    shape_of(size)?;
    let key = Hash::of_fields(DOMAIN, &[name.as_bytes()]);
    {
        let mut book = shared.book();
        if book.arriving.contains(&key) {
            return Err(BlobError::Busy { what: name });
        }
        let known = shared.index.arrivals().map_err(|error| shared.index_error(error))?;
        let known = known.into_iter().find(|(it, _, _)| *it == key).map(|(_, size, _)| size);
        if known != Some(size) {
            if let Some(known) = known {
                // What arrives is another file now.
                shared.forget_arrival_in(&mut book, key, known)?;
            }
            shared.reserve(&mut book, size)?;
        }
        let put = shared.index.put_arrival(key, size, shared.now());
        if let Err(error) = put {
            if known != Some(size) {
                shared.release(&mut book, size, size);
            }
            return Err(shared.index_error(error));
        }
        book.arriving.insert(key);
    }
    // From here on dropping it lets others have the key.
    let arrival = Arrival {
        shared: Arc::clone(shared),
        key,
        name,
        size,
        len: AtomicU64::new(0),
        parts: Mutex::new(None),
    };
    let parts = Parts::open(&shared.arrival_folder(key), size);
    let parts = parts.map_err(|error| shared.disk(&error, 0))?;
    arrival.len.store(parts.len, Ordering::Relaxed);
    *arrival.parts() = Some(parts);
    Ok(arrival)
}

struct Arrival {
    shared: Arc<Shared>,
    key: Hash,
    name: String,
    size: u64,
    /// Bytes that are kept, for those who ask.
    len: AtomicU64,
    /// None after an error that left it unclear what is kept: opening it again tells.
    parts: Mutex<Option<Parts>>,
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.shared.book().arriving.remove(&self.key);
    }
}

impl Arrival {
    fn parts(&self) -> std::sync::MutexGuard<'_, Option<Parts>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self, error: &io::Error, need: u64) -> BlobError {
        self.shared.disk(error, need)
    }

    fn append(&self, bytes: &[u8]) -> Result<(), BlobError> {
        let mut kept = self.parts();
        let parts = self.there(&mut kept)?;
        let to = parts.len.saturating_add(bytes.len() as u64);
        if to > self.size {
            let (key, size) = (self.name.clone(), self.size);
            return Err(BlobError::OtherLen { key, len: to, size });
        }
        match parts.append(bytes, self.size) {
            Ok(()) => {
                self.len.store(to, Ordering::Relaxed);
                self.shared.arrived(bytes.len() as u64);
                Ok(())
            }
            Err(error) => {
                // What was confirmed is kept; the rest is cut off when it is opened again.
                let confirmed = parts.len;
                *kept = None;
                let folder = self.shared.arrival_folder(self.key);
                let cut = file::create(&folder.join("data"));
                let cut = cut.and_then(|data| file::set_len(&data, confirmed));
                if let Err(error) = cut {
                    tracing::debug!(%error, "more of a file is kept than was confirmed");
                }
                Err(self.disk(&error, bytes.len() as u64))
            }
        }
    }

    fn there<'a>(&self, kept: &'a mut Option<Parts>) -> Result<&'a mut Parts, BlobError> {
        if kept.is_none() {
            let folder = self.shared.arrival_folder(self.key);
            let parts = Parts::open(&folder, self.size).map_err(|error| self.disk(&error, 0))?;
            self.len.store(parts.len, Ordering::Relaxed);
            *kept = Some(parts);
        }
        kept.as_mut().ok_or_else(|| BlobError::Busy { what: self.name.clone() })
    }

    fn restart(&self) -> Result<(), BlobError> {
        let mut kept = self.parts();
        let had = self.len.swap(0, Ordering::Relaxed);
        *kept = None;
        let folder = self.shared.arrival_folder(self.key);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.disk(&error, 0));
            }
            Ok(()) | Err(_) => {}
        }
        self.shared.missing_again(had);
        self.there(&mut kept).map(drop)
    }

    fn finish(&self, want: Option<[u8; 32]>) -> Result<AddEvent, BlobError> {
        let mut kept = self.parts();
        let parts = self.there(&mut kept)?;
        let (len, size) = (parts.len, self.size);
        if len != size {
            return Err(BlobError::OtherLen { key: self.name.clone(), len, size });
        }
        let parts = kept.take().ok_or_else(|| BlobError::Busy { what: self.name.clone() })?;
        let shared = &self.shared;
        let disk = |error: io::Error| shared.disk(&error, 0);
        let folder = shared.arrival_folder(self.key);
        let data = parts.data.try_clone().map_err(disk)?;
        let (tree, sha256, chunks) = parts.finish(&folder, size).map_err(disk)?;
        if let Some(want) = want.filter(|want| *want != sha256) {
            shared.forget_arrival_in(&mut shared.book(), self.key, size)?;
            let (want, got) = (Hash::from_bytes(want), Hash::from_bytes(sha256));
            return Err(BlobError::WrongDigest { want: want.to_string(), got: got.to_string() });
        }
        let tree = tree.ok_or(BlobError::TooLarge { size, max: size })?;
        file::sync(&data).map_err(disk)?;
        let (data, hashes) = (folder.join("data"), folder.join("tree"));
        // Before the file leaves here: after a crash, whoever asks for it again finds it held.
        shared.index.put_sha256(sha256, tree.blob).map_err(|error| shared.index_error(error))?;
        // The room goes over to the blob, or is given back if that is held already.
        shared.adopt(&tree, &Adopt::Copied { data, hashes }, size)?;
        let event = add::note(shared, &tree, sha256, chunks, &folder.join("recipe"));
        let mut book = shared.book();
        shared.index.forget_arrival(self.key).map_err(|error| shared.index_error(error))?;
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::debug!(%error, "what is left of a file that arrived stays");
        }
        book.arriving.remove(&self.key);
        drop(book);
        event
    }
}

/// The files of an arrival, and the hashes that go with them.
struct Parts {
    data: File,
    about: File,
    tree: TreeStage,
    /// None if the file was taken up in the middle.
    others: Option<(Sha256, ChunkStage)>,
    len: u64,
    synced: u64,
    boot: [u8; 16],
}

impl Parts {
    fn open(folder: &Path, size: u64) -> io::Result<Self> {
        create_private_dir(folder)?;
        let (data, about) =
            (file::create(&folder.join("data"))?, file::create(&folder.join("about"))?);
        let hashes = file::create(&folder.join("tree"))?;
        let boot = file::boot();
        let there = data.metadata()?.len().min(size);
        let (len, synced) = match read_about(&about)? {
            Some(said) if said.size == size && boot.is_some_and(|boot| boot == said.boot) => {
                (there, said.synced)
            }
            Some(said) if said.size == size => (there.min(said.synced), there.min(said.synced)),
            Some(_) | None => (0, 0),
        };
        file::set_len(&data, len)?;
        let builder = take_up(&hashes, len)?;
        let mut tree = TreeStage::new(builder, hashes);
        let mut at = tree.size();
        let mut bytes = vec![0; 64 << 10];
        while at < len {
            let part = usize::try_from(len - at).unwrap_or(usize::MAX).min(bytes.len());
            file::read_at(&data, &mut bytes[..part], at)?;
            tree.update(&bytes[..part])?;
            at += part as u64;
        }
        let others = if len == 0 {
            Some((Sha256::new(), ChunkStage::new(file::create(&folder.join("recipe"))?)))
        } else {
            None
        };
        let boot = boot.unwrap_or_default();
        let mut parts = Self { data, about, tree, others, len, synced, boot };
        parts.write_about(size)?;
        Ok(parts)
    }

    fn append(&mut self, bytes: &[u8], size: u64) -> io::Result<()> {
        file::write_at(&self.data, bytes, self.len)?;
        self.tree.update(bytes)?;
        self.tree.flush()?;
        if let Some((sha256, chunks)) = &mut self.others {
            sha256.update(bytes);
            chunks.update(bytes)?;
        }
        let len = self.len + bytes.len() as u64;
        if len - self.synced >= UNSYNCED_MAX {
            file::sync(&self.data)?;
            self.tree.sync()?;
            self.synced = len;
            self.write_about(size)?;
        }
        self.len = len;
        Ok(())
    }

    fn write_about(&mut self, size: u64) -> io::Result<()> {
        let mut bytes = [0; ABOUT_LEN];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..32].copy_from_slice(&self.boot);
        bytes[32..40].copy_from_slice(&size.to_le_bytes());
        bytes[40..].copy_from_slice(&self.synced.to_le_bytes());
        file::write_at(&self.about, &bytes, 0)
    }

    /// The tree, the SHA-256 and the count of chunks. Reads the file again if it was interrupted.
    fn finish(self, folder: &Path, size: u64) -> io::Result<Finished> {
        let tree = self.tree.finish()?;
        if let Some((sha256, chunks)) = self.others {
            return Ok((tree, sha256.finalize().into(), chunks.finish()?));
        }
        let recipe = file::create(&folder.join("recipe"))?;
        file::set_len(&recipe, 0)?;
        let source = file::open(&folder.join("data"))?;
        let sinks = Sinks { copy: None, hashes: None, recipe };
        let passed = pass(&source, size, sinks, |_| true).map_err(|error| match error {
            PassError::Read(error) | PassError::Write(error) => error,
            PassError::Changed | PassError::Cancelled => io::Error::other("the file changed"),
        })?;
        Ok((tree, passed.sha256, passed.chunks))
    }
}

type Finished = (Option<commons_swarm::tree::Tree>, [u8; 32], u64);

/// The tree of the pieces whose chaining values were kept: those before the last byte that is.
fn take_up(hashes: &File, len: u64) -> io::Result<TreeBuilder> {
    let kept = hashes.metadata()?.len() / CV_LEN as u64;
    let pieces = kept.min(len.saturating_sub(1) / u64::from(PIECE_LEN));
    let mut failed = None;
    let builder = TreeBuilder::resume((0..pieces).map_while(|piece| {
        let mut cv: Cv = [0; CV_LEN];
        let read = file::read_at(hashes, &mut cv, piece * CV_LEN as u64);
        failed = read.err();
        failed.is_none().then_some(cv)
    }));
    failed.map_or(Ok(builder), Err)
}

struct About {
    boot: [u8; 16],
    size: u64,
    synced: u64,
}

/// None if the file is new, or is not one of ours.
fn read_about(about: &File) -> io::Result<Option<About>> {
    if about.metadata()?.len() < ABOUT_LEN as u64 {
        return Ok(None);
    }
    let mut bytes = [0; ABOUT_LEN];
    file::read_at(about, &mut bytes, 0)?;
    if !bytes.starts_with(MAGIC) {
        return Ok(None);
    }
    let mut boot = [0; 16];
    boot.copy_from_slice(&bytes[16..32]);
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(number)
    };
    Ok(Some(About { boot, size: number(32), synced: number(40) }))
}

struct Arriving {
    pieces: Arc<Pool>,
    files: Arc<Pool>,
    arrival: Arc<Arrival>,
}

impl Receiving for Arriving {
    fn len(&self) -> u64 {
        self.arrival.len.load(Ordering::Relaxed)
    }

    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), BlobError>> {
        let arrival = Arc::clone(&self.arrival);
        self.pieces.ask(move || arrival.append(&bytes))
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), BlobError>> {
        let arrival = Arc::clone(&self.arrival);
        self.pieces.ask(move || arrival.restart())
    }

    fn finish(
        self: Box<Self>,
        sha256: Option<[u8; 32]>,
    ) -> BoxFuture<'static, Result<AddEvent, BlobError>> {
        let Self { files, arrival, .. } = *self;
        Box::pin(async move { files.ask(move || arrival.finish(sha256)).await })
    }
}

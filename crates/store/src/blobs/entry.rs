//! One blob whose files are open: reads and writes of its pieces.
//!
//! ```text
//! Partial: HASH.part, HASH.held, HASH.tree --all pieces--> Whole: HASH, HASH.tree
//! InPlace: a file elsewhere, HASH.tree       any --removed--> Gone
//! ```
//!
//! # Invariants
//!
//! * A piece is held only after its bytes were checked and written; see `held.rs` for what that
//!   means after a crash.
//! * The file `HASH` exists only if all of it was checked and synced.
//! * Reading and writing hold the state's lock shared; what changes the files holds it alone. Nobody
//!   takes the store's book while holding it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use commons_port::blobs::{Bits, BlobError, GROUP_PIECES, PIECE_LEN};
use commons_record::Hash;
use commons_swarm::tree::Shape;

use super::file::{self, disk_error};
use super::hashes::{Hashes, PutError, piece_at};
use super::held::Held;
use super::index::{InPlace, Kind};

/// Where the files of a blob are. Names are made of the hash alone.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) whole: PathBuf,
    pub(super) part: PathBuf,
    pub(super) held: PathBuf,
    pub(super) tree: PathBuf,
}

impl Paths {
    pub(super) fn new(folder: &Path, blob: Hash) -> Self {
        let name = blob.to_string();
        let whole = folder.join(&name[..2]).join(&name);
        let with = |extension| whole.with_extension(extension);
        Self { part: with("part"), held: with("held"), tree: with("tree"), whole }
    }
}

/// What a step left to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// The piece was held before.
    Known,
    /// It is held now.
    New,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) blob: Hash,
    pub(super) used: AtomicU64,
    paths: Paths,
    state: RwLock<State>,
}

#[derive(Debug)]
enum State {
    Partial { data: File, held: Mutex<Held>, hashes: Hashes },
    Whole { data: File, hashes: Hashes },
    InPlace { place: InPlace, hashes: Hashes },
    Gone,
}

impl Entry {
    /// Opens the files of a blob. What is there decides, not what the index says; `None` if the
    /// index says that it is whole and nothing is there.
    pub(super) fn open(
        blob: Hash,
        paths: Paths,
        (kind, shape, used): (Kind, Shape, u64),
        place: Option<InPlace>,
    ) -> io::Result<Option<Self>> {
        if let Some(parent) = paths.whole.parent() {
            crate::data_dir::create_private_dir(parent)?;
        }
        let hashes = Hashes::open(&paths.tree, blob, shape)?;
        let state = if let Some(place) = place {
            State::InPlace { place, hashes }
        } else if paths.whole.exists() {
            State::Whole { data: file::open(&paths.whole)?, hashes }
        } else if kind == Kind::Partial || paths.part.exists() {
            if !paths.part.exists() {
                file::remove(&paths.held)?; // It speaks of a file that is gone.
            }
            let data = file::create(&paths.part)?;
            let is_right = |piece| {
                let bytes = read_piece(&data, shape, piece);
                let page = hashes.page(piece / GROUP_PIECES);
                bytes.ok().zip(page).is_some_and(|(it, page)| page.check_piece(piece, &it).is_ok())
            };
            let held = Held::open(&paths.held, shape.pieces(), file::boot(), is_right)?;
            State::Partial { data, held: Mutex::new(held), hashes }
        } else {
            return Ok(None);
        };
        let used = AtomicU64::new(used);
        Ok(Some(Self { blob, used, paths, state: RwLock::new(state) }))
    }

    /// How many pieces are held.
    pub(super) fn count(&self) -> u64 {
        self.with(|state| match state {
            State::Partial { held, .. } => lock(held).count(),
            State::Whole { hashes, .. } | State::InPlace { hashes, .. } => hashes.shape().pieces(),
            State::Gone => 0,
        })
    }

    pub(super) fn held(&self) -> Result<Bits, BlobError> {
        self.with(|state| match state {
            State::Partial { held, .. } => Ok(lock(held).bits()),
            State::Whole { hashes, .. } | State::InPlace { hashes, .. } => {
                let pieces = hashes.shape().pieces();
                let bytes = usize::try_from(pieces.div_ceil(8)).unwrap_or(0);
                let mut bits = vec![u8::MAX; bytes];
                if let (Some(last), rest @ 1..) = (bits.last_mut(), pieces % 8) {
                    *last = (1 << rest) - 1;
                }
                Ok(Bits(bits))
            }
            State::Gone => Err(self.not_held()),
        })
    }

    pub(super) fn top(&self) -> Result<Option<Bytes>, BlobError> {
        self.with(|state| Ok(self.hashes(state)?.top().map(|it| it.bytes().clone())))
    }

    pub(super) fn page(&self, group: u64) -> Result<Option<Bytes>, BlobError> {
        self.with(|state| Ok(self.hashes(state)?.page(group).map(|it| it.bytes().clone())))
    }

    pub(super) fn put_top(&self, top: Bytes) -> Result<(), BlobError> {
        let need = top.len() as u64;
        self.with(|state| self.hashes(state)?.put_top(top).map_err(|it| self.refused(it, need)))
    }

    pub(super) fn put_page(&self, group: u64, page: Bytes) -> Result<(), BlobError> {
        let need = page.len() as u64;
        let put = |state: &State| match self.hashes(state)?.put_page(group, page) {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(self.not_yet(group * GROUP_PIECES)),
            Err(error) => Err(self.refused(error, need)),
        };
        self.with(put)
    }

    /// Checks a piece and keeps it. Whether the blob has all of them now is asked of [`Self::count`].
    pub(super) fn put_piece(&self, piece: u64, bytes: &[u8]) -> Result<Put, BlobError> {
        self.with(|state| {
            let (data, held, hashes) = match state {
                State::Partial { data, held, hashes } => (data, held, hashes),
                State::Whole { .. } | State::InPlace { .. } => return Ok(Put::Known),
                State::Gone => return Err(self.not_held()),
            };
            if lock(held).has(piece) {
                return Ok(Put::Known);
            }
            let page = hashes.page(piece / GROUP_PIECES).ok_or_else(|| self.not_yet(piece))?;
            let wrong = BlobError::WrongPiece { blob: self.blob, piece };
            page.check_piece(piece, bytes).map_err(|_| wrong)?;
            let len = bytes.len() as u64;
            let failed = |error: io::Error| self.disk(&error, len);
            if !bytes.is_empty() {
                file::write_at(data, bytes, piece_at(piece)).map_err(failed)?;
            }
            let is_new = lock(held).set(piece, len).map_err(failed)?;
            self.sync_if_due(data, held)?;
            Ok(if is_new { Put::New } else { Put::Known })
        })
    }

    fn sync_if_due(&self, data: &File, held: &Mutex<Held>) -> Result<(), BlobError> {
        let bits = {
            let mut held = lock(held);
            if !held.is_due() {
                return Ok(());
            }
            held.begin_sync()
        };
        // Others go on writing meanwhile.
        let result = file::sync(data);
        let mut held = lock(held);
        let result = match result {
            Ok(()) => held.end_sync(&bits),
            Err(error) => held.forget_unsynced().and(Err(error)),
        };
        result.map_err(|error| self.disk(&error, 0))
    }

    /// All pieces are held: the file gets its name. Whether this call did it.
    pub(super) fn complete(&self) -> Result<bool, BlobError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State::Partial { data, held, hashes } = &*state else { return Ok(false) };
        let mut held = lock(held);
        if held.count() < hashes.shape().pieces() {
            return Ok(false);
        }
        let failed = |error: io::Error| self.disk(&error, 0);
        if let Err(error) = file::sync(data) {
            held.forget_unsynced().map_err(failed)?;
            return Err(failed(error));
        }
        hashes.sync().map_err(failed)?;
        file::place(&self.paths.part, &self.paths.whole).map_err(failed)?;
        drop(held);
        // The open files are the same under the other name.
        *state = match std::mem::replace(&mut *state, State::Gone) {
            State::Partial { data, hashes, .. } => State::Whole { data, hashes },
            other => other,
        };
        drop(state);
        if let Err(error) = file::remove(&self.paths.held) {
            tracing::debug!(%error, "a note of held pieces stays until the next start");
        }
        Ok(true)
    }

    pub(super) fn read(&self, offset: u64, len: u32) -> Result<Bytes, BlobError> {
        self.with(|state| {
            let shape = self.hashes(state)?.shape();
            let (blob, size, to) = (self.blob, shape.size(), offset.saturating_add(len.into()));
            if to > size || len > PIECE_LEN {
                return Err(BlobError::OutOfRange { blob, size, from: offset, to });
            }
            let (first, last) = (offset / u64::from(PIECE_LEN), to.saturating_sub(1).max(offset));
            let pieces = first..=last / u64::from(PIECE_LEN);
            match state {
                State::Partial { data, held, .. } => {
                    let missing = pieces.clone().find(|&piece| !lock(held).has(piece));
                    missing.map_or(Ok(()), |piece| Err(self.not_yet(piece)))?;
                    read_bytes(data, offset, len).map_err(|error| self.disk(&error, 0))
                }
                State::Whole { data, .. } => {
                    read_bytes(data, offset, len).map_err(|error| self.disk(&error, 0))
                }
                State::InPlace { place, hashes } => {
                    let mut found = Vec::with_capacity(len as usize);
                    for piece in pieces {
                        let bytes = self.read_in_place(place, hashes, piece)?;
                        let start = offset.max(piece_at(piece)) - piece_at(piece);
                        let end = to.min(piece_at(piece) + bytes.len() as u64) - piece_at(piece);
                        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
                        let part = range.and_then(|(start, end)| bytes.get(start..end));
                        found.extend_from_slice(part.unwrap_or_default());
                    }
                    Ok(found.into())
                }
                State::Gone => Err(self.not_held()),
            }
        })
    }

    /// A piece of a file elsewhere, checked. Its length and its bytes tell whether it changed.
    fn read_in_place(
        &self,
        place: &InPlace,
        hashes: &Hashes,
        piece: u64,
    ) -> Result<Bytes, BlobError> {
        let (path, shape) = (place.path.clone(), hashes.shape());
        let bad =
            |error: io::Error| BlobError::BadFile { path: path.clone(), detail: error.to_string() };
        let data = file::open(Path::new(&path)).map_err(bad)?;
        if data.metadata().map_err(bad)?.len() != shape.size() {
            return Err(BlobError::Changed { path });
        }
        let bytes = match read_piece(&data, shape, piece) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(BlobError::Changed { path });
            }
            Err(error) => return Err(bad(error)),
        };
        let page = hashes.page(piece / GROUP_PIECES).ok_or_else(|| self.not_yet(piece))?;
        match page.check_piece(piece, &bytes) {
            Ok(()) => Ok(bytes),
            Err(_) => Err(BlobError::Changed { path }),
        }
    }

    /// Reads every piece that is held and checks it; the indices of those that are wrong, which are
    /// no longer held then.
    pub(super) fn verify(&self) -> Result<Vec<u64>, BlobError> {
        let pieces = self.with(|state| Ok(self.hashes(state)?.shape().pieces()))?;
        self.with(|state| self.mend_hashes(state))?;
        let mut wrong = Vec::new();
        for piece in 0..pieces {
            // The lock is given back after each piece, so that writers are not kept waiting.
            if !self.with(|state| self.is_piece_right(state, piece))? {
                wrong.push(piece);
            }
        }
        if !wrong.is_empty() {
            self.demote(&wrong)?;
        }
        Ok(wrong)
    }

    /// The chaining values of a blob that is held whole can be computed again.
    fn mend_hashes(&self, state: &State) -> Result<(), BlobError> {
        let State::Whole { data, hashes } = state else { return Ok(()) };
        let shape = hashes.shape();
        if (0..shape.groups()).all(|group| hashes.page(group).is_some()) {
            return Ok(());
        }
        let is_mended = hashes.rebuild(|piece| read_piece(data, shape, piece));
        let is_mended = is_mended.map_err(|error| self.disk(&error, 0))?;
        tracing::info!(blob = %self.blob, is_mended, "the hashes of a blob were computed again");
        Ok(())
    }

    fn is_piece_right(&self, state: &State, piece: u64) -> Result<bool, BlobError> {
        let (data, hashes) = match state {
            State::Partial { data, held, hashes } => {
                if !lock(held).has(piece) {
                    return Ok(true);
                }
                (data, hashes)
            }
            State::Whole { data, hashes } => (data, hashes),
            State::InPlace { place, hashes } => {
                return match self.read_in_place(place, hashes, piece) {
                    Ok(_) => Ok(true),
                    Err(BlobError::Changed { .. }) => Ok(false),
                    Err(error) => Err(error),
                };
            }
            State::Gone => return Err(self.not_held()),
        };
        let bytes = match read_piece(data, hashes.shape(), piece) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(self.disk(&error, 0)),
        };
        let page = hashes.page(piece / GROUP_PIECES);
        Ok(page.is_some_and(|page| page.check_piece(piece, &bytes).is_ok()))
    }

    /// Some pieces are wrong: a whole blob is partial again.
    fn demote(&self, wrong: &[u64]) -> Result<(), BlobError> {
        let failed = |error: io::Error| self.disk(&error, 0);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let shape = match &*state {
            State::Partial { held, .. } => return lock(held).clear(wrong).map_err(failed),
            State::InPlace { .. } | State::Gone => return Ok(()),
            State::Whole { hashes, .. } => hashes.shape(),
        };
        // The note first: under the other name the file is believed only as far as it says.
        file::remove(&self.paths.held).map_err(failed)?;
        let held = Held::open(&self.paths.held, shape.pieces(), file::boot(), |_| false);
        let mut held = held.map_err(failed)?;
        held.fill().and_then(|()| held.clear(wrong)).map_err(failed)?;
        let data = file::create(&self.paths.whole).map_err(failed)?;
        file::place(&self.paths.whole, &self.paths.part).map_err(failed)?;
        *state = match std::mem::replace(&mut *state, State::Gone) {
            State::Whole { hashes, .. } => State::Partial { data, held: Mutex::new(held), hashes },
            other => other,
        };
        Ok(())
    }

    /// Nothing is read or written through this entry from now on.
    pub(super) fn close(&self) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Gone;
    }

    fn with<T>(&self, work: impl FnOnce(&State) -> T) -> T {
        work(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn hashes<'a>(&self, state: &'a State) -> Result<&'a Hashes, BlobError> {
        match state {
            State::Partial { hashes, .. }
            | State::Whole { hashes, .. }
            | State::InPlace { hashes, .. } => Ok(hashes),
            State::Gone => Err(self.not_held()),
        }
    }

    fn refused(&self, error: PutError, need: u64) -> BlobError {
        match error {
            PutError::Wrong => BlobError::WrongHashes { blob: self.blob },
            PutError::Disk(error) => self.disk(&error, need),
        }
    }

    fn disk(&self, error: &io::Error, need: u64) -> BlobError {
        disk_error(error, need, self.paths.whole.parent().unwrap_or(&self.paths.whole))
    }

    fn not_held(&self) -> BlobError {
        BlobError::NotHeld { blob: self.blob }
    }

    fn not_yet(&self, piece: u64) -> BlobError {
        BlobError::NotYet { blob: self.blob, piece }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_bytes(data: &File, offset: u64, len: u32) -> io::Result<Bytes> {
    let mut bytes = vec![0; len as usize];
    file::read_at(data, &mut bytes, offset)?;
    Ok(bytes.into())
}

fn read_piece(data: &File, shape: Shape, piece: u64) -> io::Result<Bytes> {
    read_bytes(data, piece_at(piece), shape.piece_len(piece).unwrap_or(0))
}

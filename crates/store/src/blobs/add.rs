//! Takes in a file of this machine: hashes it in one pass, and copies it or notes where it lies.
//!
//! ```text
//! file --pass--> adding/N.data (a reflink where the file system can), N.tree, N.recipe
//!      --sync--> index, then HH/HASH --> the recipe likewise --> its chunks into the index
//! ```
//!
//! A copy is made of what was hashed: the bytes of the pass are those that are written, and where
//! they are shared it is the shared file that is hashed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::UNIX_EPOCH;

use commons_port::blobs::{AddEvent, BlobError, Holding};
use commons_port::{BoxFuture, BoxStream};
use commons_record::Hash;
use commons_swarm::tree::{Tree, TreeBuilder};
use futures_core::Stream;
use tokio::sync::mpsc;

use super::file;
use super::index::{Facts, InPlace, Kind};
use super::pass::{PassError, Passed, Sinks, TreeStage, finish_recipe, pass};
use super::pool::Pool;
use super::shared::{Adopt, Shared, shape_of};

/// Progress that nobody has read yet is left out; the last event never is.
const EVENTS: usize = 4;

type Event = Result<AddEvent, BlobError>;

/// Begins to take in a file when the stream is first polled. Dropping the stream ends it.
pub(super) fn start(
    pool: &Arc<Pool>,
    shared: &Arc<Shared>,
    path: String,
    holding: Holding,
) -> BoxStream<'static, Event> {
    let (events, receiver) = mpsc::channel(EVENTS);
    let shared = Arc::clone(shared);
    let job = Box::new(move || {
        let progress = |bytes, size| match events.try_send(Ok(AddEvent::Progress { bytes, size })) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        };
        let held = add(&shared, &path, holding, progress);
        // Nobody waits for it if this fails.
        let _ = events.blocking_send(held);
    });
    Box::pin(Events { start: Some(pool.start(job)), receiver })
}

struct Events {
    start: Option<BoxFuture<'static, Result<(), BlobError>>>,
    receiver: mpsc::Receiver<Event>,
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some(start) = &mut self.start {
            let started = ready!(start.as_mut().poll(ctx));
            self.start = None;
            if let Err(error) = started {
                self.receiver.close();
                return Poll::Ready(Some(Err(error)));
            }
        }
        self.receiver.poll_recv(ctx)
    }
}

/// A file that is taken in, as it was when that began.
struct Source {
    file: File,
    path: String,
    size: u64,
    modified: u128,
}

impl Source {
    fn open(path: &str) -> Result<Self, BlobError> {
        let bad = |error: io::Error| bad_file(path, &error);
        let path_now = fs::canonicalize(path).map_err(bad)?;
        if !path_now.is_file() {
            return Err(bad(io::Error::other("it is not a file")));
        }
        let file = file::open(&path_now).map_err(bad)?;
        let (size, modified) = stamp(&file).map_err(bad)?;
        let utf8 = path_now.into_os_string().into_string();
        let utf8 = utf8.map_err(|_| bad(io::Error::other("its path is not UTF-8")))?;
        Ok(Self { file, path: utf8, size, modified })
    }

    fn is_unchanged(&self) -> bool {
        let now = file::open(Path::new(&self.path)).and_then(|file| stamp(&file));
        now.is_ok_and(|now| now == (self.size, self.modified))
    }
}

fn bad_file(path: &str, error: &io::Error) -> BlobError {
    BlobError::BadFile { path: path.to_owned(), detail: error.to_string() }
}

/// A file's length, and when it was last changed: nanoseconds of Unix time.
fn stamp(file: &File) -> io::Result<(u64, u128)> {
    let about = file.metadata()?;
    let modified = about.modified()?.duration_since(UNIX_EPOCH);
    Ok((about.len(), modified.map_or(0, |since| since.as_nanos())))
}

/// Files that are being made; those that are still here at the end are removed.
pub(super) struct Draft {
    pub(super) data: PathBuf,
    pub(super) hashes: PathBuf,
    pub(super) recipe: PathBuf,
}

impl Draft {
    pub(super) fn new(shared: &Shared) -> Self {
        let new = |extension| shared.draft(extension);
        Self { data: new("data"), hashes: new("tree"), recipe: new("recipe") }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for path in [&self.data, &self.hashes, &self.recipe] {
            if let Err(error) = file::remove(path) {
                tracing::debug!(%error, "a draft of a blob stays until the next start");
            }
        }
    }
}

fn add(
    shared: &Arc<Shared>,
    path: &str,
    holding: Holding,
    progress: impl Fn(u64, u64) -> bool,
) -> Event {
    let source = Source::open(path)?;
    shape_of(source.size)?;
    if holding == Holding::InPlace
        && let Some(event) = is_known(shared, &source)?
    {
        return Ok(event);
    }
    let room = match holding {
        Holding::Copied => source.size,
        Holding::InPlace => 0,
    };
    shared.reserve(&mut shared.book(), room)?;
    let draft = Draft::new(shared);
    let passed = pass_over(shared, &source, holding, &draft, progress);
    let adopted = passed.and_then(|(tree, passed)| {
        let hashes = draft.hashes.clone();
        let from = match holding {
            Holding::Copied => Adopt::Copied { data: draft.data.clone(), hashes },
            Holding::InPlace => {
                let place = InPlace { path: source.path.clone(), modified: source.modified };
                Adopt::InPlace { place, hashes }
            }
        };
        shared.adopt(&tree, &from, room)?;
        Ok((tree, passed))
    });
    let (tree, passed) = match adopted {
        Ok(adopted) => {
            shared.arrived(room);
            adopted
        }
        Err(error) => {
            shared.release(&mut shared.book(), room, room);
            return Err(error);
        }
    };
    note(shared, &tree, passed.sha256, passed.chunks, &draft.recipe)
}

/// A file that was taken in where it lies and did not change since need not be read again: each of
/// its pieces is checked when it is read.
fn is_known(shared: &Arc<Shared>, source: &Source) -> Result<Option<AddEvent>, BlobError> {
    let failed = |error| shared.index_error(error);
    let Some(blob) = shared.index.at_path(&source.path).map_err(failed)? else { return Ok(None) };
    let place = shared.index.in_place(blob).map_err(failed)?;
    let is_same = place.is_some_and(|place| place.modified == source.modified);
    let meta = shared.meta(blob)?.filter(|it| it.size == source.size && it.kind == Kind::InPlace);
    let facts = shared.index.facts(blob).map_err(failed)?;
    let (true, Some(meta), Some(Facts { sha256, recipe })) = (is_same, meta, facts) else {
        return Ok(None);
    };
    Ok(Some(AddEvent::Held { blob, sha256, size: meta.size, recipe }))
}

fn pass_over(
    shared: &Arc<Shared>,
    source: &Source,
    holding: Holding,
    draft: &Draft,
    progress: impl Fn(u64, u64) -> bool,
) -> Result<(Tree, Passed), BlobError> {
    let disk = |error: io::Error| shared.disk(&error, source.size);
    let copy = match holding {
        Holding::Copied => Some(file::create(&draft.data).map_err(disk)?),
        Holding::InPlace => None,
    };
    let is_shared = copy.as_ref().is_some_and(|copy| file::share(&source.file, copy));
    let reader = if is_shared {
        file::open(&draft.data).map_err(disk)?
    } else {
        source.file.try_clone().map_err(disk)?
    };
    let written = copy.as_ref().filter(|_| !is_shared).map(File::try_clone);
    let sinks = Sinks {
        copy: written.transpose().map_err(disk)?,
        hashes: Some(file::create(&draft.hashes).map_err(disk)?),
        recipe: file::create(&draft.recipe).map_err(disk)?,
    };
    let changed = || BlobError::Changed { path: source.path.clone() };
    let passed = pass(&reader, source.size, sinks, |bytes| progress(bytes, source.size));
    let mut passed = passed.map_err(|error| match error {
        PassError::Read(error) => bad_file(&source.path, &error),
        PassError::Changed => changed(),
        PassError::Write(error) => disk(error),
        PassError::Cancelled => BlobError::Busy { what: source.path.clone() },
    })?;
    // Whether a shared copy is of one moment does not matter: it is what was hashed.
    if !is_shared && !source.is_unchanged() {
        return Err(changed());
    }
    if let Some(copy) = copy {
        file::sync(&copy).map_err(disk)?;
    }
    let tree = passed.tree.take().ok_or_else(changed)?;
    Ok((tree, passed))
}

/// Notes what was computed of a blob that is held now: its SHA-256, its recipe, its chunks.
pub(super) fn note(
    shared: &Arc<Shared>,
    tree: &Tree,
    sha256: [u8; 32],
    chunks: u64,
    recipe: &Path,
) -> Event {
    let (blob, size) = (tree.blob, tree.shape.size());
    let disk = |error: io::Error| shared.disk(&error, 0);
    let file = file::create(recipe).map_err(disk)?;
    if !finish_recipe(&file, blob, size, chunks).map_err(disk)? {
        return Err(BlobError::Disk {
            detail: format!("{chunks} chunks cannot be those of {blob}"),
        });
    }
    file::sync(&file).map_err(disk)?;
    let recipe = take_in_plain(shared, recipe)?;
    let put = shared.index.put_facts(blob, Facts { sha256, recipe });
    put.map_err(|error| shared.index_error(error))?;
    shared.index_chunks(blob, recipe)?;
    Ok(AddEvent::Held { blob, sha256, size, recipe })
}

/// Makes a blob of a small file of our own. It is synced.
fn take_in_plain(shared: &Arc<Shared>, path: &Path) -> Result<Hash, BlobError> {
    let disk = |error: io::Error| shared.disk(&error, 0);
    let data = file::open(path).map_err(disk)?;
    let size = data.metadata().map_err(disk)?.len();
    let hashes = shared.draft("tree");
    let out = file::create(&hashes).map_err(disk)?;
    let mut stage = TreeStage::new(TreeBuilder::new(), out);
    let mut bytes = vec![0; 256 << 10];
    let mut at = 0;
    while at < size {
        let len = usize::try_from(size - at).unwrap_or(usize::MAX).min(bytes.len());
        file::read_at(&data, &mut bytes[..len], at).map_err(disk)?;
        stage.update(&bytes[..len]).map_err(disk)?;
        at += len as u64;
    }
    let tree = stage.finish().map_err(disk)?;
    let tree = tree.ok_or(BlobError::TooLarge { size, max: size })?;
    shared.reserve(&mut shared.book(), size)?;
    let adopt = Adopt::Copied { data: path.to_owned(), hashes: hashes.clone() };
    let adopted = shared.adopt(&tree, &adopt, size);
    shared.arrived(size);
    if let Err(error) = adopted {
        shared.release(&mut shared.book(), size, 0);
        return Err(error);
    }
    // It is still here if the blob was held before.
    file::remove(&hashes).map_err(disk)?;
    Ok(tree.blob)
}

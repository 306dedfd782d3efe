//! The data folder: one process owns it, and its format is known before anything is read.
//!
//! ```text
//! DIR/lock          held for as long as a node runs; holds its process id
//! DIR/format        the version of this layout, as a number in text
//! DIR/keys/NAME.key one secret seed each, see `key_file`
//! DIR/adapters/     see `adapters`
//! DIR/journal.redb  see `journal`
//! DIR/blobs/        see `blobs`
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::key_file::{self, KeyError, SecretSeed};

/// The layout that this version writes. A higher one is another version's, and is left alone.
pub const FORMAT: u32 = 1;

/// Any version writes a short number; more is not a format file.
const FORMAT_SIZE_MAX: u64 = 64;

/// A data folder that this process owns until every clone and the journal in it are dropped.
#[derive(Debug, Clone)]
pub struct DataDir(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    path: PathBuf,
    /// The operating system holds the lock as long as this file is open, and no longer: a
    /// process that was killed leaves none behind.
    _lock: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum OpenError {
    #[error("failed to create the data folder {}", path.display())]
    Create { path: PathBuf, source: io::Error },

    #[error(
        "another node{} runs on the data folder {}: stop it, or choose another folder with \
         `--data-dir`",
        holder(*pid),
        path.display()
    )]
    InUse { path: PathBuf, pid: Option<u32> },

    #[error("failed to lock the data folder {}", path.display())]
    Lock { path: PathBuf, source: io::Error },

    #[error("failed to read or write {}", path.display())]
    File { path: PathBuf, source: io::Error },

    #[error(
        "the data folder {} has format {found} and this version of commons knows format {FORMAT}: \
         install a newer version, or choose another folder with `--data-dir`",
        path.display()
    )]
    NewerFormat { path: PathBuf, found: u32 },

    #[error(
        "{} does not hold a format version: restore it from a copy, or move the folder away and \
         start anew",
        path.display()
    )]
    UnknownFormat { path: PathBuf },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

impl DataDir {
    /// Opens the folder for this process alone, creating it for its owner's eyes if it is
    /// missing.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let keys = path.join("keys");
        create_private_dir(&keys)
            .map_err(|source| OpenError::Create { path: path.clone(), source })?;
        let lock = lock(&path)?;
        check_format(&path)?;
        Ok(Self(Arc::new(Owned { path, _lock: lock })))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The secret seed of that name. The first time, `fresh` makes it and it is stored before
    /// it is returned; a file that is there is read or refused, and never written over.
    pub fn key(
        &self,
        name: &str,
        fresh: impl FnOnce() -> [u8; 32],
    ) -> Result<SecretSeed, KeyError> {
        key_file::open(&self.0.path.join("keys"), name, fresh)
    }

    pub(crate) fn journal_path(&self) -> PathBuf {
        self.0.path.join("journal.redb")
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file_path = path.join("lock");
    let failed = |source| OpenError::Lock { path: path.to_owned(), source };
    let mut options = private_file();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&file_path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // Only a courtesy: where the holder's id cannot be read, the error goes without it.
            let text = fs::read_to_string(&file_path).unwrap_or_default();
            return Err(OpenError::InUse { path: path.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    // A full disk must not keep a node from reading what it has; the id is a courtesy.
    if let Err(error) = write(&mut file) {
        tracing::debug!(%error, "the lock file does not name this process");
    }
    Ok(file)
}

fn check_format(path: &Path) -> Result<(), OpenError> {
    let file_path = path.join("format");
    let failed = |source| OpenError::File { path: file_path.clone(), source };
    let mut text = String::new();
    match File::open(&file_path) {
        Ok(file) => file.take(FORMAT_SIZE_MAX).read_to_string(&mut text).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return write_atomically(&file_path, format!("{FORMAT}\n").as_bytes()).map_err(failed);
        }
        Err(error) => return Err(failed(error)),
    };
    match text.trim().parse::<u32>() {
        Ok(found) if found > FORMAT => Err(OpenError::NewerFormat { path: path.to_owned(), found }),
        Ok(FORMAT) => Ok(()),
        Ok(_) | Err(_) => Err(OpenError::UnknownFormat { path: file_path }),
    }
}

/// Options for a file that only its owner may read.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes a file appear whole or not at all, and durably. The caller holds the folder's lock, so
/// nobody else writes the same temporary file.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {} // A crash may have left one; opening it anew sets its permissions.
    }
    let mut file = private_file().write(true).create_new(true).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// A rename is durable only once its folder is.
fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

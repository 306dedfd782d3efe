//! The data folder's lock, seen from outside: whether a node runs on the folder, and which.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use anyhow::Context as _;

/// Whether a process holds the folder's lock. Looks for an instant, and keeps nothing.
pub(crate) fn is_held(data_dir: &Path) -> anyhow::Result<bool> {
    let path = data_dir.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).context("failed to look at the data folder's lock"),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => {
            Err(error).context("failed to look at the data folder's lock")
        }
    }
}

/// The process that wrote itself into the lock; it may be long gone.
pub(crate) fn holder(data_dir: &Path) -> Option<u32> {
    fs::read_to_string(data_dir.join("lock")).ok()?.trim().parse().ok()
}

//! What is done to files of blobs, one small function each.
//!
//! Every function that changes something passes [`point`] first: tests count these points, kill the
//! process at one, or have the disk refuse there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use commons_port::blobs::BlobError;

use crate::data_dir::private_file;

/// A place where a test ends the process or has the disk refuse. Nothing otherwise.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
#[inline]
fn point() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
use super::tests::fault::point;

/// Opens a file for reading and writing, and makes it if it is missing.
pub(super) fn create(path: &Path) -> io::Result<File> {
    point()?;
    private_file().read(true).write(true).create(true).truncate(false).open(path)
}

/// Opens a file for reading.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

/// Writes all bytes at a place.
pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    point()?;
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let (mut rest, mut offset) = (bytes, offset);
        while !rest.is_empty() {
            let written = std::os::windows::fs::FileExt::seek_write(file, rest, offset)?;
            rest = &rest[written..];
            offset += written as u64;
        }
        Ok(())
    }
}

/// Reads as many bytes as were asked for, at a place.
pub(super) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let (mut rest, mut offset) = (bytes, offset);
        while !rest.is_empty() {
            let read = std::os::windows::fs::FileExt::seek_read(file, rest, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            rest = &mut rest[read..];
            offset += read as u64;
        }
        Ok(())
    }
}

/// Waits until what was written is on the disk.
pub(super) fn sync(file: &File) -> io::Result<()> {
    point()?;
    file.sync_data()
}

/// Sets the length of a file.
pub(super) fn set_len(file: &File, len: u64) -> io::Result<()> {
    point()?;
    file.set_len(len)
}

/// Moves a file to its place, over what is there, and makes that durable. The file is synced. Where
/// it has left already, because this failed half way, it is only made durable.
pub(super) fn place(from: &Path, to: &Path) -> io::Result<()> {
    point()?;
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound || !to.exists() => return Err(error),
        Ok(()) | Err(_) => {}
    }
    point()?;
    if cfg!(unix) { File::open(to.parent().unwrap_or(to))?.sync_all() } else { Ok(()) }
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    point()?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Lets `to` share the bytes of `from`, where the file system can. Whether it could.
pub(super) fn share(from: &File, to: &File) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::ioctl_ficlone(to, from).is_ok();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (from, to);
        false
    }
}

/// Bytes that this process may still write into the folder's file system. Where nobody says, the
/// disk itself will.
pub(super) fn free(folder: &Path) -> u64 {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(folder);
        found.map_or(u64::MAX, |found| found.f_bavail.saturating_mul(found.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        u64::MAX
    }
}

/// What tells this run of the machine from the next: what was written in the same run, and not
/// synced, is there even if the process was killed. None where the system does not say.
pub(super) fn boot() -> Option<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.trim().chars().filter(|it| *it != '-').collect();
    u128::from_str_radix(&digits, 16).ok().filter(|id| *id != 0).map(u128::to_be_bytes)
}

/// What a caller can do about a disk that refused to take `need` bytes.
pub(super) fn disk_error(error: &io::Error, need: u64, folder: &Path) -> BlobError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            BlobError::Full { need, free: free(folder) }
        }
        _ => BlobError::Disk { detail: error.to_string() },
    }
}

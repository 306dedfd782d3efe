//! What is done when the blobs are opened: whatever a crash left half done is finished or removed.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use commons_port::blobs::{BlobError, PIECE_LEN, pieces_of};
use commons_record::Hash;

use super::super::arrive;
use super::super::file;
use super::super::index::{FORMAT, Index, Kind};
use super::super::{BlobOptions, OpenBlobsError};
use super::{Book, Shared};
use crate::data_dir::{DataDir, create_private_dir};

impl Shared {
    pub(in super::super) fn open(
        dir: &DataDir,
        options: BlobOptions,
    ) -> Result<Self, OpenBlobsError> {
        let folder = dir.path().join("blobs");
        let adding = folder.join("adding");
        let failed = |source| OpenBlobsError::Folder { path: folder.clone(), source };
        if adding.exists() {
            fs::remove_dir_all(&adding).map_err(failed)?;
        }
        create_private_dir(&adding).map_err(failed)?;
        create_private_dir(&folder.join("arriving")).map_err(failed)?;
        let path = folder.join("index.redb");
        let index_failed = |source: redb::Error| OpenBlobsError::Index {
            path: path.clone(),
            source: Box::new(source),
        };
        let (index, found, is_new) = Index::open(&path).map_err(index_failed)?;
        if found != FORMAT {
            return Err(OpenBlobsError::NewerFormat { path, found });
        }
        let shared = Self {
            folder: folder.clone(),
            index,
            options,
            book: Mutex::new(Book::default()),
            missing: AtomicU64::new(0),
            next_draft: AtomicU64::new(0),
            _dir: dir.clone(),
        };
        let failed = |source| OpenBlobsError::Folder { path: folder.clone(), source };
        shared.clear_files(is_new).map_err(failed)?;
        let told = |error: BlobError| failed(io::Error::other(error));
        shared.finish_moves().map_err(told)?;
        shared.count_arrivals().map_err(told)?;
        Ok(shared)
    }

    /// Looks at every file: what no blob owns goes, unless the index is new and lost.
    fn clear_files(&self, is_new: bool) -> io::Result<()> {
        for folder in fs::read_dir(&self.folder)? {
            let folder = folder?.path();
            let name = folder.file_name().and_then(|it| it.to_str()).unwrap_or_default();
            if name.len() != 2 || !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(&folder)? {
                self.clear_file(&file?.path(), is_new)?;
            }
        }
        Ok(())
    }

    fn clear_file(&self, path: &Path, is_new: bool) -> io::Result<()> {
        let stem = path.file_stem().and_then(|it| it.to_str()).unwrap_or_default();
        let Ok(blob) = stem.parse::<Hash>() else { return Ok(()) }; // Not ours.
        let extension = path.extension().and_then(|it| it.to_str());
        let paths = self.paths(blob);
        match self.index.meta(blob).map_err(io::Error::other)? {
            // Only what was checked has this name.
            None if is_new && paths.whole.exists() => {
                let size = fs::metadata(&paths.whole)?.len();
                self.index.put(blob, Kind::Whole, size, self.now()).map_err(io::Error::other)?;
            }
            None => {
                tracing::debug!(path = %path.display(), "a file that no blob owns is removed");
                file::remove(path)?;
            }
            Some(meta) if extension == Some("part") && meta.kind == Kind::Whole => {
                // Found wrong in part, and the process ended before it was written down; or found
                // whole, and it ended before this file was removed.
                if paths.whole.exists() {
                    file::remove(path)?;
                } else {
                    let put = self.index.put(blob, Kind::Partial, meta.size, meta.used);
                    put.map_err(io::Error::other)?;
                }
            }
            Some(meta) if extension == Some("held") && meta.kind == Kind::Whole => {
                if paths.whole.exists() {
                    file::remove(path)?;
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Blobs that had their last step before them are whole, or were never there; and the room that
    /// all of them take is counted.
    fn finish_moves(&self) -> Result<(), BlobError> {
        let mut book = self.book();
        let mut after = None;
        loop {
            let metas = self.index.metas(after, 1024).map_err(|it| self.index_error(it))?;
            let Some((last, _)) = metas.last() else { return Ok(()) };
            after = Some(*last);
            for (blob, meta) in metas {
                let paths = self.paths(blob);
                let is_there = || paths.whole.exists();
                match meta.kind {
                    Kind::InPlace => {}
                    Kind::Whole => book.taken += meta.size,
                    Kind::Partial | Kind::Moving if is_there() => {
                        book.taken += meta.size;
                        let put = self.index.put(blob, Kind::Whole, meta.size, meta.used);
                        put.map_err(|error| self.index_error(error))?;
                        for path in [&paths.part, &paths.held] {
                            file::remove(path).map_err(|error| self.disk(&error, 0))?;
                        }
                    }
                    Kind::Moving => self.forget_in(&mut book, &[(blob, meta)])?,
                    Kind::Partial => {
                        book.taken += meta.size;
                        let count = self.entry_in(&mut book, blob)?.count();
                        let held = if count == pieces_of(meta.size) {
                            meta.size
                        } else {
                            (count * u64::from(PIECE_LEN)).min(meta.size)
                        };
                        self.missing_again(meta.size - held);
                    }
                }
            }
        }
    }

    fn count_arrivals(&self) -> Result<(), BlobError> {
        let mut book = self.book();
        let folder = self.folder.join("arriving");
        let known = self.index.arrivals().map_err(|error| self.index_error(error))?;
        for (key, size, _) in &known {
            book.taken += size;
            let here = arrive::len_of(&folder.join(key.to_string()));
            self.missing_again(size.saturating_sub(here.unwrap_or(0)));
            if here.is_none() {
                // It became a blob, or its first byte never came.
                self.forget_arrival_in(&mut book, *key, *size)?;
            }
        }
        let failed = |error: io::Error| self.disk(&error, 0);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
            let is_known = known.iter().any(|(key, _, _)| key.to_string() == name);
            if !is_known {
                fs::remove_dir_all(&path).map_err(failed)?;
            }
        }
        Ok(())
    }
}

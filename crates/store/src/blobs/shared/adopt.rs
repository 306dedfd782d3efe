//! How a file that is whole becomes a blob.

use std::io;
use std::path::{Path, PathBuf};

use commons_port::blobs::{BlobError, PIECE_LEN};
use commons_swarm::tree::Tree;

use super::super::file;
use super::super::index::{InPlace, Kind, Meta};
use super::{Book, Shared};
use crate::data_dir::create_private_dir;

/// Where a file that becomes a blob is, and where its chaining values are. All is synced.
#[derive(Debug)]
pub(in super::super) enum Adopt {
    /// In a folder of ours; it moves.
    Copied { data: PathBuf, hashes: PathBuf },
    /// Elsewhere on this machine; it stays.
    InPlace { place: InPlace, hashes: PathBuf },
}

impl Adopt {
    fn hashes(&self) -> &Path {
        match self {
            Self::Copied { hashes, .. } | Self::InPlace { hashes, .. } => hashes,
        }
    }
}

impl Shared {
    /// Gives a file its place and name. `reserved` bytes of room were taken for it, which become
    /// the blob's, or are given back if it is held already; after an error they are the caller's
    /// still. A partial blob of that name gives back its own.
    ///
    /// The index says first that the blob is on its way: if the process ends before the file has
    /// its name, the next start forgets it, and otherwise finds it whole.
    pub(in super::super) fn adopt(
        &self,
        tree: &Tree,
        from: &Adopt,
        reserved: u64,
    ) -> Result<(), BlobError> {
        let (blob, size) = (tree.blob, tree.shape.size());
        let mut book = self.book();
        let known = self.meta(blob)?;
        if let Some(meta) = known
            && (meta.kind == Kind::Whole || is_in_place_again(meta, from))
        {
            self.release(&mut book, reserved, 0);
            return self.adopt_again(&mut book, tree, from);
        }
        let paths = self.paths(blob);
        let failed = |error: io::Error| self.disk(&error, 0);
        let index_failed = |error| self.index_error(error);
        create_private_dir(paths.whole.parent().unwrap_or(&self.folder)).map_err(failed)?;
        let partial = known.filter(|it| it.kind == Kind::Partial);
        let missing = match partial {
            Some(meta) => {
                let held = self.entry_in(&mut book, blob)?.count();
                meta.size.saturating_sub(held.saturating_mul(PIECE_LEN.into()))
            }
            None => 0,
        };
        if known.is_none() {
            self.index.put(blob, Kind::Moving, size, self.now()).map_err(index_failed)?;
        }
        if let Some(entry) = book.open.remove(&blob) {
            entry.close();
        }
        file::place(from.hashes(), &paths.tree).map_err(failed)?;
        let kind = match from {
            Adopt::Copied { data, .. } => {
                file::place(data, &paths.whole).map_err(failed)?;
                Kind::Whole
            }
            Adopt::InPlace { place, .. } => {
                self.index.put_place(blob, place).map_err(index_failed)?;
                Kind::InPlace
            }
        };
        self.index.put(blob, kind, size, self.now()).map_err(index_failed)?;
        if let Some(meta) = partial {
            self.release(&mut book, meta.size, missing);
        }
        for path in [&paths.part, &paths.held] {
            if let Err(error) = file::remove(path) {
                tracing::debug!(%error, "a part of what is whole now stays until the next start");
            }
        }
        Ok(())
    }

    /// The blob is held already; one that is held in place may lie elsewhere now.
    fn adopt_again(&self, book: &mut Book, tree: &Tree, from: &Adopt) -> Result<(), BlobError> {
        let is_in_place = self.meta(tree.blob)?.is_some_and(|it| it.kind == Kind::InPlace);
        if let (true, Adopt::InPlace { place, .. }) = (is_in_place, from) {
            let put = self.index.put_place(tree.blob, place);
            put.map_err(|error| self.index_error(error))?;
            book.open.remove(&tree.blob);
        }
        Ok(())
    }
}

fn is_in_place_again(meta: Meta, from: &Adopt) -> bool {
    meta.kind == Kind::InPlace && matches!(from, Adopt::InPlace { .. })
}

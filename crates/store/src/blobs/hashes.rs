//! The chaining values of a blob, as a file beside it: of all pieces in order, then of all groups.
//!
//! What is read from the file is checked against the blob's name before it is used, so nothing has
//! to be said of what was written and what was not. A few checked pages are kept in memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use commons_port::blobs::{CV_LEN, GROUP_PIECES, PIECE_LEN};
use commons_record::Hash;
use commons_swarm::tree::{Page, Shape, Top, TreeBuilder, TreeError};

use super::file;

/// Pages in memory for each open blob: those of a few readers and writers in different groups.
const PAGES_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Hashes {
    blob: Hash,
    shape: Shape,
    /// None where there is nothing to keep: the name says it all.
    file: Option<File>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    top: Option<Top>,
    pages: VecDeque<Page>,
}

impl Hashes {
    pub(super) fn open(path: &Path, blob: Hash, shape: Shape) -> io::Result<Self> {
        let file = if shape.pieces() > 1 { Some(file::create(path)?) } else { None };
        Ok(Self { blob, shape, file, known: Mutex::default() })
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The top, if it is here.
    pub(super) fn top(&self) -> Option<Top> {
        if let Some(top) = &self.known().top {
            return Some(top.clone());
        }
        let bytes = self.read(self.top_at(), self.shape.top_len())?;
        let top = Top::check(self.blob, self.shape, bytes).ok()?;
        self.known().top = Some(top.clone());
        Some(top)
    }

    /// The page of a group, if it is here.
    pub(super) fn page(&self, group: u64) -> Option<Page> {
        let known = self.known().pages.iter().find(|it| it.group() == group).cloned();
        if known.is_some() {
            return known;
        }
        let bytes = self.read(page_at(group), self.shape.page_len(group)?)?;
        let page = self.top()?.page(group, bytes).ok()?;
        self.keep(page.clone());
        Some(page)
    }

    /// Checks a top and writes it.
    pub(super) fn put_top(&self, top: Bytes) -> Result<(), PutError> {
        let top = Top::check(self.blob, self.shape, top)?;
        self.write(top.bytes(), self.top_at())?;
        self.known().top = Some(top);
        Ok(())
    }

    /// Checks a page and writes it. `None`: the top is not here yet.
    pub(super) fn put_page(&self, group: u64, page: Bytes) -> Result<Option<()>, PutError> {
        let Some(top) = self.top() else { return Ok(None) };
        let page = top.page(group, page)?;
        self.write(page.bytes(), page_at(group))?;
        self.keep(page);
        Ok(Some(()))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), file::sync)
    }

    /// Computes all of it anew from the blob's bytes. Whether they lead to its name.
    pub(super) fn rebuild(
        &self,
        mut read: impl FnMut(u64) -> io::Result<Bytes>,
    ) -> io::Result<bool> {
        *self.known() = Known::default();
        let (mut builder, mut at) = (TreeBuilder::new(), 0);
        let mut result = Ok(());
        let mut keep = |cv: [u8; CV_LEN]| {
            if result.is_ok() {
                result = self.write(&cv, at);
            }
            at += CV_LEN as u64;
        };
        for piece in 0..self.shape.pieces() {
            builder.update(&read(piece)?, &mut keep);
        }
        let tree = builder.finish(&mut keep);
        result?;
        let Some(tree) = tree.filter(|it| it.blob == self.blob) else { return Ok(false) };
        self.write(&tree.top, self.top_at())?;
        self.sync()?;
        Ok(true)
    }

    fn keep(&self, page: Page) {
        let mut known = self.known();
        known.pages.retain(|it| it.group() != page.group());
        known.pages.push_front(page);
        known.pages.truncate(PAGES_MAX);
    }

    fn top_at(&self) -> u64 {
        self.shape.pieces() * CV_LEN as u64
    }

    fn read(&self, at: u64, len: u64) -> Option<Bytes> {
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        if let Some(file) = &self.file
            && len > 0
        {
            file::read_at(file, &mut bytes, at).ok()?;
        }
        Some(bytes.into())
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match &self.file {
            Some(file) if !bytes.is_empty() => file::write_at(file, bytes, at),
            Some(_) | None => Ok(()),
        }
    }
}

/// Why a top or a page was not kept.
#[derive(Debug)]
pub(super) enum PutError {
    Wrong,
    Disk(io::Error),
}

impl From<TreeError> for PutError {
    fn from(_: TreeError) -> Self {
        Self::Wrong
    }
}

impl From<io::Error> for PutError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

fn page_at(group: u64) -> u64 {
    group.saturating_mul(GROUP_PIECES * CV_LEN as u64)
}

/// Where a piece begins.
pub(super) fn piece_at(piece: u64) -> u64 {
    piece * u64::from(PIECE_LEN)
}

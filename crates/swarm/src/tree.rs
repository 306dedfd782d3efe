//! The piece tree of a blob: what lets each piece be checked by itself against the blob's name.
//!
//! BLAKE3 hashes a file as a binary tree over chunks of 1 KiB; the name of the file is the root.
//! A piece is 1,024 chunks, which is a subtree of its own, and so is a group of 1,024 pieces. Their
//! roots are chaining values, 32 bytes each (Rules S4 and S5).
//!
//! ```text
//! name <- top: chaining values of all groups      Top::check
//!          <- page: those of a group's pieces     Top::page
//!               <- piece: 1 MiB of the file       Page::check_piece
//! ```
//!
//! A blob of one group has an empty top: its page leads to the name. A blob of one piece has an
//! empty page too: the piece's hash is the name. [`TreeBuilder`] goes the other way.
//!
//! # Invariants
//!
//! * The root of a tree built here is what `b3sum` prints (Rule R1).
//! * Only a checked top makes a page, and only a checked page says that a piece is right.
//! * Nothing is believed of a size but that the tree has its shape. The last piece proves it:
//!   its bytes hash to the last chaining value only at the length that they had.
//!
//! Source: the BLAKE3 paper, section 2.1, and the `hazmat` module of the crate `blake3`.
//!
//! Not here: files, and where tops, pages and pieces come from.

mod build;
#[cfg(test)]
mod tests;

use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bytes::Bytes;
use commons_port::blobs::{BLOB_LEN_MAX, CV_LEN, GROUP_PIECES, PIECE_LEN, pieces_of};
use commons_record::Hash;

pub use build::{Tree, TreeBuilder};

/// A chaining value: the hash of a subtree that is not the root.
pub type Cv = [u8; CV_LEN];

/// Why what was sent as a part of a tree is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum TreeError {
    #[error("the hashes of all groups that were sent for {blob} do not lead to its name")]
    WrongTop { blob: Hash },

    #[error("the hashes of group {group} that were sent for {blob} do not lead to its name")]
    WrongPage { blob: Hash, group: u64 },

    #[error("what was sent as piece {piece} of {blob} is something else")]
    WrongPiece { blob: Hash, piece: u64 },
}

/// How a blob of some size is cut. The size is at most [`BLOB_LEN_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    size: u64,
}

impl Shape {
    /// The shape of a blob of `size` bytes; none if no blob may be so long.
    pub const fn new(size: u64) -> Option<Self> {
        if size <= BLOB_LEN_MAX { Some(Self { size }) } else { None }
    }

    /// Bytes of the blob.
    pub const fn size(self) -> u64 {
        self.size
    }

    /// How many pieces there are: one at least.
    pub const fn pieces(self) -> u64 {
        pieces_of(self.size)
    }

    /// How many groups there are: one at least.
    pub const fn groups(self) -> u64 {
        self.pieces().div_ceil(GROUP_PIECES)
    }

    /// Bytes of a piece; none if there is no such piece.
    pub fn piece_len(self, piece: u64) -> Option<u32> {
        if piece >= self.pieces() {
            return None;
        }
        let rest = self.size - piece * u64::from(PIECE_LEN);
        Some(u32::try_from(rest).map_or(PIECE_LEN, |rest| rest.min(PIECE_LEN)))
    }

    /// Bytes of the top: 32 for each group, none if there is one group.
    pub const fn top_len(self) -> u64 {
        if self.groups() == 1 { 0 } else { self.groups() * CV_LEN as u64 }
    }

    /// Bytes of the page of a group: 32 for each piece, none if the blob has one piece. `None` if
    /// there is no such group.
    pub fn page_len(self, group: u64) -> Option<u64> {
        let pieces = self.pieces();
        if group >= self.groups() {
            return None;
        }
        let in_group = (pieces - group * GROUP_PIECES).min(GROUP_PIECES);
        Some(if pieces == 1 { 0 } else { in_group * CV_LEN as u64 })
    }
}

/// The chaining values of all groups of a blob, which lead to its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    blob: Hash,
    shape: Shape,
    cvs: Bytes,
}

impl Top {
    /// Checks a top against the name of its blob. That of a blob of one group is empty.
    pub fn check(blob: Hash, shape: Shape, top: Bytes) -> Result<Self, TreeError> {
        let leads_there = top.len() as u64 == shape.top_len()
            && (top.is_empty() || merge(&top, End::Root) == *blob.as_bytes());
        if !leads_there {
            return Err(TreeError::WrongTop { blob });
        }
        Ok(Self { blob, shape, cvs: top })
    }

    /// The blob's name.
    pub const fn blob(&self) -> Hash {
        self.blob
    }

    /// How the blob is cut.
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// Its bytes, as they travel.
    pub const fn bytes(&self) -> &Bytes {
        &self.cvs
    }

    /// Checks the page of a group. That of a blob of one piece is empty.
    pub fn page(&self, group: u64, page: Bytes) -> Result<Page, TreeError> {
        let wrong = TreeError::WrongPage { blob: self.blob, group };
        if self.shape.page_len(group) != Some(page.len() as u64) {
            return Err(wrong);
        }
        let leads_there = if page.is_empty() {
            true // The one piece is checked against the name.
        } else if self.cvs.is_empty() {
            merge(&page, End::Root) == *self.blob.as_bytes()
        } else {
            cv_at(&self.cvs, group) == Some(merge(&page, End::Inner))
        };
        let Self { blob, shape, .. } = *self;
        if leads_there { Ok(Page { blob, shape, group, cvs: page }) } else { Err(wrong) }
    }
}

/// The chaining values of a group's pieces, which lead to the name of the blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    blob: Hash,
    shape: Shape,
    group: u64,
    cvs: Bytes,
}

impl Page {
    /// Which group it is of.
    pub const fn group(&self) -> u64 {
        self.group
    }

    /// Its bytes, as they travel.
    pub const fn bytes(&self) -> &Bytes {
        &self.cvs
    }

    /// Checks the bytes of a piece of this group. `piece` is counted from the blob's beginning.
    pub fn check_piece(&self, piece: u64, bytes: &[u8]) -> Result<(), TreeError> {
        let is_right = piece / GROUP_PIECES == self.group
            && self.shape.piece_len(piece).map(u64::from) == Some(bytes.len() as u64)
            && if self.cvs.is_empty() {
                blake3::hash(bytes).as_bytes() == self.blob.as_bytes()
            } else {
                cv_at(&self.cvs, piece % GROUP_PIECES) == Some(piece_cv(piece, bytes))
            };
        if is_right { Ok(()) } else { Err(TreeError::WrongPiece { blob: self.blob, piece }) }
    }
}

/// The chaining value of a piece of a blob that has more than one; `bytes` are not empty.
fn piece_cv(piece: u64, bytes: &[u8]) -> Cv {
    piece_hasher(piece).update(bytes).finalize_non_root()
}

/// A hasher that stands at the beginning of a piece.
fn piece_hasher(piece: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(piece * u64::from(PIECE_LEN));
    hasher
}

/// The chaining value at a place of a page or a top.
fn cv_at(cvs: &[u8], index: u64) -> Option<Cv> {
    cvs.as_chunks().0.get(usize::try_from(index).ok()?).copied()
}

/// What the merged subtrees are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The whole tree: two subtrees at least.
    Root,
    /// A subtree of it.
    Inner,
}

/// Merges the chaining values of neighbouring subtrees, all of one size but the last, which may be
/// smaller.
fn merge(cvs: &[u8], end: End) -> Cv {
    let mut stack = MergeStack::default();
    let cvs: &[Cv] = cvs.as_chunks().0;
    let Some((last, full)) = cvs.split_last() else { return [0; CV_LEN] };
    for cv in full {
        stack.push(*cv);
    }
    stack.finish(*last, end)
}

/// The subtrees that wait for their right neighbour, the largest first: one for each bit of the
/// count of those that were pushed.
#[derive(Debug, Clone, Default)]
struct MergeStack {
    waiting: Vec<Cv>,
    count: u64,
}

impl MergeStack {
    /// Adds a full subtree that is not the last.
    fn push(&mut self, cv: Cv) {
        let mut cv = cv;
        self.count += 1;
        // Each zero at the end of the count is a pair that is complete.
        for _ in 0..self.count.trailing_zeros() {
            let Some(left) = self.waiting.pop() else { break };
            cv = merge_subtrees_non_root(&left, &cv, Mode::Hash);
        }
        self.waiting.push(cv);
    }

    /// Adds the last subtree and merges all.
    fn finish(mut self, last: Cv, end: End) -> Cv {
        let mut cv = last;
        while let Some(left) = self.waiting.pop() {
            cv = if self.waiting.is_empty() && end == End::Root {
                *merge_subtrees_root(&left, &cv, Mode::Hash).as_bytes()
            } else {
                merge_subtrees_non_root(&left, &cv, Mode::Hash)
            };
        }
        cv
    }
}

//! Builds the tree of a file that is read from its first byte to its last.
//!
//! A piece is closed when a byte beyond it arrives, and a group likewise: whether a piece is the
//! last decides how it is hashed. What is kept is one hasher, a stack of hashes for the open
//! group, and the top: 32 bytes for each gibibyte.

use blake3::hazmat::HasherExt as _;
use bytes::Bytes;
use commons_port::blobs::{GROUP_PIECES, PIECE_LEN};
use commons_record::Hash;

use super::{Cv, End, MergeStack, Shape, merge, piece_hasher};

/// The tree of a whole file, less its pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The file's name.
    pub blob: Hash,
    /// How it is cut.
    pub shape: Shape,
    /// The chaining values of all groups; empty if there is one.
    pub top: Bytes,
}

/// Hashes a file of any length. The pages go to the caller, one chaining value at a time.
#[derive(Debug, Clone)]
pub struct TreeBuilder {
    /// At the beginning of the open piece, or somewhere in it.
    hasher: blake3::Hasher,
    /// Bytes of the open piece.
    in_piece: u32,
    /// Pieces that are closed.
    closed: u64,
    /// The pieces of the open group that are closed.
    group: MergeStack,
    /// The chaining values of the groups that are closed.
    top: Vec<u8>,
}

impl Default for TreeBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeBuilder {
    /// At the beginning of a file.
    pub fn new() -> Self {
        let (group, top) = (MergeStack::default(), Vec::new());
        Self { hasher: piece_hasher(0), in_piece: 0, closed: 0, group, top }
    }

    /// After pieces whose chaining values were kept: what [`Self::update`] gave out, in order.
    /// What follows begins with the piece after them.
    pub fn resume(cvs: impl IntoIterator<Item = Cv>) -> Self {
        let mut builder = Self::new();
        for cv in cvs {
            builder.close(cv);
        }
        builder.hasher = piece_hasher(builder.closed);
        builder
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.closed * u64::from(PIECE_LEN) + u64::from(self.in_piece)
    }

    /// How many pieces are closed: so many chaining values were given out.
    pub const fn closed(&self) -> u64 {
        self.closed
    }

    /// Adds the next bytes. `closed` is given the chaining value of each piece that is complete
    /// now, in order: a page is 1,024 of them.
    pub fn update(&mut self, bytes: &[u8], mut closed: impl FnMut(Cv)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.in_piece == PIECE_LEN {
                let cv = self.hasher.finalize_non_root();
                self.close(cv);
                self.hasher = piece_hasher(self.closed);
                self.in_piece = 0;
                closed(cv);
            }
            let room = (PIECE_LEN - self.in_piece) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.hasher.update(now);
            self.in_piece += u32::try_from(now.len()).unwrap_or(PIECE_LEN);
            rest = later;
        }
    }

    /// The file is whole. `closed` is given the chaining value of the last piece, unless it is the
    /// only one. `None` if the file is longer than a blob may be, or if it was resumed and nothing
    /// followed: a chaining value is given out only when there is more.
    pub fn finish(self, mut closed: impl FnMut(Cv)) -> Option<Tree> {
        let shape = Shape::new(self.size())?;
        let name = |cv| Hash::from_bytes(cv);
        if self.closed == 0 {
            let blob = name(*self.hasher.finalize().as_bytes());
            return Some(Tree { blob, shape, top: Bytes::new() });
        }
        if self.in_piece == 0 {
            return None;
        }
        let last = self.hasher.finalize_non_root();
        closed(last);
        if self.top.is_empty() && self.closed < GROUP_PIECES {
            let blob = name(self.group.finish(last, End::Root));
            return Some(Tree { blob, shape, top: Bytes::new() });
        }
        let mut top = self.top;
        top.extend_from_slice(&self.group.finish(last, End::Inner));
        let blob = name(merge(&top, End::Root));
        Some(Tree { blob, shape, top: top.into() })
    }

    /// Takes the chaining value of a piece that is not the last one.
    fn close(&mut self, cv: Cv) {
        self.closed += 1;
        if self.closed.is_multiple_of(GROUP_PIECES) {
            // The group is full, so this is its last piece.
            let group = std::mem::take(&mut self.group).finish(cv, End::Inner);
            self.top.extend_from_slice(&group);
        } else {
            self.group.push(cv);
        }
    }
}

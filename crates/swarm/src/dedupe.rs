//! What of a blob is held here already, in other blobs: pieces that need no peer, or less of one.
//!
//! ```text
//! recipe + where chunks are held --Survey--> which pieces, and the saving
//!                                --plan----> for one piece: what is copied, what is fetched
//! ```
//!
//! A piece that was put together is checked like any other (Rule S8): neither the recipe nor a
//! place is believed.
//!
//! Not here: reading the recipe (`recipe.rs`), finding chunks (`port::blobs`), asking (`fetch.rs`).

use std::ops::Range;

use commons_port::blobs::{PIECE_LEN, Place};

use crate::chunk::Chunk;

/// How much of a piece is held here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// All of it.
    Whole,
    /// Some of it.
    Part,
}

/// What a pull copies and what it fetches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saving {
    /// Bytes that are held here.
    pub local: u64,
    /// Bytes that peers bring.
    pub fetched: u64,
}

/// Goes through a recipe once and says which pieces have local bytes. Holds one piece's sum.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Bytes that were gone through.
    end: u64,
    /// Of the piece that is not complete yet, those that are held.
    local: u64,
    saving: Saving,
}

impl Survey {
    /// At the beginning of a recipe.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next chunk, and whether it is held here. `found` is called for each piece that it
    /// completes and that has local bytes.
    pub fn push(&mut self, chunk: &Chunk, is_held: bool, mut found: impl FnMut(u64, Local)) {
        let piece = u64::from(PIECE_LEN);
        while self.end < chunk.end {
            let stop = chunk.end.min((self.end / piece + 1) * piece);
            let len = stop - self.end;
            if is_held {
                self.local += len;
                self.saving.local += len;
            } else {
                self.saving.fetched += len;
            }
            self.end = stop;
            if stop.is_multiple_of(piece) {
                self.complete(piece, &mut found);
            }
        }
    }

    /// Ends the recipe.
    pub fn finish(mut self, mut found: impl FnMut(u64, Local)) -> Saving {
        let rest = self.end % u64::from(PIECE_LEN);
        if rest > 0 {
            self.complete(rest, &mut found);
        }
        self.saving
    }

    fn complete(&mut self, len: u64, found: &mut impl FnMut(u64, Local)) {
        let piece = (self.end - 1) / u64::from(PIECE_LEN);
        match std::mem::take(&mut self.local) {
            0 => {}
            local if local == len => found(piece, Local::Whole),
            _ => found(piece, Local::Part),
        }
    }
}

/// A stretch of a piece that is copied from another blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCopy {
    /// Where it is.
    pub from: Place,
    /// Where in the piece it goes.
    pub at: Range<u32>,
}

/// How one piece is put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PiecePlan {
    /// What is copied, in order.
    pub copies: Vec<LocalCopy>,
    /// What is fetched, in order.
    pub gaps: Vec<Range<u32>>,
}

/// Plans a piece of a blob of `size` bytes from the chunks that overlap it, in order, each with
/// the place where it is held. What no chunk covers is fetched. A place of another length than its
/// chunk is none.
pub fn plan(piece: u64, size: u64, chunks: &[(Chunk, Option<Place>)]) -> PiecePlan {
    let first = piece.saturating_mul(u64::from(PIECE_LEN));
    let last = size.min(first.saturating_add(u64::from(PIECE_LEN)));
    let within = |byte: u64| u32::try_from(byte.clamp(first, last.max(first)) - first).unwrap_or(0);
    let mut plan = PiecePlan::default();
    let mut end = 0;
    for (chunk, place) in chunks {
        let at = within(chunk.start()).max(end)..within(chunk.end);
        let Some(place) = place.filter(|it| it.len == chunk.len && !at.is_empty()) else {
            continue;
        };
        let skipped = first + u64::from(at.start) - chunk.start();
        let Some(offset) = place.offset.checked_add(skipped) else { continue };
        if end < at.start {
            plan.gaps.push(end..at.start);
        }
        end = at.end;
        let from = Place { blob: place.blob, offset, len: at.end - at.start };
        plan.copies.push(LocalCopy { from, at });
    }
    let len = within(last);
    if end < len {
        plan.gaps.push(end..len);
    }
    plan
}

#[cfg(test)]
mod tests;

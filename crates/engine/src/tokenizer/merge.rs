//! The merging that byte-level BPE and SentencePiece share: of all neighbours that may be merged
//! the best are, among equals the leftmost, until none may.
//!
//! A short word is looked through again after each merge, which is fastest for a few pieces. A long
//! one has a queue, so `n` pieces take `O(n log n)` steps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Pieces up to which looking through all is faster than a queue.
const SHORT_MAX: usize = 40;

/// Nothing: no neighbour, no token, no merge.
pub(super) const NONE: u32 = u32::MAX;

/// A token in the making: its id, and the bytes of the word that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// [`NONE`] for a character that is no token.
    pub(super) id: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// A merge: the smaller the priority, the sooner. [`NONE`] means that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Union {
    pub(super) priority: u32,
    pub(super) id: u32,
}

impl Union {
    pub(super) const NONE: Self = Self { priority: NONE, id: NONE };
}

/// Buffers that are used again for the next word.
#[derive(Debug, Default)]
pub(super) struct Merger {
    pub(super) pieces: Vec<Piece>,
    unions: Vec<Union>,
    links: Vec<Link>,
    queue: BinaryHeap<Reverse<(u32, u32)>>,
}

/// The neighbours of a piece. A piece that was merged into its left neighbour is not alive.
#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
    is_alive: bool,
}

impl Merger {
    /// Merges `pieces` in place.
    pub(super) fn merge(&mut self, union: impl Fn(Piece, Piece) -> Union) {
        if self.pieces.len() <= SHORT_MAX {
            self.merge_short(union);
        } else {
            self.merge_long(union);
        }
    }

    fn merge_short(&mut self, union: impl Fn(Piece, Piece) -> Union) {
        let (pieces, unions) = (&mut self.pieces, &mut self.unions);
        unions.clear();
        unions.extend(pieces.windows(2).map(|pair| union(pair[0], pair[1])));
        loop {
            let mut best = Union::NONE;
            let mut left = 0;
            for (at, &candidate) in unions.iter().enumerate() {
                if candidate.priority < best.priority {
                    (best, left) = (candidate, at);
                }
            }
            if best.priority == NONE {
                return;
            }
            pieces[left] = Piece { id: best.id, end: pieces[left + 1].end, ..pieces[left] };
            pieces.remove(left + 1);
            unions.remove(left);
            if left > 0 {
                unions[left - 1] = union(pieces[left - 1], pieces[left]);
            }
            if left < unions.len() {
                unions[left] = union(pieces[left], pieces[left + 1]);
            }
        }
    }

    fn merge_long(&mut self, union: impl Fn(Piece, Piece) -> Union) {
        let (pieces, links, queue) = (&mut self.pieces, &mut self.links, &mut self.queue);
        // A text has far fewer than 2^32 bytes.
        let count = u32::try_from(pieces.len()).unwrap_or(NONE);
        links.clear();
        links.extend((0..count).map(|at| Link {
            before: at.wrapping_sub(1),
            after: if at + 1 < count { at + 1 } else { NONE },
            is_alive: true,
        }));
        let candidate = |pieces: &[Piece], links: &[Link], left: u32| {
            let link = links[left as usize];
            if !link.is_alive || link.after == NONE {
                return Union::NONE;
            }
            union(pieces[left as usize], pieces[link.after as usize])
        };
        queue.clear();
        let mut first = Vec::with_capacity(pieces.len());
        first.extend((0..count).filter_map(|left| {
            let Union { priority, .. } = candidate(pieces, links, left);
            (priority != NONE).then_some(Reverse((priority, left)))
        }));
        // All at once: a queue of a list takes linear time.
        *queue = first.into();
        while let Some(Reverse((priority, left))) = queue.pop() {
            // An entry is stale if the two are no longer neighbours with a merge of this priority.
            let best = candidate(pieces, links, left);
            if best.priority != priority || priority == NONE {
                continue;
            }
            let Link { before, after: right, .. } = links[left as usize];
            let after = links[right as usize].after;
            pieces[left as usize].id = best.id;
            pieces[left as usize].end = pieces[right as usize].end;
            links[right as usize].is_alive = false;
            links[left as usize].after = after;
            if after != NONE {
                links[after as usize].before = left;
            }
            for at in [before, left] {
                if at != NONE {
                    let Union { priority, .. } = candidate(pieces, links, at);
                    if priority != NONE {
                        queue.push(Reverse((priority, at)));
                    }
                }
            }
        }
        let mut links = links.iter();
        pieces.retain(|_| links.next().is_some_and(|link| link.is_alive));
    }
}

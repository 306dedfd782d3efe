//! Prompt lookup: what followed the last few tokens when they stood here before.
//!
//! Source: Saxena, "Prompt Lookup Decoding" (2023). Where it is strong: quoting, editing, code.
//!
//! The index is lossy, as in fast compressors: a table of positions by a hash of the n-gram, the
//! newest position wins its cell, and whatever is found is compared with the real tokens. A
//! collision costs a guess, never a wrong match, and an adversary can gain no more than that.
//! Indexing and finding take constant time for each token.

use crate::batch::to_u32;

/// Lengths of context looked for, the longest first: longer ones are right more often.
const ORDERS: [usize; 2] = [3, 2];

/// Tokens indexed in a step. A long prompt is indexed over several steps, without guesses.
const INDEX_STEP_MAX: usize = 4096;

/// Cells of the smallest table.
const CELLS_MIN: usize = 256;

/// Where n-grams ended last, for each order.
#[derive(Clone, Debug, Default)]
pub(super) struct Ngrams {
    /// The index after the n-gram, or 0 for none, by hash.
    cells: [Vec<u32>; 2],
    /// N-grams that end at or before this length are indexed.
    indexed: usize,
}

impl Ngrams {
    /// Appends at most `len` guesses at what follows `tokens`.
    pub(super) fn guess(&mut self, tokens: &[u32], len: usize, guesses: &mut Vec<u32>) {
        if !self.index(tokens) {
            return;
        }
        let Some(start) = self.find(tokens) else { return };
        // A match that reaches the end repeats itself: what was guessed is what follows.
        for at in (start..).take(len) {
            let guess = match at.checked_sub(tokens.len()) {
                None => tokens[at],
                Some(past) => guesses[past],
            };
            guesses.push(guess);
        }
    }

    /// Where the last tokens stood before: the index of what followed them.
    fn find(&self, tokens: &[u32]) -> Option<usize> {
        ORDERS.iter().zip(&self.cells).find_map(|(&order, cells)| {
            let gram = &tokens[tokens.len().checked_sub(order)?..];
            let end = cells[cell_of(gram, cells.len())] as usize;
            (end > 0 && tokens[end - order..end] == *gram).then_some(end)
        })
    }

    /// Indexes all n-grams but the last, which is the one looked for. Whether it got so far.
    fn index(&mut self, tokens: &[u32]) -> bool {
        let goal = tokens.len() - 1;
        if self.cells[0].len() < tokens.len() {
            // Twice the room of what is there: half the cells stay empty for a while.
            let cells = (tokens.len() * 2).next_power_of_two().max(CELLS_MIN);
            self.cells = [vec![0; cells], vec![0; cells]];
            self.indexed = 0;
        }
        let end = goal.min(self.indexed + INDEX_STEP_MAX);
        for (&order, cells) in ORDERS.iter().zip(&mut self.cells) {
            for end in (self.indexed + 1).max(order)..=end {
                let cell = cell_of(&tokens[end - order..end], cells.len());
                cells[cell] = to_u32(end);
            }
        }
        self.indexed = end;
        end == goal
    }
}

/// The cell of an n-gram among a power of two of them: multiply and take the high bits (Knuth).
fn cell_of(gram: &[u32], cells: usize) -> usize {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |hash: u64, &token: &u32| (hash ^ u64::from(token)).wrapping_mul(ODD);
    let hash = gram.iter().fold(0, mix);
    // The high half fits every `usize`; cells are at most 2^32.
    let high = usize::try_from(hash >> 32).unwrap_or(0);
    high & (cells - 1)
}

//! The bytes that all fetches of a node may have under way or in memory together.

use commons_port::blobs::PIECE_LEN;

/// Bytes for all fetches of a node: with twice as much in the connections it is 64 MiB in all.
pub const BUDGET_BYTES: u64 = 32 << 20;

/// A sum that is shared. Each fetch may take its share, and one piece in any case.
///
/// # Invariant
///
/// * No more than [`Self::total`] is ever taken (Rule S13).
#[derive(Debug, Clone)]
pub struct Budget {
    total: u64,
    used: u64,
    fetches: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(BUDGET_BYTES)
    }
}

impl Budget {
    /// Nothing is taken. A budget has room for the largest thing that is asked for.
    pub fn new(total: u64) -> Self {
        Self { total: total.max(u64::from(crate::wire::RAW_LEN_MAX)), used: 0, fetches: 0 }
    }

    /// What there is in all.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// What is taken.
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// One more fetch shares it.
    pub fn join(&mut self) {
        self.fetches += 1;
    }

    /// One fewer does.
    pub fn leave(&mut self) {
        self.fetches = self.fetches.saturating_sub(1);
    }

    /// What one fetch may take, as many as there are now.
    pub(super) fn share(&self) -> u64 {
        self.total / self.fetches.max(1)
    }

    /// Takes `len` for a fetch that has taken `mine`, if that is within its share.
    pub(super) fn take(&mut self, len: u64, mine: u64) -> bool {
        let share = self.share().max(u64::from(PIECE_LEN));
        let is_within = mine == 0 || mine.saturating_add(len) <= share;
        let is_free = self.used.saturating_add(len) <= self.total;
        if is_within && is_free {
            self.used += len;
        }
        is_within && is_free
    }

    /// Gives back what was taken.
    pub(super) fn give(&mut self, len: u64) {
        self.used = self.used.saturating_sub(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_takes_its_share_and_never_more_than_there_is() {
        let piece = u64::from(PIECE_LEN);
        let mut budget = Budget::new(4 * piece);
        budget.join();
        budget.join();
        assert!(
            budget.take(piece, 0) && budget.take(piece, piece) && !budget.take(piece, 2 * piece)
        );
        assert!(budget.take(piece, 0) && budget.take(piece, piece) && !budget.take(1, 0));
        budget.give(piece);
        assert!(budget.take(1, 0));
        assert_eq!(budget.used(), 3 * piece + 1);
    }
}

//! What the engine computes in a step, and what it reports back.

use std::fmt;
use std::ops::Range;

use crate::ask::SequenceId;

/// A page of the engine's key/value store, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u32);

impl PageId {
    /// Its place in an array of pages.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Copy the first `len` positions of one page to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCopy {
    /// The page read.
    pub from: PageId,
    /// The page written; no row and no other copy of the batch reads or writes it before.
    pub to: PageId,
    /// Positions copied, from the first on.
    pub len: u32,
}

/// Which results of a row are read. Of a [`crate::Work::Embed`] they are hidden states, otherwise
/// logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// None: a part of a prompt.
    Nothing,
    /// Of the last token: the next is drawn from it.
    Last,
    /// Of the row's tokens from this index on. A row with drafts says `From(0)`.
    From(u32),
}

/// One sequence's part of a batch. Its tokens and pages lie in the [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub id: SequenceId,
    /// The position of its first token.
    pub start: u32,
    /// Which results are read.
    pub wants: Wants,
    /// How many of its tokens, the last ones, are guesses.
    pub draft_len: u32,
    tokens: Range<usize>,
    pages: Range<usize>,
}

impl Row {
    /// Where its tokens lie in [`Batch::tokens`], and so in the batch's activations.
    pub fn token_range(&self) -> Range<usize> {
        self.tokens.clone()
    }
}

/// A step's work: first `copies`, in any order, then all rows at once.
///
/// Rows are ragged and lie end to end: `tokens` is what the embedding layer takes. Rows that draw
/// come before longer parts of prompts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Pages to copy before anything is computed.
    pub copies: Vec<PageCopy>,
    /// One for each sequence in this step.
    pub rows: Vec<Row>,
    tokens: Vec<u32>,
    pages: Vec<PageId>,
}

/// What a row is made of.
pub(crate) struct RowParts<'a> {
    pub id: SequenceId,
    pub start: usize,
    pub wants: Wants,
    pub known: &'a [u32],
    pub drafts: &'a [u32],
    pub pages: &'a [PageId],
}

impl Batch {
    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The tokens of all rows, end to end.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens that a row feeds: a part of the prompt, or the last token and guesses.
    pub fn tokens_of(&self, row: &Row) -> &[u32] {
        &self.tokens[row.tokens.clone()]
    }

    /// The pages of positions 0 to the end of the row: position `p` lies in page `p / page_len`,
    /// at `p % page_len`.
    pub fn pages_of(&self, row: &Row) -> &[PageId] {
        &self.pages[row.pages.clone()]
    }

    pub(crate) fn clear(&mut self) {
        self.copies.clear();
        self.rows.clear();
        self.tokens.clear();
        self.pages.clear();
    }

    pub(crate) fn push(&mut self, parts: &RowParts<'_>) {
        let (token, page) = (self.tokens.len(), self.pages.len());
        self.tokens.extend_from_slice(parts.known);
        self.tokens.extend_from_slice(parts.drafts);
        self.pages.extend_from_slice(parts.pages);
        self.rows.push(Row {
            id: parts.id,
            start: to_u32(parts.start),
            wants: parts.wants,
            draft_len: to_u32(parts.drafts.len()),
            tokens: token..self.tokens.len(),
            pages: page..self.pages.len(),
        });
    }
}

/// Positions and counts fit: `Config::check` bounds the pool, and admission the sequence.
pub(crate) fn to_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// Whose.
    pub id: SequenceId,

    /// Tokens drawn: none where the row drew nothing; otherwise the guesses that were right, and
    /// one more.
    pub drawn: &'a [u32],

    /// Whether the sequence goes on.
    pub status: Status,
}

/// Whether a sequence goes on after a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It goes on, unless it has all it asked for.
    Continues,
    /// It is over: a stop token, a stop word. What was computed is kept for others.
    Stopped,
    /// Its row was not computed. It is over, and nothing of the row is kept.
    Failed,
}

/// A sequence that is over and forgotten; its pages are free or cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose.
    pub id: SequenceId,
    /// Why.
    pub reason: EndReason,
}

/// Why a sequence is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The engine said so.
    Stopped,
    /// The engine could not compute it.
    Failed,
    /// It has all the output it asked for.
    Length,
    /// All its positions are scored or embedded.
    Computed,
}

/// Outcomes that do not follow from the batch. Nothing was changed; the batch is still out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum DoneError {
    #[error("the batch has {rows} rows, but {got} outcomes are reported")]
    RowCount { rows: usize, got: usize },

    #[error("outcome {index} is of sequence {got}, but the row is of {expected}")]
    WrongRow { index: usize, expected: SequenceId, got: SequenceId },

    #[error("the row of sequence {id} draws between {min} and {max} tokens, but {got} came")]
    DrawnCount { id: SequenceId, min: usize, max: usize, got: usize },

    #[error("token {index} drawn for sequence {id} goes on after a guess that was wrong")]
    NotDrafted { id: SequenceId, index: usize },
}

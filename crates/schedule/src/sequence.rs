//! One ask on its way: its tokens, how far they are computed, and where.
//!
//! Prompt and answer are one list of tokens. A sequence always has to compute up to its
//! [`Sequence::target`]; whether that is a long way (a prompt, or the way back after it was
//! parked) or one token (an answer) makes no other difference.

use crate::ask::{Ask, Drafting, Priority, SequenceId, Sharing, Work};
use crate::batch::{PageCopy, PageId, Wants, to_u32};
use crate::draft::Drafter;
use crate::pages::Scope;

/// One sequence, from arrival to end.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, told by a message")]
pub(crate) struct Sequence {
    pub id: SequenceId,
    /// Its place in the order of arrival; never used again.
    pub ticket: u64,
    /// The slot of its caller.
    pub caller: u32,
    pub priority: Priority,
    pub work: Work,
    pub scope: Scope,
    /// Prompt and answer.
    pub tokens: Vec<u32>,
    pub prompt_len: usize,
    /// Whether its first token may be drawn.
    pub is_revealed: bool,
    /// Whether nobody reads what it says.
    pub is_stalled: bool,
    /// Whether it ran up to where only revealing takes it further.
    pub is_held: bool,
    /// Whether it was counted as live with its caller.
    pub is_live: bool,
    /// Whether it holds pages; otherwise it waits.
    pub is_running: bool,
    /// Whether it came in because its priority was passed over: never parked for another priority.
    pub is_tenured: bool,
    /// Positions computed, from the first on.
    pub computed: usize,
    /// Positions that were found in the cache when it came in first.
    pub found: Option<usize>,
    /// The first position whose result is still to be delivered, of work that draws nothing.
    pub delivered: usize,
    /// Prompt positions that the caller's counter has paid for.
    pub charged: usize,
    /// The pages of its positions, the first `cached` of them in the tree.
    pub table: Vec<PageId>,
    pub cached: usize,
    /// The copy to make before its next row; its source is held.
    pub copy: Option<PageCopy>,
    pub drafter: Drafter,
    /// Tokens of this step: known ones, and guesses.
    pub planned: usize,
    pub drafts: Vec<u32>,
    /// The step in which it was passed over for a row that computes the same block.
    pub followed_at: u64,
}

impl Sequence {
    pub(crate) fn new(ask: Ask, ticket: u64, caller: u32, draft_len_max: u32) -> Self {
        let owner = match ask.sharing {
            Sharing::Private => Some(ask.caller),
            Sharing::Shared => None,
        };
        let draws = matches!(ask.work, Work::Generate { .. });
        let drafting = if draws { ask.drafting } else { Drafting::Off };
        Self {
            id: ask.id,
            ticket,
            caller,
            priority: ask.priority,
            work: ask.work,
            scope: (ask.prefix_key, owner),
            prompt_len: ask.prompt.len(),
            tokens: ask.prompt,
            is_revealed: ask.is_revealed || !draws,
            is_stalled: false,
            is_held: false,
            is_live: false,
            is_running: false,
            is_tenured: false,
            computed: 0,
            found: None,
            delivered: match ask.work {
                Work::Score { from } => from as usize,
                Work::Generate { .. } | Work::Embed => 0,
            },
            charged: 0,
            table: Vec::new(),
            cached: 0,
            copy: None,
            drafter: Drafter::new(drafting, draft_len_max as usize),
            planned: 0,
            drafts: Vec::new(),
            followed_at: 0,
        }
    }

    /// The order of running sequences: who is parked for whom. The first first.
    pub(crate) fn rank(&self) -> (bool, Priority, u64) {
        let priority = if self.is_tenured { Priority::Owner } else { self.priority };
        (!self.is_tenured, priority, self.ticket)
    }

    /// Positions that may be computed now: all tokens, or all but the last before revealing.
    pub(crate) fn target(&self) -> usize {
        self.tokens.len() - usize::from(!self.is_revealed)
    }

    /// Positions still to compute; 1 is an answer's next token.
    pub(crate) fn todo(&self) -> usize {
        self.target() - self.computed
    }

    /// Whether it can use a step.
    pub(crate) fn wants_step(&self) -> bool {
        !self.is_stalled && !self.is_held
    }

    /// Positions that may come from the cache: what has to deliver a result is computed.
    pub(crate) fn reusable(&self) -> usize {
        match self.work {
            Work::Generate { .. } => self.tokens.len() - 1,
            Work::Score { .. } | Work::Embed => self.delivered.min(self.tokens.len() - 1),
        }
    }

    /// Tokens that may still be drawn.
    pub(crate) fn output_left(&self) -> usize {
        let drawn = self.tokens.len() - self.prompt_len;
        self.work.output_len_max().saturating_sub(drawn)
    }

    /// Whether a row that ends at position `end` draws a token.
    pub(crate) fn draws_at(&self, end: usize) -> bool {
        matches!(self.work, Work::Generate { .. }) && end == self.tokens.len()
    }

    /// Which results are read of this step's row.
    pub(crate) fn wants(&self) -> Wants {
        let end = self.computed + self.planned;
        match self.work {
            Work::Generate { .. } if !self.draws_at(end) => Wants::Nothing,
            Work::Generate { .. } if self.drafts.is_empty() => Wants::Last,
            Work::Generate { .. } => Wants::From(0),
            Work::Score { .. } | Work::Embed if self.delivered >= end => Wants::Nothing,
            Work::Score { .. } | Work::Embed => {
                Wants::From(to_u32(self.delivered.saturating_sub(self.computed)))
            }
        }
    }

    /// The page before the first that is not cached: below it hangs the next block.
    pub(crate) fn cursor(&self) -> Option<PageId> {
        self.cached.checked_sub(1).map(|at| self.table[at])
    }

    /// The tokens of the first block that is not cached, as far as they are known.
    pub(crate) fn next_block(&self, page_len: usize) -> &[u32] {
        let start = self.cached * page_len;
        let end = (start + page_len).min(self.tokens.len());
        &self.tokens[start..end]
    }
}

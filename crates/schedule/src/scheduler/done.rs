//! What a computed batch changes: positions, tokens, counters, the cache.

use crate::ask::Work;
use crate::batch::{DoneError, EndReason, Ended, Outcome, Status};
use crate::fair::{DECODE_WEIGHT, PREFILL_WEIGHT};
use crate::sequence::Sequence;

use super::Scheduler;

impl Scheduler {
    /// Takes in what the batch that is out computed: an outcome for each row, in the order of the
    /// rows, also for sequences that were cancelled meanwhile. Returns those that are over.
    ///
    /// # Errors
    ///
    /// [`DoneError`] if outcomes do not follow from the batch; then nothing changes.
    pub fn done(&mut self, outcomes: &[Outcome<'_>]) -> Result<Vec<Ended>, DoneError> {
        let rows = self.in_flight.len();
        if outcomes.len() != rows {
            return Err(DoneError::RowCount { rows, got: outcomes.len() });
        }
        for (index, outcome) in outcomes.iter().enumerate() {
            self.check_outcome(index, outcome)?;
        }
        let mut ended = Vec::new();
        let in_flight = std::mem::take(&mut self.in_flight);
        for (&(slot, ticket), outcome) in in_flight.iter().zip(outcomes) {
            if self.is_gone(slot, ticket) {
                continue;
            }
            let reason = self.apply(slot, outcome);
            if let Some(reason) = reason {
                ended.push(Ended { id: outcome.id, reason });
                self.remove(slot);
            }
        }
        self.in_flight = in_flight; // Its memory is used again.
        self.in_flight.clear();
        Ok(ended)
    }

    /// Whether the sequence of a row was cancelled since.
    fn is_gone(&self, slot: u32, ticket: u64) -> bool {
        self.sequences.get(slot).is_none_or(|it| it.ticket != ticket)
    }

    fn check_outcome(&self, index: usize, outcome: &Outcome<'_>) -> Result<(), DoneError> {
        let (slot, ticket) = self.in_flight[index];
        if self.is_gone(slot, ticket) {
            return Ok(());
        }
        let sequence = &self.sequences[slot];
        let (id, got) = (sequence.id, outcome.drawn.len());
        if outcome.id != id {
            return Err(DoneError::WrongRow { index, expected: id, got: outcome.id });
        }
        let (min, max) = if sequence.draws_at(sequence.computed + sequence.planned) {
            (usize::from(outcome.status == Status::Continues), sequence.drafts.len() + 1)
        } else {
            (0, 0)
        };
        if got < min || got > max {
            return Err(DoneError::DrawnCount { id, min, max, got });
        }
        let right = outcome.drawn.iter().zip(&sequence.drafts);
        let right = right.take_while(|(drawn, guess)| drawn == guess).count();
        if right + 1 < got {
            return Err(DoneError::NotDrafted { id, index: right + 1 });
        }
        Ok(())
    }

    /// Takes in one row; says why the sequence is over, if it is.
    fn apply(&mut self, slot: u32, outcome: &Outcome<'_>) -> Option<EndReason> {
        let sequence = &mut self.sequences[slot];
        self.totals.computed += (sequence.planned + sequence.drafts.len()) as u64;
        if outcome.status == Status::Failed {
            return Some(EndReason::Failed); // Before its positions could enter the cache.
        }
        let service = advance(sequence, outcome.drawn);
        self.callers.slots[sequence.caller].service += service;
        self.totals.drawn += outcome.drawn.len() as u64;
        self.totals.guessed += sequence.drafts.len() as u64;
        self.totals.guessed_right += outcome.drawn.len().saturating_sub(1) as u64;
        sequence.planned = 0;
        sequence.drafts.clear();
        if let Some(copy) = sequence.copy.take() {
            self.pages.let_go(copy.from);
        }
        self.settle(slot);
        let sequence = &mut self.sequences[slot];
        match sequence.work {
            _ if outcome.status == Status::Stopped => Some(EndReason::Stopped),
            Work::Generate { .. } if sequence.output_left() == 0 => Some(EndReason::Length),
            Work::Generate { .. } => {
                sequence.is_held = sequence.todo() == 0;
                self.refresh(slot);
                None
            }
            Work::Score { .. } | Work::Embed => {
                (sequence.todo() == 0).then_some(EndReason::Computed)
            }
        }
    }
}

/// Moves a sequence past what was computed and drawn. Returns the service that this was.
///
/// Guesses that were right are computed already: only the last token drawn is not. The positions
/// of those that were wrong lie past `computed`, and are written again.
fn advance(sequence: &mut Sequence, drawn: &[u32]) -> u64 {
    sequence.computed += sequence.planned;
    let prompt = sequence.computed.min(sequence.prompt_len);
    let newly = prompt.saturating_sub(sequence.charged);
    sequence.charged += newly;
    sequence.delivered = sequence.delivered.max(sequence.computed);
    let right = drawn.len().saturating_sub(1);
    sequence.drafter.learn(sequence.drafts.len(), right, drawn.len());
    sequence.tokens.extend_from_slice(drawn);
    sequence.computed += right;
    newly as u64 * PREFILL_WEIGHT + drawn.len() as u64 * DECODE_WEIGHT
}

//! The engine's own guesses: whom they would help, and what they are.

use crate::ask::SequenceId;
use crate::sequence::Sequence;

use super::Scheduler;

impl Scheduler {
    /// Whom the engine's own guesses would help in the next step, and how many of them: sequences
    /// that said [`crate::Drafting::Outside`] or [`crate::Drafting::Both`], draw in that step, do
    /// not pause and find nothing in what was said before. The first in rank first; all together
    /// no more than a step takes beside the answers and the prompts that are being computed.
    pub fn proposals(&mut self) -> Vec<(SequenceId, usize)> {
        let draws = |it: &Sequence| {
            it.wants_step() && it.is_revealed && it.todo() == 1 && it.draws_at(it.tokens.len())
        };
        let running = self.running.iter().map(|&slot| &self.sequences[slot]);
        // A prompt that came from the cache meanwhile leaves more room than this: no harm.
        let needed = running.filter(|it| it.wants_step()).map(Sequence::todo).sum();
        let left = (self.config.batch_tokens_max as usize).saturating_sub(needed);
        let mut left = left.min(self.config.draft_tokens_max as usize);
        let (mut wanted, mut found) = (Vec::new(), Vec::new());
        for &slot in &self.running {
            let sequence = &mut self.sequences[slot];
            let len_max = left.min(sequence.output_left().saturating_sub(1));
            if len_max == 0 || !draws(sequence) {
                continue;
            }
            found.clear();
            sequence.drafter.look_up(&sequence.tokens, len_max, &mut found);
            let len = sequence.drafter.want().min(len_max);
            if found.is_empty() && len > 0 {
                wanted.push((sequence.id, len));
                left -= len;
            }
            left -= found.len();
        }
        wanted
    }

    /// The engine's own guesses at what follows the last token of a sequence that said
    /// [`crate::Drafting::Outside`] or [`crate::Drafting::Both`]. They count for the next step in
    /// which it draws, and only if nothing was drawn in between. Returns whether they were taken.
    pub fn propose(&mut self, id: SequenceId, tokens: &[u32]) -> bool {
        let Some(&slot) = self.by_id.get(&id) else { return false };
        let sequence = &mut self.sequences[slot];
        sequence.drafter.propose(sequence.tokens.len(), tokens)
    }

    /// How many guesses of the engine would pay for a sequence now: 0 if it is unknown, or pauses.
    pub fn proposal_len(&self, id: SequenceId) -> usize {
        let Some(&slot) = self.by_id.get(&id) else { return 0 };
        let sequence = &self.sequences[slot];
        sequence.drafter.want().min(sequence.output_left().saturating_sub(1))
    }

    /// What a sequence has said so far, behind its prompt. It only grows.
    pub fn tokens(&self, id: SequenceId) -> Option<&[u32]> {
        Some(&self.sequences[*self.by_id.get(&id)?].tokens)
    }
}

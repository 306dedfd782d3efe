//! A step's batch: answers first, then chunks of prompts, then guesses.

use crate::ask::Priority;
use crate::batch::{Batch, RowParts};
use crate::fair::PREFILL_WEIGHT;

use super::Scheduler;
use super::place::Entry;

/// Who gets the next chunk.
struct Choice {
    slot: u32,
    /// Whether its priority comes first because it was passed over (rule 5).
    is_overdue: bool,
}

impl Scheduler {
    /// Fills `batch` with the next step's work; empty means that there is nothing to do until a
    /// message comes. A batch that is out and not [`Self::done`] is dropped: its rows come again.
    pub fn plan(&mut self, batch: &mut Batch) {
        batch.clear();
        self.in_flight.clear();
        self.step += 1;
        self.callers.begin_step();
        let answers = self.plan_answers();
        self.note_idle_priorities();
        let budget = self.config.batch_tokens_max as usize - answers;
        let budget = self.plan_chunks(budget);
        self.plan_guesses(budget);
        self.emit(batch);
    }

    /// Gives every sequence that lacks one token its place in the step, the first in rank first,
    /// parking from behind where pages run out. Returns how many there are.
    fn plan_answers(&mut self) -> usize {
        self.prefilling.clear();
        self.picked.clear();
        let page_len = self.config.page_len as usize;
        let (mut at, mut answers) = (0, 0);
        while let Some(&slot) = self.running.get(at) {
            let sequence = &mut self.sequences[slot];
            sequence.planned = 0;
            if !sequence.drafts.is_empty() {
                sequence.drafts.clear(); // Of a batch that was dropped.
                self.trim(slot);
            }
            let sequence = &mut self.sequences[slot];
            at += 1;
            match sequence.todo() {
                _ if !sequence.is_live => {}
                1 if sequence.table.len() * page_len > sequence.computed => sequence.planned = 1,
                1 => {
                    let rank = sequence.rank();
                    let has_grown = self.grow(slot);
                    self.sequences[slot].planned = usize::from(has_grown);
                    // Some before it may have been parked, or it itself.
                    at = self.running.partition_point(|&it| self.sequences[it].rank() <= rank);
                }
                _ => self.prefilling.push(slot),
            }
            answers += self.sequences[slot].planned;
        }
        answers
    }

    /// A priority without work is not passed over.
    fn note_idle_priorities(&mut self) {
        for priority in Priority::ALL {
            let is_its = |&slot: &u32| self.sequences[slot].priority == priority;
            let has_work = self.prefilling.iter().any(is_its) || self.callers.is_waiting(priority);
            if !has_work {
                self.served_at[priority.index()] = self.step;
            }
        }
    }

    /// Spends the budget on prompts. Returns what is left.
    fn plan_chunks(&mut self, mut budget: usize) -> usize {
        let mut is_admitting = true;
        while budget > 0 {
            let Some(choice) = self.choose(is_admitting) else { break };
            let slot = choice.slot;
            if self.sequences[slot].is_running {
                if !self.catch_up(slot) {
                    continue;
                }
            } else {
                match self.enter(slot) {
                    Entry::Admitted => {}
                    Entry::Follows => continue,
                    Entry::Blocked => {
                        is_admitting = false;
                        continue;
                    }
                }
            }
            if choice.is_overdue {
                self.grant_tenure(slot);
            }
            budget -= self.assign(slot, budget);
        }
        budget
    }

    /// Rules 2 and 5: who comes next.
    fn choose(&self, is_admitting: bool) -> Option<Choice> {
        let age = u64::from(self.config.age_steps_max);
        let overdue = Priority::ALL.into_iter().rev();
        let overdue = overdue.filter(|it| self.step - self.served_at[it.index()] > age);
        // The longest passed over first; between equals, the lower priority.
        let overdue = overdue.min_by_key(|it| self.served_at[it.index()]);
        let first = overdue.and_then(|it| self.best_of(it, is_admitting));
        if let Some(slot) = first {
            return Some(Choice { slot, is_overdue: true });
        }
        let slot = Priority::ALL.into_iter().find_map(|it| self.best_of(it, is_admitting))?;
        Some(Choice { slot, is_overdue: false })
    }

    /// The first of a priority: the smallest counter, then the oldest.
    fn best_of(&self, priority: Priority, is_admitting: bool) -> Option<u32> {
        let step = self.step;
        let running = self.prefilling.iter().filter_map(|&slot| {
            let it = &self.sequences[slot];
            let is_open = it.priority == priority
                && it.is_running
                && it.is_live
                && it.planned == 0
                && it.followed_at != step;
            let standing = self.callers.slots[it.caller].standing();
            is_open.then_some((standing, it.ticket, slot))
        });
        let has_followed = |slot: u32| self.sequences[slot].followed_at == step;
        let waiting =
            if is_admitting { self.callers.first_waiting(priority, has_followed) } else { None };
        running.chain(waiting).min().map(|(_, _, slot)| slot)
    }

    /// Gives a chunk of at most `budget` tokens. Returns how many, at least one.
    fn assign(&mut self, slot: u32, budget: usize) -> usize {
        let sequence = &mut self.sequences[slot];
        let len = sequence.todo().min(self.config.chunk_len_max as usize).min(budget);
        sequence.planned = len;
        self.callers.slots[sequence.caller].pending += len as u64 * PREFILL_WEIGHT;
        self.served_at[sequence.priority.index()] = self.step;
        self.picked.push(slot);
        len
    }

    /// Spends what nobody needs on guesses, the first in rank first.
    fn plan_guesses(&mut self, budget: usize) {
        let mut budget = budget.min(self.config.draft_tokens_max as usize);
        for &slot in &self.running {
            if budget == 0 {
                return;
            }
            let sequence = &mut self.sequences[slot];
            let end = sequence.computed + sequence.planned;
            if sequence.planned != 1 || !sequence.draws_at(end) {
                continue;
            }
            let len_max = budget.min(sequence.output_left().saturating_sub(1));
            sequence.drafter.guess(&sequence.tokens, len_max, &mut sequence.drafts);
            // Nobody is parked for a guess.
            let page_len = self.config.page_len as usize;
            while sequence.table.len() * page_len < end + sequence.drafts.len() {
                match self.pages.take() {
                    Some(page) => sequence.table.push(page),
                    None => sequence.drafts.truncate(sequence.table.len() * page_len - end),
                }
            }
            budget -= sequence.drafts.len();
        }
    }

    /// Writes the rows down, those of one token and its guesses first.
    fn emit(&mut self, batch: &mut Batch) {
        for is_short in [true, false] {
            for &slot in &self.running {
                let sequence = &self.sequences[slot];
                if sequence.planned == 0 || (sequence.planned == 1) != is_short {
                    continue;
                }
                let end = sequence.computed + sequence.planned;
                batch.copies.extend(sequence.copy);
                batch.push(&RowParts {
                    id: sequence.id,
                    start: sequence.computed,
                    wants: sequence.wants(),
                    known: &sequence.tokens[sequence.computed..end],
                    drafts: &sequence.drafts,
                    pages: &sequence.table[..self.config.pages_for(end + sequence.drafts.len())],
                });
                self.in_flight.push((slot, sequence.ticket));
            }
        }
        debug_assert!(batch.tokens().len() <= self.config.batch_tokens_max as usize, "rule 1");
    }

    /// Whether another sequence of this step computes the very block that this one needs next:
    /// then it is cached in the next step, and computing it twice would be waste (rule 6).
    pub(super) fn follows(&self, slot: u32) -> bool {
        let page_len = self.config.page_len as usize;
        let sequence = &self.sequences[slot];
        let (start, end) = (sequence.cached * page_len, (sequence.cached + 1) * page_len);
        if sequence.computed > start || sequence.reusable() < end || !self.is_caching() {
            return false;
        }
        let block = sequence.next_block(page_len);
        self.picked.iter().map(|&slot| &self.sequences[slot]).any(|other| {
            other.scope == sequence.scope
                && other.cached == sequence.cached
                && other.cursor() == sequence.cursor()
                && other.computed + other.planned >= end
                && other.next_block(page_len) == block
        })
    }

    /// Gives tenure to a sequence whose priority was passed over (rule 5).
    fn grant_tenure(&mut self, slot: u32) {
        self.running.retain(|&it| it != slot);
        self.sequences[slot].is_tenured = true;
        self.insert_by_rank(slot);
    }
}

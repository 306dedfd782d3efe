//! The machine: who computes what in the next step.
//!
//! # Rules
//!
//! 1. *Continuous batching.* Every running sequence that only lacks its next token is in every
//!    step. What is left of [`Config::batch_tokens_max`] goes to prompts, in chunks; what is then
//!    left, to guesses.
//! 2. *Priority, then fairness, then order.* Chunks and rows go to the first priority; within it
//!    to the caller with the smallest virtual counter (`fair`); within a caller to the oldest
//!    sequence. The first that does not fit holds the others up: nobody small slips past for ever.
//! 3. *Pages when they are needed.* A sequence enters when its prompt fits, with a page to spare
//!    for each that runs, and takes more as it grows: answers are mostly shorter than allowed, so
//!    many more run than if the longest were reserved. When pages run out, somebody is *parked*:
//!    it gives back its pages, waits at its place in the order of arrival, and computes its tokens
//!    again, most of which are found in the cache. What it says is not changed by it. Those that
//!    are idle (not read, not revealed) are parked first, then the last in rank: lowest priority,
//!    newest. Nobody is parked for one behind it, so the first in rank always gets to its end.
//! 4. *Priorities have rows too.* A waiting sequence that finds no row or no pages may have those
//!    of a lower priority parked.
//! 5. *Nobody starves.* A priority that has work and was passed over for
//!    [`Config::age_steps_max`] steps comes first, once; a sequence that comes in or goes on this
//!    way has *tenure*: it ranks before all without, and no priority parks it. So a priority gets
//!    one chunk or one new sequence in each `age_steps_max + 1` steps, plus the time until a row
//!    and its pages are free; within it, the counters bring everybody to the front.
//! 6. *Prefixes are shared as they are computed.* A block enters the tree when its last position
//!    is computed, prompt or answer. A sequence takes the longest cached prefix when it enters and
//!    looks again before each chunk. One whose next block is computed in this very step by another
//!    waits for it. At least the last token is computed; work that reads every position takes
//!    nothing it has to read.
//!
//! Not here: what the rules cost (`benches/schedule.rs`).

mod done;
mod place;
mod plan;
mod propose;

use std::collections::BTreeMap;

use crate::ask::{Ask, CallerId, Refusal, SequenceId, Work};
use crate::config::{Config, ConfigError};
use crate::fair::Callers;
use crate::pages::Pages;
use crate::sequence::Sequence;
use crate::slab::Slab;

/// Decides what an engine computes next. One for each model; one thread steps it.
///
/// The engine drains its messages into [`Self::arrive`], [`Self::cancel`], [`Self::reveal`],
/// [`Self::stall`] and [`Self::resume`], calls [`Self::plan`], computes, and calls [`Self::done`].
/// Messages may also come between `plan` and `done`.
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: Config,
    sequences: Slab<Sequence>,
    by_id: BTreeMap<SequenceId, u32>,
    callers: Callers,
    pages: Pages,
    /// Slots of those that hold pages, the first in rank first.
    running: Vec<u32>,
    /// How many wait.
    waiting: usize,
    /// The rows of the batch that is out: slot and ticket.
    in_flight: Vec<(u32, u64)>,
    next_ticket: u64,
    step: u64,
    /// The step in which each priority was last served, or had nothing to do.
    served_at: [u64; 3],
    /// The first that did not fit: its ticket, and the pages and rows that there were.
    blocked: Option<(u64, usize, usize)>,
    /// Running sequences with more than a token to compute, in this step.
    prefilling: Vec<u32>,
    /// Those that got a chunk of this step.
    picked: Vec<u32>,
    totals: Totals,
}

/// What happened since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    computed: u64,
    cached: u64,
    drawn: u64,
    guessed: u64,
    guessed_right: u64,
    parked: u64,
    refused: u64,
}

/// How busy the machine is, and what it did. For metrics and load reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that hold pages.
    pub running: usize,
    /// Sequences that wait, parked ones too.
    pub waiting: usize,
    /// Pages of the pool; the sum of the next three.
    pub pages: usize,
    /// Pages that hold nothing.
    pub pages_free: usize,
    /// Pages that hold a prefix nobody uses now.
    pub pages_cached: usize,
    /// Pages of running sequences.
    pub pages_in_use: usize,
    /// Tokens computed, recomputed ones and guesses too.
    pub computed_total: u64,
    /// Tokens found in the cache instead.
    pub cached_total: u64,
    /// Tokens drawn.
    pub drawn_total: u64,
    /// Tokens guessed, and how many of them were right.
    pub guessed_total: u64,
    /// Guesses that were right.
    pub guessed_right_total: u64,
    /// Times that a sequence was parked.
    pub parked_total: u64,
    /// Asks refused.
    pub refused_total: u64,
}

impl Scheduler {
    /// A machine with an empty pool.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the limits do not go together.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            config,
            sequences: Slab::new(),
            by_id: BTreeMap::new(),
            callers: Callers::new(),
            pages: Pages::new(config.page_len, config.page_count),
            running: Vec::new(),
            waiting: 0,
            in_flight: Vec::new(),
            next_ticket: 0,
            step: 0,
            served_at: [0; 3],
            blocked: None,
            prefilling: Vec::new(),
            picked: Vec::new(),
            totals: Totals::default(),
        })
    }

    /// Takes an ask, or refuses it at once.
    ///
    /// # Errors
    ///
    /// [`Refusal`] for what makes no sense, can never fit, or would wait behind too many.
    pub fn arrive(&mut self, ask: Ask) -> Result<(), Refusal> {
        if let Err(refusal) = self.check(&ask) {
            self.totals.refused += 1;
            return Err(refusal);
        }
        let id = ask.id;
        let caller = self.callers.enter(ask.caller);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut sequence = Sequence::new(ask, ticket, caller, self.config.draft_len_max);
        sequence.is_held = sequence.todo() == 0;
        let slot = self.sequences.insert(sequence);
        self.by_id.insert(id, slot);
        self.waiting += 1;
        self.callers.slots[caller].waiting += 1;
        self.refresh(slot);
        Ok(())
    }

    /// Whether [`Self::arrive`] would take an ask now.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check(&self, ask: &Ask) -> Result<(), Refusal> {
        let len = ask.prompt.len();
        let output = ask.work.output_len_max();
        match ask.work {
            _ if len == 0 => return Err(Refusal::EmptyPrompt),
            Work::Generate { output_len_max: 0 } => return Err(Refusal::NoOutput),
            Work::Score { from } if from as usize >= len => {
                return Err(Refusal::NothingToScore { from, len });
            }
            Work::Generate { .. } | Work::Score { .. } | Work::Embed => {}
        }
        if self.by_id.contains_key(&ask.id) {
            return Err(Refusal::Duplicate { id: ask.id });
        }
        let total = len.saturating_add(output);
        if total > ask.context_len_max as usize {
            let context = ask.context_len_max;
            return Err(Refusal::BeyondContext { prompt: len, output, context });
        }
        // The last token drawn is not fed again, so it needs no position.
        let needed = self.config.pages_for(total - usize::from(output > 0));
        let page_count = self.pages.page_count();
        if needed > page_count as usize {
            return Err(Refusal::BeyondPages { prompt: len, output, needed, page_count });
        }
        let max = self.config.queue_len_max;
        if self.waiting >= max as usize {
            return Err(Refusal::QueueFull { waiting: self.waiting, max });
        }
        let max = self.config.queue_len_per_caller_max;
        let waiting = self.callers.get(ask.caller).map_or(0, |it| it.waiting);
        if waiting >= max as usize {
            return Err(Refusal::CallerQueueFull { waiting, max });
        }
        Ok(())
    }

    /// The sequence may draw its first token. Returns whether it is here.
    pub fn reveal(&mut self, id: SequenceId) -> bool {
        self.change(id, |sequence| {
            sequence.is_revealed = true;
            sequence.is_held = false;
        })
    }

    /// Of a sequence whose prompt is computed as far as it can be before [`Self::reveal`], how many
    /// positions were found in the cache. None if it is not so far, or not here.
    pub fn held(&self, id: SequenceId) -> Option<usize> {
        let sequence = &self.sequences[*self.by_id.get(&id)?];
        sequence.is_held.then(|| sequence.found.unwrap_or(0))
    }

    /// Nobody reads the sequence now: it keeps its pages until somebody needs them, and rests.
    /// Returns whether it is here.
    pub fn stall(&mut self, id: SequenceId) -> bool {
        self.change(id, |sequence| sequence.is_stalled = true)
    }

    /// The sequence is read again. Returns whether it is here.
    pub fn resume(&mut self, id: SequenceId) -> bool {
        self.change(id, |sequence| sequence.is_stalled = false)
    }

    /// Forgets a sequence; its pages are free at once, or cached. Returns whether it was here.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        let Some(&slot) = self.by_id.get(&id) else { return false };
        self.remove(slot);
        true
    }

    /// Whether a sequence is here, running or waiting.
    pub fn contains(&self, id: SequenceId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Whether no sequence is here.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The virtual counter of a caller with sequences here, in weighted tokens.
    pub fn service_of(&self, caller: CallerId) -> Option<u64> {
        self.callers.service_of(caller)
    }

    /// The limits.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How busy it is, and what it did.
    pub fn stats(&self) -> Stats {
        let (counts, totals) = (self.pages.counts(), self.totals);
        Stats {
            running: self.running.len(),
            waiting: self.waiting,
            pages: self.pages.page_count() as usize,
            pages_free: counts.free,
            pages_cached: counts.unheld,
            pages_in_use: counts.owned + counts.held,
            computed_total: totals.computed,
            cached_total: totals.cached,
            drawn_total: totals.drawn,
            guessed_total: totals.guessed,
            guessed_right_total: totals.guessed_right,
            parked_total: totals.parked,
            refused_total: totals.refused,
        }
    }

    fn change(&mut self, id: SequenceId, change: impl FnOnce(&mut Sequence)) -> bool {
        let Some(&slot) = self.by_id.get(&id) else { return false };
        change(&mut self.sequences[slot]);
        self.refresh(slot);
        true
    }

    /// Counts a sequence with its caller, and puts it in line, as it is now.
    fn refresh(&mut self, slot: u32) {
        let sequence = &mut self.sequences[slot];
        let is_live = sequence.wants_step();
        if is_live == sequence.is_live {
            return;
        }
        sequence.is_live = is_live;
        let (caller, priority, entry) =
            (sequence.caller, sequence.priority, (sequence.ticket, slot));
        let is_waiting = !sequence.is_running;
        if is_live {
            self.callers.wake(caller);
        } else {
            self.callers.rest(caller);
        }
        if is_waiting {
            let line = self.callers.slots[caller].line_mut(priority);
            if is_live {
                line.insert(entry)
            } else {
                line.remove(&entry)
            };
        }
    }

    /// Checks every invariant that can be recounted, at a cost: for tests and simulations.
    ///
    /// # Errors
    ///
    /// The first disagreement, in words.
    pub fn audit(&self) -> Result<(), String> {
        let count = self.pages.page_count() as usize;
        let (mut holds, mut owned) = (vec![0_u32; count], vec![false; count]);
        let mut running = 0;
        for (slot, sequence) in self.sequences.iter() {
            running += usize::from(sequence.is_running);
            if sequence.is_running != self.running.contains(&slot) {
                return Err(format!("sequence {} is listed wrongly", sequence.id));
            }
            let (shared, private) = sequence.table.split_at(sequence.cached);
            for page in shared.iter().chain(sequence.copy.iter().map(|it| &it.from)) {
                holds[page.index()] += 1;
            }
            for page in private {
                if std::mem::replace(&mut owned[page.index()], true) {
                    return Err(format!("page {page} is owned twice"));
                }
            }
            let known = sequence.tokens.len() + sequence.drafts.len();
            let least = self.config.pages_for(sequence.computed);
            if !(least..=self.config.pages_for(known)).contains(&sequence.table.len()) {
                let (id, len) = (sequence.id, sequence.table.len());
                return Err(format!("sequence {id} has {len} pages for {known} tokens"));
            }
        }
        let is_ranked = self.running.is_sorted_by_key(|&slot| self.sequences[slot].rank());
        if running != self.running.len() || !is_ranked {
            return Err("running sequences are listed wrongly".to_owned());
        }
        if self.waiting != self.sequences.len() - running {
            return Err(format!("{} are said to wait", self.waiting));
        }
        self.pages.audit(&holds, &owned)
    }
}

//! A smaller model that guesses what a larger one will say.
//!
//! ```text
//! scheduler: whom, how many -> hear (its tokens) -> guess { read what is new } { a token each }*
//!                                                      -> proposals -> scheduler
//! ```
//!
//! A guess is drawn as the answer is: with a copy of the sequence's sampler, so with its seed, its
//! settings and the noise of that very position. Where both models think alike they then draw
//! alike, at any temperature. What is said never depends on a guess: the driver draws every token
//! from the larger model's logits, and a guess only says what to compute beforehand.
//!
//! The guesser reads a sequence when it is first asked for guesses, at most `READ_TOKENS_MAX`
//! tokens a step, and from then on what is new. Sequences are computed together, a token each.
//!
//! # Invariants
//!
//! * A position holds keys and values of exactly the tokens before it: what turned out otherwise
//!   is computed again.
//! * Pages are bounded; one is free, or of one sequence. Where none is left there are no guesses.
//! * A sequence that was forgotten holds nothing.
//!
//! Not here: how many guesses pay (`commons-schedule`), which models go together
//! (`guesser/fit.rs`), what is right (`worker/sequence.rs`).

mod fit;
mod mind;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use commons_schedule::SequenceId;
use commons_verify::sampling::Sampler;

pub use fit::{Draft, DraftError};

use crate::cache::{Cache, PAGE_LEN};
use crate::forward::{ForwardError, Segment};
use crate::model::Model;
use crate::room::Room;
use crate::team::Team;
use crate::worker::WorkerConfig;
use mind::Mind;

/// Tokens that the guesser reads in a step, of all sequences: the others wait for it.
const READ_TOKENS_MAX: usize = 256;

/// Rounds without a guess after which pages may be taken for another sequence. Fewer, and two
/// that do not fit together would push each other out and read everything again and again.
const IDLE_ROUNDS: u64 = 32;

/// Pages of keys and values of a guesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DraftLoad {
    /// How many there are.
    pub pages: usize,
    /// How many hold something.
    pub pages_in_use: usize,
}

/// Whom to guess for.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) id: SequenceId,
    /// Guesses at most.
    pub(super) len: usize,
    /// The most positions that the sequence may reach.
    pub(super) positions_max: usize,
    /// A copy of what will draw the answer, and the place in the answer that comes next.
    pub(super) sampler: Sampler,
    pub(super) place: u64,
}

/// The smaller model and what it has read.
#[derive(Debug)]
pub(super) struct Guesser {
    model: Model,
    cache: Cache,
    /// Ids that both models know, and those that end an answer.
    token_count: usize,
    ends: Vec<u32>,
    free: Vec<u32>,
    in_use: Arc<AtomicUsize>,
    minds: BTreeMap<SequenceId, Mind>,
    round: u64,
}

/// One sequence while it is guessed for.
struct Guess {
    ask: Ask,
    mind: Mind,
    /// Tokens that it puts through next; 0 when it is done.
    feed: usize,
    guesses: Vec<u32>,
}

impl Guesser {
    /// Checks that the two go together and makes room for what the smaller one reads.
    pub(super) fn new(
        draft: Draft,
        model: &Model,
        room: &Room,
        config: &WorkerConfig,
    ) -> Result<Self, DraftError> {
        let page_count = fit::check(&draft, model, room, config)?;
        let cache = draft.model.transformer().cache(config.kv_format, page_count)?;
        let counts = [model, &draft.model].map(|it| it.tokenizer().token_count());
        let last = u32::try_from(page_count).unwrap_or(u32::MAX);
        Ok(Self {
            token_count: counts[0].min(counts[1]),
            ends: model.tokenizer().ends().to_vec(),
            model: draft.model,
            cache,
            free: (0..last).rev().collect(),
            in_use: Arc::default(),
            minds: BTreeMap::new(),
            round: 0,
        })
    }

    /// How many pages there are.
    pub(super) fn page_count(&self) -> usize {
        self.cache.page_count()
    }

    /// How many pages are in use: kept up to date.
    pub(super) fn in_use(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.in_use)
    }

    /// Takes in what a sequence has said so far. Whether it can be guessed for at all.
    pub(super) fn hear(&mut self, id: SequenceId, tokens: &[u32]) -> bool {
        let settings = self.model.transformer().settings();
        let (rows, context_len) = (settings.token_count, settings.context_len);
        let mind = self.minds.entry(id).or_default();
        mind.asked_at = self.round;
        if mind.is_lost {
            return false;
        }
        mind.hear(tokens);
        let is_strange = mind.unread().iter().any(|&id| id as usize >= rows);
        if is_strange || tokens.len() > context_len {
            self.lose(id);
            return false;
        }
        true
    }

    /// Frees what a sequence holds: it is over.
    pub(super) fn forget(&mut self, id: SequenceId) {
        if let Some(mind) = self.minds.remove(&id) {
            self.free.extend(mind.pages);
            self.count();
        }
    }

    /// Guesses for everybody who was heard and is read; reads on for the others.
    pub(super) fn guess(&mut self, team: &mut Team, asks: Vec<Ask>) -> Vec<(SequenceId, Vec<u32>)> {
        self.round += 1;
        let mut all: Vec<Guess> = asks.into_iter().filter_map(|ask| self.begin(ask)).collect();
        // Those who have little to read first: a long prompt takes what is left.
        all.sort_by_key(|it| it.mind.unread().len());
        let mut budget = READ_TOKENS_MAX;
        for it in &mut all {
            it.feed = it.mind.unread().len().min(budget);
            budget -= it.feed;
        }
        while all.iter().any(|it| it.feed > 0) {
            let mut fed: Vec<&mut Guess> = all.iter_mut().filter(|it| it.feed > 0).collect();
            if let Err(error) = self.step(team, &mut fed) {
                // Ids, places and pages were checked, so this is a mistake of ours: it costs
                // guesses, and not the answer.
                tracing::error!(%error, model = self.model.facts().name, "guessing failed");
                for it in &mut fed {
                    (it.feed, it.mind.is_lost) = (0, true);
                }
            }
        }
        let end = |it: Guess| {
            let (id, is_lost) = (it.ask.id, it.mind.is_lost);
            self.minds.insert(id, it.mind);
            if is_lost {
                self.lose(id);
            }
            (!it.guesses.is_empty()).then_some((id, it.guesses))
        };
        all.into_iter().filter_map(end).collect()
    }

    /// Finds pages for what a sequence said and for the guesses, and takes its mind out.
    fn begin(&mut self, mut ask: Ask) -> Option<Guess> {
        let context_len = self.model.transformer().settings().context_len;
        let len = self.minds.get(&ask.id)?.len();
        // The last guess is not fed.
        ask.len = ask.len.min((context_len + 1).saturating_sub(len));
        if ask.len == 0 || !self.make_room(ask.id, len + ask.len - 1) {
            return None;
        }
        ask.positions_max = ask.positions_max.min(context_len);
        let mind = self.minds.remove(&ask.id)?;
        Some(Guess { ask, mind, feed: 0, guesses: Vec::new() })
    }

    /// Gives a sequence pages for so many positions, or none at all.
    fn make_room(&mut self, id: SequenceId, positions: usize) -> bool {
        let held = self.minds.get(&id).map_or(0, |mind| mind.pages.len());
        let missing = positions.div_ceil(PAGE_LEN).saturating_sub(held);
        if missing > self.free.len() && !self.evict(missing) {
            return false;
        }
        let pages = self.free.split_off(self.free.len() - missing);
        if let Some(mind) = self.minds.get_mut(&id) {
            mind.pages.extend(pages);
        }
        self.count();
        true
    }

    /// Takes pages from those who were asked for longest ago, until there are so many. Takes none
    /// if that would not do.
    fn evict(&mut self, wanted: usize) -> bool {
        let round = self.round;
        let is_idle = |mind: &Mind| round - mind.asked_at > IDLE_ROUNDS && !mind.pages.is_empty();
        let idle = self.minds.iter().filter(|(_, mind)| is_idle(mind));
        let mut idle: Vec<_> =
            idle.map(|(&id, mind)| (mind.asked_at, id, mind.pages.len())).collect();
        idle.sort_unstable();
        if self.free.len() + idle.iter().map(|it| it.2).sum::<usize>() < wanted {
            return false;
        }
        for (_, id, _) in idle {
            if self.free.len() >= wanted {
                break;
            }
            self.forget(id);
        }
        true
    }

    /// A sequence that cannot be guessed for keeps no pages.
    fn lose(&mut self, id: SequenceId) {
        if let Some(mind) = self.minds.get_mut(&id) {
            self.free.append(&mut mind.lose());
            self.count();
        }
    }

    fn count(&self) {
        self.in_use.store(self.page_count() - self.free.len(), Ordering::Relaxed);
    }

    /// Puts the next tokens of each through, and draws a guess behind those that are read.
    fn step(&mut self, team: &mut Team, fed: &mut [&mut Guess]) -> Result<(), ForwardError> {
        let segments: Vec<Segment<'_>> = fed.iter().map(|it| it.segment()).collect();
        let transformer = self.model.transformer();
        let rows = transformer.forward(team, &mut self.cache, &segments)?;
        let normed = transformer.norm(team.isa(), &rows);
        let logits = transformer.logits(team, &normed)?;
        let mut logits = logits.chunks_exact(transformer.settings().token_count);
        for it in fed {
            it.mind.read(it.feed);
            let is_read = it.mind.unread().is_empty();
            it.feed = 0;
            if let (true, Some(logits)) = (is_read, logits.next()) {
                // The rows behind the vocabulary are padding.
                it.draw(&logits[..logits.len().min(self.token_count)], &self.ends);
            }
        }
        Ok(())
    }
}

impl Guess {
    fn segment(&self) -> Segment<'_> {
        let unread = self.mind.unread();
        Segment {
            tokens: &unread[..self.feed],
            start: self.mind.computed(),
            pages: &self.mind.pages,
            positions_max: self.ask.positions_max,
            wanted: usize::from(self.feed == unread.len()),
            adapter: None,
        }
    }

    fn draw(&mut self, logits: &[f32], ends: &[u32]) {
        let Ok(guess) = self.ask.sampler.pick(self.ask.place, logits) else {
            // Logits that are no numbers, or a bias on a token that this model does not have.
            self.mind.is_lost = true;
            return;
        };
        self.ask.place += 1;
        self.guesses.push(guess);
        // Nothing follows an end.
        if self.guesses.len() < self.ask.len && !ends.contains(&guess) {
            self.mind.push(guess);
            self.feed = 1;
        }
    }
}

#[cfg(test)]
mod tests;

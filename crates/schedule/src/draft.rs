//! Guessing the next tokens, and knowing when that pays.
//!
//! A row that feeds its last token and `d` guesses draws up to `d + 1` tokens in one step. Guesses
//! that are wrong cost arithmetic, so their number follows what was right so far:
//!
//! * it begins at [`START_LEN`];
//! * all guesses right: one more the next time, up to the limit;
//! * fewer than half of them right: half as many the next time;
//! * at none: no guess for [`PAUSE_MIN`] drawn tokens, then one guess as a probe. A probe that is
//!   wrong doubles the pause, up to [`PAUSE_MAX`]; a guess that is right ends the doubling.
//!
//! So a sequence that cannot be guessed pays for at most one wrong token in [`PAUSE_MAX`].
//!
//! Guesses come from earlier in the sequence (`ngram`) or from the engine's own draft model. Where
//! both may guess, what was said before comes first: it costs nothing. Each source has a pace of
//! its own, so one that is wrong does not silence the other.
//!
//! Not here: whether there is room for guesses in a step (`scheduler`).

mod ngram;

use crate::ask::Drafting;
use ngram::Ngrams;

/// Guesses at the beginning.
pub const START_LEN: usize = 3;

/// Drawn tokens without a guess, at first.
pub const PAUSE_MIN: usize = 16;

/// Drawn tokens without a guess, at last.
pub const PAUSE_MAX: usize = 256;

/// The guesses of one sequence.
#[derive(Clone, Debug)]
pub(crate) struct Drafter {
    ngrams: Option<Box<Lookup>>,
    outside: Option<Box<Proposal>>,
    /// Whose the last guesses were.
    last: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Ngrams,
    Outside,
}

/// What was said before.
#[derive(Clone, Debug)]
struct Lookup {
    ngrams: Ngrams,
    pace: Pace,
}

/// What the engine proposes, and the length of the sequence that it continues.
#[derive(Clone, Debug)]
struct Proposal {
    continues: usize,
    tokens: Vec<u32>,
    pace: Pace,
}

/// How many guesses of one source pay.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Now, and at most.
    len: usize,
    len_max: usize,
    /// Tokens to draw before the next probe, and before the one after it.
    pause: usize,
    pause_next: usize,
}

impl Drafter {
    pub(crate) fn new(drafting: Drafting, len_max: usize) -> Self {
        let pace = Pace::new(len_max);
        let (has_ngrams, has_outside) = match drafting {
            _ if len_max == 0 => (false, false),
            Drafting::Off => (false, false),
            Drafting::Ngram => (true, false),
            Drafting::Outside => (false, true),
            Drafting::Both => (true, true),
        };
        let lookup = || Box::new(Lookup { ngrams: Ngrams::default(), pace });
        let proposal = || Box::new(Proposal { continues: 0, tokens: Vec::new(), pace });
        let ngrams = has_ngrams.then(lookup);
        Self { ngrams, outside: has_outside.then(proposal), last: Source::Ngrams }
    }

    /// How many guesses of the engine pay now.
    pub(crate) fn want(&self) -> usize {
        self.outside.as_ref().map_or(0, |it| it.pace.want())
    }

    /// Takes the engine's guesses at what follows `tokens_len` tokens.
    pub(crate) fn propose(&mut self, tokens_len: usize, proposed: &[u32]) -> bool {
        let Some(proposal) = &mut self.outside else { return false };
        proposal.continues = tokens_len;
        proposal.tokens.clear();
        let len = proposed.len().min(proposal.pace.len_max);
        proposal.tokens.extend_from_slice(&proposed[..len]);
        true
    }

    /// Appends at most `len_max` guesses at what follows `tokens`.
    pub(crate) fn guess(&mut self, tokens: &[u32], len_max: usize, guesses: &mut Vec<u32>) {
        self.last = Source::Ngrams;
        self.look_up(tokens, len_max, guesses);
        if let (true, Some(proposal)) = (guesses.is_empty(), &self.outside) {
            self.last = Source::Outside;
            if proposal.continues == tokens.len() {
                let len = proposal.pace.want().min(len_max);
                guesses.extend(proposal.tokens.iter().take(len));
            }
        }
    }

    /// The part of [`Self::guess`] that needs no engine.
    pub(crate) fn look_up(&mut self, tokens: &[u32], len_max: usize, guesses: &mut Vec<u32>) {
        if let Some(lookup) = &mut self.ngrams {
            let len = lookup.pace.want().min(len_max);
            if len > 0 {
                lookup.ngrams.guess(tokens, len, guesses);
            }
        }
    }

    /// Learns how many of its last guesses were right, and that `drawn` tokens were drawn.
    pub(crate) fn learn(&mut self, guessed: usize, right: usize, drawn: usize) {
        let paces = [
            (Source::Ngrams, self.ngrams.as_mut().map(|it| &mut it.pace)),
            (Source::Outside, self.outside.as_mut().map(|it| &mut it.pace)),
        ];
        for (source, pace) in paces {
            if let Some(pace) = pace {
                pace.pause = pace.pause.saturating_sub(drawn);
                if guessed > 0 && source == self.last {
                    pace.learn(guessed, right);
                }
            }
        }
    }
}

impl Pace {
    fn new(len_max: usize) -> Self {
        Self { len: START_LEN.min(len_max), len_max, pause: 0, pause_next: PAUSE_MIN }
    }

    fn want(&self) -> usize {
        if self.pause > 0 { 0 } else { self.len }
    }

    fn learn(&mut self, guessed: usize, right: usize) {
        if right > 0 {
            self.pause_next = PAUSE_MIN;
        }
        if right == guessed {
            self.len = (self.len + 1).min(self.len_max);
        } else if right * 2 < guessed {
            self.len /= 2;
        }
        if self.len == 0 {
            self.len = 1;
            self.pause = self.pause_next;
            self.pause_next = (self.pause_next * 2).min(PAUSE_MAX);
        }
    }
}

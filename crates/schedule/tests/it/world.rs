//! A model engine: it keeps what was written to each position of each page, and checks that every
//! row reads what its own tokens would have written.
//!
//! The next token is a function of the tokens before it, so that what a sequence says is known
//! beforehand, however it is batched, parked, guessed or cached.

use std::collections::{BTreeMap, BTreeSet};

use commons_schedule::{
    Ask, Batch, Caching, CallerId, Config, Drafting, EndReason, Ended, Outcome, PrefixKey,
    Priority, Refusal, Row, Scheduler, SequenceId, Sharing, Status, Wants, Work,
};

/// Whoever stops says this.
const STOP: u32 = 7;

/// What a position holds: which tokens, in whose name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    chain: u64,
    caller: CallerId,
    sharing: Sharing,
}

/// A sequence as the test knows it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub ask: Ask,
    /// Prompt and what was said.
    pub tokens: Vec<u32>,
    pub is_stalled: bool,
    /// The next position of a score to come.
    delivered: u32,
    /// Whether it drew in the step before.
    was_drawing: bool,
}

pub(crate) struct World {
    pub scheduler: Scheduler,
    pub known: BTreeMap<SequenceId, Known>,
    /// What ended, why, and what it said.
    pub ended: BTreeMap<SequenceId, (EndReason, Vec<u32>)>,
    pub batch: Batch,
    /// Tokens computed, and steps.
    pub computed: usize,
    pub steps: usize,
    /// How many values a drawn token can have: few are easily guessed.
    pub vocabulary: u64,
    /// Whether the model never says stop.
    pub is_talkative: bool,
    cells: Vec<Option<Cell>>,
    page_len: usize,
}

/// Limits that most tests do not care about.
pub(crate) fn roomy() -> Config {
    Config {
        page_len: 4,
        page_count: 64,
        rows_max: 8,
        batch_tokens_max: 32,
        chunk_len_max: 16,
        queue_len_max: 64,
        queue_len_per_caller_max: 32,
        caching: Caching::On { copy_len_min: 2 },
        draft_len_max: 4,
        draft_tokens_max: 16,
        age_steps_max: 50,
    }
}

pub(crate) fn caller(number: u8) -> CallerId {
    CallerId([number; 32])
}

/// An ask of caller 1 for `output` tokens after `prompt`.
pub(crate) fn ask(id: u64, prompt: &[u32], output: u32) -> Ask {
    Ask {
        id: SequenceId(id),
        caller: caller(1),
        priority: Priority::Normal,
        prompt: prompt.to_vec(),
        work: Work::Generate { output_len_max: output },
        context_len_max: 1 << 20,
        prefix_key: PrefixKey([0; 32]),
        sharing: Sharing::Private,
        drafting: Drafting::Off,
        is_revealed: true,
    }
}

/// `len` tokens that differ from those of another seed from the first on.
pub(crate) fn text(seed: u32, len: u32) -> Vec<u32> {
    (0..len).map(|at| 1000 * (seed + 1) + at).collect()
}

fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// The chain value after each of `tokens`.
fn chains(key: PrefixKey, tokens: &[u32]) -> Vec<u64> {
    let begin = mix(0, u64::from(key.0[0]));
    let next = |hash: &mut u64, &token: &u32| {
        *hash = mix(*hash, u64::from(token) + 1);
        Some(*hash)
    };
    tokens.iter().scan(begin, next).collect()
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let cells = config.page_count * config.page_len;
        Self {
            scheduler: Scheduler::new(config).unwrap(),
            known: BTreeMap::new(),
            ended: BTreeMap::new(),
            batch: Batch::default(),
            computed: 0,
            steps: 0,
            vocabulary: 3,
            is_talkative: false,
            cells: vec![None; cells as usize],
            page_len: config.page_len as usize,
        }
    }

    pub(crate) fn arrive(&mut self, ask: Ask) -> Result<(), Refusal> {
        self.scheduler.arrive(ask.clone())?;
        let delivered = match ask.work {
            Work::Score { from } => from,
            Work::Generate { .. } | Work::Embed => 0,
        };
        let (id, tokens) = (ask.id, ask.prompt.clone());
        let known = Known { ask, tokens, is_stalled: false, delivered, was_drawing: false };
        assert!(self.known.insert(id, known).is_none(), "{id} was taken twice");
        Ok(())
    }

    pub(crate) fn cancel(&mut self, id: SequenceId) {
        assert_eq!(self.scheduler.cancel(id), self.known.remove(&id).is_some());
    }

    pub(crate) fn reveal(&mut self, id: SequenceId) {
        assert!(self.scheduler.reveal(id));
        self.known.get_mut(&id).unwrap().ask.is_revealed = true;
    }

    pub(crate) fn stall(&mut self, id: SequenceId, is_stalled: bool) {
        assert!(if is_stalled { self.scheduler.stall(id) } else { self.scheduler.resume(id) });
        let known = self.known.get_mut(&id).unwrap();
        known.is_stalled = is_stalled;
        known.was_drawing = false;
    }

    /// What is said after `tokens`: sometimes the stop token.
    fn next_token(&self, key: PrefixKey, tokens: &[u32]) -> u32 {
        let chain = mix(chains(key, tokens).pop().unwrap(), 17);
        if chain.is_multiple_of(23) && !self.is_talkative {
            return STOP;
        }
        u32::try_from(chain % self.vocabulary).unwrap()
    }

    /// Everything an ask will say, if nobody cancels it.
    pub(crate) fn answer(&self, ask: &Ask) -> Vec<u32> {
        let Work::Generate { output_len_max } = ask.work else { return Vec::new() };
        let mut tokens = ask.prompt.clone();
        for _ in 0..output_len_max {
            let next = self.next_token(ask.prefix_key, &tokens);
            tokens.push(next);
            if next == STOP {
                break;
            }
        }
        tokens.split_off(ask.prompt.len())
    }

    /// Plans and computes a step. Returns how many rows it had.
    pub(crate) fn step(&mut self) -> usize {
        self.plan();
        self.finish();
        self.batch.rows.len()
    }

    /// Steps until nothing is left to do; panics after `steps_max`.
    pub(crate) fn drain(&mut self, steps_max: usize) {
        for _ in 0..steps_max {
            if self.step() == 0 {
                return;
            }
        }
        panic!("not done after {steps_max} steps: {:?}", self.scheduler.stats());
    }

    /// Plans a step and checks it, without computing it.
    pub(crate) fn plan(&mut self) {
        let parked = self.scheduler.stats().parked_total;
        self.scheduler.plan(&mut self.batch);
        self.audit();
        let nobody_parked = parked == self.scheduler.stats().parked_total;
        self.invariant_limits_are_kept();
        self.invariant_rows_follow_their_tokens();
        self.invariant_writes_are_alone();
        if nobody_parked {
            self.invariant_answers_are_in_every_step();
        }
        let rows: BTreeSet<_> = self.batch.rows.iter().map(|row| row.id).collect();
        for (id, known) in &mut self.known {
            known.was_drawing &= rows.contains(id);
        }
    }

    /// Computes the batch that was planned, and reports.
    pub(crate) fn finish(&mut self) -> Vec<Ended> {
        self.compute();
        let batch = std::mem::take(&mut self.batch);
        let drawn: Vec<Vec<u32>> = batch.rows.iter().map(|row| self.draw(&batch, row)).collect();
        let outcomes: Vec<Outcome<'_>> = (batch.rows.iter().zip(&drawn))
            .map(|(row, drawn)| {
                let is_over = drawn.last() == Some(&STOP);
                let status = if is_over { Status::Stopped } else { Status::Continues };
                Outcome { id: row.id, drawn, status }
            })
            .collect();
        let ended = self.scheduler.done(&outcomes).unwrap();
        for (row, drawn) in batch.rows.iter().zip(&drawn) {
            self.note(row, batch.tokens_of(row).len(), drawn);
        }
        for it in &ended {
            let known = self.known.remove(&it.id).unwrap();
            let said = known.tokens[known.ask.prompt.len()..].to_vec();
            assert!(self.ended.insert(it.id, (it.reason, said)).is_none());
        }
        self.steps += 1;
        self.computed += batch.tokens().len();
        self.batch = batch;
        self.audit();
        ended
    }

    pub(crate) fn audit(&self) {
        self.scheduler.audit().unwrap();
        let stats = self.scheduler.stats();
        assert_eq!(stats.pages, stats.pages_free + stats.pages_cached + stats.pages_in_use);
        assert_eq!(stats.running + stats.waiting, self.known.len());
    }

    /// What the test notes of a row that was computed.
    fn note(&mut self, row: &Row, len: usize, drawn: &[u32]) {
        let Some(known) = self.known.get_mut(&row.id) else { return };
        let end = row.start + u32::try_from(len).unwrap();
        match (known.ask.work, row.wants) {
            (Work::Generate { .. }, _) | (_, Wants::Nothing) => {}
            (Work::Score { .. } | Work::Embed, Wants::From(at)) => {
                assert_eq!(row.start + at, known.delivered, "each position is delivered once");
                known.delivered = end;
            }
            (_, Wants::Last) => panic!("nothing is drawn from a score"),
        }
        known.was_drawing = !drawn.is_empty() && !known.is_stalled;
        known.tokens.extend_from_slice(drawn);
    }

    /// What the model says after a row: right guesses, and one more.
    fn draw(&self, batch: &Batch, row: &Row) -> Vec<u32> {
        let Some(known) = self.known.get(&row.id) else { return Vec::new() };
        let is_generating = matches!(known.ask.work, Work::Generate { .. });
        if !is_generating || row.wants == Wants::Nothing {
            return Vec::new();
        }
        let fed = batch.tokens_of(row);
        let guesses = &fed[fed.len() - row.draft_len as usize..];
        let mut tokens = known.tokens.clone();
        let mut drawn = Vec::new();
        for at in 0..=guesses.len() {
            let next = self.next_token(known.ask.prefix_key, &tokens);
            tokens.push(next);
            drawn.push(next);
            if next == STOP || guesses.get(at) != Some(&next) {
                break;
            }
        }
        drawn
    }

    /// Copies, then reads and writes all rows.
    fn compute(&mut self) {
        let before = self.cells.clone();
        for copy in &self.batch.copies {
            let (from, to) = (copy.from.index() * self.page_len, copy.to.index() * self.page_len);
            let len = copy.len as usize;
            assert!(len <= self.page_len, "a copy stays within a page");
            self.cells[to..to + len].copy_from_slice(&before[from..from + len]);
        }
        for row in &self.batch.rows {
            let Some(known) = self.known.get(&row.id) else { continue };
            let fed = self.batch.tokens_of(row);
            let pages = self.batch.pages_of(row);
            let (start, end) = (row.start as usize, row.start as usize + fed.len());
            let tokens = [&known.tokens[..start], fed].concat();
            let place =
                |at: usize| pages[at / self.page_len].index() * self.page_len + at % self.page_len;
            for (at, chain) in chains(known.ask.prefix_key, &tokens).into_iter().enumerate() {
                let (caller, sharing) = (known.ask.caller, known.ask.sharing);
                if at >= start {
                    self.cells[place(at)] = Some(Cell { chain, caller, sharing });
                    continue;
                }
                let cell = self.cells[place(at)].expect("what is read was written");
                assert_eq!(cell.chain, chain, "{} reads what others wrote at {at}", row.id);
                let is_ours = cell.caller == caller;
                let is_shared = cell.sharing == Sharing::Shared && sharing == Sharing::Shared;
                assert!(is_ours || is_shared, "{} reads another caller's prefix", row.id);
                assert_eq!(cell.sharing, sharing, "private and shared prefixes are apart");
            }
            assert_eq!(pages.len(), end.div_ceil(self.page_len), "pages cover the row");
        }
    }

    fn invariant_limits_are_kept(&self) {
        let config = self.scheduler.config();
        let (rows, tokens) = (self.batch.rows.len(), self.batch.tokens().len());
        assert!(rows <= config.rows_max as usize);
        assert!(tokens <= config.batch_tokens_max as usize);
        let mut guesses = 0;
        for row in &self.batch.rows {
            let len = self.batch.tokens_of(row).len();
            assert!(len > 0);
            assert!(row.draft_len <= config.draft_len_max);
            assert!(len <= config.chunk_len_max as usize || row.draft_len as usize + 1 == len);
            guesses += row.draft_len;
        }
        assert!(guesses <= config.draft_tokens_max);
        let ids: BTreeSet<_> = self.batch.rows.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), rows, "a sequence has one row");
    }

    fn invariant_rows_follow_their_tokens(&self) {
        for row in &self.batch.rows {
            let known = &self.known[&row.id];
            let fed = self.batch.tokens_of(row);
            let (start, guessed) = (row.start as usize, row.draft_len as usize);
            let end = start + fed.len() - guessed;
            assert_eq!(fed[..fed.len() - guessed], known.tokens[start..end]);
            assert!(!known.is_stalled, "{} is not read", row.id);
            if let Work::Generate { output_len_max } = known.ask.work {
                let draws = end == known.tokens.len();
                assert_eq!(draws, row.wants != Wants::Nothing);
                assert!(known.ask.is_revealed || !draws, "{} is not revealed", row.id);
                let said = known.tokens.len() - known.ask.prompt.len();
                assert!(said + guessed < output_len_max as usize, "guesses fit the output");
            }
        }
    }

    /// No page that a row or a copy writes to is read or written by another.
    fn invariant_writes_are_alone(&self) {
        let mut uses = BTreeMap::new();
        let mut writes = BTreeSet::new();
        for row in &self.batch.rows {
            let pages = self.batch.pages_of(row);
            for page in pages {
                *uses.entry(*page).or_insert(0) += 1;
            }
            writes.extend(&pages[row.start as usize / self.page_len..]);
        }
        for copy in &self.batch.copies {
            *uses.entry(copy.from).or_insert(0) += 1;
            assert!(writes.contains(&copy.to), "a copy belongs to a row");
        }
        assert!(writes.iter().all(|page| uses[page] == 1), "a written page has one user");
    }

    /// Rule 1: who drew in the step before draws in this one.
    fn invariant_answers_are_in_every_step(&self) {
        let rows: BTreeSet<_> = self.batch.rows.iter().map(|row| row.id).collect();
        for (id, known) in &self.known {
            assert!(!known.was_drawing || rows.contains(id), "{id} was left out");
        }
    }
}

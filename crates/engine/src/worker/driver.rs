//! The thread of a model: plans a step, computes it, says what came of it.
//!
//! ```text
//! loop { hear callers; guess; plan; forward; draw; done; sleep when there is nothing to do }
//! ```
//!
//! What is computed next is decided by `commons-schedule`; this is its shell: it takes no decision
//! of its own. Callers are heard between two steps, so a cancellation frees pages at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use commons_schedule::{Batch, Outcome, Row, SequenceId, Wants};

use super::guesser::{Ask, Guesser};
use super::sequence::{Drew, Running, Seen};
use super::{CRASHED, Desk, failed};
use crate::cache::Cache;
use crate::forward::Segment;
use crate::model::Model;
use crate::team::Team;

/// Rows of logits that exist at once: a long text that is scored passes through in slices.
const LOGIT_ROWS_MAX: usize = 64;

/// A token at which the model panics where a text begins with it, for tests of what follows: that
/// of the byte 7, a bell.
#[cfg(test)]
pub(super) const PANIC_TOKEN: u32 = 10;

/// What the thread owns.
pub(super) struct Driver {
    pub(super) model: Arc<Model>,
    pub(super) desk: Arc<Desk>,
    pub(super) team: Team,
    pub(super) cache: Cache,
    pub(super) guesser: Option<Guesser>,
    pub(super) running: BTreeMap<SequenceId, Running>,
    pub(super) batch: Batch,
    /// Threads that compute for anybody, and those that are added for the owner alone.
    pub(super) threads: (usize, usize),
}

impl Driver {
    /// Computes until the desk is closed or the model fails.
    pub(super) fn run(mut self) {
        loop {
            if self.hear() {
                return self.fail_all("the model was unloaded");
            }
            let mut batch = std::mem::take(&mut self.batch);
            let turn = std::panic::AssertUnwindSafe(|| self.turn(&mut batch));
            let Ok(is_busy) = std::panic::catch_unwind(turn) else {
                tracing::error!(
                    model = self.model.facts().name,
                    "the model panicked: out of service"
                );
                return self.fail_all(CRASHED);
            };
            self.batch = batch;
            if !is_busy {
                self.desk.sleep();
            }
        }
    }

    /// Plans a step and computes it. Whether there was anything to compute.
    fn turn(&mut self, batch: &mut Batch) -> bool {
        self.guess();
        self.page();
        self.desk.scheduler().plan(batch);
        // What was admitted since is in the batch already, and must be known to those who see it.
        self.welcome();
        self.tell_held();
        if !batch.is_empty() {
            self.step(batch);
        }
        !batch.is_empty()
    }

    /// Hands sequences to the scheduler whose adapters came, and refuses those whose did not.
    fn page(&mut self) {
        let mut scheduler = self.desk.scheduler();
        let mut paging = self.desk.paging();
        let started = paging.admit(&mut scheduler);
        let refused = paging.take_refused();
        drop((paging, scheduler));
        if !started.is_empty() || !refused.is_empty() {
            // Who is here may still be in the inbox.
            self.welcome();
        }
        for (id, adapter) in started {
            if let Some(running) = self.running.get_mut(&id) {
                running.adapt(adapter);
            }
        }
        for (id, refusal) in refused {
            if let Some(running) = self.running.get_mut(&id) {
                running.fail(refusal);
            }
        }
    }

    /// Has the smaller model guess, where there is one and guesses would pay.
    fn guess(&mut self) {
        let Some(guesser) = &mut self.guesser else { return };
        let mut scheduler = self.desk.scheduler();
        let mut asks = Vec::new();
        for (id, len) in scheduler.proposals() {
            let Some(running) = self.running.get(&id) else { continue };
            let (Some((sampler, place)), Some(tokens)) = (running.sampler(), scheduler.tokens(id))
            else {
                continue;
            };
            if guesser.hear(id, tokens) {
                let (sampler, positions_max) = (sampler.clone(), running.positions_max());
                asks.push(Ask { id, len, positions_max, sampler, place });
            }
        }
        drop(scheduler);
        if asks.is_empty() {
            return;
        }
        let (ids, started): (Vec<_>, _) = (asks.iter().map(|ask| ask.id).collect(), super::now());
        let proposals = guesser.guess(&mut self.team, asks);
        let share = started.elapsed() / u32::try_from(ids.len()).unwrap_or(u32::MAX);
        for id in ids {
            if let Some(running) = self.running.get_mut(&id) {
                running.spent(share);
            }
        }
        let mut scheduler = self.desk.scheduler();
        for (id, tokens) in proposals {
            scheduler.propose(id, &tokens);
        }
    }

    /// Takes in new sequences and what callers of the others want. Says whether the desk is closed.
    fn hear(&mut self) -> bool {
        let mut inbox = self.desk.lock();
        inbox.is_rung = false;
        let is_closed = inbox.is_closed;
        drop(inbox);
        self.welcome();
        let mut scheduler = self.desk.scheduler();
        self.running.retain(|&id, running| {
            if running.is_abandoned() {
                scheduler.cancel(id);
                self.desk.paging().leave(id);
                if let Some(guesser) = &mut self.guesser {
                    guesser.forget(id);
                }
                return false;
            }
            if running.seed_came() && !scheduler.reveal(id) {
                self.desk.paging().reveal(id);
            }
            let is_stalled = !running.send();
            if is_stalled != std::mem::replace(&mut running.is_stalled, is_stalled) {
                if is_stalled {
                    scheduler.stall(id)
                } else {
                    scheduler.resume(id)
                };
            }
            // What has ended stays until its caller has read the end.
            !running.has_ended() || is_stalled
        });
        is_closed
    }

    /// Takes in new sequences. Whoever the scheduler knows is in the inbox, or was: a sequence is
    /// admitted and handed over under one lock of the inbox.
    fn welcome(&mut self) {
        let mut inbox = self.desk.lock();
        let arrived = inbox.arrived.drain(..).map(|running| (running.id(), running));
        self.running.extend(arrived);
    }

    /// Tells those who still keep their seed that their prompt is read.
    fn tell_held(&mut self) {
        let silent = self.running.iter_mut().filter(|(_, running)| running.is_silent());
        let scheduler = self.desk.scheduler();
        for (&id, running) in silent {
            if let Some(cached) = scheduler.held(id) {
                running.prefilled(cached);
                running.send();
            }
        }
    }

    /// Leaves a core free, unless everything in the batch is asked by the machine's owner.
    fn take_part(&mut self, batch: &Batch) {
        let is_owners = |row: &Row| self.running.get(&row.id).is_some_and(|it| it.is_owners);
        let (shared, more) = self.threads;
        let members = if batch.rows.iter().all(is_owners) { shared + more } else { shared };
        self.team.take_part(members);
    }

    /// Computes one batch and says what came of it.
    fn step(&mut self, batch: &Batch) {
        self.take_part(batch);
        #[cfg(test)]
        for row in &batch.rows {
            let begins = row.start == 0 && batch.tokens_of(row).first() == Some(&PANIC_TOKEN);
            assert!(!begins, "a kernel divides by zero, say");
        }
        for copy in &batch.copies {
            let copied = self.cache.copy(copy.from.0, copy.to.0, copy.len as usize);
            copied.expect("a device that fails ends the model");
        }
        let started = super::now();
        let rows = self.forward(batch);
        let elapsed = started.elapsed();
        self.count_computed(elapsed);
        let share = elapsed / u32::try_from(batch.rows.len()).unwrap_or(u32::MAX).max(1);
        for row in &batch.rows {
            if let Some(running) = self.running.get_mut(&row.id) {
                running.computed(row.start as usize, row.token_range().len(), share);
            }
        }
        self.see(batch, &rows);
        let drew = |row: &Row| self.running.get_mut(&row.id).map(Running::take_drew);
        let drawn: Vec<Drew> = batch.rows.iter().map(drew).map(Option::unwrap_or_default).collect();
        let pairs = batch.rows.iter().zip(&drawn);
        let outcomes: Vec<Outcome<'_>> = pairs
            .map(|(row, drew)| Outcome { id: row.id, drawn: &drew.tokens, status: drew.status })
            .collect();
        let ended = self.desk.scheduler().done(&outcomes);
        for ended in ended.expect("there is an outcome for each row of the batch that is out") {
            self.desk.paging().leave(ended.id);
            if let Some(guesser) = &mut self.guesser {
                guesser.forget(ended.id);
            }
            if let Some(running) = self.running.get_mut(&ended.id) {
                running.finish();
            }
        }
    }

    /// The rows behind the last layer of every token that a result is wanted of.
    fn forward(&mut self, batch: &Batch) -> Vec<f32> {
        let numbers = |row| batch.pages_of(row).iter().map(|page| page.0).collect();
        let pages: Vec<Vec<u32>> = batch.rows.iter().map(numbers).collect();
        let mut segments = Vec::with_capacity(batch.rows.len());
        for (row, pages) in batch.rows.iter().zip(&pages) {
            segments.push(Segment {
                tokens: batch.tokens_of(row),
                start: row.start as usize,
                pages,
                positions_max: self.running.get(&row.id).map_or(0, Running::positions_max),
                wanted: wanted(row).len(),
                adapter: self.running.get(&row.id).and_then(Running::adapter),
            });
        }
        let rows = self.model.transformer().forward(&mut self.team, &mut self.cache, &segments);
        rows.expect("admission checked every token, and the scheduler gave every page")
    }

    /// Hands every sequence what was computed for it: rows or logits.
    fn see(&mut self, batch: &Batch, rows: &[f32]) {
        let model = Arc::clone(&self.model);
        let width = model.transformer().settings().width;
        let mut seen = Vec::new();
        for row in &batch.rows {
            seen.extend(wanted(row).map(|index| (row, index)));
        }
        for (seen, rows) in seen.chunks(LOGIT_ROWS_MAX).zip(rows.chunks(LOGIT_ROWS_MAX * width)) {
            // A batch is nearly always all of one kind: rows of embeddings that stand among
            // others cost their logits.
            let wants_logits = |(row, _): &(&Row, usize)| {
                self.running.get(&row.id).is_some_and(Running::wants_logits)
            };
            let started = super::now();
            let normed = model.transformer().norm(self.team.isa(), rows);
            let logits = if seen.iter().any(wants_logits) {
                let logits = model.transformer().logits(&mut self.team, &normed);
                logits.expect("the rows are the model's own, and a device that fails ends it")
            } else {
                Vec::new()
            };
            self.count_computed(started.elapsed());
            let count = model.transformer().settings().token_count;
            let mut logits = logits.chunks_exact(count);
            for (&(row, index), hidden) in seen.iter().zip(normed.chunks_exact(width)) {
                let logits = logits.next().unwrap_or_default();
                if let Some(running) = self.running.get_mut(&row.id) {
                    let next = batch.tokens_of(row).get(index + 1).copied();
                    let position = row.start as usize + index;
                    running.see(&model, &Seen { position, hidden, logits, next });
                }
            }
        }
    }

    fn count_computed(&self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.desk.computed_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    fn fail_all(mut self, why: &str) {
        let mut inbox = self.desk.lock();
        inbox.failure = Some(why.to_owned());
        let arrived: Vec<Running> = inbox.arrived.drain(..).collect();
        drop(inbox);
        for mut running in
            arrived.into_iter().chain(std::mem::take(&mut self.running).into_values())
        {
            running.abort(failed(why.to_owned()));
        }
    }
}

/// The tokens of a row that a result is wanted of.
fn wanted(row: &Row) -> Range<usize> {
    let len = row.token_range().len();
    match row.wants {
        Wants::Nothing => len..len,
        Wants::Last => len - 1..len,
        Wants::From(index) => index as usize..len,
    }
}

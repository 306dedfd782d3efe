//! One sequence on the thread of its model: what was asked for, and what came of it so far.
//!
//! ```text
//! computed -> see (rows or logits) -> drew -> finish
//! ```
//!
//! Nothing here waits: events that the caller has no room for are kept, and their number is bounded
//! because a sequence with unsent events is not computed.

mod answering;
mod embedding;
mod scoring;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use commons_port::engine::EngineRefusal;
use commons_schedule::{SequenceId, Status};
use commons_verify::sampling::Sampler;

pub(super) use answering::Answering;
pub(super) use embedding::Embedding;
pub(super) use scoring::{Judge, Scoring};

use super::Wishes;
use crate::adapter::Adapter;
use crate::model::Model;

/// What was computed for one token of a sequence.
pub(super) struct Seen<'a> {
    /// Its position.
    pub(super) position: usize,
    /// Its row behind the last norm.
    pub(super) hidden: &'a [f32],
    /// The logits behind it.
    pub(super) logits: &'a [f32],
    /// The token behind it in the batch: a guess, or the text that is scored.
    pub(super) next: Option<u32>,
}

/// What a sequence drew in a step.
#[derive(Debug)]
pub(super) struct Drew {
    /// The guesses that were right, and one more.
    pub(super) tokens: Vec<u32>,
    /// Whether it goes on.
    pub(super) status: Status,
    /// Whether a guess was wrong: what follows it was computed for nothing.
    is_off: bool,
}

impl Default for Drew {
    fn default() -> Self {
        Self { tokens: Vec::new(), status: Status::Continues, is_off: false }
    }
}

/// One sequence.
#[derive(Debug)]
pub(super) struct Running {
    id: SequenceId,
    wishes: Arc<Wishes>,
    task: Task,
    drew: Drew,
    compute: Duration,
    positions_max: usize,
    is_revealed: bool,
    /// What changes the model for it, while it is computed.
    adapter: Option<Arc<Adapter>>,
    /// Whether the machine's owner asks.
    pub(super) is_owners: bool,
    /// Whether its caller has no room for its events.
    pub(super) is_stalled: bool,
}

/// What was asked for.
#[derive(Debug)]
pub(super) enum Task {
    Answer(Box<Answering>),
    Score(Box<Scoring>),
    Embed(Box<Embedding>),
}

impl Task {
    /// Whether it is an answer that is held to a grammar.
    pub(super) fn is_guided(&self) -> bool {
        matches!(self, Self::Answer(answer) if answer.is_guided())
    }
}

impl Running {
    pub(super) fn new(
        id: SequenceId,
        wishes: Arc<Wishes>,
        task: Task,
        positions_max: usize,
    ) -> Self {
        let (drew, is_revealed) = (Drew::default(), wishes.seed.get().is_some());
        Self {
            id,
            wishes,
            task,
            drew,
            compute: Duration::ZERO,
            positions_max,
            is_revealed,
            adapter: None,
            is_owners: false,
            is_stalled: false,
        }
    }

    pub(super) fn id(&self) -> SequenceId {
        self.id
    }

    /// The most positions that it may reach.
    pub(super) fn positions_max(&self) -> usize {
        self.positions_max
    }

    /// Its adapter, while it is computed.
    pub(super) fn adapter(&self) -> Option<&Arc<Adapter>> {
        self.adapter.as_ref()
    }

    /// Its adapter is in memory.
    pub(super) fn adapt(&mut self, adapter: Arc<Adapter>) {
        self.adapter = Some(adapter);
    }

    /// Whether nobody listens any more.
    pub(super) fn is_abandoned(&self) -> bool {
        let is_closed = match &self.task {
            Task::Answer(answer) => answer.is_closed(),
            Task::Score(scoring) => scoring.is_closed(),
            Task::Embed(embedding) => embedding.is_closed(),
        };
        is_closed || self.wishes.is_cancelled.load(Ordering::Relaxed)
    }

    /// Whether its seed was revealed since the last call.
    pub(super) fn seed_came(&mut self) -> bool {
        let is_revealed = self.wishes.seed.get().is_some();
        is_revealed && !std::mem::replace(&mut self.is_revealed, true)
    }

    /// Whether it waits for its seed, with nothing said about its prompt yet.
    pub(super) fn is_silent(&self) -> bool {
        matches!(&self.task, Task::Answer(answer) if !answer.is_prefilled()) && !self.is_revealed
    }

    /// Its prompt is read as far as it can be before the seed is known.
    pub(super) fn prefilled(&mut self, cached: usize) {
        if let Task::Answer(answer) = &mut self.task {
            answer.prefilled(cached);
        }
    }

    /// Sends what is unsent. Whether everything is sent.
    pub(super) fn send(&mut self) -> bool {
        match &mut self.task {
            Task::Answer(answer) => answer.send(),
            Task::Score(_) | Task::Embed(_) => true,
        }
    }

    /// Whether its last word is said.
    pub(super) fn has_ended(&self) -> bool {
        match &self.task {
            Task::Answer(answer) => answer.has_ended(),
            Task::Score(scoring) => scoring.has_ended(),
            Task::Embed(embedding) => embedding.has_ended(),
        }
    }

    /// Some of its tokens were computed.
    pub(super) fn computed(&mut self, start: usize, count: usize, share: Duration) {
        self.compute += share;
        if let Task::Answer(answer) = &mut self.task {
            answer.read(start, count);
        }
    }

    /// Time was spent on it that computed no token of it.
    pub(super) fn spent(&mut self, share: Duration) {
        self.compute += share;
    }

    /// What would draw its next token, and the place of that token in the answer. None before the
    /// first is drawn.
    pub(super) fn sampler(&self) -> Option<(&Sampler, u64)> {
        match &self.task {
            Task::Answer(answer) => answer.sampler(),
            Task::Score(_) | Task::Embed(_) => None,
        }
    }

    /// Whether its results are logits, and not rows.
    pub(super) fn wants_logits(&self) -> bool {
        !matches!(self.task, Task::Embed(_))
    }

    /// Takes in what was computed for one of its tokens.
    pub(super) fn see(&mut self, model: &Model, seen: &Seen<'_>) {
        if self.drew.status != Status::Continues || self.drew.is_off {
            return;
        }
        let outcome = match &mut self.task {
            Task::Answer(answer) => answer.draw(model, &self.wishes, seen.logits, &mut self.drew),
            Task::Score(scoring) => scoring.judge(model, seen),
            Task::Embed(embedding) => {
                embedding.add(seen);
                Ok(())
            }
        };
        if let Err(refusal) = outcome {
            self.fail(refusal);
            self.drew.status = Status::Failed;
        }
        let drew_guess = self.drew.tokens.last().copied() == seen.next;
        self.drew.is_off = self.wants_guesses() && !drew_guess;
    }

    fn wants_guesses(&self) -> bool {
        matches!(self.task, Task::Answer(_))
    }

    /// What it drew since the last call.
    pub(super) fn take_drew(&mut self) -> Drew {
        // An answer's tokens are said as they are drawn.
        self.send();
        std::mem::take(&mut self.drew)
    }

    /// The scheduler has forgotten it: says the last word, unless it is said.
    pub(super) fn finish(&mut self) {
        self.adapter = None;
        match &mut self.task {
            Task::Answer(answer) => answer.finish(self.compute),
            Task::Score(scoring) => scoring.finish(),
            Task::Embed(embedding) => embedding.finish(),
        }
        self.send();
    }

    /// Ends it with a failure, as far as the caller has room for it.
    pub(super) fn fail(&mut self, refusal: EngineRefusal) {
        self.adapter = None;
        match &mut self.task {
            Task::Answer(answer) => answer.fail(refusal),
            Task::Score(scoring) => scoring.fail(refusal),
            Task::Embed(embedding) => embedding.fail(refusal),
        }
        self.send();
    }

    /// The same when the model goes out of service: the caller hears it, room or not.
    pub(super) fn abort(&mut self, refusal: EngineRefusal) {
        match &mut self.task {
            Task::Answer(answer) => answer.abort(refusal),
            Task::Score(_) | Task::Embed(_) => self.fail(refusal),
        }
    }
}

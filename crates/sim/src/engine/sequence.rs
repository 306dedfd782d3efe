//! One sequence: a task that computes in virtual time and a bounded queue of its events.

use std::sync::Arc;

use commons_port::BoxFuture;
use commons_port::engine::{EngineEvent, EngineRefusalCode, EngineRequest, Sequence, Token};
use commons_port::time::TaskHandle;
use commons_record::seed::Seed32;
use commons_record::settlement::EndReason;
use tokio::sync::{mpsc, oneshot};

use super::{Mishap, SimModel, Slots, refusal};
use crate::executor::Executor;
use crate::lock;

/// Events that wait for the caller before the sequence stalls.
const EVENTS: usize = 16;

/// The computing half.
pub(super) struct Work {
    executor: Executor,
    model: SimModel,
    prompt: Vec<u32>,
    request: EngineRequest,
    place: Place,
    seed: oneshot::Receiver<Seed32>,
    events: mpsc::Sender<EngineEvent>,
}

/// The caller's half.
pub(super) struct SimSequence {
    seed: Option<oneshot::Sender<Seed32>>,
    events: mpsc::Receiver<EngineEvent>,
    task: Option<TaskHandle>,
}

/// A place in the queue or in a slot; given back when dropped.
struct Place {
    slots: Arc<Slots>,
    is_running: bool,
}

impl Place {
    fn queued(slots: Arc<Slots>) -> Self {
        lock(&slots.load).queued += 1;
        Self { slots, is_running: false }
    }

    fn move_up(&mut self) {
        let mut load = lock(&self.slots.load);
        load.queued -= 1;
        load.running += 1;
        self.is_running = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut load = lock(&self.slots.load);
        if self.is_running {
            load.running -= 1;
        } else {
            load.queued -= 1;
        }
    }
}

/// Both halves of a sequence that waits for a slot.
pub(super) fn new(
    executor: &Executor,
    model: SimModel,
    slots: Arc<Slots>,
    prompt: Vec<u32>,
    request: EngineRequest,
) -> (Work, SimSequence) {
    let (reveal, seed) = oneshot::channel();
    let (sender, events) = mpsc::channel(EVENTS);
    let place = Place::queued(slots);
    let executor = executor.clone();
    let mut sequence = SimSequence { seed: Some(reveal), events, task: None };
    if let Some(known) = request.seed {
        sequence.reveal(known);
    }
    (Work { executor, model, prompt, request, place, seed, events: sender }, sequence)
}

/// The caller went away.
struct Gone;

impl Work {
    /// Computes until the answer is complete, a mishap comes, or nobody listens.
    pub(super) async fn run(mut self, mishap: Option<Mishap>) {
        let free = Arc::clone(&self.place.slots.free);
        let Ok(_slot) = free.acquire_owned().await else { return };
        self.place.move_up();
        // `Gone` is the normal end of a cancelled sequence.
        let _: Result<(), Gone> = self.compute(mishap).await;
    }

    async fn compute(&mut self, mishap: Option<Mishap>) -> Result<(), Gone> {
        for _ in &self.prompt {
            self.executor.sleep(self.model.prefill).await;
        }
        let prompt = self.prompt.clone();
        self.send(EngineEvent::Prefilled { prompt, cached_tokens: 0, tool_format: None }).await?;
        let seed = (&mut self.seed).await.map_err(|_| Gone)?;
        let limit = self.request.completion_tokens_max;
        let (count, reason) = self.model.extent(&self.prompt, limit);
        let mut text = String::new();
        for index in 0..count {
            match mishap {
                Some(Mishap::FailAfter(after)) if after == index => return self.fail().await,
                Some(Mishap::StallAfter(after)) if after == index => std::future::pending().await,
                _ => {}
            }
            self.executor.sleep(self.model.decode).await;
            let token = self.model.token(&self.prompt, &seed, index, self.request.top_logprobs);
            if self.is_stopped_by(&mut text, &token) {
                return self.finish(EndReason::StopString, index).await;
            }
            self.send(EngineEvent::Token(token)).await?;
        }
        self.finish(reason, count).await
    }

    /// Whether a stop string ends with this token. Words are whole, so nothing is held back.
    fn is_stopped_by(&self, text: &mut String, token: &Token) -> bool {
        text.push_str(&token.text);
        self.request.stop.iter().any(|stop| text.ends_with(stop.as_str()))
    }

    async fn send(&self, event: EngineEvent) -> Result<(), Gone> {
        self.events.send(event).await.map_err(|_| Gone)
    }

    async fn finish(&self, reason: EndReason, count: u32) -> Result<(), Gone> {
        let compute_ms = self.model.compute_ms(self.prompt.len(), count);
        self.send(EngineEvent::Finished { reason, text: String::new(), compute_ms }).await
    }

    async fn fail(&self) -> Result<(), Gone> {
        let failure = refusal(EngineRefusalCode::Failed, "a planned mishap");
        self.send(EngineEvent::Failed(failure)).await
    }
}

impl SimSequence {
    /// Ties the computing task to this handle: dropping the handle stops it.
    pub(super) fn driven_by(mut self, task: TaskHandle) -> Self {
        self.task = Some(task);
        self
    }
}

impl Sequence for SimSequence {
    fn reveal(&mut self, seed: Seed32) {
        if let Some(reveal) = self.seed.take() {
            // A sequence that has ended needs no seed.
            let _ = reveal.send(seed);
        }
    }

    fn next(&mut self) -> BoxFuture<'_, Option<EngineEvent>> {
        Box::pin(self.events.recv())
    }
}

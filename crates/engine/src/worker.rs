//! One loaded model and the thread that computes it.
//!
//! ```text
//! caller: Worker::start -> checked, admitted -> (scheduler) -> events -> caller
//! thread: loop { hear callers; plan a batch; compute it; say what came of it; sleep }
//! ```
//!
//! A request is rendered, encoded and admitted on the caller's thread, so a refusal comes at once
//! and with numbers. What is computed when is decided by `commons-schedule`: answers step by step,
//! prompts in chunks beside them, callers in fair turns.
//!
//! # Invariants
//!
//! * Waiting and running sequences and unread events are bounded; a full queue refuses at once.
//! * A caller that does not read stalls its own sequence only.
//! * A dropped sequence frees its pages before the next step.
//! * A panic fails every sequence of the model with an event, and the model from then on.
//!
//! Not here: the thread (`worker/driver.rs`), one sequence on it (`worker/sequence.rs`), checks of
//! requests (`worker/ask.rs`), text and stop strings (`worker/text.rs`).

mod ask;
mod driver;
pub mod guesser;
mod sequence;
mod text;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use commons_kernels::Isa;
use commons_port::BoxFuture;
use commons_port::engine::{
    Caller, EmbedRequest, EmbeddingVector, EngineEvent, EngineLoad, EngineRefusal,
    EngineRefusalCode, EngineRequest, LoadedModel, ScoreRequest, Scores, Sequence,
};
use commons_record::seed::Seed32;
use commons_schedule::{Batch, Drafting, Refusal, RefuseCode, Scheduler, SequenceId};
use futures::StreamExt;
use futures::channel::{mpsc, oneshot};

use crate::cache::KvFormat;
use crate::model::Model;
use crate::place::{Device, Placement};
use crate::room::{Room, RoomError};
use crate::team::Team;
use ask::Checked;
use driver::Driver;
use guesser::{Draft, DraftError, DraftLoad, Guesser};
use sequence::{Answering, Embedding, Running, Scoring, Task};

/// Events that wait for the caller. A caller that is a second behind on a fast model is not slow.
const EVENTS_MAX: usize = 64;

/// What callers read after a panic. The panic itself is in the log.
const CRASHED: &str = "the model crashed while computing and is out of service; load it again";

/// How a model is computed, and for how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Sequences that are computed at once, a row of every batch each.
    pub slots: usize,
    /// Sequences that wait; more are refused.
    pub queue_len_max: usize,
    /// Threads that compute this model.
    pub threads: usize,
    /// What they compute with.
    pub isa: Isa,
    /// Where models are loaded to; a model that is loaded stays where it is.
    pub device: Device,
    /// Positions of a sequence at most; less where the model has less, or the memory.
    pub context_len_max: usize,
    /// How keys and values are stored.
    pub kv_format: KvFormat,
    /// Bytes that keys and values may take; none means half of what is free.
    pub kv_size_max: Option<u64>,
    /// Whether prefixes of prompts are kept for the next one of the same caller.
    pub caches_prefixes: bool,
    /// Guessed tokens in a row that are checked in one step; 0 guesses nothing.
    pub draft_len_max: usize,
}

impl Default for WorkerConfig {
    /// Sixteen rows share what a batch costs on any machine; four times as many wait. One core is
    /// left to the machine's owner.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            slots: 16,
            queue_len_max: 64,
            threads: cores.saturating_sub(1).max(1),
            isa: Isa::best(),
            device: Device::Auto,
            context_len_max: 32_768,
            kv_format: KvFormat::F16,
            kv_size_max: None,
            caches_prefixes: true,
            draft_len_max: 8,
        }
    }
}

/// Why a loaded model is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum SpawnError {
    #[error("there is no room for what the model keeps in mind")]
    Room(#[from] RoomError),

    #[error("the smaller model cannot guess for it")]
    Draft(#[from] DraftError),

    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
}

/// A loaded model and its thread. Dropping it fails what still runs and frees the model.
#[derive(Debug)]
pub struct Worker {
    facts: LoadedModel,
    model: Arc<Model>,
    desk: Arc<Desk>,
    context_len: usize,
    drafting: Drafting,
    /// Pages of the model that guesses: how many, and how many in use.
    draft_pages: Option<(usize, Arc<AtomicUsize>)>,
    slots: usize,
    next_id: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

/// Where callers and the thread meet.
#[derive(Debug)]
struct Desk {
    inbox: Mutex<Inbox>,
    bell: Condvar,
    scheduler: Mutex<Scheduler>,
    /// Nanoseconds that the model was computed.
    computed_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct Inbox {
    arrived: Vec<Running>,
    /// Something changed that the thread has not seen: a sequence, a seed, a read event.
    is_rung: bool,
    is_closed: bool,
    /// Why the model no longer computes.
    failure: Option<String>,
}

/// What a caller can tell a sequence at any time.
#[derive(Debug, Default)]
struct Wishes {
    seed: OnceLock<Seed32>,
    is_cancelled: AtomicBool,
}

impl Desk {
    fn new(scheduler: Scheduler) -> Self {
        Self {
            inbox: Mutex::default(),
            bell: Condvar::new(),
            scheduler: Mutex::new(scheduler),
            computed_ns: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // The inbox holds no invariant that a panic could break half-way.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scheduler. Never held while anything is computed.
    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        // A panic of the thread ends the model; callers still ask how busy it is.
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        self.lock().is_rung = true;
        self.bell.notify_one();
    }

    /// Sleeps until something changed.
    fn sleep(&self) {
        let inbox = self.lock();
        drop(self.bell.wait_while(inbox, |inbox| !inbox.is_rung && !inbox.is_closed));
    }
}

impl Worker {
    /// Starts the threads of a model, with room for its keys and values.
    pub fn spawn(model: Model, config: WorkerConfig) -> Result<Self, SpawnError> {
        Self::spawn_with(model, None, config)
    }

    /// As [`Self::spawn`], with a smaller model that guesses for it where nothing that was said
    /// before does. What is said is the same without it.
    pub fn spawn_with(
        model: Model,
        draft: Option<Draft>,
        config: WorkerConfig,
    ) -> Result<Self, SpawnError> {
        let room = Room::measure(model.transformer(), &config)?;
        let scheduler = Scheduler::new(room.schedule()).map_err(RoomError::from)?;
        let cache = model.transformer().cache(config.kv_format, room.page_count());
        let cache = cache.map_err(RoomError::from)?;
        let team = Team::new(config.threads, config.isa).map_err(SpawnError::Thread)?;
        let guesser = draft.map(|draft| Guesser::new(draft, &model, &room, &config)).transpose()?;
        let draft_pages = guesser.as_ref().map(|it| (it.page_count(), it.in_use()));
        let drafting = match &guesser {
            Some(_) => Drafting::Both,
            None if config.draft_len_max > 0 => Drafting::Ngram,
            None => Drafting::Off,
        };
        let facts = LoadedModel {
            context_len: u32::try_from(room.context_len()).unwrap_or(u32::MAX),
            ..model.facts().clone()
        };
        let (model, desk) = (Arc::new(model), Arc::new(Desk::new(scheduler)));
        let driver = Driver {
            model: Arc::clone(&model),
            desk: Arc::clone(&desk),
            team,
            cache,
            guesser,
            running: BTreeMap::new(),
            batch: Batch::default(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("engine {}", facts.name))
            .spawn(move || driver.run())
            .map_err(SpawnError::Thread)?;
        Ok(Self {
            facts,
            model,
            desk,
            context_len: room.context_len(),
            drafting,
            draft_pages,
            slots: config.slots,
            next_id: AtomicU64::new(0),
            thread: Some(thread),
        })
    }

    /// What there is to know about the model.
    pub fn facts(&self) -> &LoadedModel {
        &self.facts
    }

    /// Where the model is computed, and why there.
    pub fn placement(&self) -> &Placement {
        self.model.placement()
    }

    /// How busy it is. A model that crashed computes nothing, and could not.
    pub fn load(&self) -> EngineLoad {
        if self.desk.lock().failure.is_some() {
            return EngineLoad::default();
        }
        let stats = self.desk.scheduler().stats();
        let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        EngineLoad {
            running: count(stats.running),
            queued: count(stats.waiting),
            slots: count(self.slots),
        }
    }

    /// How much the model that guesses keeps in mind; none where there is no such model.
    pub fn draft_load(&self) -> Option<DraftLoad> {
        let (pages, in_use) = self.draft_pages.as_ref()?;
        Some(DraftLoad { pages: *pages, pages_in_use: in_use.load(Ordering::Relaxed) })
    }

    /// What the scheduler did so far: for measurements.
    pub fn stats(&self) -> commons_schedule::Stats {
        self.desk.scheduler().stats()
    }

    /// How long the model itself was computed so far, without what decides, draws and says: for
    /// measurements.
    pub fn computed(&self) -> Duration {
        Duration::from_nanos(self.desk.computed_ns.load(Ordering::Relaxed))
    }

    /// Starts a sequence, or refuses at once. Renders and encodes the prompt on the caller's thread.
    pub fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
        let checked = ask::check_answer(&self.model, &request, self.context_len)?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let wishes = Arc::new(Wishes::default());
        if let Some(seed) = request.seed {
            let _ = wishes.seed.set(seed);
        }
        let caller = request.caller;
        let task = Answering::new(request, checked.prompt.clone(), sender);
        self.admit(&caller, checked, &wishes, Task::Answer(Box::new(task)))?;
        Ok(Box::new(Handle { desk: Arc::clone(&self.desk), wishes, events }))
    }

    /// Judges a text.
    pub fn score(
        &self,
        request: &ScoreRequest,
    ) -> Result<BoxFuture<'static, Result<Scores, EngineRefusal>>, EngineRefusal> {
        let (checked, sampler) = ask::check_score(&self.model, request, self.context_len)?;
        let (sender, receiver) = oneshot::channel();
        let task = Scoring::new(request, checked.prompt.clone(), sampler, sender);
        self.admit(&request.caller, checked, &revealed(), Task::Score(Box::new(task)))?;
        Ok(self.answer(receiver))
    }

    /// Turns a text into a vector.
    pub fn embed(
        &self,
        request: &EmbedRequest,
    ) -> Result<BoxFuture<'static, Result<EmbeddingVector, EngineRefusal>>, EngineRefusal> {
        let (checked, pooling) = ask::check_embed(&self.model, request, self.context_len)?;
        let (sender, receiver) = oneshot::channel();
        let task = Embedding::new(pooling, checked.prompt.len(), sender);
        self.admit(&request.caller, checked, &revealed(), Task::Embed(Box::new(task)))?;
        Ok(self.answer(receiver))
    }

    /// Hands a checked request to the scheduler, and its task to the thread.
    fn admit(
        &self,
        caller: &Caller,
        checked: Checked,
        wishes: &Arc<Wishes>,
        task: Task,
    ) -> Result<(), EngineRefusal> {
        let id = SequenceId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let positions_max = checked.positions_max;
        let is_revealed = wishes.seed.get().is_some();
        let ask = ask::ask(id, &self.model, caller, checked);
        let ask = commons_schedule::Ask { drafting: self.drafting, is_revealed, ..ask };
        let mut inbox = self.desk.lock();
        if let Some(failure) = &inbox.failure {
            return Err(failed(failure.clone()));
        }
        // The thread takes both locks one after the other, never this way round and that.
        let admitted = self.desk.scheduler().arrive(ask);
        admitted.map_err(|refusal| self.refuse(refusal))?;
        inbox.arrived.push(Running::new(id, Arc::clone(wishes), task, positions_max));
        drop(inbox);
        self.desk.ring();
        Ok(())
    }

    fn refuse(&self, refusal: Refusal) -> EngineRefusal {
        let code = match refusal.code() {
            RefuseCode::Invalid => EngineRefusalCode::InvalidPrompt,
            RefuseCode::TooLong => EngineRefusalCode::TooLong,
            RefuseCode::Busy => EngineRefusalCode::Overloaded,
        };
        EngineRefusal { code, message: format!("{}: {refusal}", self.facts.name) }
    }

    fn answer<T: Send + 'static>(
        &self,
        receiver: oneshot::Receiver<Result<T, EngineRefusal>>,
    ) -> BoxFuture<'static, Result<T, EngineRefusal>> {
        let waiting = Waiting { desk: Arc::clone(&self.desk) };
        Box::pin(async move {
            let answer = receiver.await;
            drop(waiting);
            answer.unwrap_or_else(|_| Err(failed(CRASHED.to_owned())))
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.desk.lock().is_closed = true;
        self.desk.ring();
        if let Some(thread) = self.thread.take() {
            // It ends after the step it is in. A panic in it was reported as an event.
            let _ = thread.join();
        }
    }
}

/// Nothing is drawn, so no seed is waited for.
fn revealed() -> Arc<Wishes> {
    let wishes = Wishes::default();
    let _ = wishes.seed.set([0; 32]);
    Arc::new(wishes)
}

/// Rings when a caller stops waiting for a text, so that the thread looks whom it computes for.
struct Waiting {
    desk: Arc<Desk>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.desk.ring();
    }
}

/// The caller's end of a sequence.
#[derive(Debug)]
struct Handle {
    desk: Arc<Desk>,
    wishes: Arc<Wishes>,
    events: mpsc::Receiver<EngineEvent>,
}

impl Sequence for Handle {
    fn reveal(&mut self, seed: Seed32) {
        let _ = self.wishes.seed.set(seed);
        self.desk.ring();
    }

    fn next(&mut self) -> BoxFuture<'_, Option<EngineEvent>> {
        Box::pin(async {
            let event = self.events.next().await;
            // There is room for one more: the sequence may have been waiting for it.
            self.desk.ring();
            event
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.wishes.is_cancelled.store(true, Ordering::Relaxed);
        self.desk.ring();
    }
}

fn failed(message: String) -> EngineRefusal {
    EngineRefusal { code: EngineRefusalCode::Failed, message }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the meter: how long computing took, never a decision"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;

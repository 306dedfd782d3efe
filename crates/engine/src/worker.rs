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
//! requests (`worker/ask.rs`), adapters in memory (`worker/paging.rs`), text and stop strings
//! (`worker/text.rs`).

mod ask;
mod driver;
pub mod guesser;
mod paging;
mod sequence;
mod text;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use commons_kernels::Isa;
use commons_port::BoxFuture;
use commons_port::engine::{
    AddAdapter, Caller, EmbedRequest, EmbeddingVector, EngineEvent, EngineLoad, EngineRefusal,
    EngineRefusalCode, EngineRequest, LoadedAdapter, LoadedModel, Priority, ScoreRequest, Scores,
    Sequence,
};
use commons_record::Hash;
use commons_record::seed::Seed32;
use commons_schedule::{
    AdapterConfigError, AdapterStats, Batch, Drafting, Refusal, RefuseCode, Scheduler, SequenceId,
};
use futures::StreamExt;
use futures::channel::{mpsc, oneshot};

use crate::adapter::{Registered, Storage};
use crate::cache::KvFormat;
use crate::grammar::MaskThread;
use crate::model::{Model, class_with};
use crate::place::{Device, Placement};
use crate::room::{Room, RoomError};
use crate::team::Team;
use ask::{Checked, Shape};
use driver::Driver;
use guesser::{Draft, DraftError, DraftLoad, Guesser};
use paging::{ERRANDS_MAX, Errand, Paging};
use sequence::{Answering, Embedding, Judge, Running, Scoring, Task};

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
    /// Threads more that compute while everything in a batch is asked by the machine's owner.
    pub threads_for_owner: usize,
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
    /// Bytes that adapters may take in memory; none means an eighth of what is free.
    pub adapter_size_max: Option<u64>,
    /// Whether prefixes of prompts are kept for the next one of the same caller.
    pub caches_prefixes: bool,
    /// Guessed tokens in a row that are checked in one step; 0 guesses nothing.
    pub draft_len_max: usize,
}

impl Default for WorkerConfig {
    /// Sixteen rows share what a batch costs on any machine; four times as many wait. One core is
    /// left to the machine's owner, who has all of them for work of the owner's alone.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            slots: 16,
            queue_len_max: 64,
            threads: cores.saturating_sub(1).max(1),
            threads_for_owner: usize::from(cores > 1),
            isa: Isa::best(),
            device: Device::Auto,
            context_len_max: 32_768,
            kv_format: KvFormat::F16,
            kv_size_max: None,
            adapter_size_max: None,
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

    #[error("the limits of adapters do not go together")]
    Adapters(#[from] AdapterConfigError),

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
    /// Reads adapters.
    loader: Option<(SyncSender<Errand>, JoinHandle<()>)>,
    /// Ends behind the thread, with the last answer that has a grammar.
    masks: MaskThread,
}

/// Where callers and the thread meet.
#[derive(Debug)]
struct Desk {
    inbox: Mutex<Inbox>,
    bell: Condvar,
    scheduler: Mutex<Scheduler>,
    /// Taken behind the other two.
    paging: Mutex<Paging>,
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

/// For whom a sequence is computed, and with what.
struct Who {
    caller: Caller,
    adapter: Option<Arc<Registered>>,
    wishes: Arc<Wishes>,
}

/// What a caller can tell a sequence at any time.
#[derive(Debug, Default)]
struct Wishes {
    seed: OnceLock<Seed32>,
    is_cancelled: AtomicBool,
}

impl Desk {
    fn new(scheduler: Scheduler, paging: Paging) -> Self {
        Self {
            inbox: Mutex::default(),
            bell: Condvar::new(),
            scheduler: Mutex::new(scheduler),
            paging: Mutex::new(paging),
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

    /// The adapters. Never held while one is read.
    fn paging(&self) -> MutexGuard<'_, Paging> {
        self.paging.lock().unwrap_or_else(PoisonError::into_inner)
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
        let team = Team::new(config.threads + config.threads_for_owner, config.isa)
            .map_err(SpawnError::Thread)?;
        let guesser = draft.map(|draft| Guesser::new(draft, &model, &room, &config)).transpose()?;
        let draft_pages = guesser.as_ref().map(|it| (it.page_count(), it.in_use()));
        let drafting = match &guesser {
            Some(_) => Drafting::Both,
            None if config.draft_len_max > 0 => Drafting::Ngram,
            None => Drafting::Off,
        };
        let facts = LoadedModel {
            context_len: u32::try_from(room.context_len()).unwrap_or(u32::MAX),
            class: class_with(&model.facts().class, config.kv_format),
            ..model.facts().clone()
        };
        let masks = MaskThread::spawn(&facts.name).map_err(SpawnError::Thread)?;
        let (errands, errand) = std::sync::mpsc::sync_channel(ERRANDS_MAX);
        let paging = Paging::new(Room::adapters(&config), errands.clone())?;
        let (model, desk) = (Arc::new(model), Arc::new(Desk::new(scheduler, paging)));
        let driver = Driver {
            model: Arc::clone(&model),
            desk: Arc::clone(&desk),
            team,
            cache,
            guesser,
            running: BTreeMap::new(),
            batch: Batch::default(),
            threads: (config.threads, config.threads_for_owner),
        };
        let thread = std::thread::Builder::new()
            .name(format!("engine {}", facts.name))
            .spawn(move || driver.run())
            .map_err(SpawnError::Thread)?;
        let (its_model, its_desk) = (Arc::clone(&model), Arc::downgrade(&desk));
        let loader = std::thread::Builder::new()
            .name(format!("adapters {}", facts.name))
            .spawn(move || paging::load(&its_model, &its_desk, &errand))
            .map_err(SpawnError::Thread)?;
        Ok(Self {
            loader: Some((errands, loader)),
            facts,
            model,
            desk,
            context_len: room.context_len(),
            drafting,
            draft_pages,
            slots: config.slots,
            next_id: AtomicU64::new(0),
            thread: Some(thread),
            masks,
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
            queued: count(stats.waiting + self.desk.paging().waiting_len()),
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

    /// Which adapters are in memory, and how often one was read: for measurements.
    pub fn adapter_stats(&self) -> AdapterStats {
        self.desk.paging().stats()
    }

    /// The adapters that are registered for the model.
    pub fn adapters(&self) -> Vec<LoadedAdapter> {
        self.model.adapters().list()
    }

    /// An adapter that is registered for the model.
    pub fn adapter(&self, adapter: &Hash) -> Option<LoadedAdapter> {
        self.model.adapters().find(adapter).map(|it| it.facts().clone())
    }

    /// Reads an adapter, checks it and registers it: it takes as long as reading the file.
    pub fn add_adapter(&self, add: AddAdapter) -> Result<LoadedAdapter, EngineRefusal> {
        let refuse = |message| EngineRefusal { code: EngineRefusalCode::InvalidAdapter, message };
        if !self.model.transformer().adapts() {
            let message = format!(
                "{} is computed on {}, where adapters are not; load it with `--device cpu`",
                self.facts.name,
                self.placement()
            );
            return Err(EngineRefusal { code: EngineRefusalCode::Unsupported, message });
        }
        let storage = if add.is_rounded { Storage::Rounded } else { Storage::AsFile };
        let added = self.model.adapters().add(add.path, add.name, storage);
        let added = added.map_err(|error| refuse(ask::chain(&error)))?;
        Ok(added.facts().clone())
    }

    /// Whether an adapter fits the model, or why not: reads all of it.
    pub fn check_adapter(&self, path: &Path) -> Result<(), String> {
        self.model.adapters().check(path).map_err(|error| ask::chain(&error))
    }

    /// Forgets an adapter: nothing new begins with it. False if there is none of that hash.
    pub fn remove_adapter(&self, adapter: &Hash) -> bool {
        self.model.adapters().remove(adapter)
    }

    /// How long the model itself was computed so far, without what decides, draws and says: for
    /// measurements.
    pub fn computed(&self) -> Duration {
        Duration::from_nanos(self.desk.computed_ns.load(Ordering::Relaxed))
    }

    /// Starts a sequence, or refuses at once. Renders and encodes the prompt on the caller's thread.
    pub fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
        let adapter = ask::find_adapter(&self.model, request.adapter.as_ref())?;
        let mut checked = ask::check_answer(&self.model, &request, self.context_len)?;
        let shape = self.shape(&mut checked);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let wishes = Arc::new(Wishes::default());
        if let Some(seed) = request.seed {
            let _ = wishes.seed.set(seed);
        }
        let caller = request.caller;
        let task = Answering::new(request, checked.prompt.clone(), shape, sender);
        let who = Who { caller, adapter, wishes: Arc::clone(&wishes) };
        self.admit(who, checked, Task::Answer(Box::new(task)))?;
        Ok(Box::new(Handle { desk: Arc::clone(&self.desk), wishes, events }))
    }

    /// Judges a text.
    pub fn score(
        &self,
        request: &ScoreRequest,
    ) -> Result<BoxFuture<'static, Result<Scores, EngineRefusal>>, EngineRefusal> {
        let adapter = ask::find_adapter(&self.model, request.adapter.as_ref())?;
        let (mut checked, sampler) = ask::check_score(&self.model, request, self.context_len)?;
        let guide = self.shape(&mut checked).guide;
        let (sender, receiver) = oneshot::channel();
        let judge = Judge::new(sampler, guide);
        let task = Scoring::new(request, checked.prompt.clone(), judge, sender);
        let who = Who { caller: request.caller, adapter, wishes: revealed() };
        self.admit(who, checked, Task::Score(Box::new(task)))?;
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
        let who = Who { caller: request.caller, adapter: None, wishes: revealed() };
        self.admit(who, checked, Task::Embed(Box::new(task)))?;
        Ok(self.answer(receiver))
    }

    /// Takes what an answer is held to, with its masks computed beside the forward pass.
    fn shape(&self, checked: &mut Checked) -> Shape {
        let Shape { guide, calls } = std::mem::take(&mut checked.shape);
        Shape { guide: guide.map(|guide| guide.beside(&self.masks)), calls }
    }

    /// Hands a checked request to the scheduler, or to those who wait for an adapter, and its task
    /// to the thread.
    fn admit(&self, who: Who, checked: Checked, task: Task) -> Result<(), EngineRefusal> {
        let Who { caller, adapter, wishes } = who;
        let id = SequenceId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let positions_max = checked.positions_max;
        let is_revealed = wishes.seed.get().is_some();
        // A guess would be checked against a mask that is known only once it is right.
        let drafting = if task.is_guided() { Drafting::Off } else { self.drafting };
        let ask = ask::ask(id, (&self.model, adapter.as_deref()), &caller, checked);
        let ask = commons_schedule::Ask { drafting, is_revealed, ..ask };
        let mut inbox = self.desk.lock();
        if let Some(failure) = &inbox.failure {
            return Err(failed(failure.clone()));
        }
        // The thread takes both locks one after the other, never this way round and that.
        let mut scheduler = self.desk.scheduler();
        match adapter {
            None => scheduler.arrive(ask).map_err(|refusal| self.refuse(refusal))?,
            Some(adapter) => {
                scheduler.check(&ask).map_err(|refusal| self.refuse(refusal))?;
                let wanted = self.desk.paging().want(ask, &adapter);
                wanted.map_err(|error| {
                    let message = format!("{}: {error}", self.facts.name);
                    EngineRefusal { code: error.code(), message }
                })?;
            }
        }
        drop(scheduler);
        let mut running = Running::new(id, wishes, task, positions_max);
        running.is_owners = caller.priority == Priority::Owner;
        inbox.arrived.push(running);
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
        if let Some((errands, thread)) = self.loader.take() {
            let _ = errands.send(Errand::End);
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

//! One loaded model and the thread that computes it.
//!
//! ```text
//! caller: Worker::start -> waiting -> (a slot is free) -> running -> events -> caller
//! thread: loop { admit; step every running sequence once; sleep when none can go on }
//! ```
//!
//! Steps are taken in turn, one chunk of a prompt or one token each, so a long prompt does not
//! stop the answers of others. Nothing here is asynchronous but the receiving end of the events.
//!
//! # Invariants
//!
//! * Waiting and running sequences and unread events are bounded; a full queue refuses at once.
//! * A caller that does not read stalls its own sequence only.
//! * A panic fails every sequence of the model with an event, and the model from then on.
//!
//! Not here: one step of one sequence (`worker/running.rs`), text and stop strings (`worker/answer.rs`).

mod answer;
mod running;

use std::collections::VecDeque;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use commons_port::BoxFuture;
use commons_port::engine::{
    EngineEvent, EngineLoad, EngineRefusal, EngineRefusalCode, EngineRequest, LoadedModel, Sequence,
};
use commons_record::seed::Seed32;
use futures::StreamExt;
use futures::channel::mpsc;

use crate::model::Model;
use running::{Progress, Running};

/// Events that wait for the caller. A caller that is a second behind on a fast model is not slow.
const EVENTS_MAX: usize = 64;

/// What callers read after a panic. The panic itself is in the log.
const CRASHED: &str = "the model crashed while computing and is out of service; load it again";

/// How many sequences a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Sequences that are computed in turn. Each holds its own keys and values.
    pub slots: usize,
    /// Sequences that wait for a slot; more are refused.
    pub queue_len_max: usize,
    /// Threads that compute this model. Products with large quantised matrices use candle's pool
    /// besides, which is one for the process: see the crate's page.
    pub threads: usize,
}

impl Default for WorkerConfig {
    /// Four in turn keep each at a readable pace on two cores; sixteen wait under a minute. One
    /// core is left to the machine's owner.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { slots: 4, queue_len_max: 16, threads: cores.saturating_sub(1).max(1) }
    }
}

/// A loaded model and its thread. Dropping it fails what still runs and frees the model.
#[derive(Debug)]
pub struct Worker {
    facts: LoadedModel,
    model: Arc<Model>,
    desk: Arc<Desk>,
    config: WorkerConfig,
    thread: Option<JoinHandle<()>>,
}

/// Where callers and the thread meet.
#[derive(Debug, Default)]
struct Desk {
    inbox: Mutex<Inbox>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Inbox {
    waiting: VecDeque<Running>,
    running: usize,
    /// Something changed that the thread has not seen: a seed, a cancellation, a read event.
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
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // The inbox holds no invariant that a panic could break half-way.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        self.lock().is_rung = true;
        self.bell.notify_one();
    }
}

impl Worker {
    /// Starts the thread of a model.
    pub fn spawn(model: Model, config: WorkerConfig) -> std::io::Result<Self> {
        let (model, desk) = (Arc::new(model), Arc::new(Desk::default()));
        let facts = model.facts().clone();
        // candle's small operations are split by the rayon pool they run in. Outside of one they
        // wake threads of the global pool for every norm of every layer.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(config.threads.max(1));
        let pool = pool.build().map_err(std::io::Error::other)?;
        let thread = {
            let (model, desk) = (Arc::clone(&model), Arc::clone(&desk));
            let slots = config.slots.max(1);
            std::thread::Builder::new()
                .name(format!("engine {}", facts.name))
                .spawn(move || pool.install(|| run(&model, &desk, slots)))?
        };
        Ok(Self { facts, model, desk, config, thread: Some(thread) })
    }

    /// What there is to know about the model.
    pub fn facts(&self) -> &LoadedModel {
        &self.facts
    }

    /// How busy it is.
    pub fn load(&self) -> EngineLoad {
        let inbox = self.desk.lock();
        let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        EngineLoad {
            running: count(inbox.running),
            queued: count(inbox.waiting.len()),
            slots: count(self.config.slots.max(1)),
        }
    }

    /// Starts a sequence, or refuses at once. Renders and encodes the prompt on the caller's thread.
    pub fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
        self.refuse_if_busy(&self.desk.lock())?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let wishes = Arc::new(Wishes::default());
        if let Some(seed) = request.seed {
            let _ = wishes.seed.set(seed);
        }
        let running = Running::new(&self.model, request, Arc::clone(&wishes), sender)?;
        let mut inbox = self.desk.lock();
        self.refuse_if_busy(&inbox)?;
        inbox.waiting.push_back(running);
        drop(inbox);
        self.desk.ring();
        Ok(Box::new(Handle { desk: Arc::clone(&self.desk), wishes, events }))
    }

    fn refuse_if_busy(&self, inbox: &Inbox) -> Result<(), EngineRefusal> {
        if let Some(failure) = &inbox.failure {
            return Err(failed(failure.clone()));
        }
        let (waiting, limit) = (inbox.waiting.len(), self.config.queue_len_max.max(1));
        if waiting >= limit {
            let (code, name) = (EngineRefusalCode::Overloaded, &self.facts.name);
            let message = format!("{waiting} requests wait for {name} already; try again later");
            return Err(EngineRefusal { code, message });
        }
        Ok(())
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

/// The thread: admits, steps, sleeps, until the desk is closed or the model fails.
fn run(model: &Model, desk: &Desk, slots: usize) {
    let mut running: Vec<Running> = Vec::with_capacity(slots);
    loop {
        {
            let mut inbox = desk.lock();
            inbox.is_rung = false;
            if inbox.is_closed {
                running.extend(inbox.waiting.drain(..));
                drop(inbox);
                return fail_all(desk, running, "the model was unloaded");
            }
            while running.len() < slots
                && let Some(next) = inbox.waiting.pop_front()
            {
                running.push(next);
            }
            inbox.running = running.len();
        }
        let Some(has_worked) = turn(&mut running, |sequence| sequence.step(model)) else {
            tracing::error!(model = model.facts().name, "the model panicked: out of service");
            return fail_all(desk, running, CRASHED);
        };
        if !has_worked {
            let inbox = desk.lock();
            let bell = desk.bell.wait_while(inbox, |inbox| !inbox.is_rung && !inbox.is_closed);
            drop(bell);
        }
    }
}

/// Lets every sequence take its turn and keeps those that go on. Says whether any could do
/// something; `None` if one panicked.
fn turn(
    running: &mut Vec<Running>,
    mut step: impl FnMut(&mut Running) -> Progress,
) -> Option<bool> {
    let mut has_worked = false;
    let all = AssertUnwindSafe(|| {
        running.retain_mut(|sequence| {
            let progress = step(sequence);
            has_worked |= progress != Progress::Stalled;
            progress != Progress::Gone
        });
    });
    catch_unwind(all).ok()?;
    Some(has_worked)
}

fn fail_all(desk: &Desk, mut running: Vec<Running>, why: &str) {
    let mut inbox = desk.lock();
    inbox.failure = Some(why.to_owned());
    inbox.running = 0;
    running.extend(inbox.waiting.drain(..));
    drop(inbox);
    for sequence in running {
        sequence.fail(failed(why.to_owned()));
    }
}

fn failed(message: String) -> EngineRefusal {
    EngineRefusal { code: EngineRefusalCode::Failed, message }
}

#[cfg(test)]
mod tests;

//! An engine that is a child process of this node, and comes back when it ends.
//!
//! ```text
//! callers -> Supervisor (port::Engine) -> calls -> frames -> child
//!                 |                         ^                  |
//!                 | models, adapters        +---- frames <-----+
//!                 v
//!              actor: policy says when to start, what to load, what to give up
//! ```
//!
//! While the process is away its models stay listed, a request is refused with
//! [`EngineRefusalCode::Unavailable`], and what was under way has failed with the same. Models and
//! adapters that were loaded are loaded again by themselves.
//!
//! # Invariants
//!
//! * Everything that comes from the process is bounded and checked (`calls.rs`): it may have been
//!   taken over by what it reads. One that says what no engine says is killed.
//! * The end of the process is the end of every call: nothing hangs, and nothing is carried over.
//! * A model that comes back under another hash is not the model that was promised.
//! * A caller that does not read stalls its own sequence only.
//!
//! * `policy`: when, as a pure machine; `actor`: the shell around it;
//! * `session`: one process, from its start to its end; `calls`: what was asked of it.
//!
//! Not here: how a process is made and jailed (`sandbox`), and what it does (`engine`).

mod actor;
mod calls;
mod policy;
mod sequence;
mod session;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use commons_port::BoxFuture;
use commons_port::engine::{
    AddAdapter, EmbedRequest, EmbeddingVector, Engine, EngineLoad, EngineRefusal,
    EngineRefusalCode, EngineRequest, LoadedAdapter, LoadedModel, ScoreRequest, Scores, Sequence,
};
use commons_port::process::{AddModel, AddedModel, Answer, Ask, Jail, Spawner};
use commons_port::time::{Clock, Spawn, TaskHandle};
use commons_record::Hash;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::tasks::lock;
use calls::{Calls, refuse};
use sequence::Remote;

/// Things to load or to forget that wait for the actor.
const NOTES_MAX: usize = 64;

/// What a supervisor is built on.
#[derive(Clone)]
pub struct SupervisorPorts {
    /// Makes processes.
    pub spawner: Arc<dyn Spawner>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Tasks.
    pub spawn: Arc<dyn Spawn>,
}

impl std::fmt::Debug for SupervisorPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SupervisorPorts")
    }
}

/// How the process stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// Nothing was loaded yet: there is none.
    Idle,
    /// It is being started.
    Starting,
    /// It is at work.
    Up {
        /// The system's number for it.
        process: u32,
        /// How it is jailed, as it measured.
        jail: Box<Jail>,
    },
    /// It ended, and will be started again.
    Away {
        /// How it ended.
        reason: String,
    },
    /// It was ended, and stays so.
    Stopped,
}

/// The node's side of an engine process. Dropping it kills the process.
pub struct Supervisor {
    shared: Arc<Shared>,
    notes: mpsc::Sender<Note>,
    _actor: TaskHandle,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("state", &*self.shared.state.borrow())
            .finish_non_exhaustive()
    }
}

/// What callers, the actor and the session share.
struct Shared {
    clock: Arc<dyn Clock>,
    calls: Mutex<Calls>,
    listed: Mutex<Listed>,
    /// Rings when there is something to write.
    bell: Notify,
    stop: watch::Sender<bool>,
    state: watch::Sender<EngineState>,
}

/// What the engine has, as far as it told.
#[derive(Debug, Default)]
struct Listed {
    models: Vec<Listing>,
    adapters: Vec<LoadedAdapter>,
}

/// A model that was loaded once.
#[derive(Debug, Clone)]
struct Listing {
    added: AddedModel,
    /// Whether the process of the moment has it.
    is_loaded: bool,
    /// Why it will not be loaded again.
    gone: Option<String>,
    slots: u32,
}

/// What the actor is told.
enum Note {
    /// Load it, now and after each start.
    Want { what: Wanted, reply: oneshot::Sender<Result<Box<Answer>, EngineRefusal>> },
    /// Load it no more.
    ForgetModel(Hash),
    /// Load it no more.
    ForgetAdapter { model: Hash, adapter: Hash },
}

/// Something to load.
#[derive(Debug, Clone)]
enum Wanted {
    Model(AddModel),
    Adapter(AddAdapter),
}

impl Wanted {
    fn ask(&self) -> Ask {
        match self {
            Self::Model(model) => Ask::Add(model.clone()),
            Self::Adapter(adapter) => Ask::AddAdapter(adapter.clone()),
        }
    }
}

impl Supervisor {
    /// Keeps a process from the first model on, which may read the paths of `readable` and no
    /// other.
    pub fn start(ports: SupervisorPorts, readable: Vec<PathBuf>) -> Arc<Self> {
        let shared = Arc::new(Shared {
            clock: ports.clock,
            calls: Mutex::default(),
            listed: Mutex::default(),
            bell: Notify::new(),
            stop: watch::Sender::new(false),
            state: watch::Sender::new(EngineState::Idle),
        });
        let (notes, inbox) = mpsc::channel(NOTES_MAX);
        let actor = actor::Actor::new(Arc::clone(&shared), ports.spawner, readable);
        let actor = ports.spawn.spawn("engine process", Box::pin(actor.run(inbox)));
        Arc::new(Self { shared, notes, _actor: actor })
    }

    /// Loads a model, once the process is there, and after each of its starts.
    pub async fn add(&self, model: AddModel) -> Result<AddedModel, EngineRefusal> {
        match *self.want(Wanted::Model(model)).await? {
            Answer::Added(added) => Ok(added),
            _ => Err(calls::nonsense()),
        }
    }

    /// Unloads a model. False if there is none of that hash.
    pub fn remove(&self, model: &Hash) -> bool {
        let mut listed = lock(&self.shared.listed);
        let count = listed.models.len();
        listed.models.retain(|it| it.added.facts.model != *model);
        listed.adapters.retain(|it| it.model != *model);
        let was_there = listed.models.len() < count;
        drop(listed);
        if was_there && self.notes.try_send(Note::ForgetModel(*model)).is_ok() {
            // What comes of it changes nothing here.
            drop(self.shared.ask(Ask::Remove { model: *model }));
        }
        was_there
    }

    /// Where a model is computed, and why there, in words.
    pub fn placement(&self, model: &Hash) -> Option<String> {
        Some(self.shared.listing(model)?.added.placement)
    }

    /// How the process stands.
    pub fn state(&self) -> EngineState {
        self.shared.state.borrow().clone()
    }

    /// Completes when the process stands otherwise than `seen`, with how.
    pub async fn changed(&self, seen: &EngineState) -> EngineState {
        let mut state = self.shared.state.subscribe();
        match state.wait_for(|it| it != seen).await {
            Ok(state) => state.clone(),
            // The sender lives as long as this.
            Err(_) => seen.clone(),
        }
    }

    /// Ends the process in order: it is told, waited for a little, and killed. Nothing is started
    /// after it.
    pub async fn shutdown(&self) {
        self.shared.stop.send_replace(true);
        let mut state = self.shared.state.subscribe();
        // A sender that is gone means that the actor is as well.
        let _ = state.wait_for(|it| *it == EngineState::Stopped).await;
    }

    async fn want(&self, what: Wanted) -> Result<Box<Answer>, EngineRefusal> {
        let (reply, answer) = oneshot::channel();
        let stopped = || refuse(EngineRefusalCode::Unavailable, STOPPED);
        self.notes.send(Note::Want { what, reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

const STOPPED: &str = "the engine process was ended: the node is shutting down";

impl Shared {
    fn listing(&self, model: &Hash) -> Option<Listing> {
        lock(&self.listed).models.iter().find(|it| it.added.facts.model == *model).cloned()
    }

    /// Refuses what cannot be asked now, with what to do.
    fn check(&self, model: &Hash) -> Result<LoadedModel, EngineRefusal> {
        let unavailable = |message: String| refuse(EngineRefusalCode::Unavailable, &message);
        let Some(listing) = self.listing(model) else {
            let message = format!("model {model} is not loaded here");
            return Err(refuse(EngineRefusalCode::UnknownModel, &message));
        };
        let name = &listing.added.facts.name;
        if let Some(reason) = listing.gone {
            return Err(unavailable(format!(
                "{name} is out of service: {reason}; start the node again without it, or ask \
                 another node"
            )));
        }
        match &*self.state.borrow() {
            EngineState::Up { .. } if listing.is_loaded => Ok(listing.added.facts),
            EngineState::Idle | EngineState::Up { .. } | EngineState::Starting => {
                Err(unavailable(format!("{name} is being loaded; try again in a moment")))
            }
            EngineState::Away { reason } => Err(unavailable(format!(
                "the engine process {reason} and is being started again; try again in a moment"
            ))),
            EngineState::Stopped => Err(unavailable(STOPPED.to_owned())),
        }
    }

    /// Asks a question. Dropping the future cancels it.
    fn ask(self: &Arc<Self>, ask: Ask) -> BoxFuture<'static, Result<Box<Answer>, EngineRefusal>> {
        let asked = lock(&self.calls).ask(ask);
        self.bell.notify_one();
        let shared = Arc::clone(self);
        Box::pin(async move {
            let (id, answer) = asked?;
            let asking = Asking { shared: &shared, id };
            let answer = answer.await.unwrap_or_else(|_| Err(calls::nonsense()));
            std::mem::forget(asking);
            answer
        })
    }
}

/// Cancels a question whose answer nobody waits for any more.
struct Asking<'a> {
    shared: &'a Shared,
    id: commons_port::process::CallId,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        lock(&self.shared.calls).cancel(self.id);
        self.shared.bell.notify_one();
    }
}

impl Engine for Supervisor {
    fn models(&self) -> Vec<LoadedModel> {
        lock(&self.shared.listed).models.iter().map(|it| it.added.facts.clone()).collect()
    }

    /// By what was asked of it: nobody else asks it.
    fn load(&self, model: &Hash) -> Option<EngineLoad> {
        let slots = self.shared.listing(model)?.slots;
        let open = lock(&self.shared.calls).open(model);
        let running = open.min(slots);
        Some(EngineLoad { running, queued: open - running, slots })
    }

    fn adapters(&self) -> Vec<LoadedAdapter> {
        lock(&self.shared.listed).adapters.clone()
    }

    fn add_adapter(&self, add: AddAdapter) -> BoxFuture<'_, Result<LoadedAdapter, EngineRefusal>> {
        Box::pin(async {
            match *self.want(Wanted::Adapter(add)).await? {
                Answer::Adapter(adapter) => Ok(adapter),
                _ => Err(calls::nonsense()),
            }
        })
    }

    fn remove_adapter(&self, model: Hash, adapter: Hash) -> Result<(), EngineRefusal> {
        let is_it = |it: &LoadedAdapter| it.model == model && it.adapter == adapter;
        let mut listed = lock(&self.shared.listed);
        if !listed.adapters.iter().any(is_it) {
            let message = format!("adapter {adapter} of model {model} is not loaded");
            return Err(refuse(EngineRefusalCode::UnknownAdapter, &message));
        }
        if self.notes.try_send(Note::ForgetAdapter { model, adapter }).is_err() {
            let message = "too much is being loaded and forgotten; try again in a moment";
            return Err(refuse(EngineRefusalCode::Overloaded, message));
        }
        listed.adapters.retain(|it| !is_it(it));
        drop(listed);
        drop(self.shared.ask(Ask::RemoveAdapter { model, adapter }));
        Ok(())
    }

    fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
        self.shared.check(&request.model)?;
        let (sequence, _started) = Remote::start(&self.shared, request)?;
        Ok(Box::new(sequence))
    }

    fn begin(
        &self,
        request: EngineRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Sequence>, EngineRefusal>> {
        Box::pin(async {
            self.shared.check(&request.model)?;
            let (sequence, started) = Remote::start(&self.shared, request)?;
            started.await.unwrap_or_else(|_| Err(calls::nonsense()))?;
            Ok(Box::new(sequence) as Box<dyn Sequence>)
        })
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, EngineRefusal>> {
        let asked = self.shared.check(&request.model).map(|_| self.shared.ask(Ask::Score(request)));
        Box::pin(async {
            match *asked?.await? {
                Answer::Scores(scores) => Ok(scores),
                _ => Err(calls::nonsense()),
            }
        })
    }

    fn embed(
        &self,
        request: EmbedRequest,
    ) -> BoxFuture<'_, Result<EmbeddingVector, EngineRefusal>> {
        let asked = self.shared.check(&request.model).map(|_| self.shared.ask(Ask::Embed(request)));
        Box::pin(async {
            match *asked?.await? {
                Answer::Vector(vector) => Ok(vector),
                _ => Err(calls::nonsense()),
            }
        })
    }
}

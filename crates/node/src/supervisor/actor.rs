//! The shell around the policy: starts processes, loads items, tells callers. Takes no decision.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use commons_port::BoxFuture;
use commons_port::engine::{EngineRefusal, EngineRefusalCode};
use commons_port::process::{AddedModel, Answer, Spawner};
use commons_record::Hash;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::calls::refuse;
use super::policy::{Input, ItemId, Output, Policy};
use super::session::{Session, greet};
use super::{EngineState, Listing, Note, STOPPED, Shared, Wanted};
use crate::tasks::lock;

/// What the process of the moment came to.
enum Turn {
    Greeted(Box<Session>),
    /// It is gone; how, as the end of a sentence about it.
    Ended(String),
}

type Loaded = (ItemId, Result<Box<Answer>, EngineRefusal>);

/// Something that shall be loaded after each start.
struct Item {
    what: Wanted,
    /// Who waits for the first time.
    reply: Option<oneshot::Sender<Result<Box<Answer>, EngineRefusal>>>,
    /// What it was when it was loaded first.
    first: Option<Answer>,
}

pub(super) struct Actor {
    shared: Arc<Shared>,
    spawner: Arc<dyn Spawner>,
    readable: Vec<PathBuf>,
    policy: Policy,
    items: BTreeMap<ItemId, Item>,
    last: u64,
    process: Option<BoxFuture<'static, Turn>>,
    loading: FuturesUnordered<BoxFuture<'static, Loaded>>,
    /// How the last process ended.
    reason: String,
}

impl Actor {
    pub(super) fn new(
        shared: Arc<Shared>,
        spawner: Arc<dyn Spawner>,
        readable: Vec<PathBuf>,
    ) -> Self {
        Self {
            shared,
            spawner,
            readable,
            policy: Policy::new(),
            items: BTreeMap::new(),
            last: 0,
            process: None,
            loading: FuturesUnordered::new(),
            reason: String::new(),
        }
    }

    /// Runs until the supervisor is shut down or dropped.
    pub(super) async fn run(mut self, mut notes: mpsc::Receiver<Note>) {
        let mut stop = self.shared.stop.subscribe();
        let mut input: Option<Input> = None;
        let mut is_stopping = false;
        loop {
            if let Some(input) = input.take() {
                let now = self.shared.clock.now();
                for output in self.policy.step(now, input) {
                    self.perform(output);
                }
            }
            if is_stopping && self.process.is_none() {
                break;
            }
            let timer = async {
                match self.policy.wake_at() {
                    Some(at) => self.shared.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let turn = async {
                match &mut self.process {
                    Some(process) => process.await,
                    None => std::future::pending().await,
                }
            };
            let loaded = async {
                match self.loading.next().await {
                    Some(loaded) => loaded,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(|it| *it), if !is_stopping => {
                    is_stopping = true;
                    input = Some(Input::Stop);
                }
                () = timer => input = Some(Input::TimerFired),
                turn = turn => input = Some(self.turned(turn)),
                loaded = loaded => input = self.loaded(loaded),
                Some(note) = notes.recv(), if !is_stopping => input = self.note(note),
            }
        }
        self.fail_all(STOPPED);
        self.shared.state.send_replace(EngineState::Stopped);
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Start => {
                self.shared.state.send_replace(EngineState::Starting);
                let spawning = self.spawner.spawn(self.readable.clone());
                let shared = Arc::clone(&self.shared);
                self.process = Some(Box::pin(async move {
                    match spawning.await {
                        Ok(spawned) => match greet(spawned, &shared).await {
                            Ok(session) => Turn::Greeted(Box::new(session)),
                            Err(reason) => Turn::Ended(reason),
                        },
                        Err(error) => Turn::Ended(format!("did not start: {}", error.detail)),
                    }
                }));
            }
            Output::Load(id) => {
                let Some(item) = self.items.get(&id) else { return };
                let asked = self.shared.ask(item.what.ask());
                self.loading.push(Box::pin(async move { (id, asked.await) }));
            }
            Output::GiveUp(id) => {
                let reason = format!(
                    "the engine process {} each time while it was being loaded",
                    self.reason
                );
                self.give_up(id, &refuse(EngineRefusalCode::Failed, &reason));
            }
            // The session hears the same wish, and ends the process in order.
            Output::End => {}
        }
    }

    fn turned(&mut self, turn: Turn) -> Input {
        self.process = None;
        match turn {
            Turn::Greeted(session) => {
                let (process, jail) = (session.process(), session.jail.clone());
                tracing::info!(process, %jail, "the engine process is up");
                lock(&self.shared.calls).resume();
                self.shared.state.send_replace(EngineState::Up { process, jail });
                let running = session.run(Arc::clone(&self.shared));
                self.process = Some(Box::pin(async move { Turn::Ended(running.await) }));
                Input::Hello
            }
            Turn::Ended(reason) => {
                if !*self.shared.stop.borrow() {
                    tracing::warn!("the engine process {reason}; it is started again");
                }
                self.reason.clone_from(&reason);
                for listing in &mut lock(&self.shared.listed).models {
                    listing.is_loaded = false;
                }
                self.shared.state.send_replace(EngineState::Away { reason: reason.clone() });
                self.fail_all(&format!(
                    "the engine process {reason} and is being started again; try again in a moment"
                ));
                Input::Ended
            }
        }
    }

    fn fail_all(&self, message: &str) {
        let refusal = refuse(EngineRefusalCode::Unavailable, message);
        lock(&self.shared.calls).fail_all(&refusal);
    }

    fn note(&mut self, note: Note) -> Option<Input> {
        let is_it =
            |item: &Item, want: &dyn Fn(&Answer) -> bool| item.first.as_ref().is_some_and(want);
        let find = |want: &dyn Fn(&Answer) -> bool| {
            self.items.iter().find(|(_, item)| is_it(item, want)).map(|(id, _)| *id)
        };
        let id = match note {
            Note::Want { what, reply } => {
                self.last += 1;
                let id = ItemId(self.last);
                self.items.insert(id, Item { what, reply: Some(reply), first: None });
                return Some(Input::Want(id));
            }
            Note::ForgetModel(model) => {
                find(&|it| matches!(it, Answer::Added(added) if added.facts.model == model))
            }
            Note::ForgetAdapter { model, adapter } => find(
                &|it| matches!(it, Answer::Adapter(it) if it.model == model && it.adapter == adapter),
            ),
        };
        let id = id?;
        self.items.remove(&id);
        Some(Input::Forget(id))
    }

    /// An item was loaded, or not. One whose process is gone is heard of as the process's end.
    fn loaded(&mut self, (id, result): Loaded) -> Option<Input> {
        let Some(item) = self.items.get_mut(&id) else { return Some(Input::Refused(id)) };
        match result {
            Err(refusal) if refusal.code == EngineRefusalCode::Unavailable => None,
            Err(refusal) => {
                self.give_up(id, &refusal);
                Some(Input::Refused(id))
            }
            Ok(answer) => {
                if item.first.as_ref().is_some_and(|first| !is_same(first, &answer)) {
                    let message = "the file is another than the one that was loaded first";
                    self.give_up(id, &refuse(EngineRefusalCode::Failed, message));
                    return Some(Input::Refused(id));
                }
                if let Answer::Added(added) = &*answer {
                    list(&self.shared, added);
                } else if let Answer::Adapter(adapter) = &*answer {
                    let adapters = &mut lock(&self.shared.listed).adapters;
                    // The same again, under another name or in another storage, takes its place.
                    let same = (adapter.model, adapter.adapter);
                    adapters.retain(|it| (it.model, it.adapter) != same);
                    adapters.push(adapter.clone());
                }
                item.first = Some((*answer).clone());
                if let Some(reply) = item.reply.take() {
                    let _ = reply.send(Ok(answer));
                }
                Some(Input::Loaded(id))
            }
        }
    }

    /// An item is loaded no more: whoever waits for it is told, and a model that was there once
    /// says why it is not.
    fn give_up(&mut self, id: ItemId, refusal: &EngineRefusal) {
        let Some(item) = self.items.remove(&id) else { return };
        if let Some(reply) = item.reply {
            let _ = reply.send(Err(refusal.clone()));
        }
        let mut listed = lock(&self.shared.listed);
        match item.first {
            Some(Answer::Added(first)) => {
                let reason = refusal.message.as_str();
                tracing::error!(model = first.facts.name, reason, "a model is out of service");
                let is_it = |it: &&mut Listing| it.added.facts.model == first.facts.model;
                if let Some(listing) = listed.models.iter_mut().find(is_it) {
                    listing.gone = Some(refusal.message.clone());
                }
            }
            Some(Answer::Adapter(first)) => {
                let reason = refusal.message.as_str();
                tracing::error!(adapter = first.name, reason, "an adapter is out of service");
                listed.adapters.retain(|it| *it != first);
            }
            Some(_) | None => {}
        }
    }
}

/// Lists a model that the process has.
fn list(shared: &Shared, added: &AddedModel) {
    let model: Hash = added.facts.model;
    let listed = &mut lock(&shared.listed).models;
    match listed.iter_mut().find(|it| it.added.facts.model == model) {
        Some(listing) => {
            listing.slots = added.slots;
            listing.added = added.clone();
            listing.is_loaded = true;
        }
        None => listed.push(Listing {
            added: added.clone(),
            is_loaded: true,
            gone: None,
            slots: added.slots,
        }),
    }
}

/// Whether what was loaded again is what was loaded first. Where it is computed may differ, and how
/// long a context the memory of the moment allows.
fn is_same(first: &Answer, again: &Answer) -> bool {
    match (first, again) {
        (Answer::Added(first), Answer::Added(again)) => first.facts.model == again.facts.model,
        (Answer::Adapter(first), Answer::Adapter(again)) => first == again,
        _ => false,
    }
}

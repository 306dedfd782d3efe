//! Where what takes long is done: the clerk looks at requests, the loader loads.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use commons_port::BoxFuture;
use commons_port::engine::{Engine as _, EngineRefusal, EngineRefusalCode, Sequence};
use commons_port::process::{AddModel, AddedModel, Answer, Ask};
use futures::channel::oneshot;

use super::CALLS_MAX;
use crate::{AddOptions, LocalEngine};

/// What came of a question: an answer, or work that goes on.
pub(super) enum Done {
    Answer(Box<Answer>),
    Sequence(Box<dyn Sequence>),
    Soon(BoxFuture<'static, Result<Box<Answer>, EngineRefusal>>),
}

type Reply = oneshot::Sender<Result<Done, EngineRefusal>>;

/// The two threads.
#[derive(Debug, Clone)]
pub(super) struct Rooms {
    clerk: SyncSender<(Ask, Reply)>,
    loader: SyncSender<(Ask, Reply)>,
}

impl Rooms {
    pub(super) fn open(engine: &Arc<LocalEngine>) -> io::Result<Self> {
        Ok(Self { clerk: room("engine clerk", engine)?, loader: room("engine loader", engine)? })
    }

    /// Has a question looked at. Dropping the future forgets the answer.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Done, EngineRefusal> {
        let room = match &ask {
            Ask::Start(_) | Ask::Score(_) | Ask::Embed(_) => &self.clerk,
            Ask::Add(_) | Ask::Remove { .. } | Ask::AddAdapter(_) | Ask::RemoveAdapter { .. } => {
                &self.loader
            }
        };
        let (reply, answer) = oneshot::channel();
        if room.try_send((ask, reply)).is_err() {
            return Err(failed("the engine's threads are gone"));
        }
        match answer.await {
            Ok(answer) => answer,
            // A panic took the thread; what it printed is in the log.
            Err(oneshot::Canceled) => Err(failed("the engine crashed over this request")),
        }
    }
}

fn room(name: &str, engine: &Arc<LocalEngine>) -> io::Result<SyncSender<(Ask, Reply)>> {
    // Each open call has one question, so none finds it full.
    let (sender, questions) = sync_channel(CALLS_MAX);
    let engine = Arc::clone(engine);
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(move || work(&engine, &questions))?;
    Ok(sender)
}

fn work(engine: &Arc<LocalEngine>, questions: &Receiver<(Ask, Reply)>) {
    while let Ok((ask, reply)) = questions.recv() {
        if reply.is_canceled() {
            continue;
        }
        // A request that makes a thread panic is answered; the thread goes on with the next.
        let done = std::panic::AssertUnwindSafe(|| answer(engine, ask));
        if let Ok(done) = std::panic::catch_unwind(done) {
            let _ = reply.send(done);
        }
    }
}

fn answer(engine: &Arc<LocalEngine>, ask: Ask) -> Result<Done, EngineRefusal> {
    let now = |answer| Ok(Done::Answer(Box::new(answer)));
    match ask {
        Ask::Start(request) => Ok(Done::Sequence(engine.start(request)?)),
        Ask::Score(request) => {
            let engine = Arc::clone(engine);
            Ok(Done::Soon(Box::pin(async move {
                Ok(Box::new(Answer::Scores(engine.score(request).await?)))
            })))
        }
        Ask::Embed(request) => {
            let engine = Arc::clone(engine);
            Ok(Done::Soon(Box::pin(async move {
                Ok(Box::new(Answer::Vector(engine.embed(request).await?)))
            })))
        }
        Ask::Add(model) => now(Answer::Added(add(engine, model)?)),
        Ask::Remove { model } => now(Answer::Removed(engine.remove(&model))),
        Ask::AddAdapter(adapter) => {
            now(Answer::Adapter(futures::executor::block_on(engine.add_adapter(adapter))?))
        }
        Ask::RemoveAdapter { model, adapter } => {
            engine.remove_adapter(model, adapter)?;
            now(Answer::AdapterRemoved)
        }
    }
}

fn add(engine: &LocalEngine, model: AddModel) -> Result<AddedModel, EngineRefusal> {
    let AddModel { path, device, draft, draft_kv_size_max } = model;
    let device = device.map(|it| it.parse()).transpose();
    let device = device.map_err(|error| refusal(&path, &error))?;
    let options = AddOptions { draft, draft_kv_size_max, device };
    let facts = engine.add_with(&path, &options).map_err(|error| refusal(&path, &error))?;
    let placement = engine.placement(&facts.model);
    let placement = placement.map_or_else(|| "cpu".to_owned(), |it| it.to_string());
    let slots = engine.load(&facts.model).map_or(0, |it| it.slots);
    Ok(AddedModel { facts, placement, slots })
}

/// The whole chain of causes: the error itself stays in this process.
fn refusal(path: &Path, error: &dyn std::error::Error) -> EngineRefusal {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    tracing::debug!(path = %path.display(), message, "a model was not loaded");
    failed(&message)
}

fn failed(message: &str) -> EngineRefusal {
    EngineRefusal { code: EngineRefusalCode::Failed, message: message.to_owned() }
}

//! The engine port over models that are made up: every token and every time follows from what
//! was asked.
//!
//! A token is a hash of model, prompt, seed and position, so two nodes with one model answer
//! alike and a test can compute the answer beforehand ([`SimModel::answer`]). Reading and
//! writing take virtual time; slots and queue are bounded; a [`Mishap`] can be planned.
//!
//! ```text
//! start -> wait for a slot -> prefill -> Prefilled -> wait for the seed -> Token* -> Finished
//! ```

mod model;
mod sequence;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use commons_port::engine::{
    Engine, EngineLoad, EngineRefusal, EngineRefusalCode, EngineRequest, LoadedModel, Sequence,
};
use commons_port::time::TaskHandle;
use commons_record::Hash;
use tokio::sync::Semaphore;

use crate::executor::Executor;
use crate::life::Life;
use crate::lock;
use crate::log::Log;

pub use model::{Answer, SimModel};

/// What goes wrong with the next sequence that starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// It fails after this many tokens.
    FailAfter(u32),
    /// It falls silent after this many tokens and never goes on.
    StallAfter(u32),
    /// It is refused at once.
    Refuse(EngineRefusalCode),
}

/// The engine of a node: outlives its runs, as a plan for all of them.
#[derive(Debug)]
pub struct SimEngine {
    executor: Executor,
    log: Arc<Log>,
    models: Vec<SimModel>,
    mishaps: Mutex<VecDeque<Mishap>>,
    slots: Mutex<Vec<Arc<Slots>>>,
}

impl SimEngine {
    /// An engine with these models.
    pub fn new(executor: Executor, log: Arc<Log>, models: Vec<SimModel>) -> Arc<Self> {
        Arc::new(Self { executor, log, models, mishaps: Mutex::default(), slots: Mutex::default() })
    }

    /// Plans a mishap for the next sequence that has none yet.
    pub fn plan(&self, mishap: Mishap) {
        lock(&self.mishaps).push_back(mishap);
    }

    /// Sequences that are computed or wait in the present run, over all models.
    pub fn busy(&self) -> u32 {
        let load = |it: &Arc<Slots>| *lock(&it.load);
        lock(&self.slots).iter().map(load).map(|load| load.running + load.queued).sum()
    }

    /// The engine as one run of the node has it: empty, with all slots free.
    pub(crate) fn of_run(self: &Arc<Self>, life: Arc<Life>) -> RunningEngine {
        let slots: Vec<_> = self.models.iter().map(|it| Arc::new(Slots::new(it))).collect();
        lock(&self.slots).clone_from(&slots);
        RunningEngine { engine: Arc::clone(self), life, slots }
    }
}

/// The slots of one model in one run.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    load: Mutex<EngineLoad>,
}

impl Slots {
    fn new(model: &SimModel) -> Self {
        let load = EngineLoad { running: 0, queued: 0, slots: model.slots };
        Self { free: Arc::new(Semaphore::new(model.slots as usize)), load: Mutex::new(load) }
    }
}

/// The engine of one run of a node.
#[derive(Debug)]
pub struct RunningEngine {
    engine: Arc<SimEngine>,
    life: Arc<Life>,
    slots: Vec<Arc<Slots>>,
}

fn refusal(code: EngineRefusalCode, message: &str) -> EngineRefusal {
    EngineRefusal { code, message: message.to_owned() }
}

impl RunningEngine {
    fn find(&self, model: &Hash) -> Option<(&SimModel, &Arc<Slots>)> {
        self.engine.models.iter().zip(&self.slots).find(|(it, _)| it.loaded.model == *model)
    }

    /// Refuses what an engine refuses before it computes anything.
    fn admit(&self, request: &EngineRequest) -> Result<(SimModel, Arc<Slots>), EngineRefusal> {
        let unknown = || refusal(EngineRefusalCode::UnknownModel, "no such model is loaded");
        let (model, slots) = self.find(&request.model).ok_or_else(unknown)?;
        if request.adapter.is_some() {
            return Err(refusal(EngineRefusalCode::UnknownAdapter, "no adapter is loaded"));
        }
        if request.constraint.is_some() || request.tools.is_some() {
            let message = "the words here are drawn from a list, and keep to no form";
            return Err(refusal(EngineRefusalCode::InvalidConstraint, message));
        }
        let prompt = model.render(&request.input);
        if prompt.is_empty() {
            return Err(refusal(EngineRefusalCode::InvalidPrompt, "the prompt is empty"));
        }
        let count = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        if count > request.prompt_tokens_max || count >= model.loaded.context_len {
            return Err(refusal(EngineRefusalCode::TooLong, "the prompt does not fit"));
        }
        if lock(&slots.load).queued >= model.queue {
            return Err(refusal(EngineRefusalCode::Overloaded, "too many requests wait"));
        }
        Ok((model.clone(), Arc::clone(slots)))
    }
}

impl Engine for RunningEngine {
    fn models(&self) -> Vec<LoadedModel> {
        self.engine.models.iter().map(|model| model.loaded.clone()).collect()
    }

    fn load(&self, model: &Hash) -> Option<EngineLoad> {
        self.find(model).map(|(_, slots)| *lock(&slots.load))
    }

    fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
        let (model, slots) = self.admit(&request)?;
        let mishap = lock(&self.engine.mishaps).pop_front();
        if let Some(Mishap::Refuse(code)) = mishap {
            return Err(refusal(code, "a planned mishap"));
        }
        let prompt = model.render(&request.input);
        self.engine.log.note(
            Some(self.life.node),
            "engine.started",
            format_args!("{} tokens of prompt", prompt.len()),
        );
        let (work, sequence) = sequence::new(&self.engine.executor, model, slots, prompt, request);
        let run = Box::pin(work.run(mishap));
        let task: TaskHandle = self.engine.executor.spawn(Some(self.life.node), "sequence", run);
        Ok(Box::new(sequence.driven_by(task)))
    }
}

#[cfg(test)]
mod tests;

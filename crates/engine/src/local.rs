//! The engine of this process: loaded models behind the port.
//!
//! Not here: a child process around it, foreign engines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use commons_port::BoxFuture;
use commons_port::engine::{
    AddAdapter, EmbedRequest, EmbeddingVector, Engine, EngineLoad, EngineRefusal,
    EngineRefusalCode, EngineRequest, LoadedAdapter, LoadedModel, ScoreRequest, Scores, Sequence,
};
use commons_record::Hash;
use commons_schedule::AdapterStats;
use futures::channel::oneshot;

use crate::forward::LoadOptions;
use crate::model::{LoadError, Model};
use crate::place::{Device, Placement};
use crate::worker::guesser::Draft;
use crate::worker::{SpawnError, Worker, WorkerConfig};

/// Models in one process. More do not fit any machine that we know of.
const MODELS_MAX: usize = 64;

/// Why a model was not added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum AddError {
    #[error("failed to load the model")]
    Load(#[from] LoadError),

    #[error("failed to load the smaller model that guesses for it")]
    LoadDraft(#[source] LoadError),

    #[error("{name:?} is loaded already, from another file; rename one of them")]
    NameTaken { name: String },

    #[error("{MODELS_MAX} models are loaded already; unload one first")]
    TooMany,

    #[error("the model cannot be served")]
    Spawn(#[from] SpawnError),
}

/// How a model is added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddOptions {
    /// The file or folder of a smaller model of the same vocabulary, which guesses what the model
    /// will say. It changes how fast an answer comes and never what it says. It cannot be asked.
    pub draft: Option<PathBuf>,
    /// Bytes that its keys and values may take; none means a quarter of what is free.
    pub draft_kv_size_max: Option<u64>,
    /// Where it is computed, and with it the model that guesses; none means where the engine
    /// computes all others. The class of its answers follows from it.
    pub device: Option<Device>,
}

/// Models that are computed in this process, each by its own thread.
#[derive(Debug, Default)]
pub struct LocalEngine {
    config: WorkerConfig,
    workers: RwLock<BTreeMap<Hash, Arc<Worker>>>,
}

impl LocalEngine {
    /// An engine without models.
    pub fn new(config: WorkerConfig) -> Self {
        Self { config, workers: RwLock::default() }
    }

    /// Loads a model file. The same file again is the same model; it is not loaded twice.
    pub fn add(&self, path: &Path) -> Result<LoadedModel, AddError> {
        self.add_with(path, &AddOptions::default())
    }

    /// As [`Self::add`], as told. A model that is loaded already stays as it was loaded.
    pub fn add_with(&self, path: &Path, options: &AddOptions) -> Result<LoadedModel, AddError> {
        let device = options.device.unwrap_or(self.config.device);
        let load = LoadOptions { device, ..LoadOptions::default() };
        let model = Model::load_with(path, &load)?;
        let draft = options.draft.as_ref().map(|path| Model::load_with(path, &load)).transpose();
        let draft = draft.map_err(AddError::LoadDraft)?;
        let draft = draft.map(|model| Draft { model, kv_size_max: options.draft_kv_size_max });
        let facts = model.facts().clone();
        // Loading took long; what is there is asked for only now, with the map in hand.
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = workers.get(&facts.model) {
            return Ok(worker.facts().clone());
        }
        if workers.values().any(|worker| worker.facts().name == facts.name) {
            return Err(AddError::NameTaken { name: facts.name });
        }
        if workers.len() >= MODELS_MAX {
            return Err(AddError::TooMany);
        }
        let worker = Worker::spawn_with(model, draft, self.config)?;
        // What is served: its context may be shorter than the model's.
        let facts = worker.facts().clone();
        workers.insert(facts.model, Arc::new(worker));
        Ok(facts)
    }

    /// Unloads a model and fails what it still computes. False if there is none of that hash.
    pub fn remove(&self, model: &Hash) -> bool {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        let worker = workers.remove(model);
        // The worker joins its thread when it is dropped: not while others wait for the map.
        drop(workers);
        worker.is_some()
    }

    /// Where a model is computed, and why there; none if it is not loaded.
    pub fn placement(&self, model: &Hash) -> Option<Placement> {
        Some(self.worker(model)?.placement().clone())
    }

    /// Which adapters of a model are in memory: for measurements; none if it is not loaded.
    pub fn adapter_stats(&self, model: &Hash) -> Option<AdapterStats> {
        Some(self.worker(model)?.adapter_stats())
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Hash, Arc<Worker>>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, model: &Hash) -> Result<Arc<Worker>, EngineRefusal> {
        self.worker(model).ok_or_else(|| {
            let code = EngineRefusalCode::UnknownModel;
            EngineRefusal { code, message: format!("model {model} is not loaded here") }
        })
    }

    fn worker(&self, model: &Hash) -> Option<Arc<Worker>> {
        self.read().get(model).cloned()
    }
}

/// Adds an adapter to the one model that it fits.
fn add_to(workers: &[Arc<Worker>], add: &AddAdapter) -> Result<LoadedAdapter, EngineRefusal> {
    let refuse = |message| EngineRefusal { code: EngineRefusalCode::InvalidAdapter, message };
    if let [worker] = workers {
        return worker.add_adapter(add.clone());
    }
    let (mut fitting, mut reasons) = (Vec::new(), Vec::new());
    for worker in workers {
        match worker.check_adapter(&add.path) {
            Ok(()) => fitting.push(worker),
            Err(reason) => reasons.push(format!("{}: {reason}", worker.facts().name)),
        }
    }
    let names = || fitting.iter().map(|it| it.facts().name.clone()).collect::<Vec<_>>().join(", ");
    match &*fitting {
        [] if workers.is_empty() => Err(refuse(
            "no model is loaded that an adapter could change; load one first".to_owned(),
        )),
        [] => Err(refuse(format!("the adapter fits no loaded model; {}", reasons.join("; ")))),
        [worker] => worker.add_adapter(add.clone()),
        _ => Err(refuse(format!("the adapter fits several models: {}; name one", names()))),
    }
}

impl Engine for LocalEngine {
    fn models(&self) -> Vec<LoadedModel> {
        self.read().values().map(|worker| worker.facts().clone()).collect()
    }

    fn load(&self, model: &Hash) -> Option<EngineLoad> {
        Some(self.worker(model)?.load())
    }

    fn adapters(&self) -> Vec<LoadedAdapter> {
        self.read().values().flat_map(|worker| worker.adapters()).collect()
    }

    fn adapter(&self, model: &Hash, adapter: &Hash) -> Option<LoadedAdapter> {
        self.worker(model)?.adapter(adapter)
    }

    /// Reads the file on a thread of its own: it may take long. Dropping the future does not stop it.
    fn add_adapter(&self, add: AddAdapter) -> BoxFuture<'_, Result<LoadedAdapter, EngineRefusal>> {
        let workers = match add.model {
            Some(model) => self.find(&model).map(|worker| vec![worker]),
            None => Ok(self.read().values().cloned().collect()),
        };
        let (sender, receiver) = oneshot::channel();
        let started = workers.and_then(|workers| {
            let add = move || drop(sender.send(add_to(&workers, &add)));
            let thread = std::thread::Builder::new().name("add adapter".to_owned()).spawn(add);
            thread.map(drop).map_err(|error| {
                let message = format!("failed to start a thread: {error}");
                EngineRefusal { code: EngineRefusalCode::Failed, message }
            })
        });
        Box::pin(async move {
            started?;
            receiver.await.unwrap_or_else(|_| {
                let message = "reading the adapter failed badly: see the log".to_owned();
                Err(EngineRefusal { code: EngineRefusalCode::Failed, message })
            })
        })
    }

    fn remove_adapter(&self, model: Hash, adapter: Hash) -> Result<(), EngineRefusal> {
        let worker = self.find(&model)?;
        if worker.remove_adapter(&adapter) {
            return Ok(());
        }
        let name = &worker.facts().name;
        let message = format!("adapter {adapter} is not registered for {name}");
        Err(EngineRefusal { code: EngineRefusalCode::UnknownAdapter, message })
    }

    fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
        self.find(&request.model)?.start(request)
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, EngineRefusal>> {
        let started = self.find(&request.model).and_then(|worker| worker.score(&request));
        Box::pin(async { started?.await })
    }

    fn embed(
        &self,
        request: EmbedRequest,
    ) -> BoxFuture<'_, Result<EmbeddingVector, EngineRefusal>> {
        let started = self.find(&request.model).and_then(|worker| worker.embed(&request));
        Box::pin(async { started?.await })
    }
}

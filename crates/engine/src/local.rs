//! The engine of this process: loaded models behind the port.
//!
//! Not here: a child process around it, adapters, foreign engines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use commons_port::BoxFuture;
use commons_port::engine::{
    EmbedRequest, EmbeddingVector, Engine, EngineLoad, EngineRefusal, EngineRefusalCode,
    EngineRequest, LoadedModel, ScoreRequest, Scores, Sequence,
};
use commons_record::Hash;

use crate::forward::LoadOptions;
use crate::model::{LoadError, Model};
use crate::place::Placement;
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
        let load = LoadOptions { device: self.config.device, ..LoadOptions::default() };
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

fn refuse_adapter(adapter: Option<&Hash>) -> Result<(), EngineRefusal> {
    let Some(adapter) = adapter else { return Ok(()) };
    let code = EngineRefusalCode::UnknownAdapter;
    let message = format!("adapter {adapter} is not loaded; ask without one, or another node");
    Err(EngineRefusal { code, message })
}

impl Engine for LocalEngine {
    fn models(&self) -> Vec<LoadedModel> {
        self.read().values().map(|worker| worker.facts().clone()).collect()
    }

    fn load(&self, model: &Hash) -> Option<EngineLoad> {
        Some(self.worker(model)?.load())
    }

    fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
        refuse_adapter(request.adapter.as_ref())?;
        self.find(&request.model)?.start(request)
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, EngineRefusal>> {
        let started = refuse_adapter(request.adapter.as_ref())
            .and_then(|()| self.find(&request.model))
            .and_then(|worker| worker.score(&request));
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

//! The engine of this process: loaded models behind the port.
//!
//! Not here: a child process around it, adapters, foreign engines.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use commons_port::engine::{
    Engine, EngineLoad, EngineRefusal, EngineRefusalCode, EngineRequest, LoadedModel, Sequence,
};
use commons_record::Hash;

use crate::model::{LoadError, Model};
use crate::worker::{Worker, WorkerConfig};

/// Models in one process. More do not fit any machine that we know of.
const MODELS_MAX: usize = 64;

/// Why a model was not added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum AddError {
    #[error("failed to load the model")]
    Load(#[from] LoadError),

    #[error("{name:?} is loaded already, from another file; rename one of them")]
    NameTaken { name: String },

    #[error("{MODELS_MAX} models are loaded already; unload one first")]
    TooMany,

    #[error("failed to start the thread of the model")]
    Thread(#[source] io::Error),
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
        let model = Model::load(path)?;
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
        let worker = Worker::spawn(model, self.config).map_err(AddError::Thread)?;
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

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Hash, Arc<Worker>>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker(&self, model: &Hash) -> Option<Arc<Worker>> {
        self.read().get(model).cloned()
    }
}

impl Engine for LocalEngine {
    fn models(&self) -> Vec<LoadedModel> {
        self.read().values().map(|worker| worker.facts().clone()).collect()
    }

    fn load(&self, model: &Hash) -> Option<EngineLoad> {
        Some(self.worker(model)?.load())
    }

    fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
        if let Some(adapter) = &request.adapter {
            let code = EngineRefusalCode::UnknownAdapter;
            let message =
                format!("adapter {adapter} is not loaded; ask without one, or another node");
            return Err(EngineRefusal { code, message });
        }
        let Some(worker) = self.worker(&request.model) else {
            let code = EngineRefusalCode::UnknownModel;
            let message = format!("model {} is not loaded here", request.model);
            return Err(EngineRefusal { code, message });
        };
        worker.start(request)
    }
}

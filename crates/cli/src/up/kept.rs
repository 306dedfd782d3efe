//! Adapters that outlive the node: an engine whose adapters are copied into the data folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use commons_engine::adapter;
use commons_port::BoxFuture;
use commons_port::engine::{
    AddAdapter, EmbedRequest, EmbeddingVector, Engine, EngineLoad, EngineRefusal,
    EngineRefusalCode, EngineRequest, LoadedAdapter, LoadedModel, Origin, ScoreRequest, Scores,
    Sequence,
};
use commons_record::Hash;
use commons_store::adapters::{AboutAdapter, AdapterFolder, Draft};

/// An engine that keeps the adapters it is given.
pub(super) struct Keeping {
    engine: Arc<dyn Engine>,
    folder: AdapterFolder,
}

impl std::fmt::Debug for Keeping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeping").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Keeping {
    pub(super) fn new(engine: Arc<dyn Engine>, folder: AdapterFolder) -> Self {
        Self { engine, folder }
    }

    /// Takes in again what was kept for the models that are loaded. One that cannot be is told, and
    /// stays where it is. How many are there now.
    pub(super) async fn restore(&self) -> anyhow::Result<usize> {
        let kept = self.folder.list().context("failed to list the adapters of the data folder")?;
        let models = self.engine.models();
        let mut count = 0;
        for kept in kept {
            let AboutAdapter { model, name, is_rounded, .. } = kept.about;
            if !models.iter().any(|it| it.model == model) {
                tracing::info!(name, %model, "an adapter waits for its model to be loaded");
                continue;
            }
            let path = source(&kept.folder);
            let add = AddAdapter { model: Some(model), path, name: Some(name.clone()), is_rounded };
            match self.engine.add_adapter(add).await {
                Ok(_) => count += 1,
                Err(refusal) => {
                    tracing::warn!(name, %refusal, "an adapter cannot be used any more");
                }
            }
        }
        Ok(count)
    }

    async fn add(&self, add: AddAdapter) -> Result<LoadedAdapter, EngineRefusal> {
        // Foreign engines read their own disks.
        let is_own = add.model.is_none_or(|it| self.engine.origin(&it) == Origin::Node);
        if !is_own {
            return self.engine.add_adapter(add).await;
        }
        let (folder, path) = (self.folder.clone(), add.path.clone());
        let copied = tokio::task::spawn_blocking(move || copy(&folder, &path)).await;
        let draft = copied.map_err(|error| failed(&error))??;
        let name = add.name.or_else(|| Some(add.path.file_stem()?.to_str()?.to_owned()));
        let (path, is_rounded) = (source(draft.folder()), add.is_rounded);
        let original = add.path.clone();
        let inner = AddAdapter { path: path.clone(), name, ..add };
        let added = self.engine.add_adapter(inner).await.map_err(|refusal| {
            // Whoever named the original knows nothing of the copy.
            let message = refusal.message;
            let message = message.replace(&*path.to_string_lossy(), &original.to_string_lossy());
            EngineRefusal { message, ..refusal }
        })?;
        let about = AboutAdapter {
            adapter: added.adapter,
            model: added.model,
            name: added.name.clone(),
            is_rounded,
        };
        self.folder.keep(draft, about).map_err(|error| failed(&error))?;
        Ok(added)
    }
}

/// What an engine reads of a copy: the GGUF file in it, or the folder.
fn source(folder: &Path) -> PathBuf {
    let file = folder.join(GGUF_NAME);
    if file.exists() { file } else { folder.to_owned() }
}

/// What a GGUF file is called in its folder.
const GGUF_NAME: &str = "adapter.gguf";

fn copy(folder: &AdapterFolder, path: &Path) -> Result<Draft, EngineRefusal> {
    let files = adapter::files(path).map_err(|error| {
        let error = anyhow::Error::from(error);
        EngineRefusal { code: EngineRefusalCode::InvalidAdapter, message: format!("{error:#}") }
    })?;
    let names = match files.len() {
        1 => vec![GGUF_NAME],
        _ => vec![adapter::CONFIG_NAME, adapter::WEIGHTS_NAME],
    };
    let files: Vec<_> = files.into_iter().zip(names.into_iter().map(str::to_owned)).collect();
    folder.copy(&files).map_err(|error| {
        let message = format!("failed to copy {} into the data folder: {error}", path.display());
        EngineRefusal { code: EngineRefusalCode::InvalidAdapter, message }
    })
}

fn failed(error: &dyn std::fmt::Display) -> EngineRefusal {
    let message = format!("the adapter could not be kept in the data folder: {error}");
    EngineRefusal { code: EngineRefusalCode::Failed, message }
}

impl Engine for Keeping {
    fn models(&self) -> Vec<LoadedModel> {
        self.engine.models()
    }

    fn load(&self, model: &Hash) -> Option<EngineLoad> {
        self.engine.load(model)
    }

    fn adapters(&self) -> Vec<LoadedAdapter> {
        self.engine.adapters()
    }

    fn adapter(&self, model: &Hash, adapter: &Hash) -> Option<LoadedAdapter> {
        self.engine.adapter(model, adapter)
    }

    fn add_adapter(&self, add: AddAdapter) -> BoxFuture<'_, Result<LoadedAdapter, EngineRefusal>> {
        Box::pin(self.add(add))
    }

    fn remove_adapter(&self, model: Hash, adapter: Hash) -> Result<(), EngineRefusal> {
        self.engine.remove_adapter(model, adapter)?;
        self.folder.remove(&model, &adapter).map(drop).map_err(|error| failed(&error))
    }

    fn origin(&self, model: &Hash) -> Origin {
        self.engine.origin(model)
    }

    fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
        self.engine.start(request)
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, EngineRefusal>> {
        self.engine.score(request)
    }

    fn embed(
        &self,
        request: EmbedRequest,
    ) -> BoxFuture<'_, Result<EmbeddingVector, EngineRefusal>> {
        self.engine.embed(request)
    }
}

//! Where fixtures lie, and how a test asks an engine.

use std::path::{Path, PathBuf};

use commons_engine::noise::write_noise_model;
use commons_engine::{LocalEngine, WorkerConfig};
use commons_port::engine::{
    Engine, EngineEvent, EngineRefusal, EngineRequest, LoadedModel, Sequence, Token,
};
use commons_record::order::{PromptInput, Sampling};
use commons_record::settlement::EndReason;
use futures::executor::block_on;

/// A file that nobody here wrote; `None`, loudly, where the folder is absent.
pub(crate) fn fixture(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is absent", path.display());
    None
}

/// An engine that holds one small model of random weights.
pub(crate) fn noise_engine(config: WorkerConfig) -> (LocalEngine, LoadedModel) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 7).expect("writes");
    let engine = LocalEngine::new(config);
    // The file stays mapped when its name is gone.
    let facts = engine.add(&path).expect("loads");
    (engine, facts)
}

/// A greedy request for `count` tokens.
pub(crate) fn request(model: &LoadedModel, text: &str, count: u32) -> EngineRequest {
    EngineRequest {
        model: model.model,
        adapter: None,
        input: PromptInput::Text(text.to_owned()),
        stop: Vec::new(),
        sampling: Sampling::greedy(),
        seed: Some([7; 32]),
        prompt_tokens_max: u32::MAX,
        completion_tokens_max: count,
        top_logprobs: 0,
    }
}

/// Everything that a sequence said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) prompt: Vec<u32>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) text: String,
    pub(crate) reason: Option<EndReason>,
    pub(crate) failure: Option<EngineRefusal>,
}

impl Said {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}

/// Reads a sequence to its end.
pub(crate) fn listen(sequence: &mut dyn Sequence) -> Said {
    let mut said = Said::default();
    while let Some(event) = block_on(sequence.next()) {
        match event {
            EngineEvent::Prefilled { prompt, .. } => said.prompt = prompt,
            EngineEvent::Token(token) => {
                said.text += &token.text;
                said.tokens.push(token);
            }
            EngineEvent::Finished { reason, text, .. } => {
                said.text += &text;
                said.reason = Some(reason);
            }
            EngineEvent::Failed(refusal) => said.failure = Some(refusal),
        }
    }
    said
}

/// Asks and reads to the end.
pub(crate) fn ask(engine: &LocalEngine, request: EngineRequest) -> Said {
    listen(engine.start(request).expect("is taken").as_mut())
}

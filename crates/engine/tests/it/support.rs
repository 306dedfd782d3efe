//! Where fixtures lie, and how a test asks an engine.

use std::path::{Path, PathBuf};

use commons_engine::cache::{KvFormat, page_bytes};
use commons_engine::noise::write_noise_model;
use commons_engine::weights::Weights;
use commons_engine::{LocalEngine, WorkerConfig};
use commons_port::engine::{
    Caller, Engine, EngineEvent, EngineRefusal, EngineRequest, LoadedModel, Priority, Sequence,
    Token,
};
use commons_record::Micro;
use commons_record::key::PublicKey;
use commons_record::order::{PromptInput, Sampling};
use commons_record::seed::Seed32;
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

/// What most tests compute with: one thread, and keys and values in the default format.
pub(crate) fn config() -> WorkerConfig {
    WorkerConfig { threads: 1, ..WorkerConfig::default() }
}

/// An engine that holds one small model of random weights.
pub(crate) fn noise_engine(config: WorkerConfig) -> (LocalEngine, LoadedModel) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 7).expect("writes");
    let engine = LocalEngine::new(config);
    let facts = engine.add(&path).expect("loads");
    (engine, facts)
}

/// Bytes that a page takes in all layers of the noise model.
pub(crate) fn noise_page(format: KvFormat) -> u64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 7).expect("writes");
    page_bytes(Weights::open(&path).expect("opens").settings(), format).expect("has a size")
}

/// Somebody who asks, and shares nothing.
pub(crate) fn caller(number: u8) -> Caller {
    let key = PublicKey::from_bytes([number; 32]);
    Caller { key, priority: Priority::Normal, shares_prefixes: false }
}

/// A greedy request for `count` tokens.
pub(crate) fn request(model: &LoadedModel, text: &str, count: u32) -> EngineRequest {
    EngineRequest {
        model: model.model,
        adapter: None,
        caller: caller(1),
        input: PromptInput::Text(text.to_owned()),
        stop: Vec::new(),
        constraint: None,
        tools: None,
        sampling: Sampling::greedy(),
        seed: Some([7; 32]),
        prompt_tokens_max: u32::MAX,
        completion_tokens_max: count,
        top_logprobs: 0,
    }
}

/// The request, drawn at a temperature with a seed.
pub(crate) fn warm(request: EngineRequest, seed: Seed32) -> EngineRequest {
    let temperature = Micro::from_millionths(800_000).expect("small");
    let sampling = Sampling { temperature, ..Sampling::greedy() };
    EngineRequest { sampling, seed: Some(seed), ..request }
}

/// Everything that a sequence said, but how long it took and what it found in a cache.
#[derive(Clone, Debug, Default, PartialEq)]
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
    listen_with_cached(sequence).0
}

/// Reads a sequence to its end; also how many tokens of its prompt came out of a cache.
pub(crate) fn listen_with_cached(sequence: &mut dyn Sequence) -> (Said, Option<u32>) {
    let (mut said, mut cached) = (Said::default(), None);
    while let Some(event) = block_on(sequence.next()) {
        let has_ended = said.reason.is_some() || said.failure.is_some();
        assert!(!has_ended, "{event:?} behind the end");
        match event {
            EngineEvent::Prefilled { prompt, cached_tokens, .. } => {
                assert!(
                    cached.is_none() && said.tokens.is_empty(),
                    "the prompt is read once, first"
                );
                said.prompt = prompt;
                cached = Some(cached_tokens);
            }
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
    (said, cached)
}

/// Asks and reads to the end.
pub(crate) fn ask(engine: &LocalEngine, request: EngineRequest) -> Said {
    let mut sequence = engine.start(request).expect("is taken");
    let (said, cached) = listen_with_cached(sequence.as_mut());
    assert!(said.tokens.is_empty() || cached.is_some(), "a token before the prompt was read");
    said
}

//! The engine as a node sees it: a box that takes requests and sends events.
//!
//! The port is message-shaped: no tensor, no borrow and no callback crosses it, and sampling
//! happens inside. An engine can therefore move into a child process without changing a caller.
//!
//! ```text
//! Engine::start(EngineRequest) -> Sequence
//! Sequence: Prefilled -> (seed needed?) -> Token* -> Finished
//!                    \-> Failed, at any point
//! ```

use commons_record::order::{PromptInput, Sampling};
use commons_record::seed::Seed32;
use commons_record::settlement::{EndReason, EngineClass};
use commons_record::{Hash, Millis};
use serde::{Deserialize, Serialize};

use crate::BoxFuture;

/// A model that is loaded and ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedModel {
    /// The hash of its file: what orders name.
    pub model: Hash,
    /// The file's stem: what people name.
    pub name: String,
    /// The file's own name.
    pub file_name: String,
    /// The file's length in bytes.
    pub file_size: u64,
    /// The architecture.
    pub family: String,
    /// `Q4_K_M`, `F16`.
    pub quantisation: String,
    /// Hash of the vocabulary and its rules.
    pub tokenizer: Hash,
    /// Tokens of context that it serves.
    pub context_len: u32,
    /// How many parameters it has.
    pub parameter_count: u64,
    /// The licence that the file states, if it states one.
    pub licence: Option<String>,
    /// What computes it.
    pub class: EngineClass,
}

/// A prompt to continue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRequest {
    /// Which model.
    pub model: Hash,
    /// Which adapter; none means the base alone.
    pub adapter: Option<Hash>,
    /// What to continue.
    pub input: PromptInput,
    /// End before any of these.
    pub stop: Vec<String>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The seed, or none if it will be revealed later.
    pub seed: Option<Seed32>,
    /// Refuse a prompt of more tokens.
    pub prompt_tokens_max: u32,
    /// End after this many tokens.
    pub completion_tokens_max: u32,
    /// How many alternatives to report with each token.
    pub top_logprobs: u8,
}

/// What a sequence has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineEvent {
    /// The prompt was rendered and read.
    Prefilled {
        /// The rendered prompt.
        prompt: Vec<u32>,
        /// How many of its tokens came out of a cache.
        cached_tokens: u32,
    },
    /// The next token of the answer.
    Token(Token),
    /// The answer is complete.
    Finished {
        /// Why.
        reason: EndReason,
        /// Text that was held back and belongs to the answer.
        text: String,
        /// Time spent computing for this sequence.
        compute_ms: Millis,
    },
    /// The answer cannot be completed.
    Failed(EngineRefusal),
}

/// One token of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that is complete with it: may be empty, and may end earlier tokens' text.
    pub text: String,
    /// Its log-probability in micro-nats, before sampling changed anything.
    pub logprob_micro: i32,
    /// The likeliest alternatives, itself included, best first.
    pub top: Vec<Alternative>,
}

/// A token that could have stood in another's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// Its id.
    pub id: u32,
    /// Its text on its own.
    pub text: String,
    /// Its log-probability in micro-nats.
    pub logprob_micro: i32,
}

/// Why an engine does not serve a request. Codes are stable; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct EngineRefusal {
    /// What kind of refusal.
    pub code: EngineRefusalCode,
    /// A sentence that says what and why, and what to do.
    pub message: String,
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EngineRefusalCode {
    /// No such model is loaded.
    UnknownModel,
    /// No such adapter is loaded.
    UnknownAdapter,
    /// The prompt cannot be rendered or tokenised.
    InvalidPrompt,
    /// Prompt and answer do not fit the context, or the prompt its limit.
    TooLong,
    /// Too many requests are waiting.
    Overloaded,
    /// The model failed while computing.
    Failed,
}

/// How busy an engine is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineLoad {
    /// Sequences that are being computed.
    pub running: u32,
    /// Sequences that wait.
    pub queued: u32,
    /// Sequences that could be computed at once.
    pub slots: u32,
}

/// Models that continue prompts.
pub trait Engine: Send + Sync {
    /// The models that are ready.
    fn models(&self) -> Vec<LoadedModel>;

    /// How busy a model is; none if it is not loaded.
    fn load(&self, model: &Hash) -> Option<EngineLoad>;

    /// Starts a sequence, or refuses at once.
    fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal>;
}

/// A running sequence. Dropping it cancels the work and frees what it holds.
pub trait Sequence: Send {
    /// Hands over the seed that the request left open. A second call changes nothing.
    fn reveal(&mut self, seed: Seed32);

    /// The next event; none after [`EngineEvent::Finished`] or [`EngineEvent::Failed`]. Events
    /// wait in a bounded queue: a caller that does not ask stalls this sequence and no other.
    /// Dropping the future loses no event.
    fn next(&mut self) -> BoxFuture<'_, Option<EngineEvent>>;
}

//! The engine as a node sees it: a box that takes requests and sends events.
//!
//! The port is message-shaped: no tensor, no borrow and no callback crosses it, and sampling
//! happens inside. An engine can therefore move into a child process without changing a caller.
//!
//! ```text
//! Engine::start(EngineRequest) -> Sequence
//! Sequence: Prefilled -> (seed needed?) -> Token* -> Finished
//!                    \-> Failed, at any point
//!
//! Engine::score(ScoreRequest) -> Scores          what a model thinks of a given text
//! Engine::embed(EmbedRequest) -> EmbeddingVector a text as one vector
//! ```

use std::path::PathBuf;

use commons_record::constraint::{Constraint, ToolFormat, Tools};
use commons_record::key::PublicKey;
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
    /// What it makes of a text.
    pub kind: ModelKind,
}

/// What a model makes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// It continues it.
    Decoder,
    /// It turns it into a vector, and nothing else.
    Encoder,
}

/// An adapter that an engine has for one of its models. Nothing of it need be in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadedAdapter {
    /// The hash of its file: what orders name.
    pub adapter: Hash,
    /// The model that it changes.
    pub model: Hash,
    /// What people name, behind the model's name and a `+`.
    pub name: String,
    /// The length in bytes of what was hashed.
    pub file_size: u64,
    /// `lora`, `rslora` or `dora`.
    pub method: String,
    /// Its largest rank.
    pub rank: u32,
    /// How its numbers are stored while they are computed with: `F16`, `Q8_0`.
    pub format: String,
}

/// An adapter to take in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddAdapter {
    /// The model that it changes; none means whichever loaded model it fits, if that is one alone.
    pub model: Option<Hash>,
    /// The file or folder, on the engine's machine.
    pub path: PathBuf,
    /// What people call it; none means the name of the file or folder.
    pub name: Option<String>,
    /// Whether its numbers are rounded to `Q8_0`: half the memory of 16 bits, and another answer.
    pub is_rounded: bool,
}

/// Who computes a model, seen from the node that has the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The node itself, from files that it has hashed.
    Node,
    /// A foreign engine, which declares what it has.
    Foreign {
        /// How far a request travels to it.
        reach: Reach,
        /// Which program it is, and where: for people.
        engine: String,
    },
}

/// How far a request travels, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// It stays on this machine.
    Machine,
    /// It stays on the local network.
    Lan,
    /// It may go anywhere.
    Internet,
}

/// For whom work is done, and before whom.
///
/// Callers share an engine fairly, and what one caller's prompt left in a cache is found by that
/// caller alone, unless both asked to share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// The key that asks.
    pub key: PublicKey,
    /// Before whom.
    pub priority: Priority,
    /// Whether others who also say so may find the prefixes of this prompt in the cache, which
    /// lets them learn by timing that somebody sent them.
    pub shares_prefixes: bool,
}

/// Which work comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// That of the machine's owner.
    Owner,
    /// That of somebody who waits.
    Normal,
    /// That which can wait.
    Background,
}

/// A prompt to continue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRequest {
    /// Which model.
    pub model: Hash,
    /// Which adapter; none means the base alone.
    pub adapter: Option<Hash>,
    /// For whom.
    pub caller: Caller,
    /// What to continue.
    pub input: PromptInput,
    /// End before any of these.
    pub stop: Vec<String>,
    /// What the answer must be.
    pub constraint: Option<Constraint>,
    /// The functions that the answer may call.
    pub tools: Option<Tools>,
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

/// A text whose tokens a model should judge: a prompt that is echoed, a multiple choice, an audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreRequest {
    /// Which model.
    pub model: Hash,
    /// Which adapter; none means the base alone.
    pub adapter: Option<Hash>,
    /// For whom.
    pub caller: Caller,
    /// The text.
    pub input: PromptInput,
    /// The first token to judge, counted from 0. The very first token of a text has nothing before
    /// it to be judged by.
    pub from: u32,
    /// How many alternatives to report with each token.
    pub top_logprobs: u8,
    /// Judge the tokens from [`Self::from`] on as an answer that was drawn with a known seed.
    pub replay: Option<Replay>,
}

/// How an answer is said to have been drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// With which seed; none is enough at temperature 0.
    pub seed: Option<Seed32>,
    /// What the answer had to be.
    pub constraint: Option<Constraint>,
    /// The functions that it could call.
    pub tools: Option<Tools>,
}

/// What a model thinks of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// All tokens of the text.
    pub tokens: Vec<u32>,
    /// A score for each token from [`ScoreRequest::from`] on.
    pub scores: Vec<Score>,
    /// What the model would say next: of a complete answer, a token that ends it.
    pub next: Score,
    /// Whether [`Self::next`] is a token that ends an answer.
    pub next_ends: bool,
}

/// What a model thinks of a token, given those before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The token and its likeliest alternatives. Nothing, for the first token of a text.
    pub token: Option<Token>,
    /// How far it is from the token that the sampler draws, in logits: 0 if it is that token, and
    /// infinite if it cannot be drawn. Only where a replay was asked for.
    pub margin: Option<f64>,
}

/// A text to turn into a vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbedRequest {
    /// Which model.
    pub model: Hash,
    /// For whom.
    pub caller: Caller,
    /// The text.
    pub input: PromptInput,
    /// How its rows become one; none means what the model was made for.
    pub pooling: Option<Pooling>,
}

/// How the rows of a text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first.
    Cls,
    /// The last.
    Last,
}

/// A text as a vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingVector {
    /// Of length 1.
    pub values: Vec<f32>,
    /// How many tokens the text has.
    pub token_count: u32,
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
        /// How calls are written in the answer's text; none where there were no tools.
        tool_format: Option<ToolFormat>,
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
    /// Its id, or [`Token::NO_ID`].
    pub id: u32,
    /// The text that is complete with it: may be empty, and may end earlier tokens' text.
    pub text: String,
    /// Its log-probability in micro-nats, before sampling changed anything, or
    /// [`Token::NO_LOGPROB`].
    pub logprob_micro: i32,
    /// The likeliest alternatives, itself included, best first.
    pub top: Vec<Alternative>,
}

impl Token {
    /// What stands for an id where a foreign engine tells none. No vocabulary has this many.
    pub const NO_ID: u32 = u32::MAX;

    /// What stands for a log-probability where a foreign engine tells none.
    pub const NO_LOGPROB: i32 = i32::MIN;
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

impl EngineRefusal {
    fn unsupported(what: &str) -> Self {
        let message = format!("this engine {what}; ask another node");
        Self { code: EngineRefusalCode::Unsupported, message }
    }
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
    /// The model does not do that: an encoder continues no text.
    Unsupported,
    /// The file is no adapter, or not one of this model.
    InvalidAdapter,
    /// What the answer must look like cannot be understood, or is too much.
    InvalidConstraint,
    /// Too many requests are waiting.
    Overloaded,
    /// The engine is not there just now; it comes back by itself.
    Unavailable,
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

    /// The adapters that it has, for all its models.
    fn adapters(&self) -> Vec<LoadedAdapter> {
        Vec::new()
    }

    /// An adapter of a model, if it has it.
    fn adapter(&self, model: &Hash, adapter: &Hash) -> Option<LoadedAdapter> {
        self.adapters().into_iter().find(|it| it.model == *model && it.adapter == *adapter)
    }

    /// Takes in an adapter. The same again is the same adapter. An engine that cannot, refuses.
    fn add_adapter(&self, _add: AddAdapter) -> BoxFuture<'_, Result<LoadedAdapter, EngineRefusal>> {
        Box::pin(std::future::ready(Err(EngineRefusal::unsupported("takes in no adapters"))))
    }

    /// Forgets an adapter of a model: what is being computed with it is finished first, and nothing
    /// new begins.
    fn remove_adapter(&self, _model: Hash, _adapter: Hash) -> Result<(), EngineRefusal> {
        Err(EngineRefusal::unsupported("has no adapters"))
    }

    /// Who computes a model. An engine that computes nothing itself says so for each.
    fn origin(&self, _model: &Hash) -> Origin {
        Origin::Node
    }

    /// Starts a sequence, or refuses at once. An engine that must be asked elsewhere refuses later,
    /// with [`EngineEvent::Failed`] as the first event: [`Self::begin`] waits for that.
    fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal>;

    /// Starts a sequence, or refuses, once the engine has looked at the request.
    fn begin(
        &self,
        request: EngineRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Sequence>, EngineRefusal>> {
        Box::pin(std::future::ready(self.start(request)))
    }

    /// Judges a text. Dropping the future cancels the work. An engine that cannot, refuses.
    fn score(&self, _request: ScoreRequest) -> BoxFuture<'_, Result<Scores, EngineRefusal>> {
        Box::pin(std::future::ready(Err(EngineRefusal::unsupported("judges no texts"))))
    }

    /// Turns a text into a vector. Dropping the future cancels the work. An engine that cannot,
    /// refuses.
    fn embed(
        &self,
        _request: EmbedRequest,
    ) -> BoxFuture<'_, Result<EmbeddingVector, EngineRefusal>> {
        Box::pin(std::future::ready(Err(EngineRefusal::unsupported("makes no vectors"))))
    }
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

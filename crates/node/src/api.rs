//! What a node can be asked: the contract between the node and everything in front of it.
//!
//! The gateway and the command line speak to a node through [`NodeApi`] and nothing else. The
//! values here know no HTTP. Every refusal has a stable code and a sentence (Rule N1).

pub mod blobs;
pub mod catalogue;

use std::path::PathBuf;
use std::sync::Arc;

use commons_port::engine::Token;
use commons_port::{BoxFuture, BoxStream};
use commons_record::constraint::ToolFormat;
use commons_record::mesh::Usage;
use commons_record::order::{PrivacyClass, Prompt, Sampling};
use commons_record::seed::SeedTranscript;
use commons_record::settlement::{EndReason, EngineClass, Scope};
use commons_record::{Credits, Hash, Millis, OwnerId, PeerId, RequestId};
use serde::{Deserialize, Serialize};

/// A running node, as its front rooms see it.
pub trait NodeApi: Send + Sync {
    /// Asks for an answer. Resolves once a provider has accepted, or no one will; dropping the
    /// answer's events cancels the work.
    fn ask(&self, ask: Ask) -> BoxFuture<'static, Result<Answer, Refusal>>;

    /// Models that can be asked for now, here and in the mesh, sorted by name.
    fn models(&self) -> BoxFuture<'static, Vec<ModelView>>;

    /// Adapters that this node's engines have, sorted by the name of their model and their own.
    fn adapters(&self) -> BoxFuture<'static, Vec<AdapterView>>;

    /// Takes in an adapter: it can be asked for once this resolves.
    fn add_adapter(&self, add: AdapterToAdd) -> BoxFuture<'static, Result<AdapterView, Refusal>>;

    /// Forgets an adapter. What is being computed with it is finished.
    fn remove_adapter(&self, id: String) -> BoxFuture<'static, Result<AdapterView, Refusal>>;

    /// What is published, and what names mean.
    fn catalogue(&self) -> Arc<dyn catalogue::CatalogueApi>;

    /// The files that this node holds, pulls and gives; none where it was built without a store.
    fn blobs(&self) -> Option<Arc<dyn blobs::BlobsApi>>;

    /// What this node is and how it stands.
    fn status(&self) -> BoxFuture<'static, StatusView>;

    /// The members of the mesh that this node knows.
    fn peers(&self) -> BoxFuture<'static, Vec<PeerView>>;

    /// Makes a ticket with which others can join.
    fn invite(&self, uses: u32) -> BoxFuture<'static, Result<InviteView, Refusal>>;

    /// Begins to join a mesh; the result of it shows in [`NodeApi::status`].
    fn join(&self, ticket: String) -> BoxFuture<'static, Result<JoinView, Refusal>>;

    /// Receipts that this node holds, newest first.
    fn receipts(&self, limit: usize) -> BoxFuture<'static, Result<Vec<ReceiptView>, Refusal>>;

    /// The evidence of one exchange, as the bytes of an evidence file. `id` names a receipt,
    /// an order or a request; an opened copy also holds salt and tokens.
    fn evidence(
        &self,
        id: String,
        opening: Opening,
    ) -> BoxFuture<'static, Result<Vec<u8>, Refusal>>;

    /// Why a request went where it went, or was refused. `id` as in [`NodeApi::evidence`].
    fn why(&self, id: String) -> BoxFuture<'static, Result<WhyView, Refusal>>;

    /// Counters since the start.
    fn counters(&self) -> Counters;
}

/// Whether a copy of evidence opens its salted hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// With salt and tokens: for one's own use.
    Include,
    /// Without: the copy can be given away and leaks no text.
    Omit,
}

/// A request for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// A model's name, or its hash in hexadecimal; with an adapter `MODEL+ADAPTER`, of which each
    /// may be a name or a hash.
    pub model: String,
    /// What to continue.
    pub prompt: Prompt,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The caller's own seed, if it gave one.
    pub seed: Option<i64>,
    /// The answer ends after this many tokens; none means as many as the context holds.
    pub completion_tokens_max: Option<u32>,
    /// How many alternatives to report with each token.
    pub top_logprobs: u8,
    /// How far the request may travel.
    pub class: PrivacyClass,
}

/// An answer that a provider has accepted to give.
pub struct Answer {
    /// Who answers, and with what.
    pub head: AnswerHead,
    /// The answer as it comes. Ends after [`AnswerEvent::Done`] or [`AnswerEvent::Failed`].
    pub events: BoxStream<'static, AnswerEvent>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Who answers, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerHead {
    /// The request.
    pub request: RequestId,
    /// The node that computes.
    pub peer: PeerId,
    /// `local` or `mesh`: how far the request went.
    pub scope: Scope,
    /// The recorded decision's hash.
    pub route: Hash,
    /// The model's name, with that of the adapter: `MODEL+ADAPTER`.
    pub model_name: String,
    /// The model's file.
    pub model: Hash,
    /// The adapter, if one is applied.
    pub adapter: Option<Hash>,
}

/// What an answer has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerEvent {
    /// The prompt was read.
    Prefilled {
        /// Its size, and how much of it was cached.
        usage: Usage,
        /// How calls are written in the answer's text; none where there were no tools.
        tool_format: Option<ToolFormat>,
    },
    /// The next token.
    Token(Token),
    /// The provider is alive and has nothing new: sent at least every second while it works.
    Heartbeat,
    /// The answer is complete, and its records are durable.
    Done(Box<AnswerEnd>),
    /// The answer broke off. What was delivered before stands and is recorded.
    Failed(Refusal),
}

/// How an answer ended, and what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerEnd {
    /// Why.
    pub reason: EndReason,
    /// Text that was held back and belongs to the answer.
    pub text: String,
    /// Tokens used.
    pub usage: Usage,
    /// What clients are told in `commons`.
    pub proof: AnswerProof,
}

/// The part of an answer that is evidence. It stands as `commons` in HTTP bodies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerProof {
    /// The request.
    pub request: RequestId,
    /// The receipt's record id; none if the provider did not give one in time.
    pub receipt: Option<Hash>,
    /// The node that computed.
    pub peer: PeerId,
    /// The model's file.
    pub model: Hash,
    /// Its quantisation.
    pub quantisation: String,
    /// The adapter that was applied, if one was.
    pub adapter: Option<Hash>,
    /// How its numbers were stored, by the receipt: `F16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_format: Option<String>,
    /// What computed it, by the receipt; none if the receipt did not come in time.
    pub class: Option<EngineClass>,
    /// What the seed was made of.
    pub seed: Option<SeedTranscript>,
}

/// Why a node does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal.
    pub code: RefusalCode,
    /// A sentence: what, why, and what to do.
    pub message: String,
    /// When it is worth trying again, if it is.
    pub retry_after_ms: Option<Millis>,
}

impl Refusal {
    /// A refusal with nothing to wait for.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }
}

/// The kinds of refusal; their names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefusalCode {
    /// Nobody in reach holds the model.
    ModelNotFound,
    /// Who holds the model does not have the adapter.
    AdapterNotFound,
    /// The request is malformed or asks for what does not exist.
    InvalidRequest,
    /// What the answer must look like cannot be understood, or is too much.
    InvalidConstraint,
    /// Prompt and answer do not fit the model's context.
    ContextLengthExceeded,
    /// The request is well-formed, and this version does not support it.
    Unsupported,
    /// The request's privacy class keeps it from everyone who could serve it.
    PrivacyClass,
    /// Everyone who could serve it is busy.
    Overloaded,
    /// Someone could serve it, and cannot be reached now.
    Unavailable,
    /// The provider broke off or broke the protocol.
    ProviderFailed,
    /// The deadline passed.
    DeadlineExceeded,
    /// This node cannot store the records that it must keep.
    StorageFailed,
    /// The node may not do this: it holds no authority's key.
    NotAuthority,
    /// The owner's rules, or a denylist that the owner subscribed to, do not allow it.
    Denied,
    /// There is no such record here.
    NotFound,
    /// The node is shutting down.
    ShuttingDown,
}

impl RefusalCode {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ModelNotFound => "model_not_found",
            Self::AdapterNotFound => "adapter_not_found",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidConstraint => "invalid_constraint",
            Self::ContextLengthExceeded => "context_length_exceeded",
            Self::Unsupported => "unsupported",
            Self::PrivacyClass => "privacy_class",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::ProviderFailed => "provider_failed",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::StorageFailed => "storage_failed",
            Self::NotAuthority => "not_authority",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// An adapter that an engine of this node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterView {
    /// What to ask for: `MODEL+ADAPTER`.
    pub id: String,
    /// The adapter's name.
    pub name: String,
    /// The hash of its file.
    pub adapter: Hash,
    /// The name of the model that it changes.
    pub model_name: String,
    /// The model's file.
    pub model: Hash,
    /// `lora`, `rslora` or `dora`.
    pub method: String,
    /// Its largest rank.
    pub rank: u32,
    /// How its numbers are stored while they are computed with.
    pub format: String,
    /// Its length in bytes.
    pub file_size: u64,
}

/// An adapter to take in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterToAdd {
    /// The file or folder, on the node's machine.
    pub path: PathBuf,
    /// The model that it changes, by name or hash; none means the one loaded model that it fits.
    #[serde(default)]
    pub model: Option<String>,
    /// What to call it; none means the name of the file or folder.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether its numbers are rounded to `Q8_0`.
    #[serde(default)]
    pub round: bool,
}

/// A model that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelView {
    /// The file's stem.
    pub name: String,
    /// The file's hash.
    pub model: Hash,
    /// `Q4_K_M`, `F16`.
    pub quantisation: String,
    /// Tokens of context.
    pub context_len: u32,
    /// Whether this node holds it.
    pub is_local: bool,
    /// The foreign engine that has it for this node, and where; none if nobody else does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The adapter that is applied, if this is a model with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Hash>,
    /// Peers that hold it.
    pub peers: Vec<PeerId>,
    /// When it became known here, in milliseconds of Unix time.
    pub since_unix_ms: Millis,
}

/// What a node is and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// This node.
    pub peer: PeerId,
    /// Its owner.
    pub owner: OwnerId,
    /// The program's version.
    pub version: String,
    /// The mesh.
    pub mesh: Hash,
    /// The mesh's name.
    pub mesh_name: String,
    /// Whether this node's owner is an authority of the mesh.
    pub is_authority: bool,
    /// Where it can be reached.
    pub addrs: Vec<String>,
    /// How a join is going, if one was asked for.
    pub join: Option<JoinView>,
    /// Members with a valid presence.
    pub peer_count: usize,
    /// Models held here.
    pub model_count: usize,
    /// Time since the start.
    pub uptime_ms: Millis,
}

/// How a join is going.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinView {
    /// The mesh to be joined.
    pub mesh: Hash,
    /// Its name.
    pub mesh_name: String,
    /// How far it is.
    pub state: JoinState,
}

/// How far a join is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinState {
    /// Trying; the last trouble, if there was any.
    Trying {
        /// What went wrong last.
        trouble: Option<String>,
    },
    /// A member.
    Joined,
    /// The inviter said no.
    Refused {
        /// Its reason.
        reason: String,
    },
}

/// A member of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// The node.
    pub peer: PeerId,
    /// Its owner.
    pub owner: OwnerId,
    /// Whether a connection stands.
    pub is_connected: bool,
    /// Names of its models.
    pub models: Vec<String>,
    /// How long its presence still holds.
    pub lease_left_ms: Millis,
    /// Measured time to first token, if it was measured.
    pub first_token_ms: Option<Millis>,
    /// Measured speed in millionths of a token a second, if it was measured.
    pub micro_tokens_per_s: Option<u64>,
}

/// An invite ticket and what it allows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteView {
    /// The ticket: a secret.
    pub ticket: String,
    /// How many owners can join with it.
    pub uses: u32,
    /// The mesh's name.
    pub mesh_name: String,
}

impl std::fmt::Debug for InviteView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InviteView").field("uses", &self.uses).finish_non_exhaustive()
    }
}

/// A receipt that this node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptView {
    /// Its record id.
    pub receipt: Hash,
    /// The order's record id.
    pub order: Hash,
    /// The request.
    pub request: RequestId,
    /// Which part this node had.
    pub role: Role,
    /// The other party.
    pub counterparty: PeerId,
    /// Local or mesh.
    pub scope: Scope,
    /// The model's file.
    pub model: Hash,
    /// The claimed work.
    pub usage: Usage,
    /// What is claimed.
    pub amount: Credits,
    /// Whether the requester acknowledged everything that was sent.
    pub acknowledged: bool,
    /// Why the answer ended.
    pub end: EndReason,
    /// When this node stored it, in milliseconds of Unix time.
    pub stored_unix_ms: Millis,
}

/// Which part a node had in an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It asked.
    Requester,
    /// It served.
    Provider,
    /// It did both.
    Both,
}

/// Why a request went where it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyView {
    /// The request.
    pub request: RequestId,
    /// One paragraph for people.
    pub summary: String,
    /// The recorded decisions, one for each attempt, as JSON.
    pub decisions: Vec<DecisionView>,
    /// How the exchange stands, if there was one.
    pub receipt: Option<Hash>,
}

/// A recorded decision and whether replaying it gives the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionView {
    /// The decision's hash.
    pub decision: Hash,
    /// Which attempt it was for.
    pub attempt: u32,
    /// Whether a replay of the recorded inputs gives the recorded outcome.
    pub is_reproduced: bool,
    /// The outcome, in words.
    pub outcome: String,
    /// Each candidate and what was held against it, in words.
    pub candidates: Vec<String>,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests that were asked of this node.
    pub asks: u64,
    /// Of these, refused or failed.
    pub asks_failed: u64,
    /// Orders from peers that were served.
    pub orders_served: u64,
    /// Orders from peers that were refused.
    pub orders_refused: u64,
    /// Tokens that this node computed.
    pub tokens_computed: u64,
    /// Tokens that this node received from peers.
    pub tokens_received: u64,
    /// Records that were made durable.
    pub records_stored: u64,
    /// Peers whose presence holds.
    pub peers: u64,
}

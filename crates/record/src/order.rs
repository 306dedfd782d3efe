//! An order: one attempt at one job by one provider, as the requester signs it.
//!
//! The text of the request is not in it. The order holds a salted hash of the canonical
//! [`Prompt`], which travels beside it, sealed to the provider.

use serde::{Deserialize, Serialize};

use crate::amount::{Credits, Micro, Millis};
use crate::codec;
use crate::constraint::{
    CALL_ID_LEN_MAX, CALLS_MAX, Constraint, ToolCall, Tools, is_function_name,
};
use crate::envelope::{InvalidBody, Record, Signer};
use crate::hash::Hash;
use crate::key::{PeerId, PublicKey, RequestId, Salt};
use crate::seed::{SeedMode, SeedTranscript};

/// One attempt to one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The request; hedges and resumes of it share the id.
    pub request: RequestId,
    /// Which attempt at the request this is, from 0.
    pub attempt: u32,
    /// Who asks.
    pub requester: Requester,
    /// Who is asked: nobody else may serve this order.
    pub provider: PeerId,
    /// What is asked for.
    pub job: Job,
    /// The policy whose prices apply.
    pub policy: Hash,
    /// The requester owes no more than this, whatever was done.
    pub price_ceiling: Credits,
    /// How the content may be used.
    pub privacy: Privacy,
    /// How long the provider has, counted from the order's arrival.
    pub deadline_ms: Millis,
    /// Where to go on, if another provider began.
    pub resume: Option<Resume>,
}

/// Who asks: a node, or a one-time key whose authority travels as the envelope's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Requester {
    /// A node in its own name.
    Node(PeerId),
    /// A key used for this order only.
    OneTime(PublicKey),
}

impl Requester {
    /// The key that must have signed the order.
    pub fn key(&self) -> PublicKey {
        match self {
            Self::Node(peer) => PublicKey::from(*peer),
            Self::OneTime(key) => *key,
        }
    }
}

/// What is asked for. Later kinds of work become later variants, under a new order version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Continue a text.
    Infer(Infer),
}

/// Continue a text with a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Infer {
    /// The base model, by the hash of its file.
    pub model: Hash,
    /// The adapter, by hash; none means the base alone, never a substitute.
    pub adapter: Option<Hash>,
    /// Salted hash of the canonical prompt: [`Prompt::commitment`].
    pub prompt: Hash,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Where the randomness comes from.
    pub seed: SeedMode,
    /// How much may be used.
    pub limits: Limits,
    /// How many alternatives to each token are reported.
    pub top_logprobs: u8,
}

/// Bounds on the work of one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The provider refuses a prompt that renders to more tokens.
    pub prompt_tokens_max: u32,
    /// The answer ends after this many tokens.
    pub completion_tokens_max: u32,
}

/// How tokens are drawn. Integers only (Rule R3); neutral values switch a step off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: Micro,
    /// Keep this many of the likeliest; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest until they hold this much probability; 1 keeps all.
    pub top_p: Micro,
    /// Keep what has this share of the likeliest's probability; 0 keeps all.
    pub min_p: Micro,
    /// Divides positive and multiplies negative logits of seen tokens; 1 is off.
    pub repetition_penalty: Micro,
    /// Taken from the logit of each token that the answer already has.
    pub presence_penalty: Micro,
    /// Taken from a token's logit for each time that the answer has it.
    pub frequency_penalty: Micro,
    /// Added to logits, strictly ascending by token.
    pub logit_bias: Vec<LogitBias>,
}

/// A change to one token's logit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogitBias {
    /// The token.
    pub token: u32,
    /// What is added.
    pub bias: Micro,
}

/// The OpenAI API takes about this many; a forward pass does not notice them.
pub const LOGIT_BIAS_MAX: usize = 1024;

/// The OpenAI API reports up to 20.
pub const TOP_LOGPROBS_MAX: u8 = 20;

impl Sampling {
    /// The likeliest token every time.
    pub fn greedy() -> Self {
        Self {
            temperature: Micro::ZERO,
            top_k: 0,
            top_p: Micro::ONE,
            min_p: Micro::ZERO,
            repetition_penalty: Micro::ONE,
            presence_penalty: Micro::ZERO,
            frequency_penalty: Micro::ZERO,
            logit_bias: Vec::new(),
        }
    }

    /// Checks ranges: the same ones that the HTTP API documents.
    pub fn check(&self) -> Result<(), InvalidBody> {
        let within = |value: Micro, low: i64, high: i64| {
            (low * 1_000_000..=high * 1_000_000).contains(&value.as_millionths())
        };
        InvalidBody::unless(within(self.temperature, 0, 2), "temperature", "is not in 0..=2")?;
        let top_p = self.top_p > Micro::ZERO && self.top_p <= Micro::ONE;
        InvalidBody::unless(top_p, "top_p", "is not above 0 and at most 1")?;
        InvalidBody::unless(within(self.min_p, 0, 1), "min_p", "is not in 0..=1")?;
        let repetition =
            self.repetition_penalty > Micro::ZERO && within(self.repetition_penalty, 0, 10);
        InvalidBody::unless(repetition, "repetition_penalty", "is not above 0 and at most 10")?;
        InvalidBody::unless(
            within(self.presence_penalty, -2, 2),
            "presence_penalty",
            "is not in -2..=2",
        )?;
        InvalidBody::unless(
            within(self.frequency_penalty, -2, 2),
            "frequency_penalty",
            "is not in -2..=2",
        )?;
        let bias = &self.logit_bias;
        InvalidBody::unless(bias.len() <= LOGIT_BIAS_MAX, "logit_bias", "has over 1024 entries")?;
        let is_sorted = bias.windows(2).all(|pair| pair[0].token < pair[1].token);
        InvalidBody::unless(is_sorted, "logit_bias", "is not strictly ascending by token")?;
        let is_within = bias.iter().all(|it| within(it.bias, -100, 100));
        InvalidBody::unless(is_within, "logit_bias", "has a bias outside -100..=100")
    }
}

/// How the content of a request may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    /// How far it may travel.
    pub class: PrivacyClass,
    /// Who may re-run it to check the provider.
    pub audit: AuditConsent,
    /// How long the provider may keep the text after the answer; 0 keeps none.
    pub retention_ms: Millis,
}

/// How far a request may travel: a hard filter before any scoring (Rule P1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum PrivacyClass {
    /// This node only.
    LocalOnly,
    /// Nodes on the same local network.
    Lan,
    /// Members of this mesh.
    #[default]
    Mesh,
    /// Anything that the owner's policy allows, a cloud included.
    Any,
}

impl PrivacyClass {
    /// The name in headers and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LocalOnly => "local-only",
            Self::Lan => "lan",
            Self::Mesh => "mesh",
            Self::Any => "any",
        }
    }

    /// The class of that name; an unknown name is no class at all, never a default.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::LocalOnly, Self::Lan, Self::Mesh, Self::Any]
            .into_iter()
            .find(|it| it.as_str() == name)
    }
}

/// Who may re-run a request to check its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditConsent {
    /// Nobody.
    None,
    /// The requester's own nodes.
    #[serde(rename = "self")]
    Own,
    /// Any auditor of the mesh.
    Mesh,
}

/// Going on where another provider stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The earlier order.
    pub order: Hash,
    /// Its seed, so that the answer goes on as it would have.
    pub seed: SeedTranscript,
    /// Root over the tokens that were received.
    pub prefix_root: Hash,
    /// How many those were.
    pub prefix_tokens: u32,
}

/// Answers longer than this are several requests; it also bounds a transcript in memory.
pub const COMPLETION_TOKENS_MAX: u32 = 131_072;

/// An order that waits longer than this is a batch job, which has its own kind.
pub const DEADLINE_MAX: Millis = Millis::from_secs(3_600);

impl Record for Order {
    const TYPE: &'static str = "commons/order/1";
    const SIGNER: Signer = Signer::Node;

    fn check(&self) -> Result<(), InvalidBody> {
        let Job::Infer(infer) = &self.job;
        infer.sampling.check()?;
        let is_within = (1..=COMPLETION_TOKENS_MAX).contains(&infer.limits.completion_tokens_max);
        InvalidBody::unless(is_within, "completion_tokens_max", "is not between 1 and 131072")?;
        let is_bounded = infer.top_logprobs <= TOP_LOGPROBS_MAX;
        InvalidBody::unless(is_bounded, "top_logprobs", "are more than 20")?;
        let is_within = (1..=DEADLINE_MAX.0).contains(&self.deadline_ms.0);
        InvalidBody::unless(is_within, "deadline_ms", "is 0 or over an hour")?;
        let prefix = self.resume.map_or(0, |resume| resume.prefix_tokens);
        let is_within = prefix < infer.limits.completion_tokens_max;
        InvalidBody::unless(is_within, "resume", "has nothing left to do")
    }
}

/// The text of a request in its canonical form. It travels sealed, never inside a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// What the model is to continue.
    pub input: PromptInput,
    /// The answer ends before any of these.
    pub stop: Vec<String>,
    /// What the answer must be; none lets it be anything.
    pub constraint: Option<Constraint>,
    /// The functions that the answer may call; none where there are none.
    pub tools: Option<Tools>,
}

/// What the model is to continue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptInput {
    /// A conversation, rendered by the model's own template.
    Chat(Vec<Message>),
    /// A text as it is.
    Text(String),
    /// Token ids as they are.
    Tokens(Vec<u32>),
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user`, `assistant`; templates know others.
    pub role: String,
    /// What was said; empty where a message only calls.
    pub content: String,
    /// The functions that it calls.
    pub tool_calls: Vec<ToolCall>,
    /// The call whose result it is.
    pub tool_call_id: Option<String>,
    /// The function whose result it is.
    pub name: Option<String>,
}

impl Message {
    /// A message that is a role and a text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }

    fn size(&self) -> usize {
        self.content.len() + self.tool_calls.iter().map(ToolCall::size).sum::<usize>()
    }

    fn check(&self) -> Result<(), InvalidBody> {
        let is_role = (1..=32).contains(&self.role.len());
        InvalidBody::unless(is_role, "role", "is empty or over 32 bytes")?;
        let is_bounded = self.tool_calls.len() <= CALLS_MAX;
        InvalidBody::unless(is_bounded, "tool_calls", "are over 128")?;
        self.tool_calls.iter().try_for_each(ToolCall::check)?;
        let is_id = |id: &String| (1..=CALL_ID_LEN_MAX).contains(&id.len());
        let is_id = self.tool_call_id.as_ref().is_none_or(is_id);
        InvalidBody::unless(is_id, "tool_call_id", "is empty or over 128 bytes")?;
        let is_name = self.name.as_ref().is_none_or(|name| is_function_name(name));
        InvalidBody::unless(is_name, "name", "is not 1 to 64 of a-zA-Z0-9_-")
    }
}

/// The OpenAI API allows four; sixteen leaves room for other dialects.
pub const STOP_MAX: usize = 16;

/// A stop string is a marker, not a text.
pub const STOP_LEN_MAX: usize = 256;

/// A conversation of more messages is cut by its application long before.
pub const MESSAGES_MAX: usize = 4096;

/// The encoded prompt: two bytes a token of the longest context that we serve, and room.
pub const PROMPT_SIZE_MAX: usize = 1024 * 1024;

impl Prompt {
    /// The salted hash that an order holds.
    pub fn commitment(&self, salt: &Salt) -> Hash {
        Hash::of_fields("commons/prompt/2", &[salt.as_bytes(), &codec::encode(self)])
    }

    /// Checks the bounds, and that there is something to continue.
    pub fn check(&self) -> Result<(), InvalidBody> {
        InvalidBody::unless(self.stop.len() <= STOP_MAX, "stop", "has over 16 strings")?;
        let are_bounded = self.stop.iter().all(|it| (1..=STOP_LEN_MAX).contains(&it.len()));
        InvalidBody::unless(are_bounded, "stop", "has a string that is empty or over 256 bytes")?;
        self.constraint.as_ref().map_or(Ok(()), Constraint::check)?;
        if let Some(tools) = &self.tools {
            tools.check()?;
            let is_chat = matches!(self.input, PromptInput::Chat(_));
            InvalidBody::unless(is_chat, "tools", "need a conversation")?;
        }
        match &self.input {
            PromptInput::Chat(messages) => {
                let is_bounded = (1..=MESSAGES_MAX).contains(&messages.len());
                InvalidBody::unless(is_bounded, "messages", "are none or over 4096")?;
                messages.iter().try_for_each(Message::check)?;
                let size = messages.iter().map(Message::size).sum::<usize>();
                InvalidBody::unless(size > 0, "messages", "are all empty")?;
                InvalidBody::unless(size <= PROMPT_SIZE_MAX, "messages", "are over 1 MiB")
            }
            PromptInput::Text(text) => {
                InvalidBody::unless(!text.is_empty(), "prompt", "is empty")?;
                InvalidBody::unless(text.len() <= PROMPT_SIZE_MAX, "prompt", "is over 1 MiB")
            }
            PromptInput::Tokens(tokens) => {
                InvalidBody::unless(!tokens.is_empty(), "prompt", "is empty")?;
                let is_bounded = tokens.len() <= PROMPT_SIZE_MAX / 5;
                InvalidBody::unless(is_bounded, "prompt", "has over 209715 tokens")
            }
        }
    }
}

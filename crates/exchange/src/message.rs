//! What the two sides of an exchange say to each other.
//!
//! Messages are strict DAG-CBOR inside sealed frames. Records inside them are the signed bytes
//! themselves, so that what is stored is what was sent.

use commons_port::engine::{EngineLoad, EngineRefusal, EngineRefusalCode, Token};
use commons_record::codec::{self, DecodeError};
use commons_record::constraint::ToolFormat;
use commons_record::mesh::Usage;
use commons_record::order::Prompt;
use commons_record::settlement::EndReason;
use commons_record::{Hash, Millis, Nonce, Salt};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::sealed::MESSAGE_SIZE_MAX;

/// From the requester.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToProvider {
    /// The first message of an exchange.
    Ask(Box<AskMessage>),
    /// Opens the commitment of the order.
    Reveal {
        /// The nonce.
        nonce: Nonce,
    },
    /// A signed voucher.
    Voucher {
        /// The record.
        record: ByteBuf,
    },
    /// The requester wants no more tokens.
    Cancel,
    /// The receipt is durable here.
    Stored {
        /// Its record id.
        receipt: Hash,
    },
}

/// An order, and what belongs to it but must not stand in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskMessage {
    /// The signed order.
    pub order: ByteBuf,
    /// The signed membership of the requester's owner.
    pub membership: ByteBuf,
    /// The salt of the order's hashes.
    pub salt: Salt,
    /// The prompt that the order commits to.
    pub prompt: Prompt,
}

/// From the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRequester {
    /// The order is durable and being worked on.
    Accepted {
        /// The provider's commitment, made before it can know the requester's nonce.
        commit: Hash,
        /// The signed manifest of the model.
        manifest: ByteBuf,
    },
    /// The order is not served.
    Refused(WireRefusal),
    /// The prompt was read.
    Prefilled {
        /// Tokens of the rendered prompt.
        prompt_tokens: u32,
        /// Of these, out of a cache.
        cached_tokens: u32,
        /// How calls are written in the answer's text; none where there were no tools.
        tool_format: Option<ToolFormat>,
    },
    /// The next tokens.
    Tokens(Vec<Token>),
    /// Still at work.
    Heartbeat,
    /// No more tokens follow.
    Finished {
        /// Why.
        reason: EndReason,
        /// Text that was held back and belongs to the answer.
        text: String,
        /// What was used, by the provider's count.
        usage: Usage,
    },
    /// The signed receipt.
    Receipt {
        /// The record.
        record: ByteBuf,
    },
    /// The provider cannot go on.
    Failed(WireRefusal),
}

/// A reason with a stable code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct WireRefusal {
    /// The code.
    pub code: WireCode,
    /// The sentence.
    pub message: String,
    /// When trying again makes sense, if it does.
    pub retry_after_ms: Option<Millis>,
}

/// An engine that ended is started again, and loads a model of a few gigabytes from memory, within
/// this.
const ENGINE_BACK_AFTER: Millis = Millis::from_secs(2);

/// A refusal's sentence fits a line or three; what is longer is cut.
const REFUSAL_LEN_MAX: usize = 500;

impl WireRefusal {
    /// A refusal with nothing to wait for.
    pub fn new(code: WireCode, message: impl AsRef<str>) -> Self {
        let message = message.as_ref().chars().take(REFUSAL_LEN_MAX).collect();
        Self { code, message, retry_after_ms: None }
    }

    /// Cuts what a peer wrote to a printable sentence.
    #[must_use]
    pub fn bounded(self) -> Self {
        let printable = self.message.chars().filter(|it| !it.is_control());
        Self { message: printable.take(REFUSAL_LEN_MAX).collect(), ..self }
    }
}

/// Why an order is refused or an exchange breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WireCode {
    /// A record is not valid, or does not fit the others.
    InvalidOrder,
    /// The requester's owner is no member of the mesh.
    NotAMember,
    /// The order is for another provider, or by another requester than the one who sends it.
    WrongParty,
    /// The order names a policy that is not in force.
    UnknownPolicy,
    /// The order was seen before.
    ReplayedOrder,
    /// The model is not here.
    UnknownModel,
    /// The adapter is not here.
    UnknownAdapter,
    /// The prompt cannot be used.
    InvalidPrompt,
    /// What the answer must look like cannot be understood, or is too much.
    InvalidConstraint,
    /// Prompt and answer do not fit.
    TooLong,
    /// The node's owner shares no compute.
    NotSharing,
    /// The privacy class keeps the order from this node.
    PrivacyClass,
    /// This version cannot do what is asked.
    Unsupported,
    /// Too much is waiting.
    Overloaded,
    /// The records cannot be stored.
    StorageFailed,
    /// The engine failed.
    EngineFailed,
    /// The engine is not there just now, and comes back by itself.
    Unavailable,
    /// The other side broke the protocol.
    ProtocolViolation,
    /// The other side was silent for too long.
    Silent,
    /// The deadline passed.
    Deadline,
    /// The stream ended before its time.
    Disconnected,
    /// The node is shutting down.
    ShuttingDown,
}

impl From<EngineRefusal> for WireRefusal {
    fn from(refusal: EngineRefusal) -> Self {
        let code = match refusal.code {
            EngineRefusalCode::UnknownModel => WireCode::UnknownModel,
            EngineRefusalCode::UnknownAdapter => WireCode::UnknownAdapter,
            EngineRefusalCode::InvalidPrompt => WireCode::InvalidPrompt,
            EngineRefusalCode::InvalidConstraint => WireCode::InvalidConstraint,
            EngineRefusalCode::TooLong => WireCode::TooLong,
            EngineRefusalCode::Unsupported => WireCode::Unsupported,
            EngineRefusalCode::Overloaded => WireCode::Overloaded,
            EngineRefusalCode::Unavailable => {
                let retry_after_ms = Some(ENGINE_BACK_AFTER);
                return Self {
                    retry_after_ms,
                    ..Self::new(WireCode::Unavailable, refusal.message)
                };
            }
            // The engine's enum may grow; what is not known here is a failure of the engine.
            _ => WireCode::EngineFailed,
        };
        Self::new(code, refusal.message)
    }
}

/// The load protocol: how busy is this model?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadQuestion {
    /// The model's file.
    pub model: Hash,
}

/// The answer to a [`LoadQuestion`]; none if the model is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadAnswer {
    /// How busy it is.
    pub load: Option<EngineLoad>,
}

/// The settle protocol: a record that the other side should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// A voucher or a receipt.
    pub record: ByteBuf,
}

/// The answer to an [`Offer`]. It need not be offered again, unless it was refused for now: with
/// [`WireCode::StorageFailed`] or [`WireCode::Overloaded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferAnswer {
    /// It is durable here.
    Stored,
    /// It is not wanted here.
    Refused(WireRefusal),
}

/// A value that is sent in one frame.
pub trait Message: Serialize + serde::de::DeserializeOwned {
    /// What it is called in errors.
    const NAME: &'static str;

    /// The canonical bytes.
    fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads canonical bytes.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(Self::NAME, bytes, MESSAGE_SIZE_MAX)
    }
}

impl Message for ToProvider {
    const NAME: &'static str = "message to a provider";
}

impl Message for ToRequester {
    const NAME: &'static str = "message to a requester";
}

impl Message for LoadQuestion {
    const NAME: &'static str = "load question";
}

impl Message for LoadAnswer {
    const NAME: &'static str = "load answer";
}

impl Message for Offer {
    const NAME: &'static str = "offer";
}

impl Message for OfferAnswer {
    const NAME: &'static str = "answer to an offer";
}

//! A request as it is meant: a question for the node, and how its answer is to be told.
//!
//! * `chat`, `completion`: the two dialects' bodies;
//! * `constraint`, `tools`: what the answer must look like, and what it may call;
//! * `message`: one message of a conversation;
//! * `sampling`: the numbers that both share.

mod chat;
mod completion;
mod constraint;
mod message;
mod sampling;
mod tools;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use commons_node::api::Ask;
use commons_record::order::{COMPLETION_TOKENS_MAX, PrivacyClass};

pub(crate) use chat::parse_chat;
pub(crate) use completion::parse_completion;

use crate::error::ApiError;
use crate::params::Params;

/// The header with which a caller says how far its request may travel.
const PRIVACY_HEADER: &str = "x-commons-privacy";

/// A model is named by a file's stem or a hash; no file system has longer names.
const MODEL_LEN_MAX: usize = 255;

/// A request as it is meant.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) ask: Ask,
    pub(crate) telling: Telling,
}

/// How an answer is to be told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Telling {
    pub(crate) dialect: Dialect,
    pub(crate) delivery: Delivery,
    pub(crate) wants_logprobs: bool,
    /// Whether the answer may call functions.
    pub(crate) has_tools: bool,
}

/// Whose words are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// All at once, or as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Stream(StreamUsage),
}

/// Whether a stream ends with a chunk that counts tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamUsage {
    Tell,
    Omit,
}

/// How far a request may travel, from its header. An unknown class is refused: a misspelt
/// `local-only` must not become a request to the mesh.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Class(pub(crate) PrivacyClass);

impl<S: Sync> FromRequestParts<S> for Class {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all(PRIVACY_HEADER).iter();
        let class = match (values.next(), values.next()) {
            (None, _) => Some(PrivacyClass::default()),
            (Some(value), None) => value.to_str().ok().and_then(PrivacyClass::from_name),
            (Some(_), Some(_)) => None,
        };
        let wrong = || {
            let message =
                format!("`{PRIVACY_HEADER}` must be one of local-only, lan, mesh and any");
            ApiError::invalid("invalid_value", message).about(PRIVACY_HEADER)
        };
        class.map(Self).ok_or_else(wrong)
    }
}

fn take_model(params: &mut Params) -> Result<String, ApiError> {
    let model: String = params.require("model", "a string")?;
    if model.is_empty() || model.len() > MODEL_LEN_MAX {
        return Err(params.invalid("model", "is empty or over 255 bytes"));
    }
    Ok(model)
}

fn take_delivery(params: &mut Params) -> Result<Delivery, ApiError> {
    let is_stream = params.take("stream", "true or false")?.unwrap_or(false);
    let options = params.take_raw("stream_options");
    match (is_stream, options) {
        (false, None) => Ok(Delivery::Whole),
        (true, None) => Ok(Delivery::Stream(StreamUsage::Omit)),
        (false, Some(_)) => Err(params.invalid("stream_options", "needs `stream` to be true")),
        (true, Some(raw)) => {
            let mut options = Params::parse(raw.get(), "stream_options")?;
            let is_usage = options.take("include_usage", "true or false")?.unwrap_or(false);
            // Padding against eavesdroppers who count bytes: promised by no one here.
            options.refuse_unless("include_obfuscation", &["false"])?;
            options.finish()?;
            Ok(Delivery::Stream(if is_usage { StreamUsage::Tell } else { StreamUsage::Omit }))
        }
    }
}

fn take_limit(params: &mut Params, name: &str) -> Result<Option<u32>, ApiError> {
    let limit = params.take(name, "a whole number of 32 bits")?;
    if limit.is_some_and(|limit| !(1..=COMPLETION_TOKENS_MAX).contains(&limit)) {
        return Err(params.invalid(name, "is not between 1 and 131072"));
    }
    Ok(limit)
}

/// `stop`: a string, or a list of them.
fn take_stop(params: &mut Params) -> Result<Vec<String>, ApiError> {
    let expected = "a string or a list of strings";
    let Some(raw) = params.take_raw("stop") else { return Ok(Vec::new()) };
    let wrong = |_| crate::params::wrong_type("stop", expected);
    if raw.get().starts_with('"') {
        serde_json::from_str(raw.get()).map(|stop| vec![stop]).map_err(wrong)
    } else {
        serde_json::from_str(raw.get()).map_err(wrong)
    }
}

/// Parameters that say something about the caller or the bill, and nothing about the answer.
fn take_harmless(params: &mut Params) -> Result<(), ApiError> {
    for name in ["user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"] {
        params.take::<String>(name, "a string")?;
    }
    Ok(())
}

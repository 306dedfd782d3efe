//! One event of an answer as servers send it: the published shape, and what some add.
//!
//! Everything is optional and unknown fields are passed over: what is missed is decided in
//! `answer.rs`. Numbers that a server could lie about are kept as they came.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One event.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) model: Option<String>,
    #[serde(default)]
    pub(crate) choices: Vec<Choice>,
    pub(crate) usage: Option<Usage>,
    pub(crate) error: Option<Value>,
    /// vLLM, chat: the rendered prompt.
    pub(crate) prompt_token_ids: Option<Vec<u32>>,
    /// llama-server.
    pub(crate) timings: Option<Timings>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Choice {
    #[serde(default)]
    pub(crate) index: u64,
    pub(crate) delta: Option<Delta>,
    pub(crate) text: Option<String>,
    pub(crate) finish_reason: Option<String>,
    /// vLLM: the stop string that was found, or the id of a token that ends.
    pub(crate) stop_reason: Option<Value>,
    pub(crate) logprobs: Option<Logprobs>,
    /// vLLM.
    pub(crate) token_ids: Option<Vec<u32>>,
    /// vLLM, completions.
    pub(crate) prompt_token_ids: Option<Vec<u32>>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Delta {
    pub(crate) content: Option<String>,
    /// What a model thinks before it answers, where a server tells it apart.
    #[serde(alias = "reasoning")]
    pub(crate) reasoning_content: Option<String>,
    pub(crate) tool_calls: Option<Value>,
    pub(crate) function_call: Option<Value>,
    pub(crate) refusal: Option<String>,
}

/// Log-probabilities by text; some servers leave one out.
type Alternatives = BTreeMap<String, Option<f64>>;

/// Both shapes: of chats and of completions.
#[derive(Debug, Default, Deserialize)]
#[expect(clippy::struct_field_names, reason = "as the API calls them")]
pub(crate) struct Logprobs {
    pub(crate) content: Option<Vec<Scored>>,
    pub(crate) tokens: Option<Vec<String>>,
    pub(crate) token_logprobs: Option<Vec<Option<f64>>>,
    pub(crate) top_logprobs: Option<Vec<Option<Alternatives>>>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Scored {
    #[serde(default)]
    pub(crate) token: String,
    pub(crate) logprob: Option<f64>,
    /// llama-server.
    pub(crate) id: Option<u32>,
    #[serde(default)]
    pub(crate) top_logprobs: Vec<Scored>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: Option<Value>,
    pub(crate) completion_tokens: Option<Value>,
    pub(crate) prompt_tokens_details: Option<Details>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Details {
    pub(crate) cached_tokens: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Timings {
    pub(crate) prompt_n: Option<Value>,
    pub(crate) cache_n: Option<Value>,
}

/// A count, if it is one: neither negative nor a fraction nor beyond all bounds.
pub(crate) fn count(value: Option<&Value>) -> Option<u32> {
    u32::try_from(value?.as_u64()?).ok()
}

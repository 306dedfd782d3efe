//! The body of `POST /v1/completions`.

use commons_node::api::Ask;
use commons_record::order::{PrivacyClass, Prompt, PromptInput, TOP_LOGPROBS_MAX};
use serde::Deserialize;

use crate::call::{
    Call, Dialect, Telling, constraint, sampling, take_delivery, take_harmless, take_limit,
    take_model, take_stop,
};
use crate::error::ApiError;
use crate::params::{Params, wrong_type};

/// The published default of `max_tokens` for this route; chat has none.
const TOKENS_MAX_DEFAULT: u32 = 16;

/// Parameters that would change the answer, each with the values that change nothing.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("best_of", &["1"]),
    ("echo", &["false"]),
    ("guided_grammar", &[]),
    ("n", &["1"]),
    ("suffix", &[r#""""#]),
];

/// Reads a body into a question.
pub(crate) fn parse_completion(text: &str, class: PrivacyClass) -> Result<Call, ApiError> {
    let mut params = Params::parse(text, "")?;
    let model = take_model(&mut params)?;
    let input = take_prompt(&mut params)?;
    for (name, neutral) in UNSUPPORTED {
        params.refuse_unless(name, neutral)?;
    }
    let constraint = constraint::take_constraint(&mut params)?;
    let sampling = sampling::take_sampling(&mut params)?;
    let seed = params.take("seed", "an integer of 64 bits")?;
    let stop = take_stop(&mut params)?;
    let tokens_max = take_limit(&mut params, "max_tokens")?.unwrap_or(TOKENS_MAX_DEFAULT);
    let logprobs: Option<u8> = params.take("logprobs", "a whole number between 0 and 20")?;
    if logprobs.is_some_and(|top| top > TOP_LOGPROBS_MAX) {
        return Err(params.invalid("logprobs", "is over 20"));
    }
    let delivery = take_delivery(&mut params)?;
    take_harmless(&mut params)?;
    params.finish()?;

    let prompt = Prompt { input, stop, constraint, tools: None };
    prompt.check()?;
    let ask = Ask {
        model,
        prompt,
        sampling,
        seed,
        completion_tokens_max: Some(tokens_max),
        top_logprobs: logprobs.unwrap_or(0),
        class,
    };
    let wants_logprobs = logprobs.is_some();
    let telling = Telling { dialect: Dialect::Text, delivery, wants_logprobs, has_tools: false };
    Ok(Call { ask, telling })
}

/// A prompt in each of its published forms.
#[derive(Deserialize)]
#[serde(untagged)]
enum PromptParam {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

/// One prompt, bare or in a list of one.
fn take_prompt(params: &mut Params) -> Result<PromptInput, ApiError> {
    let Some(raw) = params.take_raw("prompt") else { return Err(params.missing("prompt")) };
    let expected = "a string, a list of token ids, or a list of one of these";
    let prompt = serde_json::from_str(raw.get()).map_err(|_| wrong_type("prompt", expected))?;
    let one = match prompt {
        PromptParam::Text(text) => Some(PromptInput::Text(text)),
        PromptParam::Tokens(tokens) => Some(PromptInput::Tokens(tokens)),
        PromptParam::Texts(texts) => only(texts).map(PromptInput::Text),
        PromptParam::TokenLists(lists) => only(lists).map(PromptInput::Tokens),
    };
    one.ok_or_else(|| {
        let message = "`prompt` holds several prompts, which is not supported; send one at a time";
        ApiError::invalid("unsupported_parameter", message).about("prompt")
    })
}

fn only<T>(mut list: Vec<T>) -> Option<T> {
    if list.len() == 1 { list.pop() } else { None }
}

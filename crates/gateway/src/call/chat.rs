//! The body of `POST /v1/chat/completions`.

use std::collections::BTreeMap;

use commons_node::api::Ask;
use commons_record::order::{PrivacyClass, Prompt, PromptInput, TOP_LOGPROBS_MAX};

use crate::call::{
    Call, Dialect, Telling, message, sampling, take_delivery, take_harmless, take_limit,
    take_model, take_stop,
};
use crate::error::ApiError;
use crate::params::Params;

/// Parameters that would change the answer, each with the values that change nothing.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("audio", &[]),
    ("function_call", &[r#""none""#]),
    ("functions", &["[]"]),
    ("modalities", &[r#"["text"]"#]),
    ("moderation", &[]),
    ("n", &["1"]),
    // Without tools there are no calls to be parallel.
    ("parallel_tool_calls", &["true", "false"]),
    ("prediction", &[]),
    ("prompt_cache_options", &[]),
    ("reasoning_effort", &[]),
    ("response_format", &[r#"{"type":"text"}"#]),
    ("service_tier", &[r#""auto""#, r#""default""#]),
    ("store", &["false"]),
    ("tool_choice", &[r#""none""#]),
    ("tools", &["[]"]),
    ("verbosity", &[r#""medium""#]),
    ("web_search_options", &[]),
];

/// Reads a body into a question.
pub(crate) fn parse_chat(text: &str, class: PrivacyClass) -> Result<Call, ApiError> {
    let mut params = Params::parse(text, "")?;
    let model = take_model(&mut params)?;
    let messages = message::take_messages(&mut params)?;
    for (name, neutral) in UNSUPPORTED {
        params.refuse_unless(name, neutral)?;
    }
    let sampling = sampling::take_sampling(&mut params)?;
    let seed = params.take("seed", "an integer of 64 bits")?;
    let stop = take_stop(&mut params)?;
    let completion_tokens_max = take_tokens_max(&mut params)?;
    let (wants_logprobs, top_logprobs) = take_logprobs(&mut params)?;
    let delivery = take_delivery(&mut params)?;
    take_harmless(&mut params)?;
    params.take::<BTreeMap<String, String>>("metadata", "an object of strings")?;
    params.finish()?;

    let prompt = Prompt { input: PromptInput::Chat(messages), stop };
    prompt.check()?;
    let ask = Ask { model, prompt, sampling, seed, completion_tokens_max, top_logprobs, class };
    Ok(Call { ask, telling: Telling { dialect: Dialect::Chat, delivery, wants_logprobs } })
}

/// The old name and the new one mean the same, so they must say the same.
fn take_tokens_max(params: &mut Params) -> Result<Option<u32>, ApiError> {
    let new = take_limit(params, "max_completion_tokens")?;
    let old = take_limit(params, "max_tokens")?;
    match (new, old) {
        (Some(new), Some(old)) if new != old => {
            Err(params.invalid("max_tokens", "differs from `max_completion_tokens`"))
        }
        (new, old) => Ok(new.or(old)),
    }
}

fn take_logprobs(params: &mut Params) -> Result<(bool, u8), ApiError> {
    let wants = params.take("logprobs", "true or false")?.unwrap_or(false);
    let top: Option<u8> = params.take("top_logprobs", "a whole number between 0 and 20")?;
    match top {
        Some(top) if top > TOP_LOGPROBS_MAX => Err(params.invalid("top_logprobs", "is over 20")),
        Some(top) if top > 0 && !wants => {
            Err(params.invalid("top_logprobs", "needs `logprobs` to be true"))
        }
        top => Ok((wants, top.unwrap_or(0))),
    }
}

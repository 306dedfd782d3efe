//! The body of `POST /v1/chat/completions`.

use std::collections::BTreeMap;

use commons_node::api::Ask;
use commons_record::order::{PrivacyClass, Prompt, PromptInput, TOP_LOGPROBS_MAX};

use crate::call::{
    Call, Dialect, Telling, constraint, message, sampling, take_delivery, take_harmless,
    take_limit, take_model, take_stop, tools,
};
use crate::error::ApiError;
use crate::params::Params;

/// Parameters that would change the answer, each with the values that change nothing.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("audio", &[]),
    ("function_call", &[r#""none""#]),
    ("functions", &["[]"]),
    ("guided_grammar", &[]),
    ("modalities", &[r#"["text"]"#]),
    ("moderation", &[]),
    ("n", &["1"]),
    ("prediction", &[]),
    ("prompt_cache_options", &[]),
    ("reasoning_effort", &[]),
    ("service_tier", &[r#""auto""#, r#""default""#]),
    ("store", &["false"]),
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
    let constraint = constraint::take_constraint(&mut params)?;
    let tools = tools::take_tools(&mut params)?;
    let sampling = sampling::take_sampling(&mut params)?;
    let seed = params.take("seed", "an integer of 64 bits")?;
    let stop = take_stop(&mut params)?;
    let completion_tokens_max = take_tokens_max(&mut params)?;
    let (wants_logprobs, top_logprobs) = take_logprobs(&mut params)?;
    let delivery = take_delivery(&mut params)?;
    take_harmless(&mut params)?;
    params.take::<BTreeMap<String, String>>("metadata", "an object of strings")?;
    params.finish()?;

    let prompt = Prompt { input: PromptInput::Chat(messages), stop, constraint, tools };
    prompt.check()?;
    let has_tools = prompt.tools.is_some();
    let ask = Ask { model, prompt, sampling, seed, completion_tokens_max, top_logprobs, class };
    let telling = Telling { dialect: Dialect::Chat, delivery, wants_logprobs, has_tools };
    Ok(Call { ask, telling })
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

//! How tokens are drawn: the numbers that both dialects share.
//!
//! OpenAI's names and defaults, and the four that open engines add: `top_k`, `min_p`,
//! `repetition_penalty` and a `logit_bias` for any token.

use std::collections::BTreeMap;

use commons_record::Micro;
use commons_record::order::{LogitBias, Sampling};
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::params::{Params, parse_micro};

/// Takes all of them and checks their ranges.
pub(super) fn take_sampling(params: &mut Params) -> Result<Sampling, ApiError> {
    let sampling = Sampling {
        temperature: params.take_micro("temperature")?.unwrap_or(Micro::ONE),
        top_k: params.take("top_k", "a whole number of 32 bits; 0 keeps all")?.unwrap_or(0),
        top_p: params.take_micro("top_p")?.unwrap_or(Micro::ONE),
        min_p: params.take_micro("min_p")?.unwrap_or(Micro::ZERO),
        repetition_penalty: params.take_micro("repetition_penalty")?.unwrap_or(Micro::ONE),
        presence_penalty: params.take_micro("presence_penalty")?.unwrap_or(Micro::ZERO),
        frequency_penalty: params.take_micro("frequency_penalty")?.unwrap_or(Micro::ZERO),
        logit_bias: take_logit_bias(params)?,
    };
    sampling.check()?;
    Ok(sampling)
}

/// `{"50256": -100}`, sorted by token.
fn take_logit_bias(params: &mut Params) -> Result<Vec<LogitBias>, ApiError> {
    let expected = "an object of token ids and numbers";
    let Some(biases) = params.take::<BTreeMap<String, Box<RawValue>>>("logit_bias", expected)?
    else {
        return Ok(Vec::new());
    };
    let mut logit_bias = Vec::with_capacity(biases.len());
    for (key, raw) in biases {
        // One spelling for each token: `7` and `07` could disagree.
        let token = key.parse().ok().filter(|token: &u32| token.to_string() == key);
        let Some(token) = token else {
            return Err(params.invalid("logit_bias", "has a key that is no token id"));
        };
        logit_bias.push(LogitBias { token, bias: parse_micro(raw.get(), "logit_bias")? });
    }
    logit_bias.sort_unstable_by_key(|it| it.token);
    Ok(logit_bias)
}

//! Requests on their way in: rendered, encoded and checked on the caller's thread.

use commons_port::engine::{
    Caller, EmbedRequest, EngineRefusal, EngineRefusalCode, EngineRequest, Pooling, Priority,
    ScoreRequest,
};
use commons_record::hash::FieldHasher;
use commons_record::order::{PromptInput, Sampling};
use commons_schedule::{self as schedule, Ask, CallerId, PrefixKey, SequenceId, Sharing, Work};
use commons_verify::sampling::Sampler;

use crate::model::Model;
use crate::settings::{self, ModelKind};

/// A request that passed all checks but the queue's.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) prompt: Vec<u32>,
    pub(super) positions_max: usize,
    pub(super) work: Work,
}

/// A request to continue a text.
pub(super) fn check_answer(
    model: &Model,
    request: &EngineRequest,
    context_len: usize,
) -> Result<Checked, EngineRefusal> {
    if model.transformer().settings().kind == ModelKind::Encoder {
        let message = format!("{} turns text into vectors and continues none", model.facts().name);
        return Err(refuse(EngineRefusalCode::Unsupported, message));
    }
    let prompt = encode(model, &request.input)?;
    let limit = request.prompt_tokens_max as usize;
    if prompt.len() > limit {
        let message = format!("the prompt has {} tokens, the request allows {limit}", prompt.len());
        return Err(refuse(EngineRefusalCode::TooLong, message));
    }
    if request.completion_tokens_max == 0 {
        let message = "an answer of 0 tokens was asked for; ask for 1 or more".to_owned();
        return Err(refuse(EngineRefusalCode::InvalidPrompt, message));
    }
    // At least one token of the answer must fit. A longer answer ends where the context does.
    let room = room_for(model, prompt.len(), context_len)?;
    let output_len_max = request.completion_tokens_max.min(room);
    // Found now rather than after the prompt: settings that make no sampler.
    make_sampler(model, request, &prompt, Some([0; 32]))?;
    let positions_max = prompt.len() + output_len_max as usize;
    Ok(Checked { prompt, positions_max, work: Work::Generate { output_len_max } })
}

/// A request to judge a text, and what judges it.
pub(super) fn check_score(
    model: &Model,
    request: &ScoreRequest,
    context_len: usize,
) -> Result<(Checked, Sampler), EngineRefusal> {
    if model.transformer().settings().kind == ModelKind::Encoder {
        let message = format!("{} turns text into vectors and judges none", model.facts().name);
        return Err(refuse(EngineRefusalCode::Unsupported, message));
    }
    let prompt = encode(model, &request.input)?;
    let from = request.from as usize;
    if from > prompt.len() {
        let message = format!("token {from} is asked for, the text has {}", prompt.len());
        return Err(refuse(EngineRefusalCode::InvalidPrompt, message));
    }
    check_fits(model, prompt.len(), context_len)?;
    let greedy = Sampling::greedy();
    let (sampling, seed) = match &request.replay {
        Some(replay) => (&replay.sampling, replay.seed),
        None => (&greedy, None),
    };
    let invalid = |error: &dyn std::error::Error| invalid(error);
    let sampler = Sampler::new(sampling, seed).map_err(|error| invalid(&error))?;
    let mut sampler = sampler.with_top(request.top_logprobs).map_err(|error| invalid(&error))?;
    let count = model.tokenizer().token_count();
    sampler.check_vocabulary(count).map_err(|error| invalid(&error))?;
    sampler.observe_prompt(&prompt[..from]);
    let first = u32::try_from(from.max(1) - 1).unwrap_or(u32::MAX);
    let positions_max = prompt.len();
    Ok((Checked { prompt, positions_max, work: Work::Score { from: first } }, sampler))
}

/// A request for a vector, and how its rows become one.
pub(super) fn check_embed(
    model: &Model,
    request: &EmbedRequest,
    context_len: usize,
) -> Result<(Checked, Pooling), EngineRefusal> {
    let prompt = encode_whole(model, &request.input)?;
    check_fits(model, prompt.len(), context_len)?;
    let own = match model.transformer().settings().pooling {
        Some(settings::Pooling::Cls) => Pooling::Cls,
        Some(settings::Pooling::Last) => Pooling::Last,
        Some(settings::Pooling::Mean) | None => Pooling::Mean,
    };
    let positions_max = prompt.len();
    let checked = Checked { prompt, positions_max, work: Work::Embed };
    Ok((checked, request.pooling.unwrap_or(own)))
}

/// What the scheduler needs to know of a request.
pub(super) fn ask(id: SequenceId, model: &Model, caller: &Caller, checked: Checked) -> Ask {
    Ask {
        id,
        caller: CallerId(*caller.key.as_bytes()),
        priority: match caller.priority {
            Priority::Owner => schedule::Priority::Owner,
            Priority::Normal => schedule::Priority::Normal,
            Priority::Background => schedule::Priority::Background,
        },
        prompt: checked.prompt,
        work: checked.work,
        context_len_max: u32::try_from(checked.positions_max).unwrap_or(u32::MAX),
        prefix_key: prefix_key(model, checked.positions_max),
        sharing: if caller.shares_prefixes { Sharing::Shared } else { Sharing::Private },
        drafting: schedule::Drafting::Ngram,
        is_revealed: true,
    }
}

/// What besides tokens decides what a position holds.
fn prefix_key(model: &Model, positions_max: usize) -> PrefixKey {
    let ropes = &model.transformer().settings().ropes;
    let is_long = |rope: &settings::RopeSettings| {
        rope.long.as_ref().is_some_and(|long| positions_max > long.beyond)
    };
    let mut hasher = FieldHasher::new("commons/prefix/1");
    hasher.field(model.facts().model.as_bytes());
    hasher.field(&[u8::from(ropes.iter().any(is_long))]);
    PrefixKey(*hasher.finish().as_bytes())
}

/// A text that is complete: nothing is to come behind it.
fn encode_whole(model: &Model, input: &PromptInput) -> Result<Vec<u32>, EngineRefusal> {
    match input {
        PromptInput::Text(text) => {
            let ids = model.tokenizer().encode_whole(text).map_err(|error| invalid(&error))?;
            encode(model, &PromptInput::Tokens(ids))
        }
        PromptInput::Chat(_) | PromptInput::Tokens(_) => encode(model, input),
    }
}

fn encode(model: &Model, input: &PromptInput) -> Result<Vec<u32>, EngineRefusal> {
    let ids = match input {
        PromptInput::Chat(messages) => {
            let template = model.template().map_err(|error| invalid(error))?;
            template.encode(model.tokenizer(), messages).map_err(|error| invalid(&error))?
        }
        PromptInput::Text(text) => {
            model.tokenizer().encode_prompt(text).map_err(|error| invalid(&error))?
        }
        PromptInput::Tokens(ids) => ids.clone(),
    };
    let count = model.tokenizer().token_count();
    if let Some(id) = ids.iter().find(|&&id| id as usize >= count) {
        let message = format!("token {id} of the prompt is not in the vocabulary of {count}");
        return Err(refuse(EngineRefusalCode::InvalidPrompt, message));
    }
    if ids.is_empty() {
        let message = "the prompt is empty; give the model something to continue".to_owned();
        return Err(refuse(EngineRefusalCode::InvalidPrompt, message));
    }
    Ok(ids)
}

/// How many tokens fit behind a prompt: at least one.
fn room_for(model: &Model, count: usize, context_len: usize) -> Result<u32, EngineRefusal> {
    match context_len.saturating_sub(count) {
        0 => Err(too_long(model, count, context_len)),
        room => Ok(u32::try_from(room).unwrap_or(u32::MAX)),
    }
}

fn check_fits(model: &Model, count: usize, context_len: usize) -> Result<(), EngineRefusal> {
    if count > context_len { Err(too_long(model, count, context_len)) } else { Ok(()) }
}

fn too_long(model: &Model, count: usize, context_len: usize) -> EngineRefusal {
    let message = format!(
        "the prompt has {count} tokens and the context of {} has {context_len}; shorten it",
        model.facts().name
    );
    refuse(EngineRefusalCode::TooLong, message)
}

pub(super) fn make_sampler(
    model: &Model,
    request: &EngineRequest,
    prompt: &[u32],
    seed: Option<[u8; 32]>,
) -> Result<Sampler, EngineRefusal> {
    let sampler = Sampler::new(&request.sampling, seed).map_err(|error| invalid(&error))?;
    let mut sampler = sampler.with_top(request.top_logprobs).map_err(|error| invalid(&error))?;
    let count = model.tokenizer().token_count();
    sampler.check_vocabulary(count).map_err(|error| invalid(&error))?;
    sampler.observe_prompt(prompt);
    Ok(sampler)
}

pub(super) fn refuse(code: EngineRefusalCode, message: String) -> EngineRefusal {
    EngineRefusal { code, message }
}

fn invalid(error: &dyn std::error::Error) -> EngineRefusal {
    refuse(EngineRefusalCode::InvalidPrompt, chain(error))
}

/// An error and all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

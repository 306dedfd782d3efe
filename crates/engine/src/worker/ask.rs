//! Requests on their way in: rendered, encoded and checked on the caller's thread.

use std::sync::Arc;

use commons_port::engine::{
    Caller, EmbedRequest, EngineRefusal, EngineRefusalCode, EngineRequest, Pooling, Priority,
    ScoreRequest,
};
use commons_record::Hash;
use commons_record::constraint::{Constraint, ToolFormat, Tools};
use commons_record::hash::FieldHasher;
use commons_record::order::{PromptInput, Sampling};
use commons_schedule::{self as schedule, Ask, CallerId, PrefixKey, SequenceId, Sharing, Work};
use commons_verify::sampling::Sampler;

use crate::adapter::Registered;
use crate::grammar::tools::{Calls, plain};
use crate::grammar::{GrammarError, Guide};
use crate::model::Model;
use crate::settings::{self, ModelKind};

/// A request that passed all checks but the queue's.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) prompt: Vec<u32>,
    pub(super) positions_max: usize,
    pub(super) work: Work,
    /// What the answer is held to, if to anything.
    pub(super) shape: Shape,
}

/// What an answer is held to.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) guide: Option<Guide>,
    /// How the model writes calls, where it may make any.
    pub(super) calls: Option<Calls>,
}

/// The adapter that a request names: registered for the model, or an error and never the base.
pub(super) fn find_adapter(
    model: &Model,
    adapter: Option<&Hash>,
) -> Result<Option<Arc<Registered>>, EngineRefusal> {
    let Some(adapter) = adapter else { return Ok(None) };
    let found = model.adapters().find(adapter);
    found.map(Some).ok_or_else(|| {
        let message = format!(
            "adapter {adapter} is not registered for {}; add it, or ask another node",
            model.facts().name
        );
        refuse(EngineRefusalCode::UnknownAdapter, message)
    })
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
    let asked = Asked { constraint: request.constraint.as_ref(), tools: request.tools.as_ref() };
    let prompt = encode(model, &request.input, asked.tools)?;
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
    let shape = shape(model, asked)?;
    let positions_max = prompt.len() + output_len_max as usize;
    Ok(Checked { prompt, positions_max, work: Work::Generate { output_len_max }, shape })
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
    let prompt = encode(model, &request.input, None)?;
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
    let asked = request.replay.as_ref().map_or_else(Asked::default, |replay| Asked {
        constraint: replay.constraint.as_ref(),
        tools: replay.tools.as_ref(),
    });
    let (shape, positions_max) = (shape(model, asked)?, prompt.len());
    Ok((Checked { prompt, positions_max, work: Work::Score { from: first }, shape }, sampler))
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
    let checked = Checked { prompt, positions_max, work: Work::Embed, shape: Shape::default() };
    Ok((checked, request.pooling.unwrap_or(own)))
}

/// What the scheduler needs to know of a request.
pub(super) fn ask(
    id: SequenceId,
    (model, adapter): (&Model, Option<&Registered>),
    caller: &Caller,
    checked: Checked,
) -> Ask {
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
        prefix_key: prefix_key(model, adapter, checked.positions_max),
        sharing: if caller.shares_prefixes { Sharing::Shared } else { Sharing::Private },
        drafting: schedule::Drafting::Ngram,
        is_revealed: true,
    }
}

/// What besides tokens decides what a position holds.
fn prefix_key(model: &Model, adapter: Option<&Registered>, positions_max: usize) -> PrefixKey {
    let ropes = &model.transformer().settings().ropes;
    let is_long = |rope: &settings::RopeSettings| {
        rope.long.as_ref().is_some_and(|long| positions_max > long.beyond)
    };
    let mut hasher = FieldHasher::new("commons/prefix/1");
    hasher.field(model.facts().model.as_bytes());
    hasher.field(&[u8::from(ropes.iter().any(is_long))]);
    // Keys and values under an adapter, and under each storage of it, are other numbers.
    let facts = adapter.map(Registered::facts);
    hasher.field(facts.map_or(&[][..], |it| it.adapter.as_bytes()));
    hasher.field(facts.map_or(&[][..], |it| it.format.as_bytes()));
    PrefixKey(*hasher.finish().as_bytes())
}

/// A text that is complete: nothing is to come behind it.
fn encode_whole(model: &Model, input: &PromptInput) -> Result<Vec<u32>, EngineRefusal> {
    match input {
        PromptInput::Text(text) => {
            let ids = model.tokenizer().encode_whole(text).map_err(|error| invalid(&error))?;
            encode(model, &PromptInput::Tokens(ids), None)
        }
        PromptInput::Chat(_) | PromptInput::Tokens(_) => encode(model, input, None),
    }
}

/// What a request says about the form of its answer.
#[derive(Clone, Copy, Default)]
struct Asked<'a> {
    constraint: Option<&'a Constraint>,
    tools: Option<&'a Tools>,
}

/// Compiles what the answer is held to. A grammar that cannot be is refused here, at once.
fn shape(model: &Model, asked: Asked<'_>) -> Result<Shape, EngineRefusal> {
    if asked.constraint.is_none() && asked.tools.is_none() {
        return Ok(Shape::default());
    }
    let calls = asked.tools.map(|_| {
        let format = tool_format(model).ok_or(GrammarError::NoToolFormat);
        format.map(|format| Calls::new(format, model.tokenizer()))
    });
    let calls = calls.transpose().map_err(|error| unshaped(&error))?;
    let grammars = model.grammars().map_err(unshaped)?;
    let guide = grammars.guide(asked.constraint, asked.tools.zip(calls.as_ref()));
    Ok(Shape { guide: Some(guide.map_err(|error| unshaped(&error))?), calls })
}

/// How the model writes calls: as its template says, or, where a family has no words for them, as
/// its documents ask for them.
fn tool_format(model: &Model) -> Option<ToolFormat> {
    let template = model.template().ok()?;
    template.tool_format().or_else(|| plain::knows(model).then_some(ToolFormat::Llama))
}

fn unshaped(error: &GrammarError) -> EngineRefusal {
    let code = match error {
        GrammarError::NoEnd | GrammarError::NoToolFormat => EngineRefusalCode::Unsupported,
        _ => EngineRefusalCode::InvalidConstraint,
    };
    refuse(code, chain(error))
}

fn encode(
    model: &Model,
    input: &PromptInput,
    tools: Option<&Tools>,
) -> Result<Vec<u32>, EngineRefusal> {
    let ids = match input {
        PromptInput::Chat(messages) => {
            let template = model.template().map_err(|error| invalid(error))?;
            let ids = match tools {
                // Calls and results of earlier answers are said in words too.
                _ if template.tool_format().is_none() && plain::knows(model) => {
                    template.encode(model.tokenizer(), &plain::messages(messages, tools))
                }
                Some(tools) => template.encode_with_tools(model.tokenizer(), messages, tools),
                None => template.encode(model.tokenizer(), messages),
            };
            ids.map_err(|error| invalid(&error))?
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
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

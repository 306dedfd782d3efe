//! One sequence on the thread of its model: what it does in its turn.
//!
//! ```text
//! Reading -> Waiting for the seed -> Writing -> Over
//! ```
//!
//! The prompt is read before the seed is known; the first token is drawn after.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use commons_port::engine::{
    Alternative, EngineEvent, EngineRefusal, EngineRefusalCode, EngineRequest, Token,
};
use commons_record::Millis;
use commons_record::order::PromptInput;
use commons_record::settlement::EndReason;
use commons_verify::sampling::{Drawn, Sampler};
use futures::channel::mpsc;

use super::answer::{Answer, Grown};
use super::{Wishes, failed};
use crate::llama::KvCache;
use crate::model::Model;

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more to do.
    Worked,
    /// Nothing can be done until the caller reads, reveals or drops.
    Stalled,
    /// Everything was said, or nobody listens.
    Gone,
}

/// One sequence.
#[derive(Debug)]
pub(super) struct Running {
    request: EngineRequest,
    wishes: Arc<Wishes>,
    sender: mpsc::Sender<EngineEvent>,
    /// Events that did not fit into the channel yet. At most two: no turn adds more, and none is
    /// taken before they are gone.
    unsent: VecDeque<EngineEvent>,
    prompt: Vec<u32>,
    state: State,
    /// The last event is made: nothing may follow it.
    has_ended: bool,
    compute: Duration,
}

#[derive(Debug)]
enum State {
    /// The first `usize` tokens of the prompt are in the cache.
    Reading(KvCache, usize),
    /// The prompt is read; these are the logits behind it.
    Waiting(KvCache, Vec<f32>),
    Writing(Box<Writing>),
    /// The last event is made. Nothing is held any more.
    Over,
}

/// An answer that grows.
#[derive(Debug)]
struct Writing {
    cache: KvCache,
    logits: Vec<f32>,
    sampler: Sampler,
    answer: Answer,
    count: u32,
}

impl Running {
    /// Encodes and checks a request.
    pub(super) fn new(
        model: &Model,
        request: EngineRequest,
        wishes: Arc<Wishes>,
        sender: mpsc::Sender<EngineEvent>,
    ) -> Result<Self, EngineRefusal> {
        let prompt = encode(model, &request.input)?;
        check_lengths(model, &request, prompt.len())?;
        // Found now rather than after the prompt: settings that make no sampler.
        make_sampler(model, &request, &prompt, [0; 32])?;
        Ok(Self {
            request,
            wishes,
            sender,
            unsent: VecDeque::new(),
            prompt,
            state: State::Reading(model.llama().new_cache(), 0),
            has_ended: false,
            compute: Duration::ZERO,
        })
    }

    /// Takes a turn: sends what is unsent, then reads one chunk or writes one token.
    pub(super) fn step(&mut self, model: &Model) -> Progress {
        if self.wishes.is_cancelled.load(Ordering::Relaxed) || self.sender.is_closed() {
            return Progress::Gone;
        }
        if !self.send() {
            return Progress::Stalled;
        }
        let started = now();
        let worked = match std::mem::replace(&mut self.state, State::Over) {
            State::Reading(cache, done) => self.read(model, cache, done),
            State::Waiting(cache, logits) => self.begin(model, cache, logits),
            State::Writing(writing) => self.write(model, writing).map(|()| Progress::Worked),
            State::Over => return Progress::Gone,
        };
        self.compute += started.elapsed();
        let progress = worked.unwrap_or_else(|refusal| {
            self.end(EngineEvent::Failed(refusal));
            Progress::Worked
        });
        self.send();
        progress
    }

    /// Ends the sequence with a failure, as far as the caller has room for it.
    pub(super) fn fail(mut self, refusal: EngineRefusal) {
        // A turn that panicked left the state at `Over`, so that is not what to ask.
        self.end(EngineEvent::Failed(refusal));
        self.send();
    }

    /// Makes the last event, once.
    fn end(&mut self, event: EngineEvent) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.unsent.push_back(event);
        }
    }

    /// Whether everything is sent.
    fn send(&mut self) -> bool {
        while let Some(event) = self.unsent.pop_front() {
            if let Err(full) = self.sender.try_send(event) {
                self.unsent.push_front(full.into_inner());
                return false;
            }
        }
        true
    }

    fn read(
        &mut self,
        model: &Model,
        mut cache: KvCache,
        done: usize,
    ) -> Result<Progress, EngineRefusal> {
        let end = self.prompt.len().min(done + model.llama().chunk_len(done));
        let chunk = &self.prompt[done..end];
        if end < self.prompt.len() {
            model.llama().forward(chunk, &mut cache).map_err(compute_failed)?;
            self.state = State::Reading(cache, end);
            return Ok(Progress::Worked);
        }
        let logits = model.llama().next_logits(chunk, &mut cache).map_err(compute_failed)?;
        let prompt = self.prompt.clone();
        self.unsent.push_back(EngineEvent::Prefilled { prompt, cached_tokens: 0 });
        self.state = State::Waiting(cache, logits);
        Ok(Progress::Worked)
    }

    fn begin(
        &mut self,
        model: &Model,
        cache: KvCache,
        logits: Vec<f32>,
    ) -> Result<Progress, EngineRefusal> {
        let Some(&seed) = self.wishes.seed.get() else {
            self.state = State::Waiting(cache, logits);
            return Ok(Progress::Stalled);
        };
        let sampler = make_sampler(model, &self.request, &self.prompt, seed)?;
        let answer = Answer::new(std::mem::take(&mut self.request.stop));
        let writing = Writing { cache, logits, sampler, answer, count: 0 };
        self.state = State::Writing(Box::new(writing));
        Ok(Progress::Worked)
    }

    fn write(&mut self, model: &Model, mut writing: Box<Writing>) -> Result<(), EngineRefusal> {
        let drawn = writing.sampler.sample(u64::from(writing.count), &writing.logits);
        let drawn =
            drawn.map_err(|error| failed(format!("the model's output is unusable: {error}")))?;
        if model.tokenizer().is_end(drawn.id) {
            // Its text is what was held back; the token itself is not part of the answer.
            self.finish(EndReason::Stop, writing.answer.finish());
            return Ok(());
        }
        let id = drawn.id;
        let grown = writing.answer.push(model.tokenizer().piece(id).unwrap_or_default());
        writing.count += 1;
        let (text, has_stopped) = match grown {
            Grown::Text(text) => (text, false),
            Grown::Stopped(text) => (text, true),
        };
        self.unsent.push_back(EngineEvent::Token(describe(model, drawn, text)));
        if has_stopped {
            self.finish(EndReason::StopString, String::new());
            return Ok(());
        }
        let is_full = writing.cache.len() >= model.llama().settings().context_len;
        if writing.count >= self.request.completion_tokens_max || is_full {
            self.finish(EndReason::Length, writing.answer.finish());
            return Ok(());
        }
        // The caller need not wait for the next token to get this one.
        self.send();
        writing.logits =
            model.llama().next_logits(&[id], &mut writing.cache).map_err(compute_failed)?;
        self.state = State::Writing(writing);
        Ok(())
    }

    fn finish(&mut self, reason: EndReason, text: String) {
        let compute_ms = Millis(u64::try_from(self.compute.as_millis()).unwrap_or(u64::MAX));
        self.end(EngineEvent::Finished { reason, text, compute_ms });
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the meter: how long computing took, never a decision"
)]
fn now() -> Instant {
    Instant::now()
}

fn encode(model: &Model, input: &PromptInput) -> Result<Vec<u32>, EngineRefusal> {
    let invalid =
        |error: &dyn std::error::Error| refuse(EngineRefusalCode::InvalidPrompt, chain(error));
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

fn check_lengths(
    model: &Model,
    request: &EngineRequest,
    count: usize,
) -> Result<(), EngineRefusal> {
    let context_len = model.llama().settings().context_len;
    let limit = request.prompt_tokens_max as usize;
    if count > limit {
        let message = format!("the prompt has {count} tokens, the request allows {limit}");
        return Err(refuse(EngineRefusalCode::TooLong, message));
    }
    // At least one token of the answer must fit. A longer answer ends where the context does.
    if count >= context_len {
        let message = format!(
            "the prompt has {count} tokens and the context of {} has {context_len}; shorten it",
            model.facts().name
        );
        return Err(refuse(EngineRefusalCode::TooLong, message));
    }
    if request.completion_tokens_max == 0 {
        let message = "an answer of 0 tokens was asked for; ask for 1 or more".to_owned();
        return Err(refuse(EngineRefusalCode::InvalidPrompt, message));
    }
    Ok(())
}

fn make_sampler(
    model: &Model,
    request: &EngineRequest,
    prompt: &[u32],
    seed: [u8; 32],
) -> Result<Sampler, EngineRefusal> {
    let invalid =
        |error: &dyn std::error::Error| refuse(EngineRefusalCode::InvalidPrompt, chain(error));
    let sampler = Sampler::new(&request.sampling, Some(seed)).map_err(|error| invalid(&error))?;
    let mut sampler = sampler.with_top(request.top_logprobs).map_err(|error| invalid(&error))?;
    let count = model.tokenizer().token_count();
    sampler.check_vocabulary(count).map_err(|error| invalid(&error))?;
    sampler.observe_prompt(prompt);
    Ok(sampler)
}

fn describe(model: &Model, drawn: Drawn, text: String) -> Token {
    let alone = |id| String::from_utf8_lossy(model.tokenizer().piece(id).unwrap_or_default());
    let top = drawn.top.into_iter().map(|(id, logprob_micro)| {
        let text = alone(id).into_owned();
        Alternative { id, text, logprob_micro }
    });
    Token { id: drawn.id, text, logprob_micro: drawn.logprob_micro, top: top.collect() }
}

fn refuse(code: EngineRefusalCode, message: String) -> EngineRefusal {
    EngineRefusal { code, message }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` wants")]
fn compute_failed(error: crate::llama::ForwardError) -> EngineRefusal {
    failed(chain(&error))
}

/// An error and all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

//! One answer of a foreign server, from its events: a pure machine.
//!
//! ```text
//! Opening -- first event that names the model --> Prefilled, Token* -- finish_reason --> Finished
//!                                                                          \-- [DONE] --> over
//! ```
//!
//! # Invariants
//!
//! * Nothing is passed on before the server has named the model that was asked for.
//! * Nothing is passed on after the reason to end; nothing is read after `[DONE]`.
//! * No more tokens and no more text come out than were asked for, whatever comes in.
//! * An id that the server did not send is [`Token::NO_ID`], a log-probability
//!   [`Token::NO_LOGPROB`].
//!
//! Not here: the connection, the time and the words of refusal (see `sequence.rs`, `fault.rs`).

mod tokens;

use commons_port::engine::{EngineEvent, Token};
use commons_record::settlement::EndReason;
use serde_json::Value;

use crate::fault::{Fault, message_of, words};
use crate::wire::{Choice, Chunk, Usage, count};

/// Text of an answer for each token that was asked for: the longest tokens of known vocabularies
/// are runs of 128 spaces or so.
const TOKEN_TEXT_MAX: usize = 256;

/// A prompt has at most a token a byte, and what a template adds: this for each message, and this
/// for what it puts before the first.
const TEMPLATE_TOKENS: usize = 4096;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The model, by the server's own name.
    pub(crate) model: String,
    /// The prompt's bytes and messages together: a bound on its tokens but for the template's.
    pub(crate) prompt_size: usize,
    /// The prompt, where it was sent as ids.
    pub(crate) prompt: Option<Vec<u32>>,
    pub(crate) prompt_tokens_max: u32,
    pub(crate) completion_tokens_max: u32,
    pub(crate) top_logprobs: u8,
}

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More is to come.
    More,
    /// It is complete, for this reason.
    Done(EndReason),
}

/// An answer under way.
#[derive(Debug)]
pub(crate) struct Answer {
    asked: Asked,
    is_named: bool,
    is_prefilled: bool,
    end: Option<EndReason>,
    token_count: u32,
    text_size: usize,
    /// Bytes of text that was thought and not said.
    thought_size: usize,
    usage: Option<Usage>,
    /// What the server claims and cannot be; none if all is well.
    lie: Option<String>,
}

impl Answer {
    pub(crate) fn new(asked: Asked) -> Self {
        Self {
            asked,
            is_named: false,
            is_prefilled: false,
            end: None,
            token_count: 0,
            text_size: 0,
            thought_size: 0,
            usage: None,
            lie: None,
        }
    }

    /// What the server says of the work and cannot be true, for the log.
    pub(crate) fn lie(&self) -> Option<&str> {
        self.lie.as_deref()
    }

    /// Takes the data of one event. What follows from it goes to `out`, before a fault too.
    pub(crate) fn data(
        &mut self,
        data: &str,
        out: &mut Vec<EngineEvent>,
    ) -> Result<Progress, Fault> {
        if data.trim() == "[DONE]" {
            return self.done(out);
        }
        let chunk = serde_json::from_str::<Chunk>(data);
        let chunk = chunk.map_err(|error| Fault::json(&error))?;
        if let Some(error) = &chunk.error {
            let message = message_of(error).map_or_else(|| error.to_string(), str::to_owned);
            return Err(Fault::Error { words: words(&message, None) });
        }
        self.check_model(chunk.model.as_deref())?;
        let [choice] = chunk.choices.as_slice() else {
            if chunk.choices.is_empty() {
                self.usage = chunk.usage.or(self.usage.take());
                return Ok(Progress::More);
            }
            return Err(Fault::OtherChoice);
        };
        if choice.index != 0 {
            return Err(Fault::OtherChoice);
        }
        if !self.is_named {
            return Err(Fault::NamelessModel);
        }
        if !self.is_prefilled {
            self.prefill(&chunk, choice, out)?;
        }
        self.choice(choice, out)?;
        self.usage = chunk.usage.or(self.usage.take());
        Ok(Progress::More)
    }

    fn check_model(&mut self, model: Option<&str>) -> Result<(), Fault> {
        // An event without choices may leave the name out, or empty.
        let Some(found) = model.filter(|it| !it.is_empty()) else { return Ok(()) };
        if found != self.asked.model {
            let found = words(found, None);
            return Err(Fault::OtherModel { asked: self.asked.model.clone(), found });
        }
        self.is_named = true;
        Ok(())
    }

    /// The prompt, as far as the server tells what it made of it.
    fn prefill(
        &mut self,
        chunk: &Chunk,
        choice: &Choice,
        out: &mut Vec<EngineEvent>,
    ) -> Result<(), Fault> {
        self.is_prefilled = true;
        let told = chunk.prompt_token_ids.as_ref().or(choice.prompt_token_ids.as_ref());
        let (known, cached) = counted(chunk);
        let bound = self.asked.prompt_size.saturating_add(TEMPLATE_TOKENS);
        let prompt = if let Some(ids) = told.or(self.asked.prompt.as_ref()) {
            ids.clone()
        } else {
            let count = known.map_or(0, |it| it as usize);
            if count > bound {
                self.lie = Some(format!("{count} tokens of prompt, where {bound} are the most"));
            }
            vec![Token::NO_ID; if count > bound { 0 } else { count }]
        };
        let max = self.asked.prompt_tokens_max;
        if prompt.len() > max as usize {
            return Err(Fault::PromptTooLong { count: prompt.len(), max });
        }
        let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let cached_tokens = cached.unwrap_or(0).min(prompt_tokens);
        out.push(EngineEvent::Prefilled { prompt, cached_tokens, tool_format: None });
        Ok(())
    }

    fn choice(&mut self, choice: &Choice, out: &mut Vec<EngineEvent>) -> Result<(), Fault> {
        let delta = choice.delta.as_ref();
        let calls = delta.and_then(|it| it.tool_calls.as_ref().or(it.function_call.as_ref()));
        let is_call = |it: &Value| !it.is_null() && it.as_array().is_none_or(|it| !it.is_empty());
        if calls.is_some_and(is_call) {
            return Err(Fault::ToolCall);
        }
        let said = delta.and_then(|it| it.content.as_deref().or(it.refusal.as_deref()));
        let said = said.or(choice.text.as_deref()).unwrap_or_default();
        let thought = delta.and_then(|it| it.reasoning_content.as_deref()).unwrap_or_default();
        let has_ids = choice.token_ids.as_ref().is_some_and(|it| !it.is_empty());
        let says = !said.is_empty() || !thought.is_empty() || has_ids;
        if says && self.end.is_some() {
            return Err(Fault::AfterFinish);
        }
        self.thought_size = self.thought_size.saturating_add(thought.len());
        let (tokens, is_scored) = tokens::of(choice, said, says, self.asked.top_logprobs);
        if !tokens.is_empty() && self.asked.top_logprobs > 0 && !is_scored && thought.is_empty() {
            return Err(Fault::NoLogprobs);
        }
        for token in tokens {
            self.token(token, out)?;
        }
        if let Some(reason) = &choice.finish_reason {
            self.end = Some(end_of(reason, choice.stop_reason.as_ref())?);
        }
        Ok(())
    }

    fn token(&mut self, token: Token, out: &mut Vec<EngineEvent>) -> Result<(), Fault> {
        let max = self.asked.completion_tokens_max;
        if self.token_count >= max {
            return Err(Fault::TooMuch { count: u64::from(max), what: "tokens" });
        }
        let size = self.text_size.saturating_add(token.text.len());
        if size > (max as usize).saturating_mul(TOKEN_TEXT_MAX) {
            return Err(Fault::TooMuch { count: self.text_size as u64, what: "bytes" });
        }
        self.token_count += 1;
        self.text_size = size;
        out.push(EngineEvent::Token(token));
        Ok(())
    }

    fn done(&mut self, out: &mut Vec<EngineEvent>) -> Result<Progress, Fault> {
        let Some(end) = self.end else { return Err(Fault::EndedEarly) };
        if !self.is_prefilled {
            let prompt = self.asked.prompt.clone().unwrap_or_default();
            out.push(EngineEvent::Prefilled { prompt, cached_tokens: 0, tool_format: None });
        }
        self.judge_usage();
        Ok(Progress::Done(end))
    }

    /// Work is counted from what arrived. What the server says of it is only looked at: a token
    /// has a byte or says nothing, and what says nothing are a few tokens that end an answer.
    fn judge_usage(&mut self) {
        const SILENT_TOKENS: usize = 8;
        let Some(usage) = &self.usage else { return };
        let text = self.text_size.saturating_add(self.thought_size);
        let most = text.max(self.token_count as usize).saturating_add(SILENT_TOKENS);
        let claims = usage.completion_tokens.as_ref();
        if let Some(claim) = claims
            && count(claims).is_none_or(|it| it as usize > most)
        {
            self.lie = Some(format!(
                "{} tokens of answer, where {most} are the most",
                words(&claim.to_string(), None)
            ));
        }
        let most = self.asked.prompt_size.saturating_add(TEMPLATE_TOKENS);
        let claims = usage.prompt_tokens.as_ref();
        if let Some(claim) = claims
            && count(claims).is_none_or(|it| it as usize > most)
        {
            self.lie = Some(format!(
                "{} tokens of prompt, where {most} are the most",
                words(&claim.to_string(), None)
            ));
        }
    }
}

/// The prompt's tokens and those out of a cache, where an event tells them.
fn counted(chunk: &Chunk) -> (Option<u32>, Option<u32>) {
    if let Some(usage) = &chunk.usage {
        let details = usage.prompt_tokens_details.as_ref();
        let cached = details.and_then(|it| count(it.cached_tokens.as_ref()));
        return (count(usage.prompt_tokens.as_ref()), cached);
    }
    let Some(timings) = &chunk.timings else { return (None, None) };
    let cached = count(timings.cache_n.as_ref());
    let fresh = count(timings.prompt_n.as_ref());
    (fresh.and_then(|it| it.checked_add(cached.unwrap_or(0))), cached)
}

fn end_of(reason: &str, stop: Option<&Value>) -> Result<EndReason, Fault> {
    match reason {
        "stop" if stop.is_some_and(Value::is_string) => Ok(EndReason::StopString),
        "stop" | "eos" => Ok(EndReason::Stop),
        "length" => Ok(EndReason::Length),
        "tool_calls" | "function_call" => Err(Fault::ToolCall),
        other => Err(Fault::WorthlessEnd { reason: other.chars().take(40).collect() }),
    }
}

#[cfg(test)]
mod tests;

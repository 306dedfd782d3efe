//! An answer that grows: the prompt is read, the seed comes, tokens are drawn and said.

use std::collections::VecDeque;
use std::time::Duration;

use commons_port::engine::{
    Alternative, EngineEvent, EngineRefusal, EngineRefusalCode, EngineRequest, Token,
};
use commons_record::Millis;
use commons_record::constraint::ToolFormat;
use commons_record::settlement::EndReason;
use commons_schedule::Status;
use commons_verify::sampling::{Drawn, Sampler};
use futures::channel::mpsc;

use super::Drew;
use crate::grammar::{GrammarError, Guide};
use crate::model::Model;
use crate::tokenizer::Tokenizer;
use crate::worker::ask::{Shape, make_sampler};
use crate::worker::text::{Grown, Text};
use crate::worker::{Wishes, failed};

/// An answer to a request.
#[derive(Debug)]
pub(in crate::worker) struct Answering {
    request: EngineRequest,
    prompt: Vec<u32>,
    guide: Option<Guide>,
    tool_format: Option<ToolFormat>,
    /// Control tokens whose text belongs to the answer: what reads calls looks for it.
    spoken: Vec<u32>,
    sender: mpsc::Sender<EngineEvent>,
    /// Events that did not fit into the channel yet. No more than one step makes: a sequence that
    /// has any is not computed.
    unsent: VecDeque<EngineEvent>,
    cached: Option<usize>,
    is_prefilled: bool,
    sampler: Option<Sampler>,
    text: Text,
    count: u32,
    end: Option<(EndReason, String)>,
    has_ended: bool,
}

impl Answering {
    pub(in crate::worker) fn new(
        request: EngineRequest,
        prompt: Vec<u32>,
        shape: Shape,
        sender: mpsc::Sender<EngineEvent>,
    ) -> Self {
        let text = Text::new(request.stop.clone());
        Self {
            request,
            prompt,
            guide: shape.guide,
            tool_format: shape.calls.as_ref().map(|calls| calls.format),
            spoken: shape.calls.map(|calls| calls.spoken()).unwrap_or_default(),
            sender,
            unsent: VecDeque::new(),
            cached: None,
            is_prefilled: false,
            sampler: None,
            text,
            count: 0,
            end: None,
            has_ended: false,
        }
    }

    pub(super) fn is_guided(&self) -> bool {
        self.guide.is_some()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn is_prefilled(&self) -> bool {
        self.is_prefilled
    }

    /// What draws its tokens, and the place of the next one.
    pub(super) fn sampler(&self) -> Option<(&Sampler, u64)> {
        Some((self.sampler.as_ref()?, u64::from(self.count)))
    }

    /// Sends what is unsent. Whether everything is sent.
    pub(super) fn send(&mut self) -> bool {
        while let Some(event) = self.unsent.pop_front() {
            if let Err(full) = self.sender.try_send(event) {
                self.unsent.push_front(full.into_inner());
                return false;
            }
        }
        true
    }

    /// Tokens were computed, from `start` on. The first time tells how many came from the cache.
    pub(super) fn read(&mut self, start: usize, count: usize) {
        let cached = *self.cached.get_or_insert(start);
        if start + count >= self.prompt.len() {
            self.prefilled(cached);
        }
    }

    /// The prompt is read, or all of it that can be read before the seed is known.
    pub(super) fn prefilled(&mut self, cached: usize) {
        if std::mem::replace(&mut self.is_prefilled, true) {
            return;
        }
        let cached_tokens = u32::try_from(cached).unwrap_or(u32::MAX);
        let prompt = self.prompt.clone();
        self.unsent.push_back(EngineEvent::Prefilled {
            prompt,
            cached_tokens,
            tool_format: self.tool_format,
        });
    }

    /// Draws the next token and says it.
    pub(super) fn draw(
        &mut self,
        model: &Model,
        wishes: &Wishes,
        logits: &[f32],
        drew: &mut Drew,
    ) -> Result<(), EngineRefusal> {
        let tokenizer = model.tokenizer();
        let sampler = match &mut self.sampler {
            Some(sampler) => sampler,
            none => {
                let seed = wishes.seed.get().copied();
                none.insert(make_sampler(model, &self.request, &self.prompt, seed)?)
            }
        };
        // The rows behind the vocabulary are padding.
        let logits = &logits[..logits.len().min(tokenizer.token_count())];
        let allowed = self.guide.as_mut().map(Guide::allowed).transpose().map_err(stuck)?;
        let drawn = sampler.sample_within(u64::from(self.count), logits, allowed);
        let drawn =
            drawn.map_err(|error| failed(format!("the model's output is unusable: {error}")))?;
        let id = drawn.id;
        drew.tokens.push(id);
        if tokenizer.is_end(id) {
            // Its text is what was held back; the token itself is not part of the answer.
            self.end = Some((EndReason::Stop, self.text.finish()));
            drew.status = Status::Stopped;
            return Ok(());
        }
        self.count += 1;
        if let Some(guide) = &mut self.guide {
            guide.push(id);
        }
        let piece = if self.spoken.contains(&id) {
            tokenizer.control_text(id).as_bytes()
        } else {
            tokenizer.piece(id).unwrap_or_default()
        };
        let grown = self.text.push(piece);
        let (text, has_stopped) = match grown {
            Grown::Text(text) => (text, false),
            Grown::Stopped(text) => (text, true),
        };
        self.unsent.push_back(EngineEvent::Token(describe(tokenizer, drawn, text)));
        if has_stopped {
            self.end = Some((EndReason::StopString, String::new()));
            drew.status = Status::Stopped;
        }
        Ok(())
    }

    /// Makes the last event. Where the answer has no end of its own, it is as long as it may be.
    pub(super) fn finish(&mut self, compute: Duration) {
        let (reason, text) =
            self.end.take().unwrap_or_else(|| (EndReason::Length, self.text.finish()));
        let compute_ms = Millis(u64::try_from(compute.as_millis()).unwrap_or(u64::MAX));
        self.end_with(EngineEvent::Finished { reason, text, compute_ms });
    }

    pub(super) fn fail(&mut self, refusal: EngineRefusal) {
        self.end_with(EngineEvent::Failed(refusal));
    }

    /// Ends it with nobody left who sends later. Events that the caller has no room for are lost;
    /// that it failed is not: a new sender always has room for one.
    pub(super) fn abort(&mut self, refusal: EngineRefusal) {
        self.fail(refusal.clone());
        if !self.send() {
            // Nobody listens any more: then nobody misses it.
            let _ = self.sender.clone().try_send(EngineEvent::Failed(refusal));
        }
    }

    fn end_with(&mut self, event: EngineEvent) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.unsent.push_back(event);
        }
    }
}

/// A grammar that cannot go on ends its own answer, and no other.
#[expect(clippy::needless_pass_by_value, reason = "what `map_err` calls")]
pub(super) fn stuck(error: GrammarError) -> EngineRefusal {
    EngineRefusal { code: EngineRefusalCode::InvalidConstraint, message: error.to_string() }
}

/// A drawn token, as callers hear of it.
pub(super) fn describe(tokenizer: &Tokenizer, drawn: Drawn, text: String) -> Token {
    let alone = |id| String::from_utf8_lossy(tokenizer.piece(id).unwrap_or_default());
    let top = drawn.top.into_iter().map(|(id, logprob_micro)| {
        let text = alone(id).into_owned();
        Alternative { id, text, logprob_micro }
    });
    Token { id: drawn.id, text, logprob_micro: drawn.logprob_micro, top: top.collect() }
}

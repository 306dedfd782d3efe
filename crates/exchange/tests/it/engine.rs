//! An engine that follows a script.

use commons_exchange::provider::Input;
use commons_port::engine::{EngineEvent, EngineRefusal, EngineRefusalCode, EngineRequest};
use commons_record::Millis;
use commons_record::seed::Seed32;
use commons_record::settlement::EndReason;

use crate::sample;

/// What an engine will do with the order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    pub(crate) tokens: u32,
    pub(crate) end: ScriptEnd,
}

/// How it ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ScriptEnd {
    Finish(EndReason),
    Fail,
    /// No last word.
    Vanish,
    /// It does not even start.
    Refuse,
}

impl Script {
    pub(crate) fn answer(tokens: u32) -> Self {
        let end = ScriptEnd::Finish(EndReason::Stop);
        Self { prompt_tokens: 5, cached_tokens: 2, tokens, end }
    }

    /// The rendered prompt.
    pub(crate) fn prompt(&self) -> Vec<u32> {
        (0..self.prompt_tokens).map(|it| it + 1).collect()
    }
}

pub(crate) fn refusal(code: EngineRefusalCode) -> EngineRefusal {
    EngineRefusal { code, message: "the engine says no".into() }
}

/// A running sequence.
#[derive(Debug)]
pub(crate) struct Engine {
    script: Script,
    pub(crate) request: EngineRequest,
    pub(crate) seed: Option<Seed32>,
    is_prefilled: bool,
    drawn: u32,
    is_done: bool,
}

impl Engine {
    pub(crate) fn start(script: Script, request: EngineRequest) -> Result<Self, EngineRefusal> {
        if matches!(script.end, ScriptEnd::Refuse) {
            return Err(refusal(EngineRefusalCode::Overloaded));
        }
        let seed = request.seed;
        Ok(Self { script, request, seed, is_prefilled: false, drawn: 0, is_done: false })
    }

    /// What comes next, as a node hands it on; none while there is nothing to say.
    pub(crate) fn next(&mut self) -> Option<Input> {
        if !self.is_prefilled {
            self.is_prefilled = true;
            let (prompt, cached_tokens) = (self.script.prompt(), self.script.cached_tokens);
            let event = EngineEvent::Prefilled { prompt, cached_tokens, tool_format: None };
            return Some(Input::Engine(Some(event)));
        }
        if self.seed.is_none() || self.is_done {
            return None;
        }
        if self.drawn < self.script.tokens.min(self.request.completion_tokens_max) {
            self.drawn += 1;
            let event = EngineEvent::Token(sample::token(self.drawn));
            return Some(Input::Engine(Some(event)));
        }
        self.is_done = true;
        Some(Input::Engine(match self.script.end {
            ScriptEnd::Finish(reason) => {
                let text = String::from("!");
                Some(EngineEvent::Finished { reason, text, compute_ms: Millis(9) })
            }
            ScriptEnd::Fail => Some(EngineEvent::Failed(refusal(EngineRefusalCode::Failed))),
            ScriptEnd::Vanish | ScriptEnd::Refuse => None,
        }))
    }
}

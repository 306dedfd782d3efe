//! An answer in JSON: the published bodies and chunks, and our `commons` beside them.
//!
//! Every body, and the one chunk of a stream that carries `finish_reason`, has a `commons` object:
//! request, receipt, peer, model hash, quantisation, adapter, class and seed of what really ran.

use commons_node::api::{AnswerEnd, AnswerHead, AnswerProof};
use commons_port::engine::Token;
use commons_record::Millis;
use commons_record::mesh::Usage;
use serde::Serialize;

use crate::answer::logprobs::Logprobs;
use crate::call::{Dialect, StreamUsage, Telling};

/// Puts one answer into JSON.
#[derive(Debug)]
pub(super) struct Teller {
    id: String,
    created: u64,
    model: String,
    telling: Telling,
    /// Characters of the answer so far.
    offset: usize,
}

/// A body or a chunk.
#[derive(Debug, Serialize)]
pub(super) struct Reply<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    /// One choice, or none in the chunk that counts tokens.
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "UsageField::is_absent")]
    usage: UsageField,
    #[serde(skip_serializing_if = "Option::is_none")]
    commons: Option<&'a AnswerProof>,
}

#[derive(Debug, Serialize)]
struct Choice<'a> {
    index: u8,
    #[serde(flatten)]
    content: Content<'a>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Content<'a> {
    Message { role: &'static str, content: &'a str, refusal: Option<()> },
    Delta(Delta<'a>),
    Text(&'a str),
}

#[derive(Debug, Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// In a stream with `include_usage` all chunks but the last have a null.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum UsageField {
    Absent,
    Null,
    Count(UsageBody),
}

impl UsageField {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

#[derive(Debug, Serialize)]
struct UsageBody {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
}

#[derive(Debug, Serialize)]
struct PromptDetails {
    cached_tokens: u32,
}

impl Teller {
    pub(super) fn new(head: AnswerHead, telling: Telling, unix: Millis) -> Self {
        let prefix = match telling.dialect {
            Dialect::Chat => "chatcmpl",
            Dialect::Text => "cmpl",
        };
        Self {
            id: format!("{prefix}-{}", head.request),
            created: unix.0 / 1_000,
            model: head.model_name,
            telling,
            offset: 0,
        }
    }

    pub(super) fn telling(&self) -> Telling {
        self.telling
    }

    /// The whole answer.
    pub(super) fn whole<'a>(
        &'a self,
        text: &'a str,
        logprobs: Option<Logprobs>,
        finish_reason: &'static str,
        end: &'a AnswerEnd,
    ) -> Reply<'a> {
        let (object, content) = match self.telling.dialect {
            Dialect::Chat => (
                "chat.completion",
                Content::Message { role: "assistant", content: text, refusal: None },
            ),
            Dialect::Text => ("text_completion", Content::Text(text)),
        };
        let choice = Choice { index: 0, content, logprobs, finish_reason: Some(finish_reason) };
        Reply {
            object,
            usage: UsageField::Count(count(&end.usage)),
            commons: Some(&end.proof),
            ..self.reply(vec![choice])
        }
    }

    /// The chunk that opens a conversation's stream; a plain completion has none.
    pub(super) fn opening(&self, usage: StreamUsage) -> Option<Reply<'_>> {
        let delta = Delta { role: Some("assistant"), content: Some("") };
        match self.telling.dialect {
            Dialect::Chat => Some(self.chunk(Content::Delta(delta), None, usage)),
            Dialect::Text => None,
        }
    }

    /// The chunk of a token, if it says anything.
    pub(super) fn token<'a>(&'a self, token: &'a Token, usage: StreamUsage) -> Option<Reply<'a>> {
        if token.text.is_empty() && !self.telling.wants_logprobs {
            return None;
        }
        let logprobs = self.telling.wants_logprobs.then(|| {
            let mut logprobs = Logprobs::new(self.telling.dialect);
            logprobs.push(token, self.offset);
            logprobs
        });
        Some(self.chunk(self.piece(&token.text), logprobs, usage))
    }

    /// Counts a token's text, for the offsets of the next.
    pub(super) fn advance(&mut self, text: &str) {
        self.offset = self.offset.saturating_add(text.chars().count());
    }

    /// Characters of the answer so far.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// The chunk of text that was held back, if there is any.
    pub(super) fn rest<'a>(&'a self, text: &'a str, usage: StreamUsage) -> Option<Reply<'a>> {
        (!text.is_empty()).then(|| self.chunk(self.piece(text), None, usage))
    }

    /// The last chunk of the choice: why it ended, and what proves it.
    pub(super) fn finish<'a>(
        &'a self,
        finish_reason: &'static str,
        end: &'a AnswerEnd,
        usage: StreamUsage,
    ) -> Reply<'a> {
        let content = match self.telling.dialect {
            Dialect::Chat => Content::Delta(Delta::default()),
            Dialect::Text => Content::Text(""),
        };
        let mut reply = self.chunk(content, None, usage);
        for choice in &mut reply.choices {
            choice.finish_reason = Some(finish_reason);
        }
        Reply { commons: Some(&end.proof), ..reply }
    }

    /// The chunk that counts tokens.
    pub(super) fn usage(&self, end: &AnswerEnd) -> Reply<'_> {
        Reply { usage: UsageField::Count(count(&end.usage)), ..self.reply(Vec::new()) }
    }

    fn piece<'a>(&self, text: &'a str) -> Content<'a> {
        match self.telling.dialect {
            Dialect::Chat => Content::Delta(Delta { role: None, content: Some(text) }),
            Dialect::Text => Content::Text(text),
        }
    }

    fn chunk<'a>(
        &'a self,
        content: Content<'a>,
        logprobs: Option<Logprobs>,
        usage: StreamUsage,
    ) -> Reply<'a> {
        let choice = Choice { index: 0, content, logprobs, finish_reason: None };
        let usage = match usage {
            StreamUsage::Tell => UsageField::Null,
            StreamUsage::Omit => UsageField::Absent,
        };
        Reply { usage, ..self.reply(vec![choice]) }
    }

    fn reply<'a>(&'a self, choices: Vec<Choice<'a>>) -> Reply<'a> {
        let object = match self.telling.dialect {
            Dialect::Chat => "chat.completion.chunk",
            Dialect::Text => "text_completion",
        };
        Reply {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            choices,
            usage: UsageField::Absent,
            commons: None,
        }
    }
}

fn count(usage: &Usage) -> UsageBody {
    UsageBody {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        total_tokens: u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
        prompt_tokens_details: PromptDetails { cached_tokens: usage.cached_tokens },
    }
}

//! An answer in JSON: the published bodies and chunks, and our `commons` beside them.
//!
//! Every body, and the one chunk of a stream that carries `finish_reason`, has a `commons` object:
//! request, receipt, peer, model hash, quantisation, adapter, class and seed of what really ran.

use commons_node::api::{AnswerEnd, AnswerHead, AnswerProof};
use commons_port::engine::Token;
use commons_record::mesh::Usage;
use commons_record::{Millis, RequestId};
use serde::Serialize;

use crate::answer::logprobs::Logprobs;
use crate::answer::speech::{Said, Speech};
use crate::call::{Dialect, StreamUsage, Telling};

/// Puts one answer into JSON.
#[derive(Debug)]
pub(super) struct Teller {
    id: String,
    created: u64,
    model: String,
    telling: Telling,
    request: RequestId,
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
    Message {
        role: &'static str,
        /// Null where the answer only calls.
        content: Option<&'a str>,
        refusal: Option<()>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        tool_calls: &'a [WholeCall],
    },
    Delta(Delta<'a>),
    Text(&'a str),
}

#[derive(Debug, Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta<'a>; 1]>,
}

/// A call in a whole answer.
#[derive(Debug, Serialize)]
pub(super) struct WholeCall {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: WholeFunction,
}

#[derive(Debug, Serialize)]
struct WholeFunction {
    name: String,
    arguments: String,
}

/// Whatever an answer says, gathered.
#[derive(Debug, Default)]
pub(super) struct Whole {
    text: String,
    calls: Vec<WholeCall>,
    size: usize,
}

impl Whole {
    /// Adds what was said.
    pub(super) fn add(&mut self, said: Said) {
        match said {
            Said::Text(text) => {
                self.size += text.len();
                self.text.push_str(&text);
            }
            Said::Call { id, name, .. } => {
                self.size += size_of::<WholeCall>() + id.len() + name.len();
                let function = WholeFunction { name, arguments: String::new() };
                self.calls.push(WholeCall { id, kind: "function", function });
            }
            Said::Arguments { text, .. } => {
                self.size += text.len();
                if let Some(call) = self.calls.last_mut() {
                    call.function.arguments.push_str(&text);
                }
            }
        }
    }

    /// Bytes of it.
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

/// A piece of a call in a stream: the first has the name, those behind it the arguments.
#[derive(Debug, Serialize)]
struct CallDelta<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta<'a>,
}

#[derive(Debug, Serialize)]
struct FunctionDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl<'a> CallDelta<'a> {
    fn begins(index: u32, id: &'a str, name: &'a str) -> Self {
        let function = FunctionDelta { name: Some(name), arguments: "" };
        Self { index, id: Some(id), kind: Some("function"), function }
    }

    fn goes_on(index: u32, arguments: &'a str) -> Self {
        let function = FunctionDelta { name: None, arguments };
        Self { index, id: None, kind: None, function }
    }
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
            request: head.request,
            offset: 0,
        }
    }

    pub(super) fn telling(&self) -> Telling {
        self.telling
    }

    /// What reads the answer.
    pub(super) fn speech(&self) -> Speech {
        Speech::new(self.request, self.telling.has_tools)
    }

    /// The whole answer.
    pub(super) fn whole<'a>(
        &'a self,
        said: &'a Whole,
        logprobs: Option<Logprobs>,
        finish_reason: &'static str,
        end: &'a AnswerEnd,
    ) -> Reply<'a> {
        let (text, tool_calls) = (said.text.as_str(), said.calls.as_slice());
        let has_content = !text.is_empty() || tool_calls.is_empty();
        let content = has_content.then_some(text);
        let (object, content) = match self.telling.dialect {
            Dialect::Chat => (
                "chat.completion",
                Content::Message { role: "assistant", content, refusal: None, tool_calls },
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
        let delta = Delta { role: Some("assistant"), content: Some(""), tool_calls: None };
        match self.telling.dialect {
            Dialect::Chat => Some(self.chunk(Content::Delta(delta), None, usage)),
            Dialect::Text => None,
        }
    }

    /// The chunks of a token: one for each thing that is said with it, the first with its
    /// log-probability. Where nothing is said there is one only if that is wanted.
    pub(super) fn token<'a>(
        &'a self,
        token: &Token,
        said: &'a [Said],
        usage: StreamUsage,
    ) -> Vec<Reply<'a>> {
        let mut logprobs = self.telling.wants_logprobs.then(|| {
            let mut logprobs = Logprobs::new(self.telling.dialect);
            logprobs.push(token, self.offset);
            logprobs
        });
        if said.is_empty() && logprobs.is_some() {
            return vec![self.chunk(self.piece(""), logprobs, usage)];
        }
        let chunks = said.iter().map(|it| self.chunk(self.content(it), logprobs.take(), usage));
        chunks.collect()
    }

    /// Counts a token's text, for the offsets of the next.
    pub(super) fn advance(&mut self, text: &str) {
        self.offset = self.offset.saturating_add(text.chars().count());
    }

    /// Characters of the answer so far.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// The chunk of what was held back.
    pub(super) fn rest<'a>(&'a self, said: &'a Said, usage: StreamUsage) -> Reply<'a> {
        self.chunk(self.content(said), None, usage)
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
            Dialect::Chat => Content::Delta(Delta { content: Some(text), ..Delta::default() }),
            Dialect::Text => Content::Text(text),
        }
    }

    fn content<'a>(&self, said: &'a Said) -> Content<'a> {
        let call = match said {
            Said::Text(text) => return self.piece(text),
            Said::Call { index, id, name } => CallDelta::begins(*index, id, name),
            Said::Arguments { index, text } => CallDelta::goes_on(*index, text),
        };
        Content::Delta(Delta { tool_calls: Some([call]), ..Delta::default() })
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

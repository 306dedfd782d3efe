//! Everything that goes wrong with a foreign server, each with a code and a sentence.
//!
//! A server's own words are shortened, stripped of control characters and of the key, and shown
//! in quotes: they are a stranger's.

use commons_port::engine::{EngineRefusal, EngineRefusalCode};
use commons_record::Millis;

use crate::secret::Key;
use crate::sse::SseError;

/// A server's sentence is shown up to this many characters.
const WORDS_MAX: usize = 300;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("cannot be reached: {reason}")]
    Unreachable { reason: String },

    #[error("resolves to {ip}, which is farther away than its address was declared to be")]
    TooFar { ip: std::net::IpAddr },

    #[error("leads to {ip}, which is nearer than the place that redirects to it")]
    TooNear { ip: std::net::IpAddr },

    #[error("cannot be spoken to under TLS: {reason}")]
    Tls { reason: String },

    #[error("did not answer within {waited} ms")]
    Silent { waited: u64 },

    #[error("ended no line within {waited} ms")]
    Idle { waited: u64 },

    #[error("took longer than {waited} ms for one answer")]
    TooSlow { waited: u64 },

    #[error("broke off: {reason}")]
    BrokeOff { reason: String },

    #[error("ended the stream before `[DONE]`")]
    EndedEarly,

    #[error("refuses our key (status {status}): {words}")]
    Unauthorised { status: u16, words: String },

    #[error("does not know the model (status 404): {words}")]
    UnknownModel { words: String },

    #[error("has too much to do (status {status}){after}: {words}")]
    Busy { status: u16, after: RetryAfter, words: String },

    #[error("finds the request too long (status {status}): {words}")]
    TooLong { status: u16, words: String },

    #[error("refuses the request (status {status}): {words}")]
    Refused { status: u16, words: String },

    #[error(
        "redirects (status {status}), which is not followed; name the address that it leads to"
    )]
    Redirects { status: u16 },

    #[error("failed (status {status}): {words}")]
    Status { status: u16, words: String },

    #[error("failed in the middle of the answer: {words}")]
    Error { words: String },

    #[error("answers {found} where a stream of events was asked for: is it an OpenAI server?")]
    NotEvents { found: String },

    #[error("answers with more than {max} bytes")]
    TooLarge { max: usize },

    #[error("sends what is no JSON of the published shape: {reason}")]
    Json { reason: String },

    #[error("sends a stream that cannot be read: {0}")]
    Stream(#[from] SseError),

    #[error("answers as the model {found} where {asked:?} was asked for")]
    OtherModel { asked: String, found: String },

    #[error("does not say which model answers")]
    NamelessModel,

    #[error("sends the answer to a choice that was not asked for")]
    OtherChoice,

    #[error("calls a tool, and none was offered")]
    ToolCall,

    #[error("goes on after it said that the answer was complete")]
    AfterFinish,

    #[error("sent more than was asked for; the answer was cut off after {count} {what}")]
    TooMuch { count: u64, what: &'static str },

    #[error("sends no log-probabilities, and they were asked for")]
    NoLogprobs,

    #[error("ended the answer for a reason that makes it worthless: {reason:?}")]
    WorthlessEnd { reason: String },

    #[error("counts {count} tokens of prompt, and {max} are allowed")]
    PromptTooLong { count: usize, max: u32 },
}

/// When a busy server wants to be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetryAfter(pub(crate) Option<u32>);

impl std::fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(seconds) => write!(f, " and asks to be left alone for {seconds} s"),
            None => Ok(()),
        }
    }
}

impl Fault {
    pub(crate) fn silent(waited: Millis) -> Self {
        Self::Silent { waited: waited.0 }
    }

    /// An error of the reader may hold what was read.
    pub(crate) fn json(error: &serde_json::Error) -> Self {
        Self::Json { reason: words(&error.to_string(), None) }
    }

    /// Whether the server is not there at all, in contrast to slow or odd.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TooFar { .. } | Self::Tls { .. })
    }

    fn code(&self) -> EngineRefusalCode {
        match self {
            Self::UnknownModel { .. } => EngineRefusalCode::UnknownModel,
            Self::Busy { .. } => EngineRefusalCode::Overloaded,
            Self::TooLong { .. } | Self::PromptTooLong { .. } => EngineRefusalCode::TooLong,
            Self::Refused { .. } => EngineRefusalCode::InvalidPrompt,
            Self::NoLogprobs | Self::ToolCall => EngineRefusalCode::Unsupported,
            Self::Unreachable { .. } => EngineRefusalCode::Unavailable,
            Self::TooFar { .. }
            | Self::TooNear { .. }
            | Self::Tls { .. }
            | Self::Silent { .. }
            | Self::Idle { .. }
            | Self::TooSlow { .. }
            | Self::BrokeOff { .. }
            | Self::EndedEarly
            | Self::Unauthorised { .. }
            | Self::Redirects { .. }
            | Self::Status { .. }
            | Self::Error { .. }
            | Self::NotEvents { .. }
            | Self::TooLarge { .. }
            | Self::Json { .. }
            | Self::Stream(_)
            | Self::OtherModel { .. }
            | Self::NamelessModel
            | Self::OtherChoice
            | Self::AfterFinish
            | Self::TooMuch { .. }
            | Self::WorthlessEnd { .. } => EngineRefusalCode::Failed,
        }
    }

    /// The fault as the port has it, with the server that it is about, and without the key.
    pub(crate) fn refusal(&self, server: &str, key: Option<&Key>) -> EngineRefusal {
        let message = format!("the foreign engine {server} {self}");
        let message = key.map_or_else(|| message.clone(), |key| key.redact(&message));
        EngineRefusal { code: self.code(), message }
    }

    /// What a status that is no success means.
    pub(crate) fn of_status(status: u16, after: RetryAfter, words: String) -> Self {
        match status {
            300..=399 => Self::Redirects { status },
            401 | 403 => Self::Unauthorised { status, words },
            404 => Self::UnknownModel { words },
            429 | 503 => Self::Busy { status, after, words },
            413 => Self::TooLong { status, words },
            400 | 422 if is_about_length(&words) => Self::TooLong { status, words },
            400 | 422 => Self::Refused { status, words },
            _ => Self::Status { status, words },
        }
    }
}

/// How the known servers say that prompt and answer do not fit: by words, since the published API
/// has one code for it that few of them send.
fn is_about_length(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["context length", "context size", "context window", "context_length"]
        .iter()
        .any(|it| words.contains(it))
}

/// A server's own words, fit to be shown: its error's message, or the beginning of the body.
pub(crate) fn words_of(body: &[u8], key: Option<&Key>) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    message_of(&value)
        .map_or_else(|| words(&String::from_utf8_lossy(body), key), |message| words(message, key))
}

/// The message in an error of the published shape, or of one that is common.
pub(crate) fn message_of(value: &serde_json::Value) -> Option<&str> {
    ["/error/message", "/message", "/error", "/detail"]
        .iter()
        .find_map(|pointer| value.pointer(pointer)?.as_str())
        .or_else(|| value.as_str())
}

/// Any text of a server, fit to be shown.
pub(crate) fn words(text: &str, key: Option<&Key>) -> String {
    let text = key.map_or_else(|| text.to_owned(), |key| key.redact(text));
    let plain = text.chars().map(|it| if it.is_control() { ' ' } else { it });
    let short: String = plain.take(WORDS_MAX).collect();
    format!("{:?}", short.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_by_what_its_caller_can_do() {
        use EngineRefusalCode as Code;

        let check = |status: u16, words: &str, want: EngineRefusalCode| {
            let fault = Fault::of_status(status, RetryAfter(Some(7)), words.to_owned());
            let refusal = fault.refusal("vllm at http://h", None);
            assert_eq!(refusal.code, want, "{status} {words}");
            let number = status.to_string();
            assert!(refusal.message.contains(&number), "{}", refusal.message);
        };
        check(401, "no", Code::Failed);
        check(404, "no", Code::UnknownModel);
        check(429, "no", Code::Overloaded);
        check(503, "loading", Code::Overloaded);
        check(400, "This model's maximum context length is 2048 tokens", Code::TooLong);
        check(400, "the request exceeds the available context size", Code::TooLong);
        check(422, "field required", Code::InvalidPrompt);
        check(500, "oops", Code::Failed);
        check(307, "", Code::Failed);
    }

    #[test]
    fn a_strangers_words_are_short_plain_and_without_the_key() {
        let key = Key::new("sk-secret-1").expect("is a key");
        let check =
            |body: &str, want: &str| assert_eq!(words_of(body.as_bytes(), Some(&key)), want);
        check(r#"{"error":{"message":"bad key sk-secret-1"}}"#, r#""bad key [key]""#);
        check(r#"{"detail":"Not Found"}"#, r#""Not Found""#);
        check(r#"{"error":"model not found"}"#, r#""model not found""#);
        check("<html>\n\u{1b}[31mno", r#""<html>  [31mno""#);
        assert_eq!(words_of(&[b'x'; 5000], None).len(), WORDS_MAX + 2);
        assert_eq!(words_of(&[0xff, b'a'], None), "\"\u{fffd}a\"");
    }
}

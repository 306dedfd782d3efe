//! What a streamed answer says, event by event, and who gave it.

use anyhow::{Context as _, bail};
use commons_node::api::AnswerProof;
use serde::Deserialize;

/// What one event of a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// More text.
    Text(String),
    /// The answer is complete: why it ended, and what proves it.
    Finished(Box<Finish>),
    /// Nothing follows.
    Done,
    /// Nothing that concerns the text.
    Other,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finish {
    /// `stop`, `length`.
    pub(crate) reason: String,
    /// Who computed it, with what, and the receipt for it.
    pub(crate) proof: AnswerProof,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    commons: Option<AnswerProof>,
    error: Option<ErrorFields>,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

#[derive(Deserialize)]
struct ErrorFields {
    code: Option<String>,
    message: String,
}

/// Reads one event of a chat or a plain completion. An event that is an error is an error here.
pub(crate) fn read(data: &str) -> anyhow::Result<Event> {
    if data == "[DONE]" {
        return Ok(Event::Done);
    }
    let chunk: Chunk = serde_json::from_str(data).context("the node sent an unknown event")?;
    if let Some(error) = chunk.error {
        let code = error.code.as_deref().unwrap_or("unknown");
        bail!("the answer broke off ({code}): {}", error.message);
    }
    let Some(choice) = chunk.choices.into_iter().next() else { return Ok(Event::Other) };
    if let Some(reason) = choice.finish_reason {
        let proof = chunk.commons.context("the answer ended without saying who gave it")?;
        return Ok(Event::Finished(Box::new(Finish { reason, proof })));
    }
    let text = choice.text.or_else(|| choice.delta.and_then(|delta| delta.content));
    Ok(text.filter(|text| !text.is_empty()).map_or(Event::Other, Event::Text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data: &str, want: &Event) {
        assert_eq!(&read(data).unwrap(), want, "{data}");
    }

    #[test]
    fn events_of_both_dialects_are_read() {
        let text = Event::Text("hi".to_owned());
        check(r#"{"choices":[{"text":"hi","finish_reason":null}]}"#, &text);
        check(r#"{"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}"#, &text);
        check(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#, &Event::Other);
        check(r#"{"choices":[],"usage":{}}"#, &Event::Other);
        check("[DONE]", &Event::Done);
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        let error = read(r#"{"error":{"message":"it is gone","code":"provider_failed"}}"#);
        let text = error.unwrap_err().to_string();
        assert_eq!(text, "the answer broke off (provider_failed): it is gone");
    }

    #[test]
    fn an_end_without_proof_is_an_error() {
        assert!(read(r#"{"choices":[{"text":"","finish_reason":"stop"}]}"#).is_err());
        assert!(read("{").is_err());
    }
}

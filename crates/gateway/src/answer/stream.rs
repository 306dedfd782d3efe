//! An answer as server-sent events.
//!
//! ```text
//! [role chunk] (token chunk | ": heartbeat")* [rest] finish+commons [usage] "data: [DONE]"
//!                                          \-> "data: {error}", and the stream ends
//! ```
//!
//! After an error there is no `[DONE]`: clients of the OpenAI API raise on an event that holds
//! `error`, and one that does not still sees that the stream was cut.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use commons_node::api::AnswerEnd;
use futures::stream;
use serde::Serialize;

use crate::answer::course::{Course, Step};
use crate::answer::speech::{Speech, reason_of};
use crate::answer::wire::Teller;
use crate::call::StreamUsage;

/// A comment: clients ignore it, and proxies see that the connection lives.
const HEARTBEAT: Bytes = Bytes::from_static(b": heartbeat\n\n");

const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// Begins the stream. Its first chunk leaves before the first token is known.
pub(super) fn tell(course: Course, teller: Teller, usage: StreamUsage) -> Response {
    let (speech, frames) = (teller.speech(), VecDeque::new());
    let mut sender = Sender { course: Some(course), teller, speech, usage, frames };
    sender.frames.extend(sender.teller.opening(usage).map(|reply| frame(&reply)));
    let frames = stream::unfold(sender, |mut sender| async move {
        let next = sender.next().await?;
        Some((Ok::<_, Infallible>(next), sender))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(frames)).into_response()
}

struct Sender {
    /// None once the answer is over.
    course: Option<Course>,
    teller: Teller,
    speech: Speech,
    usage: StreamUsage,
    /// Frames of one event: those that end a stream, or the few things that one token says.
    frames: VecDeque<Bytes>,
}

impl Sender {
    /// The next frame. Asks for an event only when the one before has been sent.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            let step = self.course.as_mut()?.next().await;
            self.queue(step);
        }
    }

    fn queue(&mut self, step: Step) {
        match step {
            Step::Heartbeat => self.frames.push_back(HEARTBEAT),
            Step::Token(token) => {
                self.speech.learn(self.course.as_ref().and_then(Course::tool_format));
                let said = self.speech.hear(&token.text);
                let replies = self.teller.token(&token, &said, self.usage);
                self.frames.extend(replies.iter().map(frame));
                self.teller.advance(&token.text);
            }
            Step::Done { end, finish_reason } => {
                self.queue_end(&end, finish_reason);
                self.course = None;
            }
            Step::Failed(error) => {
                self.frames.push_back(frame(&error.body()));
                self.course = None;
            }
        }
    }

    fn queue_end(&mut self, end: &AnswerEnd, finish_reason: &'static str) {
        let (teller, usage) = (&self.teller, self.usage);
        let mut said = self.speech.hear(&end.text);
        said.extend(self.speech.finish());
        self.frames.extend(said.iter().map(|said| frame(&teller.rest(said, usage))));
        let finish_reason = reason_of(finish_reason, &self.speech);
        self.frames.push_back(frame(&teller.finish(finish_reason, end, usage)));
        if usage == StreamUsage::Tell {
            self.frames.push_back(frame(&teller.usage(end)));
        }
        self.frames.push_back(DONE);
    }
}

/// One event. JSON holds no line break, so the value is one line.
fn frame(value: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(value).expect("strings and finite numbers serialise");
    Bytes::from(format!("data: {json}\n\n"))
}

//! An answer as one JSON body.

use axum::Json;
use axum::response::{IntoResponse, Response};

use crate::answer::course::{Course, Step};
use crate::answer::logprobs::Logprobs;
use crate::answer::speech::reason_of;
use crate::answer::wire::{Teller, Whole};
use crate::error::ApiError;

/// The longest answer that is kept in memory: 131 072 tokens of 64 bytes each are 8 MiB, and no
/// vocabulary averages that. A peer that sends more is broken.
const ANSWER_SIZE_MAX: usize = 8 * 1024 * 1024;

/// Collects the answer. Heartbeats say nothing here: the client waits for one body.
pub(super) async fn tell(mut course: Course, mut teller: Teller) -> Result<Response, ApiError> {
    let telling = teller.telling();
    let (mut whole, mut speech) = (Whole::default(), teller.speech());
    let mut logprobs = telling.wants_logprobs.then(|| Logprobs::new(telling.dialect));
    loop {
        match course.next().await {
            Step::Heartbeat => {}
            Step::Token(token) => {
                speech.learn(course.tool_format());
                speech.hear(&token.text).into_iter().for_each(|said| whole.add(said));
                if let Some(logprobs) = &mut logprobs {
                    logprobs.push(&token, teller.offset());
                }
                teller.advance(&token.text);
            }
            Step::Done { end, finish_reason } => {
                let said = speech.hear(&end.text).into_iter().chain(speech.finish());
                said.for_each(|said| whole.add(said));
                let finish_reason = reason_of(finish_reason, &speech);
                let reply = teller.whole(&whole, logprobs, finish_reason, &end);
                return Ok(Json(reply).into_response());
            }
            Step::Failed(error) => return Err(error),
        }
        if whole.size() > ANSWER_SIZE_MAX {
            return Err(course.abandon("the answer is larger than 8 MiB; ask for a stream"));
        }
    }
}

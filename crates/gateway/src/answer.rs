//! From a question to an answer over HTTP: the two routes that generate text.
//!
//! ```text
//! call -> NodeApi::ask -> refused: an error with its status
//!                      -> accepted: headers -> whole: one JSON body
//!                                           -> stream: server-sent events
//! ```
//!
//! Events are pulled one at a time and only when the client has room: a slow client slows its
//! own answer and fills no memory. A client that goes away drops the answer, which cancels it.

mod course;
mod logprobs;
mod speech;
mod stream;
mod whole;
mod wire;

use std::fmt::Display;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use commons_node::api::AnswerHead;
use futures::TryFutureExt;

use crate::body::JsonText;
use crate::call::{Call, Class, Delivery, parse_chat, parse_completion};
use crate::error::ApiError;
use crate::state::GatewayState;

/// `POST /v1/chat/completions`
pub(crate) async fn create_chat_completion(
    State(state): State<GatewayState>,
    Class(class): Class,
    body: JsonText,
) -> Result<Response, ApiError> {
    respond(&state, parse_chat(body.as_str()?, class)?).await
}

/// `POST /v1/completions`
pub(crate) async fn create_completion(
    State(state): State<GatewayState>,
    Class(class): Class,
    body: JsonText,
) -> Result<Response, ApiError> {
    respond(&state, parse_completion(body.as_str()?, class)?).await
}

async fn respond(state: &GatewayState, call: Call) -> Result<Response, ApiError> {
    let permit = Arc::clone(&state.answers).try_acquire_owned().map_err(|_full| {
        let max = state.config.answers_max;
        ApiError::overloaded(format!("{max} answers are in work here; try again shortly"))
    })?;
    let admission = course::Admission::new(state, permit);
    let answer = state.node.ask(call.ask).map_err(ApiError::from).await?;
    let headers = head_headers(&answer.head);
    let teller = wire::Teller::new(answer.head, call.telling, state.clock.unix());
    let course = admission.begin(answer.events);
    let mut response = match call.telling.delivery {
        Delivery::Whole => whole::tell(course, teller).await.into_response(),
        Delivery::Stream(usage) => stream::tell(course, teller, usage),
    };
    response.headers_mut().extend(headers);
    Ok(response)
}

/// Who answers, before the first byte of the body. A failure has them too: `commons why` asks by
/// the request's id.
fn head_headers(head: &AnswerHead) -> HeaderMap {
    let value = |id: &dyn Display| {
        HeaderValue::try_from(id.to_string()).expect("ids are hexadecimal or base58")
    };
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert("x-commons-request", value(&head.request));
    headers.insert("x-commons-peer", value(&head.peer));
    headers.insert("x-commons-route", value(&head.route));
    headers
}

//! The course of one answer: its events in order, a definite end, and the counters on the way.

use commons_node::api::{AnswerEnd, AnswerEvent, Refusal, RefusalCode};
use commons_port::BoxStream;
use commons_port::engine::Token;
use commons_record::Millis;
use commons_record::constraint::ToolFormat;
use commons_record::settlement::EndReason;
use futures::StreamExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::ApiError;
use crate::metrics::InFlight;
use crate::state::GatewayState;

/// A place among the answers in work, taken before the node is asked.
pub(super) struct Admission {
    state: GatewayState,
    started: Millis,
    _permit: OwnedSemaphorePermit,
    _in_flight: InFlight,
}

impl Admission {
    pub(super) fn new(state: &GatewayState, permit: OwnedSemaphorePermit) -> Self {
        Self {
            state: state.clone(),
            started: state.clock.now(),
            _permit: permit,
            _in_flight: state.metrics.begin_answer(),
        }
    }

    pub(super) fn begin(self, events: BoxStream<'static, AnswerEvent>) -> Course {
        Course { events, admission: self, has_token: false, tool_format: None }
    }
}

/// One answer on its way. Dropping it cancels the work.
pub(super) struct Course {
    events: BoxStream<'static, AnswerEvent>,
    admission: Admission,
    has_token: bool,
    tool_format: Option<ToolFormat>,
}

/// What comes next.
pub(super) enum Step {
    Token(Token),
    Heartbeat,
    /// The answer is complete.
    Done {
        end: Box<AnswerEnd>,
        finish_reason: &'static str,
    },
    /// The answer broke off.
    Failed(ApiError),
}

impl Course {
    /// The next step. After `Done` or `Failed` nobody asks again.
    pub(super) async fn next(&mut self) -> Step {
        loop {
            match self.events.next().await {
                Some(AnswerEvent::Prefilled { tool_format, .. }) => self.tool_format = tool_format,
                Some(AnswerEvent::Heartbeat) => return Step::Heartbeat,
                Some(AnswerEvent::Token(token)) => {
                    self.note_token();
                    return Step::Token(token);
                }
                Some(AnswerEvent::Done(end)) => {
                    return match finish_reason(end.reason) {
                        Ok(finish_reason) => Step::Done { end, finish_reason },
                        Err(refusal) => self.fail(refusal),
                    };
                }
                Some(AnswerEvent::Failed(refusal)) => return self.fail(refusal),
                None => return self.fail(broke_off("the answer ended without its last event")),
            }
        }
    }

    /// How calls are written in the answer's text; known before its first token.
    pub(super) fn tool_format(&self) -> Option<ToolFormat> {
        self.tool_format
    }

    /// The answer is worth nothing to the client, for a reason that the node does not know.
    pub(super) fn abandon(&self, reason: &str) -> ApiError {
        self.broke(broke_off(reason))
    }

    fn note_token(&mut self) {
        if !self.has_token {
            self.has_token = true;
            let state = &self.admission.state;
            state.metrics.first_token(state.clock.now().since(self.admission.started));
        }
    }

    fn fail(&self, refusal: Refusal) -> Step {
        Step::Failed(self.broke(refusal))
    }

    fn broke(&self, refusal: Refusal) -> ApiError {
        let error = ApiError::from(refusal);
        tracing::debug!(code = error.code(), "an answer broke off");
        self.admission.state.metrics.answer_broke(error.code());
        error
    }
}

fn broke_off(message: &str) -> Refusal {
    Refusal::new(RefusalCode::ProviderFailed, message)
}

/// The published reason, or the refusal that an unfinished answer amounts to: a client that is
/// told `stop` believes that it has everything.
fn finish_reason(reason: EndReason) -> Result<&'static str, Refusal> {
    match reason {
        EndReason::Stop | EndReason::StopString => Ok("stop"),
        EndReason::Length => Ok("length"),
        EndReason::Deadline => {
            let message = "the deadline passed before the answer was complete";
            Err(Refusal::new(RefusalCode::DeadlineExceeded, message))
        }
        EndReason::Cancelled | EndReason::Vanished | EndReason::Failed => {
            Err(broke_off("the provider ended the answer before it was complete"))
        }
    }
}

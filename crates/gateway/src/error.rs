//! What a caller is told when it gets no answer: status, stable code and one sentence, in the
//! shape of the OpenAI API.
//!
//! ```text
//! {"error": {"message": .., "type": .., "param": .., "code": ..}}
//! ```
//!
//! This is the only place that turns a [`Refusal`] into a status:
//!
//! | status | codes |
//! |---|---|
//! | 400 | `invalid_request`, `invalid_constraint`, `context_length_exceeded`, `unsupported` |
//! | 403 | `privacy_class`: the caller's own header forbids it; `not_authority` |
//! | 404 | `model_not_found`, `adapter_not_found`, `not_found` |
//! | 429 | `overloaded`, always with `Retry-After` |
//! | 502 | `provider_failed` |
//! | 503 | `unavailable`, `storage_failed`, `shutting_down` |
//! | 504 | `deadline_exceeded` |

use axum::Json;
use axum::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use commons_node::api::{Refusal, RefusalCode};
use commons_record::{InvalidBody, Millis};
use serde::Serialize;

/// How long a caller waits if nobody knows better: about one short answer.
const RETRY_AFTER_DEFAULT: Millis = Millis::from_secs(1);

/// A caller's text inside our message is cut to this: enough to recognise it.
const QUOTE_LEN_MAX: usize = 80;

/// A refusal at the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    param: Option<String>,
    retry_after_ms: Option<Millis>,
}

/// The code of a response that is an error, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorCode(pub(crate) &'static str);

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), param: None, retry_after_ms: None }
    }

    /// The request is not what it has to be.
    pub(crate) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Too much at once.
    pub(crate) fn overloaded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, RefusalCode::Overloaded.as_str(), message)
            .retry_after(None)
    }

    /// No such route, or none with this method.
    pub(crate) fn no_route(status: StatusCode, method: &Method, path: &str) -> Self {
        let code = match status {
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            _ => "unknown_url",
        };
        Self::new(status, code, format!("there is no {} {}", quote(method.as_str()), quote(path)))
    }

    /// Names the parameter that is wrong.
    pub(crate) fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The body, also sent as an event when a stream breaks off.
    pub(crate) fn body(&self) -> ErrorBody<'_> {
        ErrorBody {
            error: ErrorFields {
                message: &self.message,
                kind: self.kind(),
                param: self.param.as_deref(),
                code: self.code,
            },
        }
    }

    fn retry_after(mut self, wait: Option<Millis>) -> Self {
        self.retry_after_ms = Some(wait.unwrap_or(RETRY_AFTER_DEFAULT));
        self
    }

    /// The published `type` that goes with the status.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }
}

/// The published error shape.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Debug, Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after_ms {
            // Whole seconds, rounded up: a caller that comes too early is refused again.
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.0.div_ceil(1_000).max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(ErrorCode(self.code));
        response
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            RefusalCode::InvalidRequest
            | RefusalCode::InvalidConstraint
            | RefusalCode::ContextLengthExceeded
            | RefusalCode::Unsupported => StatusCode::BAD_REQUEST,
            RefusalCode::PrivacyClass | RefusalCode::NotAuthority | RefusalCode::Denied => {
                StatusCode::FORBIDDEN
            }
            RefusalCode::ModelNotFound | RefusalCode::AdapterNotFound | RefusalCode::NotFound => {
                StatusCode::NOT_FOUND
            }
            RefusalCode::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            RefusalCode::ProviderFailed => StatusCode::BAD_GATEWAY,
            RefusalCode::Unavailable | RefusalCode::StorageFailed | RefusalCode::ShuttingDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            RefusalCode::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            // A kind that is newer than this gateway: ours to explain, so not the caller's fault.
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let error = Self::new(status, refusal.code.as_str(), refusal.message);
        let error = match refusal.code {
            RefusalCode::ModelNotFound => error.about("model"),
            _ => error,
        };
        match (status, refusal.retry_after_ms) {
            (StatusCode::TOO_MANY_REQUESTS, wait) => error.retry_after(wait),
            (_, Some(wait)) => error.retry_after(Some(wait)),
            (_, None) => error,
        }
    }
}

impl From<InvalidBody> for ApiError {
    fn from(invalid: InvalidBody) -> Self {
        Self::invalid("invalid_value", format!("{invalid}")).about(invalid.field)
    }
}

/// A caller's text, safe to print: escaped and cut.
pub(crate) fn quote(text: &str) -> String {
    text.chars().take(QUOTE_LEN_MAX).flat_map(char::escape_debug).collect()
}

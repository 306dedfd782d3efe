//! What a tool is told when it gets nothing from the hub: status, a code where tools know one, and
//! one sentence.
//!
//! ```text
//! {"error": "SENTENCE"}      x-error-code: CODE      x-error-message: SENTENCE
//! ```
//!
//! The codes are those of the Hugging Face hub; `huggingface_hub` makes its exceptions of them. An
//! answer to HEAD has no body, so the sentence stands in a header too.
//!
//! | status | code | when |
//! |---|---|---|
//! | 404 | `RepoNotFound` | no such repository, or no hub at all |
//! | 404 | `RevisionNotFound`, `EntryNotFound` | no such revision, no such file or folder |
//! | 403 | `GatedRepo` | a rule of this node forbids it; tools show its sentence as it is |
//! | 429, 503 | | too much at once, nothing had in time: always with `retry-after` |
//! | 400, 405, 416 | | the question makes no sense |

use axum::Json;
use axum::http::header::{
    ALLOW, CONTENT_RANGE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use commons_port::hub::HubError;
use serde_json::json;

use super::COMMIT;
use crate::error::{ApiError, ErrorCode, quote};

const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");

/// A sentence in a header is cut to this; the body has all of it.
const HEADER_LEN_MAX: usize = 512;

/// What `huggingface_hub` takes a bad key by. It reads any other 401 as a missing repository.
const BAD_KEY: &str = "Invalid credentials in Authorization header";

/// One reason for each thing that a tool can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NoRepo,
    NoRevision,
    NoFile,
    Denied,
    Invalid,
    Unknown,
    Beyond {
        size: u64,
    },
    Method {
        allowed: &'static str,
    },
    Overloaded,
    Unavailable,
    Internal,
    /// A refusal of the gateway itself, before the hub was reached.
    Edge {
        status: StatusCode,
        label: &'static str,
    },
}

/// A refusal of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    kind: Kind,
    message: String,
    /// The commit that was looked into, where one was: tools remember what it does not have.
    commit: Option<String>,
}

impl Refusal {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), commit: None }
    }

    pub(super) fn no_hub() -> Self {
        Self::new(Kind::NoRepo, "this node offers no repositories; it runs without a catalogue")
    }

    pub(super) fn no_repo(id: &str) -> Self {
        let message = format!("no repository is called {} here; names are ORG/NAME", quote(id));
        Self::new(Kind::NoRepo, message)
    }

    pub(super) fn no_revision(id: &str, revision: &str) -> Self {
        let message = format!("{} has no revision {}", quote(id), quote(revision));
        Self::new(Kind::NoRevision, message)
    }

    pub(super) fn no_file(id: &str, path: &str, commit: &str) -> Self {
        let message = format!("{} has no {}", quote(id), quote(path));
        Self { commit: Some(commit.to_owned()), ..Self::new(Kind::NoFile, message) }
    }

    /// A path that no repository can have.
    pub(super) fn bad_path(path: &str) -> Self {
        let message =
            format!("{} is no path of a file: paths are relative, of plain names", quote(path));
        Self::new(Kind::Invalid, message)
    }

    pub(super) fn not_utf8(text: &str) -> Self {
        Self::new(Kind::Invalid, format!("{} is not utf-8 once it is decoded", quote(text)))
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// What other hubs may have and this one has not.
    pub(super) fn unknown(path: &str) -> Self {
        Self::new(
            Kind::Unknown,
            format!("this hub has no {}; it is for reading alone", quote(path)),
        )
    }

    pub(super) fn beyond(path: &str, size: u64) -> Self {
        let message = format!("{} has {size} bytes, and the range begins after them", quote(path));
        Self::new(Kind::Beyond { size }, message)
    }

    pub(super) fn method(allowed: &'static str) -> Self {
        Self::new(Kind::Method { allowed }, format!("this hub is read with {allowed}"))
    }

    pub(super) fn overloaded(limit: usize) -> Self {
        let message = format!("{limit} files are read already; come back in a moment");
        Self::new(Kind::Overloaded, message)
    }

    pub(super) fn unavailable(what: &str, detail: &str) -> Self {
        Self::new(Kind::Unavailable, format!("{} could not be had: {}", quote(what), detail))
    }

    pub(super) fn no_user() -> Self {
        let edge = Kind::Edge { status: StatusCode::UNAUTHORIZED, label: "no_user" };
        Self::new(edge, "this hub knows no users, and needs no login")
    }

    pub(super) fn status(&self) -> StatusCode {
        match self.kind {
            Kind::NoRepo | Kind::NoRevision | Kind::NoFile | Kind::Unknown => StatusCode::NOT_FOUND,
            Kind::Denied => StatusCode::FORBIDDEN,
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Beyond { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Kind::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Edge { status, .. } => status,
        }
    }

    /// The code that tools know, where there is one.
    pub(super) fn code(&self) -> Option<&'static str> {
        match self.kind {
            Kind::NoRepo => Some("RepoNotFound"),
            Kind::NoRevision => Some("RevisionNotFound"),
            Kind::NoFile => Some("EntryNotFound"),
            Kind::Denied => Some("GatedRepo"),
            Kind::Invalid
            | Kind::Unknown
            | Kind::Beyond { .. }
            | Kind::Method { .. }
            | Kind::Overloaded
            | Kind::Unavailable
            | Kind::Internal
            | Kind::Edge { .. } => None,
        }
    }

    /// For the metrics.
    fn label(&self) -> &'static str {
        match self.kind {
            Kind::NoRepo => "repo_not_found",
            Kind::NoRevision => "revision_not_found",
            Kind::NoFile => "file_not_found",
            Kind::Denied => "denied",
            Kind::Invalid => "invalid_value",
            Kind::Unknown => "unknown_url",
            Kind::Beyond { .. } => "range_not_satisfiable",
            Kind::Method { .. } => "method_not_allowed",
            Kind::Overloaded => "overloaded",
            Kind::Unavailable => "unavailable",
            Kind::Internal => "internal",
            Kind::Edge { label, .. } => label,
        }
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(code) = self.code() {
            headers.insert(ERROR_CODE, HeaderValue::from_static(code));
        }
        let is_bad_key = self.label() == "invalid_api_key";
        let message = if is_bad_key { BAD_KEY } else { self.message.as_str() };
        insert(headers, ERROR_MESSAGE, &in_header(message));
        if let Some(commit) = &self.commit {
            insert(headers, COMMIT, commit);
        }
        match self.kind {
            Kind::Beyond { size } => insert(headers, CONTENT_RANGE, &format!("bytes */{size}")),
            Kind::Method { allowed } => insert(headers, ALLOW, allowed),
            Kind::Overloaded => insert(headers, RETRY_AFTER, "1"),
            // What is pulled from peers takes longer than a file that is read.
            Kind::Unavailable => insert(headers, RETRY_AFTER, "5"),
            Kind::Edge { status: StatusCode::UNAUTHORIZED, .. } => {
                insert(headers, WWW_AUTHENTICATE, "Bearer");
            }
            Kind::NoRepo
            | Kind::NoRevision
            | Kind::NoFile
            | Kind::Denied
            | Kind::Invalid
            | Kind::Unknown
            | Kind::Internal
            | Kind::Edge { .. } => {}
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.message }));
        let mut response = (self.status(), body).into_response();
        self.add_headers(response.headers_mut());
        response.extensions_mut().insert(ErrorCode(self.label()));
        response
    }
}

impl From<HubError> for Refusal {
    fn from(error: HubError) -> Self {
        let kind = match &error {
            HubError::NoRepo { .. } => Kind::NoRepo,
            HubError::NoRevision { .. } => Kind::NoRevision,
            HubError::NoFile { .. } => Kind::NoFile,
            HubError::Denied { .. } => Kind::Denied,
            HubError::Unavailable { .. } => Kind::Unavailable,
            // A kind that is newer than this gateway: ours to explain, so not the caller's fault.
            _ => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<&ApiError> for Refusal {
    fn from(error: &ApiError) -> Self {
        let edge = Kind::Edge { status: error.status(), label: error.code() };
        Self::new(edge, error.message())
    }
}

/// A sentence as a header may hold it: printable ASCII, cut.
fn in_header(text: &str) -> String {
    let is_kept = |letter: char| letter.is_ascii_graphic() || letter == ' ';
    text.chars().take(HEADER_LEN_MAX).map(|it| if is_kept(it) { it } else { '?' }).collect()
}

/// Sets a header; a value that no header may hold is left out.
pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        Err(error) => tracing::warn!(%name, %error, "left out a header"),
    }
}

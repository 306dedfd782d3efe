//! A file's bytes, whole or in part.
//!
//! ```text
//! HEAD: headers alone, nothing is read
//! GET:  permit -> read begins -> first bytes, or FIRST_BYTES_MS -> headers -> bytes
//! ```
//!
//! # Invariants
//!
//! * A body has exactly the bytes that its headers promise, or its connection ends uncleanly: a
//!   tool that counts sees that it was cut, and asks for the rest.
//! * One chunk is asked for when the one before was taken. A tool that stops reading costs that
//!   chunk and its permit, until the connection is given up.
//! * What can be refused within [`FIRST_BYTES_MS`] is refused with a status.
//!
//! Files come from strangers, and the node's own pages may stand at the same origin. So a browser
//! is told to save what it gets, never to show it or to guess what it is.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use commons_port::BoxStream;
use commons_port::hub::{HubError, Repo, RepoFile};
use futures::{StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::range::{Asked, asked};
use super::refusal::{Refusal, insert};
use super::{COMMIT, Offer, entry, text};

const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");

/// How long a read waits for a permit: a crowd of small files is through by then.
const PERMIT_MS: u64 = 2_000;

/// How long the headers wait for the first bytes. Most tools give up on silence after 10 s.
const FIRST_BYTES_MS: u64 = 2_000;

/// How long a body may stand still. Peers that have nothing for so long are gone.
const STALL_MS: u64 = 60_000;

/// Answers a question for a file.
pub(super) async fn serve(
    offer: &Offer,
    repo: &Repo,
    path: &str,
    request: &Parts,
) -> Result<Response, Refusal> {
    let found = repo.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok();
    let found = found.and_then(|index| repo.files.get(index));
    let file = found.ok_or_else(|| Refusal::no_file(&repo.id, path, &repo.commit))?;
    let is_head = request.method == Method::HEAD;
    // A range says what to send, and HEAD sends nothing: RFC 9110, 14.2.
    let asked = match asked(&request.headers, &entry::etag(file), file.size) {
        Asked::Part { .. } | Asked::Beyond if is_head => Asked::Whole,
        asked => asked,
    };
    let (status, offset, len) = match asked {
        Asked::Whole => (StatusCode::OK, 0, file.size),
        Asked::Part { offset, len } => (StatusCode::PARTIAL_CONTENT, offset, len),
        Asked::Beyond => return Err(Refusal::beyond(path, file.size)),
        Asked::Unchanged => {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            name_version(response.headers_mut(), repo, file);
            return Ok(response);
        }
    };
    let body = if is_head { Body::empty() } else { open(offer, file, offset, len).await? };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    name_version(headers, repo, file);
    describe(headers, file);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    if status == StatusCode::PARTIAL_CONTENT {
        let last = offset + (len - 1);
        insert(headers, CONTENT_RANGE, &format!("bytes {offset}-{last}/{}", file.size));
    }
    Ok(response)
}

/// The headers that tools keep a file under.
fn name_version(headers: &mut HeaderMap, repo: &Repo, file: &RepoFile) {
    let etag = entry::etag(file);
    insert(headers, ETAG, &etag);
    insert(headers, LINKED_ETAG, &etag);
    headers.insert(LINKED_SIZE, HeaderValue::from(file.size));
    insert(headers, COMMIT, &repo.commit);
}

fn describe(headers: &mut HeaderMap, file: &RepoFile) {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let is_kept = |letter: &char| letter.is_ascii_graphic() && !"\"\\%;".contains(*letter);
    let plain: String = name.chars().map(|it| if is_kept(&it) { it } else { '_' }).collect();
    let encoded = text::encode(name);
    let disposition = format!("attachment; filename*=UTF-8''{encoded}; filename=\"{plain}\";");
    insert(headers, CONTENT_DISPOSITION, &disposition);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = HeaderValue::from_static("sandbox; default-src 'none'");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
}

/// Begins to read. A file of no bytes needs nobody.
async fn open(offer: &Offer, file: &RepoFile, offset: u64, len: u64) -> Result<Body, Refusal> {
    if len == 0 {
        return Ok(Body::empty());
    }
    let permit = offer.reads.clone().acquire_owned();
    let permit = match timeout(Duration::from_millis(PERMIT_MS), permit).await {
        Ok(permit) => permit.expect("nobody closes the semaphore"),
        Err(_elapsed) => return Err(Refusal::overloaded(offer.reads_max)),
    };
    let chunks = offer.hub.read(file.clone(), offset, len);
    let mut reading = Reading { chunks, left: len, path: file.path.clone(), _permit: permit };
    let first = timeout(Duration::from_millis(FIRST_BYTES_MS), reading.next()).await;
    let first = match first {
        Ok(first) => Some(first.map_err(Broken::into_refusal)?),
        Err(_elapsed) => None,
    };
    let rest = stream::unfold(Some(reading), |reading| async move {
        let mut reading = reading.filter(|it| it.left > 0)?;
        match reading.next().await {
            Ok(bytes) => Some((Ok(bytes), Some(reading))),
            Err(broken) => {
                tracing::warn!(%broken, path = reading.path, "a file broke off");
                Some((Err(broken), None))
            }
        }
    });
    Ok(Body::from_stream(stream::iter(first.map(Ok)).chain(rest)))
}

/// A file that is read.
struct Reading {
    chunks: BoxStream<'static, Result<Bytes, HubError>>,
    /// Bytes that are still owed.
    left: u64,
    path: String,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    /// The next bytes, at least one. Dropping the future loses none.
    async fn next(&mut self) -> Result<Bytes, Broken> {
        let chunk = async {
            loop {
                match self.chunks.next().await {
                    Some(Ok(bytes)) if bytes.is_empty() => {}
                    other => return other,
                }
            }
        };
        let chunk = timeout(Duration::from_millis(STALL_MS), chunk).await;
        let chunk = chunk.map_err(|_elapsed| Broken::Stalled { path: self.path.clone() })?;
        let bytes = match chunk {
            Some(chunk) => chunk.map_err(Broken::Hub)?,
            None => return Err(Broken::Short { path: self.path.clone(), missing: self.left }),
        };
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match self.left.checked_sub(size) {
            Some(left) => self.left = left,
            None => return Err(Broken::Long { path: self.path.clone() }),
        }
        Ok(bytes)
    }
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Hub(HubError),

    #[error("{path} ended {missing} bytes early")]
    Short { path: String, missing: u64 },

    #[error("{path} gave more bytes than were asked for")]
    Long { path: String },

    #[error("{path} gave nothing for {STALL_MS} ms")]
    Stalled { path: String },
}

impl Broken {
    /// In time for a status.
    fn into_refusal(self) -> Refusal {
        match self {
            Self::Hub(error) => error.into(),
            Self::Short { ref path, .. } | Self::Long { ref path } | Self::Stalled { ref path } => {
                Refusal::unavailable(path, &self.to_string())
            }
        }
    }
}

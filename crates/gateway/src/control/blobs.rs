//! The owner's commands about files.
//!
//! | route | answer |
//! |---|---|
//! | `GET /blobs` | all blobs |
//! | `POST /blobs/add {"path": P, "is_copied": B}` | events, the last one names the blob |
//! | `POST /blobs/pull {"what": W}` | events, the last one names the files |
//! | `GET /blobs/{hash}` | the bytes of a blob that is held |
//! | `POST /blobs/{hash}/verify`, `/remove` | which pieces are wrong; forgets it |
//! | `POST /blobs/gc` | what was removed |
//!
//! Events are server-sent ones, a JSON object each. A client that goes ends the work.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use commons_node::api::blobs::{
    BlobEvent, BlobView, BlobsApi, CollectedView, FileToAdd, VerifiedView,
};
use commons_node::api::{Refusal, RefusalCode};
use commons_port::BoxStream;
use commons_record::Hash;
use commons_record::order::PrivacyClass;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::client::{Client, ClientError, EventLines};
use crate::body::JsonText;
use crate::error::ApiError;
use crate::models::invalid_path;
use crate::state::GatewayState;

type Answer<T> = Result<Json<T>, ApiError>;

/// The routes.
pub(super) fn routes() -> Router<GatewayState> {
    Router::new()
        .route("/blobs", get(list))
        .route("/blobs/add", post(add))
        .route("/blobs/pull", post(pull))
        .route("/blobs/gc", post(collect))
        .route("/blobs/{hash}", get(read))
        .route("/blobs/{hash}/verify", post(verify))
        .route("/blobs/{hash}/remove", post(remove))
}

/// What is to be pulled.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PullBody {
    what: String,
}

fn blobs(state: &GatewayState) -> Result<Arc<dyn BlobsApi>, ApiError> {
    let sentence = "this node was built without a store for files";
    let none = || Refusal::new(RefusalCode::Unsupported, sentence);
    Ok(state.node.blobs().ok_or_else(none)?)
}

fn hash(path: Result<Path<String>, PathRejection>) -> Result<Hash, ApiError> {
    let Path(text) = path.map_err(|error| invalid_path(&error))?;
    let sentence = format!("{text:?} is not a hash: 64 hexadecimal digits");
    Ok(text.parse().map_err(|_| Refusal::new(RefusalCode::InvalidRequest, sentence))?)
}

async fn list(State(state): State<GatewayState>) -> Answer<Vec<BlobView>> {
    Ok(Json(blobs(&state)?.list().await?))
}

async fn add(State(state): State<GatewayState>, body: JsonText) -> Result<Response, ApiError> {
    let file: FileToAdd = body.parse()?;
    Ok(events(blobs(&state)?.add(file)))
}

async fn pull(State(state): State<GatewayState>, body: JsonText) -> Result<Response, ApiError> {
    let PullBody { what } = body.parse()?;
    Ok(events(blobs(&state)?.pull(what)))
}

async fn collect(State(state): State<GatewayState>) -> Answer<CollectedView> {
    Ok(Json(blobs(&state)?.collect().await?))
}

/// A failure in the middle breaks the connection: what came is no whole file.
async fn read(
    State(state): State<GatewayState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let blob = hash(path)?;
    let mut bytes = blobs(&state)?.read(blob).peekable();
    if let Some(Err(refusal)) = std::pin::Pin::new(&mut bytes).peek().await {
        return Err(refusal.clone().into());
    }
    let headers = [(CONTENT_TYPE, "application/octet-stream")];
    Ok((headers, Body::from_stream(bytes)).into_response())
}

async fn verify(
    State(state): State<GatewayState>,
    path: Result<Path<String>, PathRejection>,
) -> Answer<VerifiedView> {
    Ok(Json(blobs(&state)?.verify(hash(path)?).await?))
}

async fn remove(
    State(state): State<GatewayState>,
    path: Result<Path<String>, PathRejection>,
) -> Answer<()> {
    Ok(Json(blobs(&state)?.remove(hash(path)?).await?))
}

fn events(events: BoxStream<'static, BlobEvent>) -> Response {
    let frame = |event: BlobEvent| {
        // What the contract has can be written as JSON.
        let json = serde_json::to_string(&event).unwrap_or_default();
        Ok::<_, Infallible>(Bytes::from(format!("data: {json}\n\n")))
    };
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events.map(frame))).into_response()
}

/// The events of long work, one by one. Dropping it ends the work.
#[derive(Debug)]
pub struct BlobEvents(EventLines);

impl BlobEvents {
    /// The next event; none after the last.
    pub async fn next(&mut self) -> Result<Option<BlobEvent>, ClientError> {
        let Some(line) = self.0.next().await? else { return Ok(None) };
        serde_json::from_str(&line).map(Some).map_err(ClientError::Malformed)
    }
}

impl Client {
    /// All blobs.
    pub async fn blobs(&self) -> Result<Vec<BlobView>, ClientError> {
        self.get("/blobs").await
    }

    /// Takes in a file.
    pub async fn add_blob(&self, file: &FileToAdd) -> Result<BlobEvents, ClientError> {
        self.stream("/blobs/add", PrivacyClass::LocalOnly, file).await.map(BlobEvents)
    }

    /// Pulls what this names.
    pub async fn pull(&self, what: String) -> Result<BlobEvents, ClientError> {
        self.stream("/blobs/pull", PrivacyClass::LocalOnly, &PullBody { what })
            .await
            .map(BlobEvents)
    }

    /// Writes a blob that is held into a file, which is there whole or not at all, and checks it
    /// against its name on the way.
    pub async fn save_blob(&self, blob: Hash, path: &std::path::Path) -> Result<(), ClientError> {
        use std::io::Write as _;
        let mut bytes = self.bytes(&format!("/blobs/{blob}")).await?;
        let part = path.with_added_extension("part");
        let written = |source| ClientError::Write { path: path.to_owned(), source };
        let mut file = std::fs::File::create(&part).map_err(written)?;
        let mut hasher = commons_record::hash::ContentHasher::default();
        while let Some(chunk) = bytes.next().await? {
            hasher.update(&chunk);
            file.write_all(&chunk).map_err(written)?;
        }
        if hasher.finish() != blob {
            let kind = std::io::ErrorKind::UnexpectedEof;
            return Err(written(std::io::Error::new(kind, "the bytes that came are not the file")));
        }
        file.sync_all().and_then(|()| std::fs::rename(&part, path)).map_err(written)
    }

    /// Checks every piece of a blob.
    pub async fn verify_blob(&self, blob: Hash) -> Result<VerifiedView, ClientError> {
        self.post(&format!("/blobs/{blob}/verify"), &()).await
    }

    /// Forgets a blob.
    pub async fn remove_blob(&self, blob: Hash) -> Result<(), ClientError> {
        self.post(&format!("/blobs/{blob}/remove"), &()).await
    }

    /// Removes what no pin holds.
    pub async fn collect_blobs(&self) -> Result<CollectedView, ClientError> {
        self.post("/blobs/gc", &()).await
    }
}

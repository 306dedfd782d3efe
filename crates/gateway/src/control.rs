//! The owner's commands, over a Unix socket in the node's data folder.
//!
//! | route | answer |
//! |---|---|
//! | `GET /status`, `/models`, `/peers` | how the node stands, what it knows |
//! | `GET /receipts?limit=N` | receipts, newest first |
//! | `GET /receipts/{id}/evidence?opening=true` | an evidence file; without `opening` it can be given away |
//! | `GET /why/{id}` | why a request went where it went |
//! | `POST /invite {"uses": N}`, `POST /join {"ticket": T}` | a ticket; how a join goes |
//! | `/catalogue/...` | what is published: see `catalogue.rs` |
//! | `/blobs/...` | files: see `blobs.rs` |
//! | `POST /shutdown` | 202, and the node ends in order |
//! | the public routes | as over TCP, so that `commons chat` works here |
//!
//! There is no key: whoever can open the socket owns the folder that it lies in. A browser
//! cannot open it at all, so `Host` and `Origin` say nothing here.

mod blobs;
mod catalogue;
mod client;

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use commons_node::api::{
    InviteView, JoinView, ModelView, Opening, PeerView, ReceiptView, StatusView, WhyView,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use blobs::BlobEvents;
pub use client::{Client, ClientError, EventLines};

use crate::adapters::OwnersOnly;
use crate::body::JsonText;
use crate::error::ApiError;
use crate::models::invalid_path;
use crate::router;
use crate::state::GatewayState;

/// Receipts in one answer, if nobody says how many: what a terminal shows.
const RECEIPTS_DEFAULT: usize = 50;

/// Receipts in one answer at most: about half a MiB of JSON.
const RECEIPTS_MAX: usize = 1_000;

/// The owner's commands and the public routes. `shutdown` is told once, when the owner ends the
/// node.
pub fn control_router(state: GatewayState, shutdown: oneshot::Sender<()>) -> Router {
    let shutdown = Shutdown(Arc::new(Mutex::new(Some(shutdown))));
    let commands = Router::new()
        .route("/status", get(get_status))
        .route("/models", get(list_models))
        .route("/peers", get(list_peers))
        .route("/receipts", get(list_receipts))
        .route("/receipts/{id}/evidence", get(get_evidence))
        .route("/why/{id}", get(get_why))
        .route("/invite", post(create_invite))
        .route("/join", post(join))
        .route("/shutdown", post(shut_down))
        .merge(catalogue::routes())
        .merge(blobs::routes())
        .layer(Extension(shutdown));
    let routes = router::public_routes().merge(commands).layer(Extension(OwnersOnly));
    router::finish(router::with_fallbacks(routes), state)
}

/// `GET /status`
async fn get_status(State(state): State<GatewayState>) -> Json<StatusView> {
    Json(state.node.status().await)
}

/// `GET /models`
async fn list_models(State(state): State<GatewayState>) -> Json<Vec<ModelView>> {
    Json(state.node.models().await)
}

/// `GET /peers`
async fn list_peers(State(state): State<GatewayState>) -> Json<Vec<PeerView>> {
    Json(state.node.peers().await)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptsQuery {
    limit: Option<usize>,
}

/// `GET /receipts?limit=N`
async fn list_receipts(
    State(state): State<GatewayState>,
    query: Result<Query<ReceiptsQuery>, QueryRejection>,
) -> Result<Json<Vec<ReceiptView>>, ApiError> {
    let Query(query) = query.map_err(|error| invalid_query(&error))?;
    let limit = query.limit.unwrap_or(RECEIPTS_DEFAULT);
    if limit > RECEIPTS_MAX {
        let message = format!("`limit` is over {RECEIPTS_MAX}");
        return Err(ApiError::invalid("invalid_value", message).about("limit"));
    }
    Ok(Json(state.node.receipts(limit).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceQuery {
    #[serde(default)]
    opening: bool,
}

/// `GET /receipts/{id}/evidence?opening=BOOL`
async fn get_evidence(
    State(state): State<GatewayState>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<EvidenceQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Path(id) = id.map_err(|error| invalid_path(&error))?;
    let Query(query) = query.map_err(|error| invalid_query(&error))?;
    let opening = if query.opening { Opening::Include } else { Opening::Omit };
    let file = state.node.evidence(id, opening).await?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], file))
}

/// `GET /why/{id}`
async fn get_why(
    State(state): State<GatewayState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<WhyView>, ApiError> {
    let Path(id) = id.map_err(|error| invalid_path(&error))?;
    Ok(Json(state.node.why(id).await?))
}

/// The body of `POST /invite`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteBody {
    uses: u32,
}

/// `POST /invite`
async fn create_invite(
    State(state): State<GatewayState>,
    body: JsonText,
) -> Result<Json<InviteView>, ApiError> {
    let InviteBody { uses } = body.parse()?;
    Ok(Json(state.node.invite(uses).await?))
}

/// The body of `POST /join`. The ticket is a secret: there is no `Debug`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinBody {
    ticket: String,
}

/// `POST /join`
async fn join(
    State(state): State<GatewayState>,
    body: JsonText,
) -> Result<Json<JoinView>, ApiError> {
    let JoinBody { ticket } = body.parse()?;
    Ok(Json(state.node.join(ticket).await?))
}

/// Tells the program once that its owner wants it to end.
#[derive(Clone)]
struct Shutdown(Arc<Mutex<Option<oneshot::Sender<()>>>>);

/// `POST /shutdown`: a second call finds it under way.
async fn shut_down(Extension(shutdown): Extension<Shutdown>) -> StatusCode {
    let sender = shutdown.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    if sender.is_some_and(|sender| sender.send(()).is_err()) {
        tracing::warn!("nobody waits for the shutdown that the owner asked for");
    }
    StatusCode::ACCEPTED
}

fn invalid_query(error: &QueryRejection) -> ApiError {
    ApiError::invalid("invalid_value", format!("the query cannot be read: {error}"))
}

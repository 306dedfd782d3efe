//! The public routes.
//!
//! | route | answer |
//! |---|---|
//! | `GET /healthz` | `ok`, without asking the node |
//! | `GET /metrics` | counters for the operator |
//! | `GET /v1/models`, `GET /v1/models/{id}` | what can be asked for |
//! | `GET`, `POST /v1/adapters`, `DELETE /v1/adapters/{id}` | the owner's adapters |
//! | `POST /v1/chat/completions`, `POST /v1/completions` | an answer |
//! | `/api/..`, `/v2/..`, `/{org}/{repo}/resolve/..`, `/{org}/{repo}/raw/..` | see `hub` |
//!
//! A model's id is one path segment, percent-decoded. Everything else is a 404 or a 405 in the
//! error shape of the OpenAI API.

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};

use crate::error::ApiError;
use crate::state::GatewayState;
use crate::{access, adapters, answer, hub, metrics, models};

/// The public API, behind its access rules.
pub fn router(state: GatewayState) -> Router {
    let guard = from_fn_with_state(Arc::clone(&state.config), access::guard);
    finish(with_fallbacks(public_routes()).layer(guard), state)
}

/// The public routes without access rules: for a listener that has its own.
pub(crate) fn public_routes() -> Router<GatewayState> {
    Router::new()
        .route(access::HEALTH_PATH, get(get_health))
        .route("/metrics", get(metrics::get_metrics))
        .route("/v1/models", get(models::list_models))
        .route("/v1/models/{id}", get(models::get_model))
        .route("/v1/adapters", get(adapters::list_adapters).post(adapters::add_adapter))
        .route("/v1/adapters/{id}", delete(adapters::remove_adapter))
        .route("/v1/chat/completions", post(answer::create_chat_completion))
        .route("/v1/completions", post(answer::create_completion))
        .merge(hub::routes())
}

/// Answers for what is no route, once all routes are there.
pub(crate) fn with_fallbacks(routes: Router<GatewayState>) -> Router<GatewayState> {
    routes.fallback(no_route).method_not_allowed_fallback(no_method)
}

/// What goes around all routes of a listener: every response is counted, refused ones too.
pub(crate) fn finish(routes: Router<GatewayState>, state: GatewayState) -> Router {
    routes.layer(from_fn_with_state(state.clone(), metrics::count)).with_state(state)
}

/// `GET /healthz`
async fn get_health() -> &'static str {
    "ok"
}

async fn no_route(method: Method, uri: Uri) -> ApiError {
    ApiError::no_route(StatusCode::NOT_FOUND, &method, uri.path())
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::no_route(StatusCode::METHOD_NOT_ALLOWED, &method, uri.path())
}

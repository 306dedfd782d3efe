//! Adapters over HTTP: `GET` and `POST /v1/adapters`, `DELETE /v1/adapters/{id}`.
//!
//! Whoever takes in an adapter names a file of the node's machine, so that is the owner's to do: on
//! the control socket, or with the API key. Without a key, any program of the machine may list them.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use commons_node::api::{AdapterToAdd, AdapterView};
use serde::Serialize;

use crate::body::JsonText;
use crate::error::ApiError;
use crate::models::invalid_path;
use crate::state::GatewayState;

/// The listener is the owner's alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnersOnly;

/// A list of adapters.
#[derive(Debug, Serialize)]
pub(crate) struct AdapterList {
    object: &'static str,
    data: Vec<AdapterView>,
}

/// `GET /v1/adapters`
pub(crate) async fn list_adapters(State(state): State<GatewayState>) -> Json<AdapterList> {
    Json(AdapterList { object: "list", data: state.node.adapters().await })
}

/// `POST /v1/adapters`: answers once the adapter can be asked for.
pub(crate) async fn add_adapter(
    State(state): State<GatewayState>,
    owner: Option<Extension<OwnersOnly>>,
    body: JsonText,
) -> Result<Json<AdapterView>, ApiError> {
    check_owner(&state, owner)?;
    let add: AdapterToAdd = body.parse()?;
    Ok(Json(state.node.add_adapter(add).await?))
}

/// `DELETE /v1/adapters/{id}`: by `MODEL+ADAPTER`, or the adapter's name or hash.
pub(crate) async fn remove_adapter(
    State(state): State<GatewayState>,
    owner: Option<Extension<OwnersOnly>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<AdapterView>, ApiError> {
    check_owner(&state, owner)?;
    let Path(id) = id.map_err(|error| invalid_path(&error))?;
    Ok(Json(state.node.remove_adapter(id).await?))
}

fn check_owner(state: &GatewayState, owner: Option<Extension<OwnersOnly>>) -> Result<(), ApiError> {
    if owner.is_some() || state.config.api_key.is_some() {
        return Ok(());
    }
    let message = "adapters are the owner's to take in and forget: use `commons adapters`, or start \
                   the node with an API key and send it";
    Err(ApiError::new(StatusCode::FORBIDDEN, "owners_only", message))
}

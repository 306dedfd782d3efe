//! Models in the published shape: `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use commons_node::api::{ModelView, Refusal, RefusalCode};
use serde::Serialize;

use crate::error::{ApiError, quote};
use crate::state::GatewayState;

/// A list of models.
#[derive(Debug, Serialize)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<ModelBody>,
}

/// A model. What Commons knows beyond the published fields stands under `commons`.
#[derive(Debug, Serialize)]
pub(crate) struct ModelBody {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    commons: ModelView,
}

impl From<ModelView> for ModelBody {
    fn from(view: ModelView) -> Self {
        Self {
            id: view.name.clone(),
            object: "model",
            created: view.since_unix_ms.0 / 1_000,
            owned_by: "commons",
            commons: view,
        }
    }
}

/// `GET /v1/models`
pub(crate) async fn list_models(State(state): State<GatewayState>) -> Json<ModelList> {
    let models = state.node.models().await;
    Json(ModelList { object: "list", data: models.into_iter().map(ModelBody::from).collect() })
}

/// `GET /v1/models/{id}`: by name, or by the file's hash.
pub(crate) async fn get_model(
    State(state): State<GatewayState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelBody>, ApiError> {
    let Path(id) = id.map_err(|error| invalid_path(&error))?;
    let models = state.node.models().await;
    let by_name = models.iter().position(|model| model.name == id);
    let found = by_name.or_else(|| {
        let hash = id.parse().ok()?;
        models.iter().position(|model| model.model == hash)
    });
    match found.and_then(|index| models.into_iter().nth(index)) {
        Some(model) => Ok(Json(model.into())),
        None => Err(unknown_model(&id)),
    }
}

pub(crate) fn invalid_path(error: &PathRejection) -> ApiError {
    ApiError::invalid("invalid_value", format!("the path cannot be read: {error}"))
}

fn unknown_model(id: &str) -> ApiError {
    let message = format!("no model {} is in reach; GET /v1/models lists them", quote(id));
    Refusal::new(RefusalCode::ModelNotFound, message).into()
}

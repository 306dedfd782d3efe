//! The owner's commands about what is published.
//!
//! | route | answer |
//! |---|---|
//! | `POST /catalogue/publish` | signs a release |
//! | `POST /catalogue/search {"words": W}` | releases |
//! | `POST /catalogue/show`, `/resolve`, `/lineage {"name": N}` | one release; what it was made from |
//! | `GET /catalogue/pins`, `POST /catalogue/pin {"name": N, "release": R}`, `/unpin {"name": N}` | what names mean here |
//! | `POST /catalogue/bind {"name": N, "release": R or none}` | what a name means in the mesh |
//! | `POST /catalogue/revoke` | takes back the word of a key |
//! | `GET /catalogue/denylists`, `POST /catalogue/denylist`, `/subscribe` | denylists |
//! | `GET`, `POST /catalogue/policy` | the owner's rules |

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use commons_node::api::catalogue::{
    CatalogueApi, DenylistView, LineageView, PinView, PublishedView, ReleaseView, Search,
};
use commons_record::catalogue::DenyEntry;
use commons_record::{Hash, OwnerId};
use commons_swarm::policy::Policy;
use serde::{Deserialize, Serialize};

use super::client::{Client, ClientError};
use crate::body::JsonText;
use crate::error::ApiError;
use crate::state::GatewayState;

type Answer<T> = Result<Json<T>, ApiError>;

/// The routes.
pub(super) fn routes() -> Router<GatewayState> {
    Router::new()
        .route("/catalogue/publish", post(publish))
        .route("/catalogue/search", post(search))
        .route("/catalogue/show", post(show))
        .route("/catalogue/resolve", post(resolve))
        .route("/catalogue/lineage", post(lineage))
        .route("/catalogue/pins", get(pins))
        .route("/catalogue/pin", post(pin))
        .route("/catalogue/unpin", post(unpin))
        .route("/catalogue/bind", post(bind))
        .route("/catalogue/revoke", post(revoke))
        .route("/catalogue/denylists", get(denylists))
        .route("/catalogue/denylist", post(publish_denylist))
        .route("/catalogue/subscribe", post(subscribe))
        .route("/catalogue/policy", get(policy).post(set_policy))
}

/// A name, or a release's record id.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameBody {
    name: String,
}

/// What a name is to mean.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinBody {
    name: String,
    release: Hash,
}

/// What a name is to mean in the mesh; nothing if there is no release.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BindBody {
    name: String,
    release: Option<Hash>,
}

/// A record that was signed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedBody {
    record: Hash,
}

/// A denylist to be signed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DenylistBody {
    title: String,
    entries: Vec<DenyEntry>,
}

/// Whose denylists to listen to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeBody {
    author: OwnerId,
    is_on: bool,
}

fn catalogue(state: &GatewayState) -> Arc<dyn CatalogueApi> {
    state.node.catalogue()
}

async fn publish(State(state): State<GatewayState>, body: JsonText) -> Answer<PublishedView> {
    Ok(Json(catalogue(&state).publish(body.parse()?).await?))
}

async fn search(State(state): State<GatewayState>, body: JsonText) -> Answer<Vec<ReleaseView>> {
    Ok(Json(catalogue(&state).search(body.parse()?).await?))
}

async fn show(State(state): State<GatewayState>, body: JsonText) -> Answer<ReleaseView> {
    let NameBody { name } = body.parse()?;
    Ok(Json(catalogue(&state).show(name).await?))
}

async fn resolve(State(state): State<GatewayState>, body: JsonText) -> Answer<ReleaseView> {
    let NameBody { name } = body.parse()?;
    Ok(Json(catalogue(&state).resolve(name).await?))
}

async fn lineage(State(state): State<GatewayState>, body: JsonText) -> Answer<LineageView> {
    let NameBody { name } = body.parse()?;
    Ok(Json(catalogue(&state).lineage(name).await?))
}

async fn pins(State(state): State<GatewayState>) -> Answer<Vec<PinView>> {
    Ok(Json(catalogue(&state).pins().await?))
}

async fn pin(State(state): State<GatewayState>, body: JsonText) -> Answer<PinView> {
    let PinBody { name, release } = body.parse()?;
    Ok(Json(catalogue(&state).pin(name, release).await?))
}

async fn unpin(State(state): State<GatewayState>, body: JsonText) -> Answer<PinView> {
    let NameBody { name } = body.parse()?;
    Ok(Json(catalogue(&state).unpin(name).await?))
}

async fn bind(State(state): State<GatewayState>, body: JsonText) -> Answer<SignedBody> {
    let BindBody { name, release } = body.parse()?;
    let record = catalogue(&state).bind(name, release).await?;
    Ok(Json(SignedBody { record }))
}

async fn revoke(State(state): State<GatewayState>, body: JsonText) -> Answer<SignedBody> {
    let record = catalogue(&state).revoke(body.parse()?).await?;
    Ok(Json(SignedBody { record }))
}

async fn denylists(State(state): State<GatewayState>) -> Answer<Vec<DenylistView>> {
    Ok(Json(catalogue(&state).denylists().await?))
}

async fn publish_denylist(State(state): State<GatewayState>, body: JsonText) -> Answer<SignedBody> {
    let DenylistBody { title, entries } = body.parse()?;
    let record = catalogue(&state).publish_denylist(title, entries).await?;
    Ok(Json(SignedBody { record }))
}

async fn subscribe(State(state): State<GatewayState>, body: JsonText) -> Answer<Vec<DenylistView>> {
    let SubscribeBody { author, is_on } = body.parse()?;
    Ok(Json(catalogue(&state).subscribe(author, is_on).await?))
}

async fn policy(State(state): State<GatewayState>) -> Answer<Policy> {
    Ok(Json(catalogue(&state).policy().await?))
}

async fn set_policy(State(state): State<GatewayState>, body: JsonText) -> Answer<Policy> {
    let policy: Policy = body.parse()?;
    catalogue(&state).set_policy(policy.clone()).await?;
    Ok(Json(policy))
}

impl Client {
    /// Signs a release.
    pub async fn publish(
        &self,
        draft: &commons_node::api::catalogue::ReleaseDraft,
    ) -> Result<PublishedView, ClientError> {
        self.post("/catalogue/publish", draft).await
    }

    /// Releases that hold all words.
    pub async fn search(&self, search: &Search) -> Result<Vec<ReleaseView>, ClientError> {
        self.post("/catalogue/search", search).await
    }

    /// A release, by name or record id.
    pub async fn show(&self, name: String) -> Result<ReleaseView, ClientError> {
        self.post("/catalogue/show", &NameBody { name }).await
    }

    /// What a release was made from.
    pub async fn lineage(&self, name: String) -> Result<LineageView, ClientError> {
        self.post("/catalogue/lineage", &NameBody { name }).await
    }

    /// What names mean on this node.
    pub async fn pins(&self) -> Result<Vec<PinView>, ClientError> {
        self.get("/catalogue/pins").await
    }

    /// Says what a name means on this node.
    pub async fn pin(&self, name: String, release: Hash) -> Result<PinView, ClientError> {
        self.post("/catalogue/pin", &PinBody { name, release }).await
    }

    /// Takes a pin back.
    pub async fn unpin(&self, name: String) -> Result<PinView, ClientError> {
        self.post("/catalogue/unpin", &NameBody { name }).await
    }

    /// Says what a name means in the mesh, or that it means nothing; the record's id.
    pub async fn bind(&self, name: String, release: Option<Hash>) -> Result<Hash, ClientError> {
        let signed = self.post("/catalogue/bind", &BindBody { name, release }).await;
        signed.map(|SignedBody { record }| record)
    }
}

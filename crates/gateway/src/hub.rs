//! The node as a hub: repositories of its catalogue, read the way tools of Hugging Face read.
//!
//! ```text
//! request -> Address -> Hub::repo, Hub::search -> JSON
//!                   \-> Hub::repo -> file -> Hub::read -> bytes
//! ```
//!
//! With `HF_ENDPOINT` set to the node's address, `huggingface_hub` and all that stands on it,
//! `@huggingface/hub` and llama.cpp pull from here. Which of them were driven, in which versions,
//! is in `docs/conformance.md`; the routes of llama.cpp are made after its source alone.
//!
//! * `address`, `text`: what a path asks for;
//! * `info`, `tree`, `entry`, `date`: repositories, folders and files as JSON;
//! * `gguf`: which file a tag of llama.cpp means;
//! * `range`, `file`: bytes, whole or in part;
//! * `refusal`: status, code and sentence.
//!
//! The access rules of the other routes hold here too. Where the node has a key, tools send it as
//! their hub token (`HF_TOKEN`).
//!
//! Not here: what is in the catalogue, and where bytes come from (`commons_port::hub::Hub`);
//! uploads, comments, users; the protocol of chunks (`xet`) that tools use with other hubs, and
//! which no header offers.

mod address;
mod date;
mod entry;
mod file;
mod gguf;
mod info;
mod range;
mod refusal;
mod text;
mod tree;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{FromRef, Request, State};
use axum::http::Method;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LINK};
use axum::http::request::Parts;
use axum::http::uri::{Authority, Scheme};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use commons_port::hub::{Hub, HubError, Repo, RepoKind};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::access::{self, only};
use crate::body::read_bounded;
use crate::error::ApiError;
use crate::state::GatewayConfig;

use address::{Address, Revised};
use info::{Search, Wants};
use refusal::Refusal;
use tree::{Listing, Paths};

/// The commit that an answer is of.
const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");

/// How long the catalogue may look. Tools give up after 10 s, and then blame the connection.
const LOOK_UP_MS: u64 = 8_000;

/// What the routes of the hub share.
#[derive(Clone)]
pub(crate) struct HubState {
    /// None: this node offers no repositories.
    pub(crate) hub: Option<Arc<dyn Hub>>,
    /// One permit for each file that may be read.
    reads: Arc<Semaphore>,
    config: Arc<GatewayConfig>,
}

impl HubState {
    pub(crate) fn new(config: Arc<GatewayConfig>) -> Self {
        let reads = Arc::new(Semaphore::new(config.hub_reads_max));
        Self { hub: None, reads, config }
    }
}

/// A hub alone, behind the access rules of a node: for whoever offers files and no answers.
pub fn hub_router(hub: Arc<dyn Hub>, config: GatewayConfig) -> Router {
    let config = Arc::new(config);
    let guard = from_fn_with_state(Arc::clone(&config), access::guard);
    let state = HubState { hub: Some(hub), ..HubState::new(config) };
    routes::<HubState>().fallback(serve).layer(guard).with_state(state)
}

/// The routes of the hub. Methods are judged here, so that refusals have the shape of a hub.
pub(crate) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    HubState: FromRef<S>,
{
    let hub = || any(serve);
    Router::new()
        .route("/api/models", hub())
        .route("/api/models/{*rest}", hub())
        .route("/api/datasets", hub())
        .route("/api/datasets/{*rest}", hub())
        .route("/api/whoami-v2", hub())
        .route("/v2/{org}/{repo}/manifests/{tag}", hub())
        .route("/{org}/resolve/{revision}/{*path}", hub())
        .route("/{org}/raw/{revision}/{*path}", hub())
        .route("/{org}/{repo}/resolve/{revision}/{*path}", hub())
        .route("/{org}/{repo}/raw/{revision}/{*path}", hub())
        .route("/datasets/{org}/{repo}/resolve/{revision}/{*path}", hub())
        .route("/datasets/{org}/{repo}/raw/{revision}/{*path}", hub())
}

/// Whether whoever asks for a path expects answers in the shape of a hub.
pub(crate) fn is_hub_path(path: &str) -> bool {
    let is_file = |part: &str| matches!(part, "resolve" | "raw");
    let is_api = path.starts_with("/api/") || path.starts_with("/v2/");
    is_api || (!path.starts_with("/v1/") && path.split('/').any(is_file))
}

/// A refusal of the gateway in the shape of a hub.
pub(crate) fn refuse(error: &ApiError, method: &Method) -> Response {
    finish(Refusal::from(error).into_response(), method)
}

/// What is offered, and how many may take of it at once.
struct Offer {
    hub: Arc<dyn Hub>,
    reads: Arc<Semaphore>,
    reads_max: usize,
}

/// All routes of the hub.
async fn serve(State(state): State<HubState>, request: Request) -> Response {
    let method = request.method().clone();
    let response = match answer(&state, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    finish(response, &method)
}

async fn answer(state: &HubState, request: Request) -> Result<Response, Refusal> {
    let (asked, body) = request.into_parts();
    let address = Address::parse(asked.uri.path())?;
    check_method(&address, &asked.method)?;
    let offer = Offer {
        hub: state.hub.clone().ok_or_else(Refusal::no_hub)?,
        reads: Arc::clone(&state.reads),
        reads_max: state.config.hub_reads_max,
    };
    let query = asked.uri.query().unwrap_or_default();
    match address {
        Address::WhoAmI => Err(Refusal::no_user()),
        Address::List(kind) => list(&offer, kind, &Search::parse(query)?).await,
        Address::Info(repo) => {
            let repo = look_up(&offer, repo).await?;
            Ok(told(&repo, info::of(&repo, &Wants::of_one(query))))
        }
        Address::Refs(repo) => {
            let repo = look_up(&offer, repo).await?;
            Ok(told(&repo, info::refs(&repo)))
        }
        Address::Tree { repo, path } => {
            let page = Listing::parse(query);
            let repo = look_up(&offer, repo).await?;
            list_tree(&repo, &path, &page, &asked)
        }
        Address::Paths(repo) => {
            let paths = read_paths(state, Request::from_parts(asked, body)).await?;
            let repo = look_up(&offer, repo).await?;
            Ok(told(&repo, tree::look_up(&repo, &paths)))
        }
        Address::Manifest { repo, tag } => {
            let repo = look_up(&offer, repo).await?;
            manifest(&repo, &tag)
        }
        Address::File { repo, path } => {
            let repo = look_up(&offer, repo).await?;
            file::serve(&offer, &repo, &path, &asked).await
        }
    }
}

fn check_method(address: &Address, method: &Method) -> Result<(), Refusal> {
    let is_read = method == Method::GET || method == Method::HEAD;
    match address {
        Address::Paths(_) if method == Method::POST => Ok(()),
        Address::Paths(_) => Err(Refusal::method("POST")),
        _ if is_read => Ok(()),
        _ => Err(Refusal::method("GET, HEAD")),
    }
}

/// Asks the catalogue for a repository.
async fn look_up(offer: &Offer, repo: Revised) -> Result<Repo, Refusal> {
    let Revised { kind, id, revision } = repo;
    let mut repo = in_time(&id, offer.hub.repo(kind, id.clone(), revision)).await?;
    let count = repo.files.len();
    // What is listed can be asked for, and is a plain name on the disk of whoever fetches it.
    repo.files.retain(|file| address::is_plain(&file.path));
    if repo.files.len() < count {
        tracing::warn!(id, "left out files whose paths are not plain");
    }
    repo.files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(repo)
}

async fn list(offer: &Offer, kind: RepoKind, search: &Search) -> Result<Response, Refusal> {
    let found = offer.hub.search(kind, search.query.clone(), info::LIST_LEN_MAX);
    Ok(Json(search.list(in_time("the list", found).await?)).into_response())
}

/// Waits for the catalogue, but not longer than tools do.
async fn in_time<T>(
    what: &str,
    answer: impl Future<Output = Result<T, HubError>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(Duration::from_millis(LOOK_UP_MS), answer).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(Refusal::unavailable(what, "the catalogue took too long")),
    }
}

fn list_tree(
    repo: &Repo,
    path: &str,
    listing: &Listing,
    asked: &Parts,
) -> Result<Response, Refusal> {
    let page = tree::list(repo, path, listing)?;
    let mut response = told(repo, page.entries);
    if let Some(next) = page.next {
        let origin = origin(asked).ok_or_else(|| {
            Refusal::invalid("the tree has more pages, and the request names no host to link them")
        })?;
        let link = format!("<{origin}{next}>; rel=\"next\"");
        refusal::insert(response.headers_mut(), LINK, &link);
    }
    Ok(response)
}

/// Where the node is for whoever asks. Some tools follow only links that are whole.
fn origin(asked: &Parts) -> Option<String> {
    let authority = match asked.uri.authority() {
        Some(authority) => authority.clone(),
        None => only(&asked.headers, &HOST)?.parse::<Authority>().ok()?,
    };
    let scheme = asked.uri.scheme().unwrap_or(&Scheme::HTTP);
    Some(format!("{scheme}://{authority}"))
}

/// `POST .../paths-info/REV`
async fn read_paths(state: &HubState, request: Request) -> Result<Paths, Refusal> {
    let kind = only(request.headers(), &CONTENT_TYPE).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let parse = match essence.as_str() {
        "application/json" => Paths::parse_json,
        "application/x-www-form-urlencoded" => Paths::parse_form,
        _ => return Err(Refusal::invalid("the body must be JSON, or a form")),
    };
    let body = read_bounded(request, &state.config).await;
    parse(&body.map_err(|error| Refusal::from(&error))?)
}

fn manifest(repo: &Repo, tag: &str) -> Result<Response, Refusal> {
    let Some(file) = gguf::choose(&repo.files, tag) else {
        let what = format!("GGUF file of {tag}");
        return Err(Refusal::no_file(&repo.id, &what, &repo.commit));
    };
    let mut manifest = json!({ "ggufFile": entry::sibling(file, true) });
    if let Some(projector) = gguf::projector(&repo.files) {
        manifest["mmprojFile"] = entry::sibling(projector, true);
    }
    Ok(told(repo, manifest))
}

/// JSON of a repository.
fn told(repo: &Repo, value: Value) -> Response {
    let mut response = Json(value).into_response();
    refusal::insert(response.headers_mut(), COMMIT, &repo.commit);
    response
}

/// HEAD gets the headers of GET, and no body.
fn finish(mut response: Response, method: &Method) -> Response {
    if method != Method::HEAD {
        return response;
    }
    let size = response.body().size_hint().exact();
    let headers = response.headers_mut();
    if let (Some(size), false) = (size, headers.contains_key(CONTENT_LENGTH)) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    }
    *response.body_mut() = Body::empty();
    response
}

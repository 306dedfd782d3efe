//! The other end of the control socket: what commands speak to a running node with.
//!
//! One connection for each call; a call that is dropped is cancelled.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Method, Request, Response, StatusCode};
use commons_node::api::{
    AdapterToAdd, AdapterView, InviteView, JoinView, ModelView, Opening, PeerView, ReceiptView,
    StatusView, WhyView,
};
use commons_record::order::PrivacyClass;
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::control::{InviteBody, JoinBody};
use crate::listen::{SOCKET_PATH_LEN_MAX, check_socket_path};

/// A node on the same machine answers its owner within this time, or something is wrong.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest reply that is kept: the evidence of the longest answer has a few MiB of tokens.
const REPLY_SIZE_MAX: usize = 64 * 1024 * 1024;

/// The longest line of a stream: a token with 20 alternatives has about 2 KiB.
const LINE_SIZE_MAX: usize = 1024 * 1024;

/// Why a node did not do what its owner asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ClientError {
    #[error("no node runs on this folder ({path}); start one with `commons up`", path = path.display())]
    NotRunning { path: PathBuf },

    #[error(
        "the path {path} is longer than the {SOCKET_PATH_LEN_MAX} bytes that a socket's path may \
         have; choose a shorter folder with `--data-dir DIR`",
        path = path.display()
    )]
    PathTooLong { path: PathBuf },

    #[error("failed to connect to the node at {path}", path = path.display())]
    Connect { path: PathBuf, source: io::Error },

    #[error("failed to talk to the node")]
    Http(#[from] hyper::Error),

    #[error("failed to read the node's reply")]
    Body(#[source] axum::Error),

    #[error("the node did not reply within {} s", REPLY_TIMEOUT.as_secs())]
    Timeout,

    #[error("{message}")]
    Refused { status: u16, code: String, message: String },

    #[error("the node's reply cannot be read; it may run another version of this program")]
    Malformed(#[source] serde_json::Error),

    #[error("failed to write {path}", path = path.display())]
    Write { path: PathBuf, source: io::Error },

    #[error("the node's reply is larger than {max} bytes")]
    TooLarge { max: usize },
}

/// Speaks to the node whose control socket is at one path.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client for the socket at `path`. Nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// What the node is and how it stands.
    pub async fn status(&self) -> Result<StatusView, ClientError> {
        self.get("/status").await
    }

    /// Models that can be asked for.
    pub async fn models(&self) -> Result<Vec<ModelView>, ClientError> {
        self.get("/models").await
    }

    /// The node's adapters.
    pub async fn adapters(&self) -> Result<Vec<AdapterView>, ClientError> {
        /// As the public route tells them.
        #[derive(serde::Deserialize)]
        struct List {
            data: Vec<AdapterView>,
        }
        self.get("/v1/adapters").await.map(|list: List| list.data)
    }

    /// Takes in an adapter: answers once it can be asked for.
    pub async fn add_adapter(&self, add: &AdapterToAdd) -> Result<AdapterView, ClientError> {
        self.post("/v1/adapters", add).await
    }

    /// Forgets an adapter.
    pub async fn remove_adapter(&self, id: &str) -> Result<AdapterView, ClientError> {
        let path = format!("/v1/adapters/{}", segment(id));
        let bytes = self.call(Method::DELETE, &path, Body::empty()).await?;
        serde_json::from_slice(&bytes).map_err(ClientError::Malformed)
    }

    /// Members of the mesh.
    pub async fn peers(&self) -> Result<Vec<PeerView>, ClientError> {
        self.get("/peers").await
    }

    /// The newest receipts.
    pub async fn receipts(&self, limit: usize) -> Result<Vec<ReceiptView>, ClientError> {
        self.get(&format!("/receipts?limit={limit}")).await
    }

    /// An evidence file.
    pub async fn evidence(&self, id: &str, opening: Opening) -> Result<Vec<u8>, ClientError> {
        let is_open = opening == Opening::Include;
        let path = format!("/receipts/{}/evidence?opening={is_open}", segment(id));
        self.call(Method::GET, &path, Body::empty()).await
    }

    /// Why a request went where it went.
    pub async fn why(&self, id: &str) -> Result<WhyView, ClientError> {
        self.get(&format!("/why/{}", segment(id))).await
    }

    /// A ticket with which others can join.
    pub async fn invite(&self, uses: u32) -> Result<InviteView, ClientError> {
        self.post("/invite", &InviteBody { uses }).await
    }

    /// Begins to join a mesh.
    pub async fn join(&self, ticket: String) -> Result<JoinView, ClientError> {
        self.post("/join", &JoinBody { ticket }).await
    }

    /// Ends the node in order.
    pub async fn shutdown(&self) -> Result<(), ClientError> {
        self.call(Method::POST, "/shutdown", Body::empty()).await.map(drop)
    }

    /// Asks for JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let bytes = self.call(Method::GET, path, Body::empty()).await?;
        serde_json::from_slice(&bytes).map_err(ClientError::Malformed)
    }

    /// Sends JSON and reads JSON.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        let bytes = self.call(Method::POST, path, json(body)?).await?;
        serde_json::from_slice(&bytes).map_err(ClientError::Malformed)
    }

    /// Sends JSON to a public route with `stream: true` and reads the events as they come. There
    /// is no time limit: a prompt may be long.
    pub async fn stream(
        &self,
        path: &str,
        class: PrivacyClass,
        body: &(impl Serialize + Sync),
    ) -> Result<EventLines, ClientError> {
        let mut request = request(Method::POST, path, json(body)?);
        let class = axum::http::HeaderValue::from_static(class.as_str());
        request.headers_mut().insert("x-commons-privacy", class);
        let (response, connection) = self.send(request).await?;
        let status = response.status();
        let chunks = Body::new(response.into_body()).into_data_stream();
        if !status.is_success() {
            return Err(refused(status, &collect(chunks).await?));
        }
        Ok(EventLines {
            chunks,
            buffer: Vec::new(),
            lines: VecDeque::new(),
            _connection: connection,
        })
    }

    /// Asks for bytes of any length, as they come.
    pub(super) async fn bytes(&self, path: &str) -> Result<Chunks, ClientError> {
        let (response, connection) = self.send(request(Method::GET, path, Body::empty())).await?;
        let status = response.status();
        let chunks = Body::new(response.into_body()).into_data_stream();
        if !status.is_success() {
            return Err(refused(status, &collect(chunks).await?));
        }
        Ok(Chunks { chunks, _connection: connection })
    }

    /// One exchange, whole and within the time limit.
    async fn call(&self, method: Method, path: &str, body: Body) -> Result<Vec<u8>, ClientError> {
        let exchange = async {
            let (response, _connection) = self.send(request(method, path, body)).await?;
            let status = response.status();
            let bytes = collect(Body::new(response.into_body()).into_data_stream()).await?;
            if status.is_success() { Ok(bytes) } else { Err(refused(status, &bytes)) }
        };
        tokio::time::timeout(REPLY_TIMEOUT, exchange).await.map_err(|_| ClientError::Timeout)?
    }

    /// Opens a connection and sends a request. The connection lives as long as the set.
    async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, JoinSet<()>), ClientError> {
        let stream = connect(&self.path).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                // The reader of the body is told too.
                tracing::debug!(%error, "the control connection ended early");
            }
        });
        Ok((sender.send_request(request).await?, tasks))
    }
}

/// The events of a stream, one `data:` line at a time, without comments. Dropping it cancels.
#[derive(Debug)]
pub struct EventLines {
    chunks: BodyDataStream,
    /// A line that has not ended yet.
    buffer: Vec<u8>,
    lines: VecDeque<String>,
    _connection: JoinSet<()>,
}

impl EventLines {
    /// The next event's data; none when the stream is over. An event that is an error is one.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return check_event(line).map(Some);
            }
            let Some(chunk) = self.chunks.next().await else { return Ok(None) };
            for byte in chunk.map_err(ClientError::Body)? {
                match byte {
                    b'\n' => self.end_line(),
                    other => self.buffer.push(other),
                }
            }
            if self.buffer.len() > LINE_SIZE_MAX {
                return Err(ClientError::TooLarge { max: LINE_SIZE_MAX });
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.buffer);
        if let Some(data) = line.strip_prefix("data: ") {
            self.lines.push_back(data.to_owned());
        }
        self.buffer.clear();
    }
}

/// Bytes as they come. Dropping it cancels.
pub(super) struct Chunks {
    chunks: BodyDataStream,
    _connection: JoinSet<()>,
}

impl Chunks {
    /// The next bytes; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<axum::body::Bytes>, ClientError> {
        self.chunks.next().await.transpose().map_err(ClientError::Body)
    }
}

/// The published error shape, as far as a command needs it.
#[derive(Deserialize)]
struct ErrorReply {
    error: ErrorFields,
}

#[derive(Deserialize)]
struct ErrorFields {
    code: String,
    message: String,
}

fn check_event(data: String) -> Result<String, ClientError> {
    match serde_json::from_str::<ErrorReply>(&data) {
        Ok(ErrorReply { error }) => Err(ClientError::Refused {
            status: StatusCode::OK.as_u16(),
            code: error.code,
            message: error.message,
        }),
        Err(_not_an_error) => Ok(data),
    }
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<ErrorReply>(body) {
        Ok(ErrorReply { error }) => ClientError::Refused {
            status: status.as_u16(),
            code: error.code,
            message: error.message,
        },
        Err(source) => ClientError::Malformed(source),
    }
}

async fn connect(path: &Path) -> Result<UnixStream, ClientError> {
    if check_socket_path(path).is_err() {
        return Err(ClientError::PathTooLong { path: path.to_owned() });
    }
    UnixStream::connect(path).await.map_err(|source| match source.kind() {
        // No socket, or one whose node is dead.
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning { path: path.to_owned() }
        }
        _ => ClientError::Connect { path: path.to_owned(), source },
    })
}

fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("our paths are made of escaped segments");
    let headers = request.headers_mut();
    headers.insert(HOST, axum::http::HeaderValue::from_static("localhost"));
    headers.insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
    request
}

fn json(value: &impl Serialize) -> Result<Body, ClientError> {
    serde_json::to_vec(value).map(Body::from).map_err(ClientError::Malformed)
}

async fn collect(mut chunks: BodyDataStream) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk.map_err(ClientError::Body)?);
        if bytes.len() > REPLY_SIZE_MAX {
            return Err(ClientError::TooLarge { max: REPLY_SIZE_MAX });
        }
    }
    Ok(bytes)
}

/// What a person typed, as one path segment.
fn segment(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

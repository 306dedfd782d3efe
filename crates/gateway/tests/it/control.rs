//! The control socket, through the client that commands use.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use commons_gateway::control::{Client, ClientError};
use commons_gateway::{
    BindError, GatewayConfig, ServeLimits, bind_unix, control_router, serve_unix,
};
use commons_node::api::{JoinState, Opening, Refusal, RefusalCode};
use commons_record::order::PrivacyClass;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fake::{
    CHAT, FakeNode, Script, chat, get, hash, hello, model, peer, post, request_id, send, state,
};

struct Server {
    client: Client,
    path: PathBuf,
    task: JoinHandle<()>,
    _folder: TempDir,
}

/// A node whose `POST /shutdown` ends its control socket.
fn serve(node: &Arc<FakeNode>) -> Server {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("control.sock");
    let listener = bind_unix(&path).unwrap();
    let (shutdown, is_shutdown) = oneshot::channel();
    let router = control_router(state(node, GatewayConfig::default()), shutdown);
    let until = async { drop(is_shutdown.await) };
    let task = tokio::spawn(serve_unix(listener, router, ServeLimits::default(), until));
    Server { client: Client::new(&path), path, task, _folder: folder }
}

#[tokio::test]
async fn every_command_has_its_reply() {
    let node = FakeNode::new([]);
    let server = serve(&node);
    let client = &server.client;
    assert_eq!(client.status().await.unwrap().peer, peer());
    assert_eq!(client.models().await.unwrap(), [model("stories"), model("tiny llama")]);
    assert!(client.peers().await.unwrap().is_empty());
    assert!(client.receipts(1_000).await.unwrap().is_empty());
    assert_eq!(client.evidence("ab", Opening::Omit).await.unwrap(), b"ab Omit");
    assert_eq!(client.evidence("ab", Opening::Include).await.unwrap(), b"ab Include");
    assert_eq!(client.why("a/b?c=d %").await.unwrap().summary, "because a/b?c=d %");
    let invite = client.invite(3).await.unwrap();
    assert_eq!((invite.ticket.as_str(), invite.uses), ("ticket", 3));
    let join = client.join("secret".into()).await.unwrap();
    assert_eq!((join.mesh, join.state), (hash(4), JoinState::Trying { trouble: None }));
    assert_eq!(*node.joins.lock().unwrap(), ["secret"]);
    let models: Value = client.get("/v1/models").await.unwrap();
    assert_eq!(models["object"], "list");
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_sentence() {
    let server = serve(&FakeNode::new([]));
    let error = server.client.evidence("none", Opening::Omit).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no such record");
    let ClientError::Refused { status, code, .. } = error else { panic!("{error:?}") };
    assert_eq!((status, code.as_str()), (404, "not_found"));
}

#[tokio::test]
async fn commands_that_cannot_be_meant_are_refused() {
    let (shutdown, _is_shutdown) = oneshot::channel();
    let app = control_router(state(&FakeNode::new([]), GatewayConfig::default()), shutdown);
    for (request, status) in [
        (get("/receipts?limit=1001"), 400),
        (get("/receipts?limit=x"), 400),
        (get("/receipts?lim=1"), 400),
        (get("/receipts/ab/evidence?opening=yes"), 400),
        (get("/why/%ff"), 400),
        (get("/nowhere"), 404),
        (get("/invite"), 405),
        (post("/invite", "{}"), 400),
        (post("/invite", r#"{"uses":1,"x":2}"#), 400),
        (post("/join", r#"{"ticket":1}"#), 400),
    ] {
        let uri = request.uri().clone();
        assert_eq!(send(&app, request).await.error().0, status, "{uri}");
    }
}

#[tokio::test]
async fn a_chat_streams_over_the_control_socket() {
    let node = FakeNode::new([]);
    let server = serve(&node);
    let body: Value = serde_json::from_str(&chat(r#","stream":true"#)).unwrap();
    let mut events = server.client.stream(CHAT, PrivacyClass::LocalOnly, &body).await.unwrap();
    let mut text = String::new();
    let mut last = String::new();
    while let Some(event) = events.next().await.unwrap() {
        if let Ok(chunk) = serde_json::from_str::<Value>(&event) {
            text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        }
        last = event;
    }
    assert_eq!((text.as_str(), last.as_str()), ("Hello world", "[DONE]"));
    assert_eq!(node.last_ask().class, PrivacyClass::LocalOnly);
}

#[tokio::test]
async fn a_stream_that_is_refused_or_breaks_off_is_an_error() {
    let refusal = Refusal::new(RefusalCode::ModelNotFound, "nobody has it");
    let node = FakeNode::new([Script::Refuse(refusal), Script::Events(Vec::new())]);
    let server = serve(&node);
    let body: Value = serde_json::from_str(&chat(r#","stream":true"#)).unwrap();
    let ask = || server.client.stream(CHAT, PrivacyClass::Mesh, &body);
    let error = ask().await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused { status: 404, .. }), "{error:?}");
    let mut events = ask().await.unwrap();
    assert!(events.next().await.unwrap().unwrap().contains("assistant"));
    let error = events.next().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Refused { code, .. } if code == "provider_failed"),
        "{error:?}"
    );
}

#[tokio::test]
async fn dropping_a_stream_cancels_the_answer() {
    let node = FakeNode::new([Script::Hang(hello())]);
    let server = serve(&node);
    let body: Value = serde_json::from_str(&chat(r#","stream":true"#)).unwrap();
    let mut events = server.client.stream(CHAT, PrivacyClass::Mesh, &body).await.unwrap();
    events.next().await.unwrap().unwrap();
    drop(events);
    node.dropped(1).await;
}

#[tokio::test]
async fn a_shutdown_is_answered_and_ends_the_node() {
    let server = serve(&FakeNode::new([]));
    server.client.shutdown().await.unwrap();
    server.task.await.unwrap();
    let error = server.client.status().await.unwrap_err();
    assert!(matches!(&error, ClientError::NotRunning { .. }), "{error:?}");
    assert!(error.to_string().contains("commons up"), "{error}");
}

#[tokio::test]
async fn a_second_shutdown_changes_nothing() {
    let (shutdown, is_shutdown) = oneshot::channel();
    let app = control_router(state(&FakeNode::new([]), GatewayConfig::default()), shutdown);
    for _ in 0..2 {
        assert_eq!(send(&app, post("/shutdown", "")).await.status, 202);
    }
    is_shutdown.await.unwrap();
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_and_one_nodes_alone() {
    let server = serve(&FakeNode::new([]));
    let mode = std::fs::metadata(&server.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = bind_unix(&server.path).unwrap_err();
    assert!(matches!(error, BindError::SocketTaken { .. }), "{error:?}");
}

#[tokio::test]
async fn a_socket_that_a_dead_node_left_is_replaced_and_a_file_is_not() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("control.sock");
    drop(bind_unix(&path).unwrap());
    assert!(path.exists(), "a dead node leaves its socket");
    let client = Client::new(&path);
    assert!(matches!(client.status().await, Err(ClientError::NotRunning { .. })));
    bind_unix(&path).unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "keep me").unwrap();
    assert!(matches!(bind_unix(&file), Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "keep me");
}

#[tokio::test]
async fn a_path_that_is_too_long_for_a_socket_is_said_with_what_to_do() {
    let path = Path::new("/tmp").join("x".repeat(200));
    let error = bind_unix(&path).unwrap_err();
    assert!(matches!(error, BindError::PathTooLong { len: 205, .. }), "{error:?}");
    assert!(error.to_string().contains("--data-dir"), "{error}");
    let error = Client::new(&path).status().await.unwrap_err();
    assert!(matches!(error, ClientError::PathTooLong { .. }), "{error:?}");
}

#[tokio::test]
async fn the_control_socket_looks_at_no_host_and_needs_no_key() {
    let (shutdown, _is_shutdown) = oneshot::channel();
    let app = control_router(state(&FakeNode::new([]), GatewayConfig::default()), shutdown);
    let mut request = post(CHAT, chat(""));
    request.headers_mut().remove("host");
    let body = send(&app, request).await.json();
    assert_eq!(body["commons"]["request"], json!(request_id().to_string()));
}

//! A node that follows a script and tells what was asked of it, and helpers to ask it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use commons_gateway::{GatewayConfig, GatewayState, router};
use commons_node::api::blobs::BlobsApi;
use commons_node::api::catalogue::CatalogueApi;
use commons_node::api::{
    AdapterToAdd, AdapterView, Answer, AnswerEnd, AnswerEvent, AnswerHead, AnswerProof, Ask,
    Counters, InviteView, JoinState, JoinView, ModelView, NodeApi, Opening, PeerView, ReceiptView,
    Refusal, RefusalCode, StatusView, WhyView,
};
use commons_port::engine::{Alternative, Token};
use commons_port::time::Clock;
use commons_port::{BoxFuture, BoxStream};
use commons_record::mesh::Usage;
use commons_record::seed::SeedTranscript;
use commons_record::settlement::{EndReason, EngineClass, Scope};
use commons_record::{Hash, Millis, OwnerId, PeerId, RequestId};
use futures::Stream;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

/// When the world of these tests began, in seconds of Unix time.
pub(crate) const NOW_UNIX_S: u64 = 1_700_000_000;

/// What the node does with the next question.
pub(crate) enum Script {
    Refuse(Refusal),
    /// These events, and then the end of the stream, whether or not that is proper.
    Events(Vec<AnswerEvent>),
    /// These events, and then nothing for ever.
    Hang(Vec<AnswerEvent>),
    /// Events as the test sends them.
    Live(mpsc::Receiver<AnswerEvent>),
    /// One token for as long as anyone asks.
    Endless(Token),
    /// Never even an acceptance.
    NeverAccept,
}

/// A node that follows a script. Without one it answers `Hello world`.
pub(crate) struct FakeNode {
    scripts: Mutex<VecDeque<Script>>,
    asks: watch::Sender<Vec<Ask>>,
    pulled: Arc<watch::Sender<u64>>,
    dropped: Arc<watch::Sender<u64>>,
    pub(crate) joins: Mutex<Vec<String>>,
}

impl FakeNode {
    pub(crate) fn new(scripts: impl IntoIterator<Item = Script>) -> Arc<Self> {
        Arc::new(Self {
            scripts: Mutex::new(scripts.into_iter().collect()),
            asks: watch::Sender::default(),
            pulled: Arc::default(),
            dropped: Arc::default(),
            joins: Mutex::default(),
        })
    }

    pub(crate) fn last_ask(&self) -> Ask {
        self.asks.borrow().last().expect("nothing was asked").clone()
    }

    pub(crate) fn ask_count(&self) -> usize {
        self.asks.borrow().len()
    }

    /// Completes once this many questions were asked.
    pub(crate) async fn asked(&self, count: usize) {
        self.asks.subscribe().wait_for(|asks| asks.len() >= count).await.unwrap();
    }

    /// Completes once this many answers or questions were dropped.
    pub(crate) async fn dropped(&self, count: u64) {
        self.dropped.subscribe().wait_for(|dropped| *dropped >= count).await.unwrap();
    }

    /// How many events were pulled out of answers so far.
    pub(crate) fn pulled(&self) -> u64 {
        *self.pulled.borrow()
    }
}

/// Counts when it is dropped.
struct DropCount(Arc<watch::Sender<u64>>);

impl Drop for DropCount {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count += 1);
    }
}

struct Events {
    script: Script,
    pulled: Arc<watch::Sender<u64>>,
    _drop: DropCount,
}

impl Stream for Events {
    type Item = AnswerEvent;

    fn poll_next(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Option<AnswerEvent>> {
        let next = match &mut self.script {
            Script::Events(events) if events.is_empty() => Poll::Ready(None),
            Script::Hang(events) if events.is_empty() => Poll::Pending,
            Script::Events(events) | Script::Hang(events) => Poll::Ready(Some(events.remove(0))),
            Script::Live(events) => events.poll_recv(ctx),
            Script::Endless(token) => Poll::Ready(Some(AnswerEvent::Token(token.clone()))),
            Script::Refuse(_) | Script::NeverAccept => Poll::Ready(None),
        };
        if matches!(next, Poll::Ready(Some(_))) {
            self.pulled.send_modify(|pulled| *pulled += 1);
        }
        next
    }
}

impl NodeApi for FakeNode {
    fn ask(&self, ask: Ask) -> BoxFuture<'static, Result<Answer, Refusal>> {
        self.asks.send_modify(|asks| asks.push(ask));
        let next = self.scripts.lock().unwrap().pop_front();
        let script = next.unwrap_or_else(|| Script::Events(hello()));
        let pulled = Arc::clone(&self.pulled);
        let drop_count = DropCount(Arc::clone(&self.dropped));
        Box::pin(async move {
            match script {
                Script::Refuse(refusal) => Err(refusal),
                Script::NeverAccept => {
                    let _drop = drop_count;
                    std::future::pending().await
                }
                script => {
                    let events: BoxStream<'static, AnswerEvent> =
                        Box::pin(Events { script, pulled, _drop: drop_count });
                    Ok(Answer { head: head(), events })
                }
            }
        })
    }

    fn models(&self) -> BoxFuture<'static, Vec<ModelView>> {
        Box::pin(async { vec![model("stories"), model("tiny llama")] })
    }

    fn adapters(&self) -> BoxFuture<'static, Vec<AdapterView>> {
        Box::pin(async { vec![adapter("poet")] })
    }

    fn add_adapter(&self, add: AdapterToAdd) -> BoxFuture<'static, Result<AdapterView, Refusal>> {
        let name = add.name.unwrap_or_else(|| "unnamed".to_owned());
        Box::pin(async move { Ok(adapter(&name)) })
    }

    fn remove_adapter(&self, id: String) -> BoxFuture<'static, Result<AdapterView, Refusal>> {
        Box::pin(async move {
            match id.strip_prefix("stories+") {
                Some(name) => Ok(adapter(name)),
                None => Err(Refusal::new(RefusalCode::AdapterNotFound, "there is none")),
            }
        })
    }

    fn status(&self) -> BoxFuture<'static, StatusView> {
        Box::pin(async { status() })
    }

    fn peers(&self) -> BoxFuture<'static, Vec<PeerView>> {
        Box::pin(async { Vec::new() })
    }

    fn invite(&self, uses: u32) -> BoxFuture<'static, Result<InviteView, Refusal>> {
        let view = InviteView { ticket: "ticket".into(), uses, mesh_name: "home".into() };
        Box::pin(async { Ok(view) })
    }

    fn join(&self, ticket: String) -> BoxFuture<'static, Result<JoinView, Refusal>> {
        self.joins.lock().unwrap().push(ticket);
        let state = JoinState::Trying { trouble: None };
        let view = JoinView { mesh: hash(4), mesh_name: "home".into(), state };
        Box::pin(async { Ok(view) })
    }

    fn receipts(&self, limit: usize) -> BoxFuture<'static, Result<Vec<ReceiptView>, Refusal>> {
        assert!(limit <= 1_000, "the gateway bounds the list");
        Box::pin(async { Ok(Vec::new()) })
    }

    fn evidence(
        &self,
        id: String,
        opening: Opening,
    ) -> BoxFuture<'static, Result<Vec<u8>, Refusal>> {
        Box::pin(async move {
            match id.as_str() {
                "none" => Err(Refusal::new(RefusalCode::NotFound, "there is no such record")),
                id => Ok(format!("{id} {opening:?}").into_bytes()),
            }
        })
    }

    fn blobs(&self) -> Option<Arc<dyn BlobsApi>> {
        None
    }

    fn catalogue(&self) -> Arc<dyn CatalogueApi> {
        Arc::new(crate::catalogue::FakeCatalogue)
    }

    fn why(&self, id: String) -> BoxFuture<'static, Result<WhyView, Refusal>> {
        let summary = format!("because {id}");
        let view = WhyView { request: request_id(), summary, decisions: Vec::new(), receipt: None };
        Box::pin(async { Ok(view) })
    }

    fn counters(&self) -> Counters {
        Counters { asks: 7, peers: 3, ..Counters::default() }
    }
}

/// A clock that stands still.
#[derive(Default)]
pub(crate) struct StillClock(AtomicU64);

impl Clock for StillClock {
    fn now(&self) -> Millis {
        Millis(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn unix(&self) -> Millis {
        Millis(NOW_UNIX_S * 1_000 + 999)
    }

    fn sleep_until(&self, _deadline: Millis) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

pub(crate) fn state(node: &Arc<FakeNode>, config: GatewayConfig) -> GatewayState {
    let node: Arc<dyn NodeApi> = Arc::clone(node) as Arc<dyn NodeApi>;
    GatewayState::new(node, Arc::new(StillClock::default()), config)
}

pub(crate) fn app(node: &Arc<FakeNode>) -> Router {
    router(state(node, GatewayConfig::default()))
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    /// The error's code, and whether the whole error has the published shape.
    pub(crate) fn error(&self) -> (u16, String, Option<String>) {
        let body = self.json();
        let error = &body["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        assert!(error["type"].is_string(), "{body}");
        assert!(error["param"].is_string() || error["param"].is_null(), "{body}");
        assert_eq!(error.as_object().unwrap().len(), 4, "{body}");
        let code = error["code"].as_str().unwrap().to_owned();
        (self.status.as_u16(), code, error["param"].as_str().map(str::to_owned))
    }
}

pub(crate) async fn send(app: &Router, request: Request<Body>) -> Reply {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    Reply { status: parts.status, headers: parts.headers, body }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "localhost").body(Body::empty()).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const TEXT: &str = "/v1/completions";

/// A good chat body with more members.
pub(crate) fn chat(more: &str) -> String {
    format!(r#"{{"model":"stories","messages":[{{"role":"user","content":"Hi"}}]{more}}}"#)
}

/// A good completion body with more members.
pub(crate) fn text(more: &str) -> String {
    format!(r#"{{"model":"stories","prompt":"Once"{more}}}"#)
}

pub(crate) fn hash(byte: u8) -> Hash {
    Hash::from_bytes([byte; 32])
}

pub(crate) fn request_id() -> RequestId {
    RequestId::from_bytes([1; 16])
}

pub(crate) fn peer() -> PeerId {
    PeerId::from_bytes([2; 32])
}

pub(crate) fn head() -> AnswerHead {
    AnswerHead {
        request: request_id(),
        peer: peer(),
        scope: Scope::Mesh,
        route: hash(3),
        model_name: "stories".into(),
        model: hash(5),
        adapter: None,
    }
}

pub(crate) fn token(id: u32, text: &str) -> Token {
    Token { id, text: text.into(), logprob_micro: -250_000, top: Vec::new() }
}

pub(crate) fn alternative(id: u32, text: &str, logprob_micro: i32) -> Alternative {
    Alternative { id, text: text.into(), logprob_micro }
}

pub(crate) fn done(reason: EndReason, text: &str) -> AnswerEvent {
    let class =
        EngineClass { device: "cpu".into(), kernels: "candle/tol".into(), version: "1".into() };
    AnswerEvent::Done(Box::new(AnswerEnd {
        reason,
        text: text.into(),
        usage: Usage { prompt_tokens: 5, cached_tokens: 2, completion_tokens: 2 },
        proof: AnswerProof {
            request: request_id(),
            receipt: Some(hash(6)),
            peer: peer(),
            model: hash(5),
            quantisation: "Q4_K_M".into(),
            adapter: None,
            adapter_format: None,
            class: Some(class),
            seed: Some(SeedTranscript::Client { seed: 7 }),
        },
    }))
}

/// `Hello world`, of which the last letter was held back.
pub(crate) fn hello() -> Vec<AnswerEvent> {
    let usage = Usage { prompt_tokens: 5, cached_tokens: 2, completion_tokens: 0 };
    vec![
        AnswerEvent::Prefilled { usage, tool_format: None },
        AnswerEvent::Token(token(10, "Hello")),
        AnswerEvent::Heartbeat,
        AnswerEvent::Token(token(11, " worl")),
        done(EndReason::Stop, "d"),
    ]
}

pub(crate) fn model(name: &str) -> ModelView {
    ModelView {
        name: name.into(),
        model: Hash::of_content(name.as_bytes()),
        quantisation: "Q4_K_M".into(),
        context_len: 512,
        is_local: true,
        engine: None,
        adapter: None,
        peers: Vec::new(),
        since_unix_ms: Millis(NOW_UNIX_S * 1_000),
    }
}

fn adapter(name: &str) -> AdapterView {
    AdapterView {
        id: format!("stories+{name}"),
        name: name.into(),
        adapter: hash(9),
        model_name: "stories".into(),
        model: hash(5),
        method: "lora".into(),
        rank: 16,
        format: "F16".into(),
        file_size: 1_000,
    }
}

fn status() -> StatusView {
    StatusView {
        peer: peer(),
        owner: OwnerId::from_bytes([8; 32]),
        version: "0.1.0".into(),
        mesh: hash(4),
        mesh_name: "home".into(),
        is_authority: true,
        addrs: Vec::new(),
        join: None,
        peer_count: 0,
        model_count: 2,
        uptime_ms: Millis(5),
    }
}

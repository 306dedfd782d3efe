//! A server that does what a script says, and an engine in front of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use commons_port::BoxFuture;
use commons_port::engine::{
    Caller, Engine as _, EngineEvent, EngineRefusal, EngineRequest, Priority,
};
use commons_port::time::{Clock, Entropy, Spawn, TaskHandle};
use commons_record::order::{Message, PromptInput, Sampling};
use commons_record::{Hash, Millis, PublicKey};
use commons_remote::{Limits, RemoteConfig, RemoteEngine, RemotePorts};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Far above what anything here takes; only a hang is this long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// What a server does with a connection, after it has read a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Send(Vec<u8>),
    /// Sends nothing for a while.
    Wait(Duration),
    /// Sends nothing until the client goes away.
    Hang,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: Value,
}

type Script = Arc<dyn Fn(&Request) -> Vec<Act> + Send + Sync>;

/// A server; dropping it closes all of its connections and its port.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    /// Connections whose client went away while the server hung.
    left: watch::Sender<u32>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(
        script: impl Fn(&Request) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener, script)
    }

    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(&Request) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().expect("it is bound");
        let (requests, left) = (Arc::default(), watch::Sender::new(0));
        let (script, seen, gone): (Script, _, _) =
            (Arc::new(script), Arc::clone(&requests), left.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                connections.spawn(serve(stream, script.clone(), Arc::clone(&seen), gone.clone()));
            }
        });
        Self { addr, requests, left, _tasks: tasks }
    }

    /// One that lists the model `m` and answers questions so.
    pub(crate) async fn answering(acts: Vec<Act>) -> Self {
        Self::start(move |request| match request.path.as_str() {
            "/v1/models" => vec![ok(&json!({ "data": [{ "id": "m" }] }))],
            "/v1/chat/completions" | "/v1/completions" => acts.clone(),
            _ => vec![status(404, "", "{}")],
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn config(&self) -> RemoteConfig {
        RemoteConfig::new(self.url().parse().expect("is an address")).with_limits(patient())
    }

    pub(crate) async fn engine(&self) -> RemoteEngine {
        up(self.config()).await
    }

    /// The requests for answers, in order.
    pub(crate) fn questions(&self) -> Vec<Request> {
        let all = self.requests.lock().expect("nobody panicked").clone();
        all.into_iter().filter(|it| it.path.ends_with("completions")).collect()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("nobody panicked").clone()
    }

    /// Waits until so many clients have gone away.
    pub(crate) async fn left_by(&self, count: u32) {
        let mut left = self.left.subscribe();
        let waiting = left.wait_for(|it| *it >= count);
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("the client goes")
            .expect("it is there");
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Script,
    seen: Arc<Mutex<Vec<Request>>>,
    left: watch::Sender<u32>,
) {
    let Some(request) = read(&mut stream).await else { return };
    seen.lock().expect("nobody panicked").push(request.clone());
    for act in script(&request) {
        match act {
            Act::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            Act::Wait(time) => tokio::time::sleep(time).await,
            Act::Hang => {
                // Nothing comes but the end.
                let mut rest = [0; 64];
                while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
                left.send_modify(|count| *count += 1);
            }
        }
    }
    let _ = stream.shutdown().await;
}

pub(crate) async fn read(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Request> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|it| {
                it.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                let path = head.split(' ').nth(1)?.to_owned();
                let body = serde_json::from_str(body).unwrap_or_default();
                return Some(Request { path, head: head.to_owned(), body });
            }
        }
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
    }
}

/// A whole response.
pub(crate) fn status(status: u16, headers: &str, body: &str) -> Act {
    let length = body.len();
    let text = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}");
    Act::Send(text.into_bytes())
}

pub(crate) fn ok(body: &Value) -> Act {
    status(200, "content-type: application/json\r\n", &body.to_string())
}

/// The head of a stream whose end is the connection's end.
pub(crate) fn head() -> Act {
    Act::Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n".to_vec())
}

/// A stream, whole.
pub(crate) fn stream(text: &str) -> Vec<Act> {
    vec![head(), Act::Send(text.as_bytes().to_vec())]
}

/// An event that says this.
pub(crate) fn says(text: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({ "model": "m", "choices": [{ "index": 0, "delta": { "content": text } }] })
    )
}

pub(crate) fn ends(reason: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({ "model": "m", "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
    )
}

pub(crate) const DONE: &str = "data: [DONE]\n\n";

/// Limits that no busy machine reaches.
pub(crate) fn patient() -> Limits {
    Limits {
        check_every: Millis(50),
        retry_first: Millis(20),
        retry_max: Millis(100),
        ..Limits::default()
    }
}

/// The machine's own clock, chance and tasks.
#[derive(Debug, Clone, Copy)]
struct Machine(Instant);

impl Clock for Machine {
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.0.elapsed().as_millis()).expect("is short"))
    }

    fn unix(&self) -> Millis {
        Millis(1_700_000_000_000)
    }

    fn sleep_until(&self, deadline: Millis) -> BoxFuture<'static, ()> {
        let wait = Duration::from_millis(deadline.since(self.now()).0);
        Box::pin(tokio::time::sleep(wait))
    }
}

impl Entropy for Machine {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

impl Spawn for Machine {
    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        let task = tokio::spawn(task);
        TaskHandle::new(move || task.abort())
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the shell that lends the clock")]
pub(crate) fn ports() -> RemotePorts {
    let machine = Machine(Instant::now());
    RemotePorts { clock: Arc::new(machine), entropy: Arc::new(machine), spawn: Arc::new(machine) }
}

/// An engine that was looked at.
pub(crate) async fn up(config: RemoteConfig) -> RemoteEngine {
    let engine = RemoteEngine::start(config, ports()).expect("it starts");
    engine.looked_at(Millis::from_secs(60)).await;
    engine
}

/// Waits until it holds.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never came: {what}");
}

/// The hash of the model with that name at the end.
pub(crate) fn model(engine: &RemoteEngine, name: &str) -> Hash {
    let models = engine.models();
    let found = models.iter().find(|it| it.name.ends_with(name));
    found.unwrap_or_else(|| panic!("no {name}: {:?}", engine.view())).model
}

/// The owner's question to the model `m`.
pub(crate) fn question(model: Hash) -> EngineRequest {
    EngineRequest {
        model,
        adapter: None,
        caller: Caller {
            key: PublicKey::from_bytes([2; 32]),
            priority: Priority::Owner,
            shares_prefixes: false,
        },
        input: PromptInput::Chat(vec![Message::new("user", "hi")]),
        stop: Vec::new(),
        constraint: None,
        tools: None,
        sampling: Sampling::greedy(),
        seed: None,
        prompt_tokens_max: 2048,
        completion_tokens_max: 16,
        top_logprobs: 0,
    }
}

/// All events of an answer.
pub(crate) async fn events(engine: &RemoteEngine, request: EngineRequest) -> Vec<EngineEvent> {
    let mut sequence = engine.start(request).unwrap_or_else(|refusal| panic!("refused: {refusal}"));
    let mut events = Vec::new();
    let reading = async {
        while let Some(event) = sequence.next().await {
            events.push(event);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer ends");
    events
}

/// The text of an answer, and how it failed if it did.
pub(crate) fn outcome(events: &[EngineEvent]) -> (String, Option<EngineRefusal>) {
    let (mut text, mut failed) = (String::new(), None);
    for event in events {
        match event {
            EngineEvent::Token(token) => text.push_str(&token.text),
            EngineEvent::Failed(refusal) => failed = Some(refusal.clone()),
            EngineEvent::Prefilled { .. } | EngineEvent::Finished { .. } => {}
        }
    }
    (text, failed)
}

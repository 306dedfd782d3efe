//! Engine processes that are played inside the test.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use commons_port::engine::{EngineRefusal, EngineRefusalCode, LoadedModel, ModelKind, Token};
use commons_port::process::frame::{Frames, encode};
use commons_port::process::{
    AddedModel, Answer, Ask, CallId, ChildProcess, EVENTS_AHEAD, FromEngine, Jail, PROTOCOL,
    SpawnError, Spawned, Spawner, ToEngine,
};
use commons_port::time::{Clock, Spawn, TaskHandle};
use commons_record::settlement::EngineClass;
use commons_record::{Hash, Millis};
use futures::io::{AsyncRead, AsyncWrite};
use tokio::io::{
    AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, DuplexStream, ReadBuf,
};

use super::*;

/// How a process behaves.
#[derive(Debug, Clone)]
pub(super) enum Child {
    Good,
    /// Does not end when its input does.
    Deaf,
    ExitsAtOnce,
    NotThere,
    Silent,
    SilentAfterHello,
    Writes(Vec<u8>),
    Hello(u32),
    HelloTwice,
    SpeaksOf(CallId),
    /// Sends without end.
    Floods,
    DiesLoading(&'static str),
    Refuses(&'static str),
    /// Loads a file as another model.
    Renames,
}

/// Plays children one after the other.
pub(super) struct Played {
    plan: Mutex<VecDeque<Child>>,
    count: AtomicU32,
    left: Arc<AtomicU32>,
    kill: Mutex<Option<Arc<Notify>>>,
}

impl Played {
    pub(super) fn new(plan: VecDeque<Child>) -> Self {
        let (plan, kill) = (Mutex::new(plan), Mutex::default());
        Self { plan, count: AtomicU32::new(0), left: Arc::default(), kill }
    }

    /// How many were started.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }

    /// How many of them have not ended.
    pub(super) fn left(&self) -> u32 {
        self.left.load(Ordering::SeqCst)
    }

    /// `kill -9` of the one that runs.
    pub(super) fn kill(&self) {
        lock(&self.kill).as_ref().expect("one runs").notify_one();
    }
}

impl Spawner for Played {
    fn spawn(&self, readable: Vec<PathBuf>) -> BoxFuture<'static, Result<Spawned, SpawnError>> {
        assert_eq!(readable, [PathBuf::from("/models")]);
        let mut plan = lock(&self.plan);
        let last = plan.back().cloned().expect("a plan");
        let child = if plan.len() > 1 { plan.pop_front() } else { None }.unwrap_or(last);
        let id = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if matches!(child, Child::NotThere) {
            let error = SpawnError { detail: "no such program".to_owned() };
            return Box::pin(std::future::ready(Err(error)));
        }
        let (input, writer) = tokio::io::duplex(64 << 10);
        let (reader, output) = tokio::io::duplex(64 << 10);
        let kill = Arc::new(Notify::new());
        *lock(&self.kill) = Some(Arc::clone(&kill));
        let ended = watch::Sender::new(None);
        let mut process = Process { id, kill: Arc::clone(&kill), ended: ended.subscribe() };
        let left = Arc::clone(&self.left);
        left.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let how = tokio::select! {
                biased;
                () = kill.notified() => "signal 9".to_owned(),
                how = live(child, input, output) => how,
            };
            left.fetch_sub(1, Ordering::SeqCst);
            ended.send_replace(Some(how));
        });
        process.ended.mark_unchanged();
        let (reader, writer) = (Box::new(Pipe(reader)), Box::new(Pipe(writer)));
        Box::pin(std::future::ready(Ok(Spawned { reader, writer, process: Box::new(process) })))
    }
}

/// A model of that name, as a child tells of it.
pub(super) fn added(name: &str) -> AddedModel {
    let facts = LoadedModel {
        model: Hash::of_content(name.as_bytes()),
        name: name.to_owned(),
        file_name: name.to_owned(),
        file_size: 1,
        family: "f".to_owned(),
        quantisation: "q".to_owned(),
        tokenizer: Hash::of_content(b"t"),
        context_len: 1,
        parameter_count: 0,
        licence: None,
        class: EngineClass {
            device: "d".to_owned(),
            kernels: "k".to_owned(),
            version: "1".to_owned(),
        },
        kind: ModelKind::Decoder,
    };
    AddedModel { facts, placement: "cpu".to_owned(), slots: 4 }
}

/// Lives until its input ends or its part is over; returns how it ended.
async fn live(child: Child, mut input: DuplexStream, mut output: DuplexStream) -> String {
    match &child {
        Child::ExitsAtOnce => return "exit status 1".to_owned(),
        Child::Silent => std::future::pending().await,
        Child::Writes(bytes) => {
            let _ = output.write_all(bytes).await;
            std::future::pending::<()>().await;
        }
        _ => {}
    }
    let protocol = if let Child::Hello(other) = child { other } else { PROTOCOL };
    let hello = || FromEngine::Hello { protocol, jail: Box::new(Jail::default()) };
    say(&mut output, &hello()).await;
    match &child {
        Child::HelloTwice => say(&mut output, &hello()).await,
        Child::SpeaksOf(call) => say(&mut output, &FromEngine::Over { call: *call }).await,
        Child::SilentAfterHello => std::future::pending().await,
        _ => {}
    }
    let (mut frames, mut buffer) = (Frames::default(), vec![0; 4096]);
    let mut rooms: BTreeMap<CallId, u32> = BTreeMap::new();
    loop {
        while let Some(message) = frames.read().expect("the node speaks well") {
            if !answer(&child, message, &mut rooms, &mut output).await {
                return "signal 11".to_owned();
            }
        }
        for (call, room) in &mut rooms {
            let count = if matches!(child, Child::Floods) { u32::MAX } else { *room };
            for _ in 0..count {
                let token = Token { id: 1, text: String::new(), logprob_micro: 0, top: Vec::new() };
                let event = EngineEvent::Token(token);
                say(&mut output, &FromEngine::Event { call: *call, event }).await;
            }
            *room = 0;
        }
        tokio::select! {
            read = input.read(&mut buffer) => match read {
                Ok(0) | Err(_) if matches!(child, Child::Deaf) => std::future::pending().await,
                Ok(0) | Err(_) => return "exit status 0".to_owned(),
                Ok(size) => frames.push(&buffer[..size]),
            },
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                say(&mut output, &FromEngine::Figures { loads: Vec::new() }).await;
            }
        }
    }
}

/// Answers a message; false if that is the end of the child.
async fn answer(
    child: &Child,
    message: ToEngine,
    rooms: &mut BTreeMap<CallId, u32>,
    output: &mut DuplexStream,
) -> bool {
    let (call, ask) = match message {
        ToEngine::Ask { call, ask } => (call, *ask),
        ToEngine::Read { call, count } => {
            rooms.entry(call).and_modify(|it| *it += count);
            return true;
        }
        ToEngine::Cancel { call } => {
            if rooms.remove(&call).is_some() {
                say(output, &FromEngine::Over { call }).await;
            }
            return true;
        }
        ToEngine::Reveal { .. } => return true,
    };
    let answer = match ask {
        Ask::Add(model) => {
            let name = model.path.to_str().expect("text");
            match child {
                Child::DiesLoading(bad) if *bad == name => return false,
                Child::Refuses(bad) if *bad == name => Err(EngineRefusal {
                    code: EngineRefusalCode::Failed,
                    message: "no such file".to_owned(),
                }),
                Child::Renames => Ok(Box::new(Answer::Added(added("another")))),
                _ => Ok(Box::new(Answer::Added(added(name)))),
            }
        }
        Ask::Start(_) => {
            say(output, &FromEngine::Answer { call, answer: Ok(Box::new(Answer::Started)) }).await;
            let event =
                EngineEvent::Prefilled { prompt: vec![1], cached_tokens: 0, tool_format: None };
            say(output, &FromEngine::Event { call, event }).await;
            rooms.insert(call, EVENTS_AHEAD - 1);
            return true;
        }
        other => panic!("nobody asks that: {other:?}"),
    };
    say(output, &FromEngine::Answer { call, answer }).await;
    true
}

async fn say(output: &mut DuplexStream, message: &FromEngine) {
    // A node that is gone hears nothing.
    let _ = output.write_all(&encode(message).expect("fits")).await;
}

struct Process {
    id: u32,
    kill: Arc<Notify>,
    ended: watch::Receiver<Option<String>>,
}

impl ChildProcess for Process {
    fn id(&self) -> u32 {
        self.id
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async {
            let ended = self.ended.wait_for(Option::is_some).await;
            ended.ok().and_then(|it| it.clone()).unwrap_or_default()
        })
    }

    fn kill(&mut self) {
        self.kill.notify_one();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One end of a pipe, as the ports take it.
struct Pipe(DuplexStream);

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut filled = ReadBuf::new(buffer);
        let polled = Pin::new(&mut self.0).poll_read(ctx, &mut filled);
        polled.map_ok(|()| filled.filled().len())
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(ctx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(ctx)
    }

    fn poll_close(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(ctx)
    }
}

/// The runtime's clock, which a test stops.
pub(super) struct TokioClock(tokio::time::Instant);

impl Default for TokioClock {
    fn default() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.0.elapsed().as_millis()).expect("short"))
    }

    fn unix(&self) -> Millis {
        self.now()
    }

    fn sleep_until(&self, deadline: Millis) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(self.0 + Duration::from_millis(deadline.0)))
    }
}

/// Tasks of the test's runtime.
pub(super) struct TokioTasks;

impl Spawn for TokioTasks {
    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        let task = tokio::spawn(task);
        TaskHandle::new(move || task.abort())
    }
}

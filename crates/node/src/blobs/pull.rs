//! Pulling one blob from many peers: the shell around `swarm::fetch`.
//!
//! One task owns the machine. Each peer has a task with a stream; the store's calls are tasks too.
//! All of them put what happened into one bounded queue, and the first task does what the machine
//! says, in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use commons_port::BoxStream;
use commons_port::blobs::{Bits, BlobError, Blobs, CV_LEN, GROUP_PIECES};
use commons_port::net::{Net, Path, Protocol};
use commons_port::time::{Clock, Spawn};
use commons_record::{Hash, Millis, PeerId};
use commons_swarm::fetch::{
    Budget, Evidence, Fetch, Input, Nearness, Output, Part, Progress, Spec, Stall, Target,
};
use commons_swarm::wire::{AskId, Holding, ToFetcher, ToSeeder};
use futures::StreamExt as _;
use futures::io::{AsyncReadExt as _, ReadHalf};
use tokio::sync::mpsc;

use super::frames::{self, Frame, FrameError, QUEUE_LEN};
use crate::tasks::{Tasks, lock, within};

/// What happened and was not looked at yet. Answers among it are within the budget.
const INBOX_LEN: usize = 64;

/// Messages to one peer that were not sent yet: its window of asks, and as many cancellations.
const TO_PEER_LEN: usize = 64;

/// Events that wait for the caller. Progress is left out when it does not read; the rest waits.
const EVENTS_LEN: usize = 64;

/// A peer is reached within this.
const OPEN_MAX: Millis = Millis::from_secs(20);

/// What a pull is built on.
#[derive(Clone)]
pub struct PullPorts {
    /// The network.
    pub net: Arc<dyn Net>,
    /// The store.
    pub blobs: Arc<dyn Blobs>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Tasks.
    pub spawn: Arc<dyn Spawn>,
    /// What all pulls of the node share.
    pub budget: Arc<Mutex<Budget>>,
}

impl std::fmt::Debug for PullPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PullPorts")
    }
}

/// A peer that may hold the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The peer.
    pub peer: PeerId,
    /// How near it is.
    pub near: Nearness,
}

/// What is pulled.
pub struct PullSpec {
    /// The blob.
    pub blob: Hash,
    /// Its size.
    pub size: u64,
    /// Breaks ties between pieces; each node draws its own.
    pub seed: u64,
    /// Peers as they are found. One whose stream ended is tried again when it comes again.
    pub sources: BoxStream<'static, Source>,
    /// The protocol of the mesh.
    pub protocols: Vec<Protocol>,
}

impl std::fmt::Debug for PullSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("PullSpec");
        debug.field("blob", &self.blob).field("size", &self.size).finish_non_exhaustive()
    }
}

/// What a pull tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// A piece is held; how it stands. The last piece is told by [`PullEvent::Done`].
    Held {
        /// The piece.
        piece: u64,
        /// How the pull stands.
        progress: Progress,
    },
    /// A peer lied or broke the protocol.
    Banned {
        /// The peer.
        peer: PeerId,
        /// What shows it.
        evidence: Evidence,
    },
    /// Nothing can be asked now.
    Stalled(Stall),
    /// It goes on.
    Going,
    /// The blob is held whole. The last event.
    Done,
    /// The store failed before the pull began. The last event.
    Failed(BlobError),
}

/// A pull under way. Dropping it ends it; what is held stays.
#[derive(Debug)]
pub struct Pull {
    commands: mpsc::Sender<Input>,
    events: mpsc::Receiver<PullEvent>,
}

impl Pull {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<PullEvent> {
        self.events.recv().await
    }

    /// Readers wait for these pieces, the most urgent first.
    pub async fn prefer(&self, pieces: Vec<Range<u64>>) {
        // A pull that is over prefers nothing.
        let _ = self.commands.send(Input::Prefer(pieces)).await;
    }

    /// As [`Self::prefer`], without waiting; false if it was not heard.
    pub fn try_prefer(&self, pieces: &[Range<u64>]) -> bool {
        use tokio::sync::mpsc::error::TrySendError;
        let sent = self.commands.try_send(Input::Prefer(pieces.to_vec()));
        !matches!(sent, Err(TrySendError::Full(_)))
    }

    /// Stops asking, or goes on; also after the store failed.
    pub async fn pause(&self, is_paused: bool) {
        let _ = self.commands.send(Input::Pause(is_paused)).await;
    }
}

/// Begins to pull.
pub fn pull(ports: PullPorts, spec: PullSpec) -> Pull {
    let (commands, orders) = mpsc::channel(1);
    let (events, told) = mpsc::channel(EVENTS_LEN);
    // The task that owns the session keeps its own set of tasks: when it ends, they do.
    let tasks = Tasks::new(ports.spawn.clone());
    let set = tasks.clone();
    tasks.start(
        "pull",
        Box::pin(async move {
            match Session::begin(ports, spec, set.clone(), events.clone()).await {
                Ok(session) => session.run(orders).await,
                Err(error) => {
                    // Nobody may be listening any more.
                    let _ = events.send(PullEvent::Failed(error)).await;
                }
            }
            set.stop();
        }),
    );
    Pull { commands, events: told }
}

/// What the tasks around a session tell it.
enum Inbound {
    Input(Input),
    /// An answer that was waited for, and its bytes.
    Answer {
        peer: PeerId,
        ask: AskId,
        bytes: Bytes,
    },
    /// A stream was opened.
    Opened(Source),
    /// The conversation of that number with a peer is over.
    Ended(PeerId, u64),
}

/// Answers that a peer owes, each with its length: what else it sends is read past.
type OwedAsks = Arc<Mutex<BTreeMap<AskId, u32>>>;

/// A peer that a task talks to.
struct Talk {
    number: u64,
    queue: mpsc::Sender<ToSeeder>,
    owed: OwedAsks,
}

struct Session {
    ports: PullPorts,
    blob: Hash,
    size: u64,
    protocols: Vec<Protocol>,
    sources: Option<BoxStream<'static, Source>>,
    fetch: Fetch,
    tasks: Tasks,
    talks: BTreeMap<PeerId, Talk>,
    next_talk: u64,
    placed: BTreeMap<Target, BTreeMap<u32, Bytes>>,
    /// The answer that is being looked at.
    answer: Option<Bytes>,
    inbox: (mpsc::Sender<Inbound>, mpsc::Receiver<Inbound>),
    events: mpsc::Sender<PullEvent>,
    wake: Option<Millis>,
    is_over: bool,
}

impl Session {
    async fn begin(
        ports: PullPorts,
        spec: PullSpec,
        tasks: Tasks,
        events: mpsc::Sender<PullEvent>,
    ) -> Result<Self, BlobError> {
        let PullSpec { blob, size, seed, sources, protocols } = spec;
        let info = ports.blobs.begin(blob, size).await?;
        let held = ports.blobs.held(blob).await?;
        let has_top = ports.blobs.top(blob).await?.is_some();
        let groups = info.pieces().div_ceil(GROUP_PIECES);
        let mut pages = vec![0_u8; usize::try_from(groups.div_ceil(8)).unwrap_or(0)];
        for (group, at) in (0..groups).zip((0..pages.len()).flat_map(|at| [at; 8])) {
            if has_top && ports.blobs.page(blob, group).await?.is_some() {
                pages[at] |= 1 << (group % 8);
            }
        }
        let me = ports.net.local_peer();
        let spec = Spec { blob, size, me, seed, held, has_top, pages: Bits(pages) };
        let fetch = Fetch::new(spec, &mut lock(&ports.budget));
        Ok(Self {
            ports,
            blob,
            size,
            protocols,
            sources: Some(sources),
            fetch,
            tasks,
            talks: BTreeMap::new(),
            next_talk: 0,
            placed: BTreeMap::new(),
            answer: None,
            inbox: mpsc::channel(INBOX_LEN),
            events,
            wake: None,
            is_over: false,
        })
    }

    /// Runs until the blob is whole or nobody wants it any more.
    async fn run(mut self, mut orders: mpsc::Receiver<Input>) {
        self.step(Input::Tick).await;
        while !self.is_over {
            let clock = self.ports.clock.clone();
            let Self { wake, sources, inbox, .. } = &mut self;
            let wake = async {
                match *wake {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let source = async {
                match sources {
                    Some(sources) => sources.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                order = orders.recv() => self.step(order.unwrap_or(Input::Cancel)).await,
                Some(inbound) = inbox.1.recv() => self.take_in(inbound).await,
                source = source => match source {
                    Some(source) => self.meet(source),
                    None => self.sources = None,
                },
                () = wake => {
                    self.wake = None;
                    self.step(Input::Tick).await;
                }
            }
        }
    }

    async fn take_in(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Input(input) => {
                let held = match input {
                    Input::Checked { target: Target::Piece(piece), is_right: true } => Some(piece),
                    _ => None,
                };
                self.step(input).await;
                if let Some(piece) = held.filter(|_| !self.is_over) {
                    let progress = self.fetch.progress();
                    // A caller that does not read misses how it goes, never how it ends.
                    let _ = self.events.try_send(PullEvent::Held { piece, progress });
                }
            }
            Inbound::Ended(peer, number) => {
                // One that was ended here may have been followed by another one already.
                if self.talks.get(&peer).is_none_or(|it| it.number == number) {
                    self.talks.remove(&peer);
                    self.step(Input::PeerDown { peer }).await;
                }
            }
            Inbound::Answer { peer, ask, bytes } => {
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                self.answer = Some(bytes);
                self.step(Input::Data { peer, ask, len }).await;
                self.answer = None;
            }
            Inbound::Opened(Source { peer, near }) => {
                self.step(Input::PeerUp { peer, near }).await;
                if let Some(talk) = self.talks.get(&peer) {
                    // The queue is new and empty.
                    let _ = talk.queue.try_send(ToSeeder::Follow { blob: self.blob });
                }
            }
        }
    }

    /// Opens a stream to a peer that was found.
    fn meet(&mut self, source: Source) {
        let is_full = self.talks.len() >= 2 * commons_swarm::fetch::PEERS_MAX;
        if is_full || self.talks.contains_key(&source.peer) {
            return;
        }
        let (queue, messages) = mpsc::channel(TO_PEER_LEN);
        let owed = OwedAsks::default();
        self.next_talk += 1;
        let number = self.next_talk;
        self.talks.insert(source.peer, Talk { number, queue, owed: owed.clone() });
        let net = self.ports.net.clone();
        let conversation = Conversation {
            source,
            number,
            blob: self.blob,
            owed,
            inbox: self.inbox.0.clone(),
            clock: self.ports.clock.clone(),
            tasks: self.tasks.clone(),
        };
        let protocols = self.protocols.clone();
        let talk = conversation.run(net, protocols, messages);
        self.tasks.start("pull from a peer", Box::pin(talk));
    }

    /// Gives the machine something, and does what it says, in order.
    async fn step(&mut self, input: Input) {
        let now = self.ports.clock.now();
        let outputs = self.fetch.step(now.0, input, &mut lock(&self.ports.budget));
        for output in outputs {
            self.perform(output).await;
        }
        if self.fetch.is_over() {
            self.is_over = true;
        }
    }

    async fn perform(&mut self, output: Output) {
        match output {
            Output::Ask { peer, ask, part } => {
                let len = self.length(part);
                let message = ToSeeder::Ask { ask, blob: self.blob, part };
                if let Some(talk) = self.talks.get(&peer) {
                    lock(&talk.owed).insert(ask, len);
                }
                self.say(peer, message);
            }
            Output::Cancel { peer, ask } => {
                if let Some(talk) = self.talks.get(&peer) {
                    lock(&talk.owed).remove(&ask);
                }
                self.say(peer, ToSeeder::Cancel { ask });
            }
            Output::Place { target, start, .. } => {
                if let Some(bytes) = self.answer.take() {
                    self.placed.entry(target).or_default().insert(start, bytes);
                }
            }
            Output::Put(target) => self.put(target),
            Output::Forget(target) => {
                self.placed.remove(&target);
            }
            Output::Ban { peer, evidence } => {
                self.talks.remove(&peer);
                self.tell(PullEvent::Banned { peer, evidence }).await;
            }
            Output::Leave { peer } => {
                self.talks.remove(&peer);
            }
            Output::Stalled(stall) => self.tell(PullEvent::Stalled(stall)).await,
            Output::Going => self.tell(PullEvent::Going).await,
            Output::Done => self.tell(PullEvent::Done).await,
            Output::Wake(at) => self.wake = Some(Millis(at)),
            // Only after `Input::Local`, which this shell does not say.
            Output::Fill { .. }
            | Output::Retain { .. }
            | Output::Compare { .. }
            | Output::DistrustRecipe => {}
        }
    }

    async fn tell(&mut self, event: PullEvent) {
        // Whoever dropped the pull hears no more; its end comes by the closed commands.
        let _ = self.events.send(event).await;
    }

    /// A peer that takes no more messages is not talked to any more.
    fn say(&mut self, peer: PeerId, message: ToSeeder) {
        let is_sent = self.talks.get(&peer).is_some_and(|it| it.queue.try_send(message).is_ok());
        if !is_sent {
            self.talks.remove(&peer);
        }
    }

    fn length(&self, part: Part) -> u32 {
        let pieces = commons_port::blobs::pieces_of(self.size);
        let cvs = |count: u64| u32::try_from(count * CV_LEN as u64).unwrap_or(u32::MAX);
        match part {
            Part::Top => cvs(pieces.div_ceil(GROUP_PIECES)),
            Part::Page { group } => {
                cvs(pieces.saturating_sub(group * GROUP_PIECES).min(GROUP_PIECES))
            }
            Part::Bytes { len, .. } => len,
        }
    }

    /// Gives what was placed to the store; its word comes back through the inbox.
    fn put(&mut self, target: Target) {
        let parts = self.placed.remove(&target).unwrap_or_default();
        let bytes = match parts.len() {
            1 => parts.into_values().next().unwrap_or_default(),
            _ => parts
                .into_values()
                .fold(BytesMut::new(), |mut all, part| {
                    all.extend_from_slice(&part);
                    all
                })
                .freeze(),
        };
        let (blob, blobs) = (self.blob, self.ports.blobs.clone());
        let inbox = self.inbox.0.clone();
        self.tasks.start(
            "put",
            Box::pin(async move {
                let put = match target {
                    Target::Top => blobs.put_top(blob, bytes).await,
                    Target::Page(group) => blobs.put_page(blob, group, bytes).await,
                    Target::Piece(piece) => blobs.put_piece(blob, piece, bytes).await,
                };
                let input = match put {
                    Ok(()) => Input::Checked { target, is_right: true },
                    Err(BlobError::WrongPiece { .. } | BlobError::WrongHashes { .. }) => {
                        Input::Checked { target, is_right: false }
                    }
                    Err(error) => Input::StoreFailed { target, message: error.to_string() },
                };
                // A session that is over needs no word.
                let _ = inbox.send(Inbound::Input(input)).await;
            }),
        );
    }
}

/// One peer's stream.
struct Conversation {
    source: Source,
    number: u64,
    blob: Hash,
    owed: OwedAsks,
    inbox: mpsc::Sender<Inbound>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
}

impl Conversation {
    async fn run(
        self,
        net: Arc<dyn Net>,
        protocols: Vec<Protocol>,
        mut messages: mpsc::Receiver<ToSeeder>,
    ) {
        let peer = self.source.peer;
        let opening = net.open(peer, protocols, Path::Direct);
        if let Some(Ok(opened)) = within(&*self.clock, OPEN_MAX, opening).await {
            let (mut reader, writer) = opened.stream.split();
            let (queue, frames) = mpsc::channel(QUEUE_LEN);
            let write = Box::pin(frames::write_all(frames, writer));
            self.tasks.start("pull writer", write);
            let send = async {
                while let Some(message) = messages.recv().await {
                    if queue.send(Frame::of(&message)).await.is_err() {
                        break;
                    }
                }
            };
            let read = async {
                if self.inbox.send(Inbound::Opened(self.source)).await.is_err() {
                    return;
                }
                if let Err(error) = self.read(&mut reader).await {
                    tracing::debug!(%peer, %error, "a stream of a pull ended");
                }
            };
            // The session drops its end of the queue when it has done with this peer.
            tokio::select! {
                () = send => {}
                () = read => {}
            }
        }
        // A session that is over needs no word.
        let _ = self.inbox.send(Inbound::Ended(peer, self.number)).await;
    }

    async fn read(
        &self,
        reader: &mut ReadHalf<commons_port::net::BoxDuplex>,
    ) -> Result<(), FrameError> {
        let peer = self.source.peer;
        loop {
            let message: ToFetcher = frames::read(reader).await?;
            let inbound = match message {
                ToFetcher::Data { ask, len } => match self.data(reader, ask, len).await? {
                    Some(inbound) => inbound,
                    None => continue,
                },
                ToFetcher::Holdings { blob, size, holding } if blob == self.blob => {
                    Inbound::Input(Input::Holdings { peer, size, holding })
                }
                ToFetcher::Held { blob, stretch, bits } if blob == self.blob => {
                    Inbound::Input(Input::Held { peer, stretch, bits: bits.into_vec() })
                }
                ToFetcher::Have { blob, pieces } if blob == self.blob => {
                    Inbound::Input(Input::Have { peer, pieces })
                }
                ToFetcher::Refused { ask, refusal } => {
                    lock(&self.owed).remove(&ask);
                    let retry_after_ms = refusal.retry_after_ms.map(|it| it.0);
                    let code = refusal.code;
                    Inbound::Input(Input::Refused { peer, ask, code, retry_after_ms })
                }
                // About another blob, or the answer to a question that was not asked.
                ToFetcher::Holdings { .. }
                | ToFetcher::Held { .. }
                | ToFetcher::Have { .. }
                | ToFetcher::Has { .. } => continue,
            };
            // One that gives nothing now may later: it is asked again when it is found again.
            let gives_nothing = matches!(
                inbound,
                Inbound::Input(Input::Holdings { holding: Holding::Nothing, .. })
            );
            if self.inbox.send(inbound).await.is_err() || gives_nothing {
                return Ok(());
            }
        }
    }

    /// Reads an answer that is owed; what is not is read past.
    async fn data(
        &self,
        reader: &mut ReadHalf<commons_port::net::BoxDuplex>,
        ask: AskId,
        len: u32,
    ) -> Result<Option<Inbound>, FrameError> {
        let peer = self.source.peer;
        let owed = lock(&self.owed).remove(&ask);
        if owed != Some(len) {
            frames::skip_raw(reader, len).await?;
            let input = Inbound::Input(Input::Data { peer, ask, len });
            return Ok(owed.map(|_| input));
        }
        // A full queue is told with the next part.
        let mut unheard = 0;
        let bytes = frames::read_raw(reader, len, |bytes| {
            unheard += bytes;
            let progress = Input::Progress { peer, ask, bytes: unheard };
            if self.inbox.try_send(Inbound::Input(progress)).is_ok() {
                unheard = 0;
            }
        });
        let bytes = bytes.await?;
        Ok(Some(Inbound::Answer { peer, ask, bytes }))
    }
}

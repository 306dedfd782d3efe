//! Giving blobs to peers: the shell around `swarm::upload`.
//!
//! Each stream has a task that reads and one that writes. What is asked goes into the machine,
//! which all streams share; what it says is done where it is said. A lock is held for a step and
//! never across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use commons_port::blobs::{BlobError, BlobInfo, Blobs, CV_LEN, GROUP_PIECES};
use commons_port::net::{Incoming, Net, Protocol};
use commons_port::time::{Clock, Spawn};
use commons_record::{Hash, Millis, PeerId};
use commons_swarm::fetch::Part;
use commons_swarm::upload::{Input, Job, Output, Upload};
use commons_swarm::wire::{
    AskId, HAVE_MAX, Holding, Refusal, RefuseCode, ToFetcher, ToSeeder, stretches,
};
use futures::StreamExt as _;
use futures::io::AsyncReadExt as _;
use serde_bytes::ByteBuf;
use tokio::sync::{Notify, mpsc};

use super::frames::{self, Frame, FrameError, QUEUE_LEN};
use crate::tasks::{Tasks, lock, within};

/// An answer that a peer does not take within this is given up, and its stream with it.
const SEND_MAX: Millis = Millis::from_secs(120);

/// Streams of all peers.
const STREAMS_MAX: usize = 512;

/// Streams of one peer: one for each blob that it pulls at once.
const STREAMS_EACH_MAX: usize = 16;

/// Blobs that one stream follows.
const FOLLOWS_MAX: usize = 16;

/// Pieces that a follower was not told of yet. Beyond, its stream ends: it comes back and is told
/// all.
const NEWS_MAX: usize = 65_536;

/// What seeding is built on.
#[derive(Clone)]
pub struct SeedPorts {
    /// The network.
    pub net: Arc<dyn Net>,
    /// The store.
    pub blobs: Arc<dyn Blobs>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Tasks.
    pub spawn: Arc<dyn Spawn>,
}

impl std::fmt::Debug for SeedPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SeedPorts")
    }
}

/// What may be given to whom.
pub trait Rules: Send + Sync {
    /// Whether this peer may ask at all: whether it is a member.
    fn admits(&self, peer: &PeerId) -> bool;

    /// Whether this blob is given to it; the refusal says which rule keeps it.
    fn gives(&self, peer: &PeerId, blob: &Hash) -> Result<(), Refusal>;

    /// Whether this node is pulling it, and will have more of it.
    fn is_pulling(&self, blob: &Hash) -> bool;
}

/// Gives blobs until it is dropped.
pub struct Seeding {
    ports: SeedPorts,
    rules: Arc<dyn Rules>,
    tasks: Tasks,
    state: Mutex<State>,
}

impl std::fmt::Debug for Seeding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seeding")
    }
}

#[derive(Default)]
struct State {
    upload: Upload,
    owed: BTreeMap<(PeerId, u64, AskId), Owed>,
    streams: BTreeMap<u64, Stream>,
    next_stream: u64,
}

/// What an ask that waits is for.
struct Owed {
    blob: Hash,
    part: Part,
    queue: mpsc::Sender<Frame>,
}

struct Stream {
    peer: PeerId,
    follows: BTreeSet<Hash>,
    news: BTreeSet<(Hash, u64)>,
    has_missed_news: bool,
    notify: Arc<Notify>,
}

impl Seeding {
    /// Begins to accept streams of this protocol.
    pub fn start(ports: SeedPorts, rules: Arc<dyn Rules>, protocols: Vec<Protocol>) -> Arc<Self> {
        let tasks = Tasks::new(ports.spawn.clone());
        let mut incoming = ports.net.accept(protocols);
        let seeding = Arc::new(Self { ports, rules, tasks, state: Mutex::default() });
        let weak = Arc::downgrade(&seeding);
        let accept = async move {
            while let Some(stream) = incoming.next().await {
                let Some(seeding) = weak.upgrade() else { return };
                seeding.accept(stream);
            }
        };
        seeding.tasks.start("blobs", Box::pin(accept));
        seeding
    }

    /// So many bytes per second at most from now on, to all peers together.
    pub fn cap(self: &Arc<Self>, bytes_per_s: Option<u64>) {
        self.step(Input::Cap(bytes_per_s));
    }

    /// A piece is held since now: followers are told.
    pub fn have(&self, blob: Hash, piece: u64) {
        let mut state = lock(&self.state);
        for stream in state.streams.values_mut().filter(|it| it.follows.contains(&blob)) {
            if stream.news.len() < NEWS_MAX {
                stream.news.insert((blob, piece));
            } else {
                stream.has_missed_news = true;
            }
            stream.notify.notify_one();
        }
    }

    /// Ends all streams.
    pub fn stop(&self) {
        self.tasks.stop();
    }

    fn accept(self: &Arc<Self>, incoming: Incoming) {
        let peer = incoming.peer;
        if !self.rules.admits(&peer) {
            return; // Others get a reset.
        }
        let Some((id, notify)) = self.enter(peer) else { return };
        let weak = Arc::downgrade(self);
        let (queue, frames) = mpsc::channel(QUEUE_LEN);
        let (mut reader, writer) = incoming.stream.split();
        let at = At { peer, id, queue };
        let serve = async move {
            let write = frames::write_all(frames, writer);
            let news = tell_news(weak.clone(), id, notify, at.queue.clone());
            let read = async {
                let error = loop {
                    let message = match frames::read(&mut reader).await {
                        Ok(message) => message,
                        Err(error) => break error,
                    };
                    let Some(seeding) = weak.upgrade() else { return };
                    seeding.answer(&at, message).await;
                };
                if let FrameError::Wire(error) = error {
                    tracing::debug!(%peer, %error, "a peer broke the protocol of blobs");
                }
            };
            // Whichever ends first ends the stream.
            tokio::select! {
                () = write => {}
                () = news => {}
                () = read => {}
            }
            if let Some(seeding) = weak.upgrade() {
                seeding.leave(peer, id);
            }
        };
        self.tasks.start("blob stream", Box::pin(serve));
    }

    fn enter(&self, peer: PeerId) -> Option<(u64, Arc<Notify>)> {
        let mut state = lock(&self.state);
        let of_peer = state.streams.values().filter(|it| it.peer == peer).count();
        if state.streams.len() >= STREAMS_MAX || of_peer >= STREAMS_EACH_MAX {
            return None;
        }
        let id = state.next_stream;
        state.next_stream += 1;
        let notify = Arc::new(Notify::new());
        let (follows, news) = (BTreeSet::new(), BTreeSet::new());
        let stream = Stream { peer, follows, news, has_missed_news: false, notify: notify.clone() };
        state.streams.insert(id, stream);
        Some((id, notify))
    }

    fn leave(self: &Arc<Self>, peer: PeerId, id: u64) {
        {
            let mut state = lock(&self.state);
            state.streams.remove(&id);
            state.owed.retain(|(_, stream, _), _| *stream != id);
        }
        self.step(Input::Gone { peer, stream: id });
    }

    /// Answers one message. A peer that does not read its answers is not read from.
    async fn answer(self: &Arc<Self>, at: &At, message: ToSeeder) {
        match message {
            ToSeeder::WhoHas { ask, blobs } => {
                let mut holdings = Vec::with_capacity(blobs.len());
                for blob in blobs {
                    holdings.push(self.holding(&at.peer, blob).await.1);
                }
                at.send(&ToFetcher::Has { ask, holdings }).await;
            }
            ToSeeder::Follow { blob } => self.follow(at, blob).await,
            ToSeeder::Unfollow { blob } => {
                if let Some(stream) = lock(&self.state).streams.get_mut(&at.id) {
                    stream.follows.remove(&blob);
                    stream.news.retain(|(of, _)| *of != blob);
                }
            }
            ToSeeder::Ask { ask, blob, part } => match self.length(at, blob, part).await {
                Ok(len) => {
                    let owed = Owed { blob, part, queue: at.queue.clone() };
                    lock(&self.state).owed.insert((at.peer, at.id, ask), owed);
                    let job = Job { peer: at.peer, stream: at.id, ask, len };
                    self.step(Input::Asked(job));
                }
                Err(refusal) => at.send(&ToFetcher::Refused { ask, refusal }).await,
            },
            ToSeeder::Cancel { ask } => {
                lock(&self.state).owed.remove(&(at.peer, at.id, ask));
                self.step(Input::Cancelled { peer: at.peer, stream: at.id, ask });
            }
        }
    }

    /// The size of a blob as far as it is known here, and how much of it is given.
    async fn holding(&self, peer: &PeerId, blob: Hash) -> (u64, Holding) {
        if self.rules.gives(peer, &blob).is_err() {
            return (0, Holding::Nothing);
        }
        match self.ports.blobs.info(blob).await {
            Ok(Some(info)) if info.is_whole() => (info.size, Holding::Whole),
            Ok(Some(info)) if self.rules.is_pulling(&blob) => (info.size, Holding::Fetching),
            Ok(Some(info)) if info.pieces_held > 0 => (info.size, Holding::Part),
            _ => (0, Holding::Nothing),
        }
    }

    async fn follow(&self, at: &At, blob: Hash) {
        // Followed first: what comes while the state is read is told twice and never missed.
        if let Some(stream) = lock(&self.state).streams.get_mut(&at.id)
            && stream.follows.len() < FOLLOWS_MAX
        {
            stream.follows.insert(blob);
        }
        let (size, holding) = self.holding(&at.peer, blob).await;
        at.send(&ToFetcher::Holdings { blob, size, holding }).await;
        if !matches!(holding, Holding::Part | Holding::Fetching) {
            return;
        }
        let Ok(held) = self.ports.blobs.held(blob).await else { return };
        for (stretch, bits) in stretches(&held.0) {
            at.send(&ToFetcher::Held { blob, stretch, bits: ByteBuf::from(bits) }).await;
        }
    }

    /// How long the answer to an ask is, or why there is none.
    async fn length(&self, at: &At, blob: Hash, part: Part) -> Result<u32, Refusal> {
        self.rules.gives(&at.peer, &blob)?;
        let info = self.ports.blobs.info(blob).await.map_err(|error| refusal(&error))?;
        let info = info.ok_or_else(|| refusal(&BlobError::NotHeld { blob }))?;
        length(&info, part).ok_or_else(|| {
            let sentence = format!("{blob} has {} bytes, and not this", info.size);
            Refusal::new(RefuseCode::OutOfRange, sentence)
        })
    }

    /// Gives the machine something, and does what it says.
    fn step(self: &Arc<Self>, input: Input) {
        let now = self.ports.clock.now();
        let mut begun = Vec::new();
        {
            let mut state = lock(&self.state);
            for output in state.upload.step(now.0, input) {
                match output {
                    Output::Serve(job) => {
                        let owed = state.owed.remove(&(job.peer, job.stream, job.ask));
                        begun.push(Begun::Serve(job, owed));
                    }
                    Output::Refuse(job) => {
                        let owed = state.owed.remove(&(job.peer, job.stream, job.ask));
                        begun.extend(owed.map(|owed| Begun::Refuse(job, owed)));
                    }
                    Output::Wake(at) => begun.push(Begun::Wake(Millis(at))),
                }
            }
        }
        for begun in begun {
            let seeding = self.clone();
            self.tasks.start("blob answer", Box::pin(async move { seeding.perform(begun).await }));
        }
    }

    async fn perform(self: Arc<Self>, begun: Begun) {
        match begun {
            Begun::Serve(job, owed) => {
                if let Some(owed) = owed {
                    let serving = self.serve(&job, owed);
                    within(&*self.ports.clock, SEND_MAX, serving).await;
                }
                self.step(Input::Served { peer: job.peer });
            }
            Begun::Refuse(job, owed) => {
                let sentence = "too many asks of yours wait here";
                let refusal = Refusal::new(RefuseCode::Busy, sentence);
                let message = ToFetcher::Refused { ask: job.ask, refusal };
                let sending = owed.queue.send(Frame::of(&message));
                within(&*self.ports.clock, SEND_MAX, sending).await;
            }
            Begun::Wake(at) => {
                self.ports.clock.sleep_until(at).await;
                self.step(Input::Tick);
            }
        }
    }

    /// Reads what was asked for, sends it, and waits until it has left.
    async fn serve(&self, job: &Job, owed: Owed) {
        let ask = job.ask;
        let read = self.read(owed.blob, owed.part).await;
        let bytes = read.and_then(|bytes| {
            let is_as_asked = u32::try_from(bytes.len()) == Ok(job.len);
            let other = || Refusal::new(RefuseCode::Broken, "what is held has another length");
            if is_as_asked { Ok(bytes) } else { Err(other()) }
        });
        match bytes {
            Ok(bytes) => {
                let message = ToFetcher::Data { ask, len: job.len };
                let (frame, left) = Frame::with_raw(&message, bytes);
                if owed.queue.send(frame).await.is_ok() {
                    // An error says the same: it will not leave any more.
                    let _ = left.await;
                }
            }
            Err(refusal) => {
                let message = ToFetcher::Refused { ask, refusal };
                // A stream that is gone needs no refusal.
                let _ = owed.queue.send(Frame::of(&message)).await;
            }
        }
    }

    async fn read(&self, blob: Hash, part: Part) -> Result<Bytes, Refusal> {
        let blobs = &self.ports.blobs;
        let not_yet = || Refusal::new(RefuseCode::NotYet, "these hashes are not held yet");
        let read = match part {
            Part::Top => blobs.top(blob).await,
            Part::Page { group } => blobs.page(blob, group).await,
            Part::Bytes { offset, len } => blobs.read(blob, offset, len).await.map(Some),
        };
        read.map_err(|error| refusal(&error))?.ok_or_else(not_yet)
    }
}

/// What one step led to.
enum Begun {
    Serve(Job, Option<Owed>),
    Refuse(Job, Owed),
    Wake(Millis),
}

/// A stream as its reader sees it.
struct At {
    peer: PeerId,
    id: u64,
    queue: mpsc::Sender<Frame>,
}

impl At {
    async fn send(&self, message: &ToFetcher) {
        // A stream that is gone is found out by its reader.
        let _ = self.queue.send(Frame::of(message)).await;
    }
}

/// Tells a follower of new pieces, many in one message. Ends when it missed some.
async fn tell_news(
    seeding: Weak<Seeding>,
    id: u64,
    notify: Arc<Notify>,
    queue: mpsc::Sender<Frame>,
) {
    loop {
        notify.notified().await;
        loop {
            let Some(seeding) = seeding.upgrade() else { return };
            let (blob, pieces) = {
                let mut state = lock(&seeding.state);
                let Some(stream) = state.streams.get_mut(&id) else { return };
                if stream.has_missed_news {
                    return;
                }
                let Some((blob, _)) = stream.news.first().copied() else { break };
                let of_blob = stream.news.iter().filter(|(of, _)| *of == blob);
                let pieces: Vec<u64> = of_blob.map(|(_, piece)| *piece).take(HAVE_MAX).collect();
                for piece in &pieces {
                    stream.news.remove(&(blob, *piece));
                }
                (blob, pieces)
            };
            drop(seeding);
            let message = ToFetcher::Have { blob, pieces };
            if queue.send(Frame::of(&message)).await.is_err() {
                return;
            }
        }
    }
}

/// Bytes of a part of a blob; `None` if the blob has no such part.
fn length(info: &BlobInfo, part: Part) -> Option<u32> {
    let cvs = |count: u64| u32::try_from(count).ok()?.checked_mul(u32::try_from(CV_LEN).ok()?);
    let groups = info.pieces().div_ceil(GROUP_PIECES);
    match part {
        Part::Top => cvs(groups).filter(|_| groups > 1),
        Part::Page { group } => {
            let rest = info.pieces().checked_sub(group.checked_mul(GROUP_PIECES)?)?;
            cvs(rest.min(GROUP_PIECES)).filter(|_| rest > 0 && info.pieces() > 1)
        }
        Part::Bytes { offset, len } => {
            let end = offset.checked_add(u64::from(len))?;
            Some(len).filter(|_| end <= info.size)
        }
    }
}

fn refusal(error: &BlobError) -> Refusal {
    let code = match error {
        BlobError::NotHeld { .. } => RefuseCode::NotHeld,
        BlobError::NotYet { .. } => RefuseCode::NotYet,
        BlobError::OutOfRange { .. } => RefuseCode::OutOfRange,
        // The store's enum may grow; what is not known here is a failure of the store. Its text
        // may name a path of this machine, which is nobody else's business.
        _ => return Refusal::new(RefuseCode::Broken, "what is held could not be read"),
    };
    Refusal::new(code, error.to_string())
}

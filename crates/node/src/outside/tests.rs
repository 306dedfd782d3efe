//! A file from a place that does what a script says, into a store in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use commons_port::blobs::{Bits, BlobInfo, Collected, Holding, Place};
use commons_port::hub::{Listing, Source};
use tokio::time::Instant;

use super::*;

const SIZE: usize = 1_000_000;

pub(super) fn content() -> Vec<u8> {
    (0..SIZE).map(|at| u8::try_from(at % 251).expect("is small")).collect()
}

/// What the place does with one question.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Sends these bytes from where they are, so many, and then breaks off.
    Sends {
        offset: usize,
        len: usize,
    },
    /// Sends all from the offset that was asked for.
    Rest,
    Refuses(OriginError),
    /// Sends other bytes than the file's, from the offset on.
    Other,
    /// Sends more than the file has, in one piece.
    TooMany,
    Hangs,
}

#[derive(Default)]
pub(super) struct Script {
    acts: Mutex<VecDeque<Act>>,
    offsets: Mutex<Vec<u64>>,
}

pub(super) fn broken() -> OriginError {
    OriginError::Broken { host: "h".to_owned(), detail: "broke off".to_owned() }
}

impl Origin for Script {
    fn list(&self, _: Source) -> BoxFuture<'static, Result<Listing, OriginError>> {
        unreachable!("nothing is listed")
    }

    fn fetch(
        &self,
        _: OriginFile,
        offset: u64,
    ) -> BoxFuture<'static, Result<Fetched, OriginError>> {
        self.offsets.lock().expect("nobody panicked").push(offset);
        let act = self.acts.lock().expect("nobody panicked").pop_front().expect("an act is left");
        let asked = usize::try_from(offset).expect("is small");
        let sends = |offset: usize, all: Vec<u8>, end: Option<OriginError>| {
            let pieces: Vec<Result<Bytes, OriginError>> = all
                .chunks(100_000)
                .map(|it| Ok(Bytes::copy_from_slice(it)))
                .chain(end.map(Err))
                .collect();
            Ok(Fetched { offset: offset as u64, bytes: Box::pin(futures::stream::iter(pieces)) })
        };
        let result = match act {
            Act::Sends { offset, len } => {
                sends(offset, content()[offset..offset + len].to_vec(), Some(broken()))
            }
            Act::Rest => sends(asked, content()[asked..].to_vec(), None),
            Act::Other => sends(asked, vec![9; SIZE - asked], None),
            Act::TooMany => {
                let piece: Result<Bytes, OriginError> = Ok(vec![9; SIZE - asked + 1].into());
                Ok(Fetched { offset, bytes: Box::pin(futures::stream::iter([piece])) })
            }
            Act::Refuses(error) => Err(error),
            Act::Hangs => return Box::pin(pending()),
        };
        Box::pin(std::future::ready(result))
    }
}

type Kept = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A store that knows the SHA-256 of nothing but the file, and takes any other for wrong.
#[derive(Clone, Default)]
pub(super) struct Memory {
    kept: Kept,
    /// The most that fits.
    room: Option<usize>,
    /// What it holds whole, under the SHA-256 of the file.
    whole: Arc<Mutex<Option<Hash>>>,
}

struct Arriving(Memory, String);

impl Arriving {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        work(self.0.kept.lock().expect("nobody panicked").entry(self.1.clone()).or_default())
    }
}

impl Receiving for Arriving {
    fn len(&self) -> u64 {
        self.with(|it| it.len() as u64)
    }

    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), BlobError>> {
        let room = self.0.room.unwrap_or(usize::MAX);
        let free = (room as u64).saturating_sub(self.len());
        let need = bytes.len() as u64;
        let result = if need > free { Err(BlobError::Full { need, free }) } else { Ok(()) };
        if result.is_ok() {
            self.with(|it| it.extend_from_slice(&bytes));
        }
        Box::pin(std::future::ready(result))
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), BlobError>> {
        self.with(Vec::clear);
        Box::pin(std::future::ready(Ok(())))
    }

    fn finish(
        self: Box<Self>,
        sha256: Option<[u8; 32]>,
    ) -> BoxFuture<'static, Result<AddEvent, BlobError>> {
        let bytes = self.with(std::mem::take);
        let result = if sha256.is_some() && bytes != content() {
            Err(BlobError::WrongDigest { want: "x".to_owned(), got: "y".to_owned() })
        } else {
            let (blob, size) = (Hash::of_content(&bytes), bytes.len() as u64);
            *self.0.whole.lock().expect("nobody panicked") = Some(blob);
            Ok(AddEvent::Held { blob, sha256: [0; 32], size, recipe: blob })
        };
        Box::pin(std::future::ready(result))
    }
}

type Answer<T> = BoxFuture<'static, Result<T, BlobError>>;

impl Blobs for Memory {
    fn info(&self, blob: Hash) -> Answer<Option<BlobInfo>> {
        let is_held = *self.whole.lock().expect("nobody panicked") == Some(blob);
        let size = SIZE as u64;
        let info = BlobInfo {
            blob,
            size,
            pieces_held: commons_port::blobs::pieces_of(size),
            pins: 0,
            is_in_place: false,
            used_unix_ms: 0,
        };
        Box::pin(std::future::ready(Ok(is_held.then_some(info))))
    }

    fn receive(&self, key: String, _: u64) -> Answer<Box<dyn Receiving>> {
        let arriving: Box<dyn Receiving> = Box::new(Arriving(self.clone(), key));
        Box::pin(std::future::ready(Ok(arriving)))
    }

    fn by_sha256(&self, _: [u8; 32]) -> Answer<Option<Hash>> {
        let whole = *self.whole.lock().expect("nobody panicked");
        Box::pin(std::future::ready(Ok(whole)))
    }

    fn list(&self, _: Option<Hash>, _: usize) -> Answer<Vec<BlobInfo>> {
        unreachable!("not asked for")
    }
    fn begin(&self, _: Hash, _: u64) -> Answer<BlobInfo> {
        unreachable!("not asked for")
    }
    fn held(&self, _: Hash) -> Answer<Bits> {
        unreachable!("not asked for")
    }
    fn top(&self, _: Hash) -> Answer<Option<Bytes>> {
        unreachable!("not asked for")
    }
    fn page(&self, _: Hash, _: u64) -> Answer<Option<Bytes>> {
        unreachable!("not asked for")
    }
    fn put_top(&self, _: Hash, _: Bytes) -> Answer<()> {
        unreachable!("not asked for")
    }
    fn put_page(&self, _: Hash, _: u64, _: Bytes) -> Answer<()> {
        unreachable!("not asked for")
    }
    fn put_piece(&self, _: Hash, _: u64, _: Bytes) -> Answer<()> {
        unreachable!("not asked for")
    }
    fn read(&self, _: Hash, _: u64, _: u32) -> Answer<Bytes> {
        unreachable!("not asked for")
    }
    fn find_chunks(&self, _: Vec<Hash>) -> Answer<Vec<Option<Place>>> {
        unreachable!("not asked for")
    }
    fn index_chunks(&self, _: Hash, _: Hash) -> Answer<()> {
        unreachable!("not asked for")
    }
    fn add(&self, _: String, _: Holding) -> BoxStream<'static, Result<AddEvent, BlobError>> {
        unreachable!("not asked for")
    }
    fn pin(&self, _: Hash, _: String, _: bool) -> Answer<()> {
        unreachable!("not asked for")
    }
    fn remove(&self, _: Hash) -> Answer<()> {
        unreachable!("not asked for")
    }
    fn collect(&self) -> Answer<Collected> {
        unreachable!("not asked for")
    }
    fn verify(&self, _: Hash) -> Answer<Vec<u64>> {
        unreachable!("not asked for")
    }
}

/// The runtime's clock, which stands until everybody waits.
pub(super) struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.0.elapsed().as_millis()).expect("is short"))
    }

    fn unix(&self) -> Millis {
        self.now()
    }

    fn sleep_until(&self, deadline: Millis) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(Duration::from_millis(deadline.since(self.now()).0)))
    }
}

impl Entropy for Paused {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(3);
    }
}

pub(super) struct World {
    origin: Arc<Script>,
    store: Memory,
    pub(super) clock: Arc<Paused>,
    pub(super) progress: watch::Sender<Progress>,
}

impl World {
    pub(super) fn new(acts: &[Act]) -> Self {
        let origin = Arc::new(Script::default());
        origin.acts.lock().expect("nobody panicked").extend(acts.iter().cloned());
        let progress = watch::Sender::default();
        let clock = Arc::new(Paused(Instant::now()));
        Self { origin, store: Memory::default(), clock, progress }
    }

    pub(super) fn ports(&self) -> OutsidePorts {
        OutsidePorts {
            origin: Arc::clone(&self.origin) as Arc<dyn Origin>,
            blobs: Arc::new(self.store.clone()),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            entropy: Arc::clone(&self.clock) as Arc<dyn Entropy>,
        }
    }

    pub(super) fn file(digest: Option<Digest>) -> OriginFile {
        let (path, url) = ("m.gguf".to_owned(), "https://h/m.gguf".to_owned());
        OriginFile { path, size: SIZE as u64, digest, url }
    }

    fn pull(
        &self,
        digest: Option<Digest>,
    ) -> impl Future<Output = Result<Hash, OutsideError>> + use<> {
        pull(self.ports(), Self::file(digest), Policy::default(), self.progress.clone())
    }

    pub(super) fn offsets(&self) -> Vec<u64> {
        self.origin.offsets.lock().expect("nobody panicked").clone()
    }
}

pub(super) const SHA: Option<Digest> = Some(Digest::Sha256([0xab; 32]));

fn gave_up(result: Result<Hash, OutsideError>) -> GiveUp {
    match result {
        Err(OutsideError::GaveUp { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_comes_through_failures_and_goes_on_where_it_stood() {
    let world = World::new(&[
        Act::Refuses(OriginError::Busy { host: "h".to_owned(), after_ms: 60_000 }),
        Act::Sends { offset: 0, len: 300_000 },
        Act::Refuses(broken()),
        Act::Hangs,
        Act::Sends { offset: 300_000, len: 200_000 },
        Act::Rest,
    ]);
    let blob = world.pull(SHA).await;
    assert_eq!(blob, Ok(Hash::of_content(&content())));
    assert_eq!(world.offsets(), [0, 0, 300_000, 300_000, 300_000, 500_000]);
    assert!(world.clock.now() >= Millis(60_000));
    let size = SIZE as u64;
    assert_eq!(*world.progress.borrow(), Progress { kept: size, size, stage: Stage::Hashing });
}

#[tokio::test(start_paused = true)]
async fn a_place_that_cannot_resume_begins_anew() {
    let world = World::new(&[
        Act::Sends { offset: 0, len: 300_000 },
        Act::Sends { offset: 0, len: 400_000 },
        Act::Rest,
    ]);
    assert_eq!(world.pull(SHA).await, Ok(Hash::of_content(&content())));
    assert_eq!(world.offsets(), [0, 300_000, 400_000]);
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_is_dropped_goes_on_later() {
    let world = World::new(&[Act::Sends { offset: 0, len: 700_000 }, Act::Hangs, Act::Rest]);
    let cut_off = tokio::time::timeout(Duration::from_mins(1), world.pull(SHA)).await;
    assert!(cut_off.is_err());
    assert_eq!(world.pull(SHA).await, Ok(Hash::of_content(&content())));
    assert_eq!(world.offsets(), [0, 700_000, 700_000]);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_not_asked_for() {
    let world = World::new(&[Act::Rest]);
    let blob = world.pull(SHA).await.expect("it comes");
    assert_eq!(world.pull(SHA).await, Ok(blob));
    assert_eq!(world.pull(Some(Digest::Blake3(blob))).await, Ok(blob));
    assert_eq!(world.offsets(), [0]);
}

#[tokio::test(start_paused = true)]
async fn another_file_is_not_held() {
    let world = World::new(&[Act::Other]);
    assert_eq!(gave_up(world.pull(SHA).await), GiveUp::WrongHash);
    let world = World::new(&[Act::Other]);
    let want = Some(Digest::Blake3(Hash::of_content(&content())));
    assert_eq!(gave_up(world.pull(want).await), GiveUp::WrongHash);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_of_a_file_that_changed_is_thrown_away() {
    let changed = OriginError::Changed { what: "m.gguf".to_owned() };
    let world = World::new(&[
        Act::Sends { offset: 0, len: 300_000 },
        Act::Refuses(changed.clone()),
        Act::Rest,
    ]);
    assert_eq!(gave_up(world.pull(None).await), GiveUp::Refused(changed));
    assert_eq!(world.pull(None).await, Ok(Hash::of_content(&content())));
    assert_eq!(world.offsets(), [0, 300_000, 0]);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_file_is_not_kept() {
    let acts = vec![Act::TooMany; 20];
    let world = World::new(&acts);
    let reason = gave_up(world.pull(SHA).await);
    assert!(matches!(reason, GiveUp::NoProgress { .. }), "{reason:?}");
    let kept = world.store.kept.lock().expect("nobody panicked");
    assert!(kept.values().all(Vec::is_empty));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_is_said_and_nothing_is_lost() {
    let mut world = World::new(&[Act::Rest, Act::Rest]);
    world.store.room = Some(450_000);
    let error = world.pull(SHA).await;
    let full = BlobError::Full { need: 100_000, free: 50_000 };
    assert_eq!(error, Err(OutsideError::NotKept { path: "m.gguf".to_owned(), reason: full }));
    world.store.room = None;
    assert_eq!(world.pull(SHA).await, Ok(Hash::of_content(&content())));
    assert_eq!(world.offsets(), [0, 400_000]);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_never_works_is_left_in_the_end() {
    let world = World::new(&vec![Act::Refuses(broken()); 20]);
    let reason = gave_up(world.pull(SHA).await);
    assert!(matches!(reason, GiveUp::NoProgress { attempts: 8, .. }), "{reason:?}");
    assert_eq!(world.offsets().len(), 8);
    // Doubled waits: 1 + 2 + 4 + 8 + 16 + 32 + 60 seconds, each up to a quarter longer.
    assert!(world.clock.now() >= Millis(123_000) && world.clock.now() <= Millis(154_000));
}

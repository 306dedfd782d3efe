//! The files' part of the node's contract: each question goes to the function that answers it.

use std::sync::Arc;

use bytes::Bytes;
use commons_port::blobs::{AddEvent, BlobError, BlobInfo, Blobs, Holding, PIECE_LEN};
use commons_port::{BoxFuture, BoxStream};
use commons_record::Hash;
use futures::{StreamExt as _, stream};

use super::{Stock, give, refusal, take};
use crate::api::blobs::{
    AddedView, BlobEvent, BlobView, BlobsApi, CollectedView, FileToAdd, ProgressView, VerifiedView,
};
use crate::api::{Refusal, RefusalCode};
use crate::catalogue;
use crate::start::Inner;

/// Blobs that are read from the store at once.
const PAGE: usize = 256;

/// Blobs of one list.
const LISTED_MAX: usize = 100_000;

/// Names of one blob that are shown.
const NAMES_MAX: usize = 8;

/// The files of a running node.
pub(crate) struct Handle {
    inner: Arc<Inner>,
    stock: Arc<Stock>,
}

type Answered<T> = BoxFuture<'static, Result<T, Refusal>>;

impl Handle {
    pub(crate) fn new(inner: Arc<Inner>, stock: Arc<Stock>) -> Self {
        Self { inner, stock }
    }
}

impl BlobsApi for Handle {
    fn list(&self) -> Answered<Vec<BlobView>> {
        let inner = self.inner.clone();
        let stock = self.stock.clone();
        Box::pin(async move { list(&inner, &stock).await })
    }

    fn add(&self, file: FileToAdd) -> BoxStream<'static, BlobEvent> {
        let stock = self.stock.clone();
        let Some(path) = file.path.to_str().map(str::to_owned) else {
            let sentence = format!("{} is not UTF-8; rename it", file.path.display());
            let refusal = Refusal::new(RefusalCode::InvalidRequest, sentence);
            return Box::pin(stream::once(async { BlobEvent::Failed(refusal) }));
        };
        let holding = if file.is_copied { Holding::Copied } else { Holding::InPlace };
        let events = stock.ports.blobs.add(path.clone(), holding);
        Box::pin(events.then(move |event| added(stock.clone(), path.clone(), event)))
    }

    fn pull(&self, what: String) -> BoxStream<'static, BlobEvent> {
        take::pull(self.inner.clone(), self.stock.clone(), what)
    }

    fn read(&self, blob: Hash) -> BoxStream<'static, Result<Bytes, Refusal>> {
        bytes(self.stock.ports.blobs.clone(), blob)
    }

    fn verify(&self, blob: Hash) -> Answered<VerifiedView> {
        let stock = self.stock.clone();
        Box::pin(async move {
            let wrong = stock.ports.blobs.verify(blob).await;
            let wrong_pieces = wrong.map_err(|error| refusal(&error))?;
            Ok(VerifiedView { blob, wrong_pieces })
        })
    }

    fn remove(&self, blob: Hash) -> Answered<()> {
        let stock = self.stock.clone();
        Box::pin(async move {
            let blobs = &stock.ports.blobs;
            let unpinned = blobs.pin(blob, take::PIN.to_owned(), false).await;
            unpinned.map_err(|error| refusal(&error))?;
            blobs.remove(blob).await.map_err(|error| refusal(&error))?;
            stock.news.notify_one();
            Ok(())
        })
    }

    fn collect(&self) -> Answered<CollectedView> {
        let stock = self.stock.clone();
        Box::pin(async move {
            let collected = stock.ports.blobs.collect().await;
            let collected = collected.map_err(|error| refusal(&error))?;
            stock.news.notify_one();
            Ok(CollectedView { blobs: collected.blobs, bytes: collected.bytes })
        })
    }
}

async fn list(inner: &Inner, stock: &Stock) -> Result<Vec<BlobView>, Refusal> {
    let mut all: Vec<BlobView> = Vec::new();
    while all.len() < LISTED_MAX {
        let after = all.last().map(|it| it.blob);
        let page = stock.ports.blobs.list(after, PAGE).await.map_err(|error| refusal(&error))?;
        if page.is_empty() {
            break;
        }
        let held = catalogue::turn(inner).await;
        let held = held.map_err(|it| Refusal::new(RefusalCode::StorageFailed, it.to_string()))?;
        for info in &page {
            let names = held.catalogue.holders(info.blob).flat_map(|listed| {
                let release = &listed.release;
                release
                    .files
                    .iter()
                    .filter(|it| it.blob == info.blob)
                    .map(|file| format!("{}@{}:{}", release.name, release.version, file.path))
            });
            all.push(view(stock, info, names.take(NAMES_MAX).collect()));
        }
    }
    Ok(all)
}

fn view(stock: &Stock, info: &BlobInfo, names: Vec<String>) -> BlobView {
    BlobView {
        blob: info.blob,
        size: info.size,
        pieces_held: info.pieces_held,
        pieces: info.pieces(),
        pins: info.pins,
        is_in_place: info.is_in_place,
        names,
        kept_back: give::kept_back(stock, &info.blob),
    }
}

/// What the store says, in the contract's words; what the owner took in stays.
async fn added(stock: Arc<Stock>, path: String, event: Result<AddEvent, BlobError>) -> BlobEvent {
    match event {
        Ok(AddEvent::Progress { bytes, size }) => {
            BlobEvent::Progress(ProgressView { file: path, bytes, size, bytes_per_s: 0, peers: 0 })
        }
        Ok(AddEvent::Held { blob, sha256, size, recipe }) => {
            for blob in [blob, recipe] {
                if let Err(error) = stock.ports.blobs.pin(blob, take::PIN.to_owned(), true).await {
                    return BlobEvent::Failed(refusal(&error));
                }
            }
            stock.news.notify_one();
            BlobEvent::Added(AddedView { blob, sha256: Hash::from_bytes(sha256), size, recipe })
        }
        Err(error) => BlobEvent::Failed(refusal(&error)),
    }
}

fn bytes(blobs: Arc<dyn Blobs>, blob: Hash) -> BoxStream<'static, Result<Bytes, Refusal>> {
    Box::pin(stream::try_unfold((blobs, 0_u64), move |(blobs, offset)| async move {
        let info = blobs.info(blob).await.map_err(|error| refusal(&error))?;
        let info = info.ok_or_else(|| refusal(&BlobError::NotHeld { blob }))?;
        if offset >= info.size {
            return Ok(None);
        }
        let len = (info.size - offset).min(u64::from(PIECE_LEN));
        let len = u32::try_from(len).unwrap_or(PIECE_LEN);
        let bytes = blobs.read(blob, offset, len).await.map_err(|error| refusal(&error))?;
        Ok(Some((bytes, (blobs, offset + u64::from(len)))))
    }))
}

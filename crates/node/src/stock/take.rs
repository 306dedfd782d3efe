//! Files taken whole: a release, a blob, or what a place outside has.

use std::sync::Arc;

use commons_port::BoxStream;
use commons_port::hub::{Listing, OriginFile, RepoKind, Source};
use commons_record::catalogue::{
    Derivation, FilePath, NOASSERTION, Relation, ReleaseFile, ReleaseKind, RepoName, Version,
};
use commons_record::{Hash, Millis};
use commons_swarm::fetch::Progress;
use commons_swarm::outside::pull::Policy;
use commons_swarm::policy::Act;
use tokio::sync::{mpsc, watch};

use super::{Stock, active, refusal};
use crate::api::blobs::{BlobEvent, ProgressView, PulledFile, PulledView};
use crate::api::catalogue::{CatalogueApi as _, Judged, ReleaseDraft, ReleaseView};
use crate::api::{Refusal, RefusalCode};
use crate::catalogue;
use crate::outside::{self, OutsidePorts};
use crate::start::Inner;

/// Events that wait for the caller, who reads them or goes.
const EVENTS_LEN: usize = 64;

/// The pin of what the owner pulled: it stays until the owner removes it.
pub(super) const PIN: &str = "owner";

/// A pull to which nobody gives anything for so long is given up.
const PATIENCE: Millis = Millis::from_secs(60);

/// Events no closer than this: a person sees no difference.
const TELL_EVERY: Millis = Millis(200);

/// Pulls what `what` names, and tells how it goes.
pub(super) fn pull(
    inner: Arc<Inner>,
    stock: Arc<Stock>,
    what: String,
) -> BoxStream<'static, BlobEvent> {
    let (tell, events) = mpsc::channel(EVENTS_LEN);
    let task = inner.tasks.clone();
    let work = async move {
        let done = tokio::select! {
            done = run(&inner, &stock, &what, &tell) => done,
            () = tell.closed() => return, // Nobody waits for it any more.
        };
        let last = match done {
            Ok(pulled) => BlobEvent::Pulled(pulled),
            Err(refusal) => BlobEvent::Failed(refusal),
        };
        // Whoever went in this moment hears nothing.
        let _ = tell.send(last).await;
    };
    task.start("take", Box::pin(work));
    Box::pin(futures::stream::unfold(events, async |mut events| {
        let event = events.recv().await?;
        Some((event, events))
    }))
}

/// How places outside begin.
const PLACES: [&str; 4] = ["hf:", "ollama:", "http://", "https://"];

type Tell = mpsc::Sender<BlobEvent>;

async fn run(
    inner: &Arc<Inner>,
    stock: &Arc<Stock>,
    what: &str,
    tell: &Tell,
) -> Result<PulledView, Refusal> {
    let catalogue = catalogue::Handle::new(inner.clone());
    if PLACES.iter().any(|it| what.starts_with(it)) {
        let source: Source = what.parse().map_err(|error| {
            Refusal::new(RefusalCode::InvalidRequest, format!("{what:?} names no place: {error}"))
        })?;
        return from_outside(inner, stock, source, tell).await;
    }
    let named = match what.parse::<Hash>() {
        Ok(_) => catalogue.show(what.to_owned()).await,
        Err(_) => catalogue.resolve(what.to_owned()).await,
    };
    match (named, what.parse::<Hash>()) {
        (Ok(view), _) => release(inner, stock, &view, tell).await,
        (Err(_), Ok(blob)) => one(inner, stock, blob, tell).await,
        (Err(refusal), Err(_)) => Err(refusal),
    }
}

/// All files of a release.
async fn release(
    inner: &Arc<Inner>,
    stock: &Arc<Stock>,
    view: &ReleaseView,
    tell: &Tell,
) -> Result<PulledView, Refusal> {
    if let Some(why) = &view.revoked {
        let sentence = format!("{} does not count: {why}", view.body.name);
        return Err(Refusal::new(RefusalCode::Denied, sentence));
    }
    let catalogue = catalogue::Handle::new(inner.clone());
    catalogue.may(Act::Hold, Judged::Release(view.release)).await?;
    let mut files = Vec::new();
    for file in &view.body.files {
        let wanted = Wanted { path: file.path.to_string(), blob: file.blob, size: file.size };
        files.push(blob(inner, stock, &wanted, tell).await?);
    }
    let name = Some(format!("{}@{}", view.body.name, view.body.version));
    Ok(PulledView { release: Some(view.release), name, files, notes: Vec::new() })
}

/// A blob that no release is known to have: its size is what a release or the store says.
async fn one(
    inner: &Arc<Inner>,
    stock: &Arc<Stock>,
    hash: Hash,
    tell: &Tell,
) -> Result<PulledView, Refusal> {
    let of_release = {
        let held = catalogue::turn(inner).await;
        let held = held.map_err(|it| Refusal::new(RefusalCode::StorageFailed, it.to_string()))?;
        let files = held.catalogue.holders(hash).flat_map(|it| &it.release.files);
        files.filter(|it| it.blob == hash).map(|it| it.size).next()
    };
    let known = stock.ports.blobs.info(hash).await.map_err(|error| refusal(&error))?;
    let Some(size) = of_release.or(known.map(|it| it.size)) else {
        let sentence = format!(
            "no release that is known here has {hash}; `commons search` lists what is published"
        );
        return Err(Refusal::new(RefusalCode::NotFound, sentence));
    };
    let wanted = Wanted { path: hash.to_string(), blob: hash, size };
    let files = vec![blob(inner, stock, &wanted, tell).await?];
    Ok(PulledView { release: None, name: None, files, notes: Vec::new() })
}

struct Wanted {
    path: String,
    blob: Hash,
    size: u64,
}

/// One blob, whole and pinned.
async fn blob(
    inner: &Arc<Inner>,
    stock: &Arc<Stock>,
    wanted: &Wanted,
    tell: &Tell,
) -> Result<PulledFile, Refusal> {
    let Wanted { path, blob, size } = wanted;
    let blobs = &stock.ports.blobs;
    // First of all: what the owner wants is not collected while it comes.
    let pinned = blobs.pin(*blob, PIN.to_owned(), true).await;
    pinned.map_err(|error| refusal(&error))?;
    let info = blobs.info(*blob).await.map_err(|error| refusal(&error))?;
    let before = info.map_or(0, |it| it.pieces_held);
    let mut fetched = 0;
    if !info.is_some_and(|it| it.is_whole() && it.size == *size) {
        fetched = whole(inner, stock, wanted, before, tell).await?;
    }
    stock.news.notify_one();
    Ok(PulledFile { path: path.clone(), blob: *blob, size: *size, fetched })
}

/// Waits until a blob is held whole; the bytes that came.
async fn whole(
    inner: &Arc<Inner>,
    stock: &Arc<Stock>,
    Wanted { path, blob, size }: &Wanted,
    before: u64,
    tell: &Tell,
) -> Result<u64, Refusal> {
    let active = active::ensure(inner, stock, *blob, *size).await?;
    let mut state = active.state.clone();
    let clock = &inner.ports.clock;
    let (mut stalled_since, mut told_at, mut told_banned) = (None, Millis(0), 0);
    loop {
        let now = clock.now();
        let seen = state.borrow_and_update().clone();
        for (peer, reason) in seen.banned.iter().skip(told_banned) {
            let event = BlobEvent::Banned { peer: *peer, reason: reason.clone() };
            let _ = tell.send(event).await;
        }
        told_banned = seen.banned.len();
        match seen.end {
            Some(Ok(())) => {
                let piece = u64::from(commons_port::blobs::PIECE_LEN);
                let held = before.saturating_mul(piece).min(*size);
                let _ = tell.send(progress(path, *size, *size, &seen.progress)).await;
                return Ok(size - held);
            }
            Some(Err(error)) => return Err(refusal(&error)),
            None => {}
        }
        match (&seen.stall, stalled_since) {
            (None, _) => stalled_since = None,
            (Some(_), Some(since)) if now >= PATIENCE.saturating_add(since) => {
                let reason = seen.stall.unwrap_or_default();
                let sentence = format!(
                    "{path} is not whole: {reason}; what came is kept, and the same command goes on"
                );
                return Err(Refusal::new(RefusalCode::Unavailable, sentence));
            }
            (Some(_), Some(_)) => {}
            (Some(reason), None) => {
                stalled_since = Some(now);
                let event = BlobEvent::Stalled { file: path.clone(), reason: reason.clone() };
                let _ = tell.send(event).await;
            }
        }
        if now >= told_at.saturating_add(TELL_EVERY) {
            told_at = now;
            let bytes = bytes_of(&seen.progress, *size);
            // Whoever does not read misses how it goes, never how it ends.
            let _ = tell.try_send(progress(path, bytes, *size, &seen.progress));
        }
        tokio::select! {
            _ = state.changed() => {}
            () = clock.sleep_until(now.saturating_add(Millis::from_secs(1))) => {}
        }
    }
}

fn bytes_of(progress: &Progress, size: u64) -> u64 {
    progress.held.saturating_mul(u64::from(commons_port::blobs::PIECE_LEN)).min(size)
}

fn progress(file: &str, bytes: u64, size: u64, at: &Progress) -> BlobEvent {
    BlobEvent::Progress(ProgressView {
        file: file.to_owned(),
        bytes,
        size,
        bytes_per_s: at.bytes_per_s,
        peers: at.peers,
    })
}

/// Files of a place outside, and a release of them where its licence lets this node publish one.
async fn from_outside(
    inner: &Arc<Inner>,
    stock: &Arc<Stock>,
    source: Source,
    tell: &Tell,
) -> Result<PulledView, Refusal> {
    let listing = stock.ports.origin.list(source.clone()).await.map_err(|error| {
        let code =
            if error.is_temporary() { RefusalCode::Unavailable } else { RefusalCode::NotFound };
        Refusal::new(code, error.to_string())
    })?;
    let mut files = Vec::new();
    for file in &listing.files {
        files.push(outside_file(inner, stock, file, tell).await?);
    }
    let mut view = PulledView { release: None, name: None, files, notes: Vec::new() };
    match draft(&source, &listing, &view.files) {
        Ok(draft) => {
            let name = format!("{}@{}", draft.name, draft.version);
            match catalogue::Handle::new(inner.clone()).publish(draft).await {
                Ok(published) => {
                    (view.release, view.name) = (Some(published.release), Some(name));
                }
                Err(refusal) => view.notes.push(format!("{name} was not published: {refusal}")),
            }
        }
        Err(why) => view.notes.push(format!("it has no name here: {why}")),
    }
    stock.news.notify_one();
    Ok(view)
}

async fn outside_file(
    inner: &Arc<Inner>,
    stock: &Arc<Stock>,
    file: &OriginFile,
    tell: &Tell,
) -> Result<PulledFile, Refusal> {
    let ports = OutsidePorts {
        origin: stock.ports.origin.clone(),
        blobs: stock.ports.blobs.clone(),
        clock: inner.ports.clock.clone(),
        entropy: inner.ports.entropy.clone(),
    };
    let (show, mut seen) = watch::channel(outside::Progress::default());
    let pulling = outside::pull(ports, file.clone(), Policy::default(), show);
    let clock = inner.ports.clock.clone();
    let (mut first, mut last) = (None, (clock.now(), 0_u64));
    let watching = async {
        while seen.changed().await.is_ok() {
            let at = *seen.borrow_and_update();
            first.get_or_insert(at.kept);
            let now = clock.now();
            if now < last.0.saturating_add(TELL_EVERY) {
                continue;
            }
            let elapsed = now.0 - last.0.0;
            let bytes_per_s = at.kept.saturating_sub(last.1).saturating_mul(1000) / elapsed.max(1);
            last = (now, at.kept);
            let event = ProgressView {
                file: file.path.clone(),
                bytes: at.kept,
                size: file.size,
                bytes_per_s,
                peers: 1,
            };
            // Whoever does not read misses how it goes, never how it ends.
            let _ = tell.try_send(BlobEvent::Progress(event));
        }
        std::future::pending().await
    };
    let pulled = tokio::select! {
        pulled = pulling => pulled,
        pulled = watching => pulled,
    };
    let blob = pulled.map_err(|it| Refusal::new(RefusalCode::Unavailable, it.to_string()))?;
    let pinned = stock.ports.blobs.pin(blob, PIN.to_owned(), true).await;
    pinned.map_err(|error| refusal(&error))?;
    let fetched = first.map_or(0, |kept| file.size.saturating_sub(kept));
    Ok(PulledFile { path: file.path.clone(), blob, size: file.size, fetched })
}

/// A release of what a place outside has, as this node saw it there.
fn draft(source: &Source, listing: &Listing, files: &[PulledFile]) -> Result<ReleaseDraft, String> {
    let (kind, name) = match source {
        Source::HuggingFace { kind: RepoKind::Model, repo, .. } => {
            (ReleaseKind::Model, repo.clone())
        }
        Source::HuggingFace { kind: RepoKind::Dataset, repo, .. } => {
            (ReleaseKind::DataSet, repo.clone())
        }
        Source::Ollama { name, .. } if name.contains('/') => (ReleaseKind::Model, name.clone()),
        Source::Ollama { name, .. } => (ReleaseKind::Model, format!("ollama/{name}")),
        Source::Url { .. } => return Err("it is a file without a repository".to_owned()),
    };
    let label = |revision: &str| revision.chars().take(40).collect::<String>();
    let version: Version = match source {
        Source::Ollama { tag: Some(tag), .. } => tag.parse(),
        _ => label(&listing.revision).parse(),
    }
    .map_err(|error| format!("{error}"))?;
    let name: RepoName = name.parse().map_err(|error| format!("{error}"))?;
    let listed = |path: &str| listing.files.iter().find(|it| it.path == path);
    let file = |it: &PulledFile| -> Result<ReleaseFile, String> {
        let path: FilePath = it.path.parse().map_err(|error| format!("{}: {error}", it.path))?;
        let sha256 = match listed(&it.path).and_then(|it| it.digest) {
            Some(commons_port::hub::Digest::Sha256(bytes)) => Some(Hash::from_bytes(bytes)),
            _ => None,
        };
        Ok(ReleaseFile { path, blob: it.blob, size: it.size, sha256, recipe: None })
    };
    let from = |label: &String| Derivation {
        relation: Relation::FineTunedFrom,
        release: None,
        blob: None,
        label: Some(label.clone()),
    };
    Ok(ReleaseDraft {
        kind,
        name,
        version,
        files: files.iter().map(file).collect::<Result<_, _>>()?,
        licence: listing.licence.clone().unwrap_or_else(|| NOASSERTION.to_owned()),
        lineage: listing.base_models.iter().map(from).collect(),
        author: None,
        description: "Taken as it is from a hub outside.".to_owned(),
        tags: Vec::new(),
        previous: None,
    })
}

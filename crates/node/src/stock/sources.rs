//! Peers that may hold a blob: those that are connected, and those that say so to the members.

use std::sync::Arc;

use commons_port::BoxStream;
use commons_record::{Hash, Millis, PeerId};
use commons_swarm::fetch::{Nearness, PEERS_MAX};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use crate::blobs::Source;
use crate::start::Inner;
use crate::tasks::lock;

/// How often they are looked for again: one that came, or whose stream ended, is then tried.
const AGAIN: Millis = Millis::from_secs(5);

/// A search of the table of providers every so many looks.
const SEARCH_EVERY: u32 = 6;

/// The key under which members of a mesh find each other for a blob. It says nothing of the blob to
/// those who do not know its hash.
pub(super) fn key(mesh: &Hash, blob: &Hash) -> Hash {
    Hash::of_fields("commons/provide/1", &[mesh.as_bytes(), blob.as_bytes()])
}

/// Peers as they are found, near ones first, again and again until the stream is dropped.
pub(super) fn find(inner: &Arc<Inner>, blob: Hash) -> BoxStream<'static, Source> {
    let (found, sources) = mpsc::channel(1);
    let task = look(inner.clone(), blob, found);
    inner.tasks.start("sources", Box::pin(task));
    Box::pin(futures::stream::unfold(sources, async |mut sources| {
        let source = sources.recv().await?;
        Some((source, sources))
    }))
}

async fn look(inner: Arc<Inner>, blob: Hash, found: mpsc::Sender<Source>) {
    for round in 0_u32.. {
        for source in connected(&inner) {
            if found.send(source).await.is_err() {
                return;
            }
        }
        if round % SEARCH_EVERY == 0 {
            let mut providers = inner.ports.net.providers(key(&inner.place().mesh(), &blob));
            loop {
                let provider = tokio::select! {
                    provider = providers.next() => provider,
                    () = found.closed() => return,
                };
                let Some(peer) = provider else { break };
                if is_member(&inner, &peer)
                    && found.send(Source { peer, near: nearness(&inner, &peer) }).await.is_err()
                {
                    return;
                }
            }
        }
        let clock = &inner.ports.clock;
        tokio::select! {
            () = clock.sleep_until(clock.now().saturating_add(AGAIN)) => {}
            () = found.closed() => return,
        }
    }
}

/// Members with a connection, near ones first, as many as a pull takes.
pub(super) fn connected(inner: &Inner) -> Vec<Source> {
    let now = inner.ports.clock.now();
    let peers: Vec<PeerId> = {
        let roster = lock(&inner.roster);
        let is_member = |peer: &PeerId| roster.member(now, peer).is_some();
        roster.connections().into_iter().filter(is_member).collect()
    };
    let source = |peer| Source { peer, near: nearness(inner, &peer) };
    let mut sources: Vec<Source> = peers.into_iter().map(source).collect();
    sources.sort_by_key(|it| (it.near, it.peer));
    sources.truncate(PEERS_MAX);
    sources
}

pub(super) fn is_member(inner: &Inner, peer: &PeerId) -> bool {
    lock(&inner.roster).member(inner.ports.clock.now(), peer).is_some()
}

fn nearness(inner: &Inner, peer: &PeerId) -> Nearness {
    if lock(&inner.roster).is_near(peer) { Nearness::Lan } else { Nearness::Wan }
}

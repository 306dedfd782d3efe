//! What is given, and to whom it is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use commons_port::blobs::BlobInfo;
use commons_record::{Hash, Millis, PeerId};
use commons_swarm::policy::Act;
use commons_swarm::wire::{Refusal, RefuseCode};

use super::{Stock, sources};
use crate::blobs::{Rules, SeedPorts, Seeding, protocol};
use crate::catalogue;
use crate::start::Inner;
use crate::tasks::lock;

/// How often all blobs are judged again: rules and lists change without a word to this task.
const AGAIN: Millis = Millis::from_secs(10);

/// Blobs that are listed at once.
const PAGE: usize = 256;

/// Blobs that this node says that it has; the rest is found with those who are connected.
const SAID_MAX: usize = 4_096;

/// Asked again after this, it was judged.
const JUDGED_AFTER: Millis = Millis::from_secs(1);

/// Gives blobs in the present mesh until the task is stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    let Some(stock) = inner.stock.clone() else { return };
    let mesh = inner.place().mesh();
    let ports = SeedPorts {
        net: inner.ports.net.clone(),
        blobs: stock.ports.blobs.clone(),
        clock: inner.ports.clock.clone(),
        spawn: inner.ports.spawn.clone(),
    };
    lock(&stock.judged).clear();
    let rules = Arc::new(MeshRules { inner: Arc::downgrade(&inner), stock: stock.clone() });
    *lock(&stock.seeding) = Some(Seeding::start(ports, rules, protocol(&mesh)));
    let mut said = BTreeSet::new();
    loop {
        if let Err(error) = judge_all(&inner, &stock, &mesh, &mut said).await {
            tracing::warn!(%error, "what is given could not be judged");
        }
        let clock = &inner.ports.clock;
        tokio::select! {
            () = clock.sleep_until(clock.now().saturating_add(AGAIN)) => {}
            () = stock.news.notified() => {}
        }
    }
}

async fn judge_all(
    inner: &Inner,
    stock: &Stock,
    mesh: &Hash,
    said: &mut BTreeSet<Hash>,
) -> Result<(), String> {
    let mut judged = BTreeMap::new();
    let mut whole = BTreeSet::new();
    let mut after = None;
    loop {
        let page = stock.ports.blobs.list(after, PAGE).await.map_err(|error| error.to_string())?;
        let Some(last) = page.last() else { break };
        after = Some(last.blob);
        let held = catalogue::turn(inner).await.map_err(|error| error.to_string())?;
        for BlobInfo { blob, size, .. } in &page {
            let verdict = catalogue::judge_blob(&held, Act::Seed, *blob, *size);
            judged.insert(*blob, verdict.map_err(|denial| denial.to_string()));
        }
        let is_said = |it: &&BlobInfo| it.is_whole() && judged.get(&it.blob) == Some(&Ok(()));
        whole.extend(page.iter().filter(is_said).map(|it| it.blob));
    }
    *lock(&stock.judged) = judged;
    while whole.len() > SAID_MAX {
        whole.pop_last();
    }
    for (blob, is_on) in whole
        .difference(said)
        .map(|blob| (*blob, true))
        .chain(said.difference(&whole).map(|blob| (*blob, false)))
        .collect::<Vec<_>>()
    {
        match inner.ports.net.provide(sources::key(mesh, &blob), is_on).await {
            Ok(()) if is_on => said.insert(blob),
            Ok(()) => said.remove(&blob),
            Err(error) => {
                tracing::debug!(%error, "members were not told of a blob");
                break; // Without a network there is nobody to tell.
            }
        };
    }
    Ok(())
}

/// Why a blob is not given; `None` if it is.
pub(super) fn kept_back(stock: &Stock, blob: &Hash) -> Option<String> {
    match lock(&stock.judged).get(blob) {
        Some(Ok(())) => None,
        Some(Err(rule)) => Some(rule.clone()),
        None => Some("it was not judged yet".to_owned()),
    }
}

/// The owner's rules, as they were judged last.
struct MeshRules {
    inner: Weak<Inner>,
    stock: Arc<Stock>,
}

impl Rules for MeshRules {
    fn admits(&self, peer: &PeerId) -> bool {
        self.inner.upgrade().is_some_and(|inner| sources::is_member(&inner, peer))
    }

    fn gives(&self, _peer: &PeerId, blob: &Hash) -> Result<(), Refusal> {
        match lock(&self.stock.judged).get(blob) {
            Some(Ok(())) => Ok(()),
            Some(Err(rule)) => Err(Refusal::new(RefuseCode::Policy, rule)),
            None => {
                self.stock.news.notify_one();
                let sentence = "it is not held here, or was not judged yet";
                Err(Refusal::new(RefuseCode::NotHeld, sentence).retry_after(JUDGED_AFTER))
            }
        }
    }

    fn is_pulling(&self, blob: &Hash) -> bool {
        lock(&self.stock.pulls).get(blob).is_some_and(|it| it.strong_count() > 0)
    }
}

//! The pulls under way: one for each blob, however many wait for it.

use std::ops::Range;
use std::sync::{Arc, Weak};

use commons_port::blobs::BlobError;
use commons_port::time::draw;
use commons_record::{Hash, PeerId};
use commons_swarm::fetch::Progress;
use tokio::sync::{mpsc, watch};

use super::{Stock, sources};
use crate::api::catalogue::{CatalogueApi as _, Judged};
use crate::api::{Refusal, RefusalCode};
use crate::blobs::{Pull, PullEvent, PullPorts, PullSpec, protocol, pull};
use crate::catalogue;
use crate::start::Inner;
use crate::tasks::lock;
use commons_swarm::policy::Act;

/// Pulls at once. Each holds a bitmap and a few streams; what they have in memory is one budget.
const PULLS_MAX: usize = 64;

/// How a pull stands, for all who wait for it.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) progress: Progress,
    /// Why nothing comes now.
    pub(super) stall: Option<String>,
    /// Peers that lied.
    pub(super) banned: Vec<(PeerId, String)>,
    /// How it ended.
    pub(super) end: Option<Result<(), BlobError>>,
}

/// A pull under way. It ends when the last of these is dropped.
pub(super) struct Active {
    pub(super) state: watch::Receiver<State>,
    prefer: mpsc::Sender<Vec<Range<u64>>>,
}

impl Active {
    /// A reader waits for these pieces. What another one waits for is replaced: the last that asks
    /// is served first, and all of them ask again.
    pub(super) fn prefer(&self, pieces: Range<u64>) {
        // One that is full is being heard.
        let _ = self.prefer.try_send(vec![pieces]);
    }
}

/// The pull of a blob, which begins if there is none.
pub(super) async fn ensure(
    inner: &Arc<Inner>,
    stock: &Arc<Stock>,
    blob: Hash,
    size: u64,
) -> Result<Arc<Active>, Refusal> {
    let judged = Judged::Blob { blob, size };
    catalogue::Handle::new(inner.clone()).may(Act::Hold, judged).await?;
    let mut pulls = lock(&stock.pulls);
    pulls.retain(|_, it| it.strong_count() > 0);
    if let Some(active) = pulls.get(&blob).and_then(Weak::upgrade) {
        return Ok(active);
    }
    if pulls.len() >= PULLS_MAX {
        let sentence = format!("{PULLS_MAX} pulls are under way; wait for one of them to end");
        return Err(Refusal::new(RefusalCode::Overloaded, sentence));
    }
    let ports = PullPorts {
        net: inner.ports.net.clone(),
        blobs: stock.ports.blobs.clone(),
        clock: inner.ports.clock.clone(),
        spawn: inner.ports.spawn.clone(),
        budget: stock.budget.clone(),
    };
    let spec = PullSpec {
        blob,
        size,
        seed: u64::from_le_bytes(draw::<8>(&*inner.ports.entropy)),
        sources: sources::find(inner, blob),
        protocols: protocol(&inner.place().mesh()),
    };
    let (prefer, preferred) = mpsc::channel(1);
    let (tell, state) = watch::channel(State::default());
    let active = Arc::new(Active { state, prefer });
    pulls.insert(blob, Arc::downgrade(&active));
    let drive = drive(stock.clone(), blob, pull(ports, spec), preferred, tell);
    inner.tasks.start("pull", Box::pin(drive));
    Ok(active)
}

/// Carries events to all who wait, until the pull ends or nobody does.
async fn drive(
    stock: Arc<Stock>,
    blob: Hash,
    mut pull: Pull,
    mut preferred: mpsc::Receiver<Vec<Range<u64>>>,
    tell: watch::Sender<State>,
) {
    let mut wanted: Option<Vec<Range<u64>>> = None;
    loop {
        if let Some(pieces) = wanted.take()
            && !pull.try_prefer(&pieces)
        {
            wanted = Some(pieces);
        }
        let event = tokio::select! {
            pieces = preferred.recv() => match pieces {
                Some(pieces) => {
                    wanted = Some(pieces);
                    continue;
                }
                None => return,
            },
            event = pull.next() => event,
        };
        let is_over = event.is_none_or(|event| take_in(&stock, blob, event, &tell));
        if is_over {
            end(&tell, Err(BlobError::Disk { detail: "the pull was ended".to_owned() }));
            lock(&stock.pulls).remove(&blob);
            return;
        }
    }
}

/// Tells all who wait what happened; whether it was the last.
fn take_in(stock: &Stock, blob: Hash, event: PullEvent, tell: &watch::Sender<State>) -> bool {
    match event {
        PullEvent::Held { piece, progress } => {
            if let Some(seeding) = &*lock(&stock.seeding) {
                seeding.have(blob, piece);
            }
            tell.send_modify(|state| state.progress = progress);
        }
        PullEvent::Banned { peer, evidence } => {
            let reason = format!("{evidence:?}");
            tracing::warn!(%peer, %blob, %reason, "a peer is banned from a pull");
            tell.send_modify(|state| state.banned.push((peer, reason)));
        }
        PullEvent::Stalled(stall) => {
            tell.send_modify(|state| state.stall = Some(stall.to_string()));
        }
        PullEvent::Going => tell.send_modify(|state| state.stall = None),
        PullEvent::Done => {
            stock.news.notify_one();
            end(tell, Ok(()));
            return true;
        }
        PullEvent::Failed(error) => {
            end(tell, Err(error));
            return true;
        }
    }
    false
}

/// The first end counts.
fn end(tell: &watch::Sender<State>, how: Result<(), BlobError>) {
    tell.send_if_modified(|state| {
        let is_first = state.end.is_none();
        state.end.get_or_insert(how);
        is_first
    });
}

//! A sequence of the engine process, as its caller holds it.

use std::sync::Arc;

use commons_port::BoxFuture;
use commons_port::engine::{EngineEvent, EngineRefusal, EngineRequest, Sequence};
use commons_port::process::{CallId, EVENTS_AHEAD};
use commons_record::seed::Seed32;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::calls::Begun;
use crate::tasks::lock;

/// Events that are read before the process is told: half a window, so that it never waits for a
/// caller that reads.
const TOLD_EVERY: u32 = EVENTS_AHEAD / 2;

/// The caller's end. Dropping it cancels the work.
pub(super) struct Remote {
    shared: Arc<Shared>,
    id: CallId,
    events: mpsc::Receiver<EngineEvent>,
    /// Events that were read and not told.
    read: u32,
    is_over: bool,
}

/// Whether the process took a sequence.
pub(super) type Started = oneshot::Receiver<Result<(), EngineRefusal>>;

impl Remote {
    pub(super) fn start(
        shared: &Arc<Shared>,
        request: EngineRequest,
    ) -> Result<(Self, Started), EngineRefusal> {
        let Begun { id, events, started } = lock(&shared.calls).start(request)?;
        shared.bell.notify_one();
        let shared = Arc::clone(shared);
        Ok((Self { shared, id, events, read: 0, is_over: false }, started))
    }
}

impl Sequence for Remote {
    fn reveal(&mut self, seed: Seed32) {
        lock(&self.shared.calls).reveal(self.id, seed);
        self.shared.bell.notify_one();
    }

    fn next(&mut self) -> BoxFuture<'_, Option<EngineEvent>> {
        Box::pin(async {
            if self.is_over {
                return None;
            }
            let event = self.events.recv().await;
            self.is_over =
                matches!(event, None | Some(EngineEvent::Finished { .. } | EngineEvent::Failed(_)));
            self.read += 1;
            if self.read >= TOLD_EVERY && !self.is_over {
                lock(&self.shared.calls).read(self.id, self.read);
                self.shared.bell.notify_one();
                self.read = 0;
            }
            event
        })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        lock(&self.shared.calls).cancel(self.id);
        self.shared.bell.notify_one();
    }
}

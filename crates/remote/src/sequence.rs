//! One answer under way: a task that owns the connection, and the queue out of it.
//!
//! The seed that is revealed later is not used: a foreign sampler takes none of ours.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use commons_port::BoxFuture;
use commons_port::engine::{EngineEvent, Sequence};
use commons_port::time::TaskHandle;
use commons_record::Millis;
use commons_record::seed::Seed32;
use commons_record::settlement::EndReason;
use hyper::Method;
use tokio::sync::mpsc::{Receiver, Sender};

use crate::answer::{Answer, Asked, Progress};
use crate::ask::Ask;
use crate::fault::{Fault, words};
use crate::http::Reply;
use crate::sse::{Event, Parser};
use crate::watch::Shared;

/// Events that wait for their reader; then the connection waits, and the server with it.
pub(crate) const EVENTS_MAX: usize = 64;

/// A place among the answers under way.
pub(crate) struct Place(Arc<Shared>);

impl Place {
    /// A place, unless all are taken.
    pub(crate) fn take(shared: &Arc<Shared>) -> Option<Self> {
        let max = shared.http.limits().answers_max;
        let more = |count: u32| (count < max).then_some(count + 1);
        shared.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(shared)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A foreign answer. Dropping it stops the task, and with it the connection.
pub(crate) struct RemoteSequence {
    events: Receiver<EngineEvent>,
    _task: TaskHandle,
}

impl RemoteSequence {
    pub(crate) fn new(events: Receiver<EngineEvent>, task: TaskHandle) -> Self {
        Self { events, _task: task }
    }
}

impl Sequence for RemoteSequence {
    fn reveal(&mut self, _seed: Seed32) {}

    fn next(&mut self) -> BoxFuture<'_, Option<EngineEvent>> {
        Box::pin(self.events.recv())
    }
}

/// Everything that a task needs.
pub(crate) struct Work {
    pub(crate) place: Place,
    pub(crate) ask: Ask,
    pub(crate) asked: Asked,
    pub(crate) events: Sender<EngineEvent>,
}

/// Nobody reads any more.
struct Gone;

enum Stop {
    Fault(Fault),
    Gone,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Work {
    /// Runs to the end of the answer, whatever that is.
    pub(crate) async fn run(self) {
        let shared = Arc::clone(&self.place.0);
        let started = shared.clock.now();
        let total = shared.http.limits().total;
        let (place, events) = (self.place, self.events);
        let mut course =
            Course { shared: &shared, answer: Answer::new(self.asked), events: &events };
        let deadline = started.saturating_add(total);
        let ended = tokio::select! {
            biased;
            ended = course.run(self.ask) => ended,
            () = shared.clock.sleep_until(deadline) => Err(Fault::TooSlow { waited: total.0 }.into()),
        };
        let label = shared.label();
        if let Some(lie) = course.answer.lie() {
            tracing::warn!(server = label, claim = lie, "a foreign engine's count is not believed");
        }
        // The connection is closed already, and the place is free before the last word is heard.
        drop(place);
        let last = match ended {
            Ok(reason) => {
                let compute_ms = Millis(shared.clock.now().since(started).0);
                EngineEvent::Finished { reason, text: String::new(), compute_ms }
            }
            Err(Stop::Fault(fault)) => {
                if fault.is_absence() {
                    shared.wake.notify_one();
                }
                let refusal = shared.refusal(&fault);
                tracing::info!(reason = refusal.message, "a foreign engine failed an answer");
                EngineEvent::Failed(refusal)
            }
            Err(Stop::Gone) => return,
        };
        let _ = events.send(last).await; // Whoever went away needs no last word.
    }
}

struct Course<'a> {
    shared: &'a Shared,
    answer: Answer,
    events: &'a Sender<EngineEvent>,
}

impl Course<'_> {
    async fn run(&mut self, ask: Ask) -> Result<EndReason, Stop> {
        let http = &self.shared.http;
        let first_byte = http.limits().first_byte;
        let mut reply = http.send(Method::POST, ask.route, ask.body, first_byte).await?;
        if reply.status != 200 {
            return Err(http.refused(&mut reply).await.into());
        }
        let media = reply.media_type();
        if media != "text/event-stream" {
            return Err(Fault::NotEvents { found: words(&media, http.key()) }.into());
        }
        self.shared.hear();
        self.read(reply).await
    }

    async fn read(&mut self, mut reply: Reply) -> Result<EndReason, Stop> {
        let idle = self.shared.http.limits().idle;
        let late = || Fault::Idle { waited: idle.0 };
        let mut parser = Parser::default();
        loop {
            let mut told = Vec::new();
            // Until a line has ended: bytes alone are no sign of life.
            let listening = async {
                while told.is_empty() {
                    let Some(bytes) = reply.chunk().await? else { return Ok((true, Ok(()))) };
                    let read = parser.push(&bytes, &mut told);
                    if read.is_err() {
                        return Ok((false, read));
                    }
                }
                Ok((false, Ok(())))
            };
            let (is_over, read) = self.shared.http.within(idle, late(), listening).await?;
            self.shared.hear();
            for event in told {
                if let Event::Data(data) = event
                    && let Progress::Done(reason) = self.tell(&data).await?
                {
                    return Ok(reason); // Whatever follows is not read.
                }
            }
            read.map_err(Fault::from)?;
            if is_over {
                return Err(Fault::EndedEarly.into());
            }
        }
    }

    async fn tell(&mut self, data: &str) -> Result<Progress, Stop> {
        let mut out = Vec::new();
        let progress = self.answer.data(data, &mut out);
        for event in out {
            self.events.send(event).await.map_err(|_| Gone)?;
        }
        Ok(progress?)
    }
}

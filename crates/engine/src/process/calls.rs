//! One call of the node, from its question to its last word.

use std::pin::pin;

use commons_port::engine::{EngineEvent, EngineRefusal, EngineRefusalCode, Sequence};
use commons_port::process::{Answer, Ask, CallId, EVENTS_AHEAD, FromEngine};
use commons_record::seed::Seed32;
use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::future::{Either, select};

use super::pipes::{Outbox, refused};
use super::rooms::{Done, Rooms};

/// Messages for one call that wait: a seed, a wish to end, and what was read of a window in halves.
pub(super) const CONTROLS_MAX: usize = 16;

/// What the node says about a call after its question.
#[derive(Debug, Clone, Copy)]
pub(super) enum Control {
    Reveal(Seed32),
    Read(u32),
    Cancel,
}

/// Runs a call to its last word, and returns its name.
pub(super) async fn call(
    id: CallId,
    ask: Ask,
    mut controls: mpsc::Receiver<Control>,
    mut outbox: Outbox,
    rooms: Rooms,
) -> CallId {
    let mut early = Early::default();
    let asked = early.until_cancelled(&mut controls, rooms.ask(ask)).await;
    let last = match asked {
        None => FromEngine::Over { call: id },
        Some(Err(refusal)) => refused(id, refusal),
        Some(Ok(Done::Answer(answer))) => FromEngine::Answer { call: id, answer: Ok(answer) },
        Some(Ok(Done::Soon(soon))) => match early.until_cancelled(&mut controls, soon).await {
            None => FromEngine::Over { call: id },
            Some(answer) => FromEngine::Answer { call: id, answer },
        },
        Some(Ok(Done::Sequence(mut sequence))) => {
            let answer = Ok(Box::new(Answer::Started));
            outbox.send(&FromEngine::Answer { call: id, answer }).await;
            if let Some(seed) = early.seed {
                sequence.reveal(seed);
            }
            play(id, sequence, &mut controls, &mut outbox).await
        }
    };
    outbox.send(&last).await;
    id
}

/// What was said before there was a sequence to say it to.
#[derive(Debug, Default)]
struct Early {
    seed: Option<Seed32>,
}

impl Early {
    /// The result of `work`, or none if the call was cancelled before.
    async fn until_cancelled<T>(
        &mut self,
        controls: &mut mpsc::Receiver<Control>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        loop {
            match select(controls.next(), work.as_mut()).await {
                Either::Right((done, _)) => return Some(done),
                Either::Left((Some(Control::Reveal(seed)), _)) => self.seed = Some(seed),
                Either::Left((Some(Control::Read(_)), _)) => {} // There was nothing to read.
                Either::Left((Some(Control::Cancel) | None, _)) => return None,
            }
        }
    }
}

/// Passes on what a sequence says, as fast as it is read.
async fn play(
    call: CallId,
    mut sequence: Box<dyn Sequence>,
    controls: &mut mpsc::Receiver<Control>,
    outbox: &mut Outbox,
) -> FromEngine {
    let mut room = EVENTS_AHEAD;
    loop {
        let step = {
            let event = async {
                match room {
                    0 => std::future::pending().await,
                    _ => sequence.next().await,
                }
            };
            match select(controls.next(), pin!(event)).await {
                Either::Left((control, _)) => Either::Left(control),
                Either::Right((event, _)) => Either::Right(event),
            }
        };
        match step {
            Either::Left(Some(Control::Reveal(seed))) => sequence.reveal(seed),
            // A node that says more than it was sent gains nothing.
            Either::Left(Some(Control::Read(count))) => {
                room = room.saturating_add(count).min(EVENTS_AHEAD);
            }
            Either::Left(Some(Control::Cancel) | None) => return FromEngine::Over { call },
            Either::Right(Some(event)) => {
                room -= 1;
                let is_last =
                    matches!(event, EngineEvent::Finished { .. } | EngineEvent::Failed(_));
                let event = FromEngine::Event { call, event };
                if is_last {
                    return event;
                }
                outbox.send(&event).await;
            }
            Either::Right(None) => {
                let message = "the engine ended without a last word".to_owned();
                let refusal = EngineRefusal { code: EngineRefusalCode::Failed, message };
                return FromEngine::Event { call, event: EngineEvent::Failed(refusal) };
            }
        }
    }
}
